"""CLAP against Hugging Face's ClapModel of the same weights, and what freezing it means."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.clap.htsat import (
    HTSAT,
    CountingBatchNorm,
    WindowAttention,
    relative_positions,
    shifted_order,
    stretch,
    to_windows,
)
from audiotrain.models.clap.model import logit_scale
from audiotrain.models.clap.weights import from_hf, to_hf
from audiotrain.utils.arrays import arrays_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
pytest.importorskip("transformers", reason="not installed: audiotrain[reference]")
sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import torch_clap  # noqa: E402

AUDIO = HTSATConfig(
    spec_size=128,
    window_size=4,
    patch_embeds_hidden_size=16,
    depths=(2, 2, 2, 2),
    num_attention_heads=(2, 2, 4, 4),
    hidden_dropout_prob=0.0,
)
TEXT = RoBERTaConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SMALL = CLAPConfig(AUDIO, TEXT, projection_dim=12)
CASES = {
    "unfused": SMALL,
    "fused": replace(SMALL, audio_config=replace(AUDIO, enable_fusion=True)),
    "depth 12": replace(SMALL, audio_config=replace(AUDIO, depths=(2, 2, 12, 2))),
    "1001 frames": replace(SMALL, audio_config=replace(AUDIO, spec_size=256, window_size=8)),
    "patches of 8": replace(
        SMALL,
        audio_config=replace(AUDIO, patch_size=8, depths=(2, 2, 1), num_attention_heads=(2, 2, 4)),
    ),
    "no qkv bias": replace(SMALL, audio_config=replace(AUDIO, qkv_bias=False)),
}


@cache
def reference(case: str):
    """Hugging Face's model with random weights."""
    return torch_clap.random_clap(CASES[case], gain=1.2)


def twins(case: str):
    """Both models, with BatchNorm statistics as new."""
    theirs = reference(case)
    torch_clap.randomize_statistics(theirs, level=-15.0)
    ours = CLAP(CASES[case]).eval()
    put(ours, {name: mx.array(value.numpy()) for name, value in theirs.state_dict().items()})
    return ours, theirs


def put(model: CLAP, found: dict[str, mx.array]) -> None:
    arrays = from_hf(found, dict(tree_flatten(model.parameters())), "state_dict")
    model.update(tree_unflatten(list(arrays.items())))


def batch(case: str, clips: int = 3) -> dict[str, np.ndarray]:
    """Spectrograms, tokens with padding, and for fusion which clips are longer."""
    rng = np.random.default_rng(2)
    audio = CASES[case].audio_config
    frames = audio.frames * 1001 // 1024
    chunks = 4 if audio.enable_fusion else 1
    noise = rng.normal(-20, 3, (clips, chunks, frames, 64))
    colours = rng.normal(0, 8, (clips, chunks, 1, 64))
    ids = rng.integers(4, 60, (clips + 1, 9))
    ids[1, 5:] = ids[2, 8:] = 1
    found = {
        "input_features": (noise + colours).astype(np.float32),
        "input_ids": ids,
        "attention_mask": (ids != 1).astype(np.int64),
    }
    if audio.enable_fusion:
        found["is_longer"] = (np.arange(clips) != 1)[:, None]
    return found


def call(model: CLAP, inputs: dict) -> dict[str, mx.array]:
    return model(
        mx.array(inputs["input_features"]),
        mx.array(inputs["input_ids"]),
        mx.array(inputs["attention_mask"]),
        mx.array(inputs["is_longer"]) if "is_longer" in inputs else None,
    )


def call_torch(model, inputs: dict):
    return model(**{name: torch.from_numpy(value) for name, value in inputs.items()})


