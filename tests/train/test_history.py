import json
import math

import pytest

from audiotrain.train.history import History
from audiotrain.utils.files import write_json


def filled() -> History:
    history = History()
    history.add_epoch({"epoch": 0, "step": 5, "train_loss": 2.0, "val_loss": 3.0})
    history.add_epoch({"epoch": 1, "step": 10, "train_loss": 1.0})
    history.add_epoch({"epoch": 2, "step": 15, "train_loss": 0.5, "val_loss": 1.5})
    history.add_log({"epoch": 0, "step": 3, "loss": math.nan})
    return history


def test_lists_have_one_value_an_epoch():
    assert filled().lists()["val_loss"] == [3.0, None, 1.5]
    assert filled().lists()["train_loss"] == [2.0, 1.0, 0.5]


def test_an_epoch_run_to_its_end_replaces_its_part():
    history = filled()
    history.add_epoch({"epoch": 2, "step": 20, "train_loss": 0.25})
    assert [row["step"] for row in history.rows] == [5, 10, 20]


def test_best_skips_epochs_without_the_metric_and_nan():
    history = filled()
    history.add_epoch({"epoch": 3, "step": 20, "val_loss": math.nan})
    assert history.best("val_loss")["epoch"] == 2
    assert history.best("val_loss", "max")["epoch"] == 0
    assert history.best("val_f1") is None


def test_export_is_json_without_nan(tmp_path):
    filled().export(tmp_path / "deep" / "history.json")
    data = json.loads((tmp_path / "deep" / "history.json").read_text())
    assert data["train_loss"] == [2.0, 1.0, 0.5]
    assert data["rows"][1] == {"epoch": 1, "step": 10, "train_loss": 1.0}
    assert data["log"] == [{"epoch": 0, "step": 3, "loss": None}]


def test_state_returns():
    history = History()
    history.load_state_dict(filled().state_dict())
    assert history.rows == filled().rows


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/history.json: cannot write"):
        write_json(tmp_path / "file" / "history.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
