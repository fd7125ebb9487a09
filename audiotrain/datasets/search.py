"""What the searches of a folder for labelled recordings share: its files, tables, pairs, problems.

Names are paths relative to the folder, with `/` between the parts.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Generic

from audiotrain.datasets import pairing, split_lists, tables, youtube
from audiotrain.datasets.items import AnyItem, Corpus, Problem
from audiotrain.datasets.paths import (
    OTHER_AUDIO_SUFFIXES,
    SPLIT_NAMES,
    Finder,
    one_form,
    relative,
    split_folders,
    walk,
)
from audiotrain.features.audio import AUDIO_SUFFIXES, FORMATS, AudioError, info
from audiotrain.utils.errors import UserError

# Files that could be tables, labels or captions, and are listed where they are not used.
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".arrow", ".pkl", ".npy", ".h5")
TEXT_SUFFIXES = (
    *(".txt", ".json", ".csv", ".tsv", ".jsonl", ".ndjson", ".tab", ".lab", ".jams", ".yaml"),
    *(".yml", ".xml", ".svl", ".lst", ".list", ".tar"),
)
DOCUMENTS = ("readme", "license", "licence", "changelog", "attribution", "citation", "requirements")
CLIP_MARGIN = 2.0  # seconds that a clip of a video may be longer than the table says


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
        self.problems: list[Problem] = []
        # Where a table that is given alone may find its audio.
        self.nearby = self._distinct(sorted(walk(self.folder)))
        self.files = self.nearby if path.is_dir() else [path.name]
        self.findable = self._nearby(self.playable)
        self.items: dict[str, AnyItem] = {}
        self.used: set[str] = set()
        self.lists = split_lists.find(self.folder, self.nearby, self.problems)
        self.used.update(self.lists.files)
        self.files = [name for name in self.files if name not in self.lists.files]
        self._by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_suffix[PurePosixPath(name).suffix.lower()].append(name)
        self.audio = self.having(AUDIO_SUFFIXES)

    def _distinct(self, names: Sequence[str]) -> list[str]:
        """The names without those that are the same in another form of Unicode."""
        forms: dict[str, str] = {}
        for name in names:
            if (first := forms.setdefault(one_form(name), name)) != name:
                text = f"{first}: is there twice, its name in two forms of Unicode"
                self.problem("files of one name, the first used", text)
        return list(forms.values())

    def _nearby(self, suffixes: Sequence[str]) -> list[str]:
        return [name for name in self.nearby if PurePosixPath(name).suffix.lower() in suffixes]

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
        starts: dict[str, set[float | None]] = defaultdict(set)  # by video
        for row in rows:
            if row.video is not None:
                starts[row.video.id].add(row.video.start)
        found = [
            find.fitting(row.audio)
            if row.video is None
            else self._clip_of(find, row.video, len(starts[row.video.id]) == 1)
            or (find.fitting(row.audio) if row.audio != row.video.id else [])
            for row in rows
        ]
        # Files that rows name by their paths, and those that rows of other names fit by the end.
        named = {find.at(row.audio) for row in rows}
        guesses: dict[str, set[str]] = defaultdict(set)
        for row, fitting in zip(rows, found, strict=True):
            if row.video is None and len(fitting) == 1 and find.at(row.audio) is None:
                guesses[fitting[0]].add(row.audio)
        for row, fitting in zip(rows, found, strict=True):
            where, text = f"{table}:{row.line}", f"found no file {row.audio!r:.300}"
            audio = fitting[0] if len(fitting) == 1 else None
            if audio is not None and row.audio in guesses[audio]:
                others = sorted(guesses[audio] - {row.audio})
                if audio in named or others:
                    text += f"; {audio} is another row's, too"
                    audio = None
            if len(fitting) > 1:
                text = f"{row.audio!r:.300} is one of several files: {', '.join(fitting[:3])}"
            if audio is None:
                self.problem(f"{self.kind}s without audio", f"{where}: {text}")
            else:
                yield where, audio, self._in_video(audio, row)

    def _clip_of(self, find: Finder, clip: youtube.Clip, is_only: bool) -> list[str]:
        """The recording of a clip of a video; the video's name alone may be that of any clip of it,
        unless this `is_only` one in the table."""
        names = [*clip.stems, *(clip.stems_of_video if is_only else ())]
        return next((fitting for name in names if (fitting := find.fitting(name))), [])

    def _in_video(self, audio: str, row: tables.Row) -> tables.Row:
        """The row with the seconds of its clip where the recording is the whole video."""
        clip = row.video
        if clip is None or clip.start is None or clip.end is None:
            return row
        if PurePosixPath(audio).stem not in clip.stems_of_video:
            return row
        try:
            seconds = info(self.folder / audio).seconds
        except AudioError:  # reported when it is read
            return row
        is_clip = seconds < clip.end - clip.start + CLIP_MARGIN or seconds <= clip.start
        return row if is_clip else row._replace(start=clip.start, end=clip.end)

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

    def report(self, kind: str, name: str, text: str = "") -> None:
        """Report a file that is not used, once."""
        if name not in self.used:
            self.used.add(name)
            self.problem(kind, text or name)

    def report_others(self) -> None:
        """Report the files that nothing else reports and that may hold tables, labels or captions;
        READMEs and licences are passed over."""
        for name in self.unused(self.files):
            path = PurePosixPath(name)
            if path.suffix.lower() in OTHER_TABLES:
                read = ", ".join(tables.TABLE_SUFFIXES)
                self.report(f"tables in a format not read ({read} are)", name)
            elif path.suffix.lower() in TEXT_SUFFIXES:
                if not path.stem.lower().startswith(DOCUMENTS):
                    self.report("other files, not used", name)

    def _split_of(self, item: AnyItem) -> str | None:
        """The split of an item by the lists of names: by its recording, or its labels alone."""
        if isinstance(item.audio, Path):
            return self.lists.part_of(relative(item.audio, self.folder))
        return self.lists.part_of(item.id)

    def corpus(self, counts: str, layouts: str) -> Corpus[AnyItem]:
        """The items found. ValueError when there are none; `counts` describes the
        files for the message."""
        if not self.items:
            known = sorted(self.problems, key=lambda problem: problem.kind.startswith("audio"))
            first = f" ({known[0].kind}: {known[0].text})" if known else ""
            raise UserError(
                f"{self.folder}: found {counts}, but no pair{first}; known layouts: {layouts}"
            )
        folders, items = split_folders(self.items), []
        for item in self.items.values():
            split = item.split or self._split_of(item)
            if split is None and self.lists.are_whole:
                lists = ", ".join(self.lists.files)
                self.problem(f"recordings in no list of names ({lists}), not used", item.id)
                continue
            split = split or folders.get(item.id)
            id, group = one_form(item.id), one_form(item.group)
            items.append(replace(item, id=id, group=group, split=split))
        if not items:
            raise UserError(f"{self.folder}: {lists} name none of {len(self.items)} recordings")
        notes = [f"split by {', '.join(self.lists.files)}"] if self.lists.files else []
        return Corpus(self.folder, sorted(items, key=lambda i: i.id), self.problems, tuple(notes))
