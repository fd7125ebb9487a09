"""Every script in examples/ runs as it stands; options only make it shorter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# Options, pattern of what it prints, and files that it leaves.
RUNS = {
    "linear_classifier": ([], r"accuracy on unseen pictures: (0\.9|1\.0)", ["logs"]),
    "audio_classifier": (
        ["--epochs", "1"],
        r"accuracy on unseen tones: [01]\.",
        ["logs/checkpoints/last", "logs/metrics.csv", "wandb"],
    ),
    "cnn_classifier": (
        ["--epochs", "1", "--images", "320"],
        "Parameters: 421,642, trainable: 421,642",
        ["checkpoints/last", "logs/metrics.csv"],
    ),
    "clap_finetuning": (
        ["--epochs", "3", "--pairs", "16", "--small"],
        r"Total: \d+,\d+,\d+, Trainable: \d+,\d+",
        ["checkpoints/clap/last", "logs/metrics.csv", "wandb"],
    ),
    "declarative": (
        ["--epochs", "2"],
        r"accuracy on unseen tones: [01]\.\d+\n.*the same numbers: True",
        ["runs/tones/config.yaml", "runs/tones/checkpoints/best", "runs/again/metrics.json"],
    ),
    "chord_trainer": (
        ["--epochs", "1", "--clips", "32"],
        "right type among the first 3: ",
        ["checkpoints/best_model.pt", "checkpoints/last", "history.json"],
    ),
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_example(tmp_path, name):
    options, printed, files = RUNS[name]
    command = [sys.executable, "-W", "error::RuntimeWarning", EXAMPLES / f"{name}.py", *options]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"},
    )
    assert result.returncode == 0, result.stderr
    assert re.search(printed, result.stdout), result.stdout
    for file in files:
        assert (tmp_path / file).exists(), f"{file} is missing"
    if name == "clap_finetuning":
        assert len(list((tmp_path / "checkpoints" / "clap").iterdir())) == 3  # 2 and last
        (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
        assert all(name in record.read_bytes() for name in (b"clap-finetune", b"experiment-1"))
    if name == "chord_trainer":
        history = json.loads((tmp_path / "history.json").read_text())
        assert all(len(values) == 1 for values in history.values())
