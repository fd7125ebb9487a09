"""LoRA: linear layers of a frozen module learn an update of low rank (Hu et al. 2021,
arXiv:2106.09685).

A layer keeps its class's behaviour and its parameters their names; `lora_a` (inputs, rank) and
`lora_b` (rank, outputs), float32, come on top and are all that trains.
"""

import functools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.wrapped_calls import wrap_call
from audiotrain.config import conform
from audiotrain.config.schema import ShareBelowOne
from audiotrain.models.layers import Linear
from audiotrain.utils.arrays import Arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, replacing
from audiotrain.utils.text import listed

PARTS = ("lora_a", "lora_b")
PLAIN = (nn.Linear.__call__, Linear.__call__)


def add_lora(
    module: nn.Module,
    rank: int,
    targets: str | Sequence[str],
    alpha: float = 16.0,
    dropout: float = 0.0,
) -> list[str]:
    """Freeze the module and adapt its linear layers whose names match; returns these names.

    In `targets` `*` stands for any characters of a layer's dotted name, dots too. A layer computes
    W x + alpha / rank * B A dropout(x), with B zero at first: outputs do not change yet. It has to
    be called; a module that reads a layer's weight itself misses the update. Batch
    normalisation keeps to its statistics from now on, so that all of the base stays bit-identical.
    ValueError when a target fits no nn.Linear, or a layer is adapted already; for a `rank` below 1,
    and unless 0 <= dropout < 1.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> add_lora(model, rank=2, targets="layers.0")
    ['layers.0']
    >>> sorted(lora_parameters(model))
    ['layers.0.lora_a', 'layers.0.lora_b']
    """
    if rank < 1:
        raise UserError(f"rank is {rank!r}, expected 1 or more")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout!r}, expected 0 <= dropout < 1")
    linear = _linear_layers(module)
    chosen: dict[str, nn.Linear] = {}
    for target in [targets] if isinstance(targets, str) else targets:
        fitting = {name: layer for name, layer in linear.items() if fnmatchcase(name, target)}
        if not fitting:
            names = listed(list(linear)) or "none"
            raise UserError(f"LoRA target {target!r} fits no linear layer; there are: {names}")
        chosen |= fitting
    for name, layer in chosen.items():
        if "lora_a" in layer:
            raise UserError(f"{name} has a LoRA update already: merge_lora makes it a plain layer")
        outputs, inputs = layer.weight.shape
        _adapt(layer, alpha / rank, dropout)
        layer.lora_a = mx.random.uniform(-1, 1, (inputs, rank)) / math.sqrt(inputs)
        layer.lora_b = mx.zeros((rank, outputs))
    _train_only_lora(module)
    return list(chosen)


def merge_lora(module: nn.Module) -> None:
    """Add each update to its layer's weight, and make the layers plain ones again, as they were
    before `add_lora`. All parameters stay frozen: `unfreeze` the module to train on."""
    for layer in _adapted_layers(module).values():
        update = layer.lora_scale * (layer.lora_a @ layer.lora_b).T
        layer.weight = (layer.weight.astype(mx.float32) + update).astype(layer.weight.dtype)
        for name in (*PARTS, "lora_dropout"):
            layer.pop(name)
        layer.freeze(recurse=False)
        layer.__class__ = layer.plain
    for part in module.modules():
        if isinstance(part, nn.BatchNorm) and hasattr(part, "plain"):
            part.__class__ = part.plain


def lora_parameters(module: nn.Module) -> dict[str, mx.array]:
    """The updates' arrays by name, `lora_a` (inputs, rank) and `lora_b` (rank, outputs) of each
    layer; nothing of the base."""
    layers = _adapted_layers(module)
    return {f"{name}.{part}": layer[part] for name, layer in layers.items() for part in PARTS}


