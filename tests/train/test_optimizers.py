"""Twenty steps of the Trainer against the optimizers' papers, and against PyTorch."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import trainer

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.train.schedulers import WarmupCosineScheduler

STEPS = 20
START = np.array([0.5, -1.0, 2.0])
TARGETS = np.random.default_rng(0).normal(size=(STEPS, 3))


class Pull(TrainModule):
    """Pulled towards its batch: the gradient is w - batch."""

    def __init__(self, optimizer):
        super().__init__()
        self.w = mx.array(START, mx.float32)
        self.__dict__["chosen"] = optimizer

    def compute_loss(self, batch):
        return 0.5 * mx.sum((self.w - batch) ** 2), {}

    def configure_optimizers(self):
        return OptimizerConfig(self.chosen, "warmup_cosine")


def schedule():
    return WarmupCosineScheduler(peak_lr=0.1, warmup_steps=4, total_steps=STEPS, min_lr=0.01)


def adamw(rates, decay=0.05, b1=0.9, b2=0.999, eps=1e-8):
    w, m, v = START.copy(), 0, 0
    for t, (rate, target) in enumerate(zip(rates, TARGETS, strict=True), 1):
        g = w - target
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - rate * decay * w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


def adam(rates):
    return adamw(rates, decay=0)


def lion(rates, decay=0.05, b1=0.9, b2=0.99):
    w, m = START.copy(), 0
    for rate, target in zip(rates, TARGETS, strict=True):
        g = w - target
        w = w - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * w)
        m = b2 * m + (1 - b2) * g
    return w


def momentum(rates, decay=0.05, mu=0.9):
    w, velocity = START.copy(), 0
    for rate, target in zip(rates, TARGETS, strict=True):
        velocity = mu * velocity + (w - target) + decay * w
        w = w - rate * velocity
    return w


def nesterov(rates, mu=0.9):
    w, velocity = START.copy(), 0
    for rate, target in zip(rates, TARGETS, strict=True):
        g = w - target
        velocity = mu * velocity + g
        w = w - rate * (g + mu * velocity)
    return w


OPTIMIZERS = {
    "adam": (lambda rate: optim.Adam(rate), adam),
    "adamw": (lambda rate: optim.AdamW(rate, weight_decay=0.05), adamw),
    "lion": (lambda rate: optim.Lion(rate, weight_decay=0.05), lion),
    "momentum": (lambda rate: optim.SGD(rate, momentum=0.9, weight_decay=0.05), momentum),
    "nesterov": (lambda rate: optim.SGD(rate, momentum=0.9, nesterov=True), nesterov),
}


def fit(folder, name: str) -> tuple[np.ndarray, list[float]]:
    """Final weights, and the learning rates that were logged."""
    model = Pull(OPTIMIZERS[name][0](schedule()))
    run = trainer(folder, log_every_n_steps=1, compile=name == "adamw")
    run.fit(model, [target.astype(np.float32) for target in TARGETS])
    return np.array(model.w), [row["learning_rate"] for row in run.history.log]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_the_papers(tmp_path, name):
    found, rates = fit(tmp_path, name)
    rate_of = schedule()
    np.testing.assert_allclose(rates, [rate_of(step).item() for step in range(STEPS)], rtol=1e-6)
    np.testing.assert_allclose(found, OPTIMIZERS[name][1](rates), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum", "nesterov"])
def test_steps_equal_pytorchs(tmp_path, name):
    torch = pytest.importorskip("torch")
    makers = {
        "adam": lambda w: torch.optim.Adam([w], lr=1.0),
        "adamw": lambda w: torch.optim.AdamW([w], lr=1.0, weight_decay=0.05),
        "momentum": lambda w: torch.optim.SGD([w], lr=1.0, momentum=0.9, weight_decay=0.05),
        "nesterov": lambda w: torch.optim.SGD([w], lr=1.0, momentum=0.9, nesterov=True),
    }
    found, rates = fit(tmp_path, name)
    w = torch.tensor(START, requires_grad=True)
    optimizer = makers[name](w)
    for rate, target in zip(rates, TARGETS, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (0.5 * ((w - torch.tensor(target)) ** 2).sum()).backward()
        optimizer.step()
    np.testing.assert_allclose(found, w.detach().numpy(), rtol=0, atol=1e-5)
