"""Fixtures that several test files share."""

import builtins
import os
import signal
from pathlib import Path

import hypothesis
import matplotlib
import pytest

from audiotrain.backend import (
    blas,
    kernel_rewriter,
    streams,  # before any test imports MLX: they load the BLAS
)
from audiotrain.utils.cores import available_cores

# isort: split
import mlx.core as mx

# The same draws everywhere; `--hypothesis-profile explore` looks for others. A busy machine may be
# slow in an example.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("same")
os.environ.setdefault("MLX_BFS_MAX_WIDTH", "20")  # MLX's own, whatever recipes run first
# Kernels are compiled the same way whether or not a command ran before, in less than half the time,
# and two processes may compile the same one at once.
kernel_rewriter.install()

# Ctrl-C is sent to commands that tests start; a shell that starts pytest in the background has it
# ignored, also in what pytest starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a process for each core, four at most, since each imports and collects for itself
    and needs 1 GB."""
    return min(4, available_cores())


def pytest_configure(config: pytest.Config) -> None:
    """A cache of Numba's for each process of pytest-xdist. Two processes that compile one function
    of librosa for different types at once leave a cache that crashes whoever loads it. Few
    optimisations, since compiling takes longer than the functions do."""
    process = os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ.setdefault("NUMBA_OPT", "1")
    os.environ["NUMBA_CACHE_DIR"] = str(config.rootpath / ".pytest_cache" / f"numba-{process}")


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Name the seed of pytest-randomly's order, which gives the same one again."""
    seed = getattr(config.option, "randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"tests in random order, again by --randomly-seed={seed}")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """An empty home folder, where commands keep what they cache; matplotlib keeps its fonts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def same_in_any_order(monkeypatch):
    """What a test computes does not depend on those before it: MLX's random numbers, and what a
    command set for this process. Processes of pytest-xdist share the cores. A doctest leaves its
    last value as `_` of builtins, whose values tyro hashes when it is imported."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    vars(builtins).pop("_", None)
    mx.random.seed(0)
    monkeypatch.setattr(streams, "_count", None)
    blas.use_threads(max(1, blas.cores() // processes))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and annotations; the project does not ship it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA} (expected beside the checkout)")
    return SHARED_DATA


@pytest.fixture
def cut(monkeypatch):
    """`cut(3)`: batches, however small, are cut into parts for so many streams from then on."""

    def with_streams(count: int) -> None:
        monkeypatch.setattr(streams, "MIN_BATCH_SIZE", 1)
        monkeypatch.setattr(streams, "_count", count)
        monkeypatch.setenv(streams.WIDTH, str(streams.WIDE))
        monkeypatch.setattr(streams, "_OF_THREAD", streams.threading.local())

    yield with_streams
    blas.use_threads(blas.cores())
