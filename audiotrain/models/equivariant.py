"""Blocks that transpose with the music: a chord learned in one key is known in all twelve.

Activations are (batch, frames, 12 * channels): `channels` numbers for each pitch class, that class
outermost. Each layer treats the pitch classes alike and sees the others by their interval, so
music transposed by a semitone moves the activations by `channels` and changes nothing else. A
layer is a dense product of which one twelfth of the weights is learned.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from audiotrain.models.layers import Dropout

PITCH_CLASSES = 12
Product = Callable[[mx.array, mx.array], mx.array]


def tied(weight: mx.array, around: int = 1) -> mx.array:
    """Weights (out, …, classes, in) of pitch class 0 to those of all, (classes * out, …,
    classes * in). `around` -1 changes the sign of what has passed the last class."""
    out, *between, classes, inputs = weight.shape
    twice = mx.concatenate([around * weight, weight], axis=-2)
    turned = [twice[..., classes - number : 2 * classes - number, :] for number in range(classes)]
    return mx.stack(turned).reshape(classes * out, *between, classes * inputs)


def pitch_product(x: mx.array, weight: mx.array, product: Product, halvings: int = 0) -> mx.array:
    """`product(x, tied(weight))` of activations (…, classes * in), linear in both.

    Each of the `halvings` needs half of the multiplications for a part: of classes that lie half
    way around from each other only the sums meet in the sum of an output's two halves, only the
    differences in their difference (x^12 - 1 is (x^6 - 1)(x^6 + 1)).
    """
    if not halvings:
        return product(x, tied(weight))
    middle, half = x.shape[-1] // 2, weight.shape[-2] // 2
    low, high = x[..., :middle], x[..., middle:]  # mx.split breaks mx.compile (MLX 0.32)
    weight_low, weight_high = 0.5 * weight[..., :half, :], 0.5 * weight[..., half:, :]
    sums = pitch_product(low + high, weight_low + weight_high, product, halvings - 1)
    differences = product(low - high, tied(weight_low - weight_high, around=-1))
    return mx.concatenate([sums + differences, sums - differences], axis=-1)


def _halvings(wished: int) -> int:
    """As wished on a CPU, where multiplications count; a GPU rather has one large product."""
    return wished if mx.default_device() == mx.Device(mx.cpu) else 0


class PitchStem(nn.Linear):
    """Frames of bins (batch, frames, bins) to (batch, frames / patch, 12 * channels): each pitch
    class sees the bins from its own lowest one on, `patch` frames at a time."""

    def __init__(self, bins: int, bins_per_octave: int, channels: int, patch: int):
        if bins_per_octave % PITCH_CLASSES:
            raise ValueError(f"bins_per_octave={bins_per_octave}, expected a multiple of 12")
        if bins < 2 * bins_per_octave:
            raise ValueError(f"{bins} bins, expected two octaves of {bins_per_octave} or more")
        step = bins_per_octave // PITCH_CLASSES
        seen = bins - (PITCH_CLASSES - 1) * step
        super().__init__(patch * seen, channels)
        self.step = step
        self.weight = self.weight.reshape(channels, patch, seen)

    def __call__(self, x: mx.array) -> mx.array:
        batch, frames, bins = x.shape
        _, patch, seen = self.weight.shape
        moved = [
            mx.pad(self.weight, ((0, 0), (0, 0), (lowest, bins - seen - lowest)))
            for lowest in range(0, PITCH_CLASSES * self.step, self.step)
        ]
        weight = mx.stack(moved).reshape(-1, patch * bins)
        x = x.reshape(batch, frames // patch, patch * bins)
        return x @ weight.T + mx.tile(self.bias, PITCH_CLASSES)


class PitchLinear(nn.Linear):
    """Linear over (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(PITCH_CLASSES * inputs, outputs)
        self.weight = self.weight.reshape(outputs, PITCH_CLASSES, inputs)

    def __call__(self, x: mx.array) -> mx.array:
        mixed = pitch_product(x, self.weight, lambda x, w: x @ w.T, _halvings(1))
        return mixed + mx.tile(self.bias, PITCH_CLASSES)


class PitchConvolution(nn.Conv1d):
    """Convolution over `kernel` frames and (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(PITCH_CLASSES * inputs, outputs, kernel, padding=kernel // 2)
        self.weight = self.weight.reshape(outputs, kernel, PITCH_CLASSES, inputs)

    def __call__(self, x: mx.array) -> mx.array:
        convolve = partial(mx.conv1d, padding=self.padding)
        mixed = pitch_product(x, self.weight, convolve, _halvings(2))
        return mixed + mx.tile(self.bias, PITCH_CLASSES)


class PitchNorm(nn.LayerNorm):
    """Layer norm over pitch classes and channels; scale and offset are a channel's."""

    def __call__(self, x: mx.array) -> mx.array:
        weight, bias = (mx.tile(v, PITCH_CLASSES) for v in (self.weight, self.bias))
        return mx.fast.layer_norm(x, weight, bias, self.eps)


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


class ChordPool(nn.Module):
    """Residual block that averages features over the chord that each step is part of.

    It learns how likely the chord changes at each step, which is all it takes: with chances p of a
    change, two steps are part of one chord with the product of (1 - p) over the steps from one to
    the other, and that is their weight in the average. So an arpeggio is heard as the chord that
    it is, however long, and its neighbours do not blur it.
    """

    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__()
        self.norm = PitchNorm(channels)
        self.inner = PitchConvolution(channels, hidden, 3)
        self.outer = PitchLinear(2 * hidden, channels)
        self.changing = PitchConvolution(channels, hidden, 5)
        self.change = nn.Linear(hidden, 1)
        self.change.bias = mx.array([-1.5])  # chords change now and then
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(batch, steps, 12 * channels) to the same, and logits (batch, steps) of a change between
        the step before and this one."""
        batch, steps, _ = x.shape
        normed = self.norm(x)
        clues = nn.relu(self.changing(normed)).reshape(batch, steps, PITCH_CLASSES, -1)
        change = self.change(clues.mean(axis=2))[..., 0]
        own = nn.relu(self.inner(normed))
        of_chord = same_chord(change) @ own
        both = [v.reshape(batch, steps, PITCH_CLASSES, -1) for v in (of_chord, own)]
        joined = mx.concatenate(both, axis=-1).reshape(batch, steps, -1)
        return x + self.dropout(self.outer(joined)), change


def same_chord(change: mx.array) -> mx.array:
    """Weights (batch, steps, steps), 1 in each row, from logits (batch, steps) of a change.

    -log(1 - sigmoid(logit)) is softplus(logit), so the product over steps is a difference of sums.
    """
    passed = mx.cumsum(nn.softplus(change), axis=1)
    weights = mx.exp(-mx.abs(passed[:, :, None] - passed[:, None, :]))
    return weights / weights.sum(axis=-1, keepdims=True)


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
        share = mx.softmax(root, axis=-1, precise=True)[..., None]
        return {"chord_type": (share * types).sum(axis=-2), "root": root, "bass_note": bass}
