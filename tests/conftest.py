"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from audiotrain.backend import (
    blas,
    kernel_rewriter,
    streams,  # before any test imports MLX: they load the BLAS
)
from audiotrain.utils.cores import available_cores

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
