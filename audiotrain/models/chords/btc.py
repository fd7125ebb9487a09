"""The bi-directional block of BTC (Park et al. 2019, "A Bi-directional Transformer for Musical
Chord Recognition", arXiv:1907.02698): one self-attention sees the past, the other the future.
"""

import mlx.core as mx
import mlx.nn as nn

from audiotrain.models.layers import Attention, LayerNorm


class _Direction(nn.Module):
    """Masked self-attention, then the position-wise convolutional feed-forward, pre-norm."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, dropout: float):
        super().__init__()
        self.attention_norm, self.convolution_norm = LayerNorm(width), LayerNorm(width)
        self.attention = Attention(width, heads)
        self.first = nn.Conv1d(width, hidden, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(hidden, width, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias))
        hidden = self.dropout(nn.relu(self.first(self.convolution_norm(x))))
        return x + self.dropout(nn.relu(self.second(hidden)))


class BidirectionalBlock(nn.Module):
    """Forward and backward direction side by side, joined by a Linear."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, dropout: float):
        super().__init__()
        self.forward = _Direction(width, heads, hidden, kernel, dropout)
        self.backward = _Direction(width, heads, hidden, kernel, dropout)
        self.joined = nn.Linear(2 * width, width)

    def __call__(self, x: mx.array) -> mx.array:
        frames = x.shape[1]
        future = nn.MultiHeadAttention.create_additive_causal_mask(frames)
        both = [self.forward(x, future), self.backward(x, future.T)]
        return self.joined(mx.concatenate(both, axis=-1))


def sinusoids(frames: int, width: int) -> mx.array:
    """The transformer's positions (frames, width): sines, then cosines."""
    rates = mx.exp(mx.arange(width // 2) * (-mx.log(mx.array(10000.0)) / (width // 2 - 1)))
    angles = mx.arange(frames)[:, None] * rates
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)
