"""bfloat16 layers over float32 parameters."""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from toy import Classifier, Line, loaders, same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.models.chords import ChordModelSettings, ChordRecognitionModel
from audiotrain.models.chords.model import ARCHITECTURES
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.chords.training import ChordTraining, LossSettings, OptimizationSettings
from audiotrain.train import checkpoint
from audiotrain.train.engine.precision import Bfloat16Mixed, cast
from audiotrain.utils import arrays as utils_arrays

pytestmark = pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
MIXED = {"precision": "bf16-mixed"}


def rounded(array) -> np.ndarray:
    """To bfloat16 and back."""
    return np.array(mx.array(array).astype(mx.bfloat16).astype(mx.float32))


class Summed(TrainModule):
    """One Linear of ones, whose gradient is the batch's mean."""

    def __init__(self, rate: float = 1e-3):
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        self.layer.weight = mx.ones((1, 4))
        self.rate = rate

    def __call__(self, x):
        return self.layer(x)

    def compute_loss(self, batch):
        return mx.mean(self(batch)), {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.SGD(learning_rate=self.rate))


def test_small_steps_move_float32_parameters_but_not_bfloat16_ones(tmp_path):
    data = [mx.ones((2, 4))] * 20
    mixed, pure = Summed(), Summed()
    pure.set_dtype(mx.bfloat16)
    trainer(tmp_path, **MIXED, compile=False).fit(mixed, data)
    trainer(tmp_path, compile=False).fit(pure, data)
    np.testing.assert_allclose(np.array(mixed.layer.weight), 1 - 20e-3, rtol=1e-5)
    assert pure.layer.weight.astype(mx.float32).tolist() == [[1.0] * 4]


def test_gradients_are_accumulated_in_float32(tmp_path):
    model = Summed(rate=0.5)
    run = trainer(tmp_path, accumulate_grad_batches=512, **MIXED)
    run.fit(model, [mx.ones((1, 4))] * 512)  # a bfloat16 sum of ones stays at 256
    assert run.global_step == 1
    assert model.layer.weight.tolist() == [[0.5] * 4]


class Probe(nn.Module):
    """Notes the types that a part of a model sees."""

    def __init__(self, seen: dict, name: str):
        super().__init__()
        self.__dict__.update(seen=seen, name=name)

    def __call__(self, x):
        self.seen[self.name] = x.dtype
        return x


class Outputs(NamedTuple):
    logits: mx.array
    classes: mx.array


class Mixture(TrainModule):
    """Every kind of part: matrices, norms, own arrays, scalars, buffers, a frozen part."""

    def __init__(self):
        super().__init__()
        mx.random.seed(0)
        self.__dict__["seen"] = {}
        self.table = nn.Embedding(5, 8)
        self.inner = nn.Linear(8, 8)
        self.norm = nn.BatchNorm(8)
        self.frozen = nn.Linear(8, 8)
        self.frozen.freeze()
        self.outer = nn.Linear(8, 3)
        self.probes = [Probe(self.seen, name) for name in ("table", "inner", "norm", "own")]
        self.shift, self.scale, self.calls = mx.zeros((8,)), mx.array(1.0), mx.zeros((1,))
        self.freeze(recurse=False, keys=["calls"])

    def __call__(self, batch):
        self.seen["input"] = batch["x"].dtype
        table, inner, norm, own = self.probes
        x = table(self.table(batch["ids"])) + inner(self.inner(batch["x"]))
        x = self.frozen(norm(self.norm(x)))
        self.calls = self.calls + 1e-3 * self.training
        return Outputs(self.outer(nn.relu(own(x + self.shift))), batch["ids"])

    def compute_loss(self, batch):
        outputs = self(batch)
        logits = self.scale * outputs.logits
        loss = nn.losses.cross_entropy(logits, batch["y"], reduction="mean")
        direct = self.inner(batch["x"])
        found = {"ids": outputs.classes, "y": batch["y"], "x": batch["x"], "direct": direct}
        found |= {"logits": logits, "loss": loss, "scale": self.scale}
        found |= {"weight": self.inner.weight, "norm weight": self.norm.weight}
        found |= {"frozen weight": self.frozen.weight, "shift": self.shift, "calls": self.calls}
        self.seen.update({name: array.dtype for name, array in found.items()})
        return loss, {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=1e-2))


