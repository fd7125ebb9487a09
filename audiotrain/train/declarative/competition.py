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
from itertools import chain
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np

from audiotrain.config.yaml_files import preset_names
from audiotrain.train import checkpoint
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.crossval import CrossValidation, OutOfFold, make_folds, missing_labels
from audiotrain.train.data.collate import default_collate, to_mlx
from audiotrain.train.data.datasets import Concatenated, Subset, as_dataset
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.declarative.config import PRESETS, TrainerConfig, get_trainer_config
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer, best_or_last
from audiotrain.train.declarative.factory import read_settings, trainer_class
from audiotrain.train.ensembling import Stacked, Vote, check_probabilities, fit_join, join_members
from audiotrain.train.loggers.build import parent_run, run_loggers
from audiotrain.train.loggers.mlflow_logger import MLflowLogger
from audiotrain.train.protocols import CallbackProtocol, DatasetProtocol
from audiotrain.train.pseudo_labels import LabelledItems, select, train_in_rounds
from audiotrain.train.submission import read_sample, write_submission
from audiotrain.train.tta import Transform
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write_json

NO_BEST = (
    "enable_ensemble is false, but nothing says which fold is best: expected a validation "
    "(eval_strategy 'epoch'), and a monitor of a ModelCheckpoint of your own"
)


