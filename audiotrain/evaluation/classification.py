"""Accuracy, top-k, confusion matrices and rankings: functions of arrays.

Items with a target below 0 (chord_classes.IGNORE) are left out. Scores are shares of 1;
`compute_topk_accuracy` and `MetricsTracker` return percent.
"""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from audiotrain.music.chord_classes import HEADS


def _numpy(values) -> np.ndarray:
    """As a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if isinstance(values, mx.array) and values.dtype == mx.bfloat16:
        values = values.astype(mx.float32)
    return np.asarray(values)


def _with_target(*arrays, targets) -> tuple[np.ndarray, ...]:
    """The items of all arrays (items, ...) whose target is not ignored; the targets last."""
    targets = _numpy(targets)
    known = targets >= 0
    return *(_numpy(array)[known] for array in arrays), targets[known]


def _check_classes(name: str, values: np.ndarray, classes: int) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < classes):
        raise ValueError(f"{name} {values.min()} to {values.max()}, expected 0 to {classes - 1}")


def top_k_accuracy(logits, targets, k: int) -> float:
    """Share of items whose target class is among the `k` largest logits; 0 without targets.

    logits (..., classes), targets (...) class numbers. Of equal logits the first counts as larger;
    NaN counts as wrong. ValueError when k is not in 1..classes, or a target is not below `classes`.

    >>> top_k_accuracy(np.array([[3.0, 2, 1], [3, 2, 1]]), np.array([1, 2]), k=2)
    0.5
    """
    logits = _numpy(logits)
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k is {k}, expected 1 to {classes}, the number of classes")
    logits, targets = _with_target(logits, targets=targets)
    if not len(targets):
        return 0.0
    _check_classes("target", targets, classes)
    of_target = np.take_along_axis(logits, targets[:, None], axis=1)
    is_first = np.arange(classes) < targets[:, None]
    before = ~(logits <= of_target) | ((logits == of_target) & is_first)
    return float(np.mean(before.sum(axis=1) < k))


def confusion_matrix(predictions, targets, classes: int) -> np.ndarray:
    """Numbers of items (classes, classes): row the target, column the prediction.

    predictions and targets (...) class numbers. ValueError when one is not below `classes`.

    >>> confusion_matrix([0, 1, 1, 1], [0, 0, 1, -100], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    predictions, targets = _with_target(predictions, targets=targets)
    _check_classes("prediction", predictions, classes)
    _check_classes("target", targets, classes)
    cells = targets.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class(confusion) -> dict[str, np.ndarray]:
    """`precision`, `recall`, `f1` and `support` (classes,) of a confusion matrix; 0 for x / 0."""
    confusion = np.asarray(confusion)
    return precision_recall_f1(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def precision_recall_f1(
    right: np.ndarray, predicted: np.ndarray, support: np.ndarray
) -> dict[str, np.ndarray]:
    """`precision`, `recall`, `f1` and `support` (classes,) of numbers (classes,) of right
    predictions, of predictions and of items; 0 for x / 0."""
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, support),
        "f1": _ratio(2 * right, support + predicted),
        "support": support,
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


# ---- from logits, batch by batch


def compute_topk_accuracy(logits, targets, k: int = 3) -> float:
    """Percent of items, 0 to 100, whose target class is among the `k` largest logits.

    logits (..., classes), targets (...) class numbers; all else as `top_k_accuracy`. ValueError
    when k is not in 1..classes, or a target is not below `classes`.
    """
    return 100 * top_k_accuracy(logits, targets, k)


def compute_confusion_matrix(logits, targets) -> np.ndarray:
    """`confusion_matrix` (classes, classes) of the largest logits (..., classes) and targets (...).
    ValueError when a target is not below `classes`."""
    logits = _numpy(logits)
    return confusion_matrix(logits.argmax(axis=-1), targets, logits.shape[-1])


def compute_per_class_metrics(logits, targets) -> dict[str, np.ndarray]:
    """`per_class` of the largest logits (..., classes) and targets (...), as shares of 1.
    ValueError when a target is not below `classes`."""
    return per_class(compute_confusion_matrix(logits, targets))


class MetricsTracker:
    """Mean losses, the accuracy of each head, in percent, and its confusions, over the batches of
    an epoch; `confusions[head]` (classes, classes) is that of `confusion_matrix`."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Start a new epoch."""
        self._items = 0
        self._loss_sums: dict[str, float] = {}
        self.confusions: dict[str, np.ndarray] = {}

    def update(self, loss_dict: Mapping, outputs, targets: Mapping, batch_size: int) -> None:
        """Add a batch: losses by name; logits (..., classes) and targets (...) of each head.

        `outputs` is a mapping from the names in chord_classes.HEADS or a sequence in their order.
        ValueError for a sequence of another length, and, naming the head, for a target that is not
        below `classes`.
        """
        if not isinstance(outputs, Mapping):
            outputs = dict(zip(HEADS, outputs, strict=True))
        self._items += batch_size
        for name, loss in loss_dict.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + float(loss) * batch_size
        for head in HEADS:
            try:
                counts = compute_confusion_matrix(outputs[head], targets[head])
            except ValueError as error:
                raise ValueError(f"{head}: {error}") from None
            self.confusions[head] = self.confusions.get(head, 0) + counts

    def get_metrics(self) -> dict[str, float]:
        """Mean losses under their names, and `<head>_acc` in percent for each of HEADS."""
        losses = {name: total / max(self._items, 1) for name, total in self._loss_sums.items()}
        return losses | {f"{head}_acc": 100 * self.accuracy(head) for head in HEADS}

    def accuracy(self, head: str) -> float:
        """Share of right items of a head; 0 without items."""
        confusion = self.confusions.get(head, np.zeros((1, 1)))
        return float(np.trace(confusion) / max(confusion.sum(), 1))

    def summary(self) -> str:
        """The metrics in one line, for a log."""
        return ", ".join(
            f"{name} {value:.2f} %" if name.endswith("_acc") else f"{name} {value:.4f}"
            for name, value in self.get_metrics().items()
        )


def class_accuracies(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """`accuracy`, the share of items whose class has the largest score, and `balanced_accuracy`,
    the mean of that share over the classes that occur.

    scores (items, classes), targets (items,). An item is wrong when another class has the same
    score. ValueError without items, and for more or fewer scores than targets.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if len(scores) != len(targets) or not len(targets):
        raise ValueError(
            f"{len(scores)} scores, {len(targets)} targets: expected as many, not none"
        )
    of_target = np.take_along_axis(scores, targets[:, None], axis=1)
    right = (scores >= of_target).sum(axis=1) == 1
    recalls = [right[targets == number].mean() for number in np.unique(targets)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(recalls))}


def lwlrap(targets: np.ndarray, scores: np.ndarray) -> float:
    """Label-weighted label-ranking average precision (Howard et al., FSDKaggle2019).

    For each class of each clip: the share of the clip's classes among those with no lower score;
    the mean over all of these, 0 without any. targets (0 or 1) and scores are (clips, classes).

    >>> round(lwlrap(np.array([[1, 0, 1], [0, 1, 0]]), np.array([[3, 2, 1], [3, 2, 1.0]])), 4)
    0.7222
    """
    from sklearn.metrics import label_ranking_average_precision_score

    targets = targets > 0
    if not targets.any():
        return 0.0
    counts = targets.sum(axis=1)
    return float(label_ranking_average_precision_score(targets, scores, sample_weight=counts))


def average_precisions(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision (classes,) of each class; NaN of one that no clip has.

    targets and scores (clips, classes).
    """
    from sklearn.metrics import average_precision_score

    pairs = zip(targets.T > 0, scores.T, strict=True)
    return np.array([average_precision_score(*pair) if pair[0].any() else np.nan for pair in pairs])


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Mean of `average_precisions` over the classes that occur; 0 when none does.

    targets and scores (clips, classes).
    """
    precisions = average_precisions(targets, scores)
    return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else 0.0
