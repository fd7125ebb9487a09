"""Tensors of a PyTorch .bin file, read without PyTorch and without running what is in it."""

import io
import math
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from audiotrain.utils.arrays import Arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import shown

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


# What zipfile raises for damaged files: of its own, for an encrypted member or one compressed in an
# unknown way, for a name that is not UTF-8, places that no file has, and sizes beyond the memory.
DAMAGED_ZIP = (
    *(zipfile.BadZipFile, RuntimeError, EOFError, LookupError, OSError, OverflowError, MemoryError),
    *(ValueError, struct.error),
)
# What a damaged or hostile pickle raises, in which any operation may meet any value.
DAMAGED_PICKLE = (
    *(pickle.UnpicklingError, LookupError, TypeError, AttributeError, ValueError, EOFError),
    *(OverflowError, MemoryError, RecursionError, struct.error),
)
MOST_AXES, LONGEST_AXIS = 16, 2**31 - 1  # of a tensor


def read_bin(file: Path) -> Arrays:
    """Return the tensors of a file that torch.save wrote, by name.

    Nothing in the file is run: of its pickle only a dict of tensors is understood. UserError naming
    the file for anything else, the formats from before PyTorch 1.6 among it.
    """
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGED_ZIP as error:
        raise UserError(
            f"{file}: no zip file ({reason(error)}): damaged, or saved by PyTorch before 1.6; load "
            "and save it again with a newer one"
        ) from None
    with archive:
        try:
            arrays = _tensors(archive)
        except UserError as error:
            raise UserError(f"{file}: not read: {error}") from None
    mx.eval(arrays)
    return arrays


def reason(error: BaseException) -> str:
    """What an error says on one line, or its name where it says nothing."""
    return shown(" ".join(str(error).split())) or type(error).__name__


def _tensors(archive: zipfile.ZipFile) -> Arrays:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{len(pickles)} data.pkl in it, expected 1")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist():
        order = _member(archive, f"{root}byteorder")
        if order != b"little":
            raise UserError(f"byte order {order[:20]!r}, expected little")
    tensors = _unpickled(_member(archive, pickles[0]))
    if not isinstance(tensors, dict):
        raise UserError(f"it holds a {type(tensors).__name__}, expected a dict of tensors")
    return {_name(name): _array(archive, root, name, one) for name, one in dict.items(tensors)}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A whole member, whose checksum is right; torch.save compresses none."""
    label = shown(name)
    try:
        found = archive.getinfo(name)
        if found.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{label} is compressed, which torch.save does not do")
        end = archive.fp.seek(0, io.SEEK_END) if archive.fp else 0
        if max(found.file_size, found.compress_size) > end:
            raise UserError(f"{label} has {found.file_size} bytes, more than the file")
        return archive.read(found)
    except UserError:
        raise
    except DAMAGED_ZIP as error:
        raise UserError(f"{label}: {reason(error)}") from None


def _unpickled(content: bytes) -> object:
    try:
        with warnings.catch_warnings():  # of escapes in old kinds of texts
            warnings.simplefilter("ignore", DeprecationWarning)
            # A place far behind the last value would fill memory with empty ones.
            for operation, place, _ in pickletools.genops(content):
                if operation.name in ("LONG_BINPUT", "PUT") and int(place or 0) > len(content):
                    raise pickle.UnpicklingError(f"a value at {place}, of {len(content)} bytes")
            return _TensorsOnly(io.BytesIO(content)).load()
    except DAMAGED_PICKLE as error:
        raise UserError(f"its pickle is damaged, or not of tensors: {reason(error)}") from None


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise UserError(f"a tensor's name is a {type(name).__name__}, expected text")
    return name


def _array(archive: zipfile.ZipFile, root: str, name: str, tensor: object) -> mx.array:
    label = repr(shown(name))
    if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
        raise UserError(f"{label} is a {type(tensor).__name__}, expected a tensor")
    half = tensor.storage.dtype == "bfloat16"
    dtype = np.dtype("<u2" if half else tensor.storage.dtype)
    content = _member(archive, f"{root}data/{tensor.storage.record}")
    numbers = np.frombuffer(content, dtype, count=len(content) // dtype.itemsize)
    if (problem := _problem(tensor, len(numbers))) is not None:
        raise UserError(f"{label} {problem}")
    array = mx.array(_strided(numbers, tensor))
    return array.view(mx.bfloat16) if half else array


def _problem(tensor: _Tensor, count: int) -> str | None:
    """Why a tensor cannot lie in `count` numbers; None where it can."""
    _, offset, shape, strides = tensor
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        return f"reaches beyond its {count} numbers"
    if len(shape) != len(strides) or len(shape) > MOST_AXES or max(shape, default=0) > LONGEST_AXIS:
        return f"has {len(shape)} axes and {len(strides)} strides, expected those of a tensor"
    if math.prod(shape) > count:  # by a stride of 0: a few bytes would fill memory
        return f"has shape {shape}, but {count} numbers"
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and offset + reach >= count:
        return f"reaches beyond its {count} numbers"
    return None


def _strided(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The numbers of a tensor in its shape."""
    _, offset, shape, strides = tensor
    if 0 in shape:
        return np.zeros(shape, numbers.dtype)
    # The stride of an axis of one has no effect, and may be any number.
    pairs = zip(shape, strides, strict=True)
    steps = [stride * numbers.itemsize if size > 1 else 0 for size, stride in pairs]
    view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps)
    return np.ascontiguousarray(view).reshape(shape)
