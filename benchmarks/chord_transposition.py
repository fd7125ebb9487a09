"""How well the chords of a song that is transposed or detuned are the transposed chords.

    python benchmarks/chord_transposition.py [--checkpoint RUN] [--data POP909] \\
        [--split valid|test] [--songs 12]

MIDI songs of a part of the run's split are rendered as written, with their notes moved by
semitones, and with the sound moved by cents. Each is compared with what is found in the song as
written, moved accordingly. root, majmin and tetrads are mir_eval's scores; "type" is the share of
the time with the same root and the same of all types. In the first row nothing is moved: the song
begins half a frame later.
"""

import argparse
from pathlib import Path

import numpy as np

from audiotrain.datasets import chords
from audiotrain.datasets.synthesis import midi, render
from audiotrain.evaluation.chords import aggregate_scores, chord_scores
from audiotrain.music.chord_classes import decode, encode, transpose
from audiotrain.music.segments import Segment, segments_to_frames
from audiotrain.recipes.chords.ensemble import load
from audiotrain.recipes.chords.predictor import FrameRecognizer
from audiotrain.recipes.common.checkpoints import SHIPPED, locate
from audiotrain.recipes.common.split import part_of
from audiotrain.utils.progress import progress

SEMITONES = (-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)
CENTS = (-600, -300, -40, -20, 20, 40, 300, 600)
COLUMNS = ("root", "majmin", "tetrads", "type")
STEP = 0.05  # seconds, of comparing types


def moved(segments: list[Segment], semitones: int) -> list[Segment]:
    """Chords transposed by semitones."""
    return [
        one._replace(label=decode(transpose(np.array(encode(one.label)), semitones)))
        for one in segments
    ]


def with_notes_moved(parts: list, semitones: int) -> list:
    """An arrangement with all notes but the drums' moved."""
    return [
        part
        if part.is_drum
        else part._replace(notes=[n._replace(pitch=n.pitch + semitones) for n in part.notes])
        for part in parts
    ]


def agreement(expected: list[Segment], found: list[Segment]) -> dict[str, float]:
    """mir_eval's scores of chords by those that are expected, and the share of equal types."""
    ends = round(min(expected[-1].end, found[-1].end) / STEP)
    ours, theirs = (segments_to_frames(one, ends, STEP)[:, :2] for one in (expected, found))
    same = (ours == theirs).all(axis=1).mean()
    return chord_scores(expected, found) | {"type": float(same)}


def measured(recognizer: FrameRecognizer, source: Path) -> dict[str, dict[str, float]]:
    """The agreement of each row of the table, of one song."""
    parts, rate = midi.read_midi(source), recognizer.settings.rate
    late = recognizer.settings.hop // 2
    plain = render.render(parts, rate)
    expected = recognizer(plain).segments
    delayed = recognizer(np.pad(plain, (late, 0))).segments
    back = [
        one._replace(start=one.start - late / rate, end=one.end - late / rate) for one in delayed
    ]
    rows = {"half a frame later": agreement(expected, back)}
    for semitones in SEMITONES:
        audio = render.render(with_notes_moved(parts, semitones), rate)
        found = recognizer(audio).segments
        rows[f"notes {semitones:+d}"] = agreement(moved(expected, semitones), found)
    for cents in CENTS:
        found = recognizer(render.render(parts, rate, cents=cents)).segments
        rows[f"sound {cents:+d} cents"] = agreement(moved(expected, round(cents / 100)), found)
    return rows


def weighted(scores: list[dict[str, float]]) -> float:
    """Mean share of equal types, weighted by the songs' lengths."""
    return float(np.average([s["type"] for s in scores], weights=[s["seconds"] for s in scores]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="a trained run")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--split", choices=["valid", "test"], default="valid")
    parser.add_argument("--songs", type=int, default=12)
    arguments = parser.parse_args()
    (run,) = locate([arguments.checkpoint], "chords")
    recognizer = load([run])
    items = part_of([run], chords.discover(arguments.data), arguments.split, "songs")
    count = min(arguments.songs, len(items))
    chosen = [items[number * len(items) // count] for number in range(count)]
    songs = [measured(recognizer, item.audio) for item in progress(chosen, "songs")]
    print(f"{count} songs of {arguments.split}, beside what is found as written")
    print(" " * 18, "".join(f"{key:>9}" for key in COLUMNS))
    for row in songs[0]:
        scores = [song[row] for song in songs]
        corpus = aggregate_scores(scores)["corpus"] | {"type": weighted(scores)}
        print(f"{row:18}", "".join(f"{corpus[key]:9.3f}" for key in COLUMNS))


if __name__ == "__main__":
    main()
