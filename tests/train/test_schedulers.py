import math

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from audiotrain.train.optimizers import CycledAdamW
from audiotrain.train.schedulers import (
    ExponentialLRScheduler,
    OneCycleLRScheduler,
    StepLRScheduler,
    WarmupCosineScheduler,
    WarmupLinearScheduler,
)


def cosine(step):
    if step < 10:
        return 1e-3 * (step + 1) / 11
    progress = min((step - 10) / 90, 1)
    return 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step):
    return 1e-3 * (step + 1) / 11 if step < 10 else 1e-3 * (1 - min((step - 10) / 90, 1))


def one_cycle(step):
    if step < 10:
        return 1e-3 * (0.04 + 0.96 * step / 10)
    return 1e-3 * (1 - (1 - 4e-6) * min((step - 10) / 89, 1))


CASES = [
    (WarmupCosineScheduler(1e-3, 10, 100, 1e-5), cosine),
    (WarmupLinearScheduler(1e-3, 10, 100), linear),
    (StepLRScheduler(1e-3, 7, 0.5), lambda step: 1e-3 * 0.5 ** (step // 7)),
    (ExponentialLRScheduler(1e-3, 0.97), lambda step: 1e-3 * 0.97**step),
    (OneCycleLRScheduler(1e-3, 10, 100), one_cycle),
]


@pytest.mark.parametrize(("schedule", "expected"), CASES)
def test_closed_form_as_number_array_and_compiled(schedule, expected):
    compiled = mx.compile(schedule)
    for step in [0, 1, 6, 7, 9, 10, 11, 50, 99, 100, 101, 500]:
        want = pytest.approx(expected(step), rel=1e-4, abs=1e-9)
        assert schedule(step).item() == want
        assert schedule(mx.array(step, mx.uint64)).item() == want
        assert compiled(mx.array(step, mx.uint64)).item() == want


def test_steps_decay_exactly_at_their_step():
    schedule = StepLRScheduler(1e-3, step_size=1000, gamma=0.9)
    found = [schedule(step).item() for step in (0, 999, 1000, 1999, 2000)]
    assert found == pytest.approx([1e-3, 1e-3, 9e-4, 9e-4, 8.1e-4])
    for multiple in (1000, 7000, 49000):
        before, after = schedule(multiple - 1).item(), schedule(multiple).item()
        assert after == pytest.approx(0.9 * before, rel=1e-4)


def test_optimizer_follows_the_schedule():
    optimizer = optim.SGD(learning_rate=WarmupLinearScheduler(1.0, 4, 8))
    rates = []
    for _ in range(8):
        optimizer.update({}, {})
        rates.append(optimizer.learning_rate.item())
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.75, 0.5, 0.25])


def test_momentum_goes_against_the_rate():
    cycle = OneCycleLRScheduler(1.0, 4, 9, base_momentum=0.8, max_momentum=0.9)
    momenta = [cycle.momentum(step).item() for step in (0, 2, 4, 6, 8, 99)]
    assert momenta == pytest.approx([0.9, 0.85, 0.8, 0.85, 0.9, 0.9])


@pytest.mark.parametrize("cycled", [False, True])
def test_one_cycle_is_pytorchs(cycled):
    """Rates, momenta and weights of 20 steps of AdamW; the seeds' paper is arXiv 1708.07120."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    gradients = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.ones(5))
    reference = torch.optim.AdamW([theirs], betas=(0.95, 0.999), weight_decay=0.1)
    torch_cycle = torch.optim.lr_scheduler.OneCycleLR(
        reference,
        0.1,
        total_steps=20,
        pct_start=0.3,
        anneal_strategy="linear",
        cycle_momentum=cycled,
    )
    cycle = OneCycleLRScheduler(0.1, warmup_steps=5, total_steps=20)  # 0.3 * 20 - 1
    if cycled:
        ours = CycledAdamW(cycle, cycle.momentum, weight_decay=0.1)
    else:
        ours = optim.AdamW(cycle, betas=[0.95, 0.999], weight_decay=0.1)
    ours.bias_correction = True
    weights = {"w": mx.ones(5)}
    for gradient in gradients:
        group = reference.param_groups[0]
        rate, momentum = group["lr"], group["betas"][0]
        theirs.grad = torch.tensor(gradient)
        reference.step()
        if torch_cycle.last_epoch < 19:  # PyTorch has no rate after the last step
            torch_cycle.step()
        weights = ours.apply_gradients({"w": mx.array(gradient)}, weights)
        assert ours.learning_rate.item() == pytest.approx(rate, rel=1e-4)
        assert float(ours.betas[0]) == pytest.approx(momentum, rel=1e-6)
        np.testing.assert_allclose(weights["w"], theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupCosineScheduler(1e-3, 10, 10), "total_steps is 10, expected above"),
        (lambda: WarmupCosineScheduler(-1.0, 0, 10), "peak_lr is -1.0"),
        (lambda: WarmupLinearScheduler(1e-3, -1, 10), "warmup_steps is -1"),
        (lambda: WarmupCosineScheduler(1e-3, 1, 10, 1e-2), "min_lr is 0.01"),
        (lambda: StepLRScheduler(1e-3, 0), "step_size is 0"),
        (lambda: ExponentialLRScheduler(1e-3, 1.5), "decay_rate is 1.5"),
        (lambda: OneCycleLRScheduler(1e-3, 10, 10), "total_steps is 10, expected above"),
        (lambda: OneCycleLRScheduler(1e-3, 1, 9, div_factor=0.5), "div_factor is 0.5"),
        (lambda: OneCycleLRScheduler(1e-3, 1, 9, base_momentum=0.99), "base_momentum is 0.99"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
