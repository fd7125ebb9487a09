"""Which model `--checkpoint` names."""

import json
import os
import time
from pathlib import Path

import pytest

import audiotrain
from audiotrain.recipes.common import checkpoints
from audiotrain.train import checkpoint

CHORDS, CLASSIFY = {"recognizer": {}}, {"classifier": {}}  # as older checkpoints are known


def written(folder: Path, config: dict, age: int) -> Path:
    """A run folder with a checkpoint, `age` seconds old."""
    checkpoint.save(folder / "checkpoints" / "best", {}, {"config": config})
    os.utime(folder / "checkpoints", (time.time() - age, time.time() - age))
    return folder


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """The folder of runs of an empty place."""
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The folder of a model that is installed."""
    monkeypatch.setattr(checkpoints, "PRETRAINED", tmp_path / "installed")
    folder = tmp_path / "installed" / "chords"
    folder.mkdir(parents=True)
    content = {"format": 1, "recipe": "chords", "weights": {"sha256": "0123456789abcdef"}}
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def test_latest_is_the_newest_run_of_the_recipe(runs):
    old = written(runs / "old", CHORDS, 400)
    new = written(runs / "new", {"recipe": "chords"}, 300)
    other = written(runs / "other", CLASSIFY, 200)
    clap = written(runs / "clap", {"settings": {}}, 100)
    (runs / "begun" / "checkpoints").mkdir(parents=True)  # training has saved nothing yet
    latest = [Path("latest")]
    assert checkpoints.resolve(latest, "chords") == [(new,)]
    assert checkpoints.locate([*latest, old], "chords") == (new, old)
    assert checkpoints.resolve(latest, "classify") == [(other,)]
    assert checkpoints.latest_run("clap") == clap


def test_latest_may_be_a_cross_validation(runs):
    written(runs / "old", CHORDS, 100)
    written(runs / "cv" / "fold-0", CHORDS, 0)
    (runs / "cv" / "folds.json").write_text("{}")
    assert checkpoints.latest_run("chords") == runs / "cv"


def test_words_that_name_no_model_are_one_line(shipped):
    (shipped / "model.json").unlink()
    with pytest.raises(ValueError, match="--checkpoint latest: no trained run of chords in runs"):
        checkpoints.locate([Path("latest")], "chords")
    with pytest.raises(ValueError, match="--checkpoint shipped: .* has no .*model.json"):
        checkpoints.locate([Path("shipped")], "chords")


def test_the_first_line_says_which_model_answers(runs, shipped, capsys):
    def line(*words: str) -> str:
        checkpoints.report_model([Path(word) for word in words], "chords")
        return capsys.readouterr().out

    model = f"model: shipped with audiotrain {audiotrain.__version__}, sha256 0123456789ab"
    assert line("shipped") == f"{model}\n"
    assert checkpoints.resolve([Path("shipped")], "chords") == [(shipped,)]
    run = written(runs / "mine", CHORDS, 0)
    assert line("shipped") == f"{model} (--checkpoint latest takes {run})\n"
    assert line("latest") == f"model: {run}\n"
    written(runs / "old", CHORDS, 100)
    assert line("runs") == f"model: {run}\n"
    assert line("elsewhere/a", "elsewhere/b") == "model: elsewhere/a, elsewhere/b\n"
