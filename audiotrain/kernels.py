"""Kernels that MLX compiles on a Linux CPU, fast: options for the compiler that it calls.

MLX writes C++ for what mx.compile joins and calls `g++ -O3`. That computes one number at a time
where a square root may set errno, or where more than ten pairs of arrays might overlap, which is
every optimizer's update: AdamW's took twice as long. No option changes a result.
"""

import os
import shutil
import sys
from pathlib import Path

VARIABLE = "AUDIOTRAIN_KERNELS"
FOLDER = Path(__file__).parent / "compiler"


def vectorise() -> bool:
    """Put a `g++` first on this process's PATH that adds the options to MLX's calls, and passes on
    all others; False where that is not possible, or AUDIOTRAIN_KERNELS=off.

    Kernels that MLX compiled before, which it keeps in the folder for temporary files, stay as
    they are.
    """
    others = [one for one in os.get_exec_path() if Path(one) != FOLDER]
    compiler = shutil.which("g++", path=os.pathsep.join(others))
    wanted = sys.platform == "linux" and compiler and os.environ.get(VARIABLE) != "off"
    wanted = bool(wanted and os.access(FOLDER / "g++", os.X_OK))
    os.environ["PATH"] = os.pathsep.join([str(FOLDER)] * wanted + others)
    return wanted
