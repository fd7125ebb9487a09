"""Where a run's numbers go: CSV and JSON lines always, and W&B, TensorBoard, MLflow when asked.

A logger gets rows of plain numbers with the optimizer step, and stays open after fit.
"""

import csv
import io
import json
from pathlib import Path

from audiotrain.history import finite_or_none, write_text


class Logger:
    """Base class."""

    def start(self, step: int) -> None:
        """Fit begins, at `step` (above 0 when it continues a run)."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """One row."""

    def log_hyperparams(self, config: dict) -> None:
        """The run's settings."""

    def log_image(self, name: str, path: str | Path, step: int) -> None:
        """A picture, such as a confusion matrix; loggers that take none ignore it."""

    def finish(self) -> None:
        """Nothing more will come."""


class _FileLogger(Logger):
    """A file in the run folder; a new run moves an older run's file aside, as NAME-1.csv."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def _move_aside(self) -> None:
        if self.path.exists():
            number = 1
            while (moved := self.path.with_stem(f"{self.path.stem}-{number}")).exists():
                number += 1
            self.path.rename(moved)

    def _lines(self) -> list[str]:
        """Whole lines: one without its end was cut short when the process was killed."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def _append(self, text: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot write ({error.strerror})") from None


class JSONLLogger(_FileLogger):
    """One JSON object a line: step, epoch, metrics. NaN and infinities are null."""

    def start(self, step: int) -> None:
        if step == 0:
            self._move_aside()
        elif self.path.exists():
            kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
            write_text(self.path, "".join(kept))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._append(json.dumps(finite_or_none({"step": step} | metrics)) + "\n")


class CSVLogger(_FileLogger):
    """A table with a column for each metric; a new metric adds its column to the whole table."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.columns: list[str] = []

    def start(self, step: int) -> None:
        self.columns = []
        if step == 0:
            self._move_aside()
        elif self.path.exists():
            rows = [row for row in self._rows() if int(row["step"]) <= step]
            self._rewrite(rows, list(dict.fromkeys(name for row in rows for name in row)))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        row = {"step": step} | metrics
        if not self.columns and self.path.exists():
            self.columns = list(next(iter(self._rows()), {}))
        new = [name for name in row if name not in self.columns]
        if new:
            rows = self._rows() if self.path.exists() else []
            self._rewrite(rows, self.columns + new)
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(row)
        self._append(text.getvalue())

    def _rows(self) -> list[dict]:
        return list(csv.DictReader(self._lines()))

    def _rewrite(self, rows: list[dict], columns: list[str]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        self.columns = columns


class WandbLogger(Logger):
    """Weights & Biases; the axis is the optimizer step. `id` continues a run."""

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        config: dict | None = None,
        id: str | None = None,
        save_dir: str | Path | None = None,
        mode: str | None = None,
    ):
        self.project, self.name, self.config, self.id = project, name, config, id
        self.save_dir, self.mode = save_dir, mode
        self._run = None

    @property
    def run(self):
        """The W&B run, started at first use."""
        if self._run is None:
            try:
                import wandb
            except ImportError:
                raise ImportError("WandbLogger needs wandb: pip install wandb") from None
            self._run = wandb.init(
                project=self.project,
                name=self.name,
                config=self.config,
                id=self.id,
                resume="allow" if self.id else None,
                dir=str(self.save_dir) if self.save_dir else None,
                mode=self.mode,
            )
            self.id = self._run.id
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step")
        return self._run

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics | {"trainer/global_step": step})

    def log_hyperparams(self, config: dict) -> None:
        self.run.config.update(config, allow_val_change=True)

    def log_image(self, name: str, path: str | Path, step: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path)), "trainer/global_step": step})

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
        self._add(summary(value=values), step)

    def log_hyperparams(self, config: dict) -> None:
        summary = self._summary()
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        text = make_tensor_proto([json.dumps(config, default=str, indent=1).encode()])
        metadata = create_summary_metadata("config", "")
        self._add(summary(value=[summary.Value(tag="config", tensor=text, metadata=metadata)]), 0)

    def log_image(self, name: str, path: str | Path, step: int) -> None:
        summary = self._summary()

        image = summary.Image(encoded_image_string=Path(path).read_bytes())
        self._add(summary(value=[summary.Value(tag=name, image=image)]), step)

    def _add(self, summary, step: int) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))
        self.writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflowLogger(Logger):
    """MLflow; `tracking_uri` may be a local folder."""

    def __init__(
        self,
        experiment_name: str = "default",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
    ):
        self.experiment_name, self.run_name = experiment_name, run_name
        self.tracking_uri, self.run_id = tracking_uri, run_id
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
                experiment = self._client.get_experiment_by_name(self.experiment_name)
                identifier = (
                    experiment.experiment_id
                    if experiment
                    else self._client.create_experiment(self.experiment_name)
                )
                run = self._client.create_run(identifier, run_name=self.run_name)
                self.run_id = run.info.run_id
        return self._client

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        client = self.client
        for name, value in metrics.items():
            client.log_metric(self.run_id, name, value, step=step)

    def log_hyperparams(self, config: dict) -> None:
        client = self.client
        for name, value in config.items():
            client.log_param(self.run_id, name, value)

    def log_image(self, name: str, path: str | Path, step: int) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def finish(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self.run_id)
            self._client = None


def file_loggers(folder: Path) -> list[Logger]:
    """The two loggers that every run folder has."""
    return [CSVLogger(folder / "metrics.csv"), JSONLLogger(folder / "metrics.jsonl")]
