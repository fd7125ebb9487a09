"""Several models' probabilities, and weights, as one."""

import json

import mlx.core as mx
import numpy as np
import pytest
import scipy.optimize

from audiotrain.train import checkpoint, ensembling
from audiotrain.train.ensembling import Stacked, blend_weights, stack, vote
from audiotrain.train.weight_averaging import soup


def members(items=400, classes=3, seed=0):
    """Members of different skill: probabilities (items, classes) each, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=items)
    found = []
    for skill in (2.0, 1.7, 0.0):
        logits = skill * np.eye(classes)[targets] + rng.standard_normal((items, classes))
        values = np.exp(logits)
        found.append(values / values.sum(axis=1, keepdims=True))
    return found, targets


def cross_entropy(probabilities, targets):
    return -np.log(probabilities[np.arange(len(targets)), targets]).mean()


def test_voting_by_hand():
    a, b = np.array([[0.8, 0.2], [0.1, 0.9]]), np.array([[0.2, 0.8], [0.3, 0.7]])
    assert np.allclose(vote([a, b], [3, 1]), [[0.65, 0.35], [0.15, 0.85]])
    assert np.allclose(vote([a, b], how="majority"), [[0.5, 0.5], [0, 1]])
    three_of_four = vote([a, b], [3, 1], "majority", multilabel=True)
    assert np.allclose(three_of_four, [[0.75, 0.25], [0, 1]])
    roots = np.sqrt(a * b)
    assert np.allclose(vote([a, b], how="geometric"), roots / roots.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("wrong", [-2.0, 1.5, np.nan])
def test_a_geometric_mean_is_one_of_probabilities(wrong):
    given = np.array([[0.5, 0.5], [wrong, 0.3]])
    with pytest.raises(
        ValueError, match=f"geometric: a member gives {wrong:g}, expected probabilities, 0 to 1"
    ):
        vote([given, given], how="geometric")
    rounded = np.array([[1 + 1e-7, -1e-8]])  # as float32 gives them
    assert np.allclose(vote([rounded, rounded], how="geometric"), [[1, 0]])


@pytest.mark.parametrize("how", ["mean", "geometric", "majority"])
def test_equal_members_are_one(how):
    (first, *_), _ = members()
    found = vote([first] * 3, how=how)
    assert np.allclose(found, first if how != "majority" else np.eye(3)[first.argmax(1)])
    only = vote([first, 1 - first], [1, 0], how=how)
    assert np.array_equal(only.argmax(1), first.argmax(1))


def test_blended_weights_are_the_minimum_that_an_optimiser_finds():
    probabilities, targets = members()
    weights = blend_weights(probabilities, targets)
    assert weights.sum() == pytest.approx(1)
    found = scipy.optimize.minimize(
        lambda logits: cross_entropy(vote(probabilities, np.exp(logits)), targets), np.zeros(3)
    )
    best = np.exp(found.x) / np.exp(found.x).sum()
    assert weights == pytest.approx(best, abs=2e-3)
    blended = cross_entropy(vote(probabilities, weights), targets)
    assert blended <= min(cross_entropy(one, targets) for one in probabilities)
    assert blended <= cross_entropy(vote(probabilities), targets)


def test_geometric_weights_are_the_minimum_that_an_optimiser_finds():
    probabilities, targets = members()
    logs = [np.log(np.stack(probabilities))[:, rows] for rows in (slice(150), slice(150, None))]
    weights = ensembling.geometric_weights(logs, [targets[:150], targets[150:]])
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0

    def entropy(weights):
        return cross_entropy(vote(probabilities, weights, "geometric"), targets)

    found = scipy.optimize.minimize(lambda logits: entropy(np.exp(logits)), np.zeros(3))
    best = np.exp(found.x) / np.exp(found.x).sum()
    assert weights == pytest.approx(best, abs=2e-3)
    assert not np.allclose(weights, blend_weights(probabilities, targets), atol=0.02)
    for one in (weights, np.array([0.2, 0.3, 0.5])):
        value, gradient = ensembling.geometric_cross_entropy(
            logs, [targets[:150], targets[150:]], one
        )
        assert value == pytest.approx(entropy(one))
        numeric = scipy.optimize.approx_fprime(
            one,
            lambda w: ensembling.geometric_cross_entropy(logs, [targets[:150], targets[150:]], w)[
                0
            ],
        )
        assert gradient == pytest.approx(numeric, abs=1e-5)


def test_blending_several_labels_an_item_finds_the_member_that_knows():
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=(200, 4))
    good = np.where(targets, 0.9, 0.1)
    assert blend_weights([np.full((200, 4), 0.5), good], targets) == pytest.approx([0, 1], abs=1e-3)
    # A member that is right and sure in 3 of 4 cases, the other in the rest: shares of a mixture.
    half = np.where(rng.random((2000, 1)) < 0.75, 0.98, 0.02)
    weights = blend_weights([half, 1 - half], np.ones((2000, 1), int))
    assert weights == pytest.approx([0.75, 0.25], abs=0.03)


def test_stacking_beats_its_members_on_items_it_has_not_seen():
    probabilities, targets = members(1200)
    known, new = [one[:800] for one in probabilities], [one[800:] for one in probabilities]
    predict = stack(known, targets[:800])
    found = predict(new)
    assert np.allclose(found.sum(axis=1), 1)
    assert cross_entropy(found, targets[800:]) < min(
        cross_entropy(one, targets[800:]) for one in new
    )


def test_stacking_learns_that_a_member_mixes_two_classes_up():
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=300)
    swapped = np.eye(3)[np.array([1, 0, 2])[targets]] * 0.8 + 0.2 / 3
    assert (swapped.argmax(1) == targets).mean() < 0.5
    assert (stack([swapped], targets)([swapped]).argmax(1) == targets).all()


def test_stacking_never_says_a_class_that_it_was_not_shown():
    probabilities, targets = members()
    found = stack(probabilities, np.where(targets == 2, 0, targets))(probabilities)
    assert found.shape == (400, 3)
    assert not found[:, 2].any()
    alone = stack(probabilities, np.zeros(400, int))(probabilities)
    assert np.array_equal(alone, np.eye(3)[np.zeros(400, int)])


def test_stacking_several_labels_an_item():
    rng = np.random.default_rng(2)
    targets = rng.integers(2, size=(300, 3))
    targets[:, 2] = 0
    inverted = np.where(targets, 0.3, 0.7)
    found = stack([inverted, rng.random((300, 3))], targets)([inverted, rng.random((300, 3))])
    assert np.array_equal(found > 0.5, targets > 0)
    assert not found[:, 2].any()


@pytest.mark.parametrize("several", [False, True])
def test_a_stacked_model_is_saved_as_plain_data(several):
    probabilities, targets = members()
    answers = np.eye(3)[targets] if several else targets
    fitted = stack(probabilities, answers)
    again = Stacked.of(json.loads(json.dumps(fitted.as_dict())))
    assert np.array_equal(again(probabilities), fitted(probabilities))
    with pytest.raises(ValueError, match="rows of coefficients, expected"):
        Stacked.of(fitted.as_dict() | {"members": 2})


def test_votes_where_an_item_may_have_several_labels():
    said = [np.array([[0.9, 0.6, 0.2]]), np.array([[0.5, 0.1, 0.2]]), np.array([[0.7, 0.4, 0.2]])]
    assert np.allclose(vote(said, how="majority", multilabel=True), [[1, 1 / 3, 0]])
    odds = np.prod([p / (1 - p) for p in np.array(said)], axis=0) ** (1 / 3)
    assert np.allclose(vote(said, how="geometric", multilabel=True), odds / (1 + odds))
    assert np.allclose(vote(said, multilabel=True), np.mean(said, axis=0))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p, t: vote([]), "no members"),
        (lambda p, t: vote([p[0], p[1][:3]]), r"member 1 gives \(3, 3\), expected \(400, 3\)"),
        (lambda p, t: vote(p, [1, 2]), "weights 1, 2, expected 3 numbers"),
        (lambda p, t: vote(p, [1, -1, 1]), "weights 1, -1, 1, expected"),
        (lambda p, t: vote(p, [0, 0, 0]), "are all 0"),
        (lambda p, t: blend_weights(p, t + 1), "targets from 1 to 3, expected 0 to 2"),
        (lambda p, t: blend_weights(p, t[:5]), r"targets \(5,\) int64, expected class numbers"),
        (lambda p, t: stack(p, t)(p[:2]), "2 members of 3 classes, expected 3 of 3"),
        (lambda p, t: soup([]), "no checkpoints"),
    ],
)
def test_what_cannot_be_joined_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act(*members())


# ---- weights


def saved(folder, value, ema=None, name="layer.weight", kind=mx.float32):
    arrays = {"model": {name: mx.full((2,), value, kind), "count": mx.array(int(value))}}
    if ema is not None:
        arrays["ema"] = {name: mx.full((2,), ema, kind)}
    checkpoint.save(folder, arrays, {})
    return folder


def test_a_soup_is_the_mean_of_the_averaged_weights(tmp_path):
    places = [saved(tmp_path / "a", 1.0, ema=2.0), saved(tmp_path / "b", 4.0, ema=6.0)]
    assert soup(places)["layer.weight"].tolist() == [4, 4]
    assert soup(places, [3, 1])["layer.weight"].tolist() == [3, 3]
    assert soup(places)["count"].item() == 1
    half = [saved(tmp_path / "c", 1.0, kind=mx.bfloat16), saved(tmp_path / "d", 2.0)]
    assert soup(half[:1])["layer.weight"].dtype == mx.bfloat16
    with pytest.raises(ValueError, match="d does not fit the model: 1 misshaped"):
        soup(half)


def test_a_soup_of_other_architectures_is_refused(tmp_path):
    places = [saved(tmp_path / "a", 1.0), saved(tmp_path / "b", 4.0, name="other")]
    with pytest.raises(checkpoint.CheckpointError, match="b does not fit the model: 1 missing"):
        soup(places)


def test_member_weights_add_up():
    assert ensembling.member_weights([1, 3], 2).tolist() == [0.25, 0.75]
    assert ensembling.member_weights(None, 4).tolist() == [0.25] * 4
