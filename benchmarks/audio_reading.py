"""Files to samples: MP3, FLAC, WAV and M4A beside librosa.load and an older checkout, in turns.

    python benchmarks/audio_reading.py [--old CHECKOUT] [--minutes 4] [--turns 5]

Prints the median seconds that each takes to read a song to mono samples at 22,050 Hz, and to the
chords of the shipped model, as ratios to librosa and to the older checkout. Every reader is a
process of its own that has read the file before the clock starts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 44100
READ = """
import json, sys, time
import numpy as np
name, path, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
if name == "librosa":
    import librosa
    read = lambda: librosa.load(path, sr=22050)[0]
elif name.endswith("chords"):
    from audiotrain import Recognizer
    model = Recognizer.pretrained()
    read = lambda: model(path)
else:
    from audiotrain.features import audio
    read = lambda: audio.read(path, 22050)
read()
seconds = []
for line in sys.stdin:
    begun = time.perf_counter()
    read()
    print(json.dumps(time.perf_counter() - begun), flush=True)
"""


def song(minutes: float) -> np.ndarray:
    """Stereo chords of decaying tones with noise (samples, 2) float32."""
    rng = np.random.default_rng(0)
    samples = round(minutes * 60 * RATE)
    time = np.arange(samples) / RATE
    tones = sum(
        np.sin(2 * np.pi * 55 * 2 ** (step / 12) * time) * np.exp(-(time % 0.5) * 3)
        for step in (0, 12, 16, 19, 24, 28, 31)
    )
    stereo = 0.08 * np.stack([tones, np.roll(tones, 200)], axis=1)
    return (stereo + 0.01 * rng.standard_normal(stereo.shape)).astype(np.float32)


def write(folder: Path, samples: np.ndarray) -> dict[str, Path]:
    """The song in each format, by its name."""
    paths = {name: folder / f"song.{name}" for name in ("mp3", "flac", "wav", "m4a")}
    soundfile.write(paths["flac"], samples, RATE)
    soundfile.write(paths["wav"], samples, RATE, subtype="PCM_16")
    for name, codec, container in (("mp3", "libmp3lame", "mp3"), ("m4a", "aac", "ipod")):
        with av.open(str(paths[name]), "w", format=container) as target:
            stream = target.add_stream(codec, rate=RATE)
            stream.layout, stream.bit_rate = "stereo", 192_000
            stream.codec_context.open()
            size = stream.frame_size
            for first in range(0, len(samples) - size, size):
                block = np.ascontiguousarray(samples[first : first + size].T)
                frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
                frame.sample_rate, frame.pts = RATE, first
                frame.time_base = Fraction(1, RATE)
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    return paths


def reader(name: str, path: Path, checkout: Path) -> subprocess.Popen:
    """A process that reads the file once a line on its standard input."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", READ, name, str(path), "0"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=checkout,  # which `-c` searches before PYTHONPATH
    )


def in_turns(readers: dict[str, subprocess.Popen], turns: int) -> dict[str, float]:
    """Median seconds of each reader; they read one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(turns):
        for name, process in readers.items():
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write("\n")
                process.stdin.flush()
                seconds[name].append(json.loads(process.stdout.readline()))
            except (BrokenPipeError, json.JSONDecodeError):  # it cannot read this format
                seconds[name].append(float("nan"))
    for process in readers.values():
        process.kill()
        process.wait()
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), song(options.minutes))
        for name, path in paths.items():
            for what in ("samples", "chords"):
                readers = {"new": reader(what, path, here)}
                if what == "samples":
                    readers["librosa"] = reader("librosa", path, here)
                if options.old is not None:
                    readers["old"] = reader(what, path, options.old.resolve())
                found = in_turns(readers, options.turns)
                ratios = ", ".join(
                    f"{found['new'] / found[other]:.2f} of {other}"
                    for other in found
                    if other != "new"
                )
                shown = ", ".join(f"{other} {value:.3f} s" for other, value in found.items())
                print(f"{name:5} to {what:8}: {shown}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
