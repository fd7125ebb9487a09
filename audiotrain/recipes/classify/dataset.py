"""Labelled clips as training samples: windows of log-mel spectrograms.

The randomness of a sample follows from (seed, epoch, index).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from audiotrain.config.schema import NonNegative, NonNegativeInt, PositiveShare, Share, validated
from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification_report import ClassificationReport
from audiotrain.features import augment
from audiotrain.recipes.classify.features import ExtractedClip
from audiotrain.train.data.loader import Dataset
from audiotrain.utils.errors import UserError


class Task(NamedTuple):
    """The classes, and whether a clip may have more than one of them."""

    classes: tuple[str, ...]
    multilabel: bool

    def targets(self, clips: Sequence[Clip]) -> np.ndarray:
        """(clips, classes) float32, 1 where a clip has a class. ValueError, naming the clip, for a
        class that the model lacks."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        targets = np.zeros((len(clips), len(numbers)), np.float32)
        for row, clip in enumerate(clips):
            for label in clip.labels:
                if label not in numbers:
                    raise UserError(
                        f"{clip.id}: class {label!r} is none of the model's {len(numbers)} "
                        f"({', '.join(self.classes[:8])}{', …' if len(numbers) > 8 else ''})"
                    )
                targets[row, numbers[label]] = 1
        return targets

    def answers(self, targets: np.ndarray) -> np.ndarray:
        """Targets (clips, classes) as class numbers (clips,) where a clip has one class."""
        return targets if self.multilabel else targets.argmax(axis=1)

    def report(self, clips: Sequence[Clip], probabilities: np.ndarray) -> ClassificationReport:
        """How well probabilities (clips, classes) predict the classes of clips."""
        ids, targets = [clip.id for clip in clips], self.targets(clips)
        return ClassificationReport(self.classes, ids, targets, probabilities, self.multilabel)


@validated
class AugmentationSettings:
    """Random changes of a log-mel window in training, besides its position."""

    mix: Share = 0.5
    """share of samples into which another clip is mixed"""
    mix_range: NonNegative = 8.0
    """largest difference in level between the two, in dB; it decides their shares of the target"""
    roll: bool = True
    """start anywhere in the window, whose end is followed by its beginning"""
    crop: PositiveShare = 0.5
    """smallest share of a window that is cropped, and repeated to fill the window"""
    shift: NonNegativeInt = 2
    """largest shift up or down, in mel bins"""
    gain: NonNegative = 4.0
    """largest change of the level, in dB"""
    tilt: NonNegative = 3.0
    """largest gain of a random equaliser, in dB"""
    time_masks: NonNegativeInt = 2
    """number of SpecAugment's masks in time"""
    time_width: NonNegativeInt = 20
    """largest width of a mask in time, in frames"""
    mel_masks: NonNegativeInt = 2
    """number of SpecAugment's masks in frequency"""
    mel_width: NonNegativeInt = 8
    """largest width of a mask in frequency, in mel bins"""


def window(mel: np.ndarray, start: int, frames: int) -> np.ndarray:
    """`frames` frames from `start` on; the end is followed by the beginning again.

    >>> window(np.arange(3)[:, None], 1, 4)[:, 0]
    array([1, 2, 0, 1])
    """
    return np.take(mel, np.arange(start, start + frames), axis=0, mode="wrap")


def starts(length: int, frames: int) -> list[int]:
    """First frames of the windows that cover a clip of `length` frames evenly; one window for a
    shorter clip.

    >>> starts(25, 10), starts(3, 10)
    ([0, 8, 15], [0])
    """
    count = -(-length // frames)
    return np.linspace(0, max(0, length - frames), count).round().astype(int).tolist()


@dataclass(eq=False)
class Windows(Dataset):
    """Samples {"input" (1, frames, mels), "target" (classes,)} of log-mel spectrograms.

    Item `i` is the middle of clip `i`, clipped at `floor` dB; `get` takes a random window and
    augments it. Masks are filled with `mean` (mels,). Where clips are `multilabel`, two mixed ones
    have all classes of both.
    """

    clips: Sequence[ExtractedClip]
    targets: np.ndarray
    frames: int
    floor: float
    multilabel: bool = False
    augmentation: AugmentationSettings | None = None
    mean: np.ndarray | np.float32 = np.float32(0)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        mel = self._mel(index)
        middle = max(0, len(mel) - self.frames) // 2
        return {"input": window(mel, middle, self.frames)[None], "target": self.targets[index]}

    def get(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """An augmented window of a clip, random by `rng`."""
        change = self.augmentation
        if change is None:
            return self[index]
        mel, target = self._augmented(index, change, rng), self.targets[index]
        if rng.random() < change.mix:
            other = int(rng.integers(len(self)))
            louder = float(rng.uniform(-change.mix_range, change.mix_range))
            mel = augment.blend(mel, self._augmented(other, change, rng) - np.float32(louder))
            if self.multilabel:
                target = np.maximum(target, self.targets[other])
            else:
                share = np.float32(0.5 + louder / (2 * max(change.mix_range, 1e-6)))
                target = share * target + (1 - share) * self.targets[other]
        masks = change.time_masks, change.time_width, change.mel_masks, change.mel_width
        masked = augment.mask(mel - self.mean, rng, *masks, value=0.0)
        return {"input": (masked + self.mean)[None].astype(np.float32), "target": target}

    def describe(self, index: int) -> str:
        """The name of a clip."""
        return self.clips[index].clip.id

    def _mel(self, index: int) -> np.ndarray:
        return np.maximum(np.asarray(self.clips[index].features, np.float32), self.floor)

    def _augmented(
        self, index: int, change: AugmentationSettings, rng: np.random.Generator
    ) -> np.ndarray:
        """A random window (frames, mels), cropped, shifted, louder or softer, equalised."""
        mel = self._mel(index)
        length = min(len(mel), self.frames)
        mel = window(mel, int(rng.integers(len(mel) - length + 1)), length)
        start = int(rng.integers(length)) if change.roll else 0
        kept = max(1, round(length * rng.uniform(change.crop, 1)))
        mel = window(window(mel, start, kept), 0, self.frames)
        mel = augment.shift(mel, rng, change.shift)
        mel = augment.tilt(augment.gain(mel, rng, change.gain), rng, change.tilt)
        return np.maximum(mel, self.floor)
