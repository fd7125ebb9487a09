"""Chord segments, label frames and .lab files; times are seconds."""

import bisect
import heapq
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.music import chord_labels
from audiotrain.music.chord_classes import HEADS, IGNORE, decode, encode_labels
from audiotrain.utils.errors import UserError
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
_LEADING_NUMBERS = re.compile(
    rf"({_NUMBER})[\s,;]+(?:({_NUMBER})[\s,;]+)?(?:({_NUMBER})[\s,;]+)?(.+)"
)
_OUTSIDE_BRACKETS = r"(?![^(]*\))"
# Columns after a label between spaces, such as a confidence: numbers with a decimal point.
_FURTHER_COLUMNS = re.compile(r"\s+\d*\.\d+(?:\s+\d*\.?\d+)*$")
_HEADER = re.compile(r"(?i)\W*(start|onset|begin|time|t0|t\b)")
# Rounding of times makes gaps and overlaps up to this long; they are closed without a problem.
ROUNDING_SECONDS = 0.0005
# Seconds of a unit that a header names after a time: `start_ms`, `Start (ms)`, `onset [s]`.
UNITS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3,
         "milliseconds": 1e-3, "us": 1e-6, "microseconds": 1e-6}  # fmt: skip


class _Line(NamedTuple):
    """Numbers that begin a line of a label file, and the text after them."""

    number: int  # of the line, from 1
    times: tuple[float, ...]
    label: str


def split_unit(column: str) -> tuple[str, float]:
    """Split the name of a column into its words, small and joined by `_`, and the seconds of its
    unit, 1 where it names none.

    >>> split_unit("Start Time"), split_unit("start_ms"), split_unit("Onset (ms)")
    (('start_time', 1.0), ('start', 0.001), ('onset', 0.001))
    """
    words = re.findall(r"[a-z0-9]+", column.lower())
    if len(words) > 1 and words[-1] in UNITS:
        return "_".join(words[:-1]), UNITS[words[-1]]
    return "_".join(words), 1.0


def read_lab(path: str | os.PathLike, pop_spellings: bool = False) -> Annotation:
    """Segments of a label file: start, end, chord on each line, between tabs, spaces or commas.

    See `parse_lab`. UserError when the file can't be read at all.
    """
    text, problems = read_text(Path(path))
    annotation = parse_lab(text, str(path), pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


def parse_lab(text: str, name: str, pop_spellings: bool = False) -> Annotation:
    """Return the segments in the text of a label file called `name`; never raises.

    A line is start, end and chord; or a time and a chord (Chordino, instants), which lasts until
    the next time, the last one to the end of the audio (an infinite end); or start, value, duration
    and chord (regions of Sonic Visualiser). Between columns are tabs, semicolons, commas or spaces;
    a label between tabs may hold spaces. Numbers may have decimal commas between tabs and
    semicolons. Labels are read whole and come out in Harte's grammar, unreadable ones as `X`.
    Faults of single lines are mended or left out and in `problems`.
    """
    lines: list[_Line] = []
    problems: list[str] = []
    unit = 1.0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not lines and _HEADER.match(line):
            unit = split_unit(re.split(r"[\t;,]|\s{2,}", line)[0])[1]
            continue
        found = _columns(line, number)
        if found is None:
            problems.append(f"{name}:{number}: found {line[:60]!r}, expected start, end and chord")
        else:
            lines.append(found)
    # Where most lines have an end, one without is a fault.
    if sum(len(line.times) > 1 for line in lines) * 2 >= len(lines):
        for number, _, text in (line for line in lines if len(line.times) == 1):
            problems.append(
                f"{name}:{number}: found one time and {text[:60]!r}, expected start, end and chord"
            )
        lines = [line for line in lines if len(line.times) > 1]
    rows: list[tuple[int, Segment]] = []
    labels: list[str] = []
    for (number, _, text), (start, end) in zip(lines, _spans(lines), strict=True):
        try:
            label = _read_label(text, pop_spellings)
        except UserError as error:
            problems.append(f"{name}:{number}: {error}")
            label = "X"
        rows.append((number, Segment(start * unit, end * unit, label)))
        labels.append(text)
    if not rows:
        problems.append(f"{name}:1: no labels found, expected lines of start, end and chord")
    if pop_spellings:
        problems += [f"{name}:1: {text}" for text in chord_labels.ambiguous_names(labels)]
    return Annotation(_in_order(rows, name, problems), problems)


def _columns(line: str, number: int) -> _Line | None:
    """The numbers and the label of a line; None where it has no number or no label."""
    for separator in (r"\t+", ";", f",{_OUTSIDE_BRACKETS}"):
        cells = [cell.strip().strip("\"' ") for cell in re.split(separator, line)]
        cells = [cell for cell in cells if cell]
        times: list[float] = []
        for time in map(parse_time, cells[:3]):
            if time is None:
                break
            times.append(time)
        if times and any(parse_time(cell) is None for cell in cells[len(times) :]):
            return _Line(number, tuple(times), cells[len(times)])
    match = _LEADING_NUMBERS.fullmatch(line)
    if match is None:
        return None
    label = match[4].split("\t")[0].strip("\"' ,;")
    times = [_finite(time) for time in match.groups()[:3] if time]
    return _Line(number, tuple(times), label) if label and parse_time(label) is None else None


def parse_time(cell: str) -> float | None:
    """Return the number of a cell, which may have a decimal comma; None for anything else."""
    cell = re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell)
    return _finite(cell) if re.fullmatch(_NUMBER, cell) else None


