"""The McGill Billboard format (`salami_chords.txt`): one timestamp a phrase, chords by bars.

A phrase lasts until the next timestamp; its bars share that time in proportion to their metre (a
2/4 bar is half a 4/4 bar), and the chords of one bar share the bar equally. Burgoyne, Wild and
Fujinaga, "An expert ground truth set for audio chord recognition and music analysis", ISMIR 2011.
"""

import itertools
import math
import re
from typing import NamedTuple

from audiotrain.music.chord_labels import repair
from audiotrain.music.segments import Annotation, Segment, merge_equal
from audiotrain.utils.errors import UserError

PHRASE = re.compile(r"^(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s+(.*)$")
METRE = re.compile(r"^\(?(\d{1,3})/(\d{1,3})\)?$")
REPEATS = re.compile(r"\bx(\d{1,3})\b")


class Bar(NamedTuple):
    weight: float  # length relative to a 4/4 bar
    labels: tuple[str, ...]  # chords of equal length


def looks_like_billboard(text: str) -> bool:
    """True when `text` has the header lines or the barred phrases of the format."""
    head = text[:4000]
    return bool(
        re.search(r"^# (metre|tonic):", head, re.MULTILINE)
        or re.search(r"^\d[\d.eE+-]*\t[^|\n]*\| [^|\n]+ \|", head, re.MULTILINE)
    )


def parse(text: str, name: str, pop_spellings: bool = False) -> Annotation:
    """Segments of one annotated song, with neighbours of the same label joined.

    Silence, noise (`Z`) and phrases without bars become `N`, unreadable chords `X`. They and lines
    that fit no rule are in `problems` as "name:line: text"; `name` is the file's.
    """
    phrases, problems = _phrases(text, name, pop_spellings)
    segments = [
        segment
        for (start, bars), (end, _) in itertools.pairwise(phrases)
        for segment in _spread(bars, start, end)
    ]
    if phrases and phrases[-1][1]:
        problems.append(f"{name}: the last phrase has no end time, it is left out")
    return Annotation(merge_equal(segments), problems)


def _phrases(
    text: str, name: str, pop_spellings: bool
) -> tuple[list[tuple[float, list[Bar]]], list[str]]:
    """(start seconds, bars) of every timestamped line; the `end` line has no bars."""
    phrases: list[tuple[float, list[Bar]]] = []
    problems: list[str] = []
    metre, label = 1.0, "N"
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# metre:"):
            metre = _metre(line.split(":", 1)[1].strip()) or metre
        if line.startswith("#") or not line.strip():
            continue
        match = PHRASE.match(line)
        if match is None or not math.isfinite(float(match[1])):
            problems.append(f"{name}:{number}: expected 'time<tab>phrase', found {line[:40]!r}")
            continue
        start, body = float(match[1]), match[2].strip()
        if phrases and start <= phrases[-1][0]:
            problems.append(f"{name}:{number}: time {start:g} is not after {phrases[-1][0]:g}")
            continue
        if body == "end":
            phrases.append((start, []))
            break
        bars, label, unreadable = _bars(body, metre, label, pop_spellings)
        problems += [f"{name}:{number}: {problem}" for problem in unreadable]
        phrases.append((start, bars))
    return phrases, problems


def _bars(
    body: str, metre: float, label: str, pop_spellings: bool
) -> tuple[list[Bar], str, list[str]]:
    """Bars of one phrase, the label that a leading `.` of the next would repeat, and problems."""
    pieces = body.split("|")
    if len(pieces) < 3:  # silence, noise, speech
        return [Bar(1.0, ("N",))], "N", []
    bars, problems = [], []
    for piece in pieces[1:-1]:
        tokens = piece.split()
        weight = _metre(tokens[0]) if tokens else None
        tokens = tokens if weight is None else tokens[1:]
        labels = []
        for token in tokens or ["."]:
            if token != ".":
                try:
                    label = repair(token, pop_spellings)
                except UserError as error:
                    problems.append(str(error))
                    label = "X"
            labels.append(label)
        bars.append(Bar(weight or metre, tuple(labels)))
    repeats = REPEATS.search(pieces[-1])
    return bars * (int(repeats[1]) if repeats else 1), label, problems


def _metre(token: str) -> float | None:
    match = METRE.match(token)
    return int(match[1]) / int(match[2]) if match and int(match[1]) and int(match[2]) else None


def _spread(bars: list[Bar], start: float, end: float) -> list[Segment]:
    """Segments of one phrase that lasts from `start` to `end` seconds."""
    total = sum(bar.weight for bar in bars)
    segments, before = [], 0.0
    for bar in bars:
        for number, label in enumerate(bar.labels):
            first = before + bar.weight * number / len(bar.labels)
            last = before + bar.weight * (number + 1) / len(bar.labels)
            span = (end - start) / total
            segments.append(Segment(start + first * span, start + last * span, label))
        before += bar.weight
    return segments
