"""Which parameters of CLAP are trained (modes), and their learning rates."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import mlx.nn as nn
import mlx.optimizers as optim

from audiotrain.models.clap.model import CLAP
from audiotrain.models.lora import add_lora
from audiotrain.train.module import OptimizerConfig
from audiotrain.train.optimizers import Rule, layer_decay, parameter_groups
from audiotrain.train.schedulers import WarmupCosineScheduler
from audiotrain.utils.arrays import arrays_of

Mode = Literal["full", "projection", "audio", "text", "lora", "last-n"]


@dataclass(frozen=True)
class LoraSettings:
    """Updates of low rank for linear layers of frozen towers."""

    rank: int = 8
    """rank of an update"""
    alpha: float = 16.0
    """an update counts alpha / rank"""
    dropout: float = 0.0
    """dropout of an update's input"""
    targets: tuple[str, ...] = ("*_encoder.*.query", "*_encoder.*.value")
    """names of layers with an update; * stands for any characters"""

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank}, expected 1 or more")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"lora.alpha={self.alpha}, expected more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout}, expected 0 or more and less than 1")
        if not self.targets:
            raise ValueError("--lora.targets: nothing follows, expected names of layers")


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
        _unfreeze_plain(projection)
    if mode == "audio":
        clap.audio_encoder.unfreeze()
    if mode == "text":
        clap.text_encoder.unfreeze()
    if mode == "last-n":
        for part in (*_last_of_audio(clap, last), *_last_of_text(clap, last)):
            part.unfreeze()


def _unfreeze_plain(projection: nn.Module) -> None:
    """Train the layers without a LoRA update."""
    for layer in (projection.linear1, projection.linear2):
        if "lora_a" not in layer:
            layer.unfreeze()


def _last_of_audio(clap: CLAP, last: int) -> list[nn.Module]:
    tower = clap.audio_encoder
    parts: list[nn.Module] = []
    for stage in tower.layers:
        parts += stage.blocks
        if "downsample" in stage:
            parts.append(stage.downsample)
    blocks = [place for place, part in enumerate(parts) if "attention" in part]
    _check_count(len(blocks), last, "audio")
    return [*parts[blocks[-last] :], tower.norm]


def _last_of_text(clap: CLAP, last: int) -> list[nn.Module]:
    tower = clap.text_encoder
    _check_count(len(tower.layers), last, "text")
    return [*tower.layers[-last:], tower.pooler]


def _check_count(blocks: int, last: int, tower: str) -> None:
    if last > blocks:
        raise ValueError(f"last={last}, expected at most {blocks}, the {tower} tower's blocks")


TOWERS = ("clap.audio_encoder.", "clap.text_encoder.")
HEADS = ("lora", "heads")  # groups with the heads' rate
# Numbers that are no matrix: biases and their tables, norms, the scale and bias of logits.
UNDECAYED = ("*bias*", "*norm*", "*logit_scale*")


@dataclass(frozen=True)
class OptimizationSettings:
    """AdamW with linear warm-up and cosine decay; towers and heads have rates of their own."""

    learning_rate: float | None = None
    """peak rate of the towers; nothing: 1e-5 with --pretrained, 1e-3 from scratch"""
    head_rate: float | None = None
    """peak rate of projections, LoRA updates and logit scale; nothing: 1e-4 with --pretrained, 1e-3
    from scratch"""
    layer_decay: float = 1.0
    """what a layer's rate is multiplied with for each layer between it and the tower's end"""
    final_share: float = 0.02
    """rates at the end as a share of the peak"""
    warmup_steps: int = 200
    """optimizer steps of linear warm-up, at most a tenth of all"""
    weight_decay: float = 0.01
    """decoupled weight decay of matrices"""
    gradient_clip: float = 1.0
    """largest norm of the gradients"""
    beta2: float = 0.98
    """decay of AdamW's second moment"""
    ema_decay: float = 0.0
    """decay of the averaged weights that validation and the model folder use; 0: none"""

    def __post_init__(self):
        for name in ("learning_rate", "head_rate", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"optimization.{name}={value}, expected more than 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"optimization.layer_decay={self.layer_decay}, expected above 0, at most 1"
            )
        if self.warmup_steps < 0:
            raise ValueError(f"optimization.warmup_steps={self.warmup_steps}, expected 0 or more")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"optimization.weight_decay={self.weight_decay}, expected 0 or more")
        for name in ("final_share", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"optimization.{name}={value}, expected 0 or more and less than 1")


