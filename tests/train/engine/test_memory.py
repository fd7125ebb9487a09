"""Layers computed twice, and MLX's limits during fit."""

import copy
import gc

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from toy import Classifier, Line, loaders, same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.train.callbacks import Callback
from audiotrain.train.engine.memory import checkpoint_layers


class Block(nn.Module):
    """What makes computing twice hard: dropout, batch norm, a frozen part, optional arguments."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm, self.dropout = nn.BatchNorm(width), nn.Dropout(0.3)
        self.frozen = nn.Linear(width, width)
        self.frozen.freeze()

    def __call__(self, state: dict, scale=None, label: str = "x"):
        x = state[label]
        hidden = mx.sin(mx.cos(nn.relu(self.inner(self.norm(x)))))
        frozen = self.frozen(x) if scale is None else scale * self.frozen(x)
        return {label: x + self.dropout(self.outer(hidden)) + frozen, "rows": state["rows"]}


class Deep(TrainModule):
    def __init__(self, blocks: int = 2, width: int = 8, hidden: int = 16):
        super().__init__()
        mx.random.seed(0)
        self.blocks = [Block(width, hidden) for _ in range(blocks)]

    def __call__(self, x):
        state = {"x": x, "rows": mx.arange(len(x))}
        for block in self.blocks:
            state = block(state, scale=mx.array(0.5))
        return state["x"]

    def compute_loss(self, batch):
        return mx.mean(self(batch) ** 2), {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=1e-2))


def batches(count: int = 4, width: int = 8) -> list:
    rng = np.random.default_rng(0)
    return [mx.array(rng.normal(size=(6, width)), mx.float32) for _ in range(count)]


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
@pytest.mark.parametrize(
    "settings",
    [{"precision": "bf16-mixed"}, {"compile": False}, {"accumulate_grad_batches": 2}],
    ids=str,
)
def test_a_checkpointed_run_is_the_same_bit_for_bit(tmp_path, settings):
    runs = []
    for checkpointed in (False, True):
        model = Deep()
        if checkpointed:
            checkpoint_layers(model.blocks)
        run = trainer(tmp_path, ema_decay=0.9, **settings)
        run.fit(model, batches(), batches(1))
        runs.append((weights(model), run.history.rows[-1], mx.random.state[0].tolist()))
    assert same(runs[0][0], runs[1][0])  # BatchNorm's statistics too
    assert runs[0][1] == runs[1][1]
    assert runs[0][2] == runs[1][2]
    assert "blocks.0.norm.running_mean" in runs[1][0]
    start, end = weights(Deep()), runs[1][0]
    changed = [key for key in end if not np.array_equal(start[key], end[key])]
    assert len(changed) == 2 * 8  # all but the frozen ones


def gradients(model, x):
    mx.random.seed(1)
    return nn.value_and_grad(model, lambda x: mx.sum(model(x) ** 2))(x)


def peak(model, x, compiled: bool) -> int:
    """Bytes in use at most during one evaluation of the gradients, above those before it."""
    state = [model.state, mx.random.state]

    def step(x):
        return gradients(model, x)

    step = mx.compile(step, inputs=state, outputs=state) if compiled else step
    for _ in range(2):  # not the first call, which makes the random state and BatchNorm's arrays
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(step(x), state)
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("compiled", [True, False])
def test_it_needs_less_memory(compiled):
    x = mx.random.normal((256, 32))
    plain, checkpointed = (Deep(blocks=8, width=32, hidden=256) for _ in range(2))
    checkpoint_layers(checkpointed.blocks)
    mx.eval(x, plain.state, checkpointed.state)
    assert peak(checkpointed, x, compiled) < 0.5 * peak(plain, x, compiled)


def test_an_instance_changes_and_nothing_else_does():
    model, other = Deep(), Deep()
    before = {name: id(array) for name, array in tree_flatten(model.parameters())}
    checkpoint_layers(model.blocks[:1])
    checkpoint_layers(model.blocks[:1])  # a second time does nothing
    assert type(other.blocks[0]) is type(model.blocks[1]) is Block
    assert isinstance(model.blocks[0], Block)
    assert type(model.blocks[0]).__mro__[1] is Block
    assert before == {name: id(array) for name, array in tree_flatten(model.parameters())}
    again = copy.deepcopy(model)
    (_, first), (_, second) = (gradients(m, batches(1)[0]) for m in (model, again))
    for (name, one), (_, two) in zip(tree_flatten(first), tree_flatten(second), strict=True):
        assert mx.array_equal(one, two), name


def test_an_error_in_the_second_computation_leaves_the_layer_usable():
    class Once(nn.Linear):
        calls = 0

        def __call__(self, x):
            Once.calls += 1
            if Once.calls == 2:
                raise KeyError("second")
            return super().__call__(x) * mx.random.uniform()

    layer = Once(2, 2)
    before = weights(layer)
    checkpoint_layers([layer])
    with pytest.raises(KeyError, match="second"):
        nn.value_and_grad(layer, lambda x: layer(x).sum())(mx.ones((1, 2)))
    mx.eval(mx.random.uniform())
    assert same(before, weights(layer))


def test_only_modules_are_taken():
    with pytest.raises(ValueError, match="checkpoint_layers got a str, expected modules"):
        checkpoint_layers(["blocks"])


# Limits


class Limits(Callback):
    """Notes MLX's limits in the middle of fit; setting one gives the one before."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen = limits()
        if trainer.global_step == 2:
            raise ZeroDivisionError


