"""What a continued run takes over from the one that was saved, beside weights and counters."""

import json
import os

import mlx.core as mx
import numpy as np
import pytest
from toy import Classifier, Line, Losses, Points, Scripted, fit_on, loaders, same, trainer, weights

from audiotrain import DataLoader
from audiotrain.train import checkpoint
from audiotrain.train.callbacks import Callback, EarlyStopping, ModelCheckpoint
from audiotrain.train.data.samplers import WeightedRandomSampler


class Freezes(Classifier):
    """Trains its first layer for one epoch only."""

    def on_train_epoch_start(self, epoch):
        if epoch == 1:
            self.first.freeze()


class Unfreezes(Classifier):
    """Trains its frozen layer from the second epoch on."""

    def on_train_epoch_start(self, epoch):
        if epoch == 1:
            self.frozen.unfreeze()


class Rests(Classifier):
    """Leaves batch norm's statistics alone from the second epoch on."""

    def on_train_epoch_start(self, epoch):
        if epoch == 1:
            self.norm.eval()


def epochs(kind, folder, number, resume=None, **settings):
    run = trainer(folder, max_epochs=number, **settings)
    run.fit(kind(), *loaders(), ckpt_path=resume)
    return run


@pytest.mark.parametrize("kind", [Freezes, Unfreezes, Rests])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_what_was_frozen_or_set_to_eval_on_the_way(tmp_path, kind, stop):
    whole = epochs(kind, tmp_path / "whole", 4)
    epochs(kind, tmp_path / "part", stop)
    again = epochs(kind, tmp_path / "part", 4, resume="last")
    assert same(weights(again.module), weights(whole.module))


class Looks(Callback):
    """Takes a batch of the training loader for itself, and stops at a step."""

    def __init__(self, stop=None):
        self.stop = stop

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        next(iter(trainer.train_loader))
        if trainer.global_step == self.stop:
            trainer.save_checkpoint(trainer.default_root_dir / "here")
            raise ZeroDivisionError


def test_what_was_trained_counts_whoever_else_reads_the_loader(tmp_path):
    whole = trainer(tmp_path / "whole", max_epochs=3, callbacks=[Looks()])
    whole.fit(Classifier(), *loaders())
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, max_epochs=3, callbacks=[Looks(7)]).fit(Classifier(), *loaders())
    again = trainer(tmp_path / "again", max_epochs=3, callbacks=[Looks()])
    again.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "here")
    assert same(weights(again.module), weights(whole.module))


def test_one_loader_for_training_and_validation(tmp_path):
    def fit(folder, saver=None, resume=None):
        loader, _ = loaders()
        run = trainer(folder, max_epochs=2, val_check_interval=0.4, callbacks=saver)
        run.fit(Classifier(), loader, loader, ckpt_path=resume)
        return run

    whole = fit(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, saver=[Looks(3)])
    again = fit(tmp_path / "again", resume=tmp_path / "here")
    assert same(weights(again.module), weights(whole.module))
    assert again.history.rows[-1]["val_loss"] == whole.history.rows[-1]["val_loss"]


def test_best_continues_from_the_best_checkpoint(tmp_path):
    saver = ModelCheckpoint(monitor="val_loss", save_top_k=1)
    run = trainer(tmp_path, max_epochs=2, callbacks=[saver])
    run.fit(Classifier(), *loaders())
    best = json.loads((saver.best_model_path / "state.json").read_text())["meta"]
    run.max_epochs = 3
    run.fit(Classifier(), *loaders(), ckpt_path="best")
    assert [row["epoch"] for row in run.history.rows] == [0, 1, 2][: best["epoch"]] + [
        epoch for epoch in (0, 1, 2) if epoch >= best["epoch"]
    ]


class LogsAtEnds(Classifier):
    def on_train_epoch_end(self, epoch, metrics):
        self.log("extra", 10.0 * epoch)
        assert "val_loss" in metrics

    def on_train_end(self):
        self.log("closing", 1.0)


class LogsToo(Callback):
    def on_validation_end(self, trainer, module):
        trainer.record("seen", trainer.global_step)


