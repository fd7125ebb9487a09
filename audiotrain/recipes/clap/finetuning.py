"""What of CLAP trains: all of it, or parts, the rest staying bit for bit as it is."""

from dataclasses import dataclass
from typing import Literal

import mlx.nn as nn

from audiotrain.models.clap.model import CLAP
from audiotrain.models.lora import add_lora

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
