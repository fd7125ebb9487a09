"""Onset strengths and times moved to onsets."""

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiotrain.datasets.synthesis import midi, render
from audiotrain.features import audio
from audiotrain.features.cqt import CQTSettings
from audiotrain.features.extract import extract
from audiotrain.features.onsets import REACH, Onsets, step_of, to_onsets
from audiotrain.music import segments as harmony

RATE, HOP = 22050, 2048


def strengths_of(samples, rate=RATE, hop=HOP, piece=None):
    onsets = Onsets(rate, hop)
    for start in range(0, len(samples), piece or len(samples)):
        onsets.add(samples[start : start + (piece or len(samples))])
    return onsets.strengths()


def chords_at(times, seconds, rate=RATE, decay=3.0):
    """Three decaying tones from each time on."""
    samples = np.zeros(int(seconds * rate), np.float32)
    for number, time in enumerate(times):
        begin = int(time * rate)
        clock = np.arange(len(samples) - begin) / rate
        for pitch in (48, 52, 55):
            frequency = 440 * 2 ** ((pitch + 5 * (number % 3) - 57) / 12)
            samples[begin:] += 0.1 * np.sin(2 * np.pi * frequency * clock) * np.exp(-decay * clock)
    return samples


@pytest.mark.parametrize(
    ("rate", "hop", "step"), [(22050, 2048, 256), (44100, 512, 512), (8000, 441, 63), (1000, 7, 7)]
)
def test_frames_fall_on_steps(rate, hop, step):
    assert step_of(rate, hop) == step / rate
    samples = np.random.default_rng(0).normal(size=rate).astype(np.float32)
    assert len(strengths_of(samples, rate, hop)) == 1 + rate // step


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_chords_are_found_where_they_begin(rate):
    true = np.array([0.7, 1.33, 2.01, 2.5, 3.412])
    strengths = strengths_of(chords_at(true, 4.5, rate), rate, 2048)
    late = np.array([0.05, -0.06, 0.04, -0.09, 0.08])
    moved = to_onsets(true + late, strengths, step_of(rate, 2048))
    assert np.abs(moved - true).max() < 0.025


def test_pieces_do_not_matter():
    samples = chords_at([0.3, 0.9], 1.5)
    whole = strengths_of(samples)
    for piece in (1, 777, 4096):
        np.testing.assert_allclose(strengths_of(samples, piece=piece), whole, atol=1e-4)


def test_features_pass_on_what_they_hear(tmp_path):
    samples = chords_at([0.3, 0.9], 95.0)
    audio.write(tmp_path / "a.flac", samples, RATE)
    for source in (samples, tmp_path / "a.flac"):
        pieces = []
        extract(source, CQTSettings(), on_samples=pieces.append)
        np.testing.assert_allclose(np.concatenate(pieces), samples, atol=1e-4)


def test_silence_and_steady_sound_move_nothing():
    times = np.array([0.5, 1.0])
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32)
    for samples in (np.zeros(3 * RATE, np.float32), tone):
        assert np.array_equal(to_onsets(times, strengths_of(samples), step_of(RATE, HOP)), times)
    assert np.array_equal(to_onsets(times, np.zeros(0), 0.01), times)


@given(
    gaps=st.lists(st.floats(0.01, 2), min_size=1, max_size=20),
    seed=st.integers(0, 99),
)
def test_order_stays_and_no_time_goes_far(gaps, seed):
    times = np.cumsum(gaps)
    step = 0.0116
    rng = np.random.default_rng(seed)
    strengths = rng.exponential(size=int(times[-1] / step) + 3) ** 3
    moved = to_onsets(times, strengths, step)
    assert np.all(np.diff(moved) > 0)
    assert np.abs(moved - times).max() <= REACH
    assert moved[0] > 0
    assert moved[-1] < max(times[-1] + 1e-9, (len(strengths) - 1) * step)


@pytest.mark.parametrize(("rate", "hop"), [(RATE, HOP), (44100, 4096), (16000, 1024), (8000, 800)])
def test_labels_of_songs_begin_at_their_onsets(shared_data, rate, hop):
    """Changes of POP909's labels, rounded to frames, are found again to some milliseconds."""
    rounded, moved = [], []
    for number in ("001", "113", "213"):
        samples = render.render(midi.read_midi(shared_data / f"pop909/{number}.mid"), rate)
        segments = harmony.read_lab(shared_data / f"pop909/{number}.lab").segments
        true = np.array([segment.start for segment in segments[1:]])
        frames = (np.ceil(true * RATE / HOP) - 0.5) * HOP / RATE
        onsets = to_onsets(frames, strengths_of(samples, rate, hop), step_of(rate, hop))
        rounded.append(frames - true)
        moved.append(onsets - true)
    rounded, moved = np.concatenate(rounded), np.concatenate(moved)
    assert np.median(np.abs(moved)) < 0.0035 < 0.01 < np.median(np.abs(rounded))
    assert np.abs(moved).mean() < 0.6 * np.abs(rounded).mean()
    assert abs(np.median(moved)) < 0.0015  # neither early nor late


def test_strengths_rise_and_fall_as_librosas(shared_data):
    samples = audio.read(shared_data / "guitarset-clip/00_BN1-129-Eb_comp.flac", RATE)
    theirs = librosa.onset.onset_strength(
        y=samples, sr=RATE, hop_length=256, n_fft=1024, n_mels=40, fmax=6000
    )
    ours = strengths_of(samples)
    later = 1024 // (2 * 256)  # librosa moves them by half a window
    assert len(ours) == len(theirs)
    assert np.corrcoef(ours[:-later], theirs[later:])[0, 1] > 0.85
