"""Progress bars on a terminal, and lines now and then in a log file."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

_BARS: list[tqdm] = []  # the last one


def progress(things: Iterable | None, text: str, total: int | None = None, unit: str = "") -> tqdm:
    """`things` with a bar on the terminal, or with a line now and then in a file; without things,
    a bar to be told of `total` units."""
    terminal = sys.stderr.isatty()
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} [{elapsed}<{remaining}]"
    _BARS[:] = [tqdm(
        things, desc=text, total=total, unit=unit, mininterval=0.1 if terminal else 20,
        ascii=not terminal, dynamic_ncols=terminal, ncols=None if terminal else 80, leave=True,
        bar_format=shape if total or hasattr(things, "__len__") else None,
    )]  # fmt: skip
    return _BARS[0]


def end_progress() -> None:
    """Finish the line of a bar that was left by an error."""
    for bar in _BARS:
        bar.close()
