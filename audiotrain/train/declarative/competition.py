"""Cross-validation, the ensemble of its models and a submission, for a competition.

A folder of folds holds config.yaml, folds.json, fold-0 … (run folders), oof/ (predictions for each
item by the model that never saw it) and metrics.json (mean, deviation, folds).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np

from audiotrain.train import checkpoint
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.crossval import CrossValidation, OutOfFold, make_folds, missing_labels
from audiotrain.train.data.datasets import Subset, as_dataset
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.declarative.config import TrainerConfig
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer, best_or_last
from audiotrain.train.declarative.factory import read_settings, trainer_class
from audiotrain.train.ensembling import vote
from audiotrain.train.loggers.build import parent_run, run_loggers
from audiotrain.train.loggers.mlflow_logger import MLflowLogger
from audiotrain.train.protocols import CallbackProtocol
from audiotrain.train.submission import read_sample, write_submission
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.files import write_json

NO_BEST = (
    "enable_ensemble is false, but nothing says which fold is best: expected a validation "
    "(eval_strategy 'epoch'), and a monitor of a ModelCheckpoint of your own"
)


@dataclass(frozen=True)
class CVResult:
    """What a cross-validation gave."""

    run: Path
    mean: dict[str, float]
    """of each score over the folds"""
    deviation: dict[str, float]
    folds: list[dict[str, float]]
    predictions: np.ndarray
    """out-of-fold (items, …), in the order of the data"""


class CompetitionTrainer(ConfiguredTrainer):
    """A ConfiguredTrainer that also trains a model for each fold and submits their ensemble."""

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module] | None,
        config: TrainerConfig,
        callbacks: Sequence[CallbackProtocol] = (),
        loss: Callable | None = None,
        stated: Sequence[str] = (),
        **tracked: str | None,
    ):
        super().__init__(model, config, callbacks, loss, stated, **tracked)
        self._model, self._callbacks, self._loss = model, list(callbacks), loss
        self._first = {name: array + 0 for name, array in arrays_of(self.module).items()}
        self.test_data: Any = None
        self.folds: list[ConfiguredTrainer] = []  # once all of them are done

    def train_with_cv(
        self,
        data: Any,
        groups: Sequence | None = None,
        labels: Sequence | None = None,
        ids: Sequence[str] | None = None,
        resume: bool = False,
    ) -> CVResult:
        """Train `competition.cv_folds` models, each without the items that it is scored on.

        data: a Dataset, or arrays with a row an item. groups: items of one group are never in two
        folds. labels: each fold has about the same share of each; labels that a fold lacks are
        printed. ids: names of the items, by default 0, 1, …. A part of each fold's training groups
        is held out to choose its best checkpoint by. `resume` continues an interrupted
        cross-validation: finished folds are kept.
        """
        self._check_folds()
        data = as_dataset(data)
        if isinstance(data, DataLoader) or not hasattr(data, "__len__"):
            raise ValueError(
                f"train_with_cv was given a {type(data).__name__}, expected a Dataset or arrays: "
                f"each fold makes its own loaders"
            )
        ids = [str(one) for one in (range(len(data)) if ids is None else ids)]
        groups = ids if groups is None else [str(one) for one in groups]
        for name, values in (("ids", ids), ("groups", groups)):
            if len(values) != len(data):
                raise ValueError(f"{len(values)} {name} for {len(data)} items, expected one each")
        folds_count = self.config.competition.cv_folds
        folds = make_folds(groups, folds_count, labels, self.config.training.seed)
        if labels is not None and self.trainer.is_global_zero:
            for line in missing_labels(folds, labels):
                print(line)
        self.open_run(resume)
        cv = CrossValidation(self.run, ids, folds, OutOfFold)
        parent = self._parent() if self.trainer.is_global_zero else None
        trainers = [self._fold(k, parent) for k in range(len(folds))]
        summary = cv.run(
            lambda k: self._train_fold(k, trainers[k], data, groups, cv),
            lambda k: json.loads((trainers[k].run / "scores.json").read_text("utf-8")),
        )
        cv.write(summary)
        if parent is not None:
            parent.log_metrics({f"mean_{name}": v for name, v in summary.mean.items()}, 0)
            parent.finish()
        self.folds = trainers
        predictions = self.trainer.ranks.rank0_first(cv.store.load)["predictions"]
        return CVResult(self.run, summary.mean, summary.deviation, summary.folds, predictions)

    def predict(self, loader: Any = None, checkpoint: str | Path | None = None) -> Any:
        """The folds' models as one, (items, …), for `loader` or the test data: joined as
        ensemble_method says, or with enable_ensemble false the model of the fold with the best
        validation. After `train` or `load_checkpoint`, as a ConfiguredTrainer. ValueError before
        any of these, and for a DataLoader that is shuffled or has a sampler.

        To join several models, give the `CVResult.predictions` of each to
        `ensembles.blend_weights` or `ensembles.stack`.
        """
        loader = self._given(loader)
        if not self.folds or checkpoint is not None:
            if checkpoint is None and self._loaded is None and not self.trainer.global_step:
                raise ValueError(
                    "nothing is trained, so predictions would be those of first weights: "
                    "train_with_cv first (resume=True reads a finished one), or load_checkpoint"
                )
            return super().predict(loader, checkpoint)
        loader = self.loader(loader)
        if not self.config.competition.enable_ensemble:
            return _predict(self._best_fold(), loader)
        predictions = [_predict(fold, loader) for fold in self.folds]
        return vote(predictions, how=self.config.competition.ensemble_method)

    def create_submission(
        self,
        path: str | os.PathLike | None = None,
        sample_submission: str | os.PathLike | None = None,
        ids: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        test_data: Any = None,
        **options: Any,
    ) -> Path:
        """Predict the test data and write submission.csv in the run folder, or `path`.

        ids: of the test items, in their order; columns: what the model's outputs are called. Both
        are the sample's when they are not given. `options` are write_submission's, which says what
        is checked.
        """
        sample = sample_submission or self.config.competition.sample_submission
        if sample is not None:
            header, order = read_sample(sample)
            ids = order if ids is None else ids
            columns = header[1:] if columns is None else columns
        if ids is None or columns is None:
            raise ValueError("create_submission: give a sample_submission, or ids and columns")
        predictions = self.predict(test_data)
        if isinstance(predictions, list):
            predictions = _joined(predictions)
        target = Path(path or self.run / "submission.csv")
        self.trainer.ranks.broadcast_from_rank0(
            lambda: str(write_submission(ids, columns, predictions, sample, target, **options))
        )
        return target

    def upload(self, path: str | os.PathLike, message: str = "audiotrain") -> None:
        """Submit a file by the `kaggle` command; ValueError when it is missing or refuses."""
        name, command = self.config.competition.competition_name, shutil.which("kaggle")
        if name is None:
            raise ValueError("upload: no competition_name: give one")
        if command is None:
            raise ValueError("upload: no command kaggle: pip install kaggle")
        words = [command, "competitions", "submit", "-c", name, "-f", str(path), "-m", message]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join((done.stderr or done.stdout).split())
            raise ValueError(f"upload: kaggle refused {path}: {reason}")

    def _fold(self, k: int, parent: MLflowLogger | None) -> ConfiguredTrainer:
        """The trainer of a fold, with weights and order by a seed of its own."""
        training = self.config.training
        training = replace(training, output_dir=self.run / f"fold-{k}", seed=training.seed + k)
        tracking = replace(self.config.tracking, run_name=f"{self.run.name}-fold-{k}")
        config = replace(self.config, trainer="default", training=training, tracking=tracking)
        model = self.module if isinstance(self._model, nn.Module) else self._model
        loss = None if model is self.module else self._loss
        parent_id = parent.run_id if parent else None
        fold = ConfiguredTrainer(
            model, config, self._callbacks, loss, self.stated, self.run.name, parent_id
        )
        fold.trainer.how_to_continue = "train_with_cv(..., resume=True)"
        return fold

    def _train_fold(
        self,
        k: int,
        fold: ConfiguredTrainer,
        data: Dataset,
        groups: Sequence[str],
        cv: CrossValidation[OutOfFold],
    ) -> None:
        """Train a fold, score it on its items, and keep its predictions for them."""
        train_rows, valid = cv.train_rows(k), None
        if self.config.training.eval_strategy != "no":
            train_rows, valid_rows = _held_out(train_rows, groups, self.config.training.seed)
            valid = Subset(data, valid_rows)
        if fold.module is self.module:  # one model that all folds share begins anew
            checkpoint.put_arrays(self.module, self._first)
        begun = self.trainer.ranks.broadcast_from_rank0((fold.run / "config.yaml").exists)
        fold.train(Subset(data, train_rows), valid, resume=begun)
        test = Subset(data, cv.folds[k])
        scores = fold.evaluate(test, best_or_last(fold.run))
        predictions = _predict(fold, fold.loader(test))
        if self.trainer.is_global_zero:
            write_json(fold.run / "scores.json", scores)
            cv.store.save(k, {"predictions": predictions})
        for logger in fold.trainer.loggers:
            logger.finish()

    def _best_fold(self) -> ConfiguredTrainer:
        """The fold whose best checkpoint has the best validation."""
        files = [fold.run / "metrics.json" for fold in self.folds]
        scores = [json.loads(file.read_text("utf-8"))["best_score"] for file in files]
        if None in scores:
            raise ValueError(NO_BEST)
        pick = np.argmin if self.saver.mode == "min" else np.argmax
        return self.folds[int(pick(scores))]

    def _check_folds(self) -> None:
        """ValueError, before anything is trained, for settings that folds cannot have."""
        knows_best = self.saver.monitor and self.saver.save_top_k
        if not self.config.competition.enable_ensemble and not knows_best:
            raise ValueError(NO_BEST)
        for one in self.trainer.callbacks:
            if isinstance(one, ModelCheckpoint) and one.dirpath is not None:
                raise ValueError(
                    f"ModelCheckpoint: dirpath is {str(one.dirpath)!r}, which all folds would "
                    f"write to: leave it out, and each has a folder of its own"
                )

    def _given(self, data: Any) -> Any:
        data = self.test_data if data is None else data
        if data is None:
            raise ValueError("no test data: give some, or a test_dataloader when creating it")
        if isinstance(data, DataLoader):
            for name in ("shuffle", "sampler", "batch_sampler"):
                if getattr(data, name) not in (None, False):
                    raise ValueError(
                        f"test data: the DataLoader has {name}, expected none: rows are known by "
                        f"their order"
                    )
        return data

    def _parent(self) -> MLflowLogger | None:
        """The MLflow run that the folds' runs are shown inside, the same one when resumed."""
        tracking = self.config.tracking
        if "mlflow" not in tracking.loggers:
            return None
        only = replace(tracking, loggers=("mlflow",), log_models=False, register_model=False)
        (parent,) = run_loggers(only, self.run)
        assert isinstance(parent, MLflowLogger)
        return parent_run(self.run, parent)


