"""Waltzes are in three: their bass, their chords and their beats agree."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import waltzes  # noqa: E402


@pytest.mark.parametrize("number", range(4))
def test_the_bass_plays_on_downbeats_and_chords_change_there(number):
    parts, beats, segments = waltzes.waltz(number, count=4)
    downbeats = beats[::3]
    assert 60 / np.diff(beats) == pytest.approx((80, 116.67, 153.33, 190)[number], abs=0.01)
    assert [note.start for note in parts[0].notes] == pytest.approx(downbeats)
    starts = np.array([segment.start for segment in segments])
    assert np.abs(starts[:, None] - downbeats).min(axis=1) == pytest.approx(0, abs=1e-6)
    assert segments[-1].end == pytest.approx(beats[-1] + beats[1] - beats[0])
    assert any(part.is_drum for part in parts) == bool(number % 2)
    assert waltzes.waltz(number, count=4).segments == segments
    assert waltzes.waltz(number, count=4, seed=1).segments != segments
