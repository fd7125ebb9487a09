"""Beats and bars of a song. Times are seconds of the recording."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STILL_SECONDS = 2.0  # a bar of a song without beats
STILL_BEATS = 4
MOST_BEATS = 8  # of a bar on a chart


@dataclass(frozen=True)
class Beats:
    """Times of all beats, times of those that begin a bar, and how many beats a bar has.

    Bars may be irregular; `metre` is that of most. A song without a beat has no times.
    """

    times: Sequence[float] = ()
    downbeats: Sequence[float] = ()
    metre: int = 4

    @property
    def tempo(self) -> float | None:
        """Beats a minute, by the median of their distances; None for fewer than two."""
        return round(60 / float(np.median(np.diff(self.times))), 1) if len(self.times) > 1 else None

    @property
    def unit(self) -> int:
        """The note that is a beat: 8 for an eighth in bars of six, else 4 for a quarter."""
        return 8 if self.metre == 6 else 4

    def positions(self) -> list[int]:
        """The number of each beat in its bar, from 1; those before the first downbeat count up to
        it.

        >>> Beats([1.0, 2, 3, 4, 5], [3.0], metre=4).positions()
        [3, 4, 1, 2, 3]
        """
        downbeats = set(self.downbeats)
        first = next((n for n, time in enumerate(self.times) if time in downbeats), 0)
        position, found = (-first) % self.metre, []
        for time in self.times:
            position = 1 if time in downbeats else position + 1
            found.append(position)
        return found


NO_BEATS = Beats()


def grid(beats: Beats, seconds: float) -> tuple[list[list[float]], bool]:
    """Bars as lists of the times of their beats, over all of the recording, and whether they
    follow its beats.

    Before the first and after the last beat they go on as there. Without beats a bar is two
    seconds. Beats before the first downbeat are a bar of their own.

    >>> grid(Beats([1.0, 2, 3, 4, 5, 6], [2.0, 5], metre=3), seconds=7.2)
    ([[0.0, 1.0], [2.0, 3.0, 4.0], [5.0, 6.0, 7.0]], True)
    """
    metre = beats.metre
    if len(beats.times) < 2:
        step = STILL_SECONDS / STILL_BEATS
        times = np.arange(max(1, int(np.ceil(seconds / step)))) * step
        starts = set(range(0, len(times), STILL_BEATS))
        return _in_bars(times, starts, STILL_BEATS), False
    known = np.asarray(beats.times, float)
    first = float(np.median(np.diff(known[:9])))
    last = float(np.median(np.diff(known[-9:])))
    before = int(max(0.0, known[0] + 0.25 * first) // first)
    after = int(max(0.0, seconds - known[-1] - 0.1 * last) // last)
    times = np.concatenate(
        [
            np.maximum(0.0, known[0] - first * np.arange(before, 0, -1)),
            known,
            known[-1] + last * np.arange(1, after + 1),
        ]
    )
    starts = {int(np.abs(times - time).argmin()) for time in beats.downbeats} or {before}
    starts |= set(range(min(starts), -1, -metre))
    starts |= set(range(max(starts), len(times), metre))
    return _in_bars(times, starts, metre), True


def _in_bars(times: np.ndarray, starts: set[int], metre: int) -> list[list[float]]:
    """Times (beats,) cut where bars start; a bar of too many beats is cut again."""
    bounds = sorted(starts | {0}) + [len(times)]
    bars: list[list[float]] = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        whole = times[begin:end].tolist()
        size = metre if len(whole) > MOST_BEATS else max(1, len(whole))
        bars += [whole[at : at + size] for at in range(0, len(whole), size)]
    return bars
