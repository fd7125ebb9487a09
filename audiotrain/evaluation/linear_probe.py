"""How well embeddings separate classes: zero-shot by prompts, and by a linear probe.

Embeddings are (items, width), classes are numbers from 0, scores are (items, classes).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiotrain.evaluation.classification import class_accuracies
from audiotrain.train.crossval import make_folds
from audiotrain.utils.arrays import l2_normalize

FOLDS = 5  # of cross-validation, where there are no other items to train on
INNER_FOLDS = 4  # one of which the probe's C is chosen on
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # values of C, for embeddings of variance 1


def zero_shot(audio: np.ndarray, prompts: Sequence[np.ndarray]) -> np.ndarray:
    """Cosines (clips, classes) between clips and the mean prompt of each class.

    audio (clips, width); prompts: for each class the embeddings (templates, width) of its name in
    several sentences, whose directions are averaged (Radford et al. 2021, arXiv:2103.00020).
    ValueError for prompts of another shape.

    >>> prompts = [[[1.0, 0.0]], [[0.0, 2.0], [0.0, 5.0]]]
    >>> zero_shot(np.array([[3.0, 0.0], [0.0, 1.0]]), prompts).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    audio = np.asarray(audio, np.float64)
    means = []
    for number, templates in enumerate(prompts):
        templates = np.asarray(templates, np.float64)
        if templates.ndim != 2 or not len(templates) or templates.shape[1] != audio.shape[-1]:
            raise ValueError(
                f"prompts of class {number} are {templates.shape}, "
                f"expected (templates, {audio.shape[-1]}), one or more"
            )
        means.append(l2_normalize(templates).mean(axis=0))
    return l2_normalize(audio) @ l2_normalize(np.array(means)).T


@dataclass(frozen=True)
class LinearProbe:
    """Logits (items, classes) of embeddings; weights (width, classes), bias (classes,).

    Classes without an item to fit have a bias of -inf. `C` is the inverse of the penalty's weight.
    """

    weights: np.ndarray
    bias: np.ndarray
    C: float

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        return np.asarray(embeddings, np.float64) @ self.weights + self.bias


def fit_linear_probe(
    embeddings: np.ndarray, targets: np.ndarray, C: float = 1.0, max_iterations: int = 1000
) -> LinearProbe:
    """Multinomial logistic regression by scikit-learn, the standard measure of frozen embeddings.

    Minimises C * sum of cross entropies + |weights|^2 / 2; choose `C` on validation data.
    embeddings (items, width), targets (items,) with some items of each class from 0 to the last.
    ValueError for targets or a C that do not fit; a warning when it has not converged after
    `max_iterations`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    embeddings, targets = np.asarray(embeddings, np.float64), np.asarray(targets)
    if embeddings.ndim != 2 or targets.shape != embeddings.shape[:1] or not len(targets):
        raise ValueError(
            f"embeddings {embeddings.shape} and targets {targets.shape}, "
            f"expected (items, width) and (items,)"
        )
    if not C > 0:
        raise ValueError(f"C is {C!r}, expected above 0")
    counts = np.bincount(targets)
    if len(counts) < 2 or not counts.all():
        raise ValueError(f"items of each class are {counts.tolist()}, expected two classes, none 0")
    # scikit-learn gives two classes one weight vector w, not w / 2 and -w / 2: twice the penalty.
    is_binary = len(counts) == 2
    model = LogisticRegression(C=2 * C if is_binary else C, tol=1e-7, max_iter=max_iterations)
    with warnings.catch_warnings():
        # It also warns where float64 ends before the tolerance is reached, as with a small C.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(embeddings, targets)
    if (iterations := int(model.n_iter_.max())) >= max_iterations:
        warnings.warn(
            f"the linear probe has not converged after {iterations} iterations: scale the "
            "embeddings, or lower C",
            stacklevel=2,
        )
    weights, bias = model.coef_.T, model.intercept_
    if is_binary:
        weights, bias = weights * [-0.5, 0.5], bias * [-0.5, 0.5]
    return LinearProbe(weights, bias, C)


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Embeddings (items, width), class numbers (items,) and the group of each item."""

    embeddings: np.ndarray
    targets: np.ndarray
    groups: Sequence[str]

    def take(self, rows: np.ndarray) -> "LabelledEmbeddings":
        """The items of these rows."""
        groups = [self.groups[row] for row in rows]
        return LabelledEmbeddings(self.embeddings[rows], self.targets[rows], groups)


