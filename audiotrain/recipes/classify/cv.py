"""Cross-validation of a clip classifier: each clip predicted once, by a model not trained on it.

A fold is a run of its own, whose config.yaml starts it again; an interrupted one is continued.
"""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip
from audiotrain.datasets.summary import PROBLEMS
from audiotrain.recipes.classify.recipe import ClassifyRecipe, find, report_unreadable, task_of
from audiotrain.recipes.classify.scoring import Scores
from audiotrain.recipes.classify.settings import CrossValidateSettings, TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common.split import readable
from audiotrain.train.crossval import (
    OutOfFold,
    make_folds,
    missing_labels,
    summarize,
    summary_table,
)
from audiotrain.utils.files import write_json


def cross_validate(settings: CrossValidateSettings) -> Scores:
    """Scores of all clips out of fold, written into the folder with mean and deviation over the
    folds. ValueError for fewer groups than folds, and when the folder holds the folds of other
    data."""
    if settings.test_fold is not None:
        raise ValueError(f"test_fold={settings.test_fold}: expected none, each fold is tested")
    folder = runs.open_run(settings, "classify-cv")
    corpus = find(settings, folder / PROBLEMS)
    task = task_of(settings, corpus)
    features = ClassifyRecipe(settings).features
    extracted, problems = readable(features.extract(corpus.items))
    report_unreadable(problems, len(corpus.items), settings.strict, folder / PROBLEMS)
    clips = [clip for clip, _ in extracted]
    ids = [clip.id for clip in clips]
    folds = folds_of(settings, clips)
    store = OutOfFold(folder, ids, folds)
    runs.save_settings(settings, folder)
    corpus = replace(corpus, items=clips)
    for number, rows in enumerate(folds):
        if store.done(number):
            continue
        print(f"\nfold {number}, {len(rows)} clips", flush=True)
        fold = ClassifyRecipe(fold_settings(settings, folder, number), corpus)
        scores = runs.train(fold, folder)
        row = {name: index for index, name in enumerate(scores.ids)}
        order = [row[ids[index]] for index in rows]
        store.save(
            number,
            {"probabilities": scores.probabilities[order], "targets": scores.targets[order]},
        )
    metrics = [
        json.loads((folder / f"fold-{number}" / "metrics.json").read_text("utf-8"))
        for number in range(len(folds))
    ]
    scores = Scores(task, ids, task.targets(clips), store.load()["probabilities"])
    scores.write(folder)
    summary = summarize([{name: row[name] for name in scores.numbers} for row in metrics])
    write_json(folder / "metrics.json", summary | {"out_of_fold": scores.as_dict()})
    print(f"\n{summary_table(summary)}\n\nall {len(ids)} clips out of fold:\n{scores.table()}")
    print(f"\n{folder}")
    return scores


def fold_settings(settings: CrossValidateSettings, folder: Path, number: int) -> TrainSettings:
    """Settings of a fold's run, which is continued where it was begun."""
    output = folder / f"fold-{number}"
    values = {field.name: getattr(settings, field.name) for field in fields(TrainSettings)}
    values |= {"output": output, "folds_of": folder, "test_fold": str(number)}
    return TrainSettings(**values | {"resume": output.exists()})


def folds_of(settings: CrossValidateSettings, clips: Sequence[Clip]) -> list[np.ndarray]:
    """Rows of clips that each fold is tested on: as the column `fold` says where all clips have
    one, else by group and class. What a fold lacks is printed."""
    named = [clip.columns.get(labelled.FOLD, "") for clip in clips]
    labels = ["|".join(clip.labels) for clip in clips]
    is_multilabel = any(len(clip.labels) > 1 for clip in clips)
    if all(named):
        names = sorted(set(named), key=lambda name: (len(name), name))
        if len(names) < 2:
            raise ValueError(f"all {len(clips)} clips are of fold {names[0]}, expected two or more")
        folds = [np.flatnonzero(np.array(named) == name) for name in names]
        print(f"\nfolds as the data name them: {', '.join(names)}")
    else:
        groups = [clip.group or clip.id for clip in clips]
        folds = make_folds(groups, settings.folds, None if is_multilabel else labels, settings.seed)
    if not is_multilabel:
        for line in missing_labels(folds, labels):
            print(f"  {line}")
    return folds
