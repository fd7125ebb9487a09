"""A home of its own for these tests, where commands keep embeddings by default."""

import matplotlib
import pytest


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """An empty home folder; matplotlib keeps its list of fonts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield
