"""Small data, a small model and quick runs of the chord recipe, which several tests share."""

import functools

import numpy as np

from audiotrain.datasets.synthesis import arrangement, progressions, render
from audiotrain.evaluation import plots
from audiotrain.features import audio
from audiotrain.music.segments import write_lab
from audiotrain.recipes.chords import commands as recipe
from audiotrain.recipes.common import run
from audiotrain.train.trainer import Trainer

TINY = (
    "--features.hop 4096 --features.bins 72 --features.bins-per-octave 12 --window 16 --workers 0 "
    "--model.width 36 --model.blocks 1 --model.pools 1 --model.hidden 24 --batch-size 4 "
    "--validations 2"
).split()
STEPS = ["--steps", "6"]


@functools.cache
def song(number, seconds):
    """Samples at 22050 Hz and chords, made by the project's own synthesis."""
    rng = np.random.default_rng(number)
    progression = progressions.random_progression(rng, round(seconds * 2))
    parts, segments = arrangement.compose(progression, rng, tempo=120)
    samples = render.render(parts, 22050)[: round(seconds * 22050)]
    return samples, [segment for segment in segments if segment.start < seconds]


def sung(folder, count=6, seconds=5.0):
    """A folder of recordings and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        samples, segments = song(number, seconds)
        audio.write(folder / f"song{number}.wav", samples, 22050)
        write_lab(folder / f"song{number}.lab", segments)
    return folder


def command(*words):
    """The exit code of the recipe for these words."""
    return recipe.main([str(word) for word in words])


def make_quick(monkeypatch, pictures=False):
    """Leave out what takes the time of a small run: a compiled step, and pictures."""
    monkeypatch.setattr(run, "Trainer", functools.partial(Trainer, compile=False))
    drawn = ("confusion_picture", "scores_picture", "curves_picture", "chords_picture")
    for name in () if pictures else drawn:
        monkeypatch.setattr(plots, name, lambda *arguments, **named: None)
