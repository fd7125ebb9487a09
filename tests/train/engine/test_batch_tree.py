from collections import namedtuple
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.train.engine.batch_tree import difference, flatten_batch, leaves, unflatten_batch

Pair = namedtuple("Pair", "audio label")


@dataclass
class Clip:
    audio: object
    name: str


BATCHES = [
    mx.array([1.0]),
    (np.ones((2, 3)), np.array([1, 2])),
    {"x": np.ones(2), "y": [np.zeros(1), 3]},
    Pair(np.ones(2), 1),
    Clip(np.ones(2), "a.wav"),
    {"nested": (Pair(1.0, 2), {"name": "b", "none": None})},
]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_comes_back_as_it_was(batch):
    arrays, structure = flatten_batch(batch)
    assert all(isinstance(array, mx.array) for array in arrays)
    hash(structure)
    again = unflatten_batch(arrays, structure)
    assert type(again) is type(batch) or isinstance(batch, np.ndarray)
    assert flatten_batch(again)[1] == structure


def test_numbers_are_arrays_and_text_is_structure():
    arrays, structure = flatten_batch({"count": 3, "scale": 0.5, "name": "a"})
    assert [array.item() for array in arrays] == [3, 0.5]
    assert leaves(arrays, structure)["batch['name']"] == "'a'"
    assert flatten_batch({"count": 4, "scale": 0.1, "name": "a"})[1] == structure
    assert flatten_batch({"count": 4, "scale": 0.1, "name": "b"})[1] != structure


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"names": np.array(["a"])}, r"batch\['names'\] is a NumPy array of <U1"),
        ((1, {2, 3}), r"batch\[1\] is a set, expected arrays"),
    ],
)
def test_other_leaves_are_named(batch, message):
    with pytest.raises(ValueError, match=message):
        flatten_batch(batch)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"x": mx.zeros((2, 3))},
            {"x": mx.zeros((4, 3))},
            "batch['x'] was (2, 3) float32, then (4",
        ),
        ([mx.array(1)], [mx.array(1.0)], "batch[0] was () int32, then () float32"),
        ((1, "a"), (1, "b"), "batch[1] was 'a', then 'b'"),
        ({"x": 1}, {"x": 1, "y": 2}, "batch['y'] was not there, then () int32"),
        ({"x": 1, "y": 2}, {"x": 1}, "batch['y'] was () int32, then not there"),
        ([1], (1,), "its containers changed"),
    ],
)
def test_the_first_difference_is_told(first, second, message):
    told = difference(leaves(*flatten_batch(first)), leaves(*flatten_batch(second)))
    assert told.startswith(message)
