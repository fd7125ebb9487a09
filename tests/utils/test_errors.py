"""Exit codes of commands, and what reads their output."""

import subprocess
import sys

import pytest

from audiotrain.utils.errors import UserError, exit_code


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_ended_is_no_mistake(lines):
    """As `| head -1` ends after its line; few lines are written only when the process ends."""
    code = (
        "import sys\n"
        "from audiotrain.utils.errors import exit_code\n"
        "sys.stdin.read()\n"
        f"sys.exit(exit_code(lambda: [print('line') for _ in range({lines})]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(b"")
    assert errors == b""
    assert process.returncode == 1


def test_exit_codes(capsys):
    def refuse(error):
        raise error

    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: refuse(UserError("width=0, expected 1"))) == 2
    assert exit_code(lambda: refuse(OSError(28, "No space left on device", "a.wav"))) == 2
    assert exit_code(lambda: refuse(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.splitlines() == [
        "error: width=0, expected 1",
        "error: a.wav: No space left on device",
        "stopped",
    ]
