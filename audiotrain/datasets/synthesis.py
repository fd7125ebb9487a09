"""Audio from notes: MIDI files read, and parts played by a General MIDI soundfont."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.arrangement import Note, Part
from audiotrain.datasets.soundfont import general_midi

MAXIMUM_TUNING = 30.0  # cents


def render(parts: Sequence[Part], rate: int, cents: float = 0.0) -> np.ndarray:
    """An arrangement played: mono float32 (samples,) at `rate` Hz, `cents` above A440, peak 0.5."""
    played = [
        general_midi().render(part.notes, part.program, part.is_drum, rate, cents) for part in parts
    ]
    mix = np.zeros(max((len(audio) for audio in played), default=0), np.float32)
    for audio in played:
        mix[: len(audio)] += audio
    peak = float(np.abs(mix).max()) if mix.size else 0.0
    return mix * (0.5 / peak if peak > 0 else 1.0)


def read_midi(path: str | Path) -> list[Part]:
    """The parts of a MIDI file. ValueError, one line, when it cannot be read as one."""
    import pretty_midi

    try:
        midi = pretty_midi.PrettyMIDI(str(path))
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: not readable as MIDI ({error})") from error
    return [
        Part(
            instrument.program,
            [Note(n.start, n.end - n.start, n.pitch, n.velocity) for n in instrument.notes],
            instrument.is_drum,
        )
        for instrument in midi.instruments
        if instrument.notes
    ]


def random_cents(rng: np.random.Generator) -> float:
    """A tuning within MAXIMUM_TUNING cents of 440 Hz."""
    return float(rng.uniform(-MAXIMUM_TUNING, MAXIMUM_TUNING))
