"""Blocks that transpose with the music: a chord learned in one key is known in all twelve.

Activations are (batch, frames, 12 * channels): `channels` numbers for each pitch class, that class
outermost. Each layer treats the pitch classes alike and sees the others by their interval, so
music transposed by a semitone moves the activations by `channels` and changes nothing else. A
layer is a dense product of which one twelfth of the weights is learned.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.backend.ops import (
    add_bias,
    convolve,
    exp,
    from_weight,
    halves_products,
    layer_norm,
    relu,
    softmax,
    sum_of_rows,
    with_gradient,
)
from audiotrain.models.layers import Dropout

PITCH_CLASSES = 12
SIGNS = (1, -1)
Product = Callable[[mx.array, mx.array], mx.array]


# fold and unfold are each other's gradient, which is faster than the gradient of a slice.


def _fold_gradient(_, cotangent: mx.array, __) -> mx.array:
    return unfold(cotangent)


@with_gradient(_fold_gradient)
def fold(x: mx.array) -> mx.array:
    """Sum and difference of the last axis's halves (…, 2 * half), as (2, …, half)."""
    half = x.shape[-1] // 2
    return x[..., :half] + _signs(x, x.ndim + 1, 0) * x[..., half:]


@with_gradient(lambda _, cotangent, __: fold(cotangent))
def unfold(x: mx.array) -> mx.array:
    """Of (2, …, half) sum and difference, one after the other, as (…, 2 * half)."""
    return _both(x).reshape(*x.shape[1:-1], -1)


def _both(x: mx.array) -> mx.array:
    """Of (2, …, half) sum and difference, (…, 2, half)."""
    x = mx.moveaxis(x, 0, -2)
    return x[..., :1, :] + _signs(x, x.ndim, -2) * x[..., 1:, :]


def _signs(like: mx.array, axes: int, along: int) -> mx.array:
    """1 and -1 along one of so many axes."""
    return mx.array(np.moveaxis(np.reshape(SIGNS, (2, *[1] * (axes - 1))), 0, along), like.dtype)


@with_gradient(lambda _, cotangent, __: (fold(cotangent), sum_of_rows(cotangent).reshape(2, -1)))
def unfold_and_add(x: mx.array, bias: mx.array) -> mx.array:
    """`unfold` of (2, …, half) plus bias (2, half)."""
    return (_both(x) + bias).reshape(*x.shape[1:-1], -1)


def tied(weight: mx.array) -> mx.array:
    """Weights (kinds, out, …, classes, in) of pitch class 0 to those of all, (kinds, …, classes *
    in, classes * out). In the second kind, the sign changes past the last class."""
    kinds, out, *between, classes, inputs = shape = weight.shape
    number = np.arange(classes)
    interval = number[:, None] - number  # to an input's class (rows) from an output's
    back = (number + number[:, None]) % classes * classes + number  # pairs, by interval
    passed = (interval < 0) & (np.arange(kinds) == 1)[:, None, None]
    signs = mx.array(np.where(passed, -1, 1).reshape(-1, 1), weight.dtype)

    def rows(of_kind: np.ndarray, count: int) -> mx.array:
        return mx.array((np.arange(kinds)[:, None] * count + of_kind.reshape(-1)).reshape(-1))

    def untie(_, cotangent: mx.array, __) -> mx.array:
        pairs = cotangent.reshape(kinds, -1, classes, inputs, classes, out)
        pairs = pairs.transpose(0, 2, 4, 1, 3, 5).reshape(kinds * classes**2, -1) * signs
        total = pairs[rows(back, classes**2)].reshape(kinds * classes, classes, -1).sum(axis=1)
        total = total.reshape(kinds, classes, -1, inputs, out)
        return total.transpose(0, 4, 2, 1, 3).reshape(shape)

    @with_gradient(untie)
    def tie(weight: mx.array) -> mx.array:
        weight = weight.reshape(kinds, out, -1, classes, inputs).transpose(0, 3, 2, 4, 1)
        pairs = weight.reshape(kinds * classes, -1)[rows(interval % classes, classes)] * signs
        pairs = pairs.reshape(kinds, classes, classes, -1, inputs, out).transpose(0, 3, 1, 4, 2, 5)
        return pairs.reshape(kinds, *between, classes * inputs, classes * out)

    return tie(weight)


