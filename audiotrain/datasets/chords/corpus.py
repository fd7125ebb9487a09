"""Chord data for training: `discover` a folder, `check` and `report` what is in it, `split` it.

The report counts time, not files: hours by chord type and root are what a model learns from.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from audiotrain.datasets import summary
from audiotrain.datasets.chords.items import Item, load, segments
from audiotrain.datasets.items import Corpus, Problem
from audiotrain.datasets.summary import NO_LOG, ProblemLog
from audiotrain.datasets.synthesis.midi import midi_seconds
from audiotrain.features import audio
from audiotrain.music.chord_classes import CHORD_TYPES, PITCH_NAMES, encode_labels
from audiotrain.music.chord_labels import UNREADABLE
from audiotrain.music.segments import Annotation
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import count, duration

PAST_SECONDS = 0.5  # a last label longer past the audio's end than this is reported
RINGING_SECONDS = 2.0  # after the last note of a MIDI file its chord still sounds
SMALL_SHARE = 0.001  # of the time; rarer chord types share a line

# Kinds of the problems of label files, by words in the messages of their readers.
_KINDS = (
    ("read as Latin-1", "label files not in UTF-8, read as Latin-1"),
    (UNREADABLE, "unreadable labels, taken as unknown"),
    ("overlaps the label", "overlapping labels, the later one used where they do"),
    ("cut at 0", "labels that start before 0 s, cut"),
    ("left out", "labels of no length, left out"),
    ("nothing is labelled", "gaps of 1 s or more, not labelled"),
    ("the order of time", "label files out of order, sorted"),
    ("chord annotations (", "files of several chord annotations, the first one used"),
    ("cells, expected", "lines of a table not used"),
    ("quote", "lines of a table not used"),
    ("read as B natural", "names of notes that could be German"),
)
_OTHER_KIND = "lines that are no label, left out"


@dataclass
class Survey:
    """Counts of a corpus; all times in seconds.

    `types` (32,) and `roots` (12,) are labelled time by class, `unknown` that of labels without a
    class, `unlabelled` the audio's time without label, `inverted` that with a bass not the root.
    """

    items: int
    clips: int
    midi: int
    labels_only: int
    groups: int
    splits: dict[str, int]
    problems: list[Problem]
    seconds: float = 0.0
    types: np.ndarray = field(default_factory=lambda: np.zeros(len(CHORD_TYPES)))
    roots: np.ndarray = field(default_factory=lambda: np.zeros(len(PITCH_NAMES)))
    unknown: float = 0.0
    unlabelled: float = 0.0
    inverted: float = 0.0

    def add(self, item: Item, seconds: float | None) -> None:
        """Add the times of an item of this length, None where only its labels are known."""
        labelled = segments(item, seconds)
        if seconds is None:
            seconds = max((segment.end for segment in labelled), default=0.0)
        lengths = np.array([segment.end - segment.start for segment in labelled])
        lengths[~np.isfinite(lengths)] = 0.0  # a clip that is still to be rendered
        triples = encode_labels([segment.label for segment in labelled], item.pop_spellings)
        chord_type, root, bass_note = triples.T
        for times, numbers in ((self.types, chord_type), (self.roots, root)):
            known = numbers >= 0
            times += np.bincount(numbers[known], lengths[known], len(times))
        self.unknown += float(lengths[chord_type < 0].sum())
        self.inverted += float(lengths[(root != bass_note) & (root >= 0)].sum())
        if np.isfinite(seconds):
            self.seconds += seconds
            self.unlabelled += max(0.0, seconds - float(lengths.sum()))


def item_seconds(item: Item) -> float | None:
    """Length of an item's audio; None when it has no recording (MIDI, labels alone). AudioError."""
    if item.audio is None or item.midi:
        return None
    changed = item.audio.stat().st_mtime_ns if item.audio.exists() else 0
    whole = _recording_seconds(item.audio, changed)
    return max(0.0, (whole if item.end is None else min(whole, item.end)) - item.start)


@lru_cache(maxsize=65536)
def _recording_seconds(path: Path, changed: int) -> float:
    return audio.info(path).seconds


def check_audio(item: Item) -> list[Problem]:
    """What is wrong with an item's audio, by its header alone: missing, empty, no audio, too short.

    Faults inside (cut short, NaN) show when it is read.
    """
    if item.audio is None:
        return []
    if item.midi:
        head = item.audio.read_bytes()[:4] if item.audio.is_file() else b""
        text = f"{item.id}: found no MIDI header"
        return [] if head == b"MThd" else [Problem("MIDI that can't be read", text)]
    try:
        seconds = item_seconds(item)
    except audio.AudioError as error:
        text = str(error).replace(str(item.audio), item.id.split("@")[0])
        return [Problem("audio that can't be read", text)]
    text = f"{item.id}: starts at {item.start:g} s"
    return [] if seconds else [Problem("spans past the end of the audio", text)]


