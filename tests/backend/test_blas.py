"""Which BLAS is loaded, when it cannot be, and what is said then; each case in its own process."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiotrain.backend import blas

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux needs a BLAS")


def run(code, **environment):
    """Standard output and error of a new Python."""
    variables = {k: v for k, v in os.environ.items() if k != blas.VARIABLE} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def fresh(monkeypatch, candidates=(), modules=(), openable=()):
    """`load` as in a new Linux process without MLX, on a machine with these libraries."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(blas.VARIABLE, raising=False)
    for name in [name for name in sys.modules if name.startswith("mlx")]:
        if name not in modules:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(blas, "candidates", lambda: iter(candidates))
    monkeypatch.setattr(blas, "_installed", lambda distribution: False)
    monkeypatch.setattr(blas, "_open", lambda path: path in openable)
    return blas.load.__wrapped__  # without its cache


def test_takes_the_first_that_opens(monkeypatch):
    found = [("MKL", "/broken/mkl"), ("OpenBLAS", "/ok/openblas"), ("BLIS", "/ok/blis")]
    load = fresh(monkeypatch, found, openable=("/ok/openblas", "/ok/blis"))
    assert load() == ("OpenBLAS", "/ok/openblas", "found")


def test_warns_once_how_much_slower_it_is_and_what_to_install(monkeypatch):
    load = fresh(monkeypatch)
    with pytest.warns(
        RuntimeWarning, match=r"10 to 60 times slower .*pip install 'audiotrain\[mkl"
    ):
        assert load().name == "reference"


def test_says_so_when_mlx_came_first(monkeypatch):
    import mlx.core  # noqa: F401

    load = fresh(monkeypatch, [("MKL", "/ok")], modules=("mlx", "mlx.core"), openable=("/ok",))
    with pytest.warns(RuntimeWarning, match="mlx was imported before audiotrain"):
        assert load().name == "reference"


def test_the_variable_names_a_library(monkeypatch):
    load = fresh(monkeypatch, [("MKL", "/mkl")], openable=("/mkl", "/mine.so"))
    monkeypatch.setenv(blas.VARIABLE, "/mine.so")
    assert load() == ("chosen", "/mine.so", blas.VARIABLE)
    monkeypatch.setenv(blas.VARIABLE, "/missing.so")
    with pytest.warns(RuntimeWarning, match=r"/missing\.so cannot be loaded"):
        assert load().name == "reference"
    for name in (blas.VARIABLE, blas.SWITCH):
        monkeypatch.setenv(name, "off")
        assert load() == ("reference", "", f"{name}=off")
        monkeypatch.delenv(name)


def test_loads_nothing_on_macos_and_warns_of_nothing_on_a_gpu(monkeypatch):
    load = fresh(monkeypatch, [("MKL", "/mkl")], openable=("/mkl",))
    monkeypatch.setattr(blas, "_installed", lambda name: name == "mlx-cuda-13")
    assert load().name == "MKL"  # for features, which are computed on the CPU
    monkeypatch.setattr(blas, "candidates", lambda: [])
    assert load().name == "reference"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load().name == "system"


def test_a_file_that_is_no_library_does_not_open(tmp_path):
    fake = tmp_path / "libmkl_rt.so.2"
    fake.write_text("no library")
    assert not blas._open(str(fake))
    assert not blas._open(str(tmp_path / "missing.so"))


@pytest.mark.parametrize("amd", [False, True])
def test_finds_libraries_whatever_the_number_of_their_version(monkeypatch, tmp_path, amd):
    (tmp_path / "lib").mkdir()
    for name in ("libopenblas.so.0", "libmkl_rt.so.7", "libmkl_rt.so.3", "libother.so"):
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "none"))
    monkeypatch.setattr(blas, "_installed", lambda name: False)
    monkeypatch.setattr(
        blas, "_linker_cache", lambda: ["/usr/lib/libblis.so.4", "/usr/lib/libc.so"]
    )
    monkeypatch.setattr(blas, "_scipys", lambda: [Path("/libscipy_openblas-1.so")])
    monkeypatch.setattr(blas, "_has_avx512_on_amd", lambda: amd)
    found = [(name, Path(path).name) for name, path in blas.candidates()]
    mkl = [("MKL", "libmkl_rt.so.7"), ("MKL", "libmkl_rt.so.3")]
    openblas = [("OpenBLAS", "libscipy_openblas-1.so"), ("OpenBLAS", "libopenblas.so.0")]
    first, second = (openblas, mkl) if amd else (mkl, openblas)
    assert found == [*first, *second, ("BLIS", "libblis.so.4")]


@pytest.mark.parametrize(
    ("processor", "told", "expected"),
    [
        ("vendor_id: AuthenticAMD\nflags: avx2 avx512f", "", True),
        ("vendor_id: AuthenticAMD\nflags: avx2 avx512f", "Haswell", False),
        ("vendor_id: AuthenticAMD\nflags: avx2", "", False),
        ("vendor_id: GenuineIntel\nflags: avx2 avx512f", "", False),
        (None, "", False),
    ],
)
def test_openblas_is_first_where_it_alone_has_avx512(monkeypatch, processor, told, expected):
    def read(path):
        if processor is None:
            raise FileNotFoundError
        return processor

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setenv("OPENBLAS_CORETYPE", told)
    assert blas._has_avx512_on_amd() == expected


