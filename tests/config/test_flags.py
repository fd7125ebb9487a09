"""Words of a command line: which belong to a flag, and which to the command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from audiotrain.config import load, yaml_files


@dataclass(frozen=True)
class Predict:
    """Label audio."""

    audio: tuple[Path, ...] = ()
    formats: tuple[Literal["lab", "csv"], ...] = ("lab",)
    gains: tuple[float, ...] = ()
    pair: tuple[int, int] = (0, 0)
    models: tuple[Path, ...] = ()
    plot: bool = False
    top: int = 1


def audio(*words):
    return [str(path) for path in load(Predict, words, positional="audio").audio]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.mp3", "--formats", "lab"], ["a.mp3"]),
        (["--formats", "lab", "a.mp3"], ["a.mp3"]),
        (["--formats", "lab", "csv", "a.mp3", "b.mp3"], ["a.mp3", "b.mp3"]),
        (["--gains", "1", "-2e-1", "a.mp3"], ["a.mp3"]),
        (["--pair", "1", "2", "3"], ["3"]),
        (["--plot", "a.mp3"], ["a.mp3"]),
        (["--plot", "no", "a.mp3"], ["a.mp3"]),
        (["--top", "3", "a.mp3", "--plot", "b.mp3"], ["a.mp3", "b.mp3"]),
        (["--models", "run", "--", "a.mp3", "-b.mp3"], ["a.mp3", "-b.mp3"]),
        (["a.mp3", "--audio", "b.mp3", "c.mp3"], ["b.mp3", "c.mp3", "a.mp3"]),
    ],
)
def test_words_without_a_flag_may_stand_anywhere(words, expected):
    assert audio(*words) == expected


def test_a_list_has_the_words_that_are_its_own():
    words = ["--formats", "lab", "csv", "a.mp3", "--gains", "1", ".5", "b", "--pair", "1", "2"]
    found = load(Predict, words, positional="audio")
    assert found.formats == ("lab", "csv")
    assert found.gains == (1.0, 0.5)
    assert found.pair == (1, 2)
    assert found.audio == (Path("a.mp3"), Path("b"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--formats", "labb", "a.mp3"],
            "--formats: found 'labb', expected one of lab, csv (did you mean lab?)",
        ),
        (
            ["--formats", "lab,csv", "a.mp3"],
            "--formats: found 'lab,csv', expected one of lab, csv, separated by spaces",
        ),
        (["--gains", "loud"], "--gains: found 'loud', expected a number"),
        (["--top", "--plot"], "--top: nothing follows, expected a whole number"),
    ],
)
def test_the_first_word_after_a_list_is_its_own(words, line):
    with pytest.raises(ValueError, match="expected") as caught:
        load(Predict, words, positional="audio")
    assert str(caught.value) == line


@dataclass(frozen=True)
class Input:
    """What the model receives."""

    rate: int = 16000


@dataclass(frozen=True)
class Run:
    """A run."""

    input: Input = Input()
    epochs: int = 10


def test_old_names_of_flags_and_of_files_of_version_1_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(yaml_files.RENAMED, "hearing", "input")
    monkeypatch.setitem(yaml_files.RENAMED, "passes", "epochs")
    for version in ("version: 1\n", ""):
        (tmp_path / "old.yaml").write_text(f"{version}hearing:\n  rate: 8000\npasses: 3\n")
        assert load(Run, ["--config", str(tmp_path / "old.yaml")]) == Run(Input(8000), 3)
    assert capsys.readouterr().err == ""
    assert load(Run, ["--hearing.rate", "4000", "--passes=2"]) == Run(Input(4000), 2)
    assert capsys.readouterr().err.splitlines() == [
        "warning: --hearing.rate is called --input.rate now",
        "warning: --passes is called --epochs now",
    ]
    (tmp_path / "both.yaml").write_text("hearing:\n  rate: 8000\ninput:\n  rate: 4000\n")
    with pytest.raises(ValueError, match=r"both\.yaml:4: key 'input\.rate' is given twice"):
        load(Run, ["--config", str(tmp_path / "both.yaml")])
    (tmp_path / "new.yaml").write_text("version: 2\nhearing:\n  rate: 8000\n")
    with pytest.raises(ValueError, match=r"new\.yaml:2: hearing: no such setting"):
        load(Run, ["--config", str(tmp_path / "new.yaml")])
