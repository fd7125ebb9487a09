"""A function of a batch compiled over listed state: traced once per batch shape, nothing read back.

State is put back when the function raises inside a trace; one packed vector of numbers comes out.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from audiotrain.train.engine.batch_tree import (
    Structure,
    difference,
    flatten_batch,
    leaves,
    unflatten_batch,
)
from audiotrain.utils.arrays import arrays_of, put_arrays

MANY_TRACES = 8


@dataclass(frozen=True)
class LossCopy:
    """The key of a number that a module gives under the name of the loss that `method` returned;
    `tolerance` of their difference is relative to the loss."""

    name: str
    method: str
    tolerance: float

    def check(self, value: float, loss: float) -> None:
        """ValueError when the number is not the loss; a loss that is not finite says so itself."""
        if math.isfinite(loss) and not math.isclose(
            value, loss, rel_tol=self.tolerance, abs_tol=1e-6
        ):
            raise ValueError(
                f"metric {self.name!r} is {value:.9g}, but {self.method} returned a loss of "
                f"{loss:.9g}, expected the same number, or another name"
            )


Keys = tuple[str | LossCopy, ...]


class StepOutputs(Mapping):
    """The numbers of one step, by name; reading one waits for the step, so read seldom.

    "loss", "weight" (what the batch counted), "finite" (0 when it was skipped), "gradient_norm",
    "learning_rate", and the module's metrics. `examples` is the length of the batch's first array.
    """

    def __init__(self, keys: Keys, vector: mx.array, examples: int = 0):
        self._keys, self.vector, self.examples = keys, vector, examples

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """All numbers at once; ValueError when one under the name of the loss is another."""
        found = dict(zip(self._keys, np.array(self.vector).tolist(), strict=True))
        numbers = {key: number for key, number in found.items() if isinstance(key, str)}
        for key, number in found.items():
            if isinstance(key, LossCopy):
                key.check(number, numbers["loss"])
        return numbers

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    def __iter__(self):
        return (key for key in self._keys if isinstance(key, str))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Compiled:
    """Calls `body(batch) -> {name: scalar}` compiled over the listed state, and packs its numbers.

    Counts traces; puts the state back when the body raises inside a trace.
    """

    def __init__(
        self, body: Callable[[Any], dict], state: Callable[[], list], compile: bool, name: str
    ):
        self.body, self.state, self.compile, self.name = body, state, compile, name
        self.trace_count = 0
        self.functions: dict[Structure, Callable[..., mx.array]] = {}
        self.keys: dict[tuple, Keys] = {}  # of the numbers, by a batch's signature
        self.leaves: dict[str, str] = {}  # of the last batch that was traced
        self.changed = ""  # how it differs from the one traced before

    def clear(self) -> None:
        """Forget the traces: needed once modes, frozen parameters or state objects changed."""
        self.functions.clear()
        self.keys.clear()
        self.leaves = {}

    def __call__(self, batch: Any) -> StepOutputs:
        arrays, structure, texts = flatten_batch(batch)
        signature = (structure, *((tuple(array.shape), array.dtype) for array in arrays))
        examples = next((array.shape[0] for array in arrays if array.ndim), 1)
        if structure not in self.functions:
            self.functions[structure] = self._function(structure)
        function = self.functions[structure]
        if self.compile and signature in self.keys:
            return StepOutputs(self.keys[signature], function(arrays), examples)
        before = [(tree, arrays_of(tree)) for tree in self.state()]
        key = random_key()
        try:
            vector = function(arrays) if self.compile else function(arrays, texts)
        except BaseException as error:
            for tree, old in before:
                put_arrays(tree, old)
            mx.random.seed(key)
            if self.leaves and signature not in self.keys:
                changed = difference(self.leaves, leaves(arrays, structure))
                error.add_note(f"this batch differs from the batches before: {changed}")
            raise
        self.keys[signature] = self.traced_keys
        self._compare(leaves(arrays, structure))
        return StepOutputs(self.traced_keys, vector, examples)

    def _function(self, structure: Structure) -> Callable[..., mx.array]:
        def traced(arrays: list[mx.array], texts: list | None = None) -> mx.array:
            self.trace_count += 1
            numbers = self.body(unflatten_batch(arrays, structure, texts))
            self.traced_keys = tuple(numbers)
            return packed([scalar(name, value) for name, value in numbers.items()])

        if not self.compile:
            return traced
        state = [*self.state(), mx.random.state]
        return mx.compile(traced, inputs=state, outputs=state)

    def _compare(self, now: dict[str, str]) -> None:
        """Remember the leaves that were traced, and warn once when every batch differs."""
        before, self.leaves = self.leaves, now
        self.changed = difference(before, now) if before and before != now else ""
        if self.compile and len(self.keys) == MANY_TRACES:
            warnings.warn(
                f"the {self.name} step was traced {MANY_TRACES} times because batches differ: "
                f"{difference(before, now)}; pad batches to a few lengths",
                stacklevel=4,
            )


def packed(scalars: list[mx.array]) -> mx.array:
    """(scalars,): as mx.stack, which compiled is two operations a scalar; this is one for all."""
    indices = mx.array([*range(len(scalars))])
    vector = mx.array([0.0] * len(scalars))
    for index, value in enumerate(scalars):
        vector = mx.where(indices == index, value, vector)
    return vector


def scalar(name: str, value) -> mx.array:
    """A float32 array of no axes; ValueError naming what is not one number."""
    if not isinstance(value, mx.array):
        try:
            value = mx.array(value)
        except (RuntimeError, TypeError, ValueError):
            kind = type(value).__name__
            raise ValueError(f"{name} is a {kind}, expected one number") from None
    if value.size != 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected one number")
    return value.reshape(()).astype(mx.float32)


def as_float(scalar: mx.array) -> float:
    """The value of a float32 array of one element."""
    return np.array(scalar).item()


def random_state() -> mx.array:
    """MLX's global random key (2,), the array that it updates itself."""
    state: Any = mx.random.state
    return state[0]


def random_key() -> int:
    """MLX's global random state as one number; `mx.random.seed` takes it back."""
    high, low = np.array(random_state()).tolist()
    return high << 32 | low
