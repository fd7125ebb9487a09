import math

import mlx.core as mx
import pytest
from toy import Classifier, Losses, Scripted, fit_on, loaders, trainer

from audiotrain.train import checkpoint
from audiotrain.train.callbacks import Callback, EarlyStopping, ModelCheckpoint


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_best_are_kept_and_last_is_its_own(tmp_path):
    losses = [5.0, 3.0, 4.0, 2.0, 6.0]
    saver = ModelCheckpoint(
        tmp_path / "own", "model-{epoch:02d}-{val_loss:.2f}", monitor="val_loss", save_top_k=2
    )
    fit_on(tmp_path, losses, saver)
    assert names(tmp_path / "own") == ["last", "model-01-3.00", "model-03-2.00"]
    assert saver.best_model_path == tmp_path / "own" / "model-03-2.00"
    assert saver.best_model_score == 2.0
    assert checkpoint.load_meta(saver.best_model_path)["history"]["rows"][-1]["val_loss"] == 2.0
    assert checkpoint.load_meta(tmp_path / "own" / "last")["epoch"] == 5


@pytest.mark.parametrize(
    ("mode", "best", "k", "kept"),
    [("min", 1.0, 1, 1), ("max", 6.0, 1, 1), ("max", 6.0, -1, 5), ("min", 1.0, 3, 3)],
)
def test_a_fixed_name_still_means_the_best(tmp_path, mode, best, k, kept):
    saver = ModelCheckpoint(tmp_path, "best", "val_loss", mode, save_last=False, save_top_k=k)
    fit_on(tmp_path / "run", [5.0, 1.0, 6.0, 2.0, 3.0], saver)
    meta = checkpoint.load_meta(saver.best_model_path)
    assert meta["history"]["rows"][-1]["val_loss"] == best
    assert len([name for name in names(tmp_path) if name.startswith("best")]) == kept


class Grades(Scripted):
    """Its validation accuracy is its batch."""

    def validation_step(self, batch):
        return 1 - batch, {"accuracy": batch}


@pytest.mark.parametrize(
    ("grades", "epochs", "best"),
    [
        ([0.1, 0.4, 0.3, 0.5], 4, [1, 3]),
        ([0.1, 0.4, 0.4004, 0.4008, 0.9], 4, [2, 3]),  # 0.001 more is an improvement
        ([0.1, 0.4, 0.402, 0.404, 0.9], 5, [3, 4]),
    ],
)
def test_accuracies_are_monitored_as_the_larger_the_better(tmp_path, grades, epochs, best):
    saver = ModelCheckpoint(
        tmp_path / "own", "{epoch}", monitor="val_accuracy", mode="max", save_top_k=2
    )
    stopping = EarlyStopping("val_accuracy", 2, min_delta=0.001, mode="max", verbose=False)
    run = trainer(tmp_path, callbacks=[saver, stopping], max_epochs=len(grades))
    run.fit(Grades(), [mx.ones((2, 2))] * 2, Losses(grades))
    assert names(tmp_path / "own") == [*map(str, best), "last"]
    assert saver.best_model_score == pytest.approx(max(grades[:epochs]))
    assert run.current_epoch == epochs


class Tied(Callback):
    """Records the same score at each validation."""

    def on_validation_end(self, trainer, module):
        trainer.record("val_score", 1.0)


@pytest.mark.parametrize(
    ("losses", "best"), [([3.0, 1.0, 2.0, 4.0], 1), ([0.0, 0.0, 0.0], 2), ([2.0, 1.0, 1.0], 2)]
)
def test_the_lower_loss_and_then_the_later_step_decide_between_equals(tmp_path, losses, best):
    saver = ModelCheckpoint(tmp_path, "best", "val_score", "max", save_top_k=1, tie="val_loss")
    stopping = EarlyStopping("val_score", 2, mode="max", tie="val_loss", verbose=False)
    run = fit_on(tmp_path / "run", losses, Tied(), saver, stopping)
    assert checkpoint.load_meta(saver.best_model_path)["history"]["rows"][-1]["epoch"] == best
    assert stopping.wait_count == min(2, len(losses) - 1 - losses.index(min(losses)))
    again = ModelCheckpoint(tmp_path, "best", "val_score", "max", save_top_k=1, tie="val_loss")
    again.resumable = tmp_path
    again.load_state_dict(saver.state_dict())
    assert again.kept == saver.kept
    assert len(run.history.rows) == len(losses)


def test_nan_is_never_the_best(tmp_path):
    saver = ModelCheckpoint(tmp_path, "{val_loss:.1f}", "val_loss", save_top_k=1)
    fit_on(tmp_path / "run", [math.nan, 2.0, math.nan], saver)
    assert names(tmp_path) == ["2.0", "last", "run"]


