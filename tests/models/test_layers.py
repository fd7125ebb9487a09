"""Blocks against loops in NumPy, and the statistics of dropout."""

import math

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.models.layers import (
    Attention,
    ConformerBlock,
    ConvolutionModule,
    Dropout,
    EncoderBlock,
    FeedForward,
)


def numbers(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def affine(layer, x):
    return x @ np.array(layer.weight, np.float64).T + np.array(layer.bias, np.float64)


def attend(layer, x, bias=None):
    """Attention (batch, frames, width) head by head and frame by frame."""
    batch, frames, width = x.shape
    query, key, value = np.split(affine(layer.projection_in, x), 3, axis=-1)
    size = width // layer.heads
    mixed = np.zeros_like(x)
    for example in range(batch):
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            for frame in range(frames):
                scores = key[example, :, part] @ query[example, frame, part] / math.sqrt(size)
                if bias is not None:
                    scores = scores + bias[head, frame]
                if layer.weighting == "softmax":
                    weights = np.exp(scores - scores.max())
                    weights /= weights.sum()
                else:
                    weights = np.maximum(scores, 0)
                    weights /= weights.sum() + 1
                mixed[example, frame, part] = weights @ value[example, :, part]
    return affine(layer.projection_out, mixed)


@pytest.mark.parametrize("weighting", ["softmax", "relu"])
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_equals_a_loop(weighting, heads, biased):
    mx.random.seed(heads)
    layer = Attention(8, heads, weighting)
    x = numbers(2, 5, 8)
    bias = numbers(heads, 5, 5, seed=1) if biased else None
    expected = attend(layer, np.array(x, np.float64), None if bias is None else np.array(bias))
    np.testing.assert_allclose(np.array(layer(x, bias)), expected, atol=2e-6)


@pytest.mark.parametrize("weighting", ["softmax", "relu"])
def test_attention_does_not_know_the_order_of_frames(weighting):
    layer, x = Attention(8, 2, weighting), numbers(1, 6, 8)
    order = mx.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(
        np.array(layer(x[:, order])), np.array(layer(x)[:, order]), atol=2e-6
    )


def test_relu_weights_add_up_to_less_than_one_and_may_be_none():
    layer = Attention(4, 1, "relu")
    layer.projection_out.weight, layer.projection_out.bias = mx.eye(4), mx.zeros(4)
    weight = mx.concatenate([mx.eye(4), -mx.eye(4), mx.eye(4)])
    layer.projection_in.weight, layer.projection_in.bias = weight, mx.zeros(12)
    assert not np.array(layer(mx.ones((1, 3, 4)))).any()  # every score is negative
    layer.projection_in.weight = mx.concatenate([mx.eye(4), mx.eye(4), mx.eye(4)])
    # scores of 4 / sqrt(4) = 2 to each of 3 frames: weights 2 / (6 + 1)
    np.testing.assert_allclose(np.array(layer(mx.ones((1, 3, 4)))), 6 / 7, rtol=1e-6)


def test_a_mask_hides_frames():
    layer, x = Attention(8, 2), numbers(1, 4, 8)
    mask = mx.array(np.triu(np.full((4, 4), -1e9, np.float32), 1))
    changed = mx.concatenate([x[:, :3], 5 + x[:, 3:]], axis=1)
    before, after = np.array(layer(x, mask)), np.array(layer(changed, mask))
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert np.abs(before[:, 3] - after[:, 3]).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 3), "width=10 is not a multiple of heads=3"),
        ((8, 2, "gelu"), "weighting='gelu', expected 'softmax' or 'relu'"),
    ],
)
def test_attention_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Attention(*arguments)


