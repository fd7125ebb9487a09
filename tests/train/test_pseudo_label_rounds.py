"""Pseudo-labels: confident predictions, and rounds that end when they no longer help."""

import numpy as np
import pytest

from audiotrain.train.calibration import apply_temperature, fit_temperature
from audiotrain.train.pseudo_labels import LabelledItems, select, train_in_rounds

VALID = np.array([[0.7, 0.3], [0.4, 0.6], [0.8, 0.2], [0.6, 0.4]])
TARGETS = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)


@pytest.mark.parametrize("multilabel", [False, True])
def test_labels_are_classes_whose_calibrated_probability_reaches_its_threshold(multilabel):
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]])
    known = VALID, TARGETS
    temperature = fit_temperature(*known, multilabel)
    expected = apply_temperature(probabilities, temperature, multilabel)
    labels, calibrated = select(probabilities, np.array([0.3, 0.6]), known, multilabel)
    np.testing.assert_array_equal(calibrated, expected)
    assert temperature != 1
    reaches = expected >= [0.3, 0.6]
    if not multilabel:
        reaches &= np.array([[True, False], [True, False], [False, True]])
    np.testing.assert_array_equal(labels, reaches)
    assert 0 < labels.sum() < labels.size


@pytest.mark.parametrize(
    ("labels", "scores", "mode", "expected", "printed"),
    [
        ("abc", [0.5, 0.7, 0.6, 0.9], "max", 3, "the validation score fell: 0.600 after 0.700"),
        ("abc", [0.5, 0.3, 0.4, 0.1], "min", 3, "the validation score rose: 0.400 after 0.300"),
        ("aab", [0.5, 0.7, 0.8], "max", 2, "no round 2: the same labels"),
        (["a", ""], [0.5, 0.7], "max", 2, "no round 2: no label reaches its threshold"),
        ("abc", [1, 2, 3, 4], "max", 4, ""),
    ],
)
def test_rounds_end_when_they_no_longer_help(labels, scores, mode, expected, printed, capsys):
    given = []

    def train(number, found):
        given.append(found)
        return scores[number]

    found = train_in_rounds(3, train, lambda number: labels[number - 1], mode)
    assert found == scores[:expected]
    assert given == [None, *labels][:expected]
    assert printed in capsys.readouterr().out


def test_unlabelled_items_become_items_like_the_labelled_ones():
    x = np.eye(3)
    of_tuples = LabelledItems(x, {2: 1}, (x[0], np.int64(0)), None)
    assert len(of_tuples) == 1
    assert of_tuples[0][0].tolist() == [0, 0, 1]
    assert (of_tuples[0][1], of_tuples[0][1].dtype) == (1, np.int64)
    items = [{"x": row, "weight": 2.0} for row in x]
    example = {"x": x[0], "y": 0, "weight": 1.0}
    (item,) = LabelledItems(items, {0: 1}, example, None)
    assert (item["x"].tolist(), item["y"], item["weight"]) == ([1, 0, 0], 1, 2.0)
    both = [{"x": row, "y": 5} for row in x]
    with pytest.raises(ValueError, match="target is None, expected the label's key among x, y"):
        LabelledItems(both, {0: 1}, {"x": x[0], "y": 0}, None)
    assert LabelledItems(both, {0: 1}, {"x": x[0], "y": 0}, "y")[0]["y"] == 1
    with pytest.raises(ValueError, match="an item is a ndarray, expected .x, class. or a dict"):
        LabelledItems(x, {0: 1}, x[0], None)
