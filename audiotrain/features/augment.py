"""Random changes of features, labels and audio that leave the task the same; NumPy, for workers.

Functions take an np.random.Generator where they are random, and return a new array. Features are
(frames, bins) in dB or another log scale; audio is mono (samples,); levels are dB.
"""

from typing import TypeVar

import numpy as np
from scipy import fft

from audiotrain.music import chord_classes

Decibels = TypeVar("Decibels", float, np.ndarray)

# ---- features


def transpose_bins(
    features: np.ndarray, semitones: int, bins_per_semitone: int, margin: int
) -> np.ndarray:
    """Constant-Q features (frames, bins + 2 * margin) moved up by `semitones`: (frames, bins).

    The window is cut from features with `margin` bins at both ends, so nothing wraps around.
    ValueError when the margin is too small.

    >>> transpose_bins(np.arange(6.0)[None], semitones=1, bins_per_semitone=2, margin=2)
    array([[0., 1.]])
    """
    shift = semitones * bins_per_semitone
    bins = features.shape[-1] - 2 * margin
    if bins <= 0 or abs(shift) > margin:
        raise ValueError(
            f"cannot transpose {features.shape[-1]} bins by {semitones} semitones: "
            f"it takes {abs(shift)} margin bins at both ends, expected at most {margin}"
        )
    return features[..., margin - shift : margin - shift + bins]


