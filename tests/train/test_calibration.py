"""Calibration by a temperature, on probabilities whose temperature is known."""

import numpy as np
import pytest

from audiotrain.train import calibration


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_temperature_is_fitted_on_labelled_clips(multilabel):
    """Targets are sampled from honest probabilities; with halved logits these are too careful."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 3))
    if multilabel:
        honest, careful = (1 / (1 + np.exp(-logits * share)) for share in (1, 0.5))
        targets = (rng.random(honest.shape) < honest).astype(float)
    else:
        honest, careful = (
            np.exp(share * logits) / np.exp(share * logits).sum(axis=1, keepdims=True)
            for share in (1, 0.5)
        )
        targets = np.array([rng.multinomial(1, row) for row in honest], float)
    found = calibration.fit_temperature(careful, targets, multilabel)
    assert found == pytest.approx(0.5, abs=0.04)
    sure = calibration.apply_temperature(careful, 0.5, multilabel)
    np.testing.assert_allclose(sure, honest, atol=1e-9)
