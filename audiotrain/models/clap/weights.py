"""Weights and folders of Hugging Face's CLAP models: names, shapes, files, strict loading.

`pytorch_model.bin` is read without PyTorch and without running what is pickled in it.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.models.clap.torch_pickle import REBUILT, read_bin
from audiotrain.utils.arrays import Arrays, arrays_of
from audiotrain.utils.files import replacing
from audiotrain.utils.text import listed

CONFIG, SAFETENSORS, BIN = "config.json", "model.safetensors", "pytorch_model.bin"
# What a folder may hold beside the model: the tokenizer and the front end.
COMPANIONS = (
    *("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "preprocessor_config.json"),
)
# Our names to Hugging Face's, one rule after the other.
RULES = (
    (r"^audio_encoder\.", "audio_model.audio_encoder."),
    (r"^text_encoder\.layers\.", "text_model.encoder.layer."),
    (r"^text_encoder\.", "text_model."),
    (r"\.attention\.(query|key|value|relative_position_bias_table)\b", r".attention.self.\1"),
    (r"\.output\.(weight|bias)$", r".output.dense.\1"),
    (r"(text_model.*\.attention)\.norm\.", r"\1.output.LayerNorm."),
    (r"(text_model.*layer\.\d+)\.norm\.", r"\1.output.LayerNorm."),
    (r"embeddings\.norm\.", "embeddings.LayerNorm."),
    (r"\.(intermediate|pooler)\.", r".\1.dense."),
    *(
        (rf"{half}_att\.{part}\.", f"{half}_att.{number + first}.")
        for half, first in (("local", 0), ("global", 1))  # the global half begins with a pool
        for part, number in (("reduce", 0), ("reduce_norm", 1), ("expand", 3), ("expand_norm", 4))
    ),
)


def hf_name(name: str) -> str:
    """Hugging Face's name of one of our weights.

    >>> hf_name("text_encoder.layers.3.attention.norm.weight")
    'text_model.encoder.layer.3.attention.output.LayerNorm.weight'
    """
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def hf_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that a weight of ours, by Hugging Face's name, has there: (out, in, height, width) for
    convolutions."""
    if len(shape) != 2 or "patch_embed" not in name:
        return shape
    out, inputs = shape
    if name.endswith("proj.weight"):
        side = math.isqrt(inputs)
        return out, 1, side, side
    if name.endswith("mel_conv2d.weight"):
        side = math.isqrt(inputs // 3)
        return out, 1, side, 3 * side
    return out, inputs, 1, 1


def to_hf(arrays: Arrays) -> Arrays:
    """Our weights by Hugging Face's names, in its shapes."""
    renamed = {hf_name(name): array for name, array in arrays.items()}
    return {name: array.reshape(hf_shape(name, array.shape)) for name, array in renamed.items()}


def from_hf(weights: Arrays, expected: Arrays, place: str) -> Arrays:
    """Hugging Face's weights by our names, in the shapes and types of `expected`.

    ValueError naming missing, unexpected and misshaped keys as Hugging Face does.
    """
    weights = {name: array for name, array in weights.items() if not REBUILT.search(name)}
    names = {hf_name(name): name for name in expected}
    shapes = {name: hf_shape(name, expected[ours].shape) for name, ours in names.items()}
    problems = {
        "missing": [name for name in names if name not in weights],
        "unexpected": [name for name in weights if name not in names],
        "misshaped": [
            f"{name} (found {tuple(weights[name].shape)}, expected {shape})"
            for name, shape in shapes.items()
            if name in weights and tuple(weights[name].shape) != shape
        ],
    }
    mismatches = [f"{len(keys)} {kind}: {listed(keys)}" for kind, keys in problems.items() if keys]
    if mismatches:
        raise ValueError(f"{place} does not fit the model: {'; '.join(mismatches)}")
    return {
        ours: weights[name].reshape(expected[ours].shape).astype(expected[ours].dtype)
        for name, ours in names.items()
    }


def read_weights(folder: Path) -> tuple[Path, Arrays]:
    """The file of a folder's weights, model.safetensors before pytorch_model.bin, and its arrays.

    ValueError naming the folder or file when there is none or it cannot be read.
    """
    file = _weights_file(folder)
    if file.name == BIN:
        return file, read_bin(file)
    try:
        arrays = mx.load(str(file))
        assert isinstance(arrays, dict)
        mx.eval(arrays)  # lazy otherwise, and the file may be replaced before
    except RuntimeError as error:
        raise ValueError(f"{file}: damaged ({error})") from None
    return file, arrays


def weights_digest(folder: Path) -> str:
    """Digest of a folder's file of weights, 32 hexadecimal digits."""
    with open(_weights_file(folder), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def values_digest(module: nn.Module, settings: str, size: int) -> str:
    """Hash of `size` bytes, in hexadecimal digits, of a module's settings and all its arrays."""
    digest = hashlib.blake2b(settings.encode(), digest_size=size)
    for name, array in sorted(arrays_of(module.parameters()).items()):
        digest.update(name.encode())
        digest.update(np.array(array.astype(mx.float32)).tobytes())
    return digest.hexdigest()


def _weights_file(folder: Path) -> Path:
    for name in (SAFETENSORS, BIN):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder}: neither {SAFETENSORS} nor {BIN} in it")


def write_folder(folder: Path, config: Mapping, arrays: Arrays, source: Path | None) -> None:
    """Write config.json and model.safetensors, and copies of the COMPANIONS that `source` has.

    Each file is replaced whole or not at all; others in the folder stay. ValueError when it cannot
    be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / SAFETENSORS) as partial:
            mx.save_safetensors(str(partial), arrays, metadata={"format": "pt"})
        contents = {CONFIG: json.dumps(config, indent=2).encode() + b"\n"}
        if source is not None and source.resolve() != folder.resolve():
            present = [source / name for name in COMPANIONS if (source / name).is_file()]
            contents |= {file.name: file.read_bytes() for file in present}
        for name, content in contents.items():
            with replacing(folder / name) as partial:
                partial.write_bytes(content)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{folder}: cannot write the model ({reason})") from None


def pretrained_folder(name: str | Path) -> Path:
    """The folder `name`, or one with the files of the model `owner/name` of Hugging Face's hub.

    The hub needs a connection unless its cache has the model.
    ValueError when there is no such folder or the model cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) or str(name).startswith("."):
        raise ValueError(f"{name}: no such folder, and no hub id such as laion/clap-htsat-unfused")
    import huggingface_hub

    wanted = [CONFIG, SAFETENSORS, *COMPANIONS]
    try:
        folder = Path(huggingface_hub.snapshot_download(str(name), allow_patterns=wanted))
        if not (folder / SAFETENSORS).is_file():
            wanted.append(BIN)
            folder = Path(huggingface_hub.snapshot_download(str(name), allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the hub's own errors are kinds of these
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name}: no such folder, and not from the hub: {reason}") from None
    return folder
