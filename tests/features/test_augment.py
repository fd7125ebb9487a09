"""Augmentation: what each change keeps, what it changes, and that a seed decides it."""

import numpy as np
import pytest

from audiotrain.features import augment
from audiotrain.music.chord_classes import IGNORE

RATE = 22050


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def melody(seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 330 * time) + 0.2 * np.sin(2 * np.pi * 550 * time)).astype("f")


@pytest.mark.parametrize("semitones", range(-5, 7))
def test_transposing_moves_every_bin_by_whole_semitones(semitones):
    features = np.zeros((3, 144 + 2 * 12), np.float32)
    features[:, 12 + 60] = 1
    moved = augment.transpose_bins(features, semitones, bins_per_semitone=2, margin=12)
    assert moved.shape == (3, 144)
    assert (moved.argmax(axis=1) == 60 + 2 * semitones).all()


def test_transposing_brings_in_margin_bins_and_never_wraps_around():
    features = np.arange(10.0)[None]
    np.testing.assert_equal(augment.transpose_bins(features, 2, 1, margin=2)[0], np.arange(0.0, 6))
    np.testing.assert_equal(
        augment.transpose_bins(features, -2, 1, margin=2)[0], np.arange(4.0, 10)
    )


def test_transposing_beyond_the_margin_bins_is_refused():
    with pytest.raises(ValueError, match="by 7 semitones: it takes 14 margin bins .* at most 12"):
        augment.transpose_bins(np.zeros((1, 168)), 7, 2, margin=12)


def test_features_and_labels_are_transposed_together():
    features = np.zeros((2, 72), np.float32)
    classes = np.array([[1, 0, 7], [0, IGNORE, IGNORE]])
    features[:, 36] = 1
    seen = set()
    for seed in range(60):
        moved, labels = augment.transpose(features, classes, generator(seed), -5, 6, 2, 12)
        semitones = (moved[0].argmax() - 24) // 2
        assert labels[0].tolist() == [1, semitones % 12, (7 + semitones) % 12]
        assert labels[1].tolist() == [0, IGNORE, IGNORE]
        seen.add(int(semitones))
    assert seen == set(range(-5, 7))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, rng: augment.gain(x, rng, 6.0),
        lambda x, rng: augment.noise(x, rng, 1.0),
        lambda x, rng: augment.tilt(x, rng, 6.0),
        lambda x, rng: augment.mask(x, rng),
        augment.roll,
        lambda x, rng: augment.shift(x, rng, 25),
    ],
    ids=["gain", "noise", "tilt", "mask", "roll", "shift"],
)
def test_feature_changes_keep_shape_and_type_and_follow_the_seed(change):
    features = generator(1).standard_normal((50, 60), np.float32)
    before = features.copy()
    changed = change(features, generator(2))
    assert changed.shape == features.shape
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal(changed, change(features, generator(2)))
    assert not np.array_equal(changed, change(features, generator(3)))


def test_gain_is_one_number_within_its_bound():
    difference = augment.gain(np.zeros((4, 5), np.float32), generator(), 6.0)
    assert np.ptp(difference) == 0
    assert abs(difference[0, 0]) <= 6


def test_tilt_is_the_same_for_all_frames():
    curve = augment.tilt(np.zeros((4, 100), np.float32), generator(), 5.0)
    assert np.ptp(curve, axis=0).max() == 0
    assert 0 < np.abs(curve).max() <= 10


def test_roll_turns_frames_around():
    features = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    starts = set()
    for seed in range(40):
        turned = augment.roll(features, generator(seed))
        start = int(turned[0, 0]) // 2
        np.testing.assert_array_equal(turned, np.concatenate([features[start:], features[:start]]))
        starts.add(start)
    assert starts == set(range(6))


def test_shift_moves_bins_and_repeats_the_edge():
    features = np.arange(10.0, dtype=np.float32)[None]
    found = {tuple(augment.shift(features, generator(seed), 2)[0]) for seed in range(60)}
    assert found == {tuple(np.clip(np.arange(10) - up, 0, 9).astype(float)) for up in range(-2, 3)}


def test_blending_adds_powers():
    rng = generator()
    one, other = rng.uniform(0.1, 2, (2, 5, 4)).astype(np.float32)
    blended = augment.blend(10 * np.log10(one), 10 * np.log10(other))
    np.testing.assert_allclose(blended, 10 * np.log10(one + other), atol=1e-5)
    assert blended.dtype == np.float32


def test_masks_are_bands_that_leave_half_of_each_axis():
    features = np.ones((40, 30), np.float32)
    for seed in range(20):
        masked = augment.mask(features, generator(seed), 1, 1000, 1, 1000, value=0.0)
        assert (masked.max(axis=1) > 0).sum() >= 20
        assert (masked.max(axis=0) > 0).sum() >= 15


@pytest.mark.parametrize(
    "change",
    [
        lambda x, rng: augment.saturate(x, rng, 20.0),
        lambda x, rng: augment.add_noise(x, rng, 20.0, 35.0),
        lambda x, rng: augment.equalise(x, rng, RATE, 6.0),
        lambda x, rng: augment.reverberate(x, rng, RATE),
    ],
    ids=["saturate", "add_noise", "equalise", "reverberate"],
)
def test_audio_changes_keep_length_and_follow_the_seed(change):
    audio = melody()
    changed = change(audio, generator(5))
    assert changed.shape == audio.shape
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, change(audio, generator(5)))
    assert not np.array_equal(changed, audio)
    for short in (np.zeros(RATE, np.float32), audio[: RATE // 10]):
        assert np.isfinite(change(short, generator(5))).all()


def test_noise_has_the_ratio_asked_for():
    audio = melody(3)
    added = augment.add_noise(audio, generator(), 20.0, 20.0) - audio
    ratio = 20 * np.log10(augment.rms(audio) / augment.rms(added))
    assert ratio == pytest.approx(20, abs=0.1)


def test_saturation_keeps_the_level_and_adds_harmonics():
    audio = melody()
    changed = augment.saturate(audio, generator(3), 20.0)
    assert augment.rms(changed) == pytest.approx(augment.rms(audio), rel=1e-3)
    harmonic = slice(985, 996)  # 3 * 330 Hz in a spectrum of 1 Hz a bin
    assert (
        np.abs(np.fft.rfft(changed))[harmonic].max()
        > 10 * np.abs(np.fft.rfft(audio))[harmonic].max()
    )


def test_an_equaliser_changes_a_tone_by_no_more_than_its_bound():
    audio = melody(2)
    for seed in range(5):
        changed = augment.equalise(audio, generator(seed), RATE, 6.0)
        inside = slice(RATE // 2, -RATE // 2)
        change = 20 * np.log10(augment.rms(changed[inside]) / augment.rms(audio[inside]))
        assert abs(change) < 6.1


def test_a_reverb_rings_on_after_the_sound():
    audio = np.zeros(RATE, np.float32)
    audio[100:200] = 1
    wet = augment.reverberate(audio, generator(), RATE)
    assert np.abs(wet[:100]).max() < 1e-5
    assert 0 < (wet[400:] ** 2).sum() < (audio**2).sum()
