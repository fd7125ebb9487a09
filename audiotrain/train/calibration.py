"""Calibration of probabilities by a temperature (Guo et al. 2017, arXiv:1706.04599)."""

import numpy as np
import scipy.optimize

TEMPERATURES = (1 / 3, 2.0)  # smallest and largest, in case there are few items


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray, multilabel: bool) -> float:
    """The temperature, within TEMPERATURES, that minimises the negative log-likelihood.

    probabilities and targets (items, classes); each class of `multilabel` items is a binary
    decision. Label smoothing and mixed clips make a model underconfident: a temperature below 1
    corrects it.
    """

    def nll(inverse: float) -> float:
        calibrated = apply_temperature(probabilities, 1 / inverse, multilabel).clip(1e-9, 1)
        losses = -(targets * np.log(calibrated))
        if multilabel:
            losses = losses - (1 - targets) * np.log((1 - calibrated).clip(1e-9, 1))
        return float(losses.sum(axis=1).mean())

    bounds = (1 / TEMPERATURES[1], 1 / TEMPERATURES[0])
    return 1 / float(scipy.optimize.minimize_scalar(nll, bounds=bounds, method="bounded").x)


def apply_temperature(
    probabilities: np.ndarray, temperature: float, multilabel: bool
) -> np.ndarray:
    """Probabilities (items, classes) with their logits divided by a temperature.

    >>> apply_temperature(np.array([[0.25, 0.75]]), 0.5, multilabel=False).round(3).tolist()
    [[0.1, 0.9]]
    """
    powers = probabilities ** (1 / temperature)
    others = (1 - probabilities) ** (1 / temperature) if multilabel else 0
    return powers / (powers + others if multilabel else powers.sum(axis=1, keepdims=True))
