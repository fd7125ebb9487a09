"""Chord models: shapes, what each frame can see, buffers, and the clip model learning."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from audiotrain.backend.ops import convolve
from audiotrain.models.chords import ChordModelSettings, ChordRecognitionModel, FrameChordModel
from audiotrain.models.chords.btc import BidirectionalBlock, sinusoids
from audiotrain.models.chords.equivariant import (
    ChordPool,
    PitchConvolution,
    PitchLinear,
    PitchStem,
    pitch_product,
    same_chord,
)
from audiotrain.models.chords.model import ARCHITECTURES, Trunk
from audiotrain.music.chord_classes import HEADS
from audiotrain.recipes.chords.training import with_root
from audiotrain.train.losses import ChordRecognitionLoss
from audiotrain.utils.arrays import arrays_of

BINS = 48


def settings(architecture="relu-transformer", **changes):
    small = {"width": 32, "blocks": 2, "heads": 4, "hidden": 48, "kernel": 3, "patch": 2}
    if architecture == "equivariant":
        small["width"] = 48
    return ChordModelSettings(architecture, **small | changes)


def features(batch=2, frames=12, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=(batch, frames, BINS)), mx.float32)


def count(module):
    return sum(array.size for _, array in tree_flatten(module.parameters()))


def joined(logits):
    return np.concatenate([np.array(logits[head]) for head in HEADS], axis=-1)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_for_every_frame(architecture, patch):
    model = FrameChordModel(BINS, settings(architecture, patch=patch))
    logits = model(features(3, 8))
    assert {head: logits[head].shape for head in HEADS} == {
        "chord_type": (3, 8, 32),
        "root": (3, 8, 12),
        "bass_note": (3, 8, 12),
    }
    assert np.isfinite(joined(logits)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_every_parameter_and_not_the_buffers(architecture):
    model = FrameChordModel(BINS, settings(architecture, dropout=0.0))

    def loss(module):
        return sum((v * v).sum() for v in module(features()).values())

    _, gradients = nn.value_and_grad(model, loss)(model)
    found = dict(tree_flatten(gradients))
    assert found.keys() == dict(tree_flatten(model.trainable_parameters())).keys()
    flat = [name for name, gradient in found.items() if not np.array(gradient).any()]
    # adding a constant to all keys moves all scores alike; ours are in one Linear, so none is flat
    assert flat == []
    assert not [name for name in found if "feature_" in name]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_examples_do_not_see_each_other(architecture):
    model = FrameChordModel(BINS, settings(architecture))
    model.eval()
    x = features(3)
    alone = np.concatenate([joined(model(x[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(joined(model(x)), alone, atol=1e-5)


def reach(model, frames=24, at=12):
    """Which frames change when one does."""
    model.eval()
    x = np.array(features(1, frames))
    changed = x.copy()
    changed[:, at] += 3
    difference = np.abs(joined(model(mx.array(changed))) - joined(model(mx.array(x))))[0].max(-1)
    return np.flatnonzero(difference > 1e-6).tolist()


def test_convolutions_alone_see_as_far_as_their_kernels():
    model = FrameChordModel(BINS, settings("conv", patch=1, kernel=3, blocks=2))
    assert reach(model) == [10, 11, 12, 13, 14]
    model = FrameChordModel(BINS, settings("conv", patch=2, kernel=3, blocks=1))
    assert reach(model) == [10, 11, 12, 13, 14, 15]  # whole patches


def test_convolutions_alone_move_with_the_frames():
    model = FrameChordModel(BINS, settings("conv", patch=2, blocks=1))
    model.eval()
    x = features(1, 20)
    moved = mx.concatenate([mx.zeros((1, 4, BINS)), x], axis=1)
    inside = joined(model(moved))[:, 8:24]
    np.testing.assert_allclose(inside, joined(model(x))[:, 4:], atol=1e-5)


@pytest.mark.parametrize("architecture", ["relu-transformer", "transformer", "conformer", "btc"])
def test_attention_sees_all_frames(architecture):
    assert reach(FrameChordModel(BINS, settings(architecture, patch=1))) == list(range(24))


def by_definition(x, weight):
    """Each pitch class sees class j by the weight of their interval: (..., 12 * in) in float64."""
    out, taps, _, inputs = weight.shape
    frames = x.shape[1]
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0))).reshape(len(x), -1, 12, inputs)
    found = np.zeros((len(x), frames, 12, out))
    for own in range(12):
        for other in range(12):
            for tap in range(taps):
                seen = padded[:, tap : tap + frames, other]
                found[:, :, own] += seen @ weight[:, tap, (other - own) % 12].T
    return found.reshape(len(x), frames, -1)


@pytest.mark.parametrize("layer", [PitchLinear(3, 2), PitchConvolution(3, 2, 5)])
def test_pitch_classes_see_each_other_by_their_interval(layer):
    x = np.random.default_rng(0).normal(size=(2, 7, 36))
    weight = np.array(layer.weight, np.float64)
    weight = weight if weight.ndim == 4 else weight[:, None]
    expected = by_definition(x, weight) + np.tile(np.array(layer.bias), 12)
    given = mx.array(x, mx.float32)
    for run in (layer, mx.compile(layer)):
        np.testing.assert_allclose(np.array(run(given)), expected, atol=2e-6)


def dense(weight):
    """Tied weights, written out: (classes * out, …, classes * in)."""
    turned = [mx.roll(weight, number, axis=-2) for number in range(weight.shape[-2])]
    return mx.stack(turned).reshape(-1, *weight.shape[1:-2], weight.shape[-2] * weight.shape[-1])


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("convolution", [False, True])
def test_half_of_the_multiplications_give_the_same_product_and_gradients(halve, convolution):
    rng = np.random.default_rng(0)
    weight = (3, 5, 12, 2) if convolution else (3, 12, 2)
    x, weight, bias, cotangent = (
        mx.array(rng.normal(size=s).astype(np.float32))
        for s in ((2, 7, 24), weight, (3,), (2, 7, 36))
    )
    product = convolve if convolution else lambda x, w: x.reshape(*x.shape[:-3], 14, -1) @ w

    def ours(x, weight, bias):
        found = pitch_product(x, weight, bias, product, halve)
        return (found.reshape(2, 7, 36) * cotangent).sum()

    def plainly(x, weight, bias):
        if convolution:
            product = mx.conv1d(x, dense(weight), padding=2)
        else:
            product = x @ dense(weight).T
        return ((product + mx.tile(bias, 12)) * cotangent).sum()

    each = 0, 1, 2
    value, found = mx.compile(lambda *of: mx.value_and_grad(ours, each)(*of))(x, weight, bias)
    wanted, expected = mx.value_and_grad(plainly, each)(x, weight, bias)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("semitones", [1, 5, 7])
def test_transposed_music_is_the_same_chord_transposed(semitones):
    """Exact as long as each pitch class sees the same bins; at the ends they lose an octave."""
    chosen = settings("equivariant", blocks=3, dropout=0.0)
    model = FrameChordModel(144, chosen)
    blocks, heads = model.trunk.blocks, model.heads
    x = mx.random.normal((2, 6, 12, 4))
    moved = mx.roll(x, semitones, axis=2)

    def run(x):
        x = x.reshape(2, 6, 48)
        for block in blocks:
            x = block(x)
        for pool in model.trunk.pools:
            x, change = pool(x)
        return heads(model.trunk.norm(x)) | {"change": change}

    before, after = run(x), run(moved)
    for head in ("root", "bass_note"):
        np.testing.assert_allclose(
            after[head], mx.roll(before[head], semitones, axis=-1), atol=1e-5
        )
    of_root = mx.roll(before["chord_type_of_root"], semitones, axis=-2)
    np.testing.assert_allclose(after["chord_type_of_root"], of_root, atol=1e-5)
    for kind in ("chord_type", "change"):
        np.testing.assert_allclose(after[kind], before[kind], atol=1e-5)


def test_the_loss_is_told_the_root():
    """Frames with a root, with N, and without a label: types of the root, and else of the whole."""
    of_root = mx.random.normal((1, 3, 12, 32))
    logits = {"root": 10.0 * (mx.arange(36) == 15).reshape(1, 3, 12)}
    logits["chord_type"] = mx.random.normal((1, 3, 32))
    both = with_root(logits | {"chord_type_of_root": of_root}, mx.array([[5, -100, 0]]))
    likely = mx.softmax(logits["root"][0, 1]) @ of_root[0, 1]
    expected = mx.stack([of_root[0, 0, 5], likely, of_root[0, 2, 0]])
    np.testing.assert_allclose(both["chord_type"][0], expected, atol=1e-5)
    assert with_root(logits, mx.array([[5, -100, 0]])) == logits


def test_a_certain_roots_types_are_the_types():
    heads = FrameChordModel(144, settings("equivariant", dropout=0.0)).heads
    heads.linear.weight = heads.linear.weight * 300
    logits = heads(mx.random.normal((2, 6, 48)))
    sure = np.sort(mx.softmax(logits["root"], axis=-1), axis=-1)[..., -1] > 1 - 1e-6
    best = mx.argmax(logits["root"], axis=-1)[..., None, None]
    of_best = mx.take_along_axis(logits["chord_type_of_root"], best, axis=-2).squeeze(-2)
    found, expected = np.array(logits["chord_type"])[sure], np.array(of_best)[sure]
    assert sure.sum() > 5
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_steps_are_weighed_by_the_chance_that_no_chord_begins_between_them():
    change = np.random.default_rng(0).normal(size=(2, 7))
    stays = 1 - 1 / (1 + np.exp(-change))
    expected = np.zeros((2, 7, 7))
    for at in range(7):
        for other in range(7):
            first, last = sorted((at, other))
            expected[:, at, other] = stays[:, first + 1 : last + 1].prod(axis=1)
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(same_chord(mx.array(change, mx.float32)), expected, atol=1e-6)


def test_a_pool_hears_its_chord_and_no_other():
    """Where a change is certain nothing of the other side is heard but by the convolutions."""
    pool = ChordPool(4, 4, dropout=0.0)
    pool.inner.weight = mx.zeros_like(pool.inner.weight)  # all of a step but its bias comes ...
    pool.inner.weight[:, 1, 0] = mx.eye(4)  # ... from the step itself
    pool.change.weight, pool.change.bias = mx.zeros((1, 4)), mx.array([-30.0])
    x = mx.random.normal((1, 8, 48))
    other = mx.concatenate([x[:, :6], mx.random.normal((1, 2, 48))], axis=1)
    assert np.abs(np.array(pool(x)[0] - pool(other)[0]))[0, :6].max() > 1e-3
    pool.change.bias = mx.array([30.0])  # every step is a chord
    np.testing.assert_allclose(pool(x)[0][:, :6], pool(other)[0][:, :6], atol=1e-6)


@pytest.mark.parametrize(("blocks", "pools"), [(4, 2), (3, 2), (2, 2), (5, 1)])
def test_pools_are_spread_evenly_and_the_last_follows_the_last_block(blocks, pools):
    model = FrameChordModel(BINS, settings("equivariant", blocks=blocks, pools=pools, width=24))
    order = []
    for name in ("blocks", "pools"):
        for number, part in enumerate(model.trunk[name]):
            kind = type(part)
            spy = type(
                kind.__name__,
                (kind,),
                {
                    "__call__": lambda self, x, k=kind, n=(name, number): (
                        order.append(n),
                        k.__call__(self, x),
                    )[1]
                },
            )
            part.__class__ = spy
    assert model(features(1, 4))["change"].shape == (1, 2, pools)
    assert order[-1] == ("pools", pools - 1)
    after = [order.index(("pools", number)) - number for number in range(pools)]
    assert after == [
        (number + 1) * blocks // pools + bool((number + 1) * blocks % pools)
        for number in range(pools)
    ]


def test_more_pools_than_blocks_are_refused():
    with pytest.raises(ValueError, match=r"^pools=3, expected at most blocks=2$"):
        settings("equivariant", pools=3)


@pytest.mark.parametrize("hidden", [0, 5])
def test_each_pitch_class_sees_the_bins_from_its_own_lowest_one(hidden):
    stem = FrameChordModel(144, settings("equivariant", stem_hidden=hidden)).trunk.stem
    x = np.zeros((1, 2, 144), np.float32)
    x[0, :, 40:60] = np.random.default_rng(0).normal(size=(2, 20))
    seen = np.array(stem(mx.array(x))).reshape(12, 4)
    moved = np.array(stem(mx.array(np.roll(x, 6, axis=-1)))).reshape(12, 4)  # 3 semitones
    np.testing.assert_allclose(moved[3:], seen[:9], atol=1e-5)
    assert np.abs(moved[:3] - seen[9:]).max() > 0.01


def test_a_stem_with_units_adds_them_to_the_linear_map():
    stem = PitchStem(BINS, 24, channels=3, patch=2, hidden=5)
    x = np.array(features(1, 4))
    weight, bias = np.array(stem.weight), np.array(stem.bias)
    for pitch_class in range(12):
        seen = x.reshape(2, 2, BINS)[:, :, 2 * pitch_class :][:, :, : weight.shape[-1]]
        both = seen.reshape(2, -1) @ weight.reshape(8, -1).T + bias
        units = np.maximum(both[:, :5], 0) @ np.array(stem.outer.weight).T
        expected = both[:, 5:] + units + np.array(stem.outer.bias)
        ours = np.array(stem(mx.array(x))).reshape(2, 12, 3)[:, pitch_class]
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_standardising_undoes_gain_and_offset_of_the_features():
    model = FrameChordModel(BINS, settings())
    model.eval()
    x = features()
    model.trunk.feature_mean, model.trunk.feature_std = mx.array(-40.0), mx.array(8.0)
    scaled = joined(model(x * 8 - 40))
    model.trunk.feature_mean, model.trunk.feature_std = mx.array(0.0), mx.array(1.0)
    np.testing.assert_allclose(scaled, joined(model(x)), atol=2e-5)


def test_buffers_are_saved_and_never_trained():
    model = FrameChordModel(BINS, settings())
    names = ["trunk.feature_mean", "trunk.feature_std"]
    for name in names:
        assert arrays_of(model)[name].shape == ()
    for change in (
        lambda: None,
        model.unfreeze,
        model.trunk.unfreeze,
        model.freeze,
        model.unfreeze,
    ):
        change()
        trained = dict(tree_flatten(model.trainable_parameters()))
        assert not set(names) & set(trained)
    assert "trunk.stem.weight" in trained
    assert "trunk.blocks.0.attention.projection_in.weight" in trained
    clip = ChordRecognitionModel(32, 1)
    clip.unfreeze()
    assert not [n for n, _ in tree_flatten(clip.trainable_parameters()) if "feature_" in n]


def test_frames_that_patches_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="7 frames, expected a multiple of patch=2"):
        FrameChordModel(BINS, settings())(features(1, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "lstm"}, "architecture: found 'lstm', expected one of equivariant, "),
        ({"architecture": "equivariant", "width": 32}, "width=32, expected a multiple of 12"),
        ({"architecture": "equivariant", "hidden": 50}, "hidden=50, expected a multiple of 12"),
        ({"heads": 3}, "width=32 is not a multiple of heads=3"),
        ({"kernel": 4}, "kernel=4, expected an odd number of frames"),
        ({"kernel": 2, "architecture": "btc"}, "kernel=2, expected an odd"),
        ({"kernel": 6, "architecture": "conformer"}, "kernel=6, expected an odd"),
        ({"patch": 0}, "patch=0, expected 1 or more"),
        ({"blocks": -1}, "blocks=-1, expected 1 or more"),
        ({"width": 0}, "width=0, expected 1 or more"),
        ({"hidden": 0}, "hidden=0, expected 1 or more"),
        ({"stem_hidden": -1}, "stem_hidden=-1, expected 0 or more"),
        ({"heads": 0}, "heads=0, expected 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0, expected 0 or more and less than 1"),
        ({"width": 33, "heads": 3, "architecture": "btc"}, "width=33, expected an even number"),
    ],
)
def test_impossible_models_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_same_seed_same_weights():
    def weights():
        mx.random.seed(3)
        return arrays_of(FrameChordModel(BINS, settings()))

    first, second = weights(), weights()
    assert all((first[name] == second[name]).all().item() for name in first)


# ---- BTC


def test_btc_has_the_size_of_the_paper():
    chosen = ChordModelSettings("btc", width=128, blocks=8, heads=4, hidden=128, kernel=3, patch=1)
    assert count(FrameChordModel(144, chosen)) == pytest.approx(2.9e6, rel=0.03)


def test_btc_directions_see_the_past_and_the_future_only():
    block = BidirectionalBlock(16, 2, 16, 1, 0.0)  # kernel 1, so that only attention mixes frames
    frames, at = 10, 4
    x = np.random.default_rng(0).normal(size=(1, frames, 16)).astype(np.float32)
    changed = x.copy()
    changed[:, at] = np.random.default_rng(1).normal(size=16)

    def seen(direction, mask):
        both = [np.array(direction(mx.array(values), mask)) for values in (x, changed)]
        return np.flatnonzero(np.abs(both[1] - both[0])[0].max(-1) > 1e-6).tolist()

    future = nn.MultiHeadAttention.create_additive_causal_mask(frames)
    assert seen(block.forward, future) == list(range(at, frames))
    assert seen(block.backward, future.T) == list(range(at + 1))


def test_a_btc_block_joins_both_directions():
    block = BidirectionalBlock(16, 2, 16, 1, 0.0)
    x = mx.array(np.random.default_rng(1).normal(size=(1, 6, 16)), mx.float32)
    mask = nn.MultiHeadAttention.create_additive_causal_mask(6)
    both = mx.concatenate([block.forward(x, mask), block.backward(x, mask.T)], axis=-1)
    np.testing.assert_allclose(np.array(block(x)), np.array(block.joined(both)), atol=1e-6)


def test_sinusoids_turn_at_rates_from_1_to_a_ten_thousandth():
    table = np.array(sinusoids(50, 8), np.float64)
    assert table.shape == (50, 8)
    rates = 10000.0 ** -(np.arange(4) / 3)
    angles = np.arange(50)[:, None] * rates
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(table, expected, atol=1e-5)


# ---- the clip model


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("samples", [1, 4000, 44100])
def test_clip_model_takes_waveforms_of_any_length(rate, samples):
    model = ChordRecognitionModel(d_model=32, num_blocks=1, rate=rate)
    logits = model(mx.random.normal((2, samples)))
    assert [logits[head].shape for head in HEADS] == [(2, 32), (2, 12), (2, 12)]
    assert np.isfinite(joined(logits)).all()


def test_clip_model_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"audio of shape \(100,\), expected \(batch, samples\)"):
        ChordRecognitionModel(32, 1)(mx.zeros(100))


def test_clip_model_has_no_front_end_among_its_parameters():
    names = [name for name, _ in tree_flatten(ChordRecognitionModel(32, 1).parameters())]
    assert {name.split(".")[0] for name in names} == {"trunk", "heads"}


def test_clip_model_ignores_order_of_silence_but_not_pitch():
    model = ChordRecognitionModel(32, 1)
    model.eval()
    time = np.arange(22050) / 44100
    tones = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (220, 220, 233.08)])
    low, same, high = joined(model(mx.array(tones, mx.float32)))
    # A BLAS may round the rows of a product differently.
    np.testing.assert_allclose(low, same, atol=1e-4)
    assert np.abs(high - low).max() > 1e-3


def test_clip_model_learns_from_batches_of_audio_and_targets():
    """(audio, {"chord_type", "root", "bass_note"}) as seed 002 has them: 1 s at 44.1 kHz."""
    mx.random.seed(0)
    model = ChordRecognitionModel(d_model=32, num_blocks=1, dropout=0.0)
    criterion = ChordRecognitionLoss(
        chord_type_weight=1.0, root_weight=1.0, bass_weight=0.5, label_smoothing=0.1
    )
    roots = np.arange(4)
    time = np.arange(44100) / 44100
    audio = np.stack(
        [
            sum(np.sin(2 * np.pi * 220 * 2 ** ((r + i) / 12) * time) for i in (0, 4, 7))
            for r in roots
        ]
    )
    targets = {
        "chord_type": mx.array([1, 1, 1, 1]),
        "root": mx.array((9 + roots) % 12),
        "bass_note": mx.array((9 + roots) % 12),
    }
    batch = (mx.array(0.2 * audio, mx.float32), targets)
    optimizer = optim.AdamW(learning_rate=3e-3, bias_correction=True)

    def loss(module, batch):
        return criterion(module(batch[0]), batch[1])[0]

    step = nn.value_and_grad(model, loss)
    losses = []
    for _ in range(20):
        value, gradients = step(model, batch)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state, value)
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    assert np.array(model(batch[0])["root"]).argmax(-1).tolist() == targets["root"].tolist()


def test_trunk_gives_steps_of_its_width():
    steps, changes = Trunk(BINS, settings(patch=4))(features(2, 12))
    assert steps.shape == (2, 3, 32)
    assert changes == []
