"""Tables that list recordings and their chords: CSV, TSV, JSON lines; `labels.csv` is one of them.

A table needs a column for the audio and one for the label, which is a chord or the path of an
annotation. It may say start and end or duration (seconds of the recording), split and group.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets.chords.readers import DURATION_COLUMNS, read_text

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
CHORD_COLUMNS = ("chord", "harte")  # what nothing but chords stands in
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
    columns = first_record(path)
    return all(find_column(columns, known) for known in (AUDIO_COLUMNS, LABEL_COLUMNS))


def read_manifest(path: Path, group_column: str | None = None) -> Manifest:
    """Rows of a table; lines that can't be used are left out and told in `problems`.

    `group_column` names the column whose equal values must stay in one split; without it, one of
    GROUP_COLUMNS if there is any. ValueError when there is no such column.
    """
    rows: list[Row] = []
    problems: list[str] = []
    found = list(records(path, problems))
    named = {name: "" for _, columns in found for name in columns}
    names = _column_names(path, named, group_column)
    for line, raw in found:
        columns = {name: cell_text(cell) for name, cell in raw.items()}
        cells = {key: columns.get(name, "") if name else "" for key, name in names.items()}
        try:
            start, end = span(cells["start"], cells["end"], cells["duration"])
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
            continue
        if not cells["audio"] or not cells["label"]:
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
    check_group_column(path, columns, group_column)
    start = find_column(columns, START_COLUMNS)
    return {
        "audio": find_column(columns, AUDIO_COLUMNS),
        "label": find_column(columns, LABEL_COLUMNS),
        "start": start,
        "end": find_column(columns, END_COLUMNS),
        # without a start it is the length of the file
        "duration": find_column(columns, DURATION_COLUMNS) if start else None,
        "split": find_column(columns, SPLIT_COLUMNS),
        "group": group_column or find_column(columns, GROUP_COLUMNS),
    }


def check_group_column(path: Path, columns: Iterable[str], group_column: str | None) -> None:
    """ValueError when there is no such column to group by."""
    if group_column is not None and group_column not in columns:
        raise ValueError(
            f"{path}:1: found no column {group_column!r} to group by, expected one of "
            f"{', '.join(columns)}"
        )


def find_column(columns: Iterable[str], known: tuple[str, ...]) -> str | None:
    """The column that comes first in `known`, whatever the size of its letters."""
    names = {name.lower(): name for name in columns}
    return next((names[name] for name in known if name in names), None)


def first_record(path: Path) -> dict[str, object]:
    """Cells of a table's first line by column name; none when it is no table."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return {}
    try:
        return next(records(path, []), (0, {}))[1]
    except ValueError:
        return {}


def records(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, cells by column name) of each line that holds something; the cells are text,
    or what JSON says. Lines that can't be read are told in `problems`."""
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
) -> Iterator[tuple[int, dict[str, object]]]:
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
        yield number, record


def cell_text(cell: object) -> str:
    """A cell as text; nothing for JSON's null."""
    return "" if cell is None else str(cell)


def span(
    start_cell: str, end_cell: str, duration_cell: str = ""
) -> tuple[float | None, float | None]:
    """Start and end in seconds, None where the cell is empty; the duration counts where there is a
    start and no end. ValueError for anything else."""
    start, end = _seconds(start_cell, "start"), _seconds(end_cell, "end")
    if start is not None and end is None and duration_cell:
        end = start + (_seconds(duration_cell, "duration") or 0.0)
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end {end:g} is not after start {start or 0.0:g}")
    return start, end


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
