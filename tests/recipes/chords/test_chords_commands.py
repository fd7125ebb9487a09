"""The chord recipe from end to end, in small: train, resume, evaluate, predict."""

import csv
import itertools
import json
import re
import shutil
import sys
import urllib.parse
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from mlx.utils import tree_flatten
from preparing import contents, on_cores
from tiny_chords import STEPS, TINY, command, make_quick, sung

from audiotrain import config
from audiotrain.datasets import chords
from audiotrain.datasets.chords import readers
from audiotrain.datasets.synthesis import midi
from audiotrain.evaluation import plots
from audiotrain.features import audio
from audiotrain.music.chord_classes import encode
from audiotrain.music.segments import Segment, read_lab
from audiotrain.recipes.chords import commands as recipe
from audiotrain.recipes.chords import songs
from audiotrain.recipes.chords.predictor import Prediction, Recognizer
from audiotrain.recipes.chords.recipe import ChordRecipe
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common.cli import load_settings
from audiotrain.train.callbacks import EarlyStopping
from audiotrain.train.loggers import Logger, build
from audiotrain.train.loggers.base import encode as encode_image
from audiotrain.train.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that holds `data`, `cache` and the trained `run`."""
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(scope="module")
def data(place):
    return sung(place / "data")


@pytest.fixture(scope="module")
def run(place, data):
    """A run on `data`, with pictures, uncompiled as those that are compared with it."""
    words = ["--data", data, "--output", place / "run", "--cache", place / "cache", *TINY, *STEPS]
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, pictures=True)
        assert command(*words) == 0
    return place / "run"


@pytest.fixture
def quick(run, monkeypatch):
    """Small runs without what takes their time."""
    make_quick(monkeypatch)


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def log_rows(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


# ---- train


def test_a_run_folder_is_complete(run):
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    heads = ("chord_type", "root", "bass_note")
    expected = {
        "config.yaml",
        "split.json",
        "history.json",
        "metrics.csv",
        "metrics.jsonl",
        "curves.png",
        "metrics.json",
        "songs.csv",
        "scores.png",
        "root-intervals.csv",
        "example.lab",
        "example.png",
        "example-reference.lab",
        "timelines.json",
        "checkpoints/decoding.json",
        *(f"confusion-{head}.{kind}" for head in heads for kind in ("png", "csv")),
        *(
            f"checkpoints/{name}/{file}"
            for name in ("best", "last")
            for file in ("state.json", "model.safetensors")
        ),
    }
    assert expected <= files
    assert all((run / name).stat().st_size for name in files)
    assert not [name for name in files if name.split("/")[-1].startswith(".")]


def test_what_ran_is_saved_and_can_be_given_back(run, data, place):
    saved = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
    assert saved.data == data
    assert saved.output == run
    assert (saved.steps, saved.window, saved.model.width) == (6, 16, 36)
    assert saved.features.hop == 4096


def test_what_is_saved_means_the_same_in_any_folder(
    quick, data, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    words = ["--data", data.name, "--cache", "cache", "--output", tmp_path / "run", *TINY]
    assert command(*words, "--steps", 2) == 0
    assert command(*words, "--steps", 3, "--resume") == 0
    saved = config.load(TrainSettings, ["--config", str(tmp_path / "run" / "config.yaml")])
    assert (saved.data, saved.cache, saved.output) == (data, place / "cache", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert command("--output", "run", "--resume", "--steps", 4) == 0
    capsys.readouterr()
    assert command("evaluate", "--data", data, "--checkpoint", "run", "--cache", saved.cache) == 0
    assert "5 of 6 songs were in the training of the run" in capsys.readouterr().err


def test_training_goes_on_from_a_trained_run(quick, run, place, data, capsys):
    words = ["--data", data, "--cache", place / "cache", *STEPS]
    begun = place / "begun"
    still = ["--optimization.learning-rate", 1e-12, "--optimization.muon-rate", 1e-12]
    still += ["--window", 16]
    assert command(*words, "--pretrained", run, "--output", begun, *still) == 0
    before, after = (Recognizer.from_checkpoint(folder) for folder in (run, begun))
    assert after.settings == before.settings
    assert after.model.trunk.settings == before.model.trunk.settings
    weights = [dict(tree_flatten(one.model.parameters())) for one in (before, after)]
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[0].items():
        np.testing.assert_allclose(np.array(array), np.array(weights[1][name]), atol=1e-7)
    capsys.readouterr()
    assert command(*words, "--pretrained", run, "--model.width", 48) == 2
    assert "--model…: other than in " in capsys.readouterr().err
    assert command(*words, "--pretrained", data) == 2
    assert f"--pretrained {data}: no trained run there" in capsys.readouterr().err


def test_songs_are_in_one_part_each(run):
    parts = read_json(run / "split.json")["items"]
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [4, 1, 1]
    assert len({name for part in parts.values() for name in part}) == 6


def test_scores_are_of_the_unseen_songs(run):
    tested = read_json(run / "split.json")["items"]["test"]
    rows = list(csv.DictReader((run / "songs.csv").read_text().splitlines()))
    assert [row["song"] for row in rows] == tested
    result = read_json(run / "metrics.json")
    assert result["songs"] == 1
    assert result["seconds"] == pytest.approx(5.0, abs=0.2)
    for name in ("viterbi", "argmax"):
        assert 0 <= result[name]["corpus"]["mirex"] <= 1
    assert 0 <= result["frames"]["chord_type_acc"] <= 1


def test_history_has_a_value_for_each_epoch(run):
    history = read_json(run / "history.json")
    assert len(history["train_loss"]) == len(history["rows"]) > 0
    assert history["rows"][-1]["step"] == 6
    for name in ("train_loss", "val_loss", "val_chord_acc", "learning_rate"):
        assert name in history
    steps = [int(row["step"]) for row in log_rows(run)]
    assert steps == sorted(steps)
    assert steps[-1] == 6


def test_the_example_is_an_unseen_song_as_long_as_its_audio(run, data):
    (name,) = read_json(run / "split.json")["items"]["test"]
    annotation = read_lab(run / "example.lab")
    assert annotation.problems == []
    assert annotation.segments[0].start == 0
    assert annotation.segments[-1].end == pytest.approx(audio.info(data / name).seconds, abs=1e-5)
    assert not (run / "example.wav").exists()  # it is a recording already


def test_a_second_run_is_the_same_and_extracts_nothing(
    quick, run, place, data, monkeypatch, capsys
):
    def refuse(*arguments):
        raise AssertionError("extracted again")

    monkeypatch.setattr(songs.extract, "extract", refuse)
    words = ["--data", data, "--output", place / "again", "--cache", place / "cache"]
    assert command(*words, *TINY, *STEPS) == 0
    first, second = read_json(run / "metrics.json"), read_json(place / "again" / "metrics.json")
    assert first == second
    losses = [
        [row["train_loss"] for row in read_json(place / name / "history.json")["rows"]]
        for name in ("run", "again")
    ]
    assert losses[0] == losses[1]
    printed = capsys.readouterr()
    assert "data in" in printed.out  # the report comes before training
    assert "chord type" in printed.out


@pytest.mark.slow
def test_without_data_songs_are_composed(place, capsys):
    run = place / "composed"
    words = ["--output", run, "--cache", place / "cache", "--composed", 5, "--composed-seconds", 3]
    assert command(*words, *TINY, "--steps", 3) == 0
    printed = capsys.readouterr().out
    assert re.search(r"song-000\d, an unseen song", printed)
    assert "reference" in printed
    assert "estimate" in printed
    assert (run / "example.wav").stat().st_size > 10_000
    assert read_json(run / "metrics.json")["songs"] == 1
    assert not (run / "split.json").exists()
    prediction = read_lab(run / "example.lab").segments
    seconds = audio.info(run / "example.wav").seconds
    assert prediction[-1].end == pytest.approx(seconds, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["transformer", "conv", "conformer", "btc"])
def test_every_architecture_trains(quick, place, data, architecture):
    output = place / architecture
    words = ["--data", data, "--output", output, "--cache", place / "cache", *TINY]
    assert command(*words, "--steps", 2, "--model.architecture", architecture) == 0
    assert read_json(output / "metrics.json")["songs"] == 1


def test_muon_trains_what_is_between_stem_and_heads(quick, place, data):
    output = place / "muon"
    words = ["--data", data, "--output", output, "--cache", place / "cache", *TINY, "--steps", 2]
    words += ["--model.stem-hidden", 8, "--optimization.learning-rate", 1e-30]
    assert command(*words) == 0
    saved = output / "checkpoints" / "last" / "model.safetensors"
    before = mx.load(str(saved))
    assert command("--output", output, "--resume", "--steps", 4) == 0
    after = mx.load(str(saved))
    moved = {name for name in after if not mx.allclose(before[name], after[name], atol=1e-9)}
    parts = (
        "blocks.0.inner",
        "blocks.0.outer",
        "pools.0.inner",
        "pools.0.outer",
        "pools.0.changing",
    )
    assert moved == {f"model.trunk.{part}.weight" for part in parts}


def test_options_of_the_loss_train(quick, place, data):
    output = place / "loss"
    words = ["--data", data, "--output", output, "--cache", place / "cache", *TINY, "--steps", 2]
    words += ["--loss.class-power", 0.5, "--loss.consonant-smoothing"]
    assert command(*words) == 0
    assert np.isfinite(read_json(output / "history.json")["rows"][-1]["train_loss"])


def test_a_preset_file_is_no_mystery(quick, place, data, tmp_path):
    """config.yaml of a run, given back with --config, is that run."""
    output = tmp_path / "copy"
    given = ["--config", place / "run" / "config.yaml", "--output", output]
    assert command(*given) == 0
    assert read_json(output / "metrics.json") == read_json(place / "run" / "metrics.json")


class Notes(Logger):
    """Keeps what a logger is given."""

    def __init__(self):
        self.rows, self.settings, self.pictures, self.finished = [], None, {}, False

    def log_metrics(self, metrics, step):
        self.rows.append(metrics)

    def log_hyperparams(self, config):
        self.settings = config["settings"]

    def log_image(self, name, image, step):
        self.pictures[name] = step

    def finish(self):
        self.finished = True


def test_loggers_get_numbers_settings_and_confusion_matrices(
    quick, place, data, tmp_path, monkeypatch
):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def draw(matrix, names, path, title):
        path.write_bytes(encode_image(np.zeros((len(names), len(names)), np.uint8), title))

    notes = Notes()
    monkeypatch.setattr(plots, "confusion_picture", draw)
    monkeypatch.setattr(build, "WandbLogger", lambda *arguments, **named: notes)
    words = ["--data", data, "--output", tmp_path / "run", "--cache", place / "cache"]
    words += [*TINY, *STEPS, "--loggers", "wandb", "tensorboard"]
    assert command(*words) == 0
    matrices = {f"confusion-{head}": 6 for head in ("chord_type", "root", "bass_note")}
    assert notes.pictures == matrices
    assert notes.settings["model"]["width"] == 36
    assert {"train_loss", "val_loss"} <= {name for row in notes.rows for name in row}
    assert notes.finished
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {name: events.Images(name)[0].step for name in events.Tags()["images"]} == matrices
    assert (events.Images("confusion-root")[0].width, len(events.Scalars("val_loss"))) == (12, 2)
    assert "config" in events.Tags()["tensors"]


def test_each_logger_is_of_the_run_and_a_missing_one_is_reported_at_once(
    tmp_path, monkeypatch, capsys
):
    wandb, mlflow = runs.loggers_of(("wandb", "mlflow"), "x", tmp_path / "run")
    assert (wandb.name, wandb.save_dir) == ("run", tmp_path / "run")
    assert mlflow.run_name == "run"
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert command("--output", tmp_path / "run", "--loggers", "mlflow") == 2
    assert capsys.readouterr().err == (
        "error: --loggers mlflow: not installed: pip install mlflow\n"
    )
    assert not (tmp_path / "run").exists()


# ---- recordings that cannot be used


def test_bad_recordings_are_left_out_with_a_count(quick, place, tmp_path, capsys):
    folder = sung(tmp_path / "data", 5, 2.0)
    for name in ("zero", "cut", "nan", "short", "six", "fast", "slow", "quiet", "bytes", "part"):
        (folder / f"{name}.lab").write_text("0\t9\tC:maj\n")
    tone = (0.1 * np.sin(np.arange(44100) / 10)).astype(np.float32)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "bytes.mp3").write_bytes(bytes(range(256)) * 40)
    whole = (folder / "song0.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 3])
    (folder / "part.wav").write_bytes(whole[: len(whole) * 3 // 4])
    broken = tone.copy()
    broken[1000] = np.nan
    audio.write(folder / "nan.wav", broken, 22050)
    audio.write(folder / "short.wav", tone[:2205], 22050)
    audio.soundfile.write(folder / "six.wav", np.tile(tone[:, None], 6), 22050)
    audio.write(folder / "fast.wav", tone, 192_000)
    audio.write(folder / "slow.wav", tone[:8000], 8000)
    audio.write(folder / "quiet.flac", np.zeros(22050, np.float32), 22050)
    (folder / "nolabels.wav").write_bytes(whole)
    (folder / "noaudio.lab").write_text("0 1 C\n")
    output = tmp_path / "run"
    words = ["--data", folder, "--output", output, "--cache", place / "cache", *TINY, "--steps", 2]
    assert command(*words) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    listed = printed.out.split("  problems")[1].splitlines()
    for line in (
        "3 audio that can't be read",  # by their headers
        "cut.wav: damaged or cut short: ",
        "zero.wav: the file is empty (0 bytes)",
        "bytes.mp3: not readable as audio: ",
        "1 audio without labels",
        "nolabels.wav",
        "1 labels without audio",
        "noaudio.lab",
    ):
        assert any(found.strip().startswith(line) for found in listed), line
    assert "left out 1 of 12 songs that can't be read, such as" in printed.out
    part = f"{folder / 'part.wav'}: 0.5 s at the end can't be decoded, left out"
    assert printed.out.count(part) == 1
    assert f"1 of 12 songs can't be decoded whole:\n  {part}" in printed.out
    assert "nan.wav: 1 NaN or Inf samples, the first at 0.045 s" in printed.out
    lines = (output / "problems.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("labels past the end")]
    assert len(lines) == 7
    for name in ("cut", "zero", "bytes", "nolabels", "noaudio", "nan", "part"):
        assert sum(f": {name}." in line or f"/{name}." in line for line in lines) == 1, name
    named = itertools.chain(*read_json(output / "split.json")["items"].values())
    assert {"short.wav", "six.wav", "fast.wav", "slow.wav", "quiet.flac", "part.wav"} < set(named)
    # The line comes again where the features are in the cache; one strict word refuses the file.
    evaluated = ["evaluate", "--data", folder, "--cache", place / "cache", "--checkpoint", output]
    for number in range(2):
        assert command(*evaluated, "--output", tmp_path / f"scores{number}") == 0
        assert capsys.readouterr().out.count(part) == 1
    assert command(*evaluated, "--output", tmp_path / "strict", "--strict") == 2
    assert "can't be read: " in capsys.readouterr().err
    words = ["predict", folder / "part.wav", "--checkpoint", output, "--output", tmp_path / "lab"]
    assert command(*words) == 0
    assert capsys.readouterr().err.count(f"warning: {part}\n") == 1
    assert command(*words, "--overwrite", "--strict") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {part.removesuffix(', left out')}"


def test_bad_labels_are_reported_with_file_and_line(quick, place, tmp_path, capsys):
    folder = sung(tmp_path / "data", 5, 2.0)
    (folder / "song0.lab").write_bytes(b"\xef\xbb\xbf0 1 C:maj\r\n1 2 G:7\r\n")  # BOM, Windows
    (folder / "song1.lab").write_bytes("0 1 C:maj\n1 2 H:ümlaut\n".encode("latin-1"))
    (folder / "song2.lab").write_text("-1 1 C:maj\n0.5 2 G:7\n3 2 F\nno label\n2 90 A:min\n")
    output = tmp_path / "run"
    words = ["--data", folder, "--output", output, "--cache", place / "cache", *TINY, "--steps", 2]
    assert command(*words) == 0
    printed = capsys.readouterr().out
    for text in (
        "song1.lab:1: not UTF-8, read as Latin-1",
        "song1.lab:2: ",
        "song2.lab:1: starts at -1",
        "song2.lab:2: overlaps",
        "song2.lab:3: ends at 2",
        "song2.lab:4: found 'no label'",
        "song2.wav: last label ends at 90.00 s, the audio at 2.00 s",
    ):
        assert text in printed, text
    assert "song0.lab" not in printed.split("train:")[0]


# ---- resume


@pytest.fixture
def begun(run, tmp_path):
    """A copy of the run that the test may change."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_resume_continues_with_the_runs_own_settings(quick, begun, capsys):
    assert command("--output", begun, "--resume", "--steps", 9) == 0
    assert [int(row["step"]) for row in log_rows(begun)][-1] == 9
    rows = read_json(begun / "history.json")["rows"]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    saved = config.load(TrainSettings, ["--config", str(begun / "config.yaml")])
    assert (saved.steps, saved.window, saved.resume) == (9, 16, False)
    assert capsys.readouterr().out.count("data in ") == 1