def test_dropout_drops_whole_channels_and_keeps_the_mean():
    mx.random.seed(0)
    dropped = np.array(Dropout(0.3)(mx.ones((200, 5, 50))))
    assert set(np.unique(dropped.round(5))) == {0.0, np.float32(1 / 0.7).round(5)}
    assert (dropped == dropped[:, :1]).all()  # all frames of an example alike
    assert (dropped[:, 0] == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert dropped.mean() == pytest.approx(1, abs=0.03)
    assert len({row.tobytes() for row in dropped[:, 0]}) == 200  # examples differ


def test_dropout_does_nothing_in_evaluation_and_at_rate_zero():
    x, layer = numbers(2, 3, 4), Dropout(0.5)
    layer.eval()
    assert (layer(x) == x).all().item()
    assert (Dropout(0.0)(x) == x).all().item()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_dropout_refuses_its_rate(rate):
    with pytest.raises(ValueError, match="expected 0 <= dropout < 1"):
        Dropout(rate)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_feed_forward_equals_a_loop(kernel):
    mx.random.seed(kernel)
    layer, x = FeedForward(4, 6, kernel), numbers(2, 7, 4)
    values = np.array(x, np.float64)
    padded = np.pad(values, ((0, 0), (kernel // 2, kernel // 2), (0, 0)))
    weight = np.array(layer.inner.weight, np.float64).reshape(6, -1)  # (hidden, kernel * width)
    inner = np.stack(
        [padded[:, f : f + kernel].reshape(2, -1) @ weight.T for f in range(7)], axis=1
    ) + np.array(layer.inner.bias)
    expected = affine(layer.outer, np.maximum(inner, 0))
    np.testing.assert_allclose(np.array(layer(x)), expected, atol=2e-6)


@pytest.mark.parametrize("kernel", [2, 4])
def test_feed_forward_refuses_even_kernels(kernel):
    with pytest.raises(ValueError, match=f"kernel={kernel}, expected an odd number of frames"):
        FeedForward(4, 4, kernel)


def test_convolution_module_is_depthwise_and_sees_its_kernel_only():
    layer, x = ConvolutionModule(4, 5), numbers(1, 12, 4)
    assert layer.depthwise.weight.shape == (4, 5, 1)
    changed = np.array(x)
    changed[:, 6] += 1
    difference = np.abs(np.array(layer(mx.array(changed))) - np.array(layer(x))).max(axis=(0, 2))
    assert (difference[4:9] > 0).all()
    assert not difference[:4].any()
    assert not difference[9:].any()


@pytest.mark.parametrize(
    "block",
    [
        EncoderBlock(8, 2, 16, 3, 0.1, "relu"),
        EncoderBlock(8, 2, 16, 1, 0.1, "softmax"),
        EncoderBlock(8, 0, 16, 3, 0.1, "relu"),
        ConformerBlock(8, 2, 16, 5, 0.1),
    ],
    ids=["relu", "softmax", "no attention", "conformer"],
)
def test_blocks_keep_the_shape_and_examples_apart(block):
    block.eval()
    x = numbers(3, 9, 8)
    whole = np.array(block(x))
    assert whole.shape == (3, 9, 8)
    alone = np.concatenate([np.array(block(x[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(whole, alone, atol=2e-6)


def test_an_encoder_block_adds_to_its_input():
    block, x = EncoderBlock(8, 2, 16, 3, 0.0, "relu"), numbers(1, 4, 8)
    for layer in (block.attention.projection_out, block.feed_forward.outer):
        layer.weight, layer.bias = mx.zeros_like(layer.weight), mx.zeros_like(layer.bias)
    np.testing.assert_array_equal(np.array(block(x)), np.array(x))


def test_softmax_of_bfloat16_scores_sums_in_float32():
    frames, attention = 1024, Attention(4, heads=1)
    weight = np.zeros((12, 4))
    weight[8:] = np.eye(4)  # equal scores, values as they come
    attention.projection_in.weight = mx.array(weight)
    attention.projection_in.bias = mx.zeros(12)
    attention.projection_out.weight, attention.projection_out.bias = mx.eye(4), mx.zeros(4)
    attention.set_dtype(mx.bfloat16)
    mean = attention(mx.ones((1, frames, 4), mx.bfloat16))
    # A bfloat16 sum of ones stays at 256.
    np.testing.assert_allclose(np.array(mean.astype(mx.float32)), 1, rtol=0.01)
