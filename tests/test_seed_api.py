"""What the seeds promise and no other test file covers; SEEDS.md says which test covers what."""

import ast
import inspect
import json
import re
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Points, loaders, same, trainer, weights

import audiotrain
from audiotrain import DataLoader, Dataset, OptimizerConfig, Trainer, TrainModule
from audiotrain.train import callbacks as callback_module
from audiotrain.train import loggers as logger_module
from audiotrain.train import schedulers as scheduler_module
from audiotrain.train.callbacks import (
    Callback,
    EarlyStopping,
    GradientClipper,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
)
from audiotrain.train.schedulers import WarmupCosineScheduler

TESTS = Path(__file__).parent


def defaults(thing) -> dict:
    """Parameter -> default; the parameter itself where there is none."""
    parameters = inspect.signature(thing).parameters.values()
    return {p.name: p.default for p in parameters}


# Names and defaults


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (audiotrain, "TrainModule Trainer OptimizerConfig DataLoader Dataset"),
        (
            callback_module,
            "Callback EarlyStopping GradientClipper LearningRateMonitor ModelCheckpoint "
            "ProgressBar",
        ),
        (
            scheduler_module,
            "WarmupCosineScheduler WarmupLinearScheduler StepLRScheduler ExponentialLRScheduler",
        ),
        (logger_module, "WandbLogger TensorBoardLogger MLflowLogger"),
    ],
)
def test_names_are_importable(module, names):
    for name in names.split():
        assert inspect.isclass(getattr(module, name))


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (
            Trainer,
            {
                "max_epochs": None,
                "max_steps": None,
                "val_check_interval": 1.0,
                "gradient_clip_val": None,
                "gradient_clip_algorithm": "norm",
                "default_root_dir": "./logs",
                "enable_checkpointing": True,
                "compile": True,
                "seed": 42,
                "callbacks": None,
                "logger": None,
                "debug_lazy_eval": False,
            },
        ),
        (
            DataLoader,
            {
                "batch_size": 1,
                "shuffle": False,
                "num_workers": 0,
                "collate_fn": None,
                "drop_last": False,
                "prefetch_factor": 2,
                "worker_type": "thread",
                "persistent_workers": False,
                "cpu_transforms": None,
                "mlx_transforms": None,
            },
        ),
        (ModelCheckpoint, {"mode": "min", "save_last": True, "save_top_k": 3, "every_n_epochs": 1}),
        (EarlyStopping, {"patience": 5, "min_delta": 0.001, "mode": "min", "verbose": True}),
        (ProgressBar, {"refresh_rate": 10}),
        (LearningRateMonitor, {"logging_interval": "step"}),
        (GradientClipper, {"max_norm": 1.0}),
        (OptimizerConfig, {"lr_schedule_name": None}),
        (Trainer.fit, {"ckpt_path": None}),
        (Trainer.validate, {"ckpt_path": None}),
        (Trainer.test, {"ckpt_path": None}),
    ],
)
def test_defaults_are_documented_ones(thing, expected):
    found = defaults(thing)
    assert {name: found[name] for name in expected} == expected


def test_min_lr_may_be_left_out():
    schedule = WarmupCosineScheduler(peak_lr=1e-3, warmup_steps=500, total_steps=10000)
    assert schedule(10000).item() == pytest.approx(0, abs=1e-9)


def test_a_dataset_says_what_it_lacks():
    with pytest.raises(NotImplementedError, match="Half must define __len__"):
        len(type("Half", (Dataset,), {})())
    with pytest.raises(NotImplementedError, match="Half must define __getitem__"):
        type("Half", (Dataset,), {})()[0]


# The Trainer


class Asks(Classifier):
    """Notes `trainer.max_steps` in configure_optimizers, as the full example reads it."""

    def configure_optimizers(self):
        self.asked.append(self.trainer.max_steps)
        return super().configure_optimizers()


@pytest.mark.parametrize(
    ("settings", "seen"), [({"max_epochs": 1}, None), ({"max_steps": 3, "max_epochs": 9}, 3)]
)
def test_max_steps_can_be_read_in_configure_optimizers(tmp_path, settings, seen):
    model = Asks()
    object.__setattr__(model, "asked", [])
    trainer(tmp_path, **settings).fit(model, *loaders())
    assert model.asked == [seen]