def test_resuming_a_copy_leaves_the_original_alone(quick, run, begun):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert command("--output", begun, "--resume", "--steps", 12) == 0
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert sorted(p.name for p in (begun / "checkpoints").iterdir()) == [
        "best",
        "decoding.json",
        "last",
    ]


def test_a_resumed_run_is_the_run_that_was_not_stopped(quick, run, place, data, tmp_path):
    """Stopped by its limit of steps, with the schedule of the whole; then continued."""
    words = ["--data", data, "--output", tmp_path / "run", "--cache", place / "cache"]
    given = [str(word) for word in (*words, *TINY, *STEPS)]
    settings = load_settings("chords", recipe.COMMANDS, "train", given)
    folder = runs.open_run(settings, "chords")
    chords = ChordRecipe(settings)
    experiment = chords.experiment(chords.read(folder), folder)
    trainer, loaders = runs.make_trainer(chords, experiment, folder)

    class Stop(EarlyStopping):
        def __init__(self):
            super().__init__("val_loss", patience=1)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    trainer.callbacks.insert(0, Stop())
    trainer.fit(experiment.module, *loaders)
    assert trainer.global_step == 3
    assert command("--output", tmp_path / "run", "--resume") == 0
    first, second = read_json(run / "metrics.json"), read_json(tmp_path / "run" / "metrics.json")
    assert first["frames"] == second["frames"]
    ends = [read_json(folder / "history.json")["rows"][-1] for folder in (run, tmp_path / "run")]
    assert ends[0]["val_loss"] == ends[1]["val_loss"]


