"""Log-mel against librosa, and whole recordings against one transform of all their samples."""

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.features import audio
from audiotrain.features import extract as features
from audiotrain.features.cqt import CQTSettings
from audiotrain.features.extract import extract, feature_blocks
from audiotrain.features.log_mel import LogMel, LogMelSettings, mel_filters

MEL_SETTINGS = {
    "slaney": LogMelSettings(),
    "htk": LogMelSettings(htk=True, slaney_norm=False, n_fft=1024, hop=320, mels=64, fmin=50.0),
    "48 kHz": LogMelSettings(48000, 1024, 480, 64, 50.0, 14000.0, pad_mode="reflect"),
    "range of 80 dB": LogMelSettings(top_db=80.0),
}
SETTINGS = {
    "cqt": CQTSettings(),
    "fine cqt": CQTSettings(hop=512, bins=252, bins_per_octave=36),
    "mel": LogMelSettings(),
}


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples, np.float32) * 0.1


def librosa_mel(settings: LogMelSettings, samples: np.ndarray) -> np.ndarray:
    librosa = pytest.importorskip("librosa")
    power = librosa.feature.melspectrogram(
        y=samples,
        sr=settings.rate,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        n_mels=settings.mels,
        fmin=settings.fmin,
        fmax=settings.fmax,
        htk=settings.htk,
        norm="slaney" if settings.slaney_norm else None,
        pad_mode=settings.pad_mode,
    )
    return librosa.power_to_db(power, top_db=settings.top_db).T


@pytest.mark.parametrize("name", MEL_SETTINGS)
def test_mel_filters_are_as_in_librosa(name):
    librosa = pytest.importorskip("librosa")
    settings = MEL_SETTINGS[name]
    expected = librosa.filters.mel(
        sr=settings.rate,
        n_fft=settings.n_fft,
        n_mels=settings.mels,
        fmin=settings.fmin,
        fmax=settings.fmax,
        htk=settings.htk,
        norm="slaney" if settings.slaney_norm else None,
    )
    np.testing.assert_allclose(mel_filters(settings).T, expected, atol=1e-7)


@pytest.mark.parametrize("name", MEL_SETTINGS)
def test_log_mel_is_as_in_librosa(name, shared_data):
    settings = MEL_SETTINGS[name]
    paths = [*shared_data.glob("guitarset-clip/*.flac"), *sorted(shared_data.glob("esc10/*"))[:2]]
    assert len(paths) == 3
    for path in paths:
        samples = audio.read(path, settings.rate, seconds=5.0)
        ours = np.array(LogMel(settings)(mx.array(samples)[None])[0])
        theirs = librosa_mel(settings, samples)
        assert ours.shape == theirs.shape
        audible = theirs > theirs.max() - 80
        assert np.abs(ours - theirs)[audible].max() < 0.02
        assert np.abs(ours - theirs).mean() < 1e-3


def test_log_mel_of_noise_is_as_in_librosa_and_alike_in_a_batch():
    settings = LogMelSettings()
    batch = np.stack([noise(22050, seed) for seed in range(3)])
    together = np.array(LogMel(settings)(mx.array(batch)))
    for samples, decibels in zip(batch, together, strict=True):
        np.testing.assert_allclose(decibels, librosa_mel(settings, samples), atol=2e-3)


