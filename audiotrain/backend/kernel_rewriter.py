"""Kernels that MLX compiles on a Linux CPU, fast: options for the compiler, and rows for its loops.

MLX writes C++ for what mx.compile joins and calls `g++ -O3`. That computes one number at a time
where a square root may set errno, or where more than ten pairs of arrays might overlap, which is
every optimizer's update: AdamW's took twice as long. Where an array is a view or repeats numbers
(a bias, a mean), steps from one number to the next are known only when it runs, so that it is one
number at a time again, and each address anew: 3 to 4 times as long. Nothing here changes a result.
Checked with MLX 0.32; with another version nothing is done.
"""

import os
import re
import sys
from pathlib import Path

CHECKED = "0.32"  # the MLX version whose kernels this rewrites
PYTHON = "AUDIOTRAIN_PYTHON"  # the interpreter that gxx/g++ rewrites a kernel with
FOLDER = Path(__file__).parent / "gxx"

ROW, SHORT = 256, 16  # numbers computed at a time; shorter axes than SHORT are left as they are
LOOP = re.compile(  # the innermost: its body has no loop and no block
    r"  for \(int i(\d) = 0; i\1 < shape\[\1\]; \+\+i\1\) \{\n((?:  (?!for |\}).*\n)+)  \}\n"
)
LOAD = re.compile(r"  (\w+) tmp_(\w+) = \*\2;\n")
STORE = re.compile(r"  \*(\w+)\+\+ = tmp_\1;\n")
STEP = re.compile(r"  (\w+) \+= \1_strides\[(\d)\];\n")
ROWS = """
template <typename T>
struct Row {  // the next numbers of an array side by side: where they are, or copied
  T own[%(row)s];
  const T* repeated = nullptr;
  int held = 0;
  const T* of(const T* from, int64_t stride, int count) {
    if (stride == 1) return from;
    if (stride == 0 && from == repeated && count <= held) return own;
    repeated = stride == 0 ? from : nullptr;
    held = count;
    const T first = *from;
    if (stride == 0) for (int i = 0; i < count; ++i) own[i] = first;
    else for (int i = 0; i < count; ++i) own[i] = from[i * stride];
    return own;
  }
};
"""
START = 'extern "C"'


def install() -> bool:
    """Put a `g++` first on this process's PATH that rewrites MLX's kernels, and passes on all other
    calls; False where that is not possible: on another system, with another version of MLX, or
    without a g++.

    Kernels that MLX compiled before, which it keeps in the folder for temporary files, stay as
    they are.
    """
    import importlib.metadata  # here, since this file also runs once for each kernel
    import shutil

    others = path_without_ours()
    is_checked = importlib.metadata.version("mlx").startswith(f"{CHECKED}.")
    compiler = shutil.which("g++", path=others)
    if sys.platform != "linux" or not is_checked or not compiler:
        return False
    if not os.access(FOLDER / "g++", os.X_OK):
        return False
    os.environ["PATH"] = f"{FOLDER}{os.pathsep}{others}"
    os.environ[PYTHON] = sys.executable
    return True


def path_without_ours() -> str:
    """This process's PATH without the folder of `install`."""
    return os.pathsep.join(one for one in os.get_exec_path() if Path(one) != FOLDER)


def is_installed() -> bool:
    """Whether the kernels that this process compiles are rewritten."""
    return str(FOLDER) in os.environ.get("PATH", "").split(os.pathsep)


def by_rows(source: str) -> str:
    """C++ of MLX's whose innermost loops over strided arrays run over rows of adjacent numbers.

    Text that is not as MLX 0.32 writes it stays as it is.
    """
    if source.count(START) != 1:
        return source
    kinds: dict[str, str] = {}
    rewritten = LOOP.sub(lambda loop: _rows(loop, kinds) or loop.group(), source)
    for name, kind in kinds.items():
        strides = f"  const int64_t* {name}_strides = "
        if rewritten.count(strides) != 1:
            return source
        rewritten = rewritten.replace(strides, f"  Row<{kind}> {name}_rows;\n{strides}")
    return rewritten.replace(START, ROWS % {"row": ROW} + START) if kinds else source


def _rows(loop: re.Match, kinds: dict[str, str]) -> str:
    """A loop as one over rows, adding its arrays and their types to `kinds`; '' for another's."""
    axis, body = loop.groups()
    loads = {name: kind for kind, name in LOAD.findall(body)}
    stores, steps = STORE.findall(body), STEP.findall(body)
    inside = STEP.sub("", LOAD.sub(r"  \1 tmp_\2 = \2_row[i];\n", body))
    inside = STORE.sub(r"  \1[i] = tmp_\1;\n", inside)
    if not stores or sorted(steps) != sorted((name, axis) for name in loads) or "*" in inside:
        return ""
    kinds |= loads
    lines = [
        f"  if (shape[{axis}] < {SHORT}) {{",
        loop.group() + "  } else {",
        f"  for (int start = 0; start < shape[{axis}]; start += {ROW}) {{",
        f"  const int count = std::min({ROW}, shape[{axis}] - start);",
        *(
            f"  const {kind}* {name}_row = {name}_rows.of({name}, {name}_strides[{axis}], count);"
            for name, kind in loads.items()
        ),
        "#pragma GCC ivdep",  # what is written is in the place of what was read, or elsewhere
        "  for (int i = 0; i < count; ++i) {",
        inside + "  }",
        *(f"  {name} += {name}_strides[{axis}] * count;" for name in loads),
        *(f"  {name} += count;" for name in stores),
        "  }",
        "  }",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(by_rows(Path(sys.argv[1]).read_text()), end="")
