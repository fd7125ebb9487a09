"""Captioned clips as training samples: cropped, mixed, tokenised, in data workers.

A sample is {"mel" (channels, frames, mels) float32 or "waveform" (samples,) float32, "input_ids"
and "attention_mask" (length,) int32, "is_longer" bool, "group" int64}: equal groups in a batch
mean the same, so they are positives of each other. Where clips are blended a sample also has
"second_group" int64, what the other clip means, and "share" float32, how much of it is the first.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip, meaning
from audiotrain.datasets.synthesis import sound_scenes
from audiotrain.features import audio as audio_files
from audiotrain.features import augment
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.train.data.collate import default_collate
from audiotrain.train.data.loader import DataLoader, Dataset

OUTPUTS = ("mel", "waveform")
KEYS = (
    "mel", "waveform", "input_ids", "attention_mask", "is_longer", "group", "second_group", "share",
)  # fmt: skip
BLENDED = 8.0  # dB that the one of two blended clips is louder at most
SYNTHESIS = 1  # raise it when the same scene sounds otherwise


@dataclass(frozen=True)
class ClipAugmentation:
    """What training does to clips besides drawing a crop and a caption; all off by default.

    `gain` up to so many dB louder or softer; `mix` and `join` the shares of samples that are two
    clips at once ("... and ...") and two clips composed ("... then ...", "... while ...");
    `blend` the share of samples that are two clips whose captions both fit, by their loudness.
    `tilt` dB of a random EQ, `shift` mels up or down, `roll` the share that is turned around in
    time (composed clips never: their captions tell an order); SpecAugment's masks by number and
    largest width, in frames and in mels.
    """

    gain: float = 0.0
    mix: float = 0.0
    join: float = 0.0
    blend: float = 0.0
    tilt: float = 0.0
    shift: int = 0
    roll: float = 0.0
    time_masks: int = 0
    time_width: int = 64
    mel_masks: int = 0
    mel_width: int = 8

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name}={value}, expected 0 or more")
        if self.mix + self.join > 1:
            raise ValueError(f"mix={self.mix} and join={self.join}, expected at most 1 together")
        for name in ("blend", "roll"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected 0 to 1")

    @property
    def changes_mels(self) -> bool:
        """Whether anything is done to spectrograms."""
        masks = self.time_masks + self.mel_masks
        return masks + self.blend + self.tilt + self.shift + self.roll > 0


class CaptionedClips(Dataset):
    """Clips as samples; what is random follows from (seed, epoch, index) as the loader gives it.

    With an `augmentation`, be it one that changes nothing, a sample has a random crop and one of
    its captions; without, the centre crop and the first caption, the same at every call. `output`
    "mel" gives the model's input, "waveform" what `features.LogMel` turns into it on the device.
    `cache` keeps decoded audio, `mels` the whole input of clips that are no longer than it; a
    sample into which nothing is mixed then needs no decoding. ValueError for no clips, and for
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

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = self.clips[index]
        return _sample(self.sound(index), self.words(clip.captions[0], clip.concept))

    def sound(self, index: int) -> dict[str, np.ndarray]:
        """ "mel" or "waveform", and "is_longer", of a clip as it is: the centre crop."""
        if self.keeps(index):
            return {"mel": self._kept(index), "is_longer": np.array(False)}
        audio, longer = self._excerpt(self.clips[index], None)
        return self._input(audio, None) | {"is_longer": np.array(longer)}

    def words(self, caption: str, concept: str = "") -> dict[str, np.ndarray]:
        """ "input_ids", "attention_mask" and "group" of a caption."""
        ids, mask = self.tokenizer([caption])
        meant = hashlib.blake2b(meaning(caption, concept).encode(), digest_size=8).digest()
        group = np.array(int.from_bytes(meant, "big") >> 1, np.int64)
        return {"input_ids": ids[0], "attention_mask": mask[0], "group": group}

    def get(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The sample of a clip, augmented by draws of `rng`."""
        if self.augmentation is None:
            return self[index]
        clip, change = self.clips[index], self.augmentation
        kept = self.keeps(index)  # then there is no crop to draw
        audio, longer = (None, False) if kept else self._excerpt(clip, rng)
        caption, concept = str(rng.choice(clip.captions)), clip.concept
        kind, composed = rng.random(), False
        if kind < change.mix + change.join:
            other = self.clips[int(rng.integers(len(self.clips)))]
            second = (self._excerpt(other, rng)[0], str(rng.choice(other.captions)))
            if meaning(second[1], other.concept) != meaning(caption, concept):
                both = self._mixed if kind < change.mix else self._joined
                audio = self._excerpt(clip, rng)[0] if kept else audio
                audio, caption = both((audio, caption), second, rng)
                longer, concept, composed = False, "", kind >= change.mix
        gain = rng.uniform(-change.gain, change.gain)
        if audio is None:
            sound = {"mel": self._louder(self._kept(index), gain)}
        else:
            sound = self._input(audio * np.float32(augment.decibels_to_ratio(gain)), rng)
        words = self.words(caption, concept)
        if change.changes_mels:
            sound["mel"] = self._varied(sound["mel"], rng, in_order=composed)
        if change.blend:
            sound["mel"], second = self._blended(sound["mel"], rng)
            words |= {"second_group": words["group"], "share": np.array(1, np.float32)} | second
        if change.time_masks + change.mel_masks:
            sound["mel"] = self._masked(sound["mel"], rng)
        return _sample(sound | {"is_longer": np.array(longer)}, words)

    def describe(self, index: int) -> str:
        """The file of a sample, or the name of its scene."""
        clip = self.clips[index]
        return clip.id if isinstance(clip.audio, sound_scenes.Scene) else str(clip.audio)

    def _excerpt(self, clip: Clip, rng: np.random.Generator | None) -> tuple[np.ndarray, bool]:
        """Samples of a clip, no more than the input needs, and whether the clip is longer."""
        settings = self.features.settings
        if self.cache is not None or settings.fused or isinstance(clip.audio, sound_scenes.Scene):
            audio = self._decoded(clip)
            longer = len(audio) > settings.samples
            return (
                audio if settings.fused or not longer else self.features.fit(audio, rng)
            ), longer
        spare = clip.seconds - settings.seconds
        if spare <= 0:
            return clip.read(settings.rate), False
        start = spare / 2 if rng is None else float(rng.uniform(0, spare))
        return clip.read(settings.rate, start, settings.seconds), True

    def _decoded(self, clip: Clip) -> np.ndarray:
        rate = self.features.settings.rate
        if self.cache is None:
            return clip.read(rate)
        spec = {"rate": rate, "start": clip.start, "end": clip.end}
        kept = self.cache.get(source_of(clip), spec, lambda: clip.read(rate))
        return np.asarray(kept, np.float32)

    def _mixed(self, first: tuple, second: tuple, rng: np.random.Generator):
        settings = self.features.settings
        audio = sound_scenes.overlay(first[0], second[0], rng, settings.rate, settings.samples)
        return audio, sound_scenes.and_caption(first[1], second[1])

    def _joined(self, first: tuple, second: tuple, rng: np.random.Generator):
        settings = self.features.settings
        found = sound_scenes.compose_clips(
            (first, second), rng, settings.rate, seconds=settings.seconds
        )
        return found.audio, found.caption

    def keeps(self, index: int) -> bool:
        """Whether a clip's input is one for `mels`."""
        if self.mels is None:
            return False
        if index not in self._short:
            longest = self.features.settings.samples
            rate = self.features.settings.rate
            self._short[index] = round(self.clips[index].seconds * rate) <= longest
        return self._short[index]

    def _kept(self, index: int) -> np.ndarray:
        """The input of a clip that `mels` keeps; its channels are equal."""
        clip, settings = self.clips[index], self.features.settings
        spec = {"features": settings.key, "start": clip.start, "end": clip.end}
        if isinstance(clip.audio, sound_scenes.Scene):
            spec["synthesis"] = SYNTHESIS
        mel = self.mels.get(
            source_of(clip),
            spec,
            lambda: self.features(clip.read(settings.rate)[: settings.samples])[0][:1],
        )
        return np.repeat(np.asarray(mel, np.float32), settings.channels, axis=0)

    def _louder(self, mel: np.ndarray, decibels: float) -> np.ndarray:
        floor = 10 * np.log10(self.features.settings.log_mel.floor_power)
        return np.maximum(mel + np.float32(decibels), np.float32(floor))

    def _input(self, audio: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        if self.output == "waveform":
            return {"waveform": self.features.fit(audio, rng)}
        return {"mel": self.features(audio, rng)[0]}

    def _blended(self, mel: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        """A spectrogram, now and then with another clip's added, and what the other means."""
        if rng.random() >= self.augmentation.blend:
            return mel, {}
        index = int(rng.integers(len(self.clips)))
        clip = self.clips[index]
        if self.keeps(index):
            other = self._kept(index)
        else:
            other = self._input(self._excerpt(clip, rng)[0], rng)["mel"]
        other = self._varied(other, rng)
        louder = float(rng.uniform(-BLENDED, BLENDED))
        group = self.words(str(rng.choice(clip.captions)), clip.concept)["group"]
        share = np.array(1 / (1 + 10 ** (-louder / 10)), np.float32)  # of the power
        mel = augment.blend(mel, other - np.float32(louder))
        return mel, {"second_group": group, "share": share}

    def _varied(
        self, mel: np.ndarray, rng: np.random.Generator, in_order: bool = False
    ) -> np.ndarray:
        """Through an EQ, at another pitch, turned around in time unless what is said of it is
        `in_order`: all channels alike."""
        change, seed = self.augmentation, int(rng.integers(2**32))
        turned = rng.random() < change.roll and not in_order
        varied = []
        for channel in mel:
            draws = np.random.default_rng(seed)
            channel = augment.tilt(channel, draws, change.tilt)
            channel = augment.shift(channel, draws, change.shift)
            varied.append(augment.roll(channel, draws) if turned else channel)
        return np.stack(varied)

    def _masked(self, mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same bands of frames and of mels in every channel set to its mean."""
        change, seed = self.augmentation, int(rng.integers(2**32))
        return np.stack([
            augment.mask(
                channel, np.random.default_rng(seed), change.time_masks, change.time_width,
                change.mel_masks, change.mel_width,
            )
            for channel in mel
        ])  # fmt: skip


def _sample(sound: dict, words: dict) -> dict[str, np.ndarray]:
    both = sound | words
    return {name: both[name] for name in KEYS if name in both}


def source_of(clip: Clip) -> Path | str:
    """What a cache knows the clip's audio by."""
    if isinstance(clip.audio, audio_files.TarMember):
        changed = clip.audio.tar.stat().st_mtime_ns
        return f"{clip.audio} {clip.audio.offset} {clip.audio.size} {changed}"
    return repr(clip.audio) if isinstance(clip.audio, sound_scenes.Scene) else Path(clip.audio)


Sample = dict[str, np.ndarray]
TOKEN_STEP = 16  # captions of a batch are padded to a multiple of it


@dataclass(frozen=True)
class Library:
    """What makes samples of clips: front end, tokenizer, caches, threads."""

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
        """The clips as a data set, whose inputs are kept where they are short enough."""
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
    """What frozen towers give, (width,) float32 each, before the projection.

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
    {"mel", "is_longer"} or {"audio_vector"}, what Texts has, and "group"."""

    def __init__(self, clips: CaptionedClips, vectors: Vectors):
        self.clips, self.vectors = clips, vectors

    def __len__(self) -> int:
        return len(self.clips)

    def get(self, index: int, rng: np.random.Generator) -> Sample:
        """A clip with what is random drawn from `rng`."""
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