def optimizer_config(
    module: nn.Module, clap: CLAP, settings: OptimizationSettings, steps: int, pretrained: bool
) -> OptimizerConfig:
    """An optimizer for what `module`, which calls its model `clap`, trains, over `steps` steps."""
    tower_rate = settings.learning_rate or (1e-5 if pretrained else 1e-3)
    head_rate = settings.head_rate or (1e-4 if pretrained else 1e-3)
    rules: dict[str, Rule] = {}
    for name, (places, share) in groups(clap, settings.layer_decay).items():
        rate = (head_rate if name in HEADS else tower_rate) * share
        undecayed = [f"{place}{kind}" for place in places for kind in UNDECAYED]
        rules[f"{name}-undecayed"] = undecayed, _adamw(settings, rate, steps, 0.0)
        every = [f"{place}*" for place in places]
        rules[name] = every, _adamw(settings, rate, steps, settings.weight_decay)
    return OptimizerConfig(parameter_groups(module, _used(module, rules)), "warmup_cosine")


def groups(clap: CLAP, decay: float) -> dict[str, tuple[list[str], float]]:
    """By the name of a group how its parameters' names begin, and its share of the rate.

    A parameter belongs to the first group that fits. With a `decay` each layer is one.

    >>> from audiotrain.models.clap import CLAPConfig
    >>> list(groups(CLAP(CLAPConfig.small(300)), decay=1.0))
    ['lora', 'towers', 'heads']
    """
    found = {"lora": ([f"{tower}*.lora_" for tower in TOWERS], 1.0)}
    if decay == 1:
        found["towers"] = list(TOWERS), 1.0
    else:
        for tower, layers in zip(TOWERS, (_audio_layers(clap), _text_layers(clap)), strict=True):
            shares = layer_decay([str(number) for number in range(len(layers))], decay)
            for number in reversed(range(len(layers))):
                name = f"{tower.split('.')[1].split('_')[0]}-{number}"
                found[name] = [tower + place for place in layers[number]], shares[str(number)]
    return found | {"heads": ([""], 1.0)}


def _audio_layers(clap: CLAP) -> list[list[str]]:
    """What counts as one layer, from the input on; a stage's merging goes with its last block."""
    layers = [["batch_norm.", "patch_embed."]]
    for number, stage in enumerate(clap.audio_encoder.layers):
        layers += [[f"layers.{number}.blocks.{block}."] for block in range(len(stage.blocks))]
        layers[-1].append(f"layers.{number}.downsample.")
    layers[-1].append("norm.")
    return layers


def _text_layers(clap: CLAP) -> list[list[str]]:
    count = len(clap.text_encoder.layers)
    layers = [["embeddings."], *([f"layers.{number}."] for number in range(count))]
    layers[-1].append("pooler.")
    return layers


def _adamw(settings: OptimizationSettings, rate: float, steps: int, decay: float) -> optim.AdamW:
    schedule = WarmupCosineScheduler(
        peak_lr=rate,
        warmup_steps=min(settings.warmup_steps, steps // 10),
        total_steps=steps,
        min_lr=rate * settings.final_share,
    )
    return optim.AdamW(learning_rate=schedule, betas=[0.9, settings.beta2], weight_decay=decay)


def _used(module: nn.Module, rules: dict[str, Rule]) -> dict[str, Rule]:
    """The rules that are the first to fit a trained parameter."""
    taken = {
        next(rule for rule, (patterns, _) in rules.items() if _fits(name, patterns))
        for name in arrays_of(module.trainable_parameters())
    }
    return {rule: rules[rule] for rule in rules if rule in taken}


def _fits(name: str, patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
