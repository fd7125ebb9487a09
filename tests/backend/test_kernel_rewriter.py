"""The compiler that MLX calls on a Linux CPU: its options, loops over rows, and no bit changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audiotrain.backend import kernel_rewriter

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux"
)


@pytest.fixture
def compiler(tmp_path):
    """A call of ours before a g++ that prints its options, refuses --param when told to, and else
    writes the options into its file."""
    file = tmp_path / "g++"
    file.write_text(
        '#!/bin/sh\necho "$@"\ncase "$*" in *" - "*) cat;; esac\n'
        'case "$*" in *--param*) [ ! "$REFUSES" ] || exit 1;; esac\n'
        'for word; do [ "$before" != -o ] || echo "$*" > "$word"; before=$word; done\n'
    )
    file.chmod(0o755)

    def call(*options, **variables):
        path = os.pathsep.join([str(kernel_rewriter.FOLDER), str(tmp_path), "/usr/bin", "/bin"])
        variables = os.environ | {"PATH": path} | variables
        command = ["g++", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
        return done.stdout.splitlines()

    return call


@pytest.fixture
def call(tmp_path):
    """MLX's call for a kernel that is not there, so that it is compiled as it is."""
    folder = tmp_path / "mlx/1.0/cpu"
    folder.mkdir(parents=True)
    return ["-O3", str(folder / "kernel.cpp"), "-o", str(folder / "kernel.so")]


def test_mlxs_kernels_get_the_options(compiler, call):
    (line,) = compiler(*call)
    assert line.startswith("-fno-math-errno ")
    assert line.endswith(" ".join(call))


def test_what_others_compile_gets_none(compiler):
    assert compiler("-c", "a file.cpp") == ["-c a file.cpp"]


def test_a_compiler_that_does_not_know_them_is_called_without(compiler, call):
    assert compiler(*call, REFUSES="1")[-1] == " ".join(call)


def test_it_is_found_first_once_or_not_at_all(monkeypatch):
    real = kernel_rewriter.path_without_ours()
    monkeypatch.setenv("PATH", real)
    assert kernel_rewriter.install()
    assert kernel_rewriter.install()  # a rank inherits the first one's PATH
    assert os.environ["PATH"] == f"{kernel_rewriter.FOLDER}{os.pathsep}{real}"
    assert shutil.which("g++") == str(kernel_rewriter.FOLDER / "g++")
    assert kernel_rewriter.is_installed()


def test_without_a_compiler_nothing_stands_for_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not kernel_rewriter.install()
    assert shutil.which("g++") is None


KERNEL = """#include "mlx/backend/cpu/compiled_preamble.h"
extern "C"  {
void name_strided_1(int* shape, int64_t** strides, void** args) {
  float* A = (float*)args[0];
  const int64_t* A_strides = strides[1];
  float* B = (float*)args[1];
  for (int i0 = 0; i0 < shape[0]; ++i0) {
  float tmp_A = *A;
  float tmp_B = Exp()(tmp_A);
  *B++ = tmp_B;
  A += A_strides[0];
  }
}
}
"""


def test_a_kernel_is_compiled_by_rows(compiler, tmp_path):
    folder = tmp_path / "mlx/1.0/cpu"
    folder.mkdir(parents=True)
    (folder / "kernel.cpp").write_text(KERNEL)
    library = str(folder / "kernel.so")
    call = ["-O3", "-I", "/include", str(folder / "kernel.cpp"), "-o", library]
    headers, options, *text = compiler(*call)
    known = folder / "headers/mlx/backend/cpu/compiled_preamble.h.gch"
    header = "/include/mlx/backend/cpu/compiled_preamble.h"
    assert headers.partition(f" -O3 -I /include -x c++-header {header} -o {known}.")[1]
    options, partial = options.rsplit(".", 1)
    assert partial.isdecimal(), "a name of its own until it is complete"
    assert options.endswith(f" -I {folder / 'headers'} -O3 -I /include -x c++ - -o {library}")
    assert "\n".join(text) == kernel_rewriter.by_rows(KERNEL).rstrip()
    assert Path(library).read_text().startswith(options)
    assert known.read_text().startswith(headers)
    again, *text = compiler(*call)
    assert again.startswith(options), "the headers are read once"
    assert "\n".join(text) == kernel_rewriter.by_rows(KERNEL).rstrip()
    assert sorted(path.name for path in folder.glob("kernel*")) == ["kernel.cpp", "kernel.so"]

    assert compiler(*call, REFUSES="1")[-1] == " ".join(call)
    plain = compiler(*call, **{kernel_rewriter.PYTHON: str(tmp_path / "missing")})
    assert plain[0].endswith(" ".join(call)), "without Python it is compiled as it is"