@dataclass(frozen=True)
class CVResult:
    """Scores and predictions of a cross-validation."""

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
        self.ensemble_with: Sequence[CompetitionTrainer] = ()
        self.folds: list[ConfiguredTrainer] = []  # once all of them are done
        self._trained_on: dict[str, Any] = {}  # the arguments of train_with_cv, then
        self._result: CVResult | None = None
        self._extra: list[Dataset] = []  # pseudo-labelled items of each fold

    def train_with_cv(
        self,
        data: Any,
        groups: Sequence | None = None,
        labels: Sequence | None = None,
        ids: Sequence[str] | None = None,
        resume: bool = False,
    ) -> CVResult:
        """Train `competition.cv_folds` models, each without the items that it is scored on.

        data: a Dataset, arrays with a row an item, or a DataLoader, whose dataset, batch size and
        workers are taken. groups: items of one group are never in two folds. labels: each fold has
        about the same share of each; labels that a fold lacks are printed; class numbers where
        ensemble_method is blend or stack, and for pseudo-labels. ids: names of the items, by
        default 0, 1, …. A part of each fold's training groups is held out to choose its best
        checkpoint by. `resume` continues an interrupted cross-validation: finished folds are kept.

        ValueError for data without a length, a loader with a sampler or transforms of its own,
        groups, ids or labels that do not fit the items, fewer groups than folds need, settings that
        folds cannot have, and a run folder that holds another run.
        """
        self._check_folds()
        if isinstance(data, DataLoader):
            data = self._taken(data)
        data = as_dataset(data)
        if not hasattr(data, "__len__"):
            raise UserError(
                f"train_with_cv was given a {type(data).__name__}, expected a Dataset, arrays or a "
                f"DataLoader: each fold makes its own loaders"
            )
        ids = [str(one) for one in (range(len(data)) if ids is None else ids)]
        groups = ids if groups is None else [str(one) for one in groups]
        for name, values in (("ids", ids), ("groups", groups)):
            if len(values) != len(data):
                raise UserError(f"{len(values)} {name} for {len(data)} items, expected one each")
        settings = self.config.competition
        if settings.enable_ensemble and settings.ensemble_method in ("blend", "stack"):
            _class_numbers(labels, f"ensemble_method is {settings.ensemble_method!r}")
        if settings.pseudo_rounds:
            _class_numbers(labels, f"pseudo_rounds is {settings.pseudo_rounds}")
            LabelledItems(self._test_set(), {}, data[0], None)
        folds = make_folds(groups, settings.cv_folds, labels, self.config.training.seed)
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
        self._result = CVResult(
            self.run, summary.mean, summary.deviation, summary.folds, predictions
        )
        self._trained_on = {"data": data, "groups": groups, "labels": labels, "ids": ids}
        if settings.pseudo_rounds:
            threshold, rounds = settings.pseudo_threshold, settings.pseudo_rounds
            return self.pseudo_label(None, threshold, rounds, resume=resume)
        return self._result

    def pseudo_label(
        self,
        unlabelled: Any = None,
        threshold: float = 0.9,
        rounds: int = 3,
        target: str | None = None,
        resume: bool = False,
    ) -> CVResult:
        """Cross-validate again, up to `rounds` times, with unlabelled items (default: the test
        data) in the training data of each fold, and keep the best round, whose models `predict`
        takes then; its result.

        Each fold's items are labelled by that fold's model of the round before, where its
        calibrated probability reaches `threshold`, so no fold is scored on labels that it was
        trained on. It ends early when `training.best_metric` of the labelled items gets worse.
        Rounds are the folders round-1, … of the run. target: the label's key, for items that are
        dicts; not needed where unlabelled items lack it. ValueError before `train_with_cv`, when
        that was given no class numbers as `labels`, and where no score has the name of
        `training.best_metric`.
        """
        if self._result is None:
            raise UserError("pseudo_label: no folds are trained, expected train_with_cv before")
        classes = _class_numbers(self._trained_on["labels"], "pseudo_label")
        get_trainer_config(self.config, pseudo_threshold=threshold, pseudo_rounds=rounds)  # checks
        unlabelled = self._test_set(unlabelled)
        trainers, results, training = [self], [self._result], self.config.training
        score = training.best_metric.replace("val_", "test_", 1)
        if score not in results[0].mean:
            raise UserError(
                f"pseudo_label: best_metric is {training.best_metric}, expected the validation's "
                f"name of one of {', '.join(results[0].mean)}"
            )
        example = self._trained_on["data"][0]
        oof = _as_classes(results[0].predictions)
        known = oof, (classes[:, None] == np.arange(oof.shape[1])).astype(np.float32)

        def label(number: int) -> list[dict[int, int]]:
            loader = self.loader(Subset(unlabelled, range(len(unlabelled))))
            predictions = [_predict(fold, loader) for fold in trainers[-1].folds]
            selected = [select(_as_classes(one), threshold, known)[0] for one in predictions]
            labels = [{int(row): int(k) for row, k in np.argwhere(one)} for one in selected]
            return labels if any(labels) else []

        def train(number: int, labels: list[dict[int, int]] | None) -> float:
            if labels is not None:
                counts = ", ".join(str(len(one)) for one in labels)
                if self.trainer.is_global_zero:
                    print(f"\nround {number}: pseudo-labels of each fold: {counts}")
                trainers.append(again := self._round(number, threshold))
                again._extra = [LabelledItems(unlabelled, one, example, target) for one in labels]
                goes_on = resume and self._has_begun(again)
                results.append(again.train_with_cv(**self._trained_on, resume=goes_on))
            return results[-1].mean[score]

        scores = train_in_rounds(rounds, train, label, training.best_mode)
        pick = np.argmin if training.best_mode == "min" else np.argmax
        best = int(pick(scores))
        self.folds, self._result = trainers[best].folds, results[best]
        return self._result

    def predict(
        self,
        loader: Any = None,
        checkpoint: str | Path | None = None,
        tta: Sequence[Transform] | None = None,
    ) -> Any:
        """The folds' models as one, (items, …), for `loader` or the test data: joined as
        ensemble_method says, or with enable_ensemble false the model of the fold with the best
        validation. After `train` or `load_checkpoint`, as a ConfiguredTrainer; `tta` is its, too.
        ValueError before any of these, and for a DataLoader that is shuffled or has a sampler.

        The trainers in `ensemble_with`, cross-validated on the same items, are further members of
        the ensemble. blend and stack are fitted on the members' out-of-fold predictions and the
        labels that train_with_cv was given; of one member, blend is the mean.
        """
        loader = self._given(loader)
        if not self.folds or checkpoint is not None:
            if checkpoint is None and self._loaded is None and not self.trainer.global_step:
                raise UserError(
                    "nothing is trained, so predictions would be those of first weights: "
                    "train_with_cv first (resume=True reads a finished one), or load_checkpoint"
                )
            return super().predict(loader, checkpoint, tta)
        loader = self.loader(loader)
        if not self.config.competition.enable_ensemble:
            return _predict(self._best_fold(), loader, tta)
        members = [self, *self.ensemble_with]
        vote, weights, stacked = self._fitted(members)
        runs = [[_predict(fold, loader, tta) for fold in member.folds] for member in members]
        if self.config.competition.ensemble_method == "mean":
            return join_members(runs)
        classes = [[_as_classes(one) for one in member] for member in runs]
        # Each label is decided alone where rows are no shares of classes.
        multilabel = not all(np.allclose(one.sum(axis=1), 1, atol=0.02) for one in chain(*classes))
        joined = join_members(classes, vote, weights, stacked, multilabel)
        shape = runs[0][0].shape
        return joined if joined.shape == shape else joined[:, 1].reshape(shape)

    def _fitted(
        self, members: Sequence["CompetitionTrainer"]
    ) -> tuple[Vote, tuple[float, ...], Stacked | None]:
        """How members are joined, see `fit_join`. ValueError where they have no folds, or those of
        other items, and where class numbers are missing."""
        how = self.config.competition.ensemble_method
        ids = self._trained_on["ids"]
        for member in members:
            if member._trained_on.get("ids") != ids:
                raise UserError(
                    f"ensemble_with: {member.run} is not cross-validated on these {len(ids)} items"
                )
        if how not in ("blend", "stack"):
            return fit_join(how, [], np.array([]))
        labels = _class_numbers(self._trained_on["labels"], f"ensemble_method is {how!r}")
        results = [member._result for member in members if member._result is not None]
        oof = [_as_classes(result.predictions) for result in results]
        return fit_join(how, oof, labels)

    def create_submission(
        self,
        path: str | os.PathLike | None = None,
        sample_submission: str | os.PathLike | None = None,
        ids: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        test_data: Any = None,
        tta: Sequence[Transform] | None = None,
        **options: Any,
    ) -> Path:
        """Predict the test data and write submission.csv in the run folder, or `path`.

        ids: of the test items, in their order, by default those that the test data have as `ids`
        or, as arrays by name, under the setting id_column, else the sample's, else 0, 1, …, which
        is printed. columns: what the model's outputs are called, by default as in the sample, else
        the setting `columns`. `tta` as in `predict`. `options` are write_submission's, which says
        what is checked. ValueError where the columns' names are not known, and as `predict`.
        """
        settings = self.config.competition
        sample, order = sample_submission or settings.sample_submission, None
        if sample is not None:
            header, order = read_sample(sample)
            columns = header[1:] if columns is None else columns
        columns = settings.columns if columns is None else columns
        if not len(columns):
            raise UserError(
                "create_submission: the names of what is predicted are not known: give columns (or "
                "the setting competition.columns), or a sample_submission"
            )
        test_data = self.test_data if test_data is None else test_data
        predictions = self.predict(test_data, tta=tta)
        if isinstance(predictions, list):
            predictions = _joined(predictions)
        if settings.values == "labels":
            several = predictions.ndim > 1 and predictions.shape[1] > 1
            classes = predictions if several else _as_classes(predictions)
            predictions = classes.argmax(axis=1)
        ids = self._ids(test_data, order, len(predictions)) if ids is None else ids
        options.setdefault("probabilities", settings.values == "probabilities")
        options.setdefault("id_column", settings.id_column)
        target = Path(path or self.run / "submission.csv")
        self.trainer.ranks.broadcast_from_rank0(
            lambda: str(write_submission(ids, columns, predictions, sample, target, **options))
        )
        return target

    def upload(self, path: str | os.PathLike, message: str = "audiotrain") -> None:
        """Submit a file by the `kaggle` command; ValueError when it is missing or refuses."""
        name, command = self.config.competition.competition_name, shutil.which("kaggle")
        if name is None:
            raise UserError("upload: no competition_name: give one")
        if command is None:
            raise UserError("upload: no command kaggle: pip install kaggle")
        words = [command, "competitions", "submit", "-c", name, "-f", str(path), "-m", message]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join((done.stderr or done.stdout).split())
            raise UserError(f"upload: kaggle refused {path}: {reason}")

    def _taken(self, loader: DataLoader) -> DatasetProtocol:
        """The dataset of a loader, whose batch size and workers the folds' loaders get. ValueError
        for what they could not have."""
        self.check_stated(loader)
        usual = {
            "sampler": None,
            "batch_sampler": None,
            "collate_fn": default_collate,
            "cpu_transforms": (),
            "mlx_transforms": (to_mlx,),
            "drop_last": False,
            "worker_type": "thread",
        }
        for name, value in usual.items():
            if (found := getattr(loader, name)) != value:
                expected = repr(value) if isinstance(value, bool | str) else "none"
                raise UserError(
                    f"train_with_cv: the DataLoader has {name}={found!r:.60}, expected {expected}: "
                    f"each fold makes its own loaders, of its dataset, batch size and workers"
                )
        data = replace(
            self.config.data, batch_size=loader.batch_size, num_workers=loader.num_workers
        )
        self.config = replace(self.config, data=data)
        return loader.dataset

    def _test_set(self, data: Any = None) -> Any:
        """The dataset of these data, by default of the test data."""
        data = self._given(data)
        return as_dataset(getattr(data, "dataset", data))

    def _ids(self, test_data: Any, order: Sequence[str] | None, count: int) -> Sequence:
        """The ids of the test items: those that the data have, those in the `order` of a sample, or
        their numbers."""
        data, name = getattr(test_data, "dataset", test_data), self.config.competition.id_column
        if isinstance(data, Mapping) and name in data:
            return data[name]
        if hasattr(data, "ids"):
            return data.ids
        if order is not None:
            return order
        if self.trainer.is_global_zero:
            print(f"create_submission: the test data have no ids, so {name} is 0 to {count - 1}")
        return range(count)

    def _round(self, number: int, threshold: float) -> "CompetitionTrainer":
        """The trainer of a round with pseudo-labels."""
        config = get_trainer_config(
            self.config,
            output_dir=self.run / f"round-{number}",
            pseudo_rounds=0,
            pseudo_threshold=threshold,
        )
        model = self.module if isinstance(self._model, nn.Module) else self._model
        loss = None if model is self.module else self._loss
        trainer = CompetitionTrainer(model, config, self._callbacks, loss, self.stated)
        trainer._first = self._first
        return trainer

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
        begun = self._has_begun(fold)
        fold.trainer.loggers_stay_open = True  # for its scores
        train: Dataset = Subset(data, train_rows)
        if self._extra:
            train = Concatenated(train, self._extra[k])
        fold.train(train, valid, resume=begun)
        test = Subset(data, cv.folds[k])
        scores = fold.evaluate(test, best_or_last(fold.run))
        predictions = _predict(fold, fold.loader(test))
        if self.trainer.is_global_zero:
            write_json(fold.run / "scores.json", scores)
            cv.store.save(k, {"predictions": predictions})
        for logger in fold.trainer.loggers:
            logger.finish()

    def _has_begun(self, trainer: ConfiguredTrainer) -> bool:
        """Whether the run folder of a fold or a round is there, on each rank."""
        return self.trainer.ranks.broadcast_from_rank0((trainer.run / "config.yaml").exists)

    def _best_fold(self) -> ConfiguredTrainer:
        """The fold whose best checkpoint has the best validation."""
        files = [fold.run / "metrics.json" for fold in self.folds]
        scores = [json.loads(file.read_text("utf-8"))["best_score"] for file in files]
        if None in scores:
            raise UserError(NO_BEST)
        pick = np.argmin if self.saver.mode == "min" else np.argmax
        return self.folds[int(pick(scores))]

    def _check_folds(self) -> None:
        """ValueError, before anything is trained, for settings that folds cannot have."""
        knows_best = self.saver.monitor and self.saver.save_top_k
        if not self.config.competition.enable_ensemble and not knows_best:
            raise UserError(NO_BEST)
        if not self.config.competition.enable_ensemble and self.ensemble_with:
            raise UserError(
                f"enable_ensemble is false, but ensemble_with has {len(self.ensemble_with)}, "
                f"expected none"
            )
        for one in self.trainer.callbacks:
            if isinstance(one, ModelCheckpoint) and one.dirpath is not None:
                raise UserError(
                    f"ModelCheckpoint: dirpath is {str(one.dirpath)!r}, which all folds would "
                    f"write to: leave it out, and each has a folder of its own"
                )

    def _given(self, data: Any) -> Any:
        data = self.test_data if data is None else data
        if data is None:
            raise UserError("no test data: give some, or a test_dataloader when creating it")
        if isinstance(data, Mapping):  # a model has no use for ids
            name = self.config.competition.id_column
            data = {key: array for key, array in data.items() if key != name}
        if isinstance(data, DataLoader):
            for name in ("shuffle", "sampler", "batch_sampler"):
                if getattr(data, name) not in (None, False):
                    raise UserError(
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
    config: str | os.PathLike | Mapping | TrainerConfig | None = None,
    callbacks: Sequence[CallbackProtocol | Mapping] = (),
    loss: Callable | None = None,
    ensemble_with: Sequence[CompetitionTrainer] = (),
    **overrides: Any,
) -> CompetitionTrainer:
    """A CompetitionTrainer for the competition of that name, or the one of your own that the
    settings' `trainer` names; all else as create_trainer's.

    config: by default the preset of the competition's name, such as titanic or house_prices, or
    else the preset competition. test_dataloader: batches, a Dataset or arrays, in the order of the
    submission's ids. ensemble_with: trainers of other models, whose predictions `predict` joins
    with this one's once all are cross-validated on the same items.

    Errors as those of create_trainer; ValueError also where `ensemble_with` is no list of
    CompetitionTrainers, or the settings' `trainer` is no CompetitionTrainer.
    """
    if config is None and competition in preset_names(PRESETS):
        config = competition
    elif competition is not None:
        overrides["competition_name"] = competition
    config = "competition" if config is None else config
    settings, callbacks = read_settings(config, callbacks, overrides)
    if settings.trainer == "default":
        settings = replace(settings, trainer="competition")
    kind = trainer_class(settings.trainer, CompetitionTrainer)
    is_list = isinstance(ensemble_with, Sequence)
    for one in ensemble_with if is_list else [ensemble_with]:
        if not is_list or not isinstance(one, CompetitionTrainer):
            raise UserError(
                f"ensemble_with: found a {type(one).__name__}, expected a list of "
                f"CompetitionTrainers"
            )
    trainer = kind(model, settings, callbacks, loss, stated=tuple(overrides))
    trainer.test_data, trainer.ensemble_with = test_dataloader, ensemble_with
    return trainer


