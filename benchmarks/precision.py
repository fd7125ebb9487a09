"""bf16-mixed beside float32: the chord recipe's default songs, from the same weights.

Prints the loss of every tenth step of both, the largest difference of their losses, and the ratio
of seconds; on a CPU, where MLX has no fast products of bfloat16, a warning says that it is slow.
Exit code 1 where a loss differs by 2 % or more.
Run: python benchmarks/precision.py [--steps 50] [--batch-size 24]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from audiotrain.recipes.chords.recipe import ChordRecipe  # isort: skip (BLAS before MLX)
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.common import run
from audiotrain.train.callbacks import Callback

LIMIT = 0.02


class Losses(Callback):
    """The loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.values.append(outputs["loss"])


def train(settings: TrainSettings, parts, folder: Path) -> tuple[list[float], float]:
    """The losses of all steps, and the seconds of a step after the first five."""
    recipe, losses = ChordRecipe(settings), Losses()
    experiment = recipe.experiment(parts, folder)
    trainer, loaders = run.make_trainer(recipe, experiment, folder)
    trainer.callbacks = [losses]
    times = []
    losses.on_train_batch_start = lambda *_: times.append(time.perf_counter())
    trainer.fit(experiment.module, loaders[0])
    return losses.values, (times[-1] - times[5]) / (len(times) - 6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=24)
    options = parser.parse_args()
    found, parts = {}, None
    for precision in ("32-true", "bf16-mixed"):
        settings = TrainSettings(
            steps=options.steps, batch_size=options.batch_size, precision=precision
        )
        with tempfile.TemporaryDirectory() as folder:
            parts = parts or ChordRecipe(settings).read(Path(folder))
            found[precision] = train(settings, parts, Path(folder))
        print(f"{precision}: {found[precision][1]:.3f} s a step", flush=True)
    (exact, seconds), (rounded, slower) = found.values()
    print("step   float32      bf16   difference")
    differences = [abs(b - a) / a for a, b in zip(exact, rounded, strict=True)]
    for step in range(9, len(exact), 10):
        shares = f"{exact[step]:9.4f} {rounded[step]:9.4f} {100 * differences[step]:10.2f} %"
        print(f"{step + 1:4} {shares}")
    print(
        f"largest difference {100 * max(differences):.2f} % (limit {100 * LIMIT:.0f} %), "
        f"bf16 takes {slower / seconds:.1f} times as long"
    )
    return int(max(differences) >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
