"""Messages that libmpg123 prints on stderr, kept from the terminal.

libsndfile opens MP3 files without libmpg123's quiet mode, so each damaged frame, and each file
whose length is not the one in its header, prints lines of C. What is wrong with a file is raised as
an error by audio.py.
"""

import atexit
import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

_MESSAGES = re.compile(rb"(?:\[src/libmpg123/|Note: |Warning: |Error: |main: )[^\n]*\n")
_lock = threading.Lock()
_users = 0  # blocks of `hidden` that run now, in all threads
_stderr = -1  # the real one, while there are any
_file: IO[bytes] | None = None  # what takes its place


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Keep libmpg123's messages inside the block from stderr.

    Anything else that the process writes to it meanwhile, such as another thread's progress bar,
    is written when the block ends.
    """
    global _users
    with _lock:
        usable = _users > 0 or _redirect()
        _users += usable
    try:
        yield
    finally:
        if usable:
            with _lock:
                _users -= 1
                _forward()


def _redirect() -> bool:
    """Put a temporary file in the place of stderr; False where there is no stderr."""
    global _stderr, _file
    try:
        _stderr = os.dup(2)
    except OSError:
        return False
    if _file is None:  # kept for the next block
        _file = tempfile.TemporaryFile(buffering=0)
        atexit.register(_file.close)
    os.dup2(_file.fileno(), 2)
    return True


def _forward() -> None:
    """Write what is no message to the real stderr, and restore that after the last block."""
    assert _file is not None
    if not _users:
        os.dup2(_stderr, 2)
    _file.seek(0)
    text = _file.read()
    _file.seek(0)
    _file.truncate()
    if rest := _MESSAGES.sub(b"", text):
        with contextlib.suppress(OSError):
            os.write(_stderr, rest)
    if not _users:
        os.close(_stderr)
