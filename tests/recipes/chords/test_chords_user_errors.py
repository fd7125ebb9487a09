"""What the chord recipe cannot do: exit code 2, one line that names it, and nothing lost."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from disk import content, full_disk
from tiny_chords import TINY, command, make_quick, sung

from audiotrain.features import audio
from audiotrain.recipes.chords import commands as recipe
from audiotrain.recipes.chords import predictor, scoring, songs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `data`, `cache` and a trained `run`."""
    folder = tmp_path_factory.mktemp("refusals")
    sung(folder / "data", 4, 2.0)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        words = ["--data", folder / "data", "--output", folder / "run", "--cache", folder / "cache"]
        assert command(*words, *TINY, "--steps", 2) == 0
    return folder


@pytest.fixture
def run(place, tmp_path):
    """A run that the test may change."""
    shutil.copytree(place / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def refused(capsys, place, monkeypatch):
    """Calls the recipe, and gives the line with which it refuses."""
    make_quick(monkeypatch)

    def call(*words, alone=True):
        capsys.readouterr()
        assert command(*words) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        lines = printed.err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        if alone:
            assert len(lines) == 1, lines
        return lines[-1]

    return call


# ---- words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean train?), expected one of train, "),
        (["--widnow", "3"], "--widnow: unknown flag (did you mean --window?)"),
        (["train", "folder"], "'folder': expected a flag (--name value) before it"),
        (["--steps", "many"], "--steps: found 'many', expected a whole number"),
        (["--steps", "nan"], "--steps: found 'nan', expected a whole number"),
        (["--steps", "1.5"], "--steps: found '1.5', expected a whole number"),
        (["--steps"], "--steps: nothing follows, expected a whole number"),
        (["--steps", "0"], "steps=0, expected 1 or more"),
        (["--steps", "-5"], "steps=-5, expected 1 or more"),
        (["--epochs", "0"], "epochs=0, expected 1 or more"),
        (["--batch-size", "0"], "batch-size=0, expected 1 or more"),
        (["--validations", "0"], "validations=0, expected 1 or more"),
        (["--renderings", "0"], "renderings=0, expected 1 or more"),
        (["--workers", "-1"], "workers=-1, expected 0 or more"),
        (["--patience", "-1"], "patience=-1, expected 0 or more"),
        (["--seed", "-1"], "seed=-1, expected 0 or more"),
        (["--composed", "2"], "composed=2 without data, expected 3 songs or more"),
        (["--composed", "0"], "composed=0 without data, expected 3 songs or more"),
        (["--composed-seconds", "0"], "composed-seconds=0.0, expected more than 0"),
        (["--composed-seconds", "inf"], "composed-seconds=inf, expected more than 0"),
        (["--max-minutes", "0"], "max-minutes=0.0, expected more than 0"),
        (["--window", "0"], "window=0, expected 2 or more"),
        (["--window", "127"], "window=127, expected an even number that model.patch=2 divides"),
        (["--window", "10", "--model.patch", "4"], "window=10, expected an even number that"),
        (["--valid", "0.6", "--test", "0.4"], "valid=0.6 and test=0.4, expected shares that add"),
        (["--valid", "0.7", "--test", "0.4"], "valid=0.7 and test=0.4, expected shares that add"),
        (["--valid", "0"], "valid=0.0, expected more than 0 and less than 1"),
        (["--test", "-0.1"], "test=-0.1, expected more than 0 and less than 1"),
        (["--test", "nan"], "test=nan, expected more than 0 and less than 1"),
        (["--model.architecture", "lstm"], "architecture: found 'lstm', expected one of"),
        (["--model.width", "100"], "width=100, expected a multiple of 12"),
        (["--model.kernel", "4"], "kernel=4, expected an odd number of frames"),
        (["--model.patch", "0"], "patch=0, expected 1 or more"),
        (["--model.dropout", "1"], "dropout=1.0, expected 0 or more and less than 1"),
        (["--features.hop", "0"], "features.hop=0, expected 1 or more"),
        (["--features.bins-per-octave", "30"], "bins-per-octave=30, expected a multiple of 12"),
        (["--features.margin", "-1"], "features.margin=-1, expected 0 or more"),
        (["--loss.label-smoothing", "1"], "loss.label-smoothing=1.0, expected 0 or more and less"),
        (["--loss.root-weight", "-1"], "loss.root-weight=-1.0, expected 0 or more"),
        (["--loss.class-power", "nan"], "loss.class-power=nan, expected 0 or more"),
        (["--optimization.learning-rate", "0"], "learning-rate=0.0, expected more than 0"),
        (["--optimization.muon-rate", "0"], "muon-rate=0.0, expected more than 0"),
        (["--optimization.learning-rate", "nan"], "learning-rate=nan, expected more than 0"),
        (["--optimization.gradient-clip", "0"], "gradient-clip=0.0, expected more than 0"),
        (["--optimization.ema-decay", "1"], "ema-decay=1.0, expected 0 or more and less than 1"),
        (["--optimization.beta2", "1"], "beta2=1.0, expected 0 or more and less than 1"),
        (["--group", "artist"], "group=artist without data, expected nothing"),
        (["--selector", "1"], "selector=1 without data, expected nothing"),
        (["--progressions", "x"], "progressions=x: no such folder"),
        (["--data", "x", "--progressions", "."], "progressions=. without composed songs, expected"),
        (["cv", "--data", "x", "--progressions", "x"], "progressions=x without composed songs"),
        (
            ["--soundfonts", "x.sf2"],
            "soundfonts=x.sf2: no such file; `apt install fluid-soundfont-gm`",
        ),
        (["--soundfonts", "/dev/null"], "/dev/null: no SoundFont 2 file"),
        (["--resume"], "--resume: needs --output, the run folder to continue"),
        (["--preset", "nosuch"], "--preset: no preset 'nosuch'"),
        (["--config", "/nosuch.yaml"], "/nosuch.yaml: cannot be read: No such file"),
        (["predict"], "--audio: required"),
        (["evaluate"], "--data: required"),
        (["evaluate", "--data", ".", "--rendering", "-1"], "rendering=-1, expected 0 or more"),
        (["predict", "x.wav", "--formats", "wav"], "--formats: found 'wav', expected"),
        (["predict", "x.wav", "--formats"], "--formats: nothing follows"),
        (["predict", "x.wav", "--bass", "low"], "--bass: found 'low', expected"),
    ],
)
def test_words(refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert not list(tmp_path.iterdir())  # nothing is begun


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("windwo: 3\n", ":1: windwo: no such setting (did you mean window?)"),
        ("model:\n  widht: 3\n", ":2: model.widht: no such setting"),
        ("steps: soon\n", ":1: steps: found 'soon', expected a whole number"),
        ("a: [\n", "not valid YAML"),
        ("window: 9\n", "window=9, expected an even number"),
    ],
)
def test_settings_files(refused, tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    line = refused("--config", tmp_path / "x.yaml", "--output", tmp_path / "run")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_two_mistakes_are_reported_together(capsys):
    assert command("--widnow", "3", "--steps", "soon") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


# ---- data


def bad_folder(folder, kind):
    """A folder that cannot be trained on."""
    folder.mkdir()
    tone = (0.1 * np.sin(np.arange(9000) / 10)).astype(np.float32)
    if kind == "audio alone":
        audio.write(folder / "a.wav", tone, 22050)
    elif kind == "labels alone":
        for name in "abc":
            (folder / f"{name}.lab").write_text("0 1 C:maj\n")
    elif kind == "zero bytes":
        for name in "abcd":
            (folder / f"{name}.wav").write_bytes(b"")
            (folder / f"{name}.lab").write_text("0 1 C:maj\n")
    elif kind == "broken labels":
        for name in "abcd":
            audio.write(folder / f"{name}.wav", tone, 22050)
            (folder / f"{name}.lab").write_text("this is\nno label\n")
    elif kind == "table of nothing":
        (folder / "t.csv").write_text("audio,label\nx.wav,x.lab\n")
    elif kind in ("two songs", "all NaN"):
        for name in "ab" if kind == "two songs" else "abcdef":
            samples = tone if kind == "two songs" else np.full(9000, np.nan, np.float32)
            audio.write(folder / f"{name}.wav", samples, 22050)
            (folder / f"{name}.lab").write_text("0 1 C:maj\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "data: no such folder"),
        ("empty", "data: "),
        ("audio alone", "data: "),
        ("labels alone", "labels of 3 songs but no audio to train on"),
        ("zero bytes", "found no audio that can be read, first"),
        ("broken labels", "data: "),
        ("table of nothing", "data: "),
        ("two songs", "the split of 2 songs leaves none for "),
        ("all NaN", "songs can't be read: "),
    ],
)
def test_data(refused, place, tmp_path, kind, message):
    folder = tmp_path / "data"
    if kind != "missing":
        bad_folder(folder, kind)
    words = ["--data", folder, "--output", tmp_path / "run", "--cache", place / "cache", *TINY]
    before = content(tmp_path)
    line = refused(*words, "--steps", 2, alone=kind != "all NaN")
    assert message in line
    assert str(folder) in line
    after = content(tmp_path)
    assert before.items() <= after.items()
    # what was refused does not count as a run, so that the same words work once data are there
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "data", folder)
    assert command(*words, "--steps", 2) == 0


