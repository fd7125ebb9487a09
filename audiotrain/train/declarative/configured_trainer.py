"""ConfiguredTrainer: a Trainer with all that it needs from settings, and its run folder."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.nn as nn

from audiotrain.config import to_plain
from audiotrain.config.diff import refused_changes
from audiotrain.config.import_path import called, imported
from audiotrain.train import checkpoint
from audiotrain.train.callbacks.builtin import EarlyStopping, MetricsLogger
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.data.datasets import as_dataset
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.declarative.config import TrainerConfig, get_trainer_config
from audiotrain.train.declarative.modules import as_module
from audiotrain.train.declarative.names import CALLBACKS
from audiotrain.train.declarative.optimizers import configured_optimizer
from audiotrain.train.distributed.ranks import join
from audiotrain.train.history import Row
from audiotrain.train.loggers.build import run_loggers
from audiotrain.train.protocols import CallbackProtocol, check_protocol, is_dataset
from audiotrain.train.run_folder import begun
from audiotrain.train.trainer import Trainer
from audiotrain.train.tta import Transform, TransformedLoader, check_transforms, means
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write_json

# Settings, and a group of them, that a resumed run may change. LENGTH may not change in a
# cross-validation, whose folds are trained alike.
LENGTH = "training.num_epochs", "training.max_steps", "training.max_time"
CHANGEABLE = tuple(
    "tracking data.num_workers training.log_steps training.progress training.output_dir "
    "competition.competition_name competition.enable_ensemble competition.ensemble_method "
    "competition.sample_submission competition.id_column competition.columns competition.values "
    "competition.pseudo_rounds".split()
)


@dataclass(frozen=True)
class TrainResult:
    """The result of a training; rows and numbers as in the run folder."""

    run: Path
    history: list[Row]
    """a row of numbers for each epoch"""
    metrics: dict[str, float]
    """the last ones"""
    best_score: float | None
    """of `training.best_metric`, or of what a ModelCheckpoint among the callbacks monitors"""
    best_checkpoint: Path | None
    last_checkpoint: Path | None


class ConfiguredTrainer:
    """A Trainer with all it needs from settings; `trainer` is the Trainer itself.

    ValueError without a model, for one without a loss, and for what settings name and is not there;
    ImportError for a logger of the settings that is not installed.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module] | None,
        config: TrainerConfig,
        callbacks: Sequence[CallbackProtocol] = (),
        loss: Callable | None = None,
        stated: Sequence[str] = (),
        group: str | None = None,
        parent: str | None = None,
    ):
        folder = config.training.output_dir or run_name(config)
        self.run = Path(join().broadcast_from_rank0(lambda: str(folder)))
        # The run's own file names its folder, so that it can be continued from there.
        config = replace(config, training=replace(config.training, output_dir=self.run))
        self.config, self.stated = config, stated
        self.module = as_module(model, config, loss)
        self._tta = check_transforms(
            [None if one is None else imported(one, "data.tta") for one in config.data.tta]
        )
        loggers = run_loggers(config.tracking, self.run, group, parent)
        self.trainer = _trainer(config, self.run, list(callbacks), loggers)
        self.trainer.keeps_folder = True
        self.trainer.how_to_continue = "train(..., resume=True)"
        saver = self.trainer.checkpoint_callback
        assert saver is not None  # of `_callbacks`
        self.saver, self.checkpoints = saver, saver.folder(self.trainer)
        self._loaded: Path | None = None
        self._loggers = list(self.trainer.loggers)  # without those that callbacks bring

    def train(self, train_loader: Any, val_loader: Any = None, resume: bool = False) -> TrainResult:
        """Train on batches, or on a Dataset or arrays, of which `data` makes batches.

        With `resume` the run in `output_dir` goes on where it stopped. ValueError when the run
        folder holds a run already, or with `resume` none or one of other settings, or when a
        validation is asked for without data; all else as `Trainer.fit`.
        """
        training, trainer = self.config.training, self.trainer
        if training.eval_strategy == "no":
            val_loader = None
        elif val_loader is None:
            raise UserError(
                f"training.eval_strategy is {training.eval_strategy!r}, but train was given no "
                f"validation data: give some, or eval_strategy='no'"
            )
        self.check_stated(train_loader)
        train_loader = self.loader(train_loader, shuffle=self.config.data.shuffle)
        val_loader = None if val_loader is None else self.loader(val_loader)
        last = self.open_run(resume, CHANGEABLE + LENGTH)
        trainer.fit(self.module, train_loader, val_loader, ckpt_path=last)
        self._loaded = None
        last, saver = self.checkpoints / "last", self.saver
        result = TrainResult(
            self.run,
            trainer.history.rows,
            dict(trainer.callback_metrics),
            saver.best_model_score if saver.monitor else None,
            saver.best_model_path,
            last if last.exists() else None,
        )
        if trainer.is_global_zero:
            best = {
                "best_metric": saver.monitor or training.best_metric,
                "best_score": result.best_score,
                "best_checkpoint": _inside(self.run, result.best_checkpoint),
            }
            write_json(self.run / "metrics.json", result.metrics | best)
        if newest := result.best_checkpoint or result.last_checkpoint:
            for logger in self._loggers:
                logger.log_model(newest)
        if not trainer.loggers_stay_open:
            for logger in trainer.loggers:
                logger.finish()
        return result

    def evaluate(self, loader: Any, checkpoint: str | Path | None = None) -> dict[str, float]:
        """Metrics over data, named "test_…"; of a checkpoint's weights ("best", "last" or a
        folder), else of those in memory. ValueError for data without batches, CheckpointError for
        a checkpoint that is missing, damaged or of another model."""
        path = self._loaded if checkpoint is None else self._checkpoint(checkpoint)
        return self._evaluator().test(self.module, self.loader(loader), ckpt_path=path)

    def predict(
        self,
        loader: Any,
        checkpoint: str | Path | None = None,
        tta: Sequence[Transform] | None = None,
    ) -> list:
        """The results of the module's `predict_step`, one for each batch; see `evaluate`.

        tta: functions `batch -> batch`, and None for the batch as it is, whose predictions, arrays,
        are averaged: `[None, flipped]`; default: those of the setting `data.tta`. ValueError for
        `tta` that is no such list, and with it for predictions that are no arrays.
        """
        path = self._loaded if checkpoint is None else self._checkpoint(checkpoint)
        loader = self.loader(loader)
        if not (tta := self._tta if tta is None else check_transforms(tta)):
            return self._evaluator().predict(self.module, loader, ckpt_path=path)
        loader = TransformedLoader(loader, tta)
        return means(self._evaluator().predict(self.module, loader, ckpt_path=path), len(tta))

    def save_checkpoint(self, path: str | Path) -> None:
        """Write all that is needed to continue; ValueError before anything was trained."""
        self.trainer.save_checkpoint(path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Take the weights of a checkpoint, of a run folder its best; `train` continues from it.
        CheckpointError when it is missing, damaged or of another model."""
        self._loaded = folder = self._checkpoint(path)
        checkpoint.load_weights(self.module, folder)
        self.trainer.load_checkpoint(folder)

    def loader(self, data: Any, shuffle: bool = False) -> Iterable:
        """Batches of a Dataset, or of arrays with a row an item, as `data` says, or as given.
        ValueError for arrays of different numbers of rows."""
        settings = self.config.data
        if isinstance(data, DataLoader):
            return data
        data = as_dataset(data)
        if not is_dataset(data):
            return data
        return DataLoader(
            data,
            settings.batch_size,
            shuffle=shuffle,
            num_workers=settings.num_workers,
            seed=self.config.training.seed,
        )

    def check_stated(self, data: Any) -> None:
        """ValueError for a DataLoader to train on with another batch size or other workers than
        the overrides say."""
        for name in ("batch_size", "num_workers"):
            if not isinstance(data, DataLoader) or name not in self.stated:
                continue
            found, wanted = getattr(data, name), getattr(self.config.data, name)
            if found != wanted:
                raise UserError(
                    f"{name} is {wanted}, but the loader given has {found}: give its dataset, and "
                    f"the loader is made"
                )

    def open_run(self, resume: bool, changeable: tuple[str, ...] = CHANGEABLE) -> Path | None:
        """Write config.yaml to the run folder, on rank 0; the checkpoint to continue from, if any.

        ValueError where a resumed run differs in settings that are not `changeable`.
        """
        last = self.trainer.ranks.broadcast_from_rank0(lambda: self._opened(resume, changeable))
        return None if last is None else Path(last)

    def _opened(self, resume: bool, changeable: tuple[str, ...]) -> str | None:
        saved = self.run / "config.yaml"
        if not resume:
            if (found := begun(self.run)) and not self.trainer.step:
                raise UserError(
                    f"{self.run}: holds a run already ({found}): train(…, resume=True) continues "
                    f"it, output_dir names another folder"
                )
        else:
            if not saved.exists():
                raise UserError(f"{self.run}: no config.yaml, so there is no run to resume")
            before, now = (to_plain(one) for one in (get_trainer_config(saved), self.config))
            if lines := refused_changes(before, now, changeable):
                raise UserError("\n".join(f"resume: {line}" for line in lines))
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            self.config.save(saved)
        except OSError as error:
            raise UserError(f"output_dir {self.run}: cannot write: {error.strerror}") from None
        last = self.checkpoints / "last"
        return str(last) if resume and checkpoint.exists(last) else None

    def _evaluator(self) -> Trainer:
        """The Trainer, or before training one that writes nothing into the run folder."""
        if self.trainer.step is not None or begun(self.run):
            return self.trainer
        return Trainer(
            max_epochs=1,
            precision=self.config.training.precision,
            seed=self.config.training.seed,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _checkpoint(self, path: str | Path) -> Path:
        """The folder of a checkpoint: "best", "last", a run's best, or as given."""
        if path in ("best", "last") and not Path(path).exists():
            best = best_of(self.run) if path == "best" else None
            return best or self.checkpoints / path
        path = Path(path)
        if (path / checkpoint.STATE).exists():
            return path
        place = best_or_last(path)
        return place if checkpoint.exists(place) else path


def best_of(run: Path) -> Path | None:
    """The checkpoint that a run's metrics.json calls its best, else checkpoints/best; None where
    there is neither."""
    file, places = run / "metrics.json", [run / "checkpoints" / "best"]
    if file.exists():
        named = json.loads(file.read_text(encoding="utf-8")).get("best_checkpoint")
        places = [run / named, *places] if named else places
    return next((place for place in places if checkpoint.exists(place)), None)


def best_or_last(run: Path) -> Path:
    """The checkpoint of a run that is used: the best one, or the last."""
    return best_of(run) or run / "checkpoints" / "last"


def run_name(config: TrainerConfig) -> Path:
    """runs/NAME-DATE-TIME."""
    name = config.tracking.run_name or config.competition.competition_name or "train"
    return Path("runs") / time.strftime(f"{name}-%Y%m%d-%H%M%S")


def _inside(run: Path, folder: Path | None) -> str | None:
    """A folder relative to the run folder, if it is inside."""
    if folder is None:
        return None
    folder, run = folder.absolute(), run.absolute()
    return str(folder.relative_to(run) if folder.is_relative_to(run) else folder)


def _trainer(
    config: TrainerConfig, run: Path, given: list[CallbackProtocol], loggers: list
) -> Trainer:
    training = config.training
    return Trainer(
        max_epochs=training.num_epochs,
        max_steps=training.max_steps,
        max_time=training.max_time,
        val_check_interval=training.eval_steps or 1.0,
        gradient_clip_val=training.gradient_clip,
        accumulate_grad_batches=training.gradient_accumulation_steps,
        ema_decay=training.ema_decay,
        precision=training.precision,
        default_root_dir=run,
        enable_progress_bar=training.progress,
        enable_model_summary=training.progress,
        seed=training.seed,
        callbacks=_callbacks(config, given),
        logger=loggers,
        log_every_n_steps=training.log_steps,
        limit_train_batches=training.limit_train_batches,
        limit_val_batches=training.limit_val_batches,
        config=to_plain(config),
        configure_optimizers=lambda module: configured_optimizer(
            module, config.optimizer, config.scheduler
        ),
    )


def _callbacks(config: TrainerConfig, given: list[CallbackProtocol]) -> list[CallbackProtocol]:
    """The callbacks that settings name or ask for, and those given."""
    training, stopping = config.training, config.training.early_stopping
    validates = training.eval_strategy != "no"
    named = [_callback(one, f"callbacks: number {n}") for n, one in enumerate(config.callbacks, 1)]
    callbacks = named + given
    if stopping.enabled:
        callbacks.append(
            EarlyStopping(
                stopping.monitor or training.best_metric,
                stopping.patience,
                stopping.min_delta,
                stopping.mode or training.best_mode,
                verbose=training.progress,
                patience_unit=stopping.patience_unit,
            )
        )
    if not any(isinstance(one, MetricsLogger) for one in callbacks):
        callbacks.append(MetricsLogger())
    if not any(isinstance(one, ModelCheckpoint) for one in callbacks):
        callbacks.append(
            ModelCheckpoint(
                filename="best",
                monitor=training.best_metric if validates else None,
                mode=training.best_mode,
                save_last=not (training.save_best_only and validates),
                save_top_k=1 if validates else 0,
            )
        )
    return callbacks


def _callback(settings: Mapping[str, Any], setting: str) -> CallbackProtocol:
    name, options = settings["type"], {k: v for k, v in settings.items() if k != "type"}
    made = called(CALLBACKS.get(name) or imported(name, setting), setting, **options)
    check_protocol(setting, made, CallbackProtocol)
    return made
