"""Where a run's numbers go: CSV and JSON lines always, and W&B, TensorBoard, MLflow when asked.

A logger gets rows of plain numbers with the optimizer step, and stays open after fit. Pictures
go to all: `for logger in trainer.loggers: logger.log_image("confusion", figure, step)`.
"""

import atexit
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotrain.logfiles import CSVLogger, JSONLLogger, Logger, file_loggers

__all__ = [
    "CSVLogger",
    "JSONLLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "file_loggers",
]


class WandbLogger(Logger):
    """Weights & Biases; the axis is the optimizer step.

    A run continued from a checkpoint continues its W&B run; `id` names another one to continue.
    Runs with the same `group`, such as the folds of a cross-validation, are shown together.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        config: dict | None = None,
        id: str | None = None,
        save_dir: str | Path | None = None,
        mode: str | None = None,
        group: str | None = None,
    ):
        self.project, self.name, self.config, self.id = project, name, config, id
        self.save_dir, self.mode, self.group = save_dir, mode, group
        self._run = None

    @property
    def run(self):
        """The W&B run, started at first use."""
        if self._run is None:
            try:
                import wandb
            except ImportError:
                raise ImportError("WandbLogger needs wandb: pip install wandb") from None
            try:
                self._run = wandb.init(
                    project=self.project,
                    name=self.name,
                    config=self.config,
                    id=self.id,
                    resume="allow" if self.id else None,
                    dir=str(self.save_dir) if self.save_dir else None,
                    mode=self.mode,
                    group=self.group,
                )
            except wandb.Error as error:
                what = str(error).partition("\n")[0].rstrip(".")
                raise ValueError(f"W&B: {what}; WANDB_MODE=offline does without") from None
            self.id = self._run.id
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step")
        return self._run

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics | {"trainer/global_step": step})

    def log_hyperparams(self, config: dict) -> None:
        self.run.config.update(config, allow_val_change=True)

    def log_image(self, name: str, image, step: int) -> None:
        run = self.run
        import wandb

        run.log({name: wandb.Image(opened(image, name)), "trainer/global_step": step})

    def state_dict(self) -> dict:
        return {"id": self.id}

    def load_state_dict(self, state: dict) -> None:
        self.id = self.id or state["id"]

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


class TensorBoardLogger(Logger):
    """TensorBoard event files in log_dir/name."""

    def __init__(self, log_dir: str | Path = "./tb_logs", name: str = "default"):
        self.folder = Path(log_dir) / name
        self._writer = None

    @property
    def writer(self):
        """The writer, opened at first use."""
        if self._writer is None:
            try:
                from tensorboard.summary.writer.event_file_writer import EventFileWriter
            except ImportError:
                raise ImportError(
                    "TensorBoardLogger needs tensorboard: pip install 'audiotrain[tensorboard]'"
                ) from None
            self._writer = EventFileWriter(str(self.folder))
        return self._writer

    def _summary(self):
        """The class of event values; the writer is opened first, for it says what is missing."""
        if self.writer is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary
        return Summary

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        summary = self._summary()
        values = [summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step, summary=summary(value=values))

    def log_hyperparams(self, config: dict) -> None:
        summary = self._summary()
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        text = make_tensor_proto([json.dumps(config, default=str, indent=1).encode()])
        metadata = create_summary_metadata("config", "")
        value = summary.Value(tag="config", tensor=text, metadata=metadata)
        self._add(0, summary=summary(value=[value]))

    def log_image(self, name: str, image, step: int) -> None:
        summary = self._summary()
        encoded = encode(image, name)
        width, height = opened(encoded, name).size
        image = summary.Image(encoded_image_string=encoded, width=width, height=height)
        self._add(step, summary=summary(value=[summary.Value(tag=name, image=image)]))

    def start(self, step: int) -> None:
        if step and self.writer is not None:
            from tensorboard.compat.proto.event_pb2 import SessionLog

            # TensorBoard then leaves out what the stopped run wrote after its checkpoint.
            self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, **content) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(step=step, wall_time=time.time(), **content))
        self.writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflowLogger(Logger):
    """MLflow; `tracking_uri` may be a server or a local "sqlite:///FILE".

    A run continued from a checkpoint continues its MLflow run; `run_id` names another one. The
    run is shown inside that with the id `parent`. With `log_models` a run keeps the checkpoints
    that `log_model` is given, as its artifact "model"; `register_model` also makes each a version
    of `model_name` in the model registry.
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
            raise ValueError("register_model is True, but model_name is not given")
        self.experiment_name, self.run_name = experiment_name, run_name
        self.tracking_uri, self.run_id, self.parent = tracking_uri, run_id, parent
        self.log_models, self.register_model = log_models, register_model
        self.model_name = model_name
        self._client = None

    @property
    def client(self):
        """The MLflow client; the run is created at first use."""
        if self._client is None:
            try:
                from mlflow.tracking import MlflowClient
            except ImportError:
                raise ImportError(
                    "MLflowLogger needs mlflow: pip install 'audiotrain[mlflow]'"
                ) from None
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
            if self.run_id is None:
                found = self._client.get_experiment_by_name(self.experiment_name)
                number = (
                    found.experiment_id
                    if found
                    else self._client.create_experiment(self.experiment_name)
                )
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

    def finish(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self.run_id)
            self._client = None
            atexit.unregister(self.finish)

    def state_dict(self) -> dict:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict) -> None:
        self.run_id = self.run_id or state["run_id"]


def flat(config: Mapping, prefix: str = "") -> dict:
    """Nested settings under dotted names.

    >>> flat({"model": {"width": 2}, "seed": 1})
    {'model.width': 2, 'seed': 1}
    """
    found = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def encode(image, name: str) -> bytes:
    """An image file's bytes, PNG unless it was a file: see `Logger.log_image`."""
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    file = io.BytesIO()
    if hasattr(image, "savefig"):
        image.savefig(file, format="png")
        return file.getvalue()
    array = np.asarray(image)
    floats = array.dtype.kind == "f" and array.size and 0 <= array.min() and array.max() <= 1
    colours = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not colours or not (floats or array.dtype == np.uint8):
        raise ValueError(
            f"image {name!r} is an array {array.shape} of {array.dtype}, expected (height, width), "
            f"(height, width, 3) or (height, width, 4) of uint8 or of floats 0..1"
        )
    from matplotlib.image import imsave

    imsave(file, array, format="png", cmap="gray", vmin=0, vmax=1 if floats else 255)
    return file.getvalue()


def opened(image, name: str):
    """The image for libraries that take Pillow's."""
    from PIL import Image

    return Image.open(io.BytesIO(image if isinstance(image, bytes) else encode(image, name)))
