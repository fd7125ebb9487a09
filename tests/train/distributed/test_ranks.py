"""Several ranks: the numbers of one process with the batch of all, one end, one writer.

The ranks run tests/helpers/ranks.py under mlx.launch, all scenarios in one launch.
"""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import ranks as scenarios
from toy import Classifier, Points, loaders, trainer

from audiotrain import DataLoader
from audiotrain.models.clap import CLAP
from audiotrain.train import checkpoint
from audiotrain.train.data.samplers import BucketSampler, DistributedSampler, WeightedRandomSampler
from audiotrain.train.distributed import ranks as distributed
from audiotrain.train.distributed import watchdog
from audiotrain.train.distributed.ranks import SingleProcess, buckets, join
from audiotrain.train.distributed.watchdog import lost_connection
from audiotrain.utils.arrays import arrays_of

EQUAL = ["chords", "norm", "norm_accumulated", "spoiled", "spoiled_accumulated"]
EQUAL += ["spoiled_at_one", "spoiled_at_one_accumulated"]
EQUAL += ["contrastive", "contrastive_accumulated"]
OTHERS = ["whole", "interrupted", "asked", "timed", "early", "competition"]
NOT_RESULTS = ("examples_per_second", "peak_memory_mb")


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    for first in np.random.default_rng().integers(20000, 60000, size=100).tolist():
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise RuntimeError("no free ports")


