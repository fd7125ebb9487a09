"""Speech, applause, drums alone and noise: how much becomes N by its low confidence, and what that
costs music.

    python benchmarks/chord_no_music.py [--checkpoint RUN] [--part valid|test] [--songs 36]
        [--data ../shared/data]

`valid` is what the rule was chosen by; no voice, clip or song of `test` is in it. Shown is the
share of time that is N without the rule, as with `--min-confidence 0`, and with it; of music with
labels majmin, too. "Spoken intro, applause" is each song with 8 s of speech before it and 8 s of
applause after it. It needs flite, espeak-ng and opl3-soundfont (Debian's packages).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import other_sounds
from chord_conditions import CONDITIONS, Source
from chord_robustness import SOUNDFONT, songs_of, splits_of
from chord_transfer import TARGETS, samples_of

from audiotrain.datasets import chords
from audiotrain.evaluation import chords as metrics
from audiotrain.features import audio as audio_files
from audiotrain.features.tuning import tuning_of
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.ensemble import load
from audiotrain.recipes.chords.predictor import FrameRecognizer, analyse
from audiotrain.recipes.common.checkpoints import SHIPPED, locate
from audiotrain.recipes.common.ensemble import EnsembleSpec

AROUND = 8.0  # seconds of speech before a song, and of applause after it
OVER = ("speech -4 dB", "pink noise 5 dB")  # conditions of `chord_conditions.py`
CONDITION_SONGS = 6
Labelled = tuple[np.ndarray, Sequence[Segment]]  # samples and labels; none where nothing is known


class Comparison:
    """Predicts recordings without the rule and with it, and prints a row a kind."""

    def __init__(self, recognizer: FrameRecognizer):
        self.recognizer, self.rule = recognizer, recognizer.min_confidence

    def segments(self, samples: np.ndarray) -> list[list[Segment]]:
        """The chords without the rule, and with it."""
        model, found = self.recognizer, []
        tuning = tuning_of(samples, model.settings.rate)
        analysis = analyse(model.settings, model.takes_margin, samples, tuning)
        analysis = analysis._replace(blocks=list(analysis.blocks))
        for model.min_confidence in (0.0, self.rule):
            found.append(model.chords(analysis).segments)
        return found

    def row(self, kind: str, recordings: Iterator[Labelled]) -> None:
        """Print the shares of N of a kind of recordings, and majmin where they have labels."""
        none, seconds, count = np.zeros(2), 0.0, 0
        scores: list[list[dict]] = [[], []]
        for samples, labels in recordings:
            seconds += len(samples) / self.recognizer.settings.rate
            count += 1
            for number, segments in enumerate(self.segments(samples)):
                none[number] += seconds_of_none(segments)
                if labels:
                    scores[number].append(metrics.chord_scores(labels, segments))
        cells = f"{kind:32}{count:5}{seconds / 60:7.1f}"
        cells += "".join(f"{one:8.3f}" for one in none / max(seconds, 1e-9))
        if scores[0]:
            majmin = [metrics.aggregate_scores(rows)["corpus"]["majmin"] for rows in scores]
            cells += f"{majmin[0]:10.4f}{majmin[1]:8.4f}{majmin[1] - majmin[0]:+9.4f}"
        print(cells, flush=True)


def seconds_of_none(segments: Sequence[Segment]) -> float:
    """Seconds without chord."""
    return sum(one.end - one.start for one in segments if one.label == "N")


def without_labels(recordings: Iterator[np.ndarray]) -> Iterator[Labelled]:
    """Recordings of which nothing is known."""
    return ((samples, ()) for samples in recordings)


def between(
    songs: Sequence[tuple[chords.Item, Source]], part: str, rate: int
) -> Iterator[Labelled]:
    """Songs with speech before and applause after them, which are labelled N."""
    samples = round(AROUND * rate)
    speech, claps = list(other_sounds.espeak(part, rate)), list(other_sounds.applause(part, rate))
    for number, (item, source) in enumerate(songs):
        spoken, clapped = (some[number % len(some)][:samples] for some in (speech, claps))
        end = len(source.clean) / rate
        inside = [
            Segment(one.start + AROUND, min(one.end, end) + AROUND, one.label)
            for one in chords.segments(item)
        ]
        labels = [
            Segment(0.0, inside[0].start, "N"),
            *inside,
            Segment(inside[-1].end, end + 2 * AROUND, "N"),
        ]
        yield np.concatenate([spoken, source.clean, clapped]), labels


def part_of_clips(items: Sequence[chords.Item], part: str) -> list[chords.Item]:
    """Every other clip, by the letters of its name."""
    return [item for item in items if (sum(map(ord, item.id)) % 2 == 1) == (part == "valid")]


def measure(chosen: argparse.Namespace) -> None:
    """Print the table."""
    part, data = chosen.part, chosen.data
    paths = locate([chosen.checkpoint], "chords")
    recognizer = load(paths)
    rate, comparison = recognizer.settings.rate, Comparison(recognizer)
    runs = splits_of([EnsembleSpec.of(paths, "chords", None, ("mean", "geometric"))])
    items = songs_of(chords.discover(data / "pop909"), part, runs, chosen.songs)
    songs = [(item, Source(item, rate, 0, chosen.soundfont)) for item in items]
    some = songs[:: max(1, len(songs) // CONDITION_SONGS)][:CONDITION_SONGS]
    print(f"{part}; N below a confidence of {comparison.rule:g}")
    print(f"{'':32}{'n':>5}{'min':>7}{'N':>8}{'rule':>8}{'majmin':>10}{'rule':>8}")
    for kind, recordings in other_sounds.sounds(part, rate, data, chosen.soundfont).items():
        comparison.row(kind, without_labels(recordings))
    names = [item.audio.name for item, _ in some]
    for kind, recordings in other_sounds.few_notes(part, rate, data, names).items():
        comparison.row(kind, without_labels(recordings))
    for target in TARGETS:
        items = chords.discover(data / target.folder, target.selector).items
        clips = [(samples_of(one, rate), one) for one in part_of_clips(items, part)]
        labelled = ((x, chords.segments(one, len(x) / rate)) for x, one in clips)
        comparison.row(target.folder, labelled)
    if part == "test":
        produced = sorted((data / "songs").rglob("*.ogg"))
        comparison.row("songs", without_labels(audio_files.read(one, rate) for one in produced))
    comparison.row("clean", ((one.clean, chords.segments(item)) for item, one in songs))
    comparison.row("spoken intro, applause", between(some, part, rate))
    for name in OVER:
        over = ((CONDITIONS[name](one), chords.segments(item)) for item, one in some)
        comparison.row(name, over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path(SHIPPED))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", choices=("valid", "test"), default="valid")
    parser.add_argument("--songs", type=int, default=36, help="how many songs, evenly spread")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT, help="one no training used")
    try:
        measure(parser.parse_args())
    except ValueError as error:
        raise SystemExit(f"chord_no_music.py: {error}") from None


if __name__ == "__main__":
    main()