@pytest.mark.parametrize("precise", ["val_precision", "val_recall"])
def test_every_metric_is_logged_and_can_be_monitored(tmp_path, precise):
    class Model(Classifier):
        def compute_loss(self, batch):
            loss, metrics = super().compute_loss(batch)
            return loss, metrics | {"precision": metrics["accuracy"], "recall": 2 * loss}

    saver = ModelCheckpoint(monitor=precise, mode="max")
    run = trainer(tmp_path, max_epochs=2, callbacks=[saver, EarlyStopping(precise, mode="max")])
    run.fit(Model(), *loaders())
    row = run.history.rows[-1]
    assert {"train_precision", "train_recall", "val_precision", "val_recall"} <= set(row)
    assert saver.best_model_score == max(row[precise] for row in run.history.rows)


def test_a_checkpoint_folder_and_resuming_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saver = ModelCheckpoint(dirpath="./checkpoints", monitor="val_accuracy", mode="max")
    trainer("logs", max_epochs=2, callbacks=[saver]).fit(Classifier(), *loaders())
    run = trainer("logs", max_epochs=3)
    run.fit(Classifier(seed=1), *loaders(), ckpt_path="./checkpoints/last")
    whole = trainer("whole", max_epochs=3)
    whole.fit(Classifier(), *loaders())
    assert same(weights(run.module), weights(whole.module))


def test_a_run_past_its_max_epochs_ends_at_once(tmp_path):
    trainer(tmp_path, max_epochs=3).fit(Classifier(), *loaders())
    run = trainer(tmp_path / "again", max_epochs=2, max_time=20)
    run.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "checkpoints" / "last")
    assert (run.current_epoch, run.global_step) == (3, 15)


def test_a_path_needs_no_extension_and_may_have_one(tmp_path):
    run = trainer(tmp_path)
    run.fit(Classifier(), *loaders())
    for name in ("plain", "with.pt"):
        run.save_checkpoint(str(tmp_path / name))
        other = trainer(tmp_path / "other")
        model = Classifier(seed=1)
        found = other.validate(model, loaders()[1], ckpt_path=str(tmp_path / name))
        assert same(weights(model), weights(run.module))
        assert found == run.validate(run.module, loaders()[1])
        tested = other.test(Classifier(seed=2), loaders()[1], ckpt_path=str(tmp_path / name))
        assert tested == {name.replace("val_", "test_"): found[name] for name in found}
        assert {"test_loss", "test_accuracy"} <= set(tested)


