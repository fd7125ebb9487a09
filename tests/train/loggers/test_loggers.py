import csv
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from toy import Classifier, loaders, trainer

from audiotrain.train import checkpoint
from audiotrain.train.callbacks import Callback
from audiotrain.train.loggers import (
    CSVLogger,
    JSONLLogger,
    Logger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from audiotrain.train.loggers.base import encode, opened

HELPERS = str(Path(__file__).parents[2] / "helpers")


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


def test_wandb_says_in_a_line_what_it_lacks(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")

    def refuses(**_):
        raise wandb.Error("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuses)
    with pytest.raises(ValueError, match="^W&B: No API key configured; WANDB_MODE=offline.*t$"):
        WandbLogger("project", save_dir=tmp_path).log_metrics({"loss": 1.0}, 1)


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
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run/metrics.jsonl: cannot write") as error:
        JSONLLogger(tmp_path / "run" / "metrics.jsonl").log_metrics({"loss": 0.0}, 1)
    assert "\n" not in str(error.value)


class Memory(Logger):
    def __init__(self):
        self.rows, self.images, self.config, self.closed = [], [], None, 0

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def log_hyperparams(self, config):
        self.config = config

    def log_image(self, name, image, step):
        assert image.shape == (3, 3)
        self.images.append((name, step))

    def finish(self):
        self.closed += 1


def test_several_loggers_get_the_same_and_what_a_test_gives_after_fit(tmp_path):
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
    assert memories[0].closed == 1
    assert run.logger is memories[0]


@pytest.mark.parametrize("several", [True, False])
def test_one_logger_needs_no_list(tmp_path, several):
    memory = Memory()
    run = trainer(tmp_path, logger=[memory] if several else memory, log_every_n_steps=2)
    run.fit(Classifier(), *loaders())
    assert run.logger is memory
    objects = lines(tmp_path / "metrics.jsonl")
    assert [{"step": step} | row for step, row in memory.rows] == objects
    assert [row["step"] for row in objects] == [2, 4, 5]
    assert isinstance(trainer(tmp_path, logger=None).logger, CSVLogger)


def test_optional_libraries_are_not_imported():
    code = (
        "import sys, audiotrain; from audiotrain import Trainer;"
        "import audiotrain.train.loggers as l;"
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


# Pictures and settings


def test_pictures_and_settings_reach_all_that_take_them(tmp_path):
    class Draws(Callback):
        def on_train_end(self, trainer, module):
            for logger in trainer.loggers:
                logger.log_image("confusion", np.eye(3), trainer.global_step)

    memories = [Memory(), Memory()]
    config = {"model": {"width": 16}, "seed": 1}
    run = trainer(tmp_path, logger=memories, config=config, callbacks=[Draws()])
    run.fit(Classifier(), *loaders())
    for memory in memories:
        assert memory.config == config
        assert memory.images == [("confusion", 5)]


def pictures(folder) -> dict:
    """The same 2 x 3 pixels, as far as each kind can say it."""
    grey = np.array([[0, 64, 128], [191, 255, 255]], np.uint8)
    path = folder / "picture.png"
    path.write_bytes(encode(grey, "path"))
    return {
        "grey": grey,
        "floats": grey / 255,
        "mlx": mx.array(grey / 255),
        "colour": np.repeat(grey[:, :, None], 3, axis=2),
        "see-through": np.concatenate([np.repeat(grey[:, :, None], 3, 2), [[[255]] * 3] * 2], 2),
        "path": path,
    }


def test_all_kinds_of_pictures_are_read(tmp_path):
    for name, picture in pictures(tmp_path).items():
        if name == "see-through":
            picture = picture.astype(np.uint8)
        pixels = np.asarray(opened(picture, name).convert("L"), dtype=int)
        assert np.abs(pixels - [[0, 64, 128], [191, 255, 255]]).max() <= 1, name
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1), dpi=50)
    assert opened(figure, "figure").size == (100, 50)


@pytest.mark.parametrize("array", [np.eye(3, dtype=int), np.ones(4), np.eye(3) * 2, np.eye(0)])
def test_other_arrays_are_no_pictures(array):
    with pytest.raises(ValueError, match="image 'confusion' is an array .*expected .height, width"):
        encode(array, "confusion")


# Each service, run and read back

FIT = """
import sys
sys.path.insert(0, sys.argv[1])
import audiotrain
import numpy as np
from toy import *
from audiotrain.train.loggers import WandbLogger
folder, resume = sys.argv[2], sys.argv[3]
logger = WandbLogger("project", "run", {"a": 1}, save_dir=folder, mode="offline")
run = trainer(
    folder + "/run", logger=logger, config={"b": {"c": 2}}, log_every_n_steps=2,
    max_epochs=2 if resume else 1,
)
model, (train, val) = Classifier(), loaders()
run.fit(model, train, val, ckpt_path=resume or None)
run.test(model, val)
logger.log_image("confusion", np.eye(3), run.global_step)
print(logger.run.id)
"""


def wandb_records(path):
    """The records of a .wandb file: LevelDB's log format with blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(record))
            record = b""
    return records


def wandb_fit(folder, resume="") -> tuple[str, dict, list[dict]]:
    """The run's id, its axes by metric, and its rows, of a fit in a process of its own."""
    before = set((folder / "wandb").glob("offline-run-*"))
    command = [sys.executable, "-c", FIT, HELPERS, str(folder), resume]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = sorted(set((folder / "wandb").glob("offline-run-*")) - before)
    assert len(written) == 2  # of fit, and of what came after it
    assert len({path.name.rpartition("-")[2] for path in written}) == 1
    records = [one for path in written for one in wandb_records(next(path.glob("*.wandb")))]
    rows = [
        {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for item in r.history.item
        }
        for r in records
        if r.HasField("history")
    ]
    axes = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in records}
    run, _ = [r.run for r in records if r.HasField("run")]
    settings = {u.key: json.loads(u.value_json) for u in run.config.update}
    for record in records:
        for update in record.config.update:
            settings[update.key or update.nested_key[0]] = json.loads(update.value_json)
    assert settings["a"] == 1
    assert settings["b"] == {"c": 2}
    assert (run.project, run.display_name) == ("project", "run")
    assert run.run_id == done.stdout.split()[0]
    return run.run_id, axes, rows


@pytest.mark.slow
def test_wandb_offline_is_resumed_under_its_id(tmp_path):
    pytest.importorskip("wandb")
    first, axes, rows = wandb_fit(tmp_path)
    assert axes["*"] == "trainer/global_step"
    steps = [row["trainer/global_step"] for row in rows]
    assert steps == [2, 4, 5, 5, 5]  # two intervals, the epoch, the test, the picture
    assert {"train_loss", "val_loss", "learning_rate"} <= set(rows[2])
    assert "test_loss" in rows[3]
    assert rows[4]["confusion._type"] == "image-file"
    last = tmp_path / "run" / "checkpoints" / "last"
    assert checkpoint.load_meta(last)["loggers"]["WandbLogger.1"] == {"id": first}
    second, _, rows = wandb_fit(tmp_path, str(last))
    assert second == first
    assert [row["trainer/global_step"] for row in rows] == [6, 8, 10, 10, 10, 10]


TWO_FITS = """
import sys
sys.path.insert(0, sys.argv[1])
import audiotrain
import wandb
from toy import *
from audiotrain.train.loggers import WandbLogger
shared = WandbLogger("project")
for logger in (WandbLogger("project", "first"), shared, shared):
    run = trainer("runs", logger=logger)
    run.fit(Classifier(), *loaders())
    assert wandb.run is None
    print("id", logger.id)
one, other = WandbLogger("project"), WandbLogger("project")
run = trainer("runs", logger=[one, other])
run.fit(Classifier(), *loaders())
print("id", one.id)
print("id", other.id)
begun = wandb.init(project="own")
logger = WandbLogger("project")
trainer("runs", logger=logger).fit(Classifier(), *loaders())
assert logger.id == begun.id and wandb.run is begun  # the caller's, who finishes it
"""


@pytest.mark.slow
def test_fits_of_one_process_are_runs_of_their_own(tmp_path):
    pytest.importorskip("wandb")
    command = [sys.executable, "-c", TWO_FITS, HELPERS]
    environment = os.environ | {"WANDB_MODE": "offline"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    ids = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("id ")}
    assert len(ids) == 5
    found = {path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert ids < found
    assert len(found) == 6


class Wandb:
    """Stands for the library: runs have numbers for ids."""

    Error = RuntimeError

    def __init__(self):
        self.run, self.runs = None, []

    def init(self, id=None, reinit=None, **_):
        if self.run is not None and reinit != "create_new":
            return self.run
        run = WandbRun(self, id or f"{len(self.runs)}")
        self.runs.append(run)
        self.run = self.run or run
        return run


class WandbRun:
    def __init__(self, library, id):
        self.library, self.id, self.ended, self.rows = library, id, None, []
        self.config = Updated()

    def define_metric(self, *args, **kwargs):
        pass

    def log(self, row):
        assert self.ended is None
        self.rows.append(row)

    def finish(self, exit_code=None):
        self.ended = exit_code
        if self.library.run is self:
            self.library.run = None


@pytest.fixture
def fake_wandb(monkeypatch):
    library = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr(WandbLogger, "_began", {})
    return library


class Updated(dict):
    def update(self, config, allow_val_change=False):
        super().update(config)


def wandb_fits(folder, logger, **settings):
    run = trainer(folder, logger=logger, **settings)
    run.fit(Classifier(), *loaders())
    return run


@pytest.mark.parametrize("shared", [True, False])
def test_each_fit_is_one_run_that_its_end_finishes(tmp_path, fake_wandb, shared):
    first = WandbLogger("project")
    wandb_fits(tmp_path, first)
    assert (len(fake_wandb.runs), fake_wandb.runs[0].ended, fake_wandb.run) == (1, 0, None)
    first.log_metrics({"late": 1.0}, 5)  # a test, which opens the run again
    wandb_fits(tmp_path, first if shared else WandbLogger("project"))
    assert [run.id for run in fake_wandb.runs] == ["0", "0", "2"]
    assert fake_wandb.runs[1].rows == [{"late": 1.0, "trainer/global_step": 5}]
    assert len(fake_wandb.runs[0].rows) == len(fake_wandb.runs[2].rows)


def test_a_continued_fit_continues_the_run_of_its_checkpoint(tmp_path, fake_wandb):
    logger = WandbLogger("project")
    wandb_fits(tmp_path, logger)
    run = wandb_fits(tmp_path, logger)
    run.max_epochs = 2
    run.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "checkpoints" / "last")
    assert [run.id for run in fake_wandb.runs] == ["0", "1", "0"]


class Breaks(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        raise ZeroDivisionError


def test_a_run_that_fails_is_marked_so(tmp_path, fake_wandb):
    with pytest.raises(ZeroDivisionError):
        wandb_fits(tmp_path, WandbLogger("project"), callbacks=[Breaks()])
    assert fake_wandb.runs[0].ended == 1


def test_a_run_that_was_begun_before_is_used_and_left_open(tmp_path, fake_wandb):
    begun = fake_wandb.init(project="own")
    wandb_fits(tmp_path, WandbLogger("project"))
    assert fake_wandb.runs == [begun]
    assert begun.rows
    assert begun.ended is None


def test_tensorboard_keeps_runs_apart(tmp_path):
    pytest.importorskip("tensorboard")

    def fit(logger, resume=None, epochs=1):
        run = trainer(tmp_path / "run", logger=logger, max_epochs=epochs)
        run.fit(Classifier(), *loaders(), ckpt_path=resume)
        return len(list(logger.folder.glob("*tfevents*")))

    loggers = [TensorBoardLogger(), TensorBoardLogger(), TensorBoardLogger(tmp_path / "tb")]
    loggers += [loggers[2], TensorBoardLogger(tmp_path / "tb", "mine")]
    found = []
    for logger in loggers:
        assert fit(logger) == 1
        found.append(logger.folder.relative_to(tmp_path).as_posix())
    own = ["run/tensorboard", "run/run-2/tensorboard"]
    assert found == [*own, "tb/default", "tb/default-2", "tb/mine"]
    last = tmp_path / "run" / "run-4" / "checkpoints" / "last"
    continued = TensorBoardLogger(tmp_path / "tb")
    assert fit(continued, resume=last, epochs=2) == 2
    assert continued.folder == tmp_path / "tb" / "default-2"


def test_an_id_of_ones_own_goes_before_the_checkpoints():
    logger = WandbLogger(id="mine")
    logger.load_state_dict({"id": "theirs"})
    assert logger.state_dict() == {"id": "mine"}


def test_tensorboard_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def fit(resume=None, **settings):
        logger = TensorBoardLogger(tmp_path / "tb", "one")
        run = trainer(
            tmp_path / "run", logger=logger, config={"b": 2}, log_every_n_steps=1, **settings
        )
        model, (train, val) = Classifier(), loaders()
        run.fit(model, train, val, ckpt_path=resume)
        run.test(model, val)
        for name, picture in pictures(tmp_path).items():
            if name in ("grey", "path"):
                logger.log_image(name, picture, run.global_step)
        logger.finish()
        return run

    fit(max_epochs=1)
    shutil.copytree(tmp_path / "run/checkpoints/last", tmp_path / "early")
    fit(max_epochs=2, resume="last")
    run = fit(max_epochs=2, resume=tmp_path / "early")  # again from the first epoch's end
    events = EventAccumulator(str(tmp_path / "tb" / "one"))
    events.Reload()
    for name, rows in (("val_loss", run.history.rows), ("gradient_norm", run.history.log)):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(row["step"], pytest.approx(row[name])) for row in rows]
    assert [event.step for event in events.Scalars("test_loss")] == [5, 10]
    assert "config" in events.Tags()["tensors"]
    (image,) = [event for event in events.Images("grey") if event.step == 10]
    assert (image.width, image.height) == (3, 2)
    pixels = np.asarray(opened(image.encoded_image_string, "grey").convert("L"))
    assert pixels.tolist() == [[0, 64, 128], [191, 255, 255]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, with its database
@pytest.mark.slow
def test_mlflow_read_back(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where MLflow puts pictures

    def fit(resume=None, **settings):
        logger = MLflowLogger("chords", "one", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        config = {"model": {"width": 2}, "epochs": settings["max_epochs"]}
        run = trainer(tmp_path / "run", logger=logger, config=config, **settings)
        model, (train, val) = Classifier(), loaders()
        run.fit(model, train, val, ckpt_path=resume)
        run.test(model, val)
        logger.log_image("confusion", np.eye(3), run.global_step)
        assert logger.client.get_run(logger.run_id).info.status == "RUNNING"
        logger.finish()
        return run, logger

    _, first = fit(max_epochs=1)
    run, logger = fit(max_epochs=2, resume="last")
    assert logger.run_id == first.run_id
    client = logger.client
    history = client.get_metric_history(logger.run_id, "val_loss")
    assert [(m.step, m.value) for m in history] == [
        (row["step"], row["val_loss"]) for row in run.history.rows
    ]
    assert len(client.get_metric_history(logger.run_id, "test_loss")) == 2
    found = client.get_run(logger.run_id)
    assert found.data.params == {"model.width": "2", "epochs": "1"}
    assert found.info.run_name == "one"
    assert client.get_experiment(found.info.experiment_id).name == "chords"
    assert len(client.list_artifacts(logger.run_id, "images")) == 4  # two, each with a small one
    logger.finish()
    assert client.get_run(logger.run_id).info.status == "FINISHED"


def test_wandb_is_asked_to_continue_the_run_that_the_checkpoint_names(monkeypatch):
    wandb, asked = pytest.importorskip("wandb"), []

    class Run:
        id = "abc"

        def define_metric(self, *names, **settings):
            pass

    monkeypatch.setattr(wandb, "init", lambda **settings: asked.append(settings) or Run())
    logger = WandbLogger("project")
    assert logger.run.id == "abc"
    other = WandbLogger("project")
    other.load_state_dict(logger.state_dict())
    assert other.run.id == "abc"
    assert [(one["id"], one["resume"]) for one in asked] == [(None, None), ("abc", "allow")]
