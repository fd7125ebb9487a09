"""Cross-validation and pseudo-labels of clips: every clip once, resumed, the best round kept."""

import csv
import functools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_clips import STATISTICS, class_folders, command, make_quick, read_json, table, tone

from audiotrain.datasets.paths import recordings
from audiotrain.recipes.classify import cv as classify_cv
from audiotrain.recipes.classify import ensemble, pseudo_labels
from audiotrain.recipes.classify.ensemble import Ensemble, join
from audiotrain.recipes.classify.recipe import ClassifyRecipe
from audiotrain.recipes.common import run as recipe_runs
from audiotrain.recipes.common.checkpoints import resolve
from audiotrain.train.crossval import read_folds
from audiotrain.train.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `data`, `cache` and a cross-validation `cv` of three folds."""
    folder = tmp_path_factory.mktemp("rounds")
    class_folders(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        assert command("cv", *words(folder, "cv"), "--folds", 3) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


def words(place, output, *more):
    cache = ["--cache", place / "cache"]
    return ["--data", place / "data", "--output", place / output, *cache, *STATISTICS, *more]


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


# ---- folds


def test_every_clip_is_predicted_once_by_a_model_not_trained_on_it(place):
    folds = read_folds(place / "cv")
    assert [len(fold) for fold in folds] == [6, 6, 6]
    assert len({name for fold in folds for name in fold}) == 18
    for number, fold in enumerate(folds):
        parts = read_json(place / "cv" / f"fold-{number}" / "split.json")["items"]
        assert sorted(parts["test"]) == sorted(fold)
        assert not set(fold) & {*parts["train"], *parts["valid"]}
        assert {name.split("/")[0] for name in fold} == {"low", "middle_one", "high"}
    found = read_json(place / "cv" / "metrics.json")
    assert found["out_of_fold"]["clips"] == 18
    assert found["out_of_fold"]["accuracy"] > 0.8
    own = [read_json(place / "cv" / f"fold-{n}" / "metrics.json")["accuracy"] for n in range(3)]
    assert found["mean"]["accuracy"] == pytest.approx(np.mean(own))
    assert found["deviation"]["accuracy"] == pytest.approx(np.std(own, ddof=1))
    # Folds are equally large, so that the mean over folds is that over clips.
    assert found["out_of_fold"]["accuracy"] == pytest.approx(np.mean(own))


def test_the_folds_models_predict_together(place, tmp_path):
    (runs,) = resolve([place / "cv"], "classify")
    assert [run.name for run in runs] == ["fold-0", "fold-1", "fold-2"]
    out = tmp_path / "out.csv"
    more = ["--checkpoint", place / "cv", "--cache", place / "cache", "--output", out]
    assert command("predict", place / "data" / "low", *more) == 0
    clips = recordings(place / "data" / "low", [])
    each = [Ensemble.load([run], place / "cache")(clips)[1] for run in runs]
    found = [float(row["low"]) for row in rows(out)]
    np.testing.assert_allclose(found, np.mean(each, axis=0)[:, 1], atol=1e-5)


@pytest.fixture(scope="module")
def other(place):
    """Another cross-validation of the same clips, of models that hardly learnt."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        more = ("--folds", 3, "--seed", 1, "--steps", 2)
        assert command("cv", *words(place, "other"), *more) == 0
    return place / "other"


