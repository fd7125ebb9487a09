"""The training and evaluation steps, each one compiled graph.

State is listed once, [model, optimizer, random key, extra].
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from audiotrain.backend.buffers import freeze_buffers
from audiotrain.backend.ops import contiguous_gradients
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.train.engine.compiled_function import Compiled, LossCopy, StepOutputs, scalar
from audiotrain.train.engine.precision import Precision
from audiotrain.train.engine.update import gradient_norm, keep_if
from audiotrain.train.module import check_trainable
from audiotrain.utils.arrays import arrays_of


class TrainStep:
    """Loss, gradients, clipping, optimizer, guard against NaN and running average in one graph."""

    def __init__(
        self,
        module,
        optimizer: optim.Optimizer,
        *,
        clip_value: float | None,
        clip_algorithm: str,
        accumulate: bool,
        ema_decay: float | None,
        precision: Precision,
        ranks: SingleProcess,
        compile: bool,
    ):
        precision.check(module)
        self.module, self.optimizer = module, optimizer
        self.precision, self.ranks = precision, ranks
        self.clip_value, self.clip_algorithm = clip_value, clip_algorithm
        self.ema_decay, self.accumulate = ema_decay, accumulate
        self.extra: dict = {}
        self._remembered: tuple[str, mx.array] | None = None
        self._complete_state()
        mx.eval(self.state())
        self._step = Compiled(self._update, self.state, compile, "training")
        self._add = Compiled(self._accumulate, self.state, compile, "accumulation")
        self._apply = Compiled(self._apply_accumulated, self.state, compile, "update")
        self._fingerprint = self._traits()

    def state(self) -> list:
        """The trees that a step changes; the random key comes on top."""
        return [self.module.state, self.optimizer.state, self.extra, self.ranks.shared]

    @property
    def trace_count(self) -> int:
        """Traces so far (eager steps count each)."""
        return self._step.trace_count + self._add.trace_count + self._apply.trace_count

    def averages(self) -> dict[str, mx.array]:
        """Running averages of the module's weights, by name; none when other weights were put into
        the module since `remember`."""
        if self._remembered is not None:
            name, array = self._remembered
            if arrays_of(self.module).get(name) is not array:
                return {}
        return self.extra.get("ema", {})

    def remember(self) -> None:
        """Take the module's weights for those that were trained, until the next step."""
        weights = arrays_of(self.module.trainable_parameters())
        self._remembered = next(iter(weights.items()), None)

    @property
    def changed(self) -> str:
        """How the last kind of batch that was traced differs from the one before, "" for one."""
        return self._step.changed or self._add.changed

    def refresh(self) -> None:
        """Trace anew if parts were frozen, unfrozen, or set to train or eval; cheap otherwise."""
        freeze_buffers(self.module)
        if self._fingerprint != (traits := self._traits()):
            check_trainable(self.module)
            self._fingerprint = traits
            self._complete_state()
            for compiled in (self._step, self._add, self._apply):
                compiled.clear()

    def _traits(self) -> tuple:
        trained = tuple(arrays_of(self.module.trainable_parameters()))
        modes = tuple(part.training for part in self.module.modules())
        state = self.optimizer.state
        identity = tuple(id(one) for one in state.get("states", [state]))  # MultiOptimizer's list
        return trained, modes, identity

    def _complete_state(self) -> None:
        """Optimizer state, accumulator and average for every trainable parameter."""
        trainable = self.module.trainable_parameters()
        self.optimizer.init(trainable)
        if self.accumulate:
            zeros = tree_map(lambda p: mx.zeros(p.shape, mx.float32), trainable)
            self.extra["accumulator"] = {"gradients": zeros, "weight": mx.array(0.0)}
        if self.ema_decay is not None:
            # A copy: sharing the array would keep MLX from updating the parameter in place.
            averaged = arrays_of(trainable) | running_statistics(self.module)
            copies = {name: array + 0 for name, array in averaged.items()}
            self.extra["ema"] = copies | self.extra.get("ema", {})

    def __call__(self, batch) -> StepOutputs:
        """One batch, one optimizer step."""
        return self._step(batch)

    def add(self, batch) -> StepOutputs:
        """Add one batch's weighted gradients to the accumulator."""
        return self._add(batch)

    def apply(self) -> StepOutputs:
        """One optimizer step with what was accumulated."""
        return self._apply(())

    def _gradients(self, batch):
        """Loss and metrics of this rank's batch, its weight, and gradients of its `objective` in
        the parameters' type."""

        def loss_and_metrics(batch):
            with self.precision.parameters(self.module):
                loss, metrics = losses_of(self.module, "compute_loss", batch)
            if loss is None:
                raise ValueError(f"{type(self.module).__name__}.compute_loss gave no loss")
            weight = scalar("batch_weight", self.module.batch_weight(batch))
            return self.ranks.objective(loss, weight), loss, metrics, weight

        with self.ranks.synchronized_layers(self.module), self.precision.layers(self.module):
            numbers, gradients = nn.value_and_grad(self.module, loss_and_metrics)(batch)
        return *numbers[1:], contiguous_gradients(gradients)

    def _update(self, batch) -> dict:
        old_model, old_optimizer = arrays_of(self.module.state), arrays_of(self.optimizer.state)
        loss, metrics, weight, gradients = self._gradients(batch)
        loss, metrics, weight, gradients = self.ranks.average(loss, metrics, weight, gradients)
        norm = gradient_norm(gradients)
        finite = mx.isfinite(loss) & mx.isfinite(norm)
        self._descend(gradients, norm)
        self._keep_if(finite, old_model, old_optimizer)
        learning_rate = learning_rate_of(self.optimizer)
        return _numbers(loss, weight, finite, metrics) | {
            "gradient_norm": norm,
            "learning_rate": learning_rate,
        }

    def _accumulate(self, batch) -> dict:
        old_model = arrays_of(self.module.state)
        loss, metrics, rank_weight, gradients = self._gradients(batch)
        norm = gradient_norm(gradients)
        loss, metrics, weight, norm = self.ranks.average(loss, metrics, rank_weight, norm)
        finite = mx.isfinite(loss) & mx.isfinite(norm)
        keep_if(finite, self.module.state, old_model, {}, {})
        weight = mx.where(finite, weight, 0.0)
        total = self.extra["accumulator"]

        def added(sum_, gradient):
            weighted = self.ranks.weighted_gradient(gradient.astype(mx.float32), rank_weight)
            return sum_ + mx.where(finite, weighted, 0.0)

        total["gradients"] = tree_map(added, total["gradients"], gradients)
        total["weight"] = total["weight"] + weight
        return _numbers(loss, weight, finite, metrics)

    def _apply_accumulated(self, _) -> dict:
        old_model, old_optimizer = arrays_of(self.module.state), arrays_of(self.optimizer.state)
        total = self.extra["accumulator"]
        any_weight = total["weight"] > 0
        scale = 1 / mx.where(any_weight, total["weight"], 1.0)
        parameters = self.module.trainable_parameters()
        summed = self.ranks.sum_tree(total["gradients"])
        gradients = tree_map(lambda g, p: (g * scale).astype(p.dtype), summed, parameters)
        norm = gradient_norm(gradients)
        self._descend(gradients, norm)
        self._keep_if(any_weight & mx.isfinite(norm), old_model, old_optimizer)
        total["gradients"] = tree_map(mx.zeros_like, total["gradients"])
        total["weight"] = mx.zeros_like(total["weight"])
        return {"gradient_norm": norm, "learning_rate": learning_rate_of(self.optimizer)}

    def _descend(self, gradients, norm: mx.array) -> None:
        limit = math.inf if self.clip_value is None else self.clip_value
        if self.clip_algorithm == "value" and limit < math.inf:
            gradients = tree_map(partial(mx.clip, a_min=-limit, a_max=limit), gradients)
            limit = math.inf
        # Without a limit the factor is 1, and the update still depends on the norm, so the choice
        # whether to keep it becomes part of the update instead of a pass of its own.
        scale = mx.where(norm > limit, limit / norm, 1.0)
        gradients = tree_map(lambda g: (g.astype(mx.float32) * scale).astype(g.dtype), gradients)
        self.optimizer.update(self.module, gradients)

    def _keep_if(self, finite: mx.array, old_model: dict, old_optimizer: dict) -> None:
        """Take the new state where the step was finite, the old one where it was not."""
        keep_if(finite, self.module.state, old_model, self.optimizer.state, old_optimizer)
        if self.ema_decay is not None:
            step = _state(self.optimizer)["step"].astype(mx.float32)
            # Short memory at first, so that the average is not held by the initial weights.
            decay = mx.minimum(self.ema_decay, (1 + step) / (10 + step))
            new = arrays_of(self.module)
            for key, old in self.extra["ema"].items():
                average = new[key] + decay * (old - new[key])
                self.extra["ema"][key] = mx.where(finite, average, old).astype(old.dtype)


