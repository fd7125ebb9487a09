"""Accuracy, top-k, confusion matrices, and mir_eval's chord scores: pure functions.

A target below 0 (harmony.IGNORE) is never judged. Scores are shares of 1; compute_topk_accuracy and
MetricsTracker give percent. Segments are (start, end, label), times in seconds.
"""

from collections.abc import Mapping, Sequence

import mir_eval.chord
import mlx.core as mx
import numpy as np

from audiotrain import harmony, spelling
from audiotrain.harmony import CHORD_TYPES, HEADS, Segment

COMPARISONS = (
    "root", "thirds", "thirds_inv", "triads", "triads_inv", "tetrads", "tetrads_inv",
    "majmin", "majmin_inv", "sevenths", "sevenths_inv", "mirex",
)  # fmt: skip
SEGMENTATIONS = ("overseg", "underseg", "seg")


# ---- classes


def _numpy(values) -> np.ndarray:
    """Numbers as NumPy's; bfloat16, which it has not, as float32."""
    if isinstance(values, mx.array) and values.dtype == mx.bfloat16:
        values = values.astype(mx.float32)
    return np.asarray(values)


def _judged(*arrays, targets) -> tuple[np.ndarray, ...]:
    """The items of all arrays (items, ...) whose target is not ignored; the targets last."""
    targets = _numpy(targets)
    known = targets >= 0
    return *(_numpy(array)[known] for array in arrays), targets[known]


def _check_classes(name: str, found: np.ndarray, classes: int) -> None:
    if len(found) and not (found.min() >= 0 and found.max() < classes):
        raise ValueError(f"{name} {found.min()} to {found.max()}, expected 0 to {classes - 1}")


def top_k_accuracy(logits, targets, k: int) -> float:
    """Share of items whose target class is among the `k` largest logits; 0 when none is judged.

    logits (..., classes), targets (...) class numbers. Of equal logits the first counts as larger;
    NaN counts as wrong. ValueError when k is not in 1..classes, or a target is not below `classes`.

    >>> top_k_accuracy(np.array([[3.0, 2, 1], [3, 2, 1]]), np.array([1, 2]), k=2)
    0.5
    """
    logits = _numpy(logits)
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k is {k}, expected 1 to {classes}, the number of classes")
    logits, targets = _judged(logits, targets=targets)
    if not len(targets):
        return 0.0
    _check_classes("target", targets, classes)
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    before = ~(logits <= own) | ((logits == own) & (np.arange(classes) < targets[:, None]))
    return float(np.mean(before.sum(axis=1) < k))


def frame_accuracy(predictions, targets) -> dict[str, float]:
    """Share of right frames for each head, and `joint` for all heads at once; 0 without frames.

    Class triples (..., 3) in the order of harmony.HEADS. Heads that a target ignores (root and bass
    of no chord) do not spoil `joint`; a frame without a target type is left out of it.
    """
    predictions = np.asarray(predictions).reshape(-1, len(HEADS))
    targets = np.asarray(targets).reshape(-1, len(HEADS))
    known = targets >= 0
    right = (predictions == targets) & known
    joint = (right | ~known).all(axis=1) & known[:, 0]
    correct = np.append(right.sum(axis=0), joint.sum())
    judged = np.append(known.sum(axis=0), known[:, 0].sum())
    return dict(zip((*HEADS, "joint"), _ratio(correct, judged).tolist(), strict=True))


