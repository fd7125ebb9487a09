"""Composed waltzes with their beats and chords: POP909 has no songs in bars of three."""

from typing import NamedTuple

import numpy as np

from audiotrain.datasets.synthesis import arrangement, progressions
from audiotrain.datasets.synthesis.arrangement import Note, Part
from audiotrain.music.chord_classes import encode
from audiotrain.music.segments import Segment

TEMPI = (80.0, 190.0)  # beats a minute of the slowest and the fastest waltz
SECONDS = 60.0
START = 0.3  # seconds before the first beat
STROKES = ((1.0, 2.0), (1.0, 2.0), (1.0,), (1.0, 1.5, 2.0))  # beats after the first, with a chord
# Beats of a bar on which the melody has a note.
MELODIES = ((0.0,), (0.0, 2.0), (0.0, 1.0, 2.0), (0.0, 1.5, 2.0), (0.0, 1.0, 1.5, 2.0, 2.5), (1.0,))
KIT = (arrangement.KICK, arrangement.CLOSED_HAT, arrangement.CLOSED_HAT)


class Waltz(NamedTuple):
    """Parts to play, the times of beats, of which every third from the first one begins a bar, and
    the chords."""

    parts: list[Part]
    beats: np.ndarray
    segments: list[Segment]


def waltz(number: int, count: int, seed: int = 0) -> Waltz:
    """The `number`-th of `count` waltzes, each faster than the one before.

    A bass note on the first beat, the chord on the others, a melody; drums in every second one. A
    chord lasts for a bar, or two. The seed chooses progressions, rhythms and instruments.
    """
    rng = np.random.default_rng([seed, number])
    beat = 60 / float(np.linspace(*TEMPI, count)[number])
    bass, chords, melody, drums = ([] for _ in range(4))
    segments, start = [], START
    strokes = STROKES[int(rng.integers(len(STROKES)))]
    for label, beats in progressions.random_progression(rng, round(2 * SECONDS / beat)):
        if label == "N" or start > SECONDS:
            continue
        bars = 2 if beats > 4 else 1
        chord = arrangement.TimedChord(start, start + 3 * bars * beat, encode(label))
        segments.append(Segment(chord.start, chord.end, label))
        for bar in range(bars):
            lowest = chord.bass_from(33)
            fifth = chord.tones_from(lowest)[min(2, len(chord.tones) - 1)]
            bass.append(Note(start, 1.5 * beat, fifth if bar else lowest, 95))
            for place in strokes:
                for pitch in arrangement.voicing(rng, chord, 62, 3, states_bass=False):
                    chords.append(Note(start + place * beat, 0.5 * beat, pitch, 75))
            rhythm = MELODIES[int(rng.integers(len(MELODIES)))]
            for place, end in zip(rhythm, (*rhythm[1:], 3.0), strict=True):
                pitch = int(rng.choice(chord.tones_from(70)))
                melody.append(Note(start + place * beat, 0.9 * beat * (end - place), pitch, 85))
            drums += [Note(start + n * beat, 0.1, pitch, 80) for n, pitch in enumerate(KIT)]
            start += 3 * beat
    parts = [
        Part(int(rng.choice(arrangement.PROGRAMS[family])), notes)
        for family, notes in (
            ("bass", bass),
            (str(rng.choice(["piano", "guitar"])), chords),
            (str(rng.choice(["lead", "piano"])), melody),
        )
    ]
    if number % 2:
        parts.append(Part(0, drums, is_drum=True))
    return Waltz(parts, START + beat * np.arange(len(bass) * 3), segments)
