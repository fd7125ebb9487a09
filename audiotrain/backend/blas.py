"""A fast BLAS and kept memory for MLX on a Linux CPU, whose wheel bundles the reference BLAS.

MLX takes the BLAS symbols that are already in the process, so the library must be loaded before
`mlx.core` is imported for the first time; afterwards it has no effect. `import audiotrain` does it.
Matrix products are 10 to 60 times as fast; checked with MLX 0.32.
"""

import ctypes
import importlib.metadata
import importlib.util
import linecache
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from audiotrain.backend.symbol_alias import alias
from audiotrain.utils.cores import THREAD_VARIABLES as THREAD_VARIABLES
from audiotrain.utils.cores import available_cores as cores

VARIABLE, SWITCH = "AUDIOTRAIN_BLAS", "AUDIOTRAIN_CPU"
# In order of preference. On AMD MKL computes with AVX2 alone: where there is AVX-512, a training
# step by OpenBLAS is 1.3 to 1.7 times as fast. By its AVX2 kernels it is no faster, and what a row
# gives depends in its last bits on the row's place in the matrix.
LIBRARIES = {"MKL": "libmkl_rt.so", "OpenBLAS": "libopenblas.so", "BLIS": "libblis.so"}
WITH_AVX512_ON_AMD = "OpenBLAS", "MKL", "BLIS"

# SciPy's wheels bring an OpenBLAS whose functions have a prefix, so that they clash with no other.
SCIPY, PREFIX = "libscipy_openblas-", "scipy_"
# What MLX takes of BLAS and LAPACK.
FUNCTIONS = """
    cblas_sgemm cblas_dgemm cblas_cgemm
    sgetrf_ dgetrf_ sgetri_ dgetri_ strtri_ dtrtri_ spotrf_ dpotrf_ sgeqrf_ dgeqrf_ sorgqr_ dorgqr_
    sgesdd_ dgesdd_ cgesdd_ sgeev_ dgeev_ cgeev_ ssyevd_ dsyevd_ cheevd_
""".split()

_threads: int | None = None  # what use_threads set
SET_THREADS = (
    "MKL_Set_Num_Threads",
    "openblas_set_num_threads",
    "scipy_openblas_set_num_threads",
    "bli_thread_set_num_threads",
)


class Blas(NamedTuple):
    """The library that MLX multiplies matrices with: `name`, its file, and why."""

    name: str
    path: str
    reason: str


@cache
def load() -> Blas:
    """Load the fastest BLAS on this machine; a second call returns the first one's result.

    Nothing is loaded on macOS (Accelerate is fast) or with AUDIOTRAIN_CPU=off. Where MLX computes
    on a CUDA GPU the library is for the features of recordings, which are computed on the CPU. The
    variable AUDIOTRAIN_BLAS names a library to use. Warns, once, when MLX on a CPU is left with its
    own.
    """
    if sys.platform != "linux":
        return Blas("system", "", "MLX uses the platform's own")
    choice = os.environ.get(VARIABLE, "")
    for name in (SWITCH, VARIABLE):
        if os.environ.get(name) == "off":
            return Blas("reference", "", f"{name}=off")
    if "mlx.core" in sys.modules:
        reason = f"mlx was imported before audiotrain: move {_importing_line()} above it"
    elif choice:
        if _open(choice):
            return Blas("chosen", choice, VARIABLE)
        reason = f"{VARIABLE}={choice} cannot be loaded"
    else:
        for name, path in candidates():
            if _open(path):
                return Blas(name, path, "found")
        reason = "no MKL, OpenBLAS or BLIS found: pip install 'audiotrain[mkl]'"
    if has_cuda():
        return Blas("reference", "", reason)
    warnings.warn(
        f"MLX keeps its reference BLAS, matrix products are 10 to 60 times slower ({reason})",
        RuntimeWarning,
        stacklevel=2,
    )
    return Blas("reference", "", reason)


