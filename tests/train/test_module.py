import warnings

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from toy import Classifier, Line, loaders, same, trainer, weights

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.utils.arrays import arrays_of


def test_a_module_is_an_mlx_module():
    model = Classifier()
    assert isinstance(model, nn.Module)
    assert model.parameter_counts() == (531, 227)
    assert model(mx.zeros((2, 8))).shape == (2, 3)


def test_attaching_a_trainer_adds_no_parameter(tmp_path):
    model = Classifier()
    before = set(model.state)
    run = trainer(tmp_path)
    model.attach(run)
    assert model.trainer is run
    assert set(model.state) == before
    assert (model.current_epoch, model.global_step) == (0, 0)


def test_without_a_trainer_it_says_so():
    with pytest.raises(RuntimeError, match="Classifier is not attached to a Trainer"):
        Classifier().trainer  # noqa: B018
    Classifier().log("ignored", 1.0)


def test_what_must_be_defined_is_named(tmp_path):
    class Empty(TrainModule):
        def __init__(self):
            super().__init__()
            self.w = mx.zeros((1,))

    class Half(Empty):
        def configure_optimizers(self):
            return OptimizerConfig(optim.SGD(learning_rate=0.1))

    with pytest.raises(NotImplementedError, match=r"Empty has no configure_optimizers\(\)"):
        trainer(tmp_path).fit(Empty(), *loaders())
    with pytest.raises(NotImplementedError, match=r"Half has no compute_loss\(batch\)"):
        trainer(tmp_path).fit(Half(), *loaders())


@pytest.mark.parametrize(
    ("batch", "weight"),
    [
        (mx.zeros((3, 2)), 3),
        ({"name": "a", "x": mx.zeros((5,))}, 5),
        ((mx.array(1.0), [mx.zeros((4, 1))]), 4),
        (mx.array(1.0), 1),
    ],
)
def test_a_batch_counts_its_items(batch, weight):
    assert Classifier().batch_weight(batch) == weight


@pytest.mark.parametrize("optimizer", [optim.Adam, optim.AdamW])
def test_adam_gets_its_bias_correction(optimizer):
    assert OptimizerConfig(optimizer(1e-3)).corrected_optimizer().bias_correction
    both = optim.MultiOptimizer([optim.SGD(1e-3), optimizer(1e-3)], [lambda name, _: name == "w"])
    assert OptimizerConfig(both).corrected_optimizer().optimizers[1].bias_correction
    left = OptimizerConfig(optimizer(1e-3), bias_correction=False).corrected_optimizer()
    assert not left.bias_correction
    assert OptimizerConfig(optim.SGD(1e-3)).corrected_optimizer().step == 0


class Deep(Line):
    """BatchNorm two levels down, in a part that is no TrainModule."""

    def __init__(self):
        mx.random.seed(0)
        super().__init__(lambda: optim.AdamW(learning_rate=0.1, weight_decay=0.5))
        self.body = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm(2)))

    def compute_loss(self, batch):
        return super().compute_loss(self.body(batch))


class ThawsLater(Deep):
    def on_train_epoch_start(self, epoch):
        if epoch == 1:
            self.body.unfreeze()


@pytest.mark.parametrize(
    "thawed",
    [
        lambda: Deep().freeze().unfreeze(),
        lambda: (model := Deep(), model.freeze(), model.unfreeze(), model.body.unfreeze())[0],
        ThawsLater,
    ],
    ids=["the module", "a part", "later"],
)
def test_unfreezing_leaves_running_statistics_to_batch_norm(tmp_path, thawed):
    finals = []
    for make in (Deep, thawed):
        model, run = make(), trainer(tmp_path, max_epochs=2)
        run.fit(model, list(mx.random.normal((6, 4, 2), key=mx.random.key(1))))
        names = [*arrays_of(run.optimizer.state), *arrays_of(model.trainable_parameters())]
        assert [name for name in names if "running" in name] == []
        finals.append(weights(model))
    assert finals[0]["body.layers.0.layers.1.running_mean"].any()
    assert same(*finals)


class Whole(Line):
    """Weighs its batches itself."""

    def batch_weight(self, batch):
        return batch["x"].shape[0]


def test_first_axes_that_differ_are_warned_of_once():
    batch = {"table": mx.zeros((7, 2)), "x": mx.zeros((3, 2)), "n": 1}
    message = (
        r"first axes of a batch differ \(batch\['table'\] 7, batch\['x'\] 3\), and it counts as 7 "
        r"items: give Line a batch_weight\(batch\) with the number of its items$"
    )
    model = Line()
    with pytest.warns(UserWarning, match=message) as caught:
        assert [model.batch_weight(batch) for _ in range(3)] == [7, 7, 7]
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Whole().batch_weight(batch) == 3
