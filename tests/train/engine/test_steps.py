import json
import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Line, Points, loaders, same, trainer, weights

from audiotrain import Callback, OptimizerConfig, TrainModule
from audiotrain.train.engine.compiled_function import StepOutputs


def sgd():
    return optim.SGD(learning_rate=1.0)


def batches(*values) -> list:
    return [mx.array(value, mx.float32) for value in values]


def test_traced_once_and_equal_to_eager(tmp_path):
    finals, losses = [], []
    for compiled in (True, False):
        model = Classifier()
        run = trainer(tmp_path, compile=compiled, max_epochs=3)
        run.fit(model, *loaders())
        finals.append(weights(model))
        losses.append(run.history.rows[-1]["train_loss"])
        if compiled:
            assert run.trace_count == 1
            assert run.evaluation_step("validation_step").trace_count == 2  # 8 and 4 items
        else:
            assert run.trace_count == run.global_step == 15
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for key in finals[0]:
        np.testing.assert_allclose(finals[0][key], finals[1][key], atol=1e-6)


def test_a_ragged_last_batch_is_one_more_trace(tmp_path):
    run = trainer(tmp_path, max_epochs=2)
    run.fit(Classifier(), *loaders(count=43))
    assert run.trace_count == 2
    assert run.global_step == 12


def test_numbers_in_a_batch_do_not_trace_anew(tmp_path):
    data = [{"x": mx.ones((2,)), "scale": 0.1 * i} for i in range(20)]
    run = trainer(tmp_path)
    run.fit(Scaled(), data)
    assert run.trace_count == 1


class Scaled(Line):
    """Its loss is w . x times a number of the batch."""

    def compute_loss(self, batch):
        return mx.sum(self.w * batch["x"]) * batch["scale"], {}


@dataclass
class Refilled:
    """A batch that a loader fills anew."""

    x: Any
    y: Any


