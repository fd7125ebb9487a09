"""Order, randomness, workers, resuming and errors of the data loader."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.train.data.collate import default_collate, pad_collate, to_mlx
from audiotrain.train.data.loader import DataLoader, Dataset, SampleError

WORKERS = [(0, "thread"), (1, "thread"), (3, "thread"), (2, "process")]


class Noisy(Dataset):
    """Samples with random noise of their own."""

    def __init__(self, samples: int = 23):
        self.samples = samples

    def __len__(self):
        return self.samples

    def get(self, index, rng):
        return {"index": index, "noise": rng.standard_normal(4).astype(np.float32)}


def test_samples_of_pytorch_are_batched():
    torch = pytest.importorskip("torch")
    rows = torch.arange(12.0).reshape(4, 3).requires_grad_()
    samples = [(row, {"y": torch.tensor(n), "half": row.bfloat16()}) for n, row in enumerate(rows)]
    x, more = default_collate(samples)
    assert (x.dtype, x.tolist()) == (np.float32, rows.tolist())
    assert more["y"].tolist() == [0, 1, 2, 3]
    assert more["half"].tolist() == rows.tolist()
    batches = list(DataLoader(torch.utils.data.TensorDataset(rows.detach()), 2))
    assert [batch[0].tolist() for batch in batches] == [rows[:2].tolist(), rows[2:].tolist()]
    own = DataLoader(samples, 4, collate_fn=lambda items: {"x": torch.stack([x for x, _ in items])})
    (batch,) = own
    assert isinstance(batch["x"], mx.array)
    assert batch["x"].tolist() == rows.tolist()
    longer = pad_collate([{"x": torch.ones(2)}, {"x": torch.ones(3)}])
    assert longer["x_mask"].tolist() == [[True, True, False], [True, True, True]]


class Failing(Dataset):
    """Sample 5 cannot be read."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 5:
            raise TwoArguments("songs/e.wav", "truncated")
        return np.full(2, index)

    def describe(self, index):
        return f"song-{index}.wav"


class TwoArguments(Exception):
    """Pickle cannot rebuild it from its args."""

    def __init__(self, place, reason):
        super().__init__(f"{place} is {reason}")


class Dying(Dataset):
    """Takes its whole process along."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class Counting(Dataset):
    """Notes which samples were asked for; `seconds` each."""

    def __init__(self, samples: int, seconds: float = 0.0):
        self.samples, self.seconds, self.asked = samples, seconds, []

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        self.asked.append(index)
        time.sleep(self.seconds)
        return index


def add_noise(item, rng):
    return {**item, "more": rng.random()}


def passes(loader, count):
    return [[batch for batch in loader] for _ in range(count)]


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


OTHERS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@pytest.fixture(autouse=True)
def others_threads():
    """Threads of loaders that tests before have left to the garbage collector are not counted."""
    OTHERS.clear()
    OTHERS.update(loader_threads())


def loader_threads():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("loader-") and thread not in OTHERS
    ]


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


# --- order and randomness


@pytest.mark.parametrize(("workers", "kind"), WORKERS[1:])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(workers, kind, persistent):
    settings = {
        "batch_size": 4,
        "shuffle": True,
        "seed": 7,
        "cpu_transforms": add_noise,
        "mlx_transforms": (),
    }
    expected = passes(DataLoader(Noisy(), **settings), 2)
    loader = DataLoader(
        Noisy(),
        num_workers=workers,
        worker_type=kind,
        persistent_workers=persistent,
        **settings,
    )
    for one, other in zip(expected, passes(loader, 2), strict=True):
        assert_same(one, other)


class Places(Dataset):
    """Which process and thread loads a sample."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return os.getpid(), threading.get_ident()


@pytest.mark.parametrize(("workers", "kind"), WORKERS)
def test_samples_are_loaded_where_they_should_be(workers, kind):
    loader = DataLoader(Places(), 2, num_workers=workers, worker_type=kind, mlx_transforms=())
    found = {
        (pid, thread) for pids, threads in loader for pid, thread in zip(pids, threads, strict=True)
    }
    assert {pid == os.getpid() for pid, _ in found} == {not workers or kind == "thread"}
    here = (os.getpid(), threading.get_ident()) in found
    assert here == (workers == 0)


