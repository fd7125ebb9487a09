"""What the classify recipe cannot do: exit code 2, one line that names it, nothing written."""

import shutil

import pytest
from disk import content, full_disk
from tiny_clips import QUICK, STATISTICS, class_folders, command, make_quick, table, tone

from audiotrain import config
from audiotrain.recipes.classify.settings import TrainSettings
from audiotrain.recipes.common.run import RECIPES

PRESETS = RECIPES / "classify" / "presets"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `data`, `cache` and a trained `run`."""
    folder = tmp_path_factory.mktemp("refusals")
    class_folders(folder / "data", each=4)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        assert command(*words(folder, "run")) == 0
    return folder


def words(place, output, *more):
    cache = ["--cache", place / "cache"]
    return ["--data", place / "data", "--output", place / output, *cache, *STATISTICS, *more]


@pytest.fixture
def refused(capsys, monkeypatch):
    """Calls the recipe, and gives the line with which it refuses."""
    make_quick(monkeypatch)

    def call(*words):
        capsys.readouterr()
        assert command(*words) == 2
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        line = told.err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        return line

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean train?)"),
        (["--steps", "0"], "steps=0, expected 1 or more"),
        (["--steps", "5", "--epochs", "2"], "steps=5 and epochs=2, expected one of them"),
        (["--valid", "0"], "valid=0.0, expected more than 0 and less than 1"),
        (["--max-minutes", "nan"], "max-minutes=nan, expected more than 0"),
        (["--task", "both"], "--task: found 'both', expected"),
        (["--synthesised", "3"], "synthesised=3, expected 10 or more"),
        (["--augmentation.mix", "2"], "augmentation.mix=2.0, expected 0 to 1"),
        (["--augmentation.gain", "-1"], "augmentation.gain=-1.0, expected 0 or more"),
        (
            ["--optimization.ema-decay", "1"],
            "ema-decay=1.0, expected 0 or more and less than 1",
        ),
        (["--input.features.hop", "100"], "frames, expected at most the 256 of"),
        (
            ["--input.features.mels", "32"],
            "input.features.mels=32, expected 64 as in model",
        ),
        (
            ["--input.features.truncation", "fusion"],
            "truncation=fusion or model.enable_fusion",
        ),
        (["--test-fold", "2"], "test_fold=2, expected one of the folds of synthesised: none"),
        (["--preset", "esc"], "esc"),
        (["--resume"], "--resume: needs --output, the run folder to continue"),
        (["predict"], "--audio: required"),
        (["predict", "gone.wav", "--checkpoint", "none"], "--checkpoint none: no trained run"),
    ],
)
def test_words(refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    output = [] if words[0] in ("predict", "trian", "--resume") else ["--output", "run"]
    cache = [] if words[0] == "trian" else ["--cache", "cache"]
    assert message in refused(*words, *output, *cache)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "config.yaml"]


def test_data_that_cannot_be_learnt_from(refused, place, tmp_path):
    def line(data, *more):
        base = ["--data", data, "--cache", tmp_path / "cache", "--output", tmp_path / "run"]
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return refused(*base, *STATISTICS, *more)

    assert "gone: no such folder" in line(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "found 0 audio files and 0 tables of labels" in line(tmp_path / "empty")
    one = table(tmp_path, [["file", "label"], ["a.wav", "x"], ["b.wav", "x"]])
    tone(tmp_path / "a.wav", 100)
    tone(tmp_path / "b.wav", 200)
    assert "all 2 clips are x, expected two classes or more" in line(one)
    table(tmp_path, [["file", "labels"], ["a.wav", "x|y"], ["b.wav", "x"]])
    assert "task=single, but found several classes in 1 clip, such as a.wav" in line(
        one, "--task", "single"
    )
    table(tmp_path, [["file", "label"], ["a.wav", "x"], ["b.wav", "y"]])
    assert "the split of 2 clips leaves none for" in line(one)
    assert not (tmp_path / "run" / "split.json").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "statistic",
            "--input.embeddings: found 'statistic' (did you mean statistics?), expected",
        ),
        ("gone", "--input.embeddings gone: found no config.json of a model and no trained run"),
    ],
)
def test_embeddings_that_are_none(refused, place, tmp_path, name, said):
    line = refused(*words(place, tmp_path / "run"), "--input.embeddings", name)
    assert said in line
    assert "--checkpoint" not in line


def test_a_run_is_not_written_over_nor_continued_as_another(refused, place):
    assert "holds a run already" in refused(*words(place, "run"))
    line = refused("--output", place / "run", "--resume", "--seed", 1)
    assert "--resume: seed is 1, expected 0 as in the run" in line


def test_models_that_do_not_fit_the_data_or_each_other(refused, place, tmp_path):
    other = class_folders(tmp_path / "data", each=4)
    (other / "low").rename(other / "deep")
    more = ["--checkpoint", place / "run", "--cache", place / "cache"]
    line = refused("evaluate", "--data", other, *more)
    assert "class 'deep' is none of the model's 3 (high, low, middle_one)" in line
    base = ["--data", other, "--output", tmp_path / "run", "--cache", place / "cache"]
    assert command(*base, *STATISTICS) == 0
    more = ["--checkpoint", place / "run", tmp_path / "run", "--cache", place / "cache"]
    line = refused("predict", other, *more, "--output", tmp_path / "p.csv")
    assert "its 3 classes are not the 3 of" in line


def test_submissions_that_do_not_fit(refused, place, tmp_path):
    def line(*lines):
        sample = table(tmp_path, [["fname", "high", "low", "middle_one"], *lines], "sample.csv")
        more = ["--checkpoint", place / "run", "--cache", place / "cache", "--submission", sample]
        told = refused("predict", place / "data", *more, "--output", tmp_path / "out.csv")
        assert not (tmp_path / "out.csv").exists()
        return told

    cells = ["0", "0", "0"]
    known = ["low-0.wav", *cells]
    assert "1 without a prediction (gone.wav)" in line(known, ["gone.wav", *cells])
    assert "none of the sample's 1 ids, such as 'gone.wav'" in line(["gone.wav", *cells])
    assert "id 'low-0.wav' is there twice" in line(known, known)
    tone(place / "data" / "high" / "low-0.wav", 99)
    assert "id 'low-0.wav' of the sample fits high/low-0.wav and low/low-0.wav" in line(known)
    (place / "data" / "high" / "low-0.wav").unlink()


def test_a_full_disk_takes_nothing_that_was_there(refused, place, tmp_path):
    out = ["--cache", place / "cache", "--checkpoint", place / "run", "--output", tmp_path / "o"]
    assert command("predict", place / "data", *out) == 0
    assert command("evaluate", "--data", place / "data", *out[:-1], tmp_path / "scores") == 0
    before = content(tmp_path)
    with full_disk(200):
        line = refused("predict", place / "data", *out, "--overwrite")
        assert line == f"error: {tmp_path / 'o'}: cannot write: File too large"
        scores = ["--data", place / "data", *out[:-1], tmp_path / "scores", "--overwrite"]
        line = refused("evaluate", *scores)
        assert "cannot write: File too large" in line
    assert content(tmp_path) == before


def test_damaged_checkpoints_are_named(refused, place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    for name in ("best", "last"):
        state = tmp_path / "run" / "checkpoints" / name / "state.json"
        state.write_text(state.read_text().replace('"classifier"', '"other"'))
    more = ["--checkpoint", tmp_path / "run", "--cache", place / "cache"]
    out = ["--output", tmp_path / "p.csv"]
    assert "not a checkpoint of the classify recipe" in refused(
        "predict", place / "data", *more, *out
    )


@pytest.mark.parametrize("preset", sorted(config.preset_names(PRESETS)))
def test_presets_can_be_loaded_and_say_their_command(preset):
    found = config.load(TrainSettings, ["--preset", preset], presets=PRESETS)
    assert found != TrainSettings()
    text = (PRESETS / f"{preset}.yaml").read_text()
    assert text.startswith("# python -m audiotrain.recipes.classify ")
    assert f"--preset {preset} " in text


def test_help_names_every_setting(capsys):
    flags = {
        "train": "--augmentation.mix",
        "cv": "--folds",
        "pseudo": "--rounds",
        "predict": "--submission",
        "evaluate": "--split",
    }
    for verb, flag in flags.items():
        with pytest.raises(SystemExit) as done:
            command(verb, "--help")
        assert not done.value.code
        assert flag in capsys.readouterr().out
    assert QUICK
