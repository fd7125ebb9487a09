"""Labelled clips as what classifiers hear: log-mel of whole clips, or embeddings, kept on disk.

Mels are (frames, mels) float32 in dB, not below a floor; a model hears a window of them. What is
random about a training sample follows from (seed, epoch, index).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features import augment
from audiotrain.features.audio import AudioError
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.recipes.clap.dataset import SYNTHESIS, source_of
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.train.data.loader import Dataset
from audiotrain.utils.progress import progress
from audiotrain.utils.text import nearest

STATISTICS = "statistics"  # --embeddings: of the mels, no network needed


@dataclass(frozen=True)
class HearingSettings:
    """What of a clip is heard."""

    features: ClapFeatureSettings = ClapFeatureSettings(
        rate=24000, hop=480, fmax=12000, seconds=5.1
    )
    """log-mel spectrogram; `seconds` is the window that a model hears"""
    floor: float = -60.0
    """dB below which nothing is heard"""
    longest: float = 60.0
    """seconds of a clip that are heard; of a longer one the beginning"""
    embeddings: str | None = None
    """CLAP whose embeddings are heard instead (run folder, model folder or hub id), or
    "statistics" of the log-mel spectrogram"""


class Task(NamedTuple):
    """What is to be told of a clip: the classes, and whether it may have `several`."""

    classes: tuple[str, ...]
    several: bool

    def targets(self, clips: Sequence[Clip]) -> np.ndarray:
        """(clips, classes) float32, 1 where a clip has a class. ValueError, naming the clip, for a
        class that is none of ours."""
        places = {name: number for number, name in enumerate(self.classes)}
        targets = np.zeros((len(clips), len(places)), np.float32)
        for row, clip in enumerate(clips):
            for label in clip.labels:
                if label not in places:
                    raise ValueError(
                        f"{clip.id}: class {label!r} is none of the model's {len(places)} "
                        f"({', '.join(self.classes[:8])}{', …' if len(places) > 8 else ''})"
                    )
                targets[row, places[label]] = 1
        return targets


class Heard(NamedTuple):
    """Clips that can be read, what is heard of them (mels, or embeddings (width,)), and a line for
    each clip that can't."""

    clips: list[Clip]
    sounds: list[np.ndarray]
    problems: list[str]


