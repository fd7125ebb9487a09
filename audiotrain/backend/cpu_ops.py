"""Exponentials, softmax, GELU, relu, linear, layer norm and attention: on a GPU MLX's own kernels,
on a CPU what is fast there.

MLX computes exp and erf on a CPU one number at a time. Polynomials of additions and products become
vector code under mx.compile: softmax is 4 times, GELU 15 times as fast, to 1e-6. A compiled kernel
also computes anew, for each number that it writes, what it broadcasts (the root of a variance), and
a comparison there (relu) branches: both are written around here.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.streams import cut, part

EXP2 = [math.log(2) ** n / math.factorial(n) for n in range(7)]  # Taylor's, for |x| <= 1/2
LEAST = -80.0  # power of 2 that exp ends at: products of less are denormal, a hundred times as slow
LONG = 2**17  # numbers of an operation that is worth one more for a view of what it broadcasts
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


def exp(x: mx.array) -> mx.array:
    """e to the power of `x`, up to 88; on a CPU 1e-24 is the least that it gives."""
    return _exponential(x) if _by_polynomials(x) else mx.exp(x)


def logsumexp(x: mx.array) -> mx.array:
    """Logarithm of the sum of exp(x) over the last axis, which goes."""
    return _logsumexp(x) if _by_polynomials(x) else mx.logsumexp(x, axis=-1)


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


def relu(x: mx.array) -> mx.array:
    """max(x, 0); on a CPU without the branch that MLX's has where a bias is added in one go."""
    return _relu(x) if on_cpu(x) else nn.relu(x)


def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x (…, in) times weight (out, in) transposed, plus bias (out,). On a CPU the bias is added
    afterwards, since MLX's addmm first writes it to each row, which takes longer; and its gradient
    is a product, too, which takes half as long as MLX's sum."""
    return _linear(x, weight, bias) if on_cpu(x) else mx.addmm(bias, x, weight.T)


def add_bias(x: mx.array, bias: mx.array) -> mx.array:
    """x (…, width) plus bias (width,), whose gradient on a CPU is a product, see `linear`."""
    return _add_bias(x, bias) if on_cpu(x) else x + bias


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """Layer norm over the last axis: mean 0, variance 1, times `weight`, plus `bias` (width,)."""
    if on_cpu(x):
        return _layer_norm(x, weight, bias, mx.array(eps))
    return mx.fast.layer_norm(x, weight, bias, eps)


def attend(
    query: mx.array,
    key: mx.array,
    value: mx.array,
    bias: mx.array | None = None,
    dropout: nn.Dropout | None = None,
) -> mx.array:
    """Values mixed by softmax(query key / sqrt(width) + bias): (…, heads, tokens, width) each.

    `bias` broadcasts to (…, heads, tokens, tokens). `dropout` is applied to the weights. On a GPU
    queries of four axes take MLX's fused attention, which has no gradient for a bias.
    """
    scale = 1 / math.sqrt(query.shape[-1])
    bias = None if bias is None else bias.astype(query.dtype)
    drops = dropout is not None and dropout.training
    if mx.default_device() != mx.cpu and query.ndim == 4 and not drops:
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=bias)
    scores = (query * scale) @ key.swapaxes(-1, -2)
    weights = softmax(scores if bias is None else scores + bias)
    return (dropout(weights) if drops else weights) @ value


def with_gradient(gradient: Callable) -> Callable:
    """Decorator of a function that `gradient(inputs, cotangents, outputs)` differentiates, on the
    stream that the function was called on (mx.custom_function's own computes on the default)."""

    def decorated(function: Callable) -> Callable:
        @wraps(function)
        def call(*inputs):
            stream = mx.default_stream(mx.default_device())

            def backward(*given):
                with mx.stream(stream):
                    return gradient(*given)

            custom = mx.custom_function(function)
            custom.vjp(backward)
            return custom(*inputs)

        return call

    return decorated


@cache
def _compiler() -> bool:
    return shutil.which("g++") is not None


def on_cpu(x: mx.array) -> bool:
    """Whether what is written here for a CPU computes `x`: float32, and no GPU is the default."""
    return x.dtype == mx.float32 and mx.default_device() == mx.Device(mx.cpu)


def _by_polynomials(x: mx.array) -> bool:
    return on_cpu(x) and _compiler()