def mixture_batches(count: int = 6) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(4, 8)).astype(np.float32),
            "ids": rng.integers(0, 5, 4),
            "y": rng.integers(0, 3, 4),
        }
        for _ in range(count)
    ]


def test_what_is_rounded_and_what_is_not(tmp_path):
    model = Mixture()
    run = trainer(tmp_path, **MIXED, ema_decay=0.9)
    run.fit(model, mixture_batches(), mixture_batches(1))
    low = {"table", "inner", "norm", "own", "weight", "frozen weight", "shift"}
    whole = {"input", "x", "direct", "logits", "loss", "scale", "norm weight", "calls"}
    assert {name for name, dtype in model.seen.items() if dtype == mx.bfloat16} == low
    assert {name for name, dtype in model.seen.items() if dtype == mx.float32} == whole
    assert {name for name, dtype in model.seen.items() if dtype == mx.int64} == {"ids", "y"}
    assert run.trace_count == 1
    trees = (model.state, run.optimizer.state, run.step.extra)
    kept = {array.dtype for tree in trees for array in utils_arrays.arrays_of(tree).values()}
    assert kept == {mx.float32, mx.uint64}  # the optimizer counts its steps
    assert model.calls.item() == pytest.approx(6e-3)
    assert {type(part) for part in model.modules()} == {
        *(Mixture, Probe, nn.Embedding, nn.Linear, nn.BatchNorm)
    }


def test_statistics_of_norms_are_float32(tmp_path):
    class Normalized(Summed):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm(4), nn.BatchNorm(4)
            self.same = nn.Linear(4, 4, bias=False)
            self.same.weight = mx.eye(4)

        def __call__(self, x):
            return self.layer(self.first(x) + self.second(self.same(x)))

    x = np.random.default_rng(0).normal(100, 1, (64, 4)).astype(np.float32)
    model = Normalized()
    trainer(tmp_path, **MIXED, compile=False).fit(model, [x])
    for norm, seen in ((model.first, x), (model.second, rounded(x))):
        seen = seen.astype(np.float64)
        np.testing.assert_allclose(np.array(norm.running_mean), 0.1 * seen.mean(0), rtol=1e-6)
        variance = 0.9 + 0.1 * seen.var(0, ddof=1)
        np.testing.assert_allclose(np.array(norm.running_var), variance, rtol=1e-5)


def test_evaluation_and_prediction_round_too(tmp_path):
    class Model(Summed):
        def __init__(self):
            super().__init__()
            self.layer.weight = mx.array([[0.123456, 1.23456, -0.77777, 3.14159]])

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model = Model()
    expected = rounded(rounded(x) @ rounded(model.layer.weight).T)
    run = trainer(tmp_path, **MIXED, compile=False)
    found = run.predict(model, [x, x])[1]
    assert found.dtype == mx.float32
    np.testing.assert_allclose(np.array(found), expected, rtol=1 / 128)
    assert np.array_equal(np.array(found), rounded(found))
    for name, metrics in (("val", run.validate(model, [x])), ("test", run.test(model, [x]))):
        assert metrics[f"{name}_loss"] == pytest.approx(np.array(found).mean(), rel=1e-6)
    assert metrics["test_loss"] != trainer(tmp_path).test(model, [x])["test_loss"]
    assert model.layer.weight.dtype == mx.float32


def test_a_checkpoint_is_float32_and_continues_in_float32(tmp_path):
    model = Classifier()
    trainer(tmp_path, **MIXED, ema_decay=0.9, compile=False).fit(model, *loaders())
    arrays, _ = checkpoint.load(tmp_path / "checkpoints" / "last")
    dtypes = {array.dtype for group in arrays.values() for array in group.values()}
    assert dtypes == {mx.float32, mx.uint64}
    full = trainer(tmp_path, max_epochs=2, ema_decay=0.9, compile=False)
    again = Classifier(seed=1)
    full.fit(again, *loaders(), ckpt_path="last")
    assert full.global_step == 10
    assert not same(weights(model), weights(again))


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, settings):
    settings = {"ema_decay": 0.9, "max_epochs": 3} | MIXED | settings
    whole, part, again = Classifier(), Classifier(), Classifier(seed=1)
    run = trainer(tmp_path / "whole", **settings)
    run.fit(whole, *loaders())
    trainer(tmp_path / "part", **(settings | {"max_epochs": 1})).fit(part, *loaders())
    resumed = trainer(tmp_path / "part", **settings)
    resumed.fit(again, *loaders(), ckpt_path="last")
    assert same(weights(whole), weights(again))
    assert run.history.rows[-1]["val_loss"] == resumed.history.rows[-1]["val_loss"]


