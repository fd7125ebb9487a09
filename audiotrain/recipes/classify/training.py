"""Training of clip classifiers, of one class a clip or multilabel."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from audiotrain.models.clap.config import HTSATConfig
from audiotrain.models.classifiers import EmbeddingClassifier, MelClassifier
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.schedulers import WarmupCosineScheduler


@dataclass(frozen=True)
class HeadSettings:
    """The head that is trained on embeddings."""

    hidden: int = 0
    """width of a hidden layer; 0: none, a linear classifier"""
    dropout: float = 0.2
    """share of an embedding's numbers that are left out in training"""


@dataclass(frozen=True)
class OptimizationSettings:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """peak learning rate"""
    warmup_ratio: float = 0.1
    """share of all steps that warms up"""
    weight_decay: float = 0.05
    """decoupled weight decay"""
    gradient_clip: float = 1.0
    """largest norm of the gradients"""
    beta2: float = 0.98
    """decay of AdamW's second moment"""
    ema_decay: float = 0.99
    """decay of the averaged weights that validation and prediction use; 0: none"""
    label_smoothing: float = 0.1
    """share of a target that goes to all classes, where a clip has one class"""

    def __post_init__(self):
        for name in ("warmup_ratio", "ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected 0 or more and below 1")
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}, expected more than 0")


def make_model(described: Mapping) -> MelClassifier | EmbeddingClassifier:
    """The untrained model of a checkpoint's description. KeyError, TypeError or ValueError for a
    description of another version."""
    classes = len(described["classes"])
    if described["embeddings"] is None:
        return MelClassifier(HTSATConfig(**_tuples(described["model"])), classes)
    head = HeadSettings(**described["head"])
    return EmbeddingClassifier(described["width"], classes, head.hidden, head.dropout)


def _tuples(plain: Mapping) -> dict:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}


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
        chosen, steps = self._optimization, self.trainer.estimated_total_steps
        schedule = WarmupCosineScheduler(
            peak_lr=chosen.learning_rate,
            warmup_steps=int(steps * chosen.warmup_ratio),
            total_steps=steps,
            min_lr=0.0,
        )
        optimizer = optim.AdamW(
            learning_rate=schedule, betas=[0.9, chosen.beta2], weight_decay=chosen.weight_decay
        )
        return OptimizerConfig(optimizer=optimizer, lr_schedule_name="warmup_cosine")


def accuracy(logits: mx.array, targets: mx.array) -> mx.array:
    """Share of clips (batch, classes) whose likeliest class is one of theirs; of mixed clips
    that of the larger share."""
    likeliest = mx.argmax(logits, axis=-1)
    share = mx.take_along_axis(targets, likeliest[:, None], axis=-1)[:, 0]
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
