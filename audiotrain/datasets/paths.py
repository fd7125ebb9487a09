"""The files of a data folder by their names: paths relative to it, with `/` between the parts."""

import itertools
import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from audiotrain.datasets import webdataset
from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AUDIO_SUFFIXES, FORMATS
from audiotrain.utils.errors import UserError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "train_set", "training_set", "development"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "validation_set"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "test_set"), "test"),
}
# Suffixes of sound that no decoder here reads, or that is protected.
OTHER_AUDIO_SUFFIXES = (
    *(".aa", ".aax", ".m4p", ".ra", ".ram", ".rm", ".dff", ".shn", ".gsm", ".ogv", ".vob"),
    *(".mod", ".xm", ".it", ".s3m", ".aup", ".aup3", ".asd", ".sd2", ".ptx"),
)


def walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, through links but never twice; hidden ones left out."""
    seen = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        above = relative(Path(current), folder)
        prefix = "" if above == "." else f"{above}/"
        for name in files:
            if not name.startswith("."):
                yield prefix + name


def relative(path: Path, folder: Path) -> str:
    """The name of a file of a folder."""
    return Path(os.path.relpath(path, folder)).as_posix()


def one_form(name: str) -> str:
    """Return a name with composed characters (NFC): macOS has them in parts, tables as a whole."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """The name without what follows its last dot."""
    return str(PurePosixPath(name).with_suffix(""))


def split_folders(names: Iterable[str]) -> dict[str, str]:
    """Split by name, where folders at one depth are called train, test and the like."""
    by_depth: dict[int, dict[str, str]] = defaultdict(dict)
    for name in names:
        for depth, folder in enumerate(PurePosixPath(name).parts[:-1]):
            if folder.lower() in SPLIT_NAMES:
                by_depth[depth][name] = SPLIT_NAMES[folder.lower()]
    for splits in by_depth.values():
        if len(set(splits.values())) > 1:  # one folder called Train may be the band
            return splits
    return {}


def split_files(names: Iterable[str]) -> dict[str, str]:
    """Split by name of file, where names have a word such as train and test in them.

    >>> split_files(["captions_train.csv", "a/captions_test.csv", "more.csv"])
    {'captions_train.csv': 'train', 'a/captions_test.csv': 'test'}
    >>> split_files(["test.csv"])
    {}
    """
    by_name: dict[str, str] = {}
    for name in names:
        words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
        splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(splits) == 1:
            by_name[name] = splits.pop()
    return by_name if len(set(by_name.values())) > 1 else {}


class Finder:
    """Recordings as a table names them: by path from the table or the folder, else by the end of
    the path, as of a folder on another machine, with the suffix or without.

    `songs` are known names; a file elsewhere is found by its path if it has one of `suffixes`.
    """

    def __init__(
        self, folder: Path, base: PurePosixPath, songs: Iterable[str], suffixes: tuple[str, ...]
    ):
        self.folder, self.base, self.suffixes = folder, base, suffixes
        self.songs = {one_form(song): song for song in sorted(songs)}
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for form in self.songs:
            path = PurePosixPath(form)
            for key in {path.name, path.stem}:
                self.by_name[key].append(form)

    def __call__(self, name: str) -> str | None:
        """Return the only recording that a name fits, or None."""
        fitting = self.fitting(name)
        return fitting[0] if len(fitting) == 1 else None

    def fitting(self, name: str) -> list[str]:
        """Return the recordings that a name fits: the file of its path, or those whose paths have
        the longest end of it."""
        if (found := self.at(name)) is not None:
            return [found]
        parts = PurePosixPath(one_form(name.replace("\\", "/"))).parts
        names = self.by_name.get(parts[-1], ()) if parts else ()

        def common(form: str) -> int:
            above = zip(parts[-2::-1], PurePosixPath(form).parts[-2::-1], strict=False)
            return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], above))

        lengths = [common(form) for form in names]
        return [
            self.songs[form]
            for form, length in zip(names, lengths, strict=True)
            if length == max(lengths)
        ]

    def at(self, name: str) -> str | None:
        """Return the recording at a path from the table or the folder."""
        for form in dict.fromkeys((one_form(name.replace("\\", "/")), name.replace("\\", "/"))):
            for base in (self.base, PurePosixPath()):
                found = one_form(posixpath.normpath(base / form))
                if found in self.songs:
                    return self.songs[found]
                path = self.folder / base / form
                # Not by Path.is_file, which raises for a name that is too long.
                if path.suffix.lower() in self.suffixes and os.path.isfile(path):
                    return relative(path, self.folder)
        return None


def recordings(path: Path, problems: list[str]) -> list[Clip]:
    """Clips of a folder, a tar or one recording, in the order of their names, which are relative to
    the folder. `problems` gets what can't be read of tars; ValueError when there is no clip.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    clips = []
    for name in sorted(walk(path)) if path.is_dir() else [path.name]:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in webdataset.TAR_SUFFIXES:
            for members in webdataset.samples(folder / name, problems).values():
                member = webdataset.audio_of(members)
                if member is not None:
                    clips.append(Clip(_text(f"{name}/{member.name}"), member, ()))
        elif suffix in AUDIO_SUFFIXES or not path.is_dir():
            clips.append(Clip(_text(name), folder / name, ()))
    if not clips:
        first = f" ({problems[0]})" if problems else ""
        raise UserError(f"{path}: no audio in it, expected {FORMATS}{first}")
    return clips


def _text(name: str) -> str:
    """A name that can be written, also where the file system has one that is not text."""
    return name.encode("utf-8", "replace").decode()
