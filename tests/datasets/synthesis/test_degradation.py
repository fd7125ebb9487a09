"""Degraded copies: what is added is as loud, as pitched and as timed as it should be."""

import shutil

import numpy as np
import pytest
from scipy.signal import correlate, welch

from audiotrain.datasets.synthesis import degradation, speech
from audiotrain.features import augment
from audiotrain.features.cache import FeatureCache
from audiotrain.music.segments import Segment

RATE = 22050
CHORDS = [Segment(0, 2, "C:maj"), Segment(2, 4, "F:min"), Segment(4, 5, "N"), Segment(5, 8, "G:7")]
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def noise(seconds=8.0, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)


def fake_clips(number):
    return noise(1.5, number) * 5


def rng(seed=0):
    return np.random.default_rng(seed)


def test_copies_are_as_long_finite_and_follow_from_the_seed():
    degrader, audio = degradation.Degrader(RATE, fake_clips), noise()
    copies = [degrader(audio, CHORDS, rng(seed)) for seed in range(12)]
    for copy in copies:
        assert copy.shape == audio.shape
        assert copy.dtype == np.float32
        assert np.abs(copy).max() == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_array_equal(copies[3], degrader(audio, CHORDS, rng(3)))
    assert len({copy.tobytes() for copy in copies}) == 12


def test_silence_and_nothing_stay_what_they_are():
    degrader = degradation.Degrader(RATE, fake_clips)
    for seed in range(6):
        assert len(degrader(np.zeros(0, np.float32), [], rng(seed))) == 0
        assert np.isfinite(degrader(np.zeros(RATE, np.float32), [], rng(seed))).all()


@pytest.mark.parametrize("snr", [-6.0, 0.0, 12.0])
def test_mixed_sounds_have_the_level_that_was_asked_for(snr):
    music, added = noise(), np.zeros(8 * RATE, np.float32)
    added[RATE : 2 * RATE] = noise(1.0, 1)
    difference = degradation.mixed(music, added, snr) - music
    level = augment.rms(difference[RATE : 2 * RATE])
    assert 20 * np.log10(augment.rms(music) / level) == pytest.approx(snr, abs=0.1)
    assert not difference[: RATE - 1].any()


@pytest.mark.parametrize(("seconds", "beat"), [(2.0, 0.5), (0.6, 0.6), (0.2, 0.4), (5.6, 0.7)])
def test_beats_are_simple_parts_of_chords(seconds, beat):
    segments = [Segment(k * seconds, (k + 1) * seconds, "C:maj") for k in range(4)]
    assert degradation.beat_of(segments, rng()) == pytest.approx(beat)


def test_a_voice_sings_notes_of_the_chords_slightly_out_of_tune_and_rests_without_chords():
    segments, sung = [Segment(0, 20, "C:maj"), Segment(20, 24, "N")], []
    for seed in range(8):
        pitch, loud = degradation._melody(2400, segments, rng(seed))
        sung.append(pitch[:2000][loud[:2000] > 0])
        assert not loud[2000:].any()
    pitch = np.concatenate(sung)
    assert 0.2 < np.abs(pitch - np.round(pitch)).max() <= 0.3
    assert np.isin(np.round(pitch) % 12, [0, 4, 7]).mean() > 0.4


def test_a_voice_has_the_pitch_of_its_melody(monkeypatch):
    def constant(steps, segments, rng):
        return np.full(steps, 57.0), np.ones(steps)

    monkeypatch.setattr(degradation, "_melody", constant)
    voice = degradation.sung(4 * RATE, RATE, CHORDS, rng())
    assert voice.shape == (4 * RATE,)
    frequencies, power = welch(voice, RATE, nperseg=16384)
    harmonics = np.abs(frequencies[:, None] - 220 * np.arange(1, 20)).min(axis=1) < 40
    assert power[harmonics].sum() > 0.95 * power.sum()  # within the vibrato
    assert power[frequencies < 150].sum() < 0.01 * power.sum()


def test_drums_start_with_the_chords_and_keep_their_beat():
    segments = [Segment(1 + k, 2 + k, "C:maj") for k in range(8)]  # a beat of .5 s
    played = degradation.Degrader(RATE, fake_clips).drums(noise(9.0), segments, rng())
    assert not np.abs(played[: int(0.95 * RATE)]).any()
    envelope = np.abs(played[RATE:]).reshape(-1)[: 7 * RATE].reshape(-1, 441).mean(axis=1)
    envelope = envelope - envelope.mean()
    lags = correlate(envelope, envelope, "full")[len(envelope) :]
    assert np.argmax(lags[15:35]) + 16 == pytest.approx(25, abs=1)  # steps of .02 s


def test_a_telephone_has_no_bass_and_no_treble():
    heard = degradation.telephone(noise(), RATE, rng())
    frequencies, power = welch(heard, RATE, nperseg=4096)
    levels = [power[np.searchsorted(frequencies, hertz)] for hertz in (60, 1000, 8000)]
    assert levels[0] < 0.01 * levels[1]
    assert levels[2] < 0.05 * levels[1]


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_clipped_audio_keeps_its_share_of_samples(share):
    audio = noise()
    clipped = degradation.clipped(audio, share)
    assert (clipped == audio).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("compression", [0.55, 0.65, 0.75])
def test_mp3_costs_quality_and_no_time(compression):
    time = np.arange(4 * RATE) / RATE
    chirp = (0.3 * np.sin(2 * np.pi * (200 * time + 150 * time**2))).astype(np.float32)
    decoded = degradation.through_mp3(chirp, RATE, compression)
    assert len(decoded) == len(chirp)
    lag = np.argmax(correlate(decoded, chirp, "full", "fft")) - (len(chirp) - 1)
    assert lag == 0
    assert 0 < augment.rms(decoded - chirp) < 0.2 * augment.rms(chirp)


@needs_flite
def test_clips_of_speech_are_the_same_each_time_and_unlike_each_other(tmp_path):
    first, again, other = speech.clip(0, RATE), speech.clip(0, RATE), speech.clip(1, RATE)
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other)
    assert np.abs(first).max() == pytest.approx(1.0)
    assert 1 < len(first) / RATE < 40
    stored = speech.cached_clips(FeatureCache(tmp_path, np.float16), RATE)(0)
    np.testing.assert_allclose(stored, first, atol=1e-3)


def test_a_missing_flite_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="flite, which is not installed; `apt install flite`"):
        speech.require_flite()
