"""A fourth recipe on the shared machinery: the loudness of a clip, by one linear layer."""

import functools
import json
import shutil
from dataclasses import field, replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from audiotrain import config
from audiotrain.config.schema import InnerShare, NonNegativeInt, PositiveInt, validated
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.features import audio
from audiotrain.recipes.common import checkpoints, cli, run, split
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.ensemble import EnsembleSpec
from audiotrain.recipes.common.recipe import Experiment, Recipe
from audiotrain.recipes.common.settings import EvaluateSettings, RunSettings
from audiotrain.train import checkpoint
from audiotrain.train.data.loader import Dataset
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.trainer import Trainer
from audiotrain.utils.files import write_json

RATE = 8000


@validated
class Optimization:
    """Adam."""

    gradient_clip: float = 1.0
    ema_decay: float = 0.0


@validated(kw_only=True)
class TrainSettings(RunSettings):
    """Train a model of loudness."""

    valid: InnerShare = 0.2
    test: InnerShare = 0.2
    batch_size: PositiveInt = 8
    epochs: PositiveInt = 40
    validations: PositiveInt = 2
    workers: NonNegativeInt = 0
    optimization: Optimization = field(default_factory=Optimization)


class Loudest(TrainModule):
    """The loudness of a clip in dB, from the logarithm of its peak."""

    def __init__(self):
        super().__init__()
        mx.random.seed(0)
        self.linear = nn.Linear(1, 1)

    def compute_loss(self, batch):
        found = self.linear(batch["peak"])[:, 0]
        return mx.abs(found - batch["loudness"]).mean(), {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.Adam(learning_rate=0.3))


class Peaks(Dataset):
    """Samples {"peak", "loudness"} of clips."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        clip, samples = self.rows[index]
        peak = np.log10(np.abs(samples).max(keepdims=True)).astype(np.float32)
        return {"peak": peak, "loudness": np.float32(loudness(samples))}


def loudness(samples) -> float:
    """RMS in dB."""
    return float(10 * np.log10(np.mean(np.square(samples)) + 1e-9))


class Loudness(Recipe[TrainSettings]):
    name = "loudness"

    def discover(self, log):
        folder = self.settings.data
        paths = sorted(folder.glob("*.wav"))
        return Corpus(folder, [Clip(path.name, path, (), group=path.name) for path in paths], [])

    def load(self, items):
        return [read(clip) for _, clip in items]

    def experiment(self, parts, run):
        return Experiment(Loudest(), Peaks(parts["train"]), Peaks(parts["valid"]))

    def score(self, parts, run):
        found = predict([run], [clip for clip, _ in parts["test"]])
        wanted = [loudness(samples) for _, samples in parts["test"]]
        error = float(np.mean(np.abs(np.subtract(list(found.values()), wanted))))
        write_json(run / "metrics.json", {"error": error})
        return {"error": error}


def read(clip):
    """A clip and its samples, or why it cannot be read."""
    try:
        return clip, clip.read(RATE)
    except audio.AudioError as error:
        return str(error)


def predict(paths, clips) -> dict[str, float]:
    """The mean over runs of the loudness of clips."""
    spec = EnsembleSpec.of(paths, "loudness", None, ("mean",))
    total = np.zeros(len(clips))
    for path, weight in zip(spec.runs, spec.run_weights, strict=True):
        module = Loudest()
        checkpoint.load_weights(module, checkpoints.best_checkpoint(path))
        rows = [Peaks([(clip, clip.read(RATE))])[0]["peak"] for clip in clips]
        total += weight * np.array(module.linear(mx.array(np.stack(rows))))[:, 0]
    return dict(zip([clip.id for clip in clips], total.tolist(), strict=True))


def evaluate(settings: EvaluateSettings) -> None:
    corpus = Loudness(TrainSettings(data=settings.data)).discover(None)
    paths = checkpoints.report_model(settings.checkpoint, "loudness")
    spec = EnsembleSpec.of(paths, "loudness", None, ("mean",))
    split.warn_if_trained_on(spec.runs, corpus, "clips")
    for name, value in predict(paths, corpus.items).items():
        print(f"{name} {value:.1f} dB")


COMMANDS = {
    "train": Command(TrainSettings, lambda settings: run.train(Loudness(settings))),
    "evaluate": Command(EvaluateSettings, evaluate),
}


def command(*words) -> int:
    """The exit code of the recipe for these words."""
    return cli.main("loudness", COMMANDS, [str(word) for word in words])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run, "Trainer", functools.partial(Trainer, compile=False))
    monkeypatch.setattr(run.plots, "curves_picture", lambda *arguments, **named: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """20 clips of noise; their loudness is 4.8 dB below their peak."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(20):
        samples = np.random.default_rng(number).uniform(-1, 1, RATE // 4)
        samples *= 10 ** (-number / 20)
        audio.write(folder / f"clip{number:02}.wav", samples.astype(np.float32), RATE)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.plots, "curves_picture", lambda *arguments, **named: None)
        assert command("--data", data, "--output", folder, "--steps", 150) == 0
    return folder


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def test_it_learns_and_is_tested_on_clips_of_its_own(trained):
    assert read_json(trained / "metrics.json")["error"] < 2
    parts = split.read_split(trained / "split.json")
    assert {name: len(ids) for name, ids in parts.items()} == {"train": 12, "valid": 4, "test": 4}


