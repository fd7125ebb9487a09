"""Embeddings a few rows at a time: the gradients of the whole batch, in less memory."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from toy import same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.train.engine.grad_cache import in_micro_batches
from audiotrain.train.engine.memory import checkpoint_layers
from audiotrain.train.losses import ContrastiveLoss, bounded_exp

ROWS, WIDTH = 16, 6


class Tower(nn.Module):
    def __init__(self, layers: int, hidden: int):
        super().__init__()
        self.layers = [
            nn.Sequential(nn.Linear(WIDTH, hidden), nn.Tanh(), nn.Linear(hidden, WIDTH))
            for _ in range(layers)
        ]
        self.dropout = nn.Dropout(0.3)

    def __call__(self, x):
        for layer in self.layers:
            x = x + self.dropout(layer(x))
        return x


class Pairs(TrainModule):
    """Two towers, one partly frozen, and a logit scale. `cached` False: the same parts of the
    batch, in the same order and so with the same dropout, in one plain graph."""

    def __init__(self, micro_batch=None, cached=True, layers=2, hidden=8):
        super().__init__()
        mx.random.seed(5)
        self.audio, self.text = Tower(layers, hidden), Tower(layers, hidden)
        self.text.layers[0].freeze()
        self.logit_scale = mx.array(2.0)
        self.micro_batch, self.cached = micro_batch, cached

    def embed(self, batch):
        return self.audio(batch["audio"]) * batch["gain"], self.text(batch["text"])

    def compute_loss(self, batch):
        if self.micro_batch is None:
            embeddings = self.embed(batch)
        elif self.cached:
            embeddings = in_micro_batches(self, self.embed, batch, self.micro_batch)
        else:
            parts = []
            for start in range(0, len(batch["audio"]), self.micro_batch):
                cut = slice(start, start + self.micro_batch)
                part = {name: batch[name][cut] for name in ("audio", "text")}
                parts.append(self.embed(part | {"gain": batch["gain"]}))
            embeddings = [mx.concatenate(side) for side in zip(*parts, strict=True)]
        return ContrastiveLoss()(*embeddings, bounded_exp(self.logit_scale))

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=1e-2))


def batch(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(rows, WIDTH)).astype(np.float32) for name in ("audio", "text")}
    return {name: mx.array(array) for name, array in arrays.items()} | {"gain": mx.array(0.5)}


def gradients(model, data):
    mx.random.seed(1)
    numbers, found = nn.value_and_grad(model, model.compute_loss)(data)
    after = mx.random.uniform().item()
    return numbers[0].item(), dict(tree_flatten(found)), after


@pytest.mark.parametrize("micro_batch", [2, 4, 8, 5])
@pytest.mark.parametrize("dropout", [True, False])
def test_gradients_are_those_of_the_whole_batch(micro_batch, dropout):
    plain, cached = Pairs(micro_batch if dropout else None, cached=False), Pairs(micro_batch)
    plain.train(dropout)
    cached.train(dropout)
    (loss, expected, after), (value, found, then) = (gradients(m, batch()) for m in (plain, cached))
    assert value == pytest.approx(loss, rel=1e-6)
    assert found.keys() == expected.keys()
    assert "logit_scale" in found
    assert "text.layers.0.layers.0.weight" not in found
    for name, gradient in expected.items():
        assert mx.abs(gradient).max().item() > 1e-4, name
        np.testing.assert_allclose(np.array(found[name]), np.array(gradient), atol=1e-6)
    if dropout:
        assert then == after  # as many random numbers are drawn


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compile": False},
        {"accumulate_grad_batches": 2, "ema_decay": 0.9},
        {"precision": "bf16-mixed"},
        {"checkpointed": True, "gradient_clip_val": 0.5},
    ],
    ids=str,
)
def test_a_run_is_that_of_the_plain_graph(tmp_path, settings):
    checkpointed = settings.pop("checkpointed", False)
    ends = []
    for cached in (False, True):
        model = Pairs(4, cached)
        if checkpointed:
            checkpoint_layers(model.audio.layers)
        data = [batch(seed) for seed in range(4)]
        data[2]["audio"][3] = mx.nan  # skipped, and nothing changes
        run = trainer(tmp_path, log_every_n_steps=1, **settings)
        run.fit(model, data, [batch(9, rows=6)])
        assert run.skipped_steps == 1
        if settings.get("compile", True) and "accumulate_grad_batches" not in settings:
            assert run.trace_count == 1
        ends.append((weights(model), run.history.rows[-1]["val_loss"], mx.random.state[0].tolist()))
    close = 2e-3 if "precision" in settings else 1e-5
    for name, array in ends[0][0].items():
        np.testing.assert_allclose(ends[1][0][name], array, atol=close, err_msg=name)
    assert ends[1][1] == pytest.approx(ends[0][1], abs=10 * close)
    assert ends[1][2] == ends[0][2]
    start = weights(Pairs())
    assert not same(start, ends[1][0])
    frozen = [name for name in start if name.startswith("text.layers.0")]
    assert frozen
    assert all(np.array_equal(start[name], ends[1][0][name]) for name in frozen)


def peak(model, data, compiled: bool) -> int:
    """Bytes in use at most during one evaluation of the gradients, above those before it."""
    state = [model.state, mx.random.state]

    def step(data):
        return nn.value_and_grad(model, model.compute_loss)(data)[1]

    step = mx.compile(step, inputs=state, outputs=state) if compiled else step
    for _ in range(2):  # not the first call
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(step(data), state)
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.slow
def test_memory_is_that_of_the_micro_batch(compiled):
    data = batch(rows=256)
    peaks = {}
    for micro_batch in (None, 128, 32):
        model = Pairs(micro_batch, layers=16, hidden=256)
        mx.eval(model.state, data)
        peaks[micro_batch] = peak(model, data, compiled)
    assert peaks[128] < 0.65 * peaks[None]
    assert peaks[32] < 0.3 * peaks[None]


def test_reading_whole_numbers_keeps_nothing_in_memory():
    """As RoBERTa looks for tokens that it does not have."""

    class Reading(Pairs):
        def embed(self, batch):
            assert batch["ids"].max().item() == 7
            return super().embed(batch)

    data = batch(rows=256) | {"ids": mx.full((256, 3), 7)}
    peaks = {}
    for micro_batch in (None, 32):
        model = Reading(micro_batch, layers=16, hidden=256)
        mx.eval(model.state, data)
        peaks[micro_batch] = peak(model, data, compiled=False)
    assert peaks[32] < 0.3 * peaks[None]


def test_a_part_is_done_with_before_the_next_begins():
    """Though both of its results are made of one wide layer, which all parts would hold."""
    trunk, heads = nn.Linear(WIDTH, 4096), [nn.Linear(4096, 2) for _ in "ab"]

    def encode(x):
        wide = trunk(x)
        return [head(wide) for head in heads]

    x = mx.ones((256, WIDTH))
    mx.eval(x, trunk, heads)
    peaks = []
    for micro_batch in (256, 8):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(in_micro_batches(trunk, encode, x, micro_batch))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[0] > 256 * 4096 * 4
    assert peaks[1] < 0.5 * peaks[0]


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
def test_both_computations_have_the_types_of_the_loss(tmp_path):
    class Typed(Pairs):
        def embed(self, batch):
            found = self.audio.layers[0](batch["audio"]), self.text.layers[0](batch["text"])
            types.extend(array.dtype for array in found)
            return found

    types = []
    trainer(tmp_path, precision="bf16-mixed", compile=False).fit(Typed(4), [batch()])
    assert types == [mx.float32] * (2 * 2 * ROWS // 4)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm(WIDTH), nn.Linear(WIDTH, 3)

    def __call__(self, x):
        return self.layer(self.norm(x))


def test_statistics_of_batch_norm_move_once_a_micro_batch():
    plain, cached = Normed(), Normed()
    cached.update(plain.parameters())
    x = batch()["audio"]
    for start in range(0, ROWS, 4):
        plain(x[start : start + 4])
    nn.value_and_grad(cached, lambda x: in_micro_batches(cached, cached, x, 4).sum())(x)
    for name in ("running_mean", "running_var"):
        assert mx.allclose(cached.norm[name], plain.norm[name], atol=1e-6)


def test_gradients_of_the_batch_and_of_its_scalars():
    layer = nn.Linear(WIDTH, 3)

    def loss(x, scale, cut):
        given = {"x": x * 2, "scale": scale, "rows": mx.arange(ROWS)}

        def encode(part):
            return {"y": layer(part["x"]) * part["scale"] * part["rows"][:, None]}

        found = in_micro_batches(layer, encode, given, cut)["y"]
        return (found**3).sum()

    x, scale = batch()["audio"], mx.array(0.1)
    whole, parts = (mx.grad(loss, argnums=(0, 1))(x, scale, cut) for cut in (ROWS, 3))
    for expected, found in zip(whole, parts, strict=True):
        assert mx.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_error_in_the_second_computation_leaves_all_as_it_was():
    model, calls = Normed(), []

    def encode(x):
        calls.append(1)
        if len(calls) == 4 + 2:
            raise KeyError("second")
        return model(x) * mx.random.uniform()

    before = weights(model)["layer.weight"]
    with pytest.raises(KeyError, match="second"):
        nn.value_and_grad(model, lambda x: in_micro_batches(model, encode, x, 4).sum())(
            mx.ones((16, 6))
        )
    mx.eval(model.state, mx.random.uniform())
    assert np.array_equal(before, weights(model)["layer.weight"])


@pytest.mark.parametrize(
    ("data", "micro_batch", "message"),
    [
        (
            {"x": mx.ones((4, 6)), "y": mx.ones((5, 6))},
            2,
            r"batch\['x'\] \(4, 6\) float32, batch\['y'\]",
        ),
        (mx.array(1.0), 2, "got batch .* expected arrays of as many rows"),
        (mx.ones((4, 6)), 0, "micro_batch is 0, expected 1 or more rows"),
    ],
)
def test_what_cannot_be_cut_is_refused(data, micro_batch, message):
    with pytest.raises(ValueError, match=message):
        in_micro_batches(nn.Linear(6, 1), lambda x: x, data, micro_batch)
