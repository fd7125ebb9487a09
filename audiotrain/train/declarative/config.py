"""A whole training run as one file: groups of settings, presets, overrides by name.

Groups and keys are the same in YAML, JSON and Python. What is off is None, 0 or empty.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from audiotrain import config as files
from audiotrain.config.schema import (
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveShare,
    ShareBelowOne,
    validated,
)
from audiotrain.config.yaml_files import preset_file, preset_names
from audiotrain.train.arguments import Batches, BatchesOrNone, TimeLimit
from audiotrain.train.declarative.names import CALLBACKS, OPTIMIZERS, SCHEDULERS, TRAINERS
from audiotrain.train.ensembling import Join
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

PRESETS = Path(__file__).parent / "presets"
ALSO = {"kaggle": "competition"}  # other names of groups


def _check_name(name: str, known: Collection[str]) -> str:
    """A name that is known, or an import path, which has a dot."""
    if "." not in name and name not in known:
        expected = f"expected one of {', '.join(known)} or an import path"
        raise UserError(f"found {name!r}{nearest(name, list(known))}, {expected}")
    return name


def _known(names: Collection[str]) -> AfterValidator:
    return AfterValidator(lambda name: _check_name(name, names))


def _with_type(settings: dict[str, Any]) -> dict[str, Any]:
    """A dict without settings, or with a `type`."""
    if settings and not isinstance(settings.get("type"), str):
        raise UserError("no type, expected an import path")
    return settings


def _callback(settings: dict[str, Any]) -> dict[str, Any]:
    """A dict whose `type` is a known callback or an import path."""
    _check_name(_with_type(settings or {"type": None})["type"], CALLBACKS)
    return settings


Transform = Annotated[str, Field(pattern=r"\.", description="an import path")] | None
TypedSettings = Annotated[dict[str, Any], AfterValidator(_with_type)]
CallbackSettings = Annotated[dict[str, Any], AfterValidator(_callback)]


@validated
class OptimizerSettings:
    """The optimizer, and rates and weight decay by groups of parameters. ValueError, a line for
    each value that cannot be, and for `layer_decay` without `layers`."""

    type: Annotated[str, _known([*OPTIMIZERS, "module"])] = "adamw"
    """one of MLX's in small letters, an import path, or `module`: its own configure_optimizers"""
    learning_rate: Positive = 1e-3
    """peak of the schedule"""
    weight_decay: NonNegative = 0.0
    """of optimizers that have it"""
    no_decay: tuple[str, ...] = ()
    """patterns of parameters without weight decay: '*bias', '*norm*'"""
    layers: tuple[str, ...] = ()
    """patterns of layers from the input to the output, for `layer_decay`: 'layers.0.*'"""
    layer_decay: PositiveShare = 1.0
    """share that each of `layers` has of the next one's rate; all others have the full one"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments of the optimizer: {betas: [0.9, 0.98]}"""

    def __post_init__(self):
        if self.layer_decay != 1 and not self.layers:
            raise UserError(
                f"layer_decay={self.layer_decay}, but layers, which it is for, is empty"
            )


@validated
class SchedulerSettings:
    """The learning rate over the optimizer steps."""

    type: Annotated[str, _known(["constant", *SCHEDULERS])] = "constant"
    """constant, cosine, linear, one_cycle, step, exponential, or an import path"""
    warmup_ratio: ShareBelowOne = 0.0
    """share of all steps in which the rate rises"""
    warmup_steps: NonNegativeInt | None = None
    """the same as a number; goes before `warmup_ratio`"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments: {min_lr: 1e-6}, {step_size: 100, gamma: 0.5}, {decay_rate: 0.999}"""


@validated
class DataSettings:
    """Loaders of the datasets that `train` is given; a loader that it is given has its own."""

    batch_size: PositiveInt = 32
    """items of a batch, for each process under mlx.launch"""
    num_workers: NonNegativeInt = 0
    """threads that prepare batches"""
    shuffle: bool = True
    """train in another order in each epoch"""
    tta: tuple[Transform, ...] = ()
    """test-time augmentation: import paths of functions batch -> batch, and null for the batch as
    it is, whose predictions are averaged"""


@validated
class EarlyStoppingSettings:
    """When training ends because it does not get better; `true` or `false` is `enabled`."""

    enabled: bool = False
    monitor: str | None = None
    """metric; default: training's best_metric with its best_mode"""
    mode: Literal["min", "max"] | None = None
    """whether less is better; default: training's best_mode"""
    patience: PositiveInt = 5
    """validations without improvement"""
    patience_unit: Literal["validation", "epoch"] = "validation"
    """what `patience` counts"""
    min_delta: NonNegative = 0.0
    """least difference that is one"""


