"""Reports on classified items, of one class each or multilabel: numbers, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from audiotrain.evaluation import plots
from audiotrain.evaluation.classification import (
    average_precisions,
    class_accuracies,
    confusion_matrix,
    lwlrap,
    mean_average_precision,
    per_class,
    precision_recall_f1,
    top_k_accuracy,
)
from audiotrain.utils.files import write_json

TOP = 3  # the k of top-k accuracy
THRESHOLD = 0.5  # smallest probability of a predicted class of multilabel items
NAMES = {  # of the numbers, in their order, for people
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    f"top_{TOP}": f"top {TOP}",
    "lwlrap": "lwlrap",
    "map": "mAP",
}
METHODS = {
    "zero_shot": "zero-shot",
    "linear_probe": "linear probe",
}  # of classification by embeddings


@dataclass(frozen=True)
class ClassificationReport:
    """How well `scores` predict `targets`, both (items, classes); targets are 0 or 1.

    Scores of multilabel items are probabilities, from THRESHOLD on a class is predicted; of the
    others the class with the largest score is. `ids` names the items in clips.csv. Without
    `rankings`, lwlrap, mAP and the average precision of each class are left out.
    """

    classes: Sequence[str]
    ids: Sequence[str]
    targets: np.ndarray
    scores: np.ndarray
    multilabel: bool = False
    rankings: bool = True

    @property
    def target_classes(self) -> np.ndarray:
        """Class numbers (items,) of items with one class each."""
        return self.targets.argmax(axis=1)

    @property
    def predicted(self) -> np.ndarray:
        """The number (items,) of the class with the largest score."""
        return self.scores.argmax(axis=1)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Shares of 1: accuracies where items have one class, then rankings.

        `lwlrap` weights each class of each item equally (FSDKaggle2019's score); `map` is the mean
        average precision of the classes that occur.
        """
        numbers: dict[str, float] = {}
        if not self.multilabel:
            k = min(TOP, len(self.classes))
            numbers |= class_accuracies(self.scores, self.target_classes)
            numbers[f"top_{TOP}"] = top_k_accuracy(self.scores, self.target_classes, k)
        if self.rankings:
            numbers["lwlrap"] = lwlrap(self.targets, self.scores)
            numbers["map"] = mean_average_precision(self.targets, self.scores)
        return numbers

    @property
    def score(self) -> float:
        """The number that runs are compared by: accuracy, or lwlrap of multilabel items."""
        return self.numbers["lwlrap" if self.multilabel else "accuracy"]

    def as_dict(self) -> dict:
        """The numbers, how many clips and classes there are, and which classes have no clip."""
        absent = [self.classes[n] for n in np.flatnonzero(~self.targets.any(axis=0)).tolist()]
        counts = {"clips": len(self.ids), "classes": len(self.classes)}
        return counts | self.numbers | ({"classes_without_clips": absent} if absent else {})

    def table(self) -> str:
        """The numbers in percent, and the three hardest classes."""
        lines = [f"{NAMES[name]:16}{100 * value:6.1f} %" for name, value in self.numbers.items()]
        key = "average_precision" if self.multilabel else "recall"
        rows = sorted((row for row in self.by_class() if row["support"]), key=lambda row: row[key])
        hardest = ", ".join(f"{row['class']} {row[key]:.2f}" for row in rows[:3])
        return "\n".join([*lines, f"hardest: {hardest} ({key.replace('_', ' ')})"])

    def by_class(self) -> list[dict]:
        """A row for each class: precision, recall, F1, `support` (its number of items), and its
        average precision where there are rankings."""
        if self.multilabel:
            predicted, targets = self.scores >= THRESHOLD, self.targets > 0
            columns = precision_recall_f1(
                (predicted & targets).sum(axis=0), predicted.sum(axis=0), targets.sum(axis=0)
            )
        else:
            columns = per_class(self.confusion())
        if self.rankings:
            columns["average_precision"] = average_precisions(self.targets, self.scores)
        return [
            {"class": name} | {column: values[number].item() for column, values in columns.items()}
            for number, name in enumerate(self.classes)
        ]

    def confusion(self) -> np.ndarray:
        """Numbers of items (classes, classes): row the target, column the prediction."""
        return confusion_matrix(self.predicted, self.target_classes, len(self.classes))

    def write(self, folder: Path) -> None:
        """metrics.json, clips.csv (the least probable targets first) and the files of
        `write_classes`."""
        write_json(folder / "metrics.json", self.as_dict())
        truth = (self.scores * self.targets).sum(axis=1) / self.targets.sum(axis=1).clip(1)
        predicted = self.predicted
        rows = [
            {
                "clip": self.ids[row],
                "reference": "|".join(
                    self.classes[number] for number in np.flatnonzero(self.targets[row]).tolist()
                ),
                "predicted": self.classes[predicted[row]],
                "probability": float(self.scores[row].max()),
                "probability_of_reference": float(truth[row]),
            }
            for row in np.argsort(truth, kind="stable").tolist()
        ]
        plots.table_csv(rows, folder / "clips.csv")
        self.write_classes(folder)

    def write_classes(self, folder: Path, suffix: str = "", title: str = "Classes") -> None:
        """classes.csv and, where items have one class, confusion.png and .csv; `suffix` stands
        behind the stems of these names."""
        plots.table_csv(self.by_class(), folder / f"classes{suffix}.csv")
        if not self.multilabel:
            names, matrix, stem = self.classes, self.confusion(), folder / f"confusion{suffix}"
            plots.confusion_csv(matrix, names, stem.with_suffix(".csv"))
            plots.confusion_picture(matrix, names, stem.with_suffix(".png"), title, unit="clips")


@dataclass(frozen=True)
class ClassScores:
    """How well labelled clips are classified, by method.

    `targets` (clips,) are numbers of the classes `names`; `methods` has scores (clips, classes) and
    a phrase on how they were computed, by the names in METHODS.
    """

    names: list[str]
    targets: np.ndarray
    methods: dict[str, tuple[np.ndarray, str]]

    @cached_property
    def reports(self) -> dict[str, ClassificationReport]:
        """A report on each method."""
        targets = np.eye(len(self.names))[self.targets]
        ids = [str(row) for row in range(len(targets))]
        return {
            name: ClassificationReport(self.names, ids, targets, scores, rankings=False)
            for name, (scores, _) in self.methods.items()
        }

    def as_dict(self) -> dict:
        """Accuracies as shares of 1, by method."""
        largest = float(np.bincount(self.targets).max() / len(self.targets))
        counts = {"classes": len(self.names), "clips": len(self.targets), "largest_class": largest}
        return counts | {
            name: self.reports[name].numbers | {"how": how}
            for name, (_, how) in self.methods.items()
        }

    def table(self) -> str:
        """A row for each method, in percent."""
        lines = [f"{'classes':16}{'accuracy':>9}{'balanced':>9}{f'top {TOP}':>8}"]
        for name, (_, how) in self.methods.items():
            accuracy, balanced, top = (100 * share for share in self.reports[name].numbers.values())
            lines.append(f"{METHODS[name]:16}{accuracy:9.1f}{balanced:9.1f}{top:8.1f}   {how}")
        lines.append(f"{'largest class':16}{100 * self.as_dict()['largest_class']:9.1f}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """For each method its confusions as PNG and CSV, and its precision, recall and F1 by
        class."""
        for name, report in self.reports.items():
            suffix, title = f"-{name.replace('_', '-')}", f"Classes, {METHODS[name]}"
            report.write_classes(folder, suffix, title)
