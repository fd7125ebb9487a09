"""The running average of weights, and of the statistics that belong to them."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Line, loaders, same, trainer, weights

from audiotrain.train.callbacks import Callback


def test_running_average_has_its_closed_form(tmp_path):
    run = trainer(tmp_path, ema_decay=0.2)
    run.fit(Line(), [mx.array([[1.0, 0.0]])] * 3)
    w = average = 0.0
    for step in (1, 2, 3):
        w -= 1.0
        decay = min(0.2, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * w
    assert run.step.extra["ema"]["w"].tolist() == pytest.approx([average, 0.0])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_statistics_are_averaged_with_the_weights(tmp_path, accumulate):
    class Watch(Callback):
        states, seen = [], {}

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.group == 0:
                self.states.append(weights(module))

        def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.seen = weights(module)

    model, watch = Classifier(), Watch()
    average = weights(model)
    settings = {"ema_decay": 0.3, "accumulate_grad_batches": accumulate}
    run = trainer(tmp_path, callbacks=[watch], **settings)
    run.fit(model, *loaders())
    for step, state in enumerate(watch.states, 1):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {key: decay * average[key] + (1 - decay) * state[key] for key in state}
    assert len(watch.states) == run.global_step > 2
    assert {"norm.running_mean", "norm.running_var", "last.weight"} <= set(run.step.extra["ema"])
    assert not any(key.startswith("frozen") for key in run.step.extra["ema"])
    for key, value in average.items():  # the whole model as validation saw it
        np.testing.assert_allclose(watch.seen[key], value, atol=1e-6, err_msg=key)
    assert same(weights(model), watch.states[-1])


def test_averaged_statistics_fit_averaged_weights_better_than_the_last_ones(tmp_path):
    class Drifts(Line):
        """What BatchNorm gets has the mean w, which falls by the same amount at every step."""

        def __init__(self):
            super().__init__(lambda: optim.SGD(learning_rate=0.01))
            self.norm = nn.BatchNorm(2, momentum=0.5)

        def compute_loss(self, batch):
            hidden = batch * self.w
            return mx.mean(hidden.sum(axis=-1)) + 0 * self.norm(hidden).sum(), {}

    model = Drifts()
    run = trainer(tmp_path, ema_decay=0.99, compile=False)
    run.fit(model, [mx.array([[0.5, 0.5], [1.5, 1.5]])] * 200)
    average = run.step.extra["ema"]
    averaged, last = (
        mx.abs(statistics - average["w"]).max().item()
        for statistics in (average["norm.running_mean"], model.norm.running_mean)
    )
    assert averaged < 0.2 * last
