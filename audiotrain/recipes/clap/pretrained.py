"""The start of a CLAP run (weights or sizes, tokenizer, front end) and the model folder it writes.

Hugging Face's ClapModel reads that folder; the weights are the best ones, LoRA merged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain import config
from audiotrain.models.clap.config import CLAPConfig
from audiotrain.models.clap.feature_extraction import SETTINGS_FILE, ClapFeatureSettings
from audiotrain.models.clap.model import CLAP
from audiotrain.models.clap.tokenizer import (
    LENGTH,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    Tokenizer,
    train_bpe,
)
from audiotrain.models.clap.weights import (
    CONFIG,
    SAFETENSORS,
    pretrained_folder,
    refuse_partial,
    weights_digest,
)
from audiotrain.models.lora import lora_parameters, merge_lora
from audiotrain.recipes.clap.embedder import MODEL
from audiotrain.recipes.clap.settings import ExportSettings, TrainSettings
from audiotrain.recipes.clap.training import CLAPTraining
from audiotrain.recipes.common import checkpoints
from audiotrain.train import checkpoint
from audiotrain.train.weight_averaging import interpolate
from audiotrain.utils.arrays import arrays_of, put_arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object, write_json

START = "start.json"  # of a run: the name of --pretrained and the digest of its weights


@dataclass(frozen=True)
class Start:
    """Model, tokenizer and front end that a run starts from; `folder` is that of --pretrained, None
    from scratch."""

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
            if (run / START).is_file():  # not of an older run
                digest = weights_digest(pretrained_folder(settings.pretrained))
                expected = read_json_object(run / START).get("weights")
                if digest != expected:
                    raise UserError(
                        f"{start.folder}: its weights have digest {digest}, but the run in {run} "
                        f"started from {expected}: they were replaced"
                    )
            return start
        tokenizer = Tokenizer.read(run / "tokenizer", _length(settings.model))
        text = replace(settings.model.text_config, vocab_size=tokenizer.size)
        return cls(replace(settings.model, text_config=text), tokenizer, settings.features)

    @classmethod
    def pretrained(cls, name: str) -> "Start":
        """The files of a model folder or hub id. ValueError when they do not fit each other."""
        folder = pretrained_folder(name)
        refuse_partial(name, folder)
        file = folder / CONFIG
        config = CLAPConfig.from_dict(read_json_object(file), str(file))
        tokenizer = Tokenizer.read(folder, _length(config))
        tokenizer.check(config.text_config.vocab_size)
        features = ClapFeatureSettings.read(folder)
        features.check(config.audio_config, str(folder))
        return cls(config, tokenizer, features, folder)

    def load_model(self) -> CLAP:
        """The CLAP of --pretrained, or one with fresh weights."""
        return CLAP(self.config) if self.folder is None else CLAP.from_pretrained(self.folder)

    def write_model(self, clap: CLAP, folder: Path) -> None:
        """A model folder with the tokenizer and front end of this start."""
        clap.logit_scale_t = clap.logit_scale_a + 0
        clap.save_pretrained(folder, self.folder)
        if not any((folder / name).is_file() for name in (TOKENIZER_FILE, VOCABULARY_FILE)):
            self.tokenizer.save(folder)
        if not (folder / SETTINGS_FILE).is_file():
            self.features.save(folder)


def _length(config: CLAPConfig) -> int:
    return min(LENGTH, config.text_config.max_tokens)


def make_module(settings: TrainSettings, start: Start) -> CLAPTraining:
    """The module in its mode, with the weights of --pretrained or those of the seed."""
    mx.random.seed(settings.seed)
    return CLAPTraining(
        start.load_model(),
        settings.mode,
        settings.last,
        settings.lora,
        settings.loss,
        settings.optimization,
        settings.micro_batch,
        settings.checkpoint_blocks,
        pretrained=start.folder is not None,
    )


def take_statistics(clap: CLAP, mels: Iterable[np.ndarray]) -> None:
    """Give the norm of the input mean and variance of inputs (channels, frames, mels)."""
    frames = np.concatenate([mel[0] for mel in mels]).astype(np.float64)
    norm = clap.audio_encoder.batch_norm
    norm.running_mean = mx.array(frames.mean(axis=0).astype(np.float32))
    norm.running_var = mx.array(frames.var(axis=0).astype(np.float32))


def write_best(module: CLAPTraining, start: Start, run: Path) -> Path:
    """Write `model/`, the run's best weights with LoRA merged; the module has them from then on."""
    start.write_model(best_of(module, run), run / MODEL)
    return run / MODEL


def withdraw(run: Path) -> None:
    """Remove the model of a run that goes on: the best checkpoint may change, and the one that it
    was written from stays."""
    for name in (CONFIG, SAFETENSORS):
        (run / MODEL / name).unlink(missing_ok=True)


def best_of(module: CLAPTraining, run: Path) -> CLAP:
    """The module's CLAP with the run's best weights, LoRA merged."""
    checkpoint.load_weights(module, run / "checkpoints" / "best")
    if lora_parameters(module.clap):
        merge_lora(module.clap)
    module.eval()
    return module.clap


def export(settings: ExportSettings) -> Path:
    """Write the model of a run, or one between it and its start, to `settings.output`."""
    output, share = settings.output, settings.share
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already, expected a new or empty folder")
    (folder,) = checkpoints.locate([settings.checkpoint], "clap")
    run = checkpoints.newest_run(folder, "clap")
    trained = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
    if (run / MODEL / SAFETENSORS).is_file():
        start = Start.pretrained(str(run / MODEL))
        clap = start.load_model()
    else:  # of a run that was stopped
        start = Start.resumed(trained, run)
        clap = best_of(make_module(trained, start), run)
    if share < 1:
        if trained.pretrained is None:
            raise UserError(
                f"share={share}: the run in {run} began from scratch, expected one with "
                "--pretrained, since a share is between its weights and the run's"
            )
        before = arrays_of(Start.resumed(trained, run).load_model())
        put_arrays(clap, interpolate(before, arrays_of(clap), share))
    start.write_model(clap, output)
    print(f"{output}: the model of {run}, share {share:g} of the way from its start")
    if trained.loss.kind == "siglip":
        print("siglip's bias is not part of it: ClapModel has none; similarities need none")
    return output
