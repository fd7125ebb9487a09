"""The update on several streams: the same weights bit for bit, each parameter in one place."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.backend import streams as parallel
from audiotrain.backend.spread import applied_at, in_rows, places_of
from audiotrain.train.optimizers import parameter_groups


@pytest.fixture
def streams(monkeypatch):
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU has one stream")

    def several(count):
        monkeypatch.setenv(parallel.VARIABLE, str(count))
        monkeypatch.setattr(parallel, "_OF_THREAD", parallel.threading.local())

    return several


class Wide(TrainModule):
    """Layers of 90,000 numbers, and small ones."""

    def __init__(self, make_optimizer):
        super().__init__()
        mx.random.seed(0)
        self.layers = [nn.Linear(300, 300) for _ in range(5)]
        self.head = nn.Linear(300, 3)
        self.make_optimizer = make_optimizer

    def compute_loss(self, batch):
        x = batch
        for layer in self.layers:
            x = x + nn.relu(layer(x))
        return mx.square(self.head(x)).mean(), {}

    def configure_optimizers(self):
        return OptimizerConfig(self.make_optimizer(self))


def grouped(module):
    return parameter_groups(
        module,
        {"first": ("layers.0.*", optim.SGD(0.01)), "rest": ("*", optim.AdamW(1e-3))},
    )


def several(module):
    first = [lambda path, _: "layers.1" in path]
    return optim.MultiOptimizer([optim.Lion(1e-4), optim.AdamW(1e-3)], first)


KINDS = {"AdamW": lambda _: optim.AdamW(1e-3), "groups": grouped, "several": several}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_weights_are_those_of_one_stream(tmp_path, streams, kind, accumulated):
    data = [mx.random.normal((4, 300), key=mx.random.key(n)) for n in range(8)]
    data[3] = data[3] * mx.nan  # left out
    found = []
    for count in (1, 3):
        streams(count)
        run = trainer(
            tmp_path / str(count), max_epochs=2, gradient_clip_val=0.5, ema_decay=0.9,
            accumulate_grad_batches=accumulated,
        )  # fmt: skip
        model = Wide(KINDS[kind])
        start = weights(model)
        run.fit(model, data)
        averages = {name: np.array(a) for name, a in run.step.averages().items()}
        found.append((weights(model), averages, weights_of(run.optimizer)))
        assert run.skipped_steps == 2
        assert not same(start, found[-1][0])
    for one, other in zip(*found, strict=True):
        assert same(one, other)


def weights_of(optimizer):
    from audiotrain.utils.arrays import arrays_of

    return {name: np.array(array) for name, array in arrays_of(optimizer.state).items()}


def test_streams_have_as_much_to_do(streams):
    sizes = {"a": 400_000, "b": 200_000, "c": 200_000, "d": 70_000, "e": 70_000, "small": 9}
    arrays = {name: mx.zeros(size) for name, size in sizes.items()}
    streams(2)
    places = places_of(arrays)
    assert set(places) == set(sizes) - {"small"}
    assert str(places["a"]) != str(places["b"])
    assert str(places["b"]) == str(places["c"])
    assert str(places["d"]) == str(places["e"])  # those of one shape are together
    assert str(places["d"]) == str(places["a"])
    streams(1)
    assert places_of(arrays) == {}
    streams(2)
    assert places_of({"a": mx.zeros(400_000)}) == {}  # nothing to share


def test_gradients_are_laid_out_as_their_parameters():
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU takes them as they are")
    given = mx.random.normal((90, 80))
    found = in_rows({"layer": {"weight": given.T, "bias": mx.zeros(3)}}, {})
    assert not memoryview(given.T).c_contiguous
    assert memoryview(found["layer"]["weight"]).c_contiguous
    assert mx.array_equal(found["layer"]["weight"], given.T)


def test_an_optimizer_is_left_as_it_was(streams):
    optimizer = optim.SGD(1.0)
    other = mx.new_stream(mx.cpu)
    gradient, seen = mx.ones(2), []
    with applied_at(optimizer, {id(gradient): other}):
        applied = optimizer.apply_single
        assert applied.__name__ != "apply_single"
    assert optimizer.apply_single.__func__ is optim.SGD.apply_single

    class Sees(optim.SGD):
        def apply_single(self, gradient, parameter, state):
            seen.append(str(mx.default_stream(mx.cpu)))
            return parameter

    optimizer = Sees(1.0)
    optimizer.init({"w": gradient, "v": gradient})
    with applied_at(optimizer, {id(gradient): other}):
        optimizer.apply_gradients({"w": gradient, "v": mx.ones(2)}, {"w": gradient, "v": gradient})
    assert sorted(seen) == sorted([str(other), str(mx.default_stream(mx.cpu))])