def test_every_epoch_and_seed_has_its_own_order_and_noise():
    orders, noises = set(), set()
    for seed in (0, 1):
        for epoch in passes(DataLoader(Noisy(), 23, True, seed=seed, mlx_transforms=()), 3):
            (batch,) = epoch
            assert sorted(batch["index"].tolist()) == list(range(23))
            orders.add(tuple(batch["index"].tolist()))
            noises.update(batch["noise"][:, 0].tolist())
    assert len(orders) == 6
    assert len(noises) == 6 * 23


def test_order_stays_without_shuffle_and_set_epoch_repeats_a_pass():
    loader = DataLoader(Noisy(), batch_size=5, mlx_transforms=())
    first, second = passes(loader, 2)
    assert np.concatenate([batch["index"] for batch in second]).tolist() == list(range(23))
    assert not np.array_equal(first[0]["noise"], second[0]["noise"])
    loader.set_epoch(0)
    assert_same(list(loader), first)
    assert loader.epoch == 0


def test_getitem_serves_datasets_without_get_and_plain_sequences():
    assert [batch.tolist() for batch in DataLoader([5, 6, 7], batch_size=2)] == [[5, 6], [7]]


@pytest.mark.parametrize(
    ("samples", "batch_size", "drop_last", "sizes"),
    [(10, 4, False, [4, 4, 2]), (10, 4, True, [4, 4]), (3, 4, True, []), (0, 4, False, [])],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_length(samples, batch_size, drop_last, sizes, workers):
    loader = DataLoader(list(range(samples)), batch_size, drop_last=drop_last, num_workers=workers)
    assert len(loader) == len(sizes)
    assert [len(batch) for batch in loader] == sizes


# --- resuming


@settings(deadline=None, max_examples=40)
@given(
    consumed=st.integers(0, 6),
    epoch=st.integers(0, 3),
    before=st.sampled_from([0, 1, 4]),
    after=st.sampled_from([0, 1, 4]),
)
def test_resume_gives_what_was_left(consumed, epoch, before, after):
    assert_resumes(consumed, epoch, (before, "thread"), (after, "thread"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, "process"), (0, "thread")),
        ((0, "thread"), (2, "process")),
        ((4, "process"), (4, "thread")),
        ((2, "thread"), (4, "process")),
    ],
)
def test_resume_with_processes_gives_what_was_left(before, after):
    assert_resumes(3, 1, before, after)


def assert_resumes(consumed, epoch, before, after):
    """A pass left after `consumed` batches and continued with other workers is a whole one."""

    def make(workers, kind):
        return DataLoader(
            Noisy(), 4, True, num_workers=workers, worker_type=kind, seed=3, mlx_transforms=()
        )

    expected = passes(make(0, "thread"), epoch + 2)
    loader = make(*before)
    loader.set_epoch(epoch)
    stream = iter(loader)
    for _ in range(consumed):
        next(stream)
    state = loader.state_dict()
    assert state["consumed"] == consumed
    stream.close()
    resumed = make(*after)
    resumed.load_state_dict(state)
    assert_same(list(resumed), expected[epoch][consumed:])
    assert resumed.state_dict()["consumed"] == 6
    assert_same(list(resumed), expected[epoch + 1])


def test_set_epoch_after_load_keeps_the_place_only_in_the_same_epoch():
    loader = DataLoader(list(range(6)), 2, mlx_transforms=())
    stream = iter(loader)
    next(stream)
    state = loader.state_dict()
    for epoch, first in [(0, [2, 3]), (1, [0, 1])]:
        resumed = DataLoader(list(range(6)), 2, mlx_transforms=())
        resumed.load_state_dict(state)
        resumed.set_epoch(epoch)
        assert next(iter(resumed)).tolist() == first


def test_state_of_other_batches_is_refused_inside_an_epoch():
    loader = DataLoader(list(range(6)), 2)
    next(iter(loader))
    with pytest.raises(ValueError, match="batches is 2, .* with batches 3"):
        DataLoader(list(range(6)), 3).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="lacks epoch, consumed"):
        loader.load_state_dict({"seed": 0, "batches": 1, "batch_size": 1})


# --- workers


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 2), (3, 1)])
def test_prefetch_window_is_bounded_and_full(workers, prefetch):
    dataset = Counting(200)
    loader = DataLoader(dataset, 2, num_workers=workers, prefetch_factor=prefetch)
    stream = iter(loader)
    for given_out in (1, 2, 3):
        next(stream)
        expected = 2 * (given_out + workers * prefetch)
        wait_until(lambda: len(dataset.asked) >= expected)  # noqa: B023
        time.sleep(0.03)
        assert len(dataset.asked) == expected
    assert loader.state_dict()["consumed"] == 3


