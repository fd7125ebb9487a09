"""Chord labels <-> three classes (type, root, bass note); segments <-> frames; label files.

Pitch classes count from C = 0. Class triples are in the order of HEADS, with IGNORE where there is
nothing to judge. Times are seconds. `spelling.py` reads the text of a label.
"""

import codecs
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from audiotrain import spelling
from audiotrain.files import write

HEADS = ("chord_type", "root", "bass_note")
HEAD_SIZES = (32, 12, 12)
IGNORE = -100
PITCH_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# Chosen on 153.7 h of public labels: 98.6 % of their time is exactly one of these.
CHORD_TYPES = (
    "N", "maj", "min", "dim", "aug", "sus2", "sus4", "5",
    "1", "maj6", "min6", "7", "maj7", "min7", "minmaj7", "dim7",
    "hdim7", "aug(b7)", "sus4(b7)", "maj(9)", "min(9)", "maj6(9)", "9", "maj9",
    "min9", "sus4(b7,9)", "7(b9)", "7(#9)", "11", "min11", "13", "maj13",
)  # fmt: skip

BassRule = Literal["any", "chord-tone", "off"]


class ChordClass(NamedTuple):
    """One chord as class numbers in the order of HEADS; IGNORE where it has none."""

    chord_type: int
    root: int
    bass_note: int


class Chord(NamedTuple):
    """What a label says: pitch classes of root and bass, and the notes in semitones above the root.

    `notes` has every note folded into one octave, `tetrad` only those written within the octave:
    that is how mir_eval reads a label, so that `C:9` and `C:7` are one tetrad. The bass is in
    neither unless the chord has it.
    """

    root: int
    notes: frozenset[int]
    tetrad: frozenset[int]
    bass: int


NO_CHORD = ChordClass(0, IGNORE, IGNORE)
UNKNOWN = ChordClass(IGNORE, IGNORE, IGNORE)


# ---- labels


@lru_cache(maxsize=65536)
def parse(label: str, pop_spellings: bool = False) -> Chord | None:
    """The chord that `label` names; None for `N` and `X`. ValueError when it can't be read.

    >>> parse("G:7/3").bass, sorted(parse("G:7(b9)").notes)
    (11, [0, 1, 4, 7, 10])
    """
    label = spelling.repair(label, pop_spellings)
    if label in ("N", "X"):
        return None
    root_name, shorthand, degrees, bass = spelling.split(label)
    spelled = spelling.SHORTHANDS[shorthand].split(",") if shorthand else ["1"]
    spelled += [degree for degree in degrees if not degree.startswith("*")]
    removed = {spelling.degree_semitones(degree[1:]) for degree in degrees if degree[0] == "*"}
    semitones = {spelling.degree_semitones(degree) for degree in spelled} - removed
    root = spelling.pitch_class(root_name)
    return Chord(
        root=root,
        notes=frozenset(semitone % 12 for semitone in semitones),
        tetrad=frozenset(semitone % 12 for semitone in semitones if semitone < 12),
        bass=(root + spelling.degree_semitones(bass)) % 12,
    )


_TYPES = (None, *(parse(f"C:{name}") for name in CHORD_TYPES[1:]))
_TYPE_OF_NOTES = {chord.notes: number for number, chord in enumerate(_TYPES) if chord}


def chord_pitch_classes(chord_type: int) -> tuple[int, ...]:
    """Semitones above the root, rising, of a chord type; () for no chord.

    >>> chord_pitch_classes(CHORD_TYPES.index("min7"))
    (0, 3, 7, 10)
    """
    chord = _TYPES[chord_type]
    return tuple(sorted(chord.notes)) if chord else ()


@lru_cache(maxsize=65536)
def encode(label: str, pop_spellings: bool = False) -> ChordClass:
    """Class numbers of a chord label. ValueError when it can't be read.

    The type with exactly these notes, else the nearest one: of those that mir_eval reads as the
    same tetrad if there are any. `N` has a type but no root and bass; `X` has none of the three.

    >>> encode("C:maj/3")
    ChordClass(chord_type=1, root=0, bass_note=4)
    >>> encode("N") == (0, IGNORE, IGNORE)
    True
    """
    label = spelling.repair(label, pop_spellings)
    if label in ("N", "X"):
        return NO_CHORD if label == "N" else UNKNOWN
    chord = parse(label)
    chord_type = _TYPE_OF_NOTES.get(chord.notes)
    if chord_type is None:
        chord_type = min(range(1, len(_TYPES)), key=lambda number: _distance(chord, _TYPES[number]))
    return ChordClass(chord_type, chord.root, chord.bass)


# What a changed note costs, by semitones above the root: the third tells most.
_NOTE_COSTS = (3.0, 1.0, 1.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.5, 1.0, 1.5, 1.5)


