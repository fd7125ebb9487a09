"""Convolution over time: on a GPU MLX's own kernel, on a CPU products."""

import mlx.core as mx

from audiotrain.backend.cpu_ops import on_cpu, with_gradient


def convolve(x: mx.array, weight: mx.array) -> mx.array:
    """Convolution over time that keeps its length: (batch, time, in) by (kernel, in, out), an odd
    kernel, zeros beyond the ends. On a CPU one product for each place of the kernel, without the
    copies that MLX's makes, with gradients in three quarters of the time; and there both may have
    one more axis in front, of convolutions apart."""
    if on_cpu(x):
        return _convolve(x, weight)
    return mx.conv1d(x, weight.transpose(2, 0, 1), padding=weight.shape[0] // 2)


def _places(x: mx.array, kernel: int) -> mx.array:
    """Examples (…, batch, time, channels) end to end with zeros between them, moved to each place
    of the kernel: (…, kernel, batch * (time + kernel - 1), channels), a view of one array."""
    *apart, batch, time, width = x.shape
    margin = kernel // 2
    pads = [(0, 0)] * len(apart) + [(0, 1), (margin, margin), (0, 0)]
    rows = mx.pad(x, pads)  # zeros after the last example, too
    shape = *apart, kernel, batch * (time + kernel - 1), width
    of_one = (batch + 1) * (time + kernel - 1) * width
    return mx.as_strided(rows, shape, (*[of_one] * len(apart), width, width, 1))


def _correlate(places: mx.array, weight: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Sum over places of their rows times their weights (…, kernel, in, out), less the margins."""
    *axes, time, _ = shape
    summed = (places @ weight).sum(axis=-3, keepdims=True)
    return summed.reshape(*axes, -1, weight.shape[-1])[..., :time, :]


def _convolve_gradient(given: tuple, cotangent: mx.array, _) -> tuple:
    x, weight = given
    kernel = weight.shape[-3]
    places, back = _places(x, kernel), _places(cotangent, kernel)
    of_x = _correlate(back, weight[..., ::-1, :, :].swapaxes(-1, -2), x.shape)
    middle = back[..., kernel // 2 : kernel // 2 + 1, :, :].swapaxes(-1, -2)
    return of_x, (middle @ places).swapaxes(-1, -2)


@with_gradient(_convolve_gradient)
def _convolve(x: mx.array, weight: mx.array) -> mx.array:
    return _correlate(_places(x, weight.shape[-3]), weight, x.shape)
