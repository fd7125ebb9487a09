"""The few places where ranks meet: processes that train one model, started by `mlx.launch`.

Each rank computes its share of every batch; whatever decides something is the same on all of them.
One process is `Alone`, which has nothing to agree on.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from audiotrain.train.distributed.sync_batch_norm import synchronized_batch_norm
from audiotrain.train.distributed.watchdog import SIGNALS, Guardian
from audiotrain.train.engine.compiled_function import scalar
from audiotrain.utils.arrays import arrays_of, put_arrays
from audiotrain.utils.process_pool import LAUNCHERS

BUCKET_BYTES = 32 * 1024**2  # gradients are summed in pieces of about this size


class Alone:
    """One process: sums over ranks are its own numbers, and its own wishes count."""

    rank, size = 0, 1
    shared: dict = {}  # arrays that the compiled step reads and writes

    def layers(self, module: nn.Module) -> contextlib.AbstractContextManager:
        """Inside the block batch normalisation runs over the batches of all ranks."""
        return contextlib.nullcontext()

    def objective(self, loss: mx.array, weight: mx.array) -> mx.array:
        """What a rank differentiates: its loss, or its part of the sum over ranks."""
        return loss

    def weigh(self, gradient: mx.array, weight: mx.array) -> mx.array:
        """A gradient of `objective` as that of the weighted loss."""
        return weight * gradient

    def average(self, loss: mx.array, metrics: dict, weight: mx.array, gradients) -> tuple:
        """Means over ranks by weight, and their weight; `gradients` are those of `objective`."""
        return loss, metrics, weight, gradients

    def total(self, gradients):
        """Sums over ranks of a tree of arrays."""
        return gradients

    def rows(self, array: mx.array) -> mx.array:
        """The rows of all ranks, for a loss that compares them (`ContrastiveLoss(gather=...)`).

        In training only, with as many rows on each. The gradient is that of the rank's own rows
        times the number of ranks: where every rank has the loss of all, their mean is right.
        """
        return array

    def ask(self, own: bool, received: int | None, stop: bool) -> None:
        """Before a batch: whether it is the rank's own, the signal it got, if it wants to stop."""

    def seed(self, seed: int, epoch: int, batch: int) -> None:
        """Give ranks after the first random streams of their own, as rank 0 keeps its one."""

    def hear(self) -> None:
        """After a batch: take up what all ranks asked for with the batch before it."""

    def meet(self, received: int | None, stop: bool) -> None:
        """Ask and hear at once, away from the compiled step."""

    def signal(self, received: int | None) -> int | None:
        """The signal to obey, where this rank got `received`."""
        return received

    def stops(self, stop: bool) -> bool:
        """Whether training ends, where this rank wants `stop`."""
        return stop

    def gather(self, value: Any, saving: bool = False) -> list:
        """The plain data `value` of every rank, in their order; a barrier, too."""
        return [value]

    def from_first(self, action: Callable[[], Any]) -> Any:
        """What `action` gives on rank 0, as plain data, on all ranks; a ValueError is told too."""
        return action()

    def first_goes_first(self, action: Callable[[], Any]) -> Any:
        """What `action` gives on each rank; the others begin when rank 0 has left its files."""
        return action()

    def hush(self) -> contextlib.AbstractContextManager:
        """Inside the block only rank 0 prints."""
        return contextlib.nullcontext()

    def share(self, trees: list) -> None:
        """Give all ranks the arrays of rank 0, in place."""

    def shard(self, loader) -> None:
        """Let a loader give this rank its share of each batch; ValueError where it cannot."""

    def check_batches(self, count: int | None) -> None:
        """ValueError unless all ranks have the same number of training batches."""

    def watch(self, where: Callable[[], str]) -> contextlib.AbstractContextManager:
        """Inside the block a wait for a rank that never answers ends the process in time."""
        return contextlib.nullcontext()

    def waiting(self, saving: bool = False) -> contextlib.AbstractContextManager:
        """Mark what may wait for other ranks (for rank 0 to save, when `saving`)."""
        return contextlib.nullcontext()


