"""A run that was stopped and continued equals one that was not, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Points, loaders, same, trainer, weights

from audiotrain import OptimizerConfig
from audiotrain.train import checkpoint
from audiotrain.train.callbacks import Callback, EarlyStopping, ModelCheckpoint
from audiotrain.utils import arrays as utils_arrays

CHANGING = ("examples_per_second", "peak_memory_mb")

HELPERS = str(Path(__file__).parents[1] / "helpers")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Hundreds of checkpoints; that they outlive a power cut is not the point of these tests."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class SaveAt(Callback):
    """Writes a checkpoint at one step and breaks off there."""

    def __init__(self, path, step, group=0):
        self.path, self.step, self.group = path, step, group

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.global_step, trainer.group) == (self.step, self.group):
            trainer.save_checkpoint(self.path)
            raise ZeroDivisionError


def fit(folder, callbacks=(), resume=None, workers=0, worker_type="thread", **settings):
    settings = {"max_epochs": 3, "ema_decay": 0.9, "log_every_n_steps": 4} | settings
    own = [EarlyStopping(patience=50), ModelCheckpoint(monitor="val_loss", save_top_k=2)]
    run = trainer(folder, callbacks=[*callbacks, *own], **settings)
    model = Classifier(seed=1 if resume else 0)  # its own weights must not matter
    if resume:
        mx.random.normal((3,))
    train, val = loaders(num_workers=workers, worker_type=worker_type)
    run.fit(model, train, val, ckpt_path=resume)
    return run


def rows(run) -> list[dict]:
    table = run.history.log + run.history.rows
    return [{k: v for k, v in row.items() if k not in CHANGING} for row in table]


def assert_equal_runs(first, second):
    assert same(weights(first.module), weights(second.module))
    for name in ("optimizer", "ema"):
        one, other = (
            utils_arrays.arrays_of(
                run.optimizer.state if name == "optimizer" else run.step.extra["ema"]
            )
            for run in (first, second)
        )
        assert all(mx.array_equal(one[key], other[key]) for key in one)
    assert rows(first) == rows(second)
    for one, other in zip(first.callbacks, second.callbacks, strict=True):
        if isinstance(one, EarlyStopping | ModelCheckpoint):
            strip = [
                json.dumps(callback.state_dict()).replace(str(run.default_root_dir), "")
                for callback, run in ((one, first), (other, second))
            ]
            assert strip[0] == strip[1]


@pytest.mark.parametrize(
    ("settings", "group", "workers"),
    [
        ({}, 0, 0),
        ({}, 0, 2),
        ({"accumulate_grad_batches": 3}, 0, 0),
        ({"accumulate_grad_batches": 3}, 1, 0),
        pytest.param({"val_check_interval": 0.4}, 0, 0, marks=pytest.mark.slow),
        ({"val_check_interval": 5}, 0, 0),
    ],
)
def test_continued_from_any_step(tmp_path, settings, group, workers):
    whole = fit(tmp_path / "whole", [Callback()], **settings)
    tried = 0
    for step in range(0 if group else 1, whole.global_step + (not group)):
        path = tmp_path / "checkpoint"
        with pytest.raises(ZeroDivisionError):
            fit(tmp_path / f"{step}", [SaveAt(path, step, group)], **settings)
        again = fit(tmp_path / f"{step}", [Callback()], path, workers, **settings)
        assert_equal_runs(whole, again)
        tried += 1
    assert tried == whole.global_step >= 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "workers"), [("thread", 2), ("thread", 4), ("process", 2), ("process", 4)]
)
def test_kind_and_number_of_workers_change_nothing(tmp_path, kind, workers):
    whole = fit(tmp_path / "whole", [Callback()], max_epochs=2)
    path, settings = tmp_path / "checkpoint", {"workers": workers, "worker_type": kind}
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "part", [SaveAt(path, 3)], max_epochs=2, **settings)
    again = fit(tmp_path / "part", [Callback()], path, max_epochs=2, **settings)
    assert_equal_runs(whole, again)
    assert_equal_runs(whole, fit(tmp_path / "none", [Callback()], path, max_epochs=2))


def test_continued_from_last_of_a_shorter_run(tmp_path):
    whole = fit(tmp_path / "whole", max_epochs=4)
    fit(tmp_path / "part", max_epochs=2)
    again = fit(tmp_path / "part", max_epochs=4, resume=tmp_path / "part/checkpoints/last")
    assert_equal_runs(whole, again)
    for name in ("metrics.csv", "metrics.jsonl"):
        lengths = [
            len((tmp_path / part / name).read_text().splitlines()) for part in ("whole", "part")
        ]
        assert lengths[0] == lengths[1]


def test_checkpoints_written_after_the_last_one_are_written_again(tmp_path):
    part = fit(tmp_path, max_epochs=2)
    last = tmp_path / "checkpoints" / "last"
    shutil.copytree(last, tmp_path / "older")
    fit(tmp_path, max_epochs=3, resume="last")
    names = sorted(path.name for path in last.parent.iterdir())
    shutil.rmtree(last)  # as if the run was killed when the best was written, but not the last
    shutil.copytree(tmp_path / "older", last)
    again = fit(tmp_path, max_epochs=3, resume="last")
    assert sorted(path.name for path in last.parent.iterdir()) == names
    assert part.global_step < again.global_step


def test_an_epoch_left_half_way_has_one_row_in_the_end(tmp_path):
    part = fit(tmp_path, max_steps=7)
    assert [row["step"] for row in part.history.rows] == [5, 7]
    again = fit(tmp_path, max_epochs=3, resume="last")
    assert [row["step"] for row in again.history.rows] == [5, 10, 15]
    assert same(weights(again.module), weights(fit(tmp_path / "whole").module))


def test_a_finished_run_has_nothing_to_do(tmp_path):
    whole = fit(tmp_path)
    before = weights(whole.module)
    again = fit(tmp_path, resume="last")
    assert again.global_step == whole.global_step
    assert same(before, weights(again.module))


def test_loaders_without_a_state_are_advanced(tmp_path):
    data = [
        {"x": mx.array(np.stack([Points()[i]["x"]] * 2)), "y": mx.array([0, 1])} for i in range(6)
    ]

    def run_on(folder, callbacks=(), resume=None):
        run = trainer(folder, callbacks=list(callbacks), max_epochs=2)
        run.fit(Classifier(), data, ckpt_path=resume)
        return run

    whole = run_on(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        run_on(tmp_path, [SaveAt(tmp_path / "checkpoint", 8)])
    assert same(
        weights(whole.module), weights(run_on(tmp_path, resume=tmp_path / "checkpoint").module)
    )


def test_load_checkpoint_gives_weights_now_and_the_rest_to_fit(tmp_path):
    whole = fit(tmp_path / "whole", max_epochs=4)
    part = fit(tmp_path / "part", max_epochs=2)
    part.save_checkpoint(tmp_path / "mine.pt")
    arrays, _ = checkpoint.load(tmp_path / "mine.pt")
    saved = {name: np.array(a) for name, a in (arrays["model"] | arrays["ema"]).items()}
    part.module.last.weight = part.module.last.weight * 0
    part.load_checkpoint(tmp_path / "mine.pt")
    assert same(saved, weights(part.module))
    other = trainer(tmp_path / "other", ema_decay=0.9, max_epochs=4, callbacks=[EarlyStopping()])
    other.load_checkpoint(tmp_path / "mine.pt")
    other.fit(Classifier(seed=5), *loaders())
    assert same(weights(other.module), weights(whole.module))


def test_a_checkpoint_of_another_model_lists_all_differences(tmp_path):
    class Other(Classifier):
        def __init__(self):
            super().__init__()
            del self.frozen
            self.extra = mx.zeros((2,))

    fit(tmp_path)
    run = trainer(tmp_path)
    message = (
        r"last \(model\) does not fit the model: 1 missing: extra; "
        r"2 unexpected: frozen.weight, frozen.bias"
    )
    with pytest.raises(ValueError, match=message):
        run.fit(Other(), *loaders(), ckpt_path=tmp_path / "checkpoints" / "last")


def test_config_and_versions_are_in_the_checkpoint(tmp_path):
    fit(tmp_path, config={"layers": 2, "name": "small"})
    state = json.loads((tmp_path / "checkpoints/last/state.json").read_text())
    assert state["meta"]["config"] == {"layers": 2, "name": "small"}
    assert state["versions"]["mlx"] == mx.__version__


class Signals(Callback):
    """Sends this process a signal at one moment of the run."""

    def __init__(self, moment, step):
        self.moment, self.step = moment, step

    def at(self, moment, trainer):
        if (moment, trainer.global_step) == (self.moment, self.step):
            self.step = None
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.at("batch", trainer)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.at("validation", trainer)

    def on_train_epoch_end(self, trainer, module):
        self.at("epoch end", trainer)

    def on_train_end(self, trainer, module):
        self.at("end", trainer)


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("batch", 7),
        ("validation", 2),
        ("validation", 5),
        ("validation", 15),
        ("epoch end", 5),
        ("epoch end", 15),
        ("end", 15),
    ],
)
def test_a_signal_at_any_moment_loses_nothing(tmp_path, moment, step):
    settings = {"val_check_interval": 0.4}
    whole = fit(tmp_path / "whole", [Callback()], **settings)
    with pytest.raises(SystemExit, match="143"):
        fit(tmp_path / "part", [Signals(moment, step)], **settings)
    assert_equal_runs(whole, fit(tmp_path / "part", [Callback()], resume="last", **settings))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# Real processes, stopped from outside

SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import audiotrain
from toy import *
from audiotrain.train.callbacks import *
folder, resume, pause = sys.argv[2], sys.argv[3], float(sys.argv[4])
workers, kind, epochs = int(sys.argv[5]), sys.argv[6], int(sys.argv[7])

class Slow(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        print("step", trainer.global_step, flush=True)
        time.sleep(pause)

run = trainer(folder, max_epochs=epochs, callbacks=[Slow(), ModelCheckpoint(every_n_steps=2)])
train, val = loaders(num_workers=workers, worker_type=kind, persistent_workers=True)
run.fit(Classifier(), train, None if workers == 1 else val, ckpt_path=resume or None)
"""


