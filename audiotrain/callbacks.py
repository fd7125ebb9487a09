"""Callback and the built-in ones: what happens beside the steps, at named moments.

A monitor is a key of `trainer.callback_metrics`: val_loss, val_…, train_loss, train_…
"""

import math
import string
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten
from tqdm import tqdm

from audiotrain import checkpoint


class Callback:
    """Base class: override the moments needed. `outputs["loss"]` and such are plain floats."""

    def setup(self, trainer, module) -> None:
        """Before the optimizer and the step are built."""

    def teardown(self, trainer, module) -> None:
        """After fit, however it ended."""

    def on_train_start(self, trainer, module) -> None:
        """Before the first step."""

    def on_train_end(self, trainer, module) -> None:
        """After the last step."""

    def on_train_epoch_start(self, trainer, module) -> None:
        """Before an epoch."""

    def on_train_epoch_end(self, trainer, module) -> None:
        """After an epoch and its validation."""

    def on_epoch_end(self, trainer, state) -> None:
        """After an epoch, with `state.epoch`, `state.global_step`, `state.metrics`."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        """Before a batch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """After a batch was handed to the device; reading `outputs` waits for its result."""

    def on_log(self, trainer, module) -> None:
        """Before a row of the log (`trainer.epoch_ending`: of an epoch) is written; what
        `trainer.record(name, value)` gets here is part of it."""

    def on_validation_start(self, trainer, module) -> None:
        """Before a validation."""

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """After a validation or test batch was handed to the device."""

    def on_validation_end(self, trainer, module) -> None:
        """After a validation; its metrics are in `trainer.callback_metrics`."""

    def on_test_start(self, trainer, module) -> None:
        """Before a test."""

    def on_test_end(self, trainer, module, metrics) -> None:
        """After a test."""

    def on_exception(self, trainer, module, error) -> None:
        """When fit ends by an error."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""


class _Monitor(Callback):
    """Reads one metric, at the moment it is new."""

    def __init__(self, monitor: str | None, mode: str):
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}, expected 'min' or 'max'")
        self.monitor, self.mode = monitor, mode

    @property
    def by_validation(self) -> bool:
        """Whether validations bring the metric, rather than ends of epochs."""
        return self.monitor is not None and self.monitor.startswith("val_")

    def value(self, trainer) -> float:
        """The monitored number now; ValueError naming those that exist."""
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(
                f"{type(self).__name__}: no metric {self.monitor!r}, "
                f"there are {', '.join(sorted(metrics))}"
            )
        return metrics[self.monitor]

    def better(self, value: float, than: float, by: float = 0.0) -> bool:
        """Whether `value` improves on `than` by more than `by`; NaN never does."""
        if math.isnan(value) or math.isnan(than):
            return not math.isnan(value)
        return value < than - by if self.mode == "min" else value > than + by


class ModelCheckpoint(_Monitor):
    """Writes checkpoints: the `save_top_k` best by `monitor` (-1: all), and `last`.

    `filename` may use epoch, step and any metric with a format, "model-{epoch:02d}-{val_loss:.2f}".
    Without a monitor the newest count as best. `dirpath` is the run folder's checkpoints/ by
    default. Best ones are chosen after each validation (or epoch); `every_n_epochs` and
    `every_n_steps` say how often anything is written. Only what it wrote is ever deleted.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        mode: str = "min",
        save_last: bool = True,
        save_top_k: int = 1,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        save_on_exception: bool = False,
    ):
        super().__init__(monitor, mode)
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}, expected 1 or more")
        if save_top_k < -1:
            raise ValueError(f"save_top_k is {save_top_k!r}, expected -1 (all), 0 or more")
        self.dirpath, self.filename = dirpath, filename or "epoch-{epoch:03d}-step-{step:06d}"
        self.save_last, self.save_top_k = save_last, save_top_k
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.save_on_exception = save_on_exception
        self.kept: list[tuple[float, str]] = []  # best first
        self.written: tuple[int, int] | None = None  # step and epoch of `last`

    @property
    def best_model_path(self) -> Path | None:
        """The best checkpoint, None before one is written."""
        return Path(self.kept[0][1]) if self.kept else None

    @property
    def best_model_score(self) -> float | None:
        """The monitored value of the best checkpoint."""
        return self.kept[0][0] if self.kept else None

    def folder(self, trainer) -> Path:
        """Where checkpoints go."""
        return Path(self.dirpath or trainer.default_root_dir / "checkpoints")

    def setup(self, trainer, module) -> None:
        self.kept, self.written = [], None
        if self.by_validation and trainer.val_loader is None:
            warnings.warn(
                f"ModelCheckpoint: no validation loader, so no {self.monitor}: "
                f"only the last checkpoint is saved",
                stacklevel=4,
            )

    def on_validation_end(self, trainer, module) -> None:
        # At an epoch's end the epoch is closed first, so that a resumed run does not repeat it.
        if self.by_validation and not trainer.epoch_ending:
            self._save(trainer, fresh=True)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        every = self.every_n_steps
        if every and trainer.group == 0 and trainer.global_step % every == 0:
            self._save(trainer, fresh=self.monitor is None)

    def on_train_epoch_end(self, trainer, module) -> None:
        last_of_all = trainer.should_stop or not trainer.epoch_finished
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 or last_of_all:
            fresh = not self.by_validation or trainer.validated_now
            self._save(trainer, fresh)

    def on_train_end(self, trainer, module) -> None:
        if self.save_last and self.written != (trainer.global_step, trainer.current_epoch):
            self.write_last(trainer)

    def on_exception(self, trainer, module, error) -> None:
        if self.save_on_exception and trainer.group == 0:
            self.write_last(trainer)

    def write_last(self, trainer) -> Path:
        """Write `last`, a directory of its own."""
        path = self.folder(trainer) / "last"
        trainer.save_checkpoint(path)
        self.written = trainer.global_step, trainer.current_epoch + trainer.epoch_finished
        return path

    def _save(self, trainer, fresh: bool) -> None:
        """Keep the state if it is among the best, then `last`, which knows about the best."""
        dropped = self._keep(trainer) if fresh and self.save_top_k else []
        if self.save_last:
            self.write_last(trainer)
        for path in dropped:  # once `last` no longer counts them among the kept
            checkpoint.remove(path)

    def _keep(self, trainer) -> list[str]:
        if self.by_validation and trainer.val_loader is None:
            return []
        newest = -float(trainer.global_step) if self.mode == "min" else float(trainer.global_step)
        value = self.value(trainer) if self.monitor else newest
        full = 0 < self.save_top_k <= len(self.kept)
        if full and not self.better(value, self.kept[-1][0]):
            return []
        before = list(self.kept)
        dropped = [self.kept.pop()[1]] if full else []
        path = str(self._path(trainer, reusable=dropped))
        place = sum(not self.better(value, score) for score, _ in self.kept)
        self.kept.insert(place, (value, path))
        try:
            trainer.save_checkpoint(path)
        except checkpoint.CheckpointError:
            self.kept = before
            raise
        return [old for old in dropped if old != path]

    def _path(self, trainer, reusable: list[str]) -> Path:
        """The next name by `filename`; "-v1", "-v2"… when another checkpoint has it."""
        values = trainer.callback_metrics | {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
        }
        names = {name for _, name, _, _ in string.Formatter().parse(self.filename) if name}
        if missing := sorted(names - set(values)):
            raise ValueError(
                f"ModelCheckpoint: filename {self.filename!r} uses {missing[0]!r}, "
                f"there are {', '.join(sorted(values))}"
            )
        name = self.filename.format(**values).replace("/", "_")
        path, version = self.folder(trainer) / name, 0
        while path.exists() and str(path) not in reusable:
            version += 1
            path = self.folder(trainer) / f"{name}-v{version}"
        return path

    def state_dict(self) -> dict:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict) -> None:
        self.kept = [(v, p) for v, p in state["kept"] if (Path(p) / checkpoint.STATE).is_file()]