@pytest.mark.parametrize("compiled", [True, False])
def test_it_learns_as_float32_does(tmp_path, compiled):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        run = trainer(tmp_path, precision=precision, compile=compiled, max_epochs=4)
        run.fit(Classifier(dropout=0.0), *loaders())
        losses.append(run.history.rows[-1]["train_loss"])
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chord_models_train(tmp_path, architecture):
    settings = ChordModelSettings(architecture, 24, 1, heads=2, hidden=12, pools=1, dropout=0)
    rng = np.random.default_rng(0)
    batch = {
        "features": rng.normal(-60, 20, (2, 8, 48)).astype(np.float32),
        "classes": rng.integers(0, 12, (2, 8, 3)),
    }
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        mx.random.seed(0)
        parts = (LossSettings(), OptimizationSettings(learning_rate=1e-2, warmup_steps=1))
        model = ChordTraining(FeatureSettings(bins=48), settings, *parts, statistics=(-60.0, 20.0))
        run = trainer(tmp_path, precision=precision, max_epochs=3, compile=False)
        run.fit(model, [batch])
        losses.append([row["train_loss"] for row in run.history.rows])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


def test_a_front_end_inside_a_model_stays_exact():
    model, precision = ChordRecognitionModel(d_model=8, num_blocks=1, rate=8000), Bfloat16Mixed()
    audio = 1e-2 * mx.random.normal((1, 8000))
    model.eval()
    whole = model(audio)["root"]
    with precision.layers(model), precision.parameters(model):
        low = model(audio)["root"]
    assert mx.abs(low - whole).max() < 0.02 * mx.abs(whole).max()


def test_a_part_used_twice_and_an_error_leave_the_parameters_as_they_were(tmp_path):
    class Shared(Summed):
        def __init__(self):
            super().__init__()
            self.layer.weight = mx.array([[0.123456] * 4])
            self.again = self.layer

        def __call__(self, x):
            raise KeyError("own")

    model = Shared()
    with pytest.raises(KeyError, match="own"):
        trainer(tmp_path, **MIXED).fit(model, [mx.ones((2, 4))])
    assert type(model) is Shared
    assert type(model.layer) is nn.Linear
    precision = Bfloat16Mixed()
    with precision.layers(model), precision.parameters(model):
        assert model.layer.weight.dtype == mx.bfloat16
    assert model.layer.weight.tolist() == mx.array([[0.123456] * 4]).tolist()


def test_trained_bfloat16_parameters_are_refused_and_frozen_ones_are_not(tmp_path):
    model = Classifier()
    model.last.set_dtype(mx.bfloat16)
    with pytest.raises(ValueError, match="trains float32 parameters, but last.weight is bfloat16"):
        trainer(tmp_path, **MIXED).fit(model, *loaders())
    model = Classifier()
    model.frozen.set_dtype(mx.bfloat16)
    trainer(tmp_path, **MIXED, compile=False).fit(model, *loaders())
    assert model.frozen.weight.dtype == mx.bfloat16


def test_slowness_on_a_cpu_is_said(tmp_path):
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("the default device is no CPU")
    with pytest.warns(UserWarning, match="on a CPU is 2 to 50 times slower"):
        trainer(tmp_path, **MIXED).fit(Line(), [mx.ones((1, 2))])


def test_cast_keeps_structure_and_what_is_no_float():
    tree = {"a": [mx.zeros((2,)), mx.array(1)], "b": Outputs(mx.zeros((1,)), mx.array([True]))}
    found = cast(tree | {"c": (None, "text")}, mx.bfloat16)
    assert type(found["b"]) is Outputs
    assert found["c"] == (None, "text")
    dtypes = [leaf.dtype for _, leaf in tree_flatten(found) if isinstance(leaf, mx.array)]
    assert dtypes == [mx.bfloat16, mx.int32, mx.bfloat16, mx.bool_]
