"""Several models as one: voting, blending, stacking of probabilities, soups of weights.

Probabilities of a member are (items, classes); rows that sum to 1, or one number a label when an
item may have several. Weights are fitted on predictions for items that no member was trained on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np

from audiotrain import checkpoint
from audiotrain.checkpoint import Arrays

TINIEST = 1e-12  # a probability that counts as 0


def vote(
    probabilities: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    how: Literal["mean", "geometric", "majority"] = "mean",
) -> np.ndarray:
    """One array (..., classes) of several of that shape: their weighted mean; their weighted
    geometric mean, normalised over classes; or the share of the votes, a vote for each member's
    likeliest class.

    >>> members = [np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]])]
    >>> vote(members).round(2).tolist()
    [[0.65, 0.35]]
    >>> vote(members, weights=[1, 3], how="majority").tolist()
    [[0.25, 0.75]]
    """
    stacked = _stacked(probabilities)
    shares = member_weights(weights, len(stacked))
    if how == "majority":
        classes = stacked.shape[-1]
        stacked = np.eye(classes)[stacked.argmax(axis=-1)]
    if how == "geometric":
        logs = np.tensordot(shares, np.log(np.maximum(stacked, TINIEST)), 1)
        values = np.exp(logs - logs.max(axis=-1, keepdims=True))
        return values / values.sum(axis=-1, keepdims=True)
    return np.tensordot(shares, stacked, 1)


def member_weights(weights: Sequence[float] | None, members: int) -> np.ndarray:
    """Weights (members,) that sum to 1; equal ones for None. ValueError for others than that many
    finite ones from 0, not all 0."""
    if weights is None:
        return np.full(members, 1 / members)
    shares = np.asarray(weights, np.float64)
    if shares.shape != (members,) or not np.isfinite(shares).all() or shares.min() < 0:
        found = ", ".join(f"{weight:g}" for weight in shares.ravel())
        raise ValueError(f"weights {found}, expected {members} numbers of 0 or more")
    if not shares.sum():
        raise ValueError(f"{members} weights are all 0, expected one above")
    return shares / shares.sum()


def blend_weights(
    oof: Sequence[np.ndarray], targets: np.ndarray, steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """The weights (members,) whose mean of probabilities has the smallest cross entropy.

    oof: (items, classes) of each member; targets: class numbers (items,), or 0 and 1
    (items, classes) where an item may have several labels. The problem is convex; it is solved by
    expectation maximisation as for the shares of a mixture, which never makes it worse.

    >>> good, bad = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> blend_weights([good, bad], np.array([0, 1])).round(3).tolist()
    [1.0, 0.0]
    """
    return mixture_weights(_likelihoods(_stacked(oof), np.asarray(targets)), steps, tolerance)


def mixture_weights(
    likelihoods: np.ndarray, steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """`blend_weights` from the probabilities (members, observations) that each member gives to
    what was the case."""
    likelihoods = np.maximum(np.asarray(likelihoods, np.float64), TINIEST)
    members = len(likelihoods)
    weights = np.full(members, 1 / members)
    for _ in range(steps):
        shares = weights[:, None] * likelihoods
        new = (shares / shares.sum(axis=0)).mean(axis=1)
        moved = np.abs(new - weights).max()
        weights = new
        if moved < tolerance:
            break
    return weights / weights.sum()


def _likelihoods(stacked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(members, observations): the probability that each member gives to what was the case."""
    if targets.shape == stacked.shape[1:]:
        chosen = np.where(targets > 0.5, stacked, 1 - stacked).reshape(len(stacked), -1)
    else:
        _check_classes(stacked, targets)
        chosen = stacked[:, np.arange(len(targets)), targets]
    return chosen


