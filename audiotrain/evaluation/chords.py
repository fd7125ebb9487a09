"""Scores of chords along time by mir_eval. Segments are (start, end, label), times in seconds."""

import math
from collections.abc import Mapping, Sequence

import mir_eval.chord
import numpy as np

from audiotrain.music import chord_classes, chord_labels
from audiotrain.music.chord_classes import CHORD_TYPES
from audiotrain.music.segments import Segment

COMPARISONS = (
    "root",
    "thirds",
    "thirds_inv",
    "triads",
    "triads_inv",
    "tetrads",
    "tetrads_inv",
    "majmin",
    "majmin_inv",
    "sevenths",
    "sevenths_inv",
    "mirex",
)
SEGMENTATIONS = ("overseg", "underseg", "seg")


def chord_scores(reference: Sequence[Segment], estimated: Sequence[Segment]) -> dict[str, float]:
    """mir_eval's 12 chord comparisons and its segmentation scores of one song.

    Compared is the span from the first to the last label of `reference`, `seconds` long. Gaps of
    the reference are unknown (`X`), those of `estimated` no chord. `<comparison>_seconds` is the
    time that a comparison covers: all but `X`, or major and minor only, ...; where that is 0, so is
    the score. ValueError for a label that can't be read.

    >>> scores = chord_scores([Segment(0, 4, "C:maj"), Segment(4, 8, "A:min7")], [(0, 8, "C:maj")])
    >>> scores["root"], scores["seconds"], scores["majmin"], scores["overseg"], scores["underseg"]
    (0.5, 8.0, 0.5, 1.0, 0.5)
    """
    covers = _cover_span(reference, estimated)
    (first, second), seconds = _seconds_by_pair(*covers)
    scores = {"seconds": float(seconds.sum())}
    for name in COMPARISONS:
        compared = getattr(mir_eval.chord, name)(first, second) if first else np.zeros(0)
        known = compared >= 0
        total = seconds[known].sum()
        scores[name] = float((compared * seconds)[known].sum() / total) if total else 0.0
        scores[f"{name}_seconds"] = float(total)
    if first:
        intervals = [
            mir_eval.chord.merge_chord_intervals(np.stack([bounds[:-1], bounds[1:]], 1), labels)
            for bounds, labels in covers
        ]
        scores["overseg"] = float(mir_eval.chord.overseg(*intervals))
        scores["underseg"] = float(mir_eval.chord.underseg(*intervals))
    else:
        scores |= {"overseg": 0.0, "underseg": 0.0}
    scores["seg"] = min(scores["overseg"], scores["underseg"])
    return scores


def aggregate_scores(songs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """`corpus`, `mean` and `median` over the `chord_scores` of songs, each with every score.

    The corpus is one long song: each comparison is weighted by the seconds that it covers in a
    song, segmentation by the song's span; `seconds` adds up. Mean and median count songs alike, but
    leave out those of which a comparison covers 0 seconds; where it covers none of any song, the
    score is NaN. ValueError without songs.
    """
    if not songs:
        raise ValueError("no songs to aggregate, expected one or more")
    summary: dict[str, dict[str, float]] = {"corpus": {}, "mean": {}, "median": {}}
    for name in (*COMPARISONS, *SEGMENTATIONS):
        weight = f"{name}_seconds" if name in COMPARISONS else "seconds"
        weights = np.array([song[weight] for song in songs])
        values = np.array([song[name] for song in songs])[weights > 0]
        weights = weights[weights > 0]
        occurs = len(values) > 0
        summary["corpus"][name] = float(np.average(values, weights=weights)) if occurs else math.nan
        summary["mean"][name] = float(values.mean()) if occurs else math.nan
        summary["median"][name] = float(np.median(values)) if occurs else math.nan
    summary["corpus"]["seconds"] = float(sum(song["seconds"] for song in songs))
    return summary


def quality_seconds(reference: Sequence[Segment], estimated: Sequence[Segment]) -> np.ndarray:
    """Seconds (32, 2) by chord type of the reference: estimated right, and in all.

    Right is the same type and root as chord_classes.encode reads them, whatever the bass. The sum
    over songs is that of the corpus.
    """
    (first, second), seconds = _seconds_by_pair(*_cover_span(reference, estimated))
    ours, theirs = chord_classes.encode_labels(first), chord_classes.encode_labels(second)
    known = ours[:, 0] >= 0
    right = known & (ours[:, :2] == theirs[:, :2]).all(axis=1)
    by_quality = np.zeros((len(CHORD_TYPES), 2))
    np.add.at(by_quality[:, 0], ours[right, 0], seconds[right])
    np.add.at(by_quality[:, 1], ours[known, 0], seconds[known])
    return by_quality


def acqa(by_quality: np.ndarray) -> float:
    """Class-wise accuracy: the mean over chord qualities of the share of seconds estimated right.

    by_quality (qualities, 2) as `quality_seconds` returns it; a quality that does not occur is left
    out, a rare one counts as much as major; NaN without any. Jiang et al., "Large-vocabulary chord
    transcription via chord structure decomposition", ISMIR 2019.

    >>> acqa(np.array([[90.0, 100], [0, 10], [0, 0]]))
    0.45
    """
    occurring = by_quality[by_quality[:, 1] > 0]
    return float(np.mean(occurring[:, 0] / occurring[:, 1])) if len(occurring) else math.nan


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
        labels.append(chord_labels.repair(label))
    if bounds[-1] < end:
        bounds.append(end)
        labels.append(gap)
    return np.array(bounds), labels


def _seconds_by_pair(ours: Cover, theirs: Cover) -> tuple[tuple[list[str], list[str]], np.ndarray]:
    """Pairs of simultaneous labels, as two lists, and for how many seconds they are so.

    Comparing labels takes time, and a song has few different pairs.
    """
    bounds = np.unique(np.concatenate([ours[0], theirs[0]]))
    seconds: dict[tuple[str, str], float] = {}
    spans = [np.searchsorted(cover[0], bounds[:-1], side="right") - 1 for cover in (ours, theirs)]
    for first, second, length in zip(*spans, np.diff(bounds), strict=True):
        pair = ours[1][first], theirs[1][second]
        seconds[pair] = seconds.get(pair, 0.0) + length
    first, second = ([pair[side] for pair in seconds] for side in (0, 1))
    return (first, second), np.array([*seconds.values()])
