"""Captions out of files: .txt (one a line), .json, and tables (CSV, TSV, JSON lines).

A table needs a column for the audio and one for the caption or the class. It may have several
caption columns (caption_1, caption_2), start and end (seconds of the recording), split and group.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from audiotrain.datasets import tables
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, read_text
from audiotrain.utils.text import shown

SIDECAR_SUFFIXES = (".txt", ".json")
CAPTION_KEYS = ("caption", "captions", "text", "texts")
CAPTION_COLUMNS = (*CAPTION_KEYS, "description", "sentence", "transcription")
CLASS_COLUMNS = ("label", "class", "category", "class_name", "class_label")
COLUMNS = {**tables.COLUMNS, "label": CLASS_COLUMNS}


def parse_captions(text: str, name: str) -> tuple[str, ...]:
    """The captions in a .json file, a text or a list of texts under one of CAPTION_KEYS, or in
    another file, one a line. ValueError, without the file's name, when there are none in JSON."""
    if not name.lower().endswith(".json"):
        return _distinct(text.splitlines())
    try:
        content = parse_json(text)
    except UserError as error:
        raise UserError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"found {text.strip()[:40]!r}, expected an object")
    key = tables.find_column(content, CAPTION_KEYS)
    if key is None:
        raise UserError(f"found no {', '.join(CAPTION_KEYS)}")
    return _cell_captions(content[key])


def read_captions(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """The captions of a .txt or .json file and its problems. ValueError when there are none."""
    text, problems = read_text(path)
    try:
        captions = parse_captions(text, path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not captions:
        raise UserError(f"{path}: found no caption")
    return captions, problems


def lacking_columns(path: Path) -> str:
    """What a table has in place of a column for audio and one for captions or classes; nothing
    where its first row names both."""
    columns, fault = tables.column_names(path)
    expected = []
    if tables.find_column(columns, COLUMNS["audio"]) is None:
        expected.append(f"one for audio ({', '.join(COLUMNS['audio'])})")
    if not caption_columns(columns) and not tables.find_column(columns, CLASS_COLUMNS):
        names = ", ".join((*CAPTION_COLUMNS, *CLASS_COLUMNS))
        expected.append(f"one for captions or classes ({names})")
    found = f"found columns {shown(', '.join(columns))}" if columns else fault or "found no rows"
    return f"{found}, expected {' and '.join(expected)}" if expected else ""


def caption_columns(columns: Iterable[str]) -> list[str]:
    """All columns of captions, numbered ones (`caption_1`, `caption 2`, `caption3`) included; the
    first known name alone where columns have several."""
    names = [(re.sub(r"[ _-]?\d+$", "", name.strip().lower()), name) for name in columns]
    first = next((known for known in CAPTION_COLUMNS if known in dict(names)), None)
    return [name for plain, name in names if plain == first]


def row_captions(row: tables.Row) -> tuple[str, ...]:
    """The captions in a row of a table. ValueError when there are none and no class."""
    cells = [row.record[name] for name in caption_columns(row.record)]
    captions = _distinct(caption for cell in cells for caption in _cell_captions(cell))
    if not captions and not row.label:
        raise UserError("found no caption")
    return captions


def _cell_captions(cell: object) -> tuple[str, ...]:
    texts: list[str] = []
    for one in cell if isinstance(cell, list) else [cell]:
        if one is not None and not isinstance(one, str):
            raise UserError(f"found caption {str(one)[:40]!r}, expected text")
        texts += [one] if one else []
    return _distinct(texts)


def _distinct(lines: Iterable[str]) -> tuple[str, ...]:
    """Texts on one line each, without empty ones and repetitions."""
    return tuple(dict.fromkeys(text for line in lines if (text := " ".join(line.split()))))
