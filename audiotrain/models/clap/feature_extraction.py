"""CLAP's front end: recordings of any length to the log-mel input that its checkpoints expect.

In NumPy, for data workers, equal to Hugging Face's ClapFeatureExtractor to 1e-4 dB; batches of
waveforms go through `features.LogMel(settings.log_mel)` in MLX instead. The flavour follows from
the truncation: `rand_trunc` has Slaney filters and one channel, `fusion` HTK filters and four.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from scipy import fft

from audiotrain.config.schema import NonNegative, PositiveInt, validated
from audiotrain.features.log_mel import LogMelSettings, MelFilters
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.utils import files
from audiotrain.utils.errors import UserError

Truncation = Literal["rand_trunc", "fusion"]
SETTINGS_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # holds the same under "feature_extractor"
_BLOCK = 128  # frames that are transformed at a time: more does not fit the caches
# Hugging Face's name of each setting, and its value where the file lacks it.
_IN_FILE: dict[str, tuple[str, Any]] = {
    "rate": ("sampling_rate", 48000),
    "n_fft": ("fft_window_size", 1024),
    "hop": ("hop_length", 480),
    "mels": ("feature_size", 64),
    "fmin": ("frequency_min", 0),
    "fmax": ("frequency_max", 14000),
    "seconds": ("max_length_s", 10),
    "truncation": ("truncation", "fusion"),
    "padding": ("padding", "repeatpad"),
}


@validated
class ClapFeatureSettings:
    """Settings of the input; the defaults are those of laion/clap-htsat-unfused.

    `rate`, `fmin`, `fmax` in Hz, `n_fft` and `hop` in samples, `seconds` the length of the input.
    `padding` extends shorter audio: "repeatpad" by whole repetitions, then silence, "repeat" by
    repetitions to the end, "pad" by silence. `truncation` shortens longer audio: "rand_trunc" to
    one crop, "fusion" to the whole, squeezed, and three crops. ValueError, a line for each value
    that cannot be, and for an input of no more than half of `n_fft`.
    """

    rate: PositiveInt = 48000
    n_fft: PositiveInt = 1024
    hop: PositiveInt = 480
    mels: PositiveInt = 64
    fmin: NonNegative = 50
    fmax: NonNegative = 14000
    seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    truncation: Truncation = "rand_trunc"
    padding: Literal["repeatpad", "repeat", "pad"] = "repeatpad"

    def __post_init__(self):
        if self.samples <= self.n_fft // 2:
            raise UserError(
                f"seconds={self.seconds}: {self.samples} samples, expected more than half of "
                f"n_fft={self.n_fft}"
            )

    @property
    def samples(self) -> int:
        """Samples of the input."""
        return round(self.seconds * self.rate)

    @property
    def frames(self) -> int:
        """Frames of the input."""
        return self.samples // self.hop + 1

    @property
    def fused(self) -> bool:
        """Whether the input has four channels."""
        return self.truncation == "fusion"

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return 4 if self.fused else 1

    @property
    def key(self) -> dict[str, float | str]:
        """The settings in a cache key, where 50 and 50.0 are the same text."""
        values = vars(self).items()
        return {name: value if isinstance(value, str) else float(value) for name, value in values}

    @property
    def log_mel(self) -> LogMelSettings:
        """The same for the transform in MLX, `features.LogMel`."""
        return LogMelSettings(
            *(self.rate, self.n_fft, self.hop, self.mels, self.fmin, self.fmax),
            htk=self.fused,
            slaney_norm=not self.fused,
            pad_mode="reflect",
        )

    def check(self, model: HTSATConfig, place: str) -> None:
        """ValueError naming `place` when the audio tower takes other inputs."""
        mels, frames, fused = model.num_mel_bins, model.frames, model.enable_fusion
        if self.mels != mels or self.frames > frames or self.fused != fused:
            raise UserError(
                f"{place}: the front end gives {self.frames} frames of {self.mels} mels, fusion "
                f"{self.fused}; the model takes up to {frames} of {mels}, fusion {fused}"
            )

    @classmethod
    def read(cls, path: str | Path) -> "ClapFeatureSettings":
        """From preprocessor_config.json or processor_config.json, or a folder with one of them.

        What the file lacks is what Hugging Face takes for it. ValueError when there is no such
        file, or it is no JSON object of a ClapFeatureExtractor.
        """
        path = Path(path)
        if path.is_dir():
            names = [name for name in (SETTINGS_FILE, PROCESSOR_FILE) if (path / name).is_file()]
            if not names:
                raise UserError(f"{path}: found no {SETTINGS_FILE} and no {PROCESSOR_FILE}")
            path = path / names[0]
        content = files.read_json_object(path)
        content = content.get("feature_extractor", content)
        kind = content.get("feature_extractor_type", "ClapFeatureExtractor")
        if kind != "ClapFeatureExtractor":
            raise UserError(f"{path}: found {kind}, expected a ClapFeatureExtractor")
        values = {
            ours: _whole(content.get(name, default)) for ours, (name, default) in _IN_FILE.items()
        }
        try:
            return cls(**values)
        except UserError as error:
            named = re.sub(r"(?m)^\w+", lambda ours: _IN_FILE[ours[0]][0], str(error))
            raise UserError(f"{path}: {'; '.join(named.splitlines())}") from None

    def save(self, folder: str | Path) -> None:
        """Write preprocessor_config.json, which Hugging Face reads too, into a folder. ValueError
        when it cannot be written."""
        content = {
            "feature_extractor_type": "ClapFeatureExtractor",
            "processor_class": "ClapProcessor",
            **{name: _whole(getattr(self, ours)) for ours, (name, _) in _IN_FILE.items()},
            "nb_frequency_bins": self.n_fft // 2 + 1,
            "nb_max_samples": self.samples,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "top_db": None,
        }
        data = json.dumps(content, indent=2, sort_keys=True) + "\n"
        files.write(Path(folder) / SETTINGS_FILE, data)


def _whole(value: Any) -> Any:
    """8000 for 8000.0, which Hugging Face indexes with; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ClapFeatures:
    """Log-mel inputs (channels, frames, mels) float32 of mono audio (samples,) at `settings.rate`.

    A generator chooses the crops at random; without one the crop is the centre, and those of fusion
    are the middles of their thirds: the same input at every call.
    ValueError unless 0 <= fmin < fmax <= rate / 2; when called for audio without samples or of
    several channels.
    """

    def __init__(self, settings: ClapFeatureSettings | None = None):
        self.settings = settings or ClapFeatureSettings()
        self._filters = MelFilters(self.settings.log_mel)
        n_fft = self.settings.n_fft
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)

    def __call__(
        self, audio: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, bool]:
        """The input (channels, frames, mels) of audio (samples,), and whether the audio is longer
        than it (`is_longer` of a fused model)."""
        if not self.settings.fused or len(audio) <= self.settings.samples:
            longer = len(audio) > self.settings.samples
            return self._channels(self.fit(audio, rng)), longer
        mel = self.log_mel(audio)
        if len(mel) == self.settings.frames:
            return np.repeat(mel[None], 4, axis=0), False
        return self._fuse(mel, rng), True

    def windows(self, audio: np.ndarray) -> np.ndarray:
        """Inputs (windows, channels, frames, mels) that cover the whole audio evenly, each as of
        a short clip: their embeddings are averaged at evaluation."""
        size = self.settings.samples
        if len(audio) <= size:
            return self._channels(self.fit(audio))[None]
        count = -(-len(audio) // size)
        starts = np.linspace(0, len(audio) - size, count).round().astype(int)
        return np.stack([self._channels(audio[start : start + size]) for start in starts])

    def fit(self, audio: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Audio (samples,) of exactly `settings.samples`: padded, or one crop of it."""
        _check(audio)
        size = self.settings.samples
        excess = len(audio) - size
        if excess > 0:
            start = excess // 2 if rng is None else int(rng.choice(excess + 1))
            return audio[start : start + size]
        if self.settings.padding == "repeat":
            audio = np.resize(audio, size)
        elif self.settings.padding == "repeatpad":
            audio = np.tile(audio, size // len(audio))
        return np.pad(audio, (0, size - len(audio)))

    def log_mel(self, audio: np.ndarray) -> np.ndarray:
        """(frames, mels) in dB of the audio (samples,) as it is. ValueError unless it has more than
        n_fft / 2 samples."""
        _check(audio)
        settings, half = self.settings, self.settings.n_fft // 2
        if len(audio) <= half:
            raise UserError(f"{len(audio)} samples cannot be reflected, expected more than {half}")
        padded = np.pad(audio, half, mode="reflect")
        frames = sliding_window_view(padded, settings.n_fft)[:: settings.hop]
        mel = np.empty((len(frames), settings.mels), np.float32)
        for first in range(0, len(frames), _BLOCK):
            # float64, as in the reference: float32 loses what is 100 dB below the loudest
            spectrum = fft.rfft(frames[first : first + _BLOCK] * self._window)[
                :, self._filters.bins
            ]
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            mel[first : first + _BLOCK] = self._filters(power.astype(np.float32))
        np.log10(np.maximum(mel, settings.log_mel.floor_power, out=mel), out=mel)
        return np.multiply(mel, 10, out=mel)

    def _channels(self, audio: np.ndarray) -> np.ndarray:
        return np.repeat(self.log_mel(audio)[None], self.settings.channels, axis=0)

    def _fuse(self, mel: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """The whole squeezed to `settings.frames`, and a crop that begins in each third."""
        frames = self.settings.frames
        crops = [squeeze(mel, frames)]
        for starts in np.array_split(np.arange(len(mel) - frames + 1), 3):
            if not len(starts):
                start = 0
            else:
                start = starts[len(starts) // 2] if rng is None else rng.choice(starts)
            crops.append(mel[start : start + frames])
        return np.stack(crops)


def squeeze(mel: np.ndarray, frames: int) -> np.ndarray:
    """(any, mels) to (frames, mels), linear in time, ends not aligned: torch's "bilinear"."""
    step = float(np.float32(len(mel) / frames))
    place = step * (np.arange(frames) + 0.5) - 0.5
    place = np.maximum(place.astype(np.float32), 0)  # float32 rounded once, as torch has it
    before = place.astype(np.int64)
    after = np.minimum(before + 1, len(mel) - 1)
    share = (place - before).astype(np.float32)[:, None]
    return mel[before] * (1 - share) + mel[after] * share


def _check(audio: np.ndarray) -> None:
    if audio.ndim != 1 or not len(audio):
        raise UserError(f"audio of shape {audio.shape}, expected (samples,), at least one")
