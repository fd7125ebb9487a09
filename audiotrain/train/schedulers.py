"""Learning rate schedules: callables of the optimizer step, for an optimizer's learning_rate.

A step is a number or an mx.array (inside the compiled step); the result is a float32 array.
The first step taken is step 0. OneCycleLRScheduler also has a momentum, which CycledAdamW follows.
"""

import math

import mlx.core as mx

from audiotrain.utils.errors import UserError


def _check(name: str, value: float, condition: bool, expected: str) -> None:
    if not condition:
        raise UserError(f"{name} is {value!r}, expected {expected}")


def _as_float(step: mx.array | int) -> mx.array:
    return step.astype(mx.float32) if isinstance(step, mx.array) else mx.array(step, mx.float32)


class _Warmup:
    """Rises linearly to `peak_lr` at step `warmup_steps`; then a subclass's `after(progress)`."""

    def __init__(self, peak_lr: float, warmup_steps: int, total_steps: int, min_lr: float = 0.0):
        _check("peak_lr", peak_lr, peak_lr > 0, "a number above 0")
        _check("warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more")
        _check(
            "total_steps", total_steps, total_steps > warmup_steps, f"above {warmup_steps=} steps"
        )
        _check("min_lr", min_lr, 0 <= min_lr <= peak_lr, f"between 0 and {peak_lr=}")
        self.peak_lr, self.min_lr = peak_lr, min_lr
        self.warmup_steps, self.total_steps = warmup_steps, total_steps

    def __call__(self, step: mx.array | int) -> mx.array:
        step = _as_float(step)
        # Step 0 already learns: (step + 1) / (warmup_steps + 1) reaches 1 at step warmup_steps.
        rising = self.peak_lr * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling = self.min_lr + (self.peak_lr - self.min_lr) * self.after(mx.clip(progress, 0, 1))
        return mx.where(step < self.warmup_steps, rising, falling)

    def after(self, progress: mx.array) -> mx.array:
        """Share of the way from min_lr to peak_lr at `progress` 0..1 of the steps after warm-up."""
        raise NotImplementedError


class WarmupCosineScheduler(_Warmup):
    """Linear warm-up, then half a cosine down to `min_lr` at `total_steps`.

    ValueError unless peak_lr > 0, 0 <= min_lr <= peak_lr and 0 <= warmup_steps < total_steps.

    >>> schedule = WarmupCosineScheduler(peak_lr=1.0, warmup_steps=3, total_steps=13)
    >>> [round(schedule(step).item(), 3) for step in (0, 3, 8, 13, 99)]
    [0.25, 1.0, 0.5, 0.0, 0.0]
    """

    def after(self, progress: mx.array) -> mx.array:
        return 0.5 * (1 + mx.cos(math.pi * progress))


class WarmupLinearScheduler(_Warmup):
    """Linear warm-up, then a straight line down to `min_lr` (0) at `total_steps`.

    ValueError as WarmupCosineScheduler.

    >>> schedule = WarmupLinearScheduler(peak_lr=1.0, warmup_steps=3, total_steps=13)
    >>> [round(schedule(step).item(), 3) for step in (1, 3, 8, 13)]
    [0.5, 1.0, 0.5, 0.0]
    """

    def after(self, progress: mx.array) -> mx.array:
        return 1 - progress


