"""Precision of a run: all in float32, or bfloat16 layers over float32 parameters.

The optimizer always updates the float32 parameters; their bfloat16 copy exists inside a step only.
"""

import contextlib
import warnings
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.ops import by_device
from audiotrain.backend.wrapped_calls import wrap_call, wrapped_calls
from audiotrain.utils.arrays import arrays_of, put_arrays

MATRIX_LAYERS = (
    *(nn.Linear, nn.Bilinear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.RNN, nn.GRU, nn.LSTM),
)
FLOAT32_LAYERS = (
    *(nn.BatchNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm),
    *(nn.Softmax, nn.LogSoftmax),
)


class Float32:
    """ "32-true": everything in the module's own types."""

    def check(self, module: nn.Module) -> None:
        """Accepts any module."""

    def layers(self, module: nn.Module) -> contextlib.AbstractContextManager:
        """Changes nothing."""
        return contextlib.nullcontext()

    def parameters(self, module: nn.Module) -> contextlib.AbstractContextManager:
        """Changes nothing."""
        return contextlib.nullcontext()


class Bfloat16Mixed:
    """ "bf16-mixed": matrix products in bfloat16; sums, and divisions by sums, in float32.

    Layers of matrices (Linear, convolutions, recurrent) compute in bfloat16. Norms compute in
    float32, with float32 parameters and buffers, and return their input's type. Other trained
    arrays are bfloat16 copies, except scalars; buffers stay float32. The batch is float32, and so
    is what a module returns to compute_loss, so losses and metrics are, too. Pass `precise=True` to
    `mx.softmax` in a module of your own.
    """

    outermost = False  # whether compute_loss makes the next call of a module, in this process

    def check(self, module: nn.Module) -> None:
        """ValueError when a trained parameter is not float32; a warning on a CPU."""
        if by_device(cpu=True, gpu=False):
            warnings.warn(
                "precision 'bf16-mixed' on a CPU is 2 to 50 times slower than '32-true'",
                stacklevel=5,
            )
        for name, array in arrays_of(module.trainable_parameters()).items():
            if array.dtype != mx.float32:
                raise ValueError(
                    f"precision 'bf16-mixed' trains float32 parameters, but {name} is "
                    f"{_name(array.dtype)}: call module.set_dtype(mx.float32)"
                )

    def layers(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Inside the block calls of the module's parts convert their input and output.

        The backward pass belongs into the block: checkpointed layers are called again there.
        """
        return wrapped_calls(module.modules(), _converting)

    @contextlib.contextmanager
    def parameters(self, module: nn.Module) -> Iterator[None]:
        """Inside the block the arrays that layers multiply with are bfloat16 copies."""
        arrays = arrays_of(module.state)
        copies = {name: arrays[name].astype(mx.bfloat16) for name in _lowered(module)}
        ours = {id(copy) for copy in copies.values()}
        put_arrays(module.state, copies)
        Bfloat16Mixed.outermost = True
        try:
            yield
        finally:
            Bfloat16Mixed.outermost = False
            after = arrays_of(module.state)
            for name in copies:
                if id(after[name]) in ours:
                    after[name] = arrays[name]
                else:  # the module itself put something new there
                    after[name] = after[name].astype(arrays[name].dtype)
            put_arrays(module.state, after)


Precision = Float32 | Bfloat16Mixed
PRECISIONS: dict[str, type[Precision]] = {"32-true": Float32, "bf16-mixed": Bfloat16Mixed}


def cast(tree, dtype: mx.Dtype):
    """Floating arrays of nested dicts, lists and (named) tuples as `dtype`; the rest as it is.

    >>> cast({"x": mx.zeros((1,)), "y": [mx.array(1), "text"]}, mx.bfloat16)
    {'x': array([0], dtype=bfloat16), 'y': [array(1, dtype=int32), 'text']}
    """
    if _is_float(tree):
        return tree.astype(dtype)
    if isinstance(tree, dict) and not isinstance(tree, nn.Module):
        return {key: cast(child, dtype) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [cast(child, dtype) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return tree


def _converting(kind: type) -> type:
    """The class of a part while it runs, whose calls convert their input and output."""
    normalizes, multiplies = issubclass(kind, FLOAT32_LAYERS), issubclass(kind, MATRIX_LAYERS)

    def call(part, *args, **kwargs):
        outermost, Bfloat16Mixed.outermost = Bfloat16Mixed.outermost, False
        input_type = next((array.dtype for array in args if _is_float(array)), mx.float32)
        if normalizes or multiplies:
            dtype = mx.float32 if normalizes else mx.bfloat16
            args, kwargs = cast(args, dtype), cast(kwargs, dtype)
        try:
            result = kind.__call__(part, *args, **kwargs)
        finally:
            Bfloat16Mixed.outermost = outermost
        if outermost:
            return cast(result, mx.float32)
        return cast(result, input_type) if normalizes else result

    return wrap_call(kind, call)


def _is_float(leaf) -> bool:
    return isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating)


def _lowered(module: nn.Module) -> Iterator[str]:
    """Names of the arrays that a forward pass copies to bfloat16."""
    kinds = {name: type(part) for name, part in module.named_modules()}
    trained = arrays_of(module.trainable_parameters())
    for name, array in arrays_of(module.state).items():
        kind = kinds.get(name.rpartition(".")[0], nn.Module)
        if not _is_float(array) or issubclass(kind, FLOAT32_LAYERS):
            continue
        if issubclass(kind, MATRIX_LAYERS) or (name in trained and array.ndim):
            yield name


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
