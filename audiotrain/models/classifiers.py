"""Classifiers: a tower over log-mel spectrograms or tokens, or a head over embeddings."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.backend.buffers import Buffered
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.clap.htsat import HTSAT
from audiotrain.models.clap.roberta import RoBERTa


class MelClassifier(nn.Module):
    """An HTSAT tower and a linear layer: log-mel (batch, 1, frames, mels) in dB to logits
    (batch, classes)."""

    def __init__(self, config: HTSATConfig, classes: int):
        super().__init__()
        self.tower = HTSAT(config)
        self.tower.batch_norm.freeze()  # it keeps the statistics of the training clips
        self.head = nn.Linear(config.hidden_size, classes)

    def __call__(self, mel: mx.array) -> mx.array:
        return self.head(self.tower(mel))

    def take_statistics(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Set the mean and deviation, (mels,) each, in dB, that normalise the input."""
        norm = self.tower.batch_norm
        norm.running_mean = mx.array(mean.astype(np.float32))
        norm.running_var = mx.array(np.square(deviation).astype(np.float32))


class TextClassifier(nn.Module):
    """A RoBERTa tower and a linear layer: tokens (batch, tokens) to logits (batch, classes)."""

    def __init__(self, config: RoBERTaConfig, classes: int):
        super().__init__()
        self.tower = RoBERTa(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.head = nn.Linear(config.hidden_size, classes)

    def __call__(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        return self.head(self.dropout(self.tower(input_ids, attention_mask)))


class EmbeddingClassifier(Buffered):
    """One or two linear layers over embeddings (batch, width), normalised by the statistics of the
    training clips, to logits (batch, classes). `hidden` is the width of a hidden layer, 0: none."""

    BUFFERS = ("mean", "deviation")

    def __init__(self, width: int, classes: int, hidden: int = 0, dropout: float = 0.0):
        super().__init__()
        self.mean, self.deviation = mx.zeros((width,)), mx.ones((width,))
        self.dropout = nn.Dropout(dropout)
        sizes = [width, *([hidden] if hidden else []), classes]
        self.layers = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
        self.freeze(recurse=False, keys=list(self.BUFFERS))

    def __call__(self, embedding: mx.array) -> mx.array:
        x = (embedding - self.mean) / self.deviation
        for layer in self.layers[:-1]:
            x = nn.relu(layer(self.dropout(x)))
        return self.layers[-1](self.dropout(x))

    def take_statistics(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Set the mean and deviation, (width,) each, that normalise embeddings."""
        self.mean = mx.array(mean.astype(np.float32))
        self.deviation = mx.array(np.maximum(deviation, 1e-6).astype(np.float32))
