"""Folds, their ensemble and a submission: what a competition is won with."""

import csv
import json

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import Plain, Points, quiet

from audiotrain import (
    CompetitionTrainer,
    DataLoader,
    TrainerConfig,
    create_competition_trainer,
    create_trainer,
    register_trainer,
)
from audiotrain.train.callbacks import ModelCheckpoint
from audiotrain.train.data.samplers import BucketSampler, WeightedRandomSampler
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer
from audiotrain.train.ensembling import vote
from audiotrain.train.loggers import MLflowLogger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's database
GROUPS = [f"g{item // 2}" for item in range(40)]
LABELS = [Points()[item]["y"] for item in range(40)]
NAMES = ["zero", "one", "two"]


def competition(tmp_path, model=Plain, **settings):
    settings = quiet(tmp_path, cv_folds=3, batch_size=8, learning_rate=0.01) | settings
    return create_competition_trainer(model, "tones", Points(6), {}, **settings)


def predictions_of(folder, count, k, kind=Plain):
    """What a fold's best model predicts for the first `count` points."""
    run = create_trainer(kind, {}, progress=False)
    run.load_checkpoint(folder / f"fold-{k}")
    return np.concatenate([np.array(part) for part in run.predict(Points(count))])


def test_each_item_is_predicted_by_the_model_that_never_saw_it(tmp_path):
    run = competition(tmp_path)
    result = run.train_with_cv(Points(40), GROUPS, LABELS)
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"]
    assert sorted(int(item) for fold in folds for item in fold) == list(range(40))
    for k, fold in enumerate(folds):
        rows = [int(item) for item in fold]
        assert not {GROUPS[row] for row in rows} & {
            GROUPS[row] for row in range(40) if row not in rows
        }
        own = predictions_of(tmp_path / "run", 40, k)
        np.testing.assert_allclose(result.predictions[rows], own[rows], rtol=1e-5)
        assert (tmp_path / "run" / f"fold-{k}" / "config.yaml").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    losses = [fold["test_loss"] for fold in result.folds]
    assert metrics["mean"]["test_loss"] == pytest.approx(np.mean(losses))
    assert result.deviation["test_loss"] == pytest.approx(np.std(losses, ddof=1))
    # The loss of all, from the predictions alone.
    loss = -np.log(result.predictions[np.arange(40), LABELS])
    expected = [loss[[int(item) for item in fold]].mean() for fold in folds]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_no_fold_trains_on_what_it_is_tested_on(tmp_path, monkeypatch):
    seen = []

    def record(self, train, valid=None, resume=False):
        seen.append((set(train.rows), set(valid.rows)))
        raise InterruptedError

    monkeypatch.setattr(ConfiguredTrainer, "train", record)
    run = competition(tmp_path)
    with pytest.raises(InterruptedError):
        run.train_with_cv(Points(40), GROUPS, LABELS)
    (trained, valid) = seen[0]
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"]
    tested = {int(item) for item in folds[0]}
    assert trained | valid | tested == set(range(40))
    parts = [{GROUPS[row] for row in part} for part in (trained, valid, tested)]
    assert sum(map(len, parts)) == 20  # no group is in two of them


def test_the_submission_is_the_mean_of_the_folds(tmp_path):
    sample = tmp_path / "sample_submission.csv"
    ids = ["f", "b", "a", "c", "e", "d"]
    sample.write_text("file,zero,one,two\n" + "".join(f"{one},0,0,0\n" for one in ids))
    run = competition(tmp_path, sample_submission=sample)
    run.train_with_cv(Points(40), GROUPS)
    path = run.create_submission()
    assert path == tmp_path / "run" / "submission.csv"
    header, *rows = list(csv.reader(path.read_text().splitlines()))
    assert header == ["file", *NAMES]
    assert [row[0] for row in rows] == ids
    found = np.array([row[1:] for row in rows], float)
    mean = np.mean([predictions_of(tmp_path / "run", 6, k) for k in range(3)], axis=0)
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    other = run.create_submission(tmp_path / "other.csv", ids=sorted(ids), columns=NAMES)
    assert [line.split(",")[0] for line in other.read_text().splitlines()[1:]] == ids
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("id,zero,one,two\n" + "".join(f"{one},0,0,0\n" for one in range(6)))
    arrays = {"ids": np.arange(6), "columns": np.array(NAMES)}
    other = run.create_submission(tmp_path / "n.csv", numbers, **arrays)
    assert [line.split(",")[0] for line in other.read_text().splitlines()[1:]] == list("012345")
    with pytest.raises(ValueError, match="expected 0 ids by 3 columns"):
        run.create_submission(ids=[])
    with pytest.raises(ValueError, match="ids: 1 without a prediction"):
        run.create_submission(ids=[*ids[:5], "new"])
    with pytest.raises(ValueError, match="shape .5, 3., expected 6 ids by 3 columns"):
        run.create_submission(test_data=Points(5))


