"""Settings from defaults, presets, files and flags; every mistake in one line with its place."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.config import choose_command, load, save, to_plain


@dataclass(frozen=True)
class Optimizer:
    """How weights move."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two running means."""
    schedule: Literal["cosine", "onecycle"] = "cosine"
    """Shape of the learning rate."""


@dataclass(frozen=True)
class Run:
    """A training run. (100 %)"""

    data: Path | None = None
    """Folder of audio and labels."""
    epochs: int = 10
    """Passes over the data."""
    shuffle: bool = True
    """Whether each epoch has its own order."""
    name: str = "run"
    """Name of the run folder."""
    note: str | None = None
    """Anything."""
    instruments: tuple[int, ...] = (0, 24)
    """General MIDI numbers."""
    limit: int | float | None = None
    """Batches, or share of them."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-4))
    """The optimizer."""

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}, expected 0 or more")


@dataclass(frozen=True)
class Predict:
    """Label audio."""

    audio: tuple[Path, ...]
    """Files or folders."""
    bass: Literal["any", "off"] = "any"
    """Which basses to write."""


def problems(argv, kind=Run, **options):
    with pytest.raises(ValueError, match=".") as caught:
        load(kind, argv, **options)
    return str(caught.value).splitlines()


def write(path, text):
    path.write_text(text)
    return str(path)


# --- values


def test_defaults_alone():
    assert load(Run, []) == Run()
    assert load(Run, []).optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--optimizer.learning-rate", "2e-5"], {"optimizer": Optimizer(learning_rate=2e-5)}),
        (["--optimizer.learning_rate=2e-5"], {"optimizer": Optimizer(learning_rate=2e-5)}),
        (["--optimizer.betas", "0", "-.5"], {"optimizer": Optimizer(1e-4, (0.0, -0.5))}),
        (["--epochs", "3", "--epochs", "4"], {"epochs": 4}),
        (["--no-shuffle"], {"shuffle": False}),
        (["--shuffle"], {"shuffle": True}),
        (["--shuffle", "false"], {"shuffle": False}),
        (["--shuffle=no"], {"shuffle": False}),
        (["--instruments", "1", "2", "3"], {"instruments": (1, 2, 3)}),
        (["--instruments"], {"instruments": ()}),
        (["--data", "songs"], {"data": Path("songs")}),
        (["--data", "None"], {"data": None}),
        (["--name", "5"], {"name": "5"}),
        (["--name=--odd"], {"name": "--odd"}),
        (["--limit", "3"], {"limit": 3}),
        (["--limit", "0.5"], {"limit": 0.5}),
        (["--limit", "-1"], {"limit": -1}),
    ],
)
def test_flags(argv, expected):
    got = load(Run, argv)
    assert got == dataclasses.replace(Run(), **expected)
    assert type(got.limit) is type(expected.get("limit"))


@settings(deadline=None, max_examples=30)
@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    epochs=st.integers(0, 10**6),
    shuffle=st.booleans(),
    instruments=st.lists(st.integers(-5, 127), max_size=4),
    schedule=st.sampled_from(["cosine", "onecycle"]),
)
def test_flags_are_read_as_tyro_reads_them(rate, epochs, shuffle, instruments, schedule):
    tyro = pytest.importorskip("tyro")
    argv = ["--optimizer.learning-rate", str(rate), "--epochs", str(epochs), "--instruments"]
    argv += [*map(str, instruments), "--shuffle" if shuffle else "--no-shuffle"]
    argv += ["--optimizer.schedule", schedule]
    assert load(Run, argv) == tyro.cli(Run, args=argv)


YAML = """\
# a comment
data: ~
epochs: 3
shuffle: off
name: 007
instruments: [1, 2]
optimizer:
  learning_rate: 2e-5
  betas:
    - 0.8
    - .9
  schedule: "onecycle"
