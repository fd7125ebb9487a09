"""Datasets of arrays, and parts of datasets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from audiotrain.train.data.loader import Dataset
from audiotrain.utils.errors import UserError
from audiotrain.utils.torch_tensors import is_torch_tensor, numpy_of_torch


class ArrayDataset(Dataset):
    """The rows of an array, of a tuple of arrays, or of a dict of arrays, as items.

    Arrays of MLX and tensors of PyTorch become NumPy's, bfloat16 in float32. ValueError for no
    array, an array without axes, and arrays of different numbers of rows.

    >>> ArrayDataset((np.zeros((2, 3)), np.array([5, 6])))[1]
    (array([0., 0., 0.]), 6)
    """

    def __init__(self, arrays: np.ndarray | mx.array | tuple | Mapping):
        self.arrays = _map(_numpy, arrays)
        columns: list[np.ndarray] = []
        _map(columns.append, self.arrays)
        if any(column.ndim == 0 for column in columns):
            raise UserError("an array without axes, expected a row for each item")
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise UserError(f"arrays have {sorted(lengths)} rows, expected the same number")
        self.count = lengths.pop()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return _map(lambda column: _item(column[index]), self.arrays)


def _map(function: Callable[[Any], Any], arrays: Any) -> Any:
    """The function's value for each array of a dict or tuple, or for one array."""
    if isinstance(arrays, Mapping):
        return {name: function(column) for name, column in arrays.items()}
    return tuple(map(function, arrays)) if isinstance(arrays, tuple) else function(arrays)


class Subset(Dataset):
    """Some items of a dataset, by their numbers.

    >>> list(Subset(ArrayDataset(np.array([5, 6, 7])), [2, 0]))
    [7, 5]
    """

    def __init__(self, dataset: Any, rows: Sequence[int] | np.ndarray):
        self.dataset, self.rows = dataset, [int(row) for row in rows]
        # The loader calls these methods of datasets that have them.
        if hasattr(dataset, "get"):
            self.get = self._get
        if hasattr(dataset, "describe"):
            self.describe = self._describe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.rows[index]]

    def _get(self, index: int, rng: np.random.Generator) -> Any:
        return self.dataset.get(self.rows[index], rng)

    def _describe(self, index: int) -> str:
        return self.dataset.describe(self.rows[index])


class Concatenated(Dataset):
    """The items of datasets one after the other.

    >>> list(Concatenated([5, 6], [7]))
    [5, 6, 7]
    """

    def __init__(self, *datasets: Any):
        self.datasets = datasets

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: int) -> Any:
        dataset, index = self._at(index)
        return dataset[index]

    def get(self, index: int, rng: np.random.Generator) -> Any:
        """An item by `get` of its dataset, where it has that."""
        dataset, index = self._at(index)
        return dataset.get(index, rng) if hasattr(dataset, "get") else dataset[index]

    def _at(self, index: int) -> tuple[Any, int]:
        for dataset in self.datasets:
            if index < len(dataset):
                return dataset, index
            index -= len(dataset)
        raise IndexError(index)


def as_dataset(data: Any) -> Any:
    """Arrays with a row an item as a Dataset; anything else as it is."""
    return ArrayDataset(data) if are_arrays(data) else data


def are_arrays(data: Any) -> bool:
    parts = data.values() if isinstance(data, Mapping) else data
    if isinstance(data, Mapping | tuple):
        return bool(data) and all(map(_is_array, parts))
    return _is_array(data)


def _is_array(data: Any) -> bool:
    return isinstance(data, np.ndarray | mx.array) or is_torch_tensor(data)


def _numpy(array: Any) -> np.ndarray:
    if is_torch_tensor(array):
        return numpy_of_torch(array)
    if isinstance(array, mx.array) and array.dtype == mx.bfloat16:
        array = array.astype(mx.float32)  # NumPy has no bfloat16
    return np.asarray(array)


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
