"""Captioned clips as training samples: cropped, augmented, tokenised, in data workers.

A sample is {"mel" (channels, frames, mels) float32, "input_ids" and "attention_mask" (length,)
int32, "is_longer" bool, "group" int64}: equal groups in a batch mean the same, so they are
positives of each other. Where clips are blended a sample also has "second_group" int64, the meaning
of the other clip, and "share" float32, the first one's share of the power. With frozen towers it
has "audio_vector" or "text_vector" (width,) float32 instead of their inputs.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from audiotrain.config.schema import NonNegative, NonNegativeInt, Share, validated
from audiotrain.datasets.items import Clip, meaning
from audiotrain.datasets.synthesis import sound_scenes
from audiotrain.features import audio, augment
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.common.preparation import prepare
from audiotrain.recipes.common.split import Incomplete
from audiotrain.train.data.collate import default_collate
from audiotrain.train.data.datasets import ArrayDataset
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.utils.errors import UserError

BLEND_RANGE = 8.0  # dB by which one of two blended clips is louder, at most
TOKEN_STEP = 16  # captions of a batch are padded to a multiple of it
DECODED = {"decoded": audio.VERSION}  # names in the cache what a recording lacks
Sample = dict[str, np.ndarray]


@validated
class ClipAugmentation:
    """Changes of clips in training, besides a random crop and caption; all off by default.

    `gain` up to so many dB louder or softer; `mix` and `join` the shares of samples that are two
    clips at once ("... and ...") and two clips composed ("... then ...", "... while ...");
    `blend` the share of samples that are two clips whose captions both fit, by their loudness.
    `tilt` dB of a random EQ, `shift` mels up or down, `roll` the share that is rotated in time
    (composed clips never: their captions name an order); SpecAugment's masks by number and largest
    width, in frames and in mels.
    """

    gain: NonNegative = 0.0
    mix: NonNegative = 0.0
    join: NonNegative = 0.0
    blend: Share = 0.0
    tilt: NonNegative = 0.0
    shift: NonNegativeInt = 0
    roll: Share = 0.0
    time_masks: NonNegativeInt = 0
    time_width: NonNegativeInt = 64
    mel_masks: NonNegativeInt = 0
    mel_width: NonNegativeInt = 8

    def __post_init__(self):
        if self.mix + self.join > 1:
            raise UserError(f"mix={self.mix} and join={self.join}, expected at most 1 together")

    @property
    def changes_mels(self) -> bool:
        """Whether anything is done to spectrograms."""
        masks = self.time_masks + self.mel_masks
        return masks + self.blend + self.tilt + self.shift + self.roll > 0


@dataclass(frozen=True)
class Vectors:
    """Outputs of frozen towers, (width,) float32 each, before the projection.

    `audio` by the clip's id and `text` by the bytes of the caption's token ids; None where the
    tower trains, or is computed each time.
    """

    audio: Mapping[str, np.ndarray] | None = None
    text: Mapping[bytes, np.ndarray] | None = None


NO_VECTORS = Vectors()


@dataclass
class CaptionedClips(Dataset):
    """Clips as samples; their randomness follows from (seed, epoch, index) as the loader gives it.

    With an `augmentation`, also one that changes nothing, a sample has a random crop and one of the
    clip's captions; without, the centre crop and the first caption, the same at every call. The
    cache `mels` keeps the inputs of clips that are no longer than them, which need no decoding
    unless another clip is mixed in. Sounds with a vector are not augmented. ValueError for no
    clips.
    """

    clips: Sequence[Clip]
    tokenizer: Tokenizer
    features: ClapFeatures
    augmentation: ClipAugmentation | None = None
    mels: FeatureCache | None = None
    vectors: Vectors = NO_VECTORS
    _short: dict[int, bool] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if not self.clips:
            raise UserError("no captioned clips")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        return self.sound(index) | self.words(clip.captions[0], clip.concept)

    def sound(self, index: int) -> Sample:
        """ "mel" and "is_longer" of a clip as it is, the centre crop; or its "audio_vector"."""
        if self.vectors.audio is not None:
            return {"audio_vector": self.vectors.audio[self.clips[index].id]}
        if self.keeps(index):
            return {"mel": self._cached_mel(index), "is_longer": np.array(False)}
        audio, longer = self._excerpt(self.clips[index], None)
        return {"mel": self.features(audio)[0], "is_longer": np.array(longer)}

    def words(self, caption: str, concept: str = "") -> Sample:
        """ "input_ids" and "attention_mask", or "text_vector", and "group" of a caption."""
        ids, mask = self.tokenizer([caption])
        hashed = hashlib.blake2b(meaning(caption, concept).encode(), digest_size=8).digest()
        group = np.array(int.from_bytes(hashed, "big") >> 1, np.int64)
        if self.vectors.text is not None:
            return {"text_vector": self.vectors.text[ids[0].tobytes()], "group": group}
        return {"input_ids": ids[0], "attention_mask": mask[0], "group": group}

    def get(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of a clip, augmented by `rng`."""
        change = self.augmentation
        if change is None:
            return self[index]
        clip = self.clips[index]
        if self.vectors.audio is not None:
            return self.sound(index) | self.words(str(rng.choice(clip.captions)), clip.concept)
        kept = self.keeps(index)  # it has no random crop
        audio, longer = (None, False) if kept else self._excerpt(clip, rng)
        caption, concept = str(rng.choice(clip.captions)), clip.concept
        kind, is_joined = rng.random(), False
        if kind < change.mix + change.join:
            other = self.clips[int(rng.integers(len(self.clips)))]
            second = self._excerpt(other, rng)[0], str(rng.choice(other.captions))
            if meaning(second[1], other.concept) != meaning(caption, concept):
                first = self._excerpt(clip, rng)[0] if audio is None else audio, caption
                longer, concept, is_joined = False, "", kind >= change.mix
                audio, caption = self._combined(first, second, is_joined, rng)
        gain = rng.uniform(-change.gain, change.gain)
        if audio is None:
            mel = self._louder(self._cached_mel(index), gain)
        else:
            mel, _ = self.features(audio * np.float32(augment.decibels_to_ratio(gain)), rng)
        words = self.words(caption, concept)
        if change.changes_mels:
            mel = self._varied(mel, change, rng, in_order=is_joined)
        if change.blend:
            mel, blended = self._blended(mel, change, rng)
            words |= {"second_group": words["group"], "share": np.array(1, np.float32)} | blended
        if change.time_masks + change.mel_masks:
            mel = self._masked(mel, change, rng)
        return {"mel": mel, "is_longer": np.array(longer)} | words

    def describe(self, index: int) -> str:
        """The file of a sample, or the name of its scene."""
        clip = self.clips[index]
        return clip.id if isinstance(clip.audio, sound_scenes.Scene) else str(clip.audio)

    def keeps(self, index: int) -> bool:
        """Whether a clip's input is one for the cache `mels`."""
        if self.mels is None:
            return False
        if index not in self._short:
            settings = self.features.settings
            samples = round(self.clips[index].seconds * settings.rate)
            self._short[index] = samples <= settings.samples
        return self._short[index]

    def missing(self, index: int) -> str:
        """What cannot be decoded of a clip that is kept in the cache `mels`."""
        assert self.mels is not None
        clip, missing = self.clips[index], audio.Gathered()

        def text() -> str:
            for _ in clip.stream(self.features.settings.rate, on_missing=missing):
                pass
            return missing.text

        return self.mels.text(*clip.cache_key(), text)

    def _excerpt(self, clip: Clip, rng: np.random.Generator | None) -> tuple[np.ndarray, bool]:
        """Samples of a clip, no more than the input needs, and whether the clip is longer."""
        settings = self.features.settings
        if settings.fused or isinstance(clip.audio, sound_scenes.Scene):
            samples = clip.read(settings.rate, on_missing=audio.ignore)
            is_longer = len(samples) > settings.samples
            is_cropped = is_longer and not settings.fused
            return self.features.fit(samples, rng) if is_cropped else samples, is_longer
        margin = clip.seconds - settings.seconds
        if margin <= 0:
            return clip.read(settings.rate, on_missing=audio.ignore), False
        start = margin / 2 if rng is None else float(rng.uniform(0, margin))
        excerpt = clip.read(settings.rate, start, settings.seconds, audio.ignore)
        return excerpt, True

    def _combined(
        self,
        first: tuple[np.ndarray, str],
        second: tuple[np.ndarray, str],
        is_joined: bool,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, str]:
        """Two excerpts with captions as one: composed in time when joined, else at once."""
        settings = self.features.settings
        if is_joined:
            scene = sound_scenes.compose_clips(
                (first, second), rng, settings.rate, seconds=settings.seconds
            )
            return scene.audio, scene.caption
        audio = sound_scenes.overlay(first[0], second[0], rng, settings.rate, settings.samples)
        return audio, sound_scenes.and_caption(first[1], second[1])

    def _cached_mel(self, index: int) -> np.ndarray:
        """The input of a short clip; its channels are equal."""
        assert self.mels is not None
        clip, settings = self.clips[index], self.features.settings

        missing, (source, span) = audio.Gathered(), clip.cache_key()

        def compute() -> np.ndarray:
            assert self.mels is not None
            samples = clip.read(settings.rate, on_missing=missing)[: settings.samples]
            self.mels.text(source, span, lambda: missing.text)
            return self.features(samples)[0][:1]

        mel = self.mels.get(source, {"features": settings.key} | span, compute)
        return np.repeat(np.asarray(mel, np.float32), settings.channels, axis=0)

    def _louder(self, mel: np.ndarray, decibels: float) -> np.ndarray:
        floor = 10 * np.log10(self.features.settings.log_mel.floor_power)
        return np.maximum(mel + np.float32(decibels), np.float32(floor))

    def _blended(
        self, mel: np.ndarray, change: ClipAugmentation, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sample]:
        """A spectrogram, in a share of samples with another clip's added, and the other's meaning
        and share."""
        if rng.random() >= change.blend:
            return mel, {}
        index = int(rng.integers(len(self.clips)))
        clip = self.clips[index]
        if self.keeps(index):
            other = self._cached_mel(index)
        else:
            other, _ = self.features(self._excerpt(clip, rng)[0], rng)
        other = self._varied(other, change, rng)
        louder = float(rng.uniform(-BLEND_RANGE, BLEND_RANGE))
        group = self.words(str(rng.choice(clip.captions)), clip.concept)["group"]
        share = np.array(1 / (1 + 10 ** (-louder / 10)), np.float32)  # of the power
        mel = augment.blend(mel, other - np.float32(louder))
        return mel, {"second_group": group, "share": share}

    def _varied(
        self,
        mel: np.ndarray,
        change: ClipAugmentation,
        rng: np.random.Generator,
        in_order: bool = False,
    ) -> np.ndarray:
        """Equalised, shifted in pitch, rotated in time unless the caption names an order."""
        seed = int(rng.integers(2**32))
        is_rolled = rng.random() < change.roll and not in_order

        def vary(channel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            channel = augment.tilt(channel, rng, change.tilt)
            channel = augment.shift(channel, rng, change.shift)
            return augment.roll(channel, rng) if is_rolled else channel

        return _in_every_channel(mel, seed, vary)

    def _masked(
        self, mel: np.ndarray, change: ClipAugmentation, rng: np.random.Generator
    ) -> np.ndarray:
        """Bands of frames and of mels set to the mean."""
        sizes = change.time_masks, change.time_width, change.mel_masks, change.mel_width
        seed = int(rng.integers(2**32))
        return _in_every_channel(mel, seed, lambda channel, rng: augment.mask(channel, rng, *sizes))


def _in_every_channel(
    mel: np.ndarray,
    seed: int,
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray],
) -> np.ndarray:
    """All channels changed alike."""
    return np.stack([change(channel, np.random.default_rng(seed)) for channel in mel])


