import math

import mlx.core as mx
import mlx.optimizers as optim
import pytest

from audiotrain.schedulers import (
    ExponentialLRScheduler,
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


CASES = [
    (WarmupCosineScheduler(1e-3, 10, 100, 1e-5), cosine),
    (WarmupLinearScheduler(1e-3, 10, 100), linear),
    (StepLRScheduler(1e-3, 7, 0.5), lambda step: 1e-3 * 0.5 ** (step // 7)),
    (ExponentialLRScheduler(1e-3, 0.97), lambda step: 1e-3 * 0.97**step),
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
    schedule = StepLRScheduler(1.0, 1000, 0.9)
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupCosineScheduler(1e-3, 10, 10), "total_steps is 10, expected above"),
        (lambda: WarmupCosineScheduler(-1.0, 0, 10), "peak_lr is -1.0"),
        (lambda: WarmupLinearScheduler(1e-3, -1, 10), "warmup_steps is -1"),
        (lambda: WarmupCosineScheduler(1e-3, 1, 10, 1e-2), "min_lr is 0.01"),
        (lambda: StepLRScheduler(1e-3, 0), "step_size is 0"),
        (lambda: ExponentialLRScheduler(1e-3, 1.5), "decay_rate is 1.5"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
