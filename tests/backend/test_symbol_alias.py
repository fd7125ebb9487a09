"""Functions under other names: what the dynamic linker finds, and libraries loaded afterwards."""

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from audiotrain.backend import blas
from audiotrain.backend.symbol_alias import alias

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux"
)
SOURCE = """
#include <stdio.h>
int audiotrain_twice(int x) { return 2 * x; }
double audiotrain_ten(int a, int b, int c, int d, int e, int f, double g, double h, int i, int j) {
    return a + b + c + d + e + f + 100 * (g + h) + 10000 * (i + j);
}
void spy_sgemm(int order, int a, int b, int rows, int columns, int inner) {
    printf("%d %d %d\\n", rows, columns, inner);
    fflush(stdout);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library with functions of our own."""
    file = tmp_path_factory.mktemp("library") / "libours.so"
    command = ["g++", "-shared", "-fPIC", "-x", "c", "-", "-o", str(file)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return str(file)


def test_a_function_is_found_under_its_new_name(library):
    alias(library, {"audiotrain_other": "audiotrain_twice", "audiotrain_sum": "audiotrain_ten"})
    found = ctypes.CDLL(None)
    assert found.audiotrain_other(-3) == -6
    found.audiotrain_sum.restype = ctypes.c_double
    reals = [ctypes.c_double(number) for number in (7, 8)]
    assert found.audiotrain_sum(1, 2, 3, 4, 5, 6, *reals, 9, 10) == 21 + 1500 + 190000  # a stack
    assert found.audiotrain_twice(5) == 10  # its own stays
    assert not hasattr(found, "audiotrain_nothing")


def test_each_call_adds_to_the_ones_before(library):
    for number in range(3):
        alias(library, {f"audiotrain_each_{number}": "audiotrain_twice"})
    found = ctypes.CDLL(None)
    assert [getattr(found, f"audiotrain_each_{n}")(n) for n in range(3)] == [0, 2, 4]


def test_refuses_a_function_that_is_not_there(library):
    with pytest.raises(AttributeError, match="audiotrain_missing"):
        alias(library, {"audiotrain_new": "audiotrain_missing"})


def test_refuses_a_machine_that_it_does_not_know(monkeypatch, library):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64: not one of x86_64, aarch64"):
        alias(library, {"audiotrain_new": "audiotrain_twice"})


def test_without_a_compiler_there_is_no_alias(monkeypatch, library, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="g\\+\\+"):
        alias(library, {"audiotrain_new": "audiotrain_twice"})


def test_no_segment_holds_writable_code(monkeypatch, library):
    """By GNU's readelf: neither a segment nor the stack is writable and executable."""
    if shutil.which("readelf") is None:
        pytest.skip("no readelf here")
    seen = []

    def load(path, mode=None):
        done = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True)
        seen.append(done.stdout)

    monkeypatch.setattr("audiotrain.backend.symbol_alias.ctypes.CDLL", load)
    with pytest.raises(AttributeError):  # the stand-in has no functions
        alias(library, {"audiotrain_new": "audiotrain_twice"})
    alias(library, {})
    flags = [row.split()[6:-1] for row in seen[-1].splitlines() if "LOAD" in row or "STACK" in row]
    assert flags
    assert not [row for row in flags if "W" in "".join(row) and "E" in "".join(row)]


def test_mlx_multiplies_by_what_has_the_name(library):
    """A function of our own in place of `cblas_sgemm`, which says what it was asked for."""
    code = (
        "from audiotrain.backend.symbol_alias import alias\n"
        f"alias({library!r}, {{'cblas_sgemm': 'spy_sgemm'}})\n"
        "import mlx.core as mx\n"
        "with mx.stream(mx.cpu):\n"
        "    mx.eval(mx.ones((20, 40)) @ mx.ones((40, 30)))\n"
    )
    variables = os.environ | {blas.SWITCH: "off"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
    assert done.stdout.strip() == "20 30 40"
