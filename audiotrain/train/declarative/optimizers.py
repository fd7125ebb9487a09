"""The optimizer and the schedule that settings describe, for one module."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import mlx.optimizers as optim

from audiotrain.config.import_path import called, imported, takes
from audiotrain.train.declarative.config import OptimizerSettings, SchedulerSettings
from audiotrain.train.declarative.names import OPTIMIZERS, SCHEDULERS
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.optimizers import layer_decay, parameter_groups
from audiotrain.train.schedulers import WarmupLinearScheduler
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError

REST, EXEMPT = "rest", "without-decay"  # names of groups


def configured_optimizer(
    module: TrainModule, optimizer: OptimizerSettings, scheduler: SchedulerSettings
) -> OptimizerConfig:
    """The optimizer of an attached module, with its schedule over the run's steps.

    With the type `module` it is the module's own. ValueError naming a setting that cannot be.
    """
    if optimizer.type == "module":
        return module.configure_optimizers()

    def make(share: float, decays: bool) -> optim.Optimizer:
        rate = schedule(scheduler, share * optimizer.learning_rate, module)
        return _optimizer(optimizer, rate, optimizer.weight_decay if decays else 0.0)

    if not (optimizer.no_decay and optimizer.weight_decay) and optimizer.layer_decay == 1:
        return OptimizerConfig(make(1.0, True), scheduler.type)
    rules = {
        name: (paths, make(share, decays))
        for name, (paths, share, decays) in _groups(module, optimizer).items()
    }
    return OptimizerConfig(parameter_groups(module, rules), scheduler.type)


def schedule(
    settings: SchedulerSettings, peak: float, module: TrainModule
) -> float | Callable[..., object]:
    """The rate, or a callable of the optimizer step, whose largest value is `peak`.

    A schedule by import path is called with the rate first, then what its signature names of
    warmup_steps and total_steps, and the options.
    """
    place = "scheduler.options"
    if settings.type == "constant" and not settings.warmup_steps and not settings.warmup_ratio:
        if settings.options:
            raise UserError(f"{place} is {settings.options!r}, but the schedule is constant")
        return peak
    options: dict[str, Any] = {}
    kind: Callable[..., Any]
    if settings.type == "constant":
        kind, options["min_lr"] = WarmupLinearScheduler, peak
    else:
        kind = SCHEDULERS.get(settings.type) or imported(settings.type, "scheduler.type")
    if takes(kind, "total_steps"):
        options["total_steps"] = module.trainer.estimated_total_steps
    if takes(kind, "warmup_steps"):
        warmup = settings.warmup_steps
        if warmup is None and settings.warmup_ratio:
            warmup = round(settings.warmup_ratio * module.trainer.estimated_total_steps)
        options["warmup_steps"] = warmup or 0
    elif settings.warmup_steps or settings.warmup_ratio:
        name = "warmup_steps" if settings.warmup_steps else "warmup_ratio"
        raise UserError(f"scheduler.{name}: {settings.type} has no warm-up, expected 0")
    return called(kind, place, peak, **(options | settings.options))


def _optimizer(settings: OptimizerSettings, rate, weight_decay: float) -> optim.Optimizer:
    kind = OPTIMIZERS.get(settings.type) or imported(settings.type, "optimizer.type")
    options: dict[str, Any] = {}
    if takes(kind, "weight_decay"):
        options["weight_decay"] = weight_decay
    elif settings.weight_decay:
        raise UserError(
            f"optimizer.weight_decay is {settings.weight_decay}, but {settings.type} has none, "
            f"expected 0"
        )
    made = called(kind, "optimizer.options", learning_rate=rate, **(options | settings.options))
    if not isinstance(made, optim.Optimizer):
        raise UserError(f"optimizer.type is {settings.type!r}, a {type(made).__name__}")
    return made


def _groups(module: TrainModule, settings: OptimizerSettings) -> dict:
    """Group -> (names of its parameters, share of the rate, whether their weights decay); first
    those with the full rate, which is the one that logs show."""
    shares = layer_decay(settings.layers, settings.layer_decay) if settings.layers else {}
    paths = list(arrays_of(module.trainable_parameters()))
    for pattern in settings.layers:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UserError(f"optimizer.layers: no trainable parameter fits {pattern!r}")
    groups: dict = {}
    for path in paths:
        layer = next((one for one in settings.layers if fnmatchcase(path, one)), REST)
        decays = not any(fnmatchcase(path, one) for one in settings.no_decay)
        name = layer if decays else f"{layer} {EXEMPT}"
        groups.setdefault(name, ([], shares.get(layer, 1.0), decays))[0].append(path)
    return dict(sorted(groups.items(), key=lambda group: -group[1][1]))
