"""Where progress is written."""

import sys

from audiotrain.utils.progress import output, progress


def test_progress_of_a_notebook_goes_to_stdout(monkeypatch, capsys):
    """A notebook shows stderr as a red block."""
    assert output() is sys.stderr
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    assert list(progress([1, 2], "reading")) == [1, 2]
    printed = capsys.readouterr()
    assert "reading: 100%" in printed.out
    assert printed.err == ""
