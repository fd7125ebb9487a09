"""Losses against closed forms, a NumPy reference, and what masks and weights must not change."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.music.chord_classes import HEAD_SIZES, HEADS, IGNORE
from audiotrain.train.losses import (
    ChordRecognitionLoss,
    inverse_power_weights,
    masked_cross_entropy,
)


def reference(logits, targets, smoothing=0.0, weights=None, similarity=None):
    """The same mean, item by item in float64."""
    classes = logits.shape[-1]
    rows, total, weight = logits.reshape(-1, classes).astype(np.float64), 0.0, 0.0
    for row, target in zip(rows, targets.reshape(-1), strict=True):
        if target < 0:
            continue
        logs = row - row.max() - math.log(np.exp(row - row.max()).sum())
        wanted = np.full(classes, 1 / classes) if similarity is None else similarity[target]
        wanted = smoothing * wanted
        wanted[target] += 1 - smoothing
        own = 1.0 if weights is None else weights[target]
        total -= own * (wanted * logs).sum()
        weight += own
    return total / weight if weight else 0.0


def example(seed=0, shape=(3, 5), classes=7, ignored=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (*shape, classes)).astype(np.float32)
    targets = rng.integers(0, classes, shape)
    targets[rng.random(shape) < ignored] = IGNORE
    return rng, logits, targets


@pytest.mark.parametrize("classes", [2, 12, 32])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_equal_logits_give_the_logarithm_of_the_classes(classes, smoothing):
    loss = masked_cross_entropy(mx.zeros((4, classes)), mx.zeros(4, mx.int32), smoothing)
    assert loss.item() == pytest.approx(math.log(classes), rel=1e-6)


def test_smoothing_has_its_least_loss_at_the_entropy_of_the_target():
    classes, smoothing = 4, 0.2
    wanted = np.full(classes, smoothing / classes)
    wanted[1] += 1 - smoothing
    loss = masked_cross_entropy(mx.array(np.log(wanted))[None], mx.array([1]), smoothing)
    assert loss.item() == pytest.approx(-(wanted * np.log(wanted)).sum(), rel=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.5]), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_equals_numpy(seed, smoothing, weighted, similar):
    rng, logits, targets = example(seed)
    weights = rng.uniform(0.1, 5, 7).astype(np.float32) if weighted else None
    rows = rng.dirichlet(np.ones(7), 7).astype(np.float32) if similar else None
    found = masked_cross_entropy(
        mx.array(logits),
        mx.array(targets),
        smoothing,
        None if weights is None else mx.array(weights),
        None if rows is None else mx.array(rows),
    )
    expected = reference(logits, targets, smoothing, weights, rows)
    assert found.item() == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_uniform_similarity_is_plain_smoothing_and_identity_is_none():
    _, logits, targets = example()
    logits, targets = mx.array(logits), mx.array(targets)
    plain = masked_cross_entropy(logits, targets, 0.3).item()
    even = masked_cross_entropy(logits, targets, 0.3, similarity=mx.full((7, 7), 1 / 7)).item()
    hard = masked_cross_entropy(logits, targets, 0.3, similarity=mx.eye(7)).item()
    assert even == pytest.approx(plain, rel=1e-5)
    assert hard == pytest.approx(masked_cross_entropy(logits, targets).item(), rel=1e-5)


def test_masked_items_change_nothing_and_get_no_gradient():
    _, logits, targets = example()
    hidden = targets < 0
    assert hidden.any()
    assert not hidden.all()

    def loss(values):
        return masked_cross_entropy(values, mx.array(targets), 0.1)

    gradient = np.array(mx.grad(loss)(mx.array(logits)))
    assert not gradient[hidden].any()
    assert (np.abs(gradient[~hidden]).sum(-1) > 0).all()
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-6)  # a softmax less a distribution
    other = np.where(hidden[..., None], 1e4, logits)
    assert loss(mx.array(other)).item() == pytest.approx(loss(mx.array(logits)).item(), rel=1e-6)


def test_the_gradient_is_softmax_less_target():
    _, logits, targets = example(ignored=0)
    gradient = mx.grad(lambda v: masked_cross_entropy(v, mx.array(targets)))(mx.array(logits))
    chances = np.array(mx.softmax(mx.array(logits), axis=-1))
    expected = (chances - np.eye(7)[targets]) / targets.size
    np.testing.assert_allclose(np.array(gradient), expected, atol=1e-6)


def test_nothing_to_judge_is_zero_with_zero_gradient():
    targets = mx.full((2, 3), IGNORE, mx.int32)
    value, gradient = mx.value_and_grad(lambda v: masked_cross_entropy(v, targets, 0.1))(
        mx.random.normal((2, 3, 5))
    )
    assert value.item() == 0
    assert not np.array(gradient).any()


def test_class_weights_weigh_items_and_their_scale_does_not_matter():
    _, logits, targets = example(ignored=0)
    weights = np.array([0, 1, 0, 0, 0, 0, 0], np.float32)
    found = masked_cross_entropy(mx.array(logits), mx.array(targets), 0, mx.array(weights)).item()
    only = np.where(targets == 1, targets, IGNORE)
    assert (targets == 1).any()
    assert found == pytest.approx(reference(logits, only), rel=1e-5)
    scaled = masked_cross_entropy(mx.array(logits), mx.array(targets), 0, mx.array(weights * 9))
    assert scaled.item() == pytest.approx(found, rel=1e-5)


def test_large_and_half_precision_logits_stay_finite():
    logits = mx.array([[6e4, -6e4, 0.0]], dtype=mx.float16)
    assert masked_cross_entropy(logits, mx.array([1])).item() == pytest.approx(1.2e5, rel=1e-3)
    assert masked_cross_entropy(logits, mx.array([0])).item() == 0


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan])
def test_refuses_a_smoothing_outside_its_range(smoothing):
    with pytest.raises(ValueError, match="label_smoothing=.* expected 0 <= label_smoothing < 1"):
        masked_cross_entropy(mx.zeros((1, 2)), mx.array([0]), smoothing)


def heads(seed=0, frames=6):
    rng = np.random.default_rng(seed)
    sizes = dict(zip(HEADS, HEAD_SIZES, strict=True))
    logits = {name: mx.array(rng.normal(0, 2, (frames, size))) for name, size in sizes.items()}
    targets = {name: mx.array(rng.integers(0, size, frames)) for name, size in sizes.items()}
    return logits, targets


def test_heads_add_up_with_the_weights_of_the_design():
    logits, targets = heads()
    total, parts = ChordRecognitionLoss()(logits, targets)
    assert set(parts) == {"chord_type_loss", "root_loss", "bass_note_loss"}
    for head in HEADS:
        alone = masked_cross_entropy(logits[head], targets[head], 0.1)
        assert parts[f"{head}_loss"].item() == pytest.approx(alone.item(), rel=1e-6)
    expected = parts["chord_type_loss"] + parts["root_loss"] + 0.5 * parts["bass_note_loss"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_head_of_weight_zero_gets_no_gradient():
    logits, targets = heads()
    criterion = ChordRecognitionLoss(bass_weight=0)
    gradients = mx.grad(lambda values: criterion(values, targets)[0])(logits)
    assert not np.array(gradients["bass_note"]).any()
    assert np.array(gradients["root"]).any()


def test_options_reach_their_own_head_only():
    logits, targets = heads()
    plain = ChordRecognitionLoss()(logits, targets)[1]
    weights = mx.array(np.linspace(0.1, 3, 32))
    changed = ChordRecognitionLoss(class_weights={"chord_type": weights})(logits, targets)[1]
    assert changed["chord_type_loss"].item() != pytest.approx(plain["chord_type_loss"].item())
    for head in ("root", "bass_note"):
        assert changed[f"{head}_loss"].item() == plain[f"{head}_loss"].item()


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="weight of root is -1, expected 0 or more"):
        ChordRecognitionLoss(root_weight=-1)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inverse_power_weights_have_mean_one_over_the_data(power):
    counts = np.array([900, 90, 9, 1, 0])
    weights = np.array(inverse_power_weights(mx.array(counts), power, largest=50))
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1, rel=1e-5)
    ratios = weights[:3] / weights[0]
    np.testing.assert_allclose(ratios, (counts[:3] / counts[0]) ** -power, rtol=1e-4)


def test_inverse_power_weights_are_clipped_and_unseen_classes_get_the_most():
    counts = mx.array([1000, 10, 1, 0])
    weights = np.array(inverse_power_weights(counts, 1.0, largest=3.0))
    assert weights[1] == weights[2] == weights[3] == weights.max()
    share = np.array([1000, 10, 1, 0]) / (1011 / 4)
    before = np.minimum(np.divide(1, share, out=np.full(4, np.inf), where=share > 0), 3)
    np.testing.assert_allclose(weights / weights[3], before / 3, rtol=1e-5)


def test_inverse_power_weights_without_data_are_finite():
    assert np.isfinite(np.array(inverse_power_weights(mx.zeros(4), 0.5, 10.0))).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_target_that_is_no_class_spoils_the_loss_and_an_ignored_one_does_not(smoothing):
    logits = mx.array(np.random.default_rng(0).normal(size=(3, 4)))
    assert np.isfinite(masked_cross_entropy(logits, mx.array([0, -7, 3]), smoothing).item())
    for bad in (4, 2**31 - 1):  # far away there is no memory to read
        targets = mx.array([0, bad, 3])

        def loss(values, targets=targets):
            return masked_cross_entropy(values, targets, smoothing, mx.ones(4), mx.eye(4))

        value, gradient = mx.value_and_grad(loss)(logits)
        assert np.isnan(value.item())
        assert np.isfinite(np.array(gradient)[[0, 2]]).all()
