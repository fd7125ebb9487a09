"""The frame models against PyTorch twins of the same weights: logits, loss and gradients."""

import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS, IGNORE
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.chords.training import ChordTraining, LossSettings, OptimizationSettings

torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import torch_chords  # noqa: E402

SMALL = ChordModelSettings("conv", width=64, blocks=2, heads=4, hidden=96, kernel=3, dropout=0.0)
CASES = {
    "equivariant": replace(SMALL, width=48, pools=0),
    "relu-transformer": SMALL,
    "transformer": SMALL,
    "conv": SMALL,
    "btc": replace(SMALL, patch=1),
    "pools after every block": replace(SMALL, architecture="equivariant", width=48, patch=4),
    "units in the stem": replace(SMALL, architecture="equivariant", width=48, stem_hidden=5),
    "linear feed-forward": replace(SMALL, architecture="relu-transformer", kernel=1, patch=4),
    "default": replace(ChordModelSettings(), dropout=0.0),
}


def make(case: str) -> tuple[FrameChordModel, "torch_chords.FrameChordModel"]:
    settings = CASES[case]
    if case in torch_chords.BLOCKS:
        settings = replace(settings, architecture=case)
    mx.random.seed(1)
    model = FrameChordModel(144, settings)
    model.trunk.feature_mean, model.trunk.feature_std = mx.array(0.5), mx.array(2.0)
    return model, torch_chords.twin_of(model)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Features (3, 32, 144) and classes (3, 32, 3), some frames unlabelled, some without chord."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((3, 32, 144), np.float32)
    classes = rng.integers(0, HEAD_SIZES, (3, 32, 3))
    classes[rng.random((3, 32)) < 0.2] = IGNORE
    classes[rng.random((3, 32)) < 0.1] = 0, IGNORE, IGNORE
    return features, classes


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_pytorchs(case):
    model, twin = make(case)
    features, _ = batch()
    ours = model(mx.array(features))
    with torch.no_grad():
        theirs = twin(torch.from_numpy(features))
    assert set(ours) == set(theirs) >= set(HEADS)
    for name, logits in ours.items():
        np.testing.assert_allclose(np.array(logits), theirs[name].numpy(), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_pytorchs(case):
    model, twin = make(case)
    features, classes = batch()
    settings = replace(model.trunk.settings, width=48, hidden=96)  # of a model that is put aside
    module = ChordTraining(
        FeatureSettings(), settings, LossSettings(), OptimizationSettings(), (0.0, 1.0)
    )
    module.model = model
    data = {"features": mx.array(features), "classes": mx.array(classes)}
    loss, gradients = nn.value_and_grad(model, lambda: module.compute_loss(data)[0])()
    their_loss = torch_chords.chord_loss(
        twin(torch.from_numpy(features)), torch.from_numpy(classes)
    )
    their_loss.backward()
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-5)
    expected = {name: weight.grad.numpy() for name, weight in twin.named_parameters()}
    compared = 0
    for name, gradient in tree_flatten(gradients):
        ours = torch_chords.torch_array(name, np.array(gradient))
        np.testing.assert_allclose(
            ours, expected[torch_chords.torch_name(name)], atol=1e-4, err_msg=name
        )
        compared += 1
    assert compared == len(expected) > 10


def test_a_convolution_as_a_sum_of_matrix_products():
    """Conv1d of the feed-forward against its definition: the sum over the frames of its kernel."""
    model, _ = make("conv")
    inner = model.trunk.blocks[0].feed_forward.inner
    x = mx.random.normal((2, 10, SMALL.width))
    padded = mx.pad(x, ((0, 0), (1, 1), (0, 0)))
    parts = [padded[:, i : i + 10] @ inner.weight[:, i].T for i in range(3)]
    np.testing.assert_allclose(inner(x), sum(parts) + inner.bias, atol=1e-5)