def refilled(kind: str):
    """Six batches as one object that is filled anew, and what each of them holds."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(4, 2)).astype(np.float32) for _ in range(6)]
    if kind == "dataclass":
        batch = Refilled(None, None)
    elif kind == "arrays":
        batch = Refilled(np.zeros((4, 2), np.float32), np.zeros(4, np.float32))
    else:
        torch = pytest.importorskip("torch")
        batch = Refilled(torch.zeros(4, 2, requires_grad=True), torch.zeros(4))

    def batches():
        for row in rows:
            if kind == "dataclass":
                batch.x, batch.y = row, row[:, 0]
            elif kind == "arrays":
                batch.x[:], batch.y[:] = row, row[:, 0]
            else:
                batch.x.data[:], batch.y[:] = (torch.from_numpy(row), torch.from_numpy(row[:, 0]))
            yield batch

    return batches, rows


@pytest.mark.parametrize("kind", ["dataclass", "arrays", "torch"])
def test_a_refilled_batch_object_trains_on_its_new_data(tmp_path, kind):
    class Regression(Line):
        def compute_loss(self, batch):
            return mx.mean((batch.x @ self.w - batch.y) ** 2), {}

    batches, rows = refilled(kind)
    w = np.zeros(2)
    for row in rows:  # gradient descent, by hand
        w = w - 0.1 * 2 / 4 * row.T @ (row @ w - row[:, 0])
    model = Regression(lambda: optim.SGD(learning_rate=0.1))
    run = trainer(tmp_path, max_steps=6)
    run.fit(model, batches())
    np.testing.assert_allclose(np.array(model.w), w, rtol=1e-5)
    assert run.trace_count == 1


def named(count: int) -> list[dict]:
    """Batches of two items whose names are new in each."""
    rows = [mx.full((2, 2), float(index)) for index in range(count)]
    return [{"x": x, "scale": 1, "names": [f"{n}-a", f"{n}-b"]} for n, x in enumerate(rows)]


@pytest.mark.filterwarnings("error")
def test_text_in_batches_traces_nothing_anew(tmp_path):
    seen = []

    class Names(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch["names"][0])

    run = trainer(tmp_path, callbacks=[Names()])
    run.fit(Scaled(), named(20), named(3))
    assert run.trace_count == 1
    assert run.evaluation_step("validation_step").trace_count == 1
    assert seen == [f"{n}-a" for n in range(20)]
    assert len(run.step._step.keys) == len(run.step._step.functions) == 1


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loss_of_text_is_told_how_to_get_it(tmp_path, compiled):
    class Reads(Scaled):
        def compute_loss(self, batch):
            loss, _ = super().compute_loss(batch)
            return loss, {"letters": sum(map(len, batch["names"]))}

    run = trainer(tmp_path, compile=compiled)
    if compiled:
        with pytest.raises(TypeError, match=r"^batch\['names'\] is text, .* collate_fn"):
            run.fit(Reads(), named(2))
    else:
        run.fit(Reads(), named(2))
        assert run.history.rows[-1]["train_letters"] == 6


def test_tracing_again_and_again_is_warned_of(tmp_path):
    data = [{"x": mx.ones((i + 1, 2)), "scale": 1} for i in range(9)]
    message = r"step was traced 8 times .* batch\['x'\] was \(7, 2\) float32, then \(8, 2\) float32"
    with pytest.warns(UserWarning, match=message) as caught:
        trainer(tmp_path).fit(Scaled(), data)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("clip", "algorithm", "expected"),
    [
        (None, "norm", [-3.0, -4.0]),
        (10.0, "norm", [-3.0, -4.0]),
        (1.0, "norm", [-0.6, -0.8]),
        (2.5, "norm", [-1.5, -2.0]),
        (3.5, "value", [-3.0, -3.5]),
        (1.0, "value", [-1.0, -1.0]),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_clipping_has_its_closed_form(tmp_path, clip, algorithm, expected, accumulate):
    model = Line()
    run = trainer(
        tmp_path,
        gradient_clip_val=clip,
        gradient_clip_algorithm=algorithm,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=1,
    )
    run.fit(model, batches([[3.0, 4.0]]))
    assert model.w.tolist() == pytest.approx(expected, rel=1e-6)
    assert run.history.log[-1]["gradient_norm"] == pytest.approx(5.0)  # before clipping


def test_adamw_steps_equal_the_papers(tmp_path):
    rate, decay, first, second, eps = 0.1, 0.01, 0.9, 0.999, 1e-8
    gradients = np.random.default_rng(0).normal(size=(20, 1, 2)).astype(np.float32)
    w, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t, gradient in enumerate(gradients[:, 0].astype(np.float64), 1):
        m, v = first * m + (1 - first) * gradient, second * v + (1 - second) * gradient**2
        step = (m / (1 - first**t)) / (np.sqrt(v / (1 - second**t)) + eps)
        w = w * (1 - rate * decay) - rate * step
    model = Line(lambda: optim.AdamW(learning_rate=rate, weight_decay=decay))
    trainer(tmp_path).fit(model, list(gradients))
    np.testing.assert_allclose(model.w.tolist(), w, rtol=2e-5)


def test_bias_correction_can_be_left_as_the_optimizer_has_it(tmp_path):
    class Plain(Line):
        def configure_optimizers(self):
            return OptimizerConfig(optim.Adam(learning_rate=0.1), bias_correction=False)

    model = Plain()
    trainer(tmp_path).fit(model, batches([[1.0, 1.0]]))
    assert model.w.tolist() == pytest.approx([-0.1 * math.sqrt(10)] * 2, rel=1e-4)


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 3, 1), (5, 1, 2, 4), (2, 2, 2, 2, 2)])
def test_accumulation_equals_the_big_batch(tmp_path, sizes, sized):
    rows = np.random.default_rng(1).normal(size=(sum(sizes), 8)).astype(np.float32)
    labels = rows[:, :3].argmax(axis=1)
    parts = np.split(np.arange(len(rows)), np.cumsum(sizes)[:-1])

    def pick(items):
        return {"x": rows[items], "y": labels[items]}

    def fit(data, k):
        # No batch norm here: its statistics are of the micro-batch by its nature.
        model = Classifier(lambda: optim.Adam(learning_rate=1e-2), dropout=0.0)
        model.norm = nn.Identity()
        run = trainer(tmp_path, accumulate_grad_batches=k, max_epochs=2, gradient_clip_val=0.5)
        run.fit(model, data if sized else Unsized(data))
        return weights(model), run

    groups = [np.concatenate(parts[i : i + 3]) for i in range(0, len(parts), 3)]
    big, _ = fit([pick(group) for group in groups], 1)
    small, run = fit([pick(part) for part in parts], 3)
    assert run.global_step == 2 * len(groups)  # the tail of an epoch is a step of its own
    for key in big:
        np.testing.assert_allclose(small[key], big[key], atol=1e-6)


def test_a_module_says_what_its_batch_counts(tmp_path):
    class Masked(Line):
        """The mean runs over rows whose mask is 1."""

        def compute_loss(self, batch):
            rows = mx.sum(self.w * batch["x"], axis=-1) * batch["mask"]
            return mx.sum(rows) / mx.sum(batch["mask"]), {}

        def batch_weight(self, batch):
            return mx.sum(batch["mask"])

    data = [
        {"x": mx.array([[1.0, 0], [9, 9], [9, 9]]), "mask": mx.array([1.0, 0, 0])},
        {"x": mx.array([[3.0, 0], [5, 0], [7, 8]]), "mask": mx.array([1.0, 1, 1])},
    ]
    model = Masked()
    trainer(tmp_path, accumulate_grad_batches=2).fit(model, data)
    assert model.w.tolist() == pytest.approx([-4.0, -2.0])


class Unsized:
    """A loader without a length."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