def _distance(chord: Chord, known: Chord) -> tuple[bool, float]:
    """Whether mir_eval tells `known` from `chord` as tetrads, and the cost of the notes changed."""
    bass = {(chord.bass - chord.root) % 12}  # mir_eval adds the bass to both
    cost = sum(_NOTE_COSTS[note] for note in chord.notes ^ known.notes)
    if 7 in known.notes - chord.notes:
        cost -= 0.5  # a fifth is often meant where it isn't named
    return chord.tetrad | bass != known.tetrad | bass, cost


def encode_labels(labels: Sequence[str], pop_spellings: bool = False) -> np.ndarray:
    """Class triples (labels, 3) int16 of many labels; unreadable ones count as unknown."""
    numbers: dict[str, ChordClass] = {}
    for label in set(labels):
        try:
            numbers[label] = encode(label, pop_spellings)
        except ValueError:
            numbers[label] = UNKNOWN
    return np.array([numbers[label] for label in labels], np.int16).reshape(-1, len(HEADS))


@lru_cache(maxsize=65536)
def _decode(chord_type: int, root: int, bass_note: int, bass: BassRule) -> str:
    if chord_type == 0:
        return "N"
    if chord_type < 0 or root < 0:
        return "X"
    label = f"{PITCH_NAMES[root]}:{CHORD_TYPES[chord_type]}"
    interval = (bass_note - root) % 12 if bass_note >= 0 else 0
    notes = _TYPES[chord_type].notes
    if interval == 0 or bass == "off" or (bass == "chord-tone" and interval not in notes):
        return label
    return f"{label}/{_degree_name(interval, CHORD_TYPES[chord_type])}"


def _degree_name(interval: int, type_name: str) -> str:
    """The degree `interval` semitones above the root, spelled as in the chord that has it."""
    if type_name.startswith("aug") and interval == 8:
        return "#5"
    if type_name == "7(#9)" and interval == 3:
        return "#9"
    return spelling.DEGREE_NAMES[interval]


def decode(chord: Sequence[int], bass: BassRule = "any") -> str:
    """Label of class numbers in the order of HEADS, valid for mir_eval.

    A bass other than the root is written as a degree: always ("any"), only when the chord has it
    ("chord-tone"), or never ("off"). No type or root gives `X`.

    >>> decode(ChordClass(1, 0, 4)), decode((1, 0, 4), bass="off"), decode((0, 5, 5))
    ('C:maj/3', 'C:maj', 'N')
    """
    chord_type, root, bass_note = (int(number) for number in chord)
    return _decode(chord_type, root, bass_note, bass)


def transpose(classes: np.ndarray, semitones: int | np.ndarray) -> np.ndarray:
    """Class triples (..., 3) moved up by `semitones`, a number or an array (...); IGNORE stays."""
    classes = np.asarray(classes)
    moved = classes.copy()
    pitches = classes[..., 1:]
    shifted = (pitches + np.asarray(semitones)[..., None]) % 12
    moved[..., 1:] = np.where(pitches >= 0, shifted, pitches)
    return moved


# ---- segments


class Segment(NamedTuple):
    """A label from `start` to `end` seconds."""

    start: float
    end: float
    label: str


class Annotation(NamedTuple):
    """Segments in order, none overlapping, and what was wrong in the file ("file:line: text")."""

    segments: list[Segment]
    problems: list[str]


def segments_to_frames(
    segments: Sequence[Segment], frames: int, frame_seconds: float, pop_spellings: bool = False
) -> np.ndarray:
    """Class triples (frames, 3) int16 of the segment at each frame's centre, frame * frame_seconds.

    IGNORE where no segment is, and where its label is unknown or unreadable.
    """
    classes = np.full((frames, len(HEADS)), IGNORE, np.int16)
    segments = sorted(segments)
    if not segments or not frames:
        return classes
    starts = np.array([segment.start for segment in segments])
    ends = np.array([segment.end for segment in segments])
    centres = np.arange(frames) * frame_seconds
    owner = np.searchsorted(starts, centres, side="right") - 1
    # Audio of a whole number of hops has its last centre on its end.
    inside = (owner >= 0) & (
        (centres < ends[owner]) | np.isclose(centres, ends[-1], rtol=0, atol=1e-9)
    )
    labels = encode_labels([segment.label for segment in segments], pop_spellings)
    classes[inside] = labels[owner[inside]]
    return classes


