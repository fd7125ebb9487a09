"""How long training waits for its input: the chord recipe's windows and model, by workers.

Printed for 0, 1 and 2 loading threads: time of a step, share of it spent waiting for the batch, and
the ratio to steps whose batch is there already. Run:
python benchmarks/input_pipeline.py [--data FOLDER] [--steps 20] [--songs 6] [--quick]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from audiotrain import DataLoader, Trainer  # isort: skip (BLAS before MLX)
import mlx.core as mx

from audiotrain.datasets import chords
from audiotrain.datasets.summary import ProblemLog
from audiotrain.models.chords import ChordModelSettings
from audiotrain.recipes.chords import dataset
from audiotrain.recipes.chords import songs as chord_data
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import FeatureSettings, Song, SongLibrary
from audiotrain.recipes.chords.training import ChordTraining, LossSettings, OptimizationSettings

SKIPPED = 2  # steps in which the step is traced and the queue fills


class Clocked:
    """A loader that notes when each batch was asked for and when it came."""

    def __init__(self, batches: Iterable):
        self.batches, self.asked, self.came = batches, [], []

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator:
        stream = iter(self.batches)
        while True:
            asked = time.perf_counter()
            batch = next(stream, None)
            if batch is None:
                return
            self.asked.append(asked)
            self.came.append(time.perf_counter())
            yield batch

    def step_and_waiting(self) -> tuple[float, float]:
        """Median seconds from batch to batch, and the share of all that time spent waiting."""
        asked, came = self.asked[SKIPPED:], self.came[SKIPPED:]
        steps = [after - before for before, after in zip(asked, asked[1:], strict=False)]
        waited = [end - begin for begin, end in zip(asked, came, strict=True)][:-1]
        return statistics.median(steps), sum(waited) / sum(steps)


def songs_of(settings: argparse.Namespace, features: FeatureSettings) -> list[list[Song]]:
    """Recordings of a folder, or composed songs."""
    with tempfile.TemporaryDirectory() as cache:
        library = SongLibrary(features, Path(cache))
        if settings.data is None:
            return [[library.composed(number, 60.0, [])] for number in range(settings.songs)]
        items = chords.discover(settings.data).items[: settings.songs]
        return [[song] for song in chord_data.load_songs(library, items, ProblemLog(None))]


def measure(batches: Iterable, steps: int) -> tuple[float, float]:
    """`Clocked.step_and_waiting` of a fit on the batches."""
    clocked, statistics_of_features = Clocked(batches), (-50.0, 20.0)
    module = ChordTraining(
        FeatureSettings(),
        ChordModelSettings(),
        LossSettings(),
        OptimizationSettings(),
        statistics_of_features,
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            max_steps=steps,
            gradient_clip_val=1.0,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, clocked)
    return clocked.step_and_waiting()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of audio and chord labels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--songs", type=int, default=6, help="songs composed, or read of --data")
    parser.add_argument("--quick", action="store_true", help="8 steps on 2 songs")
    settings = parser.parse_args()
    if settings.quick:
        settings.steps, settings.songs = 8, 2
    if settings.steps < SKIPPED + 3:
        parser.error(f"--steps {settings.steps}, expected {SKIPPED + 3} or more")
    recipe, features = TrainSettings(), FeatureSettings()
    songs = songs_of(settings, features)
    batch_size = recipe.batch_size
    some = len(dataset.Windows(songs, recipe.window, features))
    repeats = -(-settings.steps * batch_size // some)  # an epoch as long as the measurement
    windows = dataset.Windows(songs * repeats, recipe.window, features)
    print(f"{len(songs)} songs, batches of {batch_size} windows")
    ready = next(iter(DataLoader(windows, batch_size)))
    mx.eval(ready)
    peer, _ = measure([ready] * settings.steps, settings.steps)
    print(f"batch already there   {1e3 * peer:8.1f} ms/step")
    for workers in (0, 1, 2):
        loader = DataLoader(windows, batch_size, shuffle=True, num_workers=workers, drop_last=True)
        seconds, waiting = measure(loader, settings.steps)
        print(
            f"{workers} loading threads     {1e3 * seconds:8.1f} ms/step, waiting {waiting:6.1%}, "
            f"ratio {seconds / peer:.3f}"
        )


if __name__ == "__main__":
    main()