def test_threads_load_side_by_side():
    class Together(Counting):
        def __getitem__(self, index):
            barrier.wait(120)  # for four of them; BrokenBarrierError where they come by turns
            return index

    barrier = threading.Barrier(4)
    batches = list(DataLoader(Together(12), 1, num_workers=4, mlx_transforms=()))
    assert np.concatenate(batches).tolist() == list(range(12))


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "each"), [("thread", 1), ("process", 20)])
def test_200_abandoned_passes_leave_nothing_behind(kind, each):
    """`each` of them are over one loader where that keeps its workers."""

    def abandon(persistent):
        loader = DataLoader(
            list(range(50)),
            2,
            num_workers=1 + (kind == "thread"),
            worker_type=kind,
            persistent_workers=persistent,
            mlx_transforms=(),
        )
        passes = each if persistent else 1
        for _ in range(passes):
            iter(loader)  # never begun
            for _ in loader:
                break
        return passes

    def processes():
        return multiprocessing.active_children()

    abandon(persistent=False)  # starts what serves all pools of the process
    wait_until(lambda: not processes() and not loader_threads())
    threads, files = threading.active_count(), open_files()
    abandoned = number = 0
    while abandoned < 200:
        abandoned, number = abandoned + abandon(persistent=number % 2 == 1), number + 1
    gc.collect()
    wait_until(lambda: not processes() and threading.active_count() <= threads)
    wait_until(lambda: open_files() <= files)


def test_abandoned_pass_stops_in_the_middle_of_a_batch():
    dataset = Counting(1000, seconds=0.002)
    stream = iter(DataLoader(dataset, 50, num_workers=2))
    assert len(next(stream)) == 50
    stream.close()
    wait_until(lambda: not loader_threads())
    assert len(dataset.asked) < 150  # to the end of the batches in hand it would be 200


def test_persistent_threads_serve_all_passes_and_end_with_the_loader():
    loader = DataLoader(Noisy(), 4, num_workers=2, persistent_workers=True)
    list(loader)
    threads = set(loader_threads())
    list(loader)
    assert set(loader_threads()) == threads
    assert len(threads) == 2
    del loader
    gc.collect()
    wait_until(lambda: not loader_threads())


@pytest.mark.parametrize("persistent", [False, True])
def test_processes_are_kept_between_passes_only_when_asked_to(persistent):
    settings = {"worker_type": "process", "persistent_workers": persistent, "mlx_transforms": ()}
    loader = DataLoader(Places(), 2, num_workers=1, **settings)
    first, second = ({pid for pids, _ in epoch for pid in pids} for epoch in passes(loader, 2))
    assert (first == second) == persistent


def test_two_passes_at_once_do_not_mix():
    loader = DataLoader(Noisy(), 4, True, num_workers=2, persistent_workers=True)
    expected = passes(DataLoader(Noisy(), 4, True), 2)
    one, other = iter(loader), iter(loader)
    both = list(zip(one, other, strict=True))
    assert_same([left for left, _ in both], expected[0])
    assert_same([right for _, right in both], expected[1])
    loader.set_epoch(0)
    one = iter(loader)
    next(one)
    other = iter(loader)
    next(other)
    next(one)
    assert loader.state_dict()["consumed"] == 1


