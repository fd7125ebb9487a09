import json
import math
from datetime import timedelta

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Line, loaders, same, trainer, weights

from audiotrain import OptimizerConfig, Trainer, TrainModule
from audiotrain.train.arguments import seconds
from audiotrain.train.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)


class Diary(Callback):
    """Notes what happens."""

    def __init__(self):
        self.notes = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.notes.append(("batch", trainer.current_epoch, batch_idx))

    def on_validation_end(self, trainer, module):
        self.notes.append(("validation", trainer.current_epoch, trainer.global_step))

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.notes.append(("validation batch", module.training, batch_idx))

    def of(self, kind):
        return [note[1:] for note in self.notes if note[0] == kind]


def fit(folder, model=None, data=None, **settings):
    diary = Diary()
    run = trainer(folder, callbacks=[diary, *settings.pop("callbacks", [])], **settings)
    run.fit(model or Classifier(), *(data or loaders()))
    return run, diary


def test_it_learns(tmp_path):
    run, _ = fit(tmp_path, data=loaders(count=200), max_epochs=8)
    assert run.history.rows[-1]["val_accuracy"] > 0.75
    assert [row["step"] for row in run.history.rows] == [25 * i for i in range(1, 9)]


def test_the_seed_fixes_the_run_and_another_changes_it(tmp_path):
    finals = [weights(fit(tmp_path, seed=seed)[0].module) for seed in (1, 1, 2)]
    assert same(finals[0], finals[1])
    assert not same(finals[0], finals[2])


# How long, how often


@pytest.mark.parametrize(
    ("settings", "steps", "epochs"),
    [
        ({"max_epochs": 3}, 15, 3),
        ({"max_steps": 7}, 7, 2),
        ({"max_steps": 7, "max_epochs": 1}, 7, 2),  # max_steps goes first
        ({"max_epochs": 2, "limit_train_batches": 3}, 6, 2),
        ({"max_epochs": 2, "limit_train_batches": 0.4}, 4, 2),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6, 2),
        ({"max_epochs": 2, "overfit_batches": 2}, 4, 2),
        ({"fast_dev_run": True}, 1, 1),
        ({"fast_dev_run": 2}, 2, 1),
    ],
)
def test_length_of_training(tmp_path, settings, steps, epochs):
    class Model(Classifier):
        def configure_optimizers(self):
            self.estimate.append(self.trainer.estimated_total_steps)
            return super().configure_optimizers()

    model = Model()
    object.__setattr__(model, "estimate", estimate := [])
    run, _ = fit(tmp_path, model, **settings)
    assert (run.global_step, len(run.history.rows)) == (steps, epochs)
    assert estimate == [steps]