@pytest.mark.parametrize("how", ["blend", "stack", "majority", "geometric", "mean"])
def test_cross_validations_are_joined_by_their_out_of_fold_predictions(
    place, other, tmp_path, capsys, how
):
    capsys.readouterr()
    out, places = tmp_path / "both", (place / "cv", other)
    more = () if how in ("blend", "stack") else ("--weights", 3, 1)
    assert command("ensemble", "--checkpoint", *places, "--output", out, "--join", how, *more) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    entropy = {line[2]: float(line[1]) for line in lines if len(line) > 2 and line[0][0] in "01"}
    alone, worse = entropy[str(places[0])], entropy[str(other)]
    assert worse > alone
    # Weights and models are fitted without the fold that is scored.
    assert entropy[how.replace("blend", "blend,").replace("stack", "stack,")] < worse
    if how == "blend":
        weights = read_json(out / "ensemble.json")["weights"]
        assert weights[0] > 0.9
        assert entropy["blend,"] == pytest.approx(alone, rel=0.1)
    scores = read_json(out / "metrics.json")
    assert scores["clips"] == 18
    assert scores["accuracy"] > 0.8
    assert (out / "classes.csv").exists()

    # It predicts as its places do, each the mean of its folds.
    table_of = ["--cache", place / "cache", "--output", tmp_path / "out.csv", "--checkpoint", out]
    assert command("predict", place / "data" / "high", *table_of) == 0
    names = ("high", "low", "middle_one")
    found = np.array([[float(row[name]) for name in names] for row in rows(tmp_path / "out.csv")])
    clips = recordings(place / "data" / "high", [])
    each = [Ensemble.load([one], place / "cache")(clips)[1] for one in places]
    more = ("--overwrite", "--join", "mean")
    assert command("predict", place / "data" / "high", *table_of, *more) == 2
    assert "is an ensemble with a join; expected none" in capsys.readouterr().err
    spec = Ensemble.load([out], place / "cache").spec
    assert [len(member) for member in spec.members] == [3, 3]
    if how in ("blend", "mean"):
        share = spec.weights[0] / sum(spec.weights)
        np.testing.assert_allclose(found, share * each[0] + (1 - share) * each[1], atol=1e-5)
    if how == "stack":
        expected = join(spec, [[one] for one in each], False)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    if how == "majority":
        assert np.allclose(found * 12, np.round(found * 12), atol=1e-3)  # votes of 3/12 and 1/12
    assert (found.argmax(axis=1) == 0).all()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("how", ["blend", "stack"])
def test_weights_are_fitted_without_the_fold_that_they_are_scored_on(
    place, other, tmp_path, monkeypatch, how
):
    fitted, fit = [], ensemble._fit
    monkeypatch.setattr(ensemble, "_fit", lambda *given: fitted.append(given[1:3]) or fit(*given))
    places = (place / "cv", other)
    out = ("--output", tmp_path / "both", "--join", how)
    assert command("ensemble", "--checkpoint", *places, *out) == 0
    _, targets, said, folds = ensemble.out_of_fold(places)
    wanted = [[], *folds]  # the ensemble itself by all clips, then each fold by the others
    assert len(fitted) == len(wanted) == 4
    for (own, answers), rows in zip(fitted, wanted, strict=True):
        left = np.delete(np.arange(18), np.array(rows, int))
        np.testing.assert_array_equal(answers, targets[left])
        np.testing.assert_array_equal(own, np.stack(said)[:, left])


def test_refused_ensembles(place, other, tmp_path, capsys):
    def refused(*words):
        assert command("ensemble", "--output", tmp_path / "e", *words) == 2
        assert not (tmp_path / "e").exists()
        return capsys.readouterr().err

    cv, run = place / "cv", place / "cv" / "fold-0"
    assert "checkpoint: 1 named, expected two or more" in refused("--checkpoint", cv)
    assert f"{run}: --join stack is fitted on" in refused(
        "--checkpoint", cv, run, "--join", "stack"
    )
    more = ("--weights", 1, 2)
    assert "weights: join=blend fits them" in refused("--checkpoint", cv, other, *more)
    more = ("--join", "mean", "--weights", 1, 2, 3)
    assert "weights 1, 2, 3, expected 2" in refused("--checkpoint", cv, other, *more)
    few = tmp_path / "few"
    shutil.copytree(other, few)
    (few / "oof" / "fold-1.npz").unlink()
    assert "few: fold 1 of 3 is not done: cv --output" in refused("--checkpoint", cv, few)
    (few / "ensemble.json").write_text('{"members": [["a"]], "join": "mean", "weights": [1, 2]}')
    more = ("--checkpoint", few, "--output", tmp_path / "x.csv")
    assert command("predict", place / "data" / "low", *more) == 2
    assert "ensemble.json: not an ensemble of the classify recipe" in capsys.readouterr().err