def test_what_hooks_log_at_an_epochs_end_is_in_its_row(tmp_path):
    def fit(folder, number, resume=None):
        saver = ModelCheckpoint(monitor="extra", mode="max", filename="{extra:.0f}")
        run = trainer(folder, max_epochs=number, callbacks=[LogsToo(), saver])
        run.fit(LogsAtEnds(), *loaders(), ckpt_path=resume)
        return run

    whole = fit(tmp_path / "whole", 3)
    assert whole.history.lists()["extra"] == [0, 10, 20]
    assert whole.history.lists()["seen"] == [5, 10, 15]
    assert whole.history.lists()["closing"] == [None, None, 1]
    assert whole.checkpoint_callback.best_model_path.name == "20"
    fit(tmp_path / "part", 2)
    again = fit(tmp_path / "part", 3, resume="last")
    assert again.history.lists()["extra"] == [0, 10, 20]
    assert again.history.lists()["seen"] == [5, 10, 15]
    assert "20.0" in (tmp_path / "part/metrics.csv").read_text()


def trained_further(tmp_path):
    """A run with averages, beyond the checkpoint "early"; and the loss of that."""
    train, val = loaders()
    run = trainer(tmp_path, max_epochs=2, ema_decay=0.9)
    run.fit(Classifier(), train, val)
    run.save_checkpoint(tmp_path / "early")
    expected = run.test(run.module, val)["test_loss"]
    run.max_epochs = 6
    run.fit(run.module, train, val, ckpt_path=tmp_path / "early")
    assert run.test(run.module, val)["test_loss"] != expected
    return run, val, expected


def test_loaded_weights_are_the_ones_tested(tmp_path):
    run, val, expected = trained_further(tmp_path)
    run.load_checkpoint(tmp_path / "early")
    assert run.test(run.module, val)["test_loss"] == expected
    other = trainer(tmp_path / "other")
    other.load_checkpoint(tmp_path / "early")
    assert other.test(Classifier(seed=5), val)["test_loss"] == expected


def test_weights_put_into_the_module_by_hand_are_the_ones_tested(tmp_path):
    run, val, expected = trained_further(tmp_path)
    checkpoint.load_weights(run.module, tmp_path / "early")
    assert run.test(run.module, val)["test_loss"] == expected


class Breaks(Callback):
    def __init__(self, batch, begun=False):
        self.batch, self.begun = batch, begun

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.begun and trainer.current_epoch == 1 and batch_idx == self.batch:
            raise ZeroDivisionError

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if not self.begun and trainer.current_epoch == 1 and batch_idx == self.batch:
            raise ZeroDivisionError


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("begun", [True, False])
def test_saved_on_exception_loses_no_batch(tmp_path, accumulated, begun):
    settings = {"max_epochs": 3, "accumulate_grad_batches": accumulated}
    whole = trainer(tmp_path / "whole", **settings)
    whole.fit(Classifier(), *loaders())
    saver = ModelCheckpoint(save_on_exception=True)
    run = trainer(tmp_path, callbacks=[Breaks(2, begun), saver], **settings)
    with pytest.raises(ZeroDivisionError):
        run.fit(Classifier(), *loaders())
    again = trainer(tmp_path, **settings)
    again.fit(Classifier(), *loaders(), ckpt_path="last")
    assert same(weights(again.module), weights(whole.module))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dataset": Points(38)}, "samples is 38, .* inside an epoch with samples 40"),
        ({"shuffle": False}, "shuffle is False, .* with shuffle True"),
        (
            {"shuffle": False, "sampler": WeightedRandomSampler(np.ones(40), 40)},
            "shuffle is False|sampler is WeightedRandomSampler",
        ),
    ],
)
def test_another_order_inside_an_epoch_is_refused(other, message):
    settings = {"dataset": Points(40), "batch_size": 8, "shuffle": True}
    loader = DataLoader(**settings)
    state = loader.state_after(0, 3)
    with pytest.raises(ValueError, match=message):
        DataLoader(**(settings | other)).load_state_dict({"sampler_seed": 0} | state)
    DataLoader(**(settings | other)).load_state_dict({"sampler_seed": 0} | loader.state_after(1, 0))


