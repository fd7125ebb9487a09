"""Batches from lists of samples: stacked, or padded with masks; NumPy arrays, then MLX's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audiotrain.utils.torch_tensors import is_torch_tensor, numpy_of_torch

NUMERIC = (bool, int, float, np.bool_, np.number, np.ndarray)


def default_collate(items: list) -> Any:
    """Stack samples of one structure: dicts, tuples and lists go deep, arrays, numbers and PyTorch
    tensors get a leading batch axis, whatever else (strings, None) becomes a list. Floats are
    float32.

    ValueError names the place where samples differ, or hold an mx.array.

    >>> default_collate([{"x": np.zeros(3), "y": 1}, {"x": np.ones(3), "y": 0}])["x"].shape
    (2, 3)
    """
    return _collate(items, "item", _stack)


def pad_collate(
    items: list,
    keys: Sequence[str] | None = None,
    value: float | Mapping[str, float] = 0,
    multiple: int = 1,
    lengths: Sequence[int] | Mapping[str, Sequence[int]] = (),
) -> Any:
    """default_collate for arrays whose first axes differ: pads at the end to the longest.

    In a dict, `batch[key]` is (items, longest, ...) and `batch[key + "_mask"]` (items, longest) is
    True where the sample is real; an array elsewhere becomes the pair (padded, mask). `keys`
    limits padding to these dict entries; `value` fills, per key if a dict (0 for others).

    Few shapes keep compiled code fast: the longest is rounded up to a `multiple`, or to one of
    `lengths` (per key if a dict). ValueError when a sample is longer than these, for a `multiple`
    below 1, and where samples differ in more than the first axis.

    >>> pad_collate([{"x": np.ones(2)}, {"x": np.ones(3)}])["x_mask"].tolist()
    [[True, True, False], [True, True, True]]
    """
    if multiple < 1:
        raise ValueError(f"multiple={multiple!r}: expected a whole number of at least 1")

    def pad(arrays: list[np.ndarray], place: str, key: str) -> Any:
        if arrays[0].ndim == 0 or (keys is not None and key not in keys):
            return _stack(arrays, place, key)
        fill = value.get(key, 0) if isinstance(value, Mapping) else value
        allowed = lengths.get(key, ()) if isinstance(lengths, Mapping) else lengths
        return _Padded(_pad(arrays, place, fill, multiple, allowed))

    return _plain(_collate(items, "item", pad))


class _Padded(tuple):
    """(padded, mask), unlike a tuple of the user's."""


def _plain(part: Any) -> Any:
    return tuple(part) if isinstance(part, _Padded) else part


def _collate(items: list, place: str, combine: Callable, key: str = "") -> Any:
    items = [numpy_of_torch(item) if is_torch_tensor(item) else item for item in items]
    first = items[0]
    if isinstance(first, Mapping):
        batch = {}
        for name in first:
            if any(not isinstance(item, Mapping) or name not in item for item in items):
                raise ValueError(f"{place}: not every sample of the batch has key {name!r}")
            part = _collate([item[name] for item in items], f"{place}[{name!r}]", combine, name)
            mask = f"{name}_mask"
            if not isinstance(part, _Padded):
                batch[name] = part
            elif mask in first:
                raise ValueError(f"{place}: the mask of {name!r} needs the key {mask!r}")
            else:
                batch[name], batch[mask] = part
        if any(len(item) != len(first) for item in items):
            raise ValueError(f"{place}: samples of the batch have different keys")
        return batch
    if isinstance(first, tuple | list):
        if any(not isinstance(item, tuple | list) or len(item) != len(first) for item in items):
            raise ValueError(f"{place}: samples of the batch have different lengths or types")
        parts = [
            _plain(_collate(list(column), f"{place}[{i}]", combine))
            for i, column in enumerate(zip(*items, strict=True))
        ]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, NUMERIC):
        if others := [item for item in items if not isinstance(item, NUMERIC)]:
            kinds = f"{type(first).__name__} and {type(others[0]).__name__}"
            raise ValueError(f"{place}: {kinds} in one batch, expected one kind")
        return combine([_array(item) for item in items], place, key)
    if type(first).__module__.startswith("mlx."):
        raise ValueError(
            f"{place} is an mlx array: a sample holds NumPy arrays or numbers, because workers"
            " cannot hand lazy MLX arrays over; convert batches in mlx_transforms"
        )
    return list(items)


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if isinstance(value, float) else array


def _stack(arrays: list[np.ndarray], place: str, key: str) -> np.ndarray:
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ValueError(
            f"{place}: shapes {shapes[0]} and {shapes[-1]} in one batch; expected one shape,"
            " or collate_fn=pad_collate for samples of different lengths"
        )
    return np.stack(arrays)


def _pad(
    arrays: list[np.ndarray], place: str, fill: float, multiple: int, allowed: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Padded (items, length, ...) and its mask (items, length)."""
    tails = sorted({array.shape[1:] for array in arrays})
    if len(tails) > 1 or len({array.ndim for array in arrays}) > 1:
        raise ValueError(
            f"{place}: shapes after the first axis are {tails[0]} and {tails[-1]}, expected one"
        )
    longest = max(map(len, arrays))
    if len(allowed) and max(allowed) < longest:
        raise ValueError(
            f"{place}: a sample has length {longest}, expected at most {max(allowed)},"
            " the largest of lengths"
        )
    rounded = -(-longest // multiple) * multiple
    length = min((length for length in allowed if length >= longest), default=rounded)
    padded = np.full((len(arrays), length, *tails[0]), fill, dtype=np.result_type(*arrays))
    mask = np.zeros((len(arrays), length), dtype=bool)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
        mask[row, : len(array)] = True
    return padded, mask


def to_mlx(batch: Any) -> Any:
    """Return the same structure with every array of numbers or booleans and every PyTorch tensor as
    mx.array (float64 as float32); strings and objects stay."""
    import mlx.core as mx  # here, so that process workers never load it

    if isinstance(batch, Mapping):
        return {name: to_mlx(part) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [to_mlx(part) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if is_torch_tensor(batch):
        return mx.array(numpy_of_torch(batch))
    if isinstance(batch, np.ndarray | np.generic) and batch.dtype.kind in "biufc":
        return mx.array(np.asarray(batch))
    return batch