class Listener:
    """Clips to what a classifier hears, kept in the folder `cache`."""

    def __init__(self, settings: HearingSettings, cache: Path, workers: int = 2):
        self.settings, self.workers = settings, max(1, workers)
        self.features = ClapFeatures(settings.features)
        self._mels = FeatureCache(cache / "mels", np.float16)
        self._vectors = FeatureCache(cache / "vectors")
        self._embedder: Embedder | None = None

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.settings.features.frames

    def listen(self, clips: Sequence[Clip], what: str = "reading") -> Heard:
        """All clips that can be read, with a progress bar. ValueError when none can."""
        if self.settings.embeddings not in (None, STATISTICS):
            found = self._embedded(clips, what)
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                found = list(progress(pool.map(self._try, clips), what, len(clips)))
        problems = [one for one in found if isinstance(one, str)]
        if len(problems) == len(clips):
            raise ValueError(f"none of {len(clips)} clips can be read: {problems[0]}")
        pairs = [(c, one) for c, one in zip(clips, found, strict=True) if not isinstance(one, str)]
        return Heard([clip for clip, _ in pairs], [sound for _, sound in pairs], problems)

    def mel(self, clip: Clip) -> np.ndarray:
        """(frames, mels) of the whole clip, read-only. AudioError when it cannot be read."""
        key = self.settings.features.key
        spec = {name: key[name] for name in ("rate", "n_fft", "hop", "mels", "fmin", "fmax")}
        spec |= {"longest": float(self.settings.longest)}
        return self._mels.get(source_of(clip), spec | _span(clip), lambda: self._compute(clip))

    def _compute(self, clip: Clip) -> np.ndarray:
        samples = clip.read(self.settings.features.rate, 0.0, self.settings.longest)
        if not len(samples):
            raise AudioError(f"{clip.audio}: holds no audio samples")
        least = self.settings.features.n_fft
        return self.features.log_mel(np.resize(samples, max(least, len(samples))))

    def _try(self, clip: Clip) -> np.ndarray | str:
        try:
            mel = self.mel(clip)
        except (AudioError, ValueError) as error:
            return str(error)
        if self.settings.embeddings is None:
            return mel
        return statistics(np.maximum(np.asarray(mel, np.float32), self.settings.floor))

    def _load(self) -> Embedder:
        """The CLAP whose embeddings are heard. ValueError, one line, where there is none."""
        name, setting = self.settings.embeddings, "--hearing.embeddings"
        meant = nearest(name, [STATISTICS])
        if meant and "/" not in name and not Path(name).exists():
            raise ValueError(f"{setting}: found {name!r}{meant}, expected {STATISTICS} or a CLAP")
        return Embedder.from_folder(name, workers=self.workers, setting=setting)

    def _embedded(self, clips: Sequence[Clip], what: str) -> list[np.ndarray | str]:
        """Embeddings by CLAP; those that are not kept yet are computed."""
        if self._embedder is None:
            self._embedder = self._load()
        embedder = self._embedder
        specs = [{"embedder": embedder.digest} | _span(clip) for clip in clips]
        found: list = [None] * len(clips)
        for place, (clip, spec) in enumerate(zip(clips, specs, strict=True)):
            try:
                if self._vectors.holds(source_of(clip), spec):
                    found[place] = self._vectors.get(source_of(clip), spec, None)
            except OSError as error:
                found[place] = f"{clip.id}: {error.strerror}"
        missing = [place for place, one in enumerate(found) if one is None]
        if not missing:
            return found
        for number, spans in embedder.each([clips[place] for place in missing], what):
            place = missing[number]
            if isinstance(spans, AudioError):
                found[place] = str(spans)
            else:
                mean = spans.mean
                source = source_of(clips[place])
                found[place] = self._vectors.get(source, specs[place], lambda mean=mean: mean)
        return found


def _span(clip: Clip) -> dict:
    spec = {"start": clip.start, "end": clip.end}
    return spec | ({"synthesis": SYNTHESIS} if isinstance(clip.audio, Scene) else {})


def statistics(mel: np.ndarray) -> np.ndarray:
    """What a spectrogram (frames, mels) is on the whole, (6 * mels,) float32: mean, deviation,
    10th, 50th and 90th percentile of each bin, and how much it changes from frame to frame."""
    changes = np.abs(np.diff(mel, axis=0)).mean(axis=0) if len(mel) > 1 else np.zeros(mel.shape[1])
    parts = [mel.mean(axis=0), mel.std(axis=0), *np.percentile(mel, (10, 50, 90), axis=0), changes]
    return np.concatenate(parts).astype(np.float32)


# ---- windows


def window(mel: np.ndarray, start: int, frames: int) -> np.ndarray:
    """`frames` frames from `start` on; what follows the end is the beginning again.

    >>> window(np.arange(3)[:, None], 1, 4)[:, 0]
    array([1, 2, 0, 1])
    """
    return np.take(mel, np.arange(start, start + frames), axis=0, mode="wrap")


