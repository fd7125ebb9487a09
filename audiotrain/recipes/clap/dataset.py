"""Captioned clips as training samples: cropped, augmented, tokenised, in data workers.

A sample is {"mel" (channels, frames, mels) float32 or "waveform" (samples,) float32, "input_ids"
and "attention_mask" (length,) int32, "is_longer" bool, "group" int64}: equal groups in a batch
mean the same, so they are positives of each other. Where clips are blended a sample also has
"second_group" int64, the meaning of the other clip, and "share" float32, the first one's share of
the power. With frozen towers it has "audio_vector" or "text_vector" instead of their inputs.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from audiotrain.config.schema import NonNegative, NonNegativeInt, Share, validated
from audiotrain.datasets.items import Clip, meaning
from audiotrain.datasets.synthesis import sound_scenes
from audiotrain.features import augment
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.train.data.collate import default_collate
from audiotrain.train.data.loader import DataLoader, Dataset

OUTPUTS = ("mel", "waveform")
KEYS = ("input_ids", "attention_mask", "is_longer", "group", "second_group", "share")
BLEND_RANGE = 8.0  # dB by which one of two blended clips is louder, at most
TOKEN_STEP = 16  # captions of a batch are padded to a multiple of it
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
            raise ValueError(f"mix={self.mix} and join={self.join}, expected at most 1 together")

    @property
    def changes_mels(self) -> bool:
        """Whether anything is done to spectrograms."""
        masks = self.time_masks + self.mel_masks
        return masks + self.blend + self.tilt + self.shift + self.roll > 0


class CaptionedClips(Dataset):
    """Clips as samples; their randomness follows from (seed, epoch, index) as the loader gives it.

    With an `augmentation`, also one that changes nothing, a sample has a random crop and one of the
    clip's captions; without, the centre crop and the first caption, the same at every call.
    `output` "mel" is the model's input, "waveform" what `features.LogMel` turns into it on the
    device. `cache` keeps decoded audio, `mels` the inputs of clips that are no longer than them:
    samples that nothing is mixed into then need no decoding. ValueError for no clips, and for
    settings that need the other output.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tokenizer: Tokenizer,
        features: ClapFeatures,
        augmentation: ClipAugmentation | None = None,
        output: str = "mel",
        cache: FeatureCache | None = None,
        mels: FeatureCache | None = None,
    ):
        if not clips:
            raise ValueError("no captioned clips")
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r}, expected one of {', '.join(OUTPUTS)}")
        if output == "waveform" and augmentation and augmentation.changes_mels:
            raise ValueError(
                "output='waveform' has no spectrogram: expected no masks, blend, tilt, shift, roll"
            )
        if output == "waveform" and features.settings.fused:
            raise ValueError("output='waveform' with truncation='fusion': expected output='mel'")
        self.clips, self.tokenizer, self.features = clips, tokenizer, features
        self.augmentation, self.output, self.cache = augmentation, output, cache
        self.mels = mels if output == "mel" else None
        self._short: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        return self._sample(self.sound(index), self.words(clip.captions[0], clip.concept))

    def sound(self, index: int) -> Sample:
        """ "mel" or "waveform", and "is_longer", of a clip as it is: the centre crop."""
        if self.mels is not None and self.keeps(index):
            return {"mel": self._cached_mel(index, self.mels), "is_longer": np.array(False)}
        audio, longer = self._excerpt(self.clips[index], None)
        return self._input(audio, None) | {"is_longer": np.array(longer)}

    def words(self, caption: str, concept: str = "") -> Sample:
        """ "input_ids", "attention_mask" and "group" of a caption."""
        ids, mask = self.tokenizer([caption])
        hashed = hashlib.blake2b(meaning(caption, concept).encode(), digest_size=8).digest()
        group = np.array(int.from_bytes(hashed, "big") >> 1, np.int64)
        return {"input_ids": ids[0], "attention_mask": mask[0], "group": group}

    def get(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of a clip, augmented by `rng`."""
        change = self.augmentation
        if change is None:
            return self[index]
        clip, kept = self.clips[index], self.keeps(index)  # a kept input has no random crop
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
            assert self.mels is not None
            sound = {"mel": self._louder(self._cached_mel(index, self.mels), gain)}
        else:
            sound = self._input(audio * np.float32(augment.decibels_to_ratio(gain)), rng)
        words = self.words(caption, concept)
        if change.changes_mels:
            sound["mel"] = self._varied(sound["mel"], change, rng, in_order=is_joined)
        if change.blend:
            sound["mel"], blended = self._blended(sound["mel"], change, rng)
            words |= {"second_group": words["group"], "share": np.array(1, np.float32)} | blended
        if change.time_masks + change.mel_masks:
            sound["mel"] = self._masked(sound["mel"], change, rng)
        return self._sample(sound | {"is_longer": np.array(longer)}, words)

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

    def _sample(self, sound: Sample, words: Sample) -> Sample:
        both = sound | words
        return {name: both[name] for name in (self.output, *KEYS) if name in both}

    def _excerpt(self, clip: Clip, rng: np.random.Generator | None) -> tuple[np.ndarray, bool]:
        """Samples of a clip, no more than the input needs, and whether the clip is longer."""
        settings = self.features.settings
        if self.cache is not None or settings.fused or isinstance(clip.audio, sound_scenes.Scene):
            audio = self._decoded(clip)
            is_longer = len(audio) > settings.samples
            is_cropped = is_longer and not settings.fused
            return self.features.fit(audio, rng) if is_cropped else audio, is_longer
        margin = clip.seconds - settings.seconds
        if margin <= 0:
            return clip.read(settings.rate), False
        start = margin / 2 if rng is None else float(rng.uniform(0, margin))
        return clip.read(settings.rate, start, settings.seconds), True

    def _decoded(self, clip: Clip) -> np.ndarray:
        rate = self.features.settings.rate
        if self.cache is None:
            return clip.read(rate)
        source, span = clip.cache_key()
        audio = self.cache.get(source, {"rate": rate} | span, lambda: clip.read(rate))
        return np.asarray(audio, np.float32)

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

    def _cached_mel(self, index: int, mels: FeatureCache) -> np.ndarray:
        """The input of a short clip; its channels are equal."""
        clip, settings = self.clips[index], self.features.settings

        def compute() -> np.ndarray:
            return self.features(clip.read(settings.rate)[: settings.samples])[0][:1]

        source, span = clip.cache_key()
        mel = mels.get(source, {"features": settings.key} | span, compute)
        return np.repeat(np.asarray(mel, np.float32), settings.channels, axis=0)

    def _louder(self, mel: np.ndarray, decibels: float) -> np.ndarray:
        floor = 10 * np.log10(self.features.settings.log_mel.floor_power)
        return np.maximum(mel + np.float32(decibels), np.float32(floor))

    def _input(self, audio: np.ndarray, rng: np.random.Generator | None) -> Sample:
        if self.output == "waveform":
            return {"waveform": self.features.fit(audio, rng)}
        return {"mel": self.features(audio, rng)[0]}

    def _blended(
        self, mel: np.ndarray, change: ClipAugmentation, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sample]:
        """A spectrogram, in a share of samples with another clip's added, and the other's meaning
        and share."""
        if rng.random() >= change.blend:
            return mel, {}
        index = int(rng.integers(len(self.clips)))
        clip = self.clips[index]
        if self.mels is not None and self.keeps(index):
            other = self._cached_mel(index, self.mels)
        else:
            other = self._input(self._excerpt(clip, rng)[0], rng)["mel"]
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


@dataclass(frozen=True)
class Library:
    """Makes samples of clips: front end, tokenizer, caches, threads of loaders."""

    features: ClapFeatures
    tokenizer: Tokenizer
    cache: Path
    workers: int = 0
    mels: FeatureCache = field(init=False)
    vectors: FeatureCache = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "mels", FeatureCache(self.cache / "mels", np.float16))
        object.__setattr__(self, "vectors", FeatureCache(self.cache / "vectors"))

    def clips(
        self, clips: Sequence[Clip], augmentation: ClipAugmentation | None = None
    ) -> CaptionedClips:
        """The clips as a data set; the cache keeps the inputs of short ones."""
        return CaptionedClips(clips, self.tokenizer, self.features, augmentation, mels=self.mels)

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


@dataclass(frozen=True)
class Vectors:
    """Outputs of frozen towers, (width,) float32 each, before the projection.

    `audio` by the clip's id and `text` by the bytes of the caption's token ids; None where the
    tower trains, or is computed each time.
    """

    audio: Mapping[str, np.ndarray] | None = None
    text: Mapping[bytes, np.ndarray] | None = None


class Sounds(Dataset):
    """Clips as they are: {"mel", "is_longer"}, or {"audio_vector"}."""

    def __init__(self, clips: CaptionedClips, vectors: Vectors):
        self.clips, self.vectors = clips, vectors

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        if self.vectors.audio is not None:
            return {"audio_vector": self.vectors.audio[self.clips.clips[index].id]}
        return self.clips.sound(index)

    def describe(self, index: int) -> str:
        """The file of a clip."""
        return self.clips.describe(index)


class Texts(Dataset):
    """Captions: {"input_ids", "attention_mask"}, or {"text_vector"}."""

    def __init__(self, captions: Sequence[str], tokenizer: Tokenizer, vectors: Vectors):
        self.ids, self.masks = tokenizer(captions)
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        words = {"input_ids": self.ids[index], "attention_mask": self.masks[index]}
        return with_text_vector(words, self.vectors)


class Pairs(Dataset):
    """Clips with one of their captions, augmented where the audio tower is not cached:
    {"mel", "is_longer"} or {"audio_vector"}, the entries of Texts, and "group"."""

    def __init__(self, clips: CaptionedClips, vectors: Vectors):
        self.clips, self.vectors = clips, vectors

    def __len__(self) -> int:
        return len(self.clips)

    def get(self, index: int, rng: np.random.Generator) -> Sample:
        """A clip with its caption and augmentation chosen by `rng`."""
        if self.vectors.audio is None:
            return with_text_vector(self.clips.get(index, rng), self.vectors)
        clip = self.clips.clips[index]
        words = self.clips.words(str(rng.choice(clip.captions)), clip.concept)
        sample = {"audio_vector": self.vectors.audio[clip.id]} | words
        return with_text_vector(sample, self.vectors)

    def describe(self, index: int) -> str:
        """The file of a clip."""
        return self.clips.describe(index)


def with_text_vector(sample: Sample, vectors: Vectors) -> Sample:
    """The sample with "text_vector" in place of tokens, where text vectors are known."""
    if vectors.text is None:
        return sample
    rest = {n: a for n, a in sample.items() if n not in ("input_ids", "attention_mask")}
    return rest | {"text_vector": vectors.text[sample["input_ids"].tobytes()]}
