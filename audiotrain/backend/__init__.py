"""MLX on a CPU: a fast BLAS, kernels, several streams, operations; one switch, `configure`.

`import audiotrain` calls `configure("blas")`, the commands call `configure("full")`; the variable
AUDIOTRAIN_CPU=off|blas|full takes precedence, and `describe()` lists what is active. Nothing is
done on a GPU or on macOS. Code outside this package does not ask for the device.

    blas.py             A fast BLAS for MLX, loaded before it
    buffers.py          Arrays of a module that are measured, never trained
    configuration.py    The switch, and what is active
    cpu_ops.py          What `ops` computes on a CPU, and its errors
    kernel_rewriter.py  MLX's own kernels, compiled to compute several elements at a time
    mlx_library.py      Whether MLX has its library here; else which extra brings it
    ops.py              Operations that are fast on every device; what models call
    streams.py          Parts of a batch on the cores of a CPU
    symbol_alias.py     A loaded library's functions under other names
    wrapped_calls.py    Layers whose calls do more than their class's
"""

from audiotrain.backend.configuration import configure, configure_on_import, describe

__all__ = ["configure", "configure_on_import", "describe"]
