"""Callback: hooks of a run; Monitor: a callback that follows one metric.

A metric is a key of `trainer.callback_metrics`: val_loss, val_…, train_loss, train_…
"""

import math
from typing import Any

from audiotrain.train.history import VALIDATION
from audiotrain.utils.errors import UserError

Score = tuple[float, float]  # a monitored value, and the number that decides between equal ones


class Callback:
    """Base class: override the hooks needed. `outputs["loss"]` and such are plain floats.

    With several ranks it is called on each, on rank 0 alone with `rank_zero_only`.
    """

    rank_zero_only = False

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


class Monitor(Callback):
    """Reads one metric whenever it is updated. Of equal values, the one with the lower value of the
    metric `tie`, if given, is better."""

    def __init__(self, monitor: str | None, mode: str, tie: str | None = None):
        if mode not in ("min", "max"):
            raise UserError(f"mode is {mode!r}, expected 'min' or 'max'")
        if monitor is not None and not isinstance(monitor, str):
            raise UserError(f"monitor is {monitor!r}, expected the name of a metric")
        self.monitor, self.mode, self.tie = monitor, mode, tie

    @property
    def by_validation(self) -> bool:
        """Whether validations bring the metric, rather than ends of epochs."""
        return self.monitor is not None and self.monitor.startswith(VALIDATION)

    def value(self, trainer) -> float:
        """The monitored number now; ValueError naming those that exist."""
        return self._metric(trainer, self.monitor)

    def tie_value(self, trainer) -> float:
        """The number that decides between equal values; 0 without `tie`."""
        return 0.0 if self.tie is None else self._metric(trainer, self.tie)

    def _metric(self, trainer, name: str | None) -> float:
        metrics = trainer.callback_metrics
        if name not in metrics:
            raise UserError(
                f"{type(self).__name__}: no metric {name!r}, there are {', '.join(sorted(metrics))}"
            )
        return metrics[name]

    def better(self, value: float, than: float, by: float = 0.0) -> bool:
        """Whether `value` improves on `than` by more than `by`; NaN never does."""
        if math.isnan(value) or math.isnan(than):
            return not math.isnan(value)
        return value < than - by if self.mode == "min" else value > than + by

    def beats(self, score: Score, than: Score, by: float = 0.0) -> bool:
        """As `better`, of values with their ties."""
        if self.tie is not None and score[0] == than[0]:
            return score[1] < than[1] - by
        return self.better(score[0], than[0], by)
