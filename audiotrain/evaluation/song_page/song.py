"""A song's page: a chart of its chords by bars, to play along with.

The page is `assets/song.html` with its style and scripts in it, and the song as JSON that the
scripts draw. Times are seconds of the recording; nothing on the page changes them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from audiotrain.evaluation.song_page.document import ASSETS, document
from audiotrain.music import chord_names, fingerings
from audiotrain.music.chord_classes import CHORD_TYPES, PITCH_NAMES, decode, encode
from audiotrain.music.chord_names import Mode
from audiotrain.music.segments import Segment

SCRIPTS = ("elements.js", "player.js", "theory.js", "diagrams.js", "chart.js", "edit.js", "song.js")
SIGN = '<meta name="generator" content="audiotrain song">'  # of a page that may be replaced
STILL_SECONDS = 2.0  # a bar of a song without beats
STILL_BEATS = 4
MOST_BEATS = 8  # of a bar on the chart
UNSURE = 0.5  # a confidence below it is shown


@dataclass(frozen=True)
class Song:
    """What is known of a recording.

    `beats` are in seconds, `downbeats` those that begin a bar; both may be empty. `key` is the
    tonic's pitch class and the mode. `confidences` has a number in 0..1 a segment, or none.
    """

    title: str
    segments: Sequence[Segment]
    seconds: float
    confidences: Sequence[float] = ()
    beats: Sequence[float] = ()
    downbeats: Sequence[float] = ()
    metre: int = 4
    key: tuple[int, Mode] | None = None


@dataclass(frozen=True)
class Neighbours:
    """Addresses of the pages before and after, and of the index; empty where there is none."""

    previous: str = ""
    next: str = ""
    index: str = ""


NOBODY = Neighbours()


def page(song: Song, sound: dict[str, str] | None = None, neighbours: Neighbours = NOBODY) -> str:
    """The page as text; `sound` is what `sound.for_page` gives, None for a page without sound."""
    data = describe(song) | {"sound": sound, "links": vars(neighbours)}
    return document(
        ASSETS / "song.html",
        [ASSETS / "player.css", ASSETS / "song.css"],
        [ASSETS / name for name in SCRIPTS],
        song.title,
        data,
        media="blob: file: 'self'" if sound and "file" in sound else "blob:",
    )


def frame(text: str, height: int = 640) -> str:
    """A page inside another one, such as a notebook: an element that holds all of it.

    It runs apart from the page around it: neither reaches the other's content.
    """
    return (
        f'<iframe srcdoc="{escape(text)}" width="100%" height="{height}" '
        'sandbox="allow-scripts allow-downloads allow-modals" title="Chords of the song" '
        'style="border: 1px solid #8884; border-radius: 8px"></iframe>'
    )


def describe(song: Song) -> dict[str, Any]:
    """The data of the page's scripts, but for its sound."""
    bars, is_counted = grid(song.beats, song.downbeats, song.seconds, song.metre)
    confidences: Sequence[float | None] = song.confidences or [None] * len(song.segments)
    rows = []
    for (start, end, label), confidence in zip(song.segments, confidences, strict=True):
        chord = [max(-1, number) for number in encode(label)]
        sure = None if confidence is None else round(float(confidence), 3)
        rows.append([round(start, 4), round(end, 4), label, *chord, sure])
    digest = hashlib.sha1(json.dumps([song.title, rows]).encode()).hexdigest()
    return {
        "id": digest,
        "title": song.title,
        "seconds": song.seconds,
        "segments": rows,
        "bars": [[round(beat, 4) for beat in bar] for bar in bars],
        "counted": is_counted,
        "metre": song.metre,
        "tempo": tempo(song.beats),
        "key": None if song.key is None else [song.key[0], int(song.key[1] == "minor")],
        "unsure": UNSURE,
        "theory": theory(),
    }


def theory() -> dict[str, Any]:
    """What the page knows of music: names, simpler types, fingerings, and labels in Harte's
    grammar."""
    return chord_names.tables() | {
        "harte": {
            "roots": list(PITCH_NAMES),
            "basses": [
                [decode((number, 0, up)).partition("/")[2] for up in range(12)]
                for number in range(len(CHORD_TYPES))
            ],
        },
        "shapes": fingerings.tables(),
        "strings": {name: one.strings for name, one in fingerings.INSTRUMENTS.items()},
    }


def tempo(beats: Sequence[float]) -> float | None:
    """Beats a minute, by the median of their distances; None for fewer than two."""
    return round(60 / float(np.median(np.diff(beats))), 1) if len(beats) > 1 else None


def grid(
    beats: Sequence[float], downbeats: Sequence[float], seconds: float, metre: int
) -> tuple[list[list[float]], bool]:
    """Bars as lists of the times of their beats, over all of the recording, and whether they
    follow its beats.

    Before the first and after the last beat they go on as there. Without beats a bar is two
    seconds. Beats before the first downbeat are a bar of their own.

    >>> grid([1.0, 2, 3, 4, 5, 6], [2.0, 5], 7.2, 3)
    ([[0.0, 1.0], [2.0, 3.0, 4.0], [5.0, 6.0, 7.0]], True)
    """
    if len(beats) < 2:
        step = STILL_SECONDS / STILL_BEATS
        times = np.arange(max(1, int(np.ceil(seconds / step)))) * step
        starts = set(range(0, len(times), STILL_BEATS))
        return _in_bars(times, starts, STILL_BEATS), False
    known = np.asarray(beats, float)
    first = float(np.median(np.diff(known[:9])))
    last = float(np.median(np.diff(known[-9:])))
    before = int(max(0.0, known[0] + 0.25 * first) // first)
    after = int(max(0.0, seconds - known[-1] - 0.1 * last) // last)
    times = np.concatenate(
        [
            np.maximum(0.0, known[0] - first * np.arange(before, 0, -1)),
            known,
            known[-1] + last * np.arange(1, after + 1),
        ]
    )
    starts = {int(np.abs(times - time).argmin()) for time in downbeats} or {before}
    starts |= set(range(min(starts), -1, -metre))
    starts |= set(range(max(starts), len(times), metre))
    return _in_bars(times, starts, metre), True


def _in_bars(times: np.ndarray, starts: set[int], metre: int) -> list[list[float]]:
    """Times (beats,) cut where bars start; a bar of too many beats is cut again."""
    bounds = sorted(starts | {0}) + [len(times)]
    bars: list[list[float]] = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        whole = times[begin:end].tolist()
        size = metre if len(whole) > MOST_BEATS else max(1, len(whole))
        bars += [whole[at : at + size] for at in range(0, len(whole), size)]
    return bars