@pytest.mark.parametrize("how", ["geometric", "majority"])
def test_the_folds_are_joined_as_the_config_says(tmp_path, how):
    run = competition(tmp_path, ensemble_method=how)
    run.train_with_cv(Points(40), GROUPS)
    said = [predictions_of(tmp_path / "run", 6, k) for k in range(3)]
    expected = vote(said, how=how)
    assert not np.allclose(expected, np.mean(said, axis=0), atol=1e-4)
    np.testing.assert_allclose(run.predict(), expected, rtol=1e-4)


def test_without_the_ensemble_the_best_fold_is_taken(tmp_path):
    run = competition(tmp_path, enable_ensemble=False)
    run.train_with_cv(Points(40), GROUPS)
    scores = [
        json.loads((tmp_path / "run" / f"fold-{k}" / "metrics.json").read_text())["best_score"]
        for k in range(3)
    ]
    expected = predictions_of(tmp_path / "run", 6, int(np.argmin(scores)))
    np.testing.assert_allclose(run.predict(), expected, rtol=1e-5)


def ending_badly(tmp_path, **settings):
    """A competition whose first epoch is its best: each further one unlearns."""
    return competition(
        tmp_path, num_epochs=3, optimizer={"type": f"{__name__}.GetsWorse"}, **settings
    )


class GetsWorse(optim.SGD):
    """Goes down for an epoch of four batches or fewer, then up."""

    def apply_single(self, gradient, parameter, state):
        gradient = mx.where(self.step <= 4, 20 * gradient, -200 * gradient)
        return super().apply_single(gradient, parameter, state)


