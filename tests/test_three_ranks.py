"""Three ranks, where two can hide what is wrong: each has two neighbours, a last batch leaves
more than one of them without a sample, and a NaN at one of them is to stop two others."""

import time

import numpy as np
import pytest
import ranks as scenarios
from test_distributed import launch, read

from audiotrain import checkpoint

EQUAL = ["chords", "norm_accumulated", "contrastive", "spoiled_at_one"]
EQUAL += ["spoiled_at_one_accumulated"]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Where three ranks left what came of every scenario; 13 samples are 6, 6 and 1."""
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKS_BATCH", "6")
        said = launch(folder, *EQUAL, "interrupted", "whole", count=3, limit=400)
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


def test_one_that_dies_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKS_BATCH", "6")
    began = time.monotonic()
    said = launch(tmp_path, "killed", count=3, limit=200)
    assert time.monotonic() - began < 200
    last = tmp_path / "killed" / "checkpoints" / "last"
    told = [line for line in said.splitlines() if line.startswith("rank ")]
    assert [line for line in told if line.startswith("rank 0: ")]
    assert all("connection to a peer was lost; stopped at step" in line for line in told)
    assert len(told) == len({line[:6] for line in told})
    assert "Traceback" not in said
    assert checkpoint.load_meta(last)["global_step"] == 8