class EarlyStopping(_Monitor):
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


class ModelSummary(Callback):
    """Prints the model's parts with their parameters, total and trainable, before training."""

    def on_train_start(self, trainer, module) -> None:
        print(self.text(module), file=sys.stderr, flush=True)

    @staticmethod
    def text(module) -> str:
        """The table as text."""
        lines = []
        for name, child in module.children().items():
            parameters = child.parameters() if hasattr(child, "parameters") else child
            size = sum(a.size for _, a in tree_flatten(parameters) if hasattr(a, "size"))
            lines.append(f"  {name:<24}{type(child).__name__:<24}{size:>14,}")
        total, trainable = module.parameter_counts()
        head = f"{type(module).__name__}: {total:,} parameters, {trainable:,} trainable"
        return "\n".join([head, *lines])


class ProgressBar(Callback):
    """A bar for each epoch, drawn every `refresh_rate` batches and at most 10 times a second.

    When the output is no terminal: a line every `line_seconds`, and one an epoch.
    """

    def __init__(self, refresh_rate: int = 10, line_seconds: float = 30.0):
        if refresh_rate < 1:
            raise ValueError(f"refresh_rate is {refresh_rate!r}, expected 1 batch or more")
        self.refresh_rate, self.line_seconds = refresh_rate, line_seconds
        self.bar: tqdm | None = None

    def on_train_epoch_start(self, trainer, module) -> None:
        self._close()
        self.last_draw = self.last_line = time.monotonic()
        self.terminal = sys.stderr.isatty()
        if self.terminal:
            self.bar = tqdm(
                total=trainer.num_training_batches,
                initial=trainer.batches_done,
                desc=self._epoch(trainer),
                unit="batch",
                dynamic_ncols=True,
                mininterval=0.1,
                leave=False,
            )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % self.refresh_rate:
            return
        now = time.monotonic()
        if self.bar is not None and now - self.last_draw >= 0.1:
            self.last_draw = now
            if trainer.latest is not None:  # the step before: its result is there, no waiting
                loss = trainer.latest.get("loss")
                self.bar.set_postfix_str("" if loss is None else f"loss {loss:.4f}", refresh=False)
            self.bar.update(batch_idx + 1 - self.bar.n)
        elif self.bar is None and now - self.last_line >= self.line_seconds:
            self.last_line = now
            total = trainer.num_training_batches or "?"
            loss = trainer.latest.get("loss") if trainer.latest is not None else None
            told = "" if loss is None else f", loss {loss:.4f}"
            self._print(f"{self._epoch(trainer)}: batch {batch_idx + 1} of {total}{told}")

    def on_epoch_end(self, trainer, state) -> None:
        self._close()
        row = trainer.history.rows[-1]
        shown = [n for n in row if n.startswith(("train_", "val_"))]
        numbers = "  ".join(f"{name} {row[name]:.4f}" for name in shown)
        self._print(f"{self._epoch(trainer)}  step {row['step']}  {numbers}")

    def teardown(self, trainer, module) -> None:
        self._close()

    def _epoch(self, trainer) -> str:
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_steps is None else ""
        return f"epoch {trainer.current_epoch + 1}{of}"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


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
