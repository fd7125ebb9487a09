"""Beats, downbeats, metre and key of POP909's songs, beside librosa's beat_track.

    python benchmarks/beats.py --checkpoint RUN [--data POP909] [--split valid|test]

The songs of a part of the run's split are played as written, a fifth faster, a fifth slower, with a
tempo that falls by a tenth from beginning to end, and on randomly chosen instruments, with drums of
another tempo over two in five; waltzes are composed, of 80 to 190 beats a minute. --conditions
chooses. F-measures are mir_eval.beat's, within 70 ms and after the first 5 s; keys are compared
with the longest one of a song. The last columns are mir_eval's scores of the chords as they are
recognised, and with their changes moved to the nearest beat.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import librosa
import mir_eval
import numpy as np
from waltzes import waltz

from audiotrain.datasets import chords
from audiotrain.datasets.synthesis import midi, render
from audiotrain.datasets.synthesis.songs import SongSynthesizer
from audiotrain.evaluation.chords import aggregate_scores, chord_scores
from audiotrain.features.beats import find_beats
from audiotrain.features.onsets import Onsets
from audiotrain.music.beats import Beats
from audiotrain.music.keys import key_name
from audiotrain.music.segments import Segment, read_lab
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common.split import part_of
from audiotrain.utils.progress import progress

DRIFT = 0.1
COLUMNS = {"beats": 5, "downbeats": 9, "metre": 5, "key": 5, "librosa": 7, "seconds": 7}
SEED = 1  # of instruments and waltzes
INSTRUMENTS, WALTZES = "other instruments", "waltzes"
Warp = Callable[[np.ndarray], np.ndarray]  # of seconds as written, in a song of known length


class Song(NamedTuple):
    """Samples (samples,), times of beats (beats,), which of them begin a bar, the chords, and the
    key as mir_eval has it."""

    audio: np.ndarray
    beats: np.ndarray
    is_downbeat: np.ndarray
    segments: list[Segment]
    key: str | None


def warps(length: float) -> dict[str, Warp]:
    """How times of a song of `length` seconds are moved."""
    return {
        "as written": lambda t: t,
        "20 % faster": lambda t: t / 1.2,
        "20 % slower": lambda t: t / 0.8,
        "drifting": lambda t: np.log1p(DRIFT * t / length) * length / DRIFT,
    }


def warped(parts: list, warp: Warp) -> list:
    """The parts of an arrangement with all times moved."""
    return [
        part._replace(
            notes=[
                note._replace(
                    start=float(warp(np.float64(note.start))),
                    duration=float(
                        warp(np.float64(note.start + note.duration)) - warp(np.float64(note.start))
                    ),
                )
                for note in part.notes
            ]
        )
        for part in parts
    ]


def annotated_key(path: Path) -> str:
    """The longest key of a file of POP909, as mir_eval takes it."""
    rows = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    longest = max(rows, key=lambda row: float(row[1]) - float(row[0]))[2]
    return longest.replace(":maj", " major").replace(":min", " minor")


def f_measure(known: np.ndarray, found: np.ndarray) -> float:
    trimmed = (mir_eval.beat.trim_beats(np.asarray(times)) for times in (known, found))
    return mir_eval.beat.f_measure(*trimmed)


def snapped(segments: list[Segment], beats: np.ndarray) -> list[Segment]:
    """Segments that change at the nearest beats; those that vanish are left out."""
    if len(beats) < 2:
        return segments
    middles = (beats[1:] + beats[:-1]) / 2
    inner = [segment.start for segment in segments[1:]]
    moved = [segments[0].start, *beats[np.searchsorted(middles, inner)], segments[-1].end]
    rows = zip(moved, moved[1:], segments, strict=False)
    return [Segment(start, end, segment.label) for start, end, segment in rows if end > start]


def pop_song(source: Path, condition: str, rate: int) -> Song:
    """A song of POP909 in a condition."""
    parts = midi.read_midi(source)
    length = max(note.start + note.duration for part in parts for note in part.notes)
    warp = warps(length).get(condition, lambda t: t)
    if condition == INSTRUMENTS:
        audio = SongSynthesizer(rate, SEED).play_midi(source, source.stem, rendering=1)
    else:
        audio = render.render(warped(parts, warp), rate)
    known = np.loadtxt(source.with_suffix(".beats"))
    labels = [
        Segment(float(warp(np.float64(start))), float(warp(np.float64(end))), label)
        for start, end, label in read_lab(source.with_suffix(".lab")).segments
    ]
    key = annotated_key(source.with_suffix(".key"))
    return Song(audio, warp(known[:, 0]), known[:, 2] > 0, labels, key)


def waltz_song(number: int, count: int, rate: int) -> Song:
    parts, beats, labels = waltz(number, count, SEED)
    is_downbeat = np.arange(len(beats)) % 3 == 0
    return Song(render.render(parts, rate), beats, is_downbeat, labels, None)


def measured(recognizer: Recognizer, song: Song) -> tuple[dict, dict, dict]:
    """Figures of a song's beats, and the scores of its chords as they are and at beats."""
    rate = recognizer.settings.rate
    found = recognizer.predict(song.audio)
    onsets = Onsets(rate, recognizer.settings.hop)
    onsets.add(song.audio)
    strengths = onsets.strengths(), onsets.low_strengths(), onsets.step
    begun = time.perf_counter()
    find_beats(*strengths, found.segments)
    seconds = time.perf_counter() - begun
    theirs = librosa.beat.beat_track(y=song.audio, sr=rate, units="time", sparse=True)[1]
    score = beat_scores(song, found.beats) | {
        "librosa": f_measure(song.beats, theirs),
        "seconds": seconds,
        "key": float("nan"),
    }
    if song.key is not None:
        key = "X" if found.key is None else key_name(found.key).replace(":", " ")
        score["key"] = mir_eval.key.weighted_score(song.key, key)
    at_beats = snapped(found.segments, np.asarray(found.beats.times))
    return score, chord_scores(song.segments, found.segments), chord_scores(song.segments, at_beats)