def running_statistics(module) -> dict[str, mx.array]:
    """BatchNorm's means and variances by name. They are averaged with the weights: an average of
    weights normalised by the statistics of the last ones would be off by what these moved."""
    return {
        name: array
        for name, array in arrays_of(module.state).items()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    }


RESERVED = set(
    "weight finite gradient_norm learning_rate epoch step skipped_steps examples_per_second "
    "peak_memory_mb".split()
)


def _numbers(loss, weight, finite, metrics: dict) -> dict:
    reserved = RESERVED & set(metrics)
    if reserved:
        raise ValueError(f"metric {min(reserved)!r}: the Trainer uses this name itself, rename it")
    return {"loss": loss, "weight": weight, "finite": finite} | metrics


def learning_rate_of(optimizer: optim.Optimizer) -> mx.array:
    """Rate of the last step; of the first optimizer when there are several (MultiOptimizer)."""
    return _state(optimizer)["learning_rate"]


def _state(optimizer: optim.Optimizer) -> dict:
    state = optimizer.state
    while "states" in state:
        state = state["states"][0]
    return state


def losses_of(module, method: str, batch) -> tuple[mx.array | None, dict]:
    """(loss, metrics) of a module's step; what it logged with `module.log` is among the metrics."""
    with module.trainer.records.of_step() as logged:
        result = METHODS[method](module, batch)
    if isinstance(result, Mapping):
        loss, metrics = None, result
    elif isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        loss, metrics = result
        scalar("loss", loss)
    else:
        raise ValueError(
            f"{type(module).__name__}.{method} gave {type(result).__name__}, "
            f"expected (loss, dict of metrics)"
        )
    metrics = _of_stage(module, method, loss, [*logged.items(), *metrics.items()])
    return None if loss is None else scalar("loss", loss), metrics


