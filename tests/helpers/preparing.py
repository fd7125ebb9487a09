"""Preparation on a number of cores, whatever this machine has, and what it leaves in a cache."""

from audiotrain.recipes.common import preparation
from audiotrain.utils import process_pool


def on_cores(monkeypatch, number: int) -> None:
    """Prepare by `number` processes, from the second recording on; an AssertionError for what
    cannot be sent to them."""
    in_pickle = process_pool._pickled

    def pickled(function, items):
        task = in_pickle(function, items)
        assert task is not None, f"{function} cannot be pickled"
        return task

    monkeypatch.setattr(process_pool, "START_SECONDS", 0)
    monkeypatch.setattr(process_pool, "_pickled", pickled)
    for module in (process_pool, preparation):
        monkeypatch.setattr(module, "available_cores", lambda: number)


def contents(folder) -> dict[str, bytes]:
    """The files below a folder by their paths there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
