"""Functions of a loaded library made known to the dynamic linker under other names; Linux only.

A library that is loaded later takes them by those names. Each name is a jump to the function, in a
small library that `g++`, which MLX needs on a CPU anyway, links in 10 to 30 ms.
It makes the OpenBLAS of SciPy's wheel one that MLX finds, whose gain is that of blas.py; checked
with MLX 0.32.
"""

import ctypes
import platform
import subprocess
import tempfile
from collections.abc import Mapping

JUMPS = {"x86_64": "jmp {}@PLT", "aarch64": "b {}"}


def alias(path: str, names: Mapping[str, str]) -> None:
    """Load the library at `path`, and make its functions known to libraries that are loaded from
    now on as {new name: its own}, for as long as the process lives.

    AttributeError for a function that the library lacks; OSError where it cannot be loaded, the
    machine is neither x86-64 nor 64-bit ARM, or there is no g++.
    """
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    for own in names.values():
        getattr(library, own)
    if platform.machine() not in JUMPS:
        raise OSError(f"{platform.machine()}: not one of {', '.join(JUMPS)}")
    jump = JUMPS[platform.machine()]
    lines = [
        f".globl {new}\n.type {new}, %function\n{new}: {jump.format(own)}"
        for new, own in names.items()
    ]
    lines.append('.section .note.GNU-stack,"",%progbits\n')  # without it the stack could hold code
    command = ["g++", "-shared", "-nostdlib", "-x", "assembler", "-", "-o"]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/alias.so"
        try:
            subprocess.run(
                [*command, file], input="\n".join(lines), text=True, check=True, capture_output=True
            )
        except subprocess.CalledProcessError as error:
            raise OSError(f"g++: {error.stderr.strip()}") from None
        ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)  # stays loaded when the file is gone
