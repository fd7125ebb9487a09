"""The switch: what each level does, what an import leaves alone, variables of earlier versions."""

import importlib.metadata
import os
import shutil
import subprocess
import sys

import pytest

from audiotrain.backend import blas, configuration, kernel_rewriter
from audiotrain.recipes import chords

ON_LINUX_CPU = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None or blas.has_cuda(),
    reason="needs a Linux CPU with g++",
)
VARIABLES = ("AUDIOTRAIN_CPU", "AUDIOTRAIN_BLAS", "AUDIOTRAIN_KERNELS", "AUDIOTRAIN_STREAMS")


def run(code, **variables):
    """Output lines and errors of a new Python with these variables of ours alone."""
    unset = (*VARIABLES, "MLX_BFS_MAX_WIDTH", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in unset} | variables
    environment["PATH"] = kernel_rewriter.path_without_ours()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines(), done.stderr


def test_an_import_changes_no_environment_variable():
    code = (
        "import os; before = dict(os.environ)\n"
        "import audiotrain, mlx.core; audiotrain.Trainer\n"
        "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
        "import shutil; print(shutil.which('g++'))"
    )
    compiler = shutil.which("g++", path=kernel_rewriter.path_without_ours())
    assert run(code)[0] == [compiler or "None"]


LEVEL = "from audiotrain import backend; {}print(backend.describe())"
FULL = LEVEL.format("backend.configure('full', streams=2); ")
AS_MLX, REWRITTEN = "as MLX compiles them", "rewritten"


@ON_LINUX_CPU
@pytest.mark.parametrize(
    ("code", "variables", "kernels", "count"),
    [
        (LEVEL.format(""), {}, AS_MLX, 1),
        (FULL, {}, REWRITTEN, 2),
        (FULL, {"AUDIOTRAIN_CPU": "blas"}, AS_MLX, 1),
        (FULL, {"AUDIOTRAIN_CPU": "off"}, AS_MLX, 1),
        (LEVEL.format("backend.configure('blas'); "), {}, AS_MLX, 1),
        (FULL, {"AUDIOTRAIN_KERNELS": "off"}, AS_MLX, 2),
        (LEVEL.format(""), {"AUDIOTRAIN_STREAMS": "3"}, AS_MLX, 3),
    ],
)
def test_what_is_active_is_described(code, variables, kernels, count):
    lines, _ = run(code, **variables)
    assert lines[0].startswith("BLAS     ")
    assert ("reference" in lines[0]) == (variables.get("AUDIOTRAIN_CPU") == "off")
    assert lines[1].startswith(f"kernels  {kernels}, checked with MLX ")
    assert lines[2] == f"streams  {count}"


@pytest.mark.parametrize(
    ("old", "successor"),
    [
        ({"AUDIOTRAIN_BLAS": "off"}, "AUDIOTRAIN_CPU=off"),
        ({"AUDIOTRAIN_KERNELS": "off"}, "AUDIOTRAIN_CPU=blas"),
        ({"AUDIOTRAIN_STREAMS": "2"}, "OMP_NUM_THREADS"),
    ],
)
def test_an_old_variable_is_read_with_a_warning(old, successor):
    ((name, value),) = old.items()
    errors = run("import audiotrain", **old)[1]
    assert f"FutureWarning: {name}={value} is read for the last version: use {successor}" in errors
    assert errors.count("FutureWarning") == 1


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("AUDIOTRAIN_CPU=fast", "off, blas or full"),
        ("AUDIOTRAIN_STREAMS=two", "a number of streams, 1 or more"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_work(
    tmp_path, monkeypatch, capsys, variable, expected
):
    name, value = variable.split("=")
    monkeypatch.setenv(name, value)
    assert chords.main(["--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"error: {variable}, expected {expected}\n"
    assert not (tmp_path / "run").exists()
    errors = run("import audiotrain; audiotrain.Trainer", **{name: value})[1]
    assert (
        f"RuntimeWarning: {variable}, expected {expected}; taken as AUDIOTRAIN_CPU=blas" in errors
    )


def test_a_wrong_level_is_refused():
    with pytest.raises(ValueError, match="level=fast, expected off, blas or full"):
        configuration.configure("fast")


@ON_LINUX_CPU
def test_with_another_version_of_mlx_kernels_stay(monkeypatch):
    monkeypatch.setenv("PATH", kernel_rewriter.path_without_ours())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.33.0")
    assert not kernel_rewriter.install()
    assert not kernel_rewriter.is_installed()
