"""Models to pass on: what is in them, that they answer as the trained ones do, damage."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml
from mlx.utils import tree_flatten
from tiny_chords import STEPS, TINY, command, make_quick, sung

from audiotrain import config
from audiotrain.datasets.items import Corpus
from audiotrain.music.chord_classes import CHORD_TYPES
from audiotrain.recipes.chords.export import PRESETS, command_of
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.common import checkpoints, exported
from audiotrain.recipes.common.split import warn_if_trained_on
from audiotrain.train.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def run(place):
    """A finished run on six recordings, trained with `export`."""
    data = sung(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        words = ["--data", data, "--cache", place / "cache", "--output", place / "run", "--export"]
        assert command(*words, *TINY, *STEPS) == 0
    return place / "run"


@pytest.fixture
def model(run, tmp_path):
    """A copy of the run's exported model, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (run / "export").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def description(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text("utf-8"))


def change(folder: Path, **changes) -> None:
    (folder / "model.json").write_text(json.dumps(description(folder) | changes))


def features(recognizer: Recognizer) -> np.ndarray:
    shape = 40, recognizer.window, recognizer.settings.bins
    return np.random.default_rng(0).uniform(-80, 0, shape).astype(np.float32)


def test_half_the_precision_gives_the_same_probabilities(run):
    trained, passed_on = (Recognizer.from_checkpoint(one) for one in (run, run / "export"))
    trained.type_offsets = passed_on.type_offsets = None
    for name in ("settings", "window", "switching_cost", "min_confidence"):
        assert getattr(trained, name) == getattr(passed_on, name)
    probabilities = [np.exp(one.log_probs(features(one))) for one in (trained, passed_on)]
    assert probabilities[0].max() > 0.05
    np.testing.assert_allclose(*probabilities, atol=5e-4)


def test_it_says_what_it_was_trained_on_and_how(run, place):
    found = description(run / "export")
    split = json.loads((run / "split.json").read_text("utf-8"))["items"]
    composed = {"composed_songs": 0, "strummed_songs": 0}
    assert found["trained_on"] == {"data": "data", "songs": split} | composed
    assert found["vocabulary"]["chord_type"] == list(CHORD_TYPES)
    assert found["training"]["seconds"] >= 0
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))["viterbi"]["corpus"]
    assert found["scores"]["corpus"]["majmin"] == pytest.approx(metrics["majmin"], abs=1e-4)
    card = (run / "export" / "README.md").read_text("utf-8")
    assert f"{metrics['majmin']:.3f}" in card
    assert "$" not in card
    for file in ("model.json", "README.md"):
        assert str(place) not in (run / "export" / file).read_text("utf-8")


def test_the_command_is_the_shortest_one():
    assert command_of(TrainSettings(data=Path("/x/songs"), resume=False)) == (
        "audiotrain chords --data songs"
    )
    words = ["--preset", "songs", "--data", "/x/songs", "--soundfonts", "/x/a.sf2", "/x/b.sf2"]
    settings = config.load(TrainSettings, [*words, "--steps", "9"], presets=PRESETS)
    assert command_of(settings) == (
        "audiotrain chords --preset songs --data songs --steps 9 --soundfonts a.sf2 b.sf2"
    )


def test_the_release_needs_its_data():
    settings = config.load(TrainSettings, ["--preset", "release"], presets=PRESETS)
    assert (settings.data, settings.progressions) == (Path("pop909"), Path("billboard"))
    words = ["--data", "/x/pop909", "--progressions", "/x/billboard"]
    settings = config.load(TrainSettings, ["--preset", "release", *words], presets=PRESETS)
    expected = "audiotrain chords --preset release --data pop909 --progressions billboard"
    assert command_of(settings) == expected


