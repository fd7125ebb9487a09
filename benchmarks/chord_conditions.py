"""The songs of `chord_robustness.py` in each condition, and their features in a cache.

A module of its own, so that worker processes can import it.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import strummed_guitar
from degradations import drums, mix, mp3, pink_noise, room, sing, speech, telephone, white_noise

from audiotrain.datasets import chords
from audiotrain.datasets.synthesis import midi, render
from audiotrain.datasets.synthesis.soundfont import SoundFont
from audiotrain.features.cache import FeatureCache
from audiotrain.features.tuning import tuning_of
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.predictor import Analysis, analyse
from audiotrain.recipes.chords.songs import FeatureSettings

VERSION = 1  # raise it when a condition sounds different
GUITAR = "guitar, E and A shapes"
GUITAR_SONGS = 3
BEAT = 0.5  # seconds, where a song has no annotated beats


class Source:
    """A MIDI song, and what is added to it; all that is random follows from the seed."""

    def __init__(self, item: chords.Item, rate: int, seed: int, soundfont: Path):
        assert item.audio is not None
        self.item, self.rate, self.seed, self.soundfont = item, rate, seed, soundfont
        self.parts = midi.read_midi(item.audio)

    def rng(self, purpose: str) -> np.random.Generator:
        """The generator of a purpose."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.item.id} {purpose}".encode())])

    @cached_property
    def clean(self) -> np.ndarray:
        """The song as written."""
        return render.render(self.parts, self.rate)

    def detuned(self, cents: float) -> np.ndarray:
        """The song as written, `cents` above A = 440 Hz."""
        return render.render(self.parts, self.rate, cents)

    def unseen(self, cents: float = 0.0) -> np.ndarray:
        """The song on the soundfont that no training used."""
        fonts = [soundfont(self.soundfont)] * len(self.parts)
        return render.render(self.parts, self.rate, cents, fonts)

    @cached_property
    def speech(self) -> np.ndarray:
        """People who speak as long as the song lasts."""
        return speech(len(self.clean), self.rate, self.rng("speech"))

    @cached_property
    def drums(self) -> np.ndarray:
        """A drum kit on the beats of the song."""
        beats = beats_of(self.item, len(self.clean) / self.rate)
        return drums(len(self.clean), self.rate, beats, self.rng("drums"))

    def sung(self) -> np.ndarray:
        """The melody, which is a song's first part, sung."""
        rng = self.rng("sung")
        return sing(self.parts[0].notes, len(self.clean), self.rate, rng)[0]

    def white(self) -> np.ndarray:
        """White noise."""
        return white_noise(len(self.clean), self.rng("white"))

    @cached_property
    def pink(self) -> np.ndarray:
        """Pink noise."""
        return pink_noise(len(self.clean), self.rate, self.rng("pink"))

    def in_room(self, audio: np.ndarray) -> np.ndarray:
        """Audio in the room of this song."""
        return room(audio, self.rate, self.rng("room"))


def _together(song: Source) -> np.ndarray:
    mixed = mix(song.unseen(-20.0), (song.drums, 6.0), (song.speech, 6.0))
    return mp3(song.in_room(mixed), song.rate)


CONDITIONS: dict[str, Callable[[Source], np.ndarray]] = {
    "clean": lambda song: song.clean,
    "drums 0 dB": lambda song: mix(song.clean, (song.drums, 0.0)),
    "sung line 0 dB": lambda song: mix(song.clean, (song.sung(), 0.0)),
    "speech 0 dB": lambda song: mix(song.clean, (song.speech, 0.0)),
    "speech -4 dB": lambda song: mix(song.clean, (song.speech, -4.0)),
    "room 1-2 s": lambda song: song.in_room(song.clean),
    "pink noise 10 dB": lambda song: mix(song.clean, (song.pink, 10.0)),
    "pink noise 5 dB": lambda song: mix(song.clean, (song.pink, 5.0)),
    "white noise 10 dB": lambda song: mix(song.clean, (song.white(), 10.0)),
    "white noise 5 dB": lambda song: mix(song.clean, (song.white(), 5.0)),
    "MP3 48 kbit/s": lambda song: mp3(song.clean, song.rate, 48),
    "telephone band": lambda song: telephone(song.clean, song.rate),
    "+35 cents": lambda song: song.detuned(35.0),
    "unseen soundfont": lambda song: song.unseen(),
    "all together": _together,
}
SPOKEN = ("speech 0 dB", "speech -4 dB", "all together")  # those that need espeak-ng
PLAYED = ("unseen soundfont", "all together")  # those that need the other soundfont


