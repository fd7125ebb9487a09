"""CLAP's training modules: the tutorial's face, what modes train, losses, rates, micro batches."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny_clap
from mlx.utils import tree_flatten

from audiotrain import Trainer
from audiotrain.models.clap import CLAP
from audiotrain.models.clap.model import logit_scale
from audiotrain.recipes.clap.finetuning import LoraSettings, OptimizationSettings, optimizer_config
from audiotrain.recipes.clap.training import CLAPTraining, CLAPTrainModule, LossSettings
from audiotrain.train.losses import ContrastiveLoss, SigLIPLoss
from audiotrain.utils.arrays import arrays_of

ROWS = 6


def batch(rows: int = ROWS, fused: bool = False) -> dict[str, mx.array]:
    rng = np.random.default_rng(0)
    shape = (rows, 4 if fused else 1, 51, 16)
    ids = rng.integers(5, 300, (rows, 12))
    return {
        "mel": mx.array(rng.normal(-40, 10, shape).astype(np.float32)),
        "is_longer": mx.array(np.arange(rows) % 2 == 0),
        "input_ids": mx.array(ids.astype(np.int32)),
        "attention_mask": mx.array((np.arange(12) < 8 + np.arange(rows)[:, None] % 4) * 1),
        "group": mx.array(np.arange(rows) // 2),
    }


def attached(module, tmp_path, steps: int = 100):
    trainer = Trainer(max_steps=steps, default_root_dir=tmp_path, logger=False)
    module.attach(trainer)
    return module


def gradients(module, batch):
    """Loss, metrics and gradients by name."""
    (loss, metrics), found = nn.value_and_grad(module, module.compute_loss)(batch)
    return loss, metrics, dict(tree_flatten(found))


# ---- the tutorial


@pytest.mark.parametrize(("audio", "text"), [(False, True), (True, False), (True, True)])
def test_the_tutorials_model_and_what_it_freezes(audio, text):
    module = CLAPTrainModule(freeze_audio=audio, freeze_text=text, clap=tiny_clap.model())
    trained = {name.split(".")[1] for name in arrays_of(module.trainable_parameters())}
    frozen = {"audio_encoder", "audio_projection"} if audio else set()
    frozen |= {"text_encoder"} if text else set()
    parts = {"audio_encoder", "audio_projection", "text_encoder", "text_projection"}
    assert trained == parts - frozen | {"logit_scale_a", "logit_scale_t"}
    given = batch()
    outputs = module(given["mel"], given["input_ids"], given["attention_mask"])
    assert outputs["logits_per_audio"].shape == outputs["logits_per_text"].shape == (ROWS, ROWS)


@pytest.mark.parametrize("wrapped", [True, False])
def test_one_side_alone_has_its_embeddings(wrapped):
    model = tiny_clap.model().eval()
    if wrapped:
        model = CLAPTrainModule(clap=model).eval()
    given = batch()
    both = model(given["mel"], given["input_ids"], given["attention_mask"])
    audio = model(audio=given["mel"])
    text = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
    assert (list(audio), list(text)) == (["audio_embeds"], ["text_embeds"])
    for found in (audio, text):
        for name, array in found.items():
            np.testing.assert_allclose(array, both[name], atol=1e-6)
    with pytest.raises(ValueError, match="audio and input_ids are None, expected one of them"):
        model()
    assert "from_pretrained" in CLAP.__doc__.splitlines()[0]


def test_without_a_model_it_is_the_released_architecture():
    module = CLAPTrainModule(freeze_audio=False, freeze_text=True)  # lazy: nothing is allocated
    assert isinstance(module.clap, CLAP)
    assert module.parameter_counts()[0] == 153_492_890 + 2 * 64  # statistics
    assert module.training


def test_the_tutorials_loss_is_cross_entropy_both_ways(tmp_path):
    module = attached(CLAPTrainModule(clap=tiny_clap.model(dropout=0.0)), tmp_path)
    module.clap.logit_scale_a, module.clap.logit_scale_t = mx.array(2.0), mx.array(1.0)
    module.eval()
    given = batch()
    mel, ids, mask = given["mel"].swapaxes(2, 3), given["input_ids"], given["attention_mask"]
    outputs = module(audio=mel, input_ids=ids, attention_mask=mask)
    labels = mx.arange(ROWS)
    sides = [outputs["logits_per_audio"], outputs["logits_per_text"]]
    expected = sum(mx.mean(nn.losses.cross_entropy(side, labels)) for side in sides) / 2
    loss, metrics = module.compute_loss((mel, ids, mask))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, side in zip(("audio_acc", "text_acc"), sides, strict=True):
        share = mx.mean(mx.argmax(side, axis=-1) == labels)
        assert metrics[name].item() == pytest.approx(share.item())


@pytest.mark.parametrize(("steps", "peak"), [(100, 20), (1000, 200), (5000, 200)])
def test_the_tutorials_rate_is_highest_after_a_fifth_or_200_steps(tmp_path, steps, peak):
    module = attached(CLAPTrainModule(clap=tiny_clap.model()), tmp_path, steps=steps)
    rate = module.configure_optimizers().optimizer._schedulers["learning_rate"]
    rates = rate(mx.arange(steps))
    assert mx.argmax(rates).item() == peak
    assert rates[peak].item() == pytest.approx(5e-5)
    half = rate(mx.array(peak + (steps - peak) // 2)).item()
    assert half == pytest.approx(2.5e-5)


def test_the_tutorials_rate_rises_and_falls(tmp_path):
    module = attached(CLAPTrainModule(clap=tiny_clap.model()), tmp_path, steps=1000)
    config = module.configure_optimizers()
    assert config.lr_schedule_name == "warmup_linear"
    optimizer = config.optimizer
    rates = [
        optimizer._schedulers["learning_rate"](mx.array(step)).item() for step in (0, 200, 999)
    ]
    assert rates[0] < 1e-6
    assert rates[1] == pytest.approx(5e-5)
    assert rates[2] < 1e-6
    assert optimizer.weight_decay == 0.01


# ---- the recipe's module


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_pairs_of_one_group_match(tmp_path, kind):
    clap = tiny_clap.model(dropout=0.0)
    module = attached(CLAPTraining(clap, loss=LossSettings(kind, bias=-3.0)), tmp_path).eval()
    given = batch()
    audio, text = module.embed(given)
    scale = logit_scale(clap.logit_scale_a)
    if kind == "infonce":
        expected, _ = ContrastiveLoss()(audio, text, scale, given["group"])
        alone, _ = ContrastiveLoss()(audio, text, scale)
    else:
        expected, _ = SigLIPLoss()(audio, text, scale, mx.array(-3.0), given["group"])
        alone, _ = SigLIPLoss()(audio, text, scale, mx.array(-3.0))
    loss, metrics = module.compute_loss(given)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6) != alone.item()
    assert metrics["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)
    trained = arrays_of(module.trainable_parameters())
    assert ("logit_bias" in trained) == (kind == "siglip")
    assert "clap.logit_scale_t" not in trained


def drawn_for_each_row(share, shape):
    """Dropout's mask, the same for all rows, so that it does not depend on how many there are."""
    rng = np.random.default_rng(sum(shape[1:]))
    return mx.array(np.broadcast_to(rng.uniform(size=shape[1:]) < float(share), shape))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mode", ["full", "audio", "text", "last-n"])
