"""The wheel: built, installed in an environment of its own, it has the model and loads it."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.features import audio
from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.recipes.chords.predictor import Recognizer, decoding_of, describe, vocabulary
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.common import exported
from audiotrain.utils.arrays import arrays_of

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = Path("audiotrain") / "pretrained" / "chords"


def write_small_model(folder: Path) -> None:
    """An exported model without training."""
    mx.random.seed(0)
    sizes = ChordModelSettings(width=24, blocks=1, pools=1, hidden=24, kernel=3)
    model = FrameChordModel(144, sizes, 24)
    recognizer = Recognizer(model, FeatureSettings(), 16)
    description = {
        "recipe": "chords",
        **describe(sizes, recognizer.settings, recognizer.window),
        "vocabulary": vocabulary(),
        "decoding": decoding_of(recognizer),
        "trained_on": {"songs": {}},
    }
    exported.write_model(folder, arrays_of(model), description, lambda content: "# A card\n")


def run(*words: object, **named) -> str:
    """What a command prints; AssertionError with its errors where it fails."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=kept, **named)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_shipped_model_is_in_the_wheel_and_loads(tmp_path):
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "audiotrain", source / "audiotrain", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    if not exported.is_exported(source / SHIPPED):
        write_small_model(source / SHIPPED)
    expected = exported.read_description(source / SHIPPED, "chords")["weights"]["sha256"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    run(*pip, "wheel", *offline, "--no-build-isolation", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "fresh"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    run(*pip, "--python", python, "install", *offline, wheel)
    # Its dependencies are those of the tests.
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]))
    installed = packages / SHIPPED
    assert sorted(file.name for file in installed.iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    code = (
        "import audiotrain, numpy as np\n"
        "recognizer = audiotrain.Recognizer.pretrained()\n"
        "print(audiotrain.__file__, recognizer(np.zeros(22050, np.float32)).seconds)"
    )
    assert run(python, "-c", code, cwd=tmp_path).split() == [
        str(packages / "audiotrain" / "__init__.py"),
        "1.0",
    ]
    audio.write(tmp_path / "song.wav", np.zeros(22050, np.float32), 22050)
    printed = run(python, "-m", "audiotrain", "chords", "predict", "song.wav", cwd=tmp_path)
    assert printed.startswith("model: shipped with audiotrain ")
    assert expected[:12] in printed.splitlines()[0]
    assert (tmp_path / "song.lab").is_file()


def test_each_file_of_the_shipped_model_is_package_data(tmp_path):
    """By the patterns in pyproject.toml, without building."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["audiotrain"]
    write_small_model(tmp_path / "pretrained" / "chords")
    found = {file for pattern in patterns for file in tmp_path.glob(pattern)}
    assert found == set((tmp_path / "pretrained" / "chords").iterdir())