@pytest.mark.parametrize("given", ["settings", "object"])
def test_a_saver_of_ones_own_says_which_checkpoint_is_best(tmp_path, given):
    whole = ending_badly(tmp_path).train_with_cv(Points(40), GROUPS)
    saver = {"filename": "top-{epoch}", "monitor": "val_loss", "save_top_k": 1}
    saver = ModelCheckpoint(**saver) if given == "object" else {"type": "ModelCheckpoint"} | saver
    own = {"callbacks": [saver], "output_dir": tmp_path / "own"}
    run = ending_badly(tmp_path, **own)
    result = run.train_with_cv(Points(40), GROUPS)
    assert result.mean == whole.mean
    np.testing.assert_array_equal(result.predictions, whole.predictions)
    (tmp_path / "own" / "oof" / "fold-2.npz").unlink()
    again = ending_badly(tmp_path, **own)
    assert again.train_with_cv(Points(40), GROUPS, resume=True).mean == whole.mean
    np.testing.assert_array_equal(again.predict(), run.predict())
    places = {path.name for path in (tmp_path / "own" / "fold-0" / "checkpoints").iterdir()}
    assert places == {"last", "top-0"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"callbacks": [{"type": "ModelCheckpoint", "dirpath": "kept"}]},
            "dirpath is 'kept', which all folds would write to",
        ),
        ({"enable_ensemble": False, "eval_strategy": "no"}, "nothing says which fold is best"),
        (
            {"enable_ensemble": False, "callbacks": [{"type": "ModelCheckpoint"}]},
            "nothing says which fold is best",
        ),
    ],
)
def test_what_folds_cannot_have_is_told_before_they_train(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        competition(tmp_path, **settings).train_with_cv(Points(40), GROUPS)
    assert not (tmp_path / "run").exists()


def test_the_best_fold_is_that_of_the_savers_own_metric(tmp_path):
    saver = ModelCheckpoint(monitor="val_loss", mode="max", save_top_k=1)  # the worst
    run = competition(tmp_path, enable_ensemble=False, callbacks=[saver], best_mode="min")
    run.train_with_cv(Points(40), GROUPS)
    found = [json.loads((fold.run / "metrics.json").read_text()) for fold in run.folds]
    worst = int(np.argmax([one["best_score"] for one in found]))
    expected = predictions_of(tmp_path / "run", 6, worst)
    np.testing.assert_allclose(run.predict(), expected, rtol=1e-5)
    assert {one["best_metric"] for one in found} == {"val_loss"}


def test_an_interrupted_cross_validation_goes_on(tmp_path, monkeypatch):
    whole = competition(tmp_path).train_with_cv(Points(40), GROUPS)
    half = competition(tmp_path, output_dir=tmp_path / "half")
    train, trained = ConfiguredTrainer.train, []

    def dies(self, *data, **settings):
        trained.append(self.run.name)
        if self.run.name == "fold-1" and len(trained) == 2:
            raise KeyboardInterrupt
        return train(self, *data, **settings)

    monkeypatch.setattr(ConfiguredTrainer, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        half.train_with_cv(Points(40), GROUPS)
    again = competition(tmp_path, output_dir=tmp_path / "half")
    with pytest.raises(ValueError, match="half: holds a run already .folds.json"):
        again.train_with_cv(Points(40), GROUPS)
    with pytest.raises(ValueError, match="folds of other data"):
        again.train_with_cv(Points(40), resume=True)
    longer = competition(tmp_path, output_dir=tmp_path / "half", num_epochs=9)
    with pytest.raises(ValueError, match="resume: training.num_epochs is 9, expected"):
        longer.train_with_cv(Points(40), GROUPS, resume=True)
    result = again.train_with_cv(Points(40), GROUPS, resume=True)
    assert trained == ["fold-0", "fold-1", "fold-1", "fold-2"]
    np.testing.assert_array_equal(result.predictions, whole.predictions)
    assert result.mean == whole.mean


def test_one_model_begins_each_fold_with_its_first_weights(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)
    model = nn.Linear(2, 1)
    before = np.array(model.weight)

    def loss(model, x, y):
        return ((model(x) - y) ** 2).mean()

    run = create_competition_trainer(
        model,
        "sums",
        (x, y),
        {},
        loss=loss,
        **quiet(tmp_path, num_epochs=1, cv_folds=2),
        eval_strategy="no",
        optimizer={"type": "sgd", "learning_rate": 1e-9},
    )
    result = run.train_with_cv((x, y))
    np.testing.assert_allclose(
        result.predictions, x @ before.T + np.array(model.bias), rtol=1e-3, atol=1e-4
    )
    assert run.predict().shape == (30, 1)


@pytest.mark.slow
def test_folds_are_child_runs_in_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    tracking = {"loggers": ["mlflow"], "tracking_uri": store, "experiment_name": "cv"}
    run = competition(tmp_path, tracking=tracking, cv_folds=2)
    result = run.train_with_cv(Points(40), GROUPS)
    client = MLflowLogger(tracking_uri=store, run_id=None).client
    experiment = client.get_experiment_by_name("cv")
    parent = json.loads((tmp_path / "run" / "mlflow.json").read_text())["run_id"]
    runs = client.search_runs([experiment.experiment_id])
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(one.info.run_name for one in children) == ["run-fold-0", "run-fold-1"]
    (top,) = [one for one in runs if one.info.run_id == parent]
    assert top.data.metrics["mean_test_loss"] == pytest.approx(result.mean["test_loss"])


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Points(40), {"groups": ["a"] * 40}, "folds=3, but 40 items are of 1 groups"),
        (Points(40), {"groups": GROUPS[:5]}, "5 groups for 40 items, expected one each"),
        (Points(40), {"ids": ["a"] * 40}, "id 'a' occurs twice|40 items are of 1 groups"),
        (iter([]), {}, "was given a list_iterator, expected a Dataset, arrays or a"),
    ],
)
def test_data_that_cannot_be_divided(tmp_path, data, options, message):
    with pytest.raises(ValueError, match=message):
        competition(tmp_path).train_with_cv(data, **options)


def test_arrays_of_mlx_are_divided_by_rows(tmp_path):
    items = [Points()[item] for item in range(40)]
    data = {
        "x": mx.array(np.stack([one["x"] for one in items])),
        "y": mx.array([one["y"] for one in items]),
    }
    result = competition(tmp_path).train_with_cv(data, GROUPS)
    same = competition(tmp_path, output_dir=tmp_path / "same").train_with_cv(Points(40), GROUPS)
    np.testing.assert_array_equal(result.predictions, same.predictions)


def test_labels_that_a_fold_has_none_of_are_told(tmp_path, monkeypatch, capsys):
    def stops(self, resume):
        raise InterruptedError

    monkeypatch.setattr(ConfiguredTrainer, "open_run", stops)
    with pytest.raises(InterruptedError):
        competition(tmp_path).train_with_cv(Points(40), labels=["a"] * 38 + ["b", "c"])
    told = capsys.readouterr().out.splitlines()
    assert any(line.endswith("none to test on of 2 (b, c)") for line in told)
    assert sum("none to train on of" in line for line in told) == 2


