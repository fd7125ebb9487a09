"""Progress bars on a terminal, and lines now and then in a log file."""

import sys
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm


def output() -> TextIO:
    """Return where progress goes: stderr, or in a notebook stdout, since stderr is a red block."""
    return sys.stdout if "ipykernel" in sys.modules else sys.stderr


_BARS: list[tqdm] = []  # that are not closed


def progress(
    things: Iterable | None, text: str, total: float | None = None, unit: str = ""
) -> tqdm:
    """A progress bar over `things` on a terminal, or a line now and then in a file; without things,
    a bar of `total` units for the caller to update."""
    terminal = output().isatty()
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} [{elapsed}<{remaining}]"
    bar = tqdm(
        things,
        desc=text,
        file=output(),
        total=total,
        unit=unit,
        position=0,
        mininterval=0.1 if terminal else 20,
        ascii=not terminal,
        dynamic_ncols=terminal,
        ncols=None if terminal else 80,
        bar_format=shape if total or hasattr(things, "__len__") else None,
    )
    _BARS[:] = [*(one for one in _BARS if not one.disable), bar]
    return bar


def end_progress() -> None:
    """Finish the lines of bars that were left by an error."""
    for bar in reversed(_BARS):
        bar.close()
