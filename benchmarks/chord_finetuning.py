"""What a small folder of recordings gains a chord model from scratch and the shipped one.

Guitars 1 and 2 of `guitar-chords` are learnt from, five clips or one of each of ten chords by each;
tested are guitars 3 and 4 and `piano-chords`. The detuned clips are 50 cents higher with the labels
that they had, so that only training can say what they mean.

    python benchmarks/chord_finetuning.py [--data ../shared/data] [--steps 200] [--output FOLDER]
"""

import argparse
import csv
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import soxr

from audiotrain.features import audio
from audiotrain.recipes import chords
from audiotrain.utils.files import read_json_object

RATE = 22050  # Hz
CENTS = 50
Row = dict[str, str]


def write_clips(folder: Path, source: Path, rows: Iterable[Row], cents: float = 0) -> None:
    """Write clips of a table, `cents` higher, and their part of the table."""
    folder.mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "chord"))
        for row in rows:
            sound = audio.read(source / row["file"], RATE)
            if cents:
                sound = soxr.resample(sound, RATE * 2 ** (cents / 1200), RATE)
            audio.write(folder / row["file"], sound, RATE)
            table.writerow((row["file"], row["chord"]))


def first_of_each(rows: Iterable[Row], count: int) -> list[Row]:
    """The first `count` clips of each chord by each guitar, without noise."""
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for row in rows:
        key = row["guitar"], row["chord"]
        if row["room"] == "anechoic" and seen[key] < count:
            seen[key] += 1
            chosen.append(row)
    return chosen


def command(*words: object) -> None:
    """Run a command of the chord recipe."""
    if code := chords.main([str(word) for word in words]):
        raise SystemExit(code)


def majmin(checkpoint: object, data: Path, output: Path) -> float:
    """The score of a model on a folder, by the command that a user has."""
    command("evaluate", "--data", data, "--checkpoint", checkpoint, "--output", output)
    return read_json_object(output / "metrics.json")["viterbi"]["corpus"]["majmin"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, help="folder that keeps clips and runs")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(chosen.data, chosen.steps, chosen.output or Path(temporary))


def measure(data: Path, steps: int, output: Path) -> None:
    guitars, piano = data / "guitar-chords", data / "piano-chords"
    rows = list(csv.DictReader((guitars / "labels.csv").read_text().splitlines()))
    known = [row for row in rows if row["guitar"] in "12"]
    others = [row for row in rows if row["guitar"] in "34"]
    folder = output / "clips"
    write_clips(folder / "100", guitars, first_of_each(known, 5))
    write_clips(folder / "20", guitars, first_of_each(known, 1))
    write_clips(folder / "others", guitars, others)
    write_clips(folder / "100-detuned", guitars, first_of_each(known, 5), CENTS)
    write_clips(folder / "others-detuned", guitars, others, CENTS)
    tests = {
        "100": {"guitars": folder / "others", "piano": piano},
        "20": {"guitars": folder / "others", "piano": piano},
        "100-detuned": {"guitars 50 cents higher": folder / "others-detuned"},
    }
    lines = []

    def score(name: str, checkpoint: object, places: dict[str, Path]) -> None:
        found = [
            f"{place} {majmin(checkpoint, path, output / 'scores' / f'{name}-{place}'):.3f}"
            for place, path in places.items()
        ]
        lines.append(f"{name:28} {', '.join(found)}")

    score("shipped", "shipped", tests["100"] | tests["100-detuned"])
    for clips, places in tests.items():
        for kind, flags in (("from scratch", []), ("--pretrained", ["--pretrained"])):
            name = f"{clips} {kind}"
            run = output / "runs" / name.replace(" ", "-")
            words = "--data", folder / clips, "--steps", steps, "--output", run
            command(*words, *flags)
            score(name, run, places)
    print("\nmajmin of viterbi")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
