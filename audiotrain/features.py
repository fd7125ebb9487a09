"""Constant-Q and log-mel features in MLX, equal to librosa 0.11.

Frame i is centred at i * hop / rate seconds and there are 1 + samples // hop frames. The CQT is
Schoerkhuber and Klapuri (SMC 2010): a matrix of wavelets an octave, then half the rate, and so on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import soxr

from audiotrain import audio as audio_files

C1 = 32.70319566257483  # Hz
HANN_BANDWIDTH = 1.5  # equivalent noise bandwidth of the Hann window, in bins


@dataclass(frozen=True)
class CQTSettings:
    """What a constant-Q transform is made of; rates and frequencies in Hz, hop in samples."""

    rate: int = 22050
    hop: int = 2048
    bins: int = 144
    bins_per_octave: int = 24
    fmin: float = C1


@dataclass(frozen=True)
class LogMelSettings:
    """What a log-mel spectrogram is made of; rates and frequencies in Hz, n_fft and hop in samples.

    `slaney_norm` divides every filter by its width. `top_db` (dB) clips below the maximum of each
    example, None clips at `floor_power` only. `pad_mode` is "constant" or "reflect".
    """

    rate: int = 22050
    n_fft: int = 2048
    hop: int = 512
    mels: int = 128
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    slaney_norm: bool = True
    floor_power: float = 1e-10
    top_db: float | None = None
    pad_mode: str = "constant"


Settings = CQTSettings | LogMelSettings


def frame_count(samples: int, hop: int) -> int:
    """Number of centred frames of `samples` samples."""
    return 1 + samples // hop


# ------------------------------------------------------------------ strided correlation


class _Correlation:
    """Inner products of a kernel with the centred frames of a signal, without copying frames.

    `kernel` (window, outputs). Rows of neighbouring frames share one Toeplitz matrix, cut along
    time into blocks of one row step: a sum of matrix products on views of the signal.
    """

    def __init__(self, kernel: np.ndarray, hop: int, least_step: int = 128):
        self.window, self.outputs = kernel.shape
        self.hop = hop
        self.group = max(1, -(-least_step // hop))  # frames in a row
        self.step = self.group * hop  # samples from row to row
        blocks = -(-(self.window + self.step - hop) // self.step)
        toeplitz = np.zeros((blocks * self.step, self.group, self.outputs), np.float32)
        for frame in range(self.group):
            toeplitz[frame * hop : frame * hop + self.window, frame] = kernel
        self.blocks = [mx.array(block) for block in toeplitz.reshape(blocks, self.step, -1)]
        mx.eval(self.blocks)

    def __call__(self, signal: mx.array, first: int, stop: int) -> mx.array:
        """(batch, samples) -> (batch, stop - first, outputs) of those frames; zeros around."""
        batch = len(signal)
        mixed = len(self.blocks) - 1  # last rows of an example, which run into the next one
        width = (-(-(stop - first) // self.group) + mixed) * self.step
        start = first * self.hop - self.window // 2
        inside = signal[:, max(0, start) : max(0, start + width)]
        lead = min(width, max(0, -start))
        padded = mx.pad(inside, ((0, 0), (lead, width - lead - inside.shape[1])))
        pieces = padded.reshape(-1, self.step)
        used = len(pieces) - mixed
        total = pieces[:used] @ self.blocks[0]
        for j, block in enumerate(self.blocks[1:], start=1):
            total = mx.addmm(total, pieces[j : j + used], block)
        if batch > 1:
            total = mx.pad(total, ((0, mixed), (0, 0)))
        return total.reshape(batch, -1, self.outputs)[:, : stop - first]


# ------------------------------------------------------------------ constant-Q transform


class _Octave(NamedTuple):
    """The wavelets of one octave: at rate / 2**level, every `hop` samples."""

    level: int
    hop: int
    kernel: np.ndarray  # (window, 2 * bins): cosine columns, then sine columns


def _frequencies(settings: CQTSettings) -> np.ndarray:
    return settings.fmin * 2.0 ** (np.arange(settings.bins) / settings.bins_per_octave)


def _quality(settings: CQTSettings) -> float:
    """Centre frequency over bandwidth, the same for all bins."""
    squared = 2.0 ** (2.0 / settings.bins_per_octave)
    return (squared + 1) / (squared - 1)


def _cutoff(settings: CQTSettings) -> float:
    """The frequency in Hz where the highest wavelet ends."""
    return _frequencies(settings)[-1] * (1 + 0.5 * HANN_BANDWIDTH / _quality(settings))


def _wavelets(frequencies: np.ndarray, rate: float, quality: float) -> np.ndarray:
    """librosa's wavelets as it applies them: a sparse spectrum of length n_fft (a power of two).

    Gives the matrix (n_fft, 2 * bins) which maps a frame to real and imaginary parts.
    """
    lengths = quality * rate / frequencies
    n_fft = int(2.0 ** np.ceil(np.log2(lengths.max())))
    wavelets = np.zeros((len(frequencies), n_fft), complex)
    for row, length, frequency in zip(wavelets, lengths, frequencies, strict=True):
        time = np.arange(-length // 2, length // 2, dtype=float)
        size = len(time)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        start = (n_fft - size) // 2
        row[start : start + size] = np.exp(2j * np.pi * frequency / rate * time) * hann / hann.sum()
    wavelets *= lengths[:, None] / n_fft
    spectrum = _without_smallest(np.fft.fft(wavelets)[:, : n_fft // 2 + 1], share=0.01)
    # frame -> rfft -> spectrum @ rfft is linear: do the transform on the spectrum instead.
    full = np.zeros((len(frequencies), n_fft), complex)
    full[:, : n_fft // 2 + 1] = spectrum
    kernel = np.fft.fft(full).T
    return np.concatenate([kernel.real, kernel.imag], axis=1)


def _without_smallest(spectrum: np.ndarray, share: float) -> np.ndarray:
    """Rows (bins, frequencies) with their smallest magnitudes zeroed, up to `share` of the sum."""
    magnitudes = np.abs(spectrum)
    ordered = np.sort(magnitudes, axis=1)
    cumulative = np.cumsum(ordered / magnitudes.sum(axis=1, keepdims=True), axis=1)
    first_kept = np.argmin(cumulative < share, axis=1)
    threshold = np.take_along_axis(ordered, first_kept[:, None], axis=1)
    return np.where(magnitudes >= threshold, spectrum, 0)


def _octaves(settings: CQTSettings) -> list[_Octave]:
    """The plan of the transform from the top octave down, with librosa's scaling folded in."""
    rate, hop = float(settings.rate), settings.hop
    frequencies, quality = _frequencies(settings), _quality(settings)
    cutoff = _cutoff(settings)
    if cutoff > rate / 2:
        raise ValueError(
            f"bins={settings.bins} reach {cutoff:.0f} Hz, "
            f"expected at most rate / 2 = {rate / 2:.0f} Hz"
        )
    count = math.ceil(settings.bins / settings.bins_per_octave)
    twos = (hop & -hop).bit_length() - 1
    spare_octaves = max(0, math.ceil(math.log2(rate / 2 / cutoff)) - 2)
    level = min(spare_octaves, max(0, twos - count + 1))
    gain = 2.0 ** (level / 2)
    rate, hop = rate / 2**level, hop >> level
    lengths = quality * rate / frequencies  # at the rate of the top octave
    octaves, stop = [], settings.bins
    for _ in range(count):
        start = max(0, stop - settings.bins_per_octave)
        kernel = _wavelets(frequencies[start:stop], rate, quality)
        scale = gain / np.sqrt(lengths[start:stop])
        octaves.append(_Octave(level, hop, kernel * np.tile(scale, 2)))
        stop = start
        if hop % 2 == 0:
            # librosa scales basis and signal by sqrt(2) each time that the rate is halved
            level, hop, rate, gain = level + 1, hop // 2, rate / 2, gain * 2
    return octaves


