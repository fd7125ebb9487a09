"""Memory of a run: MLX's limits, and gradient checkpointing."""

import contextlib
import functools
from collections.abc import Iterable, Iterator

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.wrapped_calls import wrap_call
from audiotrain.train.engine.compiled_function import random_state
from audiotrain.train.engine.precision import Bfloat16Mixed
from audiotrain.utils.arrays import Arrays, arrays_of, put_arrays


@contextlib.contextmanager
def memory_limits(
    memory_limit: int | None, cache_limit: int | None, wired_limit: int | None
) -> Iterator[None]:
    """MLX's limits in bytes inside the block, and what they were before after it; None: no change.

    The peak is counted anew from here. The wired limit is for Metal, elsewhere it does nothing.
    """
    settings = [(mx.set_memory_limit, memory_limit), (mx.set_cache_limit, cache_limit)]
    if mx.metal.is_available():
        settings.append((mx.set_wired_limit, wired_limit))
    mx.reset_peak_memory()
    with contextlib.ExitStack() as restored:
        for setter, limit in settings:
            if limit is not None:
                restored.callback(setter, setter(limit))
        yield


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Make each layer keep only its input for the backward pass, and compute the rest again there.

    Saves the memory of activations for about a third more computation (gradient checkpointing,
    Chen et al. 2016, arXiv:1604.06174). Gradients stay the same, dropout included, and so do names
    and number of parameters. Choose layers that repeat, such as the blocks of a transformer: one
    input a block is kept. Each must return arrays in dicts, lists or tuples. ValueError for a
    layer that is no nn.Module.

    >>> model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
    >>> checkpoint_layers(model.layers)
    >>> isinstance(model.layers[0], nn.Linear), sorted(model.layers[0].parameters())
    (True, ['bias', 'weight'])
    """
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise ValueError(f"checkpoint_layers got a {type(layer).__name__}, expected modules")
        if not hasattr(type(layer), "computed_twice"):
            layer.__class__ = _checkpointed(type(layer))


@functools.cache
def _checkpointed(kind: type) -> type:
    """The class of a checkpointed layer: a subclass with another `__call__`."""

    def call(layer, *args, **kwargs):
        return _compute_twice(layer, kind.__call__, args, kwargs)

    return wrap_call(kind, call, computed_twice=True)


def _compute_twice(layer: nn.Module, call, args: tuple, kwargs: dict):
    """`call(layer, *args, **kwargs)`, again in the backward pass as it was in the forward pass."""
    moment, recompute = Moment(layer), False

    def run(parameters, key, args, kwargs):
        nonlocal recompute
        if not recompute:
            recompute = True
            return call(layer, *args, **kwargs)
        with moment.again(parameters, key):
            return call(layer, *args, **kwargs)

    parameters = arrays_of(layer.trainable_parameters())
    return mx.checkpoint(run)(parameters, moment.key, args, kwargs)


class Moment:
    """The state that a module's computation depends on, to repeat it later."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.arrays, self.key = arrays_of(module), mx.array(random_state())
        self.outermost = Bfloat16Mixed.outermost

    @contextlib.contextmanager
    def again(self, parameters: Arrays, key: mx.array | None = None) -> Iterator[None]:
        """Inside the block the saved state holds, with other `parameters`; it is undone after it.

        Changes that the module makes in the block (BatchNorm's statistics) were made before.
        """
        after = Moment(self.module)
        self._put(self.arrays | parameters, self.key if key is None else key)
        try:
            yield
        finally:
            after._put(after.arrays, after.key)

    def _put(self, arrays: Arrays, key: mx.array) -> None:
        put_arrays(self.module, arrays)
        random_state()[:] = mx.stop_gradient(key)
        Bfloat16Mixed.outermost = self.outermost
