import io
import itertools
import json
import math
import os
from datetime import timedelta
from types import SimpleNamespace

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Line, Losses, Scripted, fit_on, loaders, same, trainer, weights

from audiotrain import OptimizerConfig
from audiotrain.train import checkpoint
from audiotrain.train.callbacks import (
    EMA,
    Callback,
    EarlyStopping,
    GradientClipper,
    LearningRateMonitor,
    LearningRateScheduler,
    MetricsLogger,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)
from audiotrain.train.loggers import Logger
from audiotrain.train.schedulers import StepLRScheduler

# EarlyStopping


@pytest.mark.parametrize(
    ("losses", "settings", "epochs"),
    [
        ([5, 4, 4, 4, 4, 4], {"patience": 2}, 4),
        ([5, 4, 3.9997, 3.9995, 3.9993, 3.9], {"patience": 3}, 5),
        ([5, 4, 3.9997, 3.9995, 3.9993, 3.9], {"patience": 3, "min_delta": 0.0}, 6),
        ([1, 2, 2.0003, 2.0005, 3], {"patience": 2, "mode": "max"}, 4),
        ([1, 2, 3, 2, 2, 2], {"patience": 2, "mode": "max"}, 5),
        ([5, 6, 4, 6, 3], {"patience": 2}, 5),
        ([5, math.nan, 1], {}, 2),
        ([5, math.nan, 1], {"check_finite": False}, 3),
    ],
)
def test_when_it_stops(tmp_path, losses, settings, epochs):
    run = fit_on(tmp_path, losses, EarlyStopping(verbose=False, **settings))
    assert len(run.history.rows) == epochs


@pytest.mark.parametrize(
    ("losses", "unit", "steps", "waited"),
    [
        ([5, 4, 4, 4, 4, 4, 4, 4], "validation", 4, "2 validations"),
        ([5, 4, 4, 4, 4, 4, 4, 4], "epoch", 6, "2 epochs"),  # the first epoch improves
        ([5, 4, 4, 3, 3, 3, 3, 2], "epoch", 8, None),  # what improves at an end, too
        ([5, 4, 3, 4, 4, 4, 2, 4], "epoch", 8, None),
    ],
)
def test_patience_is_validations_or_epochs(tmp_path, capsys, losses, unit, steps, waited):
    stopping = EarlyStopping(patience=2, patience_unit=unit)
    run = trainer(tmp_path, callbacks=[stopping], max_epochs=4, val_check_interval=0.5)
    run.fit(Scripted(), [mx.ones((2, 2))] * 2, Losses(losses))
    assert run.global_step == steps
    printed = capsys.readouterr().err
    assert printed.endswith(f", {waited} without improvement\n") if waited else printed == ""


def test_patience_in_epochs_goes_on_after_a_stop(tmp_path):
    """The middle of an epoch that has improved."""
    losses, data = [5.0, 5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5], [mx.ones((2, 2))] * 2

    def run(**length):
        stopping = EarlyStopping(patience=2, patience_unit="epoch", verbose=False)
        return trainer(tmp_path, callbacks=[stopping], val_check_interval=0.5, **length)

    run(max_steps=3).fit(Scripted(), data, Losses(losses))
    again = run(max_epochs=9)
    again.fit(Scripted(), data, Losses(losses[3:]), ckpt_path="last")
    assert again.global_step == 8


def test_defaults_are_the_documented_ones():
    stopping = EarlyStopping(monitor="val_loss")
    assert (stopping.patience, stopping.min_delta, stopping.mode) == (5, 0.001, "min")
    assert stopping.verbose
    assert not stopping.by_epoch


def test_it_says_why_it_stopped(tmp_path, capsys):
    fit_on(tmp_path, [1.0, 2.0, 3.0], EarlyStopping(patience=1))
    assert "stopping early at epoch 1: val_loss was best at 1.0000" in capsys.readouterr().err
    fit_on(tmp_path, [1.0, 2.0, 3.0], EarlyStopping(patience=1, verbose=False))
    assert capsys.readouterr().err == ""


def test_it_needs_a_validation_loader(tmp_path):
    run = trainer(tmp_path, callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="'val_loss' needs a validation loader"):
        run.fit(Classifier(), loaders()[0])