def test_a_stopped_run_says_how_to_continue_it(quick, place, data, tmp_path, monkeypatch, capsys):
    def stop(self, *arguments, **named):
        raise SystemExit(130)

    monkeypatch.setattr(Trainer, "fit", stop)
    words = ["--data", data, "--output", tmp_path / "run", "--cache", place / "cache", *TINY]
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    assert stopped.value.code == 130
    assert f"--output {tmp_path / 'run'} --resume" in capsys.readouterr().err


# ---- evaluate


def test_evaluate_scores_a_folder(quick, run, data, place, tmp_path, capsys):
    words = ["evaluate", "--data", data, "--checkpoint", run, "--cache", place / "cache"]
    assert command(*words, "--output", tmp_path / "all") == 0
    result = read_json(tmp_path / "all" / "metrics.json")
    assert result["songs"] == 6
    assert "whole chord" in capsys.readouterr().out
    assert command(*words, "--output", tmp_path / "test", "--split", "test") == 0
    again, trained = read_json(tmp_path / "test" / "metrics.json"), read_json(run / "metrics.json")
    assert again.pop("evaluated") == {
        "data": str(data),
        "split": "test",
        "checkpoint": [str(run)],
        "tta": [],
    }
    assert again == trained


def test_evaluate_writes_into_the_run_by_default_and_leaves_its_own_files(
    quick, begun, data, place
):
    before = {p.name: p.read_bytes() for p in begun.iterdir() if p.is_file()}
    words = ["evaluate", "--data", data, "--cache", place / "cache", "--checkpoint"]
    assert command(*words, begun.parent) == 0
    assert (begun / "evaluation-data" / "songs.csv").exists()
    assert command(*words, begun, "--split", "test", "--tta", "tuning") == 0
    assert command(*words, begun, "--no-tuning", "--overwrite", "--output", place / "untuned") == 0
    assert read_json(place / "untuned" / "metrics.json")["evaluated"]["tuning"] is False
    names = ("evaluation-data", "evaluation-data-test")
    scores = [read_json(begun / name / "metrics.json") for name in names]
    assert [one["songs"] for one in scores] == [6, 1]
    assert [one["evaluated"]["tta"] for one in scores] == [[], ["tuning"]]
    assert before == {p.name: p.read_bytes() for p in begun.iterdir() if p.is_file()}


