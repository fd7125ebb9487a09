"""Worker processes: order, errors, deaths, and that none is left."""

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from audiotrain.utils import process_pool
from audiotrain.utils.cores import THREAD_VARIABLES, available_cores
from audiotrain.utils.process_pool import map_in_processes, worker_environment


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(process_pool, "START_SECONDS", 0)


def whereabouts(item):
    time.sleep(0.01 * (item % 3))
    return item, os.getpid()


def fail_at_seven(item):
    if item == 7:
        raise KeyError("seven")
    return item


def kill_at_five(item):
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def exit_at_five(item):
    if item == 5:
        os._exit(3)
    return item


def warn(item):
    warnings.warn("a strange header", RuntimeWarning, stacklevel=1)
    return item


def surroundings(item):
    import mlx.core as mx

    threads = [os.environ.get(name) for name in THREAD_VARIABLES]
    ranks = [name for name in process_pool.LAUNCHERS if name in os.environ]
    return mx.default_device() == mx.Device(mx.cpu), threads, ranks, sys.modules["__main__"]


def large(item):
    return np.full(1 << 20, item, np.float32)


def children() -> set[int]:
    """Processes whose parent this one is."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def test_results_are_in_order_and_come_from_processes_that_end():
    before = children()
    results = list(map_in_processes(whereabouts, range(40), workers=3))
    assert [item for item, _ in results] == list(range(40))
    pids = {pid for _, pid in results}
    assert os.getpid() in pids  # the first item
    assert 2 <= len(pids - {os.getpid()}) <= 3
    assert children() == before


def test_results_larger_than_a_pipe():
    arrays = map_in_processes(large, range(12), workers=2)
    assert [int(array[-1]) for array in arrays] == list(range(12))


def test_workers_end_when_the_results_are_not_wanted_any_more():
    before = children()
    results = map_in_processes(whereabouts, range(1000), workers=2)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    assert len(children() - before) == 2
    results.close()
    assert children() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_names_the_item(workers):
    before = children()
    results = map_in_processes(fail_at_seven, range(20), workers=workers, name="item {}".format)
    with pytest.raises(KeyError, match="seven") as caught:
        list(results)
    if workers > 1:
        assert any("item 7" in note for note in caught.value.__notes__)
        assert any("in fail_at_seven" in note for note in caught.value.__notes__)
    assert children() == before


@pytest.mark.parametrize(
    ("function", "cause"),
    [(kill_at_five, r"SIGKILL\) while .* memory"), (exit_at_five, "exit status 3")],
)
def test_death_of_a_worker_is_a_line_that_names_the_item(function, cause):
    before = children()
    with pytest.raises(ValueError, match=rf"^song 5: .*died \({cause}") as caught:
        list(map_in_processes(function, range(30), workers=2, name="song {}".format))
    assert "\n" not in str(caught.value)
    assert children() == before


def test_one_worker_or_little_work_starts_no_process(monkeypatch):
    own = {os.getpid()}
    assert {pid for _, pid in map_in_processes(whereabouts, range(9), workers=1)} == own
    monkeypatch.setattr(process_pool, "START_SECONDS", 60)
    assert {pid for _, pid in map_in_processes(whereabouts, range(9), workers=4)} == own
    assert list(map_in_processes(whereabouts, [])) == []


def test_what_cannot_be_pickled_is_computed_here():
    results = map_in_processes(lambda item: (item, os.getpid()), range(9), workers=2)
    assert list(results) == [(item, os.getpid()) for item in range(9)]


def test_number_of_workers_is_checked():
    with pytest.raises(ValueError, match="workers=0, expected 1 or more"):
        next(map_in_processes(whereabouts, range(3), workers=0))


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_cores() == 1


def test_worker_has_one_thread_the_cpu_and_no_rank(monkeypatch):
    monkeypatch.setenv("MLX_HOSTFILE", "/nowhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    results = [*map_in_processes(_without_main, range(4), workers=2)][1:]
    assert results == [(True, ["1", "1", "1"], [], "-c")] * 3
    assert worker_environment({"A": "b", "PMI_SIZE": "2"})["A"] == "b"


def _without_main(item):
    on_cpu, threads, ranks, main = surroundings(item)
    return on_cpu, threads, ranks, getattr(main, "__file__", "-c")


def test_warnings_of_workers_are_shown_here_once():
    process_pool._registry.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert list(map_in_processes(warn, range(20), workers=2)) == list(range(20))
    shown = [str(one.message) for one in caught]
    assert 1 <= shown.count("a strange header") <= 2  # the first item's is this process's own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="a strange header"):
            list(map_in_processes(warn, range(20), workers=2))


# ---- scripts


SCRIPT = """
import sys, time
from audiotrain.utils import process_pool
from audiotrain.utils.cores import THREAD_VARIABLES, available_cores
process_pool.START_SECONDS = 0
import test_process_pool as functions
print("started", flush=True)
results = process_pool.map_in_processes(functions.{function}, range({count}), workers=2)
print(sum(item if isinstance(item, int) else item[0] for item in results))
"""


def sleep(item):
    os.write(1, f"pid {os.getpid()}\n".encode())  # at once: two write
    time.sleep(0.2 if item < 2 else 600)
    return item


def environment():
    root = Path(__file__).parents[2]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(root), *sys.path])
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "-c", "stdin"])
def test_script_without_a_guard(tmp_path, way):
    script = SCRIPT.format(function="whereabouts", count=10)
    path = tmp_path / "script.py"
    path.write_text(script)
    words = {"file": [path], "-c": ["-c", script], "stdin": ["-"]}[way]
    done = subprocess.run(
        [sys.executable, *words],
        input=script if way == "stdin" else "",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("started\n45\n", "")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGKILL, False)],
)
def test_no_worker_is_left_by_a_parent_that_is_stopped_or_killed(tmp_path, number, whole_group):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(function="sleep", count=10))
    with open(tmp_path / "out", "w+") as out:
        process = subprocess.Popen(
            [sys.executable, path],
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        try:
            workers: set[int] = set()
            deadline = time.monotonic() + 300
            while len(workers) < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
                pids = re.findall("pid ([0-9]+)\n", (tmp_path / "out").read_text())
                workers = set(map(int, pids)) - {process.pid}
            assert len(workers) == 2
            time.sleep(0.5)  # both are asleep in their second item
            if whole_group:  # as a terminal's Ctrl-C
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            _, errors = process.communicate(timeout=120)
            deadline = time.monotonic() + 120  # they sleep for longer
            while not all(map(gone, workers)) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            process.kill()
    assert all(map(gone, workers))
    assert process.returncode == -number
    assert errors.count("Traceback") == (number == signal.SIGINT)  # the parent's own alone
