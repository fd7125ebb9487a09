"""Layers of a module whose calls do more than their class's, without other parameters or names."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import mlx.nn as nn


def wrap_call(kind: type, call: Callable, **attributes: Any) -> type:
    """A subclass of a layer's class, called the same, with another `__call__` and class attributes.

    A layer becomes one of it by `layer.__class__ = …`, and keeps all that it holds.
    """
    inside = {"__call__": call, "__module__": kind.__module__} | attributes
    return type(kind.__name__, (kind,), inside)


@contextlib.contextmanager
def wrapped_calls(layers: Iterable[nn.Module], wrap: Callable[[type], type]) -> Iterator[None]:
    """Inside the block each layer is of the class that `wrap` makes of its own class."""
    classes = [(layer, type(layer)) for layer in layers]
    wrapped = {kind: wrap(kind) for _, kind in classes}
    try:
        for layer, kind in classes:
            layer.__class__ = wrapped[kind]
        yield
    finally:
        for layer, kind in classes:
            layer.__class__ = kind
