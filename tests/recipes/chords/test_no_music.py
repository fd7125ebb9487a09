"""The shipped model on sounds without chords, which become N, and on chords, which stay.

benchmarks/chord_no_music.py has speech, more of each, and what the rule costs songs.
"""

import numpy as np
import pytest

from audiotrain.datasets.synthesis import arrangement, render, sound_events
from audiotrain.datasets.synthesis.soundfont import general_midi
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common import checkpoints, exported

SHIPPED = checkpoints.PRETRAINED / "chords"
SECONDS = 8.0

pytestmark = pytest.mark.skipif(not exported.is_exported(SHIPPED), reason="no shipped model")


@pytest.fixture(scope="module")
def shipped():
    return Recognizer.pretrained()


def voiced(rng, rate):
    """Syllables like speech: a buzz that glides, with formants and pauses."""
    time = np.arange(round(SECONDS * rate)) / rate
    pitch = 120 + 40 * np.interp(time, np.arange(0, SECONDS + 1, 0.15), rng.normal(size=60)[:60])
    phase = np.cumsum(pitch) / rate
    buzz = sum(np.cos(2 * np.pi * k * phase) / k for k in range(1, 25))
    loud = np.interp(time, np.arange(0, SECONDS + 1, 0.1), rng.uniform(0, 1, 90))
    return (buzz * np.maximum(0, loud - 0.3)).astype(np.float32)


def applause(rng, rate):
    canvas = sound_events.Canvas(rng, rate, SECONDS, 1.0, 150)
    return sound_events.KINDS["applause"].sound(canvas).astype(np.float32)


def drums(rng, rate):
    part = arrangement.drum_part(rng, 0.0, SECONDS, 0.5)
    return render.render([part], rate, 0.0, [general_midi()])


def noise(rng, rate):
    return rng.normal(size=round(SECONDS * rate)).astype(np.float32)


def chords(rng, rate, level=1.0):
    """C, G, A minor and F by a piano, two seconds each."""
    notes = [
        (2.0 * bar, 1.9, pitch, 80)
        for bar, pitches in enumerate(
            [(48, 64, 67, 72), (43, 62, 67, 71), (45, 60, 64, 69), (41, 60, 65, 69)]
        )
        for pitch in pitches
    ]
    return np.float32(level) * render.render([arrangement.Part(0, notes)], rate)


def share_of_none(prediction):
    none = sum(one.end - one.start for one in prediction.segments if one.label == "N")
    return none / prediction.seconds


@pytest.mark.parametrize("make", [voiced, applause, drums, noise])
def test_sounds_without_chords_are_n(shipped, make):
    sound = at_half(make(np.random.default_rng(0), shipped.settings.rate))
    assert share_of_none(shipped(sound)) >= 0.9


@pytest.mark.parametrize("level", [1.0, 0.01])
def test_chords_stay_as_soft_as_they_may_be(shipped, level):
    sound = chords(None, shipped.settings.rate, level)
    labels = [one.label for one in shipped(sound).segments if one.end - one.start > 1]
    assert labels[:4] == ["C:maj", "G:maj", "A:min", "F:maj"]


def test_a_spoken_intro_and_noise_at_the_end_are_n(shipped):
    rng, rate = np.random.default_rng(0), shipped.settings.rate
    parts = [at_half(make(rng, rate)) for make in (voiced, chords, noise)]
    found = shipped(np.concatenate(parts)).segments
    assert [found[0].label, found[-1].label] == ["N", "N"]
    assert found[0].end == pytest.approx(len(parts[0]) / rate, abs=0.3)
    assert found[-1].start == pytest.approx(sum(map(len, parts[:2])) / rate, abs=1.5)


def at_half(sound):
    return np.float32(0.5) * sound / np.abs(sound).max()
