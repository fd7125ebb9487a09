"""Weights and folders of Hugging Face's CLAP models: names, shapes, files, strict loading.

`pytorch_model.bin` is read without PyTorch and without running what is pickled in it.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.models.clap.torch_pickle import REBUILT, read_bin
from audiotrain.utils.arrays import Arrays, arrays_of
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import replacing
from audiotrain.utils.text import listed, nearest

RELEASED = "laion/clap-htsat-unfused"  # of Hugging Face's hub: the default model
# Of files of weights, which are no part of a hub id.
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".onnx", ".h5")
HTTP_MODULES = "httpx", "httpx2"  # of the hub's library, by its version
CONFIG, SAFETENSORS, BIN = "config.json", "model.safetensors", "pytorch_model.bin"
# What a folder may hold beside the model: the tokenizer and the front end.
COMPANIONS = (
    *("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
# One file of each tuple is needed: for the model itself, and for its tokenizer and front end.
MODEL_FILES = (CONFIG,), (SAFETENSORS, BIN)
COMPANION_FILES = (
    ("tokenizer.json", "merges.txt"),
    ("preprocessor_config.json", "processor_config.json"),
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
        raise UserError(f"{place} does not fit the model: {'; '.join(mismatches)}")
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
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file}: damaged ({error})") from None
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
    raise UserError(f"{folder}: neither {SAFETENSORS} nor {BIN} in it")


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
        raise UserError(f"{folder}: cannot write the model ({reason})") from None


class HubError(UserError):
    """A model that is neither a folder nor in the hub's cache, and cannot be fetched; one line."""


def pretrained_folder(name: str | Path) -> Path:
    """The folder `name`, or one with the files of the model `owner/name` of Hugging Face's hub.

    The network is used only for a model that the hub's cache lacks, after a line on stderr.
    ValueError when there is no such folder; HubError when the model cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(name):
        raise UserError(
            f"{name}: {_what_is_there(folder)}, expected a folder or a hub id such as {RELEASED}"
        )
    return cached_folder(str(name)) or _fetch(str(name))


def is_hub_id(name: str | Path) -> bool:
    """Return whether it is `owner/name` of the hub: nothing of this computer, as far as its folder
    and its suffix show."""
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)):
        return False
    place = Path(name)
    if str(name) == RELEASED:
        return not place.is_dir()
    return not (place.exists() or place.parent.is_dir() or place.suffix in FILE_SUFFIXES)


def _what_is_there(place: Path) -> str:
    """A description of a path that is no folder, in a message."""
    if place.exists():
        return "a file"
    if place.parent.is_dir() and place.parent != Path():
        names = sorted(one.name for one in place.parent.iterdir() if one.is_dir())
        held = f", which holds {listed(names)}" if names else ""
        return f"not in {place.parent}{held}{nearest(place.name, names)}"
    return "no such folder"


def cached_folder(name: str) -> Path | None:
    """The folder of the hub's cache with all files of the model `owner/name`, or None."""
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(name, CONFIG)
    if not isinstance(config, str):  # None, or a mark that the hub has no such file
        return None
    folder = Path(config).parent
    return None if _lacks(folder, MODEL_FILES + COMPANION_FILES) else folder


def refuse_partial(name: str | Path, folder: Path) -> None:
    """HubError when `folder`, of the hub's model `name`, has no tokenizer or front end; where
    `name` is a folder, those who read them say so."""
    if is_hub_id(name) and (lacked := _lacks(folder, COMPANION_FILES)):
        raise _not_fetched(str(name), f"the hub does not answer, or has no {lacked} of it")


def _lacks(folder: Path, needed: Sequence[Sequence[str]]) -> str:
    """The first needed file that a folder has in none of its forms; "" where it has all."""
    for files in needed:
        if not any((folder / file).is_file() for file in files):
            return " and no ".join(files)
    return ""


def _fetch(name: str) -> Path:
    """The folder of a model that is fetched from the hub."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if not constants.HF_HUB_OFFLINE:
        size = ", about 600 MB, once" if name == RELEASED else ""
        print(f"fetching {name} from Hugging Face's hub{size}", file=sys.stderr, flush=True)
    wanted = [CONFIG, SAFETENSORS, *COMPANIONS]
    # The hub's own errors are kinds of OSError and ValueError; those of its HTTP library are not.
    http = [sys.modules[module].HTTPError for module in HTTP_MODULES if module in sys.modules]
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
        if not (folder / SAFETENSORS).is_file():
            wanted.append(BIN)
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except errors.LocalEntryNotFoundError:
        raise _not_fetched(name, "the hub does not answer") from None
    except errors.RepositoryNotFoundError:
        raise _not_fetched(name, "the hub has no such public model") from None
    except (OSError, ValueError, RuntimeError, *http) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise _not_fetched(name, f"not from the hub: {reason:.120}") from None
    if lacked := _lacks(folder, MODEL_FILES):
        raise _not_fetched(name, f"the hub does not answer, or has no {lacked} of it")
    return folder


def _not_fetched(name: str, reason: str) -> HubError:
    from huggingface_hub import constants

    advice = "Connect to the network"
    if constants.HF_HUB_OFFLINE:
        reason, advice = "HF_HUB_OFFLINE is set", "Unset it"
    return HubError(
        f"{name}: no folder, not in the cache {constants.HF_HUB_CACHE}, and {reason}. {advice}, "
        "set HF_ENDPOINT to a mirror or HF_HOME to another cache"
    )
