"""Which parameters of CLAP are trained (modes), and their learning rates."""

import itertools
from typing import Annotated, Literal

import mlx.nn as nn
from pydantic import Field

from audiotrain.config.schema import Positive, PositiveInt, PositiveShare, ShareBelowOne, validated
from audiotrain.models.clap.model import CLAP
from audiotrain.models.lora import add_lora
from audiotrain.train.module import OptimizerConfig
from audiotrain.train.optimizers import (
    GroupedOptimizer,
    Rule,
    WarmupSettings,
    layer_decay,
    parameter_groups,
)
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError

Mode = Literal["full", "projection", "audio", "text", "lora", "last-n"]


@validated
class LoraSettings:
    """Updates of low rank for linear layers of frozen towers."""

    rank: PositiveInt = 8
    """rank of an update"""
    alpha: Positive = 16.0
    """an update counts alpha / rank"""
    dropout: ShareBelowOne = 0.0
    """dropout of an update's input"""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "*_encoder.*.query",
        "*_encoder.*.value",
    )
    """names of layers with an update; * stands for any characters"""


def choose_trained(clap: CLAP, mode: Mode, last: int, lora: LoraSettings) -> None:
    """Freeze what does not train in a mode: `full` trains all, the others the projections and the
    logit scale, and

    - `audio`, `text`: that tower,
    - `lora`: updates of layers of the towers,
    - `last-n`: the `last` blocks of each tower and the norm or pooling after them.

    ValueError when a tower has fewer blocks, or a LoRA target fits none of their layers.
    """
    clap.unfreeze()
    if mode == "full":
        return
    if mode == "lora":
        add_lora(clap, lora.rank, lora.targets, lora.alpha, lora.dropout)
    else:
        clap.freeze()
    clap.unfreeze(recurse=False, keys=["logit_scale_a"])
    for projection in (clap.audio_projection, clap.text_projection):
        for layer in (projection.linear1, projection.linear2):
            if "lora_a" not in layer:
                layer.unfreeze()
    if mode == "audio":
        clap.audio_encoder.unfreeze()
    elif mode == "text":
        clap.text_encoder.unfreeze()
    elif mode == "last-n":
        for kind, layers in tower_layers(clap).items():
            if last >= len(layers):
                raise UserError(
                    f"last={last}, expected at most {len(layers) - 1}, the {kind} tower's blocks"
                )
            parts = dict(clap[f"{kind}_encoder"].named_modules())
            for name in itertools.chain(*layers[-last:]):
                if name in parts:
                    parts[name].unfreeze()


def tower_layers(clap: CLAP) -> dict[str, list[list[str]]]:
    """By tower, "audio" and "text", the names of the modules of each layer, from the input on: the
    embedding, then the blocks. A stage's downsampling goes with its last block, what follows the
    blocks with the last one."""
    audio = [["batch_norm", "patch_embed"]]
    for number, stage in enumerate(clap.audio_encoder.layers):
        audio += [[f"layers.{number}.blocks.{block}"] for block in range(len(stage.blocks))]
        audio[-1].append(f"layers.{number}.downsample")
    text = [["embeddings"], *([f"layers.{k}"] for k in range(len(clap.text_encoder.layers)))]
    return {
        "audio": [*audio[:-1], [*audio[-1], "norm"]],
        "text": [*text[:-1], [*text[-1], "pooler"]],
    }


TOWERS = ("clap.audio_encoder.", "clap.text_encoder.")
HEADS = ("lora", "heads")  # groups with the heads' rate
# Numbers that are no matrix: biases and their tables, norms, the scale and bias of logits.
UNDECAYED = ("*bias*", "*norm*", "*logit_scale*")


@validated(kw_only=True)
class OptimizationSettings(WarmupSettings):
    """AdamW with linear warm-up and cosine decay; towers and heads have rates of their own."""

    learning_rate: Positive | None = None
    """peak rate of the towers; default: 1e-5 with --pretrained, 1e-3 from scratch"""
    head_rate: Positive | None = None
    """peak rate of projections, LoRA updates and logit scale; default: 1e-4 with --pretrained, 1e-3
    from scratch"""
    layer_decay: PositiveShare = 1.0
    """factor of a layer's rate for each layer between it and the tower's end"""
    ema_decay: ShareBelowOne = 0.0
    """decay of the averaged weights that validation and the model folder use; 0: none"""


def optimizer_config(
    module: nn.Module, clap: CLAP, settings: OptimizationSettings, steps: int, pretrained: bool
) -> OptimizerConfig:
    """An optimizer for the parameters that `module` trains over `steps` steps; its model is
    `module.clap`."""
    tower_rate = settings.learning_rate or (1e-5 if pretrained else 1e-3)
    head_rate = settings.head_rate or (1e-4 if pretrained else 1e-3)
    rules: dict[str, Rule] = {}
    for name, (prefixes, share) in groups(clap, settings.layer_decay).items():
        schedule = settings.schedule((head_rate if name in HEADS else tower_rate) * share, steps)
        undecayed = [f"{prefix}{kind}" for prefix in prefixes for kind in UNDECAYED]
        rules[f"{name}-undecayed"] = undecayed, settings.adamw(schedule, weight_decay=0.0)
        rules[name] = [f"{prefix}*" for prefix in prefixes], settings.adamw(schedule)
    # Groups without a trained parameter are left out.
    optimizer, names = GroupedOptimizer(rules), arrays_of(module.trainable_parameters())
    used = {optimizer.group(name) for name in names}
    rules = {name: rule for name, rule in rules.items() if name in used}
    return OptimizerConfig(parameter_groups(module, rules), "warmup_cosine")


def groups(clap: CLAP, decay: float) -> dict[str, tuple[list[str], float]]:
    """Prefixes of the parameters' names in each group, and the group's share of the rate, by name.

    A parameter belongs to the first group that fits. With a `decay` each layer is one.

    >>> from audiotrain.models.clap import CLAPConfig
    >>> list(groups(CLAP(CLAPConfig.small(300)), decay=1.0))
    ['lora', 'towers', 'heads']
    """
    lora, heads = ([f"{tower}*.lora_" for tower in TOWERS], 1.0), ([""], 1.0)
    if decay == 1:
        return {"lora": lora, "towers": (list(TOWERS), 1.0), "heads": heads}
    groups_by_layer = {}
    for kind, layers in tower_layers(clap).items():
        shares = layer_decay([f"{kind}-{number}" for number in range(len(layers))], decay)
        for (name, share), parts in reversed(list(zip(shares.items(), layers, strict=True))):
            prefixes = [f"clap.{kind}_encoder.{part}." for part in parts]
            groups_by_layer[name] = prefixes, share
    return {"lora": lora, **groups_by_layer, "heads": heads}