def test_a_stopped_run_stays_stopped_when_resumed(tmp_path):
    fit_on(tmp_path, [1.0, 2.0, 3.0, 4.0], EarlyStopping(patience=2, verbose=False))
    run = trainer(tmp_path, callbacks=[EarlyStopping(patience=2)], max_epochs=4)
    data = [mx.ones((2, 2))] * 2
    run.fit(Scripted(), data, Losses([9.0]), ckpt_path="last")
    assert run.current_epoch == 3


# The others


def test_the_rate_is_logged_by_step_and_by_epoch(tmp_path):
    class Model(Classifier):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers().optimizer
            optimizer = type(optimizer)(learning_rate=StepLRScheduler(1.0, 2, 0.5))
            return OptimizerConfig(optimizer, "halving")

    rows = {}
    for interval in ("step", "epoch"):
        run = trainer(
            tmp_path / interval,
            callbacks=[LearningRateMonitor(logging_interval=interval)],
            log_every_n_steps=1,
        )
        run.fit(Model(), *loaders())
        lines = (tmp_path / interval / "metrics.jsonl").read_text().splitlines()
        found = [row for row in map(json.loads, lines) if "lr-halving" in row]
        rows[interval] = [(row["step"], row["lr-halving"]) for row in found]
    assert rows["step"] == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5), (5, 0.25)]
    assert rows["epoch"] == [(5, 0.25)]


class Rows(Logger):
    """Keeps what it is given."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append({"step": step} | metrics)


class Unsized:
    """Batches without a length."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("every", [50, 3])
def test_loggers_get_the_rate_of_each_step_however_seldom_rows_are(
    tmp_path, every, accumulate, sized
):
    rows = Rows()
    model = Line(lambda: optim.SGD(learning_rate=lambda step: 1 / (1 + step)))
    run = trainer(
        tmp_path,
        callbacks=[LearningRateMonitor()],
        logger=rows,
        max_epochs=2,
        log_every_n_steps=every,
        val_check_interval=2,
        accumulate_grad_batches=accumulate,
    )
    data = [mx.ones((2, 2))] * 7
    run.fit(model, data if sized else Unsized(data), [mx.ones((2, 2))])
    steps = range(1, run.global_step + 1)
    assert run.global_step == (14 if accumulate == 1 else 8)
    rates = [(row["step"], row["lr-SGD"]) for row in rows.rows if "lr-SGD" in row]
    assert rates == [(step, pytest.approx(1 / step)) for step in steps]
    order = [row["step"] for row in rows.rows]
    assert order == sorted(order)  # as W&B wants it
    assert {row["epoch"] for row in rows.rows if row["step"] == 1} == {0}


def test_several_optimizers_have_a_rate_each(tmp_path):
    def two():
        last = optim.SGD(learning_rate=0.5)
        rest = optim.AdamW(learning_rate=0.25)
        return optim.MultiOptimizer([last, rest], [lambda name, _: name.startswith("last")])

    run = trainer(tmp_path, callbacks=[LearningRateMonitor()], log_every_n_steps=1)
    run.fit(Classifier(two), *loaders())
    assert run.history.log[0]["lr-test/1"] == 0.5
    assert run.history.log[0]["lr-test/2"] == 0.25


class Steps(Callback):
    """What w of a Line moves by in each step."""

    def __init__(self):
        self.steps, self.before = [], 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        after = module.w[0].item()
        self.steps.append(round(self.before - after, 6))
        self.before = after


@pytest.mark.parametrize(
    ("interval", "settings", "expected"),
    [
        ("epoch", {}, [1, 1, 1, 0.5, 0.5, 0.5]),
        ("step", {}, [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        ("step", {"accumulate_grad_batches": 2}, [0, 1, 0.5, 0, 0.25, 0.125]),
    ],
)
def test_a_function_of_epoch_or_step_sets_the_rate(tmp_path, interval, settings, expected):
    steps, scheduler = Steps(), LearningRateScheduler(lambda number: 0.5**number, interval)
    run = trainer(tmp_path, callbacks=[steps, scheduler], max_epochs=2, **settings)
    run.fit(Line(), [mx.ones((2, 2))] * 3)
    assert steps.steps == expected
    assert run.trace_count == (2 if settings else 1)
    assert run.history.rows[-1]["learning_rate"] == expected[-1]


def test_the_rate_of_a_continued_run_is_the_same(tmp_path):
    def fit(folder, resume=None, **length):
        scheduler = LearningRateScheduler(lambda epoch: 0.5**epoch)
        run = trainer(folder, callbacks=[scheduler], **length)
        run.fit(Classifier(), loaders()[0], ckpt_path=resume)
        return weights(run.module)

    whole = fit(tmp_path / "whole", max_epochs=3)
    fit(tmp_path, max_steps=7)
    assert same(whole, fit(tmp_path, "last", max_epochs=3))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda: optim.SGD(StepLRScheduler(1.0, 2)), "SGD has a schedule of its own"),
        (lambda: optim.MultiOptimizer([optim.SGD(1.0)]), "MultiOptimizer has several rates"),
    ],
)
def test_two_schedules_are_refused(tmp_path, optimizer, message):
    run = trainer(tmp_path, callbacks=[LearningRateScheduler(lambda epoch: 1.0)])
    with pytest.raises(ValueError, match=message):
        run.fit(Line(optimizer), [mx.ones((2, 2))])


