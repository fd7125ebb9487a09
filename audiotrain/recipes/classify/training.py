"""Training of clip classifiers, of one class a clip or multilabel."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.config import conform
from audiotrain.config.schema import (
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    ShareBelowOne,
    validated,
)
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.models.classifiers import EmbeddingClassifier, MelClassifier
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.optimizers import AdamWSettings
from audiotrain.train.schedulers import WarmupCosineScheduler


@validated
class HeadSettings:
    """The head that is trained on embeddings."""

    hidden: NonNegativeInt = 0
    """width of a hidden layer; 0: none, a linear classifier"""
    dropout: ShareBelowOne = 0.2
    """share of an embedding's numbers that are set to 0 in training"""


@validated(kw_only=True)
class OptimizationSettings(AdamWSettings):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: Positive = 1e-3
    """peak learning rate"""
    warmup_ratio: ShareBelowOne = 0.1
    """share of all steps that warms up"""
    weight_decay: NonNegative = 0.05
    ema_decay: ShareBelowOne = 0.99
    label_smoothing: ShareBelowOne = 0.1
    """share of a target that is spread over all classes, where a clip has one class"""


def make_model(described: Mapping) -> MelClassifier | EmbeddingClassifier:
    """Build the untrained model of a checkpoint's description. UserError for a description of
    another version."""
    classes = len(described["classes"])
    if described["embeddings"] is None:
        sizes = conform(described.get("model"), dict[str, Any], "model")
        return MelClassifier(HTSATConfig(**sizes), classes)
    head = HeadSettings(**conform(described.get("head"), dict[str, Any], "head"))
    width = conform(described.get("width"), PositiveInt, "width")
    return EmbeddingClassifier(width, classes, head.hidden, head.dropout)


class ClassifyTraining(TrainModule):
    """Batches {"input" (batch, ...), "target" (batch, classes) shares of 1} to loss and scores.

    Cross entropy of a softmax where a clip has one class, of sigmoids where it is `multilabel`.
    """

    def __init__(self, model: nn.Module, multilabel: bool, optimization: OptimizationSettings):
        super().__init__()
        self.model = model
        self._multilabel, self._optimization = multilabel, optimization

    def __call__(self, x: mx.array) -> mx.array:
        return self.model(x)

    def compute_loss(self, batch: dict) -> tuple[mx.array, dict[str, mx.array]]:
        logits, targets = self(batch["input"]), batch["target"]
        return self._loss(logits, targets), {"accuracy": accuracy(logits, targets)}

    def validation_step(self, batch: dict) -> dict[str, mx.array]:
        logits, targets = self(batch["input"]), batch["target"]
        return {
            "loss": self._loss(logits, targets),
            "accuracy": accuracy(logits, targets),
            "ranking": ranking_precision(logits, targets),
        }

    def predict_step(self, batch: dict) -> mx.array:
        logits = self(batch["input"])
        return mx.sigmoid(logits) if self._multilabel else mx.softmax(logits, axis=-1)

    def _loss(self, logits: mx.array, targets: mx.array) -> mx.array:
        if self._multilabel:
            return (nn.softplus(logits) - targets * logits).mean()
        share = self._optimization.label_smoothing
        targets = (1 - share) * targets + share / targets.shape[-1]
        return -(targets * nn.log_softmax(logits, axis=-1)).sum(axis=-1).mean()

    def configure_optimizers(self) -> OptimizerConfig:
        settings, steps = self._optimization, self.trainer.estimated_total_steps
        schedule = WarmupCosineScheduler(
            peak_lr=settings.learning_rate,
            warmup_steps=int(steps * settings.warmup_ratio),
            total_steps=steps,
            min_lr=0.0,
        )
        return OptimizerConfig(settings.adamw(schedule), lr_schedule_name="warmup_cosine")


def accuracy(logits: mx.array, targets: mx.array) -> mx.array:
    """Share of clips (batch, classes) whose most probable class is one of theirs; of mixed clips
    that of the larger share."""
    predicted = mx.argmax(logits, axis=-1)
    share = mx.take_along_axis(targets, predicted[:, None], axis=-1)[:, 0]
    return (share >= mx.maximum(targets.max(axis=-1), 1e-6)).mean()


def ranking_precision(logits: mx.array, targets: mx.array) -> mx.array:
    """Label ranking average precision: for each class of a clip, the share of true classes among
    those scored as high or higher. With one class a clip it is the mean of 1 / rank. Clips
    without a class count 1.

    logits and targets (batch, classes).
    """
    above = logits[:, None, :] >= logits[:, :, None]  # (batch, class, classes not below it)
    positive = targets > 0
    precision = (above & positive[:, None, :]).sum(axis=-1) / above.sum(axis=-1)
    count = positive.sum(axis=-1)
    each = (precision * positive).sum(axis=-1) / mx.maximum(count, 1)
    return mx.where(count == 0, 1.0, each).mean()