def test_only_what_is_known_is_rewritten():
    """The loop gets a row for its array; text of another MLX, or none of its, stays."""
    rewritten = kernel_rewriter.by_rows(KERNEL)
    assert "float tmp_A = A_row[i];" in rewritten
    assert rewritten.count("Row<float> A_rows;") == 1
    assert "  float tmp_A = *A;\n" in rewritten, "short loops stay"
    for old, new in (
        ('extern "C"', 'extern "D"'),
        ("A += A_strides[0]", "A += A_strides[1]"),
        ("*B++ = tmp_B", "*(B++) = tmp_B"),
        ("Exp()(tmp_A)", "Exp()(tmp_A) * *A"),
        ("const int64_t* A_strides", "const long* A_strides"),
        ("  A += A_strides[0];\n", ""),
    ):
        other = KERNEL.replace(old, new)
        assert other != KERNEL
        assert kernel_rewriter.by_rows(other) == other
    assert kernel_rewriter.by_rows("") == ""


UPDATES = """
import audiotrain
import hashlib
import mlx.core as mx, mlx.optimizers as optim, numpy as np
digest = hashlib.sha256()
for kind in (optim.AdamW, optim.RMSprop, optim.Adagrad):
    mx.random.seed(0)
    tree = {"w": mx.random.normal((37, 53))}
    optimizer = kind(1e-2)
    optimizer.init(tree)
    state = [tree, optimizer.state]
    def update(gradient):
        tree.update(optimizer.apply_gradients({"w": gradient}, tree))
    compiled = mx.compile(update, inputs=state, outputs=state)
    for _ in range(3):
        compiled(mx.random.normal((37, 53)))
    digest.update(np.array(tree["w"]).tobytes())
print(digest.hexdigest())
"""

# Rows shorter and longer than those that are computed at once; arrays that repeat rows, columns or
# one number, transposed ones, every third number, a view of the middle, one used twice, a result
# in the place of what it is made of.
VIEWS = """
import audiotrain
import hashlib
import mlx.core as mx, numpy as np
digest = hashlib.sha256()
mx.set_default_device(mx.cpu)
@mx.compile
def calculated(x, row, column, turned, third, one):
    middle = mx.exp(x * row - column) + turned / 3
    chosen = mx.where(third > row, middle, third * one)
    return middle, chosen.astype(mx.float16), (x > column) & (turned > one), mx.abs(chosen) + x
@mx.compile
def over(x, row):
    return x + 1 * row
for width in (1, 15, 16, 17, 255, 256, 257, 513):
    for kind in (mx.float32, mx.bfloat16, mx.int32, mx.complex64):
        mx.random.seed(width)
        def drawn(*shape):
            return (4 * mx.random.normal(shape)).astype(kind)
        x, row = drawn(2, 5, width + 2)[..., 1:-1], drawn(width)
        rest = drawn(5, 1), drawn(width, 5).T, drawn(5, 3 * width)[:, ::3], drawn(1)
        if kind != mx.complex64:
            for result in calculated(x, row, *rest):
                digest.update(np.array(result.astype(mx.float32)).tobytes())
        whole = drawn(5, width)
        mx.eval(whole)
        for _ in range(2):
            whole = over(whole, row)
        digest.update(np.array(mx.abs(whole).astype(mx.float32)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [UPDATES, VIEWS], ids=["updates", "views"])
def test_results_are_the_same_to_the_bit(tmp_path, code):
    found = set()
    for choice in ("on", "off"):
        (tmp_path / choice).mkdir()
        environment = os.environ | {
            "AUDIOTRAIN_CPU": {"on": "full", "off": "blas"}[choice],
            "PATH": kernel_rewriter.path_without_ours(),
            "TMPDIR": str(tmp_path / choice),
        }
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.add(done.stdout)
        assert list((tmp_path / choice / "mlx").rglob("*.so"))
        assert len(list(tmp_path.rglob("*.gch*"))) == 1  # only those that are "on"
    assert len(found) == 1
