"""Interpolation of two models' weights, and soups: means of the weights of checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from audiotrain.train import checkpoint
from audiotrain.train.checkpoint import match
from audiotrain.train.ensembling import member_weights
from audiotrain.utils.arrays import Arrays


def interpolate(before: Arrays, after: Arrays, share: float) -> Arrays:
    """(1 - share) * before + share * after, array by array (WiSE-FT, Wortsman et al. 2021,
    arXiv:2109.01903): 0 is the starting weights, 1 the fine-tuned ones.

    Arrays by name, as `checkpoint.arrays_of(module)` gives them. Computed in float32, given in the
    arrays' type; whole numbers are those of `after`. CheckpointError, a ValueError, naming arrays
    that one of them does not have, or that differ in shape or type; ValueError unless
    0 <= share <= 1.

    >>> interpolate({"w": mx.array([0.0, 4.0])}, {"w": mx.array([1.0, 0.0])}, share=0.25)
    {'w': array([0.25, 3], dtype=float32)}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}, expected 0 to 1")
    match(after, before, "the weights after training")
    return {name: _between(before[name], array, share) for name, array in after.items()}


def _between(before: mx.array, after: mx.array, share: float) -> mx.array:
    if share == 1 or not mx.issubdtype(after.dtype, mx.floating):
        return after
    mixed = (1 - share) * before.astype(mx.float32) + share * after.astype(mx.float32)
    return mixed.astype(after.dtype)


def soup(checkpoints: Sequence[str | Path], weights: Sequence[float] | None = None) -> Arrays:
    """Arrays by name: the weighted mean of the weights of several checkpoints of one architecture
    (model soups, Wortsman et al. 2022, arXiv:2203.05482), of their running averages (EMA) where
    they have them.

    Computed in float32, given in the arrays' type; whole numbers are those of the first. It serves
    runs that began from the same weights; of others the mean is no model. CheckpointError, a
    ValueError, one line, naming the checkpoint that is damaged or whose arrays are others than the
    first's; ValueError for no checkpoints, and unless each has a weight, not all 0.
    """
    if not checkpoints:
        raise ValueError("a soup of no checkpoints, expected one or more")
    shares = member_weights(weights, len(checkpoints))
    total: Arrays = {}
    kinds: Arrays = {}
    for folder, share in zip(checkpoints, shares, strict=True):
        groups, _ = checkpoint.load(folder)
        arrays = groups.get("model", {}) | groups.get("ema", {})
        kinds = kinds or arrays
        checkpoint.match(arrays, kinds, str(folder))
        for name, array in arrays.items():
            if mx.issubdtype(array.dtype, mx.floating):
                part = float(share) * array.astype(mx.float32)
                total[name] = part if name not in total else total[name] + part
            else:
                total.setdefault(name, array)
        mx.eval(total)
    return {name: array.astype(kinds[name].dtype) for name, array in total.items()}
