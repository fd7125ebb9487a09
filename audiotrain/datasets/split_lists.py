"""Lists of names that split a folder: train.txt, valid.txt and test.txt, a name a line.

A name is a path from the list or from the folder, or its end, with the suffix or without; of a
recording, of its label file or of a folder.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from audiotrain.datasets.items import Problem
from audiotrain.datasets.paths import SPLIT_NAMES, Finder, one_form, without_suffix
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_text

LIST_SUFFIXES = (".txt", ".lst", ".list")
UNUSED_NAMES = "lines of a list of names not used"
# Words beside the split in the name of a list, such as validation_list.txt.
_WORDS = "list lists file files filename filenames name names id ids set split songs clips tracks"


class SplitLists(NamedTuple):
    """`files` are the lists by name with their splits, `parts` the split of each path without its
    suffix, in one form."""

    files: dict[str, str]
    parts: dict[str, str]

    def part_of(self, name: str) -> str | None:
        """Return the split of a file, or of the nearest folder above it that is named."""
        path = PurePosixPath(one_form(without_suffix(name)))
        above = [str(folder) for folder in path.parents if str(folder) != "."]
        return next((self.parts[one] for one in (str(path), *above) if one in self.parts), None)

    @property
    def are_whole(self) -> bool:
        """Whether the lists name the training part, so that what they do not name is in none."""
        return "train" in self.files.values()


def split_of_list(name: str) -> str | None:
    """Return the split that the name of a file says, and nothing else.

    >>> split_of_list("lists/validation_list.txt"), split_of_list("train.txt")
    ('valid', 'train')
    >>> split_of_list("train whistle.txt") is None
    True
    """
    path = PurePosixPath(name)
    if path.suffix.lower() not in LIST_SUFFIXES:
        return None
    stem = path.stem.lower()
    words = [word for word in re.split(r"[\W_]+", stem) if word not in _WORDS.split()]
    return SPLIT_NAMES.get(stem) or SPLIT_NAMES.get("_".join(words))


def find(folder: Path, names: Sequence[str], problems: list[Problem]) -> SplitLists:
    """Find the lists among the files of a folder: files named so that have no recording of their
    name beside them, of whose names one is there at least.

    `problems` gets the lines whose name is not there, or in two splits.
    """
    lists = SplitLists({}, {})
    found = {name: part for name in names if (part := split_of_list(name))}
    stems = [without_suffix(name) for name in names if name not in found]
    folders = {str(above) for stem in stems for above in PurePosixPath(stem).parents} - {"."}
    for name, part in found.items():
        if without_suffix(name) in stems:  # train.wav with its caption or labels
            continue
        try:
            lines = read_text(folder / name)[0].splitlines()
        except UserError:
            continue
        finder = Finder(folder, PurePosixPath(name).parent, {*stems, *folders}, ())
        _add(lists, name, part, lines, finder, problems)
    return lists


def _add(
    lists: SplitLists,
    name: str,
    part: str,
    lines: Iterable[str],
    finder: Finder,
    problems: list[Problem],
) -> None:
    """Take the names of one list, unless none of them is there."""
    wrong: list[str] = []
    parts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        stem = finder(text)
        if stem is None:
            stem = finder(without_suffix(text.replace("\\", "/")))
        if stem is None:
            wrong.append(f"{name}:{number}: found no recording {text!r:.300}")
        elif lists.parts.get(one_form(stem), part) != part:
            other = lists.parts[one_form(stem)]
            wrong.append(f"{name}:{number}: {text!r:.300} is in the list of {other} already")
        else:
            parts[one_form(stem)] = part
    if parts:
        lists.files[name] = part
        lists.parts.update(parts)
        problems += [Problem(UNUSED_NAMES, text) for text in wrong]