def test_a_resumed_run_is_that_of_one_go(trained, data, tmp_path, monkeypatch):
    class Stopped(Trainer):
        def fit(self, module, *loaders, **named):
            self.max_steps = 70
            super().fit(module, *loaders, **named)
            raise SystemExit(130)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run, "Trainer", functools.partial(Stopped, compile=False))
        with pytest.raises(SystemExit):
            command("--data", data, "--output", folder, "--steps", 150)
    assert command("--output", folder, "--resume") == 0
    assert read_json(folder / "metrics.json") == read_json(trained / "metrics.json")


def test_a_run_is_found_behind_checkpoint(trained, data, capsys):
    assert command("evaluate", "--data", data, "--checkpoint", trained.parent) == 0
    told = capsys.readouterr()
    assert "clip00.wav -" in told.out
    assert "16 of 20 clips were in the training of the run; --split test scores others" in told.err


def test_a_part_that_the_run_lacks_is_not_advised(trained, data, capsys):
    known = split.read_split(trained / split.SPLIT)["train"]
    clips = [Clip(name, data / name, (), group=name) for name in known[:3]]
    split.warn_if_trained_on([trained], Corpus(data, clips, []), "clips")
    assert capsys.readouterr().err == "3 of 3 clips were in the training of the run\n"


def test_without_a_checkpoint_the_newest_run_of_the_recipe_answers(
    trained, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = "evaluate", "--data", data, "--output", tmp_path / "scores"
    assert command(*words) == 2
    assert "--checkpoint latest: no trained run of loudness in runs" in capsys.readouterr().err
    shutil.copytree(trained, tmp_path / "runs" / "mine")
    assert command(*words) == 0
    assert capsys.readouterr().out.startswith("model: runs/mine\n")


def test_an_ensemble_is_found_behind_checkpoint(trained, data, tmp_path, capsys):
    EnsembleSpec(((trained,), (trained,)), (3.0, 1.0)).write(tmp_path)
    clips = Loudness(TrainSettings(data=data)).discover(None).items
    assert predict([tmp_path], clips) == pytest.approx(predict([trained], clips))
    (tmp_path / "ensemble.json").write_text('{"members": []}')
    assert command("evaluate", "--data", data, "--checkpoint", tmp_path) == 2
    assert "not an ensemble of the loudness recipe" in capsys.readouterr().err


def test_clips_that_cannot_be_read_are_refused_and_leave_no_split(tmp_path, capsys):
    for number in range(5):
        (tmp_path / f"{number}.wav").write_bytes(b"")
    assert command("--data", tmp_path, "--output", tmp_path / "run") == 2
    assert "3 of 3 train clips can't be read" in capsys.readouterr().err
    assert not (tmp_path / "run" / "split.json").exists()


def test_settings_that_changed_are_refused_on_resume(trained, capsys):
    assert command("--output", trained, "--resume", "--seed", 1) == 2
    assert "seed is 1, expected 0 as in the run" in capsys.readouterr().err
    saved = config.load(TrainSettings, ["--config", str(trained / "config.yaml")])
    assert replace(saved, output=None, data=None) == TrainSettings(steps=150)
