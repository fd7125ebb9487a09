"""A batch as the compiled step takes it: a list of arrays, a hashable structure, and its text.

A batch may nest dicts, lists, tuples, named tuples and dataclasses of arrays, numbers and text.
Arrays and numbers are traced. Text is kept out of the compiled function: a new file name in every
batch is neither a new trace nor a constant of one.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import mlx.core as mx
import numpy as np

from audiotrain.utils.torch_tensors import is_torch_tensor, numpy_of_torch

Structure = str | tuple[Any, ...]  # hashable
ARRAY, TEXT, NOTHING = "array", "text", "nothing"
EXPECTED = "arrays, numbers, text, or dicts, lists, tuples and dataclasses of these"


class TextOutsideStep:
    """Stands for the text of a batch inside a compiled function; any use of it is a TypeError that
    says how a loss gets text."""

    def __init__(self, place: str):
        self.__dict__["place"] = place

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self.__dict__['place']} is text, which the compiled step does not have: turn it "
            f"into numbers in collate_fn, or use Trainer(compile=False)"
        )

    def __repr__(self) -> str:
        return f"<text of {self.__dict__['place']}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols, which are asked for and may be absent
            raise AttributeError(name)
        self._refuse()

    # Also what every object has, such as `==`, which would silently be False.
    __str__ = __format__ = __hash__ = __bool__ = __len__ = __iter__ = _refuse  # type: ignore[assignment]
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse  # type: ignore[assignment]
    __getitem__ = __contains__ = __call__ = __fspath__ = _refuse
    __add__ = __radd__ = __mod__ = __mul__ = _refuse


LEAVES = (np.ndarray, np.generic, str, bool, int, float, bytes, type(None), TextOutsideStep)


def flatten_batch(batch: Any, path: str = "batch") -> tuple[list[mx.array], Structure, list]:
    """Return a batch's arrays, its hashable structure, and its text.

    Numbers, NumPy arrays and PyTorch tensors become mx.arrays. Dicts, lists, tuples, named tuples
    and dataclasses may nest; one that holds text and no array counts as text itself, so that the
    number of its entries is no part of the structure. Strings, bytes, paths and arrays of strings
    are text; None stays in the structure. ValueError, with place and type, for anything else.
    """
    arrays: list[mx.array] = []
    texts: list = []
    return arrays, _flatten(batch, arrays, texts, (path,)), texts


def _flatten(batch: Any, arrays: list[mx.array], texts: list, path: tuple) -> Structure:
    """The structure; called for every leaf of every step, so the usual cases come first."""
    kind: type
    names: Iterable
    children: Iterable
    if isinstance(batch, mx.array):
        arrays.append(batch)
        return ARRAY
    if isinstance(batch, dict):
        kind, names, children = dict, batch, batch.values()
    elif isinstance(batch, list | tuple):
        kind, names, children = type(batch), range(len(batch)), batch
    elif isinstance(batch, LEAVES):
        return _leaf(batch, arrays, texts, path)
    elif isinstance(batch, Mapping):
        kind, names, children = dict, batch, batch.values()
    elif is_dataclass(batch) and not isinstance(batch, type):
        kind, names = type(batch), [field.name for field in fields(batch)]
        children = [getattr(batch, name) for name in names]
    else:
        return _leaf(batch, arrays, texts, path)
    names, arrays_before, texts_before = tuple(names), len(arrays), len(texts)
    structures = [
        _flatten(child, arrays, texts, (*path, name))
        for name, child in zip(names, children, strict=True)
    ]
    if TEXT in structures and len(arrays) == arrays_before:
        texts[texts_before:] = [batch]
        return TEXT
    return kind, names, tuple(structures)


def _leaf(batch: Any, arrays: list[mx.array], texts: list, path: tuple) -> Structure:
    if batch is None:
        return NOTHING
    if isinstance(batch, str | bytes | os.PathLike | TextOutsideStep):
        texts.append(batch)
        return TEXT
    if isinstance(batch, np.ndarray | np.generic):
        array = np.asarray(batch)
    elif isinstance(batch, bool | int | float | complex):
        if not isinstance(batch, int) or -(2**63) <= batch < 2**63:
            arrays.append(mx.array(batch))
            return ARRAY
        array = np.asarray(batch)  # up to 2**64 as uint64
    elif is_torch_tensor(batch):
        array = numpy_of_torch(batch)
    else:
        found = type(batch).__name__
        raise ValueError(f"{_place(path)} is a {found}, expected {EXPECTED}")
    if _is_text(array):
        texts.append(batch)
        return TEXT
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"{_place(path)} is a NumPy array of {array.dtype}, expected numbers or text"
        )
    arrays.append(mx.array(array))
    return ARRAY


def _is_text(array: np.ndarray) -> bool:
    if array.dtype.kind == "O":
        return array.size > 0 and all(isinstance(one, str) for one in array.flat)
    return array.dtype.kind in "UST"


def _place(path: Sequence) -> str:
    return path[0] + "".join(f"[{name!r}]" for name in path[1:])


def unflatten_batch(
    arrays: list[mx.array], structure: Structure, texts: Sequence | None = None
) -> Any:
    """Return the batch that `flatten_batch` took apart; without `texts`, TextOutsideStep is where
    its text was."""
    return _unflatten(iter(arrays), structure, None if texts is None else iter(texts), ("batch",))


def _unflatten(
    arrays: Iterator[mx.array], structure: Structure, texts: Iterator | None, path: tuple
) -> Any:
    if isinstance(structure, str):
        if structure == ARRAY:
            return next(arrays)
        if structure == NOTHING:
            return None
        return TextOutsideStep(_place(path)) if texts is None else next(texts)
    kind: Any
    kind, names, structures = structure
    children = [
        _unflatten(arrays, child, texts, (*path, name))
        for name, child in zip(names, structures, strict=True)
    ]
    if kind is dict:
        return dict(zip(names, children, strict=True))
    if hasattr(kind, "__dataclass_fields__"):
        return kind(**dict(zip(names, children, strict=True)))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def leaves(arrays: list[mx.array], structure: Structure) -> dict[str, str]:
    """Return a description of each leaf of a flattened batch, by its path.

    >>> leaves(*flatten_batch({"x": mx.zeros((2, 3)), "name": "a.wav"})[:2])
    {"batch['x']": '(2, 3) float32', "batch['name']": 'text'}
    """
    return dict(_leaves(iter(arrays), structure, "batch"))


def _leaves(
    arrays: Iterator[mx.array], structure: Structure, path: str
) -> Iterator[tuple[str, str]]:
    if structure == ARRAY:
        array = next(arrays)
        yield path, f"{tuple(array.shape)} {str(array.dtype).removeprefix('mlx.core.')}"
    elif isinstance(structure, str):
        yield path, structure
    else:
        _, names, structures = structure
        for name, child in zip(names, structures, strict=True):
            yield from _leaves(arrays, child, f"{path}[{name!r}]")


def first_axes(arrays: list[mx.array], structure: Structure) -> dict[str, int]:
    """Return the length of the first axis of each array that has one, by its path."""
    places = [path for path, what in leaves(arrays, structure).items() if what.startswith("(")]
    pairs = zip(places, arrays, strict=True)
    return {path: array.shape[0] for path, array in pairs if array.ndim}


def difference(before: dict[str, str], now: dict[str, str]) -> str:
    """Return a description of the first leaf in which two results of `leaves` differ."""
    for path in before | now:
        if before.get(path) != now.get(path):
            return f"{path} was {before.get(path, 'not there')}, then {now.get(path, 'not there')}"
    return "its containers changed"
