"""Captioned clips as training samples: deterministic, cropped, captioned, mixed and masked."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from preparing import contents, on_cores

from audiotrain.datasets.captions import composed
from audiotrain.datasets.items import Clip
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.models.clap.tokenizer import train_bpe
from audiotrain.recipes.clap import dataset as captioned
from audiotrain.recipes.clap.dataset import CaptionedClips, ClipAugmentation, read_through
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.distributed.ranks import SingleProcess

RATE = 8000
SMALL = {"rate": RATE, "n_fft": 256, "hop": 80, "fmin": 50, "fmax": 4000, "seconds": 1, "mels": 16}
PLAIN = ClipAugmentation()
KEYS = ["mel", "input_ids", "attention_mask", "is_longer", "group"]


@pytest.fixture
def tokenizer():
    return train_bpe(["rain and a dog barks, then a bell while the sea"], size=300, length=24)


@pytest.fixture
def features():
    return ClapFeatures(ClapFeatureSettings(**SMALL))


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    """Short low rain, a long bell that climbs, and a second rain."""
    rng = np.random.default_rng(0)
    time = np.arange(4 * RATE) / RATE
    sounds = {
        "rain": 0.1 * rng.standard_normal(RATE // 2),
        "bell": 0.5 * np.sin(2 * np.pi * (200 + 400 * time / 2) * time),
        "more": 0.1 * rng.standard_normal(RATE),
    }
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE, subtype="FLOAT")
    captions = {"rain": ("Rain.",), "bell": ("a bell", "ringing"), "more": ("rain",)}
    return [Clip(n, tmp_path / f"{n}.wav", c, group=n) for n, c in captions.items()]


def drawn(dataset, index: int, count: int = 40) -> list[dict]:
    return [dataset.get(index, np.random.default_rng(seed)) for seed in range(count)]


def test_a_sample_without_augmentation(clips, tokenizer, features):
    dataset = CaptionedClips(clips, tokenizer, features)
    sample = dataset[1]
    assert set(sample) == set(KEYS)
    whole = clips[1].read(RATE)
    expected = features.log_mel(whole[round(1.5 * RATE) : round(2.5 * RATE)])
    np.testing.assert_allclose(sample["mel"][0], expected, atol=1e-4)
    np.testing.assert_array_equal(sample["input_ids"], tokenizer(["a bell"])[0][0])
    np.testing.assert_array_equal(sample["attention_mask"], tokenizer(["a bell"])[1][0])
    assert sample["is_longer"]
    assert not dataset[0]["is_longer"]
    np.testing.assert_allclose(dataset[0]["mel"], features(clips[0].read(RATE))[0], atol=1e-5)
    for other in drawn(dataset, 1, 3):
        np.testing.assert_array_equal(other["mel"], sample["mel"])


def test_crops_and_captions_are_random(clips, tokenizer, features):
    dataset = CaptionedClips(clips, tokenizer, features, PLAIN)
    samples = drawn(dataset, 1)
    peaks = {int(sample["mel"][0].mean(axis=0).argmax()) for sample in samples}
    assert len(peaks) > 3, "the bell climbs, so crops differ in pitch"
    texts = [tokenizer.decode(sample["input_ids"]) for sample in samples]
    assert set(texts) == {"a bell", "ringing"}
    again = drawn(dataset, 1)
    for one, other in zip(samples, again, strict=True):
        for key in KEYS:
            np.testing.assert_array_equal(one[key], other[key])


def test_groups_say_what_means_the_same(clips, tokenizer, features, tmp_path):
    dataset = CaptionedClips(clips, tokenizer, features)
    rain, bell, more = (int(dataset[index]["group"]) for index in range(3))
    assert rain == more != bell
    concepts = [
        Clip(clip.id, clip.audio, (f"caption {n}",), concept="rain") for n, clip in enumerate(clips)
    ]
    named = CaptionedClips(concepts, tokenizer, features)
    assert len({int(named[index]["group"]) for index in range(3)}) == 1
    assert all(0 <= group < 2**63 for group in (rain, bell))


def test_gain_stays_within_its_decibels(clips, tokenizer, features):
    plain = CaptionedClips(clips, tokenizer, features, PLAIN).get(2, np.random.default_rng(0))
    dataset = CaptionedClips(clips, tokenizer, features, ClipAugmentation(gain=6))
    changes = [float((one["mel"] - plain["mel"]).mean()) for one in drawn(dataset, 2)]
    assert -6.001 < min(changes) < -3
    assert 3 < max(changes) < 6.001


def test_mixing_says_and(clips, tokenizer, features):
    dataset = CaptionedClips(clips, tokenizer, features, ClipAugmentation(mix=1))
    texts = {tokenizer.decode(sample["input_ids"]) for sample in drawn(dataset, 0)}
    assert texts == {"Rain.", "rain and a bell", "rain and ringing"}, "never rain and rain"
    own = int(CaptionedClips(clips, tokenizer, features)[0]["group"])
    for sample in drawn(dataset, 0):
        mixed = "and" in tokenizer.decode(sample["input_ids"])
        assert (int(sample["group"]) != own) == mixed
    named = [replace(clip, concept=clip.captions[0]) for clip in clips]
    found = drawn(CaptionedClips(named, tokenizer, features, ClipAugmentation(mix=1)), 0)
    assert len({int(sample["group"]) for sample in found}) > 1, "a mix is no longer the concept"
    share = CaptionedClips(clips, tokenizer, features, ClipAugmentation(mix=0.5))
    count = sum("and" in tokenizer.decode(s["input_ids"]) for s in drawn(share, 0, 200))
    assert 15 < count < 55  # half of the third with the bell


def test_blending_keeps_the_caption_and_has_the_others_group(clips, tokenizer, features, tmp_path):
    change = ClipAugmentation(blend=0.5)
    dataset = CaptionedClips(clips, tokenizer, features, change, mels=FeatureCache(tmp_path / "m"))
    own, bell = (int(dataset[number]["group"]) for number in (0, 1))
    alone = dataset[0]["mel"]
    found = drawn(dataset, 0, 200)
    assert {tokenizer.decode(sample["input_ids"]) for sample in found} == {"Rain."}
    assert {int(sample["group"]) for sample in found} == {own}
    blended = [sample for sample in found if sample["share"] < 1]
    assert 70 < len(blended) < 130
    bells = [sample for sample in blended if sample["second_group"] != own]
    assert bells, "the bell and what rings are two captions"
    assert bell in {int(sample["second_group"]) for sample in bells}
    assert all(0.13 <= sample["share"] <= 0.87 for sample in blended)
    assert all((sample["mel"] >= alone - 1e-3).all() for sample in blended), "powers are added"
    for sample in found:
        assert sample["share"].dtype == np.float32
        if sample["share"] == 1:
            assert int(sample["second_group"]) == own
            np.testing.assert_array_equal(sample["mel"], alone)
    louder, softer = (
        np.mean([s["mel"].mean() for s in bells if low < s["share"] <= high])
        for low, high in ((0.13, 0.35), (0.65, 0.87))
    )
    assert louder > softer + 1, "the bell is louder where the rain's share is small"


def test_spectrograms_are_varied_alike_in_every_channel(clips, tokenizer):
    fused = ClapFeatures(ClapFeatureSettings(**SMALL, truncation="fusion"))
    plain = CaptionedClips(clips, tokenizer, fused, PLAIN)[2]["mel"]
    for change in ({"roll": 1.0}, {"shift": 3}, {"tilt": 6.0}):
        dataset = CaptionedClips(clips, tokenizer, fused, ClipAugmentation(**change))
        varied = [sample["mel"] for sample in drawn(dataset, 2, 20)]
        assert any((mel != plain).any() for mel in varied)
        for mel in varied:
            assert mel.shape == plain.shape
            np.testing.assert_array_equal(mel, np.repeat(mel[:1], 4, axis=0))


def test_composed_clips_are_not_turned_around(clips, tokenizer, features, monkeypatch):
    monkeypatch.setattr(captioned.augment, "roll", lambda mel, rng: np.zeros_like(mel))
    for join in (1, 0):
        dataset = CaptionedClips(clips, tokenizer, features, ClipAugmentation(join=join, roll=1.0))
        samples = drawn(dataset, 0, 40)
        kept = [bool(sample["mel"].any()) for sample in samples]
        texts = [tokenizer.decode(sample["input_ids"]) for sample in samples]
        assert kept == [text not in clips[0].captions for text in texts]
        assert any(kept) == bool(join)


def test_joining_says_the_order(clips, tokenizer, features):
    dataset = CaptionedClips(clips, tokenizer, features, ClipAugmentation(join=1))
    texts = {tokenizer.decode(sample["input_ids"]) for sample in drawn(dataset, 0, 80)}
    assert "rain, then a bell" in texts
    assert any("while" in text for text in texts)


def test_masks_are_the_same_in_every_channel(clips, tokenizer):
    fused = ClapFeatures(ClapFeatureSettings(**SMALL, truncation="fusion"))
    masks = ClipAugmentation(time_masks=2, time_width=20, mel_masks=2, mel_width=3)
    plain = CaptionedClips(clips, tokenizer, fused, PLAIN)
    dataset = CaptionedClips(clips, tokenizer, fused, masks)
    shares, bands = [], []
    for one, other in zip(drawn(dataset, 2), drawn(plain, 2), strict=True):
        assert one["mel"].shape == (4, 101, 16)
        changed = one["mel"] != other["mel"]
        assert (changed == changed[0]).all()
        shares.append(changed.mean())
        assert changed[0].all(axis=0).sum() <= 6
        assert changed[0].all(axis=1).sum() <= 40
        bands.append((changed[0].all(axis=0).any(), changed[0].all(axis=1).any()))
    assert 0.05 < np.mean(shares) < 0.5
    assert np.mean(bands, axis=0).min() > 0.7, "of mels and of frames"


def test_fusion_has_four_channels_and_says_what_is_longer(clips, tokenizer):
    fused = ClapFeatures(ClapFeatureSettings(**SMALL, truncation="fusion"))
    dataset = CaptionedClips(clips, tokenizer, fused)
    for index, longer in enumerate((False, True, False)):
        mel, expected = fused(clips[index].read(RATE))
        np.testing.assert_array_equal(dataset[index]["mel"], mel)
        assert bool(dataset[index]["is_longer"]) == longer == expected


def test_kept_inputs_change_nothing_and_need_no_decoding(
    clips, tokenizer, features, tmp_path, monkeypatch
):
    change = ClipAugmentation(gain=6, time_masks=1, mel_masks=1)
    plain = CaptionedClips(clips, tokenizer, features, change)
    kept = CaptionedClips(clips, tokenizer, features, change, mels=FeatureCache(tmp_path / "mels"))
    for index in (0, 2):  # the bell is longer than the input
        for one, other in zip(drawn(kept, index, 8), drawn(plain, index, 8), strict=True):
            assert set(one) == set(KEYS)
            for key in KEYS:
                np.testing.assert_allclose(one[key], other[key], atol=1e-3, err_msg=key)
        np.testing.assert_allclose(kept[index]["mel"], plain[index]["mel"], atol=1e-5)
    assert kept[1]["is_longer"]
    kept = list((tmp_path / "mels").glob("*.npy"))
    assert len(kept) == 4  # two inputs, and what each lacks
    monkeypatch.setattr(Clip, "read", lambda *arguments: pytest.fail("decoded again"))
    equal = ClapFeatureSettings(**SMALL | {n: float(SMALL[n]) for n in ("fmin", "fmax", "seconds")})
    kept = CaptionedClips(
        clips, tokenizer, ClapFeatures(equal), change, mels=FeatureCache(tmp_path / "mels")
    )  # as settings come back from a file
    for index in (0, 2):
        drawn(kept, index, 2)


def test_what_is_mixed_is_decoded_even_where_inputs_are_kept(clips, tokenizer, features, tmp_path):
    change = ClipAugmentation(mix=0.4, join=0.4)
    plain = CaptionedClips(clips, tokenizer, features, change)
    kept = CaptionedClips(clips, tokenizer, features, change, mels=FeatureCache(tmp_path / "mels"))
    for one, other in zip(drawn(kept, 0), drawn(plain, 0), strict=True):
        for key in KEYS:
            np.testing.assert_allclose(one[key], other[key], atol=1e-3, err_msg=key)


def test_only_the_crop_is_decoded(clips, tokenizer, features, monkeypatch):
    spans = []
    read = Clip.read
    monkeypatch.setattr(Clip, "read", lambda *a: spans.append(a[2:4]) or read(*a))
    CaptionedClips(clips, tokenizer, features, PLAIN).get(1, np.random.default_rng(0))
    ((start, seconds),) = spans
    assert 0 <= start <= 3
    assert seconds == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_any_workers(clips, tokenizer, features, workers):
    augmentation = ClipAugmentation(gain=3, mix=0.3, join=0.3, time_masks=1, mel_masks=1)
    dataset = CaptionedClips([*clips, *composed(3).items], tokenizer, features, augmentation)
    alone = list(DataLoader(dataset, 3, shuffle=True, seed=5, num_workers=0))
    other = list(DataLoader(dataset, 3, shuffle=True, seed=5, num_workers=workers))
    for batch, same in zip(alone, other, strict=True):
        assert batch["mel"].shape == (3, 1, 101, 16)
        assert batch["group"].dtype == mx.int64
        for key in KEYS:
            np.testing.assert_array_equal(np.array(batch[key]), np.array(same[key]))


def test_errors_name_the_file(clips, tokenizer, features, tmp_path):
    clips[1].audio.write_bytes(b"x")
    dataset = CaptionedClips(clips, tokenizer, features)
    assert dataset.describe(1) == str(clips[1].audio)
    assert CaptionedClips(composed(1).items, tokenizer, features).describe(0) == "scene-0-000000"
    with pytest.raises(ValueError, match="bell.wav"):
        list(DataLoader(dataset, 1))


def test_no_clips_are_refused(tokenizer, features):
    with pytest.raises(ValueError, match="no captioned clips"):
        CaptionedClips([], tokenizer, features)


def test_augmentations_refused():
    with pytest.raises(ValueError, match="gain=-1.0, expected 0 or more"):
        ClipAugmentation(gain=-1)
    with pytest.raises(ValueError, match="blend=1.5, expected 0 to 1"):
        ClipAugmentation(blend=1.5)
    with pytest.raises(ValueError, match="mix=0.7 and join=0.7, expected at most 1 together"):
        ClipAugmentation(mix=0.7, join=0.7)


def test_two_workers_read_the_bytes_of_one_core(tmp_path, clips, tokenizer, features, monkeypatch):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    bad = [Clip("bad", tmp_path / "bad.wav", ("a wreck",), start=1.0)]
    many = clips + bad + composed(6, seed=0).items
    results = []
    for cores in (1, 2):
        on_cores(monkeypatch, cores)
        cache = tmp_path / f"cache{cores}"
        cached = FeatureCache(cache / "mels", np.float16)
        samples = CaptionedClips(many, tokenizer, features, mels=cached)
        lines = read_through(samples, cache, SingleProcess())
        assert [number for number, line in enumerate(lines) if isinstance(line, str)] == [3]
        assert "bad.wav" in lines[3]
        results.append(contents(cache))
    assert results[0] == results[1]
    assert len(results[0]) >= 3  # two short inputs, and that the bell decodes
