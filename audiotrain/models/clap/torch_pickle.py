"""Reads tensors of a PyTorch .bin file without PyTorch, and without running what is in it."""

import math
import pickle
import re
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from audiotrain.utils.arrays import Arrays
from audiotrain.utils.errors import UserError

# Entries of their files that follow from the config.
REBUILT = re.compile(r"(relative_position_index|position_ids|token_type_ids|num_batches_tracked)$")


class _Storage(NamedTuple):
    """Where the numbers of a tensor lie in the file: a record, and their type."""

    dtype: str
    record: str


class _Tensor(NamedTuple):
    """A tensor as pickled; `offset` and `strides` count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}


class _TensorsOnly(pickle.Unpickler):
    """Knows the names of ALLOWED; their values do nothing but hold data."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        kind, dtype, record, *_ = pid
        if kind != "storage" or dtype not in DTYPES.values():
            raise pickle.UnpicklingError(f"a stored {kind} of {dtype}, expected numbers")
        return _Storage(dtype, str(record))


def read_bin(file: Path) -> Arrays:
    """The tensors of a file that torch.save wrote, by name.

    Nothing in the file is run: of its pickle only a dict of tensors is understood. ValueError
    naming the file for anything else, the formats from before PyTorch 1.6 among it.
    """
    if not zipfile.is_zipfile(file):
        raise UserError(
            f"{file}: no zip file: damaged, or saved by PyTorch before 1.6; load and save it again "
            "with a newer one"
        )
    # A hostile pickle can fail in many ways; each is a damaged file.
    broken = (
        *(pickle.UnpicklingError, zipfile.BadZipFile, LookupError, TypeError, AttributeError),
        *(RuntimeError, OverflowError, MemoryError, zlib.error),
    )
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{len(pickles)} data.pkl in it, expected 1")
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist():
                order = archive.read(f"{root}byteorder")
                if order != b"little":
                    raise UserError(f"byte order {order!r}, expected little")
            with archive.open(pickles[0]) as stream:
                tensors = _TensorsOnly(stream).load()
            if not isinstance(tensors, dict):
                raise UserError(f"it holds a {type(tensors).__name__}, expected a dict of tensors")
            arrays = {name: _array(archive, root, name, t) for name, t in tensors.items()}
    except (*broken, ValueError, EOFError, OSError) as error:
        raise UserError(f"{file}: not read: {error}") from None
    mx.eval(arrays)
    return arrays


def _array(archive: zipfile.ZipFile, root: str, name: str, tensor: _Tensor) -> mx.array:
    if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
        raise UserError(f"{name!r} is a {type(tensor).__name__}, expected a tensor")
    half = tensor.storage.dtype == "bfloat16"
    dtype = np.dtype("<u2" if half else tensor.storage.dtype)
    content = archive.read(f"{root}data/{tensor.storage.record}")
    numbers = np.frombuffer(content, dtype, count=len(content) // dtype.itemsize)
    reach = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    whole = all(type(n) is int and n >= 0 for n in (tensor.offset, *tensor.shape, *tensor.strides))
    if not whole or 0 not in tensor.shape and tensor.offset + reach >= len(numbers):
        raise UserError(f"{name!r} reaches beyond its {len(numbers)} numbers")
    if math.prod(tensor.shape) > len(numbers):  # by a stride of 0: a few bytes would fill memory
        raise UserError(f"{name!r} has shape {tensor.shape}, but {len(numbers)} numbers")
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    array = mx.array(np.ascontiguousarray(view).reshape(tensor.shape))
    return array.view(mx.bfloat16) if half else array
