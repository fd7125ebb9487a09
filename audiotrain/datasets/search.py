"""What the searches of a folder for labelled recordings share: its files, tables, pairs, problems.

Names are paths relative to the folder, with `/` between the parts.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Generic

from audiotrain.datasets import pairing, tables
from audiotrain.datasets.items import AnyItem, Corpus, Problem
from audiotrain.datasets.paths import OTHER_AUDIO_SUFFIXES, SPLIT_NAMES, Finder, split_folders, walk
from audiotrain.features.audio import AUDIO_SUFFIXES, FORMATS
from audiotrain.utils.errors import UserError


class Search(Generic[AnyItem]):
    """The files of a folder, or one file of it, and the items and problems found so far.

    ValueError when there is no such folder.
    """

    kind: ClassVar[str] = "label"  # of what belongs to a recording, as messages name it
    playable: ClassVar[tuple[str, ...]] = AUDIO_SUFFIXES  # suffixes of recordings in tables

    def __init__(self, path: Path):
        if not path.exists():
            raise UserError(f"{path}: no such folder")
        self.folder = path if path.is_dir() else path.parent
        nearby = sorted(walk(self.folder))  # where a table that is given alone may find its audio
        self.files = nearby if path.is_dir() else [path.name]
        self.findable = [n for n in nearby if PurePosixPath(n).suffix.lower() in self.playable]
        self.items: dict[str, AnyItem] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        self._by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_suffix[PurePosixPath(name).suffix.lower()].append(name)
        self.audio = self.having(AUDIO_SUFFIXES)

    def having(self, suffixes: Sequence[str]) -> list[str]:
        """The files with one of these suffixes, in the order of the suffixes."""
        return [name for suffix in suffixes for name in self._by_suffix[suffix]]

    def unused(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.used]

    def problem(self, kind: str, text: str) -> None:
        self.problems.append(Problem(kind, text.replace(f"{self.folder}{os.sep}", "")))

    # ---- tables

    def read_table(
        self, table: str, known: Mapping[str, Sequence[str]], group: str | None
    ) -> list[tables.Row]:
        self.used.add(table)
        rows, problems = tables.read_rows(self.folder / table, known, group)
        for problem in problems:
            self.problem(*problem)
        return rows

    def finder(self, table: str) -> Finder:
        return Finder(self.folder, PurePosixPath(table).parent, self.findable, self.playable)

    def with_audio(
        self, table: str, rows: Sequence[tables.Row]
    ) -> Iterator[tuple[str, str, tables.Row]]:
        """("table:line", the recording, the row) of each row whose recording is there."""
        find = self.finder(table)
        for row in rows:
            audio = find(row.audio)
            if audio is None:
                text = f"{table}:{row.line}: found no file {row.audio!r:.300}"
                self.problem(f"{self.kind}s without audio", text)
            else:
                yield f"{table}:{row.line}", audio, row

    # ---- names

    def pairs(self, songs: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
        """The label file of each recording, of those not used; the others are reported."""
        pairs = pairing.pair(self.unused(songs), self.unused(labels))
        self.used.update(pairs.labels, pairs.labels.values())
        for song, label in pairs.second:
            self.used.add(label)
            text = f"{label}: {pairs.labels[song]} is used"
            self.problem(f"second {self.kind} files, not used", text)
        for song, ambiguous in pairs.ambiguous.items():
            self.used.update((song, *ambiguous))
            self.problem(f"several {self.kind} files fit", f"{song}: {', '.join(ambiguous)}")
        return pairs.labels

    def class_folders(self) -> dict[str, str]:
        """The folder of each recording, as the name of its class; none where there is only one."""
        folders = {name: PurePosixPath(name).parent.name for name in self.audio}
        classes = {n: own for n, own in folders.items() if own and own.lower() not in SPLIT_NAMES}
        return classes if len(set(classes.values())) > 1 else {}

    # ---- results

    def report_unused_audio(self) -> None:
        for name in self.unused(self.audio):
            self.problem(f"audio without {self.kind}s", name)
        for name in self.having(OTHER_AUDIO_SUFFIXES):
            self.problem(f"audio in a format not read ({FORMATS} are)", name)

    def corpus(self, counts: str, layouts: str) -> Corpus[AnyItem]:
        """The items found. ValueError when there are none; `counts` describes the
        files for the message."""
        if not self.items:
            known = sorted(self.problems, key=lambda problem: problem.kind.startswith("audio"))
            first = f" ({known[0].kind}: {known[0].text})" if known else ""
            raise UserError(
                f"{self.folder}: found {counts}, but no pair{first}; known layouts: {layouts}"
            )
        splits = split_folders(self.items)
        items = [replace(i, split=i.split or splits.get(i.id)) for i in self.items.values()]
        return Corpus(self.folder, sorted(items, key=lambda item: item.id), self.problems)
