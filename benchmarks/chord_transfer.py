"""A trained chord model on real recordings that it never saw: root and major/minor.

Scores are mir_eval's, weighted by duration. Where a clip holds one chord, `longest` counts its
longest label alone. Run: python benchmarks/chord_transfer.py --checkpoint RUN
[--data ../shared/data] [--every 1]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from audiotrain.datasets import chords
from audiotrain.evaluation import chords as metrics
from audiotrain.features import audio
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common.checkpoints import newest_run
from audiotrain.utils.progress import progress


class Target(NamedTuple):
    """A folder, which chord annotation of it counts, and the scores to reach."""

    folder: str
    selector: int | None
    root: float
    majmin: float


TARGETS = (
    Target("guitar-chords", None, 0.99, 0.98),
    Target("piano-chords", None, 0.97, 0.96),
    Target("guitarset-clip", 0, 0.87, 0.87),
)


def samples_of(item: chords.Item, rate: int):
    """Samples of an item at `rate`: its span of the recording."""
    seconds = None if item.end is None else item.end - item.start
    return audio.read(item.audio, rate, item.start, seconds)


def longest(segments: list[Segment]) -> list[Segment]:
    """One segment with the label that holds for the longest time in all."""
    times: dict[str, float] = {}
    for segment in segments:
        times[segment.label] = times.get(segment.label, 0.0) + segment.end - segment.start
    return [Segment(segments[0].start, segments[-1].end, max(times, key=lambda name: times[name]))]


def scores(recognizer: Recognizer, items: list[chords.Item]) -> dict[str, dict[str, float]]:
    """Corpus scores by way of decoding."""
    rate = recognizer.settings.rate
    songs: dict[str, list] = {}
    for item in progress(items, items[0].audio.parent.name):
        samples = samples_of(item, rate)
        reference = chords.segments(item, len(samples) / rate)
        for name, viterbi in (("viterbi", True), ("argmax", False)):
            found = recognizer.predict(samples, viterbi).segments
            songs.setdefault(name, []).append(metrics.chord_scores(reference, found))
            if item.clip_label is not None:
                single = metrics.chord_scores(reference, longest(found))
                songs.setdefault(f"{name}, longest", []).append(single)
    return {name: metrics.aggregate_scores(rows)["corpus"] for name, rows in songs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="run or checkpoint folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--every", type=int, default=1, help="take every n-th clip")
    chosen = parser.parse_args()
    recognizer = Recognizer.from_checkpoint(newest_run(chosen.checkpoint, "chords"))
    for target in TARGETS:
        folder = chosen.data / target.folder
        if not folder.is_dir():
            print(f"{folder}: not there, left out")
            continue
        items = chords.discover(folder, target.selector).items[:: chosen.every]
        found = scores(recognizer, items)
        print(f"{target.folder}: {len(items)} recordings; aim {target.root} / {target.majmin}")
        for name, corpus in found.items():
            print(f"  {name:17} root {corpus['root']:.3f}   majmin {corpus['majmin']:.3f}")


if __name__ == "__main__":
    main()