class KeptOnsets(NamedTuple):
    """Onset strengths (steps,) from a cache, in place of the detector that found them."""

    values: np.ndarray

    def strengths(self) -> np.ndarray:
        """Them."""
        return self.values


@dataclass(frozen=True)
class Bench:
    """How songs are made and analysed; `tuned` estimates their tuning as `predict` does."""

    settings: FeatureSettings
    margin: bool
    cache: Path
    seed: int
    soundfont: Path
    tuned: bool

    def prepare(self, wanted: tuple[Sequence[str], chords.Item | int]) -> None:
        """Put the analyses of a song, or of a guitar song by its number, in conditions into the
        cache."""
        conditions, job = wanted

        @cache
        def source() -> Source:
            assert isinstance(job, chords.Item)
            return Source(job, self.settings.rate, self.seed, self.soundfont)

        def samples(condition: str) -> np.ndarray:
            if isinstance(job, int):
                return strummed_guitar.song(job, self.settings.rate, self.seed)[0]
            return CONDITIONS[condition](source())

        for condition in conditions:
            self._arrays(job, condition, partial(samples, condition))

    def analysis(self, job: chords.Item | int, condition: str) -> Analysis:
        """The recognizer's input for a song in a condition, after `prepare`."""
        features, onsets = self._arrays(job, condition, None)
        seconds = len(features) * self.settings.frame_seconds
        return Analysis([np.asarray(features, np.float32)], KeptOnsets(onsets), seconds)

    def reference(self, job: chords.Item | int) -> list[Segment]:
        """The labels of a song."""
        if isinstance(job, int):
            return strummed_guitar.labels(job, self.seed)
        return chords.segments(job)

    def _arrays(
        self, job: chords.Item | int, condition: str, samples: Callable[[], np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (frames, bins) in dB and onset strengths (steps,); KeyError when the cache lacks
        them and there are no `samples`."""

        @cache
        def analysed() -> tuple[np.ndarray, np.ndarray]:
            audio = samples()
            tuning = tuning_of(audio, self.settings.rate) if self.tuned else 0.0
            analysis = analyse(self.settings, self.margin, audio, tuning)
            return np.concatenate(list(analysis.blocks)), analysis.onsets.strengths()

        key = {
            "robustness": [VERSION, self.seed, condition, self.tuned],
            "cqt": asdict(self.settings.cqt(self.margin)),
            "soundfont": soundfont(self.soundfont).fingerprint if condition in PLAYED else 0,
        }
        origin = f"guitar {job}" if isinstance(job, int) else job.audio
        stored = FeatureCache(self.cache, np.float16)
        made = [None, None] if samples is None else [lambda k=k: analysed()[k] for k in (0, 1)]
        return (
            stored.get(origin, key, made[0]),
            stored.get(origin, key | {"onsets": True}, made[1]),
        )


def beats_of(item: chords.Item, seconds: float) -> np.ndarray:
    """(n, 2) of the beats beside a MIDI file, NNN.beats (seconds, on strong beats 1, on downbeats
    1): seconds, and the number of the beat in its bar; regular ones where there is no such file."""
    assert item.audio is not None
    path = item.audio.with_suffix(".beats")
    if not path.is_file():
        times = np.arange(0, seconds, BEAT)
        return np.stack([times, np.arange(len(times)) % 4], axis=1)
    times, _, downbeats = np.loadtxt(path).T
    first = np.maximum.accumulate(np.where(downbeats > 0, np.arange(len(times)), 0))
    return np.stack([times, np.arange(len(times)) - first], axis=1)


@lru_cache(maxsize=1)
def soundfont(path: Path) -> SoundFont:
    if not path.is_file():
        raise ValueError(
            f"--soundfont {path}: no such file: apt-get install opl3-soundfont, or name one "
            "that no training used"
        )
    return SoundFont(path)
