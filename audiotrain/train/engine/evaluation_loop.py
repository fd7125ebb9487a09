"""Averages weighted by batch, and one pass over a loader in eval mode."""

import contextlib
import itertools
import math
from collections.abc import Iterator

import mlx.core as mx

from audiotrain.train.engine.batch_tree import flatten_batch, unflatten_batch
from audiotrain.train.engine.compiled_function import StepOutputs, random_key
from audiotrain.train.engine.precision import PRECISIONS
from audiotrain.train.engine.steps import in_stage
from audiotrain.utils.arrays import arrays_of, put_arrays

NO_BATCH = "it is empty, or a generator that is exhausted; expected batches to iterate anew"


class Averages:
    """Weighted means by name, summed on the host in float64.

    >>> averages = Averages()
    >>> averages.add({"loss": 1.0}, weight=3)
    >>> averages.add({"loss": 2.0}, weight=1)
    >>> averages.means()
    {'loss': 1.25}
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, numbers: dict[str, float], weight: float) -> None:
        """Add one batch's numbers."""
        sums = {name: weight * value for name, value in numbers.items()}
        self.join({"sums": sums, "weights": dict.fromkeys(numbers, weight)})

    def means(self) -> dict[str, float]:
        """Means so far; NaN where all weights are 0."""
        return {
            name: total / self.weights[name] if self.weights[name] else math.nan
            for name, total in self.sums.items()
        }

    def state_dict(self) -> dict:
        """Plain numbers for a checkpoint."""
        return {"sums": dict(self.sums), "weights": dict(self.weights)}

    def join(self, state: dict) -> None:
        """Add the averages of another `state_dict`."""
        for name, total in state["sums"].items():
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.weights[name] = self.weights.get(name, 0.0) + state["weights"][name]

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint."""
        self.sums, self.weights = dict(state["sums"]), dict(state["weights"])


def count_batches(loader, limit: int | float | None, name: str) -> int | None:
    """Batches of a pass under the limit of setting `name`: int = number, float = share of the
    loader's; None when neither gives a number."""
    length = len(loader) if hasattr(loader, "__len__") else None
    if limit is None:
        return length
    if isinstance(limit, float):
        if length is None:
            raise ValueError(f"{name} is {limit!r}, a share, but the loader has no length")
        return max(1, int(length * limit)) if limit and length else 0
    return limit if length is None else min(limit, length)


def owns(loader, index: int) -> bool:
    """Whether batch `index` belongs to this rank, rather than filling in for an empty share."""
    return not hasattr(loader, "owns") or loader.owns(index)


@contextlib.contextmanager
def evaluating(trainer) -> Iterator[None]:
    """Eval mode, averaged weights and a random state of its own inside the block."""
    module, step = trainer.module, trainer.step
    modes = [(part, part.training) for part in module.modules()]
    key = random_key()
    mx.random.seed(trainer.seed)
    averaged = step.averages() if step and step.module is module else {}
    trained = {name: a for name, a in arrays_of(module).items() if name in averaged}
    try:
        put_arrays(module, averaged)
        module.eval()
        yield
    finally:
        put_arrays(module, trained)
        for part, training in modes:
            part._training = training
        mx.random.seed(key)


def predict(trainer, loader) -> list:
    """Evaluated outputs of `predict_step` for a loader's batches, without those that only fill in
    for a rank."""
    module, outputs = trainer.module, []
    precision = PRECISIONS[trainer.arguments.precision]()
    batches = trainer.count_batches(loader, "limit_predict_batches")
    with evaluating(trainer), precision.layers(module), precision.parameters(module):
        for index, batch in enumerate(itertools.islice(loader, batches)):
            if owns(loader, index):
                outputs.append(module.predict_step(unflatten_batch(*flatten_batch(batch))))
                mx.eval(outputs[-1])
    return outputs


def evaluate(trainer, loader, method: str, prefix: str, batches: int | None) -> dict[str, float]:
    """Mean numbers of `method` over so many batches of a loader, each name beginning with `prefix`.

    The module is in eval mode already. The next batch is loaded while one is computed. Several
    ranks evaluate their shares of the loader and get the same means over all.
    """
    module, step = trainer.module, trainer.evaluation_step(method)
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(0)  # the same batches at every evaluation
    if test := prefix == "test_":
        trainer.call_callbacks(lambda c: c.on_test_start(trainer, module))
    else:
        trainer.call_callbacks(lambda c: c.on_validation_start(trainer, module))
        module.on_validation_start()
    steps: list[StepOutputs] = []
    for index, batch in enumerate(itertools.islice(loader, batches)):
        if not owns(loader, index):
            continue
        outputs = step(batch)
        mx.async_eval(outputs.vector)
        if steps:
            mx.eval(steps[-1].vector)
        steps.append(outputs)
        event = trainer, module, outputs, batch, index
        trainer.call_callbacks(lambda c, event=event: c.on_validation_batch_end(*event))
        trainer.check_signal()
    shares, averages = Averages(), Averages()
    for outputs in steps:
        numbers = dict(outputs.numbers)
        shares.add(numbers, numbers.pop("weight"))
    for state in trainer.ranks.gather(shares.state_dict()):
        averages.join(state)
    if not averages.sums:
        raise ValueError(f"the {prefix.rstrip('_')} loader gave no batch: {NO_BATCH}")
    means = averages.means().items()
    metrics = {in_stage(prefix, name): value for name, value in means}
    if test:
        trainer.call_callbacks(lambda c: c.on_test_end(trainer, module, metrics))
    elif not trainer.sanity_checking:
        trainer.callback_metrics.update(metrics)
    return metrics
