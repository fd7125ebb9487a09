"""Which frame model learns most in the same time: each is trained for as many minutes on the same
songs, then scored on the same unseen songs; the last column is its mirex beside the default's.

Run: python benchmarks/chord_architectures.py [--data FOLDER] [--minutes 3] [--only btc conformer]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from audiotrain.recipes.chords import predictor

from audiotrain.recipes.chords import scoring  # isort: skip (BLAS before MLX)
import mlx.core as mx
import numpy as np

from audiotrain.models.chords import ChordModelSettings
from audiotrain.recipes.chords.recipe import ChordRecipe
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import first_renderings
from audiotrain.recipes.common.run import make_trainer
from audiotrain.train.callbacks import Callback

CANDIDATES = {
    "equivariant (default)": ChordModelSettings(),
    "equivariant, no pools": ChordModelSettings(blocks=8, pools=0),
    "relu attention, conv1d FFN": ChordModelSettings("relu-transformer", 256, 6, 4, 512, 3),
    "transformer, relu FFN": ChordModelSettings("transformer", 256, 6, 4, 1024, 1),
    "conv1d only": ChordModelSettings("conv", 256, 8, hidden=256, kernel=5),
    "conformer": ChordModelSettings("conformer", 192, 6, 4, 384, 15),
    "btc": ChordModelSettings("btc", 128, 8, 4, 128, 3, patch=1),
}
SHOWN = ("root", "majmin", "tetrads", "mirex", "seg")
WARM_UP, TIMED = 4, 16  # steps


class Clock(Callback):
    """When each step began."""

    def __init__(self):
        self.marks: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.marks.append(time.perf_counter())


def seconds_per_step(settings: TrainSettings, parts: dict) -> float:
    """Median time of TIMED steps after WARM_UP, without validation."""
    short = replace(settings, steps=WARM_UP + TIMED, validations=1)
    with tempfile.TemporaryDirectory() as folder:
        recipe = ChordRecipe(short)
        experiment = recipe.experiment(parts, Path(folder))
        trainer, (train_loader, _) = make_trainer(recipe, experiment, Path(folder))
        trainer.callbacks.append(clock := Clock())
        trainer.fit(experiment.module, train_loader, None)
    return statistics.median(np.diff(clock.marks[WARM_UP:]))


def trained_scores(settings: TrainSettings, parts: dict) -> tuple[dict, float]:
    """Scores of a run by Viterbi, and the seconds that its training took."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = ChordRecipe(settings)
        experiment = recipe.experiment(parts, Path(folder))
        trainer, loaders = make_trainer(recipe, experiment, Path(folder))
        begun = time.perf_counter()
        trainer.fit(experiment.module, *loaders)
        took = time.perf_counter() - begun
        recognizer = predictor.Recognizer.from_checkpoint(Path(folder))
    scores = scoring.score(recognizer, first_renderings(parts["test"]), "scoring")
    return scores.as_dict()["viterbi"]["corpus"], took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pop909"))
    parser.add_argument("--cache", type=Path, default=TrainSettings.cache)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training each")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--only", nargs="*", help="words that a candidate's name contains")
    options = parser.parse_args()
    base = TrainSettings(
        data=options.data,
        cache=options.cache,
        valid=0.02,
        test=0.0825,
        renderings=2,
        validations=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        parts = ChordRecipe(base).read(Path(folder))
    rows = {}
    for name, model in CANDIDATES.items():
        if options.only and not any(word in name for word in options.only):
            continue
        mx.clear_cache()
        optimization = replace(
            base.optimization, learning_rate=options.learning_rate, ema_decay=0.99
        )
        settings = replace(base, model=model, optimization=optimization)
        step = seconds_per_step(settings, parts)
        settings = replace(settings, steps=max(20, round(60 * options.minutes / step)))
        scores, took = trained_scores(settings, parts)
        rows[name] = (step, settings.steps, took, scores)
        first = next(iter(rows.values()))[3]["mirex"]
        shown = "  ".join(f"{key} {scores[key]:.3f}" for key in SHOWN)
        print(
            f"{name:27} {1000 * step:4.0f} ms  {settings.steps:5d} steps  {took:4.0f} s  {shown}"
            f"  {scores['mirex'] / first:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
