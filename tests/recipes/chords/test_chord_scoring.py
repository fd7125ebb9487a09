"""Scores of a recogniser with given logits, against mir_eval and counting by hand."""

import csv
import json

import numpy as np
import pytest

from audiotrain.evaluation import chords, classification
from audiotrain.evaluation.chord_report import SHOWN, ChordReport
from audiotrain.music.chord_classes import CHORD_TYPES, HEAD_SIZES, HEADS, IGNORE, encode
from audiotrain.music.segments import Segment, segments_to_frames
from audiotrain.recipes.chords.decoding import log_probabilities
from audiotrain.recipes.chords.predictor import FrameRecognizer
from audiotrain.recipes.chords.scoring import choose_decoding, score
from audiotrain.recipes.chords.songs import FeatureSettings, Song

SETTINGS = FeatureSettings(hop=2205, bins=12, bins_per_octave=12, margin=0)  # 0.1 s a frame
SEGMENTS = [
    Segment(0.0, 4.05, "C:maj"),
    Segment(4.05, 8.05, "G:7/3"),
    Segment(8.05, 10.05, "N"),
    Segment(10.05, 14.05, "A:min7"),
    Segment(14.05, 16.0, "X"),
]


class Scripted(FrameRecognizer):
    """Stands for a Recognizer: its features are the classes that it answers with."""

    settings = SETTINGS

    def __init__(self, switching_cost=2.0, sure=8.0):
        self.switching_cost, self.sure = switching_cost, sure
        self.type_offsets, self.min_confidence = None, 0.0

    def logits(self, values):
        """By head, for classes (frames, 3)."""
        found = {}
        for number, (head, size) in enumerate(zip(HEADS, HEAD_SIZES, strict=True)):
            chosen = np.maximum(values[:, number].astype(int), 0)
            found[head] = self.sure * np.eye(size, dtype=np.float32)[chosen]
        return found

    def song_log_probabilities(self, values):
        return log_probabilities(self.logits(values))


def song(said, segments=SEGMENTS, name="x"):
    """A song of these labels for which `said`, segments too, is predicted."""
    frames = 161
    answers = segments_to_frames(said, frames, 0.1)
    values = np.zeros((frames, SETTINGS.bins), np.float32)
    values[:, :3] = answers
    return Song(name, values, segments_to_frames(segments, frames, 0.1), list(segments))


WRONG = [Segment(0.0, 4.05, "C:min"), Segment(4.05, 8.05, "G:7/3"), Segment(8.05, 20.0, "A:min7")]


def scored(*songs, **changes):
    return score(Scripted(**changes), songs, "scoring")


def test_the_truth_scores_one():
    result = scored(song(SEGMENTS)).as_dict()
    for name in ("viterbi", "argmax"):
        corpus = result[name]["corpus"]
        for comparison in SHOWN:
            assert corpus[comparison] == pytest.approx(1, abs=0.02), comparison
    assert set(result["frames"].values()) == {1.0}


def test_scores_are_those_of_mir_eval():
    result = scored(song(WRONG)).as_dict()
    expected = chords.chord_scores(SEGMENTS, WRONG)
    for comparison in (*chords.COMPARISONS, *chords.SEGMENTATIONS):
        found = result["argmax"]["corpus"][comparison]
        assert found == pytest.approx(expected[comparison], abs=0.01), comparison
    assert result["argmax"]["corpus"]["root"] == pytest.approx(12 / 14, abs=0.01)
    # four seconds of C:maj and two of N wrong, by quality: maj 0, 7 1, N 0, min7 1
    assert result["argmax"]["corpus"]["acqa"] == pytest.approx(0.5, abs=0.01)


def test_frames_are_counted_by_head():
    ours = song(WRONG)
    result = scored(ours).as_dict()["frames"]
    target, said = ours.classes, segments_to_frames(WRONG, 161, 0.1)
    known = target[:, 0] >= 0
    assert result["chord_type_acc"] == pytest.approx(np.mean((said == target)[known, 0]))
    rooted = target[:, 1] >= 0
    assert result["root_acc"] == np.mean((said == target)[rooted, 1]) == 1
    right = ((said == target) | (target == IGNORE)).all(axis=1)[known]
    assert result["chord_acc"] == pytest.approx(right.mean())
    assert result["chord_type_top3"] >= result["chord_type_acc"]
    assert result["chord_type_top5"] >= result["chord_type_top3"]


