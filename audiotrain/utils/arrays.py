"""Trees of arrays, listed by dotted names and put back; vectors of length 1."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

Arrays = dict[str, mx.array]


def arrays_of(tree) -> Arrays:
    """The arrays of a nested tree (module, optimizer state) by dotted path.

    >>> arrays_of({"a": [mx.array(1.0), "text"]})
    {'a.0': array(1, dtype=float32)}
    """
    leaves: dict[str, Any] = {}
    tree_flatten(tree, destination=leaves)
    return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, mx.array)}


def put_arrays(tree, arrays: Arrays, prefix: str = "") -> None:
    """Write arrays back into the tree they came from, in place, by the paths of `arrays_of`."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, leaf in list(items):
        path = f"{prefix}{key}"
        if isinstance(leaf, mx.array):
            if path in arrays:
                tree[key] = arrays[path]
        elif isinstance(leaf, dict | list | tuple):
            put_arrays(leaf, arrays, path + ".")


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., width) of length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(norms.dtype).tiny)