def test_an_interrupted_cross_validation_goes_on(place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place / "cv", place / "stopped")
    (place / "stopped" / "oof" / "fold-2.npz").unlink()
    (place / "stopped" / "metrics.json").unlink()
    assert command("cv", *words(place, "stopped")) == 2, "it holds one already"
    assert "holds a run already (folds.json)" in capsys.readouterr().err
    trained = []
    fold = classify_cv.fold_settings
    monkeypatch.setattr(
        classify_cv, "fold_settings", lambda *a, **b: trained.append(a[2].name) or fold(*a, **b)
    )
    saved = (place / "stopped" / "config.yaml").read_text()
    for name, value in (("steps", 10), ("validations", 1), ("patience", 1), ("max-minutes", 1.0)):
        assert command("cv", "--output", place / "stopped", "--resume", f"--{name}", value) == 2
        told = capsys.readouterr().err
        assert f"--resume: {name.replace('-', '_')} is {value}, expected" in told
        assert "only cache, workers, loggers may change" in told
    assert (place / "stopped" / "config.yaml").read_text() == saved
    assert not trained
    assert command("--output", place / "stopped" / "fold-1", "--resume", "--steps", 100) == 2
    assert "--resume: steps is 100, expected 60 as in the run in" in capsys.readouterr().err
    assert command("cv", "--output", place / "stopped", "--resume", "--workers", 1) == 0
    assert trained == ["fold-2"]
    found, whole = (read_json(place / name / "metrics.json") for name in ("stopped", "cv"))
    assert found == whole


def interrupt(monkeypatch, number):
    """The run of this number is stopped as by Ctrl-C."""

    class Stopping(Trainer):
        def fit(self, *given, **named):
            if self.default_root_dir.name.endswith(f"-{number}"):
                raise SystemExit(130)
            super().fit(*given, **named)

    monkeypatch.setattr(recipe_runs, "Trainer", functools.partial(Stopping, compile=False))


@pytest.mark.slow
def test_what_is_said_when_it_is_interrupted_continues_it(place, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1)
        with pytest.raises(SystemExit):
            command("cv", *words(place, tmp_path / "x"), "--folds", 3)
    said = [line for line in capsys.readouterr().err.splitlines() if "to continue" in line]
    assert said == [f"to continue: --output {tmp_path / 'x'} --resume"]
    assert command("cv", *said[0].split()[2:]) == 0
    found, whole = (read_json(cv / "metrics.json") for cv in (tmp_path / "x", place / "cv"))
    assert found == whole


def test_interrupted_pseudo_labels_are_continued(place, unlabelled, tmp_path, capsys):
    more = ["--unlabelled", unlabelled, "--threshold", 0.5, "--rounds", 1]
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1)
        with pytest.raises(SystemExit):
            command("pseudo", *words(place, tmp_path / "p"), *more)
    said = [line for line in capsys.readouterr().err.splitlines() if "to continue" in line]
    assert said == [f"to continue: --output {tmp_path / 'p'} --resume"]
    assert command("pseudo", *said[0].split()[2:], "--steps", 10) == 2
    assert "--resume: steps is 10, expected 60 as in" in capsys.readouterr().err
    assert command("pseudo", *said[0].split()[2:]) == 0
    rounds = read_json(tmp_path / "p" / "rounds.json")["rounds"]
    assert [row["run"] for row in rounds] == ["round-0", "round-1"]