def confusion_matrix(predictions, targets, classes: int) -> np.ndarray:
    """Numbers of items (classes, classes): row the target, column the prediction.

    predictions and targets (...) class numbers. ValueError when one is not below `classes`.

    >>> confusion_matrix([0, 1, 1, 1], [0, 0, 1, -100], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    predictions, targets = _judged(predictions, targets=targets)
    _check_classes("prediction", predictions, classes)
    _check_classes("target", targets, classes)
    cells = targets.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class(confusion) -> dict[str, np.ndarray]:
    """`precision`, `recall`, `f1` and `support` (classes,) of a confusion matrix; 0 for x / 0."""
    confusion = np.asarray(confusion)
    right, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, support),
        "f1": _ratio(2 * right, support + predicted),
        "support": support,
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


# ---- chords over time


def chord_scores(reference: Sequence[Segment], estimated: Sequence[Segment]) -> dict[str, float]:
    """mir_eval's 12 chord comparisons and its segmentation scores of one song.

    Judged is the span from the first to the last label of `reference`, `seconds` long. Its gaps are
    unknown (`X`), those of `estimated` no chord. `<comparison>_seconds` is the time that a
    comparison judges: all but `X`, or major and minor only, ...; where that is 0 so is the score.
    ValueError for a label that can't be read.

    >>> scores = chord_scores([Segment(0, 4, "C:maj"), Segment(4, 8, "A:min7")], [(0, 8, "C:maj")])
    >>> scores["root"], scores["seconds"], scores["majmin"], scores["overseg"], scores["underseg"]
    (0.5, 8.0, 0.5, 1.0, 0.5)
    """
    ours, theirs = _cover_span(reference, estimated)
    (first, second), seconds = _seconds_by_pair(ours, theirs)
    scores = {"seconds": float(seconds.sum())}
    for name in COMPARISONS:
        compared = getattr(mir_eval.chord, name)(first, second) if first else np.zeros(0)
        judged = compared >= 0
        total = seconds[judged].sum()
        scores[name] = float((compared * seconds)[judged].sum() / total) if total else 0.0
        scores[f"{name}_seconds"] = float(total)
    if first:
        ours, theirs = _merged_intervals(*ours), _merged_intervals(*theirs)
        scores["overseg"] = float(mir_eval.chord.overseg(ours, theirs))
        scores["underseg"] = float(mir_eval.chord.underseg(ours, theirs))
    else:
        scores |= {"overseg": 0.0, "underseg": 0.0}
    scores["seg"] = min(scores["overseg"], scores["underseg"])
    return scores


def aggregate_scores(songs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """`corpus`, `mean` and `median` over the `chord_scores` of songs, each with every score.

    The corpus is one long song: each comparison is weighted by the seconds that it judges in a
    song, segmentation by the song's span; `seconds` adds up. Mean and median count songs alike, but
    leave out those in which a comparison judges nothing. ValueError without songs.
    """
    if not songs:
        raise ValueError("no songs to aggregate, expected one or more")
    summary = {"corpus": {}, "mean": {}, "median": {}}
    for name in (*COMPARISONS, *SEGMENTATIONS):
        weight = f"{name}_seconds" if name in COMPARISONS else "seconds"
        weights = np.array([song[weight] for song in songs])
        values = np.array([song[name] for song in songs])[weights > 0]
        weights = weights[weights > 0]
        any_judged = len(values) > 0
        summary["corpus"][name] = float(np.average(values, weights=weights)) if any_judged else 0.0
        summary["mean"][name] = float(values.mean()) if any_judged else 0.0
        summary["median"][name] = float(np.median(values)) if any_judged else 0.0
    summary["corpus"]["seconds"] = float(sum(song["seconds"] for song in songs))
    return summary


def quality_seconds(reference: Sequence[Segment], estimated: Sequence[Segment]) -> np.ndarray:
    """(32, 2): for each chord type of the reference, seconds named right, and seconds in all.

    Right is the same type and root as harmony.encode reads them, whatever the bass. Arrays of songs
    add up to those of the corpus.
    """
    (first, second), seconds = _seconds_by_pair(*_cover_span(reference, estimated))
    ours, theirs = harmony.encode_labels(first), harmony.encode_labels(second)
    known = ours[:, 0] >= 0
    right = known & (ours[:, :2] == theirs[:, :2]).all(axis=1)
    by_quality = np.zeros((len(CHORD_TYPES), 2))
    np.add.at(by_quality[:, 0], ours[right, 0], seconds[right])
    np.add.at(by_quality[:, 1], ours[known, 0], seconds[known])
    return by_quality


def acqa(by_quality: np.ndarray) -> float:
    """Class-wise accuracy: the mean over chord qualities of the share of seconds named right.

    by_quality (qualities, 2) as `quality_seconds` gives it; a quality that does not occur is left
    out, a rare one counts as much as major. Jiang et al., "Large-vocabulary chord transcription
    via chord structure decomposition", ISMIR 2019.

    >>> acqa(np.array([[90.0, 100], [0, 10], [0, 0]]))
    0.45
    """
    occurring = by_quality[by_quality[:, 1] > 0]
    return float(np.mean(occurring[:, 0] / occurring[:, 1])) if len(occurring) else 0.0


Cover = tuple[np.ndarray, list[str]]  # bounds (n + 1) in seconds, labels [n] of the spans between


def _cover_span(reference: Sequence[Segment], estimated: Sequence[Segment]) -> tuple[Cover, Cover]:
    """Both as covers of the reference's span, without gaps and overlaps."""
    start = max(min((segment[0] for segment in reference), default=0.0), 0.0)
    end = max((segment[1] for segment in reference), default=start)
    return _cover(reference, start, end, "X"), _cover(estimated, start, end, "N")


