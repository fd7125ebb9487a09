"""A whole training run as one file: groups of settings, presets, overrides by name.

Groups and keys are the same in YAML, JSON and Python. What is off is None, 0 or empty.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audiotrain.config import cli as files
from audiotrain.config.yaml_files import no_preset, preset_names
from audiotrain.train.arguments import seconds
from audiotrain.train.declarative.names import CALLBACKS, OPTIMIZERS, SCHEDULERS, TRAINERS
from audiotrain.utils.text import nearest

PRESETS = Path(__file__).parent / "presets"
ALSO = {"kaggle": "competition"}  # other names of groups


def _check(*conditions: tuple[bool, str]) -> None:
    """ValueError with a line for each condition that does not hold."""
    problems = [told for holds, told in conditions if not holds]
    if problems:
        raise ValueError("\n".join(problems))


def _above(name: str, value: float | None, least: float = 0) -> tuple[bool, str]:
    """The check that a number is above `least`, or is None."""
    return value is None or value > least, f"{name} is {value!r}, expected above {least}"


def _finite(name: str, value: float) -> tuple[bool, str]:
    """The check that a number is not infinite."""
    return not math.isinf(value), f"{name} is {value!r}, expected a finite number"


def _batches(name: str, limit: int | float | None, least: int) -> tuple[bool, str]:
    """The check of a number of batches, `least` or more, or a share of them."""
    share = isinstance(limit, float)
    return (
        limit is None or (0 < limit <= 1 if share else limit >= least),
        f"{name} is {limit!r}, expected {least} or more batches, or a share above 0.0 to 1.0",
    )


def _named(setting: str, name: Any, known: Iterable[str]) -> tuple[bool, str]:
    """The check that a name is a known one, or an import path, which has a dot."""
    known, name = list(known), str(name)
    return (
        "." in name or name in known,
        f"{setting} is {name!r}{nearest(name, known)}, expected one of {', '.join(known)} or an "
        f"import path",
    )


def _time(limit: float | str | None) -> tuple[bool, str]:
    """The check of max_time."""
    try:
        seconds(limit)
    except ValueError as error:
        return False, str(error)
    return True, ""


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer, and rates and weight decay by groups of parameters."""

    type: str = "adamw"
    """one of MLX's in small letters, an import path, or `module`: its own configure_optimizers"""
    learning_rate: float = 1e-3
    """peak of the schedule"""
    weight_decay: float = 0.0
    """of optimizers that have it"""
    no_decay: tuple[str, ...] = ()
    """patterns of parameters without weight decay: '*bias', '*norm*'"""
    layers: tuple[str, ...] = ()
    """patterns of layers from the input to the output, for `layer_decay`: 'layers.0.*'"""
    layer_decay: float = 1.0
    """share that each of `layers` has of the next one's rate; all others have the full one"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments of the optimizer: {betas: [0.9, 0.98]}"""

    def __post_init__(self):
        _check(
            _named("optimizer.type", self.type, [*OPTIMIZERS, "module"]),
            _above("learning_rate", self.learning_rate),
            _finite("learning_rate", self.learning_rate),
            _finite("weight_decay", self.weight_decay),
            (self.weight_decay >= 0, f"weight_decay is {self.weight_decay!r}, expected 0 or more"),
            (
                0 < self.layer_decay <= 1,
                f"layer_decay is {self.layer_decay!r}, expected above 0 and at most 1",
            ),
            (
                self.layer_decay == 1 or bool(self.layers),
                f"layer_decay is {self.layer_decay!r}, but layers, which it is for, is empty",
            ),
        )


@dataclass(frozen=True)
class SchedulerSettings:
    """The learning rate over the optimizer steps."""

    type: str = "constant"
    """constant, cosine, linear, one_cycle, step, exponential, or an import path"""
    warmup_ratio: float = 0.0
    """share of all steps in which the rate rises"""
    warmup_steps: int | None = None
    """the same as a number; goes before `warmup_ratio`"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments: {min_lr: 1e-6}, {step_size: 100, gamma: 0.5}, {decay_rate: 0.999}"""

    def __post_init__(self):
        ratio, steps = self.warmup_ratio, self.warmup_steps
        _check(
            _named("scheduler.type", self.type, ["constant", *SCHEDULERS]),
            (0 <= ratio < 1, f"warmup_ratio is {ratio!r}, expected 0 or more and below 1"),
            (steps is None or steps >= 0, f"warmup_steps is {steps!r}, expected 0 or more"),
        )