def transpose(
    features: np.ndarray,
    classes: np.ndarray,
    rng: np.random.Generator,
    lowest: int,
    highest: int,
    bins_per_semitone: int,
    margin: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Features and class triples (frames, 3) moved by lowest..highest semitones, both included.

    Features are (frames, bins + 2 * margin) before and (frames, bins) after, see `transpose_bins`.
    ValueError when the margin is too small.
    """
    semitones = int(rng.integers(lowest, highest + 1))
    moved = transpose_bins(features, semitones, bins_per_semitone, margin)
    return moved, chord_classes.transpose(classes, semitones)


def gain(features: np.ndarray, rng: np.random.Generator, decibels: float) -> np.ndarray:
    """Features in dB, louder or softer by up to `decibels`, the same for all."""
    return features + np.float32(rng.uniform(-decibels, decibels))


def noise(features: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Features with normal noise of standard deviation up to `deviation`, in their own unit."""
    scale = np.float32(rng.uniform(0, deviation))
    return features + scale * rng.standard_normal(features.shape, np.float32)


def tilt(features: np.ndarray, rng: np.random.Generator, decibels: float) -> np.ndarray:
    """Features in dB with a random EQ: a line from end to end and a bump, up to `decibels` each."""
    bins = features.shape[-1]
    position = np.linspace(-1, 1, bins)
    line = rng.uniform(-decibels, decibels) * position
    centre, width = rng.uniform(-1, 1), rng.uniform(0.1, 0.5)
    bump = rng.uniform(-decibels, decibels) * np.exp(-0.5 * ((position - centre) / width) ** 2)
    return features + (line + bump).astype(np.float32)


def roll(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (frames, bins) turned around in time: the end of what is cut off follows its start."""
    return np.roll(features, int(rng.integers(len(features))), axis=0)


def shift(features: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """Features (frames, bins) up to `most` bins higher or lower; the bin at the edge is repeated.

    On mels that is nearly another pitch.
    """
    return shifted(features, int(rng.integers(-most, most + 1)))


def shifted(features: np.ndarray, up: int) -> np.ndarray:
    """Features (frames, bins) `up` bins higher; the bin at the edge is repeated.

    >>> shifted(np.array([[1, 2, 3]]), 1).tolist()
    [[1, 1, 2]]
    """
    bins = np.clip(np.arange(features.shape[-1]) - up, 0, features.shape[-1] - 1)
    return features[..., bins]


def blend(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Two sounds at once, of their features in dB (of power): their powers are added."""
    nepers = np.float32(np.log(10) / 10)
    return np.logaddexp(features * nepers, others * nepers) / nepers


def mask(
    features: np.ndarray,
    rng: np.random.Generator,
    time_masks: int = 2,
    time_width: int = 20,
    frequency_masks: int = 2,
    frequency_width: int = 12,
    value: float | None = None,
) -> np.ndarray:
    """SpecAugment (Park et al. 2019): bands of frames and of bins set to `value`, or to the mean.

    Widths are the largest, in frames and bins; a mask leaves at least half of its axis.
    """
    masked = features.copy()
    fill = features.mean() if value is None else value
    frames, bins = features.shape
    for _ in range(time_masks):
        start, stop = _band(rng, frames, time_width)
        masked[start:stop] = fill
    for _ in range(frequency_masks):
        start, stop = _band(rng, bins, frequency_width)
        masked[:, start:stop] = fill
    return masked


def _band(rng: np.random.Generator, length: int, widest: int) -> tuple[int, int]:
    width = int(rng.integers(0, min(widest, length // 2) + 1))
    start = int(rng.integers(0, length - width + 1))
    return start, start + width


# ---- audio


def saturate(audio: np.ndarray, rng: np.random.Generator, drive_decibels: float) -> np.ndarray:
    """Audio through a soft clipper driven by up to `drive_decibels`, at its old RMS level."""
    level = rms(audio)
    if level == 0:
        return audio.copy()
    drive = decibels_to_ratio(rng.uniform(0, drive_decibels)) / (4 * level)
    driven = np.tanh(drive * audio)
    return (driven * (level / rms(driven))).astype(np.float32)


def add_noise(
    audio: np.ndarray, rng: np.random.Generator, lowest_snr: float, highest_snr: float
) -> np.ndarray:
    """Audio with white to brown noise at a signal-to-noise ratio between the two, in dB."""
    size = fft.next_fast_len(len(audio), real=True)
    spectrum = fft.rfft(rng.standard_normal(size, np.float32))
    colour = rng.uniform(0, 1)  # 0 white, 0.5 pink, 1 brown
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** -colour
    hiss = fft.irfft(spectrum, size)[: len(audio)]
    level = rms(hiss)
    if level == 0:
        return audio.copy()
    wanted = rms(audio) / decibels_to_ratio(rng.uniform(lowest_snr, highest_snr))
    return (audio + hiss * (wanted / level)).astype(np.float32)


def equalise(audio: np.ndarray, rng: np.random.Generator, rate: int, decibels: float) -> np.ndarray:
    """Audio through a smooth random EQ between 50 Hz and 8 kHz, up to `decibels` either way."""
    corners = np.log2(np.geomspace(50, 8000, 5))
    gains = rng.uniform(-decibels, decibels, len(corners))
    size = fft.next_fast_len(len(audio) + rate // 10, real=True)  # the end must not wrap around
    frequencies = np.log2(np.maximum(fft.rfftfreq(size, 1 / rate), 1.0))
    response = decibels_to_ratio(np.interp(frequencies, corners, gains)).astype(np.float32)
    return fft.irfft(fft.rfft(audio, size) * response, size)[: len(audio)].astype(np.float32)


def reverberate(
    audio: np.ndarray,
    rng: np.random.Generator,
    rate: int,
    longest_seconds: float = 0.5,
    loudest_decibels: float = -6.0,
) -> np.ndarray:
    """Audio with the tail of a small room: noise that decays by 60 dB within `longest_seconds`.

    The tail is 20 dB to no dB softer than `loudest_decibels` relative to the audio.
    """
    seconds = rng.uniform(0.1, 1.0) * longest_seconds
    time = np.arange(max(1, round(seconds * rate))) / rate
    tail = rng.standard_normal(len(time)) * 10.0 ** (-3 * time / seconds)
    tail *= decibels_to_ratio(loudest_decibels + rng.uniform(-20, 0)) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = fft.next_fast_len(len(audio) + len(tail), real=True)
    wet = fft.irfft(fft.rfft(audio, size) * fft.rfft(tail.astype(np.float32), size), size)
    return wet[: len(audio)].astype(np.float32)


def rms(audio: np.ndarray) -> float:
    """Root of the mean square of the samples; 0 for none."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if len(audio) else 0.0


def decibels_to_ratio(decibels: Decibels) -> Decibels:
    """Ratio of amplitudes.

    >>> decibels_to_ratio(20.0)
    10.0
    """
    return 10.0 ** (decibels / 20.0)
