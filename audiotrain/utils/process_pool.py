"""Function calls shared out over worker processes, which end with the last result.

A worker is a new Python process (MLX does not survive a fork, and a forkserver would stay), started
without the caller's `__main__`, so that a script needs no guard. It computes on the CPU with one
BLAS thread: results do not depend on the number of workers if the function's do not depend on
threads. Pipes of our own instead of concurrent.futures or joblib, which cannot name the item that
a worker died of, and whose queues and semaphores outlive a parent that is killed.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from audiotrain.utils.cores import THREAD_VARIABLES, available_cores
from audiotrain.utils.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

START_SECONDS = 1.0  # that a worker takes to import NumPy, SciPy and MLX
QUEUED = 2  # items given to a worker, so that it has another when it is done with one
AHEAD = 8  # items for each worker by which results may be ahead of the first that is missing
# Variables by which launchers of several ranks address a process: a worker is no rank.
LAUNCHERS = (
    "MLX_HOSTFILE",
    "MLX_WORLD_SIZE",
    "MLX_IBV_DEVICES",
    "MLX_JACCL_COORDINATOR",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
)
_COMMAND = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({handle})"
_registry: dict = {}  # of warnings from workers that were shown


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    name: Callable[[Item], str] = str,
) -> Generator[Result, None, None]:
    """`function(item)` for each item, in their order, computed by `workers` processes (None: one
    for each available core).

    The first items are computed here; workers are started once that took as long as their start
    does, and only if the rest, at the same pace, is enough for it to pay. What cannot be pickled,
    such as a function of the user's script, is computed here, too. All workers have ended when the
    iterator is exhausted or closed.

    An exception of the function is raised here, with a note that has `name(item)`. UserError, one
    line with `name(item)`, when a worker dies.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}, expected 1 or more")
    count = min(available_cores() if workers is None else workers, len(items))
    spent, number = 0.0, 0
    while number < len(items):
        rest = items[number:]
        count = min(count, len(rest))
        saved = spent / max(1, number) * len(rest) * (1 - 1 / max(1, count))
        if count > 1 and spent >= START_SECONDS and saved > START_SECONDS:
            task = _pickled(function, rest)
            if task is not None:
                with _workers(task, count) as started:
                    yield from _results(started, [name(item) for item in rest])
                return
            count = 1
        begun = time.perf_counter()
        try:
            result = function(items[number])
        except Exception as error:
            error.add_note(_while_preparing(name(items[number])))
            raise
        spent += time.perf_counter() - begun
        number += 1
        yield result


# ---- the parent's side


class _Worker(NamedTuple):
    process: subprocess.Popen
    connection: Connection
    pending: deque[int]  # items that it was given, the first of them in work


def _pickled(function: Callable, items: Sequence) -> bytes | None:
    """Both for a process that does not have our `__main__`; None where that cannot be."""
    main, sys.modules["__main__"] = sys.modules["__main__"], type(sys)("__main__")
    try:
        return pickle.dumps((function, items))
    except Exception:  # pickle raises its own, AttributeError, TypeError, ...
        return None
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _workers(task: bytes, count: int) -> Iterator[list[_Worker]]:
    """Worker processes that have the task; none is left after the block."""
    started: list[_Worker] = []
    try:
        for _ in range(count):
            started.append(_start())
        for worker in started:
            with contextlib.suppress(OSError):  # dead already: found when it is waited for
                worker.connection.send_bytes(task)
        yield started
    finally:
        for worker in started:
            worker.connection.close()
            worker.process.kill()
        for worker in started:
            worker.process.wait()


def _start() -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    command = _COMMAND.format(path=sys.path, module=__name__, handle=theirs.fileno())
    # Ctrl-C reaches all processes of a terminal; a worker that blocks it ends with its parent.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            # Unbuffered, and silent on what an import warns of, as this process did already.
            [sys.executable, "-u", "-Wignore", "-c", command],
            env=worker_environment(os.environ),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
    return _Worker(process, ours, deque())


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of a worker: one BLAS thread, no rank of a launcher."""
    kept = {name: value for name, value in environment.items() if name not in LAUNCHERS}
    return kept | dict.fromkeys(THREAD_VARIABLES, "1")


def _results(workers: list[_Worker], names: Sequence[str]) -> Iterator[Any]:
    """The results of all items in order."""
    ready: dict[int, tuple] = {}
    given = 0
    for number in range(len(names)):
        while number not in ready:
            while given < min(len(names), number + AHEAD * len(workers)):
                worker = min(workers, key=lambda worker: len(worker.pending))
                near_end = len(names) - given <= QUEUED * len(workers)
                if len(worker.pending) >= (1 if near_end else QUEUED):
                    break
                with contextlib.suppress(OSError):  # dead already: found below
                    worker.connection.send(given)
                worker.pending.append(given)
                given += 1
            busy = [worker for worker in workers if worker.pending]
            answering = wait([worker.connection for worker in busy])
            for worker in (worker for worker in busy if worker.connection in answering):
                try:
                    answer = worker.connection.recv_bytes()
                except (EOFError, OSError):
                    raise UserError(_death(worker, names)) from None
                ready[worker.pending.popleft()] = pickle.loads(answer)
        error, result, caught = ready.pop(number)
        for text, category, file, line in caught:
            warnings.warn_explicit(text, category, file, line, registry=_registry)
        if error is not None:
            error.add_note(_while_preparing(names[number]))
            raise error
        yield result


def _while_preparing(name: str) -> str:
    return f"while preparing {name}"


def _death(worker: _Worker, names: Sequence[str]) -> str:
    status = worker.process.wait()
    cause = f"exit status {status}"
    if status < 0:
        cause = signal.Signals(-status).name
    hint = ", perhaps for lack of memory" if status == -signal.SIGKILL else ""
    return (
        f"{names[worker.pending[0]]}: the worker process died ({cause}) while it prepared this"
        f"{hint}; leave it out, or set OMP_NUM_THREADS=1 to work in one process"
    )


# ---- the worker's side


def serve(handle: int) -> None:
    """Compute items for the parent at the other end of a pipe until it closes the pipe or dies."""
    connection = Connection(handle)
    try:
        task = connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(0)
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, numbers), daemon=True).start()

    import mlx.core as mx

    mx.set_default_device(mx.Device(mx.cpu))
    function, items = pickle.loads(task)
    while True:
        answer = _call(function, items[numbers.get()])
        connection.send_bytes(answer)


def _receive(connection: Connection, numbers: queue.SimpleQueue) -> None:
    """Take numbers of items; end the process, whatever it is doing, with its parent."""
    try:
        while True:
            numbers.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _call(function: Callable, item: Any) -> bytes:
    """(error, result, warnings) of a call, pickled."""
    error = result = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the parent's filters choose
        try:
            result = function(item)
        except Exception as raised:  # the caller's to know, whatever it is
            error = sendable(raised)
    shown = {(str(w.message), w.category, w.filename, w.lineno): None for w in caught}
    try:
        return pickle.dumps((error, result, list(shown)))
    except Exception as raised:
        return pickle.dumps((sendable(raised), None, []))


def sendable(error: BaseException) -> BaseException:
    """The same error as survives pickling, its traceback as a note."""
    note = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # an exception with arguments of its own
        text = str(error)
        error = RuntimeError(f"{type(error).__name__}: {text}" if text else type(error).__name__)
    error.add_note(f"in a worker process:\n{note}")
    return error
