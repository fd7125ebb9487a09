import csv
import json
import math
import subprocess
import sys

import pytest
from toy import Classifier, loaders, trainer

from audiotrain.loggers import (
    CSVLogger,
    JSONLLogger,
    Logger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
)


def table(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_files_are_always_there(tmp_path):
    run = trainer(tmp_path, max_epochs=2, log_every_n_steps=2)
    run.fit(Classifier(), *loaders())
    rows, objects = table(tmp_path / "metrics.csv"), lines(tmp_path / "metrics.jsonl")
    assert [int(row["step"]) for row in rows] == [row["step"] for row in objects]
    assert [row["step"] for row in objects] == [2, 4, 5, 6, 8, 10, 10]
    assert float(rows[-1]["val_loss"]) == run.history.rows[-1]["val_loss"]
    assert rows[0]["val_loss"] == ""
    assert {"learning_rate", "gradient_norm", "examples_per_second"} <= set(objects[0])


def test_they_can_be_switched_off(tmp_path):
    trainer(tmp_path, logger=False, enable_checkpointing=False).fit(Classifier(), *loaders())
    assert list(tmp_path.iterdir()) == []


def test_a_new_metric_adds_its_column(tmp_path):
    logger = CSVLogger(tmp_path / "m.csv")
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"val_loss": 2.0, "loss": 0.5}, 2)
    CSVLogger(tmp_path / "m.csv").log_metrics({"f1": 3.0}, 3)
    assert table(tmp_path / "m.csv") == [
        {"step": "1", "loss": "1.0", "val_loss": "", "f1": ""},
        {"step": "2", "loss": "0.5", "val_loss": "2.0", "f1": ""},
        {"step": "3", "loss": "", "val_loss": "", "f1": "3.0"},
    ]


@pytest.mark.parametrize(("kind", "read"), [(CSVLogger, table), (JSONLLogger, lines)])
def test_resuming_drops_what_is_run_again_and_a_new_run_moves_the_old_aside(tmp_path, kind, read):
    path = tmp_path / "metrics.txt"
    logger = kind(path)
    logger.start(0)
    for step in range(1, 6):
        logger.log_metrics({"loss": step / 2}, step)
    with open(path, "a") as file:
        file.write('{"step": 6, "lo')  # where the process was killed
    logger = kind(path)
    logger.start(3)
    logger.log_metrics({"loss": 9.0}, 4)
    assert [(int(r["step"]), float(r["loss"])) for r in read(path)] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
        (4, 9.0),
    ]
    for number in (1, 2):
        kind(path).start(0)
        logger.log_metrics({"loss": 0.0}, 1)
        assert (tmp_path / f"metrics-{number}.txt").exists()
    assert len(read(tmp_path / "metrics-1.txt")) == 4


def test_nan_is_null_in_json(tmp_path):
    logger = JSONLLogger(tmp_path / "m.jsonl")
    logger.log_metrics({"loss": math.nan}, 1)
    assert lines(tmp_path / "m.jsonl") == [{"step": 1, "loss": None}]


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match=r"run/metrics.csv: cannot write") as error:
        trainer(tmp_path / "run").fit(Classifier(), *loaders())
    assert "\n" not in str(error.value)


class Memory(Logger):
    def __init__(self):
        self.rows, self.config, self.closed = [], None, False

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def log_hyperparams(self, config):
        self.config = config

    def finish(self):
        self.closed = True


def test_several_loggers_get_the_same_and_stay_open_for_test(tmp_path):
    memories = [Memory(), Memory()]
    model = Classifier()
    train, val = loaders()
    run = trainer(tmp_path, logger=memories, config={"width": 16})
    run.fit(model, train, val)
    run.test(model, val)
    assert memories[0].rows == memories[1].rows
    step, row = memories[0].rows[-1]
    assert step == 5
    assert {"test_loss", "test_accuracy"} <= set(row)
    assert memories[0].config == {"width": 16}
    assert not memories[0].closed
    assert run.logger is memories[0]


def test_optional_libraries_are_not_imported():
    code = (
        "import sys, audiotrain; from audiotrain import Trainer; import audiotrain.loggers as l;"
        "l.WandbLogger(); l.TensorBoardLogger(); l.MLflowLogger();"
        "print([n for n in ('wandb', 'tensorboard', 'mlflow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("logger", "module", "message"),
    [
        (WandbLogger(), "wandb", "pip install wandb"),
        (TensorBoardLogger(), "tensorboard.summary.writer.event_file_writer", r"\[tensorboard\]"),
        (MLflowLogger(), "mlflow.tracking", r"\[mlflow\]"),
    ],
)
def test_a_missing_library_names_its_extra(monkeypatch, logger, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        logger.log_metrics({"loss": 1.0}, 1)


WANDB = """
import sys
sys.path.insert(0, sys.argv[1])
import audiotrain
from toy import *
from audiotrain.loggers import WandbLogger
logger = WandbLogger("project", "run", {"a": 1}, save_dir=sys.argv[2], mode="offline", id="abc")
run = trainer(sys.argv[2] + "/run", logger=logger, config={"b": 2}, log_every_n_steps=2)
run.fit(Classifier(), *loaders())
print(dict(logger.run.summary), dict(logger.run.config), logger.run.id)
logger.finish()
"""


def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb")
    from pathlib import Path

    command = [sys.executable, "-c", WANDB, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'trainer/global_step': 5" in done.stdout
    assert "'val_loss'" in done.stdout
    assert "{'a': 1, 'b': 2} abc" in done.stdout
    assert list((tmp_path / "wandb").glob("offline-run-*-abc"))


def test_tensorboard_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "tb", "one")
    run = trainer(tmp_path / "run", logger=logger, config={"b": 2}, max_epochs=2)
    run.fit(Classifier(), *loaders())
    logger.finish()
    events = EventAccumulator(str(tmp_path / "tb" / "one"))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("val_loss")]
    assert scalars == [(r["step"], pytest.approx(r["val_loss"])) for r in run.history.rows]
    assert "config" in events.Tags()["tensors"]


def test_mlflow_read_back(tmp_path):
    pytest.importorskip("mlflow")
    logger = MLflowLogger("chords", "one", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    run = trainer(tmp_path / "run", logger=logger, config={"b": 2}, max_epochs=2)
    run.fit(Classifier(), *loaders())
    client = logger.client
    history = client.get_metric_history(logger.run_id, "val_loss")
    assert [(m.step, m.value) for m in history] == [
        (row["step"], row["val_loss"]) for row in run.history.rows
    ]
    assert client.get_run(logger.run_id).data.params == {"b": "2"}
    logger.finish()