class Own(CompetitionTrainer):
    """A competition trainer of one's own."""


@pytest.mark.parametrize("config", [{}, "development", TrainerConfig()])
def test_settings_without_a_trainer_are_a_competitions(tmp_path, config):
    run = create_competition_trainer(Plain, "tones", None, config, **quiet(tmp_path))
    assert type(run) is CompetitionTrainer
    assert run.config.trainer == "competition"


def test_settings_may_name_a_competition_trainer_of_ones_own(tmp_path):
    register_trainer("own", Own)
    for name in ("own", f"{__name__}.Own"):
        run = create_competition_trainer(Plain, "tones", config={"trainer": name})
        assert type(run) is Own
    with pytest.raises(
        ValueError,
        match="trainer is 'audiotrain.train.declarative.configured_trainer.Conf.*expected a Comp",
    ):
        create_competition_trainer(
            Plain,
            config={"trainer": "audiotrain.train.declarative.configured_trainer.ConfiguredTrainer"},
        )


def test_submissions_need_test_data_and_a_sample(tmp_path):
    run = create_competition_trainer(Plain, "tones", None, {}, **quiet(tmp_path))
    with pytest.raises(ValueError, match="names of what is predicted are not known: give columns"):
        run.create_submission()
    with pytest.raises(ValueError, match="no test data: give some"):
        run.create_submission(ids=["a"], columns=NAMES)


def test_what_is_not_trained_predicts_nothing(tmp_path, monkeypatch):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,zero,one,two\n" + "".join(f"{one},0,0,0\n" for one in range(6)))
    run = competition(tmp_path, sample_submission=sample)
    with pytest.raises(ValueError, match="nothing is trained, .* train_with_cv first"):
        run.create_submission()
    evaluate = ConfiguredTrainer.evaluate

    def dies(self, *given):
        if self.run.name == "fold-2":
            raise InterruptedError
        return evaluate(self, *given)

    monkeypatch.setattr(ConfiguredTrainer, "evaluate", dies)
    with pytest.raises(InterruptedError):
        run.train_with_cv(Points(40), GROUPS)
    with pytest.raises(ValueError, match="nothing is trained"):
        run.create_submission()
    monkeypatch.setattr(ConfiguredTrainer, "evaluate", evaluate)
    competition(tmp_path).train_with_cv(Points(40), GROUPS, resume=True)
    again = competition(tmp_path, sample_submission=sample, ensemble_method="geometric")
    with pytest.raises(ValueError, match=r"resume=True reads a finished one"):
        again.create_submission()
    again.train_with_cv(Points(40), GROUPS, resume=True)
    assert again.create_submission() == tmp_path / "run" / "submission.csv"
    one = competition(tmp_path, output_dir=tmp_path / "other")
    one.load_checkpoint(tmp_path / "run" / "fold-1")
    np.testing.assert_allclose(
        np.concatenate(one.predict()), predictions_of(tmp_path / "run", 6, 1), rtol=1e-5
    )
    one.train(Points(40), Points(20))
    assert one.create_submission(tmp_path / "one.csv", sample).exists()


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ({"batch_size": 8, "shuffle": True}, "shuffle"),
        ({"batch_size": 8, "sampler": WeightedRandomSampler([1.0] * 6)}, "sampler"),
        ({"batch_sampler": BucketSampler([1] * 6, 2)}, "batch_sampler"),
    ],
)
def test_test_data_in_another_order_are_refused(tmp_path, order, name):
    run = competition(tmp_path)
    with pytest.raises(ValueError, match=f"test data: the DataLoader has {name}, expected none"):
        run.predict(DataLoader(Points(6), **order))


def test_upload_by_the_command(tmp_path, monkeypatch):
    run = competition(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="upload: no command kaggle: pip install kaggle"):
        run.upload("submission.csv")
    script = tmp_path / "kaggle"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/told\n'
        'if [ "$6" = bad.csv ]; then echo "403 Forbidden" >&2; exit 1; fi\n'
    )
    script.chmod(0o755)
    run.upload("submission.csv", "first try")
    told = (tmp_path / "told").read_text()
    assert told == "competitions submit -c tones -f submission.csv -m first try\n"
    with pytest.raises(ValueError, match="upload: kaggle refused bad.csv: 403 Forbidden"):
        run.upload("bad.csv")
