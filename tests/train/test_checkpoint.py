import json
import os
import re
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from audiotrain.train import checkpoint
from audiotrain.train.checkpoint import CheckpointError
from audiotrain.utils import arrays as utils_arrays


def arrays() -> dict:
    return {
        "model": {"a.weight": mx.arange(6.0).reshape(2, 3), "a.step": mx.array(3, mx.uint64)},
        "optimizer": {"m": mx.ones((4,), mx.bfloat16)},
        "empty": {},
    }


def test_what_was_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path / "deep" / "one", arrays(), {"epoch": 3, "loss": 0.1})
    loaded, meta = checkpoint.load(tmp_path / "deep" / "one")
    assert meta == {"epoch": 3, "loss": 0.1}
    assert checkpoint.load_meta(tmp_path / "deep" / "one") == meta
    assert loaded.keys() == {"model", "optimizer"}
    for group, group_arrays in loaded.items():
        for key, array in group_arrays.items():
            assert array.dtype == arrays()[group][key].dtype
            assert mx.array_equal(array, arrays()[group][key])


def test_replacing_keeps_loaded_arrays_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "last"
    checkpoint.save(path, arrays(), {})
    loaded, _ = checkpoint.load(path)
    checkpoint.save(path, {"model": {"a.weight": mx.zeros((2, 3))}}, {})
    assert loaded["model"]["a.weight"][1, 2].item() == 5.0
    assert checkpoint.load(path)[0]["model"]["a.weight"].sum().item() == 0
    assert os.listdir(tmp_path) == ["last"]


def test_all_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append("sync"))
    monkeypatch.setattr(os, "replace", lambda *given: order.append("replace") or replace(*given))
    checkpoint.save(tmp_path / "one", arrays(), {})
    # Two files of arrays, state.json and their folder; then the folder that has a new name in it.
    assert order == ["sync"] * 4 + ["replace", "sync"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    checkpoint.save(tmp_path / "last", arrays(), {"epoch": 1})
    assert checkpoint.exists(tmp_path / "last")
    os.replace(tmp_path / "last", tmp_path / ".last.previous")  # where _swap was stopped
    assert checkpoint.exists(tmp_path / "last")
    assert checkpoint.load(tmp_path / "last")[1] == {"epoch": 1}
    checkpoint.save(tmp_path / "last", arrays(), {"epoch": 2})
    assert checkpoint.load(tmp_path / "last")[1] == {"epoch": 2}
    assert os.listdir(tmp_path) == ["last"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_cut_short_is_one_line(tmp_path, file):
    checkpoint.save(tmp_path / "one", arrays(), {})
    path = tmp_path / "one" / file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{file}.*cut short") as error:
        checkpoint.load(tmp_path / "one")
    assert "\n" not in str(error.value)


def test_missing_places_and_formats_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: no checkpoint here"):
        checkpoint.load(tmp_path / "nothing")
    assert not checkpoint.exists(tmp_path / "nothing")
    assert not checkpoint.exists(tmp_path)
    checkpoint.save(tmp_path / "one", {}, {})
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    (tmp_path / "one" / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99, expected 1"):
        checkpoint.load(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").unlink(missing_ok=True)


def test_something_else_is_never_replaced_or_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(CheckpointError, match="mine: holds something that is no checkpoint"):
        checkpoint.save(tmp_path / "mine", arrays(), {})
    checkpoint.remove(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=r"thesis.txt: is a file"):
        checkpoint.save(tmp_path / "mine" / "thesis.txt", arrays(), {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


FULL_DISK = """
import resource, sys
from audiotrain.train import checkpoint
import mlx.core as mx
checkpoint.save(sys.argv[1], {"model": {"w": mx.zeros(10)}}, {"epoch": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    checkpoint.save(sys.argv[1], {"model": {"w": mx.zeros(100_000)}}, {"epoch": 2})
except checkpoint.CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, limit):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "last"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "last: cannot write the checkpoint" in done.stdout
    assert re.search(r"; \d+ MB are free there\); what was there before is kept$", done.stdout)
    assert done.stdout.count("\n") == 1
    assert checkpoint.load(tmp_path / "last")[1] == {"epoch": 1}
    assert os.listdir(tmp_path) == ["last"]


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint") as error:
        checkpoint.save(tmp_path / "file" / "last", arrays(), {})
    assert "\n" not in str(error.value)


def test_every_difference_of_another_model_is_listed(tmp_path):
    one = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1))
    checkpoint.save(tmp_path / "one", {"model": utils_arrays.arrays_of(one)}, {})
    before = np.array(other.layers[0].weight)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_weights(other, tmp_path / "one")
    message = str(error.value)
    assert "2 missing: layers.2.weight, layers.2.bias" in message
    assert "2 misshaped: layers.1.weight (found (4, 3) float32, expected (5, 3) float32)" in message
    with pytest.raises(CheckpointError, match="2 unexpected: layers.1.weight, layers.1.bias"):
        checkpoint.load_weights(nn.Sequential(nn.Linear(2, 3)), tmp_path / "one")
    assert np.array_equal(before, np.array(other.layers[0].weight))


def test_averaged_weights_are_taken_where_there_are_some(tmp_path):
    model = nn.Linear(1, 1)
    average = {"weight": mx.array([[7.0]])}
    saved = {"model": utils_arrays.arrays_of(model), "ema": average}
    checkpoint.save(tmp_path / "one", saved, {})
    bias = model.bias.item()
    checkpoint.load_weights(model, tmp_path / "one")
    assert (model.weight.item(), model.bias.item()) == (7.0, bias)
    checkpoint.load_weights(model, tmp_path / "one", averaged=False)
    assert model.weight.item() != 7.0


def test_dictionary_keys_that_are_numbers_keep_their_place():
    tree = {"parts": {"0": mx.array(1.0), "1": [mx.array(2.0)]}, "text": "kept"}
    utils_arrays.put_arrays(tree, {"parts.0": mx.array(5.0), "parts.1.0": mx.array(6.0)})
    assert (tree["parts"]["0"].item(), tree["parts"]["1"][0].item()) == (5.0, 6.0)
