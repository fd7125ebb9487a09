"""Clips as what the training module takes: inputs of the towers, or what frozen towers gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip, meaning
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.clap.dataset import CaptionedClips, ClipAugmentation
from audiotrain.train.data.collate import default_collate
from audiotrain.train.data.loader import DataLoader, Dataset

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


@dataclass(frozen=True)
class Captions:
    """All captions of clips, one after the other: texts, the place of each one's clip, and its
    meaning, equal where captions fit the same clips."""

    texts: list[str]
    clips: list[int]
    meanings: list[str]

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> "Captions":
        """Those of clips in their order."""
        rows = [(text, place) for place, clip in enumerate(clips) for text in clip.captions]
        meanings = [meaning(text, clips[place].concept) for text, place in rows]
        return cls([text for text, _ in rows], [place for _, place in rows], meanings)

    @property
    def first(self) -> list[int]:
        """The place of each clip's first caption."""
        starts: dict[int, int] = {}
        for place, clip in enumerate(self.clips):
            starts.setdefault(clip, place)
        return list(starts.values())
