"""Find recordings and their chord labels in a folder, whatever its layout (LAYOUTS)."""

import math
import os
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from audiotrain.datasets import pairing, splits, tables
from audiotrain.datasets.chords import spans
from audiotrain.datasets.chords.items import MIDI_SUFFIXES, Item, chord_of_name, read_cached
from audiotrain.datasets.chords.readers import READ_SUFFIXES
from audiotrain.datasets.items import Corpus
from audiotrain.datasets.paths import Finder, relative, without_suffix
from audiotrain.datasets.search import Search
from audiotrain.datasets.summary import progress
from audiotrain.features.audio import AUDIO_SUFFIXES
from audiotrain.music.chord_labels import UNREADABLE
from audiotrain.music.segments import Segment
from audiotrain.utils.errors import UserError

LAYOUTS = (
    "x.wav beside x.lab (or .jams, .csv, .txt), audio/x.wav and annotations/x.lab, a table with "
    "columns audio and label, one folder a chord, x.mid beside x.lab, label files alone"
)
JAMS_SUFFIXES = (".jams", ".json")
CHORD_COLUMNS = ("chord", "harte")  # that hold nothing but chords
COLUMNS = {
    **tables.COLUMNS,
    "label": ("chord", "label", "labels", "annotation", "lab", "label_path", "harte", "class"),
    "duration": tables.DURATION_COLUMNS,
    "group": ("group", "song", "song_id", "track", "track_id"),
}
UNUSABLE = "label files that can't be used"
# Share of its labels that must be readable in a file that is surely, or perhaps, a label file.
READABLE_SHARES = {".lab": 0.2, ".jams": 0.2}
READABLE_SHARE = 0.5


def discover(
    folder: str | os.PathLike,
    selector: int | str | None = None,
    group: str | None = None,
    pop_spellings: bool = False,
) -> Corpus[Item]:
    """Items of a folder, or of one table, in any of LAYOUTS.

    `selector` picks the chord annotation in JAMS files, `group` names the column of a table whose
    equal values must stay in one split, `pop_spellings` allows labels such as `Cm7b5`. ValueError
    when there is no such folder or nothing in it can be used, and when there are no JAMS files to
    select from or no tables to group by.
    """
    search = _Search(Path(folder), selector, pop_spellings)
    search.use_tables(group)
    search.use_pairs()
    if not search.items:
        search.use_chord_folders()
        search.use_labels_alone()
    search.report_unused()
    found = len(search.label_files) + len(search.tables)
    counts = f"{len(search.audio)} audio, {len(search.midi)} MIDI and {found} label files or tables"
    corpus = search.corpus(counts, LAYOUTS)
    if group is not None and not search.tables:
        raise UserError(f"{folder}: found no table with a column {group!r} to group by")
    paths = [item.annotation for item in corpus.items if isinstance(item.annotation, Path)]
    if selector is not None and not any(p.suffix.lower() in JAMS_SUFFIXES for p in paths):
        raise UserError(f"{folder}: found no JAMS file to select annotation {selector!r} of")
    return corpus