def test_micro_batches_are_the_whole_batch(tmp_path, fused, mode, monkeypatch):
    """Loss, gradients and the norm's statistics, with dropout."""
    monkeypatch.setattr(mx.random, "bernoulli", drawn_for_each_row)
    found, statistics = [], []
    for micro in (2, 0):
        clap = tiny_clap.model(fused=fused, dropout=0.2)
        before = clap.audio_encoder.batch_norm.running_mean
        module = attached(CLAPTraining(clap, mode, micro_batch=micro), tmp_path)
        found.append(gradients(module, batch(fused=fused)))
        statistics.append(clap.audio_encoder.batch_norm.running_mean)
    np.testing.assert_allclose(*statistics, atol=1e-5)
    assert bool(mx.any(statistics[0] != before)) == (mode in ("full", "audio"))
    assert found[0][0].item() == pytest.approx(found[1][0].item(), abs=1e-5)
    assert found[0][2].keys() == found[1][2].keys()
    for name, gradient in found[0][2].items():
        np.testing.assert_allclose(gradient, found[1][2][name], atol=2e-5, err_msg=name)
    assert mx.abs(found[0][2]["clap.logit_scale_a"]).item() > 0


def test_blocks_computed_twice_have_the_same_gradients(tmp_path):
    found = []
    for twice in (False, True):
        module = attached(CLAPTraining(tiny_clap.model(), checkpoint_blocks=twice), tmp_path)
        mx.random.seed(3)
        found.append(gradients(module, batch())[2])
    for name, gradient in found[0].items():
        np.testing.assert_allclose(gradient, found[1][name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", ["projection", "audio", "text", "lora", "last-n"])
def test_a_frozen_tower_rests_while_the_rest_trains(mode):
    lora = LoraSettings(targets=("audio_encoder.*.value",))
    module = CLAPTraining(tiny_clap.model(), mode, lora=lora, last=1)
    frozen = {
        "projection": (True, True),
        "audio": (False, True),
        "text": (True, False),
        "lora": (False, True),
        "last-n": (False, False),
    }[mode]
    assert (module.audio_is_frozen, module.text_is_frozen) == frozen
    for train in (True, False):
        module.train(train)
        assert module.clap.audio_encoder.training == (train and not frozen[0])
        assert module.clap.text_encoder.training == (train and not frozen[1])
    module.train()
    given = batch()
    for is_frozen, embed in zip(frozen, (module.embed_audio, module.embed_text), strict=True):
        repeated = mx.array_equal(embed(given), embed(given)).item()
        assert repeated == is_frozen, "dropout draws anew"


def test_vectors_of_frozen_towers_stand_for_their_inputs(tmp_path):
    module = attached(CLAPTraining(tiny_clap.model(), "projection"), tmp_path)
    given, clap = batch(), module.clap
    vectors = {
        "audio_vector": clap.audio_encoder(given["mel"], given["is_longer"]),
        "text_vector": clap.text_encoder(given["input_ids"], given["attention_mask"]),
        "group": given["group"],
    }
    whole, cached = gradients(module, given), gradients(module, vectors)
    assert whole[0].item() == pytest.approx(cached[0].item(), abs=1e-6)
    for name, gradient in whole[2].items():
        np.testing.assert_allclose(gradient, cached[2][name], atol=1e-6, err_msg=name)
    audio = module.predict_step({"audio_vector": vectors["audio_vector"]})
    text = module.predict_step({"text_vector": vectors["text_vector"]})
    np.testing.assert_allclose(audio, module.embed_audio(given), atol=1e-6)
    np.testing.assert_allclose(text, module.embed_text(given), atol=1e-6)


def test_more_blocks_than_there_are_are_refused():
    with pytest.raises(ValueError, match="last=4, expected at most 3, the text tower's blocks"):
        CLAPTraining(tiny_clap.model(), "last-n", last=4)
    with pytest.raises(ValueError, match="LoRA target 'nosuch' fits no linear layer"):
        CLAPTraining(tiny_clap.model(), "lora", lora=LoraSettings(targets=("nosuch",)))


# ---- rates


def rates(module, settings, pretrained=True):
    """By parameter (rate, weight decay) at the peak."""
    config = optimizer_config(module, module.clap, settings, 4000, pretrained)
    found = {}
    for name in arrays_of(module.trainable_parameters()):
        group = config.optimizer.group(name)
        one = config.optimizer.optimizers[config.optimizer.names.index(group)]
        peak = one._schedulers["learning_rate"](mx.array(settings.warmup_steps)).item()
        found[name] = peak, one.weight_decay
    return found, config


@pytest.mark.parametrize("mode", ["full", "projection", "lora", "last-n"])
def test_heads_and_towers_have_their_rates_and_only_matrices_decay(mode):
    module = CLAPTraining(tiny_clap.model(), mode, loss=LossSettings("siglip"))
    settings = OptimizationSettings(learning_rate=1e-5, head_rate=1e-3, weight_decay=0.1)
    found, config = rates(module, settings)
    shapes = {name: array.ndim for name, array in arrays_of(module).items()}
    for name, (rate, decay) in found.items():
        tower = "_encoder." in name and "lora_" not in name
        assert rate == pytest.approx(1e-5 if tower else 1e-3), name
        matrix = shapes[name] > 1 and "bias_table" not in name
        assert decay == (0.1 if matrix else 0.0), name
    first = config.optimizer.names[0]
    assert first.startswith("towers" if mode in ("full", "last-n") else ("heads", "lora"))


def test_layers_have_smaller_rates_the_nearer_they_are_to_the_input():
    module = CLAPTraining(tiny_clap.model())
    found, _ = rates(
        module, OptimizationSettings(learning_rate=1e-3, head_rate=1e-2, layer_decay=0.5)
    )
    places = {
        "audio_encoder.norm.weight": 1,
        "audio_encoder.layers.1.blocks.1.output.weight": 1,
        "audio_encoder.layers.1.blocks.0.output.weight": 1 / 2,
        "audio_encoder.layers.0.downsample.reduction.weight": 1 / 4,
        "audio_encoder.layers.0.blocks.1.output.bias": 1 / 4,
        "audio_encoder.layers.0.blocks.0.attention.relative_position_bias_table": 1 / 8,
        "audio_encoder.patch_embed.proj.weight": 1 / 16,
        "audio_encoder.batch_norm.bias": 1 / 16,
        "text_encoder.pooler.weight": 1,
        "text_encoder.layers.2.output.weight": 1,
        "text_encoder.layers.0.attention.query.weight": 1 / 4,
        "text_encoder.embeddings.word_embeddings.weight": 1 / 8,
        "text_projection.linear1.bias": 10,
    }
    for name, share in places.items():
        assert found[f"clap.{name}"][0] == pytest.approx(1e-3 * share), name


@pytest.mark.parametrize(("pretrained", "expected"), [(True, (1e-5, 1e-4)), (False, (1e-3, 1e-3))])
def test_rates_that_are_not_given_depend_on_the_start(pretrained, expected):
    found, _ = rates(CLAPTraining(tiny_clap.model()), OptimizationSettings(), pretrained)
    assert found["clap.text_encoder.pooler.weight"][0] == pytest.approx(expected[0])
    assert found["clap.text_projection.linear1.weight"][0] == pytest.approx(expected[1])
