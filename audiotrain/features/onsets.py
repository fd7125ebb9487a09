"""Onsets of notes: onset strengths of a recording, and times moved to onsets.

The strength is the rise of a log-mel spectrogram from one step to the next, the mean over its bands
(spectral flux, as librosa.onset.onset_strength).
"""

from array import array

import numpy as np
import scipy.fft

from audiotrain.features.log_mel import LogMelSettings, MelFilters

LONGEST_STEP = 0.012  # seconds between strengths
WINDOW = 0.0464  # seconds of a window, at least
MELS, FMAX, FLOOR = 40, 6000.0, 1e-4  # bands, their end in Hz, power of the noise floor
LOW_MELS = 3  # bands of the low register
AT_ONCE = 1 << 19  # samples: memory does not grow with a recording
TIMES_AT_ONCE = 1024  # that are moved
REACH = 0.12  # seconds that a time moves at most
SIGMA = 0.084  # seconds: deviation of the bell by which nearer onsets count more
MIN_RATIO, MIN_DB = 2.0, 0.3  # of an onset: to the median, and in dB
EARLY = 0.003  # seconds that a window rises before the notes of rendered songs, their median


def step_of(rate: int, hop: int) -> float:
    """Seconds between onset strengths: the longest part of `hop` samples at `rate` Hz of at most
    LONGEST_STEP, so that the frames of a feature fall on it."""
    most = max(1, int(LONGEST_STEP * rate))
    return max(part for part in range(1, min(most, hop) + 1) if hop % part == 0) / rate


class Onsets:
    """Onset strengths of mono samples that come in pieces, every `step_of(rate, hop)` seconds.

    >>> onsets = Onsets(22050, 2048)
    >>> click = np.zeros(22050, np.float32)
    >>> click[11025] = 1
    >>> onsets.add(click)
    >>> float(np.round(onsets.strengths().argmax() * onsets.step, 2))
    0.49
    """

    def __init__(self, rate: int, hop: int):
        self.step = step_of(rate, hop)
        self._hop = round(self.step * rate)
        size = 2 * scipy.fft.next_fast_len(int(np.ceil(WINDOW * rate / 2)))
        mels = LogMelSettings(rate, size, self._hop, MELS, fmax=min(FMAX, rate / 2))
        self._filters = MelFilters(mels)
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
        self._held = np.zeros(size // 2, np.float32)  # silence before the first step's centre
        self._last: np.ndarray | None = None  # decibels of the last step, (1, MELS)
        # Rises (steps,), the mean over all bands and over the lowest; arrays grow in place.
        self._all, self._low = array("f"), array("f")

    def add(self, samples: np.ndarray) -> None:
        """The next samples (n,)."""
        for start in range(0, len(samples), AT_ONCE):
            self._add(samples[start : start + AT_ONCE])

    def _add(self, samples: np.ndarray) -> None:
        held = np.concatenate([self._held, samples])
        count = max(0, (len(held) - len(self._window)) // self._hop + 1)
        if count:
            framed = np.lib.stride_tricks.sliding_window_view(held, len(self._window))
            spectrum = scipy.fft.rfft(framed[: count * self._hop : self._hop] * self._window)
            spectrum = spectrum[:, self._filters.bins]
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            decibels = 10 * np.log10(self._filters(power) + FLOOR)
            last = decibels[:1] if self._last is None else self._last
            rise = np.maximum(np.diff(decibels, axis=0, prepend=last), 0)
            for kept, bands in ((self._all, rise), (self._low, rise[:, :LOW_MELS])):
                kept.frombytes(bands.mean(axis=1, dtype=np.float32).tobytes())
            self._last = decibels[-1:]
        self._held = held[count * self._hop :]

    def strengths(self) -> np.ndarray:
        """Strengths (1 + samples // hop,) in dB of all samples; after it nothing can be added."""
        return self._finished(self._all)

    def low_strengths(self) -> np.ndarray:
        """The same of the low register alone, up to 270 Hz."""
        return self._finished(self._low)

    def _finished(self, kept: "array[float]") -> np.ndarray:
        self._add(np.zeros(len(self._window) // 2, np.float32))
        self._held = self._held[:0]
        return np.frombuffer(kept, np.float32)


def to_onsets(times: np.ndarray, strengths: np.ndarray, step: float) -> np.ndarray:
    """Ascending times (n,) in seconds, each moved to the strongest onset near it, where nearer
    ones count more; those without a clear onset stay.

    None moves by more than REACH, nor past the middle between it and its neighbour: order stays.

    >>> to_onsets(np.array([0.49, 0.8]), np.array([0, 0, 0, 0, 9.0, 0, 0, 0, 0]), step=0.125)
    array([0.4405, 0.8   ])
    """
    if not len(times) or not len(strengths):
        return times
    middles = (times[1:] + times[:-1]) / 2
    lowest = np.maximum(times - REACH, np.concatenate([[0.0], middles]))
    end = (len(strengths) - 1) * step
    highest = np.minimum(times + REACH, np.append(middles, (times[-1] + end) / 2))
    clear = max(MIN_DB, MIN_RATIO * float(np.median(strengths)))
    parts = [slice(first, first + TIMES_AT_ONCE) for first in range(0, len(times), TIMES_AT_ONCE)]
    return np.concatenate(
        [_moved(times[p], lowest[p], highest[p], strengths, step, clear) for p in parts]
    )


def _moved(
    times: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    strengths: np.ndarray,
    step: float,
    clear: float,
) -> np.ndarray:
    """Times (n,), each moved to an onset above `clear` between its `lowest` and `highest`."""
    around = np.arange(-int(REACH / step) - 1, int(REACH / step) + 2)
    steps = np.rint(times / step).astype(int)[:, None] + around
    at = steps * step
    known = (steps >= 0) & (steps < len(strengths))
    nearby = strengths[np.clip(steps, 0, len(strengths) - 1)]
    is_clear = known & (at > lowest[:, None]) & (at < highest[:, None]) & (nearby > clear)
    bell = np.exp(-0.5 * np.square((at - times[:, None]) / SIGMA))
    weighed = np.where(is_clear, nearby * bell, 0)
    best = weighed.argmax(axis=1)
    rows = np.arange(len(times))
    chosen = np.clip(steps[rows, best], 0, len(strengths) - 1)
    # What rose up to a step rose half a step before it.
    exact = (chosen + beside(strengths, chosen) - 0.5) * step + EARLY
    exact = np.where((exact > lowest) & (exact < highest), exact, at[rows, best])
    return np.where(weighed[rows, best] > 0, exact, times)


def beside(strengths: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Steps (n,), -0.5 to 0.5, from `steps` (n,) to the peaks of parabolas through the strengths
    there and on either side; 0 where there is no peak.

    >>> beside(np.array([0, 3.0, 4, 1, 0]), np.array([2, 3]))
    array([-0.25,  0.  ])
    """
    last = len(strengths) - 1

    def values(at: np.ndarray) -> np.ndarray:
        is_inside = (at >= 0) & (at <= last)
        return np.where(is_inside, strengths[np.clip(at, 0, last)], 0).astype(np.float64)

    before, at, after = (values(steps + offset) for offset in (-1, 0, 1))
    bend = before - 2 * at + after
    peak = (at >= before) & (at >= after) & (bend < 0)
    return np.where(peak, 0.5 * (before - after) / np.where(peak, bend, 1), 0.0)