@ONLY_LINUX
def test_scipys_own_is_a_blas_for_mlx_too():
    """Nothing but what audiotrain itself needs is installed: products and LAPACK are right."""
    library = next(iter(blas._scipys()), None)
    if library is None:
        pytest.skip("SciPy is not its wheel here")
    code = (
        "import audiotrain, ctypes\n"
        "import mlx.core as mx, numpy as np\n"
        "rng = np.random.default_rng(0)\n"
        "a, b = (rng.normal(size=(2, 130, 130)) + 30 * np.eye(130)).astype(np.float32)\n"
        "with mx.stream(mx.cpu):\n"
        "    product, inverse = mx.array(a) @ mx.array(b), mx.linalg.inv(mx.array(a))\n"
        "    values = mx.linalg.svd(mx.array(a), compute_uv=False)\n"
        "exact = a.astype(float)\n"
        "np.testing.assert_allclose(product, exact @ b, rtol=1e-5, atol=1e-3)\n"
        "np.testing.assert_allclose(inverse, np.linalg.inv(exact), atol=1e-4)\n"
        "np.testing.assert_allclose(values, np.linalg.svd(exact)[1], atol=1e-4)\n"
        "audiotrain.backend.blas.use_threads(1)\n"
        "print(ctypes.CDLL(audiotrain.backend.blas.load().path).scipy_openblas_get_num_threads())"
    )
    assert run(code, **{blas.VARIABLE: str(library)})[0] == "1"


def test_another_librarys_name_does_not_make_it_scipys(tmp_path):
    (tmp_path / "libscipy_openblas-0.so").write_text("no library")
    assert not blas._open(str(tmp_path / "libscipy_openblas-0.so"))


@ONLY_LINUX
def test_import_offers_its_functions_to_mlx_before_that_is_loaded():
    code = (
        "import ctypes, sys, audiotrain\n"
        "assert 'mlx.core' not in sys.modules\n"
        "chosen = audiotrain.backend.blas.load()\n"
        "in_sight = hasattr(ctypes.CDLL(None), 'cblas_sgemm')\n"
        "print(chosen.name, in_sight or not chosen.path)"
    )
    name, in_sight = run(code)[0].split()
    assert in_sight == "True"
    assert name in ("MKL", "OpenBLAS", "BLIS", "reference")


@ONLY_LINUX
def test_import_after_mlx_warns_instead_of_pretending():
    output, errors = run("import mlx.core, audiotrain; print(audiotrain.backend.blas.load().name)")
    assert output == "reference"
    assert errors.count("mlx was imported before audiotrain") == (not blas.has_cuda())


@ONLY_LINUX
@pytest.mark.skipif(blas.has_cuda(), reason="MLX computes on a GPU")
def test_import_after_mlx_names_the_line_to_move(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import mlx.core as mx\n\nfrom audiotrain import Trainer\n")
    _, errors = run(f"import runpy; runpy.run_path({str(script)!r})")
    assert f"move `from audiotrain import Trainer` ({script}:3) above it" in errors


def test_products_are_right():
    import mlx.core as mx
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(130, 130)).astype(np.float32) for _ in range(2))
    product = np.array(mx.array(a) @ mx.array(b))
    np.testing.assert_allclose(product, a.astype(np.float64) @ b, atol=1e-4)


def threads_of_the_library():
    library = ctypes.CDLL(blas.load().path or None)
    names = (
        "MKL_Get_Max_Threads",
        "openblas_get_num_threads",
        "scipy_openblas_get_num_threads",
        "bli_thread_get_num_threads",
    )
    count = next((getattr(library, name) for name in names if hasattr(library, name)), None)
    if count is None or blas.cores() < 2:
        pytest.skip("no BLAS of more than one thread here")
    return count


@ONLY_LINUX
def test_threads_of_the_library_can_be_set():
    count = threads_of_the_library()
    try:
        blas.use_threads(1)
        assert count() == 1
    finally:
        blas.use_threads(blas.cores())
    assert count() == blas.cores()


@ONLY_LINUX
@pytest.mark.parametrize("own", [1, 2])
def test_streams_share_the_cores_for_a_while(own):
    count = threads_of_the_library()
    blas.use_threads(own)
    try:
        with blas.shared_by(2):
            assert count() == max(1, blas.cores() // 2)
        assert count() == own
        with blas.shared_by(100):
            assert count() == 1
        assert count() == own
    finally:
        blas.use_threads(blas.cores())


def test_cores_are_no_more_than_the_variables_say(monkeypatch):
    for name in blas.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    everything = blas.cores()
    assert everything == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    assert blas.cores() == 1
    monkeypatch.setenv("MKL_NUM_THREADS", "many")
    assert blas.cores() == everything
