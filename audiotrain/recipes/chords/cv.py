"""Cross-validation of the chord recipe: posteriors of every song by a model that never heard it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.items import Corpus
from audiotrain.datasets.summary import tell_left_out
from audiotrain.recipes.chords import scoring
from audiotrain.recipes.chords.posteriors import Posteriors
from audiotrain.recipes.chords.recipe import ChordRecipe, Songs, with_pretrained
from audiotrain.recipes.chords.settings import CvSettings, TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common import split
from audiotrain.recipes.common.crossval import (
    fold_settings,
    print_missing_labels,
    train_folds,
    write_summary,
)
from audiotrain.train import crossval
from audiotrain.train.distributed import ranks as distributed


class Material(NamedTuple):
    """Songs by name, the group of each, and one chord of each where all are clips of one; composed
    songs that all folds train on."""

    songs: dict[str, list]
    groups: list[str]
    labels: list[str] | None
    composed: Songs


def cross_validate(settings: CvSettings) -> dict:
    """Train and test on each fold that is not done yet; what metrics.json says."""
    begun, ranks = time.monotonic(), distributed.join()
    settings = with_pretrained(settings)
    folder = runs.open_run_on_all_ranks(settings, "chords-cv")
    recipe = ChordRecipe(settings)
    with ranks.hush():
        material = gather(recipe, split.problems_file(folder))
    folds = crossval.make_folds(material.groups, settings.folds, material.labels, settings.seed)
    print_missing_labels(folds, material.labels)
    splits = [split_of(settings, material, folds, k) for k in range(len(folds))]

    def train_fold(k: int, run: Path) -> None:
        fold = fold_settings(settings, TrainSettings, run, split=run / split.SPLIT)
        ranks.from_first(lambda: split.write_split(fold.split, splits[k]))
        parts = split.pick(material.songs, splits[k], fold.split, recipe.unit)
        parts["train"] += material.composed
        posteriors = Posteriors(folder, k)
        fold_recipe = ChordRecipe(fold, recipe.library, recipe.items, posteriors)
        runs.train_on(fold_recipe, parts, run, folder)
        if ranks.rank == 0:
            posteriors.finish()

    tested = [parts["test"] for parts in splits]
    is_done = Posteriors.is_done
    summary = train_folds(
        settings, folder, tested, lambda k: is_done(folder, k), train_fold, scoring.numbers
    )
    write_summary(folder, summary)
    if ranks.rank == 0:
        print(f"\n{len(material.songs)} songs, each tested once, in {len(folds)} folds:")
        print(table(summary))
        print(f"\n{folder}: {time.monotonic() - begun:.0f} s in all")
    return summary


def gather(recipe: ChordRecipe, listed: Path | None = None) -> Material:
    """All songs of the folder, or composed ones; every problem goes into the file `listed`."""
    settings, composed = recipe.settings, recipe.compose()
    if settings.data is None:
        songs = {renderings[0].name: renderings for renderings in composed}
        return Material(songs, list(songs), None, [])
    corpus: Corpus = distributed.join().first_goes_first(lambda: recipe.discover(listed))
    items = corpus.items
    if settings.songs is not None and settings.songs < len(items):
        items = [items[n * len(items) // settings.songs] for n in range(settings.songs)]
    loaded, problems = split.readable(recipe.load([("train", item) for item in items]))
    tell_left_out(problems, len(items), recipe.unit, listed)
    if not loaded:
        raise ValueError(f"none of {len(items)} songs can be read, such as {problems[0]}")
    songs = {renderings[0].name: renderings for renderings in loaded}
    readable = [recipe.items[name] for name in songs]
    labels = [item.clip_label for item in readable if item.clip_label is not None]
    groups = [item.group or item.id for item in readable]
    return Material(songs, groups, labels if len(labels) == len(songs) else None, composed)


def split_of(
    settings: CvSettings, material: Material, folds: Sequence[np.ndarray], k: int
) -> dict[str, list[str]]:
    """Names of songs by part: the fold is tested on; `settings.valid` of all songs, of other
    groups, is validated on. ValueError when one group alone is left to train on."""
    rest = np.setdiff1d(np.arange(len(material.groups)), folds[k])
    groups = [material.groups[row] for row in rest]
    if len(set(groups)) < 2:
        raise ValueError(
            f"fold {k}: {len(set(groups))} group of songs left to train on, expected 2 or more, "
            f"one to validate on; there are {len(set(material.groups))} in all"
        )
    pieces = max(2, round(len(rest) / (settings.valid * len(material.groups))))
    pieces = min(pieces, len(set(groups)))
    valid = rest[crossval.make_folds(groups, pieces, seed=settings.seed)[0]]
    rows = {"train": np.setdiff1d(rest, valid), "valid": valid, "test": folds[k]}
    names = list(material.songs)
    return {part: [names[row] for row in chosen] for part, chosen in rows.items()}


def table(summary: dict) -> str:
    """The scores that recipes show, as text."""
    shown = [
        *scoring.SHOWN, *(f"argmax_{name}" for name in ("majmin", "mirex", "seg")), "chord_acc",
    ]  # fmt: skip
    return crossval.summary_table(
        summary | {part: {n: summary[part][n] for n in shown} for part in ("mean", "deviation")}
    )
