"""Chord models: features (batch, frames, bins) in, logits of three heads out.

Every model here returns {"chord_type": (…, 32), "root": (…, 12), "bass_note": (…, 12)}: the frame
models for each frame, the clip model for each example. Frame models with pools also give "change"
(batch, steps, pools), logits of a chord that begins at a step; equivariant ones
"chord_type_of_root" (batch, frames, 12, 32), those of the type if the root is this one.
"""

import math
from typing import Literal, get_args

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.buffers import Buffered, freeze_buffers
from audiotrain.backend.ops import map_batch
from audiotrain.config.schema import NonNegativeInt, PositiveInt, ShareBelowOne, validated
from audiotrain.features.cqt import CQT, CQTSettings
from audiotrain.models.chords.btc import BidirectionalBlock, sinusoids
from audiotrain.models.chords.equivariant import (
    PITCH_CLASSES,
    ChordPool,
    PitchBlock,
    PitchHeads,
    PitchNorm,
    PitchStem,
)
from audiotrain.models.layers import ConformerBlock, EncoderBlock, LayerNorm
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS
from audiotrain.utils.errors import UserError

Architecture = Literal["equivariant", "relu-transformer", "transformer", "conv", "conformer", "btc"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)


@validated
class ChordModelSettings:
    """Size and kind of a frame model; the defaults are the fastest way to a good model on a CPU.
    ValueError, a line for each value that cannot be, and for sizes that do not fit each other."""

    architecture: Architecture = "equivariant"
    """kind of the blocks"""
    width: PositiveInt = 192
    """channels between the blocks; for equivariant those of 12 pitch classes together"""
    blocks: PositiveInt = 4
    """number of blocks"""
    heads: PositiveInt = 4
    """attention heads of a block, where it has attention"""
    hidden: PositiveInt = 192
    """channels inside a feed-forward"""
    kernel: PositiveInt = 5
    """steps that a feed-forward sees"""
    patch: PositiveInt = 2
    """frames that become one step of the trunk"""
    stem_hidden: NonNegativeInt = 0
    """relu units between the bins and each pitch class's channels of equivariant, beside a linear
    map; 0: that map alone"""
    pools: NonNegativeInt = 2
    """how often, evenly between the blocks, equivariant averages over each chord"""
    dropout: ShareBelowOne = 0.1
    """share of channels dropped in training"""

    def __post_init__(self):
        if self.kernel % 2 == 0:
            raise UserError(f"kernel={self.kernel}, expected an odd number of frames")
        if self.architecture == "equivariant":
            if self.pools > self.blocks:
                raise UserError(f"pools={self.pools}, expected at most blocks={self.blocks}")
            for name, size in (("width", self.width), ("hidden", self.hidden)):
                if size % PITCH_CLASSES:
                    raise UserError(f"{name}={size}, expected a multiple of 12 for equivariant")
        elif self.architecture != "conv" and self.width % self.heads:
            raise UserError(f"width={self.width} is not a multiple of heads={self.heads}")
        if self.architecture == "btc" and (self.width % 2 or self.width < 4):
            raise UserError(f"width={self.width}, expected an even number from 4 for btc")


class Heads(nn.Module):
    """One Linear for the three heads, split by name."""

    def __init__(self, width: int, frames: int = 1):
        super().__init__()
        self.frames = frames
        self.linear = nn.Linear(width, frames * sum(HEAD_SIZES))

    def __call__(self, x: mx.array) -> dict[str, mx.array]:
        """(…, steps, width) to logits (…, steps * frames, classes) by head."""
        *axes, steps, _ = x.shape
        logits = self.linear(x).reshape(*axes, steps * self.frames, -1)
        ends = [HEAD_SIZES[0], HEAD_SIZES[0] + HEAD_SIZES[1]]
        return dict(zip(HEADS, mx.split(logits, ends, axis=-1), strict=True))


