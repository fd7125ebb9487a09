"""Users' mistakes are reported in one line, and destroy nothing that was there before."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Line, Scripted, loaders, same, trainer, weights

from audiotrain import DataLoader
from audiotrain.train import checkpoint, run_folder
from audiotrain.train.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateScheduler,
    MetricsLogger,
    ModelCheckpoint,
)
from audiotrain.train.checkpoint import CheckpointError
from audiotrain.train.losses import masked_cross_entropy
from audiotrain.train.run_folder import only_run_in

HELPERS = str(Path(__file__).parents[1] / "helpers")


class Takes(Line):
    """Takes a dict with x, or a pair with x first; of any type."""

    def compute_loss(self, batch):
        x = batch["x"] if isinstance(batch, dict) else batch[0]
        return mx.mean(mx.sum(self.w * x, axis=-1)), {}


@pytest.mark.parametrize("compiled", [True, False])
def test_batches_may_change_their_structure_and_type(tmp_path, compiled):
    x = np.array([[1, 2]])
    kinds = [{"x": x.astype(np.float32)}, (x, 0), {"x": x.astype(np.float16), "more": 1}]
    model = Takes()
    run = trainer(tmp_path, compile=compiled)
    run.fit(model, kinds * 2)
    assert model.w.tolist() == [-6.0, -12.0]
    assert run.trace_count == (3 if compiled else 6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("batch", "note"),
    [
        ({"y": mx.ones((1, 2))}, r"batch['x'] was (1, 2) float32, then not there"),
        ({"x": mx.ones((1, 3))}, "batch['x'] was (1, 2) float32, then (1, 3) float32"),
    ],
)
def test_an_error_says_how_its_batch_is_unlike_the_others(tmp_path, batch, note, compiled):
    model = Takes()
    with pytest.raises((KeyError, ValueError)) as error:
        trainer(tmp_path, compile=compiled).fit(model, [{"x": mx.ones((1, 2))}, batch])
    assert error.value.__notes__ == [f"this batch differs from the batches before: {note}"]
    assert model.w.tolist() == [-1.0, -1.0]  # the good batch is learned


def test_an_error_of_the_first_batch_has_no_note(tmp_path):
    with pytest.raises(KeyError) as error:
        trainer(tmp_path).fit(Takes(), [{"y": mx.ones((1, 2))}])
    assert not hasattr(error.value, "__notes__")


def test_a_generator_validates_whole_or_is_refused(tmp_path):
    def losses():
        return (mx.array(float(number)) for number in range(4))

    data = [mx.ones((1, 2))]
    run = trainer(tmp_path, num_sanity_val_steps=2)
    run.fit(Scripted(), data, losses())
    assert run.history.rows[0]["val_loss"] == 1.5  # the sanity check took none of them
    with pytest.raises(ValueError, match="val loader gave no batch: .* that is exhausted"):
        trainer(tmp_path, max_epochs=2).fit(Scripted(), data, losses())


@pytest.mark.parametrize(
    ("train", "val", "settings", "message"),
    [
        ([], None, {}, "train_loader has no batch"),
        (DataLoader([1.0, 2.0], 3, drop_last=True), None, {}, "train_loader has no batch"),
        ([mx.ones((1, 2))], None, {"limit_train_batches": 0}, "limit_train_batches is 0"),
        ([mx.ones((1, 2))], [], {}, "val_loader has no batch: give None to train without"),
        (None, None, {}, "train_loader is a NoneType, expected a DataLoader or other batches"),
        ([mx.ones((1, 2))], 3, {}, "val_loader is a int, expected a DataLoader or other batches"),
    ],
)
def test_loaders_without_batches_are_refused_before_anything_is_asked(
    tmp_path, train, val, settings, message
):
    class Asked(Line):
        def configure_optimizers(self):
            raise AssertionError("a schedule of no steps would complain first")

    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **settings).fit(Asked(), train, val)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [4, 400, 2**31 - 1])
def test_labels_that_are_no_class_are_not_learned(tmp_path, bad):
    class Judged(Classifier):
        def compute_loss(self, batch):
            return masked_cross_entropy(self(batch["x"]), batch["y"]), {}

    x = np.random.default_rng(0).normal(size=(5, 4, 8)).astype(np.float32)
    right, wrong = np.array([0, 1, 2, 0]), np.array([0, 1, bad, 0])
    data = [{"x": row, "y": wrong if number in (1, 3) else right} for number, row in enumerate(x)]
    model, clean = Judged(dropout=0.0), Judged(dropout=0.0)
    run = trainer(tmp_path)
    run.fit(model, data)
    trainer(tmp_path).fit(clean, [data[number] for number in (0, 2, 4)])
    assert run.skipped_steps == 2
    assert same(weights(model), weights(clean))
    with pytest.raises(ValueError, match="check the data and its labels$") as error:
        trainer(tmp_path, max_epochs=9, max_skipped_steps=2).fit(Judged(), [data[1]])
    assert "\n" not in str(error.value)


def test_what_is_logged_is_one_number(tmp_path):
    class Model(Line):
        def on_train_epoch_start(self, epoch):
            self.log("weights", self.w)

    with pytest.raises(ValueError, match=r"weights has shape \(2,\), expected one number"):
        trainer(tmp_path).fit(Model(), [mx.ones((1, 2))])


# Checkpoints


def test_a_checkpoint_of_another_optimizer_or_version_is_one_line(tmp_path):
    trainer(tmp_path).fit(Classifier(), *loaders())
    last = tmp_path / "checkpoints" / "last"
    other = Classifier(lambda: optim.SGD(learning_rate=0.1))
    before = weights(other)
    with pytest.raises(CheckpointError, match=r"\(optimizer\) does not fit.* unexpected:") as error:
        trainer(tmp_path / "other").fit(other, *loaders(), ckpt_path=last)
    assert "\n" not in str(error.value)
    state = json.loads((last / "state.json").read_text())
    for version in (0, 2, "beta"):
        (last / "state.json").write_text(json.dumps(state | {"format": version}))
        with pytest.raises(CheckpointError, match=f"format {version!r}, expected 1$"):
            trainer(tmp_path / "other").fit(other, *loaders(), ckpt_path=last)
    assert same(before, weights(other))


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import audiotrain
from toy import *

def fit(**settings):
    run = trainer(sys.argv[2], logger=False, **settings)
    run.fit(Classifier(), *loaders(), ckpt_path=settings.get("max_epochs") and "last")

fit(max_steps=5)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    fit(max_epochs=2)
except ValueError as error:
    print(error)
"""


