"""Batch normalisation over the batches of all ranks, as if they were one batch."""

import contextlib

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.wrapped_calls import wrap_call, wrapped_calls


def synchronized_batch_norm(module: nn.Module, ranks) -> contextlib.AbstractContextManager[None]:
    """Inside the block BatchNorm layers in train mode take mean and variance over all ranks.

    Their buffers become the same on all ranks. The backward pass belongs into the block.
    """
    norms = [p for p in module.modules() if type(p).__call__ is nn.BatchNorm.__call__]
    return wrapped_calls(norms, lambda kind: _synchronized(kind, ranks))


def _synchronized(kind: type, ranks) -> type:
    """The class of a BatchNorm while it runs."""

    def call(layer, x):
        if not layer.training:
            return kind.__call__(layer, x)
        normalized, mean, variance, count = _normalize(ranks, layer.eps)(x)
        if layer.track_running_stats:
            unbiased = variance * (count / mx.maximum(count - 1, 1))
            for name, new in (("running_mean", mean), ("running_var", unbiased)):
                old = layer[name]
                moved = (1 - layer.momentum) * old + layer.momentum * mx.stop_gradient(new)
                layer[name] = moved.astype(old.dtype)
        return layer.weight * normalized + layer.bias if "weight" in layer else normalized

    return wrap_call(kind, call)


def _normalize(ranks, eps: float):
    """x (..., channels) -> normalised x, mean and variance (channels,), rows of all ranks."""
    has_batch = ranks.shared["flags"][0]  # 0 where the batch only fills in

    @mx.custom_function
    def normalize(x):
        wide = x.astype(mx.float32)
        axes = tuple(range(x.ndim - 1))
        rows = has_batch * (x.size // x.shape[-1])
        # Each rank's mean and variance, joined as Chan et al. do: sums of squares would cancel.
        part = mx.stack([mx.mean(wide, axis=axes), mx.var(wide, axis=axes)])
        counts = mx.broadcast_to(rows, (1, x.shape[-1]))
        parts = ranks.stack(mx.concatenate([counts, part]))
        counts, means, variances = parts[:, 0], parts[:, 1], parts[:, 2]
        count = mx.sum(counts, axis=0)
        mean = mx.sum(counts * means, axis=0) / count
        squares = variances + mx.square(means - mean)
        variance = mx.sum(counts * squares, axis=0) / count
        normalized = (wide - mean) * mx.rsqrt(variance + eps)
        return normalized.astype(x.dtype), mean, variance, count[0]

    @normalize.vjp
    def normalize_vjp(x, cotangents, outputs):
        cotangent = cotangents[0].astype(mx.float32)
        normalized, _, variance, count = outputs
        axes = tuple(range(cotangent.ndim - 1))
        along = normalized.astype(mx.float32)
        sums = mx.stack([mx.sum(cotangent, axis=axes), mx.sum(cotangent * along, axis=axes)])
        sums = ranks.sum(sums) / count
        gradient = cotangent - sums[0] - along * sums[1]
        return (has_batch * gradient * mx.rsqrt(variance + eps)).astype(normalized.dtype)

    return normalize