def test_a_schedule_gives_a_rate(tmp_path):
    run = trainer(tmp_path, callbacks=[LearningRateScheduler(lambda epoch: math.nan)])
    with pytest.raises(ValueError, match=r"schedule\(0\) is nan, expected 0 or more"):
        run.fit(Line(), [mx.ones((2, 2))])


class Clock:
    """A time that passes by one second a training batch."""

    def __init__(self, monkeypatch, run):
        self.now = 0.0
        monkeypatch.setattr(type(run), "elapsed", lambda _: self.now)

    def callback(self):
        clock = self

        class Passes(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                clock.now += 1

        return Passes()


@pytest.mark.parametrize(
    ("duration", "interval", "steps"),
    [(2.5, "step", 3), ("00:00:00:05", "step", 5), (timedelta(seconds=5), "epoch", 8)],
)
def test_a_timer_ends_training(tmp_path, monkeypatch, capsys, duration, interval, steps):
    run, timer = trainer(tmp_path, max_epochs=9), Timer(duration, interval)
    clock = Clock(monkeypatch, run)
    run.callbacks[:0] = [clock.callback(), timer]
    run.fit(Line(), [mx.ones((2, 2))] * 4)
    clock.now += 1  # after the run, which counts no more
    assert run.global_step == timer.time_elapsed() == steps
    assert timer.time_remaining() == 0
    assert f"stopping: {steps} seconds have passed" in capsys.readouterr().err
    meta = checkpoint.load_meta(tmp_path / "checkpoints" / "last")
    assert (meta["global_step"], meta["seconds"]) == (steps, steps)


def test_a_timer_without_a_duration_only_measures(tmp_path, monkeypatch):
    run, timer = trainer(tmp_path), Timer()
    run.callbacks[:0] = [Clock(monkeypatch, run).callback(), timer]
    run.fit(Line(), [mx.ones((2, 2))] * 4)
    assert (timer.time_elapsed(), timer.time_remaining()) == (4, None)


def test_a_timer_counts_the_time_before_a_stop(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(Line(), [mx.ones((2, 2))] * 4)
    path = run.default_root_dir / "checkpoints" / "last"
    state = json.loads((path / "state.json").read_text())
    state["meta"]["seconds"] = 100.0
    (path / "state.json").write_text(json.dumps(state))
    again = trainer(tmp_path, max_steps=4, callbacks=[Timer(99, verbose=False)])
    again.fit(Line(), [mx.ones((2, 2))] * 4, ckpt_path=path)
    assert again.global_step == 1


@pytest.mark.parametrize("name", [None, "own/numbers.json"])
def test_metrics_are_written_after_every_epoch(tmp_path, name):
    logger = MetricsLogger(name and tmp_path / name)
    path = tmp_path / (name or "history.json")
    seen = []

    class Reads(Callback):
        def on_train_epoch_start(self, trainer, module):
            seen.append(json.loads(path.read_text())["val_loss"] if path.exists() else [])

    fit_on(tmp_path, [3.0, 2.0, 1.0], logger, Reads())
    assert seen == [[], [3.0], [3.0, 2.0]]
    assert logger.metrics["val_loss"] == [3.0, 2.0, 1.0]
    assert json.loads(path.read_text())["rows"][-1]["epoch"] == 2


def test_every_callbacks_state_is_restored_after_a_stop(tmp_path):
    class Counts(Callback):
        def __init__(self, by):
            self.by, self.total, self.loaded = by, 0, None

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.total += self.by

        def state_dict(self):
            return {"total": self.total}

        def load_state_dict(self, state):
            self.total = self.loaded = state["total"]

    class Other(Counts):
        pass

    def callbacks():
        stopping = EarlyStopping(patience=9, min_delta=0.5, verbose=False)
        saver = ModelCheckpoint(monitor="val_loss", save_top_k=2)
        return [Counts(1), Other(10), Counts(100), stopping, saver]

    losses, data = [5.0, 4.0, 4.2, 3.9, 2.0], [mx.ones((2, 2))] * 3
    whole = trainer(tmp_path / "whole", callbacks=callbacks(), max_epochs=5)
    whole.fit(Scripted(), data, Losses(losses))
    part = trainer(tmp_path / "part", callbacks=callbacks(), max_steps=8)
    part.fit(Scripted(), data, Losses(losses))  # inside the third epoch
    again = trainer(tmp_path / "part", callbacks=callbacks(), max_epochs=5)
    again.fit(Scripted(), data, Losses(losses[2:]), ckpt_path="last")
    assert [c.loaded for c in again.callbacks[:3]] == [8, 80, 800]
    assert [c.total for c in again.callbacks[:3]] == [15, 150, 1500]
    assert part.callbacks[3].wait_count == 1
    for one, other in zip(whole.callbacks, again.callbacks, strict=True):
        assert one.state_dict() == other.state_dict()


def test_gradient_clipper_is_the_trainers_setting(tmp_path):
    finals = []
    for settings in ({"callbacks": [GradientClipper(0.1)]}, {"gradient_clip_val": 0.1}, {}):
        run = trainer(tmp_path, **settings)
        run.fit(Classifier(), *loaders())
        finals.append(weights(run.module))
    assert same(finals[0], finals[1])
    assert not same(finals[0], finals[2])
    run = trainer(tmp_path, callbacks=[GradientClipper(0.1)], gradient_clip_val=0.5)
    with pytest.raises(ValueError, match="disagree"):
        run.fit(Classifier(), *loaders())


def test_ema_is_the_trainers_setting(tmp_path):
    averages, validations = [], []
    for number, settings in enumerate(({"callbacks": [EMA(0.5)]}, {"ema_decay": 0.5}, {})):
        run = trainer(tmp_path / str(number), **settings)
        run.fit(Classifier(), *loaders())
        saved, _ = checkpoint.load(tmp_path / str(number) / "checkpoints" / "last")
        averages.append({key: np.array(array) for key, array in saved.get("ema", {}).items()})
        validations.append(run.history.rows[-1]["val_loss"])
    assert same(averages[0], averages[1])
    assert len(averages[0]) == 8  # the parameters, and the running statistics of a BatchNorm
    assert averages[2] == {}
    assert validations[0] == validations[1] != validations[2]


def test_the_signature_of_plain_trainers_works_too(tmp_path):
    class Notes(Callback):
        seen = []

        def on_epoch_end(self, trainer, state):
            self.seen.append((state.epoch, state.global_step, state.metrics["val_loss"]))

    fit_on(tmp_path, [2.0, 1.0], Notes())
    assert Notes.seen == [(0, 2, 2.0), (1, 4, 1.0)]


def test_summary_counts_all_and_trainable_parameters():
    text = ModelSummary.text(Classifier())
    assert text.splitlines()[0] == "Classifier: 531 parameters, 227 trainable"
    assert "frozen" in text
    assert "272" in text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_plain_lines(tmp_path, capsys):
    run = trainer(tmp_path, enable_progress_bar=True, max_epochs=2)
    run.fit(Classifier(), *loaders())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    row = run.history.rows[1]
    shown = ("train_loss", "val_loss", "val_accuracy")
    numbers = "".join(f"  {name} {row[name]:.4f}" for name in shown)
    assert lines[1] == f"epoch 2/2  step 10{numbers}  rate 0.01"


def test_a_long_epoch_tells_a_file_where_it_is_and_what_was_skipped(tmp_path, capsys):
    bar = ProgressBar(refresh_rate=2, line_seconds=1e-9)
    run = trainer(tmp_path, callbacks=[bar], max_epochs=1)
    run.fit(Line(), [mx.ones((1, 2)), mx.ones((1, 2)), mx.full((1, 2), math.nan), mx.ones((1, 2))])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/1: batch 2 of 4, loss 0.0000"
    assert lines[1].startswith("epoch 1/1: batch 4 of 4, loss ")
    assert lines[2].endswith("  rate 1  1 skipped")
    assert len(lines) == 3


def test_the_summary_is_printed_unless_it_is_not_wanted(tmp_path, capsys):
    for wanted in (True, False):
        trainer(tmp_path, enable_model_summary=wanted).fit(Line(), [mx.ones((1, 2))])
        said = capsys.readouterr().err
        assert said.startswith("Line: 2 parameters, 2 trainable\n") == wanted
        assert wanted or said == ""


def test_the_line_of_an_epoch_is_short_however_many_metrics_there_are(tmp_path, capsys):
    class Talkative(Classifier):
        def compute_loss(self, batch):
            loss, metrics = super().compute_loss(batch)
            return loss, {f"{letter}_acc": loss for letter in "abcdefg"} | metrics

    saver = ModelCheckpoint(monitor="val_g_acc")
    run = trainer(tmp_path, enable_progress_bar=True, callbacks=[saver])
    run.fit(Talkative(), *loaders())
    (line,) = capsys.readouterr().err.splitlines()
    assert 80 < len(line) <= 100
    for name in ("train_loss", "val_loss", "val_g_acc", "val_a_acc", "rate"):
        assert line.count(f"  {name} ") == 1
    assert "train_a_acc" not in line
    assert len(run.history.rows[0]) > 20  # nothing is left out of the files


def test_a_terminal_gets_a_bar_that_is_seldom_drawn(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    hundredths = (number / 100 for number in itertools.count())  # a batch each
    clock = SimpleNamespace(monotonic=hundredths.__next__)
    monkeypatch.setattr("audiotrain.train.callbacks.progress.time", clock)
    run = trainer(tmp_path, callbacks=[ProgressBar(refresh_rate=1)], max_epochs=1)
    run.fit(Classifier(), *loaders(count=800))
    text = terminal.getvalue()
    assert "epoch 1/1" in text
    assert run.global_step == 100
    assert 1 <= text.count("\r") <= 10 + 5


def test_the_bar_moves_every_refresh_rate_batches(tmp_path, monkeypatch):
    class Bar:
        n, places = 0, []

        def __init__(self, **settings):
            assert settings["total"] == 10

        def update(self, batches):
            self.n += batches
            self.places.append(self.n)

        def set_postfix_str(self, text, refresh=True):
            pass

        def close(self):
            pass

    monkeypatch.setattr("audiotrain.train.callbacks.progress.tqdm", Bar)
    monkeypatch.setattr(
        "audiotrain.train.callbacks.progress.time.monotonic", itertools.count().__next__
    )
    monkeypatch.setattr("sys.stderr", Terminal())
    run = trainer(tmp_path, callbacks=[ProgressBar(refresh_rate=4)])
    run.fit(Classifier(), *loaders(count=80))
    assert Bar.places == [4, 8]


def test_defaults_are_replaced_by_the_users_own():
    run = trainer("unused", callbacks=[ProgressBar(refresh_rate=3)], enable_progress_bar=True)
    assert [c.refresh_rate for c in run.callbacks if isinstance(c, ProgressBar)] == [3]
    assert isinstance(run.callbacks[-1], ModelCheckpoint)
    assert not os.path.exists("unused")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelCheckpoint(mode="best"), "mode is 'best'"),
        (lambda: ModelCheckpoint(save_top_k=-2), "save_top_k is -2"),
        (lambda: ModelCheckpoint(every_n_epochs=0), "every_n_epochs is 0"),
        (lambda: ModelCheckpoint(filename="{epoch"), "filename is '{epoch': expected '}'"),
        (lambda: ModelCheckpoint(filename="{:.2f}"), "filename is '{:.2f}', expected a name"),
        (lambda: EarlyStopping(patience=0), "patience is 0"),
        (lambda: EarlyStopping(patience_unit="step"), "patience_unit is 'step', expected"),
        (lambda: LearningRateScheduler(float, "batch"), "interval is 'batch'"),
        (lambda: Timer("1:00"), "duration is '1:00', expected days:hours"),
        (lambda: Timer(0), "duration is 0, expected more than 0 seconds"),
        (lambda: Timer(1, "batch"), "interval is 'batch'"),
        (lambda: LearningRateMonitor("batch"), "logging_interval is 'batch'"),
        (lambda: GradientClipper(0), "max_norm is 0"),
        (lambda: EMA(1.0), "decay is 1.0"),
        (lambda: ProgressBar(0), "refresh_rate is 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
