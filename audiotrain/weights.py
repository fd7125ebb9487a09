"""Weights between two models, to be fine-tuned and yet robust."""

import mlx.core as mx

from audiotrain.checkpoint import Arrays, match


def interpolate(before: Arrays, after: Arrays, share: float) -> Arrays:
    """(1 - share) * before + share * after, array by array (WiSE-FT, Wortsman et al. 2021,
    arXiv:2109.01903): 0 is the starting weights, 1 the fine-tuned ones.

    Arrays by name, as `checkpoint.arrays_of(module)` gives them. Computed in float32, given in the
    arrays' type; whole numbers are those of `after`. CheckpointError, a ValueError, naming arrays
    that one of them does not have, or that differ in shape or type.

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