def test_a_model_is_written_once_and_whole(run, tmp_path, capsys, monkeypatch):
    words = ["export", "--checkpoint", run, "--output", tmp_path / "model"]
    card = tmp_path / "card.md"
    card.write_text("A model of $data, $unknown")
    assert command(*words, "--card", card) == 0
    assert (
        tmp_path / "model" / "README.md"
    ).read_text() == "A model of data (4 train, 1 valid, 1 test), $unknown"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["card.md", "model"]
    assert command(*words) == 2
    assert "holds a model already; --overwrite replaces it" in capsys.readouterr().err
    before = (tmp_path / "model" / "model.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(exported, "write_json", lambda *arguments: 1 / 0)
        assert command(*words, "--overwrite") == 1
    assert (tmp_path / "model" / "model.json").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["card.md", "model"]
    assert command(*words, "--overwrite") == 0
    assert command("export", "--checkpoint", run, "--output", tmp_path) == 2
    assert "holds something else, expected a new folder" in capsys.readouterr().err
    assert command(*words, "--overwrite", "--card", tmp_path / "none.md") == 2
    assert "none.md: cannot be read" in capsys.readouterr().err


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def resize(group="model", **sizes):
    """Other sizes in model.json than the weights have."""
    return lambda folder: change(folder, **{group: description(folder)[group] | sizes})


def cast(folder):
    """float32 weights with a right hash."""
    arrays = mx.load(str(folder / "model.safetensors"))
    arrays = {name: array.astype(mx.float32) for name, array in arrays.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    sha256 = exported._sha256(folder / "model.safetensors")
    change(folder, weights={"sha256": sha256})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.safetensors: damaged: sha256"),
        (flip, "model.safetensors: damaged: sha256"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json: not JSON"),
        (lambda folder: change(folder, format=2), "format 2, expected 1; pip install -U"),
        (lambda folder: change(folder, recipe="clap"), "recipe 'clap', expected one of 'chords'"),
        (lambda folder: change(folder, weights={}), "no weights.sha256"),
        (lambda folder: change(folder, vocabulary={}), "not one of this version"),
        (lambda folder: change(folder, decoding={}), "not one of this version"),
        (lambda folder: change(folder, window=None), "not one of this version"),
        (resize(hidden=36), "does not fit the model: .* misshaped"),
        # As large as that is no more than a shape: 16 TB if it were computed.
        (resize(width=12000, blocks=300, pools=0), "does not fit the model: .* misshaped"),
        (resize(blocks=10**9), "blocks=1000000000, expected up to 1000"),
        (resize(width=12 * 10**8), "width=1200000000, expected up to 16384"),
        (resize("features", bins=10**6), "bins=1000000, expected up to 16384"),
        (cast, "misshaped: .*float32.*float16"),
    ],
)
def test_damage_is_one_line(model, damage, message):
    damage(model)
    with pytest.raises(CheckpointError, match=message) as caught:
        Recognizer.from_checkpoint(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"trained_on": 3},
        {"trained_on": {"songs": 5}},
        {"trained_on": {"songs": {"train": 1}}},
        {"trained_on": {"songs": {}, "pretrained": "x"}},
    ],
)
def test_damage_in_what_a_model_was_trained_on_is_one_line(model, known):
    content = description(model)
    del content["trained_on"]
    (model / "model.json").write_text(json.dumps(content | known))
    with pytest.raises(
        CheckpointError, match="model.json: trained_on is not one of this"
    ) as caught:
        warn_if_trained_on([model], Corpus(model, [], []), "songs")
    assert "\n" not in str(caught.value)


def test_float16_must_hold_the_weights(tmp_path):
    with pytest.raises(ValueError, match="a: has values that float16 cannot hold"):
        exported.write_model(tmp_path / "x", {"a": mx.array(1e5)}, {}, lambda content: "")


@pytest.fixture
def installed(run, tmp_path, monkeypatch):
    """The run's exported model as the one that audiotrain comes with, where there are no runs."""
    folder = tmp_path / "installed" / "chords"
    shutil.copytree(run / "export", folder)
    monkeypatch.setattr(checkpoints, "PRETRAINED", folder.parent)
    monkeypatch.chdir(tmp_path)
    return folder


def test_without_a_checkpoint_the_shipped_model_answers(installed, run, place, tmp_path, capsys):
    sha256 = description(run / "export")["weights"]["sha256"]
    words = ["predict", place / "data" / "song0.wav", "--output", tmp_path / "out"]
    assert command(*words) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("model: shipped with audiotrain ")
    assert first.endswith(f"sha256 {sha256[:12]}")
    labels = (tmp_path / "out" / "song0.lab").read_text()
    assert command(*words, "--overwrite", "--checkpoint", run / "export") == 0
    assert (tmp_path / "out" / "song0.lab").read_text() == labels
    assert Recognizer.pretrained().window == 16


@pytest.mark.slow
def test_evaluate_warns_of_songs_that_the_shipped_model_was_trained_on(
    installed, place, tmp_path, capsys
):
    words = ["evaluate", "--data", place / "data", "--cache", place / "cache"]
    assert command(*words) == 0
    told = capsys.readouterr()
    assert "5 of 6 songs were in the training" in told.err
    assert (tmp_path / "runs" / "evaluation-data-of-shipped" / "metrics.json").is_file()
    assert sorted(file.name for file in installed.iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    assert command(*words, "--split", "test") == 0
    assert "\n1 song, " in capsys.readouterr().out
    # Also in a folder around theirs, where their ids are longer.
    shutil.copytree(place / "data", tmp_path / "around" / "data")
    words[2] = tmp_path / "around"
    assert command(*words) == 0
    assert "5 of 6 songs were in the training" in capsys.readouterr().err


def test_pretrained_without_a_value_is_the_shipped_model(
    installed, place, tmp_path, capsys, monkeypatch
):
    make_quick(monkeypatch)
    words = ["--data", place / "data", "--cache", place / "cache", "--steps", 2, "--pretrained"]
    words += ["--output", tmp_path / "run", "--window", 16, "--batch-size", 4]
    assert command(*words) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    sha256 = description(installed)["weights"]["sha256"]
    assert saved["pretrained_sha256"] == sha256
    assert saved["pretrained"] == "shipped"
    assert saved["model"]["width"] == 36
    other = ["--pretrained-sha256", "0" * 64, "--output", tmp_path / "other"]
    assert command(*words, *other) == 2
    error = capsys.readouterr().err
    assert f"--pretrained shipped: weights with sha256 {sha256}, expected 000" in error
    # Its songs may have been seen by the weights that it began with.
    (tmp_path / "run" / "split.json").unlink()
    evaluation = ["evaluate", "--data", place / "data", "--cache", place / "cache"]
    assert command(*evaluation, "--checkpoint", tmp_path / "run") == 0
    assert "5 of 6 songs were in the training" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["shipped", "run"])