def test_bins_that_the_rate_does_not_reach(refused, place, tmp_path):
    line = refused("--data", place / "data", "--features.bins", 250, "--output", tmp_path / "run")
    assert "expected at most rate / 2" in line


def test_a_file_as_data_that_is_no_table(refused, tmp_path):
    (tmp_path / "x.txt").write_text("hello\n")
    line = refused("--data", tmp_path / "x.txt", "--output", tmp_path / "run")
    assert f"{tmp_path}: found 0 audio" in line


def test_choices_that_the_data_do_not_have(refused, place, run, tmp_path):
    words = ["--data", place / "data", "--cache", place / "cache"]
    training = [*words, "--output", tmp_path / "new"]
    for verb in (training, ["evaluate", *words, "--checkpoint", run]):
        assert "data: found no JAMS file to select annotation 'Ann' of" in refused(
            *verb, "--selector", "Ann"
        )
    assert "data: found no table with a column 'artist' to group by" in refused(
        *training, "--group", "artist"
    )


# ---- run folders


def test_a_folder_that_holds_a_run(refused, run, place):
    before = content(run)
    line = refused("--data", place / "data", "--output", run, "--cache", place / "cache", *TINY)
    assert f"{run}: holds a run already (checkpoints); --resume continues it" in line
    assert content(run) == before