OUTPUTS = ("logits_per_audio", "logits_per_text", "audio_embeds", "text_embeds")


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_transformers(case):
    ours, theirs = twins(case)
    inputs = batch(case)
    found = call(ours, inputs)
    with torch.no_grad():
        expected = call_torch(theirs, inputs)
    assert set(found) == set(OUTPUTS)
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-5, err_msg=name)
    similar = np.abs(np.corrcoef(np.array(found["audio_embeds"])))
    assert similar[~np.eye(3, dtype=bool)].max() < 0.999  # clips apart, or equality says little


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_statistics_equal_transformers(case, training):
    """In training mode BatchNorm takes the batch's statistics; in fusion the longer clips'."""
    ours, theirs = twins(case)
    inputs = batch(case)
    ours.train(training)
    theirs.train(training)
    rng = np.random.default_rng(3)
    wanted = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (4, 3))]

    def loss_of():
        logits = call(ours, inputs)
        return (logits["logits_per_audio"] * wanted[0]).sum() + (
            logits["logits_per_text"] * wanted[1]
        ).sum()

    loss, gradients = nn.value_and_grad(ours, loss_of)()
    theirs.zero_grad()
    output = call_torch(theirs, inputs)
    expected_loss = (output.logits_per_audio * torch.from_numpy(wanted[0])).sum() + (
        output.logits_per_text * torch.from_numpy(wanted[1])
    ).sum()
    expected_loss.backward()
    theirs.eval()
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-5)
    found = to_hf(dict(tree_flatten(gradients)))
    expected = {name: weight.grad.numpy() for name, weight in theirs.named_parameters()}
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        # In training mode PyTorch itself is up to 4e-5 from its float64, and 1.5e-5 from one number
        # of threads to another.
        atol = (2e-5 if training else 1e-5) * max(1, np.abs(gradient).max())
        np.testing.assert_allclose(found[name], gradient, atol=atol, err_msg=name)
    statistics = to_hf(dict(tree_flatten(ours.parameters())))
    compared = 0
    for name, buffer in theirs.named_buffers():
        if "running" in name:
            np.testing.assert_allclose(statistics[name], buffer.numpy(), rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared == (10 if "fused" == case else 2)


def test_the_default_sizes_are_those_of_the_hub():
    """Trained numbers and entries of laion/clap-htsat-unfused, -fused and larger_clap_general."""
    larger = HTSATConfig(patch_embeds_hidden_size=128, depths=(2, 2, 12, 2))
    expected = {
        HTSATConfig(): (153_492_890, 447),
        HTSATConfig(enable_fusion=True): (153_507_530, 477),
        larger: (193_913_882, 555),
    }
    for audio, (parameters, entries) in expected.items():
        model = CLAP(CLAPConfig(audio))  # lazy: nothing is allocated
        arrays = to_hf(dict(tree_flatten(model.parameters())))
        trained = dict(tree_flatten(model.trainable_parameters()))
        assert sum(array.size for array in trained.values()) == parameters
        assert len(arrays) + len(model._rebuilt(list(arrays))) == entries


def test_the_tutorials_axes_are_recognised():
    ours, _ = twins("unfused")
    audio = mx.array(batch("unfused")["input_features"])
    np.testing.assert_array_equal(ours.embed_audio(audio.swapaxes(2, 3)), ours.embed_audio(audio))
    square = 10 * mx.random.normal((1, 1, 64, 64))  # 64 in the last place wins
    assert mx.abs(ours.embed_audio(square) - ours.embed_audio(square.swapaxes(2, 3))).max() > 1e-4


def test_an_embedding_does_not_depend_on_the_batch():
    for case in ("unfused", "fused"):
        ours, _ = twins(case)
        inputs = batch(case)
        longer = inputs.get("is_longer")
        whole = ours.embed_audio(inputs["input_features"], longer)
        for clip in range(3):
            alone = slice(clip, clip + 1)
            one = ours.embed_audio(
                inputs["input_features"][alone], None if longer is None else longer[alone]
            )
            np.testing.assert_allclose(one, whole[alone], atol=1e-5)
        ids = inputs["input_ids"]
        padded = np.pad(ids, ((0, 0), (0, 4)), constant_values=1)
        np.testing.assert_allclose(ours.embed_text(padded), ours.embed_text(ids), atol=1e-5)


def test_crops_count_for_longer_clips_only():
    ours, _ = twins("fused")
    inputs = batch("fused")
    audio = inputs["input_features"]
    other = audio.copy()
    other[:, 1:] += np.random.default_rng(0).normal(0, 5, other[:, 1:].shape)
    before, after = (ours.embed_audio(x, inputs["is_longer"]) for x in (audio, other))
    moved = np.abs(np.array(after - before)).max(axis=1)
    assert moved[1] == 0
    assert moved[[0, 2]].min() > 1e-3
    none = ours.embed_audio(audio, np.zeros(3, bool))
    np.testing.assert_array_equal(none, ours.embed_audio(audio[:, :1]))


def test_fusions_statistics_wait_for_two_longer_clips():
    ours, _ = twins("fused")
    ours.train()
    inputs = batch("fused")
    before = arrays_of(ours.audio_encoder.patch_embed)
    ours.embed_audio(inputs["input_features"], np.array([True, False, False]))
    after = arrays_of(ours.audio_encoder.patch_embed)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_stretching_equals_pytorchs_bicubic():
    for frames in (1, 2, 250, 1001, 1023):
        x = np.random.default_rng(frames).standard_normal((2, 1, frames, 5), np.float32)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(x), (1024, 5), mode="bicubic", align_corners=True
        )
        np.testing.assert_allclose(stretch(mx.array(x), 1024), expected.numpy(), atol=1e-5)