class StepLRScheduler:
    """`initial_lr` multiplied by `gamma` after every `step_size` steps.

    ValueError for a `step_size` below 1, and a rate or `gamma` that is not above 0.

    >>> [round(StepLRScheduler(1.0, 10, 0.5)(step).item(), 3) for step in (0, 9, 10, 20)]
    [1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, initial_lr: float, step_size: int, gamma: float = 0.1):
        _check("initial_lr", initial_lr, initial_lr > 0, "a number above 0")
        _check("step_size", step_size, step_size >= 1, "1 or more steps")
        _check("gamma", gamma, gamma > 0, "a number above 0")
        self.initial_lr, self.step_size, self.gamma = initial_lr, step_size, gamma

    def __call__(self, step: mx.array | int) -> mx.array:
        # Integer division: in float32, floor(step / step_size) can fall one step late.
        step = step.astype(mx.int32) if isinstance(step, mx.array) else mx.array(step, mx.int32)
        return self.initial_lr * mx.power(self.gamma, (step // self.step_size).astype(mx.float32))


class ExponentialLRScheduler:
    """`initial_lr * decay_rate ** step`. ValueError unless initial_lr > 0 and 0 < decay_rate <= 1.

    >>> [round(ExponentialLRScheduler(1.0, 0.5)(step).item(), 3) for step in (0, 1, 3)]
    [1.0, 0.5, 0.125]
    """

    def __init__(self, initial_lr: float, decay_rate: float):
        _check("initial_lr", initial_lr, initial_lr > 0, "a number above 0")
        _check("decay_rate", decay_rate, 0 < decay_rate <= 1, "above 0 and at most 1")
        self.initial_lr, self.decay_rate = initial_lr, decay_rate

    def __call__(self, step: mx.array | int) -> mx.array:
        return self.initial_lr * mx.exp(math.log(self.decay_rate) * _as_float(step))


class OneCycleLRScheduler:
    """Straight up to `peak_lr` at step `warmup_steps`, straight down until the last of
    `total_steps`: super-convergence (arXiv 1708.07120).

    It begins at `peak_lr / div_factor` and ends at that by `final_div_factor`, as PyTorch's
    OneCycleLR with linear annealing. `momentum(step)` goes the other way, `max_momentum` to
    `base_momentum` and back.

    ValueError unless peak_lr > 0, 0 <= warmup_steps < total_steps, both factors are 1 or more, and
    0 <= base_momentum <= max_momentum < 1.

    >>> cycle = OneCycleLRScheduler(peak_lr=1.0, warmup_steps=4, total_steps=9)
    >>> [round(cycle(step).item(), 3) for step in (0, 2, 4, 6, 8)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    >>> [round(cycle.momentum(step).item(), 3) for step in (0, 2, 4, 6, 8)]
    [0.95, 0.9, 0.85, 0.9, 0.95]
    """

    def __init__(
        self,
        peak_lr: float,
        warmup_steps: int,
        total_steps: int,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
    ):
        _check("peak_lr", peak_lr, peak_lr > 0, "a number above 0")
        _check("warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more")
        enough = total_steps > warmup_steps
        _check("total_steps", total_steps, enough, f"above {warmup_steps=} steps")
        _check("div_factor", div_factor, div_factor >= 1, "1 or more")
        _check("final_div_factor", final_div_factor, final_div_factor >= 1, "1 or more")
        cycles = 0 <= base_momentum <= max_momentum < 1
        _check("base_momentum", base_momentum, cycles, f"0 to {max_momentum=}, which is below 1")
        first = peak_lr / div_factor
        self.rates = first, peak_lr, first / final_div_factor
        self.momenta = max_momentum, base_momentum, max_momentum
        self.warmup_steps, self.total_steps = warmup_steps, total_steps

    def __call__(self, step: mx.array | int) -> mx.array:
        return self._along(self.rates, step)

    def momentum(self, step: mx.array | int) -> mx.array:
        """Adam's first beta, or SGD's momentum, at `step`."""
        return self._along(self.momenta, step)

    def _along(self, values: tuple[float, float, float], step: mx.array | int) -> mx.array:
        """The straight lines from the first value by the second to the third."""
        first, middle, last = values
        step, top = _as_float(step), self.warmup_steps
        up = step / max(top, 1)
        down = mx.clip((step - top) / max(self.total_steps - 1 - top, 1), 0, 1)
        rising, falling = first * (1 - up) + middle * up, middle * (1 - down) + last * down
        return mx.where(step < top, rising, falling)