def _of_stage(
    module, method: str, loss: mx.array | None, metrics: Iterable[tuple[str, mx.array]]
) -> dict:
    """Metrics without those named for another stage, and without the step's own loss; another array
    under the name of the loss gets a LossCopy as its key."""
    prefix = PREFIXES[method]
    found: dict[str | LossCopy, mx.array] = {}
    others = [other for other in PREFIXES.values() if other != prefix]
    others += [_with_slash(other) for other in others]
    for name, value in metrics:
        short = name.removeprefix(prefix)
        if loss is not None and short == "loss":
            if value is not loss:
                number, place = scalar(name, value), f"{type(module).__name__}.{method}"
                found[LossCopy(name, place, _rounding(loss, value))] = number
        elif not name.startswith(tuple(others)):
            found[short if method == "compute_loss" else name] = value
    return found


def _rounding(*values) -> float:
    """Relative difference of equal numbers, one rounded to the coarsest type of these, or summed in
    another order."""
    types = [value.dtype for value in values if isinstance(value, mx.array)]
    return max([1e-5, *(mx.finfo(one).eps for one in types if mx.issubdtype(one, mx.floating))])


PREFIXES = {"compute_loss": "train_", "validation_step": "val_", "test_step": "test_"}


def in_stage(prefix: str, name: str) -> str:
    """Return a metric's name with the prefix of its stage, unless it has that already, in either of
    its two usual forms.

    >>> [in_stage("val_", name) for name in ("loss", "val_loss", "val/loss")]
    ['val_loss', 'val_loss', 'val/loss']
    """
    return name if name.startswith((prefix, _with_slash(prefix))) else prefix + name


def _with_slash(prefix: str) -> str:
    return prefix.replace("_", "/")


METHODS = {
    "compute_loss": lambda module, batch: module.compute_loss(batch),
    "validation_step": lambda module, batch: module.validation_step(batch),
    "test_step": lambda module, batch: module.test_step(batch),
}


class EvaluationStep:
    """Compiled metrics of one batch in eval mode: `method` is validation_step or test_step."""

    def __init__(self, module, method: str, precision: Precision, compile: bool):
        self.module, self.method, self.precision = module, method, precision
        self._compiled = Compiled(self._evaluate, lambda: [module.state], compile, method)

    @property
    def trace_count(self) -> int:
        """Traces so far."""
        return self._compiled.trace_count

    def clear(self) -> None:
        """Trace anew at the next call."""
        self._compiled.clear()

    def __call__(self, batch) -> StepOutputs:
        """Numbers of one batch."""
        return self._compiled(batch)

    def _evaluate(self, batch) -> dict:
        with self.precision.layers(self.module), self.precision.parameters(self.module):
            loss, metrics = losses_of(self.module, self.method, batch)
        weight = self.module.batch_weight(batch)
        return {"weight": weight} | ({} if loss is None else {"loss": loss}) | metrics
