"""Cross-validation of a recipe: a run for each fold, which its items are kept out of.

FOLDER/folds.json      ids that each fold is tested on
FOLDER/fold-K/         the run that was not trained on them
FOLDER/oof/            predictions for them, by that run
FOLDER/metrics.json    mean and deviation of all scores, and the folds'
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from audiotrain.recipes.common.run import save_settings
from audiotrain.train import crossval
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.files import write_json

Settings = TypeVar("Settings")


def fold_settings(settings, kind: type[Settings], run: Path, **changes) -> Settings:
    """Settings of a fold's run, of the `kind` that training takes; a fold that was begun is
    resumed."""
    values = {field.name: getattr(settings, field.name) for field in fields(kind)}
    return kind(**values | {"output": run, "resume": run.exists()} | changes)


def print_missing_labels(folds: Sequence[np.ndarray], labels: Sequence | None) -> None:
    """Print which labels a fold lacks; nothing where items have none."""
    if labels is not None and distributed.join().rank == 0:
        for line in crossval.missing_labels(folds, labels):
            print(line)


def train_folds(
    settings,
    folder: Path,
    folds: Sequence[Sequence[str]],
    is_done: Callable[[int], bool],
    train_fold: Callable[[int, Path], object],
    numbers: Callable[[dict], Mapping[str, float]],
) -> dict:
    """Train and test on each fold (ids) that is not done yet; the summary of their scores.

    `train_fold(k, run)` fills a run folder, whose metrics.json `numbers` takes scores from, and
    saves what `is_done(k)` looks for. ValueError when the folder holds folds of other data.
    """
    ranks = distributed.join()
    ranks.from_first(lambda: crossval.keep_folds(folder, folds))
    ranks.from_first(lambda: save_settings(settings, folder))
    results = []
    for k in range(len(folds)):
        run = folder / f"fold-{k}"
        if not ranks.from_first(lambda k=k: is_done(k)):
            if ranks.rank == 0:
                print(f"\nfold {k} of {len(folds)}: {run}", flush=True)
            train_fold(k, run)
        results.append(ranks.from_first(lambda run=run: dict(_read(run, numbers))))
    return crossval.summarize(results)


def _read(run: Path, numbers: Callable[[dict], Mapping[str, float]]) -> Mapping[str, float]:
    try:
        return numbers(json.loads((run / "metrics.json").read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run}: no metrics.json of a finished run ({error})") from None


def write_summary(folder: Path, summary: dict) -> None:
    """Write metrics.json of a cross-validation (rank 0)."""
    if distributed.join().rank == 0:
        write_json(folder / "metrics.json", summary)
