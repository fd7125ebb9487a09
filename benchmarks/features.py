"""Features against librosa: how equal, and how much faster, on whole songs.

Songs are MIDI files of a folder, rendered, or audio files of a folder. Each transform runs on each
song in turn in this process, on the same machine; librosa uses one core, ours what it
finds, and the CPU column compares seconds of CPU. `cold` is file to cache entry, `cached` reads it.
Run: python benchmarks/features.py [--songs 8] [--folder ../shared/data/pop909]
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from audiotrain import backend
from audiotrain.datasets.synthesis import midi as synthesis_midi
from audiotrain.datasets.synthesis import render
from audiotrain.features import audio
from audiotrain.features.cache import FeatureCache
from audiotrain.features.cqt import CQTSettings
from audiotrain.features.extract import extract
from audiotrain.features.log_mel import LogMelSettings

import librosa  # isort: skip (it takes seconds, and is only for the comparison)

SETTINGS = {
    "CQT 144, 24/octave, hop 2048": CQTSettings(),
    "CQT 252, 36/octave, hop 512": CQTSettings(hop=512, bins=252, bins_per_octave=36),
    "CQT 84, 12/octave, hop 512": CQTSettings(hop=512, bins=84, bins_per_octave=12),
    "CQT 168 from F#0, 24/octave, hop 2048": CQTSettings(bins=168, fmin=23.124651418947145),
    "mel 128, 2048, hop 512, slaney": LogMelSettings(),
    "mel 64, 1024, hop 320, htk": LogMelSettings(
        n_fft=1024, hop=320, mels=64, htk=True, slaney_norm=False
    ),
}
RATE = 22050
CLIPS = ("guitarset-clip/*.flac", "guitar-chords/*.flac", "piano-chords/*.flac", "berklee/*.mp3")


def with_librosa(samples: np.ndarray, settings: CQTSettings | LogMelSettings) -> np.ndarray:
    """(frames, bins) as `extract` gives them."""
    if isinstance(settings, CQTSettings):
        complex_cqt = librosa.cqt(
            samples,
            sr=settings.rate,
            hop_length=settings.hop,
            fmin=settings.fmin,
            n_bins=settings.bins,
            bins_per_octave=settings.bins_per_octave,
        )
        return np.abs(complex_cqt).T
    power = librosa.feature.melspectrogram(
        y=samples,
        sr=settings.rate,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        n_mels=settings.mels,
        fmin=settings.fmin,
        fmax=settings.fmax,
        htk=settings.htk,
        norm="slaney" if settings.slaney_norm else None,
    )
    return librosa.power_to_db(power, top_db=None).T


def parity(ours: np.ndarray, theirs: np.ndarray, decibels: bool) -> tuple[float, float, float]:
    """Relative Frobenius norm, mean and 99th percentile of |dB| over 80 dB below the maximum."""
    if decibels:
        ours, theirs = 10 ** (ours / 20), 10 ** (theirs / 20)
    floor = max(theirs.max() * 1e-4, 1e-12)
    difference = 20 * np.abs(np.log10(np.maximum(ours, floor) / np.maximum(theirs, floor)))
    norm = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12)
    return float(norm), float(difference.mean()), float(np.quantile(difference, 0.99))


def songs(folder: Path, count: int, scratch: Path) -> Iterator[Path]:
    """Audio files at RATE: those of the folder, or its MIDI files rendered into `scratch`."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in audio.AUDIO_SUFFIXES)
    if found:
        yield from found[:count]
        return
    midis = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    if not midis:
        raise SystemExit(f"{folder}: no audio and no MIDI files")
    for midi in midis[:: max(1, len(midis) // count)][:count]:
        path = scratch / f"{midi.stem}.flac"
        audio.write(path, render.render(synthesis_midi.read_midi(midi), RATE), RATE)
        yield path


def timed(action: Callable[[], object]) -> tuple[np.ndarray, object]:
    """Wall and CPU seconds of an action, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu]), result


def compare(paths: list[Path], name: str, cache: FeatureCache) -> str:
    """One row of the table of speed."""
    settings = SETTINGS[name]
    decibels = isinstance(settings, LogMelSettings)
    spent = {key: np.zeros(2) for key in ("ours", "librosa", "cold", "librosa cold", "cached")}
    equal = []
    for path in paths:
        samples = audio.read(path, RATE)
        for key, action in (
            ("librosa", lambda s=samples: with_librosa(s, settings)),
            ("ours", lambda s=samples: extract(s, settings)),
            ("librosa cold", lambda p=path: with_librosa(audio.read(p, RATE), settings)),
            ("cold", lambda p=path: cache.get(p, settings, lambda: extract(p, settings))),
            ("cached", lambda p=path: np.array(cache.get(p, settings, make=None))),
        ):
            seconds, result = timed(action)
            spent[key] += seconds
            if key == "librosa":
                theirs = result
            elif key == "ours":
                equal.append(parity(result, theirs, decibels))
    worst = np.max(equal, axis=0)
    wall = {key: seconds[0] for key, seconds in spent.items()}
    return (
        f"{name:38s} {worst[0]:8.1e} {worst[1]:8.5f} {worst[2]:8.5f} "
        f"{wall['librosa'] / len(paths) * 1e3:8.0f} {wall['ours'] / len(paths) * 1e3:6.0f} "
        f"{wall['librosa'] / wall['ours']:6.1f}x "
        f"{spent['librosa'][1] / spent['ours'][1]:6.1f}x "
        f"{wall['librosa cold'] / wall['cold']:6.1f}x {wall['librosa cold'] / wall['cached']:6.0f}x"
    )


def clip_parity(folder: Path, every: int) -> None:
    """Parity on short real recordings, which start and end abruptly: the hardest for filters."""
    paths = [path for pattern in CLIPS for path in sorted(folder.glob(pattern))[::every]]
    if not paths:
        print(f"(no short recordings in {folder})")
        return
    print(f"\n{len(paths)} short recordings: worst of each (gates 5e-4, .01 dB, .05 dB)")
    for name, settings in SETTINGS.items():
        rows = []
        for path in paths:
            samples = audio.read(path, RATE)
            if samples.any():
                pair = extract(samples, settings), with_librosa(samples, settings)
                rows.append(parity(*pair, isinstance(settings, LogMelSettings)))
        worst = np.max(rows, axis=0)
        print(f"{name:38s} {worst[0]:8.1e} {worst[1]:8.5f} {worst[2]:8.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--songs", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=shared / "pop909", help="audio or MIDI")
    parser.add_argument("--only", default="", help="settings whose name contains this text")
    parser.add_argument("--clips", type=Path, default=shared, help="where the short ones are")
    arguments = parser.parse_args()
    backend.configure("full")  # as the recipe of chords does
    warnings.filterwarnings("ignore", "n_fft=.* is too large for input signal")
    for name in [name for name in SETTINGS if arguments.only not in name]:
        del SETTINGS[name]

    with tempfile.TemporaryDirectory() as scratch:
        paths = list(songs(arguments.folder, arguments.songs, Path(scratch)))
        minutes = sum(audio.info(path).seconds for path in paths) / 60
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        print(f"{len(paths)} songs, {minutes:.1f} minutes, {os.cpu_count()} cores, load {load:.1f}")
        print(
            f"{'':38s} {'norm':>8s} {'mean dB':>8s} {'p99 dB':>8s} "
            f"{'librosa':>8s} {'ours':>6s} {'ratio':>7s} {'CPU':>7s} {'cold':>7s} {'cached':>7s}"
        )
        for name in SETTINGS:  # once before, so that nothing is built or compiled in what is timed
            extract(np.zeros(RATE, np.float32), SETTINGS[name])
            with_librosa(np.zeros(RATE, np.float32), SETTINGS[name])
            print(compare(paths, name, FeatureCache(Path(scratch) / "cache")), flush=True)
    clip_parity(arguments.clips, every=40)


if __name__ == "__main__":
    main()
