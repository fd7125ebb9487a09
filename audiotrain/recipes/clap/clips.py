"""The clips of a run: found or composed, split into train, valid and test, tried out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from audiotrain.datasets import splits
from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.captions import discovery
from audiotrain.datasets.items import Clip, Corpus, meaning
from audiotrain.datasets.summary import list_unreadable, tell_left_out
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features import audio
from audiotrain.features.cache import FeatureCache
from audiotrain.recipes.clap.dataset import CaptionedClips, source_of
from audiotrain.recipes.clap.settings import TrainSettings
from audiotrain.recipes.common.preparation import prepare
from audiotrain.train.distributed import ranks as distributed

Parts = dict[str, list[Clip]]


def find(settings: TrainSettings, listed: Path | None) -> Corpus[Clip]:
    """The clips of the data folder or composed ones, after printing what they are; the file
    `listed` gets every problem."""
    if settings.data is None:
        corpus = compose(settings.composed_clips, settings.seed)
    else:
        corpus = discovery.discover(settings.data, settings.templates, settings.group)
        corpus = captions_corpus.check(corpus, settings.strict)
    print(captions_corpus.report(corpus, listed), flush=True)
    meanings = {meaning(text, clip.concept) for clip in corpus.items for text in clip.captions}
    if len(meanings) < 2:
        count = len(corpus.items)
        what = "1 clip" if count == 1 else f"all captions of {count} clips are equal"
        raise ValueError(
            f"{corpus.folder}: {what} ({corpus.items[0].captions[0]!r:.60}), "
            f"expected some to be told apart"
        )
    return corpus


def compose(number: int, seed: int) -> Corpus[Clip]:
    """Scenes; those of one meaning are a group, so that no part of a split has heard another's."""
    corpus = captions_corpus.composed(number, seed)
    return replace(corpus, items=[replace(clip, group=clip.concept) for clip in corpus.items])


def divide(settings: TrainSettings, corpus: Corpus[Clip], saved: Path) -> Parts:
    """The clips of "train", "valid" and "test", by the split in the file `saved` if there is one;
    rank 0's on all ranks. ValueError when a part is left without clips."""
    shares = (1 - settings.valid - settings.test, settings.valid, settings.test)
    chosen = distributed.join().from_first(
        lambda: {
            part: [clip.id for clip in own]
            for part, own in splits.split(corpus, settings.seed, shares, saved).items()
        }
    )
    clips = {clip.id: clip for clip in corpus.items}
    if missing := sorted({name for own in chosen.values() for name in own} - set(clips)):
        raise ValueError(f"{corpus.folder}: no {missing[0]}, which rank 0 has")
    parts = {part: [clips[name] for name in own] for part, own in chosen.items()}
    for name, own in parts.items():
        needed = 2 if name == "train" else 1
        if len(own) < needed:
            raise ValueError(
                f"{corpus.folder}: the split of {len(clips)} clips leaves {len(own)} for {name}, "
                f"expected at least {needed}"
            )
    if settings.data is not None and settings.composed_clips:
        parts["train"] += compose(settings.composed_clips, settings.seed).items
    return parts


def readable(
    parts: Parts,
    dataset: Callable[[Sequence[Clip]], CaptionedClips],
    settings: TrainSettings,
    listed: Path | None,
) -> Parts:
    """The clips that can be decoded to their end; the inputs of short ones are cached by it.

    The others are counted and named, all of them in the file `listed`. ValueError when a part loses
    all its clips, or any when `strict`.
    """
    kept, problems = {}, []
    samples = dataset([clip for clips in parts.values() for clip in clips])
    lines = iter(read_through(samples, settings.cache.expanduser(), distributed.join()))
    for name, clips in parts.items():
        faults = [next(lines) for _ in clips]
        kept[name] = [clip for clip, fault in zip(clips, faults, strict=True) if not fault]
        broken = [fault for fault in faults if fault]
        problems += broken
        if broken and (settings.strict or len(kept[name]) < (2 if name == "train" else 1)):
            count = f"{len(broken)} of {len(clips)}"
            list_unreadable(problems, listed)
            raise ValueError(f"{count} {name} clips can't be read: {broken[0]}")
    tell_left_out(problems, sum(map(len, parts.values())), "clips", listed)
    return kept


def read_through(samples: CaptionedClips, cache: Path, ranks: distributed.Alone) -> list:
    """For each clip None, or a line that says why it cannot be decoded to its end. The inputs of
    short clips are in the samples' cache then. All cores and all `ranks` share the clips."""
    tried = FeatureCache(cache / "tried")
    return prepare(
        partial(_fault, samples, tried),
        range(len(samples)),
        "reading",
        name=samples.describe,
        caches=[tried] if samples.mels is None else [tried, samples.mels],
        ranks=ranks,
    )


def _fault(samples: CaptionedClips, tried: FeatureCache, place: int) -> str | None:
    """Why a clip cannot be decoded to its end."""
    clip = samples.clips[place]
    try:
        if samples.keeps(place):
            samples.sound(place)
        elif not isinstance(clip.audio, Scene):
            tried.get(source_of(clip), "decodes", lambda: np.array([_decode(clip)]))
    except (audio.AudioError, ValueError) as error:
        return str(error)
    return None


def _decode(clip: Clip) -> float:
    """Seconds of a recording that is read through."""
    rate = audio.info(clip.audio).rate
    return sum(map(len, audio.stream(clip.audio, rate))) / rate
