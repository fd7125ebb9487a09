"""Scores of classified clips, of one class each or multilabel, as numbers, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.evaluation import classification, plots
from audiotrain.evaluation import classification as probes
from audiotrain.evaluation.classification import average_precisions, lwlrap, mean_average_precision
from audiotrain.recipes.classify.dataset import Task
from audiotrain.utils.files import write_json

TOP = 3  # classes among which the right one may be
THRESHOLD = 0.5  # least probability of a predicted class where clips are multilabel
NAMES = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced", f"top_{TOP}": f"top {TOP}",
    "lwlrap": "lwlrap", "map": "mAP",
}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Clips by their `ids`, `targets` and `probabilities` (clips, classes) of a task."""

    task: Task
    ids: Sequence[str]
    targets: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, task: Task, clips: Sequence[Clip], probabilities: np.ndarray) -> "Scores":
        """Scores of labelled clips."""
        return cls(task, [clip.id for clip in clips], task.targets(clips), probabilities)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class (clips,) of each clip."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Shares of 1: accuracies where clips have one class, rankings for both tasks.

        `lwlrap` weighs each class of each clip equally (FSDKaggle2019's); `map` is the mean over
        the classes that occur of their average precision.
        """
        found = {}
        if not self.task.multilabel:
            own = self.targets.argmax(axis=1)
            found = dict(probes.class_accuracies(self.probabilities, own))
            top = min(TOP, len(self.task.classes))
            found[f"top_{TOP}"] = classification.top_k_accuracy(self.probabilities, own, top)
        return found | {
            "lwlrap": lwlrap(self.targets, self.probabilities),
            "map": mean_average_precision(self.targets, self.probabilities),
        }

    @property
    def score(self) -> float:
        """What runs are compared by: accuracy, or lwlrap of multilabel clips."""
        return self.numbers["lwlrap" if self.task.multilabel else "accuracy"]

    def as_dict(self) -> dict:
        """What metrics.json says."""
        absent = [
            name
            for name, there in zip(self.task.classes, self.targets.any(axis=0), strict=True)
            if not there
        ]
        counts = {"clips": len(self.ids), "classes": len(self.task.classes)}
        return counts | self.numbers | ({"classes_without_clips": absent} if absent else {})

    def table(self) -> str:
        """The numbers in percent, and the classes that are hardest."""
        lines = [f"{NAMES.get(n, n):16}{100 * value:6.1f} %" for n, value in self.numbers.items()]
        rows = [row for row in self.by_class() if row["support"]]
        key = "average_precision" if self.task.multilabel else "recall"
        hardest = sorted(rows, key=lambda row: row[key])[:3]
        told = ", ".join(f"{row['class']} {row[key]:.2f}" for row in hardest)
        return "\n".join([*lines, f"hardest: {told} ({key.replace('_', ' ')})"])

    def by_class(self) -> list[dict]:
        """Of each class how often it occurs (`support`), and how well it is found."""
        if self.task.multilabel:
            said = self.probabilities >= THRESHOLD
            right = (said & (self.targets > 0)).sum(axis=0)
            support, predicted = self.targets.sum(axis=0), said.sum(axis=0)
            columns = {
                "precision": right / np.maximum(predicted, 1),
                "recall": right / np.maximum(support, 1),
                "f1": 2 * right / np.maximum(support + predicted, 1),
                "support": support.astype(np.int64),
            }
        else:
            columns = classification.per_class(self.confusion())
        precisions = average_precisions(self.targets, self.probabilities)
        return [
            {"class": name}
            | {key: values[place].item() for key, values in columns.items()}
            | {"average_precision": float(precisions[place])}
            for place, name in enumerate(self.task.classes)
        ]

    def confusion(self) -> np.ndarray:
        """Clips (classes, classes): row the reference, column what was said."""
        own = self.targets.argmax(axis=1)
        return classification.confusion_matrix(self.predicted, own, len(self.task.classes))

    def write(self, folder: Path) -> None:
        """metrics.json, classes.csv, clips.csv (the least sure of the truth first), and, where
        clips have one class, confusion.png and .csv."""
        write_json(folder / "metrics.json", self.as_dict())
        plots.table_csv(self.by_class(), folder / "classes.csv")
        truth = (self.probabilities * self.targets).sum(axis=1) / self.targets.sum(axis=1).clip(1)
        rows = [
            {
                "clip": self.ids[row],
                "reference": "|".join(self._names(self.targets[row] > 0)),
                "predicted": self.task.classes[self.predicted[row]],
                "probability": float(self.probabilities[row].max()),
                "probability_of_reference": float(truth[row]),
            }
            for row in np.argsort(truth, kind="stable")
        ]
        plots.table_csv(rows, folder / "clips.csv")
        if not self.task.multilabel:
            names, matrix = self.task.classes, self.confusion()
            plots.confusion_csv(matrix, names, folder / "confusion.csv")
            plots.confusion_picture(
                matrix, names, folder / "confusion.png", "Classes", unit="clips"
            )

    def _names(self, chosen: np.ndarray) -> list[str]:
        return [self.task.classes[place] for place in np.flatnonzero(chosen)]