def test_a_file_in_the_place_of_the_run_folder(refused, tmp_path):
    (tmp_path / "run").write_text("mine")
    for output in (tmp_path / "run", tmp_path / "run" / "deeper"):
        line = refused("--composed", 3, "--output", output, *TINY)
        assert str(tmp_path / "run") in line
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_that_cannot_be_made(refused):
    assert "/proc/none" in refused("--composed", 3, "--output", "/proc/none", *TINY)


def test_a_cache_that_cannot_be_made(refused, tmp_path):
    words = ["--composed", 3, "--output", tmp_path / "run", "--cache", "/proc/none", *TINY]
    assert "/proc/none" in refused(*words)


@pytest.mark.parametrize("limit", [10, 3000, 8_000])
def test_a_full_run_folder(refused, place, tmp_path, limit):
    words = ["--data", place / "data", "--output", tmp_path / "run", "--cache", place / "cache"]
    with full_disk(limit):
        line = refused(*words, *TINY, "--steps", 2, alone=False)
    assert str(tmp_path / "run") in line
    assert not [p for p in (tmp_path / "run").rglob(".*") if p.is_file()]  # no half files


def test_a_disk_that_fills_up_keeps_the_checkpoint(refused, run):
    before = content(run / "checkpoints")
    with full_disk(8_000):
        line = refused("--output", run, "--resume", "--steps", 4, alone=False)
    assert "cannot write the checkpoint" in line
    assert "what was there before is kept" in line
    assert content(run / "checkpoints") == before
    assert command("--output", run, "--resume", "--steps", 4) == 0