@pytest.mark.parametrize("words", [("predict",), ("evaluate", "--data")])
def test_a_cross_validation_that_is_not_done_predicts_nothing(place, tmp_path, capsys, words):
    """Fold 1 was interrupted, fold 2 not begun: two checkpoints are there, one fold is done."""
    few = tmp_path / "few"
    shutil.copytree(place / "cv", few)
    for k in (1, 2):
        (few / "oof" / f"fold-{k}.npz").unlink()
    shutil.rmtree(few / "fold-2")
    out = ["--cache", place / "cache", "--output", tmp_path / "out", "--checkpoint", few]
    assert command(*words, place / "data", *out) == 2
    assert f"few: fold 1 of 3 is not done: cv --output {few}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command(*words, place / "data", *out[:-1], few / "fold-0") == 0


def test_a_folds_settings_start_it_again(place):
    saved = place / "cv" / "fold-1" / "config.yaml"
    assert command("--config", saved, "--output", place / "again") == 0
    parts = read_json(place / "again" / "split.json")["items"]
    assert parts == read_json(place / "cv" / "fold-1" / "split.json")["items"]


def test_folds_that_the_data_name(place, tmp_path, capsys):
    lines = [["file", "label", "fold"]]
    for n in range(6):
        lines += [[f"{k}-{n}.wav", k, str(n % 2 + 1)] for k in ("low", "high")]
    path = table(place / "folds", lines)
    (place / "folds" / "audio").symlink_to(place / "data")
    base = ["--data", path, "--cache", place / "cache", *STATISTICS]
    assert command("cv", *base, "--output", tmp_path / "cv") == 0
    assert "folds as the data name them: 1, 2" in capsys.readouterr().out
    fold = {name for name in read_folds(tmp_path / "cv")[0]}
    assert fold == {f"audio/{k}/{k}-{n}.wav" for k in ("low", "high") for n in (0, 2, 4)}
    assert command(*base, "--output", tmp_path / "run", "--test-fold", 2) == 0
    tested = read_json(tmp_path / "run" / "split.json")["items"]["test"]
    assert set(tested) == set(read_folds(tmp_path / "cv")[1])
    assert command(*base, "--output", tmp_path / "none", "--test-fold", 7) == 2
    line = capsys.readouterr().err
    assert "test_fold=7, expected one of the folds of" in line
    assert line.endswith(": 1, 2\n")


@pytest.mark.slow
def test_refused_folds(place, tmp_path, capsys, monkeypatch):
    def refused(*more):
        assert command("cv", *words(place, tmp_path / "x", *more)) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ClassifyRecipe, "load", lambda *_: pytest.fail("clips are read"))
        assert "folds=19, but 18 items are of 18 groups" in refused("--folds", 19)
        assert "but the commonest of 3 labels, " in refused("--folds", 10)
    assert not (tmp_path / "x").exists()
    assert "folds=1, expected 2 or more" in refused("--folds", 1)
    assert "--test-fold=1, expected none" in refused("--test-fold", 1)
    assert "cv, expected test_fold, too" in refused("--folds-of", place / "cv")
    # A class that is in one fold only is told, not hidden.
    data = class_folders(tmp_path / "rare")
    tone(data / "odd" / "odd.wav", 3000)
    assert command("cv", *words(place, tmp_path / "y"), "--data", data, "--folds", 3) == 0
    assert "of 1 (odd)" in capsys.readouterr().out


# ---- pseudo-labels


@pytest.fixture(scope="module")
def unlabelled(place):
    """Unlabelled tones, and a copy of a labelled clip, which is not one of them."""
    folder = class_folders(place / "named", each=4, first=50)
    (place / "unlabelled").mkdir()
    for path in folder.rglob("*.wav"):
        shutil.copy(path, place / "unlabelled")
    shutil.copy(place / "data" / "low" / "low-0.wav", place / "unlabelled" / "copy.wav")
    return place / "unlabelled"


