"""Three ranks, where two can hide what is wrong: each has two neighbours, a last batch leaves
more than one of them without a sample, and a NaN at one of them is to stop two others.

They are started without mlx.launch, as docs/distributed.md shows it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ranks as scenarios
from test_ranks import free_ports, read

from audiotrain.train import checkpoint

pytestmark = pytest.mark.slow

EQUAL = ["chords", "norm_accumulated", "contrastive", "spoiled_at_one"]
EQUAL += ["spoiled_at_one_accumulated"]


def start(folder: Path, *names: str, limit: float) -> str:
    """Run scenarios on three ranks; what they said. Fails when they don't end within `limit` s."""
    port = free_ports(3)
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port + rank}"] for rank in range(3)]))
    env = os.environ | {"MLX_HOSTFILE": str(hosts), "RANKS_BATCH": "6", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, scenarios.__file__, str(folder), *names]
    end = time.monotonic() + limit
    with open(folder / "said.txt", "w") as said:
        ranks = [
            subprocess.Popen(command, env=env | {"MLX_RANK": str(rank)}, stdout=said, stderr=said)
            for rank in range(3)
        ]
        try:
            for rank in ranks:
                rank.wait(timeout=max(0.1, end - time.monotonic()))
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    return (folder / "said.txt").read_text()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Where three ranks left what came of every scenario; 13 samples are 6, 6 and 1."""
    folder = tmp_path_factory.mktemp("three")
    said = start(folder, *EQUAL, "interrupted", "whole", limit=400)
    for name in [*EQUAL, "interrupted", "whole"]:
        assert (folder / f"{name}-2.npz").is_file(), said
    return folder


@pytest.mark.parametrize("name", EQUAL)
def test_three_ranks_equal_one_process_with_the_batch_of_all(together, tmp_path, monkeypatch, name):
    monkeypatch.setattr(scenarios, "BATCH", 6)
    scenarios.run(getattr(scenarios, name), tmp_path)
    alone, ranks = read(tmp_path, name), read(together, name)
    assert alone.keys() == ranks.keys()
    assert len(alone) > 10
    for key in alone:
        np.testing.assert_allclose(ranks[key], alone[key], rtol=1e-5, atol=1e-5, err_msg=key)
    assert ranks["skipped"] == (3 if "spoiled" in name else 0)  # a NaN at one rank, each epoch


@pytest.mark.parametrize("name", [*EQUAL, "interrupted"])
def test_all_end_with_the_same_weights_and_numbers(together, name):
    first = read(together, name)
    for rank in (1, 2):
        other = read(together, name, rank)
        assert first.keys() == other.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], other[key], err_msg=key)


def test_stopped_at_one_rank_and_continued_is_the_whole_run(together):
    whole, resumed = read(together, "whole"), read(together, "interrupted")
    assert 8 <= resumed.pop("stopped_step") <= 10
    assert resumed.pop("stopped") != whole.pop("stopped") == 0
    for key in whole:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)


def test_one_that_dies_ends_the_others(tmp_path):
    said = start(tmp_path, "killed", limit=200)
    last = tmp_path / "killed" / "checkpoints" / "last"
    told = [line for line in said.splitlines() if line.startswith("rank ")]
    assert [line for line in told if line.startswith("rank 0: ")]
    assert all("connection to a peer was lost; stopped at step" in line for line in told)
    assert len(told) == len({line[:6] for line in told})
    assert "Traceback" not in said
    assert checkpoint.load_meta(last)["global_step"] == 8