@validated
class TrainingSettings:
    """Length and precision of training, validation, checkpoints. ValueError, a line for each value
    that cannot be, without a length, and unless `eval_steps` is given for eval_strategy "steps"
    alone."""

    num_epochs: PositiveInt | None = 10
    max_steps: PositiveInt | None = None
    """optimizer steps; goes before `num_epochs`"""
    max_time: TimeLimit | None = None
    """seconds, or days:hours:minutes:seconds"""
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    eval_steps: PositiveInt | None = None
    """steps between validations with eval_strategy `steps`"""
    best_metric: str = "val_loss"
    """metric by which checkpoints/best is chosen"""
    best_mode: Literal["min", "max"] = "min"
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)
    save_best_only: bool = False
    """write no checkpoints/last, so that a stopped run cannot be continued"""
    gradient_accumulation_steps: PositiveInt = 1
    gradient_clip: Positive | None = None
    """largest norm of the gradients"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    ema_decay: ShareBelowOne | None = None
    """of a running average of the weights, which is validated and saved"""
    limit_train_batches: Batches | None = None
    """batches of an epoch: a number, or a share such as 0.1"""
    limit_val_batches: BatchesOrNone | None = None
    log_steps: PositiveInt = 50
    """optimizer steps between rows of the log"""
    progress: bool = True
    """show a progress bar and the model's size"""
    seed: NonNegativeInt = 42
    """of weights, order, dropout"""
    output_dir: Path | None = None
    """run folder; default: runs/NAME-DATE-TIME"""

    def __post_init__(self):
        problems = []
        if self.num_epochs is None and self.max_steps is None and self.max_time is None:
            problems.append("num_epochs, max_steps or max_time must be given")
        if self.eval_strategy == "steps" and self.eval_steps is None:
            problems.append("eval_strategy is 'steps', but eval_steps is not given")
        if self.eval_strategy != "steps" and self.eval_steps is not None:
            problems.append(
                f"eval_steps is {self.eval_steps}, but eval_strategy is {self.eval_strategy!r}, "
                f"expected 'steps'"
            )
        if problems:
            raise UserError("\n".join(problems))


@validated
class CompetitionConfig:
    """Cross-validation and submission, for `create_competition_trainer`."""

    competition_name: str | None = None
    cv_folds: Annotated[int, Field(ge=2)] = 5
    """models, each trained without one part of the groups"""
    enable_ensemble: bool = True
    """predict by all folds' models; otherwise by that of the best fold"""
    ensemble_method: Join = "mean"
    """how the folds' predictions are joined: mean, geometric, majority; by weights (blend) or a
    stacked model (stack) that are fitted on out-of-fold predictions. All but mean expect
    probabilities"""
    pseudo_rounds: NonNegativeInt = 0
    """rounds in which the folds train on pseudo-labelled test data, too"""
    pseudo_threshold: PositiveShare = 0.9
    """smallest calibrated probability of a pseudo-label"""
    sample_submission: Path | None = None
    """CSV whose columns, ids and order a submission has"""
    id_column: str = "id"
    """name of the ids in a submission without a sample"""
    columns: tuple[str, ...] = ()
    """names of what the model predicts, in their order"""
    values: Literal["probabilities", "labels", "numbers"] = "probabilities"
    """what a submission has of the predictions; labels: 1 for a probability above 0.5, of
    several classes the number of the most probable one"""


@validated
class TrackingSettings:
    """Loggers of metrics, settings and models, besides the run folder. ValueError, a line for each
    value that cannot be, for models to log without mlflow, and to register without a name."""

    loggers: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ()
    experiment_name: str = "audiotrain"
    """MLflow's experiment, W&B's project"""
    run_name: str | None = None
    """default: the run folder's name"""
    tracking_uri: str | None = None
    """MLflow's server or sqlite:///FILE; default: MLFLOW_TRACKING_URI"""
    log_models: bool = False
    """keep the best checkpoint in MLflow"""
    register_model: bool = False
    """and register it there as a version of `model_name`"""
    model_name: str | None = None

    def __post_init__(self):
        problems = []
        if self.register_model and self.model_name is None:
            problems.append("register_model is true, but model_name is not given")
        if (self.register_model or self.log_models) and "mlflow" not in self.loggers:
            problems.append(
                "log_models or register_model is true, but loggers does not have 'mlflow'"
            )
        if problems:
            raise UserError("\n".join(problems))


@validated
class TrainerConfig:
    """Everything that a run is made of but the data, and, when Python gives it, the model."""

    trainer: Annotated[str, _known(TRAINERS)] = "default"
    """default, competition, one that register_trainer named, or an import path"""
    model: TypedSettings = field(default_factory=dict)
    """{type: import.path.Model, …its arguments}, for create_trainer without a model"""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    competition: CompetitionConfig = field(default_factory=CompetitionConfig)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    callbacks: tuple[CallbackSettings, ...] = ()
    """each {type: import.path.Class or a built-in one's name, …its arguments}"""

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
        raise UserError(
            f"config is {config!r:.60}, expected a preset's name, a file, a run folder, a dict or "
            f"a TrainerConfig"
        )
    file = _file(config)
    return files.read(TrainerConfig(), overrides, files=[file], presets=PRESETS, also=ALSO)


def _file(name: str | os.PathLike) -> Path:
    """The file of a preset's name, a path or a run folder; ValueError when there is none."""
    path = Path(name)
    if name in preset_names(PRESETS):
        return PRESETS / f"{name}.yaml"
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path}: no config.yaml, so this is no run folder")
        return path / "config.yaml"
    if isinstance(name, str) and not path.suffix and len(path.parts) == 1:
        try:
            return preset_file(name, PRESETS)
        except UserError as error:
            raise UserError(f"config: {error}, or a file or run folder") from None
    return path
