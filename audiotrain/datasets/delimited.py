"""Rows of CSV, TSV and the like, where a broken line costs no other line.

An opening quote that never closes makes the csv module swallow all rows up to the next quote. Here
such a line alone is left out: a cell goes on to further lines only where these are no rows.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audiotrain.utils.errors import UserError
from audiotrain.utils.text import shown

DELIMITERS = ",;\t"
SAMPLE = 2000  # lines that show what the columns hold
_FILE = re.compile(r"[^\s.][^.]*\.[A-Za-z]\w{1,4}$|.*\S\.[A-Za-z]\w{1,4}$")  # x.wav
_WORD = re.compile(r"\S+$")
_CLOSING_QUOTE = re.compile(r'[^\d\s]"$')  # not of inches, as in: a record of 12"


def csv_rows(
    text: str, name: str, problems: list[str] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, stripped cells) of each row between commas, semicolons or tabs,
    whichever the first line has most of; no cells for blank lines, comments and broken lines.

    `problems` gets "name:line: text" for each broken line: a quote that never closes, or a closing
    quote that none opens. Without such a list the first one is a ValueError.
    """
    lines = [line.rstrip(" ") for line in re.split(r"\r\n|\n|\r", text)]
    first = next((line for line in lines if line.strip() and not _is_comment(line)), "")
    delimiter = max(DELIMITERS, key=first.count)
    layout = _layout(lines, delimiter, first)
    number = 0
    while number < len(lines):
        try:
            cells, size = _record(lines, number, delimiter, layout)
        except csv.Error as error:
            fault = f"{name}:{number + 1}: {error}, found {shown(lines[number].strip(), 60)}"
            if problems is None:
                raise UserError(fault) from None
            problems.append(fault)
            cells, size = [], 1
        yield number + 1, cells
        number += size


class _Layout(NamedTuple):
    """What a row looks like: how many cells it has, and which columns hold names of files, or where
    none does, single words."""

    delimiter: str
    size: int
    files: tuple[int, ...]
    words: tuple[int, ...]

    def is_row(self, line: str) -> bool:
        """Whether a line is a row of its own, and not a part of a cell in quotes."""
        cells = _loose(line, self.delimiter)
        if self.size < 2 or len(cells) < self.size:
            return False
        if self.files:
            return all(_FILE.match(cells[column]) for column in self.files)
        return len(cells) == self.size and all(_WORD.match(cells[c]) for c in self.words)


def _layout(lines: Sequence[str], delimiter: str, header: str) -> _Layout:
    size = len(_loose(header.rstrip(delimiter), delimiter))
    rows = [_loose(line, delimiter) for line in lines[:SAMPLE] if line and line != header]
    rows = [row for row in rows if len(row) == size]

    def columns(kind: re.Pattern, share: float) -> tuple[int, ...]:
        fitting = (sum(bool(kind.match(row[column])) for row in rows) for column in range(size))
        return tuple(c for c, count in enumerate(fitting) if rows and count > share * len(rows))

    return _Layout(delimiter, size, columns(_FILE, 0.5), columns(_WORD, 0.9))


def _loose(line: str, delimiter: str) -> list[str]:
    """Cells of a line by its delimiters alone, without quotes."""
    return [cell.strip().strip('"') for cell in line.split(delimiter)]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _record(
    lines: Sequence[str], number: int, delimiter: str, layout: _Layout
) -> tuple[list[str], int]:
    """The cells of the row that begins at a line, and how many lines it has. csv.Error, with what
    is wrong, for a broken line."""
    line = lines[number]
    if _is_comment(line) and not (layout.files and layout.is_row(line)):
        return [], 1
    if '"' not in line:
        return _stripped(line.split(delimiter)) if line.strip() else [], 1
    rest = (f"{lines[k]}\n" for k in range(number, len(lines)))
    reader = csv.reader(rest, delimiter=delimiter, strict=True, skipinitialspace=True)
    never_closes = csv.Error("an opening quote never closes")
    try:
        cells = next(reader)
    except csv.Error as error:
        is_end = reader.line_num > 1 or "expected after" not in str(error)
        raise never_closes if is_end else csv.Error("text after a closing quote") from None
    size = reader.line_num
    if any(layout.is_row(lines[k]) for k in range(number + 1, number + size)):
        raise never_closes
    # Cells in quotes have an even number of quotes, so that one is left of another cell.
    is_odd = sum(lines[k].count('"') for k in range(number, number + size)) % 2
    if is_odd and any(c.count('"') % 2 and _CLOSING_QUOTE.search(c) for c in _stripped(cells)):
        raise csv.Error("a closing quote that none opens")
    return _stripped(cells), size


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]
