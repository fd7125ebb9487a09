"""Blocks that transpose with the music: a chord learned in one key is known in all twelve.

Activations are (batch, frames, 12 * channels): `channels` numbers for each pitch class, that class
outermost. Each layer treats the pitch classes alike and sees the others by their interval, so
music transposed by a semitone moves the activations by `channels` and changes nothing else. A
layer is the dense product it is written as, of which one twelfth of the weights is learned.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from audiotrain.models.layers import Dropout

PITCH_CLASSES = 12


def tied(weight: mx.array) -> mx.array:
    """Weights (out, …, 12, in) of pitch class 0 to those of all, (12 * out, …, 12 * in)."""
    out, *between, _, inputs = weight.shape
    twice = mx.concatenate([weight, weight], axis=-2)
    turned = [
        twice[..., PITCH_CLASSES - number : 2 * PITCH_CLASSES - number, :]
        for number in range(PITCH_CLASSES)
    ]
    return mx.stack(turned).reshape(PITCH_CLASSES * out, *between, PITCH_CLASSES * inputs)


def _uniform(shape: tuple[int, ...], fan_in: int) -> mx.array:
    bound = math.sqrt(1 / fan_in)
    return mx.random.uniform(-bound, bound, shape)


class PitchStem(nn.Module):
    """Frames of bins (batch, frames, bins) to (batch, frames / patch, 12 * channels): each pitch
    class sees the bins from its own lowest one on, `patch` frames at a time."""

    def __init__(self, bins: int, bins_per_octave: int, channels: int, patch: int):
        super().__init__()
        if bins_per_octave % PITCH_CLASSES:
            raise ValueError(f"bins_per_octave={bins_per_octave}, expected a multiple of 12")
        if bins < 2 * bins_per_octave:
            raise ValueError(f"{bins} bins, expected two octaves of {bins_per_octave} or more")
        self.step, self.patch = bins_per_octave // PITCH_CLASSES, patch
        self.seen = bins - (PITCH_CLASSES - 1) * self.step
        self.weight = _uniform((channels, patch, self.seen), patch * self.seen)
        self.bias = mx.zeros(channels)

    def __call__(self, x: mx.array) -> mx.array:
        batch, frames, bins = x.shape
        spare = bins - self.seen
        padded = [
            mx.pad(self.weight, ((0, 0), (0, 0), (number * self.step, spare - number * self.step)))
            for number in range(PITCH_CLASSES)
        ]
        weight = mx.stack(padded).reshape(-1, self.patch * bins)
        x = x.reshape(batch, frames // self.patch, self.patch * bins)
        return x @ weight.T + mx.tile(self.bias, PITCH_CLASSES)


class PitchLinear(nn.Module):
    """Linear over (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = _uniform((outputs, PITCH_CLASSES, inputs), PITCH_CLASSES * inputs)
        self.bias = mx.zeros(outputs)

    def __call__(self, x: mx.array) -> mx.array:
        return x @ tied(self.weight).T + mx.tile(self.bias, PITCH_CLASSES)


class PitchConvolution(nn.Module):
    """Convolution over `kernel` frames and (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        fan_in = PITCH_CLASSES * inputs * kernel
        self.weight = _uniform((outputs, kernel, PITCH_CLASSES, inputs), fan_in)
        self.bias = mx.zeros(outputs)

    def __call__(self, x: mx.array) -> mx.array:
        kernel = self.weight.shape[1]
        mixed = mx.conv1d(x, tied(self.weight), padding=kernel // 2)
        return mixed + mx.tile(self.bias, PITCH_CLASSES)


class PitchNorm(nn.Module):
    """Layer norm over pitch classes and channels; scale and offset are a channel's."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = mx.ones(channels), mx.zeros(channels)

    def __call__(self, x: mx.array) -> mx.array:
        weight, bias = (mx.tile(v, PITCH_CLASSES) for v in (self.weight, self.bias))
        return mx.fast.layer_norm(x, weight, bias, 1e-5)


class PitchBlock(nn.Module):
    """Pre-norm residual block: convolution over frames, relu, back."""

    def __init__(self, channels: int, hidden: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = PitchNorm(channels)
        self.inner = PitchConvolution(channels, hidden, kernel)
        self.outer = PitchLinear(hidden, channels)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.dropout(self.outer(nn.relu(self.inner(self.norm(x)))))


class PitchHeads(nn.Module):
    """Logits by head: root and bass note from each pitch class's channels; the chord type from
    those of the root, as far as it is known."""

    def __init__(self, channels: int, types: int, frames: int):
        super().__init__()
        self.types, self.frames = types, frames
        self.linear = nn.Linear(channels, frames * (types + 2))

    def __call__(self, x: mx.array) -> dict[str, mx.array]:
        """(batch, steps, 12 * channels) to logits (batch, steps * frames, classes) by head."""
        batch, steps, width = x.shape
        x = x.reshape(batch, steps, PITCH_CLASSES, width // PITCH_CLASSES)
        logits = self.linear(x).reshape(batch, steps, PITCH_CLASSES, self.frames, self.types + 2)
        logits = logits.swapaxes(2, 3).reshape(
            batch, steps * self.frames, PITCH_CLASSES, self.types + 2
        )
        root, bass, types = logits[..., 0], logits[..., 1], logits[..., 2:]
        share = mx.softmax(root, axis=-1)[..., None]
        return {"chord_type": (share * types).sum(axis=-2), "root": root, "bass_note": bass}
