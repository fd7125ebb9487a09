"""Predictions as a CSV with the columns and order of a competition's sample_submission.csv.

The sample's first column is the id of an item; the other ones are classes, or one label.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.utils.errors import UserError
from audiotrain.utils.files import csv_text, write
from audiotrain.utils.text import nearest

ROUNDING = 1e-6  # tolerance of a mean of probabilities beyond 0 and 1


def write_submission(
    ids: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray | Sequence,
    sample: str | os.PathLike | None,
    path: str | os.PathLike,
    top: int = 1,
    probabilities: bool = True,
    id_column: str = "id",
) -> Path:
    """Write one row an item to `path` and give it back.

    ids (items,); columns (classes,); values (items, classes) numbers, or (items,) with one column.
    With a `sample` its header, its ids and their order are the file's; without one, ids and columns
    as given, the ids under `id_column`. A sample with one column that is no class (`fname,label`)
    gets the names of the `top` most probable classes, with spaces between. `probabilities=False`
    allows numbers outside 0..1.

    ValueError, one line, for an id or a column given twice or that only one side has, values of
    another shape, a value that is no probability, a `top` beyond the classes, and a sample that
    cannot be read; nothing is written then.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "sample.csv").write_text("file,cat,dog\\nb,0,0\\na,0,0\\n")
    >>> probabilities = [[0.75, 0.25], [0.5, 0.5]]  # of dog and cat
    >>> sample, path = folder / "sample.csv", folder / "submission.csv"
    >>> written = write_submission(["a", "b"], ["dog", "cat"], probabilities, sample, path)
    >>> written.read_text().split()
    ['file,cat,dog', 'b,0.5,0.5', 'a,0.25,0.75']
    """
    ids, columns = [str(one) for one in ids], [str(one) for one in columns]
    values = _checked(ids, columns, values, probabilities)
    if sample is None:
        header, order = [id_column, *columns], ids
    else:
        header, order = read_sample(sample)
        _match_ids(ids, order, sample)
    if sample is not None and len(header) == 2 and header[1] not in columns and len(columns) > 1:
        texts = [[name] for name in _names(columns, values, top)]
    else:
        indices = _column_indices(header[1:], columns, sample)
        texts = [[_text(row[index]) for index in indices] for row in values]
    cells = dict(zip(ids, texts, strict=True))
    write(path, csv_text([header, *([one, *cells[one]] for one in order)]))
    return Path(path)


def read_sample(sample: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Header and ids of a sample_submission.csv, in its order; ValueError, one line, when it is
    no such table."""
    sample = Path(sample)
    try:
        lines = list(csv.reader(io.StringIO(sample.read_text(encoding="utf-8-sig"))))
    except OSError as error:
        raise UserError(f"{sample}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{sample}: not a CSV in UTF-8 ({error})") from None
    if not lines or len(lines[0]) < 2:
        raise UserError(f"{sample}:1: expected a header: the id's column, then one or more others")
    header, rows = lines[0], [(number, row) for number, row in enumerate(lines, 1) if row][1:]
    if twice := _twice(header):
        raise UserError(f"{sample}:1: column {twice!r} is there twice")
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(f"{sample}:{number}: {len(row)} fields, expected {len(header)}")
    if not rows:
        raise UserError(f"{sample}: no rows after the header")
    ids = [row[0] for _, row in rows]
    if twice := _twice(ids):
        raise UserError(f"{sample}: id {twice!r} is there twice")
    return header, ids


def _checked(ids, columns, values, probabilities: bool) -> np.ndarray:
    """Values (items, classes); ValueError naming the first that is not allowed."""
    values = np.asarray(values)
    if values.ndim == 1 and len(columns) == 1:
        values = values[:, None]
    if values.shape != (len(ids), len(columns)):
        raise UserError(
            f"submission: values have the shape {values.shape}, "
            f"expected {len(ids)} ids by {len(columns)} columns"
        )
    if twice := _twice(ids):
        raise UserError(f"submission: id {twice!r} is predicted twice")
    if twice := _twice(columns):
        raise UserError(f"submission: column {twice!r} is given twice")
    if values.dtype.kind in "biuf":
        good = np.isfinite(values)
        if probabilities:
            good &= (values >= -ROUNDING) & (values <= 1 + ROUNDING)
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise UserError(
                f"submission: {columns[column]} of {ids[row]!r} is {values[row, column]}, expected "
                + ("a probability, 0 to 1" if probabilities else "a finite number")
            )
        if probabilities and values.dtype.kind == "f":
            values = values.clip(0, 1)
    return values


def _match_ids(ids: list[str], order: list[str], sample: str | os.PathLike) -> None:
    known, predicted = set(order), set(ids)
    differences = {
        "without a prediction": [one for one in order if one not in predicted],
        "predicted but not in it": [one for one in ids if one not in known],
    }
    parts = [
        f"{len(some)} {name} ({', '.join(some[:3])}{', …' if len(some) > 3 else ''})"
        for name, some in differences.items()
        if some
    ]
    if parts:
        raise UserError(f"{sample}: ids: {'; '.join(parts)}")


def _column_indices(
    names: list[str], columns: list[str], sample: str | os.PathLike | None
) -> list[int]:
    """The index in `columns` of each of the file's columns; both must have the same names."""
    unknown = [name for name in names if name not in columns]
    if unknown:
        hint = nearest(unknown[0], columns)
        raise UserError(f"{sample}:1: column {unknown[0]!r} is no class of the model{hint}")
    if left := [name for name in columns if name not in names]:
        raise UserError(f"{sample}:1: no column for class {left[0]!r}{nearest(left[0], names)}")
    return [columns.index(name) for name in names]


def _names(columns: list[str], values: np.ndarray, top: int) -> list[str]:
    if not 1 <= top <= len(columns):
        raise UserError(f"submission: top is {top!r}, expected 1 to {len(columns)} classes")
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :top]
    return [" ".join(columns[index] for index in row) for row in order]


def _text(value) -> str:
    """A number by nine digits, which float32 needs; anything else as it is."""
    return f"{value:.9g}" if isinstance(value, np.floating) else str(value)


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
