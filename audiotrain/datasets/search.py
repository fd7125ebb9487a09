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
from audiotrain.datasets.paths import (
    OTHER_AUDIO_SUFFIXES,
    SPLIT_NAMES,
    Finder,
    split_folders,
    walk,
    without_suffix,
)
from audiotrain.features.audio import AUDIO_SUFFIXES
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_text

LIST_SUFFIXES = (".txt", ".lst")


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
        # Where a table that is given alone may find its audio.
        self.nearby = sorted(walk(self.folder))
        self.files = self.nearby if path.is_dir() else [path.name]
        self.findable = self._nearby(self.playable)
        self.items: dict[str, AnyItem] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        self.listed = self._splits_of_lists() if path.is_dir() else {}
        self._by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_suffix[PurePosixPath(name).suffix.lower()].append(name)
        self.audio = self.having(AUDIO_SUFFIXES)

    def _nearby(self, suffixes: Sequence[str]) -> list[str]:
        return [name for name in self.nearby if PurePosixPath(name).suffix.lower() in suffixes]

    def _splits_of_lists(self) -> dict[str, str]:
        """The split of each recording that a list of names has, such as train.txt and test.txt; a
        file is a list where half of its lines name recordings."""
        stems = {without_suffix(name).lower() for name in self.findable}
        splits: dict[str, str] = {}
        lists = []
        for name in self._nearby(LIST_SUFFIXES):
            path = PurePosixPath(name)
            split = SPLIT_NAMES.get(path.stem.lower())
            if split is None or without_suffix(name).lower() in stems:
                continue
            find = Finder(self.folder, path.parent, self.findable, self.playable)
            lines = [line.strip() for line in read_text(self.folder / name)[0].splitlines()]
            found = [find(line) if line else None for line in lines]
            if 2 * sum(one is not None for one in found) < sum(map(bool, lines)) or not any(found):
                continue
            lists.append(name)
            for number, (line, audio) in enumerate(zip(lines, found, strict=True), 1):
                where = f"{name}:{number}"
                if audio is not None and splits.setdefault(audio, split) != split:
                    text = f"{where}: {line!r:.300} is in {splits[audio]} already"
                    self.problem("lines of a list of names not used", text)
                elif line and audio is None:
                    text = f"{where}: found no recording {line!r:.300}"
                    self.problem("lines of a list of names not used", text)
        self.files = [name for name in self.files if name not in lists]
        return splits

    def having(self, suffixes: Sequence[str]) -> list[str]:
        """The files with one of these suffixes, in the order of the suffixes."""
        return [name for suffix in suffixes for name in self._by_suffix[suffix]]

    def unused(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.used]

    def problem(self, kind: str, text: str) -> None:
        self.problems.append(Problem(kind, text.removeprefix(f"{self.folder}{os.sep}")))

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
            # The name of a video alone may be that of several clips: the precise ones come first.
            names = (*row.names, row.audio) if row.names else (row.audio,)
            audio = next(filter(None, map(find, names)), None)
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
            self.problem("audio in a format not read", name)

    def corpus(self, counts: str, layouts: str) -> Corpus[AnyItem]:
        """The items found. ValueError when there are none; `counts` describes the
        files for the message."""
        if not self.items:
            known = sorted(self.problems, key=lambda problem: problem.kind.startswith("audio"))
            first = f" ({known[0].kind}: {known[0].text})" if known else ""
            raise UserError(
                f"{self.folder}: found {counts}, but no pair{first}; known layouts: {layouts}"
            )
        splits = self.listed or split_folders(self.items)
        items = [
            replace(item, split=item.split or splits.get(item.id.split("@")[0]))
            for item in self.items.values()
        ]
        return Corpus(self.folder, sorted(items, key=lambda item: item.id), self.problems)
