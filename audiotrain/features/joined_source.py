"""The links of a chained Ogg file as one recording, at the rate of the first one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import soxr

from audiotrain.features.sources import AudioError, AudioPath, Missing, Part, Source, refuse_half


class JoinedSource(Source):
    """Parts of a file that begin at `links` bytes, each read by the source that `opened` gives."""

    def __init__(
        self,
        path: AudioPath,
        part: Part,
        links: Sequence[int],
        opened: Callable[[AudioPath, Part], Source],
    ):
        self.path, self._part, self._opened = path, part, opened
        self._bounds = list(pairwise([*links, part.size]))
        for number in range(len(self._bounds)):
            with contextlib.suppress(AudioError), self._link(number) as link:
                self.rate, self.channels = link.rate, link.channels
                return
        raise AudioError(f"{path}: not readable as audio: no link of the chain is")

    @contextlib.contextmanager
    def _link(self, number: int) -> Iterator[Source]:
        first, last = self._bounds[number]
        with self._part.part(first, last - first) as part:
            with contextlib.closing(self._opened(self.path, part)) as source:
                yield source

    def close(self) -> None:
        pass

    def length(self) -> int:
        total = _Total(self)
        for number in range(len(self._bounds)):
            with total.counted(number), self._link(number) as link:
                total.add(link, round(link.length() * self.rate / link.rate))
        total.finish()
        return total.samples

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        to_rate, total, position = ToRate(self.rate), _Total(self), 0
        stop = None if count is None else first + count
        for number in range(len(self._bounds)):
            with total.counted(number), self._link(number) as link:
                begin = position
                for block in link.blocks():
                    piece = to_rate(block, link.rate)
                    yield from _inside(piece, position, first, stop)
                    position += len(piece)
                    if stop is not None and position >= stop:
                        return
                total.add(link, position - begin)
        yield from _inside(to_rate.flush(), position, first, stop)
        total.finish()


class _Total:
    """What the links of a chain have together."""

    def __init__(self, source: JoinedSource):
        self._source, self.samples = source, 0
        self._holes = self._first = self._tails = 0.0  # seconds
        self._read = self._lost = 0  # bytes of links that can be read, and of others

    @contextlib.contextmanager
    def counted(self, number: int) -> Iterator[None]:
        """Count the bytes of a link, which may raise AudioError inside the block."""
        first, last = self._source._bounds[number]
        try:
            yield
            self._read += last - first
        except AudioError:
            self._lost += last - first

    def add(self, link: Source, samples: int) -> None:
        """Add a link that was read."""
        if link.missing.holes and not self._holes:
            self._first = self.samples / self._source.rate + link.missing.first
        self._holes += link.missing.holes
        self._tails += link.missing.tail
        self.samples += samples

    def finish(self) -> None:
        """Set what is missing. AudioError when it is more than half."""
        source, seconds = self._source, self.samples / self._source.rate
        tail = self._tails + self._lost / max(1, self._read) * seconds
        source.missing = Missing(self._holes, self._first, tail)
        refuse_half(source.path, seconds - self._holes, source.missing)


def _inside(piece: np.ndarray, position: int, first: int, stop: int | None) -> Iterator[np.ndarray]:
    """What of samples at `position` is in first..stop."""
    inside = piece[max(0, first - position) : None if stop is None else max(0, stop - position)]
    if len(inside):
        yield inside


class ToRate:
    """Mono samples of any rates as one signal of one rate."""

    def __init__(self, rate: int):
        self._rate = rate
        self._other: int | None = None
        self._resampler: Any = None

    def __call__(self, mono: np.ndarray, rate: int) -> np.ndarray:
        """The samples that are ready after those of `mono`."""
        if rate == self._rate and self._other is None:
            return mono
        before = self.flush() if rate != self._other else mono[:0]
        if rate == self._rate:
            return np.concatenate([before, mono])
        if self._resampler is None:
            self._other = rate
            self._resampler = soxr.ResampleStream(rate, self._rate, 1, "float32", "HQ")
        return np.concatenate([before, self._resampler.resample_chunk(mono)])

    def flush(self) -> np.ndarray:
        """The last samples of another rate."""
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        self._other = self._resampler = None
        return rest
