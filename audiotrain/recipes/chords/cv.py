"""Cross-validation of the chord recipe; it keeps the posteriors of every song out of fold."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import chord_report
from audiotrain.recipes.chords.decoding import heads_of
from audiotrain.recipes.chords.recipe import ChordRecipe, Songs, with_pretrained
from audiotrain.recipes.chords.settings import CvSettings, TrainSettings
from audiotrain.recipes.chords.songs import Song
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common import split
from audiotrain.recipes.common.crossval import fold_settings, train_folds
from audiotrain.train.crossval import (
    CrossValidation,
    RaggedOutOfFold,
    make_folds,
    read_ragged,
    refuse_too_many_folds,
)
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError

SHOWN = (*chord_report.SHOWN, "argmax_majmin", "argmax_mirex", "argmax_seg", "chord_acc")


def cross_validate(settings: CvSettings) -> dict:
    """Train and test on each fold that is not done yet; the content of metrics.json."""
    begun, ranks = time.monotonic(), distributed.join()
    settings = with_pretrained(settings)
    folder = runs.open_run_on_all_ranks(settings, "chords-cv")
    recipe = ChordRecipe(settings)
    with ranks.rank0_output_only():
        composed = recipe.compose()
        gathered = composed
        if settings.data is not None:
            gathered = gather(recipe, settings.folds, split.problem_log(folder, brief=True))
    songs = {renderings[0].name: renderings for renderings in gathered}
    names = list(songs)
    items = [recipe.items[name] for name in names if name in recipe.items]  # none of composed songs
    groups = [item.group or item.id for item in items] or names
    clip_labels = [item.clip_label for item in items if item.clip_label is not None]
    labels = clip_labels if len(clip_labels) == len(songs) else None
    folds = make_folds(groups, settings.folds, labels, settings.seed)
    cv = CrossValidation(folder, names, folds, RaggedOutOfFold, labels)
    splits = [split_of(settings, groups, rows, k) for k, rows in enumerate(folds)]

    def train_fold(k: int, run: Path) -> None:
        saved = run / split.SPLIT
        fold = fold_settings(settings, TrainSettings, run, split=saved)
        ids = {part: [names[row] for row in rows] for part, rows in splits[k].items()}
        ranks.broadcast_from_rank0(lambda: split.write_split(saved, ids))
        parts = split.pick(songs, ids, saved, recipe.unit)
        parts["train"] += composed if settings.data is not None else []

        def save(song: Song, posteriors: np.ndarray) -> None:
            heads = heads_of(posteriors).astype(np.float16)
            cv.store.save(k, song.name, {"log_probabilities": heads, "classes": song.classes})

        runs.train_on(ChordRecipe(fold, recipe.library, recipe.items, save), parts, run, folder)
        if ranks.rank == 0:
            cv.store.finish(k)

    summary = train_folds(settings, cv, train_fold, chord_report.numbers)
    cv.write(summary)
    if ranks.rank == 0:
        print(f"\n{len(names)} songs, each tested once, in {len(folds)} folds:")
        print(summary.table(SHOWN))
        print(f"\n{folder}: {time.monotonic() - begun:.0f} s in all")
    return summary.as_dict()


def read_posteriors(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(song, log-probabilities (frames, 56), classes (frames, 3)) of each song of a finished
    cross-validation, fold by fold. ValueError when one is missing or damaged."""
    for name, arrays in read_ragged(folder):
        yield name, arrays["log_probabilities"].astype(np.float32), arrays["classes"]


def gather(recipe: ChordRecipe, folds: int, log: ProblemLog) -> Songs:
    """The songs of the folder; `log` gets every problem. ValueError, before audio is read, when
    there are fewer groups of songs than folds."""
    items = distributed.join().rank0_first(lambda: recipe.discover(log)).items
    count = recipe.settings.songs
    if count is not None and count < len(items):
        items = [items[n * len(items) // count] for n in range(count)]
    refuse_too_many_folds([item.group or item.id for item in items], folds)
    loaded = recipe.load([("train", item) for item in items])
    return split.keep_readable(loaded, recipe.unit, log, recipe.strict)


def split_of(
    settings: CvSettings, groups: list[str], tested: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """Rows of songs by part, where fold `k` is `tested` on: `settings.valid` of all songs, of
    other groups, is validated on. ValueError when one group alone is left to train on."""
    rest = np.setdiff1d(np.arange(len(groups)), tested)
    rest_groups = [groups[row] for row in rest]
    count = len(set(rest_groups))
    if count < 2:
        raise UserError(
            f"fold {k}: {count} group of songs left to train on, expected 2 or more, "
            f"one to validate on; there are {len(set(groups))} in all"
        )
    pieces = max(2, round(len(rest) / (settings.valid * len(groups))))
    valid = rest[make_folds(rest_groups, min(pieces, count), seed=settings.seed)[0]]
    return {"train": np.setdiff1d(rest, valid), "valid": valid, "test": tested}
