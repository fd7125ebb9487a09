"""PyTorch's tensors as NumPy arrays, without importing PyTorch."""

import sys
from typing import Any

import numpy as np


def is_torch_tensor(value: Any) -> bool:
    """Return whether it is a tensor of PyTorch, which is imported where there is one."""
    torch = sys.modules.get("torch")
    return isinstance(value, getattr(torch, "Tensor", ()))


def numpy_of_torch(tensor: Any) -> np.ndarray:
    """Return a tensor's numbers, from whatever device and layout, without its gradient.

    bfloat16 and the 8-bit floating types, which NumPy lacks, become float32. The array may share
    the tensor's memory.
    """
    tensor = tensor.detach().to_dense()
    try:
        return tensor.numpy(force=True)
    except TypeError:  # a type that NumPy lacks
        return tensor.float().numpy(force=True)
