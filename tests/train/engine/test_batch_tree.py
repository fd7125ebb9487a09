from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.train.engine.batch_tree import (
    TextOutsideStep,
    difference,
    first_axes,
    flatten_batch,
    leaves,
    unflatten_batch,
)

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
    arrays, structure, texts = flatten_batch(batch)
    assert all(isinstance(array, mx.array) for array in arrays)
    hash(structure)
    again = unflatten_batch(arrays, structure, texts)
    assert type(again) is type(batch) or isinstance(batch, np.ndarray)
    assert flatten_batch(again)[1] == structure


def test_numbers_are_arrays_and_text_is_neither_array_nor_structure():
    arrays, structure, texts = flatten_batch({"count": 3, "scale": 0.5, "name": "a"})
    assert [array.item() for array in arrays] == [3, 0.5]
    assert texts == ["a"]
    assert leaves(arrays, structure)["batch['name']"] == "text"
    assert flatten_batch({"count": 4, "scale": 0.1, "name": "b"})[1] == structure
    assert flatten_batch({"count": 4, "scale": 0.1, "name": None})[1] != structure


@pytest.mark.parametrize(
    "number", [True, 3, 2**40, 2**63, 0.5, 1j, np.float64(0.5), np.int16(3), np.bool_(True)]
)
def test_numbers_of_all_kinds_are_traced(number):
    (array,), structure, texts = flatten_batch((number,))
    assert array.item() == number
    assert (structure, texts) == ((tuple, (0,), ("array",)), [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["a.wav", "b.wav"], ["c.wav", "d.wav"]),
        ([["rain"], []], [["dog", "bark"], ["car"]]),
        ({"artist": "x", "title": None}, {"artist": None, "title": "y", "album": "z"}),
        (Pair("x", "y"), Pair(None, "y")),
        (np.array(["a"]), np.array(["longer", "text"])),
        (np.array(["a"], object), ["b"]),
        (b"one", b"two"),
        (Path("a.wav"), Path("b.wav")),
    ],
)
def test_text_of_any_shape_leaves_the_structure_as_it_is(first, second):
    arrays, structure, texts = flatten_batch({"x": np.ones(2), "about": first})
    assert len(arrays) == len(texts) == 1
    assert unflatten_batch(arrays, structure, texts)["about"] is first
    assert flatten_batch({"x": np.ones(2), "about": second})[1] == structure


@pytest.mark.parametrize(
    "use",
    [
        str,
        len,
        list,
        bool,
        hash,
        "{}".format,
        Path,
        lambda text: text == "a",
        lambda text: "a" in text,
        lambda text: text[0],
        lambda text: text.lower(),
        lambda text: {"a": 1}[text],
        lambda text: text + "b",
    ],
)
def test_text_in_a_compiled_function_says_how_to_get_it(use):
    arrays, structure, _ = flatten_batch({"x": np.ones(2), "names": ["a", "b"]})
    text = unflatten_batch(arrays, structure)["names"]
    assert repr(text) == "<text of batch['names']>"
    with pytest.raises(TypeError, match=r"^batch\['names'\] is text, .* collate_fn.*compile=False"):
        use(text)


def test_text_that_stands_for_text_passes_on():
    text = TextOutsideStep("batch['name']")
    (same,) = flatten_batch({"name": text})[2]
    assert same["name"] is text


class Own:
    """A batch of one's own, equal to itself alone."""


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            {"when": np.array(["2024-01-01"], "M8[D]")},
            r"batch\['when'\] is a NumPy array of datetime",
        ),
        (
            {"x": np.array([{}, 1], object)},
            r"batch\['x'\] is a NumPy array of object, expected num",
        ),
        ((1, {2, 3}), r"batch\[1\] is a set, expected arrays, numbers, text, or dicts, lists"),
        (Own(), r"batch is a Own, expected arrays"),
        ({"more": [Own()]}, r"batch\['more'\]\[0\] is a Own, expected arrays"),
        ({"f": len}, r"batch\['f'\] is a builtin_function_or_method, expected arrays"),
        ({"id": 2**64}, r"batch\['id'\] is a NumPy array of object, expected numbers or text"),
    ],
)
def test_other_leaves_are_named(batch, message):
    with pytest.raises(ValueError, match=message):
        flatten_batch(batch)


def test_first_axes_are_those_of_arrays_that_have_one():
    arrays, structure, _ = flatten_batch({"n": 3, "x": np.ones((2, 4)), "y": [np.ones(5)]})
    assert first_axes(arrays, structure) == {"batch['x']": 2, "batch['y'][0]": 5}


def torch_tensors() -> dict:
    """Tensors that NumPy does not take as they are, and the numbers that they hold."""
    torch = pytest.importorskip("torch")
    rows = torch.arange(6.0).reshape(2, 3)
    return {
        "plain": (rows, rows.tolist()),
        "gradient": (rows.clone().requires_grad_(), rows.tolist()),
        "parameter": (torch.nn.Parameter(rows), rows.tolist()),
        "transposed": (rows.T[::2], rows.T[::2].tolist()),
        "bfloat16": (rows.bfloat16(), rows.tolist()),
        "half": (rows.half(), rows.tolist()),
        "sparse": (rows.to_sparse(), rows.tolist()),
        "whole": (torch.tensor([2**40, -1]), [2**40, -1]),
        "bool": (rows > 2, (rows > 2).tolist()),
        "conjugate": (torch.tensor([1 + 2j]).conj(), [1 - 2j]),
        "number": (torch.tensor(7), 7),
    }


def test_tensors_of_pytorch_are_arrays():
    for name, (tensor, numbers) in torch_tensors().items():
        (array,), structure, texts = flatten_batch({name: tensor})
        assert array.tolist() == numbers, name
        assert (structure[2], texts) == (("array",), []), name


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"x": mx.zeros((2, 3))},
            {"x": mx.zeros((4, 3))},
            "batch['x'] was (2, 3) float32, then (4",
        ),
        ([mx.array(1)], [mx.array(1.0)], "batch[0] was () int32, then () float32"),
        ((1, "a"), (1, None), "batch[1] was text, then nothing"),
        ({"x": 1}, {"x": 1, "y": 2}, "batch['y'] was not there, then () int32"),
        ({"x": 1, "y": 2}, {"x": 1}, "batch['y'] was () int32, then not there"),
        ([1], (1,), "its containers changed"),
    ],
)
def test_the_first_difference_is_told(first, second, message):
    told = difference(leaves(*flatten_batch(first)[:2]), leaves(*flatten_batch(second)[:2]))
    assert told.startswith(message)
