"""The numbers of a run as plain rows: one per epoch (`rows`), one per log interval (`log`).

Every row has "epoch" (from 0) and "step" (optimizer steps taken), then its metrics as floats.
"""

import math
from pathlib import Path

from audiotrain.utils.files import write_json

Row = dict[str, float | int]
VALIDATION = "val_", "val/"  # how the names of a validation's metrics begin


class History:
    """Rows of plain numbers, as the Trainer writes them.

    >>> history = History()
    >>> history.add_epoch({"epoch": 0, "step": 10, "train_loss": 2.0, "val_loss": 2.5})
    >>> history.add_epoch({"epoch": 1, "step": 20, "train_loss": 1.0})
    >>> history.lists()["val_loss"]
    [2.5, None]
    """

    def __init__(self):
        self.rows: list[Row] = []
        self.log: list[Row] = []

    def add_epoch(self, row: Row) -> None:
        """Append an epoch's row; a row of the same epoch (a part of it) is replaced."""
        self.rows = [old for old in self.rows if old["epoch"] != row["epoch"]] + [row]

    def amend_epoch(self, numbers: Row) -> None:
        """Add numbers to the last epoch's row."""
        if self.rows:
            self.rows[-1] = self.rows[-1] | numbers

    def add_log(self, row: Row) -> None:
        """Append a row of the log: a log interval's or a validation's inside an epoch."""
        self.log.append(row)

    def lists(self) -> dict[str, list[float | None]]:
        """Per-epoch lists by metric, all of the same length; None where an epoch has no value."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names}

    def best(self, metric: str, mode: str = "min") -> Row | None:
        """The epoch's row with the smallest or largest finite `metric`; None when none has it."""
        rows = [row for row in self.rows if math.isfinite(row.get(metric, math.nan))]
        pick = min if mode == "min" else max
        return pick(rows, key=lambda row: row[metric]) if rows else None

    def export(self, path: str | Path) -> None:
        """Write JSON: the per-epoch lists by metric, then "rows" and "log"."""
        write_json(path, {**self.lists(), "rows": self.rows, "log": self.log})

    def state_dict(self) -> dict:
        """The rows of steps and of epochs, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows], "log": [dict(row) for row in self.log]}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint's rows."""
        self.rows = [dict(row) for row in state["rows"]]
        self.log = [dict(row) for row in state["log"]]
