"""What create_trainer is given reaches the Trainer: callbacks, overrides, each key of a file."""

import json

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Plain, Points, quiet, same, weights

import audiotrain
from audiotrain import create_competition_trainer, create_trainer
from audiotrain.config import to_plain
from audiotrain.config.diff import flat
from audiotrain.config.yaml_files import preset_names
from audiotrain.train import declarative
from audiotrain.train.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
)
from audiotrain.train.declarative.config import (
    PRESETS,
    CompetitionConfig,
    OptimizerSettings,
    SchedulerSettings,
    TrainerConfig,
    TrainingSettings,
    get_trainer_config,
)

# As the document's file, each value another than its default.
EVERY_KEY = {
    "optimizer": {"type": "lion", "learning_rate": 2e-5, "weight_decay": 0.02},
    "scheduler": {"type": "linear", "warmup_ratio": 0.2},
    "data": {"batch_size": 8, "num_workers": 2},
    "training": {
        "num_epochs": 3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "early_stopping": {"enabled": True, "patience": 4, "min_delta": 1e-9},
    },
    "competition": {"competition_name": "titanic", "cv_folds": 3, "enable_ensemble": False},
}


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_each_key_of_a_file_is_read(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    path.write_text(json.dumps(EVERY_KEY), encoding="utf-8")  # JSON is YAML
    config, usual = (flat(to_plain(one)) for one in (get_trainer_config(path), TrainerConfig()))
    given = flat(EVERY_KEY)
    assert {name: config[name] for name in given} == given
    assert {name for name in usual if config[name] != usual[name]} == set(given)


def test_each_key_of_a_file_reaches_the_trainer(tmp_path):
    run = create_trainer(Plain, EVERY_KEY, **quiet(tmp_path, num_epochs=3))
    train, val = run.loader(Points(40)), run.loader(Points(20))
    assert (train.batch_size, train.num_workers) == (8, 2)
    run.train(train, val)
    optimizer = run.trainer.optimizer
    assert type(optimizer) is optim.Lion
    assert optimizer.weight_decay == 0.02
    rate = optimizer._schedulers["learning_rate"]  # of 15 steps, 3 of them warm-up
    found = [rate(mx.array(step)).item() for step in (3, 6)]
    assert found == pytest.approx([2e-5, 1.5e-5])
    assert (run.trainer.max_epochs, run.trainer.global_step) == (3, 15)
    steps = [row["step"] for row in run.trainer.history.log if "val_loss" in row]
    assert steps == [2, 4, 6, 8, 10, 12, 14]
    (stopping,) = [one for one in run.trainer.callbacks if isinstance(one, EarlyStopping)]
    assert (stopping.patience, stopping.min_delta) == (4, 1e-9)


@pytest.mark.parametrize(
    ("setting", "value", "argument"),
    [
        ("max_steps", 7, "max_steps"),
        ("max_time", 60.0, "max_time"),
        ("gradient_clip", 0.5, "gradient_clip_val"),
        ("gradient_accumulation_steps", 3, "accumulate_grad_batches"),
        ("ema_decay", 0.9, "ema_decay"),
        ("precision", "bf16-mixed", "precision"),
        ("limit_train_batches", 2, "limit_train_batches"),
        ("limit_val_batches", 0.5, "limit_val_batches"),
        ("log_steps", 4, "log_every_n_steps"),
        ("seed", 5, "seed"),
    ],
)
def test_each_setting_of_training_is_an_argument_of_the_trainer(tmp_path, setting, value, argument):
    plain, changed = (
        create_trainer(Plain, {}, **quiet(tmp_path), **settings).trainer.arguments
        for settings in ({}, {setting: value})
    )
    assert getattr(changed, argument) == value != getattr(plain, argument)


class Counts(Callback):
    """Notes the epochs that end, and the largest rate."""

    counted: list = []
    peak = 0.0

    def __init__(self, by: int = 1):
        self.by = by

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.peak = max(self.peak, outputs["learning_rate"])

    def on_epoch_end(self, trainer, state):
        self.counted.append((self.by, state.epoch))


def test_callbacks_and_overrides_go_over_a_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(Counts, "counted", [])
    settings, counts = quiet(tmp_path, learning_rate=1e-5, batch_size=4), Counts()
    named = {"type": f"{__name__}.Counts", "by": 10}
    run = create_trainer(Plain, "production", [counts, named], **settings)
    run.train(Points(40), Points(20))
    assert sorted(Counts.counted) == [(1, 0), (1, 1), (10, 0), (10, 1)]
    assert run.config.optimizer.learning_rate == 1e-5
    assert counts.peak == pytest.approx(1e-5)
    production = get_trainer_config("production")
    assert run.config.scheduler == production.scheduler
    assert run.trainer.ema_decay == production.training.ema_decay
    with pytest.raises(ValueError, match="learning_rat: no such setting .did you mean"):
        create_trainer(Plain, "production", learning_rat=1e-5)


def test_accumulated_steps_are_those_of_the_big_batch(tmp_path):
    found = []
    for number, (size, steps) in enumerate(((5, 2), (10, 1))):
        folder = tmp_path / str(number)
        settings = quiet(folder, batch_size=size, gradient_accumulation_steps=steps, shuffle=False)
        run = create_trainer(Plain, {}, **settings, optimizer={"type": "sgd"})
        run.module.dropout.eval()
        run.train(Points(40), Points(20))
        assert run.trainer.global_step == 8
        found.append(weights(run.module))
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], atol=1e-6, err_msg=name)
    assert not same(found[0], weights(create_trainer(Plain, {}, **quiet(tmp_path / "2")).module))


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
def test_mixed_precision_is_nearly_the_same(tmp_path):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        run = create_trainer(Plain, {}, **quiet(tmp_path / precision, precision=precision))
        losses += [run.train(Points(40), Points(20)).history[-1]["val_loss"]]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)


