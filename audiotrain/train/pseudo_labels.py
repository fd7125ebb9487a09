"""Pseudo-labels: what a model predicts with confidence labels training items of the next one."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from audiotrain.train.calibration import apply_temperature, fit_temperature
from audiotrain.train.data.loader import Dataset
from audiotrain.utils.errors import UserError

Labels = TypeVar("Labels")


def select(
    probabilities: np.ndarray,
    threshold: float | np.ndarray,
    valid: tuple[np.ndarray, np.ndarray],
    multilabel: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Which classes label which items, (items, classes) of bool, and calibrated probabilities.

    An item's most probable class (of `multilabel` items: any class) labels it where the calibrated
    probability reaches the threshold, one number or (classes,). valid: the model's probabilities
    for labelled items that it was not trained on, and their targets, 0 and 1, both
    (items, classes); the temperature of the calibration is fitted on them.
    """
    calibrated = apply_temperature(probabilities, fit_temperature(*valid, multilabel), multilabel)
    is_label = calibrated >= threshold
    if not multilabel:
        is_label &= np.arange(calibrated.shape[1]) == calibrated.argmax(axis=1)[:, None]
    return is_label, calibrated


class LabelledItems(Dataset):
    """Unlabelled items with their pseudo-labels, number of an item -> class number, as items like
    `example`, a labelled one: (x, class), or a dict with the class under `target`, by default the
    one key that unlabelled items lack. ValueError for others."""

    def __init__(self, data: Any, labels: Mapping[int, int], example: Any, target: str | None):
        self.data, self.labels = data, list(labels.items())
        if isinstance(example, Mapping):
            item = data[0]
            lacking = set(example) - set(item if isinstance(item, Mapping) else ())
            if target is None and len(lacking) == 1:
                (target,) = lacking
            if target not in example or not lacking <= {target}:
                raise UserError(
                    f"pseudo_label: target is {target!r}, expected the label's key among "
                    f"{', '.join(example)}, the only one that unlabelled items may lack"
                )
        elif not isinstance(example, tuple | list) or len(example) != 2:
            kind = type(example).__name__
            raise UserError(f"pseudo_label: an item is a {kind}, expected (x, class) or a dict")
        self.example, self.target = example, target

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        row, label = self.labels[index]
        item, example, target = self.data[row], self.example, self.target
        if isinstance(example, Mapping):
            others = {name: item[name] for name in example if name != target}
            return others | {target: _like(example[target], label)}
        return item[0] if isinstance(item, tuple | list) else item, _like(example[1], label)


def _like(example: Any, label: int) -> Any:
    """A class number of the example's type."""
    return np.asarray(label, np.asarray(example).dtype)[()]


def train_in_rounds(
    rounds: int,
    train: Callable[[int, Labels | None], float],
    label: Callable[[int], Labels],
    mode: str = "max",
) -> list[float]:
    """Train without pseudo-labels, then up to `rounds` times with those by the last round's model;
    the validation score of each round.

    `train(number, labels)` gives the score of a round, `label(number)` the labels for it. It ends
    early, and prints why, where there are no labels, the same ones again, or a worse score than the
    best before (of `mode` "max" a smaller one).
    """
    scores, labels = [train(0, None)], None
    best = max if mode == "max" else min
    for number in range(1, rounds + 1):
        before, labels = labels, label(number)
        if not labels or labels == before:
            why = "the same labels" if labels else "no label reaches its threshold"
            print(f"\nno round {number}: {why}")
            break
        scores.append(train(number, labels))
        if scores[-1] != best(scores):
            fell = "fell" if mode == "max" else "rose"
            print(f"\nthe validation score {fell}: {scores[-1]:.3f} after {best(scores):.3f}")
            break
    return scores