def test_windows_attention_trains_its_bias_on_a_gpu(monkeypatch):
    """MLX's fused attention has no gradient for it."""
    attention = WindowAttention(8, 2, HTSATConfig(window_size=2))
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.delattr(mx.fast, "scaled_dot_product_attention")
    for mask in (None, mx.zeros((3, 4, 4))):
        assert attention(mx.zeros((12, 8)), mask).shape == (12, 8)


def test_shifted_windows_hold_the_rolled_images_patches():
    rows, columns, window = 4, 8, 2
    image = mx.random.normal((3, rows, columns, 5))
    straight, shifted = (
        to_windows(x, window).reshape(3, -1, 5) for x in (image, mx.roll(image, (-1, -1), (1, 2)))
    )
    order = mx.array(shifted_order(rows, columns, window))
    assert mx.array_equal(straight[:, order], shifted)


def test_relative_positions_by_hand():
    """A window of 2: patches (0,0) (0,1) (1,0) (1,1); a table of 3 x 3, itself in the middle."""
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_positions(2), expected)


def train_a_step(model: CLAP, inputs: dict) -> None:
    """Weight decay too, which moves what is trained without a gradient."""
    import mlx.optimizers as optim

    optimizer = optim.AdamW(1e-2, weight_decay=0.1)
    _, gradients = nn.value_and_grad(
        model, lambda: mx.square(call(model, inputs)["logits_per_audio"]).sum()
    )()
    optimizer.update(model, gradients)
    mx.eval(model.parameters())


@pytest.mark.parametrize("case", ["unfused", "fused"])
def test_what_is_frozen_stays_to_the_bit(case):
    ours, _ = twins(case)
    ours.train()
    ours.audio_encoder.freeze()
    ours.text_encoder.freeze()
    before = arrays_of(ours)
    train_a_step(ours, batch(case))
    after = arrays_of(ours)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed == {n for n in before if "projection" in n or "logit" in n}
    ours.unfreeze()
    train_a_step(ours, batch(case))
    assert not np.array_equal(
        arrays_of(ours)["audio_encoder.batch_norm.running_mean"],
        before["audio_encoder.batch_norm.running_mean"],
    )


@pytest.mark.parametrize("part", ["model", "tower"])
def test_unfreezing_trains_no_statistics(part):
    model = CLAP(CASES["fused"])
    (model if part == "model" else model.audio_encoder).freeze()
    (model if part == "model" else model.audio_encoder).unfreeze()
    trained = dict(tree_flatten(model.trainable_parameters()))
    assert "audio_encoder.batch_norm.weight" in trained
    assert not [name for name in trained if "running" in name]