def limits() -> tuple[int, int]:
    found = []
    for setter in (mx.set_memory_limit, mx.set_cache_limit):
        found.append(setter(1 << 20))
        setter(found[-1])
    return tuple(found)


@pytest.mark.parametrize("batch_count", [1, 2], ids=["to the end", "an error"])
def test_limits_hold_during_fit_and_end_with_it(tmp_path, batch_count):
    before, noted = limits(), Limits()
    settings = {"memory_limit": 3 << 30, "cache_limit": 5 << 20, "wired_limit": 1 << 30}
    run = trainer(tmp_path, callbacks=[noted], **settings)
    if batch_count == 1:
        run.fit(Line(), [mx.ones((1, 2))])
    else:
        with pytest.raises(ZeroDivisionError):
            run.fit(Line(), [mx.ones((1, 2))] * 2)
    assert noted.seen == (3 << 30, 5 << 20)
    assert limits() == before


def test_the_wired_limit_is_for_metal(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: given.append(limit) or 7)
    for metal in (False, True):
        monkeypatch.setattr(mx.metal, "is_available", lambda metal=metal: metal)
        trainer(tmp_path, wired_limit=1 << 30).fit(Line(), [mx.ones((1, 2))])
        assert given == ([1 << 30, 7] if metal else [])


def test_without_limits_nothing_is_set(tmp_path):
    before, noted = limits(), Limits()
    trainer(tmp_path, callbacks=[noted]).fit(Line(), [mx.ones((1, 2))])
    assert noted.seen == before


def test_the_peak_is_of_this_run(tmp_path):
    mx.eval(mx.zeros((64 << 20,), mx.uint8) + 1)
    assert mx.get_peak_memory() > 64e6
    run = trainer(tmp_path, log_every_n_steps=1)
    run.fit(Classifier(), *loaders())
    assert 0 < run.history.log[-1]["peak_memory_mb"] < 64


@pytest.mark.parametrize("name", ["memory_limit", "cache_limit", "wired_limit"])
def test_limits_are_whole_numbers_of_bytes(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: found '1.5', expected a whole number"):
        trainer(tmp_path, **{name: 1.5})


@pytest.mark.slow
def test_training_leaves_nothing_behind(tmp_path):
    class Measures(Callback):
        """Bytes in use after 20 steps and after 200."""

        def __init__(self):
            self.found = {}

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step in (20, 200):
                trainer.loop.drain()
                mx.eval(trainer.step.state(), mx.random.state)
                mx.synchronize()
                gc.collect()
                self.found[trainer.global_step] = mx.get_active_memory()

    measures = Measures()
    run = trainer(tmp_path, max_steps=200, ema_decay=0.9, callbacks=[measures])
    run.fit(Classifier(), *loaders(count=80))
    assert measures.found[200] < measures.found[20] + 180 * 4  # not even a number a step