@dataclass(frozen=True)
class DataSettings:
    """Loaders of the datasets that `train` is given; a loader that it is given has its own."""

    batch_size: int = 32
    """items of a batch, for each process under mlx.launch"""
    num_workers: int = 0
    """threads that prepare batches"""
    shuffle: bool = True
    """train in another order in each epoch"""

    def __post_init__(self):
        workers = self.num_workers
        _check(
            _above("batch_size", self.batch_size),
            (workers >= 0, f"num_workers is {workers!r}, expected 0 or more"),
        )


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """When training ends because it does not get better; `true` or `false` is `enabled`."""

    enabled: bool = False
    monitor: str | None = None
    """metric; nothing: training's best_metric with its best_mode"""
    mode: Literal["min", "max"] | None = None
    """whether less is better; nothing: training's best_mode"""
    patience: int = 5
    """validations without improvement"""
    min_delta: float = 0.0
    """least difference that is one"""

    def __post_init__(self):
        _check(
            _above("patience", self.patience),
            (self.min_delta >= 0, f"min_delta is {self.min_delta!r}, expected 0 or more"),
        )


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how exactly, what is kept."""

    num_epochs: int | None = 10
    max_steps: int | None = None
    """optimizer steps; goes before `num_epochs`"""
    max_time: float | str | None = None
    """seconds, or days:hours:minutes:seconds"""
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    eval_steps: int | None = None
    """steps between validations with eval_strategy `steps`"""
    best_metric: str = "val_loss"
    """metric by which checkpoints/best is chosen"""
    best_mode: Literal["min", "max"] = "min"
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)
    save_best_only: bool = False
    """write no checkpoints/last, so that a stopped run cannot be continued"""
    gradient_accumulation_steps: int = 1
    gradient_clip: float | None = None
    """largest norm of the gradients"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    ema_decay: float | None = None
    """of a running average of the weights, which is validated and saved"""
    limit_train_batches: int | float | None = None
    """batches of an epoch: a number, or a share such as 0.1"""
    limit_val_batches: int | float | None = None
    log_steps: int = 50
    """optimizer steps between rows of the log"""
    progress: bool = True
    """show a progress bar and the model's size"""
    seed: int = 42
    """of weights, order, dropout"""
    output_dir: Path | None = None
    """run folder; nothing: runs/NAME-DATE-TIME"""

    def __post_init__(self):
        ends = (self.num_epochs, self.max_steps, self.max_time)
        steps = self.eval_strategy == "steps"
        _check(
            (ends != (None, None, None), "num_epochs, max_steps or max_time must be given"),
            _above("num_epochs", self.num_epochs),
            _above("max_steps", self.max_steps),
            _time(self.max_time),
            _above("eval_steps", self.eval_steps),
            (
                not steps or self.eval_steps is not None,
                "eval_strategy is 'steps', but eval_steps is not given",
            ),
            (
                steps or self.eval_steps is None,
                f"eval_steps is {self.eval_steps}, but eval_strategy is {self.eval_strategy!r}, "
                f"expected 'steps'",
            ),
            _above("gradient_accumulation_steps", self.gradient_accumulation_steps),
            _above("gradient_clip", self.gradient_clip),
            (
                self.ema_decay is None or 0 <= self.ema_decay < 1,
                f"ema_decay is {self.ema_decay!r}, expected 0 or more and below 1",
            ),
            _batches("limit_train_batches", self.limit_train_batches, 1),
            _batches("limit_val_batches", self.limit_val_batches, 0),
            _above("log_steps", self.log_steps),
            (self.seed >= 0, f"seed is {self.seed!r}, expected 0 or more"),
        )


