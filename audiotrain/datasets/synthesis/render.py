"""Audio from notes: MIDI files read, and parts played by soundfonts."""

from collections.abc import Sequence

import numpy as np

from audiotrain.datasets.synthesis.arrangement import Part
from audiotrain.datasets.synthesis.soundfont import SoundFont, general_midi

MAXIMUM_TUNING = 30.0  # cents


def render(
    parts: Sequence[Part], rate: int, cents: float = 0.0, fonts: Sequence[SoundFont] = ()
) -> np.ndarray:
    """An arrangement played: mono float32 (samples,) at `rate` Hz, `cents` above A440, peak 0.5.

    `fonts` has one for each part; without them all are played by `general_midi`.
    """
    played = [
        font.render(part.notes, part.program, part.is_drum, rate, cents)
        for part, font in zip(parts, fonts or [general_midi()] * len(parts), strict=True)
    ]
    mix = np.zeros(max((len(audio) for audio in played), default=0), np.float32)
    for audio in played:
        mix[: len(audio)] += audio
    peak = float(np.abs(mix).max()) if mix.size else 0.0
    return mix * (0.5 / peak if peak > 0 else 1.0)


def cast(
    parts: Sequence[Part], fonts: Sequence[SoundFont], rng: np.random.Generator
) -> list[SoundFont]:
    """For each part a soundfont that has its instrument, `general_midi` and `fonts` alike."""
    if not fonts:
        return []
    able = [[font for font in fonts if font.has(p.program, p.is_drum)] for p in parts]
    return [([general_midi(), *own])[int(rng.integers(len(own) + 1))] for own in able]


def random_cents(rng: np.random.Generator) -> float:
    """A tuning within MAXIMUM_TUNING cents of 440 Hz."""
    return float(rng.uniform(-MAXIMUM_TUNING, MAXIMUM_TUNING))
