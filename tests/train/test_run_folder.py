"""A folder a run: where runs go, what they leave alone, and the mark of how they ended."""

import json
import os
import signal

import pytest
from toy import Classifier, loaders, trainer

from audiotrain import __main__ as door
from audiotrain.evaluation.report.run_reader import find_runs, read_run
from audiotrain.train import run_folder
from audiotrain.train.callbacks import Callback, ModelCheckpoint
from audiotrain.utils.errors import UserError


def fit(folder, *callbacks, resume=None, **settings):
    run = trainer(folder, callbacks=list(callbacks), **settings)
    run.fit(Classifier(), *loaders(), ckpt_path=resume)
    return run


def files(folder) -> dict:
    """The bytes of all files in and below a folder, but for runs in it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    inside = [path.relative_to(folder) for path in paths]
    return {
        path.as_posix(): (folder / path).read_bytes()
        for path in inside
        if not path.parts[0].startswith("run-")
    }


class At(Callback):
    """Does something after a step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.do(trainer.default_root_dir)


def fails(_):
    raise ZeroDivisionError("a cause\nin two lines")


def ctrl_c(_):
    os.kill(os.getpid(), signal.SIGINT)


def ctrl_c_twice(folder):
    ctrl_c(folder)
    ctrl_c(folder)


@pytest.mark.parametrize(
    ("do", "error", "state"),
    [
        (fails, ZeroDivisionError, "failed"),
        (ctrl_c, SystemExit, "stopped"),
        (ctrl_c_twice, KeyboardInterrupt, "stopped"),
    ],
)
def test_how_a_run_ended_is_in_its_folder(tmp_path, capsys, do, error, state):
    with pytest.raises(error):
        fit(tmp_path, At(3, do), ModelCheckpoint(every_n_steps=1))
    found = read_run(tmp_path)
    assert (found.state, found.step) == (state, 3)
    assert found.status.get("error") == (
        "ZeroDivisionError: a cause" if state == "failed" else None
    )
    assert door.main(["runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert state in text
    assert "at step 3" in text
    assert ("ZeroDivisionError: a cause" in text) == (state == "failed")
    fit(tmp_path, resume="last")
    assert read_run(tmp_path).state == "finished"
    assert json.loads((tmp_path / "status.json").read_text()) == {"state": "finished", "step": 5}


def test_a_run_is_running_until_its_process_ends(tmp_path):
    seen = []
    fit(tmp_path, At(2, lambda folder: seen.append(read_run(folder).state)))
    assert seen == ["running"]
    (tmp_path / "status.json").write_text('{"state": "running", "step": 2}')
    assert read_run(tmp_path).state == "interrupted"  # nobody holds the folder


@pytest.mark.parametrize(
    ("content", "state"), [('{"state": "sleeping"}', "unfinished"), ('{"sta', "broken")]
)
def test_a_mark_that_says_nothing(tmp_path, content, state):
    (tmp_path / "status.json").write_text(content)
    (run,) = find_runs(tmp_path)
    assert run.state == state


def test_looking_holds_nobody_up(tmp_path):
    with run_folder.only_run_in({tmp_path: "folder"}):
        assert run_folder.is_held(tmp_path)
        with pytest.raises(UserError, match="another run is writing here"):
            with run_folder.only_run_in({tmp_path: "folder"}):
                pass
    assert not run_folder.is_held(tmp_path)
    assert not run_folder.is_held(tmp_path / "nowhere")


def test_a_second_fit_has_a_folder_of_its_own(tmp_path, capsys):
    fit(tmp_path)
    before = files(tmp_path)
    second = fit(tmp_path, enable_model_summary=True)
    assert f"{tmp_path} holds a run already, this one is in {tmp_path}/run-2" in (
        capsys.readouterr().err
    )
    third = trainer(tmp_path)
    for _ in range(2):  # also by one Trainer
        third.fit(Classifier(), *loaders())
    assert files(tmp_path) == before
    assert second.default_root_dir == tmp_path / "run-2"
    assert third.default_root_dir == tmp_path / "run-4"
    assert second.checkpoint_callback.folder(second) == tmp_path / "run-2" / "checkpoints"
    assert {"metrics.csv", "metrics.jsonl", "status.json"} < set(files(tmp_path / "run-4"))
    runs = find_runs(tmp_path)
    assert {run.name for run in runs} == {tmp_path.name, "run-2", "run-3", "run-4"}
    assert {run.state for run in runs} == {"finished"}


class Wrong(Classifier):
    """Fails before its first step."""

    def validation_step(self, batch):
        raise TypeError("wrong")


def test_a_start_that_fails_leaves_the_run_before_alone(tmp_path):
    fit(tmp_path)
    before = files(tmp_path)
    for _ in range(2):
        with pytest.raises(TypeError):
            trainer(tmp_path, num_sanity_val_steps=1).fit(Wrong(), *loaders())
        assert files(tmp_path) == before
    assert [path.name for path in tmp_path.glob("run-*")] == ["run-2"]  # there was nothing in it
    assert read_run(tmp_path / "run-2").state == "failed"
    fit(tmp_path)
    assert read_run(tmp_path / "run-2").state == "finished"


def test_an_evaluation_is_no_run(tmp_path):
    run = trainer(tmp_path)
    model, (train, valid) = Classifier(), loaders()
    run.validate(model, valid)
    run.fit(model, train, valid)
    assert run.default_root_dir == tmp_path


def test_a_continued_run_stays_where_it_was(tmp_path):
    fit(tmp_path)
    fit(tmp_path)
    for resume, folder in (
        (tmp_path / "checkpoints" / "last", tmp_path),
        (tmp_path / "run-2" / "checkpoints" / "last", tmp_path / "run-2"),
    ):
        run = fit(tmp_path, resume=resume, max_epochs=2)
        assert run.default_root_dir == folder
        rows = (folder / "metrics.csv").read_text().splitlines()
        assert len(rows) == 3
    assert len(list(tmp_path.glob("run-*"))) == 1


def test_last_is_that_of_the_newest_run(tmp_path):
    fit(tmp_path)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, At(3, fails), ModelCheckpoint(every_n_steps=1))
    run = fit(tmp_path, resume="last")
    assert run.default_root_dir == tmp_path / "run-2"
    assert trainer(tmp_path).validate(Classifier(), loaders()[1], ckpt_path="last")


def test_checkpoints_elsewhere_name_their_run(tmp_path):
    def own():
        return ModelCheckpoint(tmp_path / "own", monitor="val_loss")

    fit(tmp_path / "logs", own())
    fit(tmp_path / "logs", own())
    run = fit(tmp_path / "logs", own(), resume=tmp_path / "own" / "last", max_epochs=2)
    assert run.default_root_dir == tmp_path / "logs" / "run-2"


def test_a_folder_that_is_set_later_is_the_next_runs(tmp_path):
    run = trainer(tmp_path / "one")
    for name in ("one", "two"):
        run.default_root_dir = tmp_path / name
        run.fit(Classifier(), *loaders())
        assert run.default_root_dir == tmp_path / name
        assert (tmp_path / name / "metrics.csv").exists()