def starts(length: int, frames: int) -> list[int]:
    """Where windows begin that cover a clip of `length` frames evenly; one of what is shorter.

    >>> starts(25, 10), starts(3, 10)
    ([0, 8, 15], [0])
    """
    count = -(-length // frames)
    return np.linspace(0, max(0, length - frames), count).round().astype(int).tolist()


# ---- training samples


@dataclass(frozen=True)
class AugmentationSettings:
    """What training does to a window of log-mel besides drawing it."""

    mix: float = 0.5
    """share of samples into which another clip is mixed"""
    mix_range: float = 8.0
    """dB by which one of the two is louder, at most; its share of the target follows from it"""
    roll: bool = True
    """begin anywhere, the end followed by the beginning"""
    crop: float = 0.5
    """least share of a window that is taken, and repeated to fill it"""
    shift: int = 2
    """mel bins up or down"""
    gain: float = 4.0
    """dB louder or softer"""
    tilt: float = 3.0
    """dB of a random equaliser"""
    time_masks: int = 2
    """SpecAugment's masks in time"""
    time_width: int = 20
    """frames of one, at most"""
    mel_masks: int = 2
    """SpecAugment's masks in mel bins"""
    mel_width: int = 8
    """mel bins of one, at most"""

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name}={value}, expected 0 or more")
        if self.mix > 1 or not 0 < self.crop <= 1:
            raise ValueError(f"mix={self.mix} and crop={self.crop}, expected shares of 1")


class Windows(Dataset):
    """Samples {"input" (1, frames, mels), "target" (classes,)} of mels.

    Item `i` is the middle of clip `i`; `get` draws one, augmented. `mean` (mels,) is what masks are
    filled with. Where clips may have `several` classes, two mixed ones have all of both.
    """

    def __init__(
        self,
        heard: Heard,
        targets: np.ndarray,
        frames: int,
        floor: float,
        several: bool = False,
        augmentation: AugmentationSettings | None = None,
        mean: np.ndarray | None = None,
    ):
        self.heard, self.targets, self.frames, self.floor = heard, targets, frames, floor
        self.several, self.augmentation, self.mean = several, augmentation, mean

    def __len__(self) -> int:
        return len(self.heard.clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        mel = self._mel(index)
        middle = max(0, len(mel) - self.frames) // 2
        return {"input": window(mel, middle, self.frames)[None], "target": self.targets[index]}

    def get(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A window of a clip, changed by draws of `rng`."""
        change = self.augmentation
        if change is None:
            return self[index]
        mel, target = self._drawn(index, rng), self.targets[index]
        if rng.random() < change.mix:
            other = int(rng.integers(len(self)))
            louder = float(rng.uniform(-change.mix_range, change.mix_range))
            mel = augment.blend(mel, self._drawn(other, rng) - np.float32(louder))
            target = self._both(target, self.targets[other], louder)
        mel = augment.mask(
            mel - self.mean, rng, change.time_masks, change.time_width, change.mel_masks,
            change.mel_width, 0.0,
        ) + self.mean  # fmt: skip
        return {"input": mel[None].astype(np.float32), "target": target}

    def describe(self, index: int) -> str:
        """The name of a clip."""
        return self.heard.clips[index].id

    def _mel(self, index: int) -> np.ndarray:
        return np.maximum(np.asarray(self.heard.sounds[index], np.float32), self.floor)

    def _drawn(self, index: int, rng: np.random.Generator) -> np.ndarray:
        change, mel = self.augmentation, self._mel(index)
        length = min(len(mel), self.frames)
        mel = window(mel, int(rng.integers(len(mel) - length + 1)), length)
        start = int(rng.integers(length)) if change.roll else 0
        kept = max(1, round(length * rng.uniform(change.crop, 1)))
        mel = window(window(mel, start, kept), 0, self.frames)
        mel = augment.shift(mel, rng, change.shift)
        mel = augment.tilt(augment.gain(mel, rng, change.gain), rng, change.tilt)
        return np.maximum(mel, self.floor)

    def _both(self, first: np.ndarray, second: np.ndarray, louder: float) -> np.ndarray:
        if self.several:
            return np.maximum(first, second)
        share = np.float32(0.5 + louder / (2 * max(self.augmentation.mix_range, 1e-6)))
        return share * first + (1 - share) * second


class Vectors(Dataset):
    """Samples {"input" (width,), "target" (classes,)} of embeddings."""

    def __init__(self, heard: Heard, targets: np.ndarray):
        self.heard, self.targets = heard, targets

    def __len__(self) -> int:
        return len(self.heard.clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        vector = np.asarray(self.heard.sounds[index], np.float32)
        return {"input": vector, "target": self.targets[index]}