def _finite(number: str) -> float:
    """A number of a file; NaN for one that is too large, which no segment has."""
    value = float(number)
    return value if math.isfinite(value) else math.nan


def _spans(lines: Sequence[_Line]) -> list[tuple[float, float]]:
    """Start and end of each line, by what its numbers are: see `parse_lab`."""
    pairs = [line for line in lines if len(line.times) == 2]
    points = bool(pairs) and all(start == end for start, end in (one.times for one in pairs))
    regions = _are_regions([line.times for line in lines if len(line.times) == 3])
    starts = sorted({line.times[0] for line in lines if not math.isnan(line.times[0])})
    spans = []
    for line in lines:
        start = line.times[0]
        if len(line.times) == 3 and regions:
            spans.append((start, start + line.times[2]))
        elif len(line.times) > 1 and not points:
            spans.append((start, line.times[1]))
        else:
            later = bisect.bisect_right(starts, start)
            spans.append((start, starts[later] if later < len(starts) else math.inf))
    return spans


def _are_regions(times: Sequence[tuple[float, ...]]) -> bool:
    """Whether three numbers are start, value and duration, as Sonic Visualiser exports regions, and
    not start, end and another value: the reading whose labels end nearest to the next start."""
    if any(second <= start for start, second, _ in times):
        return True
    pairs = list(itertools.pairwise(times))
    as_ends = sum(abs(one[1] - after[0]) for one, after in pairs)
    as_durations = sum(abs(one[0] + one[2] - after[0]) for one, after in pairs)
    return as_durations < as_ends


def _read_label(text: str, pop_spellings: bool) -> str:
    """The label that a text is as a whole, but for numbers with a decimal point behind it."""
    try:
        return chord_labels.repair(text, pop_spellings)
    except UserError:
        label = _FURTHER_COLUMNS.sub("", text)
        if label == text:
            raise
        return chord_labels.repair(label, pop_spellings)


def _in_order(rows: list[tuple[int, Segment]], name: str, problems: list[str]) -> list[Segment]:
    """Segments sorted, cut at 0 and where the next begins; `problems` gets what was changed. A
    label that another one interrupts goes on after it."""
    segments: list[Segment] = []
    if sorted(rows, key=lambda row: row[1].start) != rows:
        problems.append(f"{name}:1: lines are not in the order of time, sorted")
    # A remainder of an interrupted label has the number 0.
    waiting = []
    for number, (start, end, label) in rows:
        if math.isnan(start) or math.isnan(end):
            problems.append(f"{name}:{number}: no time, left out")
        else:
            waiting.append((start, -end, number, label))
    heapq.heapify(waiting)
    while waiting:
        start, end, number, label = heapq.heappop(waiting)
        end, where = -end, f"{name}:{number}:"
        if start < 0:
            problems.append(f"{where} starts at {start:.3f} s, cut at 0")
            start = 0.0
        before = segments[-1].end if segments else 0.0
        if not number:
            start = max(start, before)
            if end - start <= ROUNDING_SECONDS:
                continue
        if not start < end:
            problems.append(f"{where} ends at {end:.3f} s, not after {start:.3f} s, left out")
            continue
        if start - before >= 1:
            problems.append(f"{where} nothing is labelled from {before:.3f} to {start:.3f} s")
        if before - end > ROUNDING_SECONDS:
            problems.append(f"{where} overlaps the label before it, which goes on after it")
            heapq.heappush(waiting, (end, -before, 0, segments[-1].label))
        elif before - start > ROUNDING_SECONDS:
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