# Below, few steps follow on each other: MLX makes one kernel of 11 at most.


def _exp(x: mx.array) -> mx.array:
    """exp(x) for x up to 88: 2^rest, and the whole powers of two added to its exponent bits."""
    x = mx.maximum(x * math.log2(math.e), LEAST)
    whole = (x + ROUNDING) - ROUNDING
    x = x - whole
    c0, c1, c2, c3, c4, c5, c6 = EXP2
    square = x * x
    high = ((c4 + c5 * x) + c6 * square) * (square * square)
    power = ((c0 + c1 * x) + (c2 + c3 * x) * square) + high
    bits = mx.view(power, mx.int32) + mx.left_shift(whole.astype(mx.int32), 23)
    return mx.view(bits, mx.float32)


def _of_twice(coefficients: Sequence[float]) -> list[float]:
    """Of a polynomial of x^2 those of the one that has its values for twice x."""
    return [c / 4**n for n, c in enumerate(coefficients)]


def _times_half_plus(factor: mx.array, x: mx.array, odd: Odd) -> mx.array:
    """factor (1/2 + odd(x)), for |x| up to 1e7."""
    x = mx.abs(x + odd.end) - mx.abs(x - odd.end)  # twice x, clipped; comparisons end vector code
    square = x * x
    fourth = square * square
    eighth = fourth * fourth
    p, q = (
        ((c0 + c1 * square) + (c2 + c3 * square) * fourth) + (c4 + c5 * square) * eighth
        for c0, c1, c2, c3, c4, c5 in (_of_twice(odd.p), _of_twice(odd.q))
    )
    return factor * (q + x * p) / (q + q)


def _apart(function: Callable) -> Callable:
    """Decorator of a compiled function of arrays, element by element: on each stream of a thread it
    computes with arrays of another shape.

    MLX joins equal parts of a compiled step though they be on different streams, and so what it
    fills with a number (constants are arrays, too). The other stream's kernels would then read
    whole arrays of one number, at half the speed. All streams have as many operations in a row, so
    that MLX hands them out in turns.
    """

    @wraps(function)
    def call(*arrays: mx.array) -> mx.array:
        axes = [1] * part()
        if not axes:
            return function(*arrays)
        out = function(*(array.reshape(*axes, *array.shape) for array in arrays))
        return out.reshape(out.shape[len(axes) :])

    return call


@_apart
@mx.compile
def _exp_difference(x: mx.array, y: mx.array) -> mx.array:
    return _exp(x - y)


@with_gradient(lambda _, cotangent, out: cotangent * out)
def _exponential(x: mx.array) -> mx.array:
    return _exp_difference(x, mx.array(0.0))


