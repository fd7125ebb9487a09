"""LoRA: only the updates train, merged is the same as apart, and they are saved alone."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from toy import same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.models.lora import add_lora, load_lora, lora_parameters, merge_lora, save_lora

WIDTH, RANK = 6, 2
TARGETS = ["blocks.*.query", "head"]
ADAPTED = ["blocks.0.query", "blocks.1.query", "head"]


class Expanded(nn.Linear):
    """Not the product that nn.Linear is: an update of its weight means something else."""

    def __call__(self, x):
        return super().__call__(x) ** 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.expanded = Expanded(WIDTH, WIDTH)
        self.norm, self.dropout = nn.BatchNorm(WIDTH), nn.Dropout(0.1)

    def __call__(self, x):
        x = self.norm(x)
        return x + self.dropout(mx.tanh(self.query(x)) * self.key(x) + self.expanded(x))


class Model(TrainModule):
    def __init__(self, seed=0):
        super().__init__()
        mx.random.seed(seed)
        self.blocks = [Block(), Block()]
        self.head = nn.Linear(WIDTH, 3)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def compute_loss(self, batch):
        return mx.mean((self(batch) - 1) ** 2), {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=3e-2))


def data(count=8):
    rng = np.random.default_rng(0)
    return [mx.array(rng.normal(size=(5, WIDTH)), mx.float32) for _ in range(count)]


def outputs(model):
    model.eval()
    return np.array(model(data(1)[0]))


def names(tree) -> list[str]:
    return sorted(name for name, _ in tree_flatten(tree))


def moved(model, seed=3):
    """The model with updates that are not zero."""
    mx.random.seed(seed)
    for name, layer in model.named_modules():
        if name in ADAPTED:
            layer.lora_b = mx.random.normal(layer.lora_b.shape)
    return model


def test_the_update_starts_at_nothing_and_has_its_closed_form():
    plain, model = Model(), Model()
    assert add_lora(model, RANK, TARGETS, alpha=4.0) == ADAPTED
    assert np.array_equal(outputs(plain), outputs(model))
    layer, x = moved(model).head, data(1)[0]
    weight, bias = np.array(layer.weight), np.array(layer.bias)
    update = 4.0 / RANK * np.array(layer.lora_a) @ np.array(layer.lora_b)
    expected = np.array(x) @ (weight.T + update) + bias
    np.testing.assert_allclose(np.array(layer(x)), expected, atol=1e-5)
    assert layer.lora_a.shape == (WIDTH, RANK)
    assert 0.7 / np.sqrt(WIDTH) < mx.abs(layer.lora_a).max().item() < 1 / np.sqrt(WIDTH)


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_only_the_updates_train(tmp_path, precision):
    model, start = Model(), weights(Model())
    add_lora(model, RANK, TARGETS, dropout=0.2)
    trained = sorted(f"{name}.{part}" for name in ADAPTED for part in ("lora_a", "lora_b"))
    assert names(model.trainable_parameters()) == trained
    assert sorted(lora_parameters(model)) == trained
    assert names(model.parameters()) == sorted([*start, *trained])  # the base's names stay
    begin = weights(model)
    run = trainer(tmp_path, max_epochs=3, precision=precision)
    run.fit(model, data(), data(1))
    end = weights(model)
    assert same(start, {name: end[name] for name in start})  # BatchNorm's statistics, too
    assert all(not np.array_equal(begin[name], end[name]) for name in trained)
    losses = [row["train_loss"] for row in run.history.rows]
    assert losses[-1] < losses[0]


def test_merged_is_the_same_with_the_names_of_before():
    model = Model()
    before = names(model.parameters())
    add_lora(model, RANK, TARGETS)
    apart = outputs(moved(model))
    assert np.abs(apart - outputs(Model())).max() > 0.1
    merge_lora(model)
    assert np.abs(outputs(model) - apart).max() <= 1e-6 * max(1, np.abs(apart).max())
    assert names(model.parameters()) == before
    assert [type(part) for part in model.modules()] == [type(part) for part in Model().modules()]
    assert names(model.trainable_parameters()) == []
    model.train()
    model(data(1)[0])
    assert not np.array_equal(weights(model)["blocks.0.norm.running_mean"], np.zeros(WIDTH))


def test_dropout_is_of_the_update_and_only_in_training():
    layer, x = nn.Sequential(nn.Linear(WIDTH, WIDTH)), mx.ones((4000, WIDTH))
    add_lora(layer, WIDTH, "*", alpha=WIDTH, dropout=0.25)
    layer.layers[0].lora_a, layer.layers[0].lora_b = mx.eye(WIDTH), mx.eye(WIDTH)
    base = layer.layers[0].weight.sum(axis=1) + layer.layers[0].bias
    update = np.array(layer(x) - base)
    np.testing.assert_allclose(np.unique(update.round(4)), [0, 1.3333])
    assert (update < 0.5).mean() == pytest.approx(0.25, abs=0.01)
    layer.eval()
    np.testing.assert_allclose(np.array(layer(x) - base), 1, atol=1e-5)
    merge_lora(layer)
    add_lora(layer, 1, "*", dropout=0.5)
    assert not layer.layers[0].lora_dropout.training  # as its layer


def test_updates_are_saved_and_loaded_alone(tmp_path):
    path, model = tmp_path / "updates.safetensors", Model()
    add_lora(model, RANK, ["blocks.*.query"], alpha=2.0, dropout=0.1)
    add_lora(model, 1, "head", alpha=5.0)  # another call adds to what trains
    assert len(names(model.trainable_parameters())) == 2 * len(ADAPTED)
    moved(model)
    save_lora(model, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size < 4000
    again = Model()
    assert load_lora(again, path) == ADAPTED
    assert np.array_equal(outputs(again), outputs(model))
    assert names(again.trainable_parameters()) == names(model.trainable_parameters())
    assert again.blocks[0].query.lora_dropout._p_1 == pytest.approx(0.9)
    load_lora(moved(again, seed=9), path)  # replaces what is there
    assert np.array_equal(outputs(again), outputs(model))


def test_layers_of_shared_modules_are_adapted_once():
    model = Model()
    model.blocks.append(model.blocks[0])
    assert add_lora(model, RANK, "*.key") == ["blocks.0.key", "blocks.1.key"]
    assert len(lora_parameters(model)) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["head", "blocks.*.expanded"]}, "'blocks.*.expanded' fits no linear layer"),
        ({"targets": "nothing"}, "there are: blocks.0.key, blocks.0.query, blocks.1.key"),
        ({"rank": 0}, "rank is 0, expected 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
    ],
)
def test_what_cannot_be_adapted_is_refused(settings, message):
    model, before = Model(), names(Model().trainable_parameters())
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        add_lora(model, **({"rank": RANK, "targets": TARGETS} | settings))
    assert names(model.trainable_parameters()) == before


def test_an_adapted_layer_is_not_adapted_again():
    model = Model()
    add_lora(model, RANK, TARGETS)
    with pytest.raises(ValueError, match="head has a LoRA update already"):
        add_lora(model, RANK, "head")


def test_files_that_do_not_fit_are_refused(tmp_path):
    path, model = tmp_path / "updates.safetensors", Model()
    with pytest.raises(ValueError, match="Model has no LoRA updates to save"):
        save_lora(model, path)
    add_lora(model, RANK, TARGETS)
    save_lora(model, path)
    with pytest.raises(ValueError, match="expected a name that ends in .safetensors"):
        save_lora(model, tmp_path / "updates.npz")
    with pytest.raises(ValueError, match="adapts blocks.0.query, which is no linear layer of this"):
        load_lora(nn.Sequential(nn.Linear(WIDTH, 3)), path)
    other = Model()
    other.head = nn.Linear(WIDTH, 4)
    with pytest.raises(ValueError, match=r"head is of \(3, 6\), expected \(4, 6\)"):
        load_lora(other, path)
    assert lora_parameters(other) == {}
    mx.save_safetensors(str(tmp_path / "other.safetensors"), {"x": mx.zeros((1,))})
    with pytest.raises(ValueError, match="no LoRA updates, expected a file of save_lora"):
        load_lora(model, tmp_path / "other.safetensors")