def test_pseudo_labelled_clips_are_trained_on(place, unlabelled, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(unlabelled.parent)
    more = ["--unlabelled", unlabelled.name, "--threshold", 0.5, "--rounds", 2]
    assert command("pseudo", *words(place, tmp_path / "p"), *more) == 0
    told = capsys.readouterr().out
    assert "12 unlabelled clips" in told
    found = read_json(tmp_path / "p" / "rounds.json")
    assert found["rounds"][0]["pseudo_labelled"] == 0
    assert found["rounds"][1]["pseudo_labelled"] > 6
    lines = rows(tmp_path / "p" / "labels-1.csv")
    labelled = [line for line in lines if line["confidence"]]
    assert len(lines) == 18 + len(labelled)
    assert all(line["split"] == "train" for line in labelled)
    right = [line["label"] in line["file"] for line in labelled]
    assert np.mean(right) > 0.8
    parts = [read_json(tmp_path / "p" / f"round-{n}" / "split.json")["items"] for n in (0, 1)]
    for name in ("valid", "test"):  # the same clips are judged in all rounds
        ends = [sorted(clip.split("/")[-1] for clip in part[name]) for part in parts]
        assert ends[0] == ends[1]
    assert len(parts[1]["train"]) == len(parts[0]["train"]) + len(labelled)
    assert resolve([tmp_path / "p"], "classify") == [(tmp_path / "p" / found["best"],)]
    again = ["--data", tmp_path / "p" / "labels-1.csv", "--output", tmp_path / "again"]
    assert command(*again, "--cache", place / "cache", *STATISTICS) == 0


def test_it_ends_when_the_validation_score_falls(place, unlabelled, tmp_path, monkeypatch, capsys):
    scores = iter([0.5, 0.7, 0.6, 0.9])

    def one(settings, run, table, task, added):
        valid = next(scores)
        return {"run": run.name, "pseudo_labelled": added, "valid": valid, "test": valid}

    sure = iter(["low", "high", "middle_one"])
    monkeypatch.setattr(pseudo_labels, "_round", one)
    monkeypatch.setattr(
        pseudo_labels,
        "select_pseudo_labels",
        lambda s, r, clips, *a: [(replace(clips[0], labels=(next(sure),)), 0.9)],
    )
    monkeypatch.setattr(pseudo_labels, "write_table", lambda *a: None)
    monkeypatch.setattr(pseudo_labels, "read_split", lambda path: {"valid": []})
    more = ["--unlabelled", unlabelled, "--rounds", 9]
    assert command("pseudo", *words(place, tmp_path / "p"), *more) == 0
    found = read_json(tmp_path / "p" / "rounds.json")
    assert [row["valid"] for row in found["rounds"]] == [0.5, 0.7, 0.6]
    assert found["best"] == "round-1"
    assert "the validation score fell: 0.600 after 0.700" in capsys.readouterr().out


@pytest.mark.slow
def test_thresholds_by_class(place, unlabelled, tmp_path, capsys):
    more = ["--unlabelled", unlabelled, "--threshold", 1, "--rounds", 1]
    each = ["--thresholds", "low=3e-1", "middle_one=1"]
    assert command("pseudo", *words(place, tmp_path / "p"), *more, *each) == 0
    labelled = [row for row in rows(tmp_path / "p" / "labels-1.csv") if row["confidence"]]
    assert {row["label"] for row in labelled} == {"low"}


def test_refused_pseudo_labels(place, unlabelled, tmp_path, capsys):
    def refused(*more):
        assert command("pseudo", *words(place, tmp_path / "x"), *more) == 2
        assert not (tmp_path / "x").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    (tmp_path / "empty").mkdir()
    assert "empty: no audio in it, expected" in refused("--unlabelled", tmp_path / "empty")
    assert "all 18 recordings are among the labelled" in refused("--unlabelled", place / "data")
    wrong = refused("--unlabelled", unlabelled, "--thresholds", "lwo=0.5")
    assert "found 'lwo', expected one of high, low, middle_one" in wrong
    wrong = refused("--unlabelled", unlabelled, "--thresholds", "low=.5", "high=0")
    assert "found 'high=0', expected CLASS=SHARE, the share above 0 and at most 1" in wrong
    assert "--unlabelled: required" in refused()
    assert "threshold=2.0, expected" in refused("--unlabelled", unlabelled, "--threshold", 2)