def test_evaluate_the_split_of_other_data_is_refused(begun, place, tmp_path, capsys):
    other = sung(tmp_path / "other", 1, 1.0)
    (other / "song0.wav").rename(other / "x.wav")
    (other / "song0.lab").rename(other / "x.lab")
    before = (begun / "split.json").read_bytes()
    words = ["evaluate", "--data", other, "--checkpoint", begun, "--cache", place / "cache"]
    assert command(*words, "--split", "test") == 2
    told = "neither the run's split nor the data name any of the 1 song in"
    assert told in capsys.readouterr().err
    assert (begun / "split.json").read_bytes() == before


# ---- predict


@pytest.mark.parametrize(
    ("seconds", "tuning", "sure", "parts"),
    [
        (61.4, 0.0, 0.9, ["61 s"]),
        (7200.2, 0.0, 0.9, ["2:00:00"]),
        (61.4, -0.15, 0.9, ["61 s", "tuned -15 cents from A = 440 Hz"]),
        (61.4, 0.0, 0.1, ["61 s", "little music found"]),
        (9.96, 0.0, 0.9, ["10.0 s"]),
        (0.26, 0.0, 0.9, ["0.3 s"]),
        (0.00002, 0.0, 0.9, ["0.000 s"]),
    ],
)
def test_a_prediction_is_described_by_length_tuning_and_whether_it_is_music(
    seconds, tuning, sure, parts
):
    segments = [Segment(0.0, seconds / 2, "C:maj"), Segment(seconds / 2, seconds, "N")]
    assert recipe.described(Prediction(segments, [sure, 0.9], seconds, tuning)) == parts
    silent = Prediction(segments[1:], [0.9], seconds)
    assert recipe.described(silent) == [parts[0], "no chords found"]


