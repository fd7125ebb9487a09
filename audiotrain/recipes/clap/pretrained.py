"""What a run of CLAP starts from: weights or sizes, tokenizer, front end; its module."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain.models.clap.config import CLAPConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.models.clap.model import CLAP
from audiotrain.models.clap.tokenizer import LENGTH, Tokenizer, train_bpe
from audiotrain.models.clap.weights import pretrained_folder, read_config, weights_digest
from audiotrain.recipes.clap.settings import TrainSettings
from audiotrain.recipes.clap.training import CLAPTraining, Memory
from audiotrain.utils.files import write_json

START = "start.json"  # of a run: the name of --pretrained and the digest of its weights


@dataclass(frozen=True)
class Start:
    """`folder` is that of --pretrained, None from scratch."""

    config: CLAPConfig
    tokenizer: Tokenizer
    features: ClapFeatureSettings
    folder: Path | None = None

    @classmethod
    def of(cls, settings: TrainSettings, captions: Iterable[str], run: Path) -> "Start":
        """From --pretrained, whose weights' digest is kept in `run`, else with a tokenizer learnt
        from `captions`, kept there."""
        if settings.pretrained is not None and not (settings.resume and (run / START).is_file()):
            digest = weights_digest(pretrained_folder(settings.pretrained))
            write_json(run / START, {"pretrained": settings.pretrained, "weights": digest})
        if settings.pretrained is None and not (run / "tokenizer").is_dir():
            tokenizer = train_bpe(captions, settings.vocabulary, _length(settings.model))
            tokenizer.save(run / "tokenizer")
        return cls.resumed(settings, run)

    @classmethod
    def resumed(cls, settings: TrainSettings, run: Path) -> "Start":
        """As `of` left it. ValueError when the weights of --pretrained are others by now."""
        if settings.pretrained is not None:
            start = cls.pretrained(settings.pretrained)
            _check_same(start.folder, run / START)
            return start
        tokenizer = Tokenizer.read(run / "tokenizer", _length(settings.model))
        text = replace(settings.model.text_config, vocab_size=tokenizer.size)
        return cls(replace(settings.model, text_config=text), tokenizer, settings.features)

    @classmethod
    def pretrained(cls, name: str) -> "Start":
        """The files of a model folder or hub id. ValueError when they do not fit each other."""
        folder = pretrained_folder(name)
        config = CLAPConfig.from_dict(read_config(folder), str(folder / "config.json"))
        tokenizer = Tokenizer.read(folder, _length(config))
        tokenizer.check(config.text_config.vocab_size)
        features, audio = ClapFeatureSettings.read(folder), config.audio_config
        for what, found, expected in (
            ("mels", features.mels, audio.num_mel_bins),
            ("fusion", features.fused, audio.enable_fusion),
        ):
            if found != expected:
                raise ValueError(
                    f"{folder}: its front end has {what} {found}, its model expects {expected}"
                )
        if features.frames > audio.frames:
            raise ValueError(
                f"{folder}: its front end gives {features.frames} frames, its model takes "
                f"{audio.frames}"
            )
        return cls(config, tokenizer, features, folder)


def _check_same(folder: Path, saved: Path) -> None:
    if not saved.is_file():  # of an older run
        return
    found = weights_digest(folder)
    try:
        expected = json.loads(saved.read_text("utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{saved}: not a run's start ({error!r})") from None
    if found != expected:
        raise ValueError(
            f"{folder}: its weights have digest {found}, but the run in {saved.parent} started "
            f"from {expected}: they were replaced"
        )


def _length(config: CLAPConfig) -> int:
    return min(LENGTH, config.text_config.max_tokens)


def make_module(settings: TrainSettings, start: Start) -> CLAPTraining:
    """The module in its mode, with the weights of --pretrained or those of the seed."""
    mx.random.seed(settings.seed)
    clap = CLAP(start.config) if start.folder is None else CLAP.from_pretrained(start.folder)
    return CLAPTraining(
        clap,
        settings.mode,
        settings.last,
        settings.lora,
        settings.loss,
        settings.optimization,
        Memory(settings.micro_batch, settings.checkpoint_blocks),
        pretrained=start.folder is not None,
    )


def take_statistics(clap: CLAP, mels: Iterable[np.ndarray]) -> None:
    """Give the norm of the input mean and variance of inputs (channels, frames, mels)."""
    frames = np.concatenate([mel[0] for mel in mels]).astype(np.float64)
    norm = clap.audio_encoder.batch_norm
    norm.running_mean = mx.array(frames.mean(axis=0).astype(np.float32))
    norm.running_var = mx.array(frames.var(axis=0).astype(np.float32))
