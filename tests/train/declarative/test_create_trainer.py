"""create_trainer: a model and settings become a run, which its own config.yaml starts again."""

import json
import signal
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Classifier, Plain, Points, loaders, quiet, same, weights

import audiotrain
from audiotrain import OptimizerConfig, create_trainer, register_trainer
from audiotrain.train.callbacks import EMA, Callback, ModelCheckpoint
from audiotrain.train.data.datasets import as_dataset
from audiotrain.train.declarative import configured_trainer
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer
from audiotrain.train.schedulers import WarmupCosineScheduler


class Rates(Callback):
    """Keeps the rate of each step."""

    def __init__(self, name: str = "rates"):
        self.name, self.rates = name, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.rates.append(trainer.current_learning_rate())


def test_train_evaluate_predict_save_load(tmp_path):
    run = create_trainer(Plain, "development", **quiet(tmp_path, batch_size=10))
    before = run.evaluate(Points(20))
    assert not (tmp_path / "run").exists()  # nothing begun
    result = run.train(Points(40), Points(20))
    assert result.run == tmp_path / "run"
    assert [row["step"] for row in result.history] == [4, 8]
    assert result.best_score == min(row["val_loss"] for row in result.history)
    assert result.best_checkpoint == tmp_path / "run" / "checkpoints" / "best"
    assert result.last_checkpoint == tmp_path / "run" / "checkpoints" / "last"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.json", "history.json", "metrics.csv", "checkpoints"} <= names
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["best_score"] == result.best_score
    after = run.evaluate(Points(20))
    assert after["test_loss"] < before["test_loss"]
    assert after["test_loss"] == pytest.approx(result.history[-1]["val_loss"], rel=1e-5)
    probabilities = np.concatenate(run.predict(Points(20)))
    assert probabilities.shape == (20, 3)
    run.save_checkpoint(tmp_path / "mine")
    # Batches of one size: some processors' BLAS rounds a row by how many there are beside it.
    settings = quiet(tmp_path, output_dir=tmp_path / "other", batch_size=10)
    other = create_trainer(Plain, **settings)
    other.load_checkpoint(tmp_path / "mine")
    np.testing.assert_array_equal(np.concatenate(other.predict(Points(20))), probabilities)
    best = run.predict(Points(20), checkpoint="best")
    other.load_checkpoint(tmp_path / "run")
    np.testing.assert_array_equal(np.concatenate(other.predict(Points(20))), np.concatenate(best))


@pytest.mark.parametrize("dirpath", [None, "elsewhere"])
def test_best_is_what_a_saver_of_ones_own_kept(tmp_path, monkeypatch, dirpath):
    monkeypatch.chdir(tmp_path)
    saver = ModelCheckpoint(dirpath, "top-{epoch}", monitor="val_loss", mode="max", save_top_k=1)
    run = create_trainer(Plain, {}, [saver], **quiet(tmp_path))
    result = run.train(Points(40), Points(20))
    kept = tmp_path / (dirpath or "run/checkpoints") / "top-0"
    assert result.best_checkpoint.absolute() == kept
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["best_checkpoint"] == (str(kept) if dirpath else "checkpoints/top-0")
    assert metrics["best_score"] == max(row["val_loss"] for row in result.history)
    worst = run.evaluate(Points(20), "best")["test_loss"]
    assert worst == pytest.approx(metrics["best_score"], rel=1e-5)
    assert run.evaluate(Points(20), "last")["test_loss"] < worst
    new = create_trainer(Plain, **quiet(tmp_path, output_dir=tmp_path / "new"))
    assert new.evaluate(Points(20), tmp_path / "run")["test_loss"] == worst


def test_the_newest_is_no_best_score(tmp_path):
    run = create_trainer(Plain, {}, [ModelCheckpoint()], **quiet(tmp_path))
    result = run.train(Points(40), Points(20))
    assert result.best_score is None
    assert result.best_checkpoint.name == "epoch-001-step-000004"


