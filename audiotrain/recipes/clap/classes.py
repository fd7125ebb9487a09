"""How well embeddings tell classes apart: zero-shot from sentences, and by a linear probe.

The probe learns from clips of other groups than those it is judged on.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.evaluation import classification, linear_probe, plots
from audiotrain.evaluation import classification as evaluation_classification

FOLDS = 5  # of cross-validation, where no other clips are there to learn from
INNER_FOLDS = 4  # one of which the probe's C is chosen on
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of C, for embeddings of variance 1
NAMES = {"zero_shot": "zero-shot", "linear_probe": "linear probe"}
TOP = 3  # classes among which the right one may be


class Labelled(NamedTuple):
    """Embeddings (clips, dim), class numbers (clips,) and the group of each clip."""

    embeddings: np.ndarray
    targets: np.ndarray
    groups: Sequence[str]

    def take(self, rows: np.ndarray) -> "Labelled":
        """Some of them."""
        groups = [self.groups[row] for row in rows]
        return Labelled(self.embeddings[rows], self.targets[rows], groups)


class Judged(NamedTuple):
    """Scores (clips, classes) of one way to tell classes, and `how` it was done."""

    scores: np.ndarray
    how: str


@dataclass(frozen=True)
class ClassScores:
    """The classes `names`, the clips' `targets` (clips,), and what each way says, by its name."""

    names: list[str]
    targets: np.ndarray
    judged: dict[str, Judged]

    def confusion(self, way: str) -> np.ndarray:
        """Clips (classes, classes): row the reference, column what was said."""
        said = self.judged[way].scores.argmax(axis=1)
        return classification.confusion_matrix(said, self.targets, len(self.names))

    def as_dict(self) -> dict:
        """Accuracies as shares of 1, by way."""
        result = {}
        for way, (scores, how) in self.judged.items():
            result[way] = evaluation_classification.class_accuracies(scores, self.targets) | {
                f"top_{TOP}": classification.top_k_accuracy(
                    scores, self.targets, min(TOP, len(self.names))
                ),
                "how": how,
            }
        counts = np.bincount(self.targets, minlength=len(self.names))
        largest = float(counts.max() / counts.sum())
        return {"classes": len(self.names), "clips": len(self.targets), "largest_class": largest,
                **result}  # fmt: skip

    def table(self) -> str:
        """A row for each way, in percent."""
        found = self.as_dict()
        lines = [f"{'classes':16}{'accuracy':>9}{'balanced':>9}{f'top {TOP}':>8}"]
        for way in self.judged:
            row = found[way]
            numbers = (row["accuracy"], row["balanced_accuracy"], row[f"top_{TOP}"])
            widths = zip(numbers, (9, 9, 8), strict=True)
            shares = "".join(f"{100 * share:{width}.1f}" for share, width in widths)
            lines.append(f"{NAMES[way]:16}{shares}   {row['how']}")
        lines.append(f"{'largest class':16}{100 * found['largest_class']:9.1f}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """For each way its confusions as PNG and CSV, and its precision, recall and F1 by class."""
        for way in self.judged:
            matrix, stem = self.confusion(way), folder / f"confusion-{way.replace('_', '-')}"
            title = f"Classes, {NAMES[way]}"
            plots.confusion_picture(
                matrix, self.names, stem.with_suffix(".png"), title, unit="clips"
            )
            plots.confusion_csv(matrix, self.names, stem.with_suffix(".csv"))
            columns = classification.per_class(matrix)
            rows = [
                {"class": name} | {key: values[number].item() for key, values in columns.items()}
                for number, name in enumerate(self.names)
            ]
            plots.table_csv(rows, folder / f"classes-{way.replace('_', '-')}.csv")


def probe(
    tested: Labelled, classes: int, training: Labelled | None, validation: Labelled | None
) -> Judged | None:
    """What a linear probe says of the clips `tested`.

    It learns from `training`, and its C is chosen on `validation`, or on a fourth of the training
    groups; without `training` it learns from all folds of `tested` but the one that it is asked
    about. None where there are too few classes or groups to learn from.
    """
    if training is not None:
        fitted = fit_probe(training, validation, classes)
        if fitted is None:
            return None
        score, strength = fitted
        how = f"learnt from {len(training.targets)} clips of train, C={strength:g}"
        return Judged(score(tested.embeddings), how)
    folds = stratified(tested, FOLDS)
    scores, strengths = np.full((len(tested.targets), classes), -np.inf), []
    for fold in np.unique(folds):
        fitted = fit_probe(tested.take(np.flatnonzero(folds != fold)), None, classes)
        if fitted is None:
            return None
        score, strength = fitted
        rows = np.flatnonzero(folds == fold)
        scores[rows] = score(tested.embeddings[rows])
        strengths.append(f"{strength:g}")
    how = f"{len(strengths)} folds by group, C={', '.join(dict.fromkeys(strengths))}"
    return Judged(scores, how)


def stratified(labelled: Labelled, folds: int) -> np.ndarray:
    """The fold (clips,) of each clip: groups stay whole, and each class goes to all folds in turn.

    It depends on the names of the groups only.
    """
    groups = sorted(set(labelled.groups))
    places = {group: number for number, group in enumerate(groups)}
    member = np.array([places[group] for group in labelled.groups])
    first = np.full(len(groups), -1)
    first[member[::-1]] = labelled.targets[::-1]  # the class of a group's first clip
    order = sorted(range(len(groups)), key=lambda number: (first[number], _hash(groups[number])))
    fold = np.empty(len(groups), np.int64)
    fold[order] = np.arange(len(groups)) % folds
    return fold[member]


def fit_probe(training: Labelled, validation: Labelled | None, classes: int):
    """A linear probe, its C chosen on `validation` or on a fourth of the training groups: a
    function from embeddings to scores (clips, classes), and its C. None for one class."""
    if len(np.unique(training.targets)) < 2:
        return None
    learnt, chosen_on = training, validation
    if chosen_on is None:
        folds = stratified(training, INNER_FOLDS)
        learnt = training.take(np.flatnonzero(folds > 0))
        chosen_on = training.take(np.flatnonzero(folds == 0))
    strength = STRENGTHS[len(STRENGTHS) // 2]
    if len(np.unique(learnt.targets)) > 1 and len(chosen_on.targets):

        def right(strength: float) -> float:
            scores = _classifier(learnt, classes, strength)(chosen_on.embeddings)
            return evaluation_classification.class_accuracies(scores, chosen_on.targets)["accuracy"]

        strength = max(STRENGTHS, key=right)  # of equally good ones the smallest
    return _classifier(training, classes, strength), strength


def _classifier(training: Labelled, classes: int, strength: float):
    """Classes of which no clip is there are never chosen."""
    present, targets = np.unique(training.targets, return_inverse=True)
    centre = training.embeddings.mean(axis=0, dtype=np.float64)
    spread = max(float((training.embeddings - centre).std()), 1e-12)  # one for all directions
    with warnings.catch_warnings():  # one that is stopped early is regularised the more
        warnings.simplefilter("ignore", UserWarning)
        fitted = linear_probe.fit_linear_probe(
            (training.embeddings - centre) / spread, targets, strength
        )

    def score(embeddings: np.ndarray) -> np.ndarray:
        scores = np.full((len(embeddings), classes), -np.inf)
        scores[:, present] = fitted((embeddings - centre) / spread)
        return scores

    return score


def _hash(group: str) -> bytes:
    return hashlib.blake2b(group.encode("utf-8", "replace"), digest_size=8).digest()
