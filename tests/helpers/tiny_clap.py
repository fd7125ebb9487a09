"""A small CLAP, its data and its commands, which several tests share."""

import functools
import json

import mlx.core as mx
import numpy as np

from audiotrain.evaluation import plots
from audiotrain.evaluation.plots import retrieval as retrieval_plots
from audiotrain.features import audio
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.models.clap.tokenizer import train_bpe
from audiotrain.recipes.clap import commands as recipe
from audiotrain.recipes.common import run
from audiotrain.train.trainer import Trainer

RATE = 8000
FEATURES = ClapFeatureSettings(rate=RATE, n_fft=512, hop=160, mels=16, fmax=4000, seconds=1)
KINDS = {"low": 150, "middle": 400, "high": 1000, "shrill": 2500}  # Hz
TINY = "--batch-size 4 --workers 0 --validations 2 --optimization.warmup-steps 1".split()
STEPS = ["--steps", "4"]


def config(vocabulary: int = 300, fused: bool = False, dropout: float = 0.1) -> CLAPConfig:
    """Towers of two stages and two layers."""
    sound = HTSATConfig(
        num_mel_bins=16,
        spec_size=32,
        window_size=4,
        patch_size=4,
        patch_embeds_hidden_size=8,
        depths=(2, 2),
        num_attention_heads=(2, 2),
        enable_fusion=fused,
        hidden_dropout_prob=dropout,
    )
    text = RoBERTaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=26,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return CLAPConfig(sound, text, projection_dim=12)


def model(seed: int = 0, **changes) -> CLAP:
    """With what is 0 or 1 in a fresh model drawn, so that its loss or change is seen."""
    mx.random.seed(seed)
    clap = CLAP(config(**changes))
    norm = clap.audio_encoder.batch_norm
    norm.running_mean = -40 + mx.random.normal((16,))
    norm.running_var = 100 + mx.random.uniform(0, 10, (16,))
    mx.eval(clap.parameters())
    return clap


def pretrained(folder, seed: int = 0, **changes):
    """A model folder."""
    tokenizer = train_bpe([f"a {kind} tone" for kind in KINDS], 300, length=24)
    model(seed, **changes).save_pretrained(folder)
    tokenizer.save(folder)
    FEATURES.save(folder)
    return folder


def captioned(folder, count: int = 20, seconds: float = 0.8):
    """Tones beside captions, two a clip."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        kind, hertz = list(KINDS.items())[number % len(KINDS)]
        time = np.arange(round(seconds * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * time)
        audio.write(folder / f"{number:02d}.wav", tone.astype(np.float32), RATE)
        captions = [f"a {kind} tone number {number}", f"tone {number}, {kind}"]
        (folder / f"{number:02d}.txt").write_text("\n".join(captions) + "\n")
    return folder


def words(place, output, *more):
    """Words of a run on `data` in the folder `place`, with the cache there."""
    return ["--data", place / "data", "--cache", place / "cache", "--output", output, *TINY, *more]


def tuned(place, output, *more):
    """Words of a run from `start` in `place`, with rates at which 4 steps change something."""
    rates = ["--optimization.learning-rate", 0.01, "--optimization.head-rate", 0.01]
    return words(place, output, "--pretrained", place / "start", *rates, *STEPS, *more)


def command(*words) -> int:
    """The exit code of the recipe for these words."""
    return recipe.main([str(word) for word in words])


def make_quick(monkeypatch, compile: bool = False) -> None:
    """Leave out what takes the time of a small run: a compiled step, and pictures."""
    monkeypatch.setattr(run, "Trainer", functools.partial(Trainer, compile=compile))
    monkeypatch.setattr(plots, "curves_picture", lambda *arguments, **named: None)
    for name in ("recall_picture", "similarity_picture"):
        monkeypatch.setattr(retrieval_plots, name, lambda *arguments, **named: None)


def read_json(path):
    return json.loads(path.read_text("utf-8"))
