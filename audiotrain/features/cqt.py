"""Constant-Q transform in MLX, equal to librosa 0.11.

Schoerkhuber and Klapuri (SMC 2010): a matrix of wavelets for the top octave, then half the rate,
and so on. Frame i is centred at i * hop / rate seconds; there are 1 + samples // hop frames.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import soxr

from audiotrain.utils.errors import UserError

C1 = 32.70319566257483  # Hz
HANN_BANDWIDTH = 1.5  # equivalent noise bandwidth of the Hann window, in bins


@dataclass(frozen=True)
class CQTSettings:
    """Parameters of a constant-Q transform; rates and frequencies in Hz, hop in samples."""

    rate: int = 22050
    hop: int = 2048
    bins: int = 144
    bins_per_octave: int = 24
    fmin: float = C1


def frame_count(samples: int, hop: int) -> int:
    """Number of centred frames of `samples` samples."""
    return 1 + samples // hop


class CQT:
    """Constant-Q magnitudes: np.abs(librosa.cqt(...)) for a batch of waveforms.

    Called with (batch, samples) float32 at `settings.rate`, it gives (batch, frames, bins); it can
    be used inside mx.compile. ValueError for settings that are not above 0, and for bins that reach
    beyond rate / 2.

    >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> magnitudes = CQT(CQTSettings())(mx.array(tone)[None])
    >>> magnitudes.shape
    (1, 11, 144)
    >>> int(magnitudes[0, 5].argmax())  # A4 is 45 semitones above C1
    90
    """

    block_seconds = 80.0  # of audio at a time in `extract`: less repeats more at the edges

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
        zeros, parts = 4096, []  # on either side, more than windows and filters mostly reach
        signal = _Signal(mx.pad(audio, [(0, 0), (zeros, zeros)]), zeros, audio.shape[1])
        for decimation, correlation in self._octaves:
            if decimation:
                signal = decimation(signal)
            parts.append(correlation(signal, first, stop))
        squared = mx.square(mx.concatenate(parts[::-1], axis=-1))
        return mx.sqrt(squared[..., ::2] + squared[..., 1::2])

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


# ---- the plan: octaves and their wavelets


class _Octave(NamedTuple):
    """The wavelets of one octave: at rate / 2**level, every `hop` samples."""

    level: int
    hop: int
    kernel: np.ndarray  # (window, 2 * bins): columns for real and imaginary parts in turn


def _wavelets(frequencies: np.ndarray, rate: float, quality: float) -> np.ndarray:
    """librosa's wavelets as it applies them: a sparse spectrum of length n_fft (a power of two).

    Gives the matrix (n_fft, 2 * bins) which maps a frame to each bin's real and imaginary part.
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
    return np.ascontiguousarray(np.fft.fft(full).T).view(float)


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
    for name in ("rate", "hop", "bins", "bins_per_octave", "fmin"):
        if getattr(settings, name) <= 0:
            raise UserError(f"{name}={getattr(settings, name)}, expected more than 0")
    rate, hop = float(settings.rate), settings.hop
    frequencies = settings.fmin * 2.0 ** (np.arange(settings.bins) / settings.bins_per_octave)
    squared = 2.0 ** (2.0 / settings.bins_per_octave)
    quality = (squared + 1) / (squared - 1)  # centre frequency over bandwidth of every bin
    cutoff = frequencies[-1] * (1 + 0.5 * HANN_BANDWIDTH / quality)  # where the highest one ends
    if cutoff > rate / 2:
        raise UserError(
            f"bins={settings.bins} reach {cutoff:.0f} Hz, "
            f"expected at most rate / 2 = {rate / 2:.0f} Hz"
        )
    count = math.ceil(settings.bins / settings.bins_per_octave)
    twos = (hop & -hop).bit_length() - 1
    empty_octaves = max(0, math.ceil(math.log2(rate / 2 / cutoff)) - 2)
    level = min(empty_octaves, max(0, twos - count + 1))
    gain = 2.0 ** (level / 2)
    rate, hop = rate / 2**level, hop >> level
    lengths = quality * rate / frequencies  # at the rate of the top octave
    octaves, stop = [], settings.bins
    for _ in range(count):
        start = max(0, stop - settings.bins_per_octave)
        kernel = _wavelets(frequencies[start:stop], rate, quality)
        scale = gain / np.sqrt(lengths[start:stop])
        octaves.append(_Octave(level, hop, kernel * np.repeat(scale, 2)))
        stop = start
        if hop % 2 == 0:
            # librosa scales basis and signal by sqrt(2) each time that the rate is halved
            level, hop, rate, gain = level + 1, hop // 2, rate / 2, gain * 2
    return octaves