def test_batch_norm_of_all_counted_is_mlxs():
    x = mx.random.normal((4, 3, 5, 6)) * 2 + 1
    counted, plain = CountingBatchNorm(6), nn.BatchNorm(6)
    np.testing.assert_allclose(counted(x, mx.ones(4, mx.bool_)), plain(x), atol=1e-5)
    np.testing.assert_allclose(counted.running_var, plain.running_var, atol=1e-6)


def test_dropout_and_skipped_branches_only_in_training():
    audio = replace(AUDIO, drop_path_rate=0.5)
    tower = HTSAT(audio)
    x = mx.random.normal((2, 1, 200, 64))
    tower.eval()
    np.testing.assert_array_equal(tower(x), tower(x))
    tower.train()
    tower.batch_norm.freeze()
    assert mx.abs(tower(x) - tower(x)).max() > 1e-3


def test_the_logit_scale_stops_at_100():
    slope = mx.grad(lambda s, sign: sign * logit_scale(s))
    assert logit_scale(mx.array(2.0)).item() == pytest.approx(np.exp(2), rel=1e-6)
    assert slope(mx.array(2.0), mx.array(-1.0)).item() == pytest.approx(-np.exp(2), rel=1e-6)
    assert logit_scale(mx.array(5.0)).item() == pytest.approx(100, rel=1e-5)
    assert slope(mx.array(5.0), mx.array(-1.0)).item() == 0  # descent would enlarge it
    assert slope(mx.array(5.0), mx.array(1.0)).item() == pytest.approx(100, rel=1e-5)


def test_tokens_that_there_are_not_are_refused():
    model = CLAP(SMALL)
    for wrong in (60, -1):
        with pytest.raises(ValueError, match=f"token {wrong} in input_ids, expected 0 to 59"):
            model.embed_text(np.array([[0, wrong, 2]]))
    embed = mx.compile(model.embed_text)
    assert np.isnan(embed(mx.array([[0, 60, 2]]))).all()
    assert not np.isnan(embed(mx.array([[0, 59, 2]]))).any()


@pytest.mark.parametrize(
    ("case", "shape", "longer", "told"),
    [
        ("unfused", (2, 1, 100, 63), None, r"expected \(batch, chunks, frames, 64\)"),
        ("unfused", (2, 100, 64), None, r"expected \(batch, chunks, frames, 64\)"),
        ("unfused", (2, 1, 257, 64), None, "1 to 256 frames"),
        ("unfused", (2, 4, 100, 64), None, "4 chunks, expected 1"),
        ("fused", (2, 1, 100, 64), [True, False], "1 chunks, expected 4 with fusion"),
        ("fused", (2, 4, 100, 64), None, "4 chunks, expected 1 without"),
    ],
)
def test_audio_of_other_shapes_is_refused(case, shape, longer, told):
    longer = None if longer is None else mx.array(longer)
    with pytest.raises(ValueError, match=told):
        CLAP(CASES[case]).embed_audio(mx.zeros(shape), longer)


def test_texts_too_long_are_refused():
    with pytest.raises(ValueError, match="1 to 18 tokens"):
        CLAP(SMALL).embed_text(mx.zeros((1, 19), mx.int32))


def test_the_blocks_can_be_checkpointed():
    """Gradients with and without recomputation of the blocks are the same."""
    from audiotrain.train.engine.memory import checkpoint_layers

    ours, _ = twins("unfused")
    inputs = batch("unfused")
    gradient = nn.value_and_grad(ours, lambda: call(ours, inputs)["logits_per_text"].sum())
    before = arrays_of(gradient()[1])
    for stage in ours.audio_encoder.layers:
        checkpoint_layers(stage.blocks)
    checkpoint_layers(ours.text_encoder.layers)
    for name, array in arrays_of(gradient()[1]).items():
        np.testing.assert_allclose(array, before[name], atol=1e-5, err_msg=name)


def test_a_compiled_call_is_the_same():
    ours, _ = twins("fused")
    inputs = {name: mx.array(value) for name, value in batch("fused").items()}
    compiled = mx.compile(lambda i: call(ours, i))
    for name, array in call(ours, inputs).items():
        np.testing.assert_allclose(compiled(inputs)[name], array, atol=1e-5, err_msg=name)
