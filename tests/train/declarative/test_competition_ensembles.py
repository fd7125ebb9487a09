"""Loaders, transforms, pseudo-labels, blending and stacking in a competition; tables and clips."""

import csv
import json

import mlx.core as mx
import numpy as np
import pytest
from test_competition import GROUPS, LABELS, competition, predictions_of
from tiny_clips import KINDS, RATE
from toy import Plain, Points, quiet

from audiotrain import (
    DataLoader,
    LogMel,
    LogMelSettings,
    create_competition_trainer,
    create_kaggle_trainer,
    create_model,
    create_trainer,
    get_trainer_config,
)
from audiotrain.train import ensembling
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer
from audiotrain.train.pseudo_labels import select

ALL = {"groups": GROUPS, "labels": LABELS}


def negated(batch):
    """A transform of batches of Points."""
    return batch | {"x": -batch["x"]}


def one_hot(classes, count=3):
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


# Loaders


def test_a_loaders_dataset_batch_size_and_workers_are_taken(tmp_path):
    plain = competition(tmp_path, batch_size=4).train_with_cv(Points(40), **ALL)
    settings = quiet(tmp_path, cv_folds=3, learning_rate=0.01, output_dir=tmp_path / "of-loader")
    run = create_competition_trainer(Plain, "tones", Points(6), {}, **settings)
    result = run.train_with_cv(DataLoader(Points(40), 4, shuffle=True, num_workers=1), **ALL)
    np.testing.assert_array_equal(result.predictions, plain.predictions)
    data = get_trainer_config(tmp_path / "of-loader" / "fold-0").data
    assert (data.batch_size, data.num_workers) == (4, 1)
    with pytest.raises(ValueError, match="batch_size is 8, but the loader given has 4"):
        competition(tmp_path).train_with_cv(DataLoader(Points(40), 4))
    with pytest.raises(ValueError, match="the DataLoader has cpu_transforms=.*, expected none"):
        competition(tmp_path).train_with_cv(DataLoader(Points(40), 8, cpu_transforms=[dict]))
    with pytest.raises(ValueError, match="has drop_last=True, expected False: each fold"):
        competition(tmp_path).train_with_cv(DataLoader(Points(40), 8, drop_last=True))
    with pytest.raises(ValueError, match="has worker_type='process', expected 'thread'"):
        competition(tmp_path).train_with_cv(DataLoader(Points(40), 8, worker_type="process"))


# Test-time augmentation


@pytest.mark.parametrize("given", ["argument", "setting"])
def test_predictions_for_each_transform_are_averaged(tmp_path, given):
    run = competition(tmp_path)
    run.train_with_cv(Points(40), **ALL)
    moved = {
        "x": np.stack([-Points()[row]["x"] for row in range(6)]),
        "y": np.zeros(6, np.int64),
    }
    expected = (run.predict() + run.predict(moved)) / 2
    assert not np.allclose(run.predict(), expected, atol=1e-3)
    if given == "argument":
        found = run.predict(tta=[None, negated])
        sure = {"columns": ["a", "b", "c"], "tta": [None, negated]}
        written = [*csv.reader(run.create_submission(**sure).read_text().splitlines())][1:]
        submitted = np.array(written, float)[:, 1:]
        np.testing.assert_allclose(submitted, expected, rtol=1e-5)
    else:
        settings = {"data": {"tta": [None, f"{__name__}.negated"]}, "num_epochs": 2}
        again = competition(tmp_path, output_dir=tmp_path / "again", **settings)
        again.train_with_cv(Points(40), **ALL)
        found = again.predict()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_single_trainer_averages_over_transforms_in_any_order(tmp_path):
    run = create_trainer(Plain, {}, **quiet(tmp_path))
    run.train(Points(40), Points(20))
    shuffled = DataLoader(Points(10), 4, shuffle=True, seed=3)
    found = run.predict(shuffled, tta=[None, negated])
    plain = run.predict(DataLoader(Points(10), 4, shuffle=True, seed=3))
    moved = DataLoader(Points(10), 4, True, seed=3, mlx_transforms=[_to_mlx, negated])
    for both, one, other in zip(found, plain, run.predict(moved), strict=True):
        np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="data.tta.0.|tta.*expected an import path"):
        create_trainer(Plain, {"data": {"tta": ["flip"]}})
    with pytest.raises(ValueError, match="data.tta is 'no.flip': no module 'no', expected"):
        create_trainer(Plain, {"data": {"tta": ["no.flip"]}})
    with pytest.raises(ValueError, match="tta: found <function negated .*, expected a list of"):
        run.predict(Points(10), tta=negated)