def test_a_full_cache(refused, tmp_path):
    words = ["--composed", 3, "--composed-seconds", 3, "--output", tmp_path / "run", *TINY]
    with full_disk(3000):
        line = refused(*words, "--cache", tmp_path / "cache", alone=False)
    assert f"cache folder {tmp_path / 'cache'}: File too large" in line
    assert not list((tmp_path / "cache").iterdir())


# ---- resume


def test_resume_without_a_run(refused, tmp_path):
    (tmp_path / "run").mkdir()
    for output in (tmp_path / "none", tmp_path / "run"):
        line = refused("--output", output, "--resume")
        assert f"{output}: no config.yaml, so there is no run to resume" in line
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.width", 48], "model.width is 48, expected "),
        (["--window", 32], "window is 32, expected 16 as in the run in "),
        (["--seed", 5], "seed is 5, expected 0"),
        (["--data", "/elsewhere"], "data is /elsewhere, expected "),
        (["--batch-size", 8], "batch_size is 8, expected 4"),
        (["--features.hop", 2048], "features.hop is 2048, expected "),
    ],
)
def test_resume_with_other_settings(refused, run, words, message):
    before = content(run)
    assert message in refused("--output", run, "--resume", *words)
    assert content(run) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_resume_of_a_checkpoint_cut_short(refused, run, name):
    file = run / "checkpoints" / "last" / name
    file.write_bytes(file.read_bytes()[:-100])
    line = refused("--output", run, "--resume", "--steps", 4, alone=False)
    assert "cut short" in line
    assert str(file) in line


def test_resume_of_damaged_settings(refused, run):
    (run / "config.yaml").write_text("window: [\n")
    assert "config.yaml" in refused("--output", run, "--resume")


