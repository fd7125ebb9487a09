"""The constant-Q transform against closed forms, and against librosa 0.11 and 1.0."""

import warnings

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.features import audio
from audiotrain.features.cqt import CQT, CQTSettings, frame_count

F_SHARP_0 = 23.124651418947145  # Hz
SETTINGS = {
    "144 bins": CQTSettings(),
    "252 bins": CQTSettings(hop=512, bins=252, bins_per_octave=36),
    "84 bins": CQTSettings(hop=512, bins=84, bins_per_octave=12),
    "margin bins": CQTSettings(bins=168, fmin=F_SHARP_0),
    "44.1 kHz": CQTSettings(rate=44100),
    "up to Nyquist": CQTSettings(hop=512, bins=200),
    "odd hop": CQTSettings(hop=441, bins=84, bins_per_octave=12),
}
MUSIC = ("guitarset-clip/*.flac", "piano-chords/*.flac", "guitar-chords/*.flac")
SOUNDS = ("berklee/*.mp3", "esc10/*.ogg")


def transform(settings: CQTSettings, samples: np.ndarray) -> np.ndarray:
    return np.array(CQT(settings)(mx.array(samples)[None])[0])


def reference(settings: CQTSettings, samples: np.ndarray) -> np.ndarray:
    librosa = pytest.importorskip("librosa")
    if settings == SETTINGS["up to Nyquist"] and librosa.__version__.startswith("0."):
        pytest.skip("librosa 0.11 decimates by a filter that the top bins do not pass")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large for input signal")
        complex_cqt = librosa.cqt(
            samples,
            sr=settings.rate,
            hop_length=settings.hop,
            n_bins=settings.bins,
            bins_per_octave=settings.bins_per_octave,
            fmin=settings.fmin,
        )
    return np.abs(complex_cqt).T


