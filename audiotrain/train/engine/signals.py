"""Ctrl-C and SIGTERM end a run after its step."""

import contextlib
import os
import signal
import threading


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM arrived; raised between steps."""


class SignalGuard:
    """First Ctrl-C or SIGTERM: remember it, the loop stops after its step. Second: stop now."""

    def __init__(self):
        self.received: int | None = None
        self._before: dict = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._before.clear()

    def _handle(self, number, _frame):
        if self.received is not None:
            self.__exit__()
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.received = number
        # Not print: the signal may have come in the middle of another print.
        with contextlib.suppress(OSError):  # the reader may have ended by the same Ctrl-C
            os.write(2, b"\nstopping after this step; once more to stop now\n")