class Stem(nn.Linear):
    """Frames (batch, frames, bins) to steps of `patch` frames (batch, frames / patch, width)."""

    def __init__(self, bins: int, width: int, patch: int):
        super().__init__(bins * patch, width)
        self.patch = patch

    def __call__(self, x: mx.array) -> mx.array:
        batch, frames, bins = x.shape
        return super().__call__(x.reshape(batch, frames // self.patch, self.patch * bins))


class Trunk(Buffered):
    """Features to (batch, frames / patch, width): standardise, join frames, blocks, pools, norm.

    `feature_mean` and `feature_std` are buffers, one number each, and are saved with the weights.
    """

    BUFFERS = "feature_mean", "feature_std"

    def __init__(self, bins: int, settings: ChordModelSettings, bins_per_octave: int = 24):
        super().__init__()
        self.settings = settings
        self.feature_mean, self.feature_std = mx.array(0.0), mx.array(1.0)
        self.stem: PitchStem | Stem
        self.norm: PitchNorm | LayerNorm
        if settings.architecture == "equivariant":
            channels = settings.width // PITCH_CLASSES
            self.stem = PitchStem(
                bins, bins_per_octave, channels, settings.patch, settings.stem_hidden
            )
            self.norm = PitchNorm(channels)
        else:
            self.stem = Stem(bins, settings.width, settings.patch)
            self.norm = LayerNorm(settings.width)
        self.blocks = [_block(settings) for _ in range(settings.blocks)]
        pools = settings.pools if settings.architecture == "equivariant" else 0
        self.pools = [
            ChordPool(channels, settings.hidden // PITCH_CLASSES, settings.dropout)
            for _ in range(pools)
        ]
        self.positions = settings.architecture == "btc"
        freeze_buffers(self)

    def __call__(self, features: mx.array) -> tuple[mx.array, list[mx.array]]:
        """Steps, and the logits (batch, steps) of changes by each pool."""
        frames, patch = features.shape[1], self.settings.patch
        if frames % patch:
            raise ValueError(f"{frames} frames, expected a multiple of patch={patch}")
        x = self.stem((features - self.feature_mean) / self.feature_std)
        if self.positions:
            x = x + sinusoids(frames // patch, self.settings.width)
        changes: list[mx.array] = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if len(changes) < number * len(self.pools) // len(self.blocks):
                x, change = self.pools[len(changes)](x)
                changes.append(change)
        return self.norm(x), changes


def _block(settings: ChordModelSettings) -> nn.Module:
    width, heads, hidden = settings.width, settings.heads, settings.hidden
    kernel, dropout = settings.kernel, settings.dropout
    match settings.architecture:
        case "equivariant":
            return PitchBlock(width // PITCH_CLASSES, hidden // PITCH_CLASSES, kernel, dropout)
        case "relu-transformer":
            return EncoderBlock(width, heads, hidden, kernel, dropout, "relu")
        case "transformer":
            return EncoderBlock(width, heads, hidden, kernel, dropout, "softmax")
        case "conv":
            return EncoderBlock(width, 0, hidden, kernel, dropout, "relu")
        case "conformer":
            return ConformerBlock(width, heads, hidden, kernel, dropout)
        case "btc":
            return BidirectionalBlock(width, heads, hidden, kernel, dropout)
    raise AssertionError(f"no block for architecture {settings.architecture!r}")


class FrameChordModel(Buffered):
    """A chord for every frame: Trunk, then Heads.

    Called with features (batch, frames, bins) in dB, frames a multiple of `settings.patch`, it
    gives logits (batch, frames, classes) by head: "chord_type" (32), "root" (12), "bass_note" (12);
    "equivariant" also "chord_type_of_root" (batch, frames, 12, 32); models with pools also "change"
    (batch, steps, pools), of a chord that begins at a step. ValueError for other numbers of frames;
    of "equivariant" unless 12 divides `bins_per_octave` and `bins` are two octaves or more.
    """

    def __init__(
        self, bins: int, settings: ChordModelSettings | None = None, bins_per_octave: int = 24
    ):
        super().__init__()
        settings = settings or ChordModelSettings()
        self.trunk = Trunk(bins, settings, bins_per_octave)
        self.heads: PitchHeads | Heads
        if settings.architecture == "equivariant":
            self.heads = PitchHeads(settings.width // PITCH_CLASSES, HEAD_SIZES[0], settings.patch)
        else:
            self.heads = Heads(settings.width, settings.patch)

    def __call__(self, features: mx.array) -> dict[str, mx.array]:
        return map_batch(self._logits, features)

    def _logits(self, features: mx.array) -> dict[str, mx.array]:
        x, changes = self.trunk(features)
        logits = self.heads(x)
        return logits | {"change": mx.stack(changes, axis=-1)} if changes else logits


class ChordRecognitionModel(Buffered):
    """One chord for each example, from raw waveforms: the front end, a Trunk, the mean over time.

    Called with audio (batch, samples) at `rate` Hz, it gives logits (batch, classes) by head. The
    constant-Q transform runs inside, in MLX. ValueError for a `d_model` that its heads, one for 32,
    do not divide, a `rate` too low for the bins, and audio of another shape.

    >>> model = ChordRecognitionModel(d_model=32, num_blocks=1)
    >>> logits = model(mx.zeros((2, 44100)))
    >>> logits["chord_type"].shape, logits["root"].shape, logits["bass_note"].shape
    ((2, 32), (2, 12), (2, 12))
    """

    def __init__(
        self, d_model: int = 256, num_blocks: int = 6, rate: int = 44100, dropout: float = 0.1
    ):
        super().__init__()
        settings = ChordModelSettings(
            "relu-transformer",
            width=d_model,
            blocks=num_blocks,
            heads=max(1, d_model // 32),
            hidden=2 * d_model,
            kernel=3,
            dropout=dropout,
        )
        self._front_end = CQT(CQTSettings(rate=rate, hop=2048 * rate // 22050))
        self.trunk = Trunk(144, settings)
        self.heads = Heads(d_model)

    def __call__(self, audio: mx.array) -> dict[str, mx.array]:
        if audio.ndim != 2:
            raise ValueError(f"audio of shape {audio.shape}, expected (batch, samples)")
        return map_batch(self._logits, audio)

    def _logits(self, audio: mx.array) -> dict[str, mx.array]:
        magnitudes = mx.stop_gradient(self._front_end(audio))
        features = (20 / math.log(10)) * mx.log(magnitudes + 1e-4)
        features = mx.pad(features, [(0, 0), (0, features.shape[1] % 2), (0, 0)], mode="edge")
        steps, _ = self.trunk(features)
        pooled = steps.mean(axis=1, keepdims=True)
        return {head: logits[:, 0] for head, logits in self.heads(pooled).items()}