def _to_mlx(batch):
    return {name: mx.array(array) for name, array in batch.items()}


# Blending and stacking


@pytest.mark.parametrize("how", ["blend", "stack"])
def test_models_are_joined_by_their_out_of_fold_predictions(tmp_path, how):
    weak = competition(tmp_path, output_dir=tmp_path / "weak", learning_rate=1e-5)
    strong = competition(tmp_path, ensemble_method=how, num_epochs=4)
    strong.ensemble_with = [weak]
    oof = [one.train_with_cv(Points(40), **ALL).predictions for one in (strong, weak)]
    each = [
        np.mean([predictions_of(tmp_path / name, 6, k) for k in range(3)], axis=0)
        for name in ("run", "weak")
    ]
    if how == "blend":
        weights = ensembling.blend_weights(oof, np.array(LABELS))
        expected = np.tensordot(weights, each, 1)
    else:
        expected = ensembling.stack(oof, np.array(LABELS))(each)
    np.testing.assert_allclose(strong.predict(), expected, rtol=1e-4)
    assert not np.allclose(expected, np.mean(each, axis=0), atol=1e-3)


def test_what_cannot_be_joined_is_refused_before_training(tmp_path):
    run = competition(tmp_path, ensemble_method="blend")
    expected = "ensemble_method is 'blend': labels of train_with_cv: found none, expected a class"
    with pytest.raises(ValueError, match=expected):
        run.train_with_cv(Points(40))
    with pytest.raises(ValueError, match=r"found <U1 \(40,\), expected a class number an item"):
        run.train_with_cv(Points(40), labels=["a"] * 40)
    for other in (run, [run, Plain()]):
        with pytest.raises(ValueError, match="ensemble_with: found .*, expected a list of Compet"):
            create_competition_trainer(Plain, "tones", ensemble_with=other)
    alone = competition(tmp_path, enable_ensemble=False)
    alone.ensemble_with = [run]
    with pytest.raises(ValueError, match="enable_ensemble is false, but ensemble_with has 1, exp"):
        alone.train_with_cv(Points(40))
    assert not (tmp_path / "run").exists()
    run = create_kaggle_trainer(
        Plain, "tones", Points(6), {}, ensemble_with=[run], **quiet(tmp_path, cv_folds=2)
    )
    run.train_with_cv(Points(40))
    with pytest.raises(ValueError, match="ensemble_with: .*run is not cross-validated on these 40"):
        run.predict()


class Labels(Plain):
    """Points with a probability for each of three labels."""

    def predict_step(self, batch):
        return mx.sigmoid(self(batch["x"]))


class Logits(Plain):
    def predict_step(self, batch):
        return self(batch["x"])[:, 0]


@pytest.mark.parametrize("how", ["geometric", "majority"])
def test_labels_that_do_not_exclude_each_other_are_decided_alone(tmp_path, how):
    run = create_competition_trainer(
        Labels, "tones", Points(6), {}, **quiet(tmp_path, cv_folds=3, ensemble_method=how)
    )
    run.train_with_cv(Points(40), groups=GROUPS)
    each = [predictions_of(tmp_path / "run", 6, k, Labels) for k in range(3)]
    np.testing.assert_allclose(
        run.predict(), ensembling.vote(each, how=how, multilabel=True), rtol=1e-4
    )


def test_logits_are_no_probabilities(tmp_path):
    run = create_competition_trainer(
        Logits, "tones", Points(6), {}, **quiet(tmp_path, cv_folds=3, columns=["a"])
    )
    run.train_with_cv(Points(40), groups=GROUPS)
    refusal = "predict_step gives -?[0-9.]*, expected probabilities, 0 to 1"
    for setting in ({"values": "labels"}, {"ensemble_method": "majority"}):
        run.config = get_trainer_config(run.config, **setting)
        with pytest.raises(ValueError, match=refusal):
            run.create_submission()


# Pseudo-labels


