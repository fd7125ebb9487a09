"""What the decoders share: bytes of a file or a tar member, errors, what is missing, sources.

Times are seconds, positions are samples at the source's own rate.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.utils.errors import UserError

LOUDEST = 1e12  # of a sample; 1 is full scale, and files of whole numbers as floats reach 2e9
READ_SECONDS = 30  # audio in a block, but not more than
READ_SAMPLES = 2**22  # samples of all channels
SHORTEST_MISSING = 0.01  # seconds; less is the rounding of timestamps
LEAST_SHARE = 0.49  # of what a file holds; a file that was cut at half is read


class AudioError(UserError):
    """A file that cannot be read as audio; one line that names it."""


class AudioWarning(UserWarning):
    """A file of which a part cannot be decoded; one line that names it."""


class TarMember(NamedTuple):
    """A file inside a tar that is not compressed, read where it lies: `size` bytes at `offset`."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"

    def read(self) -> bytes:
        """Its content. AudioError when the tar is gone or ends before."""
        with Part.of(self) as part:
            return part.read()


AudioPath = str | Path | TarMember


class Missing(NamedTuple):
    """What cannot be decoded of a file, in seconds: `holes` in it, where silence stands in, the
    first of them at `first`, and a `tail`, which is left out."""

    holes: float = 0.0
    first: float = 0.0
    tail: float = 0.0

    @property
    def seconds(self) -> float:
        """All that is missing."""
        return self.holes + self.tail

    def __str__(self) -> str:
        holes = f"{_short(self.holes)} at {_short(self.first)}"
        tail = f"{_short(self.tail)} at the end"
        if self.holes and self.tail:
            return f"{holes} (silence instead) and {tail} (left out) can't be decoded"
        if self.holes:
            return f"{holes} can't be decoded, silence instead"
        return f"{tail} can't be decoded, left out"


def as_error(text: str) -> str:
    """The text of a Missing where the file is refused for it."""
    return text.removesuffix(", left out").removesuffix(", silence instead")


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 0.1 else f"{seconds:.1f} s"


class Part(io.RawIOBase):
    """`size` bytes of a file from `offset` on, as a file; both decoders read it."""

    def __init__(self, file: Path, offset: int, size: int):
        self._file = open(file, "rb", buffering=0)
        self.path, self.offset, self.size = file, offset, size
        self._position = 0

    @classmethod
    def of(cls, path: AudioPath) -> "Part":
        """The bytes of a file or of a tar member. AudioError when there are none."""
        inside = isinstance(path, TarMember)
        file = Path(path.tar if isinstance(path, TarMember) else path)
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise AudioError(f"{ascii(str(path))}: the name is not in UTF-8: rename it") from None
        try:
            if file.is_dir() or not file.exists():
                kind = "is a folder, expected" if file.is_dir() else "no such"
                reason = "can't be read: No such file or directory" if inside else ""
                raise AudioError(f"{path}: {reason or f'{kind} audio file'}")
            whole = file.stat().st_size
            offset, size = path[2:] if isinstance(path, TarMember) else (0, whole)
            if size == 0:
                raise AudioError(f"{path}: the file is empty (0 bytes)")
            if offset + size > whole:
                present = max(0, whole - offset)
                raise AudioError(f"{path}: cut short: {present} of {size} bytes")
            return cls(file, offset, size)
        except OSError as error:
            raise AudioError(f"{path}: can't be read: {error.strerror}") from None

    def part(self, offset: int, size: int) -> "Part":
        """A piece of these bytes, which is open on its own."""
        return Part(self.path, self.offset + offset, size)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; the position stays."""
        before = self._position
        self.seek(max(0, offset))
        data = self.read(size)
        self.seek(before)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), max(0, self.size - self._position))
        if not wanted:
            return 0  # also at a position that no file can have
        self._file.seek(self.offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:wanted])
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = min(max(0, base + offset), self.size)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()


class Source:
    """An open recording; its blocks are read once."""

    path: AudioPath
    rate: int
    channels: int
    missing = Missing()  # complete after the last block

    def length(self) -> int:
        """Samples of the recording, silence in the place of holes included."""
        raise NotImplementedError

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """Mono blocks of `count` (None: all) samples from `first` on."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def mono(self, first: int, count: int | None) -> np.ndarray:
        """The samples of `blocks` as one array."""
        pieces = list(self.blocks(first, count))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def refuse_samples(self, samples: np.ndarray, first: int) -> None:
        """AudioError for samples (samples, channels) of which one is NaN, Inf or above LOUDEST;
        `first` is the position of the first."""
        for bad, kind in (
            (~np.isfinite(samples).all(axis=1), "NaN or Inf samples"),
            ((np.abs(samples) > LOUDEST).any(axis=1), f"samples above {LOUDEST:g}"),
        ):
            if bad.any():
                second = (first + int(bad.argmax())) / self.rate
                raise AudioError(f"{self.path}: {bad.sum()} {kind}, the first at {second:.3f} s")


def refuse_half(path: AudioPath, decoded: float, missing: Missing) -> None:
    """AudioError for a recording of which less than half can be decoded; `decoded` seconds are the
    length without holes and tail."""
    held = decoded + missing.seconds
    if decoded < LEAST_SHARE * held:
        raise AudioError(
            f"{path}: damaged or cut short: {decoded:.3f} s of {held:.3f} s can be decoded, less "
            "than half"
        )


def reason(error: Exception) -> str:
    """The message of a library's error on one line, without the path that it repeats."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
