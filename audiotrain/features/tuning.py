"""How far a recording is from A = 440 Hz."""

import warnings
from pathlib import Path

import numpy as np

from audiotrain.features import audio as audio_files

SECONDS = 60.0  # of the middle of a recording that are analysed
STEP = 0.05  # semitones to which a tuning is rounded, so that transforms are built for a few only


def tuning_of(audio: str | Path | np.ndarray, rate: int) -> float:
    """Semitones, -0.5 to 0.5, by which a file or mono samples at `rate` are above A = 440 Hz, by
    librosa's estimate from spectral peaks; 0 where there are none."""
    import librosa

    if not isinstance(audio, np.ndarray):
        start = max(0.0, (audio_files.info(audio).seconds - SECONDS) / 2)
        samples = audio_files.read(audio, rate, start, SECONDS)
    else:
        start = max(0, (len(audio) - round(SECONDS * rate)) // 2)
        samples = audio[start : start + round(SECONDS * rate)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # silence, or less than a window of samples
        tuning = librosa.estimate_tuning(y=np.asarray(samples, np.float32), sr=rate)
    return round(float(tuning) / STEP) * STEP
