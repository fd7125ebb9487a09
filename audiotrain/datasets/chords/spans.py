"""Labelled spans of a recording, as the lines of a table give them, joined to songs."""

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
    chords = [line for line in lines if line.item.clip_label is not None]
    spans = sorted((line for line in chords if not line.whole), key=lambda line: line.item.start)
    if not spans:
        return [line.item for line in lines], []
    problems = [
        Problem(
            UNUSED_LINES,
            f"{line.where}: found no start, expected one as in {spans[0].where}",
        )
        for line in chords
        if line.whole
    ]
    by_split: dict[str | None, list[Item]] = defaultdict(list)
    for place, line in enumerate(spans):
        (segment,) = line.item.annotation
        for following in spans[place + 1 : place + 2]:
            onset, end = following.item.start, segment.end
            if onset == segment.start or ROUNDING_SECONDS < end - onset < math.inf:
                text = f"{following.where}: overlaps {line.where}, which is cut"
                problems.append(Problem("overlapping labels, the first one cut", text))
            segment = segment._replace(end=min(end, onset))
        if segment.end > segment.start:
            by_split[line.item.split].append(_item(line.item, segment))
    items = [line.item for line in lines if line.item.clip_label is None]
    return items + [_joined(own) for own in by_split.values()], problems


def _item(item: Item, segment: Segment) -> Item:
    """The item with the end of its segment."""
    end = None if segment.end == math.inf else segment.end
    name = span_name(_recording(item), item.start, end)
    return replace(item, id=name, annotation=(segment,), end=end)


def _joined(items: list[Item]) -> Item:
    if len(items) < 2:
        return items[0]
    first = items[0]
    name = _recording(first) + (f"@{first.split}" if first.split else "")
    segments = tuple(segment for item in items for segment in item.annotation)
    return replace(first, id=name, annotation=segments, start=0.0, end=None, columns={})


def _recording(item: Item) -> str:
    return item.id.rsplit("@", 1)[0] if item.start or item.end else item.id
