"""Runs that version 1 of the settings saved still load, predict the same, and can be resumed.

`tests/fixtures/runs-version-1` holds small runs as they were saved before settings were renamed,
and what they predicted then. `ROOT` in their files stands for the folder that they were made in.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_chords
import tiny_clips

from audiotrain.music.chord_classes import encode
from audiotrain.music.segments import read_lab

SAVED = Path(__file__).resolve().parents[1] / "fixtures" / "runs-version-1"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder the runs were made in: runs, songs and clips."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(SAVED, folder, dirs_exist_ok=True)
    for path in [*folder.rglob("*.yaml"), *folder.rglob("*.json")]:
        path.write_text(path.read_text("utf-8").replace("ROOT", str(folder)), encoding="utf-8")
    tiny_chords.sung(folder / "songs")
    tiny_clips.class_folders(folder / "clips")
    return folder


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_chord_run_predicts_the_same_chords(root):
    words = ("--checkpoint", root / "chords", "--output", root / "out")
    assert tiny_chords.command("predict", root / "songs" / "song0.wav", *words) == 0
    before, now = (
        read_lab(path).segments for path in (root / "chords.lab", root / "out/song0.lab")
    )
    assert [encode(segment.label) for segment in now] == [encode(s.label) for s in before]
    assert len(before) == 4
    for was, is_now in zip(before, now, strict=True):
        assert is_now.start == pytest.approx(was.start, abs=1e-3)
        assert is_now.end == pytest.approx(was.end, abs=1e-3)


@pytest.mark.slow
def test_a_chord_run_is_resumed(root):
    assert tiny_chords.command("--output", root / "chords", "--resume", "--steps", 904) == 0
    history = json.loads((root / "chords" / "history.json").read_text("utf-8"))
    losses = [loss for loss in history["val_loss"] if loss is not None]
    assert losses[-2] == pytest.approx(3.7638844, abs=1e-6)  # as version 1 saved it
    assert losses[-1] == pytest.approx(3.7644691, abs=2e-3)  # as version 1 went on


@pytest.mark.parametrize("run", ["classify", "classify-cv"])
def test_a_classifier_predicts_the_same_classes(root, run):
    output = root / f"{run}-now.csv"
    words = ("--checkpoint", root / run, "--output", output)
    assert tiny_clips.command("predict", root / "clips", *words) == 0
    before, now = rows(root / f"{run}.csv"), rows(output)
    assert len(before) == 18
    assert [row["file"] for row in now] == [row["file"] for row in before]
    for name in ("high", "low", "middle_one"):
        was, is_now = ([float(row[name]) for row in table] for table in (before, now))
        np.testing.assert_allclose(is_now, was, atol=1e-3)


def test_a_cross_validation_is_complete(root, capsys):
    words = ("cv", "--output", root / "classify-cv", "--resume")
    assert tiny_clips.command(*words) == 0
    score = json.loads((root / "classify-cv" / "metrics.json").read_text("utf-8"))
    saved = json.loads((SAVED / "classify-cv" / "metrics.json").read_text("utf-8"))
    assert score["mean"]["accuracy"] == pytest.approx(saved["mean"]["accuracy"])