class _Decimation:
    """Lowers the rate by a power of two with the filter that librosa uses, by overlapping FFTs.

    A shorter filter is twice as fast, but the bins of a recording that starts or ends abruptly then
    differ from librosa's by up to 6 dB at 60 dB below its maximum.
    """

    def __init__(self, factor: int):
        self.factor = factor
        self.reach = 96 * factor  # samples on either side that an output depends on
        self.size = 4096 * factor  # samples of an FFT
        taps = np.roll(_soxr_response(factor, self.size), -self.size // 2)
        response = np.fft.rfft(taps).real[: 4096 // 2 + 1] / factor
        # once for the real and once for the imaginary part, up to the new Nyquist
        self.gain = mx.array(np.repeat(response, 2).astype(np.float32))
        mx.eval(self.gain)

    def __call__(self, signal: mx.array) -> mx.array:
        """(batch, samples) -> (batch, samples / factor, rounded up); zeros around the signal."""
        batch, samples = signal.shape
        size, reach, factor = self.size, self.reach, self.factor
        hop = size - 2 * reach
        pieces = -(-samples // hop)
        width = pieces * hop + 2 * reach
        padded = mx.contiguous(mx.pad(signal, ((0, 0), (reach, width - samples - reach))))
        framed = mx.as_strided(padded, (batch, pieces, size), (width, hop, 1))
        spectrum = mx.fft.rfft(framed).view(mx.float32)[..., : len(self.gain)] * self.gain
        lowered = mx.fft.irfft(spectrum.view(mx.complex64), size // factor)
        inside = lowered[..., reach // factor : (size - reach) // factor]
        return inside.reshape(batch, -1)[:, : -(-samples // factor)]


def _soxr_response(factor: int, size: int) -> np.ndarray:
    """Impulse response (size,) of soxr's HQ filter for `factor` to 1, centred at size // 2."""
    impulses = np.zeros((size, factor))
    delays = np.arange(factor)
    impulses[size // 2 + delays, delays] = 1
    # output j to the impulse at size // 2 + delay is the tap at factor * j - delay
    answers = soxr.resample(impulses, factor, 1, "HQ").astype(float)
    taps = np.zeros(size + factor)
    for delay, answer in zip(delays, answers.T, strict=True):
        taps[factor - delay : factor - delay + size : factor] = answer
    return taps[factor:]


class CQT:
    """Constant-Q magnitudes: np.abs(librosa.cqt(...)) for a batch of waveforms.

    Called with (batch, samples) float32 at `settings.rate`, it gives (batch, frames, bins); it can
    be used inside mx.compile.

    >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> magnitudes = CQT(CQTSettings())(mx.array(tone)[None])
    >>> magnitudes.shape
    (1, 11, 144)
    >>> int(magnitudes[0, 5].argmax())  # A4 is 45 semitones above C1
    90
    """

    def __init__(self, settings: CQTSettings):
        self.settings = settings
        # (decimation before it or None, correlation) of each octave, from the top down
        self._octaves: list[tuple[_Decimation | None, _Correlation]] = []
        halve, level = _Decimation(2), 0
        for octave in _octaves(settings):
            factor = 2 ** (octave.level - level)
            decimation = halve if factor == 2 else _Decimation(factor) if factor > 1 else None
            self._octaves.append((decimation, _Correlation(octave.kernel, octave.hop)))
            level = octave.level

    def __call__(self, audio: mx.array) -> mx.array:
        return self.frames(audio, 0, frame_count(audio.shape[1], self.settings.hop))

    def frames(self, audio: mx.array, first: int, stop: int) -> mx.array:
        """Frames first..stop only: (batch, stop - first, bins)."""
        magnitudes = []
        for decimation, correlation in self._octaves:
            if decimation:
                audio = decimation(audio)
            parts = mx.square(correlation(audio, first, stop))
            bins = parts.shape[-1] // 2
            magnitudes.append(mx.sqrt(parts[..., :bins] + parts[..., bins:]))
        return mx.concatenate(magnitudes[::-1], axis=-1)

    @property
    def context(self) -> int:
        """Samples on either side of a frame's centre that can change it."""
        filters, rate, furthest = 0, 1, 0
        for decimation, correlation in self._octaves:
            if decimation:
                filters += decimation.reach * rate
                rate *= decimation.factor
            furthest = max(furthest, filters + correlation.window // 2 * rate)
        return furthest


# ------------------------------------------------------------------ log-mel


def _mel_to_hz(mel: np.ndarray, htk: bool) -> np.ndarray:
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    linear, log_step = 200.0 / 3, math.log(6.4) / 27  # Slaney: linear below 1 kHz = 15 mel
    return np.where(mel < 15, linear * mel, 1000.0 * np.exp(log_step * (mel - 15)))


def _hz_to_mel(hertz: float, htk: bool) -> float:
    if htk:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def mel_filters(settings: LogMelSettings) -> np.ndarray:
    """Triangular filters (1 + n_fft // 2, mels) on a power spectrum."""
    top = settings.rate / 2 if settings.fmax is None else settings.fmax
    if not 0 <= settings.fmin < top <= settings.rate / 2:
        raise ValueError(
            f"fmin={settings.fmin} and fmax={top} Hz, "
            f"expected 0 <= fmin < fmax <= {settings.rate / 2}"
        )
    low, high = (_hz_to_mel(hertz, settings.htk) for hertz in (settings.fmin, top))
    corners = _mel_to_hz(np.linspace(low, high, settings.mels + 2), settings.htk)
    bins = np.fft.rfftfreq(settings.n_fft, 1 / settings.rate)[:, None]
    rising = (bins - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - bins) / np.diff(corners)[1:]
    filters = np.maximum(0, np.minimum(rising, falling))
    if settings.slaney_norm:
        filters *= 2.0 / (corners[2:] - corners[:-2])
    return filters


class LogMel:
    """Log-mel spectrogram in dB, as librosa's melspectrogram and power_to_db(ref=1).

    Called with (batch, samples) float32 at `settings.rate`, it gives (batch, frames, mels).
    """

    def __init__(self, settings: LogMelSettings):
        self.settings = settings
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(settings.n_fft) / settings.n_fft)
        self._window = mx.array(window.astype(np.float32))
        self._filters = mx.array(mel_filters(settings).astype(np.float32))
        mx.eval(self._window, self._filters)

    def __call__(self, audio: mx.array) -> mx.array:
        return self.frames(audio, 0, frame_count(audio.shape[1], self.settings.hop))

    def frames(self, audio: mx.array, first: int, stop: int) -> mx.array:
        """Frames first..stop only: (batch, stop - first, mels)."""
        settings = self.settings
        padded = mx.contiguous(_padded(audio, settings.n_fft // 2, settings.pad_mode))
        batch, samples = padded.shape
        windows = mx.as_strided(
            padded,
            (batch, stop - first, settings.n_fft),
            (samples, settings.hop, 1),
            offset=first * settings.hop,
        )
        spectrum = mx.fft.rfft(windows * self._window)
        power = (mx.square(spectrum.real) + mx.square(spectrum.imag)) @ self._filters
        decibels = 10.0 * mx.log10(mx.maximum(power, settings.floor_power))
        if settings.top_db is None:
            return decibels
        return mx.maximum(decibels, decibels.max(axis=(1, 2), keepdims=True) - settings.top_db)

    @property
    def context(self) -> int:
        """Samples on either side of a frame's centre that can change it."""
        return self.settings.n_fft // 2


def _padded(audio: mx.array, width: int, mode: str) -> mx.array:
    """(batch, samples) with `width` samples more on both sides."""
    if mode == "constant":
        return mx.pad(audio, ((0, 0), (width, width)))
    if mode != "reflect":
        raise ValueError(f"pad_mode={mode!r}, expected 'constant' or 'reflect'")
    samples = audio.shape[1]
    if samples <= width:
        raise ValueError(
            f"{samples} samples cannot be reflected by {width}, expected more than that"
        )
    left, right = audio[:, 1 : width + 1][:, ::-1], audio[:, samples - width - 1 : -1][:, ::-1]
    return mx.concatenate([left, audio, right], axis=1)


# ------------------------------------------------------------------ whole files


@lru_cache(maxsize=8)
def front_end(settings: Settings) -> CQT | LogMel:
    """The transform of `settings`, built once."""
    return CQT(settings) if isinstance(settings, CQTSettings) else LogMel(settings)


def extract(
    audio: str | Path | np.ndarray, settings: Settings, block_seconds: float = 20.0
) -> np.ndarray:
    """Features (frames, bins) float32 of a file or of mono samples (samples,) at settings.rate.

    Works in blocks of about `block_seconds`: memory besides the result does not depend on the
    length. Frames equal those of the whole file at once. AudioError as from audio.read.
    """
    return np.concatenate(list(feature_blocks(audio, settings, block_seconds)))


def feature_blocks(
    audio: str | Path | np.ndarray, settings: Settings, block_seconds: float = 20.0
) -> Iterator[np.ndarray]:
    """The features of `extract` as consecutive blocks (frames, bins)."""
    if getattr(settings, "top_db", None) is not None:
        raise ValueError("top_db depends on the whole recording: extract needs top_db=None")
    transform, hop = front_end(settings), settings.hop
    margin = -(-transform.context // hop)  # frames
    size = max(1, round(block_seconds * settings.rate / hop))  # frames
    if isinstance(audio, np.ndarray):
        slabs = _slabs_of_array(audio, hop, size, margin)
    else:
        pieces = audio_files.stream(audio, settings.rate, size * hop / settings.rate)
        slabs = _slabs_of_stream(pieces, hop, size, margin)
    for slab, first, stop in slabs:
        yield np.array(transform.frames(mx.array(slab)[None], first, stop)[0])


def _slabs_of_array(
    audio: np.ndarray, hop: int, size: int, margin: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Samples with `margin` frames around each `size` frames, and which frames of them count."""
    audio = np.asarray(audio, np.float32)
    frames = frame_count(len(audio), hop)
    for first in range(0, frames, size):
        begin, stop = max(0, first - margin), min(frames, first + size)
        slab = audio[begin * hop : (stop + margin) * hop if stop < frames else None]
        yield slab, first - begin, stop - begin


def _slabs_of_stream(
    pieces: Iterator[np.ndarray], hop: int, size: int, margin: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """`_slabs_of_array` for pieces of `size` * hop samples, the last one shorter."""
    room = np.empty((size + 3 * margin + 1) * hop, np.float32)  # one buffer for the whole file
    held, done = 0, 0  # samples in `room`, frames at its start that are done
    for piece in pieces:
        room[held : held + len(piece)] = piece
        held += len(piece)
        ready = held // hop - margin  # frames whose whole context has arrived
        if ready > done:
            yield room[: (ready + margin) * hop], done, ready
            drop = max(0, ready - margin)
            room[: held - drop * hop] = room[drop * hop : held]
            held, done = held - drop * hop, ready - drop
    yield room[:held], done, frame_count(held, hop)