SCRIPT = """
import atexit, os, signal, sys, threading, time, weakref
def tell():
    print(*(t.name for t in threading.enumerate() if t.name.startswith("loader-")),
          file=sys.stderr, end="")

weakref.finalize(tell, int)  # as libraries do that are imported before; what it ends, it ends last
atexit.register(tell)  # after the loader's own end, before the finalizers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
import numpy as np
from audiotrain.train.data.loader import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        time.sleep(0.01)
        return np.array([index, os.getpid()])

if __name__ == "__main__":
    loader = DataLoader(Slow(), 4, num_workers=2, worker_type=sys.argv[1], mlx_transforms=())
    stream = iter(loader)
    print(next(stream)[0, 1], next(stream)[0, 1], flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
    if sys.argv[2] == "interrupt":
        os.killpg(0, signal.SIGINT)
    if sys.argv[2] == "fail":
        raise SystemExit("stopped half-way")
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize(
    ("end", "code"), [("kill", -9), ("fail", 1), ("interrupt", -2), ("leave", 0)]
)
def test_workers_end_with_their_program(tmp_path, kind, end, code):
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, kind, end],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    assert done.returncode == code, done.stderr
    if end == "interrupt":
        assert done.stderr.count("Traceback") == 1
        assert "loader-" not in done.stderr
    elif end != "kill":  # there Python's resource tracker says what it cleaned up
        assert done.stderr == ("stopped half-way\n" if end == "fail" else "")
    workers = {int(word) for word in done.stdout.split()}
    assert workers
    wait_until(lambda: not any(alive(worker) for worker in workers))


# --- errors


@pytest.mark.parametrize(("workers", "kind"), WORKERS)
def test_error_names_sample_and_file_and_keeps_its_cause(workers, kind):
    stream = iter(DataLoader(Failing(), 2, num_workers=workers, worker_type=kind))
    assert [next(stream)[0, 0].item() for _ in range(2)] == [0, 2]
    expected = r"sample 5 \(song-5.wav\): TwoArguments: songs/e.wav is truncated"
    with pytest.raises(SampleError, match=expected) as caught:
        next(stream)
    assert "songs/e.wav is truncated" in str(caught.value.__cause__)
    if kind == "process":
        assert "in __getitem__" in "".join(caught.value.__cause__.__notes__)
    assert list(stream) == []
    wait_until(lambda: not loader_threads())


@pytest.mark.parametrize("persistent", [False, True])
def test_a_dead_worker_process_is_an_error(persistent):
    loader = DataLoader(
        Dying(), 2, num_workers=2, worker_type="process", persistent_workers=persistent
    )
    for _ in range(2):
        with pytest.raises(RuntimeError, match="worker process died while loading epoch"):
            next(iter(loader))


def test_system_exit_in_a_worker_reaches_the_reader():
    def leave(item):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        next(iter(DataLoader([1, 2], num_workers=1, cpu_transforms=leave)))


def test_process_workers_refuse_what_cannot_be_sent():
    loader = DataLoader([1, 2], num_workers=1, worker_type="process", cpu_transforms=lambda x: x)
    with pytest.raises(ValueError, match="cannot send cpu_transforms .* worker_type='thread'"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected a whole number"),
        ({"num_workers": -1}, "num_workers=-1: expected a whole number of at least 0"),
        ({"prefetch_factor": 0}, "prefetch_factor=0"),
        ({"seed": None}, "seed=None"),
        ({"worker_type": "fork"}, "worker_type='fork': expected 'thread' or 'process'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        DataLoader([1, 2, 3], **settings)


# --- transforms


def test_transforms_run_per_item_then_per_batch():
    mx = pytest.importorskip("mlx.core")
    main = threading.current_thread()

    def scale(item):
        assert threading.current_thread() is not main
        return {**item, "x": item["x"] / 2}

    def convert(batch):
        assert threading.current_thread() is main
        return {name: mx.array(part) for name, part in batch.items()}

    items = [{"x": np.full(3, i, dtype=np.float32), "y": i} for i in range(4)]
    loader = DataLoader(
        items, 4, num_workers=2, cpu_transforms=scale, mlx_transforms=[convert, dict.items]
    )
    (batch,) = (dict(batch) for batch in loader)
    assert isinstance(batch["x"], mx.array)
    assert batch["x"][:, 0].tolist() == [0, 0.5, 1, 1.5]


def test_raw_lists_pass_through_to_mlx_transforms():
    mx = pytest.importorskip("mlx.core")

    def to_mlx_batch(items):
        return mx.array(np.stack([x for x, _ in items])), mx.array([y for _, y in items])

    items = [(np.zeros((2, 2)), label) for label in range(5)]
    loader = DataLoader(items, 3, True, collate_fn=lambda x: x, mlx_transforms=to_mlx_batch)
    images, labels = next(iter(loader))
    assert images.shape == (3, 2, 2)
    assert labels.shape == (3,)


def test_default_conversion_leaves_text_alone():
    mx = pytest.importorskip("mlx.core")
    items = [{"x": np.zeros(2), "n": (1, 2.5), "name": f"song {i}", "ok": True} for i in range(2)]
    (batch,) = DataLoader(items, 2, num_workers=1)
    assert batch["name"] == ["song 0", "song 1"]
    dtypes = [batch["x"].dtype, batch["n"][0].dtype, batch["n"][1].dtype, batch["ok"].dtype]
    assert dtypes == [mx.float32, mx.int64, mx.float32, mx.bool_]


# --- collate


def test_collate_goes_deep_and_keeps_dtypes():
    item = {"a": (np.ones((2, 3), np.float16), [1, 2.0]), "b": {"c": np.int16(4), "d": "text"}}
    batch = default_collate([item, item])
    assert batch["a"][0].shape == (2, 2, 3)
    assert batch["a"][0].dtype == np.float16
    assert [part.dtype for part in batch["a"][1]] == [np.int64, np.float32]
    assert batch["b"]["c"].dtype == np.int16
    assert batch["b"]["d"] == ["text", "text"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"x": np.zeros(2)}, {"x": np.zeros(3)}], r"item\['x'\]: shapes \(2,\) and \(3,\).*pad"),
        ([{"x": 1}, {"y": 1}], "not every sample of the batch has key 'x'"),
        ([{"x": 1}, {"x": 1, "y": 1}], "different keys"),
        ([(1, 2), (1, 2, 3)], "different lengths"),
        ([1, None], "int and NoneType in one batch"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_collate_errors_name_samples_and_place(items, message, workers):
    with pytest.raises(SampleError, match=r"batch of samples 0, 1: ValueError: .*" + message):
        list(DataLoader(items, 2, num_workers=workers))


def test_mlx_arrays_in_samples_are_refused():
    mx = pytest.importorskip("mlx.core")
    with pytest.raises(SampleError, match="item is an mlx array: a sample holds NumPy arrays"):
        list(DataLoader([mx.zeros(2)]))


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    multiple=st.integers(1, 4),
)
def test_padding_keeps_every_sample_under_its_mask(lengths, multiple):
    rng = np.random.default_rng(0)
    items = [rng.standard_normal((length, 2)) + 10 for length in lengths]
    padded, mask = pad_collate(items, value=-1, multiple=multiple)
    assert padded.shape[1] == -(-max(lengths) // multiple) * multiple
    assert mask.sum(axis=1).tolist() == lengths
    assert (padded[~mask] == -1).all()
    for row, item in enumerate(items):
        np.testing.assert_array_equal(padded[row][mask[row]], item)


def test_padding_to_a_few_lengths():
    items = [{"x": np.ones(n), "text": np.ones(n, int)} for n in (3, 5)]
    for lengths, expected in [((4, 6, 9), (6, 6)), ({"x": [9, 5]}, (5, 5)), ((5,), (5, 5))]:
        batch = pad_collate(items, lengths=lengths)
        assert (batch["x"].shape[1], batch["text_mask"].shape[1]) == expected
    with pytest.raises(ValueError, match=r"item\['x'\]: a sample has length 5, expected at most 4"):
        pad_collate(items, lengths=(2, 4))


def test_a_mask_does_not_replace_what_a_sample_has():
    with pytest.raises(ValueError, match="the mask of 'x' needs the key 'x_mask'"):
        pad_collate([{"x": np.ones(2), "x_mask": np.ones(2)}])


def test_padding_by_key():
    items = [{"x": np.ones(n), "labels": np.ones(n, int), "fixed": np.ones(2)} for n in (2, 3)]
    collate = partial(pad_collate, keys=("x", "labels"), value={"labels": -100})
    batch = collate(items)
    assert sorted(batch) == ["fixed", "labels", "labels_mask", "x", "x_mask"]
    assert batch["labels"].tolist() == [[1, 1, -100], [1, 1, 1]]
    assert batch["x"][0, 2] == 0
    tuples = pad_collate([(np.ones(2), 1), (np.ones(1), 2)])
    assert tuples[0][1].tolist() == [[True, True], [True, False]]
    assert tuples[1].tolist() == [1, 2]
    with pytest.raises(
        ValueError, match=r"item: shapes after the first axis are \(2,\) and \(3,\)"
    ):
        pad_collate([np.ones((1, 2)), np.ones((1, 3))])


def test_conversion_keeps_named_tuples():
    from collections import namedtuple

    Pair = namedtuple("Pair", "x y")
    pair = to_mlx(default_collate([Pair(1, "a"), Pair(2, "b")]))
    assert pair.x.tolist() == [1, 2]
    assert pair.y == ["a", "b"]