class _Search(Search[Item]):
    playable = (*AUDIO_SUFFIXES, *MIDI_SUFFIXES)

    def __init__(self, path: Path, selector: int | str | None, pop_spellings: bool):
        super().__init__(path)
        self.selector, self.pop_spellings = selector, pop_spellings
        self.midi = self.having(MIDI_SUFFIXES)
        required = COLUMNS["audio"], COLUMNS["label"]
        names = self.having(tables.TABLE_SUFFIXES)
        self.tables = [name for name in names if tables.has_columns(self.folder / name, *required)]
        self.label_files = [n for n in self.having(READ_SUFFIXES) if n not in set(self.tables)]
        self.label_files_by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.label_files:
            self.label_files_by_stem[without_suffix(name)].append(name)
        self._label_finders: dict[str, Finder] = {}
        self.unreadable: dict[str, str] = {}  # why a label file names no chords
        self.labels: list[str] = []  # those that do

    def add(self, item: Item, *names: str) -> None:
        self.used.update(names)
        if item.id in self.items:
            self.problem("listed twice", f"{item.id}: only the first is used")
        else:
            self.items[item.id] = item

    def item(
        self,
        name: str,
        audio: str | None,
        annotation: str | tuple[Segment, ...],
        group: str,
        **more,
    ) -> Item:
        return Item(
            name,
            None if audio is None else self.folder / audio,
            self.folder / annotation if isinstance(annotation, str) else annotation,
            self.selector,
            self.pop_spellings,
            group=group,
            **more,
        )

    # ---- tables

    def use_tables(self, group: str | None) -> None:
        lines = [(table, line) for table in self.tables for line in self.lines_of(table, group)]
        items, problems = splits.join_spans([line.item for _, line in lines])
        self.problems += problems
        by_recording: dict[tuple[str, Path | None], list[spans.Line]] = defaultdict(list)
        for (table, line), item in zip(lines, items, strict=True):
            by_recording[table, item.audio].append(line._replace(item=item))
        for (table, path), own in by_recording.items():
            items, problems = spans.songs(own)
            self.problems += problems
            assert path is not None
            audio = relative(path, self.folder)
            for item in items:
                self.add(item, audio)
            for name in self.beside(audio):
                self.used.add(name)
                self.problem("label files that a table replaces", f"{name}: {table} is used")

    def lines_of(self, table: str, group: str | None) -> list[spans.Line]:
        rows, find = self.read_table(table, COLUMNS, group), self.finder(table)
        if not self.names_chords_in(table, rows) and any(
            self.beside(audio) for row in rows if (audio := find(row.audio))
        ):
            text = f"{table}:{rows[0].line}: found {rows[0].label!r:.60}, expected a chord"
            self.problem("tables not used, but the label files beside their audio", text)
            return []
        lines = []
        for where, audio, row in self.with_audio(table, rows):
            item = self.item_of_row(table, where, audio, row)
            if item is not None:
                lines.append(spans.Line(where, item, row.start is None and row.end is None))
        return lines

    def label_finder(self, table: str) -> Finder:
        """Find label files as a table names them."""
        if table not in self._label_finders:
            base, names = PurePosixPath(table).parent, self._nearby(READ_SUFFIXES)
            self._label_finders[table] = Finder(self.folder, base, names, READ_SUFFIXES)
        return self._label_finders[table]

    def names_chords_in(self, table: str, rows: list[tables.Row]) -> bool:
        """Whether most labels of a table are chords or label files."""
        readable = sum(
            chord_of_name(row.label) is not None
            or PurePosixPath(row.label).suffix.lower() in READ_SUFFIXES
            for row in rows
        )
        is_chord_table = tables.has_columns(self.folder / table, CHORD_COLUMNS)
        return is_chord_table or readable >= READABLE_SHARE * len(rows)

    def beside(self, audio: str) -> list[str]:
        """Label files that name chords, have the name of a recording and are not used."""
        named = self.label_files_by_stem.get(without_suffix(audio), ())
        return [name for name in named if name not in self.used and self.names_chords(name)]

    def item_of_row(self, table: str, where: str, audio: str, row: tables.Row) -> Item | None:
        start = row.start or 0.0
        annotation: str | tuple[Segment, ...]
        if not row.label:
            self.problem(tables.UNUSED_LINES, f"{where}: found no label")
            return None
        if PurePosixPath(row.label).suffix.lower() in READ_SUFFIXES:
            found = self.label_finder(table)(row.label)
            if found is None:
                self.problem("labels without a file", f"{where}: found no file {row.label!r:.300}")
                return None
            group = annotation = found
            if not self.names_chords(annotation):
                self.problem(UNUSABLE, f"{where}: {self.unreadable[annotation]}")
                return None
            self.used.add(annotation)
        else:
            label = chord_of_name(row.label)
            if label is None:
                text = f"{where}: found {row.label!r:.60}, expected a chord or a label file"
                self.problem("unreadable labels", text)
                return None
            group = audio
            annotation = (Segment(start, math.inf if row.end is None else row.end, label),)
        return self.item(
            tables.span_name(audio, start, row.end),
            audio,
            annotation,
            row.group or without_suffix(group),
            start=start,
            end=row.end,
            split=row.split,
            columns=row.columns,
        )

    # ---- label files

    def use_pairs(self) -> None:
        for name in progress(self.unused(self.label_files), "reading labels"):
            if self.names_chords(name):  # not notes, beats, lyrics or other text
                self.labels.append(name)
        for songs in (self.distinct(self.audio), self.midi):
            for song, label in self.pairs(songs, self.labels).items():
                self.add(self.item(song, song, label, without_suffix(label)))

    def names_chords(self, name: str) -> bool:
        path = self.folder / name
        try:
            segments, problems = read_cached(path, self.selector, self.pop_spellings)
        except UserError as error:
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
        """Clips in folders named by their chord."""
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
        if self.audio or self.midi:
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

    def report_unused(self) -> None:
        known = {without_suffix(name) for name in (*self.used, *self.audio)}
        self.report_unused_audio()
        for name in self.unused(self.midi):
            if without_suffix(name) not in known:
                self.problem("MIDI without labels", name)
        for name in self.unused(self.labels):
            self.problem("labels without audio", name)
        for name in self.unused(list(self.unreadable)):
            named_so = PurePosixPath(name).suffix.lower() in READABLE_SHARES
            if named_so or without_suffix(name) in known:
                self.problem(UNUSABLE, self.unreadable[name])
