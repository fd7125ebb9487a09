"""Chords along time, reference above estimate: as lines of a terminal and as a picture.

Segments are (start, end, label), in seconds; labels in Harte's spelling.
"""

import bisect
import colorsys
import itertools
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import mir_eval.chord

from audiotrain.evaluation.plots import style
from audiotrain.utils.text import clock

Spans = Sequence[tuple[float, float, str]]

ROOT = re.compile(r"[A-G][#b]*")
SHORT = {"maj": "", "min": "m", "min7": "m7", "min6": "m6", "minmaj7": "mM7", "maj6": "6"}
ROW_SECONDS = (2, 4, 5, 8, 10, 12, 15, 20, 30, 40, 60, 90, 120, 180, 240, 300, 600, 1200, 3600)
STEPS = (0.5, 1, 2, 4, 5, 10, 15, 20, 30, 60, 120, 300, 600)
# 256-colour backgrounds by position on the circle of fifths, so that related chords look related.
BACKGROUNDS = (210, 216, 222, 228, 192, 157, 158, 159, 153, 147, 183, 218)
GREY = 250
BAND_INCHES = 0.5
MOST_ROWS = 40  # of a picture, whose height is limited
LEAST_SECONDS = 0.05  # of a recording that is shown
LEAST_ROW = 0.1  # share of a picture's row that is worth a row of its own
RIGHT, WRONG = "#86d9a0", "#dc2626"


def root_of(label: str) -> int | None:
    """Pitch class of a label's root, C = 0; None for N, X and what cannot be read.

    >>> root_of("Bb:min7/b3"), root_of("N")
    (10, None)
    """
    match = ROOT.match(label)
    return None if match is None else mir_eval.chord.pitch_class_to_semitone(match[0]) % 12


def short_label(label: str) -> str:
    """The label as musicians write it.

    >>> [short_label(label) for label in ("C:maj", "A:min", "Bb:min7/b3", "G:7", "C", "N")]
    ['C', 'Am', 'Bbm7/b3', 'G7', 'C', 'N']
    """
    chord, slash, bass = label.partition("/")
    root, colon, kind = chord.partition(":")
    return root + (SHORT.get(kind, kind) if colon else "") + slash + bass


def merged(spans: Spans) -> list[tuple[float, float, str]]:
    """The same without empty spans, and with neighbours of one label as one."""
    joined: list[tuple[float, float, str]] = []
    for start, end, label in spans:
        if end <= start:
            continue
        if joined and joined[-1][1] == start and joined[-1][2] == label:
            start = joined.pop()[0]
        joined.append((start, end, label))
    return joined


def agreement(reference: Spans, estimate: Spans) -> list[tuple[float, float, bool]]:
    """(start, end, whether both give the same label) over the reference, from boundary to boundary;
    a gap of the estimate counts as N; spans of the reference labelled X (unknown) are left out.

    >>> agreement([(0, 2, "C"), (2, 3, "X")], [(0, 1.5, "C:maj"), (1.5, 3, "G")])
    [(0, 1.5, True), (1.5, 2, False)]
    """
    estimate = sorted(estimate)
    times = sorted({time for span in estimate for time in span[:2]})
    parts: list[tuple[float, float, bool]] = []
    for start, end, label in reference:
        if label == "X":
            continue
        inside = times[bisect.bisect_right(times, start) : bisect.bisect_left(times, end)]
        for left, right in itertools.pairwise([start, *inside, end]):
            at = bisect.bisect_right(estimate, left, key=lambda span: span[0]) - 1
            covered = at >= 0 and left < estimate[at][1]
            other = estimate[at][2] if covered else "N"
            parts.append((left, right, short_label(other) == short_label(label)))
    return parts


def share_agreed(parts: Sequence[tuple[float, float, bool]]) -> float:
    """Share of the time of the `parts` from `agreement` that agrees; NaN where there are none."""
    total = sum(end - start for start, end, _ in parts)
    return sum(end - start for start, end, same in parts if same) / total if total else float("nan")


