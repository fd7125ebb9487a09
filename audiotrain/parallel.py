"""Work of one process on all cores of a CPU: parts of a batch, each on an MLX stream of its own.

MLX computes a CPU stream's operations one after the other on one thread; only matrix products use
more. So halves of a batch on two streams take little more than half of the time. On a GPU there is
one stream, and nothing is cut.
"""

import os
import threading
from collections.abc import Callable

import mlx.core as mx
from mlx.utils import tree_map

from audiotrain import blas

MOST = 4  # parts: each has gradients of all weights, which are added up
LEAST = 1 << 17  # numbers in a batch: less is done before a second thread has begun
VARIABLE = "AUDIOTRAIN_STREAMS"
_OF_THREAD = threading.local()  # MLX's streams belong to the thread that made them


def streams() -> list[mx.Stream]:
    """Streams of this thread that compute at the same time: one for each core up to MOST, each
    with its share of BLAS's threads; the default one alone on a GPU.

    The variable AUDIOTRAIN_STREAMS says how many instead.
    """
    if mx.default_device() != mx.Device(mx.cpu):
        return [mx.default_stream(mx.default_device())]
    if not hasattr(_OF_THREAD, "streams"):
        count = _count()
        further = [mx.new_stream(mx.cpu) for _ in range(count - 1)]
        _OF_THREAD.streams = [mx.default_stream(mx.cpu), *further]
    if len(_OF_THREAD.streams) > 1:
        blas.use_threads(max(1, blas.cores() // len(_OF_THREAD.streams)))
    return _OF_THREAD.streams


def _count() -> int:
    given = os.environ.get(VARIABLE)
    if given is None:
        return min(MOST, blas.cores())
    if not given.isdecimal() or not int(given):
        raise ValueError(f"{VARIABLE}={given}, expected a number of streams, 1 or more")
    return int(given)


def by_parts(function: Callable, *batch: mx.array):
    """`function(*batch)`, computed for parts of the batch at the same time where that is faster.

    The arrays of `batch` have examples along their first axis, and so have those that the function
    gives: an array, or a list, tuple or dict of them. It must treat examples alike and on their
    own. A batch of fewer than LEAST numbers is not cut.

    >>> by_parts(lambda x: {"doubled": 2 * x}, mx.arange(3))["doubled"]
    array([0, 2, 4], dtype=int32)
    """
    examples = len(batch[0])
    if examples < 2 or max(array.size for array in batch) < LEAST:
        return function(*batch)
    chosen = streams()[:examples]
    if len(chosen) == 1:
        return function(*batch)
    ends = [examples * number // len(chosen) for number in range(len(chosen) + 1)]
    parts = []
    for stream, start, stop in zip(chosen, ends, ends[1:], strict=False):
        with mx.stream(stream):  # slices, since mx.split breaks mx.compile (MLX 0.32)
            parts.append(function(*(array[start:stop] for array in batch)))
    return tree_map(lambda *arrays: mx.concatenate(arrays), parts[0], *parts[1:])