def stack(
    oof: Sequence[np.ndarray], targets: np.ndarray, C: float = 1.0
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """A model of the members' probabilities: give it theirs for new items, in the same order, and
    it gives (items, classes).

    Logistic regression (scikit-learn) on their logarithms, of all classes; where an item may have
    several labels, targets (items, classes) of 0 and 1, one for each label. A class or a label that
    `targets` do not show is never predicted.
    """
    stacked, targets = _stacked(oof), np.asarray(targets)
    members, _, classes = stacked.shape
    several = targets.shape == stacked.shape[1:]
    if several:
        fitted = [_binary(stacked[:, :, k], targets[:, k] > 0.5, C) for k in range(classes)]
    else:
        _check_classes(stacked, targets)
        fitted = [_multinomial(stacked, targets, C)]

    def predict(probabilities: Sequence[np.ndarray]) -> np.ndarray:
        new = _stacked(probabilities)
        if (len(new), new.shape[-1]) != (members, classes):
            raise ValueError(
                f"{len(new)} members of {new.shape[-1]} classes, expected {members} of {classes}, "
                "as stacked"
            )
        if several:
            return np.stack([one(new[:, :, k]) for k, one in enumerate(fitted)], axis=1)
        return fitted[0](new)

    return predict


def _multinomial(stacked: np.ndarray, targets: np.ndarray, C: float) -> Callable:
    present = np.unique(targets)

    def columns(values: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(values, 1e-6))
        return np.concatenate(list(logs), axis=1)

    if len(present) == 1:
        return lambda values: np.eye(values.shape[-1])[np.full(values.shape[1], present[0])]
    model = _regression(C).fit(columns(stacked), targets)

    def predict(values: np.ndarray) -> np.ndarray:
        result = np.zeros(values.shape[1:])
        result[:, present] = model.predict_proba(columns(values))
        return result

    return predict


def _binary(values: np.ndarray, targets: np.ndarray, C: float) -> Callable:
    """Of one label: values (members, items) to probabilities (items,)."""

    def columns(values: np.ndarray) -> np.ndarray:
        inside = np.clip(values, 1e-6, 1 - 1e-6)
        return np.log(inside / (1 - inside)).T

    if len(np.unique(targets)) == 1:
        return lambda values: np.full(values.shape[1], float(targets[0]))
    model = _regression(C).fit(columns(values), targets)
    return lambda values: model.predict_proba(columns(values))[:, 1]


def _regression(C: float):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=2000)


def _stacked(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """(members, ...) float64. ValueError for none, or for other shapes than the first's."""
    arrays = [np.asarray(values, np.float64) for values in probabilities]
    if not arrays:
        raise ValueError("an ensemble of no members, expected one or more")
    for number, values in enumerate(arrays):
        if values.shape != arrays[0].shape:
            raise ValueError(
                f"member {number} gives {values.shape}, expected {arrays[0].shape} as member 0: "
                "the same items and classes"
            )
    return np.stack(arrays)


def _check_classes(stacked: np.ndarray, targets: np.ndarray) -> None:
    items, classes = stacked.shape[1:]
    if targets.shape != (items,) or not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(
            f"targets {targets.shape} {targets.dtype}, expected class numbers ({items},) "
            f"or 0 and 1 ({items}, {classes})"
        )
    if items and not (0 <= targets.min() and targets.max() < classes):
        raise ValueError(
            f"targets from {targets.min()} to {targets.max()}, expected 0 to {classes - 1}"
        )


def soup(checkpoints: Sequence[str | Path], weights: Sequence[float] | None = None) -> Arrays:
    """Arrays by name: the weighted mean of the weights of several checkpoints of one architecture
    (model soups, Wortsman et al. 2022, arXiv:2203.05482), of their running averages (EMA) where
    they have them.

    Computed in float32, given in the arrays' type; whole numbers are those of the first. It serves
    runs that began from the same weights; of others the mean is no model. CheckpointError, a
    ValueError, one line, naming the checkpoint whose arrays are others than the first's.
    """
    if not checkpoints:
        raise ValueError("a soup of no checkpoints, expected one or more")
    shares = member_weights(weights, len(checkpoints))
    total: Arrays = {}
    kinds: Arrays = {}
    for folder, share in zip(checkpoints, shares, strict=True):
        arrays, _ = checkpoint.load(folder)
        found = arrays.get("model", {}) | arrays.get("ema", {})
        if not kinds:
            kinds = found
        checkpoint.match(found, kinds, str(folder))
        for name, array in found.items():
            if mx.issubdtype(array.dtype, mx.floating):
                part = float(share) * array.astype(mx.float32)
                total[name] = part if name not in total else total[name] + part
            else:
                total.setdefault(name, array)
        mx.eval(total)
    return {name: array.astype(kinds[name].dtype) for name, array in total.items()}
