"""Metrics against scikit-learn, mir_eval's own evaluate, and closed forms."""

import mir_eval
import numpy as np
import pytest
import sklearn.metrics

from audiotrain.evaluation import classification

from audiotrain.evaluation import chords  # isort: skip (BLAS before MLX)
import mlx.core as mx

from audiotrain.evaluation.chord_report import DECODINGS, ChordReport
from audiotrain.evaluation.chords import (
    COMPARISONS,
    SEGMENTATIONS,
    acqa,
    aggregate_scores,
    chord_scores,
)
from audiotrain.music.chord_classes import CHORD_TYPES, HEAD_SIZES, HEADS, IGNORE, encode
from audiotrain.music.segments import Segment, read_lab


@pytest.fixture(scope="module")
def classified():
    """Logits (400, 7), targets (400,) with every fifth ignored, and which are judged."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 400)  # class 6 never occurs
    logits = rng.normal(size=(400, 7)) + 2 * np.eye(7)[targets]
    logits[:, 5] = -9  # class 5 is never predicted
    targets[::5] = IGNORE
    return logits, targets, targets >= 0


# ---- classes


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_top_k_is_scikit_learns(classified, k):
    logits, targets, judged = classified
    ours = classification.top_k_accuracy(logits, targets, k)
    theirs = np.mean(np.argsort(-logits[judged])[:, :k] == targets[judged][:, None]) * k
    if k < 7:
        theirs = sklearn.metrics.top_k_accuracy_score(
            targets[judged], logits[judged], k=k, labels=range(7)
        )
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert classification.compute_topk_accuracy(logits, targets, k) == pytest.approx(100 * theirs)
    boxed = classification.top_k_accuracy(logits.reshape(20, 20, 7), targets.reshape(20, 20), k)
    assert boxed == ours


def test_top_k_of_equal_logits_nan_and_nothing():
    assert classification.top_k_accuracy(np.zeros((4, 4)), np.arange(4), 1) == 0.25
    assert classification.top_k_accuracy(np.full((4, 4), np.nan), np.arange(4), 3) == 0
    assert classification.top_k_accuracy(np.zeros((2, 4)), np.array([IGNORE, IGNORE]), 1) == 0
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 4"):
            classification.top_k_accuracy(np.zeros((2, 4)), np.zeros(2, int), k)
    with pytest.raises(ValueError, match="target 0 to 4, expected 0 to 3"):
        classification.top_k_accuracy(np.zeros((2, 4)), np.array([0, 4]), 1)


def test_confusion_and_per_class_are_scikit_learns(classified):
    logits, targets, judged = classified
    confusion = classification.compute_confusion_matrix(logits, targets)
    predicted = logits.argmax(1)
    theirs = sklearn.metrics.confusion_matrix(targets[judged], predicted[judged], labels=range(7))
    np.testing.assert_array_equal(confusion, theirs)
    ours = classification.compute_per_class_metrics(logits, targets)
    assert list(ours) == ["precision", "recall", "f1", "support"]
    theirs = sklearn.metrics.precision_recall_fscore_support(
        targets[judged], predicted[judged], labels=range(7), zero_division=0
    )
    np.testing.assert_allclose([*ours.values()], theirs, atol=1e-12)


def test_confusion_refuses_numbers_outside_the_classes():
    with pytest.raises(ValueError, match="prediction 0 to 3, expected 0 to 2"):
        classification.confusion_matrix([0, 3], [0, 0], classes=3)
    with pytest.raises(ValueError, match="target 0 to 4, expected 0 to 2"):
        classification.confusion_matrix([0, 2], [0, 4], classes=3)
    np.testing.assert_array_equal(
        classification.confusion_matrix([], [], classes=2), np.zeros((2, 2))
    )


def test_the_tracker_judges_each_head_by_its_own_mask():
    targets = np.array([encode(label) for label in ("C:maj", "C:maj/3", "N", "X", "D:min")])
    predicted = np.array([(1, 0, 0), (1, 0, 0), (0, 5, 5), (1, 0, 0), (1, 2, 2)])
    logits = [np.eye(size)[classes] for size, classes in zip(HEAD_SIZES, predicted.T, strict=True)]
    tracker = classification.MetricsTracker()
    tracker.update({}, logits, dict(zip(HEADS, targets.T, strict=True)), len(targets))
    assert [tracker.accuracy(head) for head in HEADS] == pytest.approx([3 / 4, 1, 2 / 3])


def test_tracker_over_batches_equals_all_at_once(classified):
    logits, targets, judged = classified
    tracker = classification.MetricsTracker()
    sizes = (130, 200, 70)
    for batch, loss in zip(np.split(np.arange(400), np.cumsum(sizes)[:-1]), (3, 2, 1), strict=True):
        outputs = [mx.array(logits[batch])] * 3
        labels = dict.fromkeys(HEADS, mx.array(targets[batch]))
        if loss == 2:
            outputs = dict(zip(HEADS, outputs, strict=True))
        tracker.update({"total_loss": mx.array(float(loss))}, outputs, labels, len(batch))
    found = tracker.get_metrics()
    assert list(found) == ["total_loss", "chord_type_acc", "root_acc", "bass_note_acc"]
    assert found["total_loss"] == pytest.approx(np.average([3, 2, 1], weights=sizes))
    accuracy = sklearn.metrics.accuracy_score(targets[judged], logits[judged].argmax(1))
    assert found["root_acc"] == pytest.approx(100 * accuracy)
    assert tracker.summary().startswith("total_loss 2.1500, chord_type_acc ")
    np.testing.assert_array_equal(
        tracker.confusions["root"], classification.compute_confusion_matrix(logits, targets)
    )
    tracker.reset()
    assert tracker.get_metrics()["root_acc"] == 0


def test_the_frames_of_a_chord_report_are_tracked():
    rng = np.random.default_rng(0)
    report, tracker = ChordReport(2.0), classification.MetricsTracker()
    segments = [Segment(0.0, 1.0, "C:maj")]
    for frames in (20, 30):
        heads = [rng.normal(size=(frames, size)) for size in HEAD_SIZES]
        classes = rng.integers(0, HEAD_SIZES, (frames, 3))
        classes[: frames // 5] = IGNORE
        report.add_song("song", 1.0, segments, dict.fromkeys(DECODINGS, segments))
        report.add_frames(classes, heads, classes)
        tracker.update({}, heads, dict(zip(HEADS, classes.T, strict=True)), frames)
    found = report.as_dict()["frames"]
    for name, percent in tracker.get_metrics().items():
        assert found[name] == pytest.approx(percent / 100)
        assert 0 < percent < 100
    for head in HEADS:
        np.testing.assert_array_equal(report.tracker.confusions[head], tracker.confusions[head])


def test_a_comparison_that_covers_nothing_has_no_score_in_the_table():
    report, power_chords = ChordReport(2.0), [Segment(0.0, 1.0, "C:5")]
    report.add_song("song", 1.0, power_chords, dict.fromkeys(DECODINGS, power_chords))
    classes = np.tile(np.array([[7, 0, 0]]), (10, 1))
    report.add_frames(classes, [np.zeros((10, size)) for size in HEAD_SIZES], classes)
    names, *rows = (line.split() for line in report.table().splitlines()[1:4])
    for _, *cells in rows:
        scores = dict(zip(names, cells, strict=True))
        assert scores["root"] == "1.000"
        assert scores["majmin"] == "–"


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_logits_of_any_precision_are_judged_where_they_are(classified, dtype):
    logits, targets, _ = classified
    given, labels = mx.array(logits).astype(dtype), mx.array(targets)
    rounded = np.array(given.astype(mx.float32))
    assert classification.top_k_accuracy(given, labels, 3) == classification.top_k_accuracy(
        rounded, targets, 3
    )
    for function in (
        classification.compute_confusion_matrix,
        classification.compute_per_class_metrics,
    ):
        np.testing.assert_equal(function(given, labels), function(rounded, targets))
    tracker, expected = classification.MetricsTracker(), classification.MetricsTracker()
    tracker.update({"loss": mx.array(0.5, dtype)}, [given] * 3, dict.fromkeys(HEADS, labels), 400)
    expected.update({"loss": 0.5}, [rounded] * 3, dict.fromkeys(HEADS, targets), 400)
    assert tracker.get_metrics() == expected.get_metrics()


# ---- chords over time


def perturbed(segments, rng):
    """An estimate of `segments` with other boundaries, splits, merges, gaps and wrong chords."""
    estimate, end = [], 0.0
    for segment in segments:
        start = max(end, segment.start + rng.normal(0, 0.2))
        if rng.random() < 0.2 or segment.end - start < 0.3:
            continue
        end = max(start + 0.1, segment.end + rng.normal(0, 0.1))
        label = segment.label if rng.random() < 0.7 else rng.choice(CHANGED)
        estimate.append(Segment(start, end, str(label)))
    return estimate


CHANGED = ["N", "X", "C:maj", "A:min7", "G:7/3", "F:maj/2", "D:sus4(b7,9)", "Bb:dim", "E:1", "C:9"]


def mir_eval_scores(reference, estimated):
    """mir_eval's evaluate, which wants gaps filled."""
    filled = []
    for segment in estimated:
        if filled and segment.start > filled[-1].end:
            filled.append(Segment(filled[-1].end, segment.start, "N"))
        filled.append(segment)
    ours, theirs = (np.array([s[:2] for s in each]) for each in (reference, filled))
    return mir_eval.chord.evaluate(ours, [s[2] for s in reference], theirs, [s[2] for s in filled])


