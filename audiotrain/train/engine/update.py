"""Norm of a step's gradients, and the choice between its new and the old state."""

from collections import defaultdict

import mlx.core as mx

from audiotrain.backend.ops import square_sum
from audiotrain.utils.arrays import arrays_of, put_arrays

SMALL = 2**16  # numbers: arrays of up to as many are joined before they are summed
JOINED = 2**20  # numbers that are summed in one go
COLUMNS = 256  # of them side by side: one long sum in float32 was wrong by 2e-4


def gradient_norm(gradients) -> mx.array:
    """Norm of all gradients together, summed in float32; not finite where one of them is not."""
    arrays = {name: g.astype(mx.float32) for name, g in arrays_of(gradients).items()}
    sums = [square_sum(array) for array in arrays.values() if _is_large(array)]
    sums += [_sum_of_joined(group) for group in _groups(list(arrays.values()))]
    return mx.sqrt(sum(sums, mx.array(0.0))).reshape(())


def _is_large(array: mx.array) -> bool:
    return array.size > SMALL and array.ndim > 1


def _groups(arrays: list[mx.array]) -> list[list[mx.array]]:
    """All but the large arrays, flat, in groups: a few operations for each, where three for each
    array cost a tiny model a sixth of its step."""
    groups: list[list[mx.array]] = []
    room = 0
    for array in arrays:
        if _is_large(array):
            continue
        flat = array.reshape(-1)
        if not groups or flat.size > room:
            groups.append([])
            room = JOINED
        groups[-1].append(flat)
        room -= flat.size
    return groups


def _sum_of_joined(group: list[mx.array]) -> mx.array:
    missing = -sum(array.size for array in group) % COLUMNS
    rows = mx.concatenate([*group, mx.zeros(missing)]).reshape(-1, COLUMNS)
    return mx.sum(mx.sum(mx.square(rows), axis=0, keepdims=True), keepdims=True)


def keep_if(finite: mx.array, model, old_model: dict, optimizer, old_optimizer: dict) -> None:
    """Keep the new arrays of both trees of state where `finite`, exactly the old ones where not.

    finite (): bool. The old arrays are those of `arrays_of` before the update.

    MLX computes an array's whole update in one pass over memory if everything that reads a part of
    it goes into one result. So each parameter also reads the choices of its optimizer state: where
    the step is not finite it first takes them, then its old value instead of them. On a CPU the
    choice then costs 1 % of AdamW's update; without this it was 45 %.
    """
    names = arrays_of(model)
    states: dict[str | None, list[mx.array]] = defaultdict(list)  # by parameter
    changed = _changed(optimizer, old_optimizer)
    for path, array in changed.items():
        changed[path] = mx.where(finite, array, old_optimizer[path])
        states[_parameter_of(path, names)].append(changed[path])
    put_arrays(optimizer, changed)
    changed = _changed(model, old_model)
    for path, array in changed.items():
        kept = old_model[path]
        for state in states[path]:
            if (state.shape, state.dtype) == (array.shape, array.dtype):
                kept = mx.where(finite, state, kept)
        changed[path] = mx.where(finite, array, kept)
    put_arrays(model, changed)


def _changed(tree, old: dict) -> dict:
    """The arrays of a tree that replaced old ones, by their paths."""
    arrays = arrays_of(tree)
    return {path: a for path, a in arrays.items() if path in old and a is not old[path]}


def _parameter_of(path: str, names) -> str | None:
    """The parameter to which an array of optimizer state belongs, by their paths.

    >>> _parameter_of("states.1.layers.0.weight.m", {"layers.0.weight", "weight"})
    'layers.0.weight'
    """
    while path.startswith("states."):  # MultiOptimizer's
        path = path.split(".", 2)[2]
    while path and path not in names:
        path = path.rpartition(".")[0]
    return path or None