def pitch_product(
    x: mx.array, weight: mx.array, bias: mx.array, product: Product, halve: bool = False
) -> mx.array:
    """`product(x, weight)` of activations (…, classes * in) with weights (out, …, classes, in) that
    are `tied`, linear in both, plus bias (out,) in each class.

    With `halve` it takes half of the multiplications: of classes that lie half way around from each
    other only the sums meet in the sum of an output's two halves, only the differences in their
    difference (x^12 - 1 is (x^6 - 1)(x^6 + 1)). Then `product` is given both, along a first axis.
    A GPU rather has one large product.
    """
    if not halve:
        return product(x, tied(weight[None])[0]) + _of_all(bias)
    return unfold_and_add(
        product(fold(x), from_weight(_halves, weight)), from_weight(_of_halves, bias)
    )


def _halves(weight: mx.array) -> mx.array:
    """What a weight (out, …, classes, in) does to sums and to differences: (2, …, classes / 2 * in,
    classes / 2 * out)."""
    *axes, classes, inputs = weight.shape
    folded = fold(0.5 * weight.reshape(*axes, -1))
    return tied(folded.reshape(2, *axes, classes // 2, inputs))


def _of_all(channels: mx.array) -> mx.array:
    """(channels,) once for each pitch class."""
    return mx.tile(channels, PITCH_CLASSES)


def _of_halves(channels: mx.array) -> mx.array:
    """(channels,) once for each pitch class of either half: (2, 6 * channels)."""
    return mx.tile(channels, (2, PITCH_CLASSES // 2))


def _product(x: mx.array, weight: mx.array) -> mx.array:
    """(…, batch, time, in) by (…, in, out)."""
    rows = x.reshape(*x.shape[:-3], -1, x.shape[-1]) @ weight
    return rows.reshape(*x.shape[:-1], -1)


class PitchStem(nn.Linear):
    """Frames of bins (batch, frames, bins) to (batch, frames / patch, 12 * channels): each pitch
    class sees the bins from its own lowest one on, `patch` frames at a time.

    The map is linear; a layer of `hidden` units, with relu, is added to it where there are any.
    ValueError unless 12 divides `bins_per_octave`, and for bins of less than two octaves.
    """

    def __init__(self, bins: int, bins_per_octave: int, channels: int, patch: int, hidden: int = 0):
        if bins_per_octave % PITCH_CLASSES:
            raise ValueError(f"bins_per_octave={bins_per_octave}, expected a multiple of 12")
        if bins < 2 * bins_per_octave:
            raise ValueError(f"{bins} bins, expected two octaves of {bins_per_octave} or more")
        step = bins_per_octave // PITCH_CLASSES
        seen = bins - (PITCH_CLASSES - 1) * step
        super().__init__(patch * seen, hidden + channels)
        self.step, self.hidden = step, hidden
        self.weight = self.weight.reshape(hidden + channels, patch, seen)
        if hidden:
            self.outer = nn.Linear(hidden, channels)

    def __call__(self, x: mx.array) -> mx.array:
        batch, frames, bins = x.shape
        _, patch, seen = self.weight.shape
        moved = [
            mx.pad(self.weight, [(0, 0), (0, 0), (lowest, bins - seen - lowest)])
            for lowest in range(0, PITCH_CLASSES * self.step, self.step)
        ]
        weight = mx.stack(moved).reshape(-1, patch * bins)
        x = x.reshape(batch, frames // patch, patch * bins)
        x = add_bias(x @ weight.T, from_weight(_of_all, self.bias))
        if not self.hidden:
            return x
        x = x.reshape(batch, frames // patch, PITCH_CLASSES, -1)
        units, linear = x[..., : self.hidden], x[..., self.hidden :]
        return (linear + self.outer(relu(units))).reshape(batch, frames // patch, -1)


class PitchLinear(nn.Linear):
    """Linear over (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(PITCH_CLASSES * inputs, outputs)
        self.weight = self.weight.reshape(outputs, PITCH_CLASSES, inputs)

    def __call__(self, x: mx.array) -> mx.array:
        return pitch_product(x, self.weight, self.bias, _product, halves_products(x))


class PitchConvolution(nn.Conv1d):
    """Convolution over `kernel` frames and (pitch class, channel), alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(PITCH_CLASSES * inputs, outputs, kernel, padding=kernel // 2)
        self.weight = self.weight.reshape(outputs, kernel, PITCH_CLASSES, inputs)

    def __call__(self, x: mx.array) -> mx.array:
        return pitch_product(x, self.weight, self.bias, convolve, halves_products(x))


class PitchNorm(nn.LayerNorm):
    """Layer norm over pitch classes and channels; scale and offset are a channel's."""

    def __call__(self, x: mx.array) -> mx.array:
        weight, bias = (from_weight(_of_all, values) for values in (self.weight, self.bias))
        return layer_norm(x, weight, bias, self.eps)


class PitchBlock(nn.Module):
    """Pre-norm residual block: convolution over frames, relu, back; (batch, frames, 12 * channels).
    ValueError unless 0 <= dropout < 1."""

    def __init__(self, channels: int, hidden: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = PitchNorm(channels)
        self.inner = PitchConvolution(channels, hidden, kernel)
        self.outer = PitchLinear(hidden, channels)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.dropout(self.outer(relu(self.inner(self.norm(x)))))


class ChordPool(nn.Module):
    """Residual block that averages features over the chord that each step is part of.

    It learns how likely the chord changes at each step, which is all it takes: with chances p of a
    change, two steps are part of one chord with the product of (1 - p) over the steps from one to
    the other, and that is their weight in the average. So the notes of an arpeggio are
    averaged over the whole chord, and its neighbours do not blur it. ValueError unless
    0 <= dropout < 1.
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
        clues = relu(self.changing(normed)).reshape(batch, steps, PITCH_CLASSES, -1)
        change = self.change(clues.mean(axis=2))[..., 0]
        hidden = relu(self.inner(normed))
        of_chord = same_chord(change) @ hidden
        both = [v.reshape(batch, steps, PITCH_CLASSES, -1) for v in (of_chord, hidden)]
        joined = mx.concatenate(both, axis=-1).reshape(batch, steps, -1)
        return x + self.dropout(self.outer(joined)), change


def same_chord(change: mx.array) -> mx.array:
    """Weights (batch, steps, steps), 1 in each row, from logits (batch, steps) of a change.

    -log(1 - sigmoid(logit)) is softplus(logit), so the product over steps is a difference of sums.
    """
    passed = mx.cumsum(nn.softplus(change), axis=1)
    weights = exp(-mx.abs(passed[:, :, None] - passed[:, None, :]))
    return weights / weights.sum(axis=-1, keepdims=True)


class PitchHeads(nn.Module):
    """Logits by head: root and bass note from each pitch class's channels; the chord type's of each
    root from those of the root, and their mean over roots, as likely as they are."""

    def __init__(self, channels: int, types: int, frames: int):
        super().__init__()
        self.types, self.frames = types, frames
        self.linear = nn.Linear(channels, frames * (types + 2))

    def __call__(self, x: mx.array) -> dict[str, mx.array]:
        """(batch, steps, 12 * channels) to logits (batch, steps * frames, classes) by head, and
        "chord_type_of_root" (batch, steps * frames, 12, types)."""
        batch, steps, width = x.shape
        x = x.reshape(batch, steps, PITCH_CLASSES, width // PITCH_CLASSES)
        weight = self.linear.weight.reshape(self.frames, self.types + 2, -1)
        bias = self.linear.bias.reshape(self.frames, self.types + 2)
        notes = x @ weight[:, :2].reshape(2 * self.frames, -1).T + bias[:, :2].reshape(-1)
        notes = notes.reshape(batch, steps, PITCH_CLASSES, self.frames, 2).transpose(4, 0, 1, 3, 2)
        root, bass = notes.reshape(2, batch, steps * self.frames, PITCH_CLASSES)
        of_root = mx.einsum("bsrc,ftc->bsfrt", x, weight[:, 2:]) + bias[:, None, 2:]
        of_root = of_root.reshape(*root.shape, self.types)
        types = types_of(softmax(root), of_root)
        logits = {"chord_type": types, "root": root, "bass_note": bass}
        return logits | {"chord_type_of_root": of_root}


def types_of(roots: mx.array, of_root: mx.array) -> mx.array:
    """Means (…, types) of logits (…, 12, types) with the shares (…, 12) of the roots."""
    return (roots[..., None] * of_root).sum(axis=-2)