@pytest.mark.parametrize("preset", ["production", "development"])
def test_the_runs_own_config_gives_the_same_weights(tmp_path, preset):
    first = create_trainer(Plain, preset, **quiet(tmp_path, seed=7, num_workers=2))
    first.train(Points(40), Points(20))
    again = create_trainer(Plain, tmp_path / "run", output_dir=tmp_path / "again")
    again.train(Points(40), Points(20))
    assert same(weights(first.module), weights(again.module))
    other = create_trainer(Plain, tmp_path / "run", output_dir=tmp_path / "other", seed=8)
    assert not same(weights(create_trainer(Plain, seed=7).module), weights(other.module))


def test_a_file_may_name_the_model_and_all_parts(tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"""\
model: {{type: {__name__}.Plain, width: 4}}
optimizer: {{type: mlx.optimizers.RMSprop, learning_rate: 1e-2, options: {{alpha: 0.9}}}}
scheduler: {{type: mlx.optimizers.exponential_decay, options: {{decay_rate: 0.5}}}}
training: {{num_epochs: 1, progress: false, output_dir: {tmp_path}/run}}
data: {{batch_size: 10}}
callbacks:
  - {{type: {__name__}.Rates, name: own}}
  - {{type: EMA, decay: 0.5}}
"""
    )
    run = create_trainer(config=tmp_path / "run.yaml")
    assert run.module.layers.layers[0].weight.shape == (4, 8)
    run.train(Points(40), Points(20))
    assert isinstance(run.trainer.optimizer, optim.RMSprop)
    assert run.trainer.optimizer.alpha == 0.9
    rates = next(c for c in run.trainer.callbacks if isinstance(c, Rates))
    assert rates.rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125])
    assert rates.name == "own"
    assert run.trainer.ema_decay == 0.5


def test_the_schedule_warms_up_over_its_share_of_all_steps(tmp_path):
    rates = Rates()
    run = create_trainer(
        Plain,
        "development",
        [rates],
        **quiet(tmp_path, batch_size=4, learning_rate=0.5, warmup_ratio=0.2),
    )
    run.train(Points(40), Points(20))
    expected = WarmupCosineScheduler(0.5, warmup_steps=4, total_steps=20)
    assert rates.rates == pytest.approx([expected(step).item() for step in range(20)])


@pytest.mark.parametrize("kind", ["constant", "linear", "one_cycle", "step", "exponential"])
def test_the_other_schedules(tmp_path, kind):
    options = {"step": {"step_size": 2, "gamma": 0.5}, "exponential": {"decay_rate": 0.5}}
    warm = kind not in options
    rates = Rates()
    run = create_trainer(
        Plain,
        {},
        [rates],
        **quiet(tmp_path, max_steps=8, batch_size=5, learning_rate=0.1),
        scheduler={
            "type": kind,
            "options": options.get(kind, {}),
            "warmup_ratio": 0.25 if warm else 0,
        },
    )
    run.train(Points(40), Points(20))
    found = dict(enumerate(rates.rates))
    expected = {
        "constant": {0: 0.1 / 3, 1: 0.2 / 3, 2: 0.1, 7: 0.1},
        "linear": {2: 0.1, 5: 0.05, 7: 0.1 / 6},
        "one_cycle": {0: 0.1 / 25, 1: 0.052, 2: 0.1},
        "step": {0: 0.1, 1: 0.1, 2: 0.05, 7: 0.0125},
        "exponential": {0: 0.1, 3: 0.0125},
    }[kind]
    assert {step: found[step] for step in expected} == pytest.approx(expected, rel=1e-5)


def test_rates_by_layer_and_weights_without_decay(tmp_path):
    settings = {
        "type": "sgd",
        "learning_rate": 1.0,
        "weight_decay": 0.5,
        "no_decay": ["*bias"],
        "layers": ["layers.layers.0.*", "layers.layers.2.*"],
        "layer_decay": 0.1,
    }
    run = create_trainer(Plain, {}, **quiet(tmp_path, max_steps=1), optimizer=settings)
    before = weights(run.module)
    run.module.compute_loss = lambda batch: (mx.sum(0 * run.module.layers(batch["x"])), {})
    run.train(Points(40), Points(20))
    after = weights(run.module)
    for name, share in {
        "layers.layers.0.weight": 1 - 0.1 * 0.5,
        "layers.layers.0.bias": 1,
        "layers.layers.2.weight": 1 - 0.5,
        "layers.layers.2.bias": 1,
    }.items():
        np.testing.assert_allclose(after[name], share * before[name], rtol=1e-5)


