"""Chord progressions: from a grammar of degrees, or borrowed from the labels of a real song."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from audiotrain.music.chord_classes import CHORD_TYPES, ChordClass, decode, encode
from audiotrain.music.chord_classes import chord_pitch_classes as intervals_of
from audiotrain.music.segments import Segment

BORROWED = 0.7  # share of songs whose progression is from another song, where there are any


class Beat(NamedTuple):
    """One chord of a progression and how many beats it lasts."""

    label: str
    beats: int


# Weighted moves between the degrees of a key, as in pop: functions, not a corpus.
_MAJOR_KEY = {0: "maj", 2: "min", 4: "min", 5: "maj", 7: "maj", 9: "min", 10: "maj", 11: "dim"}
_MINOR_KEY = {0: "min", 2: "dim", 3: "maj", 5: "min", 7: "min", 8: "maj", 10: "maj"}
_MOVES = {
    0: [5, 7, 9, 2, 4, 8, 3, 10],
    2: [7, 7, 5, 0, 10],
    3: [8, 10, 5],
    4: [9, 5, 2],
    5: [7, 0, 2, 10, 4],
    7: [0, 0, 9, 5, 8, 3],
    8: [10, 5, 7, 3],
    9: [5, 2, 7, 4],
    10: [0, 5, 3, 7],
    11: [0, 9],
}
_COLOURS = {  # what a triad may become, most usual first
    "maj": "maj maj maj7 maj6 sus4 sus2 maj(9) maj9 7 5 maj6(9)".split(),
    "min": "min min min7 min7 min9 min(9) min6 min11 minmaj7".split(),
    "dim": "dim hdim7 dim7".split(),
    "dominant": "maj 7 7 sus4(b7) 9 sus4(b7,9) 7(b9) 7(#9) 11 13 sus4".split(),
}


def progression_of_song(
    rng: np.random.Generator, seconds: float, borrowed: Sequence[Sequence[Segment]]
) -> tuple[list[Beat], float]:
    """The progression of a song of `seconds`, in a share BORROWED of them from one of `borrowed`,
    else a random one, and its tempo in beats a minute, 60 to 180."""
    tempo = float(rng.uniform(60, 180))
    beats = int(np.ceil(seconds * tempo / 60))
    if borrowed and rng.random() < BORROWED:
        source = borrowed[int(rng.integers(len(borrowed)))]
        return progression_from(source, rng, beats), tempo
    return random_progression(rng, beats), tempo


def random_progression(rng: np.random.Generator, beats: int) -> list[Beat]:
    """A progression of at least `beats` beats in one key, or of unrelated chords of any type.

    One in six covers the vocabulary evenly: any root, type and bass; the others follow a key, with
    sevenths, extensions and inversions at a rate that is random for each song.
    """
    if rng.random() < 1 / 6:
        return _unrelated_chords(rng, beats)
    key, tonic = _MINOR_KEY if rng.random() < 0.4 else _MAJOR_KEY, int(rng.integers(12))
    colour, inversion = rng.random() ** 2, 0.35 * rng.random()
    loop = _loop(rng, key, tonic, colour, inversion)
    progression: list[Beat] = []
    while sum(b.beats for b in progression) < beats:
        if rng.random() < 0.3:
            loop = _loop(rng, key, tonic, colour, inversion)
        progression += loop
    if rng.random() < 0.4:
        position = int(rng.integers(len(progression) + 1))
        progression.insert(position, Beat("N", int(rng.integers(2, 9))))
    return progression


def _loop(
    rng: np.random.Generator, key: dict[int, str], tonic: int, colour: float, inversion: float
) -> list[Beat]:
    """Four to eight chords that follow each other in a key."""
    degree, loop = 0, []
    for _ in range(int(rng.integers(4, 9))):
        quality = key[degree]
        if degree == 7 and (quality == "maj" or rng.random() < 0.5):
            quality = "dominant"
        shades = _COLOURS[quality]
        shade = shades[int(rng.integers(len(shades)))] if rng.random() < colour else shades[0]
        chord_type = CHORD_TYPES.index(shade)
        root = (tonic + degree) % 12
        bass = root
        if rng.random() < inversion:
            bass = (root + int(rng.choice(intervals_of(chord_type)))) % 12
        beats = int(rng.choice([1, 2, 2, 4, 4, 4, 8]))
        loop.append(Beat(decode(ChordClass(chord_type, root, bass)), beats))
        moves = [m for m in _MOVES.get(degree, [0]) if m in key]
        degree = int(rng.choice(moves)) if moves else 0
    return loop


def _unrelated_chords(rng: np.random.Generator, beats: int) -> list[Beat]:
    progression: list[Beat] = []
    while sum(b.beats for b in progression) < beats:
        chord_type, root = int(rng.integers(1, len(CHORD_TYPES))), int(rng.integers(12))
        bass = root
        chance = rng.random()
        if chance < 0.25:
            bass = (root + int(rng.choice(intervals_of(chord_type)))) % 12
        elif chance < 0.3:
            bass = int(rng.integers(12))
        label = decode(ChordClass(chord_type, root, bass))
        progression.append(Beat(label, int(rng.choice([2, 4, 4, 8]))))
    return progression


def progression_from(
    segments: Sequence[Segment], rng: np.random.Generator, beats: int
) -> list[Beat]:
    """A stretch of a real song's labels, transposed at random, as a progression of `beats` beats.

    Durations are rounded to beats of the song's median chord length (taken as 4 or 2 beats);
    labels outside the vocabulary and silence become one bar of N at most.
    """
    known = [s for s in segments if s.end > s.start]
    lengths = [s.end - s.start for s in known]
    if not known:
        return random_progression(rng, beats)
    beat = float(np.median(lengths)) / rng.choice([2, 4])
    first = int(rng.integers(len(known)))
    shift, progression = int(rng.integers(12)), []
    for segment in known[first:] + known[:first]:
        chord = encode(segment.label)
        count = int(np.clip(round((segment.end - segment.start) / beat), 1, 16))
        if chord.root < 0:
            progression.append(Beat("N", min(count, 4)))
        else:
            root, bass = (chord.root + shift) % 12, (chord.bass_note + shift) % 12
            progression.append(Beat(decode(ChordClass(chord.chord_type, root, bass)), count))
        if sum(b.beats for b in progression) >= beats:
            break
    return progression
