"""TrainerArguments: the settings of a Trainer, checked by their types; checks of its loaders."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from audiotrain.config.schema import (
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveShare,
    Share,
    ShareBelowOne,
    validated,
)
from audiotrain.train.checkpoint import not_plain
from audiotrain.train.protocols import check_protocol
from audiotrain.utils.errors import UserError


def seconds(time_limit: float | str | timedelta | None, name: str = "max_time") -> float | None:
    """Seconds of a time limit: a number, a timedelta or "days:hours:minutes:seconds".

    >>> seconds("00:01:30:00")
    5400.0
    """
    if isinstance(time_limit, timedelta):
        time_limit = time_limit.total_seconds()
    if isinstance(time_limit, str):
        parts = time_limit.split(":")
        if len(parts) != 4 or not all(part.isdigit() for part in parts):
            raise UserError(f"{name} is {time_limit!r}, expected days:hours:minutes:seconds")
        days, hours, minutes, rest = map(int, parts)
        time_limit = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"{name} is {time_limit!r}, expected more than 0 seconds")
    return None if time_limit is None else float(time_limit)


def _is_time(limit: float | str) -> float | str:
    seconds(limit)
    return limit


WholeFromZero = Annotated[int, Field(strict=True, ge=0)]
WholeFromOne = Annotated[int, Field(strict=True, ge=1)]
Batches = Annotated[
    WholeFromOne | PositiveShare,
    Field(description="1 or more batches, or a share above 0.0 to 1.0"),
]
BatchesOrNone = Annotated[
    WholeFromZero | PositiveShare,
    Field(description="0 or more batches, or a share above 0.0 to 1.0"),
]
Limit = Annotated[
    WholeFromZero | Share, Field(description="0 or more batches, or a share 0.0 to 1.0")
]
Interval = Annotated[
    WholeFromOne | PositiveShare,
    Field(description="a share of the epoch above 0.0 to 1.0, or 1 or more steps"),
]
TimeLimit = Annotated[float | str, AfterValidator(_is_time)]
Seconds = Annotated[
    float | str | timedelta,
    AfterValidator(seconds),
    Field(description="seconds, a timedelta or days:hours:minutes:seconds"),
]


@validated
class TrainerArguments:
    """The settings of a Trainer, which explains them; ValueError lists those that cannot be."""

    max_epochs: PositiveInt | None
    max_steps: PositiveInt | None
    max_time: Seconds | None
    val_check_interval: Interval
    check_val_every_n_epoch: PositiveInt
    num_sanity_val_steps: NonNegativeInt
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"]
    accumulate_grad_batches: PositiveInt
    ema_decay: ShareBelowOne | None
    max_skipped_steps: PositiveInt
    precision: Literal["32-true", "bf16-mixed"]
    memory_limit: PositiveInt | None
    cache_limit: NonNegativeInt | None
    wired_limit: NonNegativeInt | None
    default_root_dir: Path
    enable_checkpointing: bool
    enable_progress_bar: bool
    enable_model_summary: bool
    compile: bool
    seed: NonNegativeInt
    log_every_n_steps: PositiveInt
    limit_train_batches: Limit | None
    limit_val_batches: Limit | None
    limit_test_batches: Limit | None
    limit_predict_batches: Limit | None
    overfit_batches: Limit
    fast_dev_run: bool | NonNegativeInt
    debug_lazy_eval: bool
    config: dict | None

    def __post_init__(self):
        lengths = self.max_epochs, self.max_steps, self.max_time
        if lengths == (None, None, None) and not self.fast_dev_run:
            raise UserError(
                "max_epochs, max_steps and max_time are None, expected one of them or more"
            )
        every, interval = self.check_val_every_n_epoch, self.val_check_interval
        if not isinstance(interval, float) and every != 1:
            raise UserError(
                f"check_val_every_n_epoch is {every}, but val_check_interval={interval} counts "
                f"steps, expected one of them"
            )
        if problem := not_plain(self.config, "config"):
            raise UserError(f"{problem}: it is saved with every checkpoint")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "TrainerArguments":
        """Those of a mapping that may have other names, too, with `fast_dev_run` carried out."""
        names = [field.name for field in fields(cls)]
        arguments = cls(**{name: settings[name] for name in names})
        batches = int(arguments.fast_dev_run)
        return arguments.for_dev_run(batches) if batches else arguments

    def for_dev_run(self, batches: int) -> "TrainerArguments":
        """One epoch of so many batches that writes nothing, to test one's own code."""
        return replace(
            self,
            limit_train_batches=batches,
            limit_val_batches=batches,
            limit_test_batches=batches,
            limit_predict_batches=batches,
            max_epochs=1,
            max_steps=batches,
            max_time=None,
            num_sanity_val_steps=0,
            val_check_interval=1.0,
            check_val_every_n_epoch=1,
            enable_checkpointing=False,
        )


def as_list(name: str, value: Any, kind: type) -> list[Any]:
    """One object, a list of them or None as a list; ValueError unless all have the methods of the
    protocol `kind`."""
    items = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    for item in items:
        check_protocol(name, item, kind)
    return items


def check_loaders(trainer) -> None:
    """ValueError unless the loaders of a fit can be iterated, and neither is known to be empty."""
    for name, loader in (("train", trainer.train_loader), ("val", trainer.val_loader)):
        iterable = isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
        if not iterable and (name == "train" or loader is not None):
            kind = type(loader).__name__
            raise UserError(f"{name}_loader is a {kind}, expected a DataLoader or other batches")
    if trainer.num_training_batches == 0:
        raise UserError(
            "nothing to train on: train_loader has no batch (drop_last leaves out a last one that "
            "is too small), or limit_train_batches is 0"
        )
    sized = hasattr(trainer.val_loader, "__len__") and trainer.limit_val_batches != 0
    if sized and len(trainer.val_loader) == 0:
        raise UserError("val_loader has no batch: give None to train without validation")
