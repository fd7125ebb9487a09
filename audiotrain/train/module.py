"""TrainModule: a model with its loss and its optimizer, which the Trainer uses.

Metrics are scalar mx.arrays; accuracies are fractions in 0..1, never percent.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.optimizers as optim

from audiotrain.backend.buffers import Buffered, freeze_buffers
from audiotrain.train.engine.batch_tree import first_axes, flatten_batch
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError

if TYPE_CHECKING:
    from audiotrain.train.trainer import Trainer


@dataclass
class OptimizerConfig:
    """The optimizer of a module, and the name its schedule has in logs (None: unnamed).

    A schedule is a callable of the optimizer step given to the optimizer as `learning_rate`.
    """

    optimizer: optim.Optimizer
    lr_schedule_name: str | None = None
    bias_correction: bool = True

    def corrected_optimizer(self) -> optim.Optimizer:
        """The optimizer, each Adam or AdamW in it with its bias correction on as in its paper.

        MLX leaves it off, which makes the first steps about three times as long as the learning
        rate says. `bias_correction=False` leaves the optimizer as it was made.
        """
        optimizers = [self.optimizer]
        if isinstance(self.optimizer, optim.MultiOptimizer):
            optimizers = self.optimizer.optimizers
        for optimizer in optimizers:
            if self.bias_correction and isinstance(optimizer, optim.Adam):
                optimizer.bias_correction = True
        return self.optimizer


class TrainModule(Buffered):
    """Base class of what the Trainer trains.

    Define `__call__`, `compute_loss(batch)` and `configure_optimizers()`. The rest is optional.

    >>> import mlx.nn as nn
    >>> class Line(TrainModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(1, 1)
    ...     def compute_loss(self, batch):
    ...         x, y = batch
    ...         return mx.mean((self.layer(x) - y) ** 2), {}
    ...     def configure_optimizers(self):
    ...         return OptimizerConfig(optim.SGD(learning_rate=0.1))
    >>> Line().parameter_counts()
    (2, 2)
    """

    def compute_loss(self, batch: Any) -> tuple[mx.array, dict[str, mx.array]]:
        """(loss, metrics) of one batch, all scalar arrays; runs inside the compiled step."""
        raise NotImplementedError(f"{type(self).__name__} has no compute_loss(batch)")

    def configure_optimizers(self) -> OptimizerConfig:
        """The OptimizerConfig; `self.trainer` is set when this is called."""
        raise NotImplementedError(f"{type(self).__name__} has no configure_optimizers()")

    def validation_step(self, batch: Any) -> Any:
        """Metrics of one validation batch, as (loss, metrics) or a dict; "val_" is put before."""
        return self.compute_loss(batch)

    def test_step(self, batch: Any) -> Any:
        """Metrics of one test batch, as (loss, metrics) or a dict; "test_" is put before."""
        return self.compute_loss(batch)

    def predict_step(self, batch: Any) -> Any:
        """Output for one batch of `Trainer.predict`: `self(batch)`, or of a tuple's first item."""
        return self(batch[0] if isinstance(batch, tuple | list) else batch)

    def batch_weight(self, batch: Any) -> mx.array | int:
        """Return the weight of one batch in averages of losses and gradients over batches.

        The length of the batch's first array, with a warning, once, where the first axes of its
        arrays differ; 1 where it has none. A module whose mean runs over something else overrides
        it with that number (an int or a scalar array). ValueError for a batch that holds anything
        but arrays, numbers and text.
        """
        arrays, structure, _ = flatten_batch(batch)
        counts = [array.shape[0] for array in arrays if array.ndim]
        if len(set(counts)) > 1 and not self.__dict__.get("_warned_of_weight"):
            self.__dict__["_warned_of_weight"] = True
            lengths = first_axes(arrays, structure)
            first = next(iter(lengths))
            other = next(path for path, count in lengths.items() if count != lengths[first])
            warnings.warn(
                f"the first axes of a batch differ ({first} {lengths[first]}, {other} "
                f"{lengths[other]}), and it counts as {lengths[first]} items: give "
                f"{type(self).__name__} a batch_weight(batch) with the number of its items",
                stacklevel=2,
            )
        return next(iter(counts), 1)

    def on_train_start(self) -> None:
        """Called once before the first step."""

    def on_train_end(self) -> None:
        """Called once after the last step."""

    def on_train_epoch_start(self, epoch: int) -> None:
        """Called before each epoch; `epoch` counts from 0."""

    def on_train_epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Called after each epoch and its validation, with the numbers of both."""

    def on_validation_start(self) -> None:
        """Called before each validation, in eval mode."""

    def on_validation_end(self, metrics: dict[str, float]) -> None:
        """Called after each validation."""

    @property
    def trainer(self) -> "Trainer":
        """The Trainer this module is attached to; RuntimeError before one is."""
        trainer = self.__dict__.get("_attached_trainer")
        if trainer is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a Trainer yet")
        return trainer

    @property
    def current_epoch(self) -> int:
        """Epoch under way, from 0."""
        return self.trainer.current_epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self.trainer.global_step

    def log(self, name: str, value: mx.array | float) -> None:
        """Record a scalar under `name`: in a step with that step's metrics, averaged as they are;
        in a hook with the trainer's next row. Without a trainer it does nothing.

        A name that begins with "train_", "val_" or "test_", or with "train/", "val/" or "test/", is
        logged as it is, in that stage only. "loss" may
        only be the number that the step returns. ValueError for what is not one number, and for the
        names epoch and step."""
        trainer = self.__dict__.get("_attached_trainer")
        if trainer is not None:
            trainer.record(name, value)

    def log_dict(self, metrics: dict[str, mx.array | float]) -> None:
        """`log` every entry. Errors as those of `log`."""
        for name, value in metrics.items():
            self.log(name, value)

    def attach(self, trainer: "Trainer") -> None:
        """Make this the module's `trainer`."""
        self.__dict__["_attached_trainer"] = trainer

    def parameter_counts(self) -> tuple[int, int]:
        """Numbers of all and of trainable parameters."""
        trees = self.parameters(), self.trainable_parameters()
        total, trainable = (sum(a.size for a in arrays_of(tree).values()) for tree in trees)
        return total, trainable


def optimizer_config(
    module: TrainModule, configure: Callable[[TrainModule], OptimizerConfig] | None = None
) -> OptimizerConfig:
    """The result of `configure`, or of the module's `configure_optimizers`; ValueError when that is
    no OptimizerConfig, or when the module has no trainable parameters. Buffers are frozen first."""
    freeze_buffers(module)
    check_trainable(module)
    config = module.configure_optimizers() if configure is None else configure(module)
    if not isinstance(config, OptimizerConfig):
        raise UserError(
            f"{type(module).__name__}.configure_optimizers gave a {type(config).__name__}, "
            f"expected an OptimizerConfig"
        )
    return config


def check_trainable(module: TrainModule) -> None:
    """ValueError when a module has no trainable parameters."""
    total, trainable = module.parameter_counts()
    if not trainable:
        way = "unfreeze() some" if total else "give it layers or arrays as attributes"
        raise UserError(
            f"{type(module).__name__} has no trainable parameters ({total} in all, "
            f"{total - trainable} frozen): {way}"
        )
