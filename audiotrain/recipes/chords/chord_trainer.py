"""ChordTrainer: trains a chord model on raw waveforms with train / train_epoch / validate.

A small interface to the Trainer. Accuracies are percent here, and fractions in the Trainer's rows.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain.config.schema import (
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    ShareBelowOne,
    validated,
)
from audiotrain.music.chord_classes import HEADS
from audiotrain.recipes.chords.training import head_accuracies
from audiotrain.train import checkpoint
from audiotrain.train.callbacks.base import Callback
from audiotrain.train.callbacks.builtin import EarlyStopping
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.losses import ChordRecognitionLoss
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.optimizers import CycledAdamW
from audiotrain.train.protocols import DatasetProtocol, is_dataset
from audiotrain.train.schedulers import OneCycleLRScheduler, WarmupCosineScheduler
from audiotrain.train.trainer import Trainer
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write_json

HISTORY = """
    train_loss val_loss val_chord_type_acc val_root_acc val_bass_note_acc learning_rate
""".split()
BEST = "best_model.pt"

Batch = tuple[mx.array, dict[str, mx.array]]  # audio (batch, samples); classes (batch,) by head


@validated
class TrainingConfig:
    """Settings of a ChordTrainer. ValueError, a line for each value that cannot be."""

    learning_rate: Positive = 1e-4
    """peak learning rate of AdamW"""
    weight_decay: NonNegative = 0.01
    """decoupled weight decay"""
    batch_size: PositiveInt = 16
    """items in a batch, where a Dataset is given instead of a loader"""
    num_epochs: PositiveInt = 100
    """passes over the training data"""
    warmup_epochs: NonNegativeInt = 5
    """epochs in which the learning rate rises"""
    scheduler: Literal["cosine", "onecycle"] = "cosine"
    """cosine: a new rate each epoch, down to a hundredth; onecycle: each step, down to zero"""
    cycle_momentum: bool = False
    """with onecycle: AdamW's first beta falls to 0.85 while the rate rises, and back to 0.95"""
    gradient_clip: NonNegative = 1.0
    """largest norm of the gradients; 0: no clipping"""
    label_smoothing: ShareBelowOne = 0.1
    """of the loss that is used when no criterion is given"""
    checkpoint_dir: str | Path = "checkpoints"
    """run folder: best_model.pt, last, epoch-004.pt …, metrics.csv"""
    save_every: PositiveInt = 5
    """epochs from one kept checkpoint to the next"""
    patience: PositiveInt = 15
    """stop after this many epochs without improvement of the validation loss"""
    min_delta: NonNegative = 0.001
    """smallest decrease of the validation loss that counts as an improvement"""
    log_every: PositiveInt = 50
    """optimizer steps from one row of metrics.csv to the next"""
    device: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """where to compute; auto: a GPU if MLX has one; cuda and mps are MLX's GPU, too"""
    gradient_accumulation_steps: PositiveInt = 1
    """batches whose gradients are averaged for an optimizer step"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed: layers in bfloat16, for GPUs; parameters, losses and checkpoints in float32"""