def assert_parity(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The gates of the design: Frobenius norm, and dB over the 80 dB below the maximum."""
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 5e-4 * np.linalg.norm(theirs)
    floor = theirs.max() * 1e-4
    decibels = [20 * np.log10(np.maximum(x, floor)) for x in (ours, theirs)]
    difference = np.abs(decibels[0] - decibels[1])
    assert difference.mean() <= 0.01
    assert np.quantile(difference, 0.99) <= 0.05


def tone(frequency: float, seconds: float = 2.0, rate: int = 22050) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.sin(2 * np.pi * frequency * t).astype(np.float32)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(samples, np.float32)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("midi", [45, 57, 69, 70, 81])  # A2 to A5
def test_a_tone_peaks_in_the_bin_of_its_note(name, midi):
    settings = SETTINGS[name]
    frequency = 440 * 2 ** ((midi - 69) / 12)
    magnitudes = transform(settings, tone(frequency, rate=settings.rate))
    expected = settings.bins_per_octave * np.log2(frequency / settings.fmin)
    peaks = magnitudes[len(magnitudes) // 4 : -len(magnitudes) // 4].argmax(axis=1)
    assert (peaks == round(expected)).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_noise_is_as_by_wavelets_at_the_full_rate(name):
    """No octave is decimated here: what filters take away or let in would show. The top bin of each
    octave is nearest to its filter's edge."""
    settings, samples = SETTINGS[name], noise(2 * SETTINGS[name].rate)
    squared = 2 ** (2 / settings.bins_per_octave)
    quality = (squared + 1) / (squared - 1)
    frames = np.arange(frame_count(len(samples), settings.hop))[4:-4]
    ours = transform(settings, samples)[4:-4]
    for number in range(settings.bins - 1, 12, -settings.bins_per_octave // 2):
        frequency = settings.fmin * 2 ** (number / settings.bins_per_octave)
        length = quality * settings.rate / frequency
        time = np.arange(-length // 2, length // 2)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(time)) / len(time))
        wavelet = np.exp(-2j * np.pi * frequency / settings.rate * time) * hann / hann.sum()
        padded = np.pad(samples, len(time))
        starts = frames * settings.hop + len(time) - len(time) // 2
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(time))[starts]
        direct = np.sqrt(length) * np.abs(windows @ wavelet)
        error = np.linalg.norm(ours[:, number] - direct) / np.linalg.norm(direct)
        assert error < 0.02, number


@pytest.mark.parametrize("name", SETTINGS)
def test_noise_that_starts_and_ends_abruptly_is_as_in_librosa(name):
    samples = noise(3 * SETTINGS[name].rate)
    assert_parity(transform(SETTINGS[name], samples), reference(SETTINGS[name], samples))


@pytest.mark.parametrize("name", ["144 bins", "252 bins", "84 bins", "margin bins"])
@pytest.mark.parametrize("pattern", MUSIC + SOUNDS)
def test_real_recordings_are_as_in_librosa(shared_data, name, pattern):
    paths = sorted(shared_data.glob(pattern))[::150][:3]
    assert paths
    for path in paths:
        samples = audio.read(path, SETTINGS[name].rate)
        assert_parity(transform(SETTINGS[name], samples), reference(SETTINGS[name], samples))


@pytest.mark.parametrize("samples", [1, 100, 2205, 22050])
def test_clips_shorter_than_a_wavelet_are_as_in_librosa(samples):
    settings = SETTINGS["84 bins"]
    theirs = reference(settings, noise(samples))
    np.testing.assert_allclose(transform(settings, noise(samples)), theirs, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 40_000, 40_959, 40_960])
def test_frames_are_counted_from_the_hop(samples):
    assert len(transform(CQTSettings(), noise(samples))) == frame_count(samples, 2048)
    assert frame_count(samples, 2048) == 1 + samples // 2048


def test_a_click_is_centred_in_its_frame():
    settings = SETTINGS["84 bins"]
    samples = np.zeros(22050, np.float32)
    samples[20 * 512] = 1
    top_octave = transform(settings, samples)[:, -12:].sum(axis=1)
    assert top_octave.argmax() == 20
    np.testing.assert_allclose(top_octave[19], top_octave[21], rtol=0.05, atol=1e-6)


def test_each_example_of_a_batch_is_transformed_as_if_alone():
    settings = SETTINGS["84 bins"]
    batch = np.stack([noise(30_000), tone(440)[:30_000], np.zeros(30_000, "f"), 9 * noise(30_000)])
    together = np.array(CQT(settings)(mx.array(batch)))
    for samples, magnitudes in zip(batch, together, strict=True):
        np.testing.assert_allclose(magnitudes, transform(settings, samples), rtol=2e-6, atol=1e-5)


def test_a_compiled_step_on_waveforms_equals_the_eager_one():
    front_end = CQT(CQTSettings())
    weights = mx.random.normal((144, 12), key=mx.random.key(0))

    def loss(weights, audio):
        return mx.mean(mx.square(mx.log1p(front_end(audio)) @ weights))

    step = mx.value_and_grad(loss)
    batch = mx.array(np.stack([noise(44_100), tone(330)]))
    eager = step(weights, batch)
    compiled = mx.compile(step)(weights, batch)
    np.testing.assert_allclose(np.array(compiled[0]), np.array(eager[0]), rtol=1e-5)
    np.testing.assert_allclose(np.array(compiled[1]), np.array(eager[1]), rtol=1e-4, atol=1e-6)


def test_some_frames_equal_those_of_all():
    front_end = CQT(SETTINGS["84 bins"])
    samples = mx.array(noise(60_000))[None]
    part = np.array(front_end.frames(samples, 30, 45))
    whole = np.array(front_end(samples))[:, 30:45]
    np.testing.assert_allclose(part, whole, rtol=5e-6, atol=1e-6)


def test_audio_a_semitone_higher_moves_the_features_by_its_bins():
    settings = SETTINGS["144 bins"]
    low = transform(settings, tone(220) + tone(330)).mean(axis=0)
    high = transform(settings, tone(220 * 2 ** (1 / 12)) + tone(330 * 2 ** (1 / 12))).mean(axis=0)
    np.testing.assert_allclose(high[2:], low[:-2], atol=0.03 * low.max())


def test_bins_beyond_nyquist_are_refused():
    with pytest.raises(ValueError, match=r"bins=144 reach 2077 Hz, expected at most .* 2000 Hz"):
        CQT(CQTSettings(rate=4000))


@pytest.mark.parametrize("name", ["rate", "hop", "bins", "bins_per_octave", "fmin"])
def test_a_setting_of_zero_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0, expected more than 0"):
        CQT(CQTSettings(**{name: 0}))
