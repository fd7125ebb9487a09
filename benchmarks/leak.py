"""What a long run leaves in memory: MLX's arrays and the process after 200 steps and at the end.

A tiny model with dropout, batch norm, a running average, metrics, a log, validation and a loading
thread. Nothing may grow but the log's rows, some bytes each. Run:
python benchmarks/leak.py [--steps 20000] [--quick]
"""

import argparse
import gc
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

from audiotrain import DataLoader, OptimizerConfig, TrainModule, Trainer  # isort: skip
import mlx.core as mx  # after audiotrain, which loads the BLAS
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain.train.callbacks import Callback

FIRST = 200  # steps until all is allocated that a run needs


class Network(TrainModule):
    """As small as it gets, but with every kind of state."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, 32), nn.BatchNorm(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4)
        )

    def compute_loss(self, batch):
        x, y = batch
        logits = self.layers(x)
        accuracy = mx.mean(mx.argmax(logits, axis=-1) == y)
        return mx.mean(nn.losses.cross_entropy(logits, y)), {"accuracy": accuracy}

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=lambda step: 1e-3 / (1 + 1e-4 * step)))


def process_megabytes() -> float:
    """Memory of this process now, or its peak where the system does not report it."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


class Memory(Callback):
    """Measures after `FIRST` steps and at the end."""

    def __init__(self, steps: int):
        self.steps, self.found = steps, {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step in (FIRST, self.steps):
            mx.eval(trainer.step.state())
            mx.synchronize()
            gc.collect()
            numbers = mx.get_active_memory(), process_megabytes(), threading.active_count()
            self.found[trainer.global_step] = (*numbers, len(trainer.history.log))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="5000 steps")
    options = parser.parse_args()
    steps = 5000 if options.quick else options.steps
    if steps <= FIRST:
        parser.error(f"--steps {steps}, expected more than {FIRST}")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 16)).astype(np.float32)
    items = list(zip(x, x[:, :4].argmax(axis=1), strict=True))
    memory, began = Memory(steps), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=steps,
            ema_decay=0.999,
            gradient_clip_val=1.0,
            callbacks=[memory],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            Network(),
            DataLoader(items, 16, shuffle=True, num_workers=1),
            DataLoader(items[:64], 16),
        )
    print(f"{steps} steps in {time.perf_counter() - began:.0f} s")
    for step, (arrays, process, threads, rows) in memory.found.items():
        print(
            f"after {step:>6} steps: MLX {arrays / 1e3:9.1f} KB, process {process:7.1f} MB, "
            f"{threads} threads, {rows} rows of the log"
        )
    (first_arrays, first_process, *_), (arrays, process, *_) = memory.found.values()
    grown = (process - first_process) * 1e6 / (steps - FIRST)
    print(f"grown: MLX by {arrays - first_arrays} bytes, the process by {grown:.0f} bytes a step")


if __name__ == "__main__":
    main()