def test_a_run_that_stopped_at_nan_stays_stopped(tmp_path):
    stopping = EarlyStopping(patience=9)
    run = fit_on(tmp_path, [2.0, np.nan, 1.0, 0.5], stopping)
    assert run.current_epoch == 2
    again = trainer(tmp_path, callbacks=[EarlyStopping(patience=9)], max_epochs=4)
    data = [mx.ones((2, 2))] * 2
    again.fit(Scripted(), data, Losses([1.0, 0.5, 0.2]), ckpt_path="last")
    assert again.current_epoch == 2


def test_skipped_batches_in_a_row_go_on_counting(tmp_path):
    data = [mx.full((1, 2), v) for v in (1.0, np.nan, np.nan, np.nan, np.nan)]
    settings = {"max_skipped_steps": 4, "limit_train_batches": 5}

    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "here")
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callbacks=[Stop()], **settings).fit(Line(), data)
    with pytest.raises(ValueError, match="4 batches in a row, from step 1 of epoch 0"):
        trainer(tmp_path, **settings).fit(Line(), data, ckpt_path=tmp_path / "here")


def test_an_averages_loss_is_told(tmp_path):
    trainer(tmp_path, ema_decay=0.9).fit(Classifier(), *loaders())
    run = trainer(tmp_path, max_epochs=2)
    with pytest.warns(UserWarning, match="its running average is left out, ema_decay is None"):
        run.fit(Classifier(), *loaders(), ckpt_path="last")


def test_accumulation_left_off_inside_a_group_is_told(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.group == 1:
                trainer.save_checkpoint(tmp_path / "here")
                raise ZeroDivisionError

    run = trainer(tmp_path, accumulate_grad_batches=2, callbacks=[Stop()])
    with pytest.raises(ZeroDivisionError):
        run.fit(Classifier(), *loaders())
    with pytest.raises(ValueError, match="after 1 accumulated batches, but accumulate_grad_b"):
        trainer(tmp_path).fit(Classifier(), *loaders(), ckpt_path=tmp_path / "here")


def test_the_next_validation_is_not_missed(tmp_path):
    settings = {"max_epochs": 1, "val_check_interval": 0.3, "accumulate_grad_batches": 4}

    def steps(run):
        return [row["step"] for row in run.history.log if "val_loss" in row]

    whole = trainer(tmp_path / "whole", **settings)
    whole.fit(Classifier(), *loaders(80))

    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 2:
                trainer.save_checkpoint(tmp_path / "here")
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callbacks=[Stop()], **settings).fit(Classifier(), *loaders(80))
    again = trainer(tmp_path / "again", **settings)
    again.fit(Classifier(), *loaders(80), ckpt_path=tmp_path / "here")
    assert steps(again) == steps(whole)
    assert steps(whole)


@pytest.mark.parametrize("damage", ["header", "position"])
def test_damaged_checkpoints_are_named(tmp_path, damage):
    trainer(tmp_path).fit(Classifier(), *loaders())
    folder = tmp_path / "checkpoints/last"
    if damage == "header":
        file = folder / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[8:40] = b"\xff" * 32
        file.write_bytes(content)
        message = "model.safetensors: damaged"
    else:
        state = json.loads((folder / "state.json").read_text())
        del state["meta"]["skipped_run"]
        (folder / "state.json").write_text(json.dumps(state))
        message = "last: no 'skipped_run' in state.json"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        trainer(tmp_path, max_epochs=2).fit(Classifier(), *loaders(), ckpt_path="last")


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    left = tmp_path / "checkpoints/.last.writing-999999"
    mine = tmp_path / f"checkpoints/.last.writing-{os.getppid()}"
    for folder in (left, mine):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    trainer(tmp_path).fit(Classifier(), *loaders())
    assert not left.exists()
    assert mine.exists()  # that process lives


def test_validations_hear_the_same_batches_whatever_the_loader_shuffles(tmp_path):
    seen = []

    class Sees(Callback):
        def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(np.array(batch["x"]))

    run = trainer(tmp_path, max_epochs=2, callbacks=[Sees()])
    run.fit(Classifier(), loaders()[0], DataLoader(Points(24), batch_size=8, shuffle=True))
    assert len(seen) == 6
    assert all(np.array_equal(one, other) for one, other in zip(seen[:3], seen[3:], strict=True))