def test_the_modules_own_optimizer_is_taken_when_asked(tmp_path):
    run = create_trainer(Classifier(), {}, **quiet(tmp_path), optimizer={"type": "module"})
    run.train(*loaders())
    assert run.trainer.optimizer_config.lr_schedule_name == "test"


@pytest.mark.parametrize("batches", ["arrays", "mlx", "loaders"])
def test_a_plain_module_and_a_loss(tmp_path, batches):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    y = x @ np.array([[1], [-2], [3], [0.5]], np.float32)

    def loss(model, x, y):
        error = mx.mean((model(x) - y) ** 2)
        return error, {"mae": mx.mean(mx.abs(model(x) - y))}

    run = create_trainer(
        nn.Linear(4, 1), {}, loss=loss, **quiet(tmp_path, num_epochs=60), learning_rate=0.1
    )
    both = mx.array(x), mx.array(y)
    data = {"arrays": (x, y), "mlx": both, "loaders": [both] * 2}[batches]
    run.train(data, data)
    metrics = run.evaluate(data)
    assert metrics["test_mae"] < 0.1
    (first, *_) = run.predict((x[:5], y[:5]))
    assert first.shape == (5, 1)


@pytest.mark.parametrize("kind", [mx.float32, mx.bfloat16, mx.int32])
def test_rows_of_mlx_arrays(kind):
    array = mx.arange(6).reshape(3, 2).astype(kind)
    for data in (array, (array, array), {"x": array}):
        rows = as_dataset(data)
        assert len(rows) == 3
        (item, *_) = rows[1].values() if isinstance(data, dict) else np.atleast_2d(rows[1])
        np.testing.assert_array_equal(item, [2, 3])
    assert as_dataset((array, np.zeros(3)))[2][1] == 0.0
    with pytest.raises(ValueError, match="an array without axes, expected a row for each item"):
        as_dataset(mx.array(3))


def test_validation_by_steps_and_early_stopping(tmp_path):
    run = create_trainer(
        Plain,
        {},
        **quiet(tmp_path, num_epochs=50, batch_size=10, learning_rate=1e-9),
        eval_strategy="steps",
        eval_steps=3,
        early_stopping={"patience": 2, "min_delta": 0.1},
    )
    result = run.train(Points(40), Points(20))
    assert run.trainer.global_step == 9  # better at 3 than nothing, no better at 6 and 9
    assert result.best_score is not None


def test_patience_may_count_epochs(tmp_path):
    run = create_trainer(
        Plain,
        {},
        **quiet(tmp_path, num_epochs=9, batch_size=10, learning_rate=1e-9),
        eval_strategy="steps",
        eval_steps=2,
        early_stopping={"patience": 2, "min_delta": 0.1, "patience_unit": "epoch"},
    )
    run.train(Points(40), Points(20))
    assert run.trainer.global_step == 12  # better in the first of 3 epochs, of 2 validations each


def test_without_validation(tmp_path):
    run = create_trainer(Plain, {}, **quiet(tmp_path), eval_strategy="no", save_best_only=True)
    result = run.train(Points(40))
    assert result.best_checkpoint is None
    assert result.last_checkpoint.exists()
    with pytest.raises(ValueError, match="eval_strategy is 'epoch', but train was given no valid"):
        create_trainer(Plain, {}, **quiet(tmp_path)).train(Points(40))


def test_best_only_leaves_no_last(tmp_path):
    run = create_trainer(Plain, "quick_test", **quiet(tmp_path))
    run.train(Points(40), Points(20))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["best"]
    assert run.trainer.global_step == 8  # two epochs of four batches


