"""Find recordings and their chord labels in a folder, whatever its layout (LAYOUTS).

Names here are paths relative to the folder, with `/` between the parts.
"""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from audiotrain.datasets import pairing, splits
from audiotrain.datasets import tables as manifest
from audiotrain.datasets.chords import spans
from audiotrain.datasets.chords.items import MIDI_SUFFIXES, Item, chord_of_name, read_cached
from audiotrain.datasets.chords.readers import READ_SUFFIXES
from audiotrain.datasets.items import Corpus, Problem
from audiotrain.datasets.paths import (
    OTHER_AUDIO_SUFFIXES,
    SPLIT_NAMES,
    Finder,
    relative,
    split_folders,
    walk,
    without_suffix,
)
from audiotrain.features.audio import AUDIO_SUFFIXES
from audiotrain.music.chord_labels import UNREADABLE
from audiotrain.music.segments import Segment

LAYOUTS = (
    "x.wav beside x.lab (or .jams, .csv, .txt), audio/x.wav and annotations/x.lab, a table with "
    "columns audio and label, one folder a chord, x.mid beside x.lab, label files alone"
)
JAMS_SUFFIXES = (".jams", ".json")
# Share of its labels that must be readable in a file that is surely, or perhaps, a label file.
READABLE_SHARES = {".lab": 0.2, ".jams": 0.2}
READABLE_SHARE = 0.5


