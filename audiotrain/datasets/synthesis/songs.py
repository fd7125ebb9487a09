"""Whole songs by synthesis: composed from a seed, or MIDI files on randomly chosen instruments."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.synthesis import arrangement, midi, progressions, render
from audiotrain.datasets.synthesis.soundfont import SoundFont
from audiotrain.features import augment
from audiotrain.music.segments import Segment

VERSION = 3  # raise it when the same seed gives another song
ACCOMPANIED = 0.25  # share of composed songs that are one instrument's free accompaniment


class SongSynthesizer:
    """Plays songs at `rate` Hz; all that is random follows from `seed` and the song.

    The instruments of `soundfonts` are chosen, too, wherever instruments are chosen at random.
    """

    def __init__(self, rate: int, seed: int = 0, soundfonts: Sequence[Path] = ()):
        self.rate, self.seed = rate, seed
        self.soundfonts = [SoundFont(path.expanduser()) for path in soundfonts]

    def cache_key(self) -> dict:
        """What randomly chosen instruments depend on besides the seed; empty without soundfonts."""
        prints = [font.fingerprint for font in self.soundfonts]
        return {"soundfonts": prints} if prints else {}

    def compose(
        self, number: int, seconds: float, borrowed: Sequence[list[Segment]]
    ) -> tuple[np.ndarray, list[Segment]]:
        """Samples and labels of the `number`-th song of the seed, its progression from a grammar or
        from one of `borrowed`, other songs' labels."""
        parts, segments, rng = self._composition(number, seconds, borrowed)
        return self._perform(parts, rng), segments

    def labels(
        self, number: int, seconds: float, borrowed: Sequence[list[Segment]]
    ) -> list[Segment]:
        """The labels that `compose` gives, without the samples."""
        return self._composition(number, seconds, borrowed)[1]

    def play_midi(self, path: Path, name: str, rendering: int = 0) -> np.ndarray:
        """Samples of a MIDI file: as written in rendering 0; in each further one on instruments
        chosen for the song `name`, in another tuning, half of them degraded."""
        parts = midi.read_midi(path)
        if not rendering:
            return render.render(parts, self.rate)
        rng = self._rng("rendering", name, rendering)
        return self._perform(arrangement.reorchestrate(parts, rng), rng)

    def play_excerpt(
        self, path: Path, name: str, copy: int, start: float, seconds: float, cents: float
    ) -> np.ndarray:
        """Samples of `seconds` from `start` of a MIDI file: on its own instruments or, half of the
        copies, on instruments chosen for this `copy` of the song `name`, `cents` above A440."""
        rng = self._rng("excerpt", name, copy)
        parts = [
            part._replace(notes=_within(part.notes, start, seconds))
            for part in midi.read_midi(path)
        ]
        parts = [part for part in parts if part.notes]
        if rng.random() < 0.5:
            parts = arrangement.reorchestrate(parts, rng)
        fonts = render.cast(parts, self.soundfonts, rng)
        audio = np.zeros(round(seconds * self.rate), np.float32)
        played = render.render(parts, self.rate, cents, fonts)[: len(audio)]
        audio[: len(played)] = played
        return audio

    def _composition(self, number: int, seconds: float, borrowed: Sequence[list[Segment]]):
        rng = self._rng("composed", number)
        progression, tempo = progressions.progression_of_song(rng, seconds, borrowed)
        arrange = arrangement.accompany if rng.random() < ACCOMPANIED else arrangement.compose
        parts, segments = arrange(progression, rng, tempo)
        return parts, segments, rng

    def _perform(self, parts: Sequence[arrangement.Part], rng: np.random.Generator) -> np.ndarray:
        """Parts on soundfonts chosen for each, in a random tuning, half of the songs degraded."""
        fonts = render.cast(parts, self.soundfonts, rng)
        audio = render.render(parts, self.rate, render.random_cents(rng), fonts)
        return degrade(audio, self.rate, rng) if rng.random() < 0.5 else audio

    def _rng(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(repr(parts).encode())])


def _within(
    notes: Sequence[arrangement.Note], start: float, seconds: float
) -> list[arrangement.Note]:
    """The notes that sound within `seconds` after `start`, by their time since then."""
    found = []
    for note in notes:
        begin, end = note.start - start, note.start + note.duration - start
        if begin < seconds and end > 0.05:
            begin = max(begin, 0.0)
            found.append(note._replace(start=begin, duration=end - begin))
    return found


def degrade(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Audio as a room, a microphone and a recorder would leave it."""
    audio = augment.equalise(audio, rng, rate, decibels=6.0)
    audio = augment.reverberate(audio, rng, rate)
    if rng.random() < 0.5:
        audio = augment.saturate(audio, rng, drive_decibels=18.0)
    return augment.add_noise(audio, rng, lowest_snr=20.0, highest_snr=40.0)
