"""Runs as they lie on disk, whole or not, and the table of them."""

import csv
import io
import json
import os

import pytest
from run_folders import chords_run, clap_run, history, trainer_run, unfinished_run
from toy import Classifier, Points, loaders, trainer

from audiotrain import __main__ as door
from audiotrain import create_trainer
from audiotrain.evaluation.report import run_table
from audiotrain.evaluation.report.run_reader import (
    ABSENT,
    differing,
    find_runs,
    headlines,
    read_run,
)
from audiotrain.utils.files import write_json


def table(capsys, *words):
    """What `audiotrain runs` prints for these words."""
    assert door.main(["runs", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_run_says_all_that_its_files_say(tmp_path):
    run = read_run(chords_run(tmp_path / "run", root=0.8))
    assert (run.name, run.kind, run.state, run.step) == ("run", "chords", "finished", 40)
    assert run.settings["optimization.learning_rate"] == 0.001
    assert run.scores["viterbi.corpus.root"] == 0.8
    assert (run.scores["best.val_loss"], run.scores["last.val_loss"]) == (1.0, 1.25)
    assert list(headlines(run).values()) == ["root", "majmin", "sevenths", "mirex", "seg"]


def test_runs_are_found_at_any_depth_the_newest_first(tmp_path):
    for age, name in enumerate(("new", "deep/er/middle", "old")):
        chords_run(tmp_path / name, sound=False)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1e9 - 100 * age, 1e9 - 100 * age))
    (tmp_path / "new" / "checkpoints").mkdir()
    write_json(tmp_path / "new" / "checkpoints" / "history.json", {})
    (tmp_path / "notes").mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["new", "deep/er/middle", "old"]


def test_a_history_alone_is_a_run(tmp_path):
    write_json(tmp_path / "history.json", history())
    run = read_run(tmp_path)
    assert (run.kind, run.state) == ("trainer", "finished")
    assert headlines(run) == {"best.val_loss": "val_loss"}


def test_a_trainers_scores_are_its_best_metric_first(tmp_path, capsys, monkeypatch):
    """An accuracy of 0 is one; what is told of the last batch is no score of the run."""
    scores = {"val_loss": 2.0, "val_accuracy": 0.0, "train_loss": 0.75, "train_accuracy": 0.5}
    run = read_run(trainer_run(tmp_path / "a", best=1.5, **scores))
    assert headlines(run) == {
        "best.val_loss": "val_loss",
        "best.val_accuracy": "val_accuracy",
        "train_accuracy": "train_accuracy",
        "train_loss": "train_loss",
    }
    assert run.scores["best.val_loss"] == 1.5  # of the checkpoint, not of the one row
    assert not {"best_score", "loss", "learning_rate", "skipped_steps"} & run.scores.keys()
    monkeypatch.setenv("COLUMNS", "120")
    head, line = (one.split() for one in table(capsys, tmp_path).splitlines())
    assert head[-4:] == ["val_loss", "val_accuracy", "train_accuracy", "train_loss"]
    assert line[-4:] == ["1.500", "0.000", "0.500", "0.750"]
    other = trainer_run(tmp_path / "b", "val_accuracy", 0.25, **scores)
    assert next(iter(headlines(read_run(other)))) == "best.val_accuracy"


@pytest.mark.parametrize(("strategy", "score"), [("epoch", "val_loss"), ("no", "train_loss")])
def test_a_loss_alone_is_told(tmp_path, strategy, score):
    class Lossy(Classifier):
        def compute_loss(self, batch):
            return super().compute_loss(batch)[0], {}

    settings = {"eval_strategy": strategy, "num_epochs": 1, "progress": False}
    made = create_trainer(Lossy, "quick_test", output_dir=tmp_path / "run", **settings)
    result = made.train(Points(8), Points(8))
    run = read_run(tmp_path / "run")
    assert list(headlines(run).values())[0] == score
    assert run.scores[list(headlines(run))[0]] == pytest.approx(result.metrics[score])
    assert all("loss" in text for text in headlines(run).values())