def test_the_terminal_spells_chords_by_the_key():
    labels = ("C#:min", "Eb:maj/3", "N", "G:7")
    segments = [Segment(n, n + 1, label) for n, label in enumerate(labels)]

    def spelled(key):
        return [one.label for one in recipe.as_spelled(Prediction(segments, [], 4.0, key=key))]

    assert spelled((8, "major")) == ["Db:min", "Eb:maj/3", "N", "G:7"]
    assert spelled((4, "major")) == ["C#:min", "D#:maj/3", "N", "G:7"]
    assert spelled(None) == list(labels)


def test_predict_writes_every_format_for_every_file_of_a_folder(run, data, tmp_path, capsys):
    source = tmp_path / "music"
    (source / "album").mkdir(parents=True)
    shutil.copy(data / "song0.wav", source / "one.wav")
    shutil.copy(data / "song1.wav", source / "album" / "02. two.wav")
    (source / "album" / "cover.jpg").write_bytes(b"picture")
    formats = ["lab", "jams", "mid", "csv", "json", "chordpro"]
    words = ["predict", source, "--checkpoint", run, "--output", tmp_path / "out", "--formats"]
    assert command(*words, *formats) == 0
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {f"{stem}.{kind}" for stem in ("one", "album/02. two") for kind in formats}
    printed = capsys.readouterr().out
    assert "x real time" in printed
    assert f"-> {tmp_path / 'out' / 'one.lab'}, .jams, .mid, .csv, .json, .chordpro\n" in printed
    for stem, song in (("one", "song0"), ("album/02. two", "song1")):
        seconds = audio.info(data / f"{song}.wav").seconds
        readings = {
            kind: readers.read(tmp_path / "out" / f"{stem}.{kind}")
            for kind in ("lab", "jams", "csv", "json")
        }
        for kind, annotation in readings.items():
            assert annotation.problems == [], kind
            said = [encode(s.label) for s in annotation.segments]  # JAMS knows no 11, but 9(11)
            assert said == [encode(s.label) for s in readings["lab"].segments]
            assert annotation.segments[-1].end == pytest.approx(seconds, abs=1e-3)
        jams = read_json(tmp_path / "out" / f"{stem}.jams")
        confidences = [row["confidence"] for row in jams["annotations"][0]["data"]]
        assert all(0 <= confidence <= 1 for confidence in confidences)
        assert jams["file_metadata"]["duration"] == pytest.approx(seconds, abs=1e-3)
        played = midi.read_midi(tmp_path / "out" / f"{stem}.mid")
        chords_played = [s for s in readings["lab"].segments if encode(s.label).root >= 0]
        assert bool(played) == bool(chords_played)


