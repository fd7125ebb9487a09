"""Trained chord models on songs with drums, speech, noise and more over them: what each costs.

Songs are MIDI files of --data, rendered as written and in every condition; a strummed guitar plays
songs of its own. Shown are mir_eval's scores, and how far they are above those of the clean songs:

    python benchmarks/chord_robustness.py [--checkpoint RUN ...] --data POP909 \\
        [--split valid|test|FILE] [--songs 10] [--output scores.json] [--recordings DATA]

RUN is a run, an ensemble, a cross-validation or a word, as for `predict`; the default is the
shipped model. --split takes the songs of a part that the splits of all runs have in common, or
those whose ids FILE lists, one a line. `--songs 6` is enough to choose on validation songs. The
features of each condition are cached, so that a further model takes seconds. The tuning is
estimated as by `predict`; --no-tuning takes A = 440 Hz.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from chord_conditions import (
    CONDITIONS,
    GUITAR,
    GUITAR_SONGS,
    PLAYED,
    SPOKEN,
    Bench,
    KeptOnsets,
    soundfont,
)
from chord_transfer import TARGETS
from degradations import require_espeak

from audiotrain.datasets import chords
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import chords as metrics
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.ensemble import Join, from_spec
from audiotrain.recipes.chords.predictor import Analysis, FrameRecognizer
from audiotrain.recipes.chords.settings import CACHE
from audiotrain.recipes.chords.songs import SongLibrary, load_songs
from audiotrain.recipes.common.checkpoints import SHIPPED
from audiotrain.recipes.common.ensemble import EnsembleSpec
from audiotrain.recipes.common.exported import is_exported
from audiotrain.recipes.common.split import SPLIT, part_of
from audiotrain.utils.files import write_json
from audiotrain.utils.process_pool import map_in_processes
from audiotrain.utils.progress import progress

SHOWN = ("root", "majmin", "tetrads", "mirex", "seg")
SOUNDFONT = Path("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2")
Scores = dict[str, dict[str, float]]  # corpus scores by condition


def songs_of(corpus: chords.Corpus, split: str, runs: list[Path], count: int) -> list[chords.Item]:
    """Up to `count` MIDI songs, evenly spread, of a part of the runs or of a file of ids."""
    if split in ("valid", "test"):
        items = part_of(runs, corpus, split, "songs")
    else:
        ids = Path(split).read_text("utf-8").split()
        known = {item.id: item for item in corpus.items}
        if missing := [one for one in ids if one not in known]:
            raise ValueError(f"{split}: no {missing[0]} in {corpus.folder}")
        items = [known[one] for one in ids]
    items = [item for item in items if item.midi]
    if not items:
        raise ValueError(f"--split {split}: no MIDI files among its songs in {corpus.folder}")
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def conditions_of(items: list[chords.Item], bench: Bench, names: list[str]) -> list[tuple]:
    """(condition, song) pairs in the order of the table, after all are analysed in the cache."""
    usual = [name for name in names if name in CONDITIONS]
    jobs: list[tuple[list[str], chords.Item | int]] = [(usual, item) for item in items if usual]
    if GUITAR in names:
        jobs += [([GUITAR], number) for number in range(GUITAR_SONGS)]
    prepared = map_in_processes(bench.prepare, jobs, name=lambda job: str(job[1]))
    for _ in progress(prepared, "preparing", total=len(jobs), unit=" songs"):
        pass
    return [(name, song) for name in names for own, song in jobs if name in own]


def score_conditions(recognizer: FrameRecognizer, bench: Bench, pairs: list[tuple]) -> Scores:
    """Corpus scores in each condition."""
    songs: dict[str, list] = {}
    for condition, song in progress(pairs, "predicting"):
        analysis = bench.analysis(song, condition)
        found = predicted(recognizer, analysis)
        songs.setdefault(condition, []).append(metrics.chord_scores(bench.reference(song), found))
    return {name: metrics.aggregate_scores(rows)["corpus"] for name, rows in songs.items()}


def predicted(recognizer: FrameRecognizer, analysis: Analysis) -> list[Segment]:
    """The chords of an analysis as `predict` writes them."""
    return recognizer.chords(analysis).segments


def score_recordings(recognizer: FrameRecognizer, data: Path, cache: Path, tuned: bool) -> Scores:
    """Corpus scores of the folders of real recordings in `data`, as `evaluate` has them."""
    scores = {}
    library = SongLibrary(recognizer.settings, cache)
    for target in TARGETS:
        folder = data / target.folder
        if not folder.is_dir():
            print(f"{folder}: not there, left out", file=sys.stderr)
            continue
        corpus = chords.discover(folder, target.selector)
        songs = load_songs(library, corpus.items, ProblemLog(None), tuned=tuned)
        rows = []
        for song in progress(songs, target.folder):
            seconds = song.seconds(recognizer.settings)
            analysis = Analysis([recognizer.inputs(song)], KeptOnsets(song.onsets), seconds)
            found = predicted(recognizer, analysis)
            rows.append(metrics.chord_scores(song.segments, found))
        scores[target.folder] = metrics.aggregate_scores(rows)["corpus"]
    return scores


def table(by_run: dict[str, Scores]) -> str:
    """A row a condition, the runs side by side: scores, and differences from the clean songs."""
    names = list(next(iter(by_run.values())))
    width, size = max(map(len, names)), 12 * len(SHOWN)
    keys = "".join(f"{key:12}" for key in SHOWN)
    lines = [
        f"{'':{width}}  " + "  ".join(f"{run[-size:]:{size}}" for run in by_run),
        f"{'':{width}}  " + "  ".join(keys for _ in by_run),
    ]
    for name in names:
        cells = [row(scores, name) for scores in by_run.values()]
        lines.append(f"{name:{width}}  " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def row(scores: Scores, name: str) -> str:
    """The cells of a run in a condition."""
    cells = [f"{scores[name][key]:.3f}" for key in SHOWN]
    if name in CONDITIONS and name != "clean" and "clean" in scores:
        gains = [scores[name][key] - scores["clean"][key] for key in SHOWN]
        cells = [f"{cell}{gain:+.3f}" for cell, gain in zip(cells, gains, strict=True)]
    return "".join(f"{cell:12}" for cell in cells)


def splits_of(specs: list[EnsembleSpec]) -> list[Path]:
    """The folders that know their songs: exported models, and runs that have a split.json, also of
    checkpoints inside them."""
    folders = [folder for spec in specs for run in spec.runs for folder in (run, run.parent.parent)]
    return [one for one in folders if is_exported(one) or (one / SPLIT).is_file()]


def measure(chosen: argparse.Namespace) -> None:
    """Print the table, and write the file."""
    names = chosen.conditions or [*CONDITIONS, GUITAR]
    if set(names) & set(SPOKEN):
        require_espeak()
    if set(names) & set(PLAYED):
        soundfont(chosen.soundfont)
    cache = chosen.cache.expanduser()
    specs = [EnsembleSpec.of([path], "chords", None, get_args(Join)) for path in chosen.checkpoint]
    corpus = chords.discover(chosen.data)
    items = songs_of(corpus, chosen.split, splits_of(specs), chosen.songs)
    by_run: dict[str, Scores] = {}
    for path, spec in zip(chosen.checkpoint, specs, strict=True):
        recognizer = from_spec(spec)
        features, margin = recognizer.settings, recognizer.takes_margin
        bench = Bench(features, margin, cache, chosen.seed, chosen.soundfont, chosen.tuning)
        scores = score_conditions(recognizer, bench, conditions_of(items, bench, names))
        if chosen.recordings is not None:
            scores |= score_recordings(recognizer, chosen.recordings, cache, chosen.tuning)
        by_run[str(path)] = scores
    hours = by_run[str(chosen.checkpoint[0])][names[0]]["seconds"] / 3600
    tuned = "their tuning estimated" if chosen.tuning else "tuning not estimated"
    print(f"{len(items)} songs of {chosen.split}, {hours:.1f} h each condition, {tuned}")
    print(table(by_run))
    if chosen.output is not None:
        about = {"data": str(chosen.data), "split": chosen.split, "seed": chosen.seed}
        about |= {"tuning": chosen.tuning, "songs": [item.id for item in items]}
        write_json(chosen.output, about | {"scores": by_run})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[Path(SHIPPED)], help="models to compare"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--split", default="valid", help="valid, test, or a file of song ids")
    parser.add_argument("--songs", type=int, default=10, help="how many songs, evenly spread")
    parser.add_argument("--output", type=Path, help="JSON file of all scores")
    parser.add_argument("--recordings", type=Path, help="folder of real recordings to score, too")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT, help="one no training used")
    parser.add_argument(
        "--tuning",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="estimate the tuning of each song, as predict does",
    )
    parser.add_argument("--conditions", nargs="+", choices=[*CONDITIONS, GUITAR])
    parser.add_argument("--seed", type=int, default=0, help="of all that is added to songs")
    parser.add_argument("--cache", type=Path, default=CACHE)
    try:
        measure(parser.parse_args())
    except ValueError as error:
        raise SystemExit(f"chord_robustness.py: {error}") from None


if __name__ == "__main__":
    main()
