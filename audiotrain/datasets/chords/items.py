"""Recordings with chord labels: their segments in time and their classes by frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from audiotrain.datasets.chords import readers
from audiotrain.datasets.items import LabelledItem
from audiotrain.music.chord_labels import repair
from audiotrain.music.segments import Annotation, Segment, segments_to_frames
from audiotrain.utils.errors import UserError

MIDI_SUFFIXES = (".mid", ".midi")
OTHER_UNIT = 100  # times as long as the audio: labels in another unit than seconds
_UNITS = {  # of which a second has so many
    "milliseconds": 1e3,
    "samples at 8000 Hz": 8e3,
    "samples at 16000 Hz": 16e3,
    "samples at 22050 Hz": 22050.0,
    "samples at 44100 Hz": 44100.0,
    "samples at 48000 Hz": 48e3,
    "units of 100 ns, as in HTK": 1e7,
}


@dataclass(frozen=True)
class Item(LabelledItem):
    """A recording with chord labels, or a span of one.

    `audio` is a recording or a MIDI file to be rendered, None where there are only labels.
    `annotation` is the label file, or the segments themselves, in seconds of the whole recording (a
    clip of one chord has a single one with an infinite end).
    """

    audio: Path | None
    annotation: Path | tuple[Segment, ...]
    selector: int | str | None = None
    pop_spellings: bool = False

    @property
    def midi(self) -> bool:
        """True when there are notes to be rendered instead of a recording."""
        return self.audio is not None and self.audio.suffix.lower() in MIDI_SUFFIXES

    @property
    def clip_label(self) -> str | None:
        """The chord of a clip that has only one; None for a song."""
        return None if self.clip_segment is None else self.clip_segment.label

    @property
    def clip_segment(self) -> Segment | None:
        """The only segment of a clip of one chord; None for a song."""
        if isinstance(self.annotation, Path) or len(self.annotation) != 1:
            return None
        return self.annotation[0]


def load(item: Item) -> Annotation:
    """Segments in seconds of the whole recording. ValueError when the file can't be read."""
    if isinstance(item.annotation, Path):
        return read_cached(item.annotation, item.selector, item.pop_spellings)
    return Annotation(list(item.annotation), [])


def segments(item: Item, seconds: float | None = None) -> list[Segment]:
    """Segments in seconds from the item's `start`, cut at its `end`.

    `seconds` is the length of the item's audio: nothing lasts longer, a clip's label as long.
    UserError where the labels end so late that their times must be of another unit.
    """
    labelled = load(item).segments
    if seconds is not None and item.end is None and isinstance(item.annotation, Path):
        _refuse_other_unit(item.annotation, labelled, item.start + seconds)
    length = math.inf if item.end is None else item.end - item.start
    length = min(length, math.inf if seconds is None else seconds)
    cut = [
        Segment(max(start - item.start, 0.0), min(end - item.start, length), label)
        for start, end, label in labelled
    ]
    return [segment for segment in cut if segment.end > segment.start]


def _refuse_other_unit(path: Path, labelled: Sequence[Segment], seconds: float) -> None:
    ends = [end if math.isfinite(end) else start for start, end, _ in labelled]
    last = max(ends, default=0.0)
    if not 0 < seconds * OTHER_UNIT < last:
        return
    unit = min(_UNITS, key=lambda one: abs(math.log(last / seconds / _UNITS[one])))
    raise UserError(
        f"{path}: last label ends at {last:.0f} s, the audio at {seconds:.2f} s: are these {unit}?"
    )


def frame_labels(item: Item, frames: int, frame_seconds: float) -> np.ndarray:
    """Class triples (frames, 3) int16 of an item: frame i is centred i * frame_seconds after its
    `start`. IGNORE where nothing is labelled, or no class is known."""
    return segments_to_frames(segments(item), frames, frame_seconds, item.pop_spellings)


def read_cached(
    path: Path, selector: int | str | None = None, pop_spellings: bool = False
) -> Annotation:
    """As `annotations.read`, and read once as long as the file does not change."""
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _read(path, selector, pop_spellings, changed)


@lru_cache(maxsize=8192)
def _read(path: Path, selector: int | str | None, pop_spellings: bool, changed: int) -> Annotation:
    return readers.read(path, selector, pop_spellings)


def chord_of_name(name: str) -> str | None:
    """The chord that a folder or table cell names, in Harte's grammar; None if it names none.

    >>> chord_of_name("C#major"), chord_of_name("am"), chord_of_name("Silence"), chord_of_name("x")
    ('C#:maj', 'A:min', 'N', None)
    """
    for spelling in (name, name.replace("-", "")):
        try:
            label = repair(spelling.strip(), pop_spellings=True)
        except UserError:
            continue
        return None if label == "X" else label
    return None
