"""Batches of a contrastive loss that are larger than memory: embedded in micro batches.

Exact, unlike accumulation, whose negatives are only those of the small batch. Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.train.engine.batch_tree import Structure, flatten_batch, leaves, unflatten_batch
from audiotrain.train.engine.memory import Moment
from audiotrain.utils.arrays import Arrays, arrays_of


def in_micro_batches(
    module: nn.Module, encode: Callable[[Any], Any], batch: Any, micro_batch: int
) -> Any:
    """`encode(batch)`, computed and differentiated `micro_batch` rows at a time (GradCache).

    Use it in compute_loss where the module makes embeddings, and take the loss of all of them:

        audio, text = in_micro_batches(self, self.embed, batch, micro_batch=8)
        loss, metrics = ContrastiveLoss()(audio, text, mx.exp(self.logit_scale))

    Only the embeddings of a micro batch are kept; the backward pass computes it again, with the
    same dropout, for about a third more computation. The gradients are those of the whole batch,
    for all of the module's trainable parameters, inside `encode` and outside of it.

    batch nests arrays (rows, ...), which are cut, and scalars, which are not; the result of
    `encode` nests floating arrays (rows, ...). `encode` may use random numbers but must log
    nothing, for it is called twice. Batch normalisation in train mode uses the statistics of a
    micro batch. ValueError for arrays with different numbers of rows.
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch is {micro_batch!r}, expected 1 or more rows")
    arrays, structure, _ = flatten_batch(batch)  # text cannot be cut by rows
    rows = _rows(arrays, structure)
    if rows <= micro_batch:
        return encode(batch)
    cuts = [slice(start, start + micro_batch) for start in range(0, rows, micro_batch)]
    cache = GradCache(module, encode, structure, cuts)
    embed = mx.custom_function(cache.forward)
    embed.vjp(cache.backward)
    embeddings: Any = embed(arrays_of(module.trainable_parameters()), arrays)
    return unflatten_batch(embeddings, cache.result_structure)


class GradCache:
    """Encodes a batch by micro batches, and again in the backward pass."""

    def __init__(
        self,
        module: nn.Module,
        encode: Callable[[Any], Any],
        structure: Structure,
        cuts: list[slice],
    ):
        self.module, self.encode, self.structure, self.cuts = module, encode, structure, cuts
        self.moments: list[Moment] = []
        self.result_structure: Structure = ""

    def forward(self, parameters: Arrays, arrays: list[mx.array]) -> list[mx.array]:
        """Embeddings (rows, ...) of all micro batches."""
        parts: list[list[mx.array]] = []
        for cut in self.cuts:
            if parts:  # so that one part's activations are gone before the next begins
                arrays = _after(arrays, parts[-1])
            self.moments.append(Moment(self.module))
            parts.append(self._encode_rows(arrays, cut))
        return [mx.concatenate(list(rows)) for rows in zip(*parts, strict=True)]

    def backward(
        self,
        primals: tuple[Arrays, list[mx.array]],
        cotangents: list[mx.array],
        outputs: list[mx.array],
    ) -> tuple[Arrays, list[mx.array]]:
        """Gradients of the parameters and of the batch's arrays."""
        parameters, arrays = primals
        count = len(parameters)
        float_indices = [n for n, array in enumerate(arrays) if _is_float(array)]
        inputs = [*parameters.values(), *(arrays[n] for n in float_indices)]
        grads = [mx.zeros(array.shape, mx.float32) for array in inputs]
        ready = cotangents
        for cut, moment in zip(self.cuts, self.moments, strict=True):
            waiting = _after([*parameters.values(), *arrays], ready)
            batch = waiting[count:]

            def recompute(*inputs, batch=batch, cut=cut, moment=moment):
                given = dict(zip(float_indices, inputs[count:], strict=True))
                rows = [given.get(n, array) for n, array in enumerate(batch)]
                with moment.again(dict(zip(parameters, inputs, strict=False))):
                    return self._encode_rows(rows, cut)

            waiting = [*waiting[:count], *(batch[n] for n in float_indices)]
            _, parts = mx.vjp(recompute, waiting, [cotangent[cut] for cotangent in cotangents])
            grads = [g + part.astype(mx.float32) for g, part in zip(grads, parts, strict=True)]
            ready = grads[:count] or cotangents
        grads = [grad.astype(array.dtype) for grad, array in zip(grads, inputs, strict=True)]
        batch_grads = [mx.zeros_like(array) for array in arrays]
        for n, grad in zip(float_indices, grads[count:], strict=True):
            batch_grads[n] = grad
        return dict(zip(parameters, grads, strict=False)), batch_grads

    def _encode_rows(self, arrays: list[mx.array], cut: slice) -> list[mx.array]:
        rows = [array[cut] if array.ndim else array for array in arrays]
        result = self.encode(unflatten_batch(rows, self.structure))
        embeddings, self.result_structure, _ = flatten_batch(result, "result")
        return embeddings


def _is_float(array: mx.array) -> bool:
    return mx.issubdtype(array.dtype, mx.floating)


def _after(arrays: list[mx.array], ready: list[mx.array]) -> list[mx.array]:
    """The arrays, floating ones computed only after `ready`. Integers do not wait, so that reading
    them (RoBERTa checks its tokens) computes nothing inside a gradient, where MLX would keep all
    intermediate results: it was 20 times the memory."""
    floats = {n: array for n, array in enumerate(arrays) if _is_float(array)}
    if floats:
        floats = dict(zip(floats, mx.depends(list(floats.values()), ready), strict=True))
    return [floats.get(n, array) for n, array in enumerate(arrays)]


def _rows(arrays: list[mx.array], structure: Structure) -> int:
    counts = {array.shape[0] for array in arrays if array.ndim}
    if len(counts) != 1:
        found = ", ".join(f"{path} {kind}" for path, kind in leaves(arrays, structure).items())
        raise ValueError(f"in_micro_batches got {found}, expected arrays of as many rows")
    return counts.pop()
