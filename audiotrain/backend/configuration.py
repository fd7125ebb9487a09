"""What audiotrain does on a Linux CPU to make MLX fast there, behind one switch."""

import importlib.metadata
import os
import warnings

from audiotrain.backend import blas, kernel_rewriter
from audiotrain.utils.cores import available_cores
from audiotrain.utils.errors import UserError

VARIABLE = "AUDIOTRAIN_CPU"
LEVELS = ("off", "blas", "full")
NAMES = ("BLAS", "kernels", "streams")
# Read for one version more; each warns and names its successor.
OLD_KERNELS, OLD_STREAMS = "AUDIOTRAIN_KERNELS", "AUDIOTRAIN_STREAMS"


def configure(level: str = "full", streams: int | None = None) -> None:
    """Make MLX fast on a Linux CPU, to a `level`; does nothing on a GPU or on macOS.

    "off" leaves MLX as it is. "blas", which `import audiotrain` does, loads a fast BLAS, has to
    come before MLX is imported, and changes no environment variable. "full", which the commands
    do, also rewrites the kernels that MLX compiles (it puts a `g++` first on this process's PATH)
    and computes parts of a batch on several `streams`: one for each core, four at most, unless
    given; 1 for none. The variable AUDIOTRAIN_CPU takes precedence over `level`. To be called
    before MLX computes anything. ValueError where a variable has a value that it cannot have.
    """
    kernels = os.environ.get(OLD_KERNELS) != "off"
    wanted = os.environ.get(OLD_STREAMS)
    level = _level(level, kernels)
    if wanted is not None:
        streams = _number_of_streams(wanted)
    if level == "off":
        return
    blas.load()
    if blas.has_cuda():  # MLX computes on the GPU; the BLAS is for features of recordings
        return
    blas.keep_freed_memory()
    if level == "full" and kernels:
        kernel_rewriter.install()
    if level == "full" or wanted is not None:
        from audiotrain.backend.streams import use_all_cores  # imports MLX, after the BLAS

        use_all_cores(streams)


def configure_on_import() -> None:
    """`configure("blas")`; what it refuses is a warning, since an import should not fail for it."""
    try:
        configure("blas")
    except UserError as error:
        warnings.warn(f"{error}; taken as {VARIABLE}=blas", RuntimeWarning, stacklevel=3)
        blas.load()


def describe() -> str:
    """Which BLAS, kernels and number of streams are active, one a line.

    >>> print(describe())  # doctest: +SKIP
    BLAS     OpenBLAS (/usr/lib/libopenblas.so.0), found
    kernels  rewritten, as checked with MLX 0.32 (this is 0.32.4)
    streams  2
    """
    from audiotrain.backend import streams

    library = blas.load()
    path = f" ({library.path})" if library.path else ""
    version = importlib.metadata.version("mlx")
    if kernel_rewriter.is_installed():
        kernels = "rewritten"
    else:
        kernels = "as MLX compiles them"
    checked = f"checked with MLX {kernel_rewriter.CHECKED} (this is {version})"
    count = len(streams.streams()) if streams.is_enabled() else 1
    rows = f"{library.name}{path}, {library.reason}", f"{kernels}, {checked}", str(count)
    return "\n".join(f"{name:8} {row}" for name, row in zip(NAMES, rows, strict=True))


def _level(level: str, kernels: bool) -> str:
    """The level of the environment, or this one; ValueError for an unknown level."""
    for name, value in ((VARIABLE, os.environ.get(VARIABLE)), ("level", level)):
        if value and value not in LEVELS:
            raise UserError(f"{name}={value}, expected {', '.join(LEVELS[:-1])} or {LEVELS[-1]}")
    if not kernels:
        _warn(f"{OLD_KERNELS}=off", f"{VARIABLE}=blas")
    if os.environ.get(blas.VARIABLE) == "off":
        _warn(f"{blas.VARIABLE}=off", f"{VARIABLE}=off")
        return "off"
    return os.environ.get(VARIABLE) or level


def _number_of_streams(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise UserError(f"{OLD_STREAMS}={text}, expected a number of streams, 1 or more")
    cores = available_cores()
    _warn(f"{OLD_STREAMS}={text}", f"OMP_NUM_THREADS (now {cores}) or configure('full', streams=…)")
    return int(text)


def _warn(old: str, successor: str) -> None:
    warnings.warn(
        f"{old} is read for the last version: use {successor}", FutureWarning, stacklevel=4
    )