def beat_scores(song: Song, found: Beats) -> dict[str, float]:
    metre = np.median(np.diff(np.flatnonzero(song.is_downbeat)))
    return {
        "beats": f_measure(song.beats, found.times),
        "downbeats": f_measure(song.beats[song.is_downbeat], found.downbeats),
        "metre": float(found.metre == metre),
    }


def main() -> None:
    conditions = [*warps(1.0), INSTRUMENTS, WALTZES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained run")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--split", choices=["valid", "test"], default="valid")
    parser.add_argument("--conditions", nargs="+", choices=conditions, default=conditions)
    parser.add_argument("--waltzes", type=int, default=24)
    arguments = parser.parse_args()
    recognizer = Recognizer.from_checkpoint(arguments.checkpoint)
    corpus = chords.discover(arguments.data)
    items = part_of([arguments.checkpoint], corpus, arguments.split, "songs")
    rate = recognizer.settings.rate
    print(f"{len(items)} songs; F-measures, and majmin and seg of chords as found and at beats")
    names = [f"{key:>{width}}" for key, width in COLUMNS.items()]
    print(" " * 17, "  ".join([*names, "majmin", "at beats", "seg", "at beats"]))
    for condition in arguments.conditions:
        if condition == WALTZES:
            count = arguments.waltzes
            songs = (waltz_song(number, count, rate) for number in range(count))
        else:
            count = len(items)
            songs = (pop_song(item.audio, condition, rate) for item in items)
        rows = [measured(recognizer, song) for song in progress(songs, condition, count)]
        figures, found, moved = zip(*rows, strict=True)
        means = {key: np.mean([row[key] for row in figures]) for key in figures[0]}
        means["seconds"] = np.median([row["seconds"] for row in figures])
        pairs = [aggregate_scores(scores)["corpus"] for scores in (found, moved)]
        shown = [f"{means[key]:>{width}.3f}" for key, width in COLUMNS.items()]
        shown += [f"{pair[key]:.4f}" for key in ("majmin", "seg") for pair in pairs]
        print(f"{condition:<17}", "  ".join(shown), flush=True)


if __name__ == "__main__":
    main()