@dataclass(frozen=True)
class CompetitionConfig:
    """Cross-validation and submission, for `create_competition_trainer`."""

    competition_name: str | None = None
    cv_folds: int = 5
    """models, each trained without one part of the groups"""
    enable_ensemble: bool = True
    """predict by all folds' models; otherwise by that of the best fold"""
    ensemble_method: Literal["mean", "geometric", "majority"] = "mean"
    """how the folds' predictions are joined; the last two expect probabilities (items, classes)"""
    sample_submission: Path | None = None
    """CSV whose columns, ids and order a submission has"""

    def __post_init__(self):
        _check(_above("cv_folds", self.cv_folds, 1))


@dataclass(frozen=True)
class TrackingSettings:
    """Where numbers, settings and models go besides the run folder."""

    loggers: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ()
    experiment_name: str = "audiotrain"
    """MLflow's experiment, W&B's project"""
    run_name: str | None = None
    """nothing: the run folder's name"""
    tracking_uri: str | None = None
    """MLflow's server or sqlite:///FILE; nothing: MLFLOW_TRACKING_URI"""
    log_models: bool = False
    """keep the best checkpoint in MLflow"""
    register_model: bool = False
    """and register it there as a version of `model_name`"""
    model_name: str | None = None

    def __post_init__(self):
        _check(
            (
                not self.register_model or self.model_name is not None,
                "register_model is true, but model_name is not given",
            ),
            (
                not (self.register_model or self.log_models) or "mlflow" in self.loggers,
                "log_models or register_model is true, but loggers does not have 'mlflow'",
            ),
        )


@dataclass(frozen=True)
class TrainerConfig:
    """Everything that a run is made of but the data, and, when Python gives it, the model."""

    trainer: str = "default"
    """default, competition, one that register_trainer named, or an import path"""
    model: dict[str, Any] = field(default_factory=dict)
    """{type: import.path.Model, …its arguments}, for create_trainer without a model"""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    competition: CompetitionConfig = field(default_factory=CompetitionConfig)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    callbacks: tuple[dict[str, Any], ...] = ()
    """each {type: import.path.Class or a built-in one's name, …its arguments}"""

    def __post_init__(self):
        kinds = {
            f"callbacks: number {number}": one.get("type")
            for number, one in enumerate(self.callbacks, 1)
        }
        _check(
            _named("trainer", self.trainer, TRAINERS),
            ("type" in self.model or not self.model, "model has no type, an import path"),
            *(
                _named(f"{place}: type", kind, CALLBACKS)
                if isinstance(kind, str)
                else (False, f"{place} has no type, an import path")
                for place, kind in kinds.items()
            ),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write all settings as YAML, or JSON where `path` ends so."""
        files.save(self, path)


def get_trainer_config(
    config: "str | os.PathLike | Mapping | TrainerConfig" = "development", **overrides: Any
) -> TrainerConfig:
    """Settings from a preset's name, a YAML or JSON file, a run folder, a dict or settings.

    `overrides` go over them by name: `learning_rate=1e-5`, `early_stopping=True`,
    `optimizer={"type": "lion"}`, `**{"scheduler.type": "cosine"}`. ValueError lists every mistake,
    one line each.

    >>> get_trainer_config("production", batch_size=64).data.batch_size
    64
    """
    if isinstance(config, TrainerConfig):
        return files.read(config, overrides, also=ALSO)
    if isinstance(config, Mapping):
        return files.read(TrainerConfig(), config, overrides, also=ALSO)
    if not isinstance(config, str | os.PathLike):
        raise ValueError(
            f"config is {config!r:.60}, expected a preset's name, a file, a run folder, a dict or "
            f"a TrainerConfig"
        )
    file = _file(config)
    return files.read(TrainerConfig(), overrides, files=[file], presets=PRESETS, also=ALSO)


def _file(name: str | os.PathLike) -> Path:
    """The file of a preset's name, a path or a run folder; ValueError when there is none."""
    path, known = Path(name), preset_names(PRESETS)
    if isinstance(name, str) and name in known:
        return PRESETS / f"{name}.yaml"
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise ValueError(f"{path}: no config.yaml, so this is no run folder")
        return path / "config.yaml"
    if isinstance(name, str) and not path.suffix and len(path.parts) == 1:
        raise ValueError(f"config: {no_preset(name, known)}, or a file or run folder")
    return path
