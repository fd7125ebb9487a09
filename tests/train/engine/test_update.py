import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import same, weights

from audiotrain.train.engine.update import JOINED, SMALL, gradient_norm, keep_if
from audiotrain.utils.arrays import arrays_of

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda: optim.AdamW(learning_rate=lambda step: 0.1 / (1 + step), bias_correction=True),
    "lion": lambda: optim.Lion(learning_rate=0.1),
    "rmsprop": lambda: optim.RMSprop(learning_rate=0.1),
    "adadelta": lambda: optim.AdaDelta(learning_rate=0.1),
    "adafactor": lambda: optim.Adafactor(learning_rate=0.1, relative_step=False),
    "muon": lambda: optim.Muon(learning_rate=0.1),
    "several": lambda: optim.MultiOptimizer(
        [optim.Lion(learning_rate=0.1), optim.AdamW(learning_rate=0.1)],
        [lambda path, _: path.endswith("weight")],
    ),
}


def layers(dtype=mx.float32) -> nn.Module:
    mx.random.seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3), nn.Conv1d(3, 2, 3))
    module.set_dtype(dtype)
    return module


class Update:
    """Updates by gradients, compiled, with the choice or without."""

    def __init__(self, optimizer, guarded: bool, dtype=mx.float32):
        self.module, self.optimizer = layers(dtype), optimizer()
        self.optimizer.init(self.module.trainable_parameters())
        self.guarded = guarded
        state = [self.module.state, self.optimizer.state]
        self.step = mx.compile(self._step, inputs=state, outputs=state)

    def _step(self, gradients, finite):
        module, optimizer = self.module, self.optimizer
        before = arrays_of(module.state), arrays_of(optimizer.state)
        optimizer.update(module, gradients)
        if self.guarded:
            keep_if(finite, module.state, before[0], optimizer.state, before[1])

    def __call__(self, seed: int, finite: bool = True, scale: float = 1.0) -> None:
        """One step; the gradients are transposed as those of nn.Linear are."""
        rng = np.random.default_rng(seed)

        def drawn(parameter):
            array = scale * rng.normal(size=parameter.T.shape).astype(np.float32)
            return mx.array(array).astype(parameter.dtype).T

        parameters = self.module.trainable_parameters()
        self.step(nn.utils.tree_map(drawn, parameters), mx.array(finite))

    def arrays(self) -> dict:
        return arrays_of([self.module.state, self.optimizer.state])

    def numbers(self) -> dict[str, np.ndarray]:
        found = weights(self.module)
        for name, array in arrays_of(self.optimizer.state).items():
            found[f"optimizer.{name}"] = np.array(array)
        return found

    def operations(self, folder) -> int:
        """How many operations MLX does for a step, each a pass over the memory of its arrays."""
        self(0)
        mx.eval(self.arrays())
        self(1)
        mx.export_to_dot(str(folder / "step.dot"), *self.arrays().values())
        return (folder / "step.dot").read_text().count("shape=rectangle")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finite_steps_are_the_optimizers_own_and_others_change_nothing(name):
    plain, guarded = Update(OPTIMIZERS[name], False), Update(OPTIMIZERS[name], True)
    for seed in range(3):
        plain(seed)
        guarded(seed)
        assert same(plain.numbers(), guarded.numbers())
        for scale in (math.nan, math.inf, 1.0):
            guarded(seed + 9, finite=False, scale=scale)
            assert same(plain.numbers(), guarded.numbers())


def test_half_precision_is_kept_to_the_bit():
    def sgd():
        return optim.SGD(learning_rate=0.1, momentum=0.9)

    plain, guarded = Update(sgd, False, mx.float16), Update(sgd, True, mx.float16)
    for update in (plain, guarded):
        update(0)
    guarded(1, finite=False, scale=math.nan)
    assert same(plain.numbers(), guarded.numbers())
    assert {array.dtype for array in arrays_of(guarded.module).values()} == {mx.float16}


@pytest.mark.parametrize("name", ["sgd", "adam", "lion", "rmsprop", "several"])
def test_the_choice_is_part_of_the_optimizers_own_operations(tmp_path, name):
    """Whatever their number: some more for counts of steps and rates, none for parameters."""
    plain = Update(OPTIMIZERS[name], False).operations(tmp_path)
    guarded = Update(OPTIMIZERS[name], True).operations(tmp_path)
    parameters = len(arrays_of(layers()))
    assert parameters == 8
    assert plain >= parameters
    assert guarded - plain <= 4 < parameters


def test_the_norm_of_arrays_beyond_what_is_joined_at_once():
    rng = np.random.default_rng(0)
    sizes = [(SMALL,), (SMALL // 8, 9), (JOINED + 1,)] + 20 * [(SMALL // 4, 4)] + [(3,)]
    arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
    expected = math.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays))
    assert sum(array.size for array in arrays) > 2 * JOINED
    assert gradient_norm([mx.array(a) for a in arrays]).item() == pytest.approx(expected, rel=1e-6)
    for array in arrays:  # none is left out
        array.flat[-1] = math.nan
        assert math.isnan(gradient_norm([mx.array(a) for a in arrays]).item())
        array.flat[-1] = 0.0


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (300, 500), (0, 3), (2, 3, 4), (5, 1, 3, 2)])
def test_the_norm_is_numpys_and_shows_what_is_not_finite(shape, bad):
    arrays = [np.random.default_rng(0).normal(size=s).astype(np.float32) for s in (shape, (3, 2))]
    arrays[1][1, 1] += bad
    expected = math.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays))
    for transposed in (False, True):
        given = [mx.array(a.T).T if transposed else mx.array(a) for a in arrays]
        norm = gradient_norm({"layers": given})
        assert norm.shape == ()
        if bad:
            assert not math.isfinite(norm.item())
        else:
            assert norm.item() == pytest.approx(expected, rel=1e-6)
