"""MLX on a CPU: BLAS, kernels, streams and fast operations.

blas.py             Give MLX a fast BLAS and kept memory on Linux CPU
buffers.py          Buffers
convolution.py      Convolution over time
cpu_ops.py          Exponentials, softmax, GELU, relu, linear, layer norm and attention
kernel_rewriter.py  Kernels that MLX compiles on a Linux CPU, fast
spread.py           The update of a large model on several cores of a CPU
streams.py          Work of one process on all cores of a CPU
symbol_alias.py     Functions of a loaded library made known to the dynamic linker under other
"""
