"""CLAP's front end against transformers' ClapFeatureExtractor, and against what it must keep."""

import json

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.features import audio
from audiotrain.features.log_mel import LogMel
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings, squeeze

RATE = 48000
FLAVOURS = ("rand_trunc", "fusion")


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def extractor(**settings):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    return transformers.ClapFeatureExtractor(**({"frequency_min": 50} | settings))


def theirs(hugging_face, samples: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    """Their input and is_longer, without the clip that they call longer when none is."""
    state = np.random.get_state()
    np.random.seed(seed)
    found = hugging_face._get_input_mel(
        samples, hugging_face.nb_max_samples, hugging_face.truncation, hugging_face.padding
    )
    np.random.set_state(state)
    return found


def ours(settings: ClapFeatureSettings, samples: np.ndarray, seed: int):
    """Drawn as NumPy's old generator draws, which is what they use."""
    return ClapFeatures(settings)(samples, np.random.RandomState(seed))


@pytest.mark.parametrize("truncation", FLAVOURS)
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("seconds", [0.05, 3.3, 9.99999, 10, 10.005, 10.02, 12.5])
def test_equal_to_transformers(truncation, padding, seconds):
    hugging_face = extractor(truncation=truncation, padding=padding)
    settings = ClapFeatureSettings(truncation=truncation, padding=padding)
    samples = noise(seconds) * np.linspace(1, 0, round(seconds * RATE), dtype=np.float32) ** 2
    expected, longer = theirs(hugging_face, samples, seed=3)
    found, found_longer = ours(settings, samples, seed=3)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (settings.channels, 1001, 64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert found_longer == longer


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_equal_to_transformers_on_real_clips(truncation, shared_data):
    hugging_face = extractor(truncation=truncation)
    settings = ClapFeatureSettings(truncation=truncation)
    paths = sorted((shared_data / "esc10").glob("*.ogg"))[::80]
    paths += sorted((shared_data / "berklee").glob("*.mp3"))[::145]
    assert len(paths) >= 8
    for path in paths:
        samples = audio.read(path, RATE)
        expected, longer = theirs(hugging_face, samples, seed=1)
        found, found_longer = ours(settings, samples, seed=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=path.name)
        assert found_longer == longer


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_what_is_far_below_the_loudest_is_right_too(truncation):
    """A tone of full level beside noise 110 dB softer: float32 transforms lose the noise."""
    tone = np.sin(2 * np.pi * 200 * np.arange(10 * RATE) / RATE)
    samples = (tone + noise(10, level=3e-6)).astype(np.float32)
    expected, _ = theirs(extractor(truncation=truncation), samples, seed=0)
    found, _ = ours(ClapFeatureSettings(truncation=truncation), samples, seed=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_mlx_gives_the_same_for_a_batch(truncation):
    features = ClapFeatures(ClapFeatureSettings(truncation=truncation))
    clips = np.stack([features.fit(noise(seconds, 1)) for seconds in (2, 10)])
    in_mlx = np.array(LogMel(features.settings.log_mel)(mx.array(clips)))
    in_numpy = np.stack([features.log_mel(clip) for clip in clips])
    assert in_mlx.shape == (2, 1001, 64)
    loud = in_numpy > -60
    np.testing.assert_allclose(in_mlx[loud], in_numpy[loud], rtol=0, atol=1e-3)
    assert np.abs(in_mlx - in_numpy).mean() < 1e-4


def test_a_tone_peaks_in_its_band_and_silence_is_the_floor():
    features = ClapFeatures()
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    lowest, tone_mel = 50 * 3 / 200, 15  # Slaney's scale: linear below 1 kHz, 15 mel there
    highest = 15 + 27 * np.log(14) / np.log(6.4)
    band = (tone_mel - lowest) / ((highest - lowest) / 65) - 1
    assert np.argmax(features.log_mel(tone)[50]) == round(band)
    np.testing.assert_allclose(features.log_mel(np.zeros(RATE, np.float32)), -100, atol=1e-4)


def test_louder_by_6_decibels_is_6_decibels_more():
    features = ClapFeatures()
    once, twice = (features.log_mel(noise(1, level=level)) for level in (0.1, 0.2))
    np.testing.assert_allclose(twice - once, 20 * np.log10(2), atol=1e-4)


def test_paddings_by_their_definition():
    samples = np.arange(1, 5, dtype=np.float32)
    for padding, expected in (
        ("repeatpad", [1, 2, 3, 4, 1, 2, 3, 4, 0, 0]),
        ("repeat", [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]),
        ("pad", [1, 2, 3, 4, 0, 0, 0, 0, 0, 0]),
    ):
        settings = ClapFeatureSettings(
            rate=10, n_fft=4, hop=2, mels=1, fmin=0, fmax=5, seconds=1, padding=padding
        )
        assert ClapFeatures(settings).fit(samples).tolist() == expected


def test_without_a_generator_nothing_is_random():
    long = noise(25)
    features = ClapFeatures()
    np.testing.assert_array_equal(features.fit(long), long[int(7.5 * RATE) : int(17.5 * RATE)])
    for truncation in FLAVOURS:
        features = ClapFeatures(ClapFeatureSettings(truncation=truncation))
        first, longer = features(long)
        np.testing.assert_array_equal(first, features(long)[0])
        assert longer
    mel = features.log_mel(long)
    assert len(mel) == 2501  # 1501 places: thirds of 501, 500, 500
    for channel, start in ((1, 250), (2, 751), (3, 1251)):
        np.testing.assert_array_equal(first[channel], mel[start : start + 1001])


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_crops_follow_the_generator(truncation):
    features = ClapFeatures(ClapFeatureSettings(truncation=truncation))
    long = noise(14)
    drawn = [features(long, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1


def test_random_crops_reach_both_ends():
    settings = ClapFeatureSettings(rate=10, n_fft=4, hop=2, mels=1, fmin=0, fmax=5, seconds=1)
    features, rng = ClapFeatures(settings), np.random.default_rng(0)
    starts = {int(features.fit(np.arange(13, dtype=np.float32), rng)[0]) for _ in range(60)}
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_windows_cover_the_whole(truncation):
    features = ClapFeatures(ClapFeatureSettings(truncation=truncation))
    channels = features.settings.channels
    long = noise(25)
    windows = features.windows(long)
    assert windows.shape == (3, channels, 1001, 64)
    for window, start in zip(windows, (0, 7.5, 15), strict=True):
        crop = long[int(start * RATE) : int((start + 10) * RATE)]
        for channel in window:
            np.testing.assert_array_equal(channel, features.log_mel(crop))
    short = noise(0.5)
    np.testing.assert_array_equal(features.windows(short)[0], features(short)[0])
    assert features.windows(noise(10)).shape == (1, channels, 1001, 64)


def test_twenty_minutes_and_a_twentieth_of_a_second():
    settings = ClapFeatureSettings(
        rate=8000, n_fft=256, hop=80, fmin=50, fmax=4000, truncation="fusion", mels=16
    )
    features = ClapFeatures(settings)
    mel, longer = features(np.resize(noise(1), 20 * 60 * 8000))
    assert mel.shape == (4, 1001, 16)
    assert longer
    assert features.windows(np.resize(noise(1), 20 * 60 * 8000)).shape == (120, 4, 1001, 16)
    assert features(np.resize(noise(1), 400))[0].shape == (4, 1001, 16)


@pytest.mark.parametrize("rate", [8000, 192000])
@pytest.mark.parametrize("channels", [1, 6])
def test_files_of_any_rate_and_number_of_channels(tmp_path, rate, channels):
    soundfile = pytest.importorskip("soundfile")
    samples = np.sin(2 * np.pi * 700 * np.arange(rate // 2) / rate)
    soundfile.write(tmp_path / "x.wav", np.repeat(samples[:, None], channels, 1), rate)
    features = ClapFeatures()
    mel, longer = features(audio.read(tmp_path / "x.wav", RATE))
    direct = np.sin(2 * np.pi * 700 * np.arange(RATE // 2) / RATE).astype(np.float32)
    assert not longer
    assert np.argmax(mel[0, 20]) == np.argmax(features.log_mel(direct)[20])
    assert abs(mel[0, 20].max() - features.log_mel(direct)[20].max()) < 0.1


@pytest.mark.parametrize(("length", "frames"), [(1010, 1001), (2501, 1001), (7, 5)])
def test_squeeze_is_torchs_bilinear(length, frames):
    torch = pytest.importorskip("torch")
    mel = np.random.default_rng(0).standard_normal((length, 64)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(mel)[None, None], size=[frames, 64], mode="bilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(squeeze(mel, frames), expected, atol=1e-5)


@pytest.mark.parametrize("truncation", FLAVOURS)
def test_settings_travel_through_transformers(truncation, tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = ClapFeatureSettings(truncation=truncation, fmin=30, seconds=5, padding="pad")
    settings.save(tmp_path)
    loaded = transformers.ClapFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.truncation, loaded.frequency_min, loaded.nb_max_samples, loaded.padding) == (
        truncation,
        30,
        240000,
        "pad",
    )
    loaded.save_pretrained(tmp_path / "theirs")
    assert ClapFeatureSettings.read(tmp_path / "theirs") == settings
    expected, _ = theirs(loaded, noise(3), seed=0)
    np.testing.assert_allclose(ours(settings, noise(3), 0)[0], expected, rtol=0, atol=1e-4)


def test_settings_of_a_sparse_file_and_of_a_processor(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"truncation": "rand_trunc"}')
    hugging_face = extractor(truncation="rand_trunc", frequency_min=0)
    found = ClapFeatureSettings.read(tmp_path)
    assert (found.fmin, found.fmax) == (hugging_face.frequency_min, hugging_face.frequency_max)
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000.0}')
    assert type(ClapFeatureSettings.read(tmp_path).rate) is int
    (tmp_path / "preprocessor_config.json").unlink()
    content = {"feature_extractor": {"truncation": "fusion", "frequency_min": 50}}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    assert ClapFeatureSettings.read(tmp_path) == ClapFeatureSettings(truncation="fusion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"truncation": "middle"}',
            "truncation: found 'middle', expected one of rand_trunc, fusion",
        ),
        ('{"padding": true}', "padding: found 'true', expected one of"),
        ('{"sampling_rate": 0}', "sampling_rate=0, expected 1 or more"),
        ('{"sampling_rate": 8000.5}', "sampling_rate: found '8000.5', expected a whole number"),
        ('{"hop_length": "160.0"}', "hop_length: found '160.0', expected a whole number"),
        ('{"frequency_min": "a"}', "frequency_min: found 'a', expected a number"),
        ('{"frequency_min": null}', "frequency_min: found None, expected a number"),
        ('{"max_length_s": NaN}', "max_length_s=nan, expected more than 0"),
        ('{"max_length_s": 0.01}', "max_length_s=0.01: 480 samples, expected more than half"),
        ('{"feature_extractor_type": "WhisperFeatureExtractor"}', "expected a ClapFeatureExtr"),
        ("[1]", "expected a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_settings_refused(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=f"preprocessor_config.json: .*{message}"):
        ClapFeatureSettings.read(tmp_path)


def test_audio_refused(tmp_path):
    with pytest.raises(ValueError, match="no preprocessor_config.json and no processor_config"):
        ClapFeatureSettings.read(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        ClapFeatures()(np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="expected more than 512"):
        ClapFeatures().log_mel(np.zeros(512, np.float32))
    with pytest.raises(ValueError, match=r"shape \(2, 9\)"):
        ClapFeatures().fit(np.zeros((2, 9), np.float32))
