"""The built-in callbacks; write your own by overriding the hooks of `Callback`.

A monitor is a key of `trainer.callback_metrics`: val_loss, val_…, train_loss, train_…
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import mlx.core as mx

from audiotrain.train.arguments import TrainerArguments, seconds
from audiotrain.train.callbacks.base import Callback, Monitor
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.callbacks.progress import ModelSummary, ProgressBar
from audiotrain.train.engine.compiled_function import as_float
from audiotrain.train.optimizers import GroupedOptimizer
from audiotrain.train.protocols import CallbackProtocol
from audiotrain.utils.errors import UserError


class EarlyStopping(Monitor):
    """Ends training once `monitor` has not improved by `min_delta` for `patience` checks.

    A check is a validation for the metrics of validation, an epoch for others and with
    `patience_unit` "epoch". NaN or infinity stops at once with `check_finite`. A lower value of the
    metric `tie` counts where `monitor` stays the same.

    ValueError for another `mode` or `patience_unit`, a `patience` below 1 and a negative
    `min_delta`; in fit for a metric that does not exist, and for one of validation without
    a validation loader.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.001,
        mode: str = "min",
        verbose: bool = True,
        check_finite: bool = True,
        tie: str | None = None,
        patience_unit: str = "validation",
    ):
        super().__init__(monitor, mode, tie)
        if patience_unit not in ("validation", "epoch"):
            raise UserError(f"patience_unit is {patience_unit!r}, expected 'validation' or 'epoch'")
        if patience < 1 or min_delta < 0:
            raise UserError(
                f"patience is {patience!r} and min_delta {min_delta!r}, expected 1 and 0, or more"
            )
        self.patience, self.min_delta = patience, min_delta
        self.verbose, self.check_finite = verbose, check_finite
        self.by_epoch = patience_unit == "epoch" or not self.by_validation
        self._forget()

    def _forget(self) -> None:
        self.best_score = math.inf if self.mode == "min" else -math.inf
        self.best_tie = math.inf
        self.wait_count, self.stopped_epoch, self.stopped = 0, None, False
        self.improved = False  # in the epoch under way

    def setup(self, trainer, module) -> None:
        self._forget()
        if self.by_validation and trainer.val_loader is None:
            raise UserError(
                f"EarlyStopping: monitor {self.monitor!r} needs a validation loader, none was given"
            )

    def on_train_start(self, trainer, module) -> None:
        if self.wait_count >= self.patience or self.stopped:
            trainer.should_stop = True

    def on_validation_end(self, trainer, module) -> None:
        if self.by_validation:
            self._check(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        if not self.by_validation:
            self._check(trainer)
        if trainer.epoch_finished:
            if self.by_epoch and not self.improved:
                self._wait(trainer)
            self.improved = False

    def _check(self, trainer) -> None:
        value, tie = self.value(trainer), self.tie_value(trainer)
        if self.check_finite and not math.isfinite(value):
            self._stop(trainer, f"{self.monitor} is {value}")
        elif self.beats((value, tie), (self.best_score, self.best_tie), self.min_delta):
            self.best_score, self.best_tie, self.wait_count = value, tie, 0
            self.improved = True
        elif not self.by_epoch:
            self._wait(trainer)

    def _wait(self, trainer) -> None:
        self.wait_count += 1
        if self.wait_count >= self.patience and not self.stopped:
            self._stop(trainer, f"{self.monitor} was best at {self.best_score:.4f}")

    def _stop(self, trainer, reason: str) -> None:
        trainer.should_stop = self.stopped = True
        self.stopped_epoch = trainer.current_epoch
        if self.verbose and trainer.is_global_zero:
            print(
                f"stopping early at epoch {trainer.current_epoch}: {reason}, "
                f"{self.wait_count} {'epochs' if self.by_epoch else 'validations'} without "
                f"improvement",
                file=sys.stderr,
            )

    def state_dict(self) -> dict:
        names = ("best_score", "best_tie", "wait_count", "stopped", "improved")
        return {name: self.__dict__[name] for name in names}

    def load_state_dict(self, state: dict) -> None:
        self.best_score, self.wait_count = state["best_score"], state["wait_count"]
        self.best_tie = state.get("best_tie", math.inf)  # older checkpoints lack these
        self.stopped, self.improved = state.get("stopped", False), state.get("improved", False)


class Timer(Callback):
    """Ends training after `duration`: seconds, a timedelta or "days:hours:minutes:seconds".

    With `interval` "step" it ends after the step under way, with "epoch" after the epoch. None
    only measures. As with `Trainer(max_time=...)`, the time before a continued run's stop counts.
    ValueError for a duration that is not above 0 or is written otherwise, and another `interval`.
    """

    def __init__(
        self,
        duration: float | str | timedelta | None = None,
        interval: str = "step",
        verbose: bool = True,
    ):
        check_interval("interval", interval)
        self.duration = seconds(duration, "duration")
        self.interval, self.verbose = interval, verbose
        self._trainer, self._ended = None, 0.0

    def time_elapsed(self) -> float:
        """Seconds of training so far."""
        return self._ended if self._trainer is None else self._trainer.elapsed()

    def time_remaining(self) -> float | None:
        """Seconds left of `duration`, None without one."""
        return None if self.duration is None else max(0.0, self.duration - self.time_elapsed())

    def on_train_start(self, trainer, module) -> None:
        self._trainer = trainer
        self._check(trainer)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if self.interval == "step":
            self._check(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._check(trainer)

    def teardown(self, trainer, module) -> None:
        self._ended, self._trainer = self.time_elapsed(), None

    def _check(self, trainer) -> None:
        if self.time_remaining() == 0 and not trainer.should_stop:
            trainer.should_stop = True
            if self.verbose and trainer.is_global_zero:
                print(f"stopping: {self.time_elapsed():.0f} seconds have passed", file=sys.stderr)


class LearningRateMonitor(Callback):
    """Puts the rate, as "lr-" and the schedule's name, into the log: of each "step" or "epoch".

    Loggers get the rates of the steps between two rows just before the second one.
    A MultiOptimizer has a rate for each of its optimizers: "lr-name/1", "lr-name/2"…; those of
    `parameter_groups` have the names of the groups. ValueError for another `logging_interval`.
    """

    def __init__(self, logging_interval: str = "step"):
        check_interval("logging_interval", logging_interval)
        self.logging_interval = logging_interval
        self._waiting: list[tuple[int, int, dict[str, mx.array]]] = []  # step, epoch, rates
        self._noted = 0  # the last step that is or was among them

    def setup(self, trainer, module) -> None:
        self._noted = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.group == 0:
            self._note(trainer)

    def on_log(self, trainer, module) -> None:
        if trainer.epoch_ending:  # a last step may come after the last batch
            self._note(trainer)
        self._flush(trainer)
        if trainer.epoch_ending == (self.logging_interval == "epoch"):
            for name, rate in self._rates(trainer).items():
                trainer.record(name, rate)

    def on_validation_start(self, trainer, module) -> None:
        self._flush(trainer)

    def teardown(self, trainer, module) -> None:
        self._flush(trainer)

    def _note(self, trainer) -> None:
        step = trainer.global_step
        logged = step % trainer.log_every_n_steps == 0  # the row has the rates
        if self.logging_interval == "step" and not logged and step != self._noted:
            self._noted = step
            self._waiting.append((step, trainer.current_epoch, self._rates(trainer)))

    def _flush(self, trainer) -> None:
        waiting, self._waiting = self._waiting, []
        for step, epoch, rates in waiting:
            row = {"epoch": epoch} | {name: as_float(rate) for name, rate in rates.items()}
            for logger in trainer.loggers:
                logger.log_metrics(row, step)

    def _rates(self, trainer) -> dict[str, mx.array]:
        schedule = trainer.optimizer_config.lr_schedule_name
        name = f"lr-{schedule or type(trainer.optimizer).__name__}"
        optimizer = trainer.optimizer
        states = optimizer.state.get("states", [optimizer.state])
        groups: Sequence[str | int] = range(1, len(states) + 1)
        if isinstance(optimizer, GroupedOptimizer):
            groups = optimizer.names
        return {
            f"{name}/{group}" if len(states) > 1 else name: state["learning_rate"]
            for group, state in zip(groups, states, strict=True)
        }


class LearningRateScheduler(Callback):
    """Sets the learning rate to `schedule(epoch)` before each epoch, or with `interval` "step" to
    `schedule(step)` before each optimizer step; both count from 0.

    `schedule` is any Python function of a whole number. What is in `audiotrain.train.schedulers`
    can go to the optimizer itself, as its learning_rate, and then needs no callback.

    ValueError for a `schedule` that is no function and another `interval`; in fit for a rate that
    is negative or not finite, and for an optimizer with a schedule of its own or several rates.
    """

    def __init__(self, schedule: Callable[[int], float], interval: str = "epoch"):
        check_interval("interval", interval)
        if not callable(schedule):
            raise UserError(f"schedule is {schedule!r}, expected a function of a whole number")
        self.schedule, self.interval = schedule, interval

    def on_train_start(self, trainer, module) -> None:
        state = trainer.optimizer.state
        if "learning_rate" not in state or "learning_rate" in trainer.optimizer._schedulers:
            kind = type(trainer.optimizer).__name__
            raise UserError(
                f"LearningRateScheduler: the {kind} has "
                f"{'a schedule of its own' if 'learning_rate' in state else 'several rates'}, "
                f"expected an optimizer with one number as learning_rate"
            )

    def on_train_epoch_start(self, trainer, module) -> None:
        if self.interval == "epoch":
            self._set(trainer, trainer.current_epoch)

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if self.interval == "step" and trainer.group == 0:
            self._set(trainer, trainer.global_step)

    def _set(self, trainer, number: int) -> None:
        rate = float(self.schedule(number))
        if not 0 <= rate < math.inf:
            raise UserError(
                f"LearningRateScheduler: schedule({number}) is {rate}, expected 0 or more"
            )
        trainer.optimizer.state["learning_rate"] = mx.array(rate)


class MetricsLogger(Callback):
    """Writes the history as JSON after every epoch, history.json in the run folder by default.

    `metrics` are the lists by metric, one value an epoch, also while training goes on. ValueError
    when the file cannot be written.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = path
        self.metrics: dict[str, list[float | None]] = {}

    def on_epoch_end(self, trainer, state) -> None:
        self.metrics = trainer.history.lists()
        trainer.export_history(self.path or trainer.default_root_dir / "history.json")


class GradientClipper(Callback):
    """The same as `Trainer(gradient_clip_val=max_norm)`: clipping is part of the compiled step.
    ValueError for a `max_norm` that is not above 0, and in fit where the Trainer clips otherwise.
    """

    def __init__(self, max_norm: float = 1.0):
        if not max_norm > 0:
            raise UserError(f"max_norm is {max_norm!r}, expected a number above 0")
        self.max_norm = max_norm

    def setup(self, trainer, module) -> None:
        value, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        if value is not None and (value, algorithm) != (self.max_norm, "norm"):
            raise UserError(
                f"GradientClipper(max_norm={self.max_norm}) and gradient_clip_val={value} by "
                f"{algorithm} disagree: give one of them"
            )
        trainer.arguments = replace(
            trainer.arguments, gradient_clip_val=self.max_norm, gradient_clip_algorithm="norm"
        )


class EMA(Callback):
    """The same as `Trainer(ema_decay=decay)`: a running average of the weights, kept by the
    compiled step, used for validation and stored in every checkpoint. ValueError unless
    0 <= decay < 1, and in fit where the Trainer has another `ema_decay`."""

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UserError(f"decay is {decay!r}, expected 0 or more and below 1")
        self.decay = decay

    def setup(self, trainer, module) -> None:
        if trainer.ema_decay not in (None, self.decay):
            raise UserError(f"EMA({self.decay}) and ema_decay={trainer.ema_decay} disagree")
        trainer.arguments = replace(trainer.arguments, ema_decay=self.decay)


def check_interval(name: str, value: str) -> None:
    if value not in ("step", "epoch"):
        raise UserError(f"{name} is {value!r}, expected 'step' or 'epoch'")


def default_callbacks(
    given: list[CallbackProtocol], arguments: TrainerArguments
) -> list[CallbackProtocol]:
    """The user's callbacks and the defaults for what is missing; checkpoints come last."""
    savers = [c for c in given if isinstance(c, ModelCheckpoint)]
    if savers and not arguments.enable_checkpointing and not arguments.fast_dev_run:
        raise UserError("enable_checkpointing is False, but callbacks has a ModelCheckpoint")
    others = [c for c in given if not isinstance(c, ModelCheckpoint)]
    if arguments.fast_dev_run:
        savers = []
        others = [c for c in others if not isinstance(c, EarlyStopping | MetricsLogger)]
    if arguments.enable_checkpointing and not savers:
        savers = [ModelCheckpoint(save_top_k=0)]
    if arguments.enable_progress_bar and not any(isinstance(c, ProgressBar) for c in others):
        others.append(ProgressBar())
    if arguments.enable_model_summary and not any(isinstance(c, ModelSummary) for c in others):
        others.append(ModelSummary())
    return others + savers
