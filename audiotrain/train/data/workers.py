"""Threads and processes that load batches.

Workers use NumPy only: MLX's streams belong to one thread, and MLX does not survive a fork.
"""

import atexit
import inspect
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiotrain.utils.errors import UserError
from audiotrain.utils.process_pool import sendable

ORDER, SAMPLE = 0, 1  # purposes of a random stream: the order of an epoch, one sample's own


@dataclass(frozen=True)
class Failure:
    """What a worker returns instead of a batch."""

    message: str
    cause: BaseException


@dataclass(frozen=True)
class Source:
    """All that a worker needs to turn rows of indices into a batch."""

    dataset: Any
    transforms: tuple[Callable, ...]
    collate: Callable
    seed: int

    def load(self, epoch: int, rows: np.ndarray, stop: threading.Event | None = None) -> Any:
        """The collated batch of `rows` (items, 2), or the Failure of its first bad sample."""
        takes_rng = [_takes_rng(transform) for transform in self.transforms]
        seeded = hasattr(self.dataset, "get") or any(takes_rng)
        items = []
        for index, occurrence in rows.tolist():
            if stop is not None and stop.is_set():
                return None
            try:
                rng = generator(SAMPLE, self.seed, epoch, index, occurrence) if seeded else None
                items.append(self._item(index, rng, takes_rng))
            except Exception as error:  # the user needs the sample's number, whatever the error
                return Failure(f"sample {index}{self._described(index)}: {_named(error)}", error)
        try:
            return self.collate(items)
        except Exception as error:
            numbers = ", ".join(map(str, rows[:8, 0])) + (", …" if len(rows) > 8 else "")
            return Failure(f"batch of samples {numbers}: {_named(error)}", error)

    def _item(self, index: int, rng: np.random.Generator | None, takes_rng: list[bool]) -> Any:
        has_get = hasattr(self.dataset, "get")
        item = self.dataset.get(index, rng) if has_get else self.dataset[index]
        for transform, with_rng in zip(self.transforms, takes_rng, strict=True):
            item = transform(item, rng) if with_rng else transform(item)
        return item

    def _described(self, index: int) -> str:
        if not hasattr(self.dataset, "describe"):
            return ""
        try:
            return f" ({self.dataset.describe(index)})"
        except Exception:  # the sample's own error matters more than this one
            return ""


def generator(purpose: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([purpose, *numbers]))


def _takes_rng(transform: Callable) -> bool:
    try:
        return list(inspect.signature(transform).parameters)[1:2] == ["rng"]
    except ValueError:  # a builtin without a signature
        return False


def _named(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Threads:
    """Daemon threads that load batches; after `close` each ends with the sample in hand."""

    broken = False

    def __init__(self, source: Source, count: int):
        self.seed = source.seed
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        threads = [
            threading.Thread(
                target=_serve, args=(source, self._tasks), name=f"loader-{i}", daemon=True
            )
            for i in range(count)
        ]
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(self, _dismiss, self._tasks, threads)
        _threads.update(dict.fromkeys(threads, self.close))

    def submit(self, epoch: int, rows: np.ndarray, stop: threading.Event) -> Future:
        future: Future = Future()
        self._tasks.put((future, epoch, rows, stop))
        return future


def _serve(source: Source, tasks: queue.SimpleQueue) -> None:
    while (task := tasks.get()) is not None:
        future, *work = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(source.load(*work))
            except BaseException as error:  # SystemExit too: the reader must not wait forever
                future.set_exception(error)
        del task, future, work  # a waiting thread must not keep the last batch alive


def _dismiss(tasks: queue.SimpleQueue, threads: list[threading.Thread]) -> None:
    while True:
        try:
            tasks.get_nowait()[0].cancel()
        except queue.Empty:
            break
    for _ in threads:
        tasks.put(None)


# Threads of loaders, and what dismisses those of the same loader.
_threads: weakref.WeakKeyDictionary[threading.Thread, Callable[[], object]]
_threads = weakref.WeakKeyDictionary()


@atexit.register
def _join_threads() -> None:
    """A daemon thread still inside C++ code would abort a process that ends: give it time.

    Dismissed here, because `weakref.finalize` does so at exit only after this function where
    another library made a finalizer before this module was imported.
    """
    threads = list(_threads.items())
    for _, dismiss in threads:
        dismiss()
    deadline = time.monotonic() + 10
    for thread, _ in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class Processes:
    """Worker processes (forkserver), each with a copy of the source."""

    def __init__(self, source: Source, count: int):
        for name in ("dataset", "transforms", "collate"):
            try:
                pickle.dumps(getattr(source, name))
            except Exception as error:  # pickle raises its own, AttributeError, TypeError, ...
                setting = {"transforms": "cpu_transforms", "collate": "collate_fn"}.get(name, name)
                raise UserError(
                    f"worker_type='process' cannot send {setting} to its workers ({error}):"
                    " define it at the top level of a module, or use worker_type='thread'"
                ) from error
        self.seed, self.broken = source.seed, False
        self._executor = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("forkserver"),
            initializer=_begin_process,
            initargs=(pickle.dumps(source),),
        )
        self.close = weakref.finalize(
            self, self._executor.shutdown, wait=False, cancel_futures=True
        )

    def submit(self, epoch: int, rows: np.ndarray, stop: threading.Event) -> Future:
        return self._executor.submit(_load_in_process, epoch, rows)


_pickled_source = b""
_process_source: Source | None = None


def _begin_process(pickled: bytes) -> None:
    global _pickled_source
    _pickled_source = pickled  # read at the first batch, where an error can be reported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process has a parent"
    parent.join()
    os._exit(1)  # a killed parent cannot end its workers


def _load_in_process(epoch: int, rows: np.ndarray) -> Any:
    global _process_source
    if _process_source is None:
        try:
            _process_source = pickle.loads(_pickled_source)
        except Exception as error:
            return Failure(f"dataset in a worker process: {_named(error)}", sendable(error))
    batch = _process_source.load(epoch, rows)
    if isinstance(batch, Failure):
        return Failure(batch.message, sendable(batch.cause))
    return batch