def test_silence_is_the_floor():
    decibels = np.array(LogMel(LogMelSettings())(mx.zeros((1, 22050))))
    np.testing.assert_allclose(decibels, -100, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fmin": 900.0, "fmax": 800.0}, r"fmin=900.0 and fmax=800.0 Hz, expected 0 <= fmin"),
        ({"fmax": 20_000.0}, r"fmax=20000.0 Hz, expected .* <= 11025"),
        ({"pad_mode": "wrap"}, "pad_mode='wrap', expected 'constant' or 'reflect'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LogMel(LogMelSettings(**changes))(mx.zeros((1, 8000)))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("block_seconds", [0.01, 1.0, 7.7, 60.0])
def test_blocks_equal_the_whole(tmp_path, name, block_seconds):
    settings = SETTINGS[name]
    samples = noise(20 * 22050 + 777)
    whole = np.array(features.front_end(settings)(mx.array(samples)[None])[0])
    if block_seconds == 0.01:  # a block a frame is slow
        samples, whole = samples[: 22050 + 5], None
        whole = np.array(features.front_end(settings)(mx.array(samples)[None])[0])
    path = tmp_path / "x.wav"
    audio.write(path, samples, 22050)
    for source in (samples, path):
        blocks = extract(source, settings, block_seconds)
        assert blocks.dtype == np.float32
        assert blocks.shape == whole.shape
        np.testing.assert_allclose(blocks, whole, atol=1e-5 * np.abs(whole).max())


def test_blocks_that_end_with_a_frame_can_be_reflected():
    settings = LogMelSettings(n_fft=2048, hop=512, pad_mode="reflect")
    samples = noise(512 * 80)
    whole = np.array(LogMel(settings)(mx.array(samples)[None])[0])
    np.testing.assert_allclose(extract(samples, settings, 512 * 16 / 22050), whole, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 22050 * 5])
def test_every_length_gives_its_frames(samples):
    for settings in SETTINGS.values():
        assert len(extract(noise(samples), settings, 2.0)) == 1 + samples // settings.hop


def test_frame_times_do_not_drift_in_ten_minutes(tmp_path):
    rate, settings = 24000, CQTSettings(hop=512, bins=84, bins_per_octave=12)
    seconds = np.array([1.0, 123.4, 300.0, 456.7, 599.0])
    samples = np.zeros(600 * rate, np.float32)
    burst = np.hanning(rate // 10) * np.sin(2 * np.pi * 880 * np.arange(rate // 10) / rate)
    for second in seconds:
        first = round(second * rate) - len(burst) // 2
        samples[first : first + len(burst)] = burst
    path = tmp_path / "long.wav"
    audio.write(path, samples, rate)
    energy = extract(path, settings)[:, 57]  # A5
    assert len(energy) == 1 + 600 * 22050 // 512
    for second in seconds:
        expected = second * 22050 / 512
        near = np.arange(round(expected) - 20, round(expected) + 21)
        centre = (near * energy[near]).sum() / energy[near].sum()
        assert centre == pytest.approx(expected, abs=0.05)


def test_the_first_block_comes_before_the_file_is_read(monkeypatch):
    pieces = []

    def endless(path, rate, block_seconds, on_missing):
        while True:
            pieces.append(noise(round(block_seconds * rate)))
            yield pieces[-1]

    monkeypatch.setattr(features.audio_files, "stream", endless)
    blocks = feature_blocks("endless.wav", CQTSettings(), 20.0)
    for _ in range(5):
        assert next(blocks).shape[1] == 144
    assert len(pieces) <= 8


def test_extracting_works_in_a_thread():
    import threading

    results = []
    samples = noise(22050)
    thread = threading.Thread(target=lambda: results.append(extract(samples, CQTSettings())))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], extract(samples, CQTSettings()))


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (noise(9), LogMelSettings(top_db=80.0), "extract needs top_db=None"),
        (np.zeros((2, 9), "f"), CQTSettings(), r"audio of shape \(2, 9\), expected \(samples,\)"),
        (np.zeros(0, "f"), CQTSettings(), r"audio of shape \(0,\), expected \(samples,\)"),
    ],
)
def test_what_cannot_be_extracted_is_refused(source, settings, message):
    with pytest.raises(ValueError, match=message):
        extract(source, settings)


def test_real_recordings_by_block_and_by_file(shared_data):
    path = next(shared_data.glob("guitarset-clip/*.flac"))
    samples = audio.read(path, 22050)
    for settings in SETTINGS.values():
        whole = np.array(features.front_end(settings)(mx.array(samples)[None])[0])
        np.testing.assert_allclose(extract(path, settings, 3.0), whole, atol=1e-3)
