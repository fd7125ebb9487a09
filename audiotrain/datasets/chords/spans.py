"""Labelled spans of a recording, as the lines of a table give them, joined to songs."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

from audiotrain.datasets.chords.items import Item
from audiotrain.datasets.items import Problem
from audiotrain.datasets.tables import UNUSED_LINES, span_name
from audiotrain.music.segments import ROUNDING_SECONDS, Segment


class Line(NamedTuple):
    """A line of a table: "table:line", its item, and whether it has neither start nor end."""

    where: str
    item: Item
    whole: bool


def songs(lines: list[Line]) -> tuple[list[Item], list[Problem]]:
    """The items of all lines of one recording, and what is wrong with their times.

    Spans with a chord are one item, a part of the split, so that its frames keep their context. A
    span without end ends where the next one begins, the last one with the recording; one that goes
    on when the next begins is cut there.
    """
    chords = [(line, segment) for line in lines if (segment := line.item.clip_segment)]
    spans = sorted(
        (chord for chord in chords if not chord[0].whole), key=lambda chord: chord[0].item.start
    )
    if not spans:
        return [line.item for line in lines], []
    expected = f"found no start, expected one as in {spans[0][0].where}"
    problems = [
        Problem(UNUSED_LINES, f"{line.where}: {expected}") for line, _ in chords if line.whole
    ]
    by_split: dict[str | None, list[tuple[Item, Segment]]] = defaultdict(list)
    for (line, segment), following in itertools.zip_longest(spans, spans[1:]):
        if following is not None:
            onset, end = following[0].item.start, segment.end
            if onset == segment.start or ROUNDING_SECONDS < end - onset < math.inf:
                text = f"{following[0].where}: overlaps {line.where}, which is cut"
                problems.append(Problem("overlapping labels, the first one cut", text))
            segment = segment._replace(end=min(end, onset))
        if segment.end > segment.start:
            by_split[line.item.split].append((line.item, segment))
    items = [line.item for line in lines if line.item.clip_segment is None]
    return items + [_joined(members) for members in by_split.values()], problems


def _joined(spans: list[tuple[Item, Segment]]) -> Item:
    """One item of all spans of a recording in one part of the split."""
    first, segment = spans[0]
    name = first.id.rsplit("@", 1)[0] if first.start or first.end else first.id
    segments = tuple(segment for _, segment in spans)
    if len(spans) == 1:
        end = None if segment.end == math.inf else segment.end
        return replace(first, id=span_name(name, first.start, end), annotation=segments, end=end)
    name += f"@{first.split}" if first.split else ""
    return replace(first, id=name, annotation=segments, start=0.0, end=None, columns={})
