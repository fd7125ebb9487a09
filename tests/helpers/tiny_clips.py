"""Tones in classes and the commands of the classify recipe, which several tests share."""

import functools
import json

import numpy as np

from audiotrain.evaluation import plots
from audiotrain.features import audio
from audiotrain.recipes.classify import commands as classify
from audiotrain.recipes.classify import predictor
from audiotrain.recipes.common import run
from audiotrain.train.trainer import Trainer

RATE = 8000
KINDS = {"low": 150, "middle_one": 500, "high": 1500}  # Hz
INPUT = (
    "--input.features.rate 8000 --input.features.n-fft 512 --input.features.hop 160 "
    "--input.features.mels 16 --input.features.fmax 4000 --input.features.seconds 1.26"
).split()
TOWER = (
    "--model.num-mel-bins 16 --model.spec-size 32 --model.window-size 4 --model.patch-size 4 "
    "--model.patch-embeds-hidden-size 8 --model.depths 1 1 --model.num-attention-heads 2 2"
).split()
QUICK = "--batch-size 6 --workers 0 --validations 2 --valid 0.2 --test 0.2".split()
STATISTICS = [
    *QUICK,
    *INPUT,
    *"--input.embeddings statistics --steps 60".split(),
    *"--optimization.learning-rate 0.02 --optimization.ema-decay 0".split(),
]


def tone(path, hertz, seconds=0.5, seed=0):
    """A tone with noise under it."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = sound + 0.001 * rng.standard_normal(len(time))
    audio.write(path, sound.astype(np.float32), RATE)
    return path


def class_folders(folder, each=6, first=0):
    """A folder for each class."""
    for place, (name, hertz) in enumerate(KINDS.items()):
        for number in range(each):
            seconds = 0.3 + 0.4 * number  # shorter and longer than the input
            tone(
                folder / name / f"{name}-{number}.wav", hertz, seconds, first + 100 * place + number
            )
    return folder


def table(folder, lines, name="meta.csv"):
    """A CSV of lines of cells beside the clips."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(",".join(line) for line in lines) + "\n")
    return folder / name


def command(*words) -> int:
    """The exit code of the recipe for these words."""
    return classify.main([str(word) for word in words])


def make_quick(monkeypatch) -> None:
    """Leave out what takes the time of a small run: compiled steps, and pictures."""
    monkeypatch.setattr(run, "Trainer", functools.partial(Trainer, compile=False))
    monkeypatch.setattr(predictor, "can_compile", lambda: False)
    for name in ("curves_picture", "confusion_picture"):
        monkeypatch.setattr(plots, name, lambda *arguments, **named: None)


def read_json(path):
    return json.loads(path.read_text("utf-8"))
