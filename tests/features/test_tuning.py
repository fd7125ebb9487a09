"""The tuning of recordings: closed forms, librosa, and 0 where there is none."""

import csv
from pathlib import Path

import numpy as np
import pytest

from audiotrain.datasets.synthesis.songs import SongSynthesizer
from audiotrain.features import audio
from audiotrain.features.tuning import STEP, agreed_tuning, lasting_peaks, tuning_of

RATE = 22050
DATA = Path(__file__).parents[3] / "shared" / "data"


def chord(cents: float, notes=(0, 4, 7), seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """Notes above A = 220 Hz, `cents` sharp, with five partials that get softer."""
    time = np.arange(round(seconds * rate)) / rate
    tones = [220 * 2 ** ((note + cents / 100) / 12) for note in notes]
    waves = [np.sin(2 * np.pi * tone * n * time) / n**2 for tone in tones for n in range(1, 6)]
    return (np.sum(waves, axis=0) / 10).astype(np.float32)


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (level * samples).astype(np.float32)


@pytest.mark.parametrize("cents", [-45, -40, -20, -5, 0, 5, 30, 40, 45])
def test_a_chord_has_the_tuning_that_it_was_made_with(cents):
    assert tuning_of(chord(cents), RATE) == pytest.approx(cents / 100, abs=1e-9)
    assert 100 * agreed_tuning(*lasting_peaks(chord(cents), RATE)) == pytest.approx(cents, abs=1.5)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_rate_does_not_matter(rate):
    assert tuning_of(chord(20, rate=rate), rate) == pytest.approx(0.2, abs=1e-9)


def test_tones_without_partials_are_enough(tmp_path):
    time = np.arange(RATE * 4) / RATE
    for cents in (0, 30, -40):
        tones = [220 * 2 ** ((note + cents / 100) / 12) for note in (0, 4, 7, 12)]
        samples = sum(np.sin(2 * np.pi * tone * time) for tone in tones).astype(np.float32) / 8
        audio.write(tmp_path / "a.wav", samples, RATE)
        for source in (samples, tmp_path / "a.wav"):
            assert tuning_of(source, RATE) == pytest.approx(cents / 100, abs=1e-9)


def test_a_long_file_is_read_in_places(tmp_path, monkeypatch):
    samples = np.concatenate([chord(20, seconds=8) for _ in range(5)])
    audio.write(tmp_path / "a.wav", samples, RATE)
    read, spans = audio.read, []

    def noted(path, rate, start, seconds, on_missing):
        spans.append((start, seconds))
        return read(path, rate, start, seconds)

    monkeypatch.setattr(audio, "read", noted)
    assert tuning_of(tmp_path / "a.wav", RATE) == tuning_of(samples, RATE) == pytest.approx(0.2)
    assert spans == [(4.375, 5.0), (13.125, 5.0), (21.875, 5.0), (30.625, 5.0)]


def glide(seconds: float) -> np.ndarray:
    """A voice that glides over two octaves."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 150 * 2 ** (1 + np.sin(2 * np.pi * 0.4 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return sum(np.sin(n * phase) / n for n in range(1, 9)).astype(np.float32) / 10


def drums(seconds: float) -> np.ndarray:
    """A drum of two modes, and noise, twice a second."""
    time = np.arange(RATE // 2) / RATE
    modes = np.sin(2 * np.pi * 187 * time) + np.sin(2 * np.pi * 331 * time)
    hit = (modes + noise(0.5, 1.0)) * np.exp(-time * 12) / 4
    return np.tile(hit, round(seconds * 2)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE * 5, np.float32),
        np.zeros(1, np.float32),
        noise(30.0),
        glide(30.0),
        drums(30.0),
        chord(30, notes=(0,)),  # one note may be sung or hummed at any pitch
        1e-6 * chord(30),
    ],
    ids=["silence", "a sample", "noise", "glide", "drums", "one note", "all but silence"],
)
def test_where_there_is_none_it_is_zero(samples):
    assert tuning_of(samples, RATE) == 0


@pytest.mark.parametrize("snr", [None, 10, 0])
def test_songs_in_noise_are_found_as_well_as_by_librosa(snr):
    import librosa

    song = SongSynthesizer(RATE, 0).compose(1, 30.0, ())[0]
    in_place = librosa.estimate_tuning(y=song, sr=RATE)
    for cents in (-40, -15, 25):
        # The same samples at another rate are sharp.
        times = np.arange(0, len(song) - 1, 2 ** (cents / 1200))
        samples = np.interp(times, np.arange(len(song)), song).astype(np.float32)
        if snr is not None:
            level = samples.std() * 10 ** (-snr / 20)
            samples = samples + noise(len(samples) / RATE, float(level))[: len(samples)]
        expected = in_place + cents / 100
        difference = (tuning_of(samples, RATE) - expected + 0.5) % 1 - 0.5
        assert abs(difference) <= 0.06


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_recordings():
    with open(DATA / "guitar-chords" / "labels.csv", newline="") as table:
        guitars = [row["file"] for row in csv.DictReader(table)][::25]
    found = [tuning_of(DATA / "guitar-chords" / name, RATE) for name in guitars]
    assert len(found) == 20
    assert np.mean(np.abs(np.subtract(found, 0.05)) < 0.101) >= 0.95  # all were tuned alike
    with open(DATA / "esc10" / "metadata.csv", newline="") as table:
        sounds = [row["file_name"] for row in csv.DictReader(table)][::8]
    assert np.mean([tuning_of(DATA / "esc10" / name, RATE) == 0 for name in sounds]) >= 0.95
    assert len(sounds) == 40


def test_it_is_rounded():
    assert round(tuning_of(chord(17), RATE) / STEP, 6) == 3
