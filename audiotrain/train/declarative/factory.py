"""create_trainer: a model and a file of settings become a run.

The settings bring optimizer, schedule, callbacks, loggers and run folder; loss and metrics are the
model's own. The run folder's config.yaml starts the same run again.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import mlx.nn as nn

from audiotrain.config.import_path import imported
from audiotrain.train.declarative.config import CompetitionConfig, TrainerConfig, get_trainer_config
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer
from audiotrain.train.declarative.names import TRAINERS
from audiotrain.train.protocols import CallbackProtocol, check_protocol
from audiotrain.utils.errors import UserError

Kind = TypeVar("Kind", bound=ConfiguredTrainer)


def create_trainer(
    model: nn.Module | Callable[[], nn.Module] | None = None,
    config: str | os.PathLike | Mapping | TrainerConfig = "production",
    callbacks: Sequence[CallbackProtocol | Mapping] = (),
    loss: Callable | None = None,
    **overrides: Any,
) -> ConfiguredTrainer:
    """The trainer of a model by a preset's name, a file, a run folder or a TrainerConfig.

    model: a TrainModule, or a plain nn.Module with a `loss`: `loss(model, x, y)` for batches that
    are tuples, `loss(model, batch)` for others, gives the loss or (loss, dict of metrics). A class,
    or a function without arguments, is called once the seed is set, so that its first weights
    belong to the run; without a model it is `config.model`. callbacks: objects, or dicts with
    their `type` and arguments as in a file, which go into config.yaml. `overrides` are settings
    by name.

    ValueError lists every mistake in the settings, one line each; also without a model, or for one
    without a loss. ImportError for a logger of the settings that is not installed.
    """
    settings, callbacks = read_settings(config, callbacks, overrides)
    kind = trainer_class(settings.trainer, ConfiguredTrainer)
    of_folds = {one.name for one in fields(CompetitionConfig)} - {"competition_name"}
    if settings.trainer == "default" and (unused := sorted(of_folds & set(overrides))):
        raise UserError(
            f"{unused[0]} is a setting of a competition, expected create_competition_trainer or "
            f"trainer='competition'"
        )
    return kind(model, settings, callbacks, loss, stated=tuple(overrides))


def read_settings(
    config: str | os.PathLike | Mapping | TrainerConfig,
    callbacks: Sequence[CallbackProtocol | Mapping],
    overrides: Mapping[str, Any],
) -> tuple[TrainerConfig, list[CallbackProtocol]]:
    """What create_trainer was given: settings, with the callbacks that are dicts, and the others.

    ValueError lists every mistake, one line each.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise UserError(f"callbacks is {callbacks!r:.60}, expected a list of Callbacks or dicts")
    for number, one in enumerate(callbacks, 1):
        if not isinstance(one, Mapping):
            check_protocol(f"callbacks: number {number}", one, CallbackProtocol)
    named = [one for one in callbacks if isinstance(one, Mapping)]
    settings = get_trainer_config(config, **overrides, **({"callbacks": named} if named else {}))
    return settings, [one for one in callbacks if not isinstance(one, Mapping)]


def trainer_class(name: str, base: type[Kind]) -> type[Kind]:
    """The class of `trainer: name`; ValueError where it is no subclass of `base`."""
    kind = TRAINERS.get(name, name)
    if isinstance(kind, str):
        kind = imported(kind, "trainer")
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(f"trainer is {name!r}, expected a {base.__name__}")
    return kind


def register_trainer(name: str, kind: type[ConfiguredTrainer]) -> None:
    """Make `trainer: name` in settings mean this class, a ConfiguredTrainer of one's own.
    ValueError for the names default and competition, which are audiotrain's."""
    if name in ("default", "competition"):
        raise UserError(f"register_trainer: {name!r} is audiotrain's own, take another name")
    TRAINERS[name] = kind
