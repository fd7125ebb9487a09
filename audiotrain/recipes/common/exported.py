"""Models to pass on: a folder of model.safetensors (float16), model.json and README.md.

model.json describes the model and has the hash of its weights, which are read without pickle.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.train.checkpoint import CheckpointError, match
from audiotrain.train.run_folder import holds
from audiotrain.utils.arrays import Arrays, arrays_of, put_arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object, write, write_json

FORMAT = 1
WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "model.json", "README.md"


def is_exported(folder: Path) -> bool:
    """Whether a folder holds a model of `write_model`."""
    return (folder / DESCRIPTION).is_file()


def refuse_other_content(folder: Path, overwrite: bool, setting: str = "--output") -> None:
    """ValueError when a model may not be written to `folder`: it is a file, or holds something."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{setting} {folder}: is a file, expected a new folder")
    if holds(folder) and not is_exported(folder):
        raise UserError(f"{setting} {folder}: holds something else, expected a new folder")
    if is_exported(folder) and not overwrite:
        raise UserError(f"{setting} {folder}: holds a model already; --overwrite replaces it")


def half_precision(arrays: Arrays) -> Arrays:
    """The arrays in float16, whole numbers as they are. ValueError for what float16 cannot hold."""
    halves = _halves(arrays)
    for name, array in halves.items():
        if mx.issubdtype(array.dtype, mx.floating) and not mx.isfinite(array).all().item():
            raise UserError(f"{name}: has values that float16 cannot hold")
    return halves


def _halves(arrays: Arrays) -> Arrays:
    """As `half_precision`, without a look at the values, which may not be computed yet."""
    return {
        name: array.astype(mx.float16) if mx.issubdtype(array.dtype, mx.floating) else array
        for name, array in arrays.items()
    }


def write_model(
    folder: Path,
    arrays: Arrays,
    description: Mapping[str, Any],
    card: Callable[[Mapping[str, Any]], str],
) -> Mapping[str, Any]:
    """Write a model's arrays, their description and the `card` that is made from the content of
    model.json, whole or not at all; that content. A model that `folder` holds is replaced.

    ValueError, one line, when the folder cannot be written; `refuse_other_content` comes before.
    """
    halves = half_precision(arrays)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder}: cannot write: {error.strerror}") from None
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        mx.save_safetensors(str(new / WEIGHTS), halves)
        weights = {
            "dtype": "float16",
            "parameters": sum(array.size for array in halves.values()),
            "sha256": _sha256(new / WEIGHTS),
        }
        content = {"format": FORMAT, **description, "weights": weights}
        write_json(new / DESCRIPTION, content)
        write(new / CARD, card(content))
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot write: {reason}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return content


def read_description(folder: Path, recipe: str | None = None) -> dict[str, Any]:
    """The content of model.json. CheckpointError, one line, when it cannot be read, or is of
    another format, or of another recipe than the one that is expected."""
    file = folder / DESCRIPTION
    try:
        content = read_json_object(file)
    except UserError as error:
        raise CheckpointError(str(error)) from None
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: format {content.get('format')!r}, expected {FORMAT}; "
            "pip install -U audiotrain reads newer ones"
        )
    if recipe not in (None, content.get("recipe")):
        found = f"a model of the recipe {content.get('recipe')!r}"
        raise CheckpointError(f"{file}: {found}, expected one of {recipe!r}")
    return content


def load_weights(module: nn.Module, folder: Path, description: Mapping[str, Any]) -> None:
    """Put the weights of a folder into `module` in float32. CheckpointError, one line, where the
    hash, a name, a shape or a type is not what the description and the module say."""
    file = folder / WEIGHTS
    expected = weights_sha256(folder, description)
    try:
        found = _sha256(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    if found != expected:
        raise CheckpointError(
            f"{file}: damaged: sha256 {found[:16]}…, expected {expected[:16]}… as in {DESCRIPTION}"
        )
    try:
        arrays = mx.load(str(file))
        assert isinstance(arrays, dict), "safetensors are arrays by name"
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged ({error})") from None
    ours = arrays_of(module)
    match(arrays, _halves(ours), str(file))
    put_arrays(module, {name: array.astype(ours[name].dtype) for name, array in arrays.items()})


def weights_sha256(folder: Path, description: Mapping[str, Any]) -> str:
    """The hash of the weights by model.json. CheckpointError, one line, where it has none."""
    try:
        return str(description["weights"]["sha256"])
    except (KeyError, TypeError):
        raise CheckpointError(f"{folder / DESCRIPTION}: no weights.sha256") from None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
