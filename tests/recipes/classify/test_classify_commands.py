"""The classify recipe from end to end, in small: train, evaluate, predict, submit."""

import csv

import mlx.core as mx
import numpy as np
import pytest
import tiny_clap
from tiny_clips import (
    INPUT,
    KINDS,
    QUICK,
    STATISTICS,
    TOWER,
    class_folders,
    command,
    make_quick,
    read_json,
    table,
    tone,
)

from audiotrain import config
from audiotrain.__main__ import main as audiotrain
from audiotrain.datasets.paths import recordings
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.classify.dataset import window
from audiotrain.recipes.classify.ensemble import Ensemble
from audiotrain.recipes.classify.features import ClipFeatures
from audiotrain.recipes.classify.predictor import Classifier
from audiotrain.recipes.classify.settings import TrainSettings
from audiotrain.train import checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `data`, `cache` and a `run` on their statistics, with pictures, compiled."""
    folder = tmp_path_factory.mktemp("classify")
    class_folders(folder / "data")
    assert command(*words(folder, "run")) == 0
    return folder


@pytest.fixture
def quick(monkeypatch):
    make_quick(monkeypatch)


def words(place, output, *more):
    cache = ["--cache", place / "cache"]
    return ["--data", place / "data", "--output", place / output, *cache, *STATISTICS, *more]


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


# ---- train


def test_a_run_folder_is_complete(place):
    files = {p.relative_to(place / "run").as_posix() for p in (place / "run").rglob("*")}
    expected = """
        config.yaml split.json history.json metrics.csv metrics.jsonl curves.png metrics.json
        classes.csv clips.csv confusion.csv confusion.png checkpoints/best/state.json
        checkpoints/last/state.json
    """
    assert set(expected.split()) <= files
    found = read_json(place / "run" / "metrics.json")
    assert found["accuracy"] == found["valid"]["accuracy"] == 1
    assert found["classes"] == 3
    parts = read_json(place / "run" / "split.json")["items"]
    assert found["clips"] == len(parts["test"]) == 4
    assert sum(map(len, parts.values())) == 18
    assert len(rows(place / "run" / "clips.csv")) == 4
    assert rows(place / "run" / "classes.csv")[0]["class"] == "high"


def test_the_saved_settings_give_the_same_weights(quick, place, monkeypatch):
    monkeypatch.setattr(ClipFeatures, "_compute", lambda *a: pytest.fail("extracted again"))
    saved = place / "run" / "config.yaml"
    assert config.load(TrainSettings, ["--config", str(saved)]).data == place / "data"
    assert audiotrain(["classify", "--config", str(saved), "--output", str(place / "again")]) == 0
    one, other = (
        checkpoint.load(place / name / "checkpoints" / "last")[0]["model"]
        for name in ("run", "again")
    )
    assert one.keys() == other.keys()
    for name in one:
        assert mx.allclose(one[name], other[name], atol=1e-5), name


@pytest.mark.slow
def test_a_tower_learns_from_augmented_log_mel(quick, place, tmp_path):
    more = [*QUICK, *INPUT, *TOWER, "--steps", 30, "--optimization.ema-decay", 0.5]
    rate = ["--optimization.learning-rate", 0.01]
    base = ["--data", place / "data", "--cache", place / "cache"]
    assert command(*base, "--output", tmp_path / "run", *more, *rate) == 0
    history = read_json(tmp_path / "run" / "history.json")["rows"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    found = Classifier.from_run(tmp_path / "run")
    norm = found.module.model.tower.batch_norm
    before, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    key = "model.tower.batch_norm.running_mean"
    assert mx.array_equal(norm.running_mean, before["model"][key]), "statistics stay"
    assert -60 <= norm.running_mean.min() < norm.running_mean.max() < 0
    assert command(*base, "--output", tmp_path / "run", "--resume", "--steps", 32) == 0
    assert checkpoint.load_meta(tmp_path / "run" / "checkpoints" / "last")["global_step"] == 32


def test_clips_of_several_classes(quick, place, tmp_path):
    lines = [["fname", "labels"]]
    for n in range(6):
        cells = {"low": "low|tone", "high": '"high,tone"', "middle_one": "middle"}
        lines += [[f"{kind}-{n}.wav", cell] for kind, cell in cells.items()]
    path = table(place / "several", lines)
    (place / "several" / "audio").symlink_to(place / "data")
    output = ["--output", tmp_path / "run", "--cache", place / "cache", *STATISTICS]
    assert command("--data", path, *output, "--steps", 150) == 0
    found = read_json(tmp_path / "run" / "metrics.json")
    assert "accuracy" not in found
    assert found["lwlrap"] > 0.9
    assert not (tmp_path / "run" / "confusion.csv").exists()
    out = tmp_path / "p.csv"
    data = place / "data" / "low"
    predict = ["predict", data, "--checkpoint", tmp_path / "run", "--output", out]
    assert command(*predict, "--cache", place / "cache") == 0
    assert {row["labels"] for row in rows(out)} == {"low|tone"}


def test_a_head_learns_from_claps_embeddings_which_are_kept(quick, place, tmp_path, monkeypatch):
    tiny_clap.pretrained(place / "clap")
    more = [*QUICK, "--input.embeddings", place / "clap", "--steps", 60, "--head.hidden", 8]
    more += ["--data", place / "data", "--cache", place / "cache"]
    assert command(*more, "--output", tmp_path / "run") == 0
    monkeypatch.setattr(Embedder, "spans", lambda *a: pytest.fail("embedded again"))
    assert command(*more, "--output", tmp_path / "again") == 0
    one, other = (Classifier.from_run(tmp_path / name).module.model for name in ("run", "again"))
    assert mx.allclose(one.layers[1].weight, other.layers[1].weight, atol=1e-6)
    assert [layer.weight.shape for layer in one.layers] == [(8, 12), (3, 8)]
    assert mx.any(one.mean != 0)


def test_without_data_events_are_synthesised(quick, tmp_path, capsys):
    more = ["--input.embeddings", "statistics", "--synthesised", 54, "--steps", 5, *QUICK]
    assert command("--output", tmp_path / "run", "--cache", tmp_path / "cache", *more) == 0
    told = capsys.readouterr().out
    assert "54 clips" in told
    assert "27 classes" in told


def test_clips_that_cannot_be_read_are_named_and_left_out(quick, tmp_path, capsys):
    data = class_folders(tmp_path / "data")
    (data / "low" / "zero.wav").write_bytes(b"")
    whole = (data / "low" / "low-0.wav").read_bytes()
    (data / "low" / "cut.wav").write_bytes(whole[: len(whole) // 3])
    tone(data / "low" / "tiny.wav", 150, 0.001)
    base = ["--data", data, "--cache", tmp_path / "cache", *STATISTICS]
    assert command(*base, "--output", tmp_path / "run") == 0
    told = capsys.readouterr().out
    assert "zero.wav" in told
    assert "cut.wav" in told
    parts = read_json(tmp_path / "run" / "split.json")["items"]
    assert "low/tiny.wav" in {name for part in parts.values() for name in part}
    run = ["--checkpoint", tmp_path / "run", "--output", tmp_path / "scores"]
    assert command("evaluate", *base[:4], *run) == 0
    for folder in ("run", "scores"):
        lines = (tmp_path / folder / "problems.txt").read_text().splitlines()
        assert sorted(line.split(".wav")[0].rpartition("/")[2] for line in lines) == ["cut", "zero"]
    assert command(*base, "--output", tmp_path / "strict", "--strict") == 2
    kept = (tmp_path / "scores" / "problems.txt").read_text()
    (data / "other").mkdir()
    tone(data / "other" / "new.wav", 150)
    assert command("evaluate", *base[:4], *run, "--overwrite") == 2  # another class
    assert (tmp_path / "scores" / "problems.txt").read_text() == kept


@pytest.mark.slow
def test_recorded_sounds_of_an_unseen_fold(quick, shared_data, tmp_path):
    more = ["--preset", "quick", "--steps", 200, "--test-fold", 5, "--cache", tmp_path / "cache"]
    words = ["--data", shared_data / "esc10", "--output", tmp_path / "run"]
    assert command(*words, *more) == 0
    found = read_json(tmp_path / "run" / "metrics.json")
    assert (found["clips"], found["classes"]) == (80, 10)
    assert found["accuracy"] > 0.65


# ---- evaluate, predict


def test_evaluate_by_one_and_by_several(quick, place, tmp_path, capsys):
    more = ["--data", place / "data", "--cache", place / "cache"]
    run = ["--checkpoint", place / "run"]
    assert command("evaluate", *more, *run, "--split", "test") == 0
    found = read_json(place / "run" / "evaluation-data-test" / "metrics.json")
    trained = read_json(place / "run" / "metrics.json")
    assert {name: trained[name] for name in found} == found
    assert command("evaluate", *more, *run, place / "run", "--output", tmp_path / "both") == 0
    assert read_json(tmp_path / "both" / "metrics.json")["clips"] == 18
    told = capsys.readouterr()
    assert "by 2 models" in told.out
    assert "14 of 18 clips were in the training of one of the runs or more" in told.err


def test_predictions_are_probabilities_by_name(quick, place, tmp_path):
    out = tmp_path / "predictions.csv"
    more = ["--checkpoint", place, "--cache", place / "cache"]
    assert command("predict", place / "data", *more, "--output", out) == 0
    found = rows(out)
    assert list(found[0]) == ["file", "label", "confidence", "high", "low", "middle_one"]
    assert [row["file"] for row in found][:2] == ["high/high-0.wav", "high/high-1.wav"]
    for row in found:
        assert row["label"] == row["file"].split("/")[0]
        assert sum(float(row[name]) for name in list(row)[3:]) == pytest.approx(1, abs=1e-4)
        assert float(row["confidence"]) == float(row[row["label"]])
    assert command("predict", place / "data", *more, "--output", out) == 2, "exists already"


def test_a_submission_has_the_samples_columns_and_order(quick, place, tmp_path):
    header, zeros = ["fname", "low", "high", "middle_one"], ["0", "0", "0"]
    sample = table(tmp_path, [header, ["low-3.wav", *zeros], ["high-1.wav", *zeros]])
    more = ["--checkpoint", place / "run", "--cache", place / "cache", "--submission", sample]
    assert command("predict", place / "data", *more, "--output", tmp_path / "out.csv") == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "fname,low,high,middle_one"
    assert [line.split(",")[0] for line in lines[1:]] == ["low-3.wav", "high-1.wav"]
    assert float(lines[1].split(",")[1]) > 0.5
    named = table(tmp_path, [["fname", "label"], ["low-3", "x"]], "named.csv")
    more[-1] = named
    words = ["predict", place / "data", *more, "--output", tmp_path / "named-out.csv", "--top", 2]
    assert command(*words) == 0
    assert (tmp_path / "named-out.csv").read_text().splitlines()[1].startswith("low-3,low ")


def test_models_are_averaged_over_the_whole_of_long_clips(quick, place, tmp_path):
    run = place / "run"
    clips = recordings(place / "data", [])
    one = Ensemble.load([run], place / "cache")(clips)[1]
    same = Ensemble.load([run, run], place / "cache")(clips)[1]
    np.testing.assert_allclose(one, same)
    np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)


def test_predictions_are_averaged_over_shifts_and_crops(quick, place, tmp_path, capsys):
    more = [*QUICK, *INPUT, *TOWER, "--steps", 4]
    base = ["--data", place / "data", "--cache", place / "cache"]
    assert command(*base, "--output", tmp_path / "tower", *more) == 0
    classifier = Classifier.from_run(tmp_path / "tower")
    features = ClipFeatures(classifier.inputs, place / "cache")
    clips = recordings(place / "data", [])
    mels = [np.array(extracted.features) for extracted in features.extract(clips)]
    short = [mel for mel in mels if len(mel) <= classifier.inputs.features.frames]
    assert len(short) > 3  # of one window each
    windows = [window(mel, 0, classifier.inputs.features.frames) for mel in short]
    kept = 3 * len(windows[0]) // 4
    moved = {
        "shift": [
            [np.concatenate([mel[:, :1], mel[:, :-1]], axis=1) for mel in windows],
            [np.concatenate([mel[:, 1:], mel[:, -1:]], axis=1) for mel in windows],
        ],
        "crop": [
            [window(mel[:kept], 0, len(mel)) for mel in windows],
            [window(mel[-kept:], 0, len(mel)) for mel in windows],
        ],
    }
    plain = classifier.probabilities(windows)
    for names in (["shift"], ["crop"], ["shift", "crop"]):
        each = [classifier.probabilities(one) for name in names for one in moved[name]]
        expected = np.mean([plain, *each], axis=0)
        assert not np.allclose(expected, plain, atol=1e-6)
        np.testing.assert_allclose(classifier.probabilities(short, names), expected, atol=1e-6)

    # The commands take both.
    use = ["--checkpoint", tmp_path / "tower", "--cache", place / "cache", "--tta", "shift", "crop"]
    assert command("predict", place / "data", *use, "--output", tmp_path / "out.csv") == 0
    found = np.array([[float(row[k]) for k in KINDS] for row in rows(tmp_path / "out.csv")])
    order = [classifier.task.classes.index(name) for name in KINDS]
    expected = classifier.probabilities(mels, ["shift", "crop"])[:, order]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    words = ("evaluate", "--data", place / "data", *use, "--output", tmp_path / "scores")
    assert command(*words) == 0
    use[1] = place / "run"
    assert command("predict", place / "data", *use, "--output", tmp_path / "no.csv") == 2
    assert "tta=shift crop, but the model's input is input.embeddings=statistics" in (
        capsys.readouterr().err
    )
