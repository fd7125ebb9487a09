"""Numbers of training steps, read back in batches and averaged; scalars that hooks log."""

import contextlib
import math
import time
from collections.abc import Iterator

import mlx.core as mx

from audiotrain.train.engine.compiled_function import StepOutputs, as_float, scalar
from audiotrain.utils.errors import UserError

PER_STEP = ("gradient_norm", "learning_rate")
MOST_PENDING = 256


class NonFiniteError(UserError):
    """Too many steps in a row had a NaN or infinite loss or gradient."""


class MetricBuffer:
    """Outputs of steps that were not read yet, and the log interval that they are part of."""

    def __init__(self, trainer) -> None:
        self.trainer, self.ranks = trainer, trainer.ranks
        self.pending: list[tuple[int, StepOutputs]] = []
        # The first of the steps skipped in a row.
        self.skipped_from = trainer.global_step - trainer.skipped_run
        self.begin_interval()

    def begin_interval(self) -> None:
        """Count time and examples from now."""
        self.began, self.examples = time.monotonic(), 0

    def add(self, step: int, outputs: StepOutputs) -> None:
        """Outputs of `step`, to be read later."""
        self.pending.append((step, outputs))
        if len(self.pending) >= MOST_PENDING:
            self.drain()

    def drain(self) -> None:
        """Read the pending numbers into the averages; stop when too many steps were skipped."""
        trainer = self.trainer
        pending, self.pending = self.pending, []
        with self.ranks.waiting():
            mx.eval([outputs.vector for _, outputs in pending])
        for step, outputs in pending:
            numbers = dict(outputs.numbers)
            if "finite" not in numbers:
                trainer.interval.add(numbers, 1.0)
                continue
            self.examples += outputs.examples * self.ranks.size
            weight, finite = numbers.pop("weight"), numbers.pop("finite")
            if not finite:
                if trainer.skipped_run == 0:
                    self.skipped_from = step
                trainer.skipped_steps += 1
                trainer.skipped_run += 1
                self._check_skipped(numbers["loss"])
                continue
            trainer.skipped_run = 0
            by_step = {name: numbers.pop(name) for name in PER_STEP if name in numbers}
            trainer.averages.add(numbers, weight)
            trainer.interval.add(numbers, weight)
            trainer.interval.add(by_step, 1.0)

    def _check_skipped(self, loss: float) -> None:
        trainer = self.trainer
        if trainer.skipped_run >= trainer.arguments.max_skipped_steps:
            name = "gradient" if math.isfinite(loss) else "loss"
            raise NonFiniteError(
                f"the {name} was NaN or infinite in {trainer.skipped_run} batches in a row, from "
                f"step {self.skipped_from} of epoch {trainer.current_epoch}; nothing of them was "
                f"learned: lower the learning rate, clip gradients, check the data and its labels"
            )

    def row(self) -> dict[str, float]:
        """The numbers of the interval."""
        seconds = time.monotonic() - self.began
        return self.trainer.interval.means() | {
            "learning_rate": self.trainer.current_learning_rate(),
            "examples_per_second": self.examples / max(seconds, 1e-9),
            "peak_memory_mb": mx.get_peak_memory() / 1e6,
            "skipped_steps": self.trainer.skipped_steps,
        }


class LoggedScalars:
    """Scalars that modules and callbacks log by name, until the next row takes them."""

    def __init__(self) -> None:
        self.waiting: dict[str, mx.array | float] = {}
        self.in_step = False

    def add(self, name: str, value: mx.array | float) -> mx.array:
        """Keep a scalar; ValueError for other values, and for a name that every row has."""
        number = scalar(name, value)
        if name in ("epoch", "step"):
            raise ValueError(f"metric {name!r}: every row has one already, rename it")
        self.waiting[name] = value
        return number

    @contextlib.contextmanager
    def of_step(self) -> Iterator[dict]:
        """Collect what is logged inside the block, for the step that is being traced."""
        before = self.waiting, self.in_step
        self.waiting, self.in_step = {}, True
        try:
            yield self.waiting
        finally:
            self.waiting, self.in_step = before

    def pending(self) -> dict[str, float]:
        """The scalars that the next row gets."""
        return {name: as_float(scalar(name, value)) for name, value in self.waiting.items()}

    def take(self) -> dict[str, float]:
        """The pending scalars, which are removed."""
        numbers, self.waiting = self.pending(), {}
        return numbers
