"""What is written for a CPU, and MLX's own kernels, against PyTorch in float64."""

import math
import re
from collections import Counter
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from audiotrain.backend import cpu_ops, ops, streams
from audiotrain.backend.ops import (
    add_bias,
    attend,
    convolve,
    exp,
    gelu,
    layer_norm,
    linear,
    logsumexp,
    relu,
    softmax,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
CASES = {
    "softmax": (softmax, lambda x: torch.softmax(x, -1)),
    "gelu": (gelu, torch.nn.GELU()),
    "relu": (relu, torch.relu),
    "exp": (lambda x: exp(0.1 * x), lambda x: torch.exp(0.1 * x)),
    "logsumexp": (lambda x: logsumexp(x)[..., None], lambda x: torch.logsumexp(x, -1, True)),
}


@pytest.fixture(params=["as here", "no polynomials"])
def way(request, monkeypatch):
    """Both ways of computing, where this machine has both."""
    if request.param == "no polynomials":
        monkeypatch.setattr(ops, "_by_polynomials", lambda x: False)
        monkeypatch.setattr(ops, "_by_cpu_ops", lambda x: False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_pytorchs(name, compiled):
    ours, theirs = CASES[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-30, 30, 999), rng.normal(0, 2, 1001)]).reshape(20, 100)
    x = x.astype(np.float32)
    cotangent = rng.standard_normal(ours(mx.array(x)).shape).astype(np.float32)

    def both(x):
        values, gradients = mx.vjp(ours, [x], [mx.array(cotangent)])
        return values[0], gradients[0]

    value, gradient = (mx.compile(both) if compiled else both)(mx.array(x))
    reference = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = theirs(reference)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    scale = np.maximum(1, np.abs(x))
    np.testing.assert_allclose(value / scale, expected.detach().numpy() / scale, atol=1e-6)
    np.testing.assert_allclose(gradient, reference.grad.numpy(), rtol=1e-6, atol=2e-6)


ELEMENTS = {"softmax": softmax, "gelu": gelu, "relu": relu, "logsumexp": logsumexp}


@pytest.mark.parametrize("name", ELEMENTS)
def test_no_streams_kernel_reads_what_anothers_was_filled_with(name, cut, tmp_path):
    """MLX joins equal numbers of a compiled step, on whichever stream they are."""
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU has one stream")
    x = mx.random.normal((6, 512, 256))
    mx.eval(x)
    seen = []

    def both(x):
        out = streams.map_batch(ELEMENTS[name], x)
        _, (gradient,) = mx.vjp(lambda x: streams.map_batch(ELEMENTS[name], x), [x], [out])
        return out, gradient

    for count in (1, 3):
        cut(count)
        found = mx.compile(both)(x)
        mx.export_to_dot(str(tmp_path / "graph.dot"), *found)
        labels = re.findall(r'label ="(\w+)"', (tmp_path / "graph.dot").read_text())
        seen.append((found, Counter(label for label in labels if label.startswith("Compiled"))))
    (whole, alone), (parts, apart) = seen
    assert apart == {label: 3 * number for label, number in alone.items()}
    assert all(mx.array_equal(one, other) for one, other in zip(whole, parts, strict=True))


LAYERS = {
    "linear": (linear, torch.nn.functional.linear, [(3, 5, 8), (4, 8), (4,)]),
    "linear of one row": (linear, torch.nn.functional.linear, [(8,), (4, 8), (4,)]),
    "bias": (add_bias, torch.add, [(3, 5, 8), (8,)]),
    "bias of one row": (add_bias, torch.add, [(8,), (8,)]),
    "layer norm": (
        lambda x, w, b: layer_norm(x, w, b, 1e-5),
        lambda x, w, b: torch.nn.functional.layer_norm(x, (8,), w, b),
        [(3, 5, 8), (8,), (8,)],
    ),
    "convolution": (
        lambda x, w: convolve(x, w),
        lambda x, w: torch.nn.functional.conv1d(x.mT, w.permute(2, 1, 0), padding=2).mT,
        [(3, 7, 8), (5, 8, 4)],
    ),
    "a convolution of fewer times than places": (
        lambda x, w: convolve(x, w),
        lambda x, w: torch.nn.functional.conv1d(x.mT, w.permute(2, 1, 0), padding=3).mT,
        [(2, 2, 3), (7, 3, 4)],
    ),
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients_equal_pytorchs(name, compiled):
    ours, theirs, shapes = LAYERS[name]
    rng = np.random.default_rng(0)
    given = [(3 + 2 * rng.standard_normal(shape)).astype(np.float32) for shape in shapes]
    cotangent = rng.standard_normal(ours(*map(mx.array, given)).shape).astype(np.float32)

    def both(*given):
        values, gradients = mx.vjp(ours, given, [mx.array(cotangent)])
        return values + gradients

    found = (mx.compile(both) if compiled else both)(*map(mx.array, given))
    reference = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in given]
    expected = theirs(*reference)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    np.testing.assert_allclose(found[0], expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    for gradient, theirs_ in zip(found[1:], reference, strict=True):
        np.testing.assert_allclose(gradient, theirs_.grad.numpy(), rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures("way")
def test_the_ends():
    """Masked scores, huge numbers and NaN."""
    infinity, nan = math.inf, math.nan
    rows = mx.array([[0.0, -infinity, 0.0], [0.0, -1e9, -100.0], [1e30, 0.0, 0.0], [0.0, nan, 0.0]])
    expected = [[0.5, 0, 0.5], [1, 0, 0], [1, 0, 0], [nan, nan, nan]]
    np.testing.assert_allclose(softmax(rows), expected, atol=1e-12)
    np.testing.assert_allclose(softmax(rows[:3]).sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(
        gelu(mx.array([0.0, 1e4, -6.0, nan])), [0, 1e4, 0, nan], rtol=1e-6, atol=2e-6
    )


@pytest.mark.usefixtures("way")
def test_attention_equals_pytorchs():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 2, 4, 7, 8)).astype(np.float32)
    bias = rng.standard_normal((4, 7, 7)).astype(np.float32)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x) for x in (query, key, value)), attn_mask=torch.from_numpy(bias)[None]
    )
    ours = [mx.array(x) for x in (query, key, value, bias)]
    np.testing.assert_allclose(attend(*ours), expected.numpy(), atol=1e-5)
    # what runs on a GPU
    fused = mx.fast.scaled_dot_product_attention(*ours[:3], scale=8**-0.5, mask=ours[3])
    np.testing.assert_allclose(attend(*ours), fused, atol=1e-5)
    none = nn.Dropout(0.5)
    np.testing.assert_array_equal(attend(*ours, none.eval()), attend(*ours))
    assert mx.abs(attend(*ours, none.train()) - attend(*ours)).max() > 0.1


