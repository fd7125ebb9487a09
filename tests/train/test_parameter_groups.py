"""Groups of parameters against optimizers of their own, one a group."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from toy import same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.train.callbacks import LearningRateMonitor
from audiotrain.train.optimizers import layer_decay, parameter_groups
from audiotrain.train.schedulers import WarmupCosineScheduler, WarmupLinearScheduler

STEPS = 6


def rules():
    """Of four layers the last two are heads, the second is frozen."""
    cosine = WarmupCosineScheduler(peak_lr=0.1, warmup_steps=2, total_steps=STEPS)
    linear = WarmupLinearScheduler(peak_lr=0.01, warmup_steps=1, total_steps=STEPS)
    return {
        "scale": ("scale", optim.SGD(learning_rate=0.5)),
        "heads": (["layers.2.*", "layers.3.*", "nothing"], optim.AdamW(cosine, weight_decay=0.1)),
        "towers": ("*", optim.Adam(linear)),
    }


class Model(TrainModule):
    def __init__(self, make=rules):
        super().__init__()
        mx.random.seed(0)
        self.layers = [nn.Linear(3, 3) for _ in range(4)]
        self.layers[1].freeze()
        self.scale = mx.array(2.0)
        self.make = make

    def __call__(self, x):
        for layer in self.layers:
            x = x + mx.tanh(layer(x))
        return x * self.scale

    def compute_loss(self, batch):
        return mx.mean(self(batch) ** 2), {}

    def configure_optimizers(self):
        return OptimizerConfig(parameter_groups(self, self.make()), "mixed")


def batches(count=STEPS):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(5, 3)).astype(np.float32) for _ in range(count)]


GROUPS = {
    "scale": lambda path: path == "scale",
    "heads": lambda path: path.startswith(("layers.2.", "layers.3.")),
    "towers": lambda path: path.startswith("layers.0."),
}


def test_groups_train_as_separate_optimizers_would(tmp_path):
    model, run = Model(), trainer(tmp_path, log_every_n_steps=1, callbacks=[LearningRateMonitor()])
    run.fit(model, batches())
    expected, optimizers = Model(), {name: optimizer for name, (_, optimizer) in rules().items()}
    rates = {name: [] for name in optimizers}
    for optimizer in optimizers.values():
        optimizer.bias_correction = True
    step = nn.value_and_grad(expected, lambda x: expected.compute_loss(x)[0])
    for x in batches():
        flat = tree_flatten(step(mx.array(x))[1])
        for name, optimizer in optimizers.items():
            part = tree_unflatten([(path, g) for path, g in flat if GROUPS[name](path)])
            optimizer.update(expected, part)
            rates[name].append(optimizer.learning_rate.item())
    for name, array in weights(expected).items():
        np.testing.assert_allclose(weights(model)[name], array, atol=1e-6, err_msg=name)
    start = weights(Model())
    assert {name for name in start if not np.array_equal(start[name], weights(model)[name])} == {
        name for name in start if "layers.1." not in name
    }
    for name in optimizers:
        found = [row[f"lr-mixed/{name}"] for row in run.history.log if f"lr-mixed/{name}" in row]
        assert found == pytest.approx(rates[name])
        assert len(found) == STEPS
    assert len({tuple(found) for found in rates.values()}) == 3


def test_a_stopped_run_continues_with_the_state_of_each_group(tmp_path):
    whole, first, second = Model(), Model(), Model()
    trainer(tmp_path / "whole", max_steps=6, ema_decay=0.9).fit(whole, batches())
    run = trainer(tmp_path / "parts", max_steps=3, ema_decay=0.9)
    run.fit(first, batches())
    run.save_checkpoint(tmp_path / "middle")
    run = trainer(tmp_path / "parts", max_steps=6, ema_decay=0.9)
    run.fit(second, batches(), ckpt_path=tmp_path / "middle")
    assert run.global_step == 6
    assert same(weights(whole), weights(second))
    assert not same(weights(whole), weights(first))


@pytest.mark.parametrize("fits", [True, False])
def test_what_is_unfrozen_later_needs_a_group(tmp_path, fits):
    class Thawing(Model):
        def on_train_epoch_start(self, epoch):
            if epoch == 1:
                self.layers[1].unfreeze()

    def make():
        rest = "*" if fits else "layers.0.*"
        heads = ["scale", "layers.2.*", "layers.3.*"]
        return {"heads": (heads, optim.SGD(0.1)), "rest": (rest, optim.SGD(0.1))}

    model, start = Thawing(make), weights(Model())
    run = trainer(tmp_path, max_epochs=2)
    if fits:
        run.fit(model, batches())
        assert not np.array_equal(weights(model)["layers.1.weight"], start["layers.1.weight"])
    else:
        with pytest.raises(ValueError, match="no group .* for layers.1.weight, layers.1.bias"):
            run.fit(model, batches())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: {"heads": ("layers.[23].*", optim.SGD(0.1)), "scale": ("scale", optim.SGD(1))},
            r"no group \(heads, scale\) has a pattern for layers.0.weight, layers.0.bias$",
        ),
        (
            lambda: {"all": ("*", optim.SGD(0.1)), "scale": ("scale", optim.SGD(1))},
            "group 'scale': no trainable parameter of Model fits 'scale' that an earlier group",
        ),
        (
            lambda: {"frozen": ("layers.1.*", optim.SGD(0.1)), "rest": ("*", optim.SGD(1))},
            "group 'frozen': no trainable parameter",
        ),
        (lambda: dict.fromkeys("ab", ("*", optim.SGD(1))), "each with an optimizer of its own"),
        (dict, r"got the groups \[\], expected one or more"),
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        trainer(tmp_path).fit(Model(make), batches())
    assert "\n" not in str(caught.value)


def test_layers_have_shares_of_the_rate():
    layers = [f"layers.{number}.*" for number in range(4)]
    shares = layer_decay(layers, 0.8)
    assert list(shares) == layers
    assert list(shares.values()) == pytest.approx([0.512, 0.64, 0.8, 1])
    model = Model(lambda: {name: (name, optim.SGD(0.1 * share)) for name, share in shares.items()})
    model.unfreeze()
    model.freeze(keys=["scale"], recurse=False)
    config = model.configure_optimizers()
    gradients = {"layers": [{"weight": mx.ones((3, 3))} for _ in range(4)]}
    before = weights(model)
    config.optimizer.update(model, gradients)
    moved = [(before[f"layers.{n}.weight"] - np.array(model.layers[n].weight)) for n in range(4)]
    for distance, share in zip(moved, shares.values(), strict=True):
        np.testing.assert_allclose(distance, 0.1 * share, rtol=1e-5)
    for decay in (0, 1.1):
        with pytest.raises(ValueError, match=f"decay is {decay}, expected above 0 and at most 1"):
            layer_decay(layers, decay)
