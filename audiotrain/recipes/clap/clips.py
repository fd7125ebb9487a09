"""The clips of a run: composed scenes, and which clips can be decoded to their end."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.items import Clip, Corpus, meaning
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features import audio
from audiotrain.features.cache import FeatureCache
from audiotrain.recipes.clap.dataset import CaptionedClips
from audiotrain.recipes.common.preparation import prepare
from audiotrain.train.distributed import ranks as distributed


def compose(number: int, seed: int) -> Corpus[Clip]:
    """Scenes; those of one meaning are a group, so that they are in one part of a split."""
    corpus = captions_corpus.composed(number, seed)
    return replace(corpus, items=[replace(clip, group=clip.concept) for clip in corpus.items])


def refuse_one_meaning(clips: Sequence[Clip], source: Path) -> None:
    """ValueError when all captions mean the same."""
    meanings = {meaning(text, clip.concept) for clip in clips for text in clip.captions}
    if len(meanings) < 2:
        count = "1 clip" if len(clips) == 1 else f"{len(clips)} clips that mean the same"
        example = next(iter(meanings), "")
        raise ValueError(
            f"{source}: {count} ({example!r:.60}), expected captions of two meanings or more"
        )


def read_through(
    samples: CaptionedClips, cache: Path, ranks: distributed.SingleProcess
) -> list[str | None]:
    """For each clip None, or a line with the reason that it cannot be decoded to its end. The
    samples' cache has the inputs of short clips then. All cores and all `ranks` share the clips."""
    tried = FeatureCache(cache / "tried")
    return prepare(
        partial(_problem, samples, tried),
        range(len(samples)),
        "reading",
        name=samples.describe,
        caches=[tried] if samples.mels is None else [tried, samples.mels],
        ranks=ranks,
    )


def _problem(samples: CaptionedClips, tried: FeatureCache, index: int) -> str | None:
    """Why a clip cannot be decoded to its end."""
    clip = samples.clips[index]
    try:
        if samples.keeps(index):
            samples.sound(index)
        elif not isinstance(clip.audio, Scene):
            recording = clip.audio
            tried.get(clip.cache_key()[0], "decodes", lambda: np.array([_decode(recording)]))
    except (audio.AudioError, ValueError) as error:
        return str(error)
    return None


def _decode(recording: audio.AudioPath) -> float:
    """Seconds of a recording that is read through."""
    rate = audio.info(recording).rate
    return sum(len(block) for block in audio.stream(recording, rate)) / rate