def create_competition_trainer(
    model: nn.Module | Callable[[], nn.Module] | None = None,
    competition: str | None = None,
    test_dataloader: Any = None,
    config: str | os.PathLike | Mapping | TrainerConfig = "competition",
    callbacks: Sequence[CallbackProtocol | Mapping] = (),
    loss: Callable | None = None,
    **overrides: Any,
) -> CompetitionTrainer:
    """A CompetitionTrainer for the competition of that name, or the one of your own that the
    settings' `trainer` names; all else as create_trainer's.

    test_dataloader: batches, a Dataset or arrays, in the order of the submission's ids.
    """
    if competition is not None:
        overrides["competition_name"] = competition
    settings, callbacks = read_settings(config, callbacks, overrides)
    if settings.trainer == "default":
        settings = replace(settings, trainer="competition")
    kind = trainer_class(settings.trainer, CompetitionTrainer)
    trainer = kind(model, settings, callbacks, loss, stated=tuple(overrides))
    trainer.test_data = test_dataloader
    return trainer


def _held_out(rows: np.ndarray, groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and about a tenth of them, by whole groups, to choose a checkpoint by."""
    row_groups = [groups[row] for row in rows]
    if len(set(row_groups)) < 2:
        raise ValueError(
            "a fold trains on one group, so none is left to validate on: more groups, or "
            "eval_strategy='no'"
        )
    chosen = make_folds(row_groups, min(10, len(set(row_groups))), seed=seed)[0]
    return np.delete(rows, chosen), rows[chosen]


class _Whole:
    """A loader whose batches all ranks have, whole and in their order."""

    def __init__(self, loader: Any):
        self.loader = loader
        if hasattr(loader, "shard"):
            loader.shard(0, 1)

    def __iter__(self) -> Iterator:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def shard(self, rank: int, world_size: int) -> None:
        """Do nothing: each rank has all batches."""


def _predict(fold: ConfiguredTrainer, loader: Iterable) -> np.ndarray:
    """Predictions (rows, …) of a fold's best model for all rows, on each rank."""
    if fold.trainer.world_size > 1:
        loader = _Whole(loader)
    return _joined(fold.predict(loader, best_or_last(fold.run)))


def _joined(outputs: Sequence) -> np.ndarray:
    """The arrays that predict_step gave for each batch, as one."""
    if not all(hasattr(output, "shape") for output in outputs):
        raise ValueError(
            f"predict_step gave a {type(outputs[0]).__name__}, expected an array (items, …)"
        )
    return np.concatenate([np.array(output) for output in outputs])
