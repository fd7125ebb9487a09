"""What Viterbi, tuning, transposition and ensembles gain on unseen songs, and what each costs.

Songs are those of --data that no run of --checkpoint was trained or validated on;
MIDI is rendered to WAV first, with --rendering 1 on randomly chosen instruments in another tuning.
Each way goes from files to chords. A cross-validation of some of the songs leaves others unseen:

    python -m audiotrain.recipes.chords cv --data POP909 --songs 100 --output runs/cv
    python benchmarks/chord_cv.py --checkpoint runs/cv --data POP909 [--songs 20] [--rendering 1]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from chord_ensemble import write_songs

from audiotrain import config
from audiotrain.datasets import chords
from audiotrain.evaluation import chords as metrics
from audiotrain.features.tuning import tuning_of
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords import ensemble
from audiotrain.recipes.chords.predictor import FrameRecognizer, Recognizer
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import SongLibrary
from audiotrain.recipes.common.checkpoints import best_checkpoint, resolve
from audiotrain.recipes.common.ensemble import EnsembleSpec
from audiotrain.recipes.common.split import read_split
from audiotrain.train import checkpoint, weight_averaging
from audiotrain.utils.progress import progress

SHOWN = ("root", "thirds", "sevenths", "tetrads", "majmin", "mirex", "seg")


def unseen(corpus: chords.Corpus, runs: Sequence[Path], count: int) -> list[chords.Item]:
    """Up to `count` songs, evenly spread, of those that no run was trained or validated on."""
    splits = [read_split(run / "split.json") for run in runs]
    seen = {name for split in splits for part in ("train", "valid") for name in split[part]}
    items = [item for item in corpus.items if item.id not in seen and item.audio is not None]
    if not items:
        raise SystemExit(f"{corpus.folder}: all {len(corpus.items)} songs were trained on")
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def souped(runs: Sequence[Path], folder: Path) -> Recognizer | None:
    """A recognizer with the mean of the runs' weights; None when they are of different kinds."""
    paths = [best_checkpoint(run) for run in runs]
    try:
        arrays = weight_averaging.soup(paths)
    except ValueError:
        return None
    meta = {"config": checkpoint.load_meta(paths[0])["config"]}
    checkpoint.save(folder / "soup", {"model": arrays}, meta)
    recognizer, first = Recognizer.from_checkpoint(folder / "soup"), Recognizer.from_checkpoint
    recognizer.type_offsets = first(runs[0]).type_offsets
    recognizer.switching_cost = first(runs[0]).switching_cost
    recognizer.min_confidence = first(runs[0]).min_confidence
    return recognizer


def ways(runs: list[Path], folder: Path) -> Iterator[tuple[str, FrameRecognizer, bool, bool]]:
    """(name, recognizer, Viterbi?, tuned?) of each way to recognise."""
    one = Recognizer.from_checkpoint(runs[0])
    transposed = ensemble.Ensemble([one], shifts=ensemble.SHIFTS)
    yield "one run, argmax", one, False, False
    yield "one run, Viterbi", one, True, False
    yield "+ tuning", one, True, True
    yield "+ transposition", transposed, True, False
    yield "+ both", transposed, True, True
    if len(runs) == 1:
        return
    for number, run in enumerate(runs[1:], start=1):
        yield f"run {number}, Viterbi", Recognizer.from_checkpoint(run), True, False
    members = tuple((run,) for run in runs)
    for how in ("mean", "geometric"):
        joined = ensemble.from_spec(EnsembleSpec(members, join=how))
        yield f"{len(runs)} runs, {how}", joined, True, False
    yield "+ tuning", joined, True, True
    soup = souped(runs, folder)
    if soup is not None:
        yield f"soup of {len(runs)} runs", soup, True, False


def measure(
    songs: list[tuple[Path, list[Segment]]], recognizer: FrameRecognizer, viterbi: bool, tuned: bool
) -> tuple[dict, float]:
    """Corpus scores, and seconds that it took; the first song is predicted once before."""
    scores, seconds = [], 0.0
    recognizer.predict(songs[0][0], viterbi)
    for path, reference in songs:
        begun = time.perf_counter()
        tuning = tuning_of(path, recognizer.settings.rate) if tuned else 0.0
        found = recognizer.predict(path, viterbi, tuning=tuning).segments
        seconds += time.perf_counter() - begun
        scores.append(metrics.chord_scores(reference, found))
    return metrics.aggregate_scores(scores)["corpus"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True, help="runs, or a cv")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--rendering", type=int, default=0)
    chosen = parser.parse_args()
    runs = [run for runs in resolve(chosen.checkpoint, "chords") for run in runs]
    items = unseen(chords.discover(chosen.data), runs, chosen.songs)
    trained = config.load(TrainSettings, ["--config", str(runs[0] / "config.yaml")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = SongLibrary(trained.features, folder / "cache", trained.seed)
        songs = write_songs(items, library, folder, chosen.rendering)
        tuning_of(songs[0][0], trained.features.rate)  # librosa compiles at its first call
        rows = []
        for way, *how in progress(list(ways(runs, folder)), "measuring"):
            rows.append((way, *measure(songs, *how)))
    hours = rows[0][1]["seconds"] / 3600
    print(f"{f'{len(songs)} unseen songs, {hours:.1f} h':24}", end="")
    print("".join(f"{key:>9}" for key in SHOWN) + f"{'x real time':>13}{'cost':>7}")
    plain = rows[1][2]
    for way, scores, seconds in rows:
        shown = "".join(f"{scores[key]:9.3f}" for key in SHOWN)
        print(f"{way:24}{shown}{scores['seconds'] / seconds:13.0f}{seconds / plain:7.2f}")


if __name__ == "__main__":
    main()