@pytest.fixture(scope="module")
def pop909(shared_data):
    """(reference, estimate) of 12 real songs."""
    rng = np.random.default_rng(1)
    paths = sorted((shared_data / "pop909").glob("*.lab"))[:12]
    songs = [read_lab(path).segments for path in paths]
    # Some unknown chords, and detail that the vocabulary does not have.
    songs[0] = [s._replace(label="X") if i % 9 == 5 else s for i, s in enumerate(songs[0])]
    songs[1] = [
        s._replace(label="G:7(#11)/b7") if i % 7 == 5 else s for i, s in enumerate(songs[1])
    ]
    return [(song, perturbed(song, rng)) for song in songs]


def test_chord_scores_are_mir_evals(pop909):
    assert len(pop909) == 12
    for reference, estimated in pop909:
        theirs = mir_eval_scores(reference, estimated)
        ours = chord_scores(reference, estimated)
        assert set(theirs) == {*COMPARISONS, *SEGMENTATIONS}
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)
        assert 0.3 < ours["majmin"] < 0.9


def test_corpus_is_all_songs_as_one(pop909):
    scores = [chord_scores(*song) for song in pop909]
    summary = aggregate_scores(scores)
    references, estimates, offset = [], [], 0.0
    for reference, estimated in pop909:
        start, end = reference[0].start, reference[-1].end
        for segments, joined in ((reference, references), (estimated, estimates)):
            joined += [
                Segment(
                    max(s.start, start) - start + offset, min(s.end, end) - start + offset, s.label
                )
                for s in segments
                if s.start < end and s.end > start
            ]
        offset += end - start
    one = chord_scores(references, estimates)
    for name in COMPARISONS:
        assert summary["corpus"][name] == pytest.approx(one[name], abs=1e-9)
    assert summary["corpus"]["seconds"] == pytest.approx(offset)
    assert summary["mean"]["seg"] == pytest.approx(np.mean([song["seg"] for song in scores]))
    assert summary["median"]["root"] == pytest.approx(np.median([song["root"] for song in scores]))
    assert set(summary["median"]) == {*COMPARISONS, *SEGMENTATIONS}


