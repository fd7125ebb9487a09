"""The windows of songs for training, sampled at random, and for validation, one after another.

Songs have margin bins at both ends, so that transposing is cropping, and nothing wraps around.
"""

from collections.abc import Sequence

import numpy as np

from audiotrain.features import augment
from audiotrain.music import chord_classes
from audiotrain.recipes.chords.songs import SILENCE, FeatureSettings, Song
from audiotrain.train.data.loader import Dataset
from audiotrain.utils.errors import UserError

ISOLATED = 0.2  # share of varied training windows that are a short clip in silence


class Windows(Dataset):
    """Random windows of songs for training: {"features" (frames, bins), "classes" (frames, 3)}.

    An epoch has as many windows as fit into one rendering of every song; each is a random place of
    a song (chosen by length), transposed by -5 to 6 semitones, at most `margin`. The share `plain`
    is of the first rendering, otherwise unchanged; the rest is of any rendering, made louder or
    softer, tilted, covered by noise, and sometimes cut to a short clip.
    """

    def __init__(
        self,
        songs: Sequence[Sequence[Song]],
        frames: int,
        settings: FeatureSettings,
        plain: float = 0.0,
    ):
        if not songs:
            raise UserError("no songs to train on")
        self.songs, self.frames, self.settings = songs, frames, settings
        self.plain = plain
        lengths = np.array([len(renderings[0].features) for renderings in songs])
        # A clip shorter than a window counts as a quarter of one: it is mostly padding.
        weights = np.maximum(lengths, frames / 4)
        self._shares = weights / weights.sum()
        self._length = int(max(1, np.ceil(lengths / frames).sum()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.get(index, np.random.default_rng(index))

    def describe(self, index: int) -> str:
        """Where samples come from, for error messages."""
        return f"one of {len(self.songs)} songs"

    def get(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One window; all that is random comes from `rng`."""
        renderings = self.songs[int(rng.choice(len(self.songs), p=self._shares))]
        varied = rng.random() >= self.plain
        song = renderings[int(rng.integers(len(renderings))) if varied else 0]
        length = len(song.features)
        start = int(rng.integers(-self.frames // 4, max(1, length - 3 * self.frames // 4)))
        window, classes = cut(song, start, self.frames, self.settings)
        shift = int(rng.integers(-min(5, self.settings.margin), min(6, self.settings.margin) + 1))
        window = augment.transpose_bins(
            window, shift, self.settings.bins_per_semitone, self.settings.margin_bins
        )
        if varied:
            if rng.random() < ISOLATED:
                window, classes = isolate(window, classes, rng)
            window = self._varied(window, rng)
        return {
            "features": np.ascontiguousarray(window, np.float32),
            "classes": chord_classes.transpose(classes, shift).astype(np.int32),
        }

    def _varied(self, window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Louder or softer, through another EQ, above a noise floor, with bands of bins missing."""
        window = augment.gain(augment.tilt(window, rng, decibels=4.0), rng, decibels=9.0)
        hiss = rng.uniform(SILENCE, SILENCE + 35) + 2 * rng.standard_normal(
            window.shape, np.float32
        )
        window = np.maximum(window, hiss).astype(np.float32)
        if rng.random() < 0.3:
            window = augment.mask(window, rng, time_masks=0, frequency_masks=1, value=SILENCE)
        return window


def isolate(
    window: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window that is silent outside 8 to 50 frames, like a short clip of one or two chords."""
    length = int(rng.integers(8, 51))
    start = int(rng.integers(0, max(1, len(window) - length)))
    outside = np.ones(len(window), bool)
    outside[start : start + length] = False
    window, classes = window.copy(), classes.copy()
    window[outside], classes[outside] = SILENCE, chord_classes.IGNORE
    return window, classes


def cut(
    song: Song, start: int, frames: int, settings: FeatureSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Frames [start, start + frames) of a song, silent and unlabelled where there is no song."""
    window = np.full((frames, song.features.shape[1]), SILENCE, np.float32)
    classes = np.full((frames, 3), chord_classes.IGNORE, np.int16)
    first, stop = max(start, 0), min(start + frames, len(song.features))
    if stop > first:
        window[first - start : stop - start] = song.features[first:stop]
        classes[first - start : stop - start] = song.classes[first:stop]
    return window, classes


class Sequential(Dataset):
    """Every song in consecutive, unchanged windows, for validation."""

    def __init__(self, songs: Sequence[Song], frames: int, settings: FeatureSettings):
        self.songs, self.frames, self.settings = songs, frames, settings
        self._starts = [
            (number, start)
            for number, song in enumerate(songs)
            for start in range(0, len(song.features), frames)
        ]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        number, start = self._starts[index]
        window, classes = cut(self.songs[number], start, self.frames, self.settings)
        margin = self.settings.margin_bins
        return {
            "features": np.ascontiguousarray(window[:, margin : margin + self.settings.bins]),
            "classes": classes.astype(np.int32),
        }