def _cover(segments: Sequence[Segment], start: float, end: float, gap: str) -> Cover:
    """`segments` cut to start..end and where the next one begins; holes are labelled `gap`."""
    bounds, labels = [start], []
    ordered = sorted(segments)
    next_starts = [*(segment[0] for segment in ordered[1:]), end]
    for (left, right, label), next_start in zip(ordered, next_starts, strict=False):
        left, right = max(left, start), min(right, next_start, end)
        if right <= left:
            continue
        if left > bounds[-1]:
            bounds.append(left)
            labels.append(gap)
        bounds.append(right)
        labels.append(spelling.repair(label))
    if bounds[-1] < end:
        bounds.append(end)
        labels.append(gap)
    return np.array(bounds), labels


def _seconds_by_pair(ours: Cover, theirs: Cover) -> tuple[tuple[list[str], list[str]], np.ndarray]:
    """Each pair of labels that meet, as two lists, and the seconds for which they do.

    Labels are costly to compare, and a song has few different pairs.
    """
    bounds = np.unique(np.concatenate([ours[0], theirs[0]]))
    seconds: dict[tuple[str, str], float] = {}
    spans = [np.searchsorted(cover[0], bounds[:-1], side="right") - 1 for cover in (ours, theirs)]
    for first, second, length in zip(*spans, np.diff(bounds), strict=True):
        pair = ours[1][first], theirs[1][second]
        seconds[pair] = seconds.get(pair, 0.0) + length
    first, second = ([pair[side] for pair in seconds] for side in (0, 1))
    return (first, second), np.array([*seconds.values()])


def _merged_intervals(bounds: np.ndarray, labels: list[str]) -> np.ndarray:
    """Intervals (runs, 2) in seconds of neighbours that are the same chord."""
    intervals = np.stack([bounds[:-1], bounds[1:]], axis=1)
    return mir_eval.chord.merge_chord_intervals(intervals, labels)


# ---- from logits, batch by batch


def compute_topk_accuracy(logits, targets, k: int = 3) -> float:
    """`top_k_accuracy` in percent."""
    return 100 * top_k_accuracy(logits, targets, k)


def compute_confusion_matrix(logits, targets) -> np.ndarray:
    """`confusion_matrix` (classes, classes) of the largest logits (..., classes)."""
    logits = _numpy(logits)
    return confusion_matrix(logits.argmax(axis=-1), targets, logits.shape[-1])


def compute_per_class_metrics(logits, targets) -> dict[str, np.ndarray]:
    """`per_class` of the largest logits (..., classes), as shares of 1."""
    return per_class(compute_confusion_matrix(logits, targets))


class MetricsTracker:
    """Mean losses and the accuracy of each head, in percent, over the batches of an epoch."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._items = 0
        self._loss_sums: dict[str, float] = {}
        self._correct = dict.fromkeys(HEADS, 0)
        self._judged = dict.fromkeys(HEADS, 0)

    def update(self, loss_dict: Mapping, outputs, targets: Mapping, batch_size: int) -> None:
        """Add a batch: losses by name; logits (..., classes) and targets (...) of each head.

        `outputs` is a mapping from the names in harmony.HEADS or a sequence in their order.
        """
        if not isinstance(outputs, Mapping):
            outputs = dict(zip(HEADS, outputs, strict=True))
        self._items += batch_size
        for name, loss in loss_dict.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + float(loss) * batch_size
        for head in HEADS:
            logits = _numpy(outputs[head])
            predictions, known = _judged(logits.argmax(axis=-1), targets=targets[head])
            _check_classes(f"{head}: target", known, logits.shape[-1])
            self._correct[head] += int((predictions == known).sum())
            self._judged[head] += len(known)

    def get_metrics(self) -> dict[str, float]:
        """Mean losses under their names, and `<head>_acc` in percent for each of harmony.HEADS."""
        losses = {name: total / max(self._items, 1) for name, total in self._loss_sums.items()}
        return losses | {
            f"{head}_acc": 100 * self._correct[head] / max(self._judged[head], 1) for head in HEADS
        }

    def summary(self) -> str:
        """The metrics in one line, for a log."""
        return ", ".join(
            f"{name} {value:.2f} %" if name.endswith("_acc") else f"{name} {value:.4f}"
            for name, value in self.get_metrics().items()
        )
