"""What recipes say on a terminal: bars of progress, and mistakes in a line of their own."""

import sys
from collections.abc import Callable, Iterable

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


def exit_code(command: Callable[[], object]) -> int:
    """Run a command: 0, or 2 and one line a mistake on stderr when the user has to change
    something, or 130 after Ctrl-C."""
    try:
        command()
    except (ValueError, ImportError) as error:
        return refuse(str(error))
    except OSError as error:  # of the file system: a folder that is full or may not be written
        place = "" if error.filename is None else f"{error.filename}: "
        return refuse(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def refuse(message: str) -> int:
    """Tell a mistake on a line of its own; the exit code for it."""
    end_progress()
    print(f"error: {message}", file=sys.stderr)
    return 2