def test_the_full_examples_callbacks_work_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Model(Classifier):
        def configure_optimizers(self):
            schedule = WarmupCosineScheduler(
                peak_lr=1e-2, warmup_steps=5, total_steps=self.trainer.max_steps or 60
            )
            optimizer = optim.AdamW(learning_rate=schedule, weight_decay=0.01)
            return OptimizerConfig(optimizer=optimizer, lr_schedule_name="warmup_cosine")

    run = Trainer(
        max_epochs=6,
        gradient_clip_val=1.0,
        callbacks=[
            LearningRateMonitor(),
            ModelCheckpoint(monitor="val_loss", save_top_k=3),
            EarlyStopping(monitor="val_loss", patience=5),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(Model(), *loaders(count=80))
    losses = {row["epoch"]: row["val_loss"] for row in run.history.rows}
    assert losses[5] < 0.9 * losses[0]
    kept = {path.name for path in (tmp_path / "logs" / "checkpoints").iterdir()}
    best = sorted(losses, key=losses.get)[:3]
    assert kept == {"last", *(f"epoch-{epoch:03d}-step-{10 + 10 * epoch:06d}" for epoch in best)}
    assert run.max_steps is None
    lines = (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()
    rates = [row["lr-warmup_cosine"] for row in map(json.loads, lines) if "lr-warmup_cosine" in row]
    assert len(rates) == 60
    assert max(rates) == pytest.approx(1e-2)
    assert run.step.clip_value == 1.0


def test_channel_last_convolutions_train_on_pairs(tmp_path):
    class Network(TrainModule):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 4, kernel_size=3, padding=1), nn.MaxPool2d(2, 2)
            self.out = nn.Linear(4 * 3 * 3, 2)

        def __call__(self, x):
            x = x[:, :, :, None] if x.ndim == 3 else x
            x = self.pool(nn.relu(self.conv(x)))
            return self.out(x.reshape(x.shape[0], -1))

        def compute_loss(self, batch):
            images, labels = batch
            logits = self(images)
            loss = mx.mean(nn.losses.cross_entropy(logits, labels))
            return loss, {"accuracy": mx.mean(mx.argmax(logits, axis=-1) == labels)}

        def configure_optimizers(self):
            return OptimizerConfig(optim.AdamW(learning_rate=3e-2, weight_decay=0.01))

    def to_mlx_batch(items):
        return mx.array(np.stack([x for x, _ in items])), mx.array([y for _, y in items])

    rng = np.random.default_rng(0)
    images = [rng.normal(size=(6, 6)).astype(np.float32) + 2 * (i % 2) for i in range(64)]
    items = [(image, i % 2) for i, image in enumerate(images)]
    data = DataLoader(items, 16, True, collate_fn=lambda x: x, mlx_transforms=to_mlx_batch)
    run = trainer(tmp_path, max_epochs=6)
    run.fit(Network(), data, data)
    assert run.callback_metrics["val_accuracy"] > 0.9


# The functional style


def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 3)).astype(np.float32)
    y = rng.normal(size=(16, 2)).astype(np.float32)
    net = nn.Linear(3, 2)

    def loss_fn(params, x, y):
        net.update(params)
        return mx.mean((net(x) - y) ** 2)

    return net.parameters(), loss_fn, x, y


def test_gradients_over_a_parameter_tree_have_their_closed_form():
    params, loss_fn, x, y = regression()
    weight, bias = np.array(params["weight"]), np.array(params["bias"])
    loss, gradients = mx.value_and_grad(loss_fn)(params, mx.array(x), mx.array(y))
    error = x @ weight.T + bias - y
    assert loss.item() == pytest.approx(np.mean(error**2), rel=1e-5)
    np.testing.assert_allclose(gradients["weight"], 2 * error.T @ x / error.size, atol=1e-6)
    np.testing.assert_allclose(gradients["bias"], 2 * error.sum(axis=0) / error.size, atol=1e-6)
    updated = optim.SGD(learning_rate=0.1).apply_gradients(gradients, params)
    np.testing.assert_allclose(updated["bias"], bias - 0.1 * np.array(gradients["bias"]), atol=1e-7)


