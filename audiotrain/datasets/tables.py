"""Tables that list recordings: CSV, TSV, JSON lines.

The first line of CSV and TSV names the columns. A table needs a column for the audio; it may have
start and end or duration (seconds of the recording), split and group.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets.delimited import csv_rows
from audiotrain.datasets.items import Problem
from audiotrain.datasets.paths import SPLIT_NAMES
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, read_text
from audiotrain.utils.text import listed, shown

UNUSED_LINES = "lines of a table not used"
SHORT_LINES = "lines of a table with fewer cells than the first, the others taken as empty"
LATIN = "tables not in UTF-8, read as Latin-1"
VIDEO_COLUMNS = ("youtube_id", "ytid")
CLIP_COLUMNS = ("audiocap_id", "audiocaps_id")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
DURATION_COLUMNS = ("duration", "dur", "length")
# Names of the columns by their role; the first that a table has is read.
COLUMNS: dict[str, tuple[str, ...]] = {
    "audio": (
        *("audio", "file", "filename", "file_name", "audio_file", "audio_path", "path", "midi"),
        *("wav", "wav_path", "audio_filename", "filepath", "fname"),
        *("youtube_id", "ytid"),  # of AudioSet and AudioCaps: see `video_names`
    ),
    "start": ("start", "start_time", "onset", "begin"),
    "end": ("end", "end_time", "offset", "stop"),
    "split": ("split", "subset", "partition"),
    "group": (
        *("group", "source", "source_id", "source_url", "recording", "recording_id"),
        *("freesound_id", "src_file", "sound_id", "youtube_id", "ytid"),
        *("song", "song_id", "track", "track_id"),
    ),
}


class Row(NamedTuple):
    """One line of a table: `start` and `end` in seconds, `columns` the text of the columns that
    have no role, `record` all cells, text or what JSON has."""

    line: int
    audio: str
    label: str
    start: float | None
    end: float | None
    split: str | None
    group: str
    columns: dict[str, str]
    record: dict[str, object]
    names: tuple[str, ...] = ()  # other names that the recording may have


def read_rows(
    path: Path, known: Mapping[str, Sequence[str]], group_column: str | None = None
) -> tuple[list[Row], list[Problem]]:
    """Rows of a table, and problems of its lines; lines that can't be used are left out.

    `known` has names of columns by role: "audio", "label", "start", "end", "split", "group" and
    perhaps "duration". `group_column` names the column whose equal values must stay in one split.
    ValueError when there is no such column.
    """
    problems: list[Problem] = []
    lines = list(records(path, problems))
    names = list(dict.fromkeys(name for _, record in lines for name in record))
    if group_column is not None and group_column not in names:
        raise UserError(
            f"{path}:1: found no column {group_column!r} to group by, expected one of "
            f"{', '.join(names)}"
        )
    columns = {role: find_column(names, known[role]) for role in known}
    of_video = (columns["audio"] or "").lower() in VIDEO_COLUMNS
    start_of_video = columns["start"]
    if of_video:  # the recording is the clip
        columns |= {"start": None, "end": None}
    if columns["start"] is None:  # then the duration is that of the file
        columns["duration"] = None
    rows = []
    for line, record in lines:
        texts = {name: cell_text(cell) for name, cell in record.items()}
        cells = {role: texts.get(name or "", "") for role, name in columns.items()}
        others = {name: text for name, text in texts.items() if name not in columns.values()}
        if not cells["audio"]:
            problems.append(Problem(UNUSED_LINES, f"{path}:{line}: found no audio"))
            continue
        try:
            start, end = span(cells["start"], cells["end"], cells.get("duration", ""))
        except UserError as error:
            problems.append(Problem(UNUSED_LINES, f"{path}:{line}: {error}"))
            continue
        split = SPLIT_NAMES.get(cells["split"].lower())
        if cells["split"] and split is None:
            text = f"{path}:{line}: found {cells['split']!r:.60}, expected train, valid or test"
            problems.append(Problem("unknown splits, taken as none", text))
        group = cells["group"] if group_column is None else texts.get(group_column, "")
        label = cells.get("label", "")
        clips: tuple[str, ...] = ()
        if of_video:
            clips = video_names(cells["audio"], texts.get(start_of_video or "", ""), others)
        rows.append(
            Row(line, cells["audio"], label, start, end, split, group, others, record, clips)
        )
    return rows, problems


def video_names(name: str, start: str, others: Mapping[str, str]) -> tuple[str, ...]:
    """Names that the usual tools give a clip of 10 s from `start` seconds of a video on, the most
    precise first; `others` may have AudioCaps' number of the clip.

    >>> video_names("r1nicOVtvkQ", "130", {})[:4]
    ('r1nicOVtvkQ_130', 'r1nicOVtvkQ_130_140', 'r1nicOVtvkQ_130000_140000', 'Yr1nicOVtvkQ_130')
    """
    ends = []
    if re.fullmatch(r"\d+(\.0*)?", start):
        first = int(float(start))
        ends = [f"_{first}", f"_{first}_{first + 10}", f"_{first * 1000}_{first * 1000 + 10000}"]
    named = [others[column] for column in CLIP_COLUMNS if others.get(column)]
    precise = [prefix + name + end for prefix in ("", "Y") for end in ends]
    return (*precise, *named, f"Y{name}")


def span_name(audio: str, start: float | None, end: float | None) -> str:
    """The id of a span of a recording; the recording's name when it is all of it.

    >>> span_name("x.wav", 0.5, 2.0), span_name("x.wav", 3.0, None), span_name("x.wav", 0.0, None)
    ('x.wav@0.5-2', 'x.wav@3-', 'x.wav')
    """
    if not start and end is None:
        return audio
    return f"{audio}@{start or 0:g}-{'' if end is None else f'{end:g}'}"


def lacking(path: Path, *known: Sequence[str]) -> str:
    """What a table has in place of columns of these names, one of each; "" where it has them all,
    and for a file that is no table."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return "found no table"
    columns, fault = column_names(path)
    missing = [names for names in known if find_column(columns, names) is None]
    if not missing:
        return ""
    found = fault or (f"found columns {shown(', '.join(columns))}" if columns else "found no rows")
    return f"{found}, expected {' and '.join(f'one of {listed(names)}' for names in missing)}"


