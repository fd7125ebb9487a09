"""Ends a process that waits too long for other ranks, with one line."""

import contextlib
import os
import re
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE = 1800.0  # seconds that a rank waits for the others before it gives up
GRACE = 60.0  # the same after a signal to stop, which launchers send when another rank died
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watchdog:
    """A thread that ends the process when it waits too long for ranks that hang or have ended.

    The main thread cannot: it waits inside MLX, where Python handles no signal.
    """

    def __init__(self, rank: int, where: Callable[[], str]):
        self.rank, self.where = rank, where
        self.since: float | None = None
        self.saving = self.signalled = False

    def __enter__(self):
        self.woken, self.waker = os.pipe()
        os.set_blocking(self.waker, False)
        self.in_main = threading.current_thread() is threading.main_thread()
        if self.in_main:  # Python writes each signal that arrives to this pipe at once
            self.before = signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._run, name="ranks", daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        if self.in_main:
            signal.set_wakeup_fd(self.before)
        os.close(self.waker)  # the thread reads an end of file, and ends
        self.thread.join()
        os.close(self.woken)

    @contextlib.contextmanager
    def waiting(self, saving: bool) -> Iterator[None]:
        """Mark a wait; while rank 0 is saving, a signal does not shorten its limit."""
        self.since, self.saving = time.monotonic(), saving
        try:
            yield
        finally:
            self.since = None

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:  # select ends at 1024 open files
            selector.register(self.woken, selectors.EVENT_READ)
            self._watch(selector)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        while True:
            if selector.select(1.0):
                numbers = os.read(self.woken, 64)
                if not numbers:
                    return
                self.signalled = self.signalled or bool(set(numbers) & set(SIGNALS))
            limit = GRACE if self.signalled and not self.saving else PATIENCE
            since = self.since
            if since is not None and time.monotonic() - since > limit:
                reason = f"no answer from the other ranks for {limit:g} s"
                os.write(2, f"{lost(self.rank, reason, self.where())}\n".encode())
                os._exit(1)


def lost(rank: int, reason: str, where: str) -> str:
    """The message of a run that ends because a rank does not answer."""
    return f"rank {rank}: {reason}; stopped {where}"


def lost_connection(error: RuntimeError) -> str | None:
    """The message of an MLX backend about a peer that is gone; None for other errors."""
    match = re.search(r"\[(ring|jaccl|nccl|mpi)\].*", str(error))
    return match and match.group()
