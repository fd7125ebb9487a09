"""MLflow."""

import atexit
import time
from pathlib import Path

from audiotrain.config.diff import flat
from audiotrain.train.loggers.base import Logger, opened
from audiotrain.utils.errors import MissingPackageError, UserError


class MLflowLogger(Logger):
    """MLflow; `tracking_uri` may be a server or a local "sqlite:///FILE".

    Each fit from the start is a run of MLflow, finished at its end. A run continued from a
    checkpoint continues its MLflow run; `run_id` names another one. The
    run is shown inside that with the id `parent`. With `log_models` a run keeps the checkpoints
    that `log_model` is given, as its artifact "model"; `register_model` also makes each a version
    of `model_name` in the model registry. ValueError for `register_model` without a `model_name`;
    ImportError without mlflow, at first use.
    """

    def __init__(
        self,
        experiment_name: str = "default",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
        log_models: bool = False,
        register_model: bool = False,
        model_name: str | None = None,
        parent: str | None = None,
    ):
        if register_model and model_name is None:
            raise UserError("register_model is True, but model_name is not given")
        self.experiment_name, self.run_name = experiment_name, run_name
        self.tracking_uri, self.run_id, self.parent = tracking_uri, run_id, parent
        self.log_models, self.register_model = log_models, register_model
        self.model_name = model_name
        self._own_id, self._client, self._ended = run_id, None, False

    @property
    def client(self):
        """The MLflow client; the run is created at first use."""
        if self._client is None:
            try:
                from mlflow.tracking import MlflowClient
            except ImportError:
                raise MissingPackageError(
                    "MLflowLogger needs mlflow: pip install 'audiotrain[mlflow]'"
                ) from None
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
            if self.run_id is None:
                name = self.experiment_name
                known = self._client.get_experiment_by_name(name)
                number = known.experiment_id if known else self._client.create_experiment(name)
                tags = {"mlflow.parentRunId": self.parent} if self.parent else {}
                run = self._client.create_run(number, run_name=self.run_name, tags=tags)
                self.run_id = run.info.run_id
            else:
                self._client.update_run(self.run_id, status="RUNNING")
            atexit.register(self.finish)
        return self._client

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        client = self.client
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # milliseconds
        values = [Metric(name, value, now, step) for name, value in metrics.items()]
        client.log_batch(self.run_id, metrics=values)

    def log_hyperparams(self, config: dict) -> None:
        client = self.client
        # MLflow refuses another value for a parameter that a run has: the first one stays.
        known = client.get_run(self.run_id).data.params
        for name, value in flat(config).items():
            if name not in known:
                client.log_param(self.run_id, name, value)

    def log_image(self, name: str, image, step: int) -> None:
        self.client.log_image(self.run_id, opened(image, name), key=name, step=step)

    def log_model(self, folder: Path) -> None:
        if not (self.log_models or self.register_model):
            return
        client = self.client
        client.log_artifacts(self.run_id, str(folder), "model")
        if not self.register_model:
            return
        from mlflow.exceptions import MlflowException

        try:
            client.get_registered_model(self.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_registered_model(self.model_name)
        source = f"{client.get_run(self.run_id).info.artifact_uri}/model"
        client.create_model_version(self.model_name, source, self.run_id)

    def start(self, step: int) -> None:
        if step == 0 and self._ended:
            self.finish()  # what was logged after the run before
            self.run_id, self._ended = self._own_id, False

    def finish(self) -> None:
        self._close("FINISHED")

    def fail(self) -> None:
        self._close("FAILED")

    def _close(self, status: str) -> None:
        if self._client is not None:
            self._client.set_terminated(self.run_id, status)
            self._client, self._ended = None, True
            atexit.unregister(self.finish)

    def state_dict(self) -> dict:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict) -> None:
        if self._client is not None and self.run_id != (self._own_id or state["run_id"]):
            self.finish()
        self.run_id, self._ended = self._own_id or state["run_id"], False