def test_a_stopped_run_continues_exactly(tmp_path):
    whole = create_trainer(Plain, {}, **quiet(tmp_path, num_epochs=3))
    whole.train(Points(40), Points(20))
    half = quiet(tmp_path, output_dir=tmp_path / "half", num_epochs=1)
    create_trainer(Plain, {}, **half).train(Points(40), Points(20))
    with pytest.raises(ValueError, match="half: holds a run already"):
        create_trainer(Plain, {}, **half).train(Points(40), Points(20))
    more = create_trainer(Plain, tmp_path / "half", [rates := Rates()], num_epochs=3)
    more.train(Points(40), Points(20), resume=True)
    assert same(weights(whole.module), weights(more.module))
    assert len(rates.rates) == 4  # the steps of the two epochs that were left
    other = create_trainer(Plain, tmp_path / "half", learning_rate=0.5)
    with pytest.raises(ValueError, match="resume: optimizer.learning_rate is 0.5, expected 0.001"):
        other.train(Points(40), Points(20), resume=True)
    for options, told in (
        ({"betas": [0.5, 0.6]}, r"betas is \[0.5, 0.6\], expected nothing as in the run"),
        ({"eps": None}, "eps is None, expected nothing as in the run"),
    ):
        other = create_trainer(Plain, tmp_path / "half", optimizer={"options": options})
        with pytest.raises(ValueError, match=f"resume: optimizer.options.{told}"):
            other.train(Points(40), Points(20), resume=True)
    assert "betas" not in (tmp_path / "half" / "config.yaml").read_text()


def test_a_run_in_a_folder_of_the_trainers_choice_continues_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = create_trainer(Plain, {}, num_epochs=1, progress=False, run_name="mine")
    result = first.train(Points(40), Points(20))
    assert result.run.parent.name == "runs"
    monkeypatch.setattr(configured_trainer, "run_name", lambda config: Path("runs/later"))
    more = create_trainer(Plain, result.run, num_epochs=3)
    with pytest.raises(ValueError, match="runs/mine.*: holds a run already"):
        more.train(Points(40), Points(20))
    assert more.train(Points(40), Points(20), resume=True).run == result.run
    whole = create_trainer(Plain, {}, **quiet(tmp_path, num_epochs=3))
    whole.train(Points(40), Points(20))
    assert same(weights(whole.module), weights(more.module))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [result.run.name]


class Tuned(ConfiguredTrainer):
    """A trainer of one's own."""


def test_trainers_of_ones_own():
    register_trainer("tuned", Tuned)
    assert isinstance(create_trainer(Plain, trainer="tuned"), Tuned)
    assert isinstance(create_trainer(Plain, trainer=f"{__name__}.Tuned"), Tuned)
    with pytest.raises(ValueError, match="trainer: found 'tunde' .did you mean tuned"):
        create_trainer(Plain, trainer="tunde")
    with pytest.raises(
        ValueError, match="trainer is 'mlx.nn.Linear', expected a ConfiguredTrainer"
    ):
        create_trainer(Plain, trainer="mlx.nn.Linear")
    with pytest.raises(ValueError, match="'default' is audiotrain's own"):
        register_trainer("default", Tuned)