class Sounds(CaptionedClips):
    """The clips alone, as they are: {"mel", "is_longer"}, or {"audio_vector"}."""

    def __getitem__(self, index: int) -> Sample:
        return self.sound(index)


@dataclass(frozen=True)
class Library:
    """Makes data sets of clips: front end, tokenizer, caches, threads of loaders."""

    features: ClapFeatures
    tokenizer: Tokenizer
    mels: FeatureCache
    """inputs of short clips"""
    vectors: FeatureCache
    """outputs of frozen towers"""
    workers: int = 0

    def pairs(
        self,
        clips: Sequence[Clip],
        augmentation: ClipAugmentation | None = None,
        vectors: Vectors = NO_VECTORS,
    ) -> CaptionedClips:
        """Clips with one of their captions each."""
        return CaptionedClips(
            clips, self.tokenizer, self.features, augmentation, self.mels, vectors
        )

    def sounds(self, clips: Sequence[Clip], vectors: Vectors = NO_VECTORS) -> Sounds:
        """Clips without captions."""
        return Sounds(clips, self.tokenizer, self.features, None, self.mels, vectors)

    def texts(self, captions: Sequence[str], vectors: Vectors = NO_VECTORS) -> ArrayDataset:
        """Captions: {"input_ids", "attention_mask"}, or {"text_vector"}."""
        ids, masks = self.tokenizer(captions)
        if vectors.text is None:
            return ArrayDataset({"input_ids": ids, "attention_mask": masks})
        return ArrayDataset({"text_vector": np.stack([vectors.text[row.tobytes()] for row in ids])})

    def loader(self, dataset: Dataset, batch_size: int) -> DataLoader:
        """Batches of a data set in its order."""
        return DataLoader(dataset, batch_size, num_workers=self.workers, collate_fn=collate)