def has_columns(path: Path, *known: Sequence[str]) -> bool:
    """Whether a table has a column of each of these names."""
    return not lacking(path, *known)


def find_column(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """The column that comes first in `known`, whatever the size of its letters."""
    names: dict[str, str] = {}
    for name in columns:
        names.setdefault(name.lower(), name)
    return next((names[name] for name in known if name in names), None)


def column_names(path: Path) -> tuple[list[str], str]:
    """The names of a table's columns, and why there are none where it cannot be read; a file with
    another suffix has none."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return [], ""
    try:
        changed = path.stat().st_mtime_ns
        return list(_column_names(path, changed)), ""
    except OSError as error:
        return [], f"can't be read: {error.strerror}"
    except UserError as error:
        return [], str(error).removeprefix(f"{path}:")


@lru_cache(maxsize=1024)
def _column_names(path: Path, changed: int) -> tuple[str, ...]:
    found = (record for _, record in records(path, []))
    if path.suffix.lower() != ".jsonl":
        return tuple(next(found, {}))
    return tuple(dict.fromkeys(name for record in found for name in record))


def records(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, cells by column name) of each line that holds something; the cells are text,
    or JSON values. `problems` gets lines that can't be read. ValueError where the first line, with
    the names of the columns, can't be."""
    text, faults = read_text(path)
    problems += [Problem(LATIN, fault) for fault in faults]
    if path.suffix.lower() == ".jsonl":
        yield from _json_records(text, path, problems)
        return
    names: list[str] = []
    broken: list[str] = []
    for line, cells in csv_rows(text, str(path), broken):
        if broken and not names:
            raise UserError(broken[0])
        problems += [Problem(UNUSED_LINES, fault) for fault in broken]
        broken.clear()
        if not any(cells):
            continue
        if not names:
            names = _header(cells, f"{path}:{line}", problems)
            continue
        if any(cells[len(names) :]):
            found = f"found {len(cells)} cells, expected {len(names)}"
            text = f"{found}; text with delimiters goes in quotes"
            problems.append(Problem(UNUSED_LINES, f"{path}:{line}: {text}"))
        elif any("\0" in cell for cell in cells):
            problems.append(Problem(UNUSED_LINES, f"{path}:{line}: found a NUL byte"))
        else:
            if len(cells) < len(names):
                text = f"{path}:{line}: found {len(cells)} cells, expected {len(names)}"
                problems.append(Problem(SHORT_LINES, text))
            cells += [""] * (len(names) - len(cells))
            yield line, dict(zip(names, cells, strict=False))


def _header(cells: list[str], where: str, problems: list[Problem]) -> list[str]:
    """The names of the columns; the second of two equal names gets a number."""
    while not cells[-1]:
        cells = cells[:-1]
    names: list[str] = []
    seen: set[str] = set()
    for cell in cells:
        name, number = cell, 1
        while name.lower() in seen:
            number += 1
            name = f"{cell}_{number}"
        if number > 1 and cell:
            text = f"{where}: {cell} is there again, the second one read as {name}"
            problems.append(Problem("columns of the same name", text))
        seen.add(name.lower())
        names.append(name)
    return names


def _json_records(
    text: str, path: Path, problems: list[Problem]
) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except UserError as error:
            problems.append(Problem(UNUSED_LINES, f"{path}:{number}: not JSON: {error}"))
            continue
        if not isinstance(record, dict):
            text = f"{path}:{number}: found {line[:40]!r}, expected an object"
            problems.append(Problem(UNUSED_LINES, text))
            continue
        yield number, record


def cell_text(cell: object) -> str:
    """A cell as text; empty for JSON's null."""
    return "" if cell is None else str(cell).strip()


def span(
    start_cell: str, end_cell: str, duration_cell: str = ""
) -> tuple[float | None, float | None]:
    """Start and end in seconds, None where the cell is empty; the duration counts where there is a
    start and no end. ValueError for anything else."""
    start, end = _seconds(start_cell, "start"), _seconds(end_cell, "end")
    if start is not None and end is None and duration_cell:
        end = start + (_seconds(duration_cell, "duration") or 0.0)
    if end is not None and end <= (start or 0.0):
        raise UserError(f"end {end:g} is not after start {start or 0.0:g}")
    return start, end


def _seconds(cell: str, name: str) -> float | None:
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise UserError(f"found {name} {cell!r:.60}, expected seconds")
    return seconds
