"""Models and losses as training modules."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.config.import_path import called, imported
from audiotrain.train.declarative.config import TrainerConfig
from audiotrain.train.module import TrainModule
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

HEADS = (
    "binary_classification",
    "multiclass_classification",
    "multilabel_classification",
    "regression",
)


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


class HeadModule(TrainModule):
    """A model that gives logits (items, outputs), with the loss, the metrics and the predictions of
    `head_type`, one of HEADS. ValueError for another.

    Batches are (x, targets), or dicts whose `labels` are the targets and whose other entries are
    arguments of the model. Targets are 0 or 1 (items,) for binary_classification, class numbers
    (items,) for multiclass_classification, 0 and 1 (items, outputs) for multilabel_classification,
    numbers (items,) for regression. Predictions are probabilities (numbers for regression), of
    the shape of the targets, of classes (items, outputs).
    """

    def __init__(self, model: nn.Module, head_type: str):
        super().__init__()
        if head_type not in HEADS:
            hint = nearest(head_type, HEADS)
            raise UserError(f"head_type is {head_type!r}{hint}, expected one of {', '.join(HEADS)}")
        self.model, self.head_type = model, head_type

    def __call__(self, *inputs, **named):
        logits = self.model(*inputs, **named)
        return logits[:, 0] if self.head_type in ("binary_classification", "regression") else logits

    def compute_loss(self, batch: Any) -> tuple[mx.array, dict[str, mx.array]]:
        if isinstance(batch, Mapping):
            inputs, targets = {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
            logits = self(**inputs)
        else:
            logits, targets = self(batch[0]), batch[1]
        if self.head_type == "regression":
            return mx.mean((logits - targets) ** 2), {}
        if self.head_type == "multiclass_classification":
            loss = nn.losses.cross_entropy(logits, targets, reduction="mean")
            return loss, {"accuracy": mx.mean(mx.argmax(logits, axis=-1) == targets)}
        loss = nn.losses.binary_cross_entropy(logits, targets, reduction="mean")
        return loss, {"accuracy": mx.mean((logits > 0) == (targets > 0.5))}

    def predict_step(self, batch: Any) -> mx.array:
        if isinstance(batch, Mapping):
            logits = self(**{name: array for name, array in batch.items() if name != "labels"})
        else:
            logits = super().predict_step(batch)
        if self.head_type == "multiclass_classification":
            return mx.softmax(logits, axis=-1)
        return logits if self.head_type == "regression" else mx.sigmoid(logits)


def as_module(model, config: TrainerConfig, loss: Callable | None) -> TrainModule:
    """The TrainModule of what create_trainer was given; made with the run's seed if it is made."""
    mx.random.seed(config.training.seed)
    if model is None:
        if not config.model:
            raise UserError("no model: give one to create_trainer, or `model: {type: …}`")
        options = {name: value for name, value in config.model.items() if name != "type"}
        model = called(imported(config.model["type"], "model.type"), "model", **options)
    elif not isinstance(model, nn.Module):
        model = model()
    if loss is not None and isinstance(model, TrainModule):
        raise UserError(f"{type(model).__name__} has a loss of its own: give no other one")
    if loss is not None and isinstance(model, nn.Module):
        return LossModule(model, loss)
    if not isinstance(model, TrainModule):
        raise UserError(
            f"model is a {type(model).__name__}, expected a TrainModule, or an nn.Module and a "
            f"loss=function(model, x, y)"
        )
    return model
