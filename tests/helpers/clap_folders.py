"""A small CLAP as a folder, tokenizer and front end included, and clips: tests share them."""

import hashlib
import math

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from audiotrain.features import audio
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.models.clap.tokenizer import train_bpe

CAPTIONS = ["rain on a roof", "a dog barks", "sea waves at night", "a clock ticks"]


def config(fusion: bool = False) -> CLAPConfig:
    """Few numbers, but the real length of the input and four stages' worth of tricks."""
    audio_config = HTSATConfig(
        patch_size=8,
        patch_embeds_hidden_size=16,
        depths=(2, 1),
        num_attention_heads=(2, 4),
        enable_fusion=fusion,
    )
    text_config = RoBERTaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=80,
    )
    return CLAPConfig(audio_config, text_config, projection_dim=12)


def randomise(model: CLAP, seed: int = 0) -> CLAP:
    """Weights whose embeddings differ: fresh ones hide what bias tables and statistics do."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, array in tree_flatten(model.parameters()):
        scale = 0.1 if array.ndim < 2 else 1.2 / math.sqrt(array.shape[-1])
        values = rng.normal(0, scale, array.shape)
        if name.endswith("running_mean"):
            values = rng.normal(-30, 3, array.shape)
        elif name.endswith("running_var"):
            values = rng.uniform(100, 200, array.shape)
        elif "norm" in name and name.endswith("weight"):
            values = rng.uniform(0.5, 1.5, array.shape)
        elif not array.ndim:
            values = np.array(math.log(1 / 0.07))
        arrays[name] = mx.array(values.astype(np.float32))
    model.update(tree_unflatten(list(arrays.items())))
    return model


def save_model(folder, fusion: bool = False, seed: int = 0):
    """The folder with a whole model in it."""
    randomise(CLAP(config(fusion)), seed).save_pretrained(folder)
    train_bpe(CAPTIONS, 300).save(folder)
    ClapFeatureSettings(truncation="fusion" if fusion else "rand_trunc").save(folder)
    return folder


def cache_model(hub, model, name="laion/clap-htsat-unfused"):
    """Put the files of a model's folder into the cache of Hugging Face's hub in the folder `hub`;
    the folder of its snapshot."""
    repo = hub / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    for folder in (repo / "blobs", snapshot):
        folder.mkdir(parents=True)
    for file in model.iterdir():
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def sound(seconds: float, rate: int = 48000, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change: no two windows are alike."""
    rng = np.random.default_rng(seed)
    count = max(1, round(seconds * rate))
    time = np.arange(count) / rate
    tone = np.sin(2 * np.pi * (200 * (seed + 1) + 40 * np.sin(0.7 * time)) * time)
    swell = 0.5 + 0.45 * np.sin(0.9 * time + seed)
    return (swell * (0.3 * tone + 0.05 * rng.standard_normal(count))).astype(np.float32)


def write_clip(path, seconds: float = 1.0, rate: int = 48000, seed: int = 0):
    """A recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, sound(seconds, rate, seed), rate)
    return path