def _held_out(rows: np.ndarray, groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and about a tenth of them, by whole groups, to choose a checkpoint by."""
    row_groups = [groups[row] for row in rows]
    if len(set(row_groups)) < 2:
        raise UserError(
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


def _class_numbers(labels: Sequence | None, why: str) -> np.ndarray:
    """Labels that train_with_cv was given as class numbers. ValueError for others, and for none."""
    classes = np.asarray(labels)
    if labels is None or not np.issubdtype(classes.dtype, np.integer) or classes.ndim != 1:
        found = "none" if labels is None else f"{classes.dtype} {classes.shape}"
        raise UserError(
            f"{why}: labels of train_with_cv: found {found}, expected a class number an item"
        )
    return classes


def _as_classes(predictions: np.ndarray) -> np.ndarray:
    """Probabilities (items, classes), from those of the second of two classes where predictions
    are (items,) or (items, 1). ValueError for numbers that are no probabilities."""
    check_probabilities("predict_step", predictions)
    second = predictions.reshape(len(predictions), -1)
    return second if second.shape[1] > 1 else np.concatenate([1 - second, second], axis=1)


def _predict(
    fold: ConfiguredTrainer, loader: Iterable, tta: Sequence[Transform] | None = None
) -> np.ndarray:
    """Predictions (rows, …) of a fold's best model for all rows, on each rank."""
    if fold.trainer.world_size > 1:
        loader = _Whole(loader)
    return _joined(fold.predict(loader, best_or_last(fold.run), tta))


def _joined(outputs: Sequence) -> np.ndarray:
    """The arrays that predict_step gave for each batch, as one."""
    if not all(hasattr(output, "shape") for output in outputs):
        raise UserError(
            f"predict_step gave a {type(outputs[0]).__name__}, expected an array (items, …)"
        )
    return np.concatenate([np.array(output) for output in outputs])
