"""Read chord annotations: .lab and .txt (also Audacity's), CSV, JAMS, McGill Billboard, JSON.

All give a `music.segments.Annotation`: labels in Harte's grammar, faults of single lines mended or
left out and in `problems` as "file:line: text". `writers.write` writes such files.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets.chords import billboard
from audiotrain.datasets.chords.writers import write
from audiotrain.datasets.delimited import csv_rows
from audiotrain.datasets.tables import DURATION_COLUMNS
from audiotrain.music.segments import Annotation, parse_lab, parse_time, split_unit
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, read_text
from audiotrain.utils.text import shown

__all__ = ["READ_SUFFIXES", "read", "write"]

READ_SUFFIXES = (".lab", ".jams", ".csv", ".tsv", ".txt", ".json")
CHORD_NAMESPACES = ("chord", "chord_harte")
# Names of columns without their unit, see `music.segments.split_unit`; the first of them is read.
START_COLUMNS = (
    *(
        "start",
        "start_time",
        "onset",
        "onset_time",
        "begin",
        "begin_time",
        "time",
        "timestamp",
        "t",
    ),
    *("time_start", "t0", "start_seconds"),
)
END_COLUMNS = ("end", "end_time", "offset", "offset_time", "stop", "stop_time", "time_end", "t1")
LABEL_COLUMNS = (
    "chord",
    "label",
    "chords",
    "value",
    "harte",
    "chord_label",
    "chord_name",
    "labels",
)


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
        "" if row is None else "\t".join(re.sub(r"[\t\r\n]+", " ", str(cell)) for cell in row)
        for row in rows
    )
    return parse_lab("\n".join(lines), name, pop_spellings)


def _parse_csv(text: str, name: str, pop_spellings: bool) -> Annotation:
    """Rows of start, end, chord; columns by header, else as in a label file. Sonic Annotator puts
    the audio file before them."""
    problems: list[str] = []
    rows = list(csv_rows(text, name, problems))
    first = next((row for _, row in rows if any(row)), [])
    if not first:
        return Annotation(
            [], [*problems, f"{name}:1: found no rows, expected start, end and chord"]
        )
    has_header = not any(parse_time(cell) is not None for cell in first[:2])
    columns = _csv_columns(first, name) if has_header else None
    lines: list[tuple | None] = []
    for number, row in rows:
        lines += [None] * (number - 1 - len(lines))  # one place for each line of the file
        if not any(row) or (has_header and row is first):
            lines.append(None)
        elif columns is None:
            is_named = (
                len(row) > 2 and parse_time(row[0]) is None and parse_time(row[1]) is not None
            )
            lines.append(tuple(row[1:] if is_named else row))
        elif any(row[len(first) :]):
            lines.append(None)
            found = f"found {len(row)} cells, expected {len(first)}"
            problems.append(f"{name}:{number}: {found}; a label with delimiters goes in quotes")
        else:
            lines.append(columns.line([*row, *[""] * (len(first) - len(row))]))
    annotation = _from_rows(lines, name, pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


class _Column(NamedTuple):
    """Position of a column and the seconds of its unit."""

    place: int
    unit: float


class _Columns(NamedTuple):
    """The columns of a table of labels; a time without `end` and `duration` lasts to the next."""

    start: _Column
    end: _Column | None
    duration: _Column | None
    label: int

    def line(self, row: Sequence[str]) -> tuple:
        """Start, end where there is one, and label of a row; other text where it has no times."""

        def seconds(column: _Column) -> float | None:
            number = parse_time(row[column.place])
            return None if number is None else number * column.unit

        start, label = seconds(self.start), row[self.label]
        times = [start]
        if self.end is not None:
            times.append(seconds(self.end))
        elif self.duration is not None:
            length = seconds(self.duration)
            times.append(None if start is None or length is None else start + length)
        if None in times or not label:
            return (" ".join(filter(None, row)),)
        return (*times, label)


def _csv_columns(first: Sequence[str], name: str) -> _Columns:
    """The columns that a header names. UserError where it names no start or no label."""
    named = [split_unit(cell) for cell in first]

    def find(known: Sequence[str]) -> _Column | None:
        indexes = {column: index for index, (column, _) in reversed(list(enumerate(named)))}
        index = next((indexes[column] for column in known if column in indexes), None)
        return None if index is None else _Column(index, named[index][1])

    start, label = find(START_COLUMNS), find(LABEL_COLUMNS)
    if start is None or label is None:
        found = shown(", ".join(first))
        if start is None and {"bar", "beat", "measure"} & {column for column, _ in named}:
            found += ", places in bars without times"
        raise UserError(f"{name}:1: found columns {found}, expected start, end, chord")
    return _Columns(start, find(END_COLUMNS), find(DURATION_COLUMNS), label.place)


def _parse_json(
    text: str, name: str, selector: int | str | None, pop_spellings: bool
) -> Annotation:
    try:
        content = parse_json(text)
    except UserError as error:
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
    problems = []
    if selector is None and len(chords) > 1:
        found = [", ".join(sorted(_jams_names(each))) or "no name" for each in chords]
        listing = shown("; ".join(f"{k}: {each}" for k, each in enumerate(found)), 120)
        problems.append(
            f"{name}:1: found {len(chords)} chord annotations ({listing}), used the first; "
            "selector names another"
        )
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
    annotation = _from_rows(rows, name, pop_spellings)
    return Annotation(annotation.segments, problems + annotation.problems)


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
