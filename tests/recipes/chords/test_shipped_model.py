"""The model that audiotrain comes with; left out where it is not installed yet."""

from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from audiotrain.datasets.synthesis.songs import SongSynthesizer
from audiotrain.music.segments import segments_to_frames
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common import checkpoints, exported

RATE = 22050
SECONDS = 60.0
SONGS = Path(__file__).parents[4] / "shared" / "data" / "pop909"
SONG = SONGS / "007.mid"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not exported.is_exported(checkpoints.PRETRAINED / "chords"), reason="no shipped model"
    ),
    pytest.mark.skipif(not SONGS.is_dir(), reason="needs ../shared/data"),
]


@pytest.fixture(scope="module")
def shipped():
    return Recognizer.pretrained()


def played(semitones: int, folder: Path) -> np.ndarray:
    """The song's first minute, moved by semitones."""
    song = pretty_midi.PrettyMIDI(str(SONG))
    for instrument in song.instruments:
        for note in () if instrument.is_drum else instrument.notes:
            note.pitch += semitones
    path = folder / f"{SONG.stem}-{semitones}.mid"
    song.write(str(path))
    samples = SongSynthesizer(RATE, 0).play_midi(path, SONG.stem, 0)
    return samples[: round(SECONDS * RATE)]


def chords(shipped: Recognizer, samples: np.ndarray, speed: float = 1.0) -> np.ndarray:
    """Chord types and roots (steps, 2) ten times a second, of music played at `speed`."""
    segments = [
        one._replace(start=one.start * speed, end=one.end * speed)
        for one in shipped(samples).segments
    ]
    return segments_to_frames(segments, round(SECONDS * 10), 0.1)[:, :2]


def same(found: np.ndarray, expected: np.ndarray) -> float:
    length = min(len(found), len(expected)) - 2
    return float((found[:length] == expected[:length]).all(axis=1).mean())


def moved(classes: np.ndarray, semitones: int) -> np.ndarray:
    types, roots = classes.T
    return np.stack([types, np.where(roots >= 0, (roots + semitones) % 12, roots)], axis=1)


@pytest.fixture(scope="module")
def original(shipped, tmp_path_factory):
    samples = played(0, tmp_path_factory.mktemp("song"))
    return samples, chords(shipped, samples)


@pytest.mark.parametrize("semitones", [-6, -3, 1, 6])
def test_a_transposed_song_has_the_transposed_chords(shipped, original, semitones, tmp_path):
    found = chords(shipped, played(semitones, tmp_path))
    assert same(found, moved(original[1], semitones)) >= 0.97


@pytest.mark.parametrize("cents", [-40, -25, 15, 40])
def test_a_detuned_song_has_the_same_chords(shipped, original, cents):
    samples, expected = original
    speed = 2 ** (cents / 1200)
    times = np.arange(0, len(samples) - 1, speed)
    detuned = np.interp(times, np.arange(len(samples)), samples).astype(np.float32)
    prediction = shipped(detuned)
    assert prediction.tuning == pytest.approx(cents / 100, abs=0.051)
    assert same(chords(shipped, detuned, speed), expected) >= 0.97
