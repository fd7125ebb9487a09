"""How fast a trained chord model reads whole songs, and how much memory a long file takes.

Songs are synthesised and written as 44.1 kHz stereo WAV; each measurement has a process of its own.
Run: python benchmarks/chord_prediction.py --checkpoint RUN [--songs 6] [--minutes 10 60]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiotrain.datasets.synthesis import arrangement, progressions, render
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common.checkpoints import newest_run

RATE = 44100
SONG_SECONDS = 240.0


def write_song(path: Path, seed: int, minutes: float | None = None) -> None:
    """A synthesised song of about four minutes, or as many times over as `minutes` take."""
    rng = np.random.default_rng(seed)
    tempo = float(rng.uniform(70, 150))
    progression = progressions.random_progression(rng, int(SONG_SECONDS * tempo / 60))
    parts, _ = arrangement.compose(progression, rng, tempo)
    song = render.render(parts, RATE, render.random_cents(rng))
    stereo = np.stack([song, 0.8 * song], axis=1)
    left = len(stereo) if minutes is None else int(minutes * 60 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        while left > 0:
            file.write(stereo[:left])
            left -= len(stereo)


def peak_memory() -> float:
    """The most memory this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage reports begins with the parent's memory on Linux
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def serve(checkpoint: Path, files: list[Path]) -> None:
    """Predict each file; print what it took as JSON."""
    begun = time.perf_counter()
    recognizer = Recognizer.from_checkpoint(newest_run(checkpoint, "chords"))
    result: dict[str, Any] = {
        "loading": time.perf_counter() - begun,
        "before": peak_memory(),
        "files": [],
    }
    for path in files:
        wall, cpu = time.perf_counter(), time.process_time()
        prediction = recognizer.predict(path)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        result["files"].append({"seconds": prediction.seconds, "wall": wall, "cpu": cpu})
    print(json.dumps(result | {"peak": peak_memory()}))


def measure(checkpoint: Path, files: list[Path]) -> dict:
    """The output of `serve` in a new process."""
    command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--files"]
    command += [str(path) for path in files]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="run or checkpoint folder")
    parser.add_argument("--songs", type=int, default=6)
    parser.add_argument("--minutes", type=float, nargs="*", default=[10, 60])
    parser.add_argument("--files", type=Path, nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.files is not None:
        return serve(chosen.checkpoint, chosen.files)
    with tempfile.TemporaryDirectory() as folder:
        songs = [Path(folder) / f"{number}.wav" for number in range(chosen.songs + 1)]
        for number, path in enumerate(songs):
            write_song(path, number)
        result = measure(chosen.checkpoint, songs)
        first, *rest = result["files"]
        seconds, wall, cpu = (sum(row[key] for row in rest) for key in ("seconds", "wall", "cpu"))
        print(
            f"{len(rest)} songs, {seconds / 60:.0f} minutes: {seconds / wall:.0f}x real time, "
            f"{seconds / cpu:.0f} s of audio per CPU second; the first song "
            f"{first['seconds'] / first['wall']:.0f}x, the model loads in {result['loading']:.2f} s"
        )
        peaks = []
        for minutes in chosen.minutes:
            path = Path(folder) / "long.wav"
            write_song(path, 0, minutes)
            result = measure(chosen.checkpoint, [path])
            peaks.append(result["peak"])
            wall = result["files"][0]["wall"]
            print(
                f"a file of {minutes:g} minutes: peak {result['peak']:.0f} MiB "
                f"({result['before']:.0f} before), {60 * minutes / wall:.0f}x real time"
            )
        if len(peaks) > 1:
            print(f"memory of the longest to the shortest: {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