def discover(
    folder: str | os.PathLike,
    selector: int | str | None = None,
    group: str | None = None,
    pop_spellings: bool = False,
) -> Corpus:
    """Items of a folder, or of one table, in any of LAYOUTS.

    `selector` picks the chord annotation in JAMS files, `group` names the column of a table whose
    equal values must stay in one split, `pop_spellings` allows labels such as `Cm7b5`. ValueError
    when there is no such folder or nothing in it can be used, and when there are no JAMS files to
    select from or no tables to group by.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ValueError(f"{folder}: no such folder")
    search = _Search(folder, selector, group, pop_spellings)
    search.use_tables()
    search.use_pairs()
    search.use_chord_folders()
    search.use_labels_alone()
    search.tell_unused()
    if not search.items:
        raise ValueError(search.failure())
    if group is not None and not search.tables:
        raise ValueError(f"{folder}: found no table with a column {group!r} to group by")
    if selector is not None and not search.has_jams():
        raise ValueError(f"{folder}: found no JAMS file to select annotation {selector!r} of")
    by_folder = split_folders(search.items)
    items = [
        replace(item, split=item.split or by_folder.get(item.id)) for item in search.items.values()
    ]
    return Corpus(search.folder, sorted(items, key=lambda item: item.id), search.problems)


class _Search:
    """The files of one folder, those already used, and the items and problems found so far."""

    def __init__(
        self, folder: Path, selector: int | str | None, group: str | None, pop_spellings: bool
    ):
        self.folder = folder if folder.is_dir() else folder.parent
        self.selector, self.group, self.pop_spellings = selector, group, pop_spellings
        self.items: dict[str, Item] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        files = sorted(walk(self.folder)) if folder.is_dir() else [folder.name]
        by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in files:
            by_suffix[PurePosixPath(name).suffix.lower()].append(name)
        self.audio = [name for suffix in AUDIO_SUFFIXES for name in by_suffix[suffix]]
        self.midi = [name for suffix in MIDI_SUFFIXES for name in by_suffix[suffix]]
        self.other_audio = [name for suffix in OTHER_AUDIO_SUFFIXES for name in by_suffix[suffix]]
        tables = [name for suffix in manifest.TABLE_SUFFIXES for name in by_suffix[suffix]]
        self.tables = [name for name in tables if manifest.is_manifest(self.folder / name)]
        candidates = [name for suffix in READ_SUFFIXES for name in by_suffix[suffix]]
        self.label_files = [name for name in candidates if name not in set(self.tables)]
        self.label_files_by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.label_files:
            self.label_files_by_stem[without_suffix(name)].append(name)
        self.unreadable: dict[str, str] = {}  # why a label file names no chords
        self.labels: list[str] = []  # those that do

    def problem(self, kind: str, text: str) -> None:
        self.problems.append(Problem(kind, text.replace(f"{self.folder}{os.sep}", "")))

    def add(self, item: Item, *names: str) -> None:
        self.used.update(names)
        if item.id in self.items:
            self.problem("listed twice", f"{item.id}: only the first is used")
        else:
            self.items[item.id] = item

    def item(self, name: str, audio: str | None, annotation, group: str, **more) -> Item:
        return Item(
            id=name,
            audio=None if audio is None else self.folder / audio,
            annotation=self.folder / annotation if isinstance(annotation, str) else annotation,
            group=group,
            selector=self.selector,
            pop_spellings=self.pop_spellings,
            **more,
        )

    def has_jams(self) -> bool:
        sources = [item.annotation for item in self.items.values()]
        return any(isinstance(p, Path) and p.suffix.lower() in JAMS_SUFFIXES for p in sources)

    # ---- tables

    def use_tables(self) -> None:
        lines: list[tuple[str, spans.Line]] = []
        for table in self.tables:
            self.used.add(table)
            lines += [(table, line) for line in self.lines_of(table)]
        items, problems = splits.join_spans([line.item for _, line in lines])
        self.problems += problems
        by_recording: dict[tuple, list[spans.Line]] = defaultdict(list)
        for (table, line), item in zip(lines, items, strict=True):
            by_recording[table, item.audio].append(line._replace(item=item))
        for (table, path), own in by_recording.items():
            items, problems = spans.songs(own)
            self.problems += problems
            audio = relative(path, self.folder)
            for item in items:
                self.add(item, audio)
            for name in self.beside(audio):
                self.used.add(name)
                self.problem("label files that a table replaces", f"{name}: {table} is used")

    def lines_of(self, table: str) -> Iterator[spans.Line]:
        rows, problems = manifest.read_manifest(self.folder / table, self.group)
        for text in problems:
            self.problem("lines of a table not used", text)
        find = Finder(
            self.folder, PurePosixPath(table).parent, self.audio + self.midi,
            (*AUDIO_SUFFIXES, *MIDI_SUFFIXES),
        )  # fmt: skip
        if self.says_no_chords(table, rows) and any(
            self.beside(audio) for row in rows if (audio := find(row.audio))
        ):
            text = f"{table}:{rows[0].line}: found {rows[0].label!r}, expected a chord"
            self.problem("tables not used, but the label files beside their audio", text)
            return
        for row in rows:
            item = self.item_of_row(table, row, find)
            if item is not None:
                whole = row.start is None and row.end is None
                yield spans.Line(f"{table}:{row.line}", item, whole)

    def says_no_chords(self, table: str, rows: list[manifest.Row]) -> bool:
        """Whether most labels of a table are neither chords nor label files."""
        columns = manifest.first_record(self.folder / table)
        if manifest.find_column(columns, manifest.CHORD_COLUMNS):
            return False
        readable = sum(
            chord_of_name(row.label) is not None
            or PurePosixPath(row.label).suffix.lower() in READ_SUFFIXES
            for row in rows
        )
        return readable < READABLE_SHARE * len(rows)

    def beside(self, audio: str) -> list[str]:
        """Label files that name chords, have the name of a recording and are not used."""
        named = self.label_files_by_stem.get(without_suffix(audio), ())
        return [name for name in named if name not in self.used and self.names_chords(name)]

    def item_of_row(self, table: str, row: manifest.Row, find: Finder) -> Item | None:
        where = f"{table}:{row.line}"
        audio = find(row.audio)
        if audio is None:
            self.problem("labels without audio", f"{where}: found no file {row.audio!r}")
            return None
        start = row.start or 0.0
        annotation: str | tuple[Segment, ...]
        if PurePosixPath(row.label).suffix.lower() in READ_SUFFIXES:
            annotation = relative(
                self.folder / PurePosixPath(table).parent / row.label, self.folder
            )
            if not self.names_chords(annotation):
                text = f"{where}: {self.unreadable[annotation]}"
                self.problem("label files that can't be used", text)
                return None
            self.used.add(annotation)
        else:
            label = chord_of_name(row.label)
            if label is None:
                text = f"{where}: found {row.label!r}, expected a chord or a label file"
                self.problem("unreadable labels", text)
                return None
            annotation = (Segment(start, math.inf if row.end is None else row.end, label),)
        split = SPLIT_NAMES.get(row.split.lower())
        if row.split and split is None:
            text = f"{where}: found {row.split!r}, expected train, valid or test"
            self.problem("unknown splits, taken as none", text)
        group = row.group or without_suffix(annotation if isinstance(annotation, str) else audio)
        return self.item(
            spans.span_name(audio, start, row.end), audio, annotation, group,
            start=start, end=row.end, split=split, columns=row.columns,
        )  # fmt: skip

    # ---- label files

    def use_pairs(self) -> None:
        self.sort_label_files()
        for songs in (self.distinct(self.audio), self.midi):
            free = [name for name in songs if name not in self.used]
            pairs = pairing.pair(free, [name for name in self.labels if name not in self.used])
            for song, label in pairs.labels.items():
                self.add(self.item(song, song, label, without_suffix(label)), song, label)
            for song, label in pairs.spare:
                self.used.add(label)
                self.problem(
                    "second label files, not used", f"{label}: {pairs.labels[song]} is used"
                )
            for song, labels in pairs.ambiguous.items():
                self.used.add(song)
                self.used.update(labels)
                self.problem("several label files fit", f"{song}: {', '.join(labels)}")

    def sort_label_files(self) -> None:
        """Separate files that name chords from notes, beats, lyrics and other text."""
        free = [name for name in self.label_files if name not in self.used]
        for name in tqdm(free, desc="reading labels", unit="file", delay=2, leave=False):
            if self.names_chords(name):
                self.labels.append(name)

    def names_chords(self, name: str) -> bool:
        path = self.folder / name
        try:
            segments, problems = read_cached(path, self.selector, self.pop_spellings)
        except ValueError as error:
            self.unreadable[name] = str(error)
            return False
        # what is written as unknown is no doubt about the file
        unreadable = min(len(segments), sum(UNREADABLE in problem for problem in problems))
        share = READABLE_SHARES.get(path.suffix.lower(), READABLE_SHARE)
        if segments and len(segments) - unreadable >= share * len(segments):
            return True
        first = f", first {problems[0]}" if problems else ""
        found = f"{unreadable} of {len(segments)} labels unreadable" if segments else "no labels"
        self.unreadable[name] = f"{path}: found {found}{first}"
        return False

    def distinct(self, songs: list[str]) -> list[str]:
        """Leave out the second of two recordings that differ in their suffix only."""
        kept: dict[str, str] = {}
        for song in songs:
            first = kept.setdefault(without_suffix(song), song)
            if first != song and song not in self.used:
                self.used.add(song)
                self.problem("same recording in two formats", f"{song}: {first} is used")
        return sorted(kept.values())

    # ---- names alone

    def use_chord_folders(self) -> None:
        """Clips in folders named by their chord, if nothing else gives labels."""
        if self.items or not self.audio:
            return
        clips = {}
        for name in self.audio:
            folders = reversed(PurePosixPath(name).parts[:-1][-2:])
            label = next(filter(None, map(chord_of_name, folders)), None)
            if label is not None:
                clips[name] = label
        if len(clips) < len(self.audio) / 2:  # folders may be called A or Em for other reasons
            return
        for name, label in clips.items():
            segments = (Segment(0.0, math.inf, label),)
            self.add(self.item(name, name, segments, without_suffix(name)), name)

    def use_labels_alone(self) -> None:
        """Label files of a folder that has no recordings at all, as songs to be synthesised."""
        if self.items or self.audio or self.midi:
            return
        folders = Counter(str(PurePosixPath(name).parent) for name in self.labels)
        stems = Counter(PurePosixPath(name).stem for name in self.labels)
        best: dict[str, str] = {}
        for name in sorted(self.labels, key=pairing.preference):
            path = PurePosixPath(name)
            by_kind = path.stem in pairing.GENERIC_STEMS or (
                stems[path.stem] > 1 and folders[str(path.parent)] == 1
            )
            group = str(path.parent) if by_kind and len(path.parts) > 1 else without_suffix(name)
            first = best.setdefault(group, name)
            self.used.add(name)
            if first == name:
                self.add(self.item(name, None, name, group))
            else:
                self.problem("second label files, not used", f"{name}: {first} is used")

    # ---- what is left

    def tell_unused(self) -> None:
        known = {without_suffix(name) for name in (*self.used, *self.audio)}
        for name in self.audio:
            if name not in self.used:
                self.problem("audio without labels", name)
        for name in self.other_audio:
            self.problem(f"audio in a format not read ({', '.join(AUDIO_SUFFIXES)} are)", name)
        for name in self.midi:
            if name not in self.used and without_suffix(name) not in known:
                self.problem("MIDI without labels", name)
        for name in self.labels:
            if name not in self.used:
                self.problem("labels without audio", name)
        for name, reason in self.unreadable.items():
            named_so = PurePosixPath(name).suffix.lower() in READABLE_SHARES
            if name not in self.used and (named_so or without_suffix(name) in known):
                self.problem("label files that can't be used", reason)

    def failure(self) -> str:
        """One line for a folder without items: what was found, and what seems to be wrong."""
        names = len(self.label_files) + len(self.tables)
        found = f"{len(self.audio)} audio, {len(self.midi)} MIDI and {names} label files or tables"
        told = sorted(self.problems, key=lambda problem: problem.kind.startswith("audio"))
        first = f" ({told[0].kind}: {told[0].text})" if told else ""
        return f"{self.folder}: found {found}, but no pair{first}; known layouts: {LAYOUTS}"