@pytest.mark.slow
@pytest.mark.parametrize("tta", [[], ["--no-tuning"]])
def test_predict_writes_the_same_labels_on_one_core_and_on_two(
    run, data, tmp_path, monkeypatch, tta
):
    (tmp_path / "music").mkdir()
    for number in range(4):
        shutil.copy(data / f"song{number}.wav", tmp_path / "music")
    noise = np.random.default_rng(0).normal(0, 0.1, 22050 * 21).astype(np.float32)
    audio.write(tmp_path / "music" / "long.wav", noise, 22050)
    monkeypatch.setattr(recipe, "LONGEST", 20.0)  # longer: not by a worker
    (tmp_path / "music" / "zero.wav").write_bytes(b"")
    written = []
    for cores in (1, 2):
        on_cores(monkeypatch, cores)
        folder = tmp_path / f"out{cores}"
        words = ["predict", tmp_path / "music", "--checkpoint", run, "--output", folder]
        assert command(*words, "--no-timeline", "--formats", "lab", "json", *tta) == 0
        written.append(contents(folder))
    assert written[0] == written[1]
    assert len(written[0]) == 10


def test_predict_options_reach_the_result(run, data, tmp_path):
    def labels(*options):
        folder = tmp_path / "_".join(options)
        words = ["predict", data / "song0.wav", "--checkpoint", run, "--output", folder]
        assert command(*words, "--no-timeline", *options) == 0
        return [s.label for s in read_lab(folder / "song0.lab").segments]

    plain = labels("--decoding", "argmax")
    assert any("/" in label for label in plain)
    assert not any("/" in label for label in labels("--decoding", "argmax", "--bass", "off"))
    assert labels() == labels("--decoding", "viterbi") != plain


def test_predict_leaves_out_what_it_cannot_read_with_a_count(run, data, tmp_path, capsys):
    source = tmp_path / "music"
    source.mkdir()
    shutil.copy(data / "song0.wav", source / "good.wav")
    (source / "zero.flac").write_bytes(b"")
    audio.write(source / "nan.wav", np.full(9000, np.nan, np.float32), 22050)
    assert command("predict", source, "--checkpoint", run) == 0
    printed = capsys.readouterr().err
    assert "left out: " + str(source / "zero.flac") in printed
    assert "left out 2 of 3 files" in printed
    assert (source / "good.lab").exists()
    assert not (source / "zero.lab").exists()


def test_predict_replaces_no_labels(run, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "music")
    before = (tmp_path / "music" / "song0.lab").read_bytes()
    assert command("predict", tmp_path / "music", "--checkpoint", run) == 2
    assert "song0.lab and 5 more exist already: --overwrite replaces" in capsys.readouterr().err
    assert (tmp_path / "music" / "song0.lab").read_bytes() == before
    words = ["predict", tmp_path / "music" / "song0.wav", "--checkpoint", run, "--overwrite"]
    assert command(*words) == 0
    assert (tmp_path / "music" / "song0.lab").read_bytes() != before


