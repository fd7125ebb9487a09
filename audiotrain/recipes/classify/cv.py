"""Cross-validation of a clip classifier: each clip predicted once, by a model not trained on it.

A fold is a run of its own, whose config.yaml starts it again; an interrupted one is resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiotrain.datasets.classes import FOLD
from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification_report import NAMES, ClassificationReport
from audiotrain.recipes.classify.recipe import ClassifyRecipe
from audiotrain.recipes.classify.settings import CrossValidateSettings, TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common import split
from audiotrain.recipes.common.crossval import fold_settings, train_folds
from audiotrain.train.crossval import CrossValidation, OutOfFold, folds_of
from audiotrain.train.distributed import ranks as distributed


def cross_validate(settings: CrossValidateSettings) -> ClassificationReport | None:
    """Scores of all clips out of fold, on rank 0; the folder gets them with the mean and deviation
    over the folds. ValueError for fewer groups than folds, and when the folder holds the folds of
    other data."""
    ranks = distributed.join()
    folder = runs.open_run_on_all_ranks(settings, "classify-cv")
    log = split.problem_log(folder, brief=True)
    recipe = ClassifyRecipe(settings)
    with ranks.rank0_output_only():
        corpus = ranks.rank0_first(lambda: recipe.discover(log))
        make_folds(settings, corpus.items)  # refused before features are extracted
        loaded = recipe.load([("train", clip) for clip in corpus.items])
        clips = [clip for clip, _ in split.keep_readable(loaded, "clips", log, settings.strict)]
        folds, labels = make_folds(settings, clips)
        if has_folds(clips):
            names = [clips[rows[0]].columns[FOLD] for rows in folds]
            unused = "" if len(names) == settings.folds else ", so --folds does not apply"
            print(f"\n{len(names)} folds as the data name them: {', '.join(names)}{unused}")
    ids = [clip.id for clip in clips]
    cv = CrossValidation(folder, ids, folds, OutOfFold, labels)
    corpus = replace(corpus, items=clips)

    def train_fold(k: int, run: Path) -> None:
        fold = fold_settings(settings, TrainSettings, run, folds_of=folder, test_fold=str(k))
        scores = runs.train(ClassifyRecipe(fold, corpus), folder)
        if scores is not None:
            row = {name: index for index, name in enumerate(scores.ids)}
            order = [row[ids[index]] for index in folds[k]]
            predicted = {"probabilities": scores.scores, "targets": scores.targets}
            cv.store.save(k, {name: array[order] for name, array in predicted.items()})

    def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: metrics[name] for name in NAMES if name in metrics}

    summary = train_folds(settings, cv, train_fold, numbers)
    if ranks.rank > 0:
        return None
    probabilities = cv.store.load()["probabilities"]
    scores = recipe.task.report(clips, probabilities)
    scores.write(folder)
    cv.write(summary, out_of_fold=scores.as_dict())
    print(f"\n{summary.table()}\n\nall {len(ids)} clips out of fold:\n{scores.table()}")
    print(f"\n{folder}")
    return scores


def has_folds(clips: Sequence[Clip]) -> bool:
    """Whether the data name the fold of every clip."""
    return all(clip.columns.get(FOLD) for clip in clips)


def make_folds(
    settings: CrossValidateSettings, clips: Sequence[Clip]
) -> tuple[list[np.ndarray], list[str] | None]:
    """The rows that each fold is tested on, and the clips' labels where each has one. ValueError
    when there are too few clips for the folds."""
    is_multilabel = any(len(clip.labels) > 1 for clip in clips)
    labels = None if is_multilabel else ["|".join(clip.labels) for clip in clips]
    column = FOLD if has_folds(clips) else None
    return folds_of(clips, settings.folds, column, labels, settings.seed), labels
