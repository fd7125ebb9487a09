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
from audiotrain.music.beats import NO_BEATS, Beats, grid
from audiotrain.music.chord_classes import CHORD_TYPES, PITCH_NAMES, decode, encode
from audiotrain.music.keys import Key
from audiotrain.music.segments import Segment

SCRIPTS = ("elements.js", "player.js", "theory.js", "diagrams.js", "chart.js", "edit.js", "song.js")
UNSURE = 0.5  # a confidence below it is shown
# Mean confidence of chords below which a recording has little music: speech, noise, rain and dogs
# have .02 to .20, one of them .28; songs .34 and more, chords in no key at least .22.
LITTLE_MUSIC = 0.2


@dataclass(frozen=True)
class Song:
    """What is known of a recording.

    `name` is that of its files without a suffix, by default the title. `key` is the tonic's pitch
    class and the mode. `confidences` has a number in 0..1 a segment, or none.
    """

    title: str
    segments: Sequence[Segment]
    seconds: float
    confidences: Sequence[float] = ()
    beats: Beats = NO_BEATS
    key: Key | None = None
    artist: str = ""
    name: str = ""


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
        body=escape(song.artist),
    )


def frame(text: str, height: int = 640) -> str:
    """A page inside another one, such as a notebook: an element that holds all of it.

    It runs apart from the page around it: neither reaches the other's content.
    """
    # Pages are full of double quotes, which stay as they are: a third less.
    content = escape(text, quote=False).replace("'", "&#39;")
    return (
        f"<iframe srcdoc='{content}' "
        f'width="100%" height="{height}" '
        'sandbox="allow-scripts allow-downloads allow-modals" title="Chords of the song" '
        'style="border: 1px solid #8884; border-radius: 8px"></iframe>'
    )


def has_little_music(segments: Sequence[Segment], confidences: Sequence[float]) -> bool:
    """Whether chords are so unsure, the mean over their time, that a recording is speech or noise
    rather than music, or there are none. False without confidences.

    >>> has_little_music([Segment(0, 3, "C:maj"), Segment(3, 4, "N")], [0.1, 0.9])
    True
    """
    if not confidences:
        return False
    is_chord = [encode(one.label).chord_type > 0 for one in segments]
    lengths = [(end - start) * one for (start, end, _), one in zip(segments, is_chord, strict=True)]
    return float(np.dot(lengths, confidences)) <= LITTLE_MUSIC * sum(lengths)


def describe(song: Song) -> dict[str, Any]:
    """The data of the page's scripts, but for its sound."""
    bars, is_counted = grid(song.beats, song.seconds)
    confidences: Sequence[float | None] = song.confidences or [None] * len(song.segments)
    rows = []
    for (start, end, label), confidence in zip(song.segments, confidences, strict=True):
        chord = [max(-1, number) for number in encode(label)]
        sure = None if confidence is None else round(float(confidence), 3)
        rows.append([round(start, 4), round(end, 4), label, *chord, sure])
    name = song.name or song.title
    digest = hashlib.sha1(json.dumps([name, rows]).encode()).hexdigest()
    return {
        "id": digest,
        "name": name,
        "title": song.title,
        "seconds": song.seconds,
        "segments": rows,
        "bars": [[round(beat, 4) for beat in bar] for bar in bars],
        "counted": is_counted,
        "metre": song.beats.metre,
        "tempo": song.beats.tempo,
        "key": None if song.key is None else [song.key[0], int(song.key[1] == "minor")],
        "unsure": UNSURE,
        "littleMusic": has_little_music(song.segments, song.confidences),
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
