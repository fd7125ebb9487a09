"""Training of CLAP as a recipe: its clips, its start, its module and its scores."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.captions import discovery
from audiotrain.datasets.items import Clip, Corpus, meaning
from audiotrain.datasets.summary import ProblemLog
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.clap.dataset import Library, Vectors, collate, read_through
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.frozen_towers import frozen_vectors
from audiotrain.recipes.clap.pretrained import (
    Start,
    make_module,
    take_statistics,
    withdraw,
    write_best,
)
from audiotrain.recipes.clap.scoring import Scores, score_clips
from audiotrain.recipes.clap.settings import TrainSettings
from audiotrain.recipes.clap.training import MONITOR, CLAPTraining, Retrieval
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common.recipe import Experiment, Recipe
from audiotrain.recipes.common.split import Incomplete
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import of_total

STEPS = 600  # without data
STATISTICS_CLIPS = 200  # whose log-mel gives the statistics of the input
WARN_NO_RETRIEVAL = (
    "the validation clips all mean the same, so retrieval does not distinguish checkpoints: the "
    "one of the lowest loss, or else the last, is kept, and patience does not stop the run; "
    "--valid takes more"
)
Parts = Mapping[str, list[Clip]]


class ClapRecipe(Recipe[TrainSettings]):
    """A run of CLAP on the clips of a folder, or on composed scenes."""

    name = "clap"
    pictures = "recall.png"
    start: Start
    module: CLAPTraining
    library: Library

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.required = {"train": 2, "valid": 1, "test": 1}

    def discover(self, log: ProblemLog) -> Corpus[Clip]:
        """Clips with captions of two meanings or more, after printing what they are."""
        settings = self.settings
        if settings.pretrained is not None:
            Start.pretrained(settings.pretrained)  # refused before the data are looked at
        if settings.data is None:
            corpus = compose(settings.composed_clips, settings.seed)
        else:
            corpus = discovery.discover(settings.data, settings.templates, settings.group)
            corpus = captions_corpus.check(corpus, settings.strict)
        print(captions_corpus.report(corpus, log), flush=True)
        refuse_one_meaning(corpus.items, corpus.folder)
        return corpus

    def begin(self, parts: dict[str, list[Clip]], run: Path) -> None:
        """Add composed scenes; set the run's start, its tokenizer, front end and module."""
        settings, ranks = self.settings, distributed.join()
        if settings.data is not None and settings.composed_clips:
            parts["train"] += compose(settings.composed_clips, settings.seed).items
        texts = [text for clip in parts["train"] for text in clip.captions]
        self.start = ranks.rank0_first(lambda: Start.of(settings, texts, run))
        self.module = make_module(settings, self.start)
        warn_truncated(self.start.tokenizer, [clip for part in parts.values() for clip in part])
        cache = settings.cache.expanduser()
        self.library = Library(
            ClapFeatures(self.start.features),
            self.start.tokenizer,
            FeatureCache(cache / "mels", np.float16),
            FeatureCache(cache / "vectors"),
            settings.workers,
        )

    def load(self, items: Sequence[tuple[str, Clip]]) -> list[Clip | str | Incomplete]:
        """The clips that can be decoded to their end, or why they can't."""
        clips = [clip for _, clip in items]
        samples, cache = self.library.pairs(clips), self.settings.cache.expanduser()
        return read_through(samples, cache, distributed.join())

    def experiment(self, parts: Parts, run: Path) -> Experiment:
        """The module on pairs of clips and captions; validation by retrieval."""
        settings, library, ranks = self.settings, self.library, distributed.join()
        embedded_at_once = settings.micro_batch or min(settings.batch_size, 32)
        if self.start.folder is None:
            sounds = library.sounds(parts["train"][:STATISTICS_CLIPS])
            mels = [sounds[number]["mel"] for number in range(len(sounds))]
            take_statistics(self.module.clap, mels)
        vectors = Vectors()
        if settings.caches_towers:
            clips = [clip for part in parts.values() for clip in part]
            vectors = frozen_vectors(self.module, library, clips, embedded_at_once, ranks)
        pairs = library.pairs(parts["train"], settings.augmentation, vectors)
        batch = runs.batch_size(settings, pairs)
        if len(pairs) < max(2, ranks.size):
            raise UserError(
                f"{len(pairs)} clips to train on, expected one or more for each process"
            )
        if batch < settings.batch_size:
            print(f"batches of {batch}: there are {len(pairs)} clips to train on", flush=True)
        retrieval = Retrieval(
            parts["valid"], library, vectors, batch * ranks.size, embedded_at_once
        )
        if not retrieval.is_informative:
            print(WARN_NO_RETRIEVAL, file=sys.stderr)
        return Experiment(
            self.module,
            pairs,
            retrieval.loader,
            steps=STEPS if settings.data is None else None,
            monitor=MONITOR,
            mode="max",
            tie="val_loss",
            can_stop_early=retrieval.is_informative,
            callbacks=[retrieval, runs.AtTrainStart(lambda: withdraw(run))],
            collate=collate,
        )

    def score(self, parts: Parts, run: Path) -> Scores:
        """Write the best model's folder, and its scores on the test clips."""
        settings = self.settings
        embedder = Embedder.from_folder(write_best(self.module, self.start, run))
        scores = score_clips(
            embedder, parts["test"], templates=settings.templates, linear_probe=False
        )
        scores.write(run)
        print(
            f"\nunseen: {scores.table()}\n\ncaption -> nearest clip\n{scores.retrieval.examples()}"
        )
        return scores


def warn_truncated(tokenizer: Tokenizer, clips: Sequence[Clip]) -> None:
    """Print how many captions are longer than the tokenizer's tokens."""
    texts = [text for clip in clips for text in clip.captions]
    if longer := tokenizer.longer(texts):
        tokens = f"more than {tokenizer.length} tokens, of which the end is not read"
        captions = of_total(len(longer), len(texts), "captions")
        print(f"{captions} {'has' if len(texts) == 1 else 'have'} {tokens}: {longer[0]:.40}…")


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
        raise UserError(
            f"{source}: {count} ({example!r:.60}), expected captions of two meanings or more"
        )
