"""Cross-validation of the chord recipe from end to end, in small."""

import json
import shutil

import numpy as np
import pytest
from tiny_chords import STEPS, TINY, command, make_quick, sung

from audiotrain.recipes.chords import cv, decoding, predictor
from audiotrain.recipes.chords.recipe import ChordRecipe
from audiotrain.recipes.common import run as runs
from audiotrain.train import checkpoint, crossval
from audiotrain.train.callbacks import EarlyStopping


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that holds `data`, `cache` and the cross-validation `cv`."""
    return tmp_path_factory.mktemp("cv")


@pytest.fixture(scope="module")
def words(place):
    """A small cross-validation but for its output."""
    data = sung(place / "data", count=7)
    return ["cv", "--data", data, "--cache", place / "cache", "--folds", 3, *TINY, *STEPS]


@pytest.fixture(scope="module")
def done(place, words):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        assert command(*words, "--output", place / "cv") == 0
    return place / "cv"


@pytest.fixture
def quick(done, monkeypatch):
    make_quick(monkeypatch)


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def splits(folder):
    return [read_json(run / "split.json")["items"] for run in sorted(folder.glob("fold-*"))]


def test_every_song_is_tested_once_by_a_run_that_never_saw_it(done):
    parts = splits(done)
    assert len(parts) == 3
    tested = [name for part in parts for name in part["test"]]
    assert sorted(tested) == sorted(f"song{number}.wav" for number in range(7))
    for part in parts:
        assert sorted(part["train"] + part["valid"] + part["test"]) == sorted(tested)
        assert part["train"]
        assert part["valid"]
    assert [part["test"] for part in parts] == crossval.read_folds(done)


def test_scores_are_summed_up(done, capsys):
    found = read_json(done / "metrics.json")
    rows = [read_json(done / f"fold-{k}" / "metrics.json") for k in range(3)]
    majmin = [row["viterbi"]["corpus"]["majmin"] for row in rows]
    assert found["mean"]["majmin"] == pytest.approx(np.mean(majmin))
    assert found["deviation"]["majmin"] == pytest.approx(np.std(majmin, ddof=1))
    assert found["mean"]["argmax_root"] == pytest.approx(
        np.mean([row["argmax"]["corpus"]["root"] for row in rows])
    )
    assert sum(row["songs"] for row in rows) == 7


def test_posteriors_are_what_the_folds_run_says_of_its_songs(done):
    found = {name: (heads, classes) for name, heads, classes in cv.read_posteriors(done)}
    assert sorted(found) == [f"song{number}.wav" for number in range(7)]
    rows = read_json(done / "metrics.json")["folds"]
    for k, names in enumerate(crossval.read_folds(done)):
        right = frames = 0
        for name in names:
            heads, classes = found[name]
            assert heads.shape == (len(classes), 56)
            sums = [np.exp(part).sum(-1) for part in decoding.split_heads(heads)]
            # A frame's are the mean of two windows' logarithms, so they sum to 1 at most.
            assert all((0.8 < total).all() and (total < 1.01).all() for total in sums)
            valid = classes[:, 1] >= 0
            right += (heads[:, 32:44].argmax(-1) == classes[:, 1])[valid].sum()
            frames += valid.sum()
        assert right / frames == pytest.approx(rows[k]["root_acc"], abs=0.02)


def test_an_interrupted_cross_validation_continues(quick, done, words, place, tmp_path, capsys):
    """One fold done, one stopped half-way, one not begun: the result is that of a run in one go."""
    folder = tmp_path / "cv"
    fits = []

    class Stop(EarlyStopping):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    class Stopping(runs.Trainer.func):
        def fit(self, *arguments, **named):
            fits.append(self.default_root_dir)
            if len(fits) == 2:
                self.callbacks.insert(0, Stop("val_loss"))
                super().fit(*arguments, **named)
                raise SystemExit(130)
            super().fit(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "Trainer", lambda **named: Stopping(**named, compile=False))
        with pytest.raises(SystemExit):
            command(*words, "--output", folder)
    assert f"--output {folder} --resume" in capsys.readouterr().err
    assert (folder / "oof" / "0.json").is_file()
    saved = (folder / "config.yaml").read_text()
    line = refused(capsys, "cv", "--output", folder, "--resume", "--steps", 4)
    assert "--resume: steps is 4, expected 6 as in the run" in line
    assert "only cache, workers, loggers may change" in line
    assert (folder / "config.yaml").read_text() == saved
    before = (folder / "fold-0" / "checkpoints" / "last" / "state.json").stat().st_mtime_ns
    assert command("cv", "--output", folder, "--resume") == 0
    assert (folder / "fold-0" / "checkpoints" / "last" / "state.json").stat().st_mtime_ns == before
    assert read_json(folder / "metrics.json") == read_json(done / "metrics.json")


def test_a_folds_settings_start_the_same_run_again(quick, done, tmp_path):
    config = done / "fold-1" / "config.yaml"
    assert command("--config", config, "--output", tmp_path / "again") == 0
    one, other = (
        checkpoint.load(run / "checkpoints" / "last")[0]["model"]
        for run in (done / "fold-1", tmp_path / "again")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert read_json(tmp_path / "again" / "metrics.json") == read_json(
        done / "fold-1" / "metrics.json"
    )
    assert splits(done)[1] == read_json(tmp_path / "again" / "split.json")["items"]


@pytest.mark.slow
def test_composed_songs_are_cross_validated_too(quick, place, tmp_path):
    small = ["--composed", 5, "--composed-seconds", 4, "--cache", place / "cache", *TINY, *STEPS]
    assert command("cv", "--folds", 2, "--output", tmp_path / "cv", *small) == 0
    tested = sorted(name for part in splits(tmp_path / "cv") for name in part["test"])
    assert tested == [f"song-{number:04d}" for number in range(5)]
    config = tmp_path / "cv" / "fold-0" / "config.yaml"
    assert command("--config", config, "--output", tmp_path / "again") == 0
    assert splits(tmp_path / "cv")[0] == read_json(tmp_path / "again" / "split.json")["items"]


def test_groups_stay_together(quick, words, place, tmp_path):
    table = tmp_path / "songs.csv"
    rows = [f"{place / 'data'}/song{n}.wav,{n // 2}" for n in range(7)]
    lines = ["audio,label,start,end,player"]
    for row in rows:
        audio, player = row.split(",")
        lines += [f"{audio},C:maj,0,2,{player}", f"{audio},G:maj,2,5,{player}"]
    table.write_text("\n".join(lines) + "\n")
    data = ["--data", table, "--group", "player", "--output", tmp_path / "cv"]
    assert command(*[w for w in words if w not in ("--data", place / "data")], *data) == 0
    for part in splits(tmp_path / "cv"):
        homes = [{int(name[-5]) // 2 for name in names} for names in part.values()]
        assert sum(map(len, homes)) == 4
    more = [*words, "--group", "player", "--data", table, "--folds", 5, "--output", tmp_path / "x"]
    assert command(*more) == 2


def test_some_of_the_songs_leave_others_unseen(quick, words, tmp_path):
    assert command(*words, "--songs", 4, "--folds", 2, "--output", tmp_path / "cv") == 0
    folds = crossval.read_folds(tmp_path / "cv")
    assert sorted(name for names in folds for name in names) == [
        f"song{number}.wav" for number in (0, 1, 3, 5)
    ]


def refused(capsys, *words):
    assert command(*words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return lines[0]


def test_what_cannot_be_is_refused(quick, done, words, tmp_path, capsys, monkeypatch):
    new = ["--output", tmp_path / "x"]
    assert "folds=1, expected 2 or more" in refused(capsys, *words, *new, "--folds", 1)
    with monkeypatch.context() as patch:
        patch.setattr(ChordRecipe, "load", lambda *_: pytest.fail("songs are read"))
        many = refused(capsys, *words, *new, "--folds", 8)
    assert "folds=8, but 7 items are of 7 groups: expected as many groups as folds" in many
    assert "cv makes its own folds" in refused(capsys, *words, *new, "--split", "split.json")
    assert "--resume continues it" in refused(capsys, *words, "--output", done)
    sung(tmp_path / "two", count=2)
    two = [*words, "--folds", 2, "--data", tmp_path / "two", "--output", tmp_path / "y"]
    assert "fold 0: 1 group of songs left to train on, expected 2" in refused(capsys, *two)


def test_folds_of_other_data_are_refused(quick, done, words, place, tmp_path, capsys):
    copy = tmp_path / "cv"
    shutil.copytree(done, copy)
    folds = read_json(copy / "folds.json")["folds"]
    folds[0][0] = "gone.wav"
    (copy / "folds.json").write_text(json.dumps({"folds": folds}))
    line = refused(capsys, "cv", "--output", copy, "--resume")
    assert "folds of other data" in line
    assert "such as gone.wav" in line


def test_songs_that_an_ensemble_was_trained_on_are_reported(quick, done, place, tmp_path, capsys):
    words = ["evaluate", "--data", place / "data", "--cache", place / "cache", "--checkpoint"]
    assert command(*words, done, "--output", tmp_path / "all") == 0
    assert "7 of 7 songs were in the training of one of the runs or more" in capsys.readouterr().err
    one = [*words, done / "fold-0", "--split", "test", "--output", tmp_path / "one"]
    assert command(*one) == 0
    assert "in the training" not in capsys.readouterr().err
    line = refused(capsys, *words, done, "--split", "test", "--output", tmp_path / "no")
    assert "neither the splits of all 3 runs nor the data name any of the 7 songs" in line


def test_one_run_of_a_cross_validation_predicts(done):
    assert predictor.Recognizer.from_checkpoint(done / "fold-2").window == 16
