"""Read chord annotations: .lab and .txt (also Audacity's), CSV, JAMS, McGill Billboard, JSON.

All give a `music.segments.Annotation`: labels in Harte's grammar, faults of single lines mended or
left out and in `problems` as "file:line: text". `writers.write` writes such files.
"""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from audiotrain.datasets.chords import billboard
from audiotrain.datasets.chords.writers import write
from audiotrain.datasets.tables import DURATION_COLUMNS, csv_rows
from audiotrain.music.segments import Annotation, parse_lab
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, read_text
from audiotrain.utils.text import shown

__all__ = ["READ_SUFFIXES", "read", "write"]

READ_SUFFIXES = (".lab", ".jams", ".csv", ".tsv", ".txt", ".json")
CHORD_NAMESPACES = ("chord", "chord_harte")
START_COLUMNS = ("start", "start_time", "onset", "begin", "time", "start (s)")
END_COLUMNS = ("end", "end_time", "offset", "stop", "end (s)")
LABEL_COLUMNS = ("chord", "label", "chords", "value", "harte", "chord_label")


def read(
    path: str | os.PathLike, selector: int | str | None = None, pop_spellings: bool = False
) -> Annotation:
    """Chord segments of an annotation file; its format follows from suffix and content.

    `selector` picks one of several chord annotations in a JAMS file: its position among them, or
    the name of its annotator, curator, corpus or data source; without one it is the first.
    ValueError when the file can't be read at all, or has no such annotation.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READ_SUFFIXES:
        raise UserError(f"{path}: found suffix {suffix!r}, expected {', '.join(READ_SUFFIXES)}")
    text, problems = read_text(path)
    name = str(path)
    if suffix in (".csv", ".tsv"):
        annotation = _parse_csv(text, name, pop_spellings)
    elif suffix in (".jams", ".json"):
        annotation = _parse_json(text, name, selector, pop_spellings)
    elif suffix == ".txt" and billboard.looks_like_billboard(text):
        annotation = billboard.parse(text, name, pop_spellings)
        rows = [(segment.start, segment.end, segment.label) for segment in annotation.segments]
        problems = problems + annotation.problems
        annotation = _from_rows(rows, name, pop_spellings)
    else:
        # Audacity writes the frequency range of a label on a line of its own.
        annotation = parse_lab(re.sub(r"(?m)^\\.*$", "", text), name, pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


def _from_rows(rows: Iterable[tuple | None], name: str, pop_spellings: bool) -> Annotation:
    """(start, end, label) rows through the tolerant reader; None keeps a place in the numbering."""
    lines = (
        "" if row is None else "\t".join(str(cell).replace("\n", " ") for cell in row)
        for row in rows
    )
    return parse_lab("\n".join(lines), name, pop_spellings)


def _parse_csv(text: str, name: str, pop_spellings: bool) -> Annotation:
    """Rows of start, end, chord; columns by header, else in this order."""
    rows = [cells for _, cells in csv_rows(text, name)]
    first = next((row for row in rows if any(row)), [])
    columns = _csv_columns(first, name)
    if columns is None:
        return Annotation([], [f"{name}:1: found no rows, expected start, end and chord"])
    start, end, duration, label = columns
    cells: list[tuple | None] = []
    for row in rows:
        if not any(row) or row is first and _number(row[start]) is None:
            cells.append(None)
            continue
        row = row + [""] * (max(c for c in columns if c is not None) + 1 - len(row))
        stop = row[end] if end is not None else None
        if end is None and duration is not None:
            onset, seconds = _number(row[start]), _number(row[duration])
            stop = "?" if onset is None or seconds is None else onset + seconds
        cells.append((row[start], stop, row[label]))
    problems = _close_open_ends(cells, name)
    annotation = _from_rows(cells, name, pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


def _csv_columns(first: list[str], name: str) -> tuple | None:
    """Positions of (start, end, duration, label) by header names, else by count; None if empty."""
    if not first:
        return None
    if _number(first[0]) is not None:
        if len(first) == 2:
            return 0, None, None, 1
        return 0, 1, None, min(2, len(first) - 1)
    names = [cell.lower() for cell in first]

    def find(known: tuple[str, ...]) -> int | None:
        return next((names.index(column) for column in known if column in names), None)

    start, label = find(START_COLUMNS), find(LABEL_COLUMNS)
    if start is None or label is None:
        raise UserError(
            f"{name}:1: found columns {shown(', '.join(first))}, expected start, end, chord"
        )
    return start, find(END_COLUMNS), find(DURATION_COLUMNS), label


def _close_open_ends(cells: list[tuple | None], name: str) -> list[str]:
    """Put the next start where a row has no end; the last such row is left out."""
    following = None
    problems = []
    for index in range(len(cells) - 1, -1, -1):
        row = cells[index]
        if row is None:
            continue
        if row[1] is None:
            cells[index] = None if following is None else (row[0], following, row[2])
            if following is None and row[2] not in ("N", ""):
                problems.append(f"{name}:{index + 1}: the last chord {row[2]!r:.60} has no end")
        following = row[0]
    return problems


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parse_json(
    text: str, name: str, selector: int | str | None, pop_spellings: bool
) -> Annotation:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{name}: not JSON: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _parse_jams(content["annotations"], name, selector, pop_spellings)
    if isinstance(content, dict) and isinstance(content.get("segments"), list):
        rows = [
            (row.get("start"), row.get("end"), row.get("label"))
            if isinstance(row, dict)
            else (row,)
            for row in content["segments"]
        ]
        return _from_rows(rows, name, pop_spellings)
    raise UserError(f"{name}: found no 'annotations' (JAMS) and no 'segments' (ours)")


def _parse_jams(
    annotations: list, name: str, selector: int | str | None, pop_spellings: bool
) -> Annotation:
    """One chord annotation of a JAMS file; the line in its problems is the observation, from 1."""
    chords = [
        annotation
        for annotation in annotations
        if isinstance(annotation, dict) and annotation.get("namespace") in CHORD_NAMESPACES
    ]
    if not chords:
        raise UserError(f"{name}: found no annotation of namespace {' or '.join(CHORD_NAMESPACES)}")
    data = _select(chords, name, selector).get("data") or []
    if isinstance(data, dict):  # dense: one list a field
        names = ("time", "duration", "value")
        fields = [data.get(field) for field in names]
        columns = zip(*(one if isinstance(one, list) else [] for one in fields), strict=False)
        data = [dict(zip(names, row, strict=True)) for row in columns]
    if not isinstance(data, list):
        raise UserError(f"{name}: found data {str(data)[:40]!r}, expected observations")
    rows: list[tuple] = []
    for row in data:
        try:
            rows.append((row["time"], row["time"] + row["duration"], row["value"]))
        except (TypeError, KeyError, OverflowError):
            rows.append((json.dumps(row),))
    return _from_rows(rows, name, pop_spellings)


def _select(chords: list[dict], name: str, selector: int | str | None) -> dict:
    if isinstance(selector, str) and not re.fullmatch(r"\d+", selector):
        matching = [each for each in chords if selector.casefold() in _jams_names(each)]
        if not matching:
            known = sorted(set().union(*map(_jams_names, chords)))
            raise UserError(
                f"{name}: found no chord annotation by {selector!r}, expected 0 to "
                f"{len(chords) - 1} or one of {', '.join(map(repr, known)) or 'no names'}"
            )
        return matching[0]
    index = int(selector or 0)
    if not 0 <= index < len(chords):
        raise UserError(
            f"{name}: found {len(chords)} chord annotations, expected one numbered {index} (from 0)"
        )
    return chords[index]


def _jams_names(annotation: dict) -> set[str]:
    """What an annotation can be called, in small letters."""
    metadata = annotation.get("annotation_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    people = [metadata.get("annotator") or {}, metadata.get("curator") or {}]
    names = [person.get("name") for person in people if isinstance(person, dict)]
    names += [metadata.get("corpus"), metadata.get("data_source"), metadata.get("annotation_tools")]
    return {name.casefold() for name in names if isinstance(name, str) and name}
