"""The model that audiotrain comes with; left out where it is not installed yet."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from audiotrain.datasets.synthesis import midi, render
from audiotrain.evaluation.chords import aggregate_scores
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common import checkpoints, exported

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import chord_transposition as bench  # noqa: E402

SECONDS = 45.0
SHIPPED = checkpoints.PRETRAINED / "chords"
SONGS = Path(__file__).parents[4] / "shared" / "data" / "pop909"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not exported.is_exported(SHIPPED), reason="no shipped model"),
    pytest.mark.skipif(not SONGS.is_dir(), reason="needs ../shared/data"),
]


@pytest.fixture(scope="module")
def shipped():
    return Recognizer.pretrained()


@pytest.fixture(scope="module")
def songs(shipped):
    """The beginnings of six songs that the model was not trained on, and its answers."""
    description = json.loads((SHIPPED / exported.DESCRIPTION).read_text("utf-8"))
    names = description["trained_on"]["songs"]["valid"][::6]
    arrangements = [midi.read_midi(SONGS / name) for name in names]
    return [(parts, shipped(played(shipped, parts)).segments) for parts in arrangements]


def played(shipped: Recognizer, parts: list, cents: float = 0.0) -> np.ndarray:
    rate = shipped.settings.rate
    return render.render(parts, rate, cents=cents)[: round(SECONDS * rate)]


def summed(scores: list[dict[str, float]]) -> dict[str, float]:
    return aggregate_scores(scores)["corpus"] | {"type": bench.weighted(scores)}


@pytest.mark.parametrize("semitones", [-6, 1, 6])
def test_transposed_songs_have_the_transposed_chords(shipped, songs, semitones):
    scores = [
        bench.agreement(
            bench.moved(expected, semitones),
            shipped(played(shipped, bench.with_notes_moved(parts, semitones))).segments,
        )
        for parts, expected in songs
    ]
    found = summed(scores)
    assert found["root"] >= 0.97
    assert found["majmin"] >= 0.95  # other notes of the instruments sound otherwise, too


@pytest.mark.parametrize("cents", [-40, 25])
def test_detuned_songs_have_the_same_chords(shipped, songs, cents):
    scores = []
    for parts, expected in songs:
        prediction = shipped(played(shipped, parts, cents))
        assert prediction.tuning == pytest.approx(cents / 100, abs=0.051)
        scores.append(bench.agreement(expected, prediction.segments))
    assert summed(scores)["type"] >= 0.97


def test_recordings_moved_by_a_fourth_have_the_moved_chords(shipped, songs):
    scores = [
        bench.agreement(
            bench.moved(expected, 5), shipped(played(shipped, parts, cents=500)).segments
        )
        for parts, expected in songs
    ]
    found = summed(scores)
    assert found["majmin"] >= 0.97
    assert found["type"] >= 0.94
