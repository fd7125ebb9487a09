"""Logger, the base class; and the two loggers that write files, CSV and JSON lines.

A logger gets rows of plain numbers with the optimizer step. It belongs to one run: fit finishes
it, what is logged afterwards (a test, a picture) opens that run again, and the next fit from the
start begins another. Pictures go to all:
`for logger in trainer.loggers: logger.log_image("confusion", figure, step)`.
"""

import csv
import io
import json
from pathlib import Path

import numpy as np

from audiotrain.utils.errors import UserError
from audiotrain.utils.files import csv_text, finite_or_none, write


class Logger:
    """Base class."""

    run_folder: Path | None = None
    """the run's folder, set by the Trainer"""

    def start(self, step: int) -> None:
        """Fit begins, at `step`: 0 for a new run, above 0 when it continues one."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Log one row."""

    def log_hyperparams(self, config: dict) -> None:
        """Log the run's settings."""

    def log_image(self, name: str, image, step: int) -> None:
        """A picture, such as a confusion matrix: a matplotlib figure, an array (height, width),
        (height, width, 3) or (height, width, 4) of uint8 or of floats 0..1, or the path of a
        file. Loggers that take none ignore it; the others raise ValueError for another array."""

    def log_model(self, folder: Path) -> None:
        """A checkpoint to keep. Loggers that keep none ignore it."""

    def finish(self) -> None:
        """Close the logger: the run ended. Whatever is logged later opens it again."""

    def fail(self) -> None:
        """Close the logger: the run ended by an error or a signal."""
        self.finish()

    def state_dict(self) -> dict:
        """Plain data for the checkpoint, such as a run's id."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Continue the run of a checkpoint."""


class FileLogger(Logger):
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
            raise UserError(f"{self.path}: cannot write ({error.strerror})") from None


class JSONLLogger(FileLogger):
    """One JSON object a line: step, epoch, metrics. NaN and infinities are null."""

    def start(self, step: int) -> None:
        if step == 0:
            self._move_aside()
        elif self.path.exists():
            kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
            write(self.path, "".join(kept))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._append(json.dumps(finite_or_none({"step": step} | metrics)) + "\n")


class CSVLogger(FileLogger):
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
        self._append(csv_text([[row.get(name, "") for name in self.columns]]))

    def _rows(self) -> list[dict]:
        return list(csv.DictReader(self._lines()))

    def _rewrite(self, rows: list[dict], columns: list[str]) -> None:
        lines = [[row.get(name, "") for name in columns] for row in rows]
        write(self.path, csv_text([columns, *lines]))
        self.columns = columns


def file_loggers(folder: Path) -> list[FileLogger]:
    """The two loggers that every run folder has."""
    return [CSVLogger(folder / "metrics.csv"), JSONLLogger(folder / "metrics.jsonl")]


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
        raise UserError(
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
