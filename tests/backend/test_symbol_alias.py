"""Functions under other names: what the dynamic linker finds, and libraries loaded afterwards."""

import ctypes
import os
import subprocess
import sys

import pytest

from audiotrain.backend import blas
from audiotrain.backend.symbol_alias import MACHINES, offer, shared_object

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux needs them")


def test_a_function_is_found_under_its_new_name():
    library = ctypes.CDLL(None)
    offer(library, {"audiotrain_labs": "labs", "audiotrain_strlen": "strlen"})
    found = ctypes.CDLL(None)
    assert found.audiotrain_labs(-3) == 3
    assert found.audiotrain_strlen(b"four") == 4
    assert found.labs(-5) == 5  # its own stays
    assert not hasattr(found, "audiotrain_other")


def test_each_call_adds_to_the_ones_before():
    for number in range(3):
        offer(ctypes.CDLL(None), {f"audiotrain_each_{number}": "labs"})
    found = ctypes.CDLL(None)
    assert [getattr(found, f"audiotrain_each_{n}")(-n) for n in range(3)] == [0, 1, 2]
    offer(ctypes.CDLL(None), {})


def test_refuses_a_function_that_is_not_there():
    with pytest.raises(AttributeError, match="audiotrain_missing"):
        offer(ctypes.CDLL(None), {"audiotrain_new": "audiotrain_missing"})


def test_refuses_a_machine_that_it_does_not_know(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64: not one of x86_64, aarch64"):
        offer(ctypes.CDLL(None), {"audiotrain_new": "labs"})


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("count", [0, 1, 40])
def test_it_is_a_library_for_other_tools_too(tmp_path, machine, count):
    """GNU's readelf (binutils) reads the symbols; no segment may hold code, the stack neither."""
    addresses = {f"name_{n}": 0x7F0000001000 + n for n in range(count)}
    file = tmp_path / "symbols.so"
    file.write_bytes(shared_object(addresses, MACHINES[machine]))
    try:
        command = ["readelf", "--wide", "--file-header", "--segments", "--use-dynamic", "--symbols"]
        done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no readelf here")
    assert not done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    found = {row[-1]: int(row[1], 16) for row in rows if "ABS" in row and "FUNC" in row}
    assert found == addresses
    segments = {row[0]: row for row in rows if row and row[0] in ("LOAD", "DYNAMIC", "GNU_STACK")}
    assert len(segments) == 3
    assert {row[6] for row in segments.values()} == {"RW"}


def test_mlx_multiplies_by_what_is_offered():
    """A function of our own in place of `cblas_sgemm`, which says what it was asked for."""
    code = (
        "import ctypes, types\n"
        "from audiotrain.backend.symbol_alias import offer\n"
        "asked = []\n"
        "numbers = [ctypes.c_int] * 6\n"
        "spy = ctypes.CFUNCTYPE(None, *numbers)(lambda *given: asked.append(given[3:]))\n"
        "offer(types.SimpleNamespace(spy=spy), {'cblas_sgemm': 'spy'})\n"
        "import mlx.core as mx\n"
        "with mx.stream(mx.cpu):\n"
        "    mx.eval(mx.ones((20, 40)) @ mx.ones((40, 30)))\n"
        "print(asked)"
    )
    variables = os.environ | {blas.VARIABLE: "off"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
    assert done.stdout.strip() == "[(20, 30, 40)]"