@pytest.mark.parametrize("given", ["method", "setting"])
def test_each_fold_trains_on_its_own_confident_labels(tmp_path, given, monkeypatch):
    unlabelled = {"x": np.stack([Points()[row]["x"] for row in range(40, 60)])}
    train, trained_on = ConfiguredTrainer.train, {}

    def recorded(self, data, *more, **settings):
        trained_on[self.run.relative_to(tmp_path).as_posix()] = data
        return train(self, data, *more, **settings)

    monkeypatch.setattr(ConfiguredTrainer, "train", recorded)
    plain = competition(tmp_path, output_dir=tmp_path / "plain", num_epochs=4)
    first = plain.train_with_cv(Points(40), **ALL)
    more = {"pseudo_rounds": 1, "pseudo_threshold": 0.5} if given == "setting" else {}
    run = competition(tmp_path, num_epochs=4, **more)
    run.test_data = unlabelled
    result = run.train_with_cv(Points(40), **ALL)
    if given == "method":
        np.testing.assert_array_equal(result.predictions, first.predictions)
        result = run.pseudo_label(unlabelled, threshold=0.5, rounds=1)

    for k, fold in enumerate(plain.folds):
        parts = fold.predict(unlabelled, fold.run / "checkpoints" / "best")
        own = np.concatenate([np.array(part) for part in parts])
        known = first.predictions, one_hot(LABELS)
        expected = np.argwhere(select(own, 0.5, known)[0]).tolist()
        assert 0 < len(expected) < 20
        labelled, pseudo_labelled = trained_on[f"run/round-1/fold-{k}"].datasets
        assert labelled.rows == trained_on[f"plain/fold-{k}"].rows
        assert [[row, item["y"]] for (row, _), item in pairs(pseudo_labelled)] == expected
    metrics = json.loads((tmp_path / "run" / "round-1" / "metrics.json").read_text())
    better = metrics["mean"]["test_loss"] < first.mean["test_loss"]
    assert result.run == (tmp_path / "run" / "round-1" if better else tmp_path / "run")
    assert [fold.run.parent for fold in run.folds] == [result.run] * 3  # which predict takes


def pairs(items):
    return zip(items.labels, items, strict=False)


def test_refused_pseudo_labels(tmp_path):
    run = competition(tmp_path)
    with pytest.raises(ValueError, match="no folds are trained, expected train_with_cv before"):
        run.pseudo_label()
    run.train_with_cv(Points(40))
    with pytest.raises(ValueError, match="pseudo_label: labels of train_with_cv: found none"):
        run.pseudo_label()
    run._trained_on["labels"] = LABELS
    with pytest.raises(ValueError, match="pseudo_threshold=90.0, expected more than 0 and"):
        run.pseudo_label(threshold=90)
    with pytest.raises(ValueError, match="pseudo_rounds=-1, expected 0 or more"):
        run.pseudo_label(rounds=-1)
    setting = competition(tmp_path, output_dir=tmp_path / "other", pseudo_rounds=2)
    with pytest.raises(ValueError, match="target is None, expected the label's key among x, y"):
        setting.train_with_cv(Points(40), **ALL)
    assert not (tmp_path / "other").exists()


# Tables and clips


def passengers(count, seed):
    """A table (count, 5), and whether a sum of two columns is positive."""
    x = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int32)


def table_model(head_type):
    return lambda: create_model("table_with_head", width=5, hidden=16, head_type=head_type)


@pytest.mark.slow
def test_a_table_by_the_titanics_preset(tmp_path, capsys):
    x, survived = passengers(80, 0)
    test, truth = passengers(30, 1)
    trainer = create_kaggle_trainer(
        table_model("binary_classification"),
        competition="titanic",
        test_dataloader=DataLoader([(row,) for row in test], 16),
        output_dir=tmp_path / "run",
        progress=False,
        batch_size=16,
        cv_folds=3,
        ensemble_method="stack",
        pseudo_rounds=1,
    )
    result = trainer.train_with_cv((x, survived), labels=survived)
    assert ((result.predictions > 0.5) == survived).mean() > 0.85
    assert "pseudo-labels of each fold" in capsys.readouterr().out
    header, *rows = csv.reader(trainer.create_submission().read_text().splitlines())
    assert header == ["PassengerId", "Survived"]
    assert [row[0] for row in rows] == [str(row) for row in range(30)]
    assert {row[1] for row in rows} == {"0", "1"}
    assert np.mean([int(row[1]) == one for row, one in zip(rows, truth, strict=True)]) > 0.8
    assert "have no ids, so PassengerId is 0 to 29" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_by_the_preset_of_house_prices(tmp_path):
    x, _ = passengers(80, 0)
    test, _ = passengers(30, 1)
    prices, truth = (3 * part[:, 0] - part[:, 2] for part in (x, test))
    trainer = create_kaggle_trainer(
        table_model("regression"),
        "house_prices",
        {"Id": np.arange(1461, 1491), "embedding": test},
        output_dir=tmp_path / "run",
        progress=False,
        batch_size=16,
        cv_folds=3,
    )
    result = trainer.train_with_cv({"embedding": x, "labels": prices})
    assert result.mean["test_loss"] < 0.2 * prices.var()
    assert trainer.config.competition.competition_name.startswith("house-prices-")
    header, *rows = csv.reader(trainer.create_submission().read_text().splitlines())
    assert header == ["Id", "SalePrice"]
    assert [row[0] for row in rows] == [str(number) for number in range(1461, 1491)]
    assert np.mean((np.array([row[1] for row in rows], float) - truth) ** 2) < 0.2 * truth.var()


