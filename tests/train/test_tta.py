"""Test-time augmentation: each item by each transform, and the means of the predictions."""

import numpy as np
import pytest

from audiotrain import DataLoader
from audiotrain.train.tta import TransformedLoader, means


def test_predictions_for_the_transforms_of_a_batch_are_averaged():
    loader = DataLoader(np.arange(6.0), batch_size=4, mlx_transforms=())
    both = list(TransformedLoader(loader, [None, lambda batch: 10 * batch]))
    assert [batch.tolist() for batch in both] == [[0, 1, 2, 3], [0, 10, 20, 30], [4, 5], [40, 50]]
    assert [mean.tolist() for mean in means(both, 2)] == [[0, 5.5, 11, 16.5], [22, 27.5]]


def test_what_is_no_array_is_refused():
    with pytest.raises(ValueError, match="tta: predict_step gave a dict, expected an array"):
        means([{}, {}], 2)
