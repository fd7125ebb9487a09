"""A batch as the compiled step takes it: a list of arrays, and a hashable structure.

A batch may nest dicts, lists, tuples, named tuples and dataclasses of arrays, numbers and text.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx
import numpy as np


def flatten_batch(batch: Any, path: str = "batch") -> tuple[list[mx.array], Hashable]:
    """Arrays of a batch and its hashable structure; numbers and NumPy arrays become mx.arrays.

    Dicts, lists, tuples, named tuples and dataclasses may nest. Strings and other hashable leaves
    stay in the structure: a new value of one means a new trace. ValueError for other leaves.
    """
    arrays: list[mx.array] = []
    return arrays, _flatten(batch, arrays, (path,))


def _flatten(batch, arrays: list[mx.array], path: tuple) -> Hashable:
    """The structure; called for every leaf of every step, so the usual cases come first."""
    if isinstance(batch, mx.array):
        arrays.append(batch)
        return "array"
    if isinstance(batch, dict):
        kind, names, children = dict, tuple(batch), batch.values()
    elif isinstance(batch, list | tuple):
        kind, names, children = type(batch), tuple(range(len(batch))), batch
    elif isinstance(batch, np.ndarray | np.generic | bool | int | float):
        if isinstance(batch, np.ndarray | np.generic) and batch.dtype.kind in "OUSMmV":
            found = f"a NumPy array of {batch.dtype}, expected numbers"
            raise ValueError(f"{_place(path)} is {found}")
        arrays.append(mx.array(batch))
        return "array"
    elif isinstance(batch, Mapping):
        kind, names, children = dict, tuple(batch), batch.values()
    elif is_dataclass(batch) and not isinstance(batch, type):
        kind, names = type(batch), tuple(field.name for field in fields(batch))
        children = [getattr(batch, name) for name in names]
    elif isinstance(batch, Hashable):
        return "constant", _place(path), batch
    else:
        found = f"a {type(batch).__name__}, expected arrays, numbers or text"
        raise ValueError(f"{_place(path)} is {found}")
    structures = [
        _flatten(child, arrays, (*path, name)) for name, child in zip(names, children, strict=True)
    ]
    return kind, names, tuple(structures)


def _place(path: tuple) -> str:
    return path[0] + "".join(f"[{name!r}]" for name in path[1:])


def unflatten_batch(arrays: list[mx.array], structure: Hashable) -> Any:
    """The batch that `flatten_batch` took apart."""
    return _unflatten(iter(arrays), structure)


def _unflatten(arrays, structure):
    if structure == "array":
        return next(arrays)
    if structure[0] == "constant":
        return structure[2]
    kind, names, structures = structure
    children = [_unflatten(arrays, child) for child in structures]
    if kind is dict:
        return dict(zip(names, children, strict=True))
    if is_dataclass(kind):
        return kind(**dict(zip(names, children, strict=True)))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def leaves(arrays: list[mx.array], structure: Hashable) -> dict[str, str]:
    """What each leaf of a flattened batch is, in words, by its path.

    >>> leaves(*flatten_batch({"x": mx.zeros((2, 3)), "name": "a.wav"}))
    {"batch['x']": '(2, 3) float32', "batch['name']": "'a.wav'"}
    """
    return dict(_leaves(iter(arrays), structure, "batch"))


def _leaves(arrays: Iterator[mx.array], structure: Hashable, path: str):
    if structure == "array":
        array = next(arrays)
        yield path, f"{tuple(array.shape)} {str(array.dtype).removeprefix('mlx.core.')}"
    elif structure[0] == "constant":
        yield path, repr(structure[2])
    else:
        for name, child in zip(*structure[1:], strict=True):
            yield from _leaves(arrays, child, f"{path}[{name!r}]")


def difference(before: dict[str, str], now: dict[str, str]) -> str:
    """The first leaf in which two results of `leaves` differ, in words."""
    for path in before | now:
        if before.get(path) != now.get(path):
            return f"{path} was {before.get(path, 'not there')}, then {now.get(path, 'not there')}"
    return "its containers changed"