def test_checkpoints_of_an_older_run_are_left_alone(tmp_path):
    for _ in range(2):
        saver = ModelCheckpoint(tmp_path / "own", "best", "val_loss", save_top_k=1)
        fit_on(tmp_path, [2.0, 1.0], saver)
    assert names(tmp_path / "own") == ["best", "best-v1", "last", "last-v1"]
    assert saver.best_model_path.name == "best-v1"


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [({"every_n_epochs": 2, "save_top_k": -1}, [1, 3, 4]), ({"save_top_k": -1}, [0, 1, 2, 3, 4])],
)
def test_how_often(tmp_path, settings, epochs):
    class Ends(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = trainer.current_epoch == 4

    saver = ModelCheckpoint(tmp_path, "{epoch}", "val_loss", save_last=False, **settings)
    fit_on(tmp_path / "run", [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], Ends(), saver)
    assert names(tmp_path) == [*map(str, epochs), "run"]


def test_every_n_steps_without_a_monitor_keeps_the_newest(tmp_path):
    saver = ModelCheckpoint(tmp_path / "own", "{step}", every_n_steps=2, save_top_k=2)
    run = trainer(tmp_path, callbacks=[saver], max_steps=7)
    run.fit(Classifier(), loaders()[0])
    assert names(tmp_path / "own") == ["6", "7", "last"]


def test_inside_an_epoch_after_each_validation(tmp_path):
    saver = ModelCheckpoint(tmp_path / "own", "{step}-{val_loss:.0f}", "val_loss", save_top_k=2)
    data = [mx.ones((2, 2))] * 4
    run = trainer(tmp_path, callbacks=[saver], val_check_interval=0.25)
    run.fit(Scripted(), data, Losses([4.0, 1.0, 3.0, 2.0]))
    assert names(tmp_path / "own") == ["2-1", "4-2", "last"]


def test_without_a_validation_loader_last_is_saved(tmp_path):
    run = trainer(tmp_path, callbacks=[ModelCheckpoint(monitor="val_loss")])
    with pytest.warns(UserWarning, match="no validation loader, so no val_loss"):
        run.fit(Classifier(), loaders()[0])
    assert names(tmp_path / "checkpoints") == ["last"]


def test_training_metrics_can_be_monitored(tmp_path):
    saver = ModelCheckpoint(monitor="train_accuracy", mode="max", filename="{train_accuracy:.3f}")
    run = trainer(tmp_path, callbacks=[saver], max_epochs=3)
    run.fit(Classifier(), loaders()[0])
    assert saver.best_model_score == max(row["train_accuracy"] for row in run.history.rows)


@pytest.mark.parametrize("callback", [ModelCheckpoint, EarlyStopping])
def test_a_monitor_that_does_not_exist_lists_those_that_do(tmp_path, callback):
    message = f"{callback.__name__}: no metric 'val_f1', there are .*train_loss, val_loss"
    with pytest.raises(ValueError, match=message):
        fit_on(tmp_path, [1.0], callback(monitor="val_f1"))


def test_an_unknown_name_in_the_filename_lists_those_that_exist(tmp_path):
    saver = ModelCheckpoint(monitor="val_loss", filename="{val_f1:.2f}")
    with pytest.raises(ValueError, match="uses 'val_f1', there are epoch, learning_rate"):
        fit_on(tmp_path, [1.0], saver)


def test_any_metric_can_be_in_the_filename(tmp_path):
    class Model(Scripted):
        def validation_step(self, batch):
            return batch, {"root/f1": batch / 4, "root.recall": batch / 8}

    name = "{epoch:02d}-{step}-{val_root/f1:.2f}-{val_root.recall:.3f}-{learning_rate:.0e}"
    saver = ModelCheckpoint(tmp_path / "own", name, "val_root/f1", save_last=False)
    run = trainer(tmp_path, callbacks=[saver])
    run.fit(Model(), [mx.ones((2, 2))] * 2, Losses([1.0]))
    assert names(tmp_path / "own") == ["00-2-0.25-0.125-1e+00"]


def test_a_format_that_does_not_fit_names_the_filename(tmp_path):
    saver = ModelCheckpoint(monitor="val_loss", filename="{val_loss:d}")
    with pytest.raises(ValueError, match="filename '{val_loss:d}': Unknown format code 'd'"):
        fit_on(tmp_path, [1.0], saver)


def test_checkpointing_can_be_switched_off_and_is_on_by_default(tmp_path):
    fit_on(tmp_path / "on", [1.0])
    fit_on(tmp_path / "off", [1.0], enable_checkpointing=False)
    assert names(tmp_path / "on" / "checkpoints") == ["last"]
    assert not (tmp_path / "off" / "checkpoints").exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_saving_on_an_exception(tmp_path, wanted):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 3:
                raise ZeroDivisionError

    run = trainer(tmp_path, callbacks=[Breaks(), ModelCheckpoint(save_on_exception=wanted)])
    with pytest.raises(ZeroDivisionError):
        run.fit(Classifier(), *loaders())
    assert (tmp_path / "checkpoints" / "last").exists() == wanted
    if wanted:
        assert checkpoint.load_meta(tmp_path / "checkpoints" / "last")["global_step"] == 3


def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path, monkeypatch):
    def full(file, arrays):
        raise OSError(28, "No space left on device")

    class Fills(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                monkeypatch.setattr(checkpoint, "_write_arrays", full)

    saver = ModelCheckpoint(tmp_path / "own", "{epoch}", "val_loss")
    with pytest.raises(ValueError, match="cannot write the checkpoint .No space left on device"):
        fit_on(tmp_path, [2.0, 1.0], saver, Fills())
    assert names(tmp_path / "own") == ["0", "last"]
    assert saver.best_model_path.name == "0"
    assert checkpoint.load_meta(tmp_path / "own" / "last")["epoch"] == 1