def poisoned(count: int, bad: set[int]) -> list:
    data = [Points()[i] for i in range(count)]
    return [
        {"x": (item["x"] * (math.nan if i in bad else 1))[None].repeat(2, 0), "y": [item["y"]] * 2}
        for i, item in enumerate(data)
    ]


def as_arrays(data: list) -> list:
    return [{"x": mx.array(item["x"]), "y": mx.array(item["y"])} for item in data]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_nan_batch_changes_nothing(tmp_path, accumulate, compiled):
    class Watch(Classifier):
        pass

    model = Watch(lambda: optim.AdamW(learning_rate=0.1), dropout=0.0)
    run = trainer(
        tmp_path,
        accumulate_grad_batches=accumulate,
        ema_decay=0.5,
        log_every_n_steps=1,
        compile=compiled,
    )
    run.fit(model, as_arrays(poisoned(4, {2, 3})))
    clean = Watch(lambda: optim.AdamW(learning_rate=0.1), dropout=0.0)
    other = trainer(tmp_path / "clean", accumulate_grad_batches=accumulate, ema_decay=0.5)
    other.fit(clean, as_arrays(poisoned(2, set())))
    assert same(weights(model), weights(clean))  # BatchNorm's running statistics are among them
    assert run.optimizer.step.item() == other.optimizer.step.item()
    for key, average in other.step.extra["ema"].items():
        assert mx.array_equal(average, run.step.extra["ema"][key])
    assert run.skipped_steps == 2
    assert run.history.rows[-1]["train_loss"] == other.history.rows[-1]["train_loss"]
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    counts = [row["skipped_steps"] for row in logged if "skipped_steps" in row]
    assert counts == ([0, 0, 1, 2] if accumulate == 1 else [0, 2])  # a row of nothing else, too


def test_an_infinite_gradient_of_a_finite_loss_is_skipped(tmp_path):
    class Root(Line):
        def compute_loss(self, batch):
            return mx.sum(mx.sqrt(mx.abs(self.w)) * batch), {}

    model = Root()
    run = trainer(tmp_path)
    run.fit(model, batches([[1.0, 1.0]]))  # the slope of a root at 0
    assert model.w.tolist() == [0.0, 0.0]
    assert run.skipped_steps == 1


def test_many_bad_batches_in_a_row_stop_with_their_step(tmp_path):
    run = trainer(tmp_path, max_skipped_steps=3, log_every_n_steps=5, max_epochs=9)
    bad = {2, 4, 5, 7, 8, 9}
    with pytest.raises(ValueError, match="loss was NaN or infinite in 3 batches in a row") as error:
        run.fit(Classifier(), as_arrays(poisoned(12, bad)))
    assert "from step 7 of epoch 0" in str(error.value)
    run = trainer(tmp_path, max_skipped_steps=3, accumulate_grad_batches=4)
    with pytest.raises(ValueError, match="in 3 batches in a row, from step 1 of epoch 0; nothing"):
        run.fit(Classifier(), as_arrays(poisoned(12, {6, 7, 8})))


