"""Checks of the Trainer's settings and loaders, before anything runs."""

from datetime import timedelta

from audiotrain.precision import PRECISIONS


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
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is {value!r}, expected a whole number, {least} or more")
    clip, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
    if clip is not None and not clip > 0:
        raise ValueError(f"gradient_clip_val is {clip!r}, expected a number above 0 or None")
    if algorithm not in ("norm", "value"):
        raise ValueError(f"gradient_clip_algorithm is {algorithm!r}, expected 'norm' or 'value'")
    if trainer.precision not in PRECISIONS:
        expected = " or ".join(map(repr, PRECISIONS))
        raise ValueError(f"precision is {trainer.precision!r}, expected {expected}")
    if trainer.ema_decay is not None and not 0 <= trainer.ema_decay < 1:
        raise ValueError(f"ema_decay is {trainer.ema_decay!r}, expected 0 or more and below 1")
    interval = trainer.val_check_interval
    if interval <= 0 or (isinstance(interval, float) and interval > 1):
        raise ValueError(
            f"val_check_interval is {interval!r}, expected a share of the epoch above 0.0 and "
            f"at most 1.0, or a whole number of steps"
        )


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
