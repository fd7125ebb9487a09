"""Outputs of frozen towers, computed once for each clip and caption and kept on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import mlx.nn as nn
import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.models.clap.weights import values_digest
from audiotrain.recipes.clap.dataset import Library, Vectors
from audiotrain.recipes.clap.training import CLAPTraining
from audiotrain.recipes.common.preparation import fill_cache
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.utils.progress import progress


def frozen_vectors(
    module: CLAPTraining,
    library: Library,
    clips: Sequence[Clip],
    batch_size: int,
    ranks: SingleProcess,
) -> Vectors:
    """The outputs of each frozen tower of the module for the clips and all their captions, computed
    by all `ranks`."""
    audio = text = None
    if module.audio_is_frozen:
        audio = audio_vectors(module.clap.audio_encoder, library, clips, batch_size, ranks)
    if module.text_is_frozen:
        captions = [caption for clip in clips for caption in clip.captions]
        tower = module.clap.text_encoder
        text = ranks.rank0_first(lambda: text_vectors(tower, library, captions, batch_size))
    return Vectors(audio, text)


def audio_vectors(
    tower: nn.Module, library: Library, clips: Sequence[Clip], batch_size: int, ranks: SingleProcess
) -> dict[str, np.ndarray]:
    """The vector (hidden_size,) of each clip's centre, by its id."""
    settings = {"tower": digest(tower), "features": library.features.settings.key}
    clips = list({clip.id: clip for clip in clips}.values())

    def key(clip: Clip) -> tuple[Path | str, dict]:
        source, span = clip.cache_key()
        return source, settings | span

    def compute(clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        loader = library.loader(library.sounds(clips), batch_size)
        for number, batch in enumerate(progress(loader, "audio tower")):
            vectors = np.array(tower(batch["mel"], batch["is_longer"]))
            yield from enumerate(vectors, number * batch_size)

    vectors = fill_cache(library.vectors, clips, key, compute, ranks)
    return {clip.id: np.array(vector) for clip, vector in zip(clips, vectors, strict=True)}


def text_vectors(
    tower: nn.Module, library: Library, captions: Sequence[str], batch_size: int
) -> dict[bytes, np.ndarray]:
    """The vector (hidden_size,) of each caption, by the bytes of its token ids; the cache keeps all
    as one entry."""
    captions = sorted(set(captions))
    ids, masks = library.tokenizer(captions)

    def compute() -> np.ndarray:
        loader = progress(library.loader(library.texts(captions), batch_size), "text tower")
        return np.concatenate(
            [np.array(tower(batch["input_ids"], batch["attention_mask"])) for batch in loader]
        )

    source = ids.tobytes() + masks.tobytes()
    vectors = np.array(library.vectors.get(source, {"tower": digest(tower)}, compute))
    return {row.tobytes(): vector for row, vector in zip(ids, vectors, strict=True)}


def digest(tower: nn.Module) -> str:
    """Hash of a tower: its sizes, its weights and its statistics."""
    return values_digest(tower, repr(asdict(tower.config)), size=20)
