"""Checks of the Trainer's settings and loaders, before anything runs."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from audiotrain.train.checkpoint import not_plain
from audiotrain.train.engine.precision import PRECISIONS


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
            raise ValueError(f"{name} is {time_limit!r}, expected days:hours:minutes:seconds")
        days, hours, minutes, rest = map(int, parts)
        time_limit = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"{name} is {time_limit!r}, expected more than 0 seconds")
    return None if time_limit is None else float(time_limit)


def _is_time(limit: float | str | timedelta) -> float | str | timedelta:
    """A time limit as it is; ValueError where it is none."""
    seconds(limit)
    return limit


PartOfBatches = Annotated[float, Field(gt=0, le=1)]
Batches = Annotated[
    Annotated[int, Field(strict=True, ge=1)] | PartOfBatches,
    Field(description="1 or more batches, or a share above 0.0 to 1.0"),
]
BatchesOrNone = Annotated[
    Annotated[int, Field(strict=True, ge=0)] | PartOfBatches,
    Field(description="0 or more batches, or a share above 0.0 to 1.0"),
]
TimeLimit = Annotated[float | str, AfterValidator(_is_time)]


def check_settings(trainer) -> None:
    """ValueError naming the first setting of a Trainer that cannot be."""
    if trainer.max_epochs is None and trainer.max_steps is None and trainer.max_time is None:
        raise ValueError("nothing says how long to train: give max_epochs, max_steps or max_time")
    for name, least in (
        ("max_epochs", 1),
        ("max_steps", 1),
        ("check_val_every_n_epoch", 1),
        ("num_sanity_val_steps", 0),
        ("accumulate_grad_batches", 1),
        ("max_skipped_steps", 1),
        ("log_every_n_steps", 1),
        ("memory_limit", 1),
        ("cache_limit", 0),
        ("wired_limit", 0),
    ):
        value = trainer.__dict__[name]
        optional = name in ("max_epochs", "max_steps") or name.endswith("_limit")
        if value is None and optional:
            continue
        if not is_whole(value) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number, {least} or more")
    if not is_whole(trainer.seed) or trainer.seed < 0:
        raise ValueError(f"seed is {trainer.seed!r}, expected a whole number, 0 or more")
    for name in (f"limit_{part}_batches" for part in ("train", "val", "test", "predict")):
        value = trainer.__dict__[name]
        if value is not None and not is_number(value) and value is not False:
            raise ValueError(f"{name} is {value!r}, expected a share 0.0..1.0 or a whole number")
    clip, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
    if clip is not None and not (is_number(clip) and clip > 0):
        raise ValueError(f"gradient_clip_val is {clip!r}, expected a number above 0 or None")
    if algorithm not in ("norm", "value"):
        raise ValueError(f"gradient_clip_algorithm is {algorithm!r}, expected 'norm' or 'value'")
    if trainer.precision not in PRECISIONS:
        expected = " or ".join(map(repr, PRECISIONS))
        raise ValueError(f"precision is {trainer.precision!r}, expected {expected}")
    decay = trainer.ema_decay
    if decay is not None and not (is_number(decay) and 0 <= decay < 1):
        raise ValueError(f"ema_decay is {decay!r}, expected 0 or more and below 1")
    interval = trainer.val_check_interval
    share = isinstance(interval, float)
    if not is_number(interval) or interval <= 0 or (share and interval > 1):
        raise ValueError(
            f"val_check_interval is {interval!r}, expected a share of the epoch above 0.0 and "
            f"at most 1.0, or a whole number of steps"
        )
    every = trainer.check_val_every_n_epoch
    if not share and every != 1:
        raise ValueError(
            f"check_val_every_n_epoch is {every}, but val_check_interval={interval} counts steps, "
            f"expected one of them"
        )
    if found := not_plain(trainer.config, "config"):
        raise ValueError(f"{found}: it is saved with every checkpoint")


def is_whole(value) -> bool:
    """Whether a setting is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether a setting is a plain Python number, and no bool."""
    return isinstance(value, float) or is_whole(value)


def parts(name: str, given, kind: type) -> list:
    """One callback or logger, several or None as a list; ValueError for what is no `kind`."""
    several = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    for one in several:
        if isinstance(one, type):
            found = f"the class {one.__name__}, expected an object of it"
            raise ValueError(f"{name}: {found}")
        if not isinstance(one, kind):
            raise ValueError(f"{name}: found {one!r}, expected a {kind.__name__}")
    return several


def check_loaders(trainer) -> None:
    """ValueError unless the loaders of a fit can be iterated, and neither says that it is empty."""
    for name, loader in (("train", trainer.train_loader), ("val", trainer.val_loader)):
        iterable = hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
        if not iterable and (name == "train" or loader is not None):
            found = type(loader).__name__
            raise ValueError(f"{name}_loader is a {found}, expected a DataLoader or other batches")
    if trainer.num_training_batches == 0:
        raise ValueError(
            "nothing to train on: train_loader has no batch (drop_last leaves out a last one that "
            "is too small), or limit_train_batches is 0"
        )
    sized = hasattr(trainer.val_loader, "__len__") and trainer.limit_val_batches != 0
    if sized and len(trainer.val_loader) == 0:
        raise ValueError("val_loader has no batch: give None to train without validation")
