"""Seconds to prepare songs for training, on one core and on all cores, in turns.

    python benchmarks/preparation.py                                  composed songs
    python benchmarks/preparation.py --data POP909 --songs 60         MIDI files, as for `chords`

Each measurement is a new process with an empty cache; "one core" is bound to one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from audiotrain.datasets.chords import discovery
from audiotrain.recipes.chords.songs import (
    FeatureSettings,
    SongLibrary,
    Wanted,
    compose_songs,
    load_renderings,
)
from audiotrain.utils.cores import available_cores


def prepare(settings: argparse.Namespace) -> float:
    """Seconds in this process and its workers."""
    items = [] if settings.data is None else discovery.discover(settings.data).items
    chosen = [Wanted(item, range(settings.renderings)) for item in items[: settings.songs]]
    with tempfile.TemporaryDirectory() as cache:
        library = SongLibrary(FeatureSettings(), Path(cache))
        begun = time.perf_counter()
        if settings.data is None:
            compose_songs(library, settings.songs, 60.0, [])
        else:
            load_renderings(library, chosen)
        return time.perf_counter() - begun


def measured(words: list[str], cores: set[int]) -> float:
    """`prepare` in a process of its own that may use these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        command = [sys.executable, __file__, *words, "--inside"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        os.sched_setaffinity(0, before)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--renderings", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.inside:
        print(prepare(settings))
        return
    words = sys.argv[1:]
    cores = os.sched_getaffinity(0)
    ratios = []
    for turn in range(settings.turns):
        one = measured(words, {min(cores)})
        every = measured(words, cores)
        ratios.append(one / every)
        print(f"turn {turn}: 1 core {one:.1f} s, {available_cores()} cores {every:.1f} s", end=", ")
        print(f"{one / every:.2f}x", flush=True)
    print(f"{settings.songs} songs: {statistics.median(ratios):.2f}x one core")


if __name__ == "__main__":
    main()
