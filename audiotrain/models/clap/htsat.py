"""HTSAT (Chen et al. 2022, arXiv:2202.00874): log-mel spectrograms to one vector a clip.

A Swin transformer over the spectrogram folded to a square: time runs along the columns of
`spec_size // num_mel_bins` bands, one below the other. Activations are (batch, rows, columns,
width). Fusion (Wu et al. 2023, arXiv:2211.06687) mixes crops of long clips into their patches.
"""

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.backend.buffers import Buffered
from audiotrain.backend.ops import attend, gelu, map_batch, with_gradient
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.models.layers import LayerNorm, Linear

CROPS = 3  # of a long clip, beside the whole
OTHER_REGION = -100.0  # added to scores between patches that are no neighbours before the shift


class BatchNorm(nn.BatchNorm):
    """Batch norm over all axes but the last; frozen, it stays as it is in training mode too."""

    @property
    def training(self) -> bool:
        """Whether statistics are those of the batch, and are kept count of."""
        return self._training and not {"weight", "bias"} <= self._no_grad


class CountingBatchNorm(BatchNorm):
    """Batch norm whose statistics are those of some of the batch's examples."""

    def __call__(self, x: mx.array, counted: mx.array | None = None) -> mx.array:
        """The statistics are those of the examples where `counted` (batch,) is true, by default of
        all; fewer than two examples change nothing."""
        if counted is None or not self.training:
            return super().__call__(x)
        axes = tuple(range(x.ndim - 1))
        weights = counted.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        is_counted = counted.sum() >= 2
        count = mx.maximum(counted.sum() * (x[0].size // x.shape[-1]), 2)
        mean = (weights * x).sum(axis=axes) / count
        variance = (weights * mx.square(x - mean)).sum(axis=axes) / count
        used = mx.where(is_counted, mean, self.running_mean)
        scale = mx.rsqrt(mx.where(is_counted, variance, self.running_var) + self.eps)
        step = mx.where(is_counted, self.momentum, 0.0)
        unbiased = variance * (count / (count - 1))
        self.running_mean = (1 - step) * self.running_mean + step * mx.stop_gradient(mean)
        self.running_var = (1 - step) * self.running_var + step * mx.stop_gradient(unbiased)
        return self.weight * ((x - used) * scale) + self.bias


class ChannelAttention(nn.Module):
    """Two Linears with norms, reduced inside: one half of the fusion's gate."""

    def __init__(self, width: int, reduced: int):
        super().__init__()
        self.reduce, self.reduce_norm = Linear(width, reduced), CountingBatchNorm(reduced)
        self.expand, self.expand_norm = Linear(reduced, width), CountingBatchNorm(width)

    def __call__(self, x: mx.array, longer: mx.array) -> mx.array:
        x = nn.relu(self.reduce_norm(self.reduce(x), longer))
        return self.expand_norm(self.expand(x), longer)


class AttentionalFusion(nn.Module):
    """Whole and crops, weighed against each other (Dai et al. 2021, arXiv:2009.14082)."""

    def __init__(self, width: int, reduced: int):
        super().__init__()
        self.local_att = ChannelAttention(width, reduced)
        self.global_att = ChannelAttention(width, reduced)

    def __call__(self, whole: mx.array, crops: mx.array, longer: mx.array) -> mx.array:
        both = whole + crops
        pooled = both.mean(axis=(1, 2), keepdims=True)
        gate = mx.sigmoid(self.local_att(both, longer) + self.global_att(pooled, longer))
        return 2 * (gate * whole + (1 - gate) * crops)


class PatchEmbedding(nn.Module):
    """Folds (batch, chunks, frames, mels) to patches (batch, rows, columns, width)."""

    def __init__(self, config: HTSATConfig):
        super().__init__()
        self.side = side = config.patch_size
        self.bands = config.spec_size // config.num_mel_bins
        width = config.patch_embeds_hidden_size
        self.proj = Linear(side * side, width)
        self.norm = LayerNorm(width)
        self.enable_fusion = config.enable_fusion
        if config.enable_fusion:
            self.mel_conv2d = Linear(3 * side * side, width)
            self.fusion_model = AttentionalFusion(width, width // config.aff_block_r)

    def __call__(self, x: mx.array, longer: mx.array | None) -> mx.array:
        patches = self.proj(self._patches(x[:, :1], self.side))
        if longer is not None:
            crops = self.mel_conv2d(self._patches(x[:, 1:], 3 * self.side))
            missing = patches.shape[2] - crops.shape[2]
            crops = mx.pad(crops, [(0, 0), (0, 0), (0, missing), (0, 0)])
            fused = self.fusion_model(patches, crops, longer)
            patches = mx.where(longer[:, None, None, None], fused, patches)
        return self.norm(patches)

    def _patches(self, x: mx.array, length: int) -> mx.array:
        """Patches of `side` mel bins and `length` frames: (batch, rows, columns, side * length).

        Chunks lie one after the other along the columns; frames that fill no patch are left out.
        """
        batch, chunks, frames, mels = x.shape
        side, bands = self.side, self.bands
        rows, columns = mels // side, frames // bands // length
        x = x.reshape(batch, chunks, bands, frames // bands, mels)[:, :, :, : columns * length]
        x = x.reshape(batch, chunks, bands, columns, length, rows, side)
        x = x.transpose(0, 2, 5, 1, 3, 6, 4)
        return x.reshape(batch, bands * rows, chunks * columns, side * length)


class WindowAttention(nn.Module):
    """Self-attention inside square windows: rows (batch * patches, width), window after window."""

    def __init__(self, width: int, heads: int, config: HTSATConfig):
        super().__init__()
        self.heads, self.window = heads, config.window_size
        self.query = Linear(width, width, bias=config.qkv_bias)
        self.key = Linear(width, width, bias=config.qkv_bias)
        self.value = Linear(width, width, bias=config.qkv_bias)
        self.output = Linear(width, width)
        self.relative_position_bias_table = mx.zeros(((2 * self.window - 1) ** 2, heads))
        rate = config.attention_probs_dropout_prob
        self.weights_dropout = nn.Dropout(rate) if rate else None
        self.dropout = nn.Dropout(rate)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        """`mask` (windows, window², window²) is added to the scores of each example's windows.

        The bias is trained: five axes, even without a mask, so that no GPU fuses the attention.
        """
        bias = self.relative_position_bias_table[mx.array(relative_positions(self.window))]
        bias = bias.transpose(2, 0, 1)
        windows = 1
        if mask is not None:
            bias = bias + mask[:, None]
            windows = len(mask)
        heads = -1, windows, self.window**2, self.heads, x.shape[-1] // self.heads
        query, key, value = (
            linear(x).reshape(heads).swapaxes(-2, -3)
            for linear in (self.query, self.key, self.value)
        )
        mixed = attend(query, key, value, bias, self.weights_dropout)
        return self.dropout(self.output(mixed.swapaxes(-2, -3).reshape(x.shape)))


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward with GELU, each normed and added to its input."""

    def __init__(self, width: int, heads: int, skipped: float, config: HTSATConfig):
        super().__init__()
        hidden = int(config.mlp_ratio * width)
        self.layernorm_before = LayerNorm(width, config.layer_norm_eps)
        self.attention = WindowAttention(width, heads, config)
        self.layernorm_after = LayerNorm(width, config.layer_norm_eps)
        self.intermediate, self.output = Linear(width, hidden), Linear(hidden, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = DropPath(skipped)

    def __call__(self, x: mx.array, batch: int, mask: mx.array | None) -> mx.array:
        """Rows (batch * patches, width), window after window; for `mask` see WindowAttention."""
        x = x + self.drop_path(self.attention(self.layernorm_before(x), mask), batch)
        hidden = gelu(self.intermediate(self.layernorm_after(x)))
        return x + self.drop_path(self.dropout(self.output(hidden)), batch)


class DropPath(nn.Module):
    """Leaves out a whole branch for some examples in training (arXiv:1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def __call__(self, x: mx.array, batch: int) -> mx.array:
        """Rows (batch * patches, width), an example's one after the other."""
        if self.rate == 0 or not self.training:
            return x
        kept = mx.random.bernoulli(1 - self.rate, (batch, 1)).astype(x.dtype)
        return (x.reshape(batch, -1) * (kept / (1 - self.rate))).reshape(x.shape)


class PatchMerging(nn.Module):
    """Squares of four patches become one, twice as wide: (batch, rows, columns, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = LayerNorm(4 * width)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows // 2, 2, columns // 2, 2, width).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(batch, rows // 2, columns // 2, 4 * width)))


class Stage(nn.Module):
    """Blocks of one width, (batch, rows, columns, width), then `downsample`.

    In every second block the windows are shifted by half a window, where there is more than one.
    """

    def __init__(self, width: int, heads: int, skipped: list[float], last: bool, config):
        super().__init__()
        self.window = config.window_size
        self.blocks = [SwinBlock(width, heads, rate, config) for rate in skipped]
        if not last:
            self.downsample = PatchMerging(width)

    def __call__(self, x: mx.array) -> mx.array:
        batch, rows, columns, width = x.shape
        window = self.window
        squares = to_windows(x, window)
        x = squares.reshape(-1, width)
        is_shifted = min(rows, columns) > window
        if is_shifted:
            order = shifted_order(rows, columns, window)
            inverse = np.argsort(order).astype(np.int32)
            first = rows * columns * np.arange(batch, dtype=np.int32)[:, None]  # of each example
            shift, back = (mx.array((first + o).reshape(-1)) for o in (order, inverse))
            mask = mx.array(region_mask(rows, columns, window))
        for number, block in enumerate(self.blocks):
            if is_shifted and number % 2:
                x = reordered(block(reordered(x, shift, back), batch, mask), back, shift)
            else:
                x = block(x, batch, None)
        x = x.reshape(squares.shape).swapaxes(2, 3).reshape(batch, rows, columns, width)
        return self.downsample(x) if "downsample" in self else x


class HTSAT(Buffered):
    """The audio tower.

    >>> tower = HTSAT(HTSATConfig(patch_embeds_hidden_size=8, depths=(2, 2), window_size=4,
    ...                           num_attention_heads=(2, 2)))
    >>> tower(mx.zeros((3, 1, 1001, 64))).shape
    (3, 16)
    """

    def __init__(self, config: HTSATConfig):
        super().__init__()
        self.config = config
        self.batch_norm = BatchNorm(config.num_mel_bins)
        self.patch_embed = PatchEmbedding(config)
        blocks = sum(config.depths)
        rates = iter(np.linspace(0, config.drop_path_rate, blocks).tolist())
        stages = zip(config.depths, config.widths, config.num_attention_heads, strict=True)
        self.layers = [
            Stage(width, heads, [next(rates) for _ in range(depth)], number == last, config)
            for last in [len(config.depths) - 1]
            for number, (depth, width, heads) in enumerate(stages)
        ]
        self.norm = LayerNorm(config.hidden_size)

    def __call__(self, audio: mx.array, is_longer: mx.array | None = None) -> mx.array:
        """Log-mel spectrograms in dB, audio (batch, chunks, frames, mels) or (…, mels, frames), to
        (batch, hidden_size).

        A model with fusion takes 4 chunks, the whole clip and three crops, and `is_longer` (batch,)
        or (batch, 1), true for clips whose crops count; with 1 chunk it takes whole clips only.
        ValueError for other shapes.
        """
        longer = None
        if is_longer is not None and self.config.enable_fusion:
            longer = mx.array(is_longer).reshape(-1) != 0
        audio = self._checked(mx.array(audio), 1 if longer is None else 1 + CROPS)
        x = stretch(self.batch_norm(audio), self.config.frames)
        if longer is None:
            return map_batch(lambda part: self._tower(self.patch_embed(part, None)), x)
        # The fusion's norms take their statistics from the whole batch.
        return map_batch(self._tower, self.patch_embed(x, longer))

    def _tower(self, x: mx.array) -> mx.array:
        for stage in self.layers:
            x = stage(x)
        return self.norm(x).mean(axis=(1, 2))

    def _checked(self, audio: mx.array, chunks: int) -> mx.array:
        mels, frames = self.config.num_mel_bins, self.config.frames
        if audio.ndim == 4 and audio.shape[-1] != mels and audio.shape[-2] == mels:
            audio = audio.swapaxes(-1, -2)
        if audio.ndim != 4 or audio.shape[-1] != mels or not 0 < audio.shape[2] <= frames:
            raise ValueError(
                f"audio of shape {audio.shape}, expected (batch, chunks, frames, {mels}) with 1 to "
                f"{frames} frames"
            )
        if audio.shape[1] != chunks:
            fusion = "without fusion or is_longer" if chunks == 1 else "with fusion and is_longer"
            raise ValueError(f"audio of {audio.shape[1]} chunks, expected {chunks} {fusion}")
        return audio


def stretch(x: mx.array, frames: int) -> mx.array:
    """(batch, chunks, n, mels) to `frames` frames, by bicubic interpolation from end to end."""
    if x.shape[2] == frames:
        return x
    sources, weights = _cubic(x.shape[2], frames)
    return (x[:, :, mx.array(sources)] * mx.array(weights)).sum(axis=2)


@cache
def _cubic(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (4, after) that each new frame is made of, and their weights (4, after, 1).

    Keys' cubic with a = -0.75; positions are float32, as in PyTorch's upsample_bicubic2d.
    """
    step = np.float32(before - 1) / np.float32(max(after - 1, 1))
    position = step * np.arange(after, dtype=np.float32)
    whole = np.floor(position)
    t, a = position - whole, np.float32(-0.75)

    def near(x):
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x):
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
    sources = whole.astype(np.int32) + np.arange(-1, 3, dtype=np.int32)[:, None]
    return np.clip(sources, 0, before - 1), weights[..., None].astype(np.float32)


@cache
def relative_positions(window: int) -> np.ndarray:
    """Row of the bias table for each pair of patches of a window, (window², window²)."""
    row, column = np.divmod(np.arange(window * window), window)
    down = row[:, None] - row + window - 1
    right = column[:, None] - column + window - 1
    return (down * (2 * window - 1) + right).astype(np.int32)


def to_windows(x, window: int):
    """(batch, rows, columns, …) to (batch, rows // window, columns // window, window, window, …),
    of MLX or NumPy."""
    batch, rows, columns, *rest = x.shape
    squares = batch, rows // window, window, columns // window, window, *rest
    return x.reshape(squares).swapaxes(2, 3)


def reordered(x: mx.array, order: mx.array, back: mx.array) -> mx.array:
    """Rows of `x` in another order, which `back` undoes; its gradient is a gather, too."""
    gather = with_gradient(lambda _, cotangent, out: cotangent[back])(lambda x: x[order])
    return gather(x)


@cache
def shifted_order(rows: int, columns: int, window: int) -> np.ndarray:
    """Positions (rows * columns,) of the patches of shifted windows, window after window, among
    those of windows that are not shifted; the image's ends are joined."""
    patches = np.arange(rows * columns, dtype=np.int32)
    squares = patches.reshape(1, rows // window, columns // window, window, window)
    image = squares.swapaxes(2, 3).reshape(1, rows, columns)
    shift = window // 2
    return to_windows(np.roll(image, (-shift, -shift), (1, 2)), window).reshape(-1)


@cache
def region_mask(rows: int, columns: int, window: int) -> np.ndarray:
    """0 or OTHER_REGION for pairs of patches in each shifted window, (windows, window², window²).

    After the shift the last windows hold patches of both ends of the image.
    """

    def regions(length: int) -> np.ndarray:
        place = np.arange(length)
        return (place >= length - window).astype(int) + (place >= length - window // 2)

    region = 3 * regions(rows)[:, None] + regions(columns)
    region = to_windows(region[None], window).reshape(-1, window * window)
    other = region[:, None] != region[:, :, None]
    return np.where(other, np.float32(OTHER_REGION), np.float32(0))
