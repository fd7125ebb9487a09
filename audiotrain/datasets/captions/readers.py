"""Captions out of files: .txt (one a line), .json, and tables (CSV, TSV, JSON lines).

A table needs a column for the audio and one for the caption or the class. It may have several
caption columns (caption_1, caption_2), start and end (seconds of the recording), split and group.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets import tables
from audiotrain.datasets.chords.readers import read_text

SIDECAR_SUFFIXES = (".txt", ".json")
CAPTION_KEYS = ("caption", "captions", "text", "texts")
CAPTION_COLUMNS = (
    "caption", "captions", "text", "texts", "description", "sentence", "transcription",
)  # fmt: skip
CLASS_COLUMNS = ("label", "class", "category", "class_name", "class_label")
AUDIO_COLUMNS = (*tables.AUDIO_COLUMNS, "wav", "wav_path", "audio_filename", "filepath", "fname")
GROUP_COLUMNS = (
    "group", "source", "source_id", "source_url", "recording", "recording_id", "freesound_id",
    "src_file", "sound_id", "youtube_id", "ytid", "song", "song_id", "track", "track_id",
)  # fmt: skip


class Row(NamedTuple):
    """One line of a table: `start` and `end` in seconds, `label` the class, `columns` the rest."""

    line: int
    audio: str
    captions: tuple[str, ...]
    label: str
    start: float | None
    end: float | None
    split: str
    group: str
    columns: dict[str, str]


def text_captions(text: str) -> tuple[str, ...]:
    """The captions of a .txt file: its lines that hold something."""
    return _distinct(text.splitlines())


def json_captions(text: str) -> tuple[str, ...]:
    """The captions of a .json file: a text or a list of texts under one of CAPTION_KEYS.

    ValueError, without the file's name, when there are none.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"found {text.strip()[:40]!r}, expected an object")
    key = tables.find_column(content, CAPTION_KEYS)
    if key is None:
        raise ValueError(f"found no {', '.join(CAPTION_KEYS)}")
    return _cell_captions(content[key])


def read_captions(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """The captions of a .txt or .json file and what was wrong. ValueError when there are none."""
    text, problems = read_text(path)
    try:
        captions = (json_captions if path.suffix.lower() == ".json" else text_captions)(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not captions:
        raise ValueError(f"{path}: found no caption")
    return captions, problems


def lacking_columns(path: Path) -> str:
    """What a table has in place of a column for audio and one for captions or classes; nothing
    where its first row names both."""
    columns = tables.first_record(path)
    expected = []
    if tables.find_column(columns, AUDIO_COLUMNS) is None:
        expected.append(f"one for audio ({', '.join(AUDIO_COLUMNS)})")
    if not caption_columns(columns) and not tables.find_column(columns, CLASS_COLUMNS):
        names = ", ".join((*CAPTION_COLUMNS, *CLASS_COLUMNS))
        expected.append(f"one for captions or classes ({names})")
    found = f"columns {', '.join(columns):.200}" if columns else "no rows"
    return f"found {found}, expected {' and '.join(expected)}" if expected else ""


def caption_columns(columns: Iterable[str]) -> list[str]:
    """All columns of captions, numbered ones (`caption_1`, `caption 2`, `caption3`) included; the
    first known name alone where columns have several."""
    names = [(re.sub(r"[ _-]?\d+$", "", name.strip().lower()), name) for name in columns]
    first = next((known for known in CAPTION_COLUMNS if known in dict(names)), None)
    return [name for plain, name in names if plain == first]


def read_table(path: Path, group_column: str | None = None) -> tuple[list[Row], list[str]]:
    """Rows of a table, and what was wrong in it ("file:line: text"); such lines are left out.

    `group_column` names the column whose equal values must stay in one split; without it, one of
    GROUP_COLUMNS if there is any. ValueError when there is no such column.
    """
    rows: list[Row] = []
    problems: list[str] = []
    found = list(tables.records(path, problems))
    names = list(dict.fromkeys(name for _, record in found for name in record))
    tables.check_group_column(path, names, group_column)
    of_captions = caption_columns(names)
    places = {
        "audio": tables.find_column(names, AUDIO_COLUMNS),
        "label": tables.find_column(names, CLASS_COLUMNS),
        "start": tables.find_column(names, tables.START_COLUMNS),
        "end": tables.find_column(names, tables.END_COLUMNS),
        "split": tables.find_column(names, tables.SPLIT_COLUMNS),
        "group": group_column or tables.find_column(names, GROUP_COLUMNS),
    }
    used = {*of_captions, *places.values()}
    for line, record in found:
        texts = {name: tables.cell_text(cell).strip() for name, cell in record.items()}
        cells = {key: texts.get(name, "") if name else "" for key, name in places.items()}
        try:
            start, end = tables.span(cells["start"], cells["end"])
            captions = _distinct(
                caption for name in of_captions for caption in _cell_captions(record.get(name))
            )
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
            continue
        if not cells["audio"] or not (captions or cells["label"]):
            missing = "caption" if cells["audio"] else "audio"
            problems.append(f"{path}:{line}: found no {missing}")
            continue
        others = {name: text for name, text in texts.items() if name not in used}
        rows.append(
            Row(line, cells["audio"], captions, cells["label"], start, end,
                cells["split"], cells["group"], others)
        )  # fmt: skip
    return rows, problems


def _cell_captions(cell: object) -> tuple[str, ...]:
    cells = cell if isinstance(cell, list) else [cell]
    if wrong := [one for one in cells if one is not None and not isinstance(one, str)]:
        raise ValueError(f"found caption {str(wrong[0])[:40]!r}, expected text")
    return _distinct(one for one in cells if one)


def _distinct(lines: Iterable[str]) -> tuple[str, ...]:
    """Texts on one line each, without empty ones and repetitions."""
    return tuple(dict.fromkeys(text for line in lines if (text := " ".join(line.split()))))
