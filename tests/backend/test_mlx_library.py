"""MLX without its library: one line that names the extras, in Python and in commands."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from audiotrain.backend import mlx_library

ROOT = Path(__file__).resolve().parents[2]
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="its own wheel only on Linux")
LINE = (
    "MLX's library for this machine is not installed: "
    "pip install 'audiotrain[cpu]', or 'audiotrain[cuda]' for an NVIDIA GPU"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, str]:
    """The environment of a Python whose MLX is as its wheel without an extra is: no libmlx.so."""
    folder = tmp_path_factory.mktemp("plain")
    installed = Path(find_spec("mlx.core").origin).parents[1]
    for one in installed.iterdir():
        if one.name != "mlx" and not one.name.endswith(".pth"):
            (folder / one.name).symlink_to(one)
    ignored = shutil.ignore_patterns("lib", "include")
    shutil.copytree(installed / "mlx", folder / "mlx", ignore=ignored)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}


def run(words, environment):
    return subprocess.run(
        [sys.executable, "-S", *words], capture_output=True, text=True, env=environment, check=False
    )


@ONLY_LINUX
@pytest.mark.parametrize("code", ["import audiotrain", "from audiotrain.features import log_mel"])
def test_an_import_names_the_extras(code, plain):
    done = run(["-c", f"try:\n    {code}\nexcept ImportError as error:\n    print(error)"], plain)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{LINE}\n", "")


@ONLY_LINUX
@pytest.mark.parametrize(
    "words",
    [["-m", "audiotrain", "chords", "predict", "a"], ["-m", "audiotrain.recipes.chords", "--help"]],
)
def test_a_command_ends_in_the_line(words, plain):
    done = run(words, plain)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {LINE}\n")


@ONLY_LINUX
def test_the_installed_script_ends_in_the_line(tmp_path, plain):
    script = tmp_path / "audiotrain"
    script.write_text("from audiotrain.__main__ import main\nmain()\n")
    done = run([str(script), "runs"], plain)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {LINE}\n")


def test_only_linux_needs_a_wheel_for_it(monkeypatch):
    monkeypatch.setattr(mlx_library.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mlx_library.has_its_files()
    mlx_library.require()
    monkeypatch.setattr(sys, "platform", "linux")
    assert not mlx_library.has_its_files()
    mlx_library.require()  # can be imported all the same, as from conda


def test_a_gpu_without_its_driver(monkeypatch):
    def no_driver(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(mlx_library, "has_cuda", lambda: True)
    monkeypatch.setattr(mlx_library.ctypes, "CDLL", no_driver)
    assert not mlx_library.has_its_files()
    line = mlx_library.advice(ImportError("libcuda.so.1: cannot open shared object file"))
    assert "libcuda.so.1" in line
    assert "driver" in line
    assert "pip install 'audiotrain[cpu]'" in line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("libmlx.so: cannot open shared object file"), "is not installed: pip"),
        (ModuleNotFoundError("No module named 'mlx'"), "is not installed: pip"),
        (ImportError("GLIBC_2.38 not found"), r"can't be loaded (GLIBC_2.38 not found): pip"),
    ],
)
def test_advice(error, expected, monkeypatch):
    monkeypatch.setattr(mlx_library, "has_cuda", lambda: False)
    assert expected in mlx_library.advice(error)
    assert mlx_library.advice(error).endswith(mlx_library.EXTRAS)
