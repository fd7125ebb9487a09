"""The compiler that MLX calls on a Linux CPU: the options it is given, and that no bit changes."""

import os
import shutil
import subprocess
import sys

import pytest

from audiotrain import kernels

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux"
)
CALL = ["-O3", "/tmp/mlx/1.0/cpu/kernel.cpp", "-o", "/tmp/mlx/1.0/cpu/kernel.so"]


@pytest.fixture
def compiler(tmp_path):
    """A call of ours before a g++ that prints its options, and refuses --param when told to."""
    file = tmp_path / "g++"
    file.write_text('#!/bin/sh\necho "$@"\ncase "$*" in *--param*) exit ${REFUSES:-0};; esac\n')
    file.chmod(0o755)

    def call(*options, **variables):
        path = os.pathsep.join([str(kernels.FOLDER), str(tmp_path), "/usr/bin", "/bin"])
        variables = os.environ | {"PATH": path} | variables
        command = ["g++", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
        return done.stdout.splitlines()

    return call


def test_mlxs_kernels_get_the_options(compiler):
    (line,) = compiler(*CALL)
    assert line.startswith("-fno-math-errno ")
    assert line.endswith(" ".join(CALL))


def test_what_others_compile_gets_none(compiler):
    assert compiler("-c", "a file.cpp") == ["-c a file.cpp"]


def test_a_compiler_that_does_not_know_them_is_called_without(compiler):
    assert compiler(*CALL, REFUSES="1")[-1] == " ".join(CALL)


def test_it_is_found_first_once_or_not_at_all(monkeypatch):
    real = os.pathsep.join(one for one in os.get_exec_path() if one != str(kernels.FOLDER))
    monkeypatch.setenv("PATH", real)
    assert kernels.vectorise()
    assert kernels.vectorise()  # a rank inherits the first one's PATH
    assert os.environ["PATH"] == f"{kernels.FOLDER}{os.pathsep}{real}"
    assert shutil.which("g++") == str(kernels.FOLDER / "g++")
    monkeypatch.setenv(kernels.VARIABLE, "off")
    assert not kernels.vectorise()
    assert os.environ["PATH"] == real


def test_without_a_compiler_nothing_stands_for_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not kernels.vectorise()
    assert shutil.which("g++") is None


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


def test_updates_are_the_same_to_the_bit(tmp_path):
    found = set()
    for choice in ("on", "off"):
        (tmp_path / choice).mkdir()
        environment = os.environ | {kernels.VARIABLE: choice, "TMPDIR": str(tmp_path / choice)}
        command = [sys.executable, "-c", UPDATES]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.add(done.stdout)
        assert list((tmp_path / choice / "mlx").rglob("*.so"))
    assert len(found) == 1
