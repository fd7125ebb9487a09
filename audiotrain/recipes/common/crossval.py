"""Cross-validation of a recipe: a `train.crossval.CrossValidation` with a run for each fold."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from audiotrain.recipes.common.run import save_settings
from audiotrain.train.crossval import CrossValidation, CVSummary
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object

Settings = TypeVar("Settings")


def fold_settings(settings: Any, kind: type[Settings], run: Path, **changes: Any) -> Settings:
    """Settings of a fold's run, of the `kind` that training takes; a fold that was begun is
    resumed."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values = {name: getattr(settings, name) for name in names}
    return kind(**values | {"output": run, "resume": run.exists()} | changes)


def train_folds(
    settings: Any,
    cv: CrossValidation,
    train_fold: Callable[[int, Path], object],
    numbers: Callable[[dict], Mapping[str, float]],
) -> CVSummary:
    """Train and test on each fold that is not done yet; mean and deviation of their scores.

    `train_fold(k, run)`, on every rank, fills a run folder and saves predictions in `cv.store`;
    `numbers` takes the scores from a run's metrics.json.
    """
    cv.ranks.broadcast_from_rank0(lambda: save_settings(settings, cv.folder))

    def read_scores(k: int) -> Mapping[str, float]:
        file = cv.run_folder(k) / "metrics.json"
        metrics = read_json_object(file)
        try:
            return numbers(metrics)
        except KeyError as error:
            raise UserError(f"{file}: no {error}, expected that of a finished run") from None

    return cv.run(lambda k: train_fold(k, cv.run_folder(k)), read_scores)