# ---- the arithmetic


class _Signal(NamedTuple):
    """A batch of waveforms of `samples` among zeros: they begin at `lead` of `padded`.

    With zeros enough for whoever reads it, it is copied once and not by each of them.
    """

    padded: mx.array  # (batch, lead + samples + zeros after them)
    lead: int
    samples: int

    def rows(self, start: int, count: int, size: int, step: int) -> mx.array:
        """Views (batch, count, size) of the samples from `start`, from `start` + step, ..."""
        batch, width = self.padded.shape
        before = max(0, -start - self.lead)
        after = max(0, start + (count - 1) * step + size - (width - self.lead))
        if before or after:  # where a waveform is short
            padded = mx.pad(self.padded, [(0, 0), (before, after)])
            longer = _Signal(padded, self.lead + before, self.samples)
            return longer.rows(start, count, size, step)
        strides, offset = (width, step, 1), self.lead + start
        return mx.as_strided(self.padded, (batch, count, size), strides, offset)


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
        toeplitz = toeplitz.reshape(blocks, self.step, -1)
        if blocks == 1:
            toeplitz = toeplitz[:, : self.window + self.step - hop]
        self.blocks = [mx.array(block) for block in toeplitz]
        mx.eval(self.blocks)

    def __call__(self, signal: _Signal, first: int, stop: int) -> mx.array:
        """(batch, stop - first, outputs) of those frames."""
        batch, mixed = len(signal.padded), len(self.blocks) - 1
        rows = -(-(stop - first) // self.group)
        start = first * self.hop - self.window // 2
        # with the `mixed` last rows of an example, which run into the next one: all are one matrix
        pieces = signal.rows(start, rows + mixed, self.step, self.step).reshape(-1, self.step)
        used = len(pieces) - mixed
        total = pieces[:used, : len(self.blocks[0])] @ self.blocks[0]
        for number, block in enumerate(self.blocks[1:], start=1):
            total = mx.addmm(total, pieces[number : number + used], block)
        if batch > 1:
            total = mx.pad(total, [(0, mixed), (0, 0)])
        return total.reshape(batch, -1, self.outputs)[:, : stop - first]


class _Decimation:
    """Lowers the rate by a power of two with the filter that librosa uses, by overlapping FFTs.

    A shorter filter is twice as fast, but the bins of a recording that starts or ends abruptly then
    differ from librosa's by up to 6 dB at 60 dB below its maximum.
    """

    at_once = 4  # pieces: MLX on a CPU transforms four in the time of one

    def __init__(self, factor: int):
        self.factor = factor
        self.reach = 96 * factor  # samples on either side that an output depends on
        self.size = 2048 * factor  # samples of an FFT
        taps = np.roll(_soxr_response(factor, self.size), -self.size // 2)
        response = np.fft.rfft(taps).real[: self.size // factor // 2 + 1] / factor
        # once for the real and once for the imaginary part, up to the new Nyquist
        self.gain = mx.array(np.repeat(response, 2).astype(np.float32))
        mx.eval(self.gain)

    def __call__(self, signal: _Signal) -> _Signal:
        """The signal of samples / factor, rounded up."""
        size, reach, factor = self.size, self.reach, self.factor
        samples = -(-signal.samples // factor)
        most = (size - 2 * reach) // factor  # samples that one piece gives
        even = self.at_once // math.gcd(self.at_once, len(signal.padded))
        pieces = -(-samples // (most * even)) * even
        each = -(-samples // pieces)
        framed = signal.rows(-reach, pieces, size, each * factor)
        spectrum = mx.fft.rfft(framed).view(mx.float32)[..., : len(self.gain)] * self.gain
        lowered = mx.fft.irfft(spectrum.view(mx.complex64), size // factor)
        inside = lowered[..., reach // factor : reach // factor + each]
        padded = mx.pad(inside, [(0, 0), (1, 1), (0, 0)]).reshape(len(inside), -1)
        if samples < pieces * each:  # librosa keeps nothing that rings after the end
            padded[:, each + samples : each + pieces * each] = 0
        return _Signal(padded, each, samples)


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