def test_max_time_stops_and_validates(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "elapsed", lambda run: run.global_step / 8)  # eight steps a second
    run, diary = fit(tmp_path, max_time=0.9, max_epochs=9)
    assert run.global_step == 8
    assert "val_loss" in run.history.rows[-1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), (90, 90.0), (timedelta(minutes=2), 120.0), ("01:02:03:04", 93784.0)],
)
def test_max_time_units(given, expected):
    assert seconds(given) == expected


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [5, 10]),
        ({"val_check_interval": 0.5}, [2, 4, 5, 7, 9, 10]),
        ({"val_check_interval": 3}, [3, 6, 9, 10]),
        ({"val_check_interval": 5}, [5, 10]),
        ({"check_val_every_n_epoch": 2}, [10]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, [10, 15]),
        ({"limit_val_batches": 0}, []),
        ({"num_sanity_val_steps": 2}, [5, 10]),
        ({"val_check_interval": 0.5, "accumulate_grad_batches": 2}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_when_validation_runs(tmp_path, settings, steps):
    _, diary = fit(tmp_path, **({"max_epochs": 2} | settings))
    assert [step for _, step in diary.of("validation")] == steps


def test_sanity_check_runs_first_and_leaves_no_trace(tmp_path):
    run, diary = fit(tmp_path, num_sanity_val_steps=2)
    assert diary.notes[:2] == [("validation batch", False, 0), ("validation batch", False, 1)]
    plain, _ = fit(tmp_path, num_sanity_val_steps=0)
    assert same(weights(run.module), weights(plain.module))
    assert run.history.rows[0]["val_loss"] == plain.history.rows[0]["val_loss"]


def test_a_run_that_ends_inside_an_epoch_is_validated_there(tmp_path):
    run, diary = fit(tmp_path, max_steps=7)
    assert diary.of("validation")[-1] == (1, 7)
    assert run.history.rows[-1]["step"] == 7


def test_overfit_repeats_the_same_batches(tmp_path):
    class Spy(Callback):
        seen = []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.seen.append(np.array(batch["x"]).tobytes())

    run, diary = fit(tmp_path, overfit_batches=2, max_epochs=3, callbacks=[Spy()])
    assert Spy.seen[:2] == Spy.seen[2:4] == Spy.seen[4:]
    assert len(diary.of("validation batch")) == 6  # validated on the same two batches


def test_fast_dev_run_writes_nothing(tmp_path):
    callbacks = [ModelCheckpoint(tmp_path / "own"), EarlyStopping()]
    run, diary = fit(tmp_path, fast_dev_run=True, callbacks=callbacks)
    assert len(diary.of("batch")) == len(diary.of("validation batch")) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_callback_can_stop_the_run(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    run, _ = fit(tmp_path, max_epochs=5, callbacks=[Stop()])
    assert (run.global_step, run.current_epoch) == (3, 0)


# Loaders


def test_infinite_generators_train_with_max_steps(tmp_path):
    def endless():
        while True:
            yield mx.ones((2, 2))

    model = Line()
    fit(tmp_path, model, (endless(),), max_steps=4)
    assert model.w.tolist() == [-4.0, -4.0]


def test_a_used_up_generator_is_refused_clearly(tmp_path):
    generator = (mx.ones((2, 2)) for _ in range(3))
    with pytest.raises(ValueError, match="gave no batch in epoch 1: .* a generator"):
        fit(tmp_path, Line(), (generator,), max_epochs=2)
    with pytest.raises(ValueError, match="gave no batch in epoch 0"):
        fit(tmp_path, Line(), (iter([]),))


def test_what_a_loader_without_length_cannot_do_is_said(tmp_path):
    class Wants(Line):
        def configure_optimizers(self):
            self.trainer.estimated_total_steps  # noqa: B018
            return super().configure_optimizers()

    def generator():
        yield mx.ones((2, 2))

    with pytest.raises(ValueError, match="loader has no length: give max_steps"):
        fit(tmp_path, Wants(), (generator(),))
    with pytest.raises(ValueError, match="limit_train_batches is 0.5, a share"):
        fit(tmp_path, Line(), (generator(),), limit_train_batches=0.5)
    with pytest.raises(ValueError, match="val_check_interval is 0.5, a share"):
        fit(tmp_path, Line(), (generator(), [mx.ones((2, 2))]), val_check_interval=0.5)


# Numbers


class Mean(TrainModule):
    """Loss is the batch's mean, so that averages are known."""

    def __init__(self):
        super().__init__()
        self.w = mx.array(1.0)

    def compute_loss(self, batch):
        self.log("training_mode", float(self.training))
        return self.w * 0 + mx.mean(batch), {"largest": mx.max(batch)}

    def configure_optimizers(self):
        return Line().configure_optimizers()


def test_averages_are_weighted_by_batch_size(tmp_path):
    data = [mx.array([1.0, 2.0, 3.0]), mx.array([10.0])]
    run, _ = fit(tmp_path, Mean(), (data, data), log_every_n_steps=2)
    row = run.history.rows[0]
    assert row["val_loss"] == row["train_loss"] == run.history.log[0]["loss"] == 4.0
    assert row["val_largest"] == pytest.approx((3 * 3 + 10) / 4)
    assert (row["train_training_mode"], row["val_training_mode"]) == (1.0, 0.0)


class Graded(Mean):
    """Its metrics, and what it logs, are known from the batch."""

    def compute_loss(self, batch):
        loss, _ = super().compute_loss(batch)
        self.log("train_loss", loss)
        self.log_dict({"loss": loss, "share": mx.mean(batch > 2)})
        for stage in ("train", "val", "test"):
            self.log(f"{stage}_only", mx.max(batch))
        return loss, {"accuracy": mx.mean(batch == 10), "loss": loss}


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loss_may_be_logged_by_its_name_and_a_stage_by_its_prefix(tmp_path, compiled):
    data = [mx.array([1.0, 2.0, 3.0]), mx.array([10.0])], [mx.array([3.0, 10.0])]
    run, _ = fit(tmp_path, Graded(), data, compile=compiled, log_every_n_steps=2)
    row = run.history.rows[0]
    found = {name: row[name] for name in row if name.startswith(("train_", "val_"))}
    assert found == {
        "train_loss": 4.0,
        "train_accuracy": 0.25,
        "train_share": pytest.approx(0.5),
        "train_only": pytest.approx(19 / 4),
        "train_training_mode": 1.0,
        "val_loss": 6.5,
        "val_accuracy": 0.5,
        "val_share": 1.0,
        "val_only": 10.0,
        "val_training_mode": 0.0,
    }
    names = {"loss", "accuracy", "share", "only", "training_mode"}
    assert names == set(run.history.log[0]) & (names | set(found))
    tested = run.test(run.module, data[1])
    assert tested == {name.replace("val_", "test_"): row[name] for name in row if "val_" in name}


EQUAL = {
    "same gradient": mx.stop_gradient,
    "float32": lambda loss: (3.0 * loss) / 3.0,
    "float16": lambda loss: loss.astype(mx.float16),
    "bfloat16": lambda loss: loss.astype(mx.bfloat16),
}


class Copied(Mean):
    """Returns `change(loss)` under the name of the loss."""

    def __init__(self, name, change, logged=False):
        super().__init__()
        self.given = {"name": name, "change": change, "logged": logged}

    def compute_loss(self, batch):
        loss, _ = super().compute_loss(batch)
        number = {self.given["name"]: self.given["change"](loss)}
        if self.given["logged"]:
            self.log_dict(number)
        return loss, {"loss": loss} if self.given["logged"] else number


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("change", EQUAL)
def test_an_equal_number_under_the_losss_name_is_the_loss(tmp_path, change, compiled):
    data, seen = [mx.array([1.0, 2.0, 3.3]), mx.array([math.pi])], []

    class Keys(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            assert set(outputs) == set(outputs.numbers)
            seen.append((len(outputs), outputs["loss"]))

    module = Copied("loss", EQUAL[change])
    run, _ = fit(tmp_path, module, (data, data), compile=compiled, callbacks=[Keys()])
    row = run.history.rows[0]
    assert {name for name in row if "loss" in name} == {"train_loss", "val_loss"}
    assert row["val_loss"] == pytest.approx((6.3 + math.pi) / 4)
    assert seen == [(6, pytest.approx(2.1)), (6, pytest.approx(math.pi))]


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("name", ["loss", "train_loss"])
@pytest.mark.parametrize("logged", [True, False])
def test_another_number_under_the_losss_name_is_refused(tmp_path, name, logged, accumulated):
    module = Copied(name, lambda loss: 1.001 * loss, logged)
    message = rf"metric '{name}' is 2\.00\d*, but Copied.compute_loss returned a loss of 2, expect"
    data = ([2 * mx.ones((2,))] * 2,)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, module, data, accumulate_grad_batches=accumulated)


def test_another_number_under_the_losss_name_is_refused_in_a_validation(tmp_path):
    module = Copied("val_loss", lambda loss: loss + 1)
    message = "metric 'val_loss' is 2, but Copied.validation_step returned a loss of 1, expected"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, module, ([mx.ones((2,))], [mx.ones((2,))]))


def test_a_loss_that_is_nan_is_reported_for_itself(tmp_path):
    module = Copied("loss", mx.nan_to_num)
    with pytest.raises(ValueError, match="loss was NaN or infinite in 2 batches in a row"):
        fit(tmp_path, module, ([mx.array([math.nan])] * 2,), max_skipped_steps=2)


def test_dropout_and_batch_norm_rest_during_validation(tmp_path):
    model = Classifier(dropout=0.5)
    train, val = loaders()
    run, diary = fit(tmp_path, model, (train, val))
    assert model.training
    assert all(not training for training, _ in diary.of("validation batch"))
    before = weights(model)
    metrics = [run.validate(model, val) for _ in range(2)]
    assert metrics[0] == metrics[1]
    assert same(before, weights(model))
    model.eval()
    count = loss = 0
    for batch in val:
        value, _ = model.compute_loss(batch)
        loss += value.item() * len(batch["x"])
        count += len(batch["x"])
    assert metrics[0]["val_loss"] == pytest.approx(loss / count, rel=1e-5)


def test_parts_the_user_put_into_eval_stay_there(tmp_path):
    model = Classifier()
    model.norm.eval()
    before = weights(model)["norm.running_mean"]
    fit(tmp_path, model)
    assert not model.norm.training
    assert model.dropout.training
    assert np.array_equal(before, weights(model)["norm.running_mean"])


def test_validation_uses_the_running_average_and_gives_the_weights_back(tmp_path):
    model = Classifier()
    train, val = loaders()
    run, _ = fit(tmp_path, model, (train, val), ema_decay=0.9)
    trained = weights(model)
    own = run.validate(model, val)["val_loss"]
    assert run.history.rows[-1]["val_loss"] == own
    assert same(trained, weights(model))
    other = Classifier()
    plain = trainer(tmp_path / "plain")
    average = plain.validate(other, val, ckpt_path=tmp_path / "checkpoints" / "last")
    assert average["val_loss"] == own
    assert same(
        {k: np.array(v) for k, v in run.step.extra["ema"].items()},
        {k: v for k, v in weights(other).items() if k in run.step.extra["ema"]},
    )


def test_validation_leaves_training_as_it_is(tmp_path):
    class Draws(Classifier):
        def validation_step(self, batch):
            return mx.random.uniform(), {}

    train, val = loaders()
    data = (train, val)
    plain, _ = fit(tmp_path, Draws(), (train,), max_epochs=2)
    for settings in (
        {},
        {"num_sanity_val_steps": 1},
        {"val_check_interval": 2},
        {"ema_decay": 0.9},
    ):
        run, _ = fit(tmp_path, Draws(), data, max_epochs=2, **settings)
        assert same(weights(plain.module), weights(run.module))
        losses = {row["val_loss"] for row in run.history.rows}
        assert len(losses) == 1  # random numbers of validation are the same at each


def test_own_steps_and_prefixes(tmp_path):
    class Model(Classifier):
        def validation_step(self, batch):
            loss, metrics = self.compute_loss(batch)
            return {"val_error": 1 - metrics["accuracy"], "twice": 2 * loss}

        def test_step(self, batch):
            return mx.array(3.0), {"rows": mx.array(batch["x"].shape[0])}

    model = Model()
    train, val = loaders()
    run, _ = fit(tmp_path, model, (train, val))
    assert {"val_error", "val_twice"} <= set(run.history.rows[0])
    assert "val_loss" not in run.history.rows[0]
    assert run.test(model, val) == {"test_loss": 3.0, "test_rows": (8 * 16 + 4 * 4) / 20}


def test_predictions_come_in_order_in_eval_mode(tmp_path):
    model = Classifier(dropout=0.5)
    _, val = loaders()
    run = trainer(tmp_path, limit_predict_batches=2)
    outputs = run.predict(model, [batch["x"] for batch in val])
    assert [array.shape for array in outputs] == [(8, 3), (8, 3)]
    assert model.training
    model.eval()
    assert mx.allclose(outputs[1], model([batch["x"] for batch in val][1]))


def test_validating_and_testing_have_limits_of_their_own(tmp_path):
    run = trainer(tmp_path, limit_val_batches=1, limit_test_batches=0.75)
    data = [mx.full((2,), float(number)) for number in range(4)]
    assert run.validate(Mean(), data)["val_loss"] == 0
    assert run.test(Mean(), data)["test_loss"] == 1


def test_predictions_are_of_the_checkpoint_that_is_named(tmp_path):
    class Says(Line):
        def predict_step(self, batch):
            return self.w + batch

    run = trainer(tmp_path)
    run.fit(Says(), [mx.ones((1, 2))])
    (told,) = run.predict(Says(), [mx.zeros(2)], ckpt_path="last")
    assert told.tolist() == [-1.0, -1.0]


def test_modules_and_callbacks_log_into_rows(tmp_path):
    class Model(Classifier):
        def compute_loss(self, batch):
            loss, metrics = super().compute_loss(batch)
            self.log("entropy", loss * 2)
            return loss, metrics

        def on_train_epoch_start(self, epoch):
            self.log_dict({"hook": epoch + 0.5})

    model = Model()
    run, _ = fit(tmp_path, model, log_every_n_steps=2, max_epochs=2)
    row = run.history.rows[-1]
    assert row["train_entropy"] == pytest.approx(2 * row["train_loss"])
    assert row["val_entropy"] == pytest.approx(2 * row["val_loss"])
    assert [r["hook"] for r in run.history.log if "hook" in r] == [0.5, 1.5]
    loss, _ = Model().compute_loss(next(iter(loaders()[0])))  # without a trainer too
    assert math.isfinite(loss.item())


def test_a_row_of_the_log_has_all_it_should(tmp_path):
    run, _ = fit(tmp_path, log_every_n_steps=5)
    row = run.history.log[0]
    assert row["step"] == 5
    assert {"loss", "accuracy", "gradient_norm", "skipped_steps"} <= set(row)
    assert row["learning_rate"] == pytest.approx(0.01)
    assert row["examples_per_second"] > 0
    assert row["peak_memory_mb"] > 0
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["loss"] == row["loss"]


def test_callbacks_get_every_batch_by_its_place_in_the_epoch(tmp_path):
    class Collects(Callback):
        def __init__(self):
            self.calls, self.after = [], []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.calls.append((batch_idx, module, batch.tolist(), outputs["loss"]))
            self.after.append(trainer.global_step)

    data, collects, model = [mx.array([1.0]), mx.array([2.0]), mx.array([3.0])], Collects(), Mean()
    fit(tmp_path, model, (data, data), callbacks=[collects], max_epochs=2)
    assert collects.calls == [(i, model, [i + 1.0], i + 1.0) for i in (0, 1, 2)] * 2
    assert collects.after == [1, 2, 3, 4, 5, 6]


def test_outputs_are_numbers_for_callbacks(tmp_path):
    class Reader(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.text = f"Step {trainer.global_step}: loss = {outputs['loss']:.4f}"
            self.names = set(outputs)

    reader = Reader()
    fit(tmp_path, callbacks=[reader])
    assert reader.text.startswith("Step 5: loss = ")
    assert {"loss", "accuracy", "finite", "weight", "learning_rate"} <= reader.names


def test_hooks_of_the_module_in_order(tmp_path):
    notes = []

    class Model(Classifier):
        def on_train_start(self):
            notes.append("train start")

        def on_train_end(self):
            notes.append("train end")

        def on_train_epoch_start(self, epoch):
            notes.append(("epoch start", epoch, self.current_epoch, self.global_step))

        def on_train_epoch_end(self, epoch, metrics):
            notes.append(("epoch end", epoch, {"train_loss", "val_loss"} <= set(metrics)))

        def on_validation_start(self):
            notes.append(("validation start", self.training))

        def on_validation_end(self, metrics):
            notes.append(("validation end", "val_accuracy" in metrics))

    fit(tmp_path, Model(), max_epochs=2)
    epoch = [("validation start", False), ("validation end", True)]
    assert notes == [
        "train start",
        ("epoch start", 0, 0, 0),
        *epoch,
        ("epoch end", 0, True),
        ("epoch start", 1, 1, 5),
        *epoch,
        ("epoch end", 1, True),
        "train end",
    ]


HOOKS = (
    "setup on_train_start on_train_epoch_start on_train_batch_start on_train_batch_end "
    "on_validation_start on_validation_batch_end on_log on_validation_end on_train_epoch_end "
    "on_epoch_end on_train_end teardown".split()
)


class Hooked(Callback):
    """Notes the names of the hooks that are called."""

    def __init__(self):
        self.called = []


def noting(name):
    return lambda self, *arguments: self.called.append(name)


for _name in HOOKS:
    setattr(Hooked, _name, noting(_name))


@pytest.mark.parametrize("alone", [True, False])
def test_hooks_of_callbacks_in_order(tmp_path, alone):
    hooked = Hooked()
    run = trainer(tmp_path, callbacks=hooked if alone else [hooked])
    run.fit(Mean(), [mx.ones((2,))], [mx.ones((2,))])
    assert hooked.called == HOOKS


class Remembers(Line):
    """Keeps the config that it gives."""

    name = "falling"

    def configure_optimizers(self):
        optimizer = self.make_optimizer()
        object.__setattr__(self, "given", OptimizerConfig(optimizer, self.name))
        return self.given


@pytest.mark.parametrize(("name", "logged"), [("falling", "lr-falling"), (None, "lr-SGD")])
def test_the_configs_optimizer_is_used_and_its_schedule_logged(tmp_path, name, logged):
    model = Remembers(lambda: optim.SGD(learning_rate=0.25))
    object.__setattr__(model, "name", name)
    run = trainer(tmp_path, callbacks=[LearningRateMonitor()], log_every_n_steps=1)
    run.fit(model, [mx.ones((1, 2))])
    assert run.optimizer is model.given.optimizer
    assert run.optimizer_config is model.given
    assert model.w.tolist() == [-0.25, -0.25]
    assert run.history.log[0][logged] == 0.25


def test_history_is_exported(tmp_path):
    run, _ = fit(tmp_path, max_epochs=2)
    run.export_history(tmp_path / "history.json")
    data = json.loads((tmp_path / "history.json").read_text())
    for name in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
        assert len(data[name]) == 2
    assert data["rows"] == run.history.rows


@pytest.mark.parametrize("debug", [True, False])
def test_debug_lazy_eval_evaluates_each_step_at_once(tmp_path, monkeypatch, debug):
    evaluated, evaluate, at_once = [], mx.eval, []

    def noted(*arrays):
        evaluated.extend(arrays)
        evaluate(*arrays)

    class Looks(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            at_once.append(any(array is outputs.vector for array in evaluated))

    monkeypatch.setattr(mx, "eval", noted)
    fit(tmp_path, callbacks=[Looks()], debug_lazy_eval=debug)
    assert at_once == [debug] * 5


def test_debug_lazy_eval_gives_the_same_run_uncompiled(tmp_path):
    slow, _ = fit(tmp_path, debug_lazy_eval=True)
    fast, _ = fit(tmp_path)
    assert slow.trace_count == 5
    assert slow.history.rows[-1]["train_loss"] == pytest.approx(
        fast.history.rows[-1]["train_loss"], abs=1e-6
    )


# Wrong settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "max_epochs, max_steps and max_time are None, expected one"),
        ({"max_epochs": 0}, "max_epochs=0, expected 1 or more"),
        ({"max_steps": 1.5}, "max_steps: found '1.5', expected a whole number"),
        ({"max_time": "soon"}, "max_time is 'soon', expected days:hours:minutes:seconds"),
        (
            {"max_epochs": 1, "val_check_interval": 1.5},
            "val_check_interval=1.5, expected a share",
        ),
        ({"max_epochs": 1, "gradient_clip_val": 0}, "gradient_clip_val=0.0, expected more than 0"),
        (
            {"max_epochs": 1, "gradient_clip_algorithm": "l1"},
            "found 'l1', expected one of norm",
        ),
        ({"max_epochs": 1, "ema_decay": 1.0}, "ema_decay=1.0, expected 0 or more and less than 1"),
        (
            {"max_epochs": 1, "enable_checkpointing": False, "callbacks": [ModelCheckpoint()]},
            "enable_checkpointing is False, but callbacks has a ModelCheckpoint",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**settings)


def test_settings_can_change_between_fits_and_are_checked(tmp_path):
    run, _ = fit(tmp_path, max_epochs=1)
    run.max_epochs = 2
    run.fit(Classifier(), *loaders())
    assert (run.max_epochs, run.arguments.max_epochs, len(run.history.rows)) == (2, 2, 2)
    with pytest.raises(ValueError, match="max_epochs=0, expected 1 or more"):
        run.max_epochs = 0


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="model is a Linear, expected a TrainModule"):
        trainer(tmp_path).fit(nn.Linear(1, 1), [])

    class Wrong(Line):
        def configure_optimizers(self):
            return self.make_optimizer()

    with pytest.raises(ValueError, match="gave a SGD, expected an OptimizerConfig"):
        trainer(tmp_path).fit(Wrong(), [mx.ones((1, 2))])