def _exponentials(x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Of the last axis the most, exponentials of what each number is below it, and their sum."""
    most = mx.max(x, axis=-1, keepdims=True)
    exponentials = _exp_difference(x, most)
    return most, exponentials, mx.sum(exponentials, axis=-1, keepdims=True)


def _logsumexp_gradient(x: mx.array, cotangent: mx.array, _) -> mx.array:
    _, exponentials, total = _exponentials(x)
    return exponentials * mx.contiguous(cotangent[..., None] / total)


@with_gradient(_logsumexp_gradient)
def _logsumexp(x: mx.array) -> mx.array:
    most, _, total = _exponentials(x)
    return (most + mx.log(total)).squeeze(-1)


@mx.compile
def _softmax_slope(weights: mx.array, weighted: mx.array, cotangent: mx.array) -> mx.array:
    return weights * (cotangent - weighted)


def _softmax_gradient(_, cotangent: mx.array, weights: mx.array) -> mx.array:
    weighted = mx.sum(weights * cotangent, axis=-1, keepdims=True)
    return _softmax_slope(weights, weighted, cotangent)


@with_gradient(_softmax_gradient)
def _softmax(x: mx.array) -> mx.array:
    _, exponentials, total = _exponentials(x)
    return exponentials / _repeated(total, x.shape)


@_apart
@mx.compile
def _gelu_value(x: mx.array) -> mx.array:
    return _times_half_plus(x, x, SHARE)


@_apart
@mx.compile
def _gelu_slope(x: mx.array, cotangent: mx.array) -> mx.array:
    return _times_half_plus(cotangent, x, SLOPE)


@with_gradient(lambda x, cotangent, _: _gelu_slope(x, cotangent))
def _gelu(x: mx.array) -> mx.array:
    return _gelu_value(x)


# mx.contiguous copies nothing here: it ends a kernel, so that what stands before it is computed
# once for each row and not once for each number of the row.


def _repeated(x: mx.array, shape: tuple[int, ...]) -> mx.array:
    """`x` broadcast to `shape`, for one operation alone. mx.compile makes a kernel even of one and
    its broadcast, which takes up to twice as long as the operation by itself where it is long."""
    if math.prod(shape) < LONG:
        return x
    ones = (1,) * (len(shape) - x.ndim)
    steps, step = [], 1
    for size in (*ones, *x.shape)[::-1]:
        steps.append(0 if size == 1 else step)
        step *= size
    return mx.as_strided(x, shape, steps[::-1])


@_apart
def _relu_value(x: mx.array) -> mx.array:
    return 0.5 * (x + mx.abs(x))


@_apart
def _relu_slope(out: mx.array, cotangent: mx.array) -> mx.array:
    return cotangent * (out > 0)


@with_gradient(lambda _, cotangent, out: _relu_slope(out, cotangent))
def _relu(x: mx.array) -> mx.array:
    return _relu_value(x)


def sum_of_rows(x: mx.array) -> mx.array:
    """(…, width) summed to (width,)."""
    rows = x.reshape(-1, x.shape[-1])
    return (mx.ones((1, len(rows))) @ rows).squeeze(0)


@with_gradient(lambda _, cotangent, __: (cotangent, sum_of_rows(cotangent)))
def _add_bias(x: mx.array, bias: mx.array) -> mx.array:
    return x + _repeated(bias, x.shape)


def _weights_gradient(known: list[tuple[mx.array, mx.array]]) -> mx.array:
    cotangents, inputs = (mx.concatenate(rows) for rows in zip(*known, strict=True))
    return cotangents.T @ inputs


def _linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    whole, known = cut(), None
    outputs, inputs = weight.shape
    if whole and len(whole.streams) * x.size // inputs * (inputs + outputs) < 2 * weight.size:
        weight, known = whole.share(weight, _weights_gradient)

    def gradient(given: tuple, cotangent: mx.array, _) -> tuple:
        x, weight, _ = given
        of_bias = sum_of_rows(cotangent)
        pair = cotangent.reshape(-1, outputs), x.reshape(-1, inputs)
        if known is None:
            return cotangent @ weight, _weights_gradient([pair]), of_bias
        known.append(pair)
        return cotangent @ weight, mx.zeros_like(weight), of_bias  # zeros that nobody reads

    @with_gradient(gradient)
    def affine(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
        out = x @ weight.T
        return out + _repeated(bias, out.shape)

    return affine(x, weight, bias)


def _centred(x: mx.array, eps: mx.array) -> tuple[mx.array, mx.array]:
    """Rows less their mean (rows, width), and one over their deviation (rows, 1)."""
    mean = mx.full((x.shape[-1], 1), 1 / x.shape[-1])  # products are the fastest sums
    centred = mx.contiguous(x - mx.contiguous(x @ mean))
    return centred, mx.contiguous(mx.rsqrt(centred * centred @ mean + eps))


def _layer_norm_gradient(given: tuple, cotangent: mx.array, _) -> tuple:
    x, weight, bias, eps = given
    width = x.shape[-1]
    centred, scale = _centred(x.reshape(-1, width), eps)
    cotangent = cotangent.reshape(-1, width)
    times = mx.contiguous(cotangent * centred)
    share = (weight / width)[:, None]
    offset = mx.contiguous((cotangent @ share) * scale)
    slope = mx.contiguous((times @ share) * (scale * scale * scale))
    of_x = cotangent * weight * scale - offset - centred * slope
    of_weight = (scale.T @ times).squeeze(0)
    return of_x.reshape(x.shape), of_weight, sum_of_rows(cotangent), mx.zeros_like(eps)


@with_gradient(_layer_norm_gradient)
def _layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: mx.array) -> mx.array:
    centred, scale = _centred(x.reshape(-1, x.shape[-1]), eps)
    return (centred * scale * weight + bias).reshape(x.shape)