def test_workers_reach_the_loaders(tmp_path):
    run = create_trainer(Plain, {}, **quiet(tmp_path, num_workers=3))
    run.train(Points(40), Points(20))
    assert run.trainer.train_loader.num_workers == run.trainer.val_loader.num_workers == 3


def callback(tmp_path, name: str, **options):
    """The callback that a dict makes, and its run, after two epochs of five steps."""
    run = create_trainer(
        Plain,
        {},
        [{"type": name, **options}],
        **quiet(tmp_path, batch_size=8, num_epochs=4, progress=False),
    )
    run.train(Points(40), Points(20))
    (made,) = [one for one in run.trainer.callbacks if type(one).__name__ == name]
    return made, run.trainer


def test_early_stopping_by_name(tmp_path):
    _, trainer = callback(tmp_path, "EarlyStopping", patience=1, min_delta=9.0, verbose=False)
    assert trainer.current_epoch == 2


def test_checkpoints_by_name_are_the_best_and_periodic(tmp_path):
    options = {"filename": "{epoch}", "save_top_k": -1, "every_n_epochs": 2}
    saver, _ = callback(tmp_path, "ModelCheckpoint", monitor="val_loss", **options)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"1", "3", "last"}
    assert saver.best_model_path.name in names


def test_a_schedule_is_a_function_and_no_setting(tmp_path):
    scheduler = LearningRateScheduler(lambda epoch: 0.5**epoch)
    run = create_trainer(Plain, {}, [scheduler], **quiet(tmp_path, num_epochs=3))
    run.train(Points(40), Points(20))
    assert [row["learning_rate"] for row in run.trainer.history.rows] == [1, 0.5, 0.25]


def test_a_progress_bar_by_name(tmp_path, capsys):
    bar, _ = callback(tmp_path, "ProgressBar", refresh_rate=3)
    assert bar.refresh_rate == 3
    assert capsys.readouterr().err.count("val_loss") == 4


def test_metrics_by_name(tmp_path):
    path = tmp_path / "numbers.json"
    logger, trainer = callback(tmp_path, "MetricsLogger", path=str(path))
    assert json.loads(path.read_text())["val_loss"] == logger.metrics["val_loss"]
    assert logger.metrics["val_loss"] == [row["val_loss"] for row in trainer.history.rows]


def test_a_quick_test_ends_within_four_batches(tmp_path):
    run = create_trainer(Plain, "quick_test", output_dir=tmp_path / "run")
    run.train(Points(400), Points(200))
    assert run.trainer.global_step == 4
    assert isinstance(run.saver, ModelCheckpoint)


def test_the_documents_six_presets_are_there():
    names = "quick_test development production kaggle titanic house_prices".split()
    assert set(names) <= set(preset_names(PRESETS))
    assert get_trainer_config("kaggle") == get_trainer_config("competition")
    assert len({repr(get_trainer_config(name)) for name in names}) == 6


def test_a_competition_has_its_name_by_either_function(tmp_path):
    assert audiotrain.create_kaggle_trainer is create_competition_trainer
    run = create_competition_trainer(Plain, "tones", Points(6), **quiet(tmp_path))
    assert run.config.competition.competition_name == "tones"
    assert isinstance(run, audiotrain.CompetitionTrainer)
    assert len(run.test_data) == 6


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("BaseTrainerConfig", TrainerConfig),
        ("KaggleTrainerConfig", CompetitionConfig),
        ("OptimizerConfig", OptimizerSettings),
        ("SchedulerConfig", SchedulerSettings),
    ],
)
def test_the_documents_classes_of_settings(name, ours):
    assert getattr(declarative, name) is ours


def test_the_old_way_trains_by_a_config(tmp_path):
    training = TrainingSettings(num_epochs=3, output_dir=tmp_path / "run", progress=False)
    optimizer = declarative.OptimizerConfig(learning_rate=0.01)
    config = declarative.BaseTrainerConfig(optimizer=optimizer, training=training)
    trainer = audiotrain.MLXTrainer(Plain(), config)
    assert isinstance(create_trainer(Plain, {}, **quiet(tmp_path)), audiotrain.MLXTrainer)
    result = trainer.train(Points(40), Points(20))
    assert len(result.history) == 3
    assert result.history[-1]["learning_rate"] == pytest.approx(0.01)
