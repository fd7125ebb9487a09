"""What embeddings know of classes: zero-shot by prompts, and a linear probe.

Embeddings are (items, width), classes are numbers from 0. Scores (items, classes) go to
`metrics.top_k_accuracy`, `confusion_matrix` and `per_class`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special

CONVERGED = 1e-5  # the largest part of a linear probe's gradient that passes as none


def zero_shot(audio: np.ndarray, prompts: Sequence[np.ndarray]) -> np.ndarray:
    """Cosines (clips, classes) between clips and classes that are known by their texts alone.

    audio (clips, width); prompts: for each class the embeddings (templates, width) of its name in
    several sentences, whose directions are averaged (Radford et al. 2021, arXiv:2103.00020).

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
        means.append(_unit(templates).mean(axis=0))
    return _unit(audio) @ _unit(np.array(means)).T


@dataclass(frozen=True)
class LinearProbe:
    """Logits (items, classes) of embeddings; weights (width, classes), bias (classes,)."""

    weights: np.ndarray
    bias: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        return np.asarray(embeddings, np.float64) @ self.weights + self.bias


def fit_linear_probe(
    embeddings: np.ndarray, targets: np.ndarray, C: float = 1.0, max_iterations: int = 1000
) -> LinearProbe:
    """Multinomial logistic regression, the standard measure of frozen embeddings.

    Minimises C * sum of cross entropies + |weights|^2 / 2, as scikit-learn's LogisticRegression
    does with three or more classes; `C` is to be chosen on validation data. embeddings
    (items, width), targets (items,), of which each class from 0 to the last must have some. A
    warning when it has not converged after `max_iterations`.
    """
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
    (items, width), classes = embeddings.shape, len(counts)
    wanted = np.eye(classes)[targets]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        logits = embeddings @ weights + bias
        logs = scipy.special.log_softmax(logits, axis=1)
        errors = (np.exp(logs) - wanted) / items
        penalty = weights / (C * items)
        loss = -(logs * wanted).sum() / items + (weights * penalty).sum() / 2
        gradient = embeddings.T @ errors + penalty
        return loss, np.concatenate([gradient.ravel(), errors.sum(axis=0)])

    found = scipy.optimize.minimize(
        objective,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "gtol": 1e-7, "ftol": 1e-13},
    )
    # With a small C there may be nothing left to gain in float64 before gtol is reached.
    if not found.success and (slope := np.abs(found.jac).max()) > CONVERGED:
        warnings.warn(
            f"the linear probe has not converged after {found.nit} iterations, gradient "
            f"{slope:.1e}: scale the embeddings, or lower C",
            stacklevel=2,
        )
    weights = found.x[: width * classes].reshape(width, classes)
    return LinearProbe(weights, found.x[width * classes :])


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-300)