def tune_probe(
    training: LabelledEmbeddings, validation: LabelledEmbeddings | None, classes: int
) -> LinearProbe | None:
    """A linear probe fitted to `training`, with the C of STRENGTHS that has the best accuracy on
    `validation`, or on a quarter of the training groups. None for fewer than two classes."""
    if len(np.unique(training.targets)) < 2:
        return None
    fitted, chosen_on = training, validation
    if validation is None and (folds := _folds(training, INNER_FOLDS)):
        fitted = training.take(np.sort(np.concatenate(folds[1:])))
        chosen_on = training.take(folds[0])
    C = STRENGTHS[len(STRENGTHS) // 2]
    if chosen_on is not None and len(np.unique(fitted.targets)) > 1 and len(chosen_on.targets):

        def accuracy(C: float) -> float:
            scores = _fit(fitted, classes, C)(chosen_on.embeddings)
            return class_accuracies(scores, chosen_on.targets)["accuracy"]

        C = max(STRENGTHS, key=accuracy)  # the smallest of equally good ones
    return _fit(training, classes, C)


def probe_scores(
    tested: LabelledEmbeddings,
    classes: int,
    training: LabelledEmbeddings | None = None,
    validation: LabelledEmbeddings | None = None,
) -> tuple[np.ndarray, str] | None:
    """Scores (items, classes) of a linear probe for `tested`, and a phrase on how it was fitted.

    It is fitted to `training` as `tune_probe` says; without `training`, on all folds of `tested`
    but the one that it scores. None where there are too few classes or groups to fit it.
    """
    if training is not None:
        probe = tune_probe(training, validation, classes)
        if probe is None:
            return None
        how = f"learnt from {len(training.targets)} clips of train, C={probe.C:g}"
        return probe(tested.embeddings), how
    scores, strengths = np.full((len(tested.targets), classes), -np.inf), []
    for rows in _folds(tested, FOLDS):
        rest = np.setdiff1d(np.arange(len(tested.targets)), rows)
        probe = tune_probe(tested.take(rest), None, classes)
        if probe is None:
            return None
        scores[rows] = probe(tested.embeddings[rows])
        strengths.append(f"{probe.C:g}")
    if not strengths:
        return None
    return scores, f"{len(strengths)} folds by group, C={', '.join(dict.fromkeys(strengths))}"


def _folds(items: LabelledEmbeddings, most: int) -> list[np.ndarray]:
    """Rows of up to `most` stratified folds that keep groups whole; none where there are too few
    groups, or no class has two items."""
    commonest = int(np.unique(items.targets, return_counts=True)[1].max())
    folds = min(most, len(set(items.groups)), commonest)
    return make_folds(items.groups, folds, items.targets.tolist()) if folds > 1 else []


def _fit(training: LabelledEmbeddings, classes: int, C: float) -> LinearProbe:
    """A probe fitted to embeddings that are centred and scaled to a variance of 1."""
    present, targets = np.unique(training.targets, return_inverse=True)
    center = training.embeddings.mean(axis=0, dtype=np.float64)
    scale = max(float((training.embeddings - center).std()), 1e-12)  # one for all directions
    with warnings.catch_warnings():  # stopping early regularises more
        warnings.simplefilter("ignore", UserWarning)
        fitted = fit_linear_probe((training.embeddings - center) / scale, targets, C)
    weights, bias = np.zeros((len(center), classes)), np.full(classes, -np.inf)
    weights[:, present] = fitted.weights / scale
    bias[present] = fitted.bias - center @ weights[:, present]
    return LinearProbe(weights, bias, C)
