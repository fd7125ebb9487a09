"""Features on disk: one .npy an entry, found by content and settings, memory-mapped.

The name of an entry is a hash of the source's bytes, of the settings and of VERSION, so a changed
file, a changed setting or a changed transform never reads an old entry.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiotrain.utils.errors import UserError

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"

VERSION = 2  # raise it when a transform's numbers change for the same settings

OPEN_FILES = (1 << 20, 1 << 16, 10240)  # tried one after the other where there is no hard limit
_PARTIAL = ".partial-"  # followed by the process that writes it
_PARTIAL_SECONDS = 3600  # one of another machine that is older than this was left by a dead process


class FeatureCache:
    """Arrays under `folder` as `dtype`, made once and then read from disk.

    >>> import tempfile
    >>> cache = FeatureCache(tempfile.mkdtemp())
    >>> cache.get("ones", {"hop": 512}, lambda: np.ones((2, 3))).sum()
    np.float32(6.0)
    >>> cache.get("ones", {"hop": 512}, make=None).shape  # now it is there
    (2, 3)
    """

    def __init__(self, folder: str | Path, dtype: type = np.float32):
        self.folder = Path(folder)
        self.dtype = np.dtype(dtype)
        self._digests: dict[tuple, str] = {}
        self._checked: set[tuple] = set()
        _allow_open_files()
        with _reported(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.remove_partial()

    def get(
        self, source: Path | bytes | str, settings: object, make: Callable[[], np.ndarray] | None
    ) -> np.ndarray:
        """The entry of `source` and `settings`, read-only; `make()` gives it when it is missing.
        KeyError when it is and `make` is None.

        A Path stands for the bytes of that file; bytes or a str for themselves, e.g. a seed.
        `settings` are dataclasses, numbers, texts, or dicts and sequences of them. An entry that is
        cut short or damaged is made again. ValueError when the source cannot be read, the folder
        cannot be written or values do not fit `dtype`.
        """
        path = self.folder / f"{self._key(source, settings)}.npy"
        entry = self._load(path)
        if entry is None:
            if make is None:
                raise KeyError(f"{path}: no such entry")
            self._store(path, make(), source)
            entry = self._load(path)
            if entry is None:
                raise UserError(f"{path}: the entry changed while it was read")
        return entry

    def text(self, source: Path | bytes | str, settings: object, make: Callable[[], str]) -> str:
        """The text kept for `source` and `settings`, as an entry of its own, see `get`."""

        def encoded() -> np.ndarray:
            return np.frombuffer(make().encode() + b"\n", np.uint8)

        entry = self.get(source, {"text": settings}, encoded)
        return entry.astype(np.uint8).tobytes().decode().strip()

    def remove_partial(self) -> None:
        """Remove entries that processes were writing when they were killed."""
        for path in self.folder.glob(f"{_PARTIAL}*"):
            writer, _, host = path.name.removeprefix(_PARTIAL).partition("@")
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - path.stat().st_mtime > _PARTIAL_SECONDS
                if old or (host.startswith(f"{_HOST}-") and not _is_alive(int(writer))):
                    path.unlink()

    def holds(self, source: Path | bytes | str, settings: object) -> bool:
        """Whether there is a sound entry. ValueError when the source cannot be read."""
        return self._load(self.folder / f"{self._key(source, settings)}.npy") is not None

    def _key(self, source: Path | bytes | str, settings: object) -> str:
        described = json.dumps([VERSION, self.dtype.str, _plain(settings)], sort_keys=True)
        content = self._digest(source) + described
        return hashlib.blake2b(content.encode(), digest_size=20).hexdigest()

    def _digest(self, source: Path | bytes | str) -> str:
        if not isinstance(source, Path):
            data = source.encode() if isinstance(source, str) else source
            return hashlib.blake2b(data).hexdigest()
        try:
            stat = source.stat()
            stamp = (os.fspath(source), stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if stamp not in self._digests:  # each file is read once by a process
                with source.open("rb") as file:
                    self._digests[stamp] = hashlib.file_digest(file, "blake2b").hexdigest()
            return self._digests[stamp]
        except OSError as error:
            raise UserError(f"{source}: can't be read: {error.strerror}") from None

    def _load(self, path: Path) -> np.ndarray | None:
        """The entry memory-mapped; None when it is missing, cut short or damaged."""
        try:
            stat = path.stat()
            stamp = (path.name, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if stamp not in self._checked:  # each entry is read through once by a process
                data = path.read_bytes()
                if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
                    return None
                self._checked.add(stamp)
            return np.load(path, mmap_mode="r")
        except (FileNotFoundError, EOFError, ValueError):
            return None

    def _store(self, path: Path, values: np.ndarray, source: object) -> None:
        """Write the entry and its checksum beside `path`, then rename it."""
        values = np.asarray(values)
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, self.dtype)
        if not np.isfinite(stored).all():
            largest = np.abs(values).max()
            raise UserError(f"{source}: features up to {largest:g} do not fit {self.dtype.name}")
        with _reported(self.folder):
            handle, partial = tempfile.mkstemp("", f"{_PARTIAL}{os.getpid()}@{_HOST}-", self.folder)
            try:
                with os.fdopen(handle, "wb+") as file:
                    np.lib.format.write_array(file, stored, allow_pickle=False)
                    file.seek(0)
                    file.write(zlib.crc32(file.read()).to_bytes(4, "little"))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)
                raise


def _allow_open_files() -> None:
    """As many open files as the system lets a process have: each entry in use is one, and macOS
    starts with 256."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, *OPEN_FILES):
        if wanted == resource.RLIM_INFINITY or soft == resource.RLIM_INFINITY or wanted <= soft:
            continue
        with contextlib.suppress(OSError, ValueError):  # macOS refuses what its kernel has not
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _plain(value: object) -> object:
    """Settings as JSON can say them, with the names of their classes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return [type(value).__name__, _plain(fields)]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise UserError(f"cannot key a cache by a {type(value).__name__}: {value!r}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def _reported(folder: Path):
    """Turn a failure of the file system into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cache folder {folder}: {error.strerror or error}") from error