def test_a_fine_tuned_model_keeps_what_its_start_was_trained_on(
    start, installed, run, place, tmp_path, capsys, monkeypatch
):
    make_quick(monkeypatch)
    other = sung(tmp_path / "other")
    for file in other.glob("song*.*"):
        file.rename(file.with_name(f"other-{file.name}"))
    words = ["--data", other, "--cache", place / "cache", "--steps", 2, "--window", 16]
    words += ["--batch-size", 4, "--output", tmp_path / "tuned", "--export"]
    assert command(*words, "--pretrained", *([] if start == "shipped" else [run])) == 0

    passed_on = tmp_path / "tuned" / "export"
    before = description(run / "export")
    sha256 = before["weights"]["sha256"] if start == "shipped" else None
    found = description(passed_on)["trained_on"]["pretrained"]
    assert found == {"name": start, "sha256": sha256, "trained_on": before["trained_on"]}
    card = (passed_on / "README.md").read_text("utf-8")
    assert "Trained on: other (4 train, 1 valid, 1 test); starting from the weights of" in card
    assert "trained on: data (4 train, 1 valid, 1 test)" in card

    evaluation = ["evaluate", "--data", place / "data", "--cache", place / "cache"]
    for model in (tmp_path / "tuned", passed_on):
        capsys.readouterr()
        output = tmp_path / f"scores-{model.name}"
        assert command(*evaluation, "--checkpoint", model, "--output", output) == 0
        assert "5 of 6 songs were in the training" in capsys.readouterr().err


def test_a_start_with_other_weights_by_now_is_not_described(
    installed, place, tmp_path, monkeypatch
):
    make_quick(monkeypatch)
    words = ["--data", place / "data", "--cache", place / "cache", "--steps", 2, "--window", 16]
    words += ["--batch-size", 4, "--output", tmp_path / "tuned", "--pretrained"]
    assert command(*words) == 0
    sha256 = description(installed)["weights"]["sha256"]
    change(installed, weights=description(installed)["weights"] | {"sha256": "0" * 64})
    model = tmp_path / "passed-on"
    assert command("export", "--checkpoint", tmp_path / "tuned", "--output", model) == 0
    expected = {"name": "shipped", "sha256": sha256, "trained_on": None}
    assert description(model)["trained_on"]["pretrained"] == expected
    assert f"sha256 {sha256[:12]}, trained on: not known" in (
        (model / "README.md").read_text("utf-8")
    )


def test_a_run_from_pretrained_weights_is_replayed_elsewhere(
    installed, place, run, tmp_path, capsys, monkeypatch
):
    make_quick(monkeypatch)
    words = ["--data", place / "data", "--cache", place / "cache", "--steps", 2, "--window", 16]
    words += ["--batch-size", 4, "--pretrained", "--output", tmp_path / "first", "--export"]
    assert command(*words) == 0
    training = description(tmp_path / "first" / "export")["training"]
    assert " --pretrained --" in training["command"]
    assert "chords --pretrained chords" not in training["command"]
    elsewhere = tmp_path / "elsewhere"  # where audiotrain is installed on another machine
    shutil.move(installed.parent, elsewhere)
    monkeypatch.setattr(checkpoints, "PRETRAINED", elsewhere)
    replay = ["--config", tmp_path / "first" / "config.yaml", "--output"]
    assert command(*replay, tmp_path / "second") == 0
    # By its path it is found by the hash, as long as the model that is installed is the same.
    named = ["--config", tmp_path / "first" / "config.yaml", "--pretrained", installed, "--output"]
    assert command(*named, tmp_path / "third") == 0
    first, *others = (
        dict(tree_flatten(Recognizer.from_checkpoint(tmp_path / name).model.parameters()))
        for name in ("first", "second", "third")
    )
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(np.array(array), np.array(other[name]))
    change(elsewhere / "chords", weights={"sha256": "0" * 64})
    capsys.readouterr()
    assert command(*replay, tmp_path / "fourth") == 2
    assert "--pretrained-sha256 none takes these" in capsys.readouterr().err
    assert command(*named, tmp_path / "fourth") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"--pretrained {installed}: no such folder; expected an exported model" in error


def test_several_models_are_not_exported(run, tmp_path, capsys):
    words = ["export", "--output", tmp_path / "out", "--checkpoint", run, run]
    assert command(*words) == 2
    assert "2 models, expected one run" in capsys.readouterr().err
