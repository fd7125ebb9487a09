"""What a person can mend as one line each, bugs as tracebacks, and the exit codes for both."""

import contextlib
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Callable

from audiotrain.utils.progress import end_progress


class UserError(ValueError):
    """Raised for what a person can mend: a file, a setting, a folder.

    The message names the file and line or the setting, what was found and what was expected.
    Commands print it as one line; any other exception is a bug and ends in a traceback.
    """

    __module__ = "audiotrain"  # from which it is imported


class MissingPackageError(UserError, ImportError):
    """Raised where an optional package is not installed; the message says how to install it."""


# Of the machine, whatever the code does: a full disk, a quota, a folder that may not be written.
_OF_THE_MACHINE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
)


def exit_code(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    0: done. 2: a UserError, or the machine's file system refuses, one line on stderr for each
    mistake. 1: a bug, a traceback on stderr whose last line says what to report; or, without a
    word, what reads the output has ended. 130: Ctrl-C.
    """
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has its lines; the interpreter would write the rest at exit
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1
    except UserError as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            place = "" if error.filename is None else f"{error.filename}: "
            return refuse(f"{place}{error.strerror or error}")
        return report_bug()
    return 0


def refuse(message: str) -> int:
    """Print a mistake on a line of its own and return the exit code for it."""
    end_progress()
    print(f"error: {message}", file=sys.stderr)
    return 2


def report_bug() -> int:
    """Print the traceback of the exception that is handled, and a last line that says what to
    report; return the exit code of a bug."""
    version = sys.modules["audiotrain"].__version__
    end_progress()
    traceback.print_exc()
    command = shlex.join([os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:]])
    print(
        f"bug: an error inside audiotrain {version}, not in your files or settings; please "
        f"report the lines above and the command: {command}",
        file=sys.stderr,
    )
    return 1
