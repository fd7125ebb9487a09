"""Softmax, GELU and attention: MLX's own kernels on a GPU, polynomials on a CPU.

MLX computes exp and erf on a CPU one number at a time. Polynomials of additions and products become
vector code under mx.compile: softmax is 4 times, GELU 15 times as fast, to 1e-6.
"""

import math
import shutil
from functools import cache
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

EXP2 = [math.log(2) ** n / math.factorial(n) for n in range(7)]  # Taylor's, for |x| <= 1/2
ROUNDING = 1.5 * 2**23  # added to a float32 and taken away, it leaves the nearest whole number


class Odd(NamedTuple):
    """An odd function as x P(x^2) / Q(x^2), lowest power first, fitted for |x| up to `end`."""

    end: float
    p: tuple[float, ...]
    q: tuple[float, ...]


# Share of the normal distribution below x, less 1/2; error 4e-9 before rounding.
SHARE = Odd(
    5.3,
    (0.398942254, 0.0329358572, 0.00462799867, 0.000160335371, 6.3790765e-06, 2.40502866e-08),
    (1.0, 0.24922418, 0.028138868, 0.00183657634, 7.1352654e-05, 1.23716907e-06),
)
# Derivative of GELU, less 1/2; error 1e-7.
SLOPE = Odd(
    5.6,
    (0.797885345, -0.0309753587, 0.0142260685, 1.9751331e-05, 3.58992871e-05, 1.92167273e-07),
    (1.0, 0.294519578, 0.0409837411, 0.00352263749, 0.000192051804, 8.92817054e-06),
)


def softmax(x: mx.array) -> mx.array:
    """Softmax over the last axis, summed in float32; gives `x`'s type."""
    if _by_polynomials(x):
        return _softmax(x)
    return mx.softmax(x, axis=-1, precise=True)


def gelu(x: mx.array) -> mx.array:
    """x times the normal distribution's share below x, exact (not the tanh approximation)."""
    if _by_polynomials(x):
        return _gelu(x)
    if mx.default_device() == mx.cpu:  # nn.gelu is compiled, which takes a compiler there
        return x * (1 + mx.erf(x * math.sqrt(0.5))) / 2
    return nn.gelu(x)


def attend(
    query: mx.array,
    key: mx.array,
    value: mx.array,
    bias: mx.array | None = None,
    dropout: nn.Dropout | None = None,
) -> mx.array:
    """Values mixed by softmax(query key / sqrt(width) + bias): (…, heads, tokens, width) each.

    `bias` broadcasts to (…, heads, tokens, tokens). `dropout` is applied to the weights.
    """
    scale = 1 / math.sqrt(query.shape[-1])
    bias = None if bias is None else bias.astype(query.dtype)
    drops = dropout is not None and dropout.training
    if mx.default_device() != mx.cpu and query.ndim == 4 and not drops:
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=bias)
    scores = (query * scale) @ key.swapaxes(-1, -2)
    weights = softmax(scores if bias is None else scores + bias)
    return (dropout(weights) if drops else weights) @ value


@cache
def _compiler() -> bool:
    return shutil.which("g++") is not None


def _by_polynomials(x: mx.array) -> bool:
    return x.dtype == mx.float32 and mx.default_device() == mx.cpu and _compiler()


# Below, few steps follow on each other: MLX makes one kernel of 11 at most.


def _exp(x: mx.array) -> mx.array:
    """exp(x) for x up to 88: 2^rest, and the whole powers of two added to its exponent bits."""
    x = mx.maximum(x * math.log2(math.e), -125.0)
    whole = (x + ROUNDING) - ROUNDING
    x = x - whole
    c0, c1, c2, c3, c4, c5, c6 = EXP2
    square = x * x
    high = ((c4 + c5 * x) + c6 * square) * (square * square)
    power = ((c0 + c1 * x) + (c2 + c3 * x) * square) + high
    bits = mx.view(power, mx.int32) + mx.left_shift(whole.astype(mx.int32), 23)
    return mx.view(bits, mx.float32)


def _times_half_plus(factor: mx.array, x: mx.array, odd: Odd) -> mx.array:
    """factor (1/2 + odd(x)), for |x| up to 1e7."""
    x = 0.5 * (mx.abs(x + odd.end) - mx.abs(x - odd.end))  # clipped; comparisons end vector code
    square = x * x
    fourth = square * square
    eighth = fourth * fourth
    p, q = (
        ((c0 + c1 * square) + (c2 + c3 * square) * fourth) + (c4 + c5 * square) * eighth
        for c0, c1, c2, c3, c4, c5 in (odd.p, odd.q)
    )
    return 0.5 * factor + (factor * x) * (p / q)


@mx.compile
def _exp_difference(x: mx.array, y: mx.array) -> mx.array:
    return _exp(x - y)


@mx.compile
def _softmax_gradient(weights: mx.array, weighted: mx.array, cotangent: mx.array) -> mx.array:
    return weights * (cotangent - weighted)


@mx.custom_function
def _softmax(x: mx.array) -> mx.array:
    exponentials = _exp_difference(x, mx.max(x, axis=-1, keepdims=True))
    return exponentials / mx.sum(exponentials, axis=-1, keepdims=True)


@_softmax.vjp
def _(_, cotangent: mx.array, weights: mx.array) -> mx.array:
    weighted = mx.sum(weights * cotangent, axis=-1, keepdims=True)
    return _softmax_gradient(weights, weighted, cotangent)


@mx.compile
def _gelu_value(x: mx.array) -> mx.array:
    return _times_half_plus(x, x, SHARE)


@mx.compile
def _gelu_gradient(x: mx.array, cotangent: mx.array) -> mx.array:
    return _times_half_plus(cotangent, x, SLOPE)


@mx.custom_function
def _gelu(x: mx.array) -> mx.array:
    return _gelu_value(x)


@_gelu.vjp
def _(x: mx.array, cotangent: mx.array, _) -> mx.array:
    return _gelu_gradient(x, cotangent)