def check(corpus: Corpus[Item]) -> Corpus[Item]:
    """The corpus without items whose audio can't be opened; they are among its problems instead."""
    items, problems = [], list(corpus.problems)
    for item in summary.progress(corpus.items, "checking audio"):
        faults = check_audio(item)
        problems += faults
        items += [] if faults else [item]
    if not items:
        raise UserError(
            f"{corpus.folder}: found no audio that can be read, first {problems[-1].text}"
        )
    return replace(corpus, items=items, problems=problems)


def survey(corpus: Corpus[Item]) -> Survey:
    """Count what is in the items of a corpus, and what is wrong with them besides its problems."""
    items, problems = corpus.items, list(corpus.problems)
    counts = Survey(
        items=len(items),
        clips=sum(item.clip_label is not None for item in items),
        midi=sum(item.midi for item in items),
        labels_only=sum(item.audio is None for item in items),
        groups=len({item.group for item in items}),
        splits=summary.splits_of(items),
        problems=problems,
    )
    reported: set[Path | tuple] = set()
    for item in summary.progress(items, "reading data"):
        try:
            annotation, seconds = load(item), item_seconds(item)
            segments(item, _whole_seconds(item) if item.midi else seconds)
        except UserError as error:
            problems.append(Problem("items that can't be read", f"{item.id}: {error}"))
            continue
        if item.annotation not in reported:
            reported.add(item.annotation)
            for text in annotation.problems:
                kind = next((kind for words, kind in _KINDS if words in text), _OTHER_KIND)
                problems.append(Problem(kind, text.removeprefix(f"{corpus.folder}/")))
        problems += _past_the_end(item, annotation, seconds)
        counts.add(item, seconds)
    problems += summary.leaks(items)
    return counts


def _whole_seconds(item: Item) -> float | None:
    """Length of a MIDI file; None where it cannot be read."""
    assert item.audio is not None
    return midi_seconds(item.audio)


def _past_the_end(item: Item, annotation: Annotation, seconds: float | None) -> list[Problem]:
    """A problem when the labels, or the span, of an item end well after its sound."""
    whole: float | None
    if item.audio is not None and item.midi:
        whole, slack = _whole_seconds(item), PAST_SECONDS + RINGING_SECONDS
    else:
        whole, slack = None if seconds is None else item.start + seconds, PAST_SECONDS
    if whole is None or not annotation.segments:
        return []
    last = annotation.segments[-1].end if item.end is None else item.end
    if not whole + slack < last < math.inf:
        return []
    text = f"{item.id}: last label ends at {last:.2f} s, the audio at {whole:.2f} s"
    return [Problem("labels past the end of the audio", text)]


def report(corpus: Corpus[Item], log: ProblemLog = NO_LOG) -> str:
    """What is in a corpus and what is wrong with it, for a terminal; `log` gets all problems."""
    found = survey(corpus)
    lines = [f"  {line}" for line in _overview(found)]
    labelled = found.types.sum()
    if labelled:
        rare = (found.types > 0) & (found.types < SMALL_SHARE * labelled)
        order = np.argsort(-found.types, kind="stable")
        rows = [(CHORD_TYPES[k], found.types[k]) for k in order if found.types[k] and not rare[k]]
        if rare.any():
            rows.append((f"{rare.sum()} rarer", found.types[rare].sum()))
        lines += ["", *summary.histogram("chord type", rows)]
        lines += ["", *summary.histogram("root", list(zip(PITCH_NAMES, found.roots, strict=True)))]
    return log.summary(corpus.folder, lines, found.problems)


def _overview(found: Survey) -> list[str]:
    songs = count(found.items - found.clips, "song")
    clips = count(found.clips, "clip of one chord", "clips of one chord")
    what = " and ".join(filter(None, (songs, clips)))
    for number, kind in ((found.midi, "MIDI to be rendered"), (found.labels_only, "labels alone")):
        if number:
            what += f" ({'all' if number == found.items else number} {kind})"
    if found.groups < found.items:
        what += f", in {found.groups} groups"

    def percent(seconds: float) -> str:  # a product with 1 / seconds may overflow
        return f"{100 * (seconds / (found.seconds or 1.0)):.1f} %"

    lines = [
        f"{what}: {duration(found.seconds)}",
        f"no chord {percent(found.types[0])}, other bass than root {percent(found.inverted)}, "
        f"unknown {percent(found.unknown)}, not labelled {percent(found.unlabelled)}",
    ]
    return lines + summary.split_lines(found.splits)
