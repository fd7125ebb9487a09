"""Whether MLX has its library on this machine: on Linux a wheel of its own, which an extra brings.

The wheels mlx-cpu and mlx-cuda-13 both hold the file mlx/lib/libmlx.so, so that only one of them
may be installed and audiotrain cannot depend on either.
"""

import ctypes
import importlib
import importlib.util
import sys
from pathlib import Path

from audiotrain.backend.blas import has_cuda
from audiotrain.utils.errors import refuse

EXTRAS = "pip install 'audiotrain[cpu]', or 'audiotrain[cuda]' for an NVIDIA GPU"


def require() -> None:
    """Raise ImportError, one line that names the extras, where MLX cannot be imported.

    A command prints the line instead, and exits with 2. MLX is imported only where files that it
    needs are not at their usual places, so call this after the BLAS is loaded.
    """
    if has_its_files():
        return
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        if is_command():
            sys.exit(refuse(advice(error)))
        raise ImportError(advice(error), name="mlx.core") from None


def has_its_files() -> bool:
    """Whether MLX's library, and the driver of its GPU, are where its wheels expect them."""
    if sys.platform != "linux":
        return True
    try:
        core = importlib.util.find_spec("mlx.core")
    except ModuleNotFoundError:  # not even mlx
        return False
    file = (core and core.origin) or ""
    if not (Path(file).parent / "lib" / "libmlx.so").is_file():
        return False
    if has_cuda():
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return False
    return True


def advice(error: ImportError) -> str:
    """What to install, by the error of `import mlx.core`."""
    if "libmlx.so" in str(error) or isinstance(error, ModuleNotFoundError):
        return f"MLX's library for this machine is not installed: {EXTRAS}"
    if has_cuda():
        return (
            f"MLX's library for NVIDIA GPUs can't be loaded ({error}): install the GPU's driver, "
            "or, for the CPU, pip uninstall mlx-cuda-13 and pip install 'audiotrain[cpu]'"
        )
    return f"MLX can't be loaded ({error}): {EXTRAS}"


def is_command() -> bool:
    """Whether `audiotrain …` or `python -m audiotrain…` imports the package, not other code."""
    program = sys.argv[0] if sys.argv else ""
    return program == "-m" or Path(program).stem == "audiotrain"  # "-m" while it is imported
