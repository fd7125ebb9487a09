"""Log-mel spectrograms in MLX."""

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import scipy.sparse

from audiotrain.features.cqt import frame_count
from audiotrain.utils.errors import UserError


@dataclass(frozen=True)
class LogMelSettings:
    """Parameters of a log-mel spectrogram; rates and frequencies in Hz, n_fft and hop in samples.

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


class LogMel:
    """Log-mel spectrogram in dB, as librosa's melspectrogram and power_to_db(ref=1).

    Called with (batch, samples) float32 at `settings.rate`, it gives (batch, frames, mels).
    ValueError unless 0 <= fmin < fmax <= rate / 2; when called for another `pad_mode`, and with
    "reflect" for no more than n_fft / 2 samples.
    """

    block_seconds = 10.0  # of audio at a time in `extract`: more does not fit the caches

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
        raise UserError(
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


class MelFilters:
    """`mel_filters` in NumPy: few are not 0, and a product with those alone does not depend on how
    many threads a BLAS has."""

    def __init__(self, settings: LogMelSettings):
        filters = mel_filters(settings)
        used = np.flatnonzero(filters.any(axis=1))
        self.bins = slice(used[0], used[-1] + 1)  # of a spectrum
        self._filters = scipy.sparse.csr_array(filters[self.bins].T.astype(np.float32))

    def __call__(self, power: np.ndarray) -> np.ndarray:
        """(frames, mels) of a power spectrum (frames, `bins`) float32."""
        return (self._filters @ power.T).T


def _padded(audio: mx.array, width: int, mode: str) -> mx.array:
    """(batch, samples) with `width` samples more on both sides."""
    if mode == "constant":
        return mx.pad(audio, [(0, 0), (width, width)])
    if mode != "reflect":
        raise ValueError(f"pad_mode={mode!r}, expected 'constant' or 'reflect'")
    samples = audio.shape[1]
    if samples <= width:
        raise ValueError(
            f"{samples} samples cannot be reflected by {width}, expected more than that"
        )
    left, right = audio[:, 1 : width + 1][:, ::-1], audio[:, samples - width - 1 : -1][:, ::-1]
    return mx.concatenate([left, audio, right], axis=1)