def test_a_disk_that_is_full_while_training_keeps_the_last_checkpoint(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, HELPERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "last: cannot write the checkpoint" in done.stdout
    assert done.stdout.count("\n") == 1
    model = Classifier()
    run = trainer(tmp_path, max_epochs=2, logger=False)
    run.fit(model, *loaders(), ckpt_path="last")
    whole = Classifier()
    trainer(tmp_path / "whole", max_epochs=2).fit(whole, *loaders())
    assert same(weights(model), weights(whole))


# Run folders


class Meanwhile(Callback):
    """Starts another run while one is under way."""

    def __init__(self, folder, **settings):
        self.run, self.model = trainer(folder, **settings), Line()

    def on_train_start(self, trainer, module):
        self.run.fit(self.model, [mx.ones((1, 2))])


def test_two_runs_in_one_folder_are_refused(tmp_path):
    first = Line()
    with pytest.raises(ValueError, match="another run is writing here, give each") as error:
        trainer(tmp_path, callbacks=[Meanwhile(tmp_path)]).fit(first, [mx.ones((1, 2))])
    assert str(error.value).startswith(f"default_root_dir {tmp_path}: ")
    # The second run touched nothing of the first, which ended by that error.
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    trainer(tmp_path).fit(Line(), [mx.ones((1, 2))])  # the first one has ended
    trainer(tmp_path).fit(Line(), [mx.ones((1, 2))])


@pytest.mark.parametrize("settings", [{}, {"fast_dev_run": True}])
def test_runs_that_write_nowhere_or_elsewhere_are_not(tmp_path, settings):
    other = Meanwhile(tmp_path if settings else tmp_path / "other", **settings)
    trainer(tmp_path, callbacks=[other]).fit(Line(), [mx.ones((1, 2))])
    assert other.model.w.tolist() == [-1.0, -1.0]


def test_a_run_that_was_killed_holds_no_folder(tmp_path):
    code = (
        "import os, pathlib, sys; from audiotrain.train.run_folder import only_run_in\n"
        "with only_run_in({pathlib.Path(sys.argv[1]): ''}): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    trainer(tmp_path).fit(Line(), [mx.ones((1, 2))])


def test_a_new_folder_that_a_run_left_empty_goes_again(tmp_path):
    inner = tmp_path / "new" / "run" / "checkpoints"
    with only_run_in({inner: "dirpath", inner.parent: "--output", tmp_path: "--cache"}):
        assert inner.is_dir()
    assert list(tmp_path.iterdir()) == []
    with only_run_in({tmp_path / "new": "--output"}):
        (tmp_path / "new" / "split.json").touch()
    with only_run_in({tmp_path / "new": "--output"}):
        (tmp_path / "new" / "split.json").unlink()
    assert (tmp_path / "new").is_dir()  # it was there before


def test_a_folder_that_went_before_it_was_held_is_made_again(tmp_path, monkeypatch):
    """By a run that left it empty, between this one's opening it and its lock."""
    folder, locks = tmp_path / "new", []

    def late(handle, operation):
        if not locks:
            folder.rmdir()
        locks.append(handle)

    monkeypatch.setattr(run_folder.fcntl, "flock", late)
    with only_run_in({folder: "--output"}):
        assert folder.is_dir()
    assert len(locks) == 2


def test_a_name_that_cannot_be_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r"--output .*: cannot write \(File name too long\)"):
        with only_run_in({tmp_path / ("x" * 300): "--output"}):
            pass


def test_a_run_folder_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="default_root_dir .*file: is a file, expected a folder"):
        trainer(tmp_path / "file").fit(Line(), [mx.ones((1, 2))])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_wrong_precision_is_named(tmp_path):
    with pytest.raises(ValueError, match="found '16-mixed', expected one of 32-true, bf16-mixed"):
        trainer(tmp_path, precision="16-mixed")


