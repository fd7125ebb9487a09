from collections import namedtuple
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.batch import constants, flatten_batch, unflatten_batch

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
    assert list(constants(structure)) == [("batch['name']", "a")]
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
