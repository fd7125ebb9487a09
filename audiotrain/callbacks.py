"""The built-in callbacks; write your own by overriding the moments of `Callback`.

A monitor is a key of `trainer.callback_metrics`: val_loss, val_…, train_loss, train_…
"""

import math
import sys

from audiotrain.hooks import Callback, Monitor
from audiotrain.progress import ModelSummary, ProgressBar
from audiotrain.saving import ModelCheckpoint

__all__ = [
    "EMA",
    "Callback",
    "EarlyStopping",
    "GradientClipper",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "ProgressBar",
    "default_callbacks",
]


class EarlyStopping(Monitor):
    """Ends training once `monitor` has not improved by `min_delta` for `patience` checks.

    A check is a validation (an epoch for other metrics). NaN or infinity stops at once with
    `check_finite`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.001,
        mode: str = "min",
        verbose: bool = True,
        check_finite: bool = True,
    ):
        super().__init__(monitor, mode)
        if patience < 1 or min_delta < 0:
            raise ValueError(
                f"patience is {patience!r} and min_delta {min_delta!r}, expected 1 and 0, or more"
            )
        self.patience, self.min_delta = patience, min_delta
        self.verbose, self.check_finite = verbose, check_finite
        self._forget()

    def _forget(self) -> None:
        self.best_score = math.inf if self.mode == "min" else -math.inf
        self.wait_count, self.stopped_epoch = 0, None

    def setup(self, trainer, module) -> None:
        self._forget()
        if self.by_validation and trainer.val_loader is None:
            raise ValueError(
                f"EarlyStopping: monitor {self.monitor!r} needs a validation loader, none was given"
            )

    def on_train_start(self, trainer, module) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer, module) -> None:
        if self.by_validation:
            self._check(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        if not self.by_validation:
            self._check(trainer)

    def _check(self, trainer) -> None:
        value = self.value(trainer)
        if self.check_finite and not math.isfinite(value):
            self._stop(trainer, f"{self.monitor} is {value}")
        elif self.better(value, self.best_score, self.min_delta):
            self.best_score, self.wait_count = value, 0
        else:
            self.wait_count += 1
            if self.wait_count >= self.patience:
                self._stop(trainer, f"{self.monitor} was best at {self.best_score:.4f}")

    def _stop(self, trainer, reason: str) -> None:
        trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
        if self.verbose:
            print(
                f"stopping early at epoch {trainer.current_epoch}: {reason}, "
                f"{self.wait_count} checks without improvement",
                file=sys.stderr,
            )

    def state_dict(self) -> dict:
        return {"best_score": self.best_score, "wait_count": self.wait_count}

    def load_state_dict(self, state: dict) -> None:
        self.best_score, self.wait_count = state["best_score"], state["wait_count"]


class LearningRateMonitor(Callback):
    """Puts the rate, as "lr-" and the schedule's name, into the log: rows by "step" or "epoch"."""

    def __init__(self, logging_interval: str = "step"):
        if logging_interval not in ("step", "epoch"):
            raise ValueError(
                f"logging_interval is {logging_interval!r}, expected 'step' or 'epoch'"
            )
        self.logging_interval = logging_interval

    def on_log(self, trainer, module) -> None:
        if trainer.epoch_ending == (self.logging_interval == "epoch"):
            schedule = trainer.optimizer_config.lr_schedule_name
            name = f"lr-{schedule or type(trainer.optimizer).__name__}"
            trainer.record(name, trainer.current_learning_rate())


class GradientClipper(Callback):
    """The same as `Trainer(gradient_clip_val=max_norm)`: clipping is part of the compiled step."""

    def __init__(self, max_norm: float = 1.0):
        if not max_norm > 0:
            raise ValueError(f"max_norm is {max_norm!r}, expected a number above 0")
        self.max_norm = max_norm

    def setup(self, trainer, module) -> None:
        own = (self.max_norm, "norm")
        found = (trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        if found[0] is not None and found != own:
            raise ValueError(
                f"GradientClipper(max_norm={self.max_norm}) and gradient_clip_val={found[0]} by "
                f"{found[1]} disagree: give one of them"
            )
        trainer.gradient_clip_val, trainer.gradient_clip_algorithm = own


class EMA(Callback):
    """The same as `Trainer(ema_decay=decay)`: a running average of the weights, kept by the
    compiled step, used for validation and stored in every checkpoint."""

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay!r}, expected 0 or more and below 1")
        self.decay = decay

    def setup(self, trainer, module) -> None:
        if trainer.ema_decay not in (None, self.decay):
            raise ValueError(f"EMA({self.decay}) and ema_decay={trainer.ema_decay} disagree")
        trainer.ema_decay = self.decay


def default_callbacks(
    given: list[Callback], checkpointing: bool, progress: bool, summary: bool, fast_dev_run: bool
) -> list[Callback]:
    """The user's callbacks and the defaults for what is missing; checkpoints come last."""
    savers = [c for c in given if isinstance(c, ModelCheckpoint)]
    if savers and not checkpointing and not fast_dev_run:
        raise ValueError("enable_checkpointing is False, but callbacks has a ModelCheckpoint")
    others = [c for c in given if not isinstance(c, ModelCheckpoint)]
    if fast_dev_run:
        savers, others = [], [c for c in others if not isinstance(c, EarlyStopping)]
    if checkpointing and not savers:
        savers = [ModelCheckpoint(save_top_k=0)]
    if progress and not any(isinstance(c, ProgressBar) for c in others):
        others.append(ProgressBar())
    if summary and not any(isinstance(c, ModelSummary) for c in others):
        others.append(ModelSummary())
    return others + savers