def test_a_checkpoint_folder_of_another_kind_is_reported(tmp_path):
    (tmp_path / "last").mkdir()
    with pytest.raises(CheckpointError, match="last: no checkpoint here"):
        trainer(tmp_path).fit(Line(), [mx.ones((1, 2))], ckpt_path=tmp_path / "last")
    with pytest.raises(CheckpointError, match="nowhere: no checkpoint here"):
        checkpoint.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": None}, "seed: found None, expected a whole number, 0 or more"),
        ({"seed": -1}, "seed=-1, expected 0 or more"),
        ({"max_steps": True}, "max_steps: found 'true', expected a whole number"),
        ({"num_sanity_val_steps": None}, "num_sanity_val_steps: found None"),
        ({"val_check_interval": "0.5"}, "val_check_interval: found '0.5', expected a share"),
        ({"val_check_interval": 5, "check_val_every_n_epoch": 2}, "counts steps, expected one"),
        ({"limit_val_batches": "all"}, "limit_val_batches: found 'all', expected 0 or more"),
        ({"gradient_clip_val": "1"}, "gradient_clip_val: found '1', expected a number"),
        ({"ema_decay": "x"}, "ema_decay: found 'x', expected a number, 0 or more"),
        ({"callbacks": [EarlyStopping]}, "callbacks: the class EarlyStopping, expected an object"),
        ({"callbacks": ["x"]}, "callbacks: found 'x', expected a Callback"),
        ({"logger": "csv"}, "logger: found 'csv', expected a Logger"),
        ({"config": {"data": Path("x")}}, "config.data is a PosixPath, expected plain data"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelCheckpoint(monitor=3), "monitor is 3, expected the name of a metric"),
        (lambda: LearningRateScheduler(3), "schedule is 3, expected a function"),
        (lambda: DataLoader([1], cpu_transforms=3), "cpu_transforms is 3, expected a function"),
        (lambda: DataLoader([1], mlx_transforms=[3]), r"mlx_transforms is \[3\], expected a func"),
    ],
)
def test_parts_of_the_wrong_kind_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_json_cannot_hold_in_a_callbacks_state_is_named(tmp_path):
    class Counts(Callback):
        def state_dict(self):
            return {"seen": np.float32(1)}

    run = trainer(tmp_path, callbacks=[Counts()])
    with pytest.raises(ValueError, match=r"callbacks.Counts.1.seen is a float32, expected plain"):
        run.fit(Line(), [mx.ones((1, 2))])