def _importing_line() -> str:
    """The user's line that imports audiotrain, with its file and number."""
    frame: FrameType | None = sys._getframe()
    while frame and frame.f_globals.get("__name__", "").startswith(("audiotrain", "importlib")):
        frame = frame.f_back
    if frame is None:
        return "`import audiotrain`"
    file, number = frame.f_code.co_filename, frame.f_lineno
    line = linecache.getline(file, number).strip() or "import audiotrain"
    return f"`{line}` ({file}:{number})"


def has_cuda() -> bool:
    """Whether MLX is installed with its CUDA backend."""
    return _installed("mlx-cuda-13") or _installed("mlx-cuda-12")


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that are freed, for the next ones; False where it can't.

    MLX's CPU backend frees every array; glibc gives those over 128 KiB back to the system, and the
    page faults of getting them again took a tenth of a training step.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # a C library other than glibc
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, 2**31 - 1))


def use_threads(count: int) -> None:
    """Let BLAS use `count` threads for a matrix product, where it has such a setting."""
    global _threads
    _threads = count
    _set_threads(count)


@contextmanager
def shared_by(streams: int) -> Iterator[None]:
    """For a while, leave the products of each of `streams` only its share of the cores."""
    _set_threads(max(1, cores() // streams))
    try:
        yield
    finally:
        _set_threads(_threads or cores())


def _set_threads(count: int) -> None:
    if not load().path:
        return
    library = ctypes.CDLL(load().path)
    for name in SET_THREADS:
        if hasattr(library, name):
            getattr(library, name)(ctypes.c_long(count) if name.startswith("bli") else count)
            return


def candidates() -> Iterator[tuple[str, str]]:
    """(name, file) of each BLAS on this machine, best first."""
    folders = _folders()
    system = _linker_cache()
    for name in WITH_AVX512_ON_AMD if _has_avx512_on_amd() else LIBRARIES:
        if name == "OpenBLAS":
            yield from ((name, str(file)) for file in _scipys())
        stem = LIBRARIES[name]
        for folder in folders:
            yield from ((name, str(file)) for file in sorted(folder.glob(stem + "*"), reverse=True))
        yield from ((name, path) for path in system if Path(path).name.startswith(stem))


def _scipys() -> list[Path]:
    """The OpenBLAS of SciPy's wheel; none where SciPy came another way, which has the system's."""
    scipy = importlib.util.find_spec("scipy")
    folders = (scipy and scipy.submodule_search_locations) or []
    return [file for f in folders for file in Path(f).with_name("scipy.libs").glob(SCIPY + "*")]


def _has_avx512_on_amd() -> bool:
    """Whether the processor is such a one, and OPENBLAS_CORETYPE does not name another."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    found = all(word in processor for word in ("AuthenticAMD", "avx512f"))
    return found and not os.environ.get("OPENBLAS_CORETYPE")


def _folders() -> list[Path]:
    """Where pip, a virtual environment and conda put shared libraries."""
    prefixes = [sys.prefix, sys.base_prefix, os.environ.get("CONDA_PREFIX", "")]
    folders = [Path(prefix) / "lib" for prefix in prefixes if prefix]
    if _installed("mkl"):
        files = importlib.metadata.files("mkl") or []
        folders += [Path(f.locate()).resolve().parent for f in files if "libmkl_rt" in f.name]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _linker_cache() -> list[str]:
    """Files that the dynamic linker knows; empty where there is no `ldconfig`."""
    try:
        command = ["/sbin/ldconfig", "-p"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.split("=>")[-1].strip() for line in output.splitlines() if "=>" in line]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open(path: str) -> bool:
    try:
        if Path(path).name.startswith(SCIPY):
            alias(path, {name: PREFIX + name for name in FUNCTIONS})
        else:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except (OSError, AttributeError):  # no library; not one with these functions
        return False
    return True
