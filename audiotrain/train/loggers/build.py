"""A run's loggers from its settings; MLflow as a callback."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from audiotrain.train.callbacks.base import Callback
from audiotrain.train.declarative.config import TrackingSettings
from audiotrain.train.loggers.base import Logger
from audiotrain.train.loggers.mlflow_logger import MLflowLogger
from audiotrain.train.loggers.tensorboard_logger import TensorBoardLogger
from audiotrain.train.loggers.wandb_logger import WandbLogger
from audiotrain.utils.errors import MissingPackageError
from audiotrain.utils.files import write_json

MLFLOW_SETTINGS = ("tracking_uri", "log_models", "register_model", "model_name")


@dataclass(frozen=True)
class MLflowConfig:
    """The arguments of MLflowLogger, for MLflowCallback."""

    experiment_name: str = "default"
    run_name: str | None = None
    tracking_uri: str | None = None
    """a server, or sqlite:///FILE; default: MLFLOW_TRACKING_URI"""
    log_models: bool = False
    register_model: bool = False
    model_name: str | None = None
    parent: str | None = None
    """id of the run that this one is a part of, such as a cross-validation's"""

    def logger(self) -> MLflowLogger:
        """The logger with these arguments. ValueError for `register_model` without `model_name`."""
        return MLflowLogger(**vars(self))


class MLflowCallback(Callback):
    """Sends a Trainer's numbers to MLflow, as `Trainer(logger=MLflowLogger(...))` does, and at the
    end of training the best checkpoint. Errors as those of MLflowLogger."""

    rank_zero_only = True

    def __init__(self, config: MLflowConfig):
        self.logger = config.logger()
        self.finished = False

    def setup(self, trainer, module) -> None:
        self.finished = False
        if self.logger not in trainer.loggers:
            trainer.loggers.append(self.logger)

    def on_train_end(self, trainer, module) -> None:
        self.finished = True

    def teardown(self, trainer, module) -> None:  # once the last checkpoint is there
        if self.finished and (path := best_checkpoint(trainer)):
            self.logger.log_model(path)


def best_checkpoint(trainer) -> Path | None:
    """The best checkpoint of a Trainer, the last one where none is best, None where none is."""
    saver = trainer.checkpoint_callback
    if saver is None:
        return None
    last = saver.folder(trainer) / "last"
    return saver.best_model_path or (last if last.exists() else None)


def fold_group(run: Path) -> str | None:
    """The group of a cross-validation's folds: the name of their folder; None for other runs."""
    return run.parent.name if (run.parent / "folds.json").is_file() else None


def parent_run(folder: Path, made: MLflowLogger) -> MLflowLogger:
    """`made`, as the MLflow run that contains a cross-validation's folds; continues the run that
    mlflow.json in `folder` names, or else writes the file."""
    file = folder / "mlflow.json"
    if file.exists():
        made.load_state_dict(json.loads(file.read_text(encoding="utf-8")))
    made.log_hyperparams({})  # so that the run is there
    write_json(file, made.state_dict())
    return made


def run_loggers(
    tracking: TrackingSettings, run: Path, group: str | None = None, parent: str | None = None
) -> list[Logger]:
    """Loggers of a run folder; ImportError naming one that is not installed.

    Runs of one `group` are shown together in W&B; `parent` is the id of a run in MLflow.
    """
    for library in tracking.loggers:
        if importlib.util.find_spec(library) is None:
            raise MissingPackageError(
                f"tracking.loggers: {library} is not installed: pip install {library}"
            )
    experiment, name = tracking.experiment_name, tracking.run_name or run.name
    loggers: list[Logger] = []
    if "wandb" in tracking.loggers:
        loggers.append(WandbLogger(experiment, name, save_dir=run, group=group))
    if "tensorboard" in tracking.loggers:
        loggers.append(TensorBoardLogger(run, "tensorboard"))
    if "mlflow" in tracking.loggers:
        settings = {key: vars(tracking)[key] for key in MLFLOW_SETTINGS}
        loggers.append(MLflowLogger(experiment, name, parent=parent, **settings))
    return loggers
