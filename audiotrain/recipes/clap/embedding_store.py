"""Embeddings of recordings on disk, found by the content of the files.

One SQLite database for all models and folders, which several processes may use at once. An entry is
found by a digest of the recording's bytes, so files that were moved, renamed or touched are not
embedded again. A file is read to its end for this digest only when its size, times or inode
changed.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AudioError, TarMember, as_error
from audiotrain.recipes.clap.embedder import EmbeddedClips, Embedder, Spans
from audiotrain.recipes.common.split import none_readable
from audiotrain.utils.errors import UserError
from audiotrain.utils.progress import output
from audiotrain.utils.text import count, shown

FILE = "embeddings.sqlite"
VERSION = 2  # raise it when embeddings change for the same model and file
WRITE_SECONDS = 2.0  # what is embedded is written about as often
_WHOLE = "but for: "  # before what could not be decoded of a recording that is embedded
LOCK_SECONDS = 60.0  # to wait for another process that writes
TABLES = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, stamp TEXT, content TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    model TEXT, content TEXT, vectors BLOB, starts BLOB, ends BLOB, problem TEXT,
    PRIMARY KEY (model, content)
);
"""
Row = tuple[str, str, bytes, bytes, bytes, str | None]


class EmbeddingStore:
    """The embeddings that a model gives recordings, kept in `folder`.

    ValueError, one line, when the folder cannot be written or the database is damaged.
    """

    def __init__(self, folder: Path, embedder: Embedder):
        self.path = folder.expanduser() / FILE
        self.embedder = embedder
        self._model = f"{embedder.digest}-{VERSION}"
        with self._reported():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
            self._database.executescript(TABLES)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def embed(self, clips: Sequence[Clip], what: str, strict: bool = False) -> EmbeddedClips:
        """As Embedder.embed, for whole recordings: those with an entry are not embedded again."""
        found, problems, incomplete = self.update(clips, what, strict)
        spans = [self.spans(key) for _, key in found]
        return EmbeddedClips([clip for clip, _ in found], spans, problems, incomplete)

    def update(
        self, clips: Sequence[Clip], what: str, strict: bool = False
    ) -> tuple[list[tuple[Clip, str]], list[str], list[str]]:
        """Embed the recordings without an entry, with a progress bar titled `what`.

        Returns the clips that can be read, each with the key of its entry, a line for each of the
        others, and one for each of which a part cannot be decoded. What was embedded before an
        interruption is kept. ValueError when none can be read, or when `strict` and one cannot be
        read whole.
        """
        keys = self._keys(clips)
        new = {key: clip for clip, key in zip(clips, keys, strict=True) if isinstance(key, str)}
        with self._reported():
            new = {key: clip for key, clip in new.items() if not self._holds(key)}
        changed = self._embed_new(list(new), list(new.values()), what, strict) if new else {}
        found: list[tuple[Clip, str]] = []
        problems: list[str] = []
        incomplete: list[str] = []
        for clip, key in zip(clips, keys, strict=True):
            problem = key if isinstance(key, AudioError) else changed.get(key) or self._problem(key)
            if problem is None:
                missing = self._missing(str(key))
                line = as_error(f"{clip.audio}: {missing}")
                if missing and not strict:
                    incomplete.append(f"{clip.audio}: {missing}")
                if not missing or not strict:
                    found.append((clip, str(key)))
                    continue
                problem = AudioError(line)
            line = str(problem) if isinstance(problem, AudioError) else f"{clip.audio}: {problem}"
            if strict:
                raise AudioError(line)
            problems.append(line)
        if not found:
            raise UserError(none_readable(problems, "recordings"))
        return found, problems, incomplete

    def spans(self, key: str) -> Spans:
        """The windows of the entry `key`."""
        query = "SELECT vectors, starts, ends FROM entries WHERE model = ? AND content = ?"
        with self._reported():
            row = self._database.execute(query, (self._model, key)).fetchone()
        vectors, starts, ends = (np.frombuffer(part, np.float32) for part in row)
        return Spans(vectors.reshape(len(starts), self.embedder.width), starts, ends)

    # ---- entries

    def _holds(self, key: str) -> bool:
        """Whether there is an entry, or an error of the decoders that are installed."""
        query = "SELECT problem FROM entries WHERE model = ? AND content = ?"
        row = self._database.execute(query, (self._model, key)).fetchone()
        return row is not None and (not row[0] or row[0].startswith((_WHOLE, _decoder())))

    def _problem(self, key: str) -> str | None:
        query = "SELECT problem FROM entries WHERE model = ? AND content = ?"
        with self._reported():
            (problem,) = self._database.execute(query, (self._model, key)).fetchone()
        if problem is None or problem.startswith(_WHOLE):
            return None
        return problem.partition("\n")[2]

    def _missing(self, key: str) -> str:
        """What could not be decoded of the recording of an entry."""
        query = "SELECT problem FROM entries WHERE model = ? AND content = ?"
        with self._reported():
            (problem,) = self._database.execute(query, (self._model, key)).fetchone()
        return (problem or "").removeprefix(_WHOLE)

    def _embed_new(
        self, keys: Sequence[str], clips: Sequence[Clip], what: str, strict: bool
    ) -> dict[str, AudioError]:
        """Write entries for clips; the errors of those that get none, by key."""
        stamps = [_stamp_or_none(clip) for clip in clips]
        failed: dict[str, AudioError] = {}
        rows: list[Row] = []
        written, done = time.monotonic(), 0
        try:
            for number, result in self.embedder.spans(clips, what):
                clip, key = clips[number], keys[number]
                if stamps[number] is None or _stamp_or_none(clip) != stamps[number]:
                    failed[key] = AudioError(f"{clip.audio}: changed while it was embedded")
                elif isinstance(result, Spans):
                    vectors, starts, ends = (np.asarray(part, np.float32) for part in result[:3])
                    blobs = vectors.tobytes(), starts.tobytes(), ends.tobytes()
                    missing = _WHOLE + result.missing if result.missing else None
                    rows.append((self._model, key, *blobs, missing))
                elif strict:
                    raise result
                elif _may_pass(result):
                    failed[key] = result
                else:
                    reason = str(result).removeprefix(f"{clip.audio}: ")
                    rows.append((self._model, key, b"", b"", b"", f"{_decoder()}\n{reason}"))
                if time.monotonic() - written > WRITE_SECONDS:
                    self._write("entries", rows)
                    written = time.monotonic()
                done += 1
        except KeyboardInterrupt:
            kept = (
                f"{done} of {count(len(clips), 'recording')} are embedded, and kept for next time"
            )
            print(kept, file=sys.stderr)
            raise
        finally:
            self._write("entries", rows)
        return failed

    def _write(self, table: str, rows: list) -> None:
        """Write rows in one transaction, and empty the list."""
        if rows:
            values = ", ".join("?" * len(rows[0]))
            with self._reported(), self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(f"REPLACE INTO {table} VALUES ({values})", rows)
            rows.clear()

    # ---- content

    def _keys(self, clips: Sequence[Clip]) -> list[str | AudioError]:
        """The key of each clip: a digest of its content, and its suffix; or why it can't be read.

        Digests are kept with the stamps of the files.
        """
        keys: list[str | AudioError] = []
        rows: list[tuple[bytes, str, str]] = []
        written = time.monotonic()
        options: dict[str, Any] = {"delay": 2, "leave": False, "disable": None, "file": output()}
        bar = tqdm(clips, "comparing files", unit=" files", **options)
        query = "SELECT stamp, content FROM files WHERE path = ?"
        try:
            for clip in bar:
                path = os.fsencode(os.path.abspath(str(clip.audio)))
                with self._reported():
                    known = self._database.execute(query, (path,)).fetchone()
                try:
                    stamp = _stamp(clip)
                    if known is None or known[0] != stamp:
                        known = stamp, _digest(clip)
                        rows.append((path, *known))
                except OSError as error:
                    keys.append(AudioError(f"{clip.audio}: can't be read: {error.strerror}"))
                    continue
                except AudioError as error:
                    keys.append(error)
                    continue
                keys.append(known[1] + _suffix(clip))
                if time.monotonic() - written > WRITE_SECONDS:
                    self._write("files", rows)
                    written = time.monotonic()
        finally:
            self._write("files", rows)
        return keys

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn a failure of the file system or the database into one line that names it."""
        try:
            yield
        except OSError as error:
            raise UserError(f"cache {self.path}: {error.strerror or error}") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            is_damaged = "decode" in str(error) or not isinstance(error, sqlite3.OperationalError)
            advice = "delete it, and it is made again"
            if not is_damaged:
                advice = "--cache names another folder"
            raise UserError(f"cache {self.path}: {shown(str(error))}; {advice}") from None


def _decoder() -> str:
    """The decoders whose errors are kept."""
    sndfile = soundfile.__libsndfile_version__
    return f"libsndfile {sndfile}, av {importlib.metadata.version('av')}"


def _may_pass(error: AudioError) -> bool:
    """Whether a recording may be readable later as it is: a disk or a network can answer again."""
    return "System error" in str(error) or "can't be read:" in str(error)


def _suffix(clip: Clip) -> str:
    return PurePosixPath(str(clip.audio)).suffix.lower()


def _stamp(clip: Clip) -> str:
    """What changes when a recording's file is written or replaced. OSError when it is gone."""
    inside = clip.audio if isinstance(clip.audio, TarMember) else None
    stat = os.stat(str(clip.audio) if inside is None else inside.tar)
    numbers = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    return " ".join(map(str, numbers + ([] if inside is None else [inside.offset, inside.size])))


def _stamp_or_none(clip: Clip) -> str | None:
    with contextlib.suppress(OSError):
        return _stamp(clip)
    return None


def _digest(clip: Clip) -> str:
    """Digest of a recording's bytes. OSError or AudioError when they can't be read."""
    if isinstance(clip.audio, TarMember):
        return hashlib.blake2b(clip.audio.read(), digest_size=20).hexdigest()
    with open(str(clip.audio), "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
    return digest.hexdigest()
