"""Batches of a contrastive loss that are larger than memory: embedded a few rows at a time.

Exact, unlike accumulation, whose negatives are only those of the small batch. Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from audiotrain.train.engine.batch_tree import flatten_batch, leaves, unflatten_batch
from audiotrain.train.engine.memory import Moment
from audiotrain.utils.arrays import arrays_of


def in_micro_batches(
    module: nn.Module, encode: Callable[[Any], Any], batch: Any, micro_batch: int
) -> Any:
    """`encode(batch)`, computed and differentiated `micro_batch` rows at a time (GradCache).

    Use it in compute_loss where the module makes embeddings, and take the loss of all of them:

        audio, text = in_micro_batches(self, self.embed, batch, micro_batch=8)
        loss, metrics = ContrastiveLoss()(audio, text, mx.exp(self.logit_scale))

    Of each few rows only the embeddings are kept; in the backward pass they are computed again,
    with the same dropout, for about a third more computation. The gradients are those of the whole
    batch, for all of the module's trainable parameters, inside `encode` and outside of it.

    batch nests arrays (rows, ...), which are cut, and scalars, which are not; what `encode` gives
    nests floating arrays (rows, ...). It may draw random numbers but logs nothing, for it is called
    twice. Batch normalisation in train mode sees the rows of a micro batch. ValueError for arrays
    that differ in their rows.
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch is {micro_batch!r}, expected 1 or more rows")
    arrays, structure = flatten_batch(batch)
    rows = _rows(arrays, structure)
    if rows <= micro_batch:
        return encode(batch)
    cuts = [slice(start, start + micro_batch) for start in range(0, rows, micro_batch)]
    moments: list[Moment] = []
    structures = []

    def embed(arrays: list, cut: slice) -> list[mx.array]:
        parts = [array[cut] if array.ndim else array for array in arrays]
        embeddings, of_result = flatten_batch(encode(unflatten_batch(parts, structure)), "result")
        structures.append(of_result)
        return embeddings

    @mx.custom_function
    def embed_all(parameters: dict, arrays: list) -> list[mx.array]:
        results: list = []
        for cut in cuts:
            if results:  # so that one part's activations are gone before the next begins
                arrays = _after(arrays, results[-1])
            moments.append(Moment(module))
            results.append(embed(arrays, cut))
        return [mx.concatenate(parts) for parts in zip(*results, strict=True)]

    @embed_all.vjp
    def embed_all_vjp(primals, cotangents, outputs):
        parameters, arrays = primals
        names = list(parameters)
        places = [n for n, a in enumerate(arrays) if mx.issubdtype(a.dtype, mx.floating)]
        wanted = [*parameters.values(), *(arrays[place] for place in places)]
        totals = [mx.zeros(array.shape, mx.float32) for array in wanted]
        ready = cotangents
        for cut, moment in zip(cuts, moments, strict=True):
            waiting = _after([*parameters.values(), *arrays], ready)
            rest = waiting[len(names) :]

            def again(*given, rest=rest, cut=cut, moment=moment):
                inputs = list(rest)
                for place, array in zip(places, given[len(names) :], strict=True):
                    inputs[place] = array
                with moment.again(dict(zip(names, given, strict=False))):
                    return embed(inputs, cut)

            given = [*waiting[: len(names)], *(rest[place] for place in places)]
            _, gradients = mx.vjp(again, given, [cotangent[cut] for cotangent in cotangents])
            totals = [t + g.astype(mx.float32) for t, g in zip(totals, gradients, strict=True)]
            ready = totals[: len(names)] or cotangents
        found = [total.astype(array.dtype) for total, array in zip(totals, wanted, strict=True)]
        of_arrays = [mx.zeros_like(array) for array in arrays]
        for place, gradient in zip(places, found[len(names) :], strict=True):
            of_arrays[place] = gradient
        return dict(zip(names, found, strict=False)), of_arrays

    embeddings = embed_all(arrays_of(module.trainable_parameters()), arrays)
    return unflatten_batch(embeddings, structures[0])


def _after(arrays: list[mx.array], ready: list[mx.array]) -> list[mx.array]:
    """The arrays, floating ones no sooner than `ready` is computed. Whole numbers wait for nothing,
    so that reading them (RoBERTa looks for wrong tokens) computes nothing inside a gradient, where
    MLX would keep all that is between: it was 20 times the memory."""
    places = [n for n, array in enumerate(arrays) if mx.issubdtype(array.dtype, mx.floating)]
    arrays = list(arrays)
    if places:
        for place, waiting in zip(
            places, mx.depends([arrays[n] for n in places], ready), strict=True
        ):
            arrays[place] = waiting
    return arrays


def _rows(arrays: list[mx.array], structure) -> int:
    """Rows of a batch's arrays, the same for all."""
    counts = {array.shape[0] for array in arrays if array.ndim}
    if len(counts) != 1:
        found = ", ".join(f"{path} {kind}" for path, kind in leaves(arrays, structure).items())
        raise ValueError(f"in_micro_batches got {found}, expected arrays of as many rows")
    return counts.pop()