class Ranks(Alone):
    """Several processes. Rank 0 writes and reads files; the others get what they need from it."""

    def __init__(self, group: mx.distributed.Group):
        self.rank, self.size, self.group = group.rank(), group.size(), group
        # flags: own, asked to stop by each of SIGNALS, wants to stop; agreed: sums of the last.
        self.shared = {"flags": mx.zeros(4), "agreed": mx.zeros(3)}
        self.sent: mx.array | None = None
        self.agreed_signal: int | None = None
        self.agreed_stop = False
        self.last: mx.array | None = None
        self.guardian: Guardian | None = None

    def layers(self, module):
        self.last = None
        return synchronized_batch_norm(module, self)

    def objective(self, loss, weight):
        return mx.where(self.shared["flags"][0] > 0, loss * weight, 0.0)

    def weigh(self, gradient, weight):
        return gradient

    def average(self, loss, metrics, weight, gradients):
        own = self.shared["flags"][0] > 0
        numbers = [loss, *(scalar(name, value) for name, value in metrics.items())]
        weighted = mx.where(own, mx.stack([*numbers, mx.array(1.0)]) * weight, 0.0)
        vector = mx.concatenate([weighted, self.shared["flags"][1:]])
        vector, gradients = self.total((vector, gradients))
        weight = vector[len(numbers)]
        scale = 1 / mx.where(weight > 0, weight, 1.0)
        self.shared["agreed"] = vector[-3:]
        means = [vector[place] * scale for place in range(len(numbers))]
        gradients = tree_map(lambda g: (g * scale).astype(g.dtype), gradients)
        return means[0], dict(zip(metrics, means[1:], strict=True)), weight, gradients

    def total(self, gradients):
        named = tree_flatten(gradients)
        sums: list[mx.array] = []
        for bucket in buckets([array for _, array in named]):
            flat = self.sum(mx.concatenate([a.reshape(-1).astype(mx.float32) for a in bucket]))
            place = 0
            for array in bucket:
                part = flat[place : place + array.size]
                sums.append(part.reshape(array.shape).astype(array.dtype))
                place += array.size
        self.last = None
        return tree_unflatten([(name, s) for (name, _), s in zip(named, sums, strict=True)])

    def sum(self, array: mx.array) -> mx.array:
        """Sum over ranks, inside a traced step."""
        return self._in_order(mx.distributed.all_sum, array)

    def stack(self, array: mx.array) -> mx.array:
        """(ranks, *shape): the array of each rank, inside a traced step."""
        return self._in_order(mx.distributed.all_gather, array[None])

    def rows(self, array):
        own = slice(self.rank * len(array), (self.rank + 1) * len(array))

        @mx.custom_function
        def all_rows(array):
            return self.stack(array).reshape(-1, *array.shape[1:])

        @all_rows.vjp
        def all_rows_vjp(array, cotangent, output):
            return self.size * cotangent[own]

        return all_rows(array)

    def _in_order(self, collective, array: mx.array) -> mx.array:
        """Each after the one before: ranks whose batches differ in shape may build other graphs,
        and two that wait for each other's second collective wait for ever."""
        if self.last is not None:
            (array,) = mx.depends([array], [self.last])
        self.last = collective(array, group=self.group)
        return self.last

    def ask(self, own, received, stop):
        wishes = [received == number for number in SIGNALS] + [stop]
        self.shared["flags"] = mx.array([own, *wishes], dtype=mx.float32)

    def seed(self, seed, epoch, batch):
        if self.rank:  # of the place in the run alone, so that rank 0's checkpoint is enough
            entropy = np.random.SeedSequence((seed, self.rank, epoch, batch))
            mx.random.seed(int(entropy.generate_state(1, np.uint64)[0]))

    def hear(self):
        previous, self.sent = self.sent, self.shared["agreed"]
        if previous is not None:
            self._obey(previous.tolist())

    def meet(self, received, stop):
        wishes = [[received == number for number in SIGNALS] + [stop]]
        wishes = self.gather(wishes[0])
        self._obey([sum(column) for column in zip(*wishes, strict=True)])
        self.sent = None  # asked for before this meeting

    def _obey(self, counts: list) -> None:
        asked = [number for number, count in zip(SIGNALS, counts, strict=False) if count]
        if asked and self.agreed_signal is None:
            self.agreed_signal = asked[0]
        self.agreed_stop = self.agreed_stop or counts[-1] > 0

    def signal(self, received):
        return self.agreed_signal

    def stops(self, stop):
        return self.agreed_stop

    def gather(self, value, saving=False):
        data = json.dumps(value).encode()
        with self.waiting(saving):
            gathered = mx.distributed.all_gather(mx.array([len(data)]), group=self.group)
            sizes = gathered.tolist()
            padded = mx.array(np.frombuffer(data.ljust(max(sizes)), dtype=np.uint8))
            rows = np.array(mx.distributed.all_gather(padded[None], group=self.group))
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def from_first(self, action):
        value = error = told = None
        if self.rank == 0:
            try:
                value = action()
            except ValueError as caught:
                error, told = caught, str(caught)
        value, told = self.gather([value, told])[0]
        if error is not None:
            raise error
        if told is not None:
            raise ValueError(f"rank 0: {told}")
        return value

    def first_goes_first(self, action):
        done = []
        self.from_first(lambda: done.append(action()))
        return done[0] if done else action()

    @contextlib.contextmanager
    def hush(self):
        if self.rank == 0:
            yield
            return
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield

    def share(self, trees):
        for tree in trees:
            arrays = arrays_of(tree)
            kinds = {name: f"{list(a.shape)} {a.dtype}" for name, a in arrays.items()}
            self._check_same("the arrays of the model and its optimizer", kinds)
            with self.waiting():
                shared = {name: self._first(array) for name, array in arrays.items()}
                mx.eval(shared)
            put_arrays(tree, shared)

    def _first(self, array: mx.array) -> mx.array:
        sent = array.astype(mx.uint8) if array.dtype == mx.bool_ else array
        sent = sent if self.rank == 0 else mx.zeros_like(sent)
        return mx.distributed.all_sum(sent, group=self.group).astype(array.dtype)

    def shard(self, loader):
        if hasattr(loader, "shard"):
            loader.shard(self.rank, self.size)
        elif loader is not None:
            raise ValueError(
                f"a {type(loader).__name__} has no shard(rank, world_size): each of the "
                f"{self.size} ranks would be given all of it; use a DataLoader, or give it that "
                f"method (one that does nothing where its batches differ by rank already)"
            )

    def check_batches(self, count):
        if count is None:
            raise ValueError(
                f"the training loader has no length, which {self.size} ranks need: give it a "
                f"__len__, or set limit_train_batches"
            )
        self._check_same("the number of training batches", count)

    def _check_same(self, what: str, value) -> None:
        for rank, other in enumerate(values := self.gather(value)):
            if other != values[0]:
                first, found = values[0], other
                if isinstance(value, dict):
                    name = min(n for n in first | other if first.get(n) != other.get(n))
                    first, found = (f"{name} {one.get(name, 'missing')}" for one in (first, other))
                raise ValueError(
                    f"{what} must be the same on all ranks: rank 0 has {first}, rank {rank} {found}"
                )

    @contextlib.contextmanager
    def watch(self, where):
        self.agreed_signal, self.agreed_stop, self.sent = None, False, None
        with Guardian(self.rank, where) as self.guardian:
            try:
                yield
            finally:
                self.guardian = None

    def waiting(self, saving=False):
        return contextlib.nullcontext() if self.guardian is None else self.guardian.waiting(saving)


def buckets(arrays: list[mx.array]) -> Iterator[list[mx.array]]:
    """Consecutive arrays, as many together as have BUCKET_BYTES as float32, at least one."""
    bucket: list[mx.array] = []
    for array in arrays:
        if bucket and 4 * (sum(a.size for a in bucket) + array.size) > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(array)
    if bucket:
        yield bucket


def join() -> Alone:
    """The ranks that this process was launched with; nothing is set up where no launcher was."""
    hosts = os.environ.get("MLX_HOSTFILE")
    alone = hosts and not Path(hosts).read_text().strip()  # mlx.launch -n 1, at which MLX stumbles
    if any(os.environ.get(name) for name in LAUNCHERS) and not alone:
        group = mx.distributed.init()
        if group.size() > 1:
            return Ranks(group)
    return Alone()