"""


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_file_then_flags(tmp_path, suffix):
    expected = Run(
        None, 3, False, "007", None, (1, 2), None, Optimizer(2e-5, (0.8, 0.9), "onecycle")
    )
    text = YAML if suffix == "yaml" else json.dumps(to_plain(expected), indent="\t")
    file = write(tmp_path / f"run.{suffix}", text)
    assert load(Run, ["--config", file]) == expected
    later = load(Run, ["--epochs", "9", f"--config={file}", "--shuffle"])
    assert later == dataclasses.replace(expected, epochs=9, shuffle=True)


def test_preset_then_file_then_flags(tmp_path):
    write(tmp_path / "fast.yaml", "epochs: 1\nname: fast\nlimit: 4\n")
    file = write(tmp_path / "mine.yml", "name: mine\nlimit: 5\n")
    got = load(Run, ["--limit", "6", "--config", file, "--preset", "fast"], presets=tmp_path)
    assert (got.epochs, got.name, got.limit) == (1, "mine", 6)


def test_empty_file_changes_nothing(tmp_path):
    assert load(Run, ["--config", write(tmp_path / "a.yaml", "# nothing\n")]) == Run()


@settings(deadline=None, max_examples=60)
@given(
    text=st.one_of(
        st.sampled_from(["null", "~", "5", "2e-5", "inf", "nan", "yes", "", "a: b", "#", "None"]),
        st.sampled_from(["\x85", " \u2028a", "\u2029"]),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    number=st.one_of(st.none(), st.integers(), st.floats(allow_nan=False)),
    suffix=st.sampled_from(["yaml", "json"]),
)
def test_saved_settings_load_equal(tmp_path_factory, text, number, suffix):
    file = tmp_path_factory.getbasetemp() / f"saved.{suffix}"
    run = Run(Path("a b/ü"), 1, False, text, text, (), number, Optimizer(float(number or 1e-30)))
    save(run, file)
    got = load(Run, ["--config", str(file)])
    assert got == run
    assert type(got.limit) is type(run.limit)


def test_saved_text_that_looks_like_a_number_stays_text(tmp_path):
    @dataclass(frozen=True)
    class Loose:
        """Text or number."""

        value: float | str = "x"

    for value in ("2e-5", "1e5", "inf", ".5e1", "1_0", 2e-5, 1e300):
        save(Loose(value), tmp_path / "a.yaml")
        got = load(Loose, ["--config", str(tmp_path / "a.yaml")]).value
        assert (got, type(got)) == (value, type(value))


def test_save_replaces_whole_files_only(tmp_path, monkeypatch):
    save(Run(), tmp_path / "a.yaml")
    before = (tmp_path / "a.yaml").read_text()
    assert before.startswith("version: 2\ndata: null\nepochs: 10\n")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"a\.yaml: cannot write: No space left"):
        save(Run(epochs=3), tmp_path / "a.yaml")
    assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]
    assert (tmp_path / "a.yaml").read_text() == before


# --- mistakes


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--epoch", "3"], "--epoch: unknown flag (did you mean --epochs?)"),
        (
            ["--learning-rate", "1"],
            "--learning-rate: unknown flag (did you mean --optimizer.learning-rate?)",
        ),
        (["--zzz"], "--zzz: unknown flag"),
        (["-e", "3"], "-e: unknown flag"),
        (["--no-epochs"], "--no-epochs: unknown flag (did you mean --epochs?)"),
        (["--epochs", "many"], "--epochs: found 'many', expected a whole number"),
        (["--epochs", "3.0"], "--epochs: found '3.0', expected a whole number"),
        (["--epochs"], "--epochs: nothing follows, expected a whole number"),
        (["--epochs", "--shuffle"], "--epochs: nothing follows, expected a whole number"),
        (["--epochs", "3", "4"], "'4': expected a flag (--name value) before it"),
        (["--shuffle=perhaps"], "--shuffle: found 'perhaps', expected true or false"),
        (["--instruments", "1", "x"], "--instruments: found 'x', expected a whole number"),
        (
            ["--optimizer.betas", "1"],
            "--optimizer.betas: found [1], expected a list of 2: a number, a number",
        ),
        (
            ["--optimizer.schedule", "cosin"],
            "--optimizer.schedule: found 'cosin', expected one of cosine, onecycle"
            " (did you mean cosine?)",
        ),
        (["--limit", "x"], "--limit: found 'x', expected a whole number or a number or null"),
        (["--config"], "--config: nothing follows, expected a file"),
        (["--config", "--epochs", "3"], "--config: nothing follows, expected a file"),
        (["--preset", "fast"], "--preset: unknown flag"),
        (["--config", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["--epochs", "-1"], "--epochs is -1, expected 0 or more"),
    ],
)
def test_a_wrong_flag_is_one_line(argv, expected):
    assert problems(argv) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch: 3", "1: epoch: no such setting (did you mean epochs?)"),
        ("\n\nlearning_rate: 3", "3: learning_rate: no such setting (did you mean optimizer.learn"),
        (
            "optimizer:\n  learning_rat: 3",
            "2: optimizer.learning_rat: no such setting (did you mean optimizer.learning_rate?)",
        ),
        ("epochs: many", "1: epochs: found 'many', expected a whole number"),
        ("epochs: '3'", "1: epochs: found '3', expected a whole number"),
        ("epochs:", "1: epochs: found '', expected a whole number"),
        ("epochs: {a: 1}", "1: epochs: found keys and values, expected a whole number"),
        ("instruments: 3", "1: instruments: found '3', expected a list, each a whole number"),
        ("name: [a]", "1: name: found [a], expected text"),
        (
            "optimizer: 3",
            "1: optimizer: found '3', expected settings of its own: optimizer.learning_rate, opt",
        ),
        ("epochs: 1\nepochs: 2", "2: key 'epochs' is given twice"),
        (
            "optimizer: {learning_rate: 1}\noptimizer.learning_rate: 2",
            "2: key 'optimizer.learning_rate' is given twice",
        ),
        ("- 1", "1: expected lines of `key: value`"),
        ("epochs: 1\nname: a: b", "2: not valid YAML: mapping values are not allowed here"),
        ("a: \x00", " not valid YAML: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, expected):
    file = write(tmp_path / "run.yaml", text)
    (line,) = problems(["--config", file])
    assert line.startswith(f"{file}:{expected}")


def test_a_long_value_is_quoted_in_part(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"epochs: x{'9' * 5000}")
    (line,) = problems(["--config", str(path)])
    assert "epochs: found 'x999" in line
    assert line.endswith("expected a whole number")
    assert len(line) < 300 + len(str(path))


def test_all_mistakes_come_at_once(tmp_path):
    file = write(tmp_path / "run.yaml", "epoch: 3\nname: [1]\nlimit: 2\nnote: [2]\n")
    lines = problems(["--config", file, "--epochs", "x", "--limmit", "3", "--note", "ok"])
    assert [line.removeprefix(file).split(" ")[0] for line in lines] == [
        "--limmit:",
        ":1:",
        "--epochs:",
        ":2:",
    ]  # and line 4, which is replaced by a flag, is none


def test_files_that_are_no_text(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes(b"name: \xff\xfe")
    assert problems(["--config", str(file)]) == [f"{file}: not UTF-8 text (byte 6)"]
    assert problems(["--config", str(tmp_path)]) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_unknown_preset_names_those_that_exist(tmp_path):
    write(tmp_path / "default.yaml", "")
    write(tmp_path / "fast.yaml", "")
    assert problems(["--preset", "fats"], presets=tmp_path) == [
        "--preset: no preset 'fats' (did you mean fast?), expected one of default, fast"
    ]


def test_types_that_cannot_be_read_are_our_mistake():
    @dataclass(frozen=True)
    class Odd:
        """Holds a set."""

        labels: set[int] = frozenset()

    with pytest.raises(TypeError, match="settings of type set"):
        load(Odd, [])


# --- required and positional fields, commands, help


def test_positional_words_and_required_fields():
    argv = ["a.wav", "--bass", "off", "b.wav"]
    assert load(Predict, argv, positional="audio") == Predict((Path("a.wav"), Path("b.wav")), "off")
    assert load(Predict, ["--audio", "a.wav"], positional="audio").audio == (Path("a.wav"),)
    assert problems(["--bass", "of"], Predict) == [
        "--audio: required, expected a list, each a path",
        "--bass: found 'of', expected one of any, off (did you mean off?)",
    ]
    assert load(Run, ["songs"], positional="data").data == Path("songs")
    assert problems(["songs", "more"], positional="data") == [
        "'more': expected a flag (--name value) before it"
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("train", [])),
        (["--epochs", "1"], ("train", ["--epochs", "1"])),
        (["-h"], ("train", ["-h"])),
        (["predict", "a.wav"], ("predict", ["a.wav"])),
    ],
)
def test_commands(argv, expected):
    assert choose_command(argv, ("train", "predict"), "train") == expected


def test_unknown_command_is_one_line():
    expected = r"unknown command 'tran' \(did you mean train\?\), expected one of train, predict"
    with pytest.raises(ValueError, match=expected):
        choose_command(["tran"], ("train", "predict"), "train")


def test_help_shows_flags_documents_and_what_the_file_says(tmp_path, capsys):
    file = write(tmp_path / "fast.yaml", "epochs: 77\n")
    with pytest.raises(SystemExit) as caught:
        load(Run, ["--help", "--config", file], presets=tmp_path)
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "A training run. (100 %)",
        "--preset NAME takes the settings of: fast.",
        "--config FILE reads",
    ):
        assert part in shown
    assert "Peak learning rate. (default: 0.0001)" in shown
    assert "--epochs" in shown
    assert "(default: 77)" in shown


def test_help_works_with_required_fields(capsys):
    with pytest.raises(SystemExit):
        load(Predict, ["-h"], positional="audio")
    shown = capsys.readouterr().out
    assert "Files or folders." in shown
    assert "Words without a flag are --audio." in shown


def test_import_stays_light():
    code = (
        "import sys, runpy; sys.path.insert(0, 'audiotrain'); sys.modules['audiotrain'] = "
        "type(sys)('audiotrain'); sys.modules['audiotrain'].__path__ = ['audiotrain'];"
        "import audiotrain.config.load;"
        "print([name for name in ('tyro', 'yaml', 'numpy', 'mlx') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


@dataclass(frozen=True)
class Folds:
    """How many parts, and which."""

    count: int
    first: int = 0

    def __post_init__(self):
        if self.first >= self.count:
            raise ValueError(f"folds.first is {self.first}, expected below {self.count}")


@dataclass(frozen=True)
class Judged(Run):
    """A run whose group has a setting without a default."""

    folds: Folds = field(default_factory=lambda: Folds(5))


@dataclass(frozen=True)
class Needed:
    """Its group has none at all."""

    folds: Folds
    epochs: int = 1

    def __post_init__(self):
        if self.epochs < self.folds.count:
            raise ValueError(f"epochs is {self.epochs}, expected {self.folds.count}")


def test_a_group_that_is_refused_hides_no_mistake_beside_it(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("folds:\n  first: 7\nepochs: -1\n")
    with pytest.raises(ValueError, match="expected") as caught:
        load(Judged, ["--config", str(path)])
    assert str(caught.value).splitlines() == [
        f"{path}:2: folds.first is 7, expected below 5",
        f"{path}:3: epochs is -1, expected 0 or more",
    ]
    with pytest.raises(ValueError, match="^--folds.first is 7, expected below 2$"):
        load(Needed, ["--folds.first", "7", "--folds.count", "2"])  # has no default to check by
    assert load(Needed, ["--folds.count", "2", "--epochs", "2"]).folds == Folds(2)


def test_a_conflict_names_the_file_of_the_setting_that_was_given(tmp_path):
    """The other one is a default."""
    from audiotrain import config
    from audiotrain.recipes.chords.settings import TrainSettings

    (tmp_path / "x.yaml").write_text("model:\n  blocks: 1\n")
    with pytest.raises(ValueError, match=r"x\.yaml:2: .*pools=2, expected at most blocks=1"):
        config.load(TrainSettings, ["--config", str(tmp_path / "x.yaml")])
