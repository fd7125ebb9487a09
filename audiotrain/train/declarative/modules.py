"""Models and losses as training modules."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.config.import_path import called, imported
from audiotrain.train.declarative.config import TrainerConfig
from audiotrain.train.module import TrainModule


class LossModule(TrainModule):
    """A plain nn.Module with a loss function: see `create_trainer`."""

    def __init__(self, model: nn.Module, loss: Callable):
        super().__init__()
        self.model, self.loss = model, loss

    def __call__(self, *inputs):
        return self.model(*inputs)

    def compute_loss(self, batch: Any) -> tuple[mx.array, dict[str, mx.array]]:
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        value = self.loss(self.model, *parts)
        return value if isinstance(value, tuple) else (value, {})


def as_module(model, config: TrainerConfig, loss: Callable | None) -> TrainModule:
    """The TrainModule of what create_trainer was given; made with the run's seed if it is made."""
    mx.random.seed(config.training.seed)
    if model is None:
        if not config.model:
            raise ValueError("no model: give one to create_trainer, or `model: {type: …}`")
        options = {name: value for name, value in config.model.items() if name != "type"}
        model = called(imported(config.model["type"], "model.type"), "model", **options)
    elif not isinstance(model, nn.Module):
        model = model()
    if loss is not None and isinstance(model, TrainModule):
        raise ValueError(f"{type(model).__name__} has a loss of its own: give no other one")
    if loss is not None and isinstance(model, nn.Module):
        return LossModule(model, loss)
    if not isinstance(model, TrainModule):
        raise ValueError(
            f"model is a {type(model).__name__}, expected a TrainModule, or an nn.Module and a "
            f"loss=function(model, x, y)"
        )
    return model
