"""One run at a time in a run folder: two would tear each other's tables and checkpoints."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# What a run folder, or a folder of folds or rounds, holds once it began.
BEGUN = ("checkpoints", "metrics.csv", "metrics.json", "folds.json", "rounds.json")


def begun(folder: Path) -> str | None:
    """What says that a run in `folder` has begun, None when nothing does."""
    return next((name for name in BEGUN if (folder / name).exists()), None)


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder` inside the block; ValueError when another run holds it.

    The system lets go of it when the process ends, however that happens.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"default_root_dir {folder}: cannot write ({error.strerror})") from None
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"default_root_dir {folder}: another run is writing here, give each a folder of its own"
        ) from None
    except OSError:  # a file system without locks
        pass