def test_whole_chords_are_right_where_the_likeliest_is():
    """By heads G and a major chord are likeliest, but a major one on C and a minor one on G."""
    scripted, ours = Scripted(), song([Segment(0.0, 16.0, "G:min")], [Segment(0.0, 16.0, "G:min")])
    major, minor = CHORD_TYPES.index("maj"), CHORD_TYPES.index("min")
    types = np.full((161, 12, HEAD_SIZES[0]), -12.0)
    types[:, 0, major] = types[:, 7, minor] = 0
    types[:, 7, major] = -0.2
    root = np.full((161, 12), -12.0)
    root[:, 7], root[:, 0] = 0, -0.8
    logits = {"root": root, "bass_note": root, "chord_type_of_root": types}
    scripted.logits = lambda values: logits | {"chord_type": types[:, 0]}
    result = score(scripted, [ours], "scoring").as_dict()["frames"]
    assert (result["root_acc"], result["chord_type_acc"], result["chord_acc"]) == (1, 0, 1)


def test_top_k_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    scripted, ours = Scripted(), song(SEGMENTS)
    parts = [rng.normal(size=(161, size)).astype(np.float32) for size in HEAD_SIZES]
    scripted.logits = lambda values: dict(zip(HEADS, parts, strict=True))
    result = score(scripted, [ours], "scoring").as_dict()["frames"]
    for number, head in enumerate(("chord_type", "root", "bass_note")):
        for k in (3, 5):
            expected = classification.top_k_accuracy(parts[number], ours.classes[:, number], k)
            assert result[f"{head}_top{k}"] == pytest.approx(expected)


def test_confusions_count_every_labelled_frame():
    scores = scored(song(WRONG), song(SEGMENTS))
    confusion = scores.tracker.confusions["chord_type"]
    assert confusion.sum() == 2 * 141  # X is not judged
    assert confusion[CHORD_TYPES.index("maj"), CHORD_TYPES.index("min")] == 41
    assert confusion[CHORD_TYPES.index("maj"), CHORD_TYPES.index("maj")] == 41
    assert scores.tracker.confusions["root"].sum() == 2 * 121  # N has no root
    assert np.trace(scores.tracker.confusions["root"]) == 2 * 121


def test_root_intervals_are_measured_upwards():
    said = [Segment(0, 4.05, "G:maj"), *SEGMENTS[1:]]
    intervals = scored(song(said)).intervals
    maj = CHORD_TYPES.index("maj")
    assert intervals[maj].tolist() == [0] * 7 + [41] + [0] * 4
    assert intervals[CHORD_TYPES.index("min7"), 0] == 40


def test_a_corpus_is_weighed_by_time():
    short = [Segment(0, 1.05, "C:maj")]
    result = scored(song(WRONG), song(short, short)).as_dict()
    first = chords.chord_scores(SEGMENTS, WRONG)
    expected = (first["root"] * first["root_seconds"] + 1.05) / (first["root_seconds"] + 1.05)
    assert result["argmax"]["corpus"]["root"] == pytest.approx(expected, abs=0.01)
    assert result["songs"] == 2


def test_viterbi_uses_the_cost():
    flicker = [
        s
        for n in range(160)
        for s in [Segment(n / 10 - 0.05, n / 10 + 0.05, "D:maj" if n % 5 == 2 else "C:maj")]
        if s.end > 0
    ]
    segments = [Segment(0.0, 16.0, "C:maj")]
    result = scored(song(flicker, segments), switching_cost=50.0, sure=2.0).as_dict()
    assert result["viterbi"]["corpus"]["root"] == 1
    assert result["argmax"]["corpus"]["root"] == pytest.approx(0.8, abs=0.01)
    assert result["switching_cost"] == 50.0


def test_the_cost_is_chosen_by_its_score():
    flicker = [
        s
        for n in range(160)
        for s in [Segment(n / 10 - 0.05, n / 10 + 0.05, "D:maj" if n % 5 == 2 else "C:maj")]
        if s.end > 0
    ]
    calm = song(flicker, [Segment(0.0, 16.0, "C:maj")])
    # a D for one frame gains 2 for its bass and less for its root, and costs two switches
    scripted = Scripted(sure=2.0)
    choose_decoding(scripted, [calm])
    assert (scripted.switching_cost, scripted.type_offsets) == (2.0, None)
    quick = [
        Segment(n / 10 - 0.05 if n else 0, n / 10 + 0.05, "C:maj" if n % 2 else "D:min")
        for n in range(160)
    ]
    choose_decoding(scripted, [song(quick, quick)])
    assert scripted.switching_cost == 0.0


