"""PyTorch twins of the frame models in audiotrain.models, for tests of equality and as a peer.

Modules carry the names that ours have, so weights are copied by name; (batch, frames, width).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from mlx.utils import tree_flatten
from torch import nn

from audiotrain.models.chords import ChordModelSettings
from audiotrain.models.chords.equivariant import PITCH_CLASSES
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS


class ChannelDropout(nn.Module):
    """Dropout of whole channels over all frames of an example."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rate == 0 or not self.training:
            return x
        batch, _, width = x.shape
        kept = torch.rand(batch, 1, width, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


class Attention(nn.Module):
    """Self-attention; softmax by PyTorch's fused function, relu as ours is defined."""

    def __init__(self, width: int, heads: int, weighting: str = "softmax"):
        super().__init__()
        self.heads, self.weighting = heads, weighting
        self.projection_in = nn.Linear(width, 3 * width)
        self.projection_out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        batch, frames, width = x.shape
        projected = self.projection_in(x).view(batch, frames, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        if self.weighting == "softmax":
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            scores = query * (1 / math.sqrt(width // self.heads)) @ key.transpose(-1, -2)
            weights = F.relu(scores)
            mixed = (weights @ value) / (weights.sum(dim=-1, keepdim=True) + 1)
        return self.projection_out(mixed.transpose(1, 2).reshape(batch, frames, width))


class Convolution(nn.Conv1d):
    """Conv1d along the frames of (batch, frames, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Convolution over frames, relu, Linear."""

    def __init__(self, width: int, hidden: int, kernel: int):
        super().__init__()
        convolution = Convolution(width, hidden, kernel, padding=kernel // 2)
        self.inner = nn.Linear(width, hidden) if kernel == 1 else convolution
        self.outer = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(F.relu(self.inner(x)))


class EncoderBlock(nn.Module):
    """Attention (none when `heads` is 0), then feed-forward; pre-norm."""

    def __init__(self, settings: ChordModelSettings, heads: int, weighting: str):
        super().__init__()
        width = settings.width
        self.heads = heads
        if heads:
            self.attention_norm = nn.LayerNorm(width)
            self.attention = Attention(width, heads, weighting)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, settings.hidden, settings.kernel)
        self.dropout = ChannelDropout(settings.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.heads:
            x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Direction(nn.Module):
    """One direction of BTC's block."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        width, hidden, kernel = settings.width, settings.hidden, settings.kernel
        self.attention_norm, self.convolution_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, settings.heads)
        self.first = Convolution(width, hidden, kernel, padding=kernel // 2)
        self.second = Convolution(hidden, width, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias))
        hidden = self.dropout(F.relu(self.first(self.convolution_norm(x))))
        return x + self.dropout(F.relu(self.second(hidden)))


class BidirectionalBlock(nn.Module):
    """BTC's block; `ahead` is our `forward`, a name that PyTorch keeps for itself."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        self.ahead, self.backward = Direction(settings), Direction(settings)
        self.joined = nn.Linear(2 * settings.width, settings.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.shape[1]
        future = torch.full((frames, frames), -1e9, device=x.device).triu(1)
        both = [self.ahead(x, future), self.backward(x, future.T)]
        return self.joined(torch.cat(both, dim=-1))


def sinusoids(frames: int, width: int) -> torch.Tensor:
    """Positions (frames, width): sines, then cosines."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10000.0) / (width // 2 - 1)))
    angles = torch.arange(frames)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def tied(weight: torch.Tensor) -> torch.Tensor:
    """Weights (out, …, 12, in) of one pitch class to those of all, (12 * out, …, 12 * in)."""
    turned = [weight.roll(number, dims=-2) for number in range(PITCH_CLASSES)]
    return torch.stack(turned).flatten(0, 1).flatten(-2)


class PitchStem(nn.Module):
    """Each pitch class sees the bins from its own lowest one on, through a linear map and units."""

    def __init__(self, bins: int, step: int, channels: int, patch: int, hidden: int):
        super().__init__()
        self.step, seen = step, bins - (PITCH_CLASSES - 1) * step
        self.hidden = hidden
        self.weight = nn.Parameter(torch.zeros(hidden + channels, patch, seen))
        self.bias = nn.Parameter(torch.zeros(hidden + channels))
        if hidden:
            self.outer = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, frames, bins = x.shape
        _, patch, seen = self.weight.shape
        moved = [
            F.pad(self.weight, (number * self.step, bins - seen - number * self.step))
            for number in range(PITCH_CLASSES)
        ]
        x = x.reshape(batch, frames // patch, patch * bins)
        x = F.linear(x, torch.stack(moved).reshape(-1, patch * bins), self.bias.repeat(12))
        if not self.hidden:
            return x
        x = x.unflatten(-1, (PITCH_CLASSES, -1))
        return (x[..., self.hidden :] + self.outer(F.relu(x[..., : self.hidden]))).flatten(-2)


class PitchLayer(nn.Module):
    """A Linear, or a convolution over frames, that is alike for all pitch classes."""

    def __init__(self, inputs: int, outputs: int, *kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, *kernel, PITCH_CLASSES, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = tied(self.weight), self.bias.repeat(PITCH_CLASSES)
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        padding = weight.shape[1] // 2
        mixed = F.conv1d(x.transpose(1, 2), weight.transpose(1, 2), bias, padding=padding)
        return mixed.transpose(1, 2)


class PitchNorm(nn.Module):
    """Layer norm whose scale and offset are a channel's."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (v.repeat(PITCH_CLASSES) for v in (self.weight, self.bias))
        return F.layer_norm(x, x.shape[-1:], weight, bias)


class PitchBlock(nn.Module):
    """Convolution over frames, relu, back; pre-norm."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        channels, hidden = settings.width // PITCH_CLASSES, settings.hidden // PITCH_CLASSES
        self.norm = PitchNorm(channels)
        self.inner = PitchLayer(channels, hidden, settings.kernel)
        self.outer = PitchLayer(hidden, channels)
        self.dropout = ChannelDropout(settings.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.outer(F.relu(self.inner(self.norm(x)))))


class ChordPool(nn.Module):
    """Features averaged over the chord of each step."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        channels, hidden = settings.width // PITCH_CLASSES, settings.hidden // PITCH_CLASSES
        self.norm = PitchNorm(channels)
        self.inner = PitchLayer(channels, hidden, 3)
        self.outer = PitchLayer(2 * hidden, channels)
        self.changing = PitchLayer(channels, hidden, 5)
        self.change = nn.Linear(hidden, 1)
        self.dropout = ChannelDropout(settings.dropout)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normed, shape = self.norm(x), (*x.shape[:2], PITCH_CLASSES, -1)
        clues = F.relu(self.changing(normed)).reshape(shape)
        change = self.change(clues.mean(dim=2))[..., 0]
        passed = F.softplus(change).cumsum(dim=1)
        weights = (-(passed[:, :, None] - passed[:, None]).abs()).exp()
        own = F.relu(self.inner(normed))
        pooled = weights / weights.sum(dim=-1, keepdim=True) @ own
        both = torch.cat([pooled.reshape(shape), own.reshape(shape)], dim=-1)
        return x + self.dropout(self.outer(both.flatten(2))), change


class PitchHeads(nn.Module):
    """Root and bass note of each pitch class, the chord type of the likely root."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        self.frames, self.outputs = settings.patch, HEAD_SIZES[0] + 2
        channels = settings.width // PITCH_CLASSES
        self.linear = nn.Linear(channels, self.frames * self.outputs)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, steps, _ = x.shape
        logits = self.linear(x.view(batch, steps, PITCH_CLASSES, -1))
        logits = logits.view(batch, steps, PITCH_CLASSES, self.frames, self.outputs)
        logits = logits.transpose(2, 3).reshape(batch, -1, PITCH_CLASSES, self.outputs)
        root, bass, of_root = logits[..., 0], logits[..., 1], logits[..., 2:]
        types = (root.softmax(dim=-1)[..., None] * of_root).sum(dim=-2)
        known = {"chord_type": types, "root": root, "bass_note": bass}
        return known | {"chord_type_of_root": of_root}


BLOCKS = {
    "equivariant": PitchBlock,
    "relu-transformer": lambda settings: EncoderBlock(settings, settings.heads, "relu"),
    "transformer": lambda settings: EncoderBlock(settings, settings.heads, "softmax"),
    "conv": lambda settings: EncoderBlock(settings, 0, "relu"),
    "btc": BidirectionalBlock,
}


class Trunk(nn.Module):
    """Features (batch, frames, bins) to (batch, frames / patch, width), and changes."""

    def __init__(self, bins: int, settings: ChordModelSettings):
        super().__init__()
        self.settings = settings
        self.register_buffer("feature_mean", torch.tensor(0.0))
        self.register_buffer("feature_std", torch.tensor(1.0))
        equivariant = settings.architecture == "equivariant"
        if equivariant:
            channels = settings.width // PITCH_CLASSES
            self.stem = PitchStem(bins, 2, channels, settings.patch, settings.stem_hidden)
        else:
            self.stem = nn.Linear(bins * settings.patch, settings.width)
        make = BLOCKS[settings.architecture]
        self.blocks = nn.ModuleList(make(settings) for _ in range(settings.blocks))
        pools = settings.pools if equivariant else 0
        self.pools = nn.ModuleList(ChordPool(settings) for _ in range(pools))
        self.norm = PitchNorm(channels) if equivariant else nn.LayerNorm(settings.width)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch, frames, bins = features.shape
        patch = self.settings.patch
        x = (features - self.feature_mean) / self.feature_std
        if self.settings.architecture != "equivariant":
            x = x.reshape(batch, frames // patch, patch * bins)
        x = self.stem(x)
        if self.settings.architecture == "btc":
            x = x + sinusoids(frames // patch, self.settings.width).to(x.device)
        changes = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if len(changes) < number * len(self.pools) // len(self.blocks):
                x, change = self.pools[len(changes)](x)
                changes.append(change)
        return self.norm(x), changes


class Heads(nn.Module):
    """One Linear for the three heads."""

    def __init__(self, settings: ChordModelSettings):
        super().__init__()
        self.frames = settings.patch
        self.linear = nn.Linear(settings.width, settings.patch * sum(HEAD_SIZES))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, steps, _ = x.shape
        logits = self.linear(x).view(batch, steps * self.frames, -1)
        parts = logits.split(HEAD_SIZES, dim=-1)
        return dict(zip(HEADS, parts, strict=True))


class FrameChordModel(nn.Module):
    """The twin of audiotrain.models.chords.FrameChordModel."""

    def __init__(self, bins: int, settings: ChordModelSettings):
        super().__init__()
        self.trunk = Trunk(bins, settings)
        kind = PitchHeads if settings.architecture == "equivariant" else Heads
        self.heads = kind(settings)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        x, changes = self.trunk(features)
        logits = self.heads(x)
        return logits | {"change": torch.stack(changes, dim=-1)} if changes else logits


def torch_name(name: str) -> str:
    """Our parameter's name in the twin."""
    return name.replace(".forward.", ".ahead.")


def torch_array(name: str, array: np.ndarray) -> np.ndarray:
    """Our array in the twin's order of axes: a convolution's (out, frames, in) is (out, in, frames)
    there."""
    convolution = name.split(".")[-2] in ("inner", "first", "second", "changing")
    return array.swapaxes(1, 2) if convolution and array.ndim == 3 else array


def twin_of(model) -> FrameChordModel:
    """The twin of an MLX model, with its weights; an error names those that one of them lacks."""
    settings, stem = model.trunk.settings, model.trunk.stem
    bins = stem.weight.shape[-1] // settings.patch
    if settings.architecture == "equivariant":
        bins = stem.weight.shape[-1] + (PITCH_CLASSES - 1) * stem.step
    twin = FrameChordModel(bins, settings)
    twin.load_state_dict(
        {
            torch_name(name): torch.from_numpy(torch_array(name, np.array(value)).copy())
            for name, value in tree_flatten(model.parameters())
        }
    )
    return twin


def chord_loss(
    logits: dict[str, torch.Tensor], classes: torch.Tensor, label_smoothing: float = 0.1
) -> torch.Tensor:
    """The recipe's loss with its default weights; classes (batch, frames, 3)."""
    weights = {"chord_type": 1.0, "root": 1.0, "bass_note": 0.5}
    if "chord_type_of_root" in logits:  # of the true root, where there is one
        root = classes[..., 1, None]
        of_root = logits["chord_type_of_root"]
        types = of_root.gather(2, root.clamp(0)[..., None].expand(-1, -1, 1, of_root.shape[-1]))
        types = torch.where(root >= 0, types.squeeze(2), logits["chord_type"])
        logits = logits | {"chord_type": types}
    losses = [
        weight
        * F.cross_entropy(
            logits[head].flatten(0, 1),
            classes[..., number].flatten(),
            ignore_index=-100,
            label_smoothing=label_smoothing,
        )
        for number, (head, weight) in enumerate(weights.items())
    ]
    if "change" not in logits:
        return sum(losses)
    change = logits["change"]
    patch = classes.shape[1] // change.shape[1]
    middle = classes[:, patch // 2 :: patch]
    begins = (middle[:, 1:] != middle[:, :-1]).any(dim=-1)[..., None].expand_as(change[:, 1:])
    known = ((middle[:, 1:, 0] >= 0) & (middle[:, :-1, 0] >= 0))[..., None].expand_as(begins)
    entropy = F.binary_cross_entropy_with_logits(change[:, 1:][known], begins[known].float())
    return sum(losses) + 0.5 * entropy