@pytest.mark.parametrize("names", [("a.wav", "a.flac"), ("x/a.wav", "y/a.wav")])
def test_predict_writes_no_result_over_another(run, data, tmp_path, names, capsys):
    samples = audio.read(data / "song0.wav", 22050)[:22050]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        audio.write(tmp_path / name, samples, 22050)
    words = [tmp_path / name for name in names]
    assert command("predict", *words, "--checkpoint", run, "--output", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "a.lab: would be written for both" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", [0.0001, 0.1, 40])
def test_predict_any_length(run, tmp_path, seconds):
    samples = 0.1 * np.random.default_rng(0).standard_normal(max(1, round(seconds * 22050)))
    audio.write(tmp_path / "x.wav", samples.astype(np.float32), 22050)
    assert command("predict", tmp_path / "x.wav", "--checkpoint", run) == 0
    last = read_lab(tmp_path / "x.lab").segments[-1]
    assert last.end == pytest.approx(len(samples) / 22050, abs=1e-6)


# ---- the splits of the corpus


def test_a_group_stays_together(quick, place, tmp_path):
    folder = sung(tmp_path / "data", 6, 1.0)
    rows = ["audio,label,artist", *(f"song{n}.wav,song{n}.lab,{n // 2}" for n in range(6))]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    output = tmp_path / "run"
    words = ["--data", folder, "--output", output, "--cache", place / "cache", "--group", "artist"]
    assert command(*words, *TINY, "--steps", 2, "--valid", 0.3, "--test", 0.3) == 0
    parts = read_json(output / "split.json")["items"]
    artists = [{int(name[4]) // 2 for name in part} for part in parts.values()]
    assert [len(found) for found in artists] == [1, 1, 1]
    assert len(set.union(*artists)) == 3


def test_a_split_says_how_many_songs_it_leaves_out(quick, run, data, place, tmp_path, capsys):
    parts = read_json(run / "split.json")["items"]
    left = parts["train"].pop()
    (tmp_path / "split.json").write_text(json.dumps({"items": parts}))
    output = tmp_path / "run"
    words = ["--data", data, "--output", output, "--cache", place / "cache", *TINY, "--steps", 2]
    assert command(*words, "--split", tmp_path / "split.json") == 0
    assert "left out 1 of 6 songs that --split " in capsys.readouterr().out
    assert left not in sum(read_json(output / "split.json")["items"].values(), [])


def test_folders_of_train_and_valid_are_enough(quick, data, place, tmp_path):
    for number, part in enumerate(["train"] * 4 + ["valid"]):
        (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
        for name in (f"song{number}.wav", f"song{number}.lab"):
            (tmp_path / "data" / part / name).symlink_to(data / name)
    output = tmp_path / "run"
    words = ["--data", tmp_path / "data", "--output", output, "--cache", place / "cache"]
    assert command(*words, *TINY, "--steps", 2) == 0
    parts = read_json(output / "split.json")["items"]
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 3,
        "valid": 1,
        "test": 1,
    }
    assert parts["valid"] == ["valid/song4.wav"]


def test_spans_of_recordings_are_songs(quick, place, tmp_path):
    folder = sung(tmp_path / "data", 3, 5.0)
    rows = ["audio,label,start,end", *(f"song{n}.wav,song{n}.lab,2,3.5" for n in range(3))]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    output = tmp_path / "run"
    words = ["--data", folder, "--output", output, "--cache", place / "cache"]
    assert command(*words, *TINY, "--steps", 2) == 0
    assert read_json(output / "metrics.json")["seconds"] == pytest.approx(1.5, abs=0.2)
    # the example is the span, not the whole of the recording
    assert read_lab(output / "example.lab").segments[-1].end == pytest.approx(1.5, abs=1e-4)


def test_labels_of_a_clip_last_as_long_as_it(place, tmp_path):
    for name in ("C", "Am"):
        (tmp_path / name).mkdir()
        for number in range(3):
            tone = (0.1 * np.sin(np.arange(22050) * (0.1 + number))).astype(np.float32)
            audio.write(tmp_path / name / f"{number}.wav", tone, 22050)
    (item, *_) = chords.discover(tmp_path).items
    song = songs.SongLibrary(songs.FeatureSettings(), place / "cache").song(item)
    assert song.segments == [Segment(0.0, pytest.approx(11 * 2048 / 22050, abs=0.1), "A:min")]
    assert len({tuple(row) for row in song.classes.tolist()}) == 1


def test_predict_writes_pages_with_an_index(run, data, tmp_path, capsys):
    source = tmp_path / "music"
    source.mkdir()
    names = ("a & b", "broken", "<img src=x>", "last")
    for number, name in enumerate(names):
        shutil.copy(data / f"song{number}.wav", source / f"{name}.wav")
    (source / "broken.wav").write_bytes(b"RIFF")
    words = ["predict", source, "--checkpoint", run, "--formats", "html", "lab"]
    assert command(*words) == 0
    texts = {name: (source / f"{name}.html").read_text() for name in (*names[::2], "last", "index")}
    assert not (source / "broken.html").exists()
    assert not any("<img" in text for text in texts.values())
    links = re.findall(r'<a href="(.*?)"', texts["index"])
    assert sorted(links) == ["%3Cimg%20src%3Dx%3E.html", "a%20%26%20b.html", "last.html"]
    for number, link in enumerate(links):
        page = (source / urllib.parse.unquote(link)).read_text()
        content = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
        neighbours = [*links, ""][number + 1], ["", *links][number]
        assert content["links"] == {
            "next": neighbours[0], "previous": neighbours[1], "index": "index.html",
        }  # fmt: skip
        assert len(content["sound"]["base64"]) * 3 / 4 == pytest.approx(12000 * 5, rel=0.1)
        lab = read_lab((source / urllib.parse.unquote(link)).with_suffix(".lab")).segments
        assert [encode(row[2]) for row in content["segments"]] == [encode(s.label) for s in lab]
    assert capsys.readouterr().out.endswith(f"all songs: {source / 'index.html'}\n")
    (source / "last.lab").unlink()
    assert command("predict", source / "last.wav", *words[2:]) == 2
    assert "last.html exists already: --overwrite" in capsys.readouterr().err


def test_an_index_tells_songs_of_one_name_apart(run, data, tmp_path, capsys):
    source = tmp_path / "music"
    for number, name in enumerate(("a/same", "b/same", "index")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / f"song{number}.wav", source / f"{name}.wav")
    words = ["predict", source, "--checkpoint", run, "--formats", "html"]
    assert command(*words) == 2
    assert f"page of {source / 'index.wav'} and the list of all songs" in capsys.readouterr().err
    (source / "index.wav").rename(source / "other.wav")
    assert command(*words) == 0
    titles = re.findall(r'<a href=".*?">(.*?)</a>', (source / "index.html").read_text())
    assert titles == ["a/same", "b/same", "other"]
    assert "<h1>same</h1>" in (source / "a" / "same.html").read_text()


def test_predict_names_songs_by_their_tags(run, data, tmp_path, capsys):
    samples, rate = soundfile.read(data / "song0.wav", dtype="float32")
    for name, title, artist in (
        ("Artist - 01", "<i>One</i>\n\u2028{x}", "Édith & Co"),
        ("Artist - 02", "", "Zoë"),
        ("b/03", "Same", ""),
        ("b/04", "Same", ""),
        ("b/05", "Same", "Other"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with soundfile.SoundFile(tmp_path / f"{name}.flac", "w", rate, 1) as file:
            for tag, text in (("title", title), ("artist", artist)):
                setattr(file, tag, text or " ")  # libsndfile refuses empty ones
            file.write(samples[: 2 * rate])
    formats = ["html", "json", "jams", "chordpro"]
    assert command("predict", tmp_path, "--checkpoint", run, "--formats", *formats) == 0
    page = (tmp_path / "Artist - 01.html").read_text()
    assert '<h1>&lt;i&gt;One&lt;/i&gt; {x}</h1>\n<p id="artist">Édith &amp; Co</p>' in page
    content = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert (content["name"], content["title"]) == ("Artist - 01", "<i>One</i> {x}")
    texts = {suffix: (tmp_path / f"Artist - 01.{suffix}").read_text() for suffix in formats}
    assert json.loads(texts["json"])["title"] == "<i>One</i> {x}"
    assert json.loads(texts["jams"])["file_metadata"]["artist"] == "Édith & Co"
    assert texts["chordpro"].startswith("{title: <i>One</i> x}\n{artist: Édith & Co}\n")
    assert "{title: Artist - 02}\n{artist: Zoë}" in (tmp_path / "Artist - 02.chordpro").read_text()
    songs = re.findall(r"<a href=.*?>(.*?)</a>(.*?)</div>", (tmp_path / "index.html").read_text())
    assert songs == [
        ("&lt;i&gt;One&lt;/i&gt; {x}", " <span>Édith &amp; Co</span>"),
        ("Artist - 02", " <span>Zoë</span>"),
        ("b/03", ""),
        ("b/04", ""),
        ("Same", " <span>Other</span>"),
    ]


def test_predict_writes_long_sound_beside_its_page(run, data, tmp_path, capsys):
    shutil.copy(data / "song0.wav", tmp_path / "song.wav")
    words = ["--checkpoint", run, "--formats", "html", "--sound-megabytes", "0"]
    assert command("predict", tmp_path / "song.wav", *words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav", "song.html", "song.mpga"}
    assert "song.html: its sound is in song.mpga" in capsys.readouterr().out
    assert '"sound":{"file":"song.mpga"}' in (tmp_path / "song.html").read_text()
    (tmp_path / "song.html").unlink()
    assert command("predict", tmp_path / "song.wav", *words) == 2
    assert "song.mpga exists already: --overwrite" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_leaves_the_others(run, data, tmp_path, capsys):
    """A name as long as a file may have has no room for a longer suffix."""
    long = "x" * 251
    for name in ("a", long, "z"):
        shutil.copy(data / "song0.wav", tmp_path / f"{name}.wav")
    words = ["--checkpoint", run, "--formats", "lab", "html", "jams", "--output", tmp_path / "out"]
    assert command("predict", tmp_path, *words) == 2
    printed = capsys.readouterr()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.lab", "a.html", "a.jams", f"{long}.lab", "z.lab", "z.html", "z.jams"} | {
        "index.html"
    }
    for suffix in ("html", "jams"):
        assert f": {tmp_path / 'out' / long}.{suffix}: cannot write: " in printed.err
    assert printed.err.endswith(" (2 of 10 results could not be written)\n")
    assert f"{long}.wav: " in printed.out
    assert f"-> {tmp_path / 'out' / long}.lab\n" in printed.out
    assert long not in (tmp_path / "out" / "index.html").read_text()


def test_a_song_is_announced_when_its_page_is_there(run, data, tmp_path, monkeypatch):
    source = tmp_path / "music"
    source.mkdir()
    for number in range(3):
        shutil.copy(data / f"song{number}.wav", source / f"{number}.wav")
    announced = []

    def print_and_look(text="", **options):
        if " -> " in str(text):
            first, *others = text.split(" -> ")[1].split(", ")
            paths = [Path(first), *(Path(first).with_suffix(suffix) for suffix in others)]
            assert all(path.is_file() for path in paths)
            announced.extend(path.name for path in paths)

    monkeypatch.setattr(recipe, "print", print_and_look, raising=False)
    assert command("predict", source, "--checkpoint", run, "--formats", "html", "lab") == 0
    assert announced == [f"{n}.{suffix}" for n in range(3) for suffix in ("html", "lab")]
