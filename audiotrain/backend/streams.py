"""Work of one process on all cores of a CPU: parts of a batch, each on an MLX stream of its own.

MLX computes a CPU stream's operations one after the other on one thread; only matrix products use
more. Two halves of a batch on two streams take 1/1.2 to 1/1.5 of the time of the whole one, where
much of the work is no matrix product. MLX must then queue the work of both in turns, which costs up
to a third more memory in training (and more than twice as much of what gradient checkpointing
leaves). So it is done where `backend.configure` asks for it, as the commands for chords and CLAP
do. On a GPU there is one stream, and nothing is split. Checked with MLX 0.32.

Models and recipes use this by `backend.ops`: `map_batch`, `from_weight`, `even_batch`,
`computed_on_cpu`.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from audiotrain.backend import blas

MOST = 4  # parts: each has gradients of all weights, which are added up
MIN_BATCH_SIZE = 1 << 17  # elements of a batch; less is computed before a second thread has begun
WIDTH, WIDE = "MLX_BFS_MAX_WIDTH", 10**6  # wider than any step: a narrower turn is one stream's
_OF_THREAD = threading.local()  # MLX's streams belong to the thread that made them
_count: int | None = None  # what use_all_cores set


def use_all_cores(count: int | None = None) -> None:
    """From now on split batches into parts, on a CPU of several cores: `count`, or one a core up to
    MOST. To be called before MLX computes anything: it reads its variable MLX_BFS_MAX_WIDTH, which
    is set here unless the user did, only once."""
    global _count
    _count = count
    if mx.default_device() == mx.Device(mx.cpu) and stream_count() > 1:
        os.environ.setdefault(WIDTH, str(WIDE))


def is_enabled() -> bool:
    """Whether batches are split: after `use_all_cores`."""
    width = os.environ.get(WIDTH, "")
    return stream_count() > 1 and width.isdecimal() and int(width) >= WIDE


def stream_count() -> int:
    """Streams of a thread: the number that `use_all_cores` set, else one a core up to MOST."""
    return min(MOST, blas.cores()) if _count is None else _count


def streams() -> list[mx.Stream]:
    """Streams of this thread that compute at the same time, `stream_count`; the default one alone
    on a GPU."""
    if mx.default_device() != mx.Device(mx.cpu):
        return [mx.default_stream(mx.default_device())]
    return cpu_streams()


def cpu_streams() -> list[mx.Stream]:
    """Streams of this thread on the CPU, whatever the default device is."""
    if not hasattr(_OF_THREAD, "streams"):
        further = [mx.new_stream(mx.cpu) for _ in range(stream_count() - 1)]
        _OF_THREAD.streams = [mx.default_stream(mx.cpu), *further]
    return _OF_THREAD.streams


def computed_on_cpu(
    function: Callable[..., mx.array], arguments: Iterable[tuple]
) -> Iterator[np.ndarray]:
    """`function(*each)` for each tuple in `arguments`, in their order, as NumPy arrays of the same
    axes: on the CPU whatever the default device is, one on each stream at a time and by one thread,
    so the same bytes for any number of streams."""
    chosen, rest = cpu_streams(), iter(arguments)
    ready: list[mx.array] = []
    with blas.shared_by(blas.cores()):  # one thread for each stream
        # One call for an array on each stream: of two calls, MLX begins the second at the end of
        # the first.
        while group := list(islice(rest, len(chosen))):
            results = []
            for stream, each in zip(chosen, group, strict=False):
                with mx.stream(stream):
                    results.append(function(*each))
            mx.async_eval(results)
            yield from map(np.array, ready)
            ready = results
        yield from map(np.array, ready)


def part() -> int:
    """Which of several `streams` this thread computes on now, from 1; 0 where it has but one."""
    chosen = getattr(_OF_THREAD, "streams", ())
    now = mx.default_stream(mx.default_device())
    return chosen.index(now) + 1 if len(chosen) > 1 and now in chosen else 0


def map_batch(function: Callable, *batch: mx.array):
    """`function(*batch)`, computed for parts of the batch at the same time where that is faster.

    The arrays of `batch` have examples along their first axis, and so have those that the function
    gives: an array, or a list, tuple or dict of them. It must treat examples alike and on their
    own. Nothing is split unless `is_enabled`, nor a batch of fewer than MIN_BATCH_SIZE elements.
    BLAS is left as many threads as each part has cores.

    >>> map_batch(lambda x: {"doubled": 2 * x}, mx.arange(3))["doubled"]
    array([0, 2, 4], dtype=int32)
    """
    examples = len(batch[0])
    enough = examples > 1 and max(array.size for array in batch) >= MIN_BATCH_SIZE
    chosen = streams()[:examples] if enough and is_enabled() else []
    if len(chosen) < 2:
        return function(*batch)
    blas.use_threads(max(1, blas.cores() // len(chosen)))
    ends = [examples * number // len(chosen) for number in range(len(chosen) + 1)]
    parts = []
    with _cutting(Cut(chosen)):
        # The first part last: parts' gradients of weights are added up where the first one made is,
        # and the first stream, the default, has the rest of a step to do.
        for number in reversed(range(len(chosen))):
            with mx.stream(chosen[number]):  # slices, since mx.split breaks mx.compile (MLX 0.32)
                parts.append(function(*(array[ends[number] : ends[number + 1]] for array in batch)))
    return tree_map(lambda *arrays: mx.concatenate(list(arrays[::-1])), *parts)


def even_batch(examples: int) -> int:
    """`examples` or some more, so many that `map_batch` cuts them into parts of one size: an
    example's numbers are then the same, bit for bit, in whichever part it is."""
    parts = min(stream_count(), examples) if is_enabled() else 1
    return -(-examples // parts) * parts


class Cut:
    """A batch of which `streams` compute a part each."""

    def __init__(self, streams: list[mx.Stream]):
        self.streams = streams
        self._shared: dict[int, tuple[mx.array, list[mx.array], list]] = {}
        self._made: dict[tuple[Callable, int], tuple[mx.array, mx.array]] = {}

    def share(self, weight: mx.array, gradient: Callable) -> tuple[mx.array, list]:
        """This part's copy of a weight that several parts use, and a list of all of them.

        The caller's backward pass appends its (cotangent, input) pair to the list and returns zeros
        for the copy. `gradient` computes the weight's gradient from the list, once. Where examples
        are few beside the weight that saves most of the work: each part would write an array of the
        weight's size, and a sum would read and write them again.
        """
        if id(weight) not in self._shared:
            known: list[tuple[mx.array, mx.array]] = []
            stream = self.streams[len(self._shared) % len(self.streams)]

            def backward(*_) -> mx.array:
                with mx.stream(stream):
                    of_weight = gradient(known)
                known.clear()  # it would keep itself: its arrays are made by what has it
                return of_weight

            copy = mx.custom_function(lambda weight: [weight] * len(self.streams))
            copy.vjp(backward)
            copies = cast(list[mx.array], copy(weight))
            self._shared[id(weight)] = weight, copies, known
        _, copies, known = self._shared[id(weight)]
        return copies[part() - 1], known

    def once(self, function: Callable[[mx.array], mx.array], weight: mx.array) -> mx.array:
        """`function(weight)`, made for all parts the first time that one asks for it."""
        key = function, id(weight)
        if key not in self._made:
            with mx.stream(self.streams[len(self._made) % len(self.streams)]):
                self._made[key] = weight, function(weight)
        return self._made[key][1]


def from_weight(function: Callable[[mx.array], mx.array], weight: mx.array) -> mx.array:
    """`function(weight)`. Where parts of a batch are computed it is made once for all of them, and
    so is the weight's gradient, of the sum of the parts'."""
    whole = cut()
    return whole.once(function, weight) if whole else function(weight)


def cut() -> Cut | None:
    """The batch of which this thread makes parts now; None outside `map_batch`."""
    return getattr(_OF_THREAD, "cut", None)


@contextlib.contextmanager
def _cutting(now: Cut) -> Iterator[None]:
    before, _OF_THREAD.cut = cut(), now
    try:
        yield
    finally:
        _OF_THREAD.cut = before