def collate(samples: list[Sample]) -> Sample:
    """A batch of samples, without the columns of tokens that are padding in all of them."""
    batch = default_collate(samples)
    if "attention_mask" in batch:
        used = int(batch["attention_mask"].sum(axis=1).max())
        length = -(-used // TOKEN_STEP) * TOKEN_STEP
        for name in ("input_ids", "attention_mask"):
            batch[name] = batch[name][:, :length]
    return batch


def read_through(
    samples: CaptionedClips, cache: Path, ranks: SingleProcess
) -> list[Clip | str | Incomplete]:
    """Each clip, marked where a part of it cannot be decoded, or a line with the reason that it
    cannot be read. The samples' cache has the inputs of short clips then. All cores and all `ranks`
    share the clips."""
    tried = FeatureCache(cache / "tried")
    problems = prepare(
        partial(_problem, samples, tried),
        range(len(samples)),
        "reading",
        name=samples.describe,
        caches=[tried] if samples.mels is None else [tried, samples.mels],
        ranks=ranks,
    )
    results: list[Clip | str | Incomplete] = []
    for number, (clip, problem) in enumerate(zip(samples.clips, problems, strict=True)):
        missing = "" if problem else _missing(samples, tried, number)
        line = f"{samples.describe(number)}: {missing}"
        results.append(problem or (Incomplete(clip, line) if missing else clip))
    return results


def _missing(samples: CaptionedClips, tried: FeatureCache, index: int) -> str:
    """What cannot be decoded of a clip."""
    recording = samples.clips[index].audio
    if isinstance(recording, sound_scenes.Scene):
        return ""
    if samples.keeps(index):
        return samples.missing(index)
    source = samples.clips[index].cache_key()[0]
    return tried.text(source, DECODED, lambda: _decode(recording))


def _problem(samples: CaptionedClips, tried: FeatureCache, index: int) -> str | None:
    """Why a clip cannot be decoded to its end."""
    clip = samples.clips[index]
    try:
        if samples.keeps(index):
            samples.sound(index)
        elif not isinstance(clip.audio, sound_scenes.Scene):
            recording = clip.audio
            tried.text(clip.cache_key()[0], DECODED, lambda: _decode(recording))
    except UserError as error:
        return str(error)
    return None


def _decode(recording: audio.AudioPath) -> str:
    """What cannot be decoded of a recording, which is read through."""
    missing = audio.Gathered()
    for _ in audio.stream(recording, audio.info(recording).rate, on_missing=missing):
        pass
    return missing.text