def test_resume_when_the_data_are_gone(refused, run, place, tmp_path):
    text = (run / "config.yaml").read_text().replace(str(place / "data"), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(text)
    assert f"{tmp_path / 'gone'}: no such folder" in refused("--output", run, "--resume")


# ---- evaluate and predict


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_no_checkpoint(refused, place, tmp_path, verb):
    words = ["evaluate", "--data"] if verb == "evaluate" else ["predict"]
    for checkpoint in (tmp_path / "none", tmp_path):
        line = refused(*words, place / "data", "--checkpoint", checkpoint)
        assert f"--checkpoint {checkpoint}: no trained run there" in line


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_checkpoint(refused, run, place, name):
    file = run / "checkpoints" / "best" / name
    file.write_bytes(file.read_bytes()[:50])
    line = refused("predict", place / "data" / "song0.wav", "--checkpoint", run)
    assert "cut short" in line
    assert name in line


def test_a_checkpoint_of_other_settings(refused, run, place):
    file = run / "checkpoints" / "best" / "state.json"
    state = json.loads(file.read_text())
    state["meta"]["config"]["recognizer"]["model"]["width"] = 48
    file.write_text(json.dumps(state))
    line = refused("predict", place / "data" / "song0.wav", "--checkpoint", run)
    assert "does not fit the model" in line


def test_evaluate(refused, run, place, tmp_path, monkeypatch):
    words = ["--checkpoint", run, "--cache", place / "cache"]
    assert "gone: no such folder" in refused("evaluate", "--data", tmp_path / "gone", *words)
    (run / "split.json").unlink()
    line = refused("evaluate", "--data", place / "data", "--split", "test", *words)
    assert "--split test: neither the run's split nor the data name any of the 4 songs" in line
    folder = bad_folder(tmp_path / "data", "all NaN")
    line = refused("evaluate", "--data", folder, *words, alone=False)
    assert "6 of 6 songs can't be read: " in line
    assert "NaN or Inf samples" in line
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(scoring, "score", None)  # it is refused before that
    line = refused("evaluate", "--data", place / "data", *words, "--output", tmp_path / "file")
    assert f"--output {tmp_path / 'file'}: is a file, expected a folder" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_predict(refused, run, place, tmp_path, monkeypatch):
    words = ["--checkpoint", run, "--output", tmp_path / "out"]
    assert "gone.wav: no such file or folder" in refused("predict", tmp_path / "gone.wav", *words)
    (tmp_path / "empty").mkdir()
    assert "empty: no audio in it, expected " in refused("predict", tmp_path / "empty", *words)
    (tmp_path / "text.wav").write_text("no audio")
    line = refused("predict", tmp_path / "text.wav", *words, alone=False)
    assert f"error: {tmp_path / 'text.wav'}: not readable as audio" in line
    (tmp_path / "zero.wav").write_bytes(b"")
    line = refused("predict", tmp_path / "zero.wav", tmp_path / "text.wav", *words, alone=False)
    assert "none of 2 files can be read" in line
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(recipe, "map_in_processes", None)  # it is refused before that
    words = ["--checkpoint", run, "--output", tmp_path / "file", "--overwrite"]
    line = refused("predict", place / "data" / "song0.wav", *words, alone=False)
    assert f"--output {tmp_path / 'file'}: is a file, expected a folder" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_predict_into_a_full_or_forbidden_folder(refused, run, place, tmp_path):
    song = place / "data" / "song0.wav"
    words = ["predict", song, "--checkpoint", run, "--no-timeline", "--output"]
    assert "/proc/none" in refused(*words, "/proc/none", alone=False)
    out = tmp_path / "out"
    with full_disk(20):
        assert "File too large" in refused(*words, out, alone=False)
    assert not [p for p in out.rglob("*") if p.is_file()]


def test_an_error_has_a_line_of_its_own_below_the_progress(refused, place, tmp_path, capsys):
    words = ["--composed", 3, "--composed-seconds", 3, "--output", tmp_path / "run", *TINY]
    with full_disk(3000):
        assert command(*words, "--cache", tmp_path / "cache") == 2
    assert capsys.readouterr().err.split("\n")[-2].startswith("error: cache folder ")


def test_a_mistake_of_ours_is_not_hidden(monkeypatch, place, capsys):
    def fail(settings):
        raise TypeError("our own")

    broken = recipe.COMMANDS["predict"]._replace(function=fail)
    monkeypatch.setitem(recipe.COMMANDS, "predict", broken)
    assert command("predict", place / "data", "--checkpoint", place / "run") == 1
    assert "TypeError: our own" in capsys.readouterr().err


def test_ctrl_c_is_reported_in_a_word(monkeypatch, place, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor.Recognizer, "from_checkpoint", stop)
    assert command("predict", place / "data", "--checkpoint", place / "run") == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_the_module_runs_and_exits_with_the_code(tmp_path):
    words = ["--data", str(tmp_path / "none"), "--output", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "audiotrain.recipes.chords", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {tmp_path / 'none'}: no such folder"


def test_help_names_every_setting(capsys):
    for verb, flag in (
        ("train", "--optimization.ema-decay"),
        ("evaluate", "--split"),
        ("predict", "--overwrite"),
    ):
        with pytest.raises(SystemExit) as done:
            command(verb, "--help")
        assert not done.value.code
        assert flag in capsys.readouterr().out


def test_songs_are_read_with_a_bar(place, capsys):
    library = songs.SongLibrary(songs.FeatureSettings(hop=4096), place / "cache")
    assert songs.load_renderings(library, []) == []
    assert "reading" in capsys.readouterr().err


def test_nothing_is_composed_without_a_word_of_it(place, capsys):
    settings = recipe.TrainSettings(data=place / "data", cache=place / "cache")
    assert recipe.ChordRecipe(settings).compose() == []
    assert capsys.readouterr().err == ""