def test_a_checkpoint_says_how_long_it_took(tmp_path):
    made = trainer(tmp_path, max_epochs=1, config={"settings": {"width": 4}})
    made.fit(Classifier(), *loaders())
    (run,) = find_runs(tmp_path)
    assert 0 < run.seconds <= made.elapsed()
    assert run.settings == {"width": 4}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", "steps: 4\n  - x: [", "config.yaml:2: not valid YAML"),
        ("config.yaml", "[1, 2]", "config.yaml: holds list, expected `key: value` lines"),
        ("config.yaml", "own: &a [*a, *a]\n", "not valid YAML: Circular reference"),
        ("config.yaml", "? [1]\n: 2\n", "config.yaml:1: not valid YAML"),
        ("metrics.json", '{"songs": 3', "metrics.json: not valid JSON"),
        ("metrics.json", "[]", "metrics.json: holds list, expected an object"),
        ("metrics.json", '{"a":' * 30 + "1" + "}" * 30, "is nested more than 12 deep"),
        ("metrics.json", b"\xff\xfe\xfa", "metrics.json: cannot be read: not UTF-8"),
        ("history.json", '{"rows": 3}', "history.json: rows and log are expected to be lists"),
    ],
)
def test_a_broken_run_is_listed_as_such(tmp_path, capsys, file, content, said):
    chords_run(tmp_path / "whole")
    broken = chords_run(tmp_path / "broken")
    broken.joinpath(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    run = read_run(broken)
    assert run.state == "broken"
    assert said in run.problems[0]
    text = table(capsys, tmp_path)
    assert "Traceback" not in text
    assert {"broken", "finished"} <= set(text.split())


def test_odd_rows_and_settings_are_left_out(tmp_path):
    rows = [3, {"loss": 1.0}, {"step": 1, "loss": "high"}, {"step": 2, "loss": float("nan")}]
    write_json(tmp_path / "history.json", {"rows": rows, "log": [{"step": 1, "loss": 2.0}]})
    (tmp_path / "config.yaml").write_text("when: 2024-01-01\n1: one\n")
    write_json(tmp_path / "metrics.json", {"best_metric": 3, "best_score": [0.5]})
    run = read_run(tmp_path)
    assert (run.scores, headlines(run)) == ({"best_metric": 3}, {})
    odd = {"training.best_metric": ["val_loss"]}
    assert headlines(run._replace(settings=odd)) == {}
    assert run.rows == [{"step": 1, "loss": 2.0}, {"step": 1}, {"step": 2}]
    assert (run.problems, run.settings) == ((), {"when": "2024-01-01", "1": "one"})


def test_a_whole_number_that_no_float_holds_is_left_out(tmp_path, capsys):
    large = 10**400
    chords_run(tmp_path / "other")
    run = chords_run(tmp_path / "run")
    (run / "config.yaml").write_text(f"data: plain\nseed: {large}\n")
    write_json(run / "metrics.json", {"songs": large, "viterbi": {"corpus": {"root": 0.5}}})
    rows = [{"step": large, "val_loss": 1.0}, {"step": 1, "val_loss": large, "val_root": 0.5}]
    write_json(run / "history.json", {"rows": rows, "log": []})
    found = read_run(run)
    assert found.rows == [{"step": 1, "val_root": 0.5}]
    assert "songs" not in found.scores
    assert found.settings["seed"] == large  # a setting is shown as it is
    assert differing(find_runs(tmp_path))["seed"] is ABSENT
    assert table(capsys, tmp_path).count("finished") == 2


def test_folds_are_told_by_their_means(tmp_path, capsys):
    folder = tmp_path / "cv"
    for k in range(2):
        chords_run(folder / f"fold-{k}", sound=False)
    write_json(folder / "folds.json", {"folds": [["a"], ["b"]]})
    assert "not all folds are done" in table(capsys, tmp_path)
    scores = {"thirds": 0.4, "root": 0.5, "majmin": 0.25}
    summary = {"mean": scores, "deviation": {"root": 0.01}, "folds": [scores, scores]}
    write_json(folder / "metrics.json", summary)
    run = read_run(folder)
    assert run.kind == "trainer cv"
    assert headlines(run) == {"mean.root": "root", "mean.majmin": "majmin"}
    assert {run.name for run in find_runs(tmp_path)} == {"cv", "cv/fold-0", "cv/fold-1"}


def test_cross_validations_of_one_recipe_are_compared(tmp_path, capsys):
    settings = {
        "chords": {"features": {"bins_per_octave": 24}, "window": 100},
        "classify": {"task": "auto", "folds_of": None, "valid": 0.1},
        "mine": {"width": 4},
    }
    for name, own in settings.items():
        write_json(tmp_path / name / "folds.json", {"folds": [["a"], ["b"]]})
        write_json(tmp_path / name / "config.yaml", own)
    write_json(
        tmp_path / "mine" / "metrics.json",
        {"mean": {"test_loss": 1.5}, "deviation": {"test_loss": 0.5}},
    )
    text = table(capsys, tmp_path)
    assert {run.kind for run in find_runs(tmp_path)} == {"chords cv", "classify cv", "trainer cv"}
    assert "=" not in text  # a setting that differs
    assert headlines(read_run(tmp_path / "mine")) == {"mean.test_loss": "test_loss"}


@pytest.mark.parametrize(
    ("settings", "scores", "kind"),
    [
        ({"task": "auto", "folds_of": None}, {"accuracy": 0.5}, "classify"),
        ({}, {"viterbi": {"corpus": {"root": 0.5}}}, "chords"),
        ({}, {"retrieval": {"text_to_audio_R@1": 0.5}}, "clap"),
        ({"task": "auto"}, {"accuracy": 0.5}, "trainer"),
    ],
)
def test_kinds_of_runs(tmp_path, settings, scores, kind):
    write_json(tmp_path / "config.yaml", settings)
    write_json(tmp_path / "metrics.json", scores)
    run = read_run(tmp_path)
    assert run.kind == kind
    assert list(run.scores.values()) == [0.5]
    assert len(headlines(run)) == 1


def test_an_unfinished_run_says_where_it_is(tmp_path, capsys):
    unfinished_run(tmp_path / "stopped")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("")
    text = table(capsys, tmp_path)
    assert "at step 20 of 40" in text
    assert "no step yet" in text
    assert read_run(tmp_path / "stopped").scores["best.val_loss"] == 1.0


def test_where_a_run_is_is_no_difference(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        training = f"training: {{output_dir: runs/{name}, seed: {seed}}}\n"
        (tmp_path / name / "config.yaml").write_text(training)
        (tmp_path / name / "metrics.json").write_text('{"val_loss": 1.0}')
    assert list(differing(find_runs(tmp_path))) == ["training.seed"]


def test_only_settings_that_differ_are_told(tmp_path, capsys):
    for name, rate in (("a", 0.001), ("b", 0.001), ("c", 0.005)):
        chords_run(tmp_path / name, rate=rate)
    found = differing(find_runs(tmp_path))
    assert found == {"optimization.learning_rate": 0.001}  # what most have; `output` says nothing
    text = table(capsys, tmp_path)
    assert "most: optimization.learning_rate=0.001" in text
    assert text.count("optimization.learning_rate=0.005") == 1
    assert "seed" not in text
    assert differing(find_runs(tmp_path / "a")) == {}


def test_a_setting_that_one_run_lacks_differs(tmp_path):
    for name in "ab":
        chords_run(tmp_path / name)
    path = tmp_path / "a" / "config.yaml"
    write_json(path, json.loads(path.read_text()) | {"new": 1})
    assert differing(find_runs(tmp_path)) == {"new": ABSENT}


def test_a_run_of_version_1_has_the_names_of_today(tmp_path):
    old = {"version": 1, "hearing": {"floor": -60}}
    new = {"version": 2, "input": {"floor": -60.0}}
    for name, more in (("a", old), ("b", new)):
        path = chords_run(tmp_path / name) / "config.yaml"
        write_json(path, json.loads(path.read_text()) | more)
    assert read_run(tmp_path / "a").settings["input.floor"] == -60
    assert differing(find_runs(tmp_path)) == {}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_terminal(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for number in range(3):
        name = f"a run with a name that says everything about it and more {number}"
        chords_run(tmp_path / name, words="word " * 30 + str(number))
    clap_run(tmp_path / "clap")
    unfinished_run(tmp_path / "stopped")
    lines = table(capsys, tmp_path).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("clap (1)") and "t2a R@1" in line for line in lines)


def test_a_name_does_not_move_the_cursor(tmp_path, capsys):
    chords_run(tmp_path / "red\x1b[31m")
    assert "\x1b" not in table(capsys, tmp_path)


def test_sorting_by_a_score(tmp_path, capsys):
    for name, root in (("low", 0.1), ("high", 0.9), ("middle", 0.5)):
        chords_run(tmp_path / name, root=root)
    unfinished_run(tmp_path / "without")
    text = table(capsys, tmp_path, "--sort", "root")
    order = [line.split()[0] for line in text.splitlines() if "finished  " in line]
    assert order == ["high", "middle", "low", "without"]
    runs = run_table.sorted_by(find_runs(tmp_path), "val_loss")
    assert [run.scores["best.val_loss"] for run in runs] == [1.0] * 4  # the least is the best


def test_json_and_csv_have_everything(tmp_path, capsys):
    chords_run(tmp_path / "a", rate=0.1)
    chords_run(tmp_path / "b", rate=0.2)
    found = json.loads(table(capsys, tmp_path, "--json"))
    assert {run["run"] for run in found} == {"a", "b"}
    assert found[0]["scores"]["viterbi.corpus.root"] == 0.8
    rows = list(csv.DictReader(io.StringIO(table(capsys, tmp_path, "--csv"))))
    rates = {row["run"]: float(row["optimization.learning_rate"]) for row in rows}
    assert rates == {"a": 0.1, "b": 0.2}
    assert "seed" not in rows[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder, expected one that holds runs"),
        (["."], ".: no runs in it or below it"),
        (["runs", "--sort", "rot"], "no run has the score 'rot' (did you mean"),
        (["runs", "--json", "--csv"], "--json and --csv: expected one of them"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, monkeypatch, words, said):
    chords_run(tmp_path / "runs" / "a")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if words == ["."] else tmp_path)
    assert door.main(["runs", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_the_door_knows_the_commands(capsys):
    assert door.main([]) == 0
    assert "runs" in capsys.readouterr().out
    assert door.main(["rums"]) == 2
    assert "no command 'rums'" in capsys.readouterr().err
