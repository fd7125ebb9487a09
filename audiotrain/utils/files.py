"""Files that appear whole or not at all, whatever happens while they are written; JSON and CSV."""

import contextlib
import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from audiotrain.utils.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A new empty file beside `path`, with its suffix, which takes its place at the block's end.

    After an error inside the block, an OSError of the file system included, `path` is as it was.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "settings.json") as partial:
    ...     _ = partial.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['settings.json']
    """
    path = Path(path)
    start = path.stem[:40]  # of a name that may be as long as the file system takes
    handle, name = tempfile.mkstemp(path.suffix, f".{start}.partial-", path.parent)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path`, into a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from None


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to `path`, making its folder. ValueError, one line, when the
    file system refuses."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_text(path: Path) -> tuple[str, list[str]]:
    """Text of a file in UTF-8, UTF-16 with a mark, or Latin-1, and a problem if it was the last.
    ValueError, one line, when it can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace"), []
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return data.decode("latin-1"), [f"{path}:1: not UTF-8, read as Latin-1"]


def finite_or_none(value):
    """The same plain data with NaN and infinities as None, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, data) -> None:
    """Write plain data to `path` as JSON, atomically; NaN and infinities become null."""
    write(path, json.dumps(finite_or_none(data), indent=1) + "\n")


def parse_json(text: str) -> Any:
    """Return the content of JSON text. UserError for anything else, too deep a nesting among it.

    >>> parse_json("[1, 2]")
    [1, 2]
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError("lists or objects nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, or a number of thousands of digits
        raise UserError(str(error)) from None


def read_json_object(path: Path, place: str | None = None) -> dict:
    """Return the keys and values of a JSON file. UserError, which begins with `place` (default: the
    path), when it cannot be read or holds anything else."""
    place = place or str(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{place}: cannot be read: {error.strerror}") from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{place}: found {str(content)[:40]!r}, expected a JSON object")
    return content


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """ValueError when a file for `--output` exists and may not be replaced, or cannot be
    written."""
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder, expected a file")
    if path.exists() and not overwrite:
        raise UserError(f"--output {path}: exists already; --overwrite replaces it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"--output {path}: {above} is a file, expected a folder")
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise UserError(f"--output {path}: cannot write: {error.strerror}") from None
