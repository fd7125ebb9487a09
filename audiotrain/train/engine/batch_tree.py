"""A batch as the compiled step takes it: a list of arrays, and a hashable structure.

A batch may nest dicts, lists, tuples, named tuples and dataclasses of arrays, numbers and text.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx
import numpy as np

Structure = str | tuple[Any, ...]  # hashable


def flatten_batch(batch: Any, path: str = "batch") -> tuple[list[mx.array], Structure]:
    """Arrays of a batch and its hashable structure; numbers and NumPy arrays become mx.arrays.

    Dicts, lists, tuples, named tuples and dataclasses may nest. Strings and other hashable leaves
    stay in the structure: a new value of one means a new trace. ValueError for other leaves.
    """
    arrays: list[mx.array] = []
    return arrays, _flatten(batch, arrays, (path,))


def _flatten(batch: Any, arrays: list[mx.array], path: tuple) -> Structure:
    """The structure; called for every leaf of every step, so the usual cases come first."""
    kind: type
    names: Iterable
    children: Iterable
    if isinstance(batch, mx.array):
        arrays.append(batch)
        return "array"
    if isinstance(batch, dict):
        kind, names, children = dict, batch, batch.values()
    elif isinstance(batch, list | tuple):
        kind, names, children = type(batch), range(len(batch)), batch
    elif isinstance(batch, np.ndarray | np.generic):
        if batch.dtype.kind in "OUSMmV":
            raise ValueError(f"{_place(path)} is a NumPy array of {batch.dtype}, expected numbers")
        arrays.append(mx.array(np.asarray(batch)))
        return "array"
    elif isinstance(batch, bool | int | float):
        arrays.append(mx.array(batch))
        return "array"
    elif isinstance(batch, Mapping):
        kind, names, children = dict, batch, batch.values()
    elif is_dataclass(batch) and not isinstance(batch, type):
        kind, names = type(batch), [field.name for field in fields(batch)]
        children = [getattr(batch, name) for name in names]
    elif isinstance(batch, Hashable):
        return "constant", _place(path), batch
    else:
        found = type(batch).__name__
        raise ValueError(f"{_place(path)} is a {found}, expected arrays, numbers or text")
    names = tuple(names)
    structures = [
        _flatten(child, arrays, (*path, name)) for name, child in zip(names, children, strict=True)
    ]
    return kind, names, tuple(structures)


def _place(path: tuple) -> str:
    return path[0] + "".join(f"[{name!r}]" for name in path[1:])


def unflatten_batch(arrays: list[mx.array], structure: Structure) -> Any:
    """The batch that `flatten_batch` took apart."""
    return _unflatten(iter(arrays), structure)


def _unflatten(arrays: Iterator[mx.array], structure: Structure) -> Any:
    if isinstance(structure, str):
        return next(arrays)
    if structure[0] == "constant":
        return structure[2]
    kind: Any
    kind, names, structures = structure
    children = [_unflatten(arrays, child) for child in structures]
    if kind is dict:
        return dict(zip(names, children, strict=True))
    if hasattr(kind, "__dataclass_fields__"):
        return kind(**dict(zip(names, children, strict=True)))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def leaves(arrays: list[mx.array], structure: Structure) -> dict[str, str]:
    """A description of each leaf of a flattened batch, by its path.

    >>> leaves(*flatten_batch({"x": mx.zeros((2, 3)), "name": "a.wav"}))
    {"batch['x']": '(2, 3) float32', "batch['name']": "'a.wav'"}
    """
    return dict(_leaves(iter(arrays), structure, "batch"))


def _leaves(
    arrays: Iterator[mx.array], structure: Structure, path: str
) -> Iterator[tuple[str, str]]:
    if isinstance(structure, str):
        array = next(arrays)
        yield path, f"{tuple(array.shape)} {str(array.dtype).removeprefix('mlx.core.')}"
    elif structure[0] == "constant":
        yield path, repr(structure[2])
    else:
        _, names, structures = structure
        for name, child in zip(names, structures, strict=True):
            yield from _leaves(arrays, child, f"{path}[{name!r}]")


def difference(before: dict[str, str], now: dict[str, str]) -> str:
    """A description of the first leaf in which two results of `leaves` differ."""
    for path in before | now:
        if before.get(path) != now.get(path):
            return f"{path} was {before.get(path, 'not there')}, then {now.get(path, 'not there')}"
    return "its containers changed"