class ChordModule(TrainModule):
    """A model of waveforms (batch, samples) to logits (batch, classes) by head, with its loss,
    accuracies and optimizer."""

    def __init__(self, model: nn.Module, criterion: Callable, config: TrainingConfig):
        super().__init__()
        self.model = model
        self._criterion, self._config = criterion, config
        # Classes by head, once a step was traced; MLX would take a dict for parameters.
        self.classes: Mapping[str, int] = MappingProxyType({})

    def __call__(self, audio: mx.array) -> dict[str, mx.array]:
        return self.model(audio)

    def compute_loss(self, batch: Batch) -> tuple[mx.array, dict[str, mx.array]]:
        audio, targets = batch
        logits = self(audio)
        self.classes = MappingProxyType({head: logits[head].shape[-1] for head in HEADS})
        loss, losses = self._criterion(logits, targets)
        return loss, losses | head_accuracies(logits, targets)

    def configure_optimizers(self) -> OptimizerConfig:
        config, batches = self._config, self.trainer.num_training_batches
        if batches is None:
            raise UserError("train_loader has no length, expected one with len()")
        steps = -(-batches // config.gradient_accumulation_steps)  # of an epoch
        peak, warmup = config.learning_rate, config.warmup_epochs
        epochs = max(config.num_epochs, warmup + 1)  # a shorter run ends while the rate rises
        cosine = WarmupCosineScheduler(peak, warmup, epochs, min_lr=peak * 1e-2)
        cycle = OneCycleLRScheduler(peak, warmup * steps, epochs * steps)
        by_epoch, decay = config.scheduler == "cosine", config.weight_decay
        optimizer = optim.AdamW(
            (lambda step: cosine(step // steps)) if by_epoch else cycle, weight_decay=decay
        )
        if config.cycle_momentum and not by_epoch:
            optimizer = CycledAdamW(cycle, cycle.momentum, weight_decay=decay)
        return OptimizerConfig(optimizer, lr_schedule_name=config.scheduler)


class LabelCheck(Callback):
    """ValueError for a class number that the model does not have."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._check(module, batch, f"batch {batch_idx} of epoch {trainer.current_epoch}")

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._check(module, batch, f"validation batch {batch_idx}")

    def _check(self, module: ChordModule, batch: Batch, place: str) -> None:
        for head, classes in module.classes.items():
            largest = int(np.asarray(batch[1][head]).max())
            if largest >= classes:
                raise UserError(
                    f"{place}: {head} {largest}, expected 0 to {classes - 1}, or below 0 to ignore"
                )


class ChordTrainer:
    """Trains `model` on batches (audio (batch, samples), {"chord_type", "root", "bass_note"}),
    class numbers (batch,) each, a negative one being ignored.

    Either loader may be a Dataset of such pairs, which is then batched by `config.batch_size`.
    `criterion(logits, targets)` gives (loss, losses by name), as ChordRecognitionLoss does, whose
    smoothing is the config's when none is given. The best model by validation loss is kept in
    `checkpoint_dir`/best_model.pt; that of an earlier run is set aside as best_model-1.pt.
    examples/chord_trainer.py shows it. ValueError for a `config.device` that is not here; in
    training for a class number that the model does not have, and as `Trainer.fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Batch] | DatasetProtocol,
        val_loader: Iterable[Batch] | DatasetProtocol,
        config: TrainingConfig | None = None,
        criterion: Callable | None = None,
    ):
        self.config = config = config or TrainingConfig()
        criterion = criterion or ChordRecognitionLoss(label_smoothing=config.label_smoothing)
        self.module = ChordModule(model, criterion, config)
        self.train_loader = _loader(train_loader, config.batch_size, shuffle=True)
        self.val_loader = _loader(val_loader, config.batch_size, shuffle=False)
        self.device = _device(config.device)
        self.folder = Path(config.checkpoint_dir)
        self.trainer = Trainer(
            max_epochs=config.num_epochs,
            gradient_clip_val=config.gradient_clip or None,
            accumulate_grad_batches=config.gradient_accumulation_steps,
            precision=config.precision,
            default_root_dir=self.folder,
            callbacks=[
                EarlyStopping("val_loss", config.patience, config.min_delta),
                LabelCheck(),
                ModelCheckpoint(self.folder, BEST, monitor="val_loss", save_top_k=1),
                ModelCheckpoint(
                    self.folder,
                    "epoch-{epoch:03d}.pt",
                    every_n_epochs=config.save_every,
                    save_top_k=-1,
                    save_last=False,
                ),
            ],
            log_every_n_steps=config.log_every,
            config=asdict(config) | {"checkpoint_dir": str(config.checkpoint_dir)},
        )
        self.trainer.keeps_folder = True
        self._continued: Path | None = None  # checkpoint that the next training begins with

    @property
    def history(self) -> dict[str, list[float]]:
        """Lists by HISTORY, one number an epoch; NaN where an epoch was not validated."""
        rows = self.trainer.history.rows
        return {name: [_percent(name, row.get(name, math.nan)) for row in rows] for name in HISTORY}

    @property
    def best_val_loss(self) -> float | None:
        """Validation loss of best_model.pt; None before there is one."""
        saver = self.trainer.checkpoint_callback
        assert saver is not None
        return saver.best_model_score

    def train(self) -> dict[str, list[float]]:
        """Train to the last epoch, or until the validation loss no longer improves; `history`.

        After `train_epoch` or `load_checkpoint` it goes on where that stood, bit for bit.
        """
        self._fit()
        return self.history

    def train_epoch(self) -> dict[str, float]:
        """Train one epoch without validation: total_loss, the loss of each head, learning_rate.

        Losses are means over the epoch. ValueError once training was stopped for good.
        """
        trainer, done = self.trainer, self.trainer.current_epoch
        whole = trainer.arguments
        trainer.arguments = replace(whole, max_epochs=done + 1, limit_val_batches=0)
        try:
            self._fit()
        finally:
            trainer.arguments = whole
        if trainer.current_epoch == done:
            raise UserError(
                f"train_epoch: training was stopped early at epoch {done} by "
                f"patience={self.config.patience}"
            )
        row = trainer.history.rows[-1]
        losses = {k: v for k, v in _named(row, "train_").items() if not k.endswith("_acc")}
        return losses | {"learning_rate": row["learning_rate"]}

    def validate(self) -> dict[str, float]:
        """total_loss and the loss of each head; chord_type_acc, root_acc, bass_note_acc in percent.

        Means over the batches, weighted by their items.
        """
        with mx.stream(self.device):
            metrics = self.trainer.validate(self.module, self.val_loader)
        return _named(metrics, "val_")

    def save_checkpoint(self, path: str | Path) -> None:
        """Write a directory `path`, also where it ends in .pt, with all that training needs to
        continue.

        Model, optimizer, schedule, history, best validation loss, configuration, random state.
        ValueError before anything was trained.
        """
        self.trainer.save_checkpoint(path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Take model and history from `path`; training will go on from there. CheckpointError when
        it is missing, damaged or of another model."""
        meta = checkpoint.load_weights(self.module, path, averaged=False)
        self.trainer.history.load_state_dict(meta["history"])
        self.trainer.current_epoch, self.trainer.global_step = meta["epoch"], meta["global_step"]
        self._continued = Path(path)

    def export_history(self, path: str | Path) -> None:
        """Write `history` as JSON, NaN as null (rank 0). ValueError when it cannot be written."""
        if self.trainer.is_global_zero:
            write_json(path, self.history)

    def _fit(self) -> None:
        if self._continued is None and self.trainer.is_global_zero:
            _set_aside(self.folder / BEST)
        with mx.stream(self.device):
            self.trainer.fit(self.module, self.train_loader, self.val_loader, self._continued)
        self._continued = self.folder / "last"


def _loader(data: Any, batch_size: int, shuffle: bool) -> Iterable:
    return DataLoader(data, batch_size, shuffle) if is_dataset(data) else data


def _device(name: str) -> mx.Device | mx.DeviceType:
    if name == "auto":
        return mx.default_device()
    if name == "cpu":
        return mx.cpu
    if not mx.is_available(mx.gpu):
        raise UserError(f"device={name!r}, but MLX has no GPU here, expected 'auto' or 'cpu'")
    return mx.gpu


def _set_aside(path: Path) -> None:
    """Rename the checkpoint of an earlier run, if there is one."""
    if path.exists():
        names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
        path.rename(next(name for name in names if not name.exists()))


def _percent(name: str, value: float) -> float:
    return 100 * value if name.endswith("_acc") else value


def _named(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Those that begin with `prefix`, without it: total_loss, losses by head, accuracies."""
    own = {k.removeprefix(prefix): v for k, v in numbers.items() if k.startswith(prefix)}
    return {"total_loss": own.pop("loss")} | {k: _percent(k, v) for k, v in own.items()}