@pytest.mark.parametrize("name", ["step", "epoch", "skipped_steps", "gradient_norm"])
def test_names_that_rows_have_already_are_refused(tmp_path, name):
    class Names(Line):
        def compute_loss(self, batch):
            return super().compute_loss(batch)[0], {name: mx.array(1.0)}

    with pytest.raises(ValueError, match=f"metric '{name}'"):
        trainer(tmp_path).fit(Names(), [mx.ones((1, 2))])


def test_an_error_of_a_callback_does_not_hide_the_users(tmp_path):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            raise ZeroDivisionError("mine")

        def on_exception(self, trainer, module, error):
            raise KeyError("second")

        def teardown(self, trainer, module):
            raise KeyError("third")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        trainer(tmp_path, callbacks=[Breaks()]).fit(Line(), [mx.ones((1, 2))])
    notes = caught.value.__notes__
    assert notes == ["then Breaks failed: 'second'", "then Breaks failed: 'third'"]


def test_a_batch_that_changes_its_type_is_reported_when_it_cannot_be_computed(tmp_path):
    x = mx.ones((2, 8))
    batches = [{"x": x, "y": mx.array([0, 1])}, {"x": x, "y": mx.array([0.0, 1.0])}]
    with pytest.raises((RuntimeError, ValueError)) as caught:
        trainer(tmp_path).fit(Classifier(), batches)
    assert any("differs from the batch before" in note for note in caught.value.__notes__)


def test_two_runs_may_not_share_a_folder_of_checkpoints(tmp_path):
    class Meanwhile(Callback):
        def on_train_batch_end(self, run, module, outputs, batch, batch_idx):
            saver = ModelCheckpoint(tmp_path / "shared")
            trainer(tmp_path / "second", callbacks=[saver]).fit(Line(), [mx.ones((1, 2))])

    saver = ModelCheckpoint(tmp_path / "shared")
    run = trainer(tmp_path / "first", callbacks=[Meanwhile(), saver])
    with pytest.raises(ValueError, match="dirpath .*shared: another run is writing here"):
        run.fit(Line(), [mx.ones((1, 2))])


def test_a_fresh_run_leaves_the_last_state_of_the_one_before(tmp_path):
    for epochs in (2, 1):
        trainer(tmp_path, max_epochs=epochs).fit(Line(), [mx.ones((1, 2))])
    places = (tmp_path / "checkpoints" / "last", tmp_path / "run-2" / "checkpoints" / "last")
    assert [checkpoint.load_meta(place)["epoch"] for place in places] == [2, 1]


def test_fast_dev_run_leaves_the_history_alone(tmp_path):
    trainer(tmp_path, max_epochs=3, callbacks=[MetricsLogger()]).fit(Line(), [mx.ones((1, 2))])
    before = (tmp_path / "history.json").read_text()
    run = trainer(tmp_path, fast_dev_run=True, callbacks=[MetricsLogger()])
    run.fit(Line(), [mx.ones((1, 2))])
    assert (tmp_path / "history.json").read_text() == before


def test_batches_that_are_dataclasses_weigh_as_much_as_they_hold(tmp_path):
    @dataclass
    class Batch:
        x: mx.array

    class Means(Line):
        def compute_loss(self, batch):
            return (self.w * batch.x).sum() * 0 + batch.x.mean(), {}

    batches = [Batch(mx.zeros((9, 2))), Batch(mx.ones((1, 2)))]
    assert trainer(tmp_path).validate(Means(), batches)["val_loss"] == pytest.approx(0.1)