def test_songs_where_nothing_is_judged_count_for_nothing():
    good = chord_scores([Segment(0, 9, "C:maj")], [Segment(0, 9, "C:maj")])
    unknown = chord_scores([Segment(0, 9, "X")], [Segment(0, 9, "C:maj")])
    assert (unknown["root_seconds"], unknown["root"], unknown["seg"]) == (0, 0, 1)
    summary = aggregate_scores([good, unknown])
    assert [summary[kind]["root"] for kind in ("corpus", "mean", "median")] == [1, 1, 1]
    alone = aggregate_scores([unknown])
    assert all(np.isnan(alone[kind]["majmin"]) for kind in ("corpus", "mean", "median"))
    with pytest.raises(ValueError, match="no songs to aggregate"):
        aggregate_scores([])


def test_estimates_of_any_shape_are_scored():
    reference = [Segment(1, 3, "C:maj"), Segment(3, 5, "N"), Segment(6, 9, "G:maj")]
    assert chord_scores(reference, [])["root"] == pytest.approx(2 / 7)  # N is right from 3 to 5
    assert chord_scores(reference, [])["root_seconds"] == 7  # the gap is not judged
    assert chord_scores(reference, reference)["root"] == 1
    longer = [Segment(0, 3, "C:maj"), Segment(6, 60, "G:maj")]
    assert chord_scores(reference, longer)["root"] == 1
    elsewhere = [Segment(20, 30, "C:maj"), Segment(0, 0.5, "C:maj")]
    assert chord_scores(reference, elsewhere) == chord_scores(reference, [])
    overlapping = [Segment(0, 9, "C:maj"), Segment(3, 4, "N"), Segment(4, 9, "G:maj")]
    assert chord_scores(reference, overlapping)["root"] == pytest.approx(6 / 7)
    nothing = chord_scores([], reference)
    assert set(nothing.values()) == {0.0}
    assert set(nothing) == set(chord_scores(reference, longer))
    with pytest.raises(ValueError, match="unreadable chord label 'what'"):
        chord_scores(reference, [Segment(0, 9, "what")])


def test_quality_seconds_and_acqa():
    reference = [Segment(0, 8, "C:maj"), Segment(8, 10, "A:min7/b3"), Segment(10, 12, "X")]
    reference += [Segment(12, 16, "N"), Segment(16, 17, "D:9(13)")]
    estimated = [Segment(0, 6, "C:maj/3"), Segment(6, 10, "A:min7"), Segment(14, 17, "D:9")]
    found = chords.quality_seconds(reference, estimated)
    seconds = {CHORD_TYPES[i]: row.tolist() for i, row in enumerate(found) if row[1]}
    nearest = CHORD_TYPES[encode("D:9(13)").chord_type]
    assert seconds == {"maj": [6, 8], "min7": [2, 2], "N": [2, 4], nearest: [1, 1]}
    assert acqa(found) == pytest.approx((6 / 8 + 1 + 0.5 + 1) / 4)
    assert acqa(found + found) == pytest.approx(acqa(found))
    assert np.isnan(acqa(np.zeros((32, 2))))


def test_a_tracked_target_that_is_no_class_is_told():
    tracker = classification.MetricsTracker()
    outputs = {head: np.zeros((1, 12)) for head in HEADS}
    targets = {head: np.array([0]) for head in HEADS} | {"root": np.array([12])}
    with pytest.raises(ValueError, match="root: target 12 to 12, expected 0 to 11"):
        tracker.update({}, outputs, targets, 1)
