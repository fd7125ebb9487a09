"""Checkpoints: a directory of safetensors files and one state.json, written atomically, no pickle.

`save` writes beside the target and renames; if anything fails, the older checkpoint stays.
"""

import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.config import conform
from audiotrain.utils.arrays import Arrays, arrays_of, put_arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object
from audiotrain.utils.text import listed

FORMAT = 1
STATE = "state.json"


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read, or matched; one line with its path."""


def match(arrays: Arrays, expected: Arrays, place: str) -> None:
    """CheckpointError naming missing, unexpected and misshaped keys of `arrays`."""

    def kind(array: mx.array) -> str:
        return f"{tuple(array.shape)} {str(array.dtype).removeprefix('mlx.core.')}"

    problems = {
        "missing": [key for key in expected if key not in arrays],
        "unexpected": [key for key in arrays if key not in expected],
        "misshaped": [
            f"{key} (found {kind(arrays[key])}, expected {kind(expected[key])})"
            for key in expected
            if key in arrays and kind(arrays[key]) != kind(expected[key])
        ],
    }
    parts = [f"{len(keys)} {name}: {listed(keys)}" for name, keys in problems.items() if keys]
    if parts:
        raise CheckpointError(f"{place} does not fit the model: {'; '.join(parts)}")


def versions() -> dict[str, str]:
    """Versions of the libraries that write a checkpoint."""
    numbers = {"python": platform.python_version(), "mlx": metadata.version("mlx")}
    try:
        return numbers | {"audiotrain": metadata.version("audiotrain")}
    except metadata.PackageNotFoundError:
        return numbers | {"audiotrain": "not installed"}


def save(folder: str | Path, arrays: dict[str, Arrays], meta: dict) -> Path:
    """Write `arrays` (a safetensors file a group) and `meta` (plain data) to `folder`.

    An older checkpoint at `folder` is replaced only once the new one is on the disk.
    CheckpointError when the directory cannot be written, is full, or holds something else.
    """
    folder = Path(folder)
    _refuse_other_content(folder)
    temporary = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    try:
        _sweep(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        sizes = {}
        for group, group_arrays in arrays.items():
            if group_arrays:
                file = temporary / f"{group}.safetensors"
                _write_arrays(file, group_arrays)
                sizes[file.name] = file.stat().st_size
        state = {"format": FORMAT, "versions": versions(), "files": sizes, "meta": meta}
        with open(temporary / STATE, "w", encoding="utf-8") as state_file:
            json.dump(state, state_file, indent=1)
            state_file.flush()
            os.fsync(state_file.fileno())
        _sync_folder(temporary)
        _swap(temporary, folder)
    except TypeError as error:
        problem = not_plain(meta) or str(error)
        raise CheckpointError(f"{folder}: cannot write the checkpoint ({problem})") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise CheckpointError(
            f"{folder}: cannot write the checkpoint ({reason}; {_free(folder)}); what was there "
            f"before is kept"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: str | Path) -> tuple[dict[str, Arrays], dict]:
    """Read a checkpoint: arrays by group and meta. CheckpointError when it is damaged."""
    folder = _existing(Path(folder))
    state = _read_state(folder)
    arrays: dict[str, Arrays] = {}
    for name, size in state["files"].items():
        file = folder / name
        written = file.stat().st_size if file.is_file() else 0
        if written != size:
            raise CheckpointError(f"{file}: {written} bytes, expected {size}: checkpoint cut short")
        try:
            group = mx.load(str(file))
            assert isinstance(group, dict), "safetensors are arrays by name"
            mx.eval(group)  # mx.load is lazy: read now, while an error can name the file
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{file}: damaged ({error})") from None
        arrays[name.removesuffix(".safetensors")] = group
    return arrays, state["meta"]


def not_plain(data, place: str = "") -> str:
    """The first thing in nested plain data that JSON cannot hold, and where; "" for none.

    >>> not_plain({"data": {"folder": {1, 2}, "rate": 22050}})
    'data.folder is a set, expected plain data'
    """
    if isinstance(data, dict | list | tuple):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        problems = (not_plain(value, f"{place}.{key}".lstrip(".")) for key, value in items)
        return next(filter(None, problems), "")
    if data is None or isinstance(data, str | bool | int | float):
        return ""
    return f"{place} is a {type(data).__name__}, expected plain data"


def exists(folder: str | Path) -> bool:
    """Whether `load` finds a checkpoint, also where a kill left it half-way replaced."""
    try:
        return _existing(Path(folder)).is_dir()
    except CheckpointError:
        return False


def load_meta(folder: str | Path) -> dict:
    """A checkpoint's plain data alone: config, epoch, global_step, history, metrics…"""
    return _read_state(_existing(Path(folder)))["meta"]


def load_weights(module: nn.Module, folder: str | Path, averaged: bool = True) -> dict:
    """Put a checkpoint's weights into `module`, strictly, and give the checkpoint's meta.

    `averaged` takes the running average (EMA) where the checkpoint has one. CheckpointError when it
    is missing, damaged or of another model.
    """
    arrays, meta = load(folder)
    weights = arrays.get("model", {})
    match(weights, arrays_of(module), str(folder))
    if averaged:
        weights = weights | arrays.get("ema", {})
    put_arrays(module, weights)
    return meta


def move(folder: str | Path, other: str | Path) -> None:
    """Rename a checkpoint. CheckpointError when that fails."""
    folder = _existing(Path(folder))
    try:
        os.replace(folder, other)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot become {other} ({error.strerror})") from None


def remove(folder: str | Path) -> None:
    """Delete a checkpoint directory; nothing else is ever deleted."""
    folder = Path(folder)
    if (folder / STATE).is_file():
        (folder / STATE).unlink()  # first, so that a half-deleted checkpoint never looks whole
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Delete the unfinished folders of killed processes."""
    for left in folder.parent.glob(f".{folder.name}.writing-*"):
        number = left.name.rpartition("-")[2]
        if number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def _refuse_other_content(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()) and not (folder / STATE).is_file():
            raise CheckpointError(f"{folder}: holds something that is no checkpoint, not replaced")
    elif folder.exists():
        raise CheckpointError(f"{folder}: is a file, expected a checkpoint directory or nothing")


def _write_arrays(file: Path, arrays: Arrays) -> None:
    mx.save_safetensors(str(file), arrays)  # RuntimeError when the disk is full
    with open(file, "rb+") as written:
        os.fsync(written.fileno())


def _free(folder: Path) -> str:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(place).free / 1e6:.0f} MB are free there"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _swap(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`; a directory cannot be replaced in one call, so the
    old one steps aside under a name that `load` also looks for."""
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(folder, previous)
        try:
            os.replace(temporary, folder)
        except OSError:
            os.replace(previous, folder)
            raise
    else:
        os.replace(temporary, folder)
    _sync_folder(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _existing(folder: Path) -> Path:
    if not folder.exists() and (_previous(folder) / STATE).is_file():
        return _previous(folder)
    if not (folder / STATE).is_file():
        raise CheckpointError(f"{folder}: no checkpoint here (a directory with {STATE})")
    return folder


def _read_state(folder: Path) -> dict:
    file = folder / STATE
    try:
        state = read_json_object(file)
        for part in ("files", "meta"):
            conform(state.get(part), dict[str, Any], f"{file}: {part}")
    except UserError as error:
        raise CheckpointError(f"{error} (the checkpoint is cut short or damaged)") from None
    if state.get("format") != FORMAT:
        found = state.get("format")
        raise CheckpointError(f"{file}: checkpoint format {found!r}, expected {FORMAT}")
    return state
