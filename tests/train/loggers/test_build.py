"""Loggers that settings ask for: MLflow's store is read back, folds are child runs."""

import sys
from pathlib import Path

import pytest
from toy import Classifier, Plain, Points, loaders, quiet, trainer

from audiotrain import MLflowCallback, MLflowConfig, create_trainer
from audiotrain.recipes.common.run import loggers_of
from audiotrain.train import checkpoint
from audiotrain.train.declarative.config import TrackingSettings
from audiotrain.train.loggers import MLflowLogger, TensorBoardLogger, WandbLogger
from audiotrain.train.loggers.build import run_loggers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's database


@pytest.fixture
def store(tmp_path, monkeypatch):
    """MLflow's local store; artifacts go to mlruns beside it."""
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def client_of(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=store)


def finish(run):
    for logger in run.trainer.loggers:
        logger.finish()


def test_a_run_is_logged_its_model_kept_and_registered(store, tmp_path):
    settings = {
        "loggers": ["mlflow"],
        "tracking_uri": store,
        "experiment_name": "tones",
        "run_name": "first",
        "register_model": True,
        "log_models": True,
        "model_name": "tone-model",
    }
    for number in (1, 2):
        run = create_trainer(
            Plain,
            "development",
            **quiet(tmp_path, output_dir=tmp_path / f"run-{number}", tracking=settings),
        )
        result = run.train(Points(40), Points(20))
        finish(run)
    client = client_of(store)
    experiment = client.get_experiment_by_name("tones")
    newest, oldest = client.search_runs([experiment.experiment_id])
    assert newest.info.run_name == oldest.info.run_name == "first"
    assert newest.data.params["optimizer.learning_rate"] == "0.001"
    history = client.get_metric_history(newest.info.run_id, "val_loss")
    assert [m.value for m in history] == [row["val_loss"] for row in result.history]
    versions = client.search_model_versions("name='tone-model'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    last = next(version for version in versions if int(version.version) == 2)
    assert last.run_id == newest.info.run_id
    folder = Path(client.download_artifacts(newest.info.run_id, "model", str(tmp_path)))
    assert last.source.endswith("/model")
    assert checkpoint.load_weights(run.module, folder)["global_step"] > 0
    assert run.evaluate(Points(20))["test_loss"] == pytest.approx(result.best_score, rel=1e-5)


def test_the_callback_of_a_config(store, tmp_path):
    config = MLflowConfig("tones", "second", store, log_models=True)
    run = trainer(tmp_path / "run", callbacks=[MLflowCallback(config)], max_epochs=2)
    run.fit(Classifier(), *loaders())
    run.loggers[-1].finish()
    client = client_of(store)
    experiment = client.get_experiment_by_name("tones")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "second"
    assert len(client.get_metric_history(found.info.run_id, "val_loss")) == 2
    names = {file.path for file in client.list_artifacts(found.info.run_id, "model")}
    assert "model/state.json" in names
    assert client.search_registered_models() == []


@pytest.mark.parametrize("declarative", [True, False])
def test_a_callback_registers_one_version_of_its_runs_model(store, tmp_path, declarative):
    config = MLflowConfig(
        "tones", "third", store, log_models=True, register_model=True, model_name="tone-model"
    )
    if declarative:
        callbacks = [MLflowCallback(config)]
        run = create_trainer(Plain, {}, callbacks, **quiet(tmp_path, num_epochs=1))
        run.train(Points(40), Points(20))
        finish(run)
    else:
        run = trainer(tmp_path / "run", callbacks=[MLflowCallback(config)])
        run.fit(Classifier(), *loaders())
        run.loggers[-1].finish()
    client = client_of(store)
    experiment = client.get_experiment_by_name("tones")
    (found,) = client.search_runs([experiment.experiment_id])
    (version,) = client.search_model_versions("name='tone-model'")
    assert version.run_id == found.info.run_id
    folder = Path(client.download_artifacts(found.info.run_id, "model", str(tmp_path)))
    assert checkpoint.load_weights(run.module, folder)["global_step"] > 0


def test_folds_are_children_of_a_parent(store, tmp_path):
    parent = MLflowLogger("cv", "all", store)
    parent.log_metrics({"mean": 0.5}, 0)
    tracking = TrackingSettings(("mlflow",), "cv", "fold", store)
    for number in range(2):
        (child,) = run_loggers(tracking, tmp_path / f"fold-{number}", parent=parent.run_id)
        child.log_metrics({"loss": number}, 1)
        child.finish()
    parent.finish()
    client = client_of(store)
    experiment = client.get_experiment_by_name("cv")
    inside = f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
    children = client.search_runs([experiment.experiment_id], inside)
    assert sorted(child.data.metrics["loss"] for child in children) == [0, 1]
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_a_recipes_folds_are_grouped(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    names = ("wandb", "mlflow")
    wandb, alone = loggers_of(names, "project", tmp_path / "run")
    assert (alone.run_name, alone.parent) == ("run", None)
    assert wandb.group is None
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "folds.json").write_text("{}")
    made = [loggers_of(names, "project", tmp_path / "cv" / f"fold-{k}") for k in range(2)]
    folds = [mlflow for _, mlflow in made]
    assert [fold.run_name for fold in folds] == ["cv-fold-0", "cv-fold-1"]
    assert folds[0].parent == folds[1].parent
    assert folds[0].parent is not None
    assert made[0][0].group == "cv"
    assert client_of(store).get_run(folds[0].parent).info.run_name == "cv"


def test_each_logger_is_made_for_the_run_folder(tmp_path, monkeypatch):
    for name in ("wandb", "tensorboard", "mlflow"):
        pytest.importorskip(name)
    tracking = TrackingSettings(("mlflow", "wandb", "tensorboard"), "project")
    wandb, board, mlflow = run_loggers(tracking, tmp_path / "fold-1", group="cv", parent="id")
    assert isinstance(wandb, WandbLogger)
    assert (wandb.project, wandb.name, wandb.group) == ("project", "fold-1", "cv")
    assert isinstance(board, TensorBoardLogger)
    assert board.folder == tmp_path / "fold-1" / "tensorboard"
    assert (mlflow.experiment_name, mlflow.run_name, mlflow.parent) == ("project", "fold-1", "id")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="tracking.loggers: mlflow is not installed"):
        run_loggers(tracking, tmp_path)


def test_wandb_is_told_the_group(monkeypatch, tmp_path):
    told = {}

    class Run:
        id = "id"

        def define_metric(self, *args, **kwargs):
            pass

    class Wandb:
        run = None

        @staticmethod
        def init(**settings):
            told.update(settings)
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    assert WandbLogger("project", "fold-1", group="cv").run.id == "id"
    assert told["group"] == "cv"


def test_registering_needs_a_name():
    with pytest.raises(ValueError, match="register_model is True, but model_name is not given"):
        MLflowConfig(register_model=True).logger()
