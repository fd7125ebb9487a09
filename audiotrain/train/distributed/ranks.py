"""Communication between ranks, the processes started by `mlx.launch` that train one model.

Each rank computes its share of every batch, and all take the same decisions. `SingleProcess` is
the same interface for one process.
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
from audiotrain.train.distributed.watchdog import SIGNALS, Watchdog
from audiotrain.train.engine.compiled_function import scalar
from audiotrain.utils.arrays import arrays_of, put_arrays
from audiotrain.utils.errors import UserError
from audiotrain.utils.process_pool import LAUNCHERS

BUCKET_BYTES = 32 * 1024**2  # gradients are summed in pieces of about this size


class SingleProcess:
    """One process, with nothing to send: a sum over ranks is its argument."""

    rank, size = 0, 1
    shared: dict = {}  # arrays that the compiled step reads and writes

    def synchronized_layers(self, module: nn.Module) -> contextlib.AbstractContextManager:
        """Inside the block batch normalisation runs over the batches of all ranks."""
        return contextlib.nullcontext()

    def objective(self, loss: mx.array, weight: mx.array) -> mx.array:
        """The scalar that a rank differentiates: its loss, or its term of the weighted sum."""
        return loss

    def weighted_gradient(self, gradient: mx.array, weight: mx.array) -> mx.array:
        """The gradient of the weighted loss, from a gradient of `objective`."""
        return weight * gradient

    def average(self, loss: mx.array, metrics: dict, weight: mx.array, gradients) -> tuple:
        """Means over ranks by weight, and their weight; `gradients` are those of `objective`."""
        return loss, metrics, weight, gradients

    def sum_tree(self, gradients):
        """Sums over ranks of a tree of arrays."""
        return gradients

    def gather_rows(self, array: mx.array) -> mx.array:
        """The rows of all ranks, for a loss that compares them (`ContrastiveLoss(gather=...)`).

        In training only, with as many rows on each. The gradient is that of the rank's own rows
        times the number of ranks: where every rank has the loss of all, their mean is right.
        """
        return array

    def post_status(self, has_batch: bool, received: int | None, stop: bool) -> None:
        """Before a batch: put this rank's status into the step's arrays: whether the batch is its
        share or only fills in, the signal it received, whether it wants to stop."""

    def seed(self, seed: int, epoch: int, batch: int) -> None:
        """Seed each rank but rank 0, which keeps its random stream, for this batch."""

    def poll_status(self) -> None:
        """After a batch: read the status that all ranks posted with the batch before it."""

    def sync_status(self, received: int | None, stop: bool) -> None:
        """Exchange the status at once, outside of the compiled step."""

    def signal(self, received: int | None) -> int | None:
        """The signal that all ranks obey, given that this rank received `received`."""
        return received

    def should_stop(self, stop: bool) -> bool:
        """Whether all ranks stop, given whether this rank wants to."""
        return stop

    def gather(self, value: Any, saving: bool = False) -> list:
        """The plain data `value` of every rank, in order of rank; also a barrier."""
        return [value]

    def broadcast_from_rank0(self, action: Callable[[], Any]) -> Any:
        """Run `action` on rank 0 alone; its result, plain data, on all ranks, or its ValueError."""
        return action()

    def rank0_first(self, action: Callable[[], Any]) -> Any:
        """Run `action` on rank 0, then on the other ranks, which find its files."""
        return action()

    def rank0_output_only(self) -> contextlib.AbstractContextManager:
        """Inside the block only rank 0 prints."""
        return contextlib.nullcontext()

    def broadcast(self, trees: list) -> None:
        """Give all ranks the arrays of rank 0, in place."""

    def shard(self, loader) -> None:
        """Let a loader give this rank its share of each batch; ValueError where it cannot."""

    def check_batches(self, count: int | None) -> None:
        """ValueError unless all ranks have the same number of training batches."""

    def watch(self, where: Callable[[], str]) -> contextlib.AbstractContextManager:
        """Inside the block the process exits when another rank does not answer for too long."""
        return contextlib.nullcontext()

    def waiting(self, saving: bool = False) -> contextlib.AbstractContextManager:
        """Mark a block that waits for other ranks (for rank 0 to save, when `saving`)."""
        return contextlib.nullcontext()


class ProcessGroup(SingleProcess):
    """Two processes or more. Rank 0 reads and writes files and sends the others what they need."""

    def __init__(self, group: mx.distributed.Group):
        self.rank, self.size, self.group = group.rank(), group.size(), group
        # flags: has a batch of its own, received each of SIGNALS, wants to stop
        # agreed: the flags after the first, summed over ranks in the last step
        self.shared = {"flags": mx.zeros(4), "agreed": mx.zeros(3)}
        self.sent: mx.array | None = None
        self.agreed_signal: int | None = None
        self.agreed_stop = False
        self.last: mx.array | None = None
        self.watchdog: Watchdog | None = None

    def synchronized_layers(self, module):
        self.last = None
        return synchronized_batch_norm(module, self)

    def objective(self, loss, weight):
        return mx.where(self.shared["flags"][0] > 0, loss * weight, 0.0)

    def weighted_gradient(self, gradient, weight):
        return gradient

    def average(self, loss, metrics, weight, gradients):
        has_batch = self.shared["flags"][0] > 0
        numbers = [loss, *(scalar(name, value) for name, value in metrics.items())]
        weighted = mx.where(has_batch, mx.stack([*numbers, mx.array(1.0)]) * weight, 0.0)
        vector = mx.concatenate([weighted, self.shared["flags"][1:]])
        vector, gradients = self.sum_tree((vector, gradients))
        weight = vector[len(numbers)]
        scale = 1 / mx.where(weight > 0, weight, 1.0)
        self.shared["agreed"] = vector[-3:]
        means = [vector[n] * scale for n in range(len(numbers))]
        gradients = tree_map(lambda g: (g * scale).astype(g.dtype), gradients)
        return means[0], dict(zip(metrics, means[1:], strict=True)), weight, gradients

    def sum_tree(self, gradients):
        named = tree_flatten(gradients)
        sums: list[mx.array] = []
        for bucket in buckets([array for _, array in named]):
            flat = self.sum(mx.concatenate([a.reshape(-1).astype(mx.float32) for a in bucket]))
            start = 0
            for array in bucket:
                part = flat[start : start + array.size]
                sums.append(part.reshape(array.shape).astype(array.dtype))
                start += array.size
        self.last = None
        return tree_unflatten([(name, s) for (name, _), s in zip(named, sums, strict=True)])

    def sum(self, array: mx.array) -> mx.array:
        """Sum over ranks, inside a traced step."""
        return self._in_order(mx.distributed.all_sum, array)

    def stack(self, array: mx.array) -> mx.array:
        """(ranks, *shape): the array of each rank, inside a traced step."""
        return self._in_order(mx.distributed.all_gather, array[None])

    def gather_rows(self, array):
        rank_rows = slice(self.rank * len(array), (self.rank + 1) * len(array))

        @mx.custom_function
        def all_rows(array):
            return self.stack(array).reshape(-1, *array.shape[1:])

        @all_rows.vjp
        def all_rows_vjp(array, cotangent, output):
            return self.size * cotangent[rank_rows]

        return all_rows(array)

    def _in_order(self, collective, array: mx.array) -> mx.array:
        """Make each collective depend on the one before: ranks whose batches differ in shape may
        build different graphs, and ranks that run collectives in different orders deadlock."""
        if self.last is not None:
            (array,) = mx.depends([array], [self.last])
        self.last = collective(array, group=self.group)
        return self.last

    def post_status(self, has_batch, received, stop):
        flags = [has_batch, *_stop_flags(received, stop)]
        self.shared["flags"] = mx.array(flags, dtype=mx.float32)

    def seed(self, seed, epoch, batch):
        if self.rank:  # a function of the position in the run, so rank 0's checkpoint is enough
            entropy = np.random.SeedSequence((seed, self.rank, epoch, batch))
            mx.random.seed(int(entropy.generate_state(1, np.uint64)[0]))

    def poll_status(self):
        previous, self.sent = self.sent, self.shared["agreed"]
        if previous is not None:
            self._agree(previous.tolist())

    def sync_status(self, received, stop):
        flags = self.gather(_stop_flags(received, stop))
        self._agree([sum(column) for column in zip(*flags, strict=True)])
        self.sent = None  # posted before this exchange

    def _agree(self, counts: list) -> None:
        signals = [number for number, count in zip(SIGNALS, counts, strict=False) if count]
        if signals and self.agreed_signal is None:
            self.agreed_signal = signals[0]
        self.agreed_stop = self.agreed_stop or counts[-1] > 0

    def signal(self, received):
        return self.agreed_signal

    def should_stop(self, stop):
        return self.agreed_stop

    def gather(self, value, saving=False):
        data = json.dumps(value).encode()
        with self.waiting(saving):
            gathered = mx.distributed.all_gather(mx.array([len(data)]), group=self.group)
            sizes = gathered.tolist()
            padded = mx.array(np.frombuffer(data.ljust(max(sizes)), dtype=np.uint8))
            rows = np.array(mx.distributed.all_gather(padded[None], group=self.group))
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def broadcast_from_rank0(self, action):
        value = error = message = None
        if self.rank == 0:
            try:
                value = action()
            except UserError as caught:
                error, message = caught, str(caught)
        value, message = self.gather([value, message])[0]
        if error is not None:
            raise error
        if message is not None:
            raise UserError(f"rank 0: {message}")
        return value

    def rank0_first(self, action):
        results: list = []
        self.broadcast_from_rank0(lambda: results.append(action()))
        return results[0] if results else action()

    @contextlib.contextmanager
    def rank0_output_only(self):
        if self.rank == 0:
            yield
            return
        discarded = io.StringIO()
        with contextlib.redirect_stdout(discarded), contextlib.redirect_stderr(discarded):
            yield

    def broadcast(self, trees):
        for tree in trees:
            arrays = arrays_of(tree)
            kinds = {name: f"{list(a.shape)} {a.dtype}" for name, a in arrays.items()}
            self._check_same("the arrays of the model and its optimizer", kinds)
            with self.waiting():
                shared = {name: self._broadcast_array(array) for name, array in arrays.items()}
                mx.eval(shared)
            put_arrays(tree, shared)

    def _broadcast_array(self, array: mx.array) -> mx.array:
        sent = array.astype(mx.uint8) if array.dtype == mx.bool_ else array
        sent = sent if self.rank == 0 else mx.zeros_like(sent)
        return mx.distributed.all_sum(sent, group=self.group).astype(array.dtype)

    def shard(self, loader):
        if hasattr(loader, "shard"):
            loader.shard(self.rank, self.size)
        elif loader is not None:
            raise UserError(
                f"a {type(loader).__name__} has no shard(rank, world_size): each of the "
                f"{self.size} ranks would be given all of it; use a DataLoader, or give it that "
                f"method (one that does nothing where its batches differ by rank already)"
            )

    def check_batches(self, count):
        if count is None:
            raise UserError(
                f"the training loader has no length, which {self.size} ranks need: give it a "
                f"__len__, or set limit_train_batches"
            )
        self._check_same("the number of training batches", count)

    def _check_same(self, what: str, value) -> None:
        for rank, other in enumerate(values := self.gather(value)):
            if other != values[0]:
                first, second = values[0], other
                if isinstance(value, dict):
                    name = min(n for n in first | other if first.get(n) != other.get(n))
                    first, second = (f"{name} {one.get(name, 'missing')}" for one in (first, other))
                raise UserError(
                    f"{what} must be the same on all ranks: rank 0 has {first}, rank {rank} "
                    f"{second}"
                )

    @contextlib.contextmanager
    def watch(self, where):
        self.agreed_signal, self.agreed_stop, self.sent = None, False, None
        with Watchdog(self.rank, where) as self.watchdog:
            try:
                yield
            finally:
                self.watchdog = None

    def waiting(self, saving=False):
        return contextlib.nullcontext() if self.watchdog is None else self.watchdog.waiting(saving)


def _stop_flags(received: int | None, stop: bool) -> list[bool]:
    return [*(received == number for number in SIGNALS), stop]


def buckets(arrays: list[mx.array]) -> Iterator[list[mx.array]]:
    """Consecutive arrays in lists of at most BUCKET_BYTES as float32, or of a single array."""
    bucket: list[mx.array] = []
    for array in arrays:
        if bucket and 4 * (sum(a.size for a in bucket) + array.size) > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(array)
    if bucket:
        yield bucket


def join() -> SingleProcess:
    """The group of processes that this one was launched in; without a launcher a SingleProcess."""
    hosts = os.environ.get("MLX_HOSTFILE")
    single = hosts and not Path(hosts).read_text().strip()  # mlx.launch -n 1, which MLX rejects
    if any(os.environ.get(name) for name in LAUNCHERS) and not single:
        group = mx.distributed.init()
        if group.size() > 1:
            return ProcessGroup(group)
    return SingleProcess()
