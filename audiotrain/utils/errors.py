"""A user's mistakes as one line each, and the exit code for them."""

import contextlib
import os
import sys
from collections.abc import Callable

from audiotrain.utils.progress import end_progress


class UserError(ValueError):
    """Raised for what a person can mend: a file, a setting, a folder.

    The message names the file and line or the setting, what was found and what was expected.
    Commands print it as one line; any other exception is a bug and ends in a traceback.
    """


def exit_code(command: Callable[[], object]) -> int:
    """Run a command: 0, or 2 and one line a mistake on stderr when the user has to change
    something, 130 after Ctrl-C, or 1, without a word, when what reads the output has ended."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has its lines; the interpreter would write the rest at exit
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1
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
    """Print a mistake on a line of its own; returns the exit code for it."""
    end_progress()
    print(f"error: {message}", file=sys.stderr)
    return 2