@pytest.mark.parametrize(("sure", "expected"), [(8.0, 0.2), (2.0, 0.0)])
def test_the_least_confidence_is_chosen_where_right_chords_have_more(sure, expected):
    truth = [Segment(0.0, 16.0, "C:maj")]
    scripted = Scripted(sure=sure)
    choose_decoding(scripted, [song(truth, truth)])
    assert scripted.min_confidence == expected
    result = score(scripted, [song(truth, truth)], "scoring").as_dict()
    assert result["min_confidence"] == expected
    assert result["viterbi"]["corpus"]["majmin"] == 1.0


def test_weights_of_the_loss_are_taken_back():
    """Half of what is called sus2 is major: a weight of 20 has made sus2 likelier than it is."""
    major, sus2 = CHORD_TYPES.index("maj"), CHORD_TYPES.index("sus2")
    weights = np.ones(HEAD_SIZES[0], np.float32)
    weights[sus2] = 20.0

    class Weighed(Scripted):
        def logits(self, values):
            found = super().logits(values)
            found["chord_type"][:, [sus2, major]] = self.sure  # as likely, after the weights
            found["chord_type"][40:80, sus2] += np.log(2)  # and twice as likely where it sounds
            return found

    truth = [Segment(0.0, 16.0, "C:maj")]
    scripted = Weighed()
    choose_decoding(scripted, [song(truth, truth)], weights)
    assert scripted.type_offsets[sus2] < -np.log(2)
    assert (scripted.type_offsets[weights == 1] == 0).all()
    mostly = [Segment(0.0, 16.0, "C:sus2")]
    choose_decoding(scripted, [song(mostly, mostly)], weights)
    assert scripted.type_offsets[sus2] == 0


@pytest.mark.parametrize("segments", [[], [Segment(0.0, 16.0, "X")], [Segment(0.0, 16.0, "N")]])
def test_songs_without_chords_are_no_accident(segments, tmp_path):
    scores = scored(song(WRONG, segments))
    scores.write(tmp_path)
    assert scores.table().splitlines()[1].split()[0] == "root"
    is_scored = bool(segments) and segments[0].label == "N"
    shown = scores.table().splitlines()[2].split()
    written = json.loads((tmp_path / "metrics.json").read_text())["viterbi"]["corpus"]
    assert (shown[1] != "–") == (written["root"] is not None) == is_scored
    (row,) = csv.DictReader((tmp_path / "songs.csv").read_text().splitlines())
    assert list(row)[2:5] == ["root", "thirds", "triads"]  # in the same order, scored or not
    assert bool(row["root"]) == is_scored


def test_what_is_written(tmp_path):
    scores = scored(song(WRONG, name="bad"), song(SEGMENTS, name="good"))
    scores.write(tmp_path, {"good": {"audio": "good.wav", "start": 0.0, "end": None}})
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result == json.loads(json.dumps(scores.as_dict()))
    assert result["seconds"] == pytest.approx(2 * 16.1)
    rows = list(csv.DictReader((tmp_path / "songs.csv").read_text().splitlines()))
    assert [row["song"] for row in rows] == ["bad", "good"]  # the worst first
    assert float(rows[1]["mirex"]) == pytest.approx(1, abs=0.01)
    lines = json.loads((tmp_path / "timelines.json").read_text())
    assert [line["song"] for line in lines] == ["bad", "good"]
    assert [line["audio"] for line in lines] == [None, "good.wav"]
    assert lines[1]["reference"][:-1] == lines[1]["prediction"][:-1] != lines[0]["prediction"][:-1]
    for head in ("chord_type", "root", "bass_note"):
        lines = list(csv.reader((tmp_path / f"confusion-{head}.csv").read_text().splitlines()))
        assert len(lines) == len(scores.tracker.confusions[head]) + 1
        assert (tmp_path / f"confusion-{head}.png").read_bytes()[1:4] == b"PNG"
    intervals = list(csv.DictReader((tmp_path / "root-intervals.csv").read_text().splitlines()))
    assert {row["chord type"] for row in intervals} == {"maj", "7", "min7"}
    assert (tmp_path / "scores.png").stat().st_size > 1000


def test_the_table_has_a_column_for_each_comparison():
    lines = scored(song(WRONG)).table().splitlines()[1:]
    assert lines[0].split() == list(SHOWN)
    assert [line.split()[0] for line in lines[1:3]] == ["argmax", "viterbi"]
    assert "whole chord" in lines[3]


def test_scores_of_nothing():
    with pytest.raises(ValueError, match="no songs to aggregate"):
        ChordReport(2.0).as_dict()


def test_labels_are_those_of_the_encoder():
    assert segments_to_frames(SEGMENTS, 161, 0.1)[50].tolist() == list(encode("G:7/3"))
