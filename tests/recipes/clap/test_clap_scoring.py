"""Scores of embeddings that are known in advance: retrieval, classes, tables, files."""

import csv
import json

import numpy as np
import pytest
from clap_folders import save_model, write_clip

from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification_report import ClassScores
from audiotrain.evaluation.linear_probe import LabelledEmbeddings, make_folds, probe_scores
from audiotrain.evaluation.retrieval_report import nearest
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.scoring import (
    Scores,
    embed_captions,
    score_clips,
)


def clip(name: str, *captions: str, **more) -> Clip:
    return Clip(name, f"{name}.wav", captions, group=name, **more)


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blobs(classes: int, each: int, spread: float, seed: int = 0) -> LabelledEmbeddings:
    """Clips around the corner of their class; two clips of each group."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(classes), each)
    points = np.eye(classes, 8)[targets] + spread * rng.standard_normal((classes * each, 8))
    groups = [f"group{number // 2}" for number in range(classes * each)]
    return LabelledEmbeddings(unit(points), targets, groups)


# ---- retrieval


def test_ragged_captions_belong_to_their_clips():
    clips = [clip("a", "one", "two"), clip("b", "three"), clip("c", "four", "five", "six")]
    audio = np.eye(3, 4)
    scores = Scores(clips, audio, audio[[0, 0, 1, 2, 2, 1]], seconds=90)
    found = scores.as_dict()
    assert (found["clips"], found["captions"], found["distinct_captions"]) == (3, 6, 6)
    assert scores.retrieval.results["text_to_audio"].ranks.tolist() == [1, 1, 1, 1, 1, 3]
    assert scores.retrieval.results["audio_to_text"].ranks.tolist() == [1, 2, 1]
    assert found["retrieval"]["text_to_audio_R@1"] == pytest.approx(5 / 6)
    assert found["classes"] is None


def test_equal_captions_and_concepts_are_right_for_each_other():
    captions = [("A dog.", ""), ("a  dog", ""), ("rain", "wet"), ("drizzle", "wet")]
    clips = [clip(f"{n}", text, concept=concept) for n, (text, concept) in enumerate(captions)]
    audio = np.eye(4)
    scores = Scores(clips, audio, audio[[1, 0, 3, 2]])
    assert scores.as_dict()["distinct_captions"] == 2
    assert all((one.ranks == 1).all() for one in scores.retrieval.results.values())
    torn = Scores([clip(c.id, *c.captions) for c in clips], audio, audio[[1, 0, 3, 2]])
    assert torn.retrieval.results["text_to_audio"].ranks.tolist() == [1, 1, 4, 4]


def test_captions_that_all_mean_the_same_are_told(tmp_path):
    clips = [clip("a", "Rain."), clip("b", "rain")]
    scores = Scores(clips, np.eye(2), np.eye(2))
    assert scores.as_dict()["retrieval"] is None
    assert "nothing to retrieve" in scores.table()
    scores.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_table_is_aligned_and_in_percent():
    clips = [clip(f"c{n}", f"caption {n}") for n in range(3)]
    table = Scores(clips, np.eye(3), np.eye(3)[[0, 1, 1]], seconds=600).table()
    lines = table.splitlines()
    assert lines[0] == "3 clips, 10.0 minutes; 3 captions, 3 of them distinct"
    head, first, second = lines[2:5]
    assert len({len(line) for line in (head, first, second)}) == 1
    assert first.split() == "text to audio 66.7 100.0 100.0 77.8 1 3 3".split()
    for name in ("R@1", "mAP@10", "among"):
        stop = head.index(name) + len(name)
        assert first[stop - 1] != " "
        assert first[stop : stop + 1] in ("", " ")


def test_written_files_say_the_worst_first(tmp_path):
    clips = [clip(f"c{n}", f"caption {n}", f"other {n}") for n in range(5)]
    audio = np.eye(5)
    text = np.repeat(audio, 2, axis=0)
    text[7] = unit([[1, 0.9, 0, 0, 0]])[0]  # "other 3" finds c0
    scores = Scores(clips, audio, text, seconds=50)
    scores.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "metrics.json",
        "retrieval.csv",
        "captions.csv",
        "clips.csv",
        "recall.png",
        "similarity.png",
    }
    rows = list(csv.DictReader((tmp_path / "captions.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0] == {
        "caption": "other 3",
        "clip": "c3",
        "rank": "5",
        "cosine": "0.0000",
        "found": "c0",
        "found_cosine": "0.7433",
    }
    assert {row["rank"] for row in rows[1:]} == {"1"}
    assert json.loads((tmp_path / "metrics.json").read_text()) == scores.as_dict()
    assert (tmp_path / "recall.png").read_bytes()[:4] == b"\x89PNG"


def test_nearest_in_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    queries, items = unit(rng.normal(size=(23, 4))), unit(rng.normal(size=(11, 4)))
    monkeypatch.setattr("audiotrain.evaluation.retrieval_report.QUERIES", 5)
    first, cosines = nearest(queries, items)
    np.testing.assert_array_equal(first, (queries @ items.T).argmax(axis=1))
    np.testing.assert_allclose(cosines, (queries @ items.T).max(axis=1), rtol=1e-6)


# ---- classes


def test_folds_keep_groups_whole_and_have_all_classes():
    data = blobs(4, 20, 0.1)
    folds = make_folds(data.groups, 5, data.targets)
    for rows in folds:
        groups = {data.groups[row] for row in rows}
        assert len(rows) == 2 * len(groups)
        assert np.bincount(data.targets[rows]).tolist() == [4, 4, 4, 4]
    order = np.random.default_rng(0).permutation(80)
    shuffled = data.take(order)
    for rows, other in zip(folds, make_folds(shuffled.groups, 5, shuffled.targets), strict=True):
        assert sorted(order[other]) == rows.tolist()


def test_a_probe_learns_classes_and_not_groups():
    scores, how = probe_scores(blobs(3, 20, 0.1), 3)
    assert (scores.argmax(axis=1) == np.repeat(range(3), 20)).all()
    assert how.startswith("5 folds by group, C=")
    # Noise, but the clips of a group are twins: only one that peeks across folds is right.
    rng = np.random.default_rng(0)
    twins = np.repeat(unit(rng.normal(size=(60, 40))), 2, axis=0)
    targets = np.repeat(rng.integers(0, 3, 60), 2)
    groups = [f"group{number // 2}" for number in range(120)]
    scores, _ = probe_scores(LabelledEmbeddings(twins, targets, groups), 3)
    assert (scores.argmax(axis=1) == targets).mean() < 0.55


def test_a_probe_learns_from_other_clips():
    training, validation = blobs(3, 20, 0.2, 1), blobs(3, 6, 0.2, 2)
    tested = blobs(3, 1, 0.0)  # one of each: no folds of their own would do
    for known in (validation, None):
        scores, how = probe_scores(tested, 3, training, known)
        assert scores.argmax(axis=1).tolist() == [0, 1, 2]
        assert how.startswith("learnt from 60 clips of train, C=")
    unseen, _ = probe_scores(tested, 3, training.take(np.flatnonzero(training.targets < 2)))
    assert unseen.argmax(axis=1)[:2].tolist() == [0, 1]
    assert np.isneginf(unseen[:, 2]).all()


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 20]])
def test_no_probe_where_there_is_too_little(rows):
    data = blobs(2, 20, 0.1).take(np.array(rows))
    assert probe_scores(data, 2) is None
    assert probe_scores(blobs(2, 5, 0.1), 2, blobs(2, 20, 0.1).take(np.array([0, 1]))) is None


def test_class_scores_in_closed_form(tmp_path):
    scores = np.array([[3.0, 1, 0, 2], [0, 3, 1, 2], [3, 0, 1, 2], [0, 1, 2, 3]])
    found = ClassScores(
        ["a", "b", "c", "d"],
        np.array([0, 1, 1, 3]),
        {
            "zero_shot": (scores, "4 classes"),
        },
    )
    printed = found.as_dict()
    assert printed["zero_shot"]["accuracy"] == 0.75
    assert printed["zero_shot"]["balanced_accuracy"] == pytest.approx(2.5 / 3)
    assert printed["zero_shot"]["top_3"] == 0.75
    assert printed["largest_class"] == 0.5
    assert found.reports["zero_shot"].confusion()[1].tolist() == [1, 1, 0, 0]
    assert "zero-shot            75.0     83.3    75.0   4 classes" in found.table()
    found.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "confusion-zero-shot.png",
        "confusion-zero-shot.csv",
        "classes-zero-shot.csv",
    }
    rows = list(csv.DictReader((tmp_path / "classes-zero-shot.csv").read_text().splitlines()))
    assert rows[1] == {
        "class": "b",
        "precision": "1.0000",
        "recall": "0.5000",
        "f1": "0.6667",
        "support": "2",
    }


# ---- with a model


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return Embedder.from_folder(save_model(tmp_path_factory.mktemp("clap") / "model"))


def test_clips_are_scored(embedder, tmp_path, capsys):
    labels = ["dog", "rain", "dog", "rain", "dog", "rain", None]
    clips = [
        Clip(
            f"{n}",
            write_clip(tmp_path / f"{n}.wav", 1, seed=n % 2),
            (f"sound {n}", "a sound"),
            label=label,
        )
        for n, label in enumerate(labels)
    ]
    (tmp_path / "bad.wav").write_text("bad")
    bad = Clip("bad", tmp_path / "bad.wav", ("bad",), label="dog")
    templates = ("This is a sound of {label}.", "{label}")
    scores = score_clips(embedder, [bad, *clips], templates=templates)
    assert [clip.id for clip in scores.clips] == [str(n) for n in range(7)]
    assert len(scores.left_out) == 1
    assert "bad.wav" in scores.left_out[0]
    assert scores.seconds == pytest.approx(7)
    found = scores.as_dict()
    assert (found["captions"], found["distinct_captions"], found["left_out"]) == (14, 8, 1)
    assert found["classes"]["clips"] == 6
    assert found["classes"]["linear_probe"]["accuracy"] == 1.0  # one seed a class
    assert "2 templates" in scores.table()
    without = score_clips(embedder, clips, linear_probe=False)
    assert list(without.classes.methods) == ["zero_shot"]
    taught = score_clips(embedder, clips[:2], training=clips[2:], templates=templates)
    assert "learnt from 4 clips" in taught.table()
    capsys.readouterr()
    untaught = score_clips(embedder, clips[:2], training=clips[2:3])
    assert list(untaught.classes.methods) == ["zero_shot"]
    assert "no linear probe: too few classes" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"bad\.wav: not readable"):
        score_clips(embedder, [clips[0], bad], strict=True)
    alone = score_clips(embedder, clips[:1])
    assert alone.as_dict()["classes"] is None


def test_equal_captions_are_embedded_once(embedder, monkeypatch):
    asked = []

    def text(captions):
        asked.append(list(captions))
        return np.arange(len(captions), dtype=np.float32)[:, None]

    monkeypatch.setattr(embedder, "text", text)
    found = embed_captions(embedder, [clip("a", "x", "y"), clip("b", "y"), clip("c", "x", "z")])
    assert asked == [["x", "y", "z"]]
    assert found[:, 0].tolist() == [0, 1, 1, 0, 2]
