"""Clip classifiers and their training: one class or several a clip, from log-mel or embeddings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain.backend.buffers import Buffered
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.models.clap.htsat import HTSAT
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.schedulers import WarmupCosineScheduler


@dataclass(frozen=True)
class HeadSettings:
    """What is trained on embeddings."""

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


class MelClassifier(nn.Module):
    """An HTSAT tower and a linear layer: log-mel (batch, 1, frames, mels) in dB to logits."""

    def __init__(self, config: HTSATConfig, classes: int):
        super().__init__()
        self.tower = HTSAT(config)
        self.tower.batch_norm.freeze()  # it keeps the statistics of the training clips
        self.head = nn.Linear(config.hidden_size, classes)

    def __call__(self, mel: mx.array) -> mx.array:
        return self.head(self.tower(mel))

    def take_statistics(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """What the input is normed by, (mels,) each, in dB."""
        norm = self.tower.batch_norm
        norm.running_mean = mx.array(mean.astype(np.float32))
        norm.running_var = mx.array(np.square(deviation).astype(np.float32))


class EmbeddingClassifier(Buffered):
    """A linear layer, or two, over embeddings (batch, width) normed to the training clips'."""

    BUFFERS = ("mean", "deviation")

    def __init__(self, width: int, settings: HeadSettings, classes: int):
        super().__init__()
        self.mean, self.deviation = mx.zeros((width,)), mx.ones((width,))
        self.dropout = nn.Dropout(settings.dropout)
        sizes = [width, *([settings.hidden] if settings.hidden else []), classes]
        self.layers = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
        self.freeze(recurse=False, keys=list(self.BUFFERS))

    def __call__(self, embedding: mx.array) -> mx.array:
        x = (embedding - self.mean) / self.deviation
        for layer in self.layers[:-1]:
            x = nn.relu(layer(self.dropout(x)))
        return self.layers[-1](self.dropout(x))

    def take_statistics(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """What embeddings are normed by, (width,) each."""
        self.mean = mx.array(mean.astype(np.float32))
        self.deviation = mx.array(np.maximum(deviation, 1e-6).astype(np.float32))


def make_model(described: Mapping) -> MelClassifier | EmbeddingClassifier:
    """The untrained model that a checkpoint's description names. KeyError, TypeError or ValueError
    for the description of another version."""
    classes = len(described["classes"])
    if described["embeddings"] is None:
        return MelClassifier(HTSATConfig(**_tuples(described["model"])), classes)
    return EmbeddingClassifier(described["width"], HeadSettings(**described["head"]), classes)


def _tuples(plain: Mapping) -> dict:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}


class ClassifyTraining(TrainModule):
    """Batches {"input" (batch, ...), "target" (batch, classes) shares of 1} to loss and scores.

    Cross entropy of softmax where a clip has one class, of sigmoids where it may have several.
    """

    def __init__(self, model: nn.Module, several: bool, optimization: OptimizationSettings):
        super().__init__()
        self.model = model
        self._several, self._optimization = several, optimization

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
        return mx.sigmoid(logits) if self._several else mx.softmax(logits, axis=-1)

    def _loss(self, logits: mx.array, targets: mx.array) -> mx.array:
        if self._several:
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
    """Share of clips (batch, classes) whose first class is one of theirs; of mixed clips the main
    one's."""
    first = mx.argmax(logits, axis=-1)
    own = mx.take_along_axis(targets, first[:, None], axis=-1)[:, 0]
    return (own >= mx.maximum(targets.max(axis=-1), 1e-6)).mean()


def ranking_precision(logits: mx.array, targets: mx.array) -> mx.array:
    """Label ranking average precision: for each class of a clip, the share of its classes among
    those not below it. With one class a clip, the mean of 1 / rank. Clips without a class count 1.

    logits and targets (batch, classes).
    """
    above = logits[:, None, :] >= logits[:, :, None]  # of each class, those not below it
    right = targets > 0
    precision = (above & right[:, None, :]).sum(axis=-1) / above.sum(axis=-1)
    count = right.sum(axis=-1)
    each = (precision * right).sum(axis=-1) / mx.maximum(count, 1)
    return mx.where(count == 0, 1.0, each).mean()
