"""Interpolated weights: the ends exactly, the middle by arithmetic, what differs refused."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from audiotrain.train.weight_averaging import interpolate
from audiotrain.utils.arrays import arrays_of


def pair() -> list[dict]:
    models = []
    for seed in (0, 1):
        mx.random.seed(seed)
        models.append(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3)))
        models[-1].layers[1].running_mean = mx.random.normal((3,))
        models[-1].step = mx.array(seed)
    return [arrays_of(model) for model in models]


def test_between_two_models():
    before, after = pair()
    assert not mx.array_equal(before["layers.0.weight"], after["layers.0.weight"])
    for share in (0.0, 0.3, 1.0):
        found = interpolate(before, after, share)
        assert found.keys() == before.keys()
        assert "layers.1.running_mean" in found
        for name, array in found.items():
            mean = (1 - share) * np.array(before[name]) + share * np.array(after[name])
            expected = np.array(after[name]) if name == "step" else mean
            np.testing.assert_allclose(np.array(array), expected, atol=1e-7)
            assert array.dtype == after[name].dtype
    ends = [interpolate(before, after, share) for share in (0, 1)]
    for name in before:
        assert mx.array_equal(ends[1][name], after[name])
        assert name == "step" or mx.array_equal(ends[0][name], before[name])


def test_half_precision_is_mixed_in_float32():
    wide = [mx.random.normal((500,), key=mx.random.key(seed)) for seed in (0, 1)]
    before, after = ({"w": array.astype(mx.bfloat16)} for array in wide)
    found = interpolate(before, after, 0.3)["w"]
    exact = 0.7 * before["w"].astype(mx.float32) + 0.3 * after["w"].astype(mx.float32)
    assert mx.array_equal(found, exact.astype(mx.bfloat16))
    assert not mx.array_equal(found, 0.7 * before["w"] + 0.3 * after["w"])


def test_weights_that_differ_are_refused():
    before, after = pair()
    with pytest.raises(ValueError, match="after training does not fit the model: 1 missing: step"):
        interpolate(before, {n: a for n, a in after.items() if n != "step"}, 0.5)
    other = after | {"layers.0.bias": mx.zeros((4,))}
    with pytest.raises(ValueError, match=r"1 misshaped: layers.0.bias \(found \(4,\) float32"):
        interpolate(before, other, 0.5)
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"share is {share}, expected 0 to 1"):
            interpolate(before, after, share)
