"""Cross-validation of a clip classifier: every clip predicted once, by a model that never heard it.

A fold is a run of its own, whose config.yaml starts it again; an interrupted one is continued.
"""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from audiotrain.datasets.summary import PROBLEMS
from audiotrain.recipes.classify.clips import find, folds_of, task_of, tell_unreadable
from audiotrain.recipes.classify.features import ClipFeatures
from audiotrain.recipes.classify.scoring import Scores
from audiotrain.recipes.classify.settings import CrossValidateSettings, TrainSettings
from audiotrain.recipes.common.run import open_run, save_settings
from audiotrain.train.crossval import OutOfFold, summarize, summary_table
from audiotrain.utils.files import write_json


def cross_validate(settings: CrossValidateSettings, train: Callable) -> Scores:
    """Scores of all clips out of fold, written into the folder with mean and deviation over the
    folds. `train` is the recipe's. ValueError for fewer groups than folds, and when the folder
    holds the folds of other data."""
    if settings.test_fold is not None:
        raise ValueError(f"test_fold={settings.test_fold}: expected none, each fold is tested")
    folder = open_run(settings, "classify-cv")
    corpus = find(settings, folder / PROBLEMS)
    task = task_of(settings, corpus)
    features = ClipFeatures(settings.hearing, settings.cache.expanduser(), settings.workers)
    heard = features.extract(corpus.items)
    tell_unreadable(heard.problems, len(corpus.items), settings.strict, folder / PROBLEMS)
    ids = [clip.id for clip in heard.clips]
    folds = folds_of(settings, heard.clips)
    store = OutOfFold(folder, ids, folds)
    save_settings(settings, folder)
    corpus = replace(corpus, items=heard.clips)
    for number, rows in enumerate(folds):
        if store.done(number):
            continue
        print(f"\nfold {number}, {len(rows)} clips", flush=True)
        own = fold_settings(settings, folder, number)
        scores = train(own, corpus, folder)
        found = dict(zip(scores.ids, scores.probabilities, strict=True))
        tested = np.stack([found[ids[row]] for row in rows])
        known = task.targets([heard.clips[row] for row in rows])
        store.save(number, {"probabilities": tested, "targets": known})
    kept = [json.loads((folder / f"fold-{k}" / "metrics.json").read_text("utf-8"))
            for k in range(len(folds))]  # fmt: skip
    scores = Scores(task, ids, task.targets(heard.clips), store.load()["probabilities"])
    scores.write(folder)
    summary = summarize([{name: row[name] for name in scores.numbers} for row in kept])
    write_json(folder / "metrics.json", summary | {"out_of_fold": scores.as_dict()})
    print(f"\n{summary_table(summary)}\n\nall {len(ids)} clips out of fold:\n{scores.table()}")
    print(f"\n{folder}")
    return scores


def fold_settings(settings: CrossValidateSettings, folder: Path, number: int) -> TrainSettings:
    """Settings of a fold's run, which is continued where it was begun."""
    output = folder / f"fold-{number}"
    chosen = {field.name: getattr(settings, field.name) for field in fields(TrainSettings)}
    chosen |= {"output": output, "folds_of": folder, "test_fold": str(number)}
    return TrainSettings(**chosen | {"resume": output.exists()})