class Breaks(Classifier):
    """Raises in the trace while `broken`, after state was touched."""

    broken = True

    def compute_loss(self, batch):
        loss, metrics = super().compute_loss(batch)
        mx.random.normal((2,))
        if self.broken:
            raise KeyError("the user's own mistake")
        return loss, metrics


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_error_in_the_trace_leaves_all_usable(tmp_path, compiled, accumulate):
    settings = {"compile": compiled, "accumulate_grad_batches": accumulate, "max_epochs": 2}
    model = Breaks()
    before = weights(model)
    run = trainer(tmp_path, **settings)
    with pytest.raises(KeyError, match="the user's own mistake"):
        run.fit(model, *loaders())
    assert same(before, weights(model))
    mx.eval(mx.random.normal((2,)), run.optimizer.state)
    Breaks.broken = False
    try:
        run.fit(model, *loaders())
        fresh = Breaks()
        trainer(tmp_path, **settings).fit(fresh, *loaders())
    finally:
        Breaks.broken = True
    assert same(weights(fresh), weights(model))


def test_unfrozen_parts_learn_from_the_next_epoch(tmp_path):
    class Thaws(Classifier):
        def on_train_epoch_start(self, epoch):
            if epoch == 1:
                self.frozen.unfreeze()

    model = Thaws()
    before = weights(model)["frozen.weight"]
    trainer(tmp_path, max_epochs=1, ema_decay=0.9).fit(model, *loaders())
    assert np.array_equal(before, weights(model)["frozen.weight"])
    model = Thaws()
    run = trainer(tmp_path, max_epochs=2, ema_decay=0.9)
    run.fit(model, *loaders())
    assert not np.array_equal(before, weights(model)["frozen.weight"])
    assert run.trace_count == 2


def test_numbers_are_read_once_an_interval(tmp_path, monkeypatch):
    """Between rows of the log they stay where they were computed."""
    read, numbers = [], StepOutputs.numbers.func

    def noted(outputs):
        read.append(run.global_step)
        return numbers(outputs)

    monkeypatch.setattr(StepOutputs, "numbers", property(noted))
    run = trainer(tmp_path, log_every_n_steps=10)
    run.fit(Line(), batches(*[[[1.0, 1.0]]] * 40))
    assert sorted(set(read)) == [10, 20, 30, 40]
    assert len(read) == 40


def test_several_optimizers(tmp_path):
    def both():
        first = optim.SGD(learning_rate=0.5)
        return optim.MultiOptimizer([first, optim.Adam(learning_rate=0.1)], [lambda n, _: n == "w"])

    model = Line(both)
    run = trainer(tmp_path, max_epochs=2, log_every_n_steps=1)
    run.fit(model, batches([[1.0, 2.0]]))
    assert model.w.tolist() == [-1.0, -2.0]
    assert run.history.log[-1]["learning_rate"] == 0.5
    assert run.trace_count == 1


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda loss: loss, "compute_loss gave array, expected .loss, dict of metrics."),
        (lambda loss: (loss, {"f1": mx.zeros((3,))}), r"f1 has shape \(3,\), expected one number"),
        (lambda loss: (loss, {"f1": "high"}), "f1 is a str, expected one number"),
        (lambda loss: (loss, {"f1": None}), "f1 is a NoneType, expected one number"),
        (lambda loss: (mx.zeros((2,)), {}), r"loss has shape \(2,\)"),
        (lambda loss: (loss, {"finite": loss}), "metric 'finite': the Trainer uses this name"),
    ],
)
def test_wrong_results_of_compute_loss_are_named(tmp_path, result, message):
    class Wrong(Line):
        def compute_loss(self, batch):
            return result(mx.sum(self.w * batch))

    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(Wrong(), batches([[1.0, 1.0]]))


def test_nothing_to_train_is_said(tmp_path):
    class Empty(TrainModule):
        pass

    model = Classifier()
    model.freeze()
    message = r"Empty has no trainable parameters \(0 in all, 0 frozen\): give it layers or arrays"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(Empty(), batches([[1.0]]))
    message = r"has no trainable parameters \(531 in all, 531 frozen\): unfreeze\(\) some"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(model, *loaders())

    class FreezesLater(Classifier):
        def on_train_epoch_start(self, epoch):
            if epoch == 1:
                self.freeze()

    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, max_epochs=2).fit(FreezesLater(), *loaders())


def test_without_a_compiler_training_runs_uncompiled(tmp_path, monkeypatch):
    monkeypatch.setattr("audiotrain.backend.ops._has_compiler", lambda: False)
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("only the CPU backend needs a compiler")
    run = trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"no g\+\+ found"):
        run.fit(Line(), batches([[1.0, 1.0]], [[1.0, 1.0]]))
    assert run.module.w.tolist() == [-2.0, -2.0]
    assert run.trace_count == 2  # eager: once a step
