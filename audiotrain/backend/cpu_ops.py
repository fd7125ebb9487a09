"""What `ops` computes on a CPU: polynomials, and gradients of its own.

MLX computes exp and erf on a CPU one element at a time. Polynomials of additions and products
become vector code under mx.compile: exp is 11 times as fast, softmax and logsumexp 5 times, GELU 27
times (24 x 6 x 108 x 108 elements, one core). A compiled kernel also computes anew, for each
element that it writes, what it broadcasts (the root of a variance), and a comparison there (relu)
branches: linear, layer_norm and convolve are written around that, which pays inside a compiled
training step (docs/figures.md). Checked with MLX 0.32 on x86-64.

Largest difference to float64, for inputs of up to 20 (exp, logsumexp, softmax, gelu) and normal
ones of 768 inputs (linear, layer_norm) or 5 x 64 (convolve); MLX's own in brackets:

    exp         1.1e-6 relative     logsumexp  1.8e-6
    softmax     6e-8                gelu       2.9e-6 (4.7e-7)
    layer_norm  1.3e-6 (4.7e-6)     linear     8.6e-5 (8.6e-5)
    convolve    1.4e-5 (4.7e-5)
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple

import mlx.core as mx

from audiotrain.backend.streams import cut, part

EXP2 = [math.log(2) ** n / math.factorial(n) for n in range(7)]  # Taylor's, for |x| <= 1/2
MIN_EXPONENT = -80.0  # exponents of 2 end here: smaller products are denormal, 100 times as slow
MIN_BROADCAST_SIZE = 2**17  # below it an explicit broadcast view costs more than it saves
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


# Below, few steps follow on each other: MLX makes one kernel of 11 at most.


def _exp(x: mx.array) -> mx.array:
    """exp(x) for x up to 88: 2^rest, and the whole powers of two added to its exponent bits."""
    x = mx.maximum(x * math.log2(math.e), MIN_EXPONENT)
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
def exponential(x: mx.array) -> mx.array:
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
def logsumexp(x: mx.array) -> mx.array:
    most, _, total = _exponentials(x)
    return (most + mx.log(total)).squeeze(-1)


@mx.compile
def _softmax_slope(weights: mx.array, weighted: mx.array, cotangent: mx.array) -> mx.array:
    return weights * (cotangent - weighted)


def _softmax_gradient(_, cotangent: mx.array, weights: mx.array) -> mx.array:
    weighted = mx.sum(weights * cotangent, axis=-1, keepdims=True)
    return _softmax_slope(weights, weighted, cotangent)


@with_gradient(_softmax_gradient)
def softmax(x: mx.array) -> mx.array:
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
def gelu(x: mx.array) -> mx.array:
    return _gelu_value(x)


# mx.contiguous copies nothing here: it ends a kernel, so that what stands before it is computed
# once for each row and not once for each number of the row.


def _repeated(x: mx.array, shape: tuple[int, ...]) -> mx.array:
    """`x` broadcast to `shape`, for one operation alone. mx.compile makes a kernel even of one and
    its broadcast, which takes up to twice as long as the operation by itself where it is long."""
    if math.prod(shape) < MIN_BROADCAST_SIZE:
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
def relu(x: mx.array) -> mx.array:
    return _relu_value(x)


def sum_of_rows(x: mx.array) -> mx.array:
    """(…, width) summed to (width,)."""
    rows = x.reshape(-1, x.shape[-1])
    return (mx.ones((1, len(rows))) @ rows).squeeze(0)


@with_gradient(lambda _, cotangent, __: (cotangent, sum_of_rows(cotangent)))
def add_bias(x: mx.array, bias: mx.array) -> mx.array:
    return x + _repeated(bias, x.shape)


def _weights_gradient(known: list[tuple[mx.array, mx.array]]) -> mx.array:
    cotangents, inputs = (mx.concatenate(list(rows)) for rows in zip(*known, strict=True))
    return cotangents.T @ inputs


def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
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
def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: mx.array) -> mx.array:
    centred, scale = _centred(x.reshape(-1, x.shape[-1]), eps)
    return (centred * scale * weight + bias).reshape(x.shape)


def _shifted(x: mx.array, kernel: int) -> mx.array:
    """Examples (…, batch, time, channels) end to end with zeros between them, moved to each place
    of the kernel: (…, kernel, batch * (time + kernel - 1), channels), a view of one array."""
    *apart, batch, time, width = x.shape
    margin = kernel // 2
    pads = [(0, 0)] * len(apart) + [(0, 1), (margin, margin), (0, 0)]
    rows = mx.pad(x, pads)  # zeros after the last example, too
    shape = *apart, kernel, batch * (time + kernel - 1), width
    of_one = (batch + 1) * (time + kernel - 1) * width
    return mx.as_strided(rows, shape, (*[of_one] * len(apart), width, width, 1))


def _correlate(shifted: mx.array, weight: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Sum over the kernel of rows times their weights (…, kernel, in, out), without margins."""
    *axes, time, _ = shape
    summed = (shifted @ weight).sum(axis=-3, keepdims=True)
    return summed.reshape(*axes, -1, weight.shape[-1])[..., :time, :]


def _convolve_gradient(given: tuple, cotangent: mx.array, _) -> tuple:
    x, weight = given
    kernel = weight.shape[-3]
    shifted, back = _shifted(x, kernel), _shifted(cotangent, kernel)
    of_x = _correlate(back, weight[..., ::-1, :, :].swapaxes(-1, -2), x.shape)
    middle = back[..., kernel // 2 : kernel // 2 + 1, :, :].swapaxes(-1, -2)
    return of_x, (middle @ shifted).swapaxes(-1, -2)


@with_gradient(_convolve_gradient)
def convolve(x: mx.array, weight: mx.array) -> mx.array:
    return _correlate(_shifted(x, weight.shape[-3]), weight, x.shape)