def launch(folder: Path, *names: str, limit: float = 400) -> str:
    """Run scenarios on two ranks; what they said. Fails when they don't end within `limit` s."""
    command = [Path(sys.executable).with_name("mlx.launch"), "-n", 2, "--backend", "ring"]
    command += ["-p", free_ports(2), "--python", sys.executable, scenarios.__file__, folder]
    process = subprocess.Popen(
        [str(word) for word in (*command, *names)],
        stdin=subprocess.PIPE,  # kept open: the launcher spins on a closed one
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
    )
    try:
        return process.communicate(timeout=limit)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read(folder: Path, name: str, rank: int = 0) -> dict:
    with np.load(folder / f"{name}-{rank}.npz") as file:
        return {key: file[key] for key in file if not key.endswith(NOT_RESULTS)}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Where two ranks left what came of every scenario."""
    folder = tmp_path_factory.mktemp("together")
    said = launch(folder, *EQUAL, *OTHERS, "recipe", "clap")
    for name in [*EQUAL, *OTHERS, "recipe", "clap"]:
        assert (folder / f"{name}-1.npz").is_file(), said
    (folder / "said.txt").write_text(said)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
def test_two_ranks_equal_one_process_with_the_doubled_batch(together, tmp_path, name):
    scenarios.run(getattr(scenarios, name), tmp_path)
    alone, ranks = read(tmp_path, name), read(together, name)
    assert alone.keys() == ranks.keys()
    assert len(alone) > 10
    for key in alone:
        np.testing.assert_allclose(ranks[key], alone[key], rtol=1e-5, atol=1e-5, err_msg=key)
    assert ranks["skipped"] == (3 if "spoiled" in name else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL + OTHERS)
def test_ranks_end_with_the_same_weights_and_numbers(together, name):
    first, second = read(together, name), read(together, name, rank=1)
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.slow
def test_a_cross_validation_on_two_ranks_is_that_of_one_process(together, tmp_path):
    scenarios.run(scenarios.competition, tmp_path)
    alone, ranks = read(tmp_path, "competition"), read(together, "competition")
    assert alone["predictions"].shape == (40, 3)
    for name in ("predictions", "tested", "test_loss"):
        np.testing.assert_allclose(ranks[name], alone[name], rtol=1e-4, atol=1e-5, err_msg=name)
    left = [
        sorted(path.relative_to(folder) for path in (folder / "competition").rglob("*"))
        for folder in (tmp_path, together)
    ]
    assert left[0] == left[1]


@pytest.mark.slow
def test_a_signal_at_one_rank_stops_all_after_one_step_and_a_new_run_continues_exactly(together):
    whole, resumed = read(together, "whole"), read(together, "interrupted")
    assert resumed.pop("stopped") == 128 + signal.SIGTERM
    assert 8 <= resumed.pop("stopped_step") <= 10
    assert whole.pop("stopped") == 0
    assert whole.keys() == resumed.keys()
    for key in whole:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asked", "timed"])
def test_what_one_rank_wants_ends_all_at_one_step(together, name):
    assert 3 <= read(together, name)["step"] <= 5


@pytest.mark.slow
def test_early_stopping_and_best_checkpoints_agree(together):
    assert read(together, "early")["step"] == 2 * 6  # epochs of 24 / 4 steps
    found = sorted(path.name for path in (together / "early" / "checkpoints").iterdir())
    assert found == ["epoch-001-step-000012", "last"]  # the first epoch's was removed


@pytest.mark.slow
def test_only_rank_0_writes_and_speaks(together):
    chords, said = together / "chords", (together / "said.txt").read_text()
    assert (chords / "runs.txt").read_text() == "run\n"
    rows = (chords / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 + 1  # a head, two epochs, a test
    assert said.count("stopped at step") == 1
    assert said.count("stopping early") == 1


@pytest.mark.slow
def test_the_chord_recipe_trains_on_ranks_and_rank_0_alone_writes_and_evaluates(together, tmp_path):
    scenarios.run(scenarios.recipe, tmp_path)
    alone, ranks = tmp_path / "recipe" / "run", together / "recipe" / "run"
    first, second = read(together, "recipe"), read(together, "recipe", rank=1)
    assert (first["code"], second["code"], str(second["said"])) == (0, 0, "")
    said = str(first["said"])
    for once in ("data in ", "an unseen song (", "s in all", "step 4  train_loss"):
        assert said.count(once) == 1
    files = [{p.relative_to(run) for p in run.rglob("*")} for run in (alone, ranks)]
    assert files[0] == files[1]  # no metrics-1.csv of a second writer
    assert Path("metrics.json") in files[0]
    rows = [json.loads((run / "history.json").read_text())["rows"] for run in (alone, ranks)]
    losses = [
        {(row["step"], name): row[name] for row in own for name in row if name.endswith("_loss")}
        for own in rows
    ]
    assert (4, "val_loss") in losses[0]
    # Not 1e-5: ranks count by frames with a chord type, and N has no root and no bass.
    assert losses[1] == pytest.approx(losses[0], abs=1e-2)


@pytest.mark.slow
def test_the_clap_recipe_on_ranks_learns_what_one_process_learns(together, tmp_path):
    """Its norm of the input and the negatives of its loss are those of all ranks."""
    scenarios.run(scenarios.clap, tmp_path)
    alone = read(tmp_path, "clap")
    first, second = read(together, "clap"), read(together, "clap", rank=1)
    assert (first.pop("code"), second.pop("code"), str(second.pop("said"))) == (0, 0, "")
    assert str(first.pop("said")).count("data in ") == 1
    assert alone.pop("code") == 0
    alone.pop("said")
    assert alone.keys() == first.keys() == second.keys()
    moved = 0
    start = arrays_of(CLAP.from_pretrained(tmp_path / "clap" / "start"))
    for name, array in alone.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if "key.bias" in name:  # softmax does not feel it: AdamW makes steps of rounding errors
            continue
        np.testing.assert_allclose(first[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
        before = np.array(start[name.removeprefix("clap.")])
        moved = max(moved, float(np.abs(array - before).max()))
    assert moved > 1e-3
    files = [
        {p.relative_to(f / "clap" / "run") for p in (f / "clap" / "run").rglob("*")}
        for f in (tmp_path, together)
    ]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_one_line_and_a_checkpoint(tmp_path):
    said = launch(tmp_path, "killed")
    last = tmp_path / "killed" / "checkpoints" / "last"
    told = re.findall(r"rank 0: .*", said)  # the launcher's own warnings may share the line
    assert len(told) == 1, said
    assert "[ring] connection to a peer was lost; stopped at step" in told[0]
    assert f'fit(..., ckpt_path="{last}")' in told[0]
    assert "Traceback" not in said
    assert checkpoint.load_meta(last)["global_step"] == 8
    one = trainer(tmp_path / "one", max_epochs=4, compile=False)
    train = DataLoader(Points(24), 4, seed=3, shuffle=True)  # the batch that two ranks had
    one.fit(Classifier(dropout=0.5), train, DataLoader(Points(7), 4, seed=3), ckpt_path=last)
    assert one.global_step == 24


def test_a_rank_that_hangs_is_given_up_after_a_signal():
    code = (
        "import ctypes, os, signal, threading\n"
        "from audiotrain.train.distributed import watchdog\n"
        "from audiotrain.train.engine import signals\n"
        "watchdog.GRACE = 0.5\n"
        "with signals.SignalGuard(), watchdog.Watchdog(1, lambda: 'at step 7') as own:\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)\n"
        "    libc.pthread_mutex_init(mutex, None)\n"
        "    libc.pthread_mutex_lock(mutex)\n"
        "    with own.waiting(saving=False):\n"
        "        libc.pthread_mutex_lock(mutex)  # for ever, and no Python handler runs\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    assert run.stderr == "rank 1: no answer from the other ranks for 0.5 s; stopped at step 7\n"


def test_a_watchdog_watches_when_a_thousand_files_are_open(tmp_path):
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        held = [open(os.devnull) for _ in range(1100)]  # noqa: SIM115
        with watchdog.Watchdog(0, lambda: "") as own:
            time.sleep(0.1)
            assert own.thread.is_alive()
    finally:
        for file in held:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_watchdog_leaves_a_short_wait_alone_and_nothing_behind(monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE", 30.0)
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with watchdog.Watchdog(0, lambda: "") as own, own.waiting(saving=False):
        pass
    assert own.since is None
    assert not own.thread.is_alive()
    assert signal.set_wakeup_fd(before) == before


def test_one_process_is_alone_whatever_it_was_launched_with(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a process that was not launched must not look for others")

    for name in distributed.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mx.distributed, "init", refuse)
    one = trainer(tmp_path)
    assert type(one.ranks) is SingleProcess
    assert (one.global_rank, one.world_size, one.is_global_zero) == (0, 1, True)
    monkeypatch.undo()
    monkeypatch.setenv("MLX_WORLD_SIZE", "1")
    assert type(join()) is SingleProcess
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    (tmp_path / "hosts").write_text("\n")  # what mlx.launch -n 1 gives, and MLX cannot read
    assert type(join()) is SingleProcess


def test_buckets_are_bounded_keep_the_order_and_hold_what_is_larger(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 40)
    arrays = [mx.zeros(size) for size in (4, 6, 1, 25, 3, 3)]
    sizes = [[array.size for array in bucket] for bucket in buckets(arrays)]
    assert sizes == [[4, 6], [1], [25], [3, 3]]


def test_gradients_of_a_bucket_are_summed_at_once(monkeypatch):
    sums = []

    def doubled(array, group):
        sums.append(array.shape)
        return 2 * array

    monkeypatch.setattr(distributed, "BUCKET_BYTES", 40)
    monkeypatch.setattr(mx.distributed, "all_sum", doubled)
    sizes = [(2, 2), (6,), (), (25,), (3, 1)]
    gradients = {"layers": [mx.random.normal(size) for size in sizes]}
    summed = TwoRanks(lambda value: value).sum_tree(gradients)
    assert sums == [(10,), (1,), (25,), (3,)]
    for one, both in zip(gradients["layers"], summed["layers"], strict=True):
        np.testing.assert_array_equal(both, 2 * one)


def test_which_errors_mean_a_lost_rank():
    assert lost_connection(RuntimeError("x [ring] gone")) == "[ring] gone"
    assert lost_connection(RuntimeError("out of memory")) is None


# Shares of a loader


def seen(loader, epoch):
    loader.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


def shared(make, world_size):
    """Batches of one process, and the own batches of each rank."""
    alone = make(4)
    ranks = [make(4 // world_size) for _ in range(world_size)]
    for rank, loader in enumerate(ranks):
        loader.shard(rank, world_size)
    return alone, ranks


@pytest.mark.parametrize("count", [1, 12, 13, 14, 15])
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_together_have_the_batches_of_one_process(count, world_size, drop_last):
    def make(batch_size):
        settings = {"shuffle": True, "drop_last": drop_last, "mlx_transforms": (), "seed": 5}
        return DataLoader(np.arange(count), batch_size, **settings)

    alone, ranks = shared(make, world_size)
    for epoch in (0, 3):
        expected = seen(alone, epoch)
        parts = [seen(loader, epoch) for loader in ranks]
        assert {len(part) for part in parts} == {len(expected)} == {len(loader) for loader in ranks}
        for index, batch in enumerate(expected):
            own = [p[index] for p, loader in zip(parts, ranks, strict=True) if loader.owns(index)]
            assert sorted(sum(own, [])) == sorted(batch)
            assert all(set(part[index]) <= set(batch) for part in parts)  # what fills in, too


def test_a_sampler_is_shared_out_and_repeated_samples_differ_as_in_one_process():
    class Noise:
        def __len__(self):
            return 3

        def get(self, index, rng):
            return rng.normal()

    def make(batch_size):
        sampler = WeightedRandomSampler([1, 2, 3], num_samples=10, seed=1)
        return DataLoader(Noise(), batch_size, sampler=sampler, mlx_transforms=())

    alone, ranks = shared(make, 2)
    for batch, *parts in zip(seen(alone, 1), *(seen(r, 1) for r in ranks), strict=True):
        assert sorted(sum(parts, [])) == sorted(batch)


def test_batches_of_a_batch_sampler_are_dealt_whole():
    lengths = [3, 9, 4, 10, 5, 11]
    make = lambda _: DataLoader(  # noqa: E731
        np.arange(6), batch_sampler=BucketSampler(lengths, 2, buckets=2), mlx_transforms=()
    )
    alone, (first, second) = shared(make, 2)
    whole = seen(alone, 2)
    assert len(whole) == 3
    assert seen(first, 2) == [whole[0], whole[2]]
    assert seen(second, 2) == [whole[1], whole[2]]
    assert [second.owns(index) for index in (0, 1)] == [True, False]


def test_a_share_is_resumed_with_as_many_samples_to_a_step():
    loader = DataLoader(np.arange(13), 2, shuffle=True, mlx_transforms=())
    loader.shard(1, 2)
    whole = seen(loader, 4)
    loader.set_epoch(4)
    batches = iter(loader)
    assert [next(batches).tolist() for _ in range(2)] == whole[:2]
    again = DataLoader(np.arange(13), 2, shuffle=True, mlx_transforms=())
    again.shard(1, 2)
    again.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in again] == whole[2:]
    with pytest.raises(ValueError, match="stopped inside an epoch with batches 4"):
        DataLoader(np.arange(13), 2, shuffle=True).load_state_dict(loader.state_dict())


def test_shard_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"rank=2: expected 0\.\.1"):
        DataLoader(np.arange(3)).shard(2, 2)


@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_sampler_is_that_of_pytorch(drop_last):
    """Without shuffling the same indices; with it, each sample once but for what makes it even."""
    torch = pytest.importorskip("torch.utils.data.distributed")
    for count in (4, 5, 7):
        for rank in range(3):
            theirs = torch.DistributedSampler(range(count), 3, rank, False, drop_last=drop_last)
            ours = DistributedSampler(
                count, shuffle=False, drop_last=drop_last, rank=rank, world_size=3
            )
            assert list(ours) == list(theirs)
            assert len(ours) == len(theirs)
    samplers = [DistributedSampler(range(6), seed=1, rank=r, world_size=3) for r in range(3)]
    orders = []
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        orders.append([list(sampler) for sampler in samplers])
        assert sorted(sum(orders[-1], [])) == list(range(6))
    assert orders[0] != orders[1]


def test_a_distributed_sampler_is_not_shared_out_again():
    sampler = DistributedSampler(8, rank=1, world_size=2)
    loader = DataLoader(np.arange(8), 2, sampler=sampler, mlx_transforms=())
    before = seen(loader, 0)
    loader.shard(1, 2)
    assert seen(loader, 0) == before
    assert DistributedSampler(8).world_size == 1
    with pytest.raises(ValueError, match=r"rank=2: expected 0\.\.1"):
        DistributedSampler(8, rank=2, world_size=2)


# What ranks must have in common, with the other rank's answers put in


class TwoRanks(distributed.ProcessGroup):
    """Rank 0 of two, whose other rank says what it is told to."""

    def __init__(self, other):
        super().__init__(mx.distributed.init())
        self.size, self.other = 2, other

    def gather(self, value, saving=False):
        return [value, self.other(value)]


def test_the_others_begin_when_rank_0_has_left_its_files_and_say_nothing(capsys):
    for rank in (0, 1):
        order, ranks = [], TwoRanks(lambda value: value)
        ranks.rank = rank
        ranks.gather = lambda value, saving=False, o=order: [o.append("met") or value] * 2
        assert ranks.rank0_first(lambda o=order: o.append("did") or 5) == 5
        assert order == (["did", "met"] if rank == 0 else ["met", "did"])
        with ranks.rank0_output_only():
            print(f"rank {rank}")
            print(f"rank {rank}", file=sys.stderr)
    assert capsys.readouterr() == ("rank 0\n", "rank 0\n")


def test_ranks_that_differ_are_told_apart_before_they_wait_for_each_other():
    with pytest.raises(ValueError, match=r"batches must be the same .* 0 has 5, rank 1 4"):
        TwoRanks(lambda value: 4).check_batches(5)
    with pytest.raises(ValueError, match="no length, which 2 ranks need"):
        TwoRanks(lambda value: 4).check_batches(None)
    other = TwoRanks(lambda kinds: {name: kinds[name].replace("[3]", "[4]") for name in kinds})
    with pytest.raises(ValueError, match=r"0 has b \[3\] .*rank 1 b \[4\]"):
        other.broadcast([{"a": mx.zeros(2), "b": mx.zeros(3)}])


def test_each_rank_draws_from_a_stream_of_its_own_that_its_place_in_the_run_gives_back():
    def drawn(rank, *place):
        mx.random.seed(0)  # what rank 0's checkpoint brings
        ranks = TwoRanks(lambda value: value)
        ranks.rank = rank
        ranks.seed(*place)
        return tuple(mx.random.uniform(shape=(4,)).tolist())

    mx.random.seed(0)
    alone = tuple(mx.random.uniform(shape=(4,)).tolist())
    assert drawn(0, 42, 0, 0) == alone
    places = [(0, 42, 0, 0), (1, 42, 0, 0), (2, 42, 0, 0), (1, 42, 1, 0), (1, 42, 0, 1)]
    streams = [drawn(*place) for place in places]
    assert streams == [drawn(*place) for place in places]
    assert len(set(streams)) == len(places)


def test_a_loader_that_cannot_be_shared_out_is_refused(tmp_path):
    one = trainer(tmp_path)
    one.ranks = TwoRanks(lambda value: value)
    one.ranks.broadcast = lambda trees: None
    message = r"a list has no shard\(rank, world_size\): each of the 2 ranks would be given all"
    with pytest.raises(ValueError, match=message):
        one.fit(Classifier(), [Points()[0]])
    with pytest.raises(ValueError, match=message):
        one.validate(Classifier(), [Points()[0]])
    one.ranks.shard(None)  # no validation loader


def test_a_loader_of_several_ranks_that_ends_too_soon_is_an_error(tmp_path, monkeypatch):
    class Short(list):
        def __len__(self):
            return 5

    one = trainer(tmp_path, max_epochs=1)
    monkeypatch.setattr(one.ranks, "size", 2, raising=False)
    batches = Short(loaders(count=16)[0])
    with pytest.raises(ValueError, match="gave 2 of 5 batches"):
        one.fit(Classifier(), batches)


def test_a_group_of_accumulated_batches_cannot_be_saved_by_several(tmp_path, monkeypatch):
    one = trainer(tmp_path, max_epochs=1)
    one.fit(Classifier(), loaders(count=8)[0])
    monkeypatch.setattr(one.ranks, "size", 2, raising=False)
    one.group, one.accumulate_grad_batches = 1, 3
    with pytest.raises(ValueError, match="after 1 of 3 accumulated batches"):
        one.save_checkpoint(tmp_path / "group")