def test_per_example_keys_give_each_example_its_own_noise():
    def augment(key, example):
        return example + 0.1 * mx.random.normal(example.shape, key=key)

    x, keys = mx.zeros((5, 1000)), mx.random.split(mx.random.key(3), num=5)
    together = np.array(mx.vmap(augment)(keys, x))
    alone = np.stack([np.array(augment(key, row)) for key, row in zip(keys, x, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-7)
    assert np.abs(np.corrcoef(together) - np.eye(5)).max() < 0.15


class Noisy(Classifier):
    """Reports a random number of each step."""

    def compute_loss(self, batch):
        loss, metrics = super().compute_loss(batch)
        return loss, metrics | {"drawn": mx.random.uniform()}


@pytest.mark.parametrize("compiled", [True, False])
def test_each_step_draws_anew_from_the_seed(tmp_path, compiled):
    class Reads(Callback):
        def __init__(self):
            self.drawn = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.drawn.append(outputs["drawn"])

    found = []
    for seed in (1, 1, 2):
        reads = Reads()
        run = trainer(tmp_path / str(len(found)), callbacks=[reads], seed=seed, compile=compiled)
        run.fit(Noisy(), *loaders())
        assert len(set(reads.drawn)) == 5  # the key went on from step to step
        found.append(reads.drawn)
    assert found[0] == found[1] != found[2]


def test_a_compiled_step_returns_the_next_key():
    def step(x, key):
        k_noise, k_next = mx.random.split(key)
        return x + mx.random.normal(x.shape, key=k_noise), k_next

    results = []
    for function in (step, mx.compile(step)):
        x, key = mx.zeros((4,)), mx.random.key(0)
        for _ in range(3):
            x, key = function(x, key)
        results.append(np.array(x))
    np.testing.assert_allclose(*results, atol=1e-6)
    assert not np.allclose(results[0], 3 * np.array(step(mx.zeros((4,)), mx.random.key(0))[0]))


def test_numbers_cross_the_border_as_copies(tmp_path):
    host = np.ones((2, 2), np.float32)
    device = mx.array(host)
    host[:] = 5
    assert mx.all(device == 1)
    np.array(device)[:] = 7
    assert mx.all(device == 1)

    class Overwrites(Callback):
        """Reuses a batch's memory as soon as it is allowed to."""

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            batch["x"][:] = np.nan

    data = [{"x": np.stack([Points()[i]["x"]] * 4), "y": np.arange(4) % 3} for i in range(5)]
    kept = [{name: array.copy() for name, array in batch.items()} for batch in data]
    run, plain = trainer(tmp_path / "a", callbacks=[Overwrites()]), trainer(tmp_path / "b")
    run.fit(Classifier(), data)
    plain.fit(Classifier(), kept)
    assert same(weights(run.module), weights(plain.module))


def test_float64_is_computed_on_the_cpu():
    with mx.stream(mx.cpu):
        third = mx.array(1.0, mx.float64) / 3
        assert third.item() == 1 / 3
    assert (mx.array(1.0) / 3).item() != 1 / 3


def test_it_is_computed_on_the_default_device_and_stream(tmp_path):
    class Notes(Classifier):
        def compute_loss(self, batch):
            device = mx.default_device()
            self.noted.add((str(device), str(mx.default_stream(device))))
            return super().compute_loss(batch)

    before = mx.default_device()
    for kind in (mx.cpu, mx.gpu):
        if not mx.is_available(kind):
            continue
        stream, usual = mx.new_stream(kind), mx.default_stream(kind)
        model = Notes()
        object.__setattr__(model, "noted", set())
        try:
            mx.set_default_device(kind)
            mx.set_default_stream(stream)
            trainer(tmp_path / str(kind)).fit(model, *loaders())
        finally:
            mx.set_default_stream(usual)
            mx.set_default_device(before)
        assert model.noted == {(str(mx.Device(kind)), str(stream))}


# The tables of SEEDS.md


def numbered(seed: int, *numbers) -> list[str]:
    return [f"S{seed}-{number:02d}" for number in numbers]


ITEMS = [
    *numbered(0, *range(1, 58)),
    *numbered(1, *range(1, 16)),
    *numbered(2, *range(1, 22)),
    *numbered(3, *range(1, 23)),
    *numbered(4, *range(1, 13)),
]
GATES = [
    *(f"also {n}" for n in range(1, 20)),
    *(f"gate {n}" for n in range(1, 16)),
    *(f"mistake {n}" for n in range(1, 15)),
]


def tables() -> dict[str, list[str]]:
    """First cell of each row of SEEDS.md -> what its last cell names in backticks."""
    found = {}
    for line in (TESTS / "SEEDS.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"S\d-\d\d|(also|gate|mistake) \d+", cells[0]):
            assert cells[0] not in found, f"{cells[0]} has two rows"
            found[cells[0]] = re.findall(r"`([^`]+)`", cells[-1])
    return found


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_item_and_gate_has_its_row():
    assert sorted(tables()) == sorted(ITEMS + GATES)


@pytest.mark.parametrize("item", ITEMS + GATES)
def test_what_a_row_names_exists(item):
    names = tables()[item]
    assert names, f"{item} names no test"
    for name in names:
        file, _, function = name.partition("::")
        path = next(
            (root / file for root in (TESTS, TESTS.parent) if (root / file).is_file()), TESTS / file
        )
        assert path.is_file(), f"{item}: no file {file}"
        if TESTS in path.parents:
            assert function in functions(path), f"{item}: no test {name}"
