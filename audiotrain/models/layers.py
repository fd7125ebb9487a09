"""Blocks that models share: attention, feed-forward, convolution; all (batch, frames, width).

Where an operation is slow on MLX's CPU backend (exp, sigmoid, depthwise convolution), the
docstring of its block names a faster one; results do not depend on the device.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.ops import layer_norm, linear, relu


class Dropout(nn.Module):
    """Dropout of whole channels over all frames of an example: one sample for (batch, 1, width).

    Sampling every element took a tenth of a training step on a CPU; neighbouring frames are
    alike, so dropping them apart regularises little (Tompson et al. 2015, arXiv:1411.4280).
    ValueError unless 0 <= rate < 1.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout={rate}, expected 0 <= dropout < 1")
        self.rate = rate

    def __call__(self, x: mx.array) -> mx.array:
        if self.rate == 0 or not self.training:
            return x
        batch, _, width = x.shape
        kept = mx.random.bernoulli(1 - self.rate, (batch, 1, width))
        return x * mx.contiguous(kept.astype(x.dtype) * (1 / (1 - self.rate)))


class Linear(nn.Linear):
    """Linear whose gradients are fast on a CPU too."""

    def __call__(self, x: mx.array) -> mx.array:
        return linear(x, self.weight, self.bias) if "bias" in self else super().__call__(x)


class LayerNorm(nn.LayerNorm):
    """Over the last axis, fast on a CPU too."""

    def __call__(self, x: mx.array) -> mx.array:
        return layer_norm(x, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Multi-head self-attention over frames.

    `weighting` is "softmax", or "relu": weights max(0, q k) over their sum plus one (as in Wortsman
    et al. 2023, arXiv:2309.08586), which needs no exp and is twice as fast on a CPU. `bias`
    (heads, frames, frames), added to the scores, masks or favours positions. ValueError where
    `heads` do not divide `width`, and for another `weighting`.
    """

    def __init__(self, width: int, heads: int, weighting: str = "softmax"):
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        if weighting not in ("softmax", "relu"):
            raise ValueError(f"weighting={weighting!r}, expected 'softmax' or 'relu'")
        self.heads, self.weighting = heads, weighting
        self.projection_in = nn.Linear(width, 3 * width)
        self.projection_out = nn.Linear(width, width)

    def __call__(self, x: mx.array, bias: mx.array | None = None) -> mx.array:
        batch, frames, width = x.shape
        head_width = width // self.heads
        projected = self.projection_in(x).reshape(batch, frames, 3, self.heads, head_width)
        query, key, value = projected.transpose(2, 0, 3, 1, 4)
        scores = (query * (1 / math.sqrt(head_width))) @ key.swapaxes(-1, -2)
        if bias is not None:
            scores = scores + bias
        if self.weighting == "softmax":
            mixed = mx.softmax(scores, axis=-1, precise=True) @ value
        else:
            weights = mx.maximum(scores, 0)
            mixed = (weights @ value) / (weights.sum(axis=-1, keepdims=True) + 1)
        return self.projection_out(mixed.transpose(0, 2, 1, 3).reshape(batch, frames, width))


class FeedForward(nn.Module):
    """Convolution over `kernel` frames to `hidden`, relu, back to `width`; kernel 1 is a Linear.
    ValueError for an even kernel."""

    def __init__(self, width: int, hidden: int, kernel: int = 1):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel}, expected an odd number of frames")
        self.inner = (
            nn.Linear(width, hidden)
            if kernel == 1
            else nn.Conv1d(width, hidden, kernel, padding=kernel // 2)
        )
        self.outer = nn.Linear(hidden, width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.outer(relu(self.inner(x)))


class EncoderBlock(nn.Module):
    """Pre-norm block: attention (none when `heads` is 0), then feed-forward, both residual.
    ValueError as Attention, FeedForward and Dropout."""

    def __init__(
        self, width: int, heads: int, hidden: int, kernel: int, dropout: float, weighting: str
    ):
        super().__init__()
        if heads:
            self.attention_norm = LayerNorm(width)
            self.attention = Attention(width, heads, weighting)
        self.heads = heads
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, kernel)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array) -> mx.array:
        if self.heads:
            x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class ConvolutionModule(nn.Module):
    """The conformer's: pointwise with gate, depthwise over `kernel` frames, norm, silu, pointwise.

    LayerNorm takes the place of BatchNorm. Depthwise convolution is 18-28 times slower than
    PyTorch's on MLX's CPU backend.
    """

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.gated = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = LayerNorm(width)
        self.pointwise = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.gated(x), 2, axis=-1)
        return self.pointwise(nn.silu(self.norm(self.depthwise(value * mx.sigmoid(gate)))))


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm (arXiv:2005.08100).
    ValueError as Attention and Dropout."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, dropout: float):
        super().__init__()
        self.norms = [LayerNorm(width) for _ in range(5)]
        self.first, self.second = FeedForward(width, hidden), FeedForward(width, hidden)
        self.attention = Attention(width, heads)
        self.convolution = ConvolutionModule(width, kernel)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + 0.5 * self.dropout(self.first(self.norms[0](x)))
        x = x + self.dropout(self.attention(self.norms[1](x)))
        x = x + self.dropout(self.convolution(self.norms[2](x)))
        x = x + 0.5 * self.dropout(self.second(self.norms[3](x)))
        return self.norms[4](x)