def timeline(
    segments: Spans,
    reference: Spans | None = None,
    width: int | None = None,
    color: bool | None = None,
    row_seconds: float | None = None,
    rows: int | None = None,
) -> str:
    """Text that shows `segments` along time, under `reference` when there is one.

    A column is a fixed span of time, `│` begins a chord, a last line marks where the two differ.
    width: columns, by default the terminal's; color: whether to colour chords by root, by default
    on a terminal with colours unless NO_COLOR is set; row_seconds: time of a row, by default such
    that most labels fit; rows: the largest number of rows.

    >>> print(timeline([(0, 2, "C:maj"), (2, 4, "A:min")], width=40, color=False))
          0:00    0:01     0:02     0:03
    chord │C               │Am
    """
    bands = _bands(segments, reference, alone="chord")
    spans = [span for band in bands.values() for span in band]
    if not spans:
        return "no chords"
    if max(span[1] for span in spans) - min(span[0] for span in spans) < LEAST_SECONDS:
        return "too short to show"
    names = [*bands, "differ"] if reference is not None else list(bands)
    margin = max(map(len, names)) + 1
    columns = width or min(shutil.get_terminal_size((100, 24)).columns, 160)
    columns = max(columns - margin, 20)
    row_seconds = row_seconds or _row_seconds(spans, columns)
    start = row_seconds * (min(span[0] for span in spans) // row_seconds)
    end = max(span[1] for span in spans)
    paint = _takes_color() if color is None else color
    least = row_seconds / columns  # of a row's time: less is no column
    bar, cross = ("│", "×") if _takes_unicode() else ("|", "x")
    parts = [] if reference is None else agreement(bands["reference"], bands["estimate"])
    blocks: list[str] = []
    while not blocks or end - start > least and (rows is None or len(blocks) < rows):
        grid = _Grid(start, row_seconds, columns)
        lines = [" " * margin + grid.ruler(end)]
        lines += [name.ljust(margin) + grid.band(band, bar, paint) for name, band in bands.items()]
        if reference is not None:
            lines.append("differ".ljust(margin) + grid.marks(parts, cross, paint))
        blocks.append("\n".join(line.rstrip() for line in lines))
        start += row_seconds
    text = ("\n" if len(bands) == 1 else "\n\n").join(blocks)
    if end - start > least:
        text += f"\n… and {clock(max(1, round(end - start)))} more"
    if parts:
        seconds = sum(right - left for left, right, _ in parts)
        text += f"\n\nsame label in {share_agreed(parts):.1%} of {clock(seconds)}"
    return text


def _bands(
    estimate: Spans, reference: Spans | None, alone: str
) -> dict[str, list[tuple[float, float, str]]]:
    """`merged` spans by the name of their band, which is `alone` without a reference."""
    if reference is None:
        return {alone: merged(estimate)}
    return {"reference": merged(reference), "estimate": merged(estimate)}


class _Grid:
    """Columns of equal time from `start` seconds on."""

    def __init__(self, start: float, seconds: float, columns: int):
        self.start, self.seconds, self.columns = start, seconds, columns

    def column(self, time: float) -> int:
        column = round((time - self.start) / self.seconds * self.columns)
        return min(max(column, 0), self.columns)

    def ruler(self, end: float) -> str:
        """Times up to `end` over the columns where they begin, at a round distance of at least 8
        columns."""
        fitting = [step for step in STEPS if (self.seconds / step).is_integer()]
        wide = (step for step in fitting if step * self.columns >= 8 * self.seconds)
        step = next(wide, self.seconds)
        line = [" "] * (self.columns + 8)
        times = [self.start + mark * step for mark in range(round(self.seconds / step))]
        for time in (time for time in times if time < end):
            text, at = clock(time), self.column(time)
            line[at : at + len(text)] = text
        return "".join(line).rstrip()

    def band(self, band: Spans, bar: str, paint: bool) -> str:
        """One row of a band: each chord from its bar on, as much of its label as fits."""
        pieces, at = [], 0
        for start, end, label in band:
            left, right = max(self.column(start), at), self.column(end)
            if right <= left or start >= self.start + self.seconds:
                continue
            pieces.append(" " * (left - at))
            cell = _cell(short_label(label), right - left, bar if start >= self.start else " ")
            pieces.append(_painted(cell, label) if paint else cell)
            at = right
        return "".join(pieces)

    def marks(self, parts: Sequence[tuple[float, float, bool]], cross: str, paint: bool) -> str:
        line = [" "] * self.columns
        for start, end, same in parts:
            if not same:
                left, right = self.column(start), self.column(end)
                line[left:right] = cross * (right - left)
        text = "".join(line).rstrip()
        return f"\x1b[31m{text}\x1b[0m" if paint and text else text


def _cell(label: str, columns: int, first: str) -> str:
    """`first` and as much of the label as fits, the root at least, else spaces."""
    chord = label.partition("/")[0]
    match = ROOT.match(label)
    root = match[0] if match else label
    tries = (label, chord, chord.replace("maj", "M"), root + "…", root, "")
    fitting = next(text for text in tries if len(text) < columns or not text)
    return (first + fitting).ljust(columns)[:columns]


def _painted(cell: str, label: str) -> str:
    root = root_of(label)
    background = GREY if root is None else BACKGROUNDS[root * 7 % 12]
    return f"\x1b[38;5;16;48;5;{background}m{cell}\x1b[0m"


def _row_seconds(spans: Spans, columns: int) -> float:
    """A round time of a row in which four labels of five fit their cells."""
    rates = sorted((end - start) / (len(short_label(label)) + 1) for start, end, label in spans)
    wanted = rates[len(rates) // 5] * columns
    length = max(span[1] for span in spans) - min(span[0] for span in spans)
    enough = next((row for row in ROW_SECONDS if row >= length), ROW_SECONDS[-1])
    return max((row for row in ROW_SECONDS if row <= min(wanted, enough)), default=ROW_SECONDS[0])


def _takes_color() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") in ("utf8", "utf16", "utf32")


def chords_picture(
    estimate: Spans,
    path: str | os.PathLike,
    reference: Spans | None = None,
    title: str = "Chords",
    row_seconds: float = 30.0,
    start: float = 0.0,
    seconds: float | None = None,
) -> None:
    """Write a PNG of chords along time, `row_seconds` a row: the reference's band above the
    estimate's, a thin strip between them green where the labels agree and red where not.

    Colour is the root, by the circle of fifths; minor chords are darker. `start` and `seconds`
    choose a part; a long one gets longer rows, and so does one that is a little longer than whole
    rows. ValueError where there are no chords, and for a file
    that cannot be written.
    """
    bands = _bands(estimate, reference, alone="estimate")
    last = max((span[1] for band in bands.values() for span in band), default=start)
    end = last if seconds is None else min(last, start + seconds)
    if end <= start:
        raise ValueError(f"no chords between {start} and {end} seconds")
    count = math.ceil((end - start) / max(row_seconds, (end - start) / MOST_ROWS) - LEAST_ROW)
    count = max(1, count)
    row_seconds = min(max(row_seconds, (end - start) / count), end - start)
    parts = [] if reference is None else agreement(bands["reference"], bands["estimate"])
    parts = _clipped(parts, start, end)
    figure, axes = style.new_figure(13, 0.6 + count * (0.4 + BAND_INCHES * len(bands)), rows=count)
    for number, axis in enumerate(axes):
        left = start + number * row_seconds
        _draw_row(figure, axis, bands, parts, left, left + row_seconds)
    shown = f"same label in {share_agreed(parts):.1%} of the time" if parts else ""
    style.add_title(axes[0], title, shown)
    style.save(figure, path)


def _clipped(spans: Sequence[tuple], start: float, end: float) -> list[tuple]:
    """The parts of (start, end, …) spans between two times."""
    return [(max(a, start), min(b, end), *rest) for a, b, *rest in spans if a < end and b > start]


def _draw_row(
    figure: Any, axis: Any, bands: Mapping[str, Spans], parts: Sequence, left: float, right: float
) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlim(left, right)
    tops = {name: 1.0 if number == 0 else -0.16 for number, name in enumerate(bands)}
    axis.set_ylim(-0.16 - 1 if len(bands) == 2 else 0, 1)
    for name, band in bands.items():
        for start, end, label in _clipped(band, left, right):
            _draw_chord(figure, axis, start, end, tops[name], label)
    for start, end, same in _clipped(parts, left, right):
        color = RIGHT if same else WRONG
        axis.barh(-0.08, end - start, 0.07, left=start, color=color, linewidth=0)
    named = [name for name in tops if len(tops) > 1]
    axis.set_yticks([tops[name] - 0.5 for name in named], labels=named)
    axis.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(lambda time, _: clock(time))
    style.tidy(axis, grid=False)
    axis.tick_params(labelsize=9)


def _draw_chord(figure: Any, axis: Any, start: float, end: float, top: float, label: str) -> None:
    fill, ink = _chord_colors(label)
    axis.barh(top - 0.5, end - start, 1.0, left=start, color=fill, edgecolor="white", linewidth=1.2)
    low, high = axis.get_xlim()
    width = (end - start) / (high - low) * figure.get_figwidth() * 0.9 * 72
    for text, size, angle in _label_sizes(label):
        long, thick = len(text) * size * 0.72, size * 1.35
        if (width > long) if angle == 0 else (width > thick and long < BAND_INCHES * 72):
            text_style = {"fontsize": size, "rotation": angle, "color": ink, **style.CENTERED}
            axis.text((start + end) / 2, top - 0.5, text, **text_style)
            return


def _label_sizes(label: str) -> Sequence[tuple[str, float, int]]:
    """(text, points, degrees) to try in a band, best first."""
    text, root = short_label(label), ROOT.match(label)
    sizes = [(text, 9.5, 0), (text, 8, 0), (text, 8, 90), (text, 6.5, 90)]
    return sizes + ([(root[0], 8, 0), (root[0], 6.5, 0)] if root else [])


def _chord_colors(label: str) -> tuple[tuple[float, float, float], str]:
    """Fill and ink of a chord: hue by the root's position on the circle of fifths."""
    root = root_of(label)
    if root is None:
        return (0.90, 0.91, 0.93), style.PALE
    kind = label.partition(":")[2]
    minor = kind.startswith(("min", "dim", "hdim"))
    lightness, saturation = (0.62, 0.45) if minor else (0.78, 0.62)
    return colorsys.hls_to_rgb(root * 7 % 12 / 12 + 0.02, lightness, saturation), style.INK