def finish(process) -> None:
    _, told = process.communicate()
    assert process.returncode == 0, told


def start(folder, resume="", pause=0.0, workers=0, kind="thread", epochs=6) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, HELPERS, str(folder), resume]
    return subprocess.Popen(
        [*command, str(pause), str(workers), kind, str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for_step(process, step: int) -> None:
    while (line := process.stdout.readline()) and line.strip() != f"step {step}":
        pass
    assert line


def final_arrays(folder: Path, epochs: int = 6) -> dict:
    arrays, meta = checkpoint.load(folder / "checkpoints" / "last")
    assert meta["global_step"] == 5 * epochs
    flat = {f"{group}.{key}": a for group, found in arrays.items() for key, a in found.items()}
    return {key: np.array(array) for key, array in flat.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder))
    return final_arrays(folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_last_and_says_how_to_resume(tmp_path, uninterrupted, number, code):
    process = start(tmp_path, pause=0.02)
    wait_for_step(process, 8)
    process.send_signal(number)
    _, told = process.communicate()
    last = tmp_path / "checkpoints" / "last"
    assert process.returncode == code
    assert f'and saved; to continue: fit(..., ckpt_path="{last}")' in told
    assert "Traceback" not in told
    assert checkpoint.load_meta(last)["global_step"] >= 8
    finish(start(tmp_path, str(last), workers=2))
    assert same(final_arrays(tmp_path), uninterrupted)


def test_a_signal_without_a_validation_loader_saves_too(tmp_path):
    process = start(tmp_path, pause=0.02, workers=1)
    wait_for_step(process, 3)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert (tmp_path / "checkpoints" / "last").is_dir()


def test_a_second_ctrl_c_stops_now(tmp_path):
    process = start(tmp_path, pause=600)
    wait_for_step(process, 1)
    process.send_signal(signal.SIGINT)
    while "once more to stop now" not in (told := process.stderr.readline()):
        assert told, "ended by the first"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in told
    assert "saved" not in told


KILLS = 20
LONG = 40  # epochs: more steps than the kills can let pass
# How many of the killed processes load by what; processes take a while to start.
WORKERS = [(0, "thread")] * 6 + [(2, "thread")] * 5 + [(4, "thread")] * 5
WORKERS += [(2, "process")] * 2 + [(4, "process")] * 2


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL, continued in a new process, killed again, … ends as a run that nothing befell."""
    finish(start(tmp_path / "whole", epochs=LONG))
    whole = final_arrays(tmp_path / "whole", LONG)
    rng = random.Random(os.environ.get("AUDIOTRAIN_KILL_SEED", "1"))
    folder = tmp_path / "killed"
    last, done = folder / "checkpoints" / "last", 0
    for workers, kind in rng.sample(WORKERS, KILLS):
        resume = str(last) if done else ""
        process = start(folder, resume, 0.005, workers, kind, LONG)
        # Step 2 has written the first checkpoint, so that every process after the first continues.
        wait_for_step(process, done + rng.randint(1 if done else 3, 6))
        time.sleep(rng.uniform(0, 0.02))  # in a step, in a checkpoint, between two renames
        process.kill()
        _, told = process.communicate()
        assert process.returncode == -signal.SIGKILL, told
        before, done = done, checkpoint.load_meta(last)["global_step"]
        assert before <= done < 5 * LONG
        assert done > 0
    finish(start(folder, str(last), epochs=LONG))
    assert same(final_arrays(folder, LONG), whole)


def test_a_changed_learning_rate_is_said_on_resume(tmp_path):
    """The checkpoint's is used; a line says so."""

    class Constant(Classifier):
        def configure_optimizers(self):
            return OptimizerConfig(optim.SGD(learning_rate=0.1))

    first = trainer(tmp_path / "run", max_epochs=1, callbacks=[])
    first.fit(Constant(), *loaders())
    first.save_checkpoint(tmp_path / "saved")

    class Changed(Classifier):
        def configure_optimizers(self):
            return OptimizerConfig(optim.SGD(learning_rate=0.02))

    again = trainer(tmp_path / "other", max_epochs=2, callbacks=[])
    with pytest.warns(UserWarning, match="saved: its learning rate 0.1 is used, and not 0.02"):
        again.fit(Changed(), *loaders(), ckpt_path=tmp_path / "saved")
    assert again.current_learning_rate() == pytest.approx(0.1)
