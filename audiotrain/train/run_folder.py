"""Run folders: their contents, how a run ended, and a lock that lets one run at a time write."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write_json

# What a run folder, or a folder of folds or rounds, holds once it began.
BEGUN = ("checkpoints", "metrics.csv", "metrics.json", "folds.json", "rounds.json")
STATUS = "status.json"  # how far the run is, and how it ended
STATES = ("running", "finished", "stopped", "failed")  # stopped: by Ctrl-C or SIGTERM
SECONDS_FOR_LOCK = 0.2  # that another process may hold it only to look


def begun(folder: Path) -> str | None:
    """The file that shows that a run in `folder` has begun, None when it has not."""
    return next((name for name in BEGUN if holds(folder / name)), None)


def holds(path: Path) -> bool:
    """Whether there is a file, or a folder with something in it."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def trained_in(folder: Path) -> bool:
    """Return whether a training left checkpoints or rows of its numbers in `folder`; those of an
    evaluation alone do not count."""
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(one.name[0] != "." for one in checkpoints.iterdir()):
        return True
    try:
        with open(folder / "metrics.csv", encoding="utf-8", errors="replace") as file:
            return "learning_rate" in file.readline().rstrip("\n").split(",")
    except OSError:
        return False


def folder_of_new_run(root: Path) -> Path:
    """Return `root` unless a training is in it, else root/run-2, root/run-3 and so on."""
    folder, number = root, 1
    while trained_in(folder):
        number += 1
        folder = root / f"run-{number}"
    return folder


def runs_in(root: Path) -> list[Path]:
    """Return the folders that `folder_of_new_run` gave out, `root` first."""
    return [root, *(path for path in root.glob("run-*") if path.is_dir())]


@contextlib.contextmanager
def status_kept(folder: Path | None, step: Callable[[], int]) -> Iterator[None]:
    """Write status.json of a run that is inside the block, and how it ended; nothing for None.

    A run whose process was killed stays "running"; `is_held` tells it from one that runs.
    """
    if folder is None:
        yield
        return
    write_json(folder / STATUS, {"state": "running", "step": step()})
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else None
        by_signal = isinstance(code, int) and code > 128
        stopped = isinstance(error, KeyboardInterrupt) or by_signal
        status = {"state": "stopped" if stopped else "failed", "step": step()}
        if not stopped:
            lines = str(error).strip().splitlines()
            status["error"] = ": ".join([type(error).__name__, *lines[:1]])
        with contextlib.suppress(UserError):  # a disk that is full, perhaps the error itself
            write_json(folder / STATUS, status)
        raise
    write_json(folder / STATUS, {"state": "finished", "step": step()})


def is_held(folder: Path) -> bool:
    """Return whether a process trains in `folder` now."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def refuse_results(folder: Path | None, overwrite: bool) -> None:
    """ValueError when a folder that is named for scores has a run in it, or scores that may not be
    replaced."""
    if folder is None:
        return
    if holds(folder / "checkpoints"):
        raise UserError(f"--output {folder}: holds a run, expected a folder for scores alone")
    if (folder / "metrics.json").exists() and not overwrite:
        raise UserError(f"--output {folder}: holds metrics.json already; --overwrite replaces it")


def evaluation_name(data: Path, split: str | None) -> str:
    """The name of the folder in a run for what it scores on data, or on a part of a split of them.

    >>> evaluation_name(Path("clips/songs.csv"), "test")
    'evaluation-songs-test'
    """
    data = data.resolve()
    name = data.name if data.is_dir() else data.stem
    return f"evaluation-{name}" + (f"-{split}" if split else "")


@contextlib.contextmanager
def only_run_in(folders: Mapping[Path, str]) -> Iterator[None]:
    """Hold `folders`, each with the setting that named it, inside the block; ValueError when
    another run holds one.

    The system lets go of them when the process ends, however that happens. Folders that are made
    here, those around them, too, and are left empty go again.
    """
    all_of_them = {place for folder in folders for place in (folder, *folder.parents)}
    made = [place for place in all_of_them if not os.path.lexists(place)]
    with contextlib.ExitStack() as held:
        held.callback(_remove_empty, made)
        for folder, setting in folders.items():
            held.callback(os.close, _locked(folder, setting))
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def _locked(folder: Path, setting: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        handle = os.open(folder, os.O_RDONLY)
    except FileExistsError:
        raise UserError(f"{setting} {folder}: is a file, expected a folder") from None
    except OSError as error:
        raise UserError(f"{setting} {folder}: cannot write ({error.strerror})") from None
    until = time.monotonic() + SECONDS_FOR_LOCK
    while not _lock(handle):
        if time.monotonic() > until:
            os.close(handle)
            raise UserError(
                f"{setting} {folder}: another run is writing here, give each a folder of its own"
            )
        time.sleep(0.02)
    if not os.fstat(handle).st_nlink:  # another run left it empty, and removed it, meanwhile
        os.close(handle)
        return _locked(folder, setting)
    return handle


def _lock(handle: int) -> bool:
    """Whether the folder is held now, or its file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
