"""ModelSummary and ProgressBar: the output of a run on the terminal."""

import time

from tqdm import tqdm

from audiotrain.train.callbacks.base import Callback, Monitor
from audiotrain.train.history import VALIDATION
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError
from audiotrain.utils.progress import output

COLUMNS = 100  # of the line at an epoch's end


class ModelSummary(Callback):
    """Prints the model's parts with their parameters, total and trainable, before training."""

    rank_zero_only = True

    def on_train_start(self, trainer, module) -> None:
        print(self.text(module), file=output(), flush=True)

    @staticmethod
    def text(module) -> str:
        """The table as text."""
        lines = []
        for name, child in module.children().items():
            parameters = child.parameters() if hasattr(child, "parameters") else child
            size = sum(array.size for array in arrays_of(parameters).values())
            lines.append(f"  {name:<24}{type(child).__name__:<24}{size:>14,}")
        total, trainable = module.parameter_counts()
        head = f"{type(module).__name__}: {total:,} parameters, {trainable:,} trainable"
        return "\n".join([head, *lines])


class ProgressBar(Callback):
    """A bar for each epoch, drawn every `refresh_rate` batches and at most 10 times a second.

    When the output is no terminal: a line every `line_seconds`. At an epoch's end a line with the
    losses, what callbacks monitor, the learning rate and as many accuracies as fit. ValueError for
    a `refresh_rate` below 1.
    """

    rank_zero_only = True

    def __init__(self, refresh_rate: int = 10, line_seconds: float = 30.0):
        if refresh_rate < 1:
            raise UserError(f"refresh_rate is {refresh_rate!r}, expected 1 batch or more")
        self.refresh_rate, self.line_seconds = refresh_rate, line_seconds
        self.bar: tqdm | None = None

    def on_train_epoch_start(self, trainer, module) -> None:
        self._close()
        self.last_draw = self.last_line = time.monotonic()
        self.terminal = output().isatty()
        if self.terminal:
            self.bar = tqdm(
                file=output(),
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
        # Of the step before this one: its result is there, reading it does not wait.
        loss = trainer.latest.get("loss") if trainer.latest is not None else None
        shown = "" if loss is None else f"loss {loss:.4f}"
        if self.bar is not None and now - self.last_draw >= 0.1:
            self.last_draw = now
            self.bar.set_postfix_str(shown, refresh=False)
            self.bar.update(batch_idx + 1 - self.bar.n)
        elif self.bar is None and now - self.last_line >= self.line_seconds:
            self.last_line = now
            batch = f"batch {batch_idx + 1} of {trainer.num_training_batches or '?'}"
            self._print(", ".join(filter(None, (f"{self._epoch(trainer)}: {batch}", shown))))

    def on_validation_start(self, trainer, module) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str("validating")

    def on_epoch_end(self, trainer, state) -> None:
        self._close()
        row = trainer.history.rows[-1]
        monitored = [c.monitor for c in trainer.callbacks if isinstance(c, Monitor)]
        shown = dict.fromkeys(["train_loss", "val_loss", *monitored])
        rate = f"  rate {row['learning_rate']:.2g}"
        rate += f"  {trainer.skipped_steps} skipped" if trainer.skipped_steps else ""
        line = f"{self._epoch(trainer)}  step {row['step']}"
        line += "".join(f"  {name} {row[name]:.4f}" for name in shown if name in row)
        for name in sorted(row, key=lambda name: not name.startswith(VALIDATION)):
            part = f"  {name} {row[name]:.4f}"
            accuracy = name not in shown and name.endswith(("acc", "accuracy"))
            if accuracy and len(line + part + rate) <= COLUMNS:
                line += part
        self._print(line + rate)

    def teardown(self, trainer, module) -> None:
        self._close()

    def _epoch(self, trainer) -> str:
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_steps is None else ""
        return f"epoch {trainer.current_epoch + 1}{of}"

    def _print(self, line: str) -> None:
        print(line, file=output(), flush=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