def frames_to_segments(
    labels: Sequence[str] | np.ndarray,
    frame_seconds: float,
    duration: float,
    bass: BassRule = "any",
    moved: Callable[[np.ndarray], np.ndarray] = lambda times: times,
) -> list[Segment]:
    """Runs of equal frames, labels [frames] or class triples (frames, 3), as segments.

    Frame i spans (i - 0.5) to (i + 0.5) times `frame_seconds`; the first begins at 0 and the last
    ends at `duration` seconds. `moved` gives better times (n,) for those of the changes between.
    """
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        labels = [_decode(*triple, bass) for triple in labels.tolist()]
    segments: list[Segment] = []
    if not len(labels):
        return segments
    names = np.asarray(labels)
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    bounds = np.concatenate([[0.0], moved((changes - 0.5) * frame_seconds), [duration]])
    for first, start, end in zip([0, *changes], bounds[:-1], bounds[1:], strict=True):
        end = min(end, duration)
        if end > start:
            segments.append(Segment(float(start), float(end), str(names[first])))
    return segments


# ---- label files

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ROW = re.compile(rf"({_NUMBER})[\s,;]+({_NUMBER})[\s,;]+(.+)")
# Where a further column begins after a label: at a tab, or before a number that is not in brackets.
_COLUMN = re.compile(rf"\t|[\s,;]+(?={_NUMBER}(?:[\s,;]|$))(?![^(]*\))")
_HEADER = re.compile(r"(?i)\W*(start|onset|begin|time|t0)")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Rounding of times makes gaps and overlaps up to this long; they are closed in silence.
ROUNDING_SECONDS = 0.0005


def read_lab(path: str | os.PathLike, pop_spellings: bool = False) -> Annotation:
    """Segments of a label file: start, end, chord on each line, between tabs, spaces or commas.

    Faults of single lines are mended or left out and told in `problems`; labels come out in
    Harte's grammar, unreadable ones as `X`. ValueError when the file can't be read at all.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: label file can't be read: {error.strerror}") from None
    encoding = _BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig")
    try:
        return parse_lab(data.decode(encoding), str(path), pop_spellings)
    except UnicodeDecodeError:
        segments, problems = parse_lab(data.decode("latin-1"), str(path), pop_spellings)
    return Annotation(segments, [f"{path}:1: not {encoding}, read as Latin-1", *problems])


def parse_lab(text: str, name: str, pop_spellings: bool = False) -> Annotation:
    """As `read_lab`, from the text of a file called `name`; never raises."""
    rows: list[tuple[int, Segment]] = []
    problems: list[str] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line or (not rows and _HEADER.match(line)):
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            problems.append(f"{name}:{number}: found {line[:60]!r}, expected start, end and chord")
            continue
        try:
            label = _read_label(match[3], pop_spellings)
        except ValueError as error:
            problems.append(f"{name}:{number}: {error}")
            label = "X"
        rows.append((number, Segment(float(match[1]), float(match[2]), label)))
    if not rows:
        problems.append(f"{name}:1: no labels found, expected lines of start, end and chord")
    return Annotation(_in_order(rows, name, problems), problems)


def _read_label(text: str, pop_spellings: bool) -> str:
    """The label at the beginning of `text`, which may have quotes and further columns."""
    text = _COLUMN.split(text.strip("\"' \t,;"), maxsplit=1)[0].strip("\"' ")
    try:
        return spelling.repair(text, pop_spellings)
    except ValueError:
        first = re.split(r"[\s;]|,(?![^(]*\))", text)[0].strip("\"'")
        if first in ("", text):
            raise
        return spelling.repair(first, pop_spellings)


def _in_order(rows: list[tuple[int, Segment]], name: str, problems: list[str]) -> list[Segment]:
    """Segments sorted, cut at 0 and where the next begins; `problems` gets what was changed."""
    segments: list[Segment] = []
    ordered = sorted(rows, key=lambda row: row[1][:2])
    if ordered != rows:
        problems.append(f"{name}:1: lines are not in the order of time, sorted")
    for number, (start, end, label) in ordered:
        where = f"{name}:{number}:"
        if start < 0:
            problems.append(f"{where} starts at {start:.3f} s, cut at 0")
            start = 0.0
        if not start < end < float("inf"):
            problems.append(f"{where} ends at {end:.3f} s, not after {start:.3f} s, left out")
            continue
        before = segments[-1].end if segments else 0.0
        if start - before >= 1:
            problems.append(f"{where} nothing is labelled from {before:.3f} to {start:.3f} s")
        if before - start > ROUNDING_SECONDS:
            problems.append(f"{where} overlaps the label before it, which is cut")
        if segments and start - before <= ROUNDING_SECONDS:
            segments[-1] = segments[-1]._replace(end=start)
            if segments[-1].start == start:
                segments.pop()
        segments.append(Segment(start, end, label))
    return segments


def write_lab(path: str | os.PathLike, segments: Iterable[Segment]) -> None:
    """Write start, end and label, tab-separated, a line each; the file appears whole or not at all.

    ValueError when it can't be written.
    """
    lines = (f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in segments)
    write(path, "".join(lines))
