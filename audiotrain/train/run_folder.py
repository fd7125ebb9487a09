"""Run folders: their contents, and a lock that lets one run at a time write."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from audiotrain.utils.errors import UserError

# What a run folder, or a folder of folds or rounds, holds once it began.
BEGUN = ("checkpoints", "metrics.csv", "metrics.json", "folds.json", "rounds.json")


def begun(folder: Path) -> str | None:
    """The file that shows that a run in `folder` has begun, None when it has not."""
    return next((name for name in BEGUN if holds(folder / name)), None)


def holds(path: Path) -> bool:
    """Whether there is a file, or a folder with something in it."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


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
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"{setting} {folder}: another run is writing here, give each a folder of its own"
        ) from None
    except OSError:  # a file system without locks
        pass
    if not os.fstat(handle).st_nlink:  # another run left it empty, and removed it, meanwhile
        os.close(handle)
        return _locked(folder, setting)
    return handle
