"""How far a recording is from A = 440 Hz, by spectral peaks that keep their frequency.

A note's partials last; peaks of noise, drums and speech do not, or are few or lie anywhere between
the semitones. Where the peaks do not agree on a tuning, the answer is 0.
"""

import contextlib
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d

from audiotrain.features import audio as audio_files
from audiotrain.features.audio import AudioError

VERSION = 2  # raise it when tunings change
STEP = 0.05  # semitones to which a tuning is rounded, so that transforms are built for a few only
PLACES, SECONDS = 4, 5.0  # excerpts of a recording, evenly spread, and the length of each
LOW, HIGH = 100.0, 1500.0  # Hz; above, partials are further from equal temperament
WINDOW_SECONDS = 0.37  # long enough to separate semitones, and half of it is the hop
PROMINENCE = 13.0  # dB of a peak above the mean level around it
RANGE = 43.0  # dB below the strongest peak of a frame
QUIET = -40.0  # dB, the strongest peak of a frame without music; a full-scale sine has about 66
DRIFT = 0.1  # semitones, the most that a lasting peak moves in a hop
SPREAD = 0.06  # semitones, standard deviation of the kernel that finds where most peaks are
NEAR = 0.12  # semitones around the tuning, within which peaks agree with it
FEWEST_PEAKS = 25
CERTAIN = 2.5  # least number of notes times the square of the share of peaks that agree


def tuning_of(audio: str | Path | np.ndarray, rate: int) -> float:
    """Semitones, -0.5 to 0.5, by which a file or mono samples (samples,) at `rate` are above
    A = 440 Hz, rounded to STEP; 0 where it is not clear. AudioError for a file that cannot be read,
    ValueError as from audio.mono_samples."""
    peaks = [(np.zeros(0), np.zeros(0))]
    peaks += [lasting_peaks(samples, rate) for samples in excerpts(audio, rate)]
    pitches, weights = (np.concatenate(parts) for parts in zip(*peaks, strict=True))
    return round(agreed_tuning(pitches, weights) / STEP) * STEP


def excerpts(audio: str | Path | np.ndarray, rate: int) -> list[np.ndarray]:
    """Up to PLACES pieces of SECONDS of a file, or of mono samples, evenly spread; all of what is
    shorter. Pieces that cannot be read, as where a header is wrong, are left out."""
    if isinstance(audio, np.ndarray):
        audio = audio_files.mono_samples(audio)
        spans = [(round(a * rate), round(b * rate)) for a, b in _spans(len(audio) / rate)]
        return [audio[first:last] for first, last in spans]
    pieces = []
    for start, stop in _spans(audio_files.info(audio).seconds):
        with contextlib.suppress(AudioError):
            pieces.append(audio_files.read(audio, rate, start, stop - start, audio_files.ignore))
    return pieces


def _spans(seconds: float) -> list[tuple[float, float]]:
    """Start and end in seconds of the excerpts of so many seconds."""
    if seconds <= PLACES * SECONDS:
        return [(0.0, PLACES * SECONDS)]
    starts = [(seconds - SECONDS) * (place + 0.5) / PLACES for place in range(PLACES)]
    return [(start, start + SECONDS) for start in starts]


def lasting_peaks(samples: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitches (peaks,) in semitones above A = 440 Hz of the spectral peaks of mono samples that the
    next frame has, too, and their weights (peaks,): square roots of amplitudes relative to the
    frame's strongest."""
    window = 2 ** round(np.log2(WINDOW_SECONDS * rate))
    if len(samples) < window:
        return np.zeros(0), np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: window // 2]
    first, last = (round(frequency * window / rate) for frequency in (LOW, HIGH))
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1))
    levels = 20 * np.log10(spectrum[:, first - 1 : last + 2] + 1e-6)
    before, here, after = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
    strongest = here.max(axis=1, keepdims=True)
    around = uniform_filter1d(here, round(165 * window / rate), axis=1)  # mean of 165 Hz
    is_peak = (here > before) & (here >= after) & (here > around + PROMINENCE)
    is_peak &= (here > strongest - RANGE) & (strongest > QUIET)
    frame, place = np.nonzero(is_peak)
    left, middle, right = before[is_peak], here[is_peak], after[is_peak]
    # The maximum of a parabola through the three levels.
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    pitches = 12 * np.log2((first + place + shift) * rate / window / 440)
    weights = 10 ** ((middle - strongest[frame, 0]) / 40)
    lasts = _lasts(frame, pitches)
    return pitches[lasts], weights[lasts]


def _lasts(frame: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Whether the frame after a peak's has one within DRIFT; both arrays (peaks,), in order."""
    far = 1000.0  # semitones from frame to frame, so that all pitches are one ascending array
    keys, wanted = frame * far + pitches, (frame + 1) * far + pitches
    padded = np.concatenate([[-np.inf], keys, [np.inf]])
    above = np.searchsorted(keys, wanted)  # in `padded` the neighbour below has this number
    return np.minimum(wanted - padded[above], padded[above + 1] - wanted) < DRIFT


def agreed_tuning(pitches: np.ndarray, weights: np.ndarray) -> float:
    """The tuning in semitones that most of the peaks (peaks,) have; 0 where these are few, of few
    notes, or do not agree."""
    if len(pitches) < FEWEST_PEAKS:
        return 0.0
    grid = np.arange(-50, 50) / 100
    density = np.exp(-0.5 * (_deviations(pitches, grid[:, None]) / SPREAD) ** 2) @ weights
    best = grid[density.argmax()]
    deviations = _deviations(pitches, best)
    agrees = np.abs(deviations) < NEAR
    tuning = best + np.average(deviations[agrees], weights=weights[agrees])
    _, notes = np.unique(np.round(pitches[agrees] - tuning), return_inverse=True)
    by_note = np.bincount(notes, weights[agrees])
    count = by_note.sum() ** 2 / np.square(by_note).sum()  # of notes, if all had the same weight
    agreement = weights[agrees].sum() / weights.sum()
    return float(tuning) if count * agreement**2 >= CERTAIN else 0.0


def _deviations(pitches: np.ndarray, tuning: float | np.ndarray) -> np.ndarray:
    """Semitones, -0.5 to 0.5, from the nearest note of a tuning."""
    return (pitches - tuning + 0.5) % 1 - 0.5