def test_types_stay():
    for kind in (mx.float16, mx.bfloat16, mx.float32):
        x = mx.random.normal((2, 3, 4, 8)).astype(kind)
        assert softmax(x).dtype == gelu(x).dtype == kind
        assert attend(x, x, x, mx.zeros((4, 4))).dtype == kind


def test_gradients_are_computed_on_the_stream_of_their_function():
    seen = []

    def gradient(_, cotangent, __):
        seen.append(str(mx.default_stream(mx.default_device())))
        return 3 * cotangent

    tripled = cpu_ops.with_gradient(gradient)(lambda x: 3 * x)
    other = mx.new_stream(mx.default_device())

    def loss(x):
        with mx.stream(other):
            return tripled(x).sum()

    assert mx.grad(loss)(mx.array([1.0, 2.0])).tolist() == [3.0, 3.0]
    assert seen == [str(other)]


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_long_operations_give_what_short_ones_do(shape, monkeypatch):
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU has its own kernels")
    x, weight = mx.random.normal(shape), mx.random.normal((8, 8))
    scale, shift = mx.random.normal((8,)), mx.random.normal((8,))

    def numbers(x, weight, scale, shift):
        out = softmax(layer_norm(linear(x, weight, shift), scale, shift, 1e-5))
        return (out * mx.arange(8)).sum()

    seen = []
    for least in (1, 10**9):
        monkeypatch.setattr(cpu_ops, "MIN_BROADCAST_SIZE", least)
        seen.append(mx.value_and_grad(numbers, argnums=(0, 1, 2, 3))(x, weight, scale, shift))
    (long, of_long), (short, of_short) = seen
    np.testing.assert_allclose(long, short, rtol=1e-6)
    for one, other in zip(of_long, of_short, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_gradients_are_laid_out_as_their_parameters():
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU takes them as they are")
    transposed = mx.random.normal((90, 80)).T
    laid_out = ops.contiguous_gradients({"layer": {"weight": transposed, "bias": mx.zeros(3)}})
    assert not memoryview(transposed).c_contiguous
    assert memoryview(laid_out["layer"]["weight"]).c_contiguous
    assert mx.array_equal(laid_out["layer"]["weight"], transposed)
    assert laid_out["layer"]["bias"].shape == (3,)


@pytest.mark.parametrize("shape", [(300, 41), (64, 64, 33), (1, 5000)])
def test_sums_of_squares(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    total = ops.square_sum(mx.array(x)).item()
    assert total == pytest.approx(np.square(x.astype(np.float64)).sum(), rel=1e-6)


OUTSIDE = re.compile(
    r"default_device|is_on_cpu|\bon_cpu\b|stream_count|(?<!on_)cpu_streams|use_all_cores|blas\.cores"
)


def test_no_code_outside_asks_for_the_device_or_the_streams():
    """But for what chooses a device because the user says so, and workers that are told theirs."""
    import audiotrain

    package = Path(audiotrain.__file__).parent
    allowed = {"recipes/chords/chord_trainer.py", "utils/process_pool.py"}
    files = [
        path
        for path in package.rglob("*.py")
        if path.parent.name != "backend" and path.relative_to(package).as_posix() not in allowed
    ]
    assert len(files) > 100
    found = [str(path) for path in files if OUTSIDE.search(path.read_text("utf-8"))]
    assert found == []
