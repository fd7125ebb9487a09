"""Folds and the predictions of rows that were not trained on."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiotrain.train import crossval
from audiotrain.train.crossval import (
    CrossValidation,
    OutOfFold,
    RaggedOutOfFold,
    folds_of,
    make_folds,
    missing_labels,
    summarize,
)

GROUPS = [f"song{number // 3}" for number in range(30)]


@settings(deadline=None, max_examples=60)
@example([0, 0, 0, 1, 1, 1, 2, 5], 4, True, 0)
@given(
    st.lists(st.integers(0, 12), min_size=8, max_size=60),
    st.integers(2, 4),
    st.booleans(),
    st.integers(0, 3),
)
def test_folds_have_every_row_once_and_no_group_twice(groups, folds, stratified, seed):
    labels = [group % 3 for group in groups] if stratified else None
    if len(set(groups)) < folds:
        with pytest.raises(ValueError, match="as many groups as folds"):
            make_folds(groups, folds, labels, seed)
        return
    if stratified and max(labels.count(label) for label in labels) < folds:
        with pytest.raises(ValueError, match="expected as many as folds, or folds without labels"):
            make_folds(groups, folds, labels, seed)
        return
    found = make_folds(groups, folds, labels, seed)
    assert len(found) == folds
    assert all(len(rows) for rows in found)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(groups)))
    homes = [{groups[row] for row in rows} for rows in found]
    assert sum(map(len, homes)) == len(set(groups))


def test_folds_depend_on_the_seed_and_on_no_order_of_rows():
    first = make_folds(GROUPS, 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, make_folds(GROUPS, 5), strict=True))
    other = make_folds(GROUPS, 5, seed=1)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    turned = make_folds(GROUPS[::-1], 5)
    assert all(np.array_equal(np.sort(29 - a), b) for a, b in zip(first, turned, strict=True))
    assert [len(rows) for rows in first] == [6] * 5


def test_folds_have_about_the_same_share_of_each_label():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = rng.choice(["rain", "dog", "bell"], 60, p=[0.6, 0.3, 0.1])[groups]
    folds = make_folds(groups, 3, labels)
    for label in ("rain", "dog", "bell"):
        shares = [np.mean(labels[rows] == label) for rows in folds]
        assert max(shares) - min(shares) < 0.06, label  # a group is 0.05
    assert not missing_labels(folds, labels)


def test_what_a_fold_lacks_is_told():
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    labels = ["dog", "dog", "dog", "gong", "dog", "cat", "dog", "cat"]
    folds = make_folds(groups, 4, labels)
    lines = missing_labels(folds, labels)
    without = [line for line in lines if "train" in line]
    home = next(k for k, rows in enumerate(folds) if 3 in rows)
    assert without == [f"fold {home}: none to train on of 1 (gong)"]
    assert sum("to test on" in line and "gong" in line for line in lines) == 3


@pytest.mark.parametrize(
    ("groups", "folds", "labels", "message"),
    [
        ("aabb", 3, None, "folds=3, but 4 items are of 2 groups: expected as many groups as fold"),
        ("aabb", 1, None, "folds=1, expected 2 or more"),
        ("abc", 2, [0, 1], "2 labels for 3 rows"),
        ("abc", 3, [0, 1, 2], "the commonest of 3 labels, 0, has 1 items: expected as many as"),
    ],
)
def test_folds_that_cannot_be_are_refused(groups, folds, labels, message):
    with pytest.raises(ValueError, match=message):
        make_folds(list(groups), folds, labels)


# ---- out-of-fold predictions


@pytest.fixture
def store(tmp_path):
    return OutOfFold(tmp_path / "cv", list("abcde"), [np.array([1, 3]), np.array([0, 2, 4])])


def test_predictions_come_back_in_the_order_of_ids(store):
    values = np.arange(10.0).reshape(5, 2)
    for k, rows in enumerate(store.folds):
        assert not store.done(k)
        store.save(k, {"scores": values[rows], "seen": rows})
        assert store.done(k)
    found = OutOfFold(store.folder, store.ids, store.folds).load()
    assert np.array_equal(found["scores"], values)
    assert np.array_equal(found["seen"], np.arange(5))
    assert crossval.read_folds(store.folder) == [["b", "d"], ["a", "c", "e"]]


def test_a_fold_that_is_missing_damaged_or_too_short_is_named(store):
    store.save(1, {"scores": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="no predictions yet of fold 0, expected all 2"):
        store.load()
    with pytest.raises(ValueError, match="fold 0: 3 rows of scores, expected 2"):
        store.save(0, {"scores": np.zeros((3, 2))})
    store.file(0).write_bytes(store.file(1).read_bytes()[:-30])
    with pytest.raises(ValueError, match="fold-0.npz: damaged"):
        store.load()
    store.file(0).write_bytes(store.file(1).read_bytes())
    with pytest.raises(ValueError, match="fold-0.npz: 3 rows of scores, expected 2"):
        store.load()


def test_folds_of_other_data_are_refused(store):
    with pytest.raises(
        ValueError, match="folds of other data: 2 folds of 5 items.*2 differ, such as e"
    ):
        OutOfFold(store.folder, list("abcdf"), store.folds).load()
    with pytest.raises(ValueError, match="1 differ, such as b"):
        OutOfFold(store.folder, list("abcde"), [np.array([3]), np.array([0, 1, 2, 4])])


def test_folds_that_miss_a_row_or_have_it_twice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 rows in 2 folds, expected each of 3 once"):
        OutOfFold(tmp_path, list("abc"), [np.array([0, 1]), np.array([1])])
    with pytest.raises(ValueError, match="id 'a' occurs twice"):
        OutOfFold(tmp_path, list("aba"), [np.array([0, 1]), np.array([2])])


def test_damaged_folds_are_named(tmp_path):
    (tmp_path / "folds.json").write_text('{"folds": 3}')
    with pytest.raises(ValueError, match="folds.json: not the folds of a cross-validation"):
        OutOfFold(tmp_path, list("ab"), [np.array([0]), np.array([1])])


def test_ragged_predictions_come_back_by_id(tmp_path):
    folds = [np.array([1]), np.array([0, 2])]
    store = RaggedOutOfFold(tmp_path, list("abc"), folds)
    arrays = {name: np.full((n + 2, 3), n) for n, name in enumerate("abc")}
    store.save(0, "b", {"frames": arrays["b"]})
    store.finish(0)
    store.save(1, "a", {"frames": arrays["a"]})
    assert store.done(0)
    assert not store.done(1)
    with pytest.raises(ValueError, match="fold 1: no predictions of 1 items, c"):
        store.finish(1)
    with pytest.raises(ValueError, match="fold 1 is not done; cv --output"):
        list(crossval.read_ragged(tmp_path))
    store.save(1, "c", {"frames": arrays["c"]})
    store.finish(1)
    read = dict(crossval.read_ragged(tmp_path))
    assert list(read) == ["b", "a", "c"]
    assert all(np.array_equal(read[name]["frames"], arrays[name]) for name in arrays)
    (tmp_path / "oof" / "1-00000.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match="1.json: a: no predictions"):
        list(crossval.read_ragged(tmp_path))


# ---- folds of items


class Item(NamedTuple):
    id: str
    group: str
    columns: dict


def test_folds_come_from_a_column_or_from_groups():
    items = [Item(f"i{n}", f"g{n // 2}", {"fold": str(10 - n % 3)}) for n in range(6)]
    folds = folds_of(items, 5, "fold")
    assert [rows.tolist() for rows in folds] == [[2, 5], [1, 4], [0, 3]]  # 8, 9, 10
    for rows in folds_of(items, 3):
        assert len({items[row].group for row in rows}) == 1
    with pytest.raises(ValueError, match="fold column part: 6 of 6 items have none, such as i0; c"):
        folds_of(items, 5, "part")
    with pytest.raises(ValueError, match="fold column fold: 10 everywhere, expected two folds"):
        folds_of(items[:1] + items[3:4], 5, "fold")


# ---- the whole


def test_an_interrupted_cross_validation_continues_with_the_fold_it_was_in(tmp_path, capsys):
    folds = [np.array([1, 3]), np.array([0, 2, 4])]
    fitted = []

    def cross_validate(last):
        cv = CrossValidation(tmp_path / "cv", list("abcde"), folds, OutOfFold)

        def fit_fold(k):
            if k > last:
                raise KeyboardInterrupt
            fitted.append(k)
            assert set(cv.train_rows(k)) == set(range(5)) - set(folds[k])
            cv.store.save(k, {"scores": np.full(len(folds[k]), k)})

        summary = cv.run(fit_fold, lambda k: {"score": cv.store.load_fold(k)["scores"].mean()})
        cv.write(summary, items=5)
        return cv, summary

    with pytest.raises(KeyboardInterrupt):
        cross_validate(last=0)
    cv, summary = cross_validate(last=1)
    assert fitted == [0, 1]
    assert summary.folds == [{"score": 0}, {"score": 1}]
    assert summary.mean == {"score": 0.5}
    assert cv.store.load()["scores"].tolist() == [1, 0, 1, 0, 1]
    assert cv.run_folder(1) == tmp_path / "cv" / "fold-1"
    metrics = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert metrics == summary.as_dict() | {"items": 5}
    assert (
        summary.table(["score"]).splitlines()[1].split()
        == "score 0.500 ± 0.707 0.000 1.000".split()
    )
    assert "fold 1 of 2, 3 items" in capsys.readouterr().out


def test_labels_that_a_fold_lacks_are_printed(tmp_path, capsys):
    folds = [np.array([0, 1]), np.array([2, 3])]
    CrossValidation(tmp_path, list("abcd"), folds, OutOfFold, labels=["x", "x", "x", "y"])
    assert "fold 0: none to test on of 1 (y)" in capsys.readouterr().out


# ---- scores


def test_mean_and_deviation_are_of_the_folds_that_have_a_score():
    found = summarize([{"a": 1.0, "b": float("nan")}, {"a": 3.0, "b": 5.0}, {"a": 2.0}])
    assert found.mean == {"a": 2.0, "b": 5.0}
    assert found.deviation["a"] == 1.0
    assert np.isnan(found.deviation["b"])
    assert len(found.folds) == 3
    json.dumps(found.folds)


def test_the_table_has_a_line_a_score_and_tells_what_is_missing():
    table = summarize([{"a": 1.0}, {"a": 3.0, "b": 5.0}]).table().splitlines()
    assert table[1].split() == ["a", "2.000", "±", "1.414", "1.000", "3.000"]
    assert table[2].split() == ["b", "5.000", "±", "nan", "nan", "5.000"]