def save_lora(module: nn.Module, path: str | os.PathLike) -> None:
    """Write the updates alone to a safetensors file, which appears whole or not at all.

    ValueError for another suffix than .safetensors, and for a module without updates; OSError when
    the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: expected a name that ends in .safetensors")
    layers = _adapted_layers(module)
    if not layers:
        raise UserError(f"{path}: {type(module).__name__} has no LoRA updates to save")
    settings = {
        name: {"scale": layer.lora_scale, "dropout": layer.lora_rate}
        for name, layer in layers.items()
    }
    with replacing(path) as partial:
        arrays = lora_parameters(module)
        mx.save_safetensors(str(partial), arrays, {"lora": json.dumps(settings)})


def load_lora(module: nn.Module, path: str | os.PathLike) -> list[str]:
    """Add the updates in a file of `save_lora` to a module; returns the names of the layers.

    ValueError, before anything changes, when the file cannot be read, or the module does not have
    these layers, or they differ in size. Updates that the module has already are replaced.
    """
    arrays, settings = _read_lora(path)
    linear = _linear_layers(module)
    for name in settings:
        if name not in linear:
            kind = type(module).__name__
            raise UserError(f"{path} adapts {name}, which is no linear layer of this {kind}")
        a, b = (arrays[f"{name}.{part}"] for part in PARTS)
        expected = linear[name].weight.shape
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise UserError(f"{path}: {name} has updates of {a.shape} and {b.shape}, no product")
        if (b.shape[1], a.shape[0]) != expected:
            size = (b.shape[1], a.shape[0])
            raise UserError(f"{path}: {name} is of {size}, expected {expected}")
    for name, chosen in settings.items():
        layer = linear[name]
        if "lora_a" in layer:
            layer.__class__ = layer.plain
        _adapt(layer, chosen.scale, chosen.dropout)
        for part in PARTS:
            layer[part] = arrays[f"{name}.{part}"]
    _train_only_lora(module)
    return list(settings)


@dataclass(frozen=True)
class _LoRASettings:
    scale: float
    dropout: ShareBelowOne


def _read_lora(path: str | os.PathLike) -> tuple[Arrays, dict[str, _LoRASettings]]:
    """The arrays in a file of `save_lora`, and scale and dropout by layer. UserError for any other
    file."""
    try:
        loaded = mx.load(str(path), return_metadata=True)
        assert isinstance(loaded, tuple)
        arrays, metadata = loaded
        mx.eval(arrays)  # mx.load is lazy
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split()):.300}") from None
    if "lora" not in metadata:
        raise UserError(f"{path}: no LoRA updates, expected a file of save_lora")
    try:
        written = parse_json(metadata["lora"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    settings = conform(written, dict[str, _LoRASettings], str(path))
    if missing := [f"{n}.{p}" for n in settings for p in PARTS if f"{n}.{p}" not in arrays]:
        raise UserError(f"{path}: no {missing[0]}")
    return arrays, settings


def _linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """By name, each layer once, those that compute what nn.Linear does."""
    layers: dict[int, tuple[str, nn.Linear]] = {}
    for name, part in sorted(module.named_modules(), key=lambda named: named[0]):
        plain = isinstance(part, nn.Linear) and type(part).__call__ in PLAIN
        if plain or "lora_a" in part:
            layers.setdefault(id(part), (name, part))
    return dict(layers.values())


def _adapted_layers(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in _linear_layers(module).items() if "lora_a" in layer}


def _adapt(layer: nn.Linear, scale: float, dropout: float) -> None:
    layer.lora_scale, layer.lora_rate = scale, dropout
    layer.lora_dropout = nn.Dropout(dropout)
    layer.lora_dropout.train(layer.training)
    layer.__class__ = _adapted(type(layer))


@functools.cache
def _adapted(kind: type) -> type:
    """The class of an adapted layer."""

    def call(layer, x):
        update = (layer.lora_dropout(x) @ layer.lora_a) @ layer.lora_b
        output = kind.__call__(layer, x)
        return output + (layer.lora_scale * update).astype(output.dtype)

    return wrap_call(kind, call, plain=kind)


@functools.cache
def _with_fixed_statistics(kind: type) -> type:
    """The class of a BatchNorm that normalises by its buffers also in train mode."""

    def call(layer, x):
        training, layer._training = layer.training, False
        try:
            return kind.__call__(layer, x)
        finally:
            layer._training = training

    return wrap_call(kind, call, plain=kind)


def _train_only_lora(module: nn.Module) -> None:
    module.freeze()
    for layer in _adapted_layers(module).values():
        layer.unfreeze(keys=list(PARTS), recurse=False)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm) and type(part).__call__ is nn.BatchNorm.__call__:
            part.__class__ = _with_fixed_statistics(type(part))
