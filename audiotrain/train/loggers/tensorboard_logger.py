"""TensorBoard."""

import json
import time
from pathlib import Path

from audiotrain.train.loggers.base import Logger, encode, opened
from audiotrain.utils.errors import MissingPackageError


class TensorBoardLogger(Logger):
    """TensorBoard event files in log_dir/name; default: the folder "tensorboard" of the run.

    A new run where there are event files of another gets a folder of its own beside it, NAME-2,
    NAME-3 and so on. ImportError without tensorboard, at first use.
    """

    def __init__(self, log_dir: str | Path | None = None, name: str | None = None):
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._given_name = name or ("tensorboard" if log_dir is None else "default")
        self.name = self._given_name
        self._writer, self._ended = None, False

    @property
    def folder(self) -> Path:
        """Where the event files go."""
        return (self.log_dir or self.run_folder or Path("tb_logs")) / self.name

    @property
    def writer(self):
        """The writer, opened at first use."""
        if self._writer is None:
            try:
                from tensorboard.summary.writer.event_file_writer import EventFileWriter
            except ImportError:
                raise MissingPackageError(
                    "TensorBoardLogger needs tensorboard: pip install 'audiotrain[tensorboard]'"
                ) from None
            self._writer = EventFileWriter(str(self.folder))
        return self._writer

    def _summary(self):
        """The class of event values; the writer is opened first, which needs TensorBoard."""
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
        if step == 0 and (self._ended or self._writer is None):
            self.finish()  # what was logged after the run before
            self._ended, number, self.name = False, 1, self._given_name
            while any(self.folder.glob("*tfevents*")):
                number += 1
                self.name = f"{self._given_name}-{number}"
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
            self._writer, self._ended = None, True

    def state_dict(self) -> dict:
        return {"name": self.name}

    def load_state_dict(self, state: dict) -> None:
        if (name := state.get("name", self.name)) != self.name:  # older checkpoints lack it
            self.finish()
            self.name = name
        self._ended = False
