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
        return sum(len(block) for block in self.blocks())

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        to_rate, position, read, lost = ToRate(self.rate), 0, 0, 0
        stop = None if count is None else first + count
        holes = start = tail = 0.0
        for number, (begin, end) in enumerate(self._bounds):
            try:
                with self._link(number) as link:
                    link_start = position / self.rate
                    for block in link.blocks():
                        piece = to_rate(block, link.rate)
                        yield from _inside(piece, position, first, stop)
                        position += len(piece)
                    if not holes and link.missing.holes:
                        start = link_start + link.missing.first
                    holes, tail = holes + link.missing.holes, tail + link.missing.tail
                read += end - begin
            except AudioError:
                lost += end - begin
            if stop is not None and position >= stop:
                return
        yield from _inside(to_rate.flush(), position, first, stop)
        tail += lost / max(1, read) * position / self.rate
        self.missing = Missing(holes, start, tail)
        refuse_half(self.path, position / self.rate - holes, self.missing)


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
