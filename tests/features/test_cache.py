"""The feature cache: what makes an entry another one, and what survives a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from audiotrain.features import cache
from audiotrain.features.cache import FeatureCache
from audiotrain.features.cqt import CQTSettings
from audiotrain.features.log_mel import LogMelSettings


def never():
    raise AssertionError("the entry is there, it must not be made again")


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((40, 12)).astype(np.float32)


def entries(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_entry_is_made_once_and_memory_mapped(tmp_path):
    made = FeatureCache(tmp_path).get("a", CQTSettings(), values)
    again = FeatureCache(tmp_path).get("a", CQTSettings(), never)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(made, values())
    np.testing.assert_array_equal(again, values())


def test_more_entries_are_in_use_than_files_may_be_open(tmp_path):
    """macOS lets a process open 256 files unless it asks for more."""
    code = (
        "import resource, sys\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "import numpy as np\n"
        "from audiotrain.features.cache import FeatureCache\n"
        "cache = FeatureCache(sys.argv[1])\n"
        "held = [cache.get(f'entry {k}', {}, lambda: np.full(3, k)) for k in range(100)]\n"
        "assert [entry[0] for entry in held] == list(range(100))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_file_is_known_by_its_bytes(tmp_path):
    folder, path, copy = tmp_path / "cache", tmp_path / "x.wav", tmp_path / "y.wav"
    path.write_bytes(b"first")
    copy.write_bytes(b"first")
    store = FeatureCache(folder)
    store.get(path, CQTSettings(), values)
    np.testing.assert_array_equal(store.get(copy, CQTSettings(), never), values())
    path.write_bytes(b"other")
    np.testing.assert_array_equal(store.get(path, CQTSettings(), lambda: values(1)), values(1))
    assert len(entries(folder)) == 2


@pytest.mark.parametrize(
    "settings",
    [
        CQTSettings(hop=512),
        CQTSettings(bins=143),
        CQTSettings(fmin=32.7),
        LogMelSettings(),
        (CQTSettings(), {"seed": 1}),
        (CQTSettings(), {"seed": 2}),
    ],
)
def test_changed_settings_are_another_entry(tmp_path, settings):
    store = FeatureCache(tmp_path)
    store.get("a", CQTSettings(), values)
    store.get("a", (CQTSettings(), {"seed": 3}), values)
    np.testing.assert_array_equal(store.get("a", settings, lambda: values(1)), values(1))
    np.testing.assert_array_equal(store.get("a", CQTSettings(), never), values())


def test_another_version_or_type_is_another_entry(tmp_path, monkeypatch):
    FeatureCache(tmp_path).get("a", 1, values)
    half = FeatureCache(tmp_path, np.float16).get("a", 1, lambda: values(1))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, values(1), atol=2e-3)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    np.testing.assert_array_equal(FeatureCache(tmp_path).get("a", 1, lambda: values(2)), values(2))


def damage(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "empty": b"",
        "cut short": data[:middle],
        "without its end": data[:-1],
        "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "text": b"not an array at all",
    }[how]


@pytest.mark.parametrize("how", ["empty", "cut short", "without its end", "one bit", "text"])
@pytest.mark.parametrize("same_process", [True, False])
def test_a_damaged_entry_is_made_again(tmp_path, how, same_process):
    store = FeatureCache(tmp_path)
    store.get("a", 1, values)
    (name,) = entries(tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes(), how))
    store = store if same_process else FeatureCache(tmp_path)
    np.testing.assert_array_equal(store.get("a", 1, lambda: values(1)), values(1))
    np.testing.assert_array_equal(FeatureCache(tmp_path).get("a", 1, never), values(1))


def _die_while_writing(folder):
    real = os.replace

    def killed(*args):
        os.kill(os.getpid(), signal.SIGKILL)
        real(*args)

    os.replace = killed
    FeatureCache(folder).get("a", 1, values)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_a_killed_process_leaves_no_entry_and_its_rest_is_swept(tmp_path):
    process = multiprocessing.get_context("spawn").Process(
        target=_die_while_writing, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (partial,) = entries(tmp_path)
    alive = partial.replace(str(process.pid), str(os.getpid()))
    distant = partial.replace("@", "@x")  # of another machine, which may be writing it
    for name in (alive, distant):
        (tmp_path / name).touch()
    store = FeatureCache(tmp_path)
    assert not store.holds("a", 1)
    assert entries(tmp_path) == sorted([alive, distant])
    long_ago = time.time() - 2 * 3600
    os.utime(tmp_path / distant, (long_ago, long_ago))
    store.remove_partial()
    assert entries(tmp_path) == [alive]
    (tmp_path / alive).unlink()
    np.testing.assert_array_equal(store.get("a", 1, values), values())


def test_a_failure_while_making_leaves_nothing(tmp_path):
    store = FeatureCache(tmp_path)
    with pytest.raises(AssertionError):
        store.get("a", 1, never)
    assert entries(tmp_path) == []
    assert not store.holds("a", 1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cache folder .*file/x: Not a directory"):
        FeatureCache(tmp_path / "file" / "x")


def test_a_full_disk_is_one_line_and_keeps_the_rest(tmp_path, monkeypatch):
    store = FeatureCache(tmp_path)
    store.get("a", 1, values)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="cache folder .*: No space left on device"):
        store.get("b", 1, values)
    monkeypatch.undo()
    assert len(entries(tmp_path)) == 1
    np.testing.assert_array_equal(store.get("a", 1, never), values())


def test_values_that_do_not_fit_the_type_are_refused(tmp_path):
    with pytest.raises(ValueError, match="song: features up to 70000 do not fit float16"):
        FeatureCache(tmp_path, np.float16).get("song", 1, lambda: np.array([[70_000.0]]))


def test_settings_without_a_plain_form_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot key a cache by a object"):
        FeatureCache(tmp_path).get("a", object(), values)
