"""Operations that are fast on every device: on a GPU MLX's own kernels, on a CPU ours.

Models and the Trainer call these whatever the device. cpu_ops.py states what a CPU computes
otherwise, and how far it is from the exact result.
"""

import math
import shutil
import warnings
from functools import cache

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from audiotrain.backend import cpu_ops
from audiotrain.backend.cpu_ops import sum_of_rows, with_gradient
from audiotrain.backend.streams import computed_on_cpu, even_batch, from_weight, map_batch

__all__ = [
    "add_bias",
    "attend",
    "by_device",
    "can_compile",
    "computed_on_cpu",
    "contiguous_gradients",
    "convolve",
    "even_batch",
    "exp",
    "from_weight",
    "gelu",
    "halves_products",
    "layer_norm",
    "linear",
    "logsumexp",
    "map_batch",
    "relu",
    "softmax",
    "square_sum",
    "sum_of_rows",
    "with_gradient",
]

MIN_COPY_SIZE = 2**12  # elements of a gradient from which on its copy in order pays
ROW = 2**12  # elements of a large array whose squares one product sums


def exp(x: mx.array) -> mx.array:
    """e to the power of `x`, of any shape, up to 88; on a CPU 1e-24 is the least that it gives."""
    return cpu_ops.exponential(x) if _by_polynomials(x) else mx.exp(x)


def logsumexp(x: mx.array) -> mx.array:
    """Logarithm of the sum of exp(x) over the last axis, which goes."""
    return cpu_ops.logsumexp(x) if _by_polynomials(x) else mx.logsumexp(x, axis=-1)


def softmax(x: mx.array) -> mx.array:
    """Softmax over the last axis, summed in float32; gives `x`'s type."""
    if _by_polynomials(x):
        return cpu_ops.softmax(x)
    return mx.softmax(x, axis=-1, precise=True)


def gelu(x: mx.array) -> mx.array:
    """x, of any shape, times the normal distribution's share below x; exact, no tanh."""
    if _by_polynomials(x):
        return cpu_ops.gelu(x)
    if is_on_cpu():  # nn.gelu is compiled, which takes a compiler there
        return x * (1 + mx.erf(x * math.sqrt(0.5))) / 2
    return nn.gelu(x)


def relu(x: mx.array) -> mx.array:
    """max(x, 0), x of any shape; on a CPU without the branch that MLX's has where a bias is added
    in one go."""
    return cpu_ops.relu(x) if _by_cpu_ops(x) else nn.relu(x)


def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x (…, in) times weight (out, in) transposed, plus bias (out,). On a CPU the bias is added
    afterwards, since MLX's addmm first writes it to each row, which takes longer; and its gradient
    is a product, too, which takes half as long as MLX's sum."""
    return cpu_ops.linear(x, weight, bias) if _by_cpu_ops(x) else mx.addmm(bias, x, weight.T)


def add_bias(x: mx.array, bias: mx.array) -> mx.array:
    """x (…, width) plus bias (width,), whose gradient on a CPU is a product, see `linear`."""
    return cpu_ops.add_bias(x, bias) if _by_cpu_ops(x) else x + bias


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """Layer norm over the last axis: mean 0, variance 1, times `weight`, plus `bias` (width,)."""
    if _by_cpu_ops(x):
        return cpu_ops.layer_norm(x, weight, bias, mx.array(eps))
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
    dropout = dropout if dropout is not None and dropout.training else None
    if not is_on_cpu() and query.ndim == 4 and dropout is None:
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=bias)
    scores = (query * scale) @ key.swapaxes(-1, -2)
    weights = softmax(scores if bias is None else scores + bias)
    return (weights if dropout is None else dropout(weights)) @ value


def convolve(x: mx.array, weight: mx.array) -> mx.array:
    """Convolution over time that keeps its length: (batch, time, in) by (kernel, in, out), an odd
    kernel, zeros beyond the ends. On a CPU one product for each place of the kernel, without the
    copies that MLX's makes, with gradients in three quarters of the time; and there both may have
    one more axis in front, of convolutions apart."""
    if _by_cpu_ops(x):
        return cpu_ops.convolve(x, weight)
    return mx.conv1d(x, weight.transpose(2, 0, 1), padding=weight.shape[0] // 2)


def square_sum(array: mx.array) -> mx.array:
    """Sum of squares, one number in as many axes as `array` has: kept axes save an operation."""
    if not is_on_cpu():
        # Columns first: 2.6 times as fast as one sum, and nearer to the float64 result.
        return mx.sum(mx.sum(mx.square(array), axis=0, keepdims=True), keepdims=True)
    flat = array.reshape(-1)
    whole = flat.size // ROW * ROW
    rows = flat[:whole].reshape(-1, 1, ROW)
    total = mx.sum(rows @ rows.swapaxes(1, 2), keepdims=True)  # products write no squares
    rest = flat[whole:]
    return total + mx.sum(mx.square(rest), keepdims=True) if rest.size else total


def contiguous_gradients(gradients):
    """The same tree, each gradient contiguous in memory as its parameter is, on a CPU.

    Gradients of nn.Linear come transposed, and MLX's kernel of an optimizer's update then computes
    one element at a time: AdamW took three times as long as with this copy.
    """
    if not is_on_cpu():
        return gradients

    def copied(gradient: mx.array) -> mx.array:
        is_small = gradient.ndim < 2 or gradient.size < MIN_COPY_SIZE
        return gradient if is_small else mx.contiguous(gradient)

    return tree_map(copied, gradients)


def halves_products(x: mx.array) -> bool:
    """Whether two products of half the multiplications are faster than one whole product for `x`:
    so on a CPU; a GPU rather has one large product."""
    return _by_cpu_ops(x)


def by_device(cpu, gpu):
    """The one of two values that suits the device that MLX computes on."""
    return cpu if is_on_cpu() else gpu


def can_compile() -> bool:
    """Whether mx.compile works here, with a warning if not: on a CPU it calls a C++ compiler."""
    if not is_on_cpu() or _has_compiler():
        return True
    warnings.warn(
        "no g++ found, which MLX needs to compile on a CPU: it runs uncompiled, slower; "
        "install g++ to change that",
        stacklevel=4,
    )
    return False


def is_on_cpu() -> bool:
    """Whether MLX computes on a CPU; asked inside this package alone."""
    return mx.default_device() == mx.Device(mx.cpu)


def _by_cpu_ops(x: mx.array) -> bool:
    """Whether `cpu_ops` computes `x`: float32, and no GPU is the default."""
    return x.dtype == mx.float32 and is_on_cpu()


@cache
def _has_compiler() -> bool:
    return shutil.which("g++") is not None


def _by_polynomials(x: mx.array) -> bool:
    return _by_cpu_ops(x) and _has_compiler()