def test_ids_are_those_of_the_test_data(tmp_path):
    ids = np.arange(3, 9)
    test = {"row": ids, "x": np.stack([Points()[row]["x"] for row in range(6)])}
    run = competition(tmp_path, id_column="row", columns=["a", "b", "c"])
    run.train_with_cv(Points(40), **ALL)

    def written(data):
        return [
            line.split(",")[0]
            for line in run.create_submission(test_data=data).read_text().splitlines()
        ]

    assert written(test) == ["row", *map(str, ids)]
    named = Points(6)
    named.ids = list("fedcba")
    assert written(named) == ["row", *"fedcba"]


def test_a_samples_rows_are_found_by_the_ids_of_the_test_data(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("row,a,b,c\n" + "".join(f"{id},0,0,0\n" for id in "abcdef"))
    test = Points(6)
    test.ids = list("fedcba")
    run = competition(tmp_path)
    run.train_with_cv(Points(40), **ALL)
    file = run.create_submission(test_data=test, sample_submission=sample)
    header, *rows = csv.reader(file.read_text().splitlines())
    assert [row[0] for row in rows] == [*"abcdef"]
    numbers = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(numbers, run.predict(test)[::-1], rtol=1e-6)


def test_clips_by_a_model_of_log_mel(tmp_path):
    """Three kinds of tones: stacked, with transforms and pseudo-labels, by the settings alone."""
    rng = np.random.default_rng(0)
    labels, time = np.arange(24) % 3, np.arange(RATE // 2) / RATE
    hertz = np.array(list(KINDS.values()))[labels] * rng.uniform(0.9, 1.1, 24)
    sounds = 0.3 * np.sin(2 * np.pi * hertz[:, None] * time)
    mel = LogMel(LogMelSettings(rate=RATE, n_fft=512, hop=64, mels=16))
    x = np.array(mel(mx.array(sounds.astype(np.float32))))[:, None] / 50
    sizes = {"num_mel_bins": 16, "spec_size": 32, "window_size": 4, "patch_size": 4}
    sizes |= {"patch_embeds_hidden_size": 8, "depths": (1, 1), "num_attention_heads": (2, 2)}
    head = {"head_type": "multiclass_classification", "num_labels": 3}
    trainer = create_competition_trainer(
        lambda: create_model("mel_with_head", **head, **sizes),
        "tones",
        x[18:],
        "development",
        output_dir=tmp_path / "run",
        progress=False,
        num_epochs=10,
        batch_size=6,
        learning_rate=0.01,
        cv_folds=2,
        columns=list(KINDS),
        data={"tta": [None, f"{__name__}.later"]},
        ensemble_method="stack",
        pseudo_rounds=1,
        pseudo_threshold=0.5,
    )
    trainer.train_with_cv((x[:18], labels[:18].astype(np.int32)), labels=labels[:18])
    header, *rows = csv.reader(trainer.create_submission().read_text().splitlines())
    assert header == ["id", *KINDS]
    found = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found.argmax(axis=1) == labels[18:]).mean() > 0.8


def later(batch):
    """Spectrograms (batch, 1, frames, mels) that begin a few frames later."""
    move = lambda array: mx.roll(array, 5, axis=2)  # noqa: E731
    return (move(batch[0]), *batch[1:]) if isinstance(batch, tuple | list) else move(batch)
