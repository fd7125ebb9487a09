"""Ensembles: voting, blending and stacking of the probabilities of several models.

Probabilities of a member are (items, classes): rows that sum to 1, or in a multilabel task one
number a label. Weights are fitted on predictions for items that no member was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import scipy.optimize
from scipy.special import expit, log_softmax, logit, softmax

from audiotrain.config import conform
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import count

Vote = Literal["mean", "geometric", "majority"]
Join = Literal["mean", "geometric", "majority", "blend", "stack"]
TINIEST = 1e-12  # lower bound of a probability before its logarithm
SMALLEST = 1e-6  # the same in the input of a stacked model
NEVER = 1e4  # a logit that makes the opposite impossible
ROUNDING = 1e-6  # tolerance of probabilities in float32 beyond 0 and 1


def vote(
    probabilities: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    how: Vote = "mean",
    multilabel: bool = False,
) -> np.ndarray:
    """Join the members' arrays (..., classes): "mean" is their weighted mean; "geometric" their
    weighted geometric mean, normalised over classes; "majority" the weighted share of votes, each
    member voting for its most probable class. With `multilabel` each label is decided alone: the
    geometric mean is normalised over the label and its opposite, and members vote for labels of
    probability 0.5 or more. ValueError for no members or members of different shapes, for weights
    that are not one a member, of 0 or more and not all 0, and for a geometric mean of values that
    are no probabilities.

    >>> members = [np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]])]
    >>> vote(members).round(2).tolist()
    [[0.65, 0.35]]
    >>> vote(members, weights=[1, 3], how="majority").tolist()
    [[0.25, 0.75]]
    >>> vote(members, how="geometric", multilabel=True).round(3).tolist()
    [[0.71, 0.29]]
    """
    stacked = _stacked(probabilities)
    shares = member_weights(weights, len(stacked))
    if how == "majority":
        classes = stacked.shape[-1]
        stacked = stacked >= 0.5 if multilabel else np.eye(classes)[stacked.argmax(axis=-1)]
    if how == "geometric":
        check_probabilities("geometric: a member", stacked)
        logs = np.tensordot(shares, np.log(np.maximum(stacked, TINIEST)), 1)
        if multilabel:
            against = np.tensordot(shares, np.log(np.maximum(1 - stacked, TINIEST)), 1)
            return expit(logs - against)
        return softmax(logs, axis=-1)
    return np.tensordot(shares, stacked, 1)


def check_probabilities(source: str, stacked: np.ndarray) -> None:
    """ValueError, naming their source, for numbers outside 0 to 1."""
    good = (stacked >= -ROUNDING) & (stacked <= 1 + ROUNDING)
    if not good.all():
        raise UserError(f"{source} gives {stacked[~good][0]:g}, expected probabilities, 0 to 1")


def member_weights(weights: Sequence[float] | None, members: int) -> np.ndarray:
    """Weights (members,) that sum to 1; equal ones for None. ValueError for others than that many
    finite ones from 0, not all 0."""
    if weights is None:
        return np.full(members, 1 / members)
    shares = np.asarray(weights, np.float64)
    if shares.shape != (members,) or not np.isfinite(shares).all() or shares.min() < 0:
        shown = ", ".join(f"{weight:g}" for weight in shares.ravel())
        raise UserError(f"weights {shown}, expected {count(members, 'number')} of 0 or more")
    if not shares.sum():
        raise UserError(f"{members} weights are all 0, expected one above")
    return shares / shares.sum()


def blend_weights(
    oof: Sequence[np.ndarray], targets: np.ndarray, steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """The weights (members,) whose mean of probabilities has the smallest cross entropy.

    oof: (items, classes) of each member; targets: class numbers (items,), or 0 and 1
    (items, classes) in a multilabel task. The problem is convex; it is solved by
    expectation maximisation as for the shares of a mixture, which never makes it worse. ValueError
    for no members, members of different shapes, and targets that do not fit them.

    >>> good, bad = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> blend_weights([good, bad], np.array([0, 1])).round(3).tolist()
    [1.0, 0.0]
    """
    return mixture_weights(_likelihoods(_stacked(oof), np.asarray(targets)), steps, tolerance)


def mixture_weights(
    likelihoods: np.ndarray, steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """`blend_weights` from the likelihoods (members, observations): the probability that each
    member gives to the true class."""
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


def geometric_weights(logs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> np.ndarray:
    """The weights (members,) whose geometric mean of probabilities, normalised over classes, has
    the smallest cross entropy, which is convex in them (SLSQP).

    logs: finite log-probabilities (members, items, classes) of one or more kinds of items; targets:
    class numbers (items,) of each kind.

    >>> good, bad = np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([[0.1, 0.9], [0.6, 0.4]])
    >>> geometric_weights([np.stack([good, bad])], [np.array([0, 1])]).round(3).tolist()
    [1.0, 0.0]
    """
    members = len(logs[0])
    equal = np.full(members, 1 / members)
    sums_to_1 = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(members)}
    solution = scipy.optimize.minimize(
        lambda w: geometric_cross_entropy(logs, targets, w),
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints=sums_to_1,
        options={"ftol": 1e-9, "maxiter": 200},
    )
    weights = solution.x.clip(0)
    candidates = (equal, weights / weights.sum())
    return min(candidates, key=lambda w: geometric_cross_entropy(logs, targets, w)[0])


def geometric_cross_entropy(
    logs: Sequence[np.ndarray], targets: Sequence[np.ndarray], weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean over all items, in nats, and its gradient (members,); arguments as geometric_weights."""
    total, gradient, items = 0.0, np.zeros(len(weights)), 0
    for members, classes in zip(logs, targets, strict=True):
        joined = log_softmax(np.tensordot(weights, members, 1), axis=-1)
        rows = np.arange(len(classes))
        total -= joined[rows, classes].sum()
        gradient += np.einsum("ic,mic->m", np.exp(joined), members)
        gradient -= members[:, rows, classes].sum(axis=1, dtype=np.float64)
        items += len(classes)
    return total / items, gradient / items


