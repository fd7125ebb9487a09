"""Tables that list recordings and their chords: CSV, TSV, JSON lines; `labels.csv` is one of them.

A table needs a column for the audio and one for the label, which is a chord or the path of an
annotation. It may say start and end (seconds of the recording), split and group.
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets.annotations import read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
AUDIO_COLUMNS = (
    "audio",
    "file",
    "filename",
    "file_name",
    "audio_file",
    "audio_path",
    "path",
    "midi",
)
LABEL_COLUMNS = ("chord", "label", "labels", "annotation", "lab", "label_path", "harte", "class")
START_COLUMNS = ("start", "start_time", "onset", "begin")
END_COLUMNS = ("end", "end_time", "offset", "stop")
SPLIT_COLUMNS = ("split", "subset", "partition")
GROUP_COLUMNS = ("group", "song", "song_id", "track", "track_id")


class Row(NamedTuple):
    """One line of a table: `start` and `end` in seconds, `columns` what it says besides."""

    line: int
    audio: str
    label: str
    start: float | None
    end: float | None
    split: str
    group: str
    columns: dict[str, str]


class Manifest(NamedTuple):
    """Rows of a table, and what was wrong in it ("file:line: text")."""

    rows: list[Row]
    problems: list[str]


def is_manifest(path: Path) -> bool:
    """True when the table's first row names a column for audio and one for labels."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return False
    try:
        _, columns = next(_records(path, []), (0, {}))
    except ValueError:
        return False
    return _find(columns, AUDIO_COLUMNS) is not None and _find(columns, LABEL_COLUMNS) is not None


def read_manifest(path: Path, group_column: str | None = None) -> Manifest:
    """Rows of a table; lines that can't be used are left out and told in `problems`.

    `group_column` names the column whose equal values must stay in one split; without it, one of
    GROUP_COLUMNS if there is any. ValueError when there is no such column.
    """
    rows: list[Row] = []
    problems: list[str] = []
    records = list(_records(path, problems))
    named = {name: "" for _, columns in records for name in columns}
    names = _column_names(path, named, group_column)
    for line, columns in records:
        cells = {key: (columns.get(name) or "") if name else "" for key, name in names.items()}
        try:
            start, end = _seconds(cells["start"], "start"), _seconds(cells["end"], "end")
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
            continue
        if end is not None and end <= (start or 0.0):
            problems.append(f"{path}:{line}: end {end:g} is not after start {start or 0.0:g}")
        elif not cells["audio"] or not cells["label"]:
            missing = "audio" if not cells["audio"] else "label"
            problems.append(f"{path}:{line}: found no {missing}")
        else:
            used = {name for name in names.values() if name}
            others = {name: cell for name, cell in columns.items() if name not in used}
            split, group = cells["split"], cells["group"]
            rows.append(Row(line, cells["audio"], cells["label"], start, end, split, group, others))
    return Manifest(rows, problems)


def _column_names(
    path: Path, columns: dict[str, str], group_column: str | None
) -> dict[str, str | None]:
    """The table's own name for each of our columns, None where it has no such column."""
    if group_column is not None and group_column not in columns:
        raise ValueError(
            f"{path}:1: found no column {group_column!r} to group by, expected one of "
            f"{', '.join(columns)}"
        )
    return {
        "audio": _find(columns, AUDIO_COLUMNS),
        "label": _find(columns, LABEL_COLUMNS),
        "start": _find(columns, START_COLUMNS),
        "end": _find(columns, END_COLUMNS),
        "split": _find(columns, SPLIT_COLUMNS),
        "group": group_column or _find(columns, GROUP_COLUMNS),
    }


def _find(columns: dict[str, str], known: tuple[str, ...]) -> str | None:
    """The column that comes first in `known`, whatever the size of its letters."""
    names = {name.lower(): name for name in columns}
    return next((names[name] for name in known if name in names), None)


def _records(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column name) of each line that holds something."""
    text, faults = read_text(path)
    problems += faults
    if path.suffix.lower() == ".jsonl":
        yield from _json_records(text, path, problems)
        return
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    names: list[str] = []
    for cells in _csv_rows(reader, path):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if not names:
            names = cells
            continue
        cells += [""] * (len(names) - len(cells))
        yield reader.line_num, dict(zip(names, cells, strict=False))


def _csv_rows(reader, path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _json_records(
    text: str, path: Path, problems: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: not JSON: {error}")
            continue
        if not isinstance(record, dict):
            problems.append(f"{path}:{number}: found {line[:40]!r}, expected an object")
            continue
        yield (
            number,
            {str(name): "" if cell is None else str(cell) for name, cell in record.items()},
        )


def _seconds(cell: str, name: str) -> float | None:
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"found {name} {cell!r}, expected seconds")
    return seconds
