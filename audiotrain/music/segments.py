"""Chord segments, label frames and .lab files; times are seconds."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.music import chord_labels
from audiotrain.music.chord_classes import HEADS, IGNORE, decode, encode_labels
from audiotrain.utils.files import read_text, write


class Segment(NamedTuple):
    """A label from `start` to `end` seconds."""

    start: float
    end: float
    label: str


class Annotation(NamedTuple):
    """Segments in order, none overlapping, and problems of the file ("file:line: text")."""

    segments: list[Segment]
    problems: list[str]


def merge_equal(segments: Iterable[Segment]) -> list[Segment]:
    """The same annotation with neighbours of equal label joined."""
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1].label == segment.label:
            merged[-1] = merged[-1]._replace(end=segment.end)
        else:
            merged.append(segment)
    return merged


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
    moved: Callable[[np.ndarray], np.ndarray] = lambda times: times,
) -> list[Segment]:
    """Runs of equal frames, labels [frames] or class triples (frames, 3), as segments.

    Frame i spans (i - 0.5) to (i + 0.5) times `frame_seconds`; the first begins at 0 and the last
    ends at `duration` seconds. `moved` gives better times (n,) for those of the changes between.
    """
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        labels = [decode(triple) for triple in labels.tolist()]
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


_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_ROW = re.compile(rf"({_NUMBER})[\s,;]+({_NUMBER})[\s,;]+(.+)")
# Where a further column begins after a label: at a tab, or before a number that is not in brackets.
_COLUMN = re.compile(rf"\t|[\s,;]+(?={_NUMBER}(?:[\s,;]|$))(?![^(]*\))")
_HEADER = re.compile(r"(?i)\W*(start|onset|begin|time|t0)")
# Rounding of times makes gaps and overlaps up to this long; they are closed without a problem.
ROUNDING_SECONDS = 0.0005


def read_lab(path: str | os.PathLike, pop_spellings: bool = False) -> Annotation:
    """Segments of a label file: start, end, chord on each line, between tabs, spaces or commas.

    Faults of single lines are mended or left out and in `problems`; labels come out in
    Harte's grammar, unreadable ones as `X`. ValueError when the file can't be read at all.
    """
    text, problems = read_text(Path(path))
    annotation = parse_lab(text, str(path), pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


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
        return chord_labels.repair(text, pop_spellings)
    except ValueError:
        first = re.split(r"[\s;]|,(?![^(]*\))", text)[0].strip("\"'")
        if first in ("", text):
            raise
        return chord_labels.repair(first, pop_spellings)


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
