"""`audiotrain config diff`: differences of two runs, of files that spell the same otherwise."""

import json

import pytest

from audiotrain.__main__ import main
from audiotrain.train.declarative.config import get_trainer_config


@pytest.fixture
def runs(tmp_path):
    """A run folder, and a file that says the same but for two settings."""
    (tmp_path / "a").mkdir()
    config = get_trainer_config("production", learning_rate=2e-5, run_name="a")
    config.save(tmp_path / "a" / "config.yaml")
    get_trainer_config(config, seed=3, ema_decay=None).save(tmp_path / "b.json")
    return tmp_path / "a", tmp_path / "b.json"


def test_what_differs_as_a_table_and_as_json(runs, capsys):
    a, b = map(str, runs)
    assert main(["config", "diff", a, b]) == 1
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["setting", a, b]
    assert rows == [["training.ema_decay", "0.999", "null"], ["training.seed", "42", "3"]]
    assert main(["config", "diff", "--json", b, a]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"training.ema_decay": [None, 0.999], "training.seed": [3, 42]}


def test_a_key_that_is_no_text_is_told(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("? [a, b]\n: 1\n")
    assert main(["config", "diff", str(tmp_path / "a.yaml"), str(tmp_path / "a.yaml")]) == 2
    assert "a.yaml:1: a list or dict as a key, expected text" in capsys.readouterr().err


def test_the_same_spelled_otherwise_is_the_same(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("optimizer: {learning_rate: 2e-5, type: sgd}\n")
    (tmp_path / "a.yaml").write_text("include: base.yaml\nkaggle: {cv_folds: 3}\n")
    (tmp_path / "b.yaml").write_text(
        "version: 1\ncompetition:\n  cv_folds: 3\noptimizer:\n  type: 'sgd'\n"
        "  learning_rate: 0.00002\n"
    )
    assert main(["config", "diff", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]) == 0
    assert capsys.readouterr().out == "no setting differs\n"


def test_mistakes_are_told_in_a_line(runs, tmp_path, capsys):
    a, _ = map(str, runs)
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([a], "error: usage: audiotrain config diff A B"),
        ([a, str(tmp_path / "empty")], "empty/config.yaml: cannot be read: No such file"),
        ([a, str(tmp_path / "no.yaml")], "no.yaml: cannot be read: No such file"),
    ):
        assert main(["config", "diff", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