def _likelihoods(stacked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(members, observations): the probability that each member gives to the true class."""
    if targets.shape == stacked.shape[1:]:
        return np.where(targets > 0.5, stacked, 1 - stacked).reshape(len(stacked), -1)
    _check_classes(stacked, targets)
    return stacked[:, np.arange(len(targets)), targets]


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over items, in nats; with targets (items, classes) of 0 and 1 over classes, too.

    >>> round(cross_entropy(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 3)
    0.49
    """
    likelihoods = _likelihoods(_stacked([probabilities]), np.asarray(targets))
    return float(-np.log(np.maximum(likelihoods, SMALLEST)).mean())


@dataclass(frozen=True)
class _SavedStack:
    members: int
    several: bool
    coefficients: list[list[float]]
    intercepts: list[float]


@dataclass(frozen=True)
class Stacked:
    """A model of the members' probabilities: called with theirs for new items, in the order in
    which they were stacked, it gives (items, classes). ValueError for other members or classes.

    A logit is `coefficients` times the logarithms of the members' probabilities, plus `intercepts`
    (classes,): of all members and classes (classes, members * classes), or with `multilabel` of the
    members' log-odds for the same label (classes, members).
    """

    members: int
    multilabel: bool
    coefficients: np.ndarray
    intercepts: np.ndarray

    def __call__(self, probabilities: Sequence[np.ndarray]) -> np.ndarray:
        new, classes = _stacked(probabilities), len(self.intercepts)
        if (len(new), new.shape[-1]) != (self.members, classes):
            raise UserError(
                f"{len(new)} members of {new.shape[-1]} classes, expected {self.members} of "
                f"{classes}, as stacked"
            )
        if self.multilabel:
            return expit(np.einsum("mic,cm->ic", _odds(new), self.coefficients) + self.intercepts)
        return softmax(_logs(new) @ self.coefficients.T + self.intercepts, axis=-1)

    def as_dict(self) -> dict:
        """Plain data, from which `Stacked.of` makes it again."""
        numbers = {"coefficients": self.coefficients, "intercepts": self.intercepts}
        plain = {name: values.tolist() for name, values in numbers.items()}
        return {"members": self.members, "several": self.multilabel} | plain

    @classmethod
    def of(cls, saved: Any, place: str = "stacked") -> "Stacked":
        """Return the model in a dict of `as_dict`. UserError, which begins with `place`, for
        anything else."""
        content = conform(saved, _SavedStack, place)
        members, classes = content.members, len(content.intercepts)
        columns = members if content.several else members * classes
        rows = content.coefficients
        if len(rows) != classes or any(len(row) != columns for row in rows):
            raise UserError(
                f"{place}: {len(rows)} rows of coefficients, expected {classes} of {columns} for "
                f"{members} members and {classes} classes"
            )
        coefficients = np.array(rows, np.float64).reshape(classes, columns)
        return cls(members, content.several, coefficients, np.array(content.intercepts))


def stack(oof: Sequence[np.ndarray], targets: np.ndarray, C: float = 1.0) -> Stacked:
    """Fit a model of the members' probabilities oof (items, classes) for items that none was
    trained on: logistic regression (scikit-learn) of all classes, or of each label in a multilabel
    task, whose targets are 0 and 1 (items, classes). A class or label that does not occur in
    `targets` is never predicted. ValueError as `blend_weights`.
    """
    stacked, targets = _stacked(oof), np.asarray(targets)
    members, _, classes = stacked.shape
    if targets.shape == stacked.shape[1:]:
        odds = _odds(stacked)
        fitted = [_fit(odds[:, :, k].T, targets[:, k] > 0.5, C) for k in range(classes)]
        rows = [(c[-1], i[-1]) if True in known else (0 * c[0], -NEVER) for known, c, i in fitted]
        weights, biases = (np.array(column) for column in zip(*rows, strict=True))
        return Stacked(members, True, weights, biases)
    _check_classes(stacked, targets)
    known, coefficients, intercepts = _fit(_logs(stacked), targets, C)
    weights, biases = np.zeros((classes, members * classes)), np.full(classes, -NEVER)
    weights[known], biases[known] = coefficients, intercepts
    return Stacked(members, False, weights, biases)


def fit_join(
    how: Join, oof: Sequence[np.ndarray], targets: np.ndarray
) -> tuple[Vote, tuple[float, ...], Stacked | None]:
    """How members are joined, for `join_members`: the vote, its weights (none: equal ones), and
    the stacked model that replaces it. Weights and model are fitted on the members' probabilities
    `oof` for items that they were not trained on, see `blend_weights` and `stack`.
    """
    if how == "blend":
        return "mean", tuple(blend_weights(oof, targets).tolist()), None
    return ("mean", (), stack(oof, targets)) if how == "stack" else (how, (), None)


def join_members(
    runs: Sequence[Sequence[np.ndarray]],
    how: Vote = "mean",
    weights: Sequence[float] = (),
    stacked: Stacked | None = None,
    multilabel: bool = False,
) -> np.ndarray:
    """(items, classes) from the probabilities of each run of each member: by a stacked model of
    each member's mean, or by a vote in which the runs of a member share its weight."""
    if stacked is not None:
        return stacked([np.mean(member, axis=0) for member in runs])
    shares = run_weights(weights, [len(member) for member in runs])
    return vote(list(chain.from_iterable(runs)), shares, how, multilabel)


def run_weights(weights: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """A weight for each run of members of these `sizes`, whose runs share its weight (none: equal
    ones); they sum to 1.

    >>> run_weights([3, 1], [1, 2])
    [0.75, 0.125, 0.125]
    """
    shares = member_weights(weights or None, len(sizes))
    pairs = zip(shares, sizes, strict=True)
    return [float(share) / size for share, size in pairs for _ in range(size)]


def _fit(columns: np.ndarray, targets: np.ndarray, C: float) -> tuple[list, np.ndarray, np.ndarray]:
    """(labels that occur, coefficients (labels, columns), intercepts (labels,)) of logits."""
    from sklearn.linear_model import LogisticRegression

    known = np.unique(targets)
    if len(known) == 1:
        return known.tolist(), np.zeros((1, columns.shape[1])), np.full(1, NEVER)
    model = LogisticRegression(C=C, max_iter=2000).fit(columns, targets)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(known) == 2:  # it has a logit of the second alone
        coefficients = np.concatenate([0 * coefficients, coefficients])
        intercepts = np.concatenate([0 * intercepts, intercepts])
    return known.tolist(), coefficients, intercepts


def _logs(stacked: np.ndarray) -> np.ndarray:
    """Logarithms (items, members * classes) of probabilities (members, items, classes)."""
    return np.concatenate(list(np.log(np.maximum(stacked, SMALLEST))), axis=1)


def _odds(stacked: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, of the same shape."""
    return logit(np.clip(stacked, SMALLEST, 1 - SMALLEST))


def _stacked(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """(members, ...) float64. ValueError for none, or for other shapes than the first's."""
    arrays = [np.asarray(values, np.float64) for values in probabilities]
    if not arrays:
        raise UserError("an ensemble of no members, expected one or more")
    for number, values in enumerate(arrays):
        if values.shape != arrays[0].shape:
            raise UserError(
                f"member {number} gives {values.shape}, expected {arrays[0].shape} as member 0: "
                "the same items and classes"
            )
    return np.stack(arrays)


def _check_classes(stacked: np.ndarray, targets: np.ndarray) -> None:
    items, classes = stacked.shape[1:]
    if targets.shape != (items,) or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(
            f"targets {targets.shape} {targets.dtype}, expected class numbers ({items},) "
            f"or 0 and 1 ({items}, {classes})"
        )
    if items and not (0 <= targets.min() and targets.max() < classes):
        raise UserError(
            f"targets from {targets.min()} to {targets.max()}, expected 0 to {classes - 1}"
        )
