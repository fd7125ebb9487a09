"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from audiotrain.backend import (
    blas,
    streams,  # before any test imports MLX: they load the BLAS
)

# The same draws everywhere; `--hypothesis-profile explore` looks for others.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("explore")
hypothesis.settings.load_profile("same")
os.environ.setdefault("MLX_BFS_MAX_WIDTH", "20")  # MLX's own, whatever recipes run first

# Ctrl-C is sent to commands that tests start; a shell that starts pytest in the background has it
# ignored, also in what pytest starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