class Unconfigured(nn.Module):
    """No TrainModule."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"type": "adamv"}}, r"optimizer.type: found 'adamv' \(did you mean adam"),
        ({"optimizer": {"type": "mlx.optimizers.AdamV"}}, r"mlx.optimizers has no 'AdamV'"),
        ({"optimizer": {"type": "mlx.optimiser.Adam"}}, "no module 'mlx.optimiser', exp"),
        (
            {"optimizer": {"type": "mlx.nn.Linear"}},
            "optimizer.options: Linear: missing .*, expected input_dims",
        ),
        (
            {"optimizer": {"options": {"beta": 1}}},
            "optimizer.options: AdamW: .* argument 'beta', expected learning_rate, betas, ",
        ),
        ({"optimizer": {"type": "adam", "weight_decay": 0.1}}, "but adam has none, expected 0"),
        (
            {"optimizer": {"layers": ["tower.*"], "layer_decay": 0.5}},
            r"optimizer.layers: no trainable parameter fits 'tower.\*'",
        ),
        ({"scheduler": {"type": "cosin"}}, r"scheduler.type: found 'cosin' \(did you mean cosine"),
        (
            {"scheduler": {"type": "step", "warmup_ratio": 0.1}},
            "scheduler.warmup_ratio: step has no warm-up, expected 0",
        ),
        ({"scheduler": {"type": "step"}}, "StepLRScheduler: missing .*'step_size', exp"),
        ({"scheduler": {"options": {"min_lr": 1}}}, "but the schedule is constant"),
        (
            {"callbacks": [{"type": "EarlyStoping"}]},
            r"callbacks: number 1: found 'EarlyStoping' \(did you mean EarlyStopping",
        ),
        (
            {"callbacks": [{"type": "EMA", "rate": 1}]},
            "callbacks: number 1: EMA: .* 'rate', expected decay",
        ),
        (
            {"callbacks": [{"type": "mlx.nn.ReLU"}]},
            r"number 1: found ReLU\(\), expected a Callback",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        create_trainer(Plain, {}, **quiet(tmp_path), **settings).train(Points(40), Points(20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ("EMA", "callbacks is 'EMA', expected a list of Callbacks or dicts"),
        (None, "callbacks is None, expected a list"),
        (EMA(), "callbacks is <audiotrain.train.callbacks.builtin.EMA object"),
        (
            [Rates(), EMA],
            "callbacks: number 2: the class EMA, expected an object of it",
        ),
        (["EMA"], "callbacks: number 1: found 'EMA', expected a Callback"),
    ],
)
def test_callbacks_that_are_none(callbacks, message):
    with pytest.raises(ValueError, match=message):
        create_trainer(Plain, {}, callbacks)


@pytest.mark.parametrize("name", ["pseudo_rounds", "cv_folds"])
def test_settings_of_a_competition_are_not_ignored(tmp_path, name):
    message = f"{name} is a setting of a competition, expected create_competition_trainer or"
    with pytest.raises(ValueError, match=message):
        create_trainer(Plain, {}, **quiet(tmp_path), **{name: 2})
    run = create_trainer(Plain, "competition", **quiet(tmp_path), **{name: 2})
    assert getattr(run.config.competition, name) == 2


def test_models_and_loaders_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="model is a Unconfigured, expected a TrainModule"):
        create_trainer(Unconfigured())
    with pytest.raises(ValueError, match="Plain has a loss of its own"):
        create_trainer(Plain, loss=lambda model, batch: 0)
    with pytest.raises(ValueError, match="no model: give one"):
        create_trainer()
    with pytest.raises(ValueError, match="model: Plain: .* 'widht', expected width"):
        create_trainer(config={"model": {"type": f"{__name__}.Plain", "widht": 3}})
    run = create_trainer(Plain, {}, **quiet(tmp_path, batch_size=5))
    with pytest.raises(ValueError, match="batch_size is 5, but the loader given has 8"):
        run.train(*loaders())
    assert {"test_loss"} <= set(run.evaluate(loaders()[1]))  # in batches of any size
    assert len(run.predict(loaders()[1])) == 3
    with pytest.raises(ValueError, match=r"arrays have \[2, 3\] rows"):
        run.train((np.zeros(2), np.zeros(3)), Points(20))


def test_the_public_names():
    assert {"create_trainer", "get_trainer_config", "TrainerConfig"} <= set(audiotrain.__all__)
    assert audiotrain.OptimizerConfig is OptimizerConfig


class Interrupts(Callback):
    """Ctrl-C at the third step."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_says_how_it_continues_here(tmp_path, capsys):
    run = create_trainer(Plain, callbacks=[Interrupts()], **quiet(tmp_path))
    with pytest.raises(SystemExit):
        run.train(Points(400), Points(20))
    assert "saved; to continue: train(..., resume=True)" in capsys.readouterr().err
