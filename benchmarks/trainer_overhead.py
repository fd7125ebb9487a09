"""What the Trainer costs: its fit against a bare compiled MLX loop on the same model and batches.

Both run in this process, interleaved; printed are medians and the ratio. Run:
python benchmarks/trainer_overhead.py [--rounds 7]
"""

import argparse
import statistics
import tempfile
import time
import warnings

from audiotrain import OptimizerConfig, Trainer, TrainModule  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from audiotrain.callbacks import Callback
from audiotrain.models.chords import ChordModelSettings
from audiotrain.recipes.chord_data import FeatureSettings
from audiotrain.recipes.chord_training import ChordTraining, LossSettings, OptimizationSettings


class Network(TrainModule):
    """Layers of equal width with relu, normalised; as many matmuls as a small transformer."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.layers = [nn.Linear(width, width) for _ in range(depth)]
        self.norms = [nn.LayerNorm(width) for _ in range(depth)]
        self.head = nn.Linear(width, 10)

    def __call__(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + nn.relu(layer(norm(x)))
        return self.head(x)

    def compute_loss(self, batch):
        x, y = batch
        logits = self(x)
        loss = nn.losses.cross_entropy(logits, y, reduction="mean")
        return loss, {"accuracy": mx.mean(mx.argmax(logits, axis=-1) == y)}

    def configure_optimizers(self):
        return OptimizerConfig(optim.AdamW(learning_rate=1e-3, bias_correction=True))


def chord_model() -> ChordTraining:
    """What `python -m audiotrain.recipes.chords` trains."""
    return ChordTraining(
        FeatureSettings(),
        ChordModelSettings(),
        LossSettings(),
        OptimizationSettings(warmup_steps=1),
        (0.0, 1.0),
    )


class Frames:
    """Batches of the chord recipe with random content."""

    def __init__(self, steps: int):
        rng = np.random.default_rng(0)
        self.steps = steps
        self.features = rng.normal(size=(24, 108, 144)).astype(np.float32)
        self.classes = rng.integers(12, size=(24, 108, 3))

    def __len__(self):
        return self.steps

    def __iter__(self):
        for _ in range(self.steps):
            yield {"features": mx.array(self.features), "classes": mx.array(self.classes)}


class Batches:
    """NumPy batches made anew at each step, as a data set would: (items, width) and (items,)."""

    def __init__(self, steps: int, items: int, width: int):
        self.steps, self.items, self.width = steps, items, width
        self.source = np.random.default_rng(0).normal(size=(4 * items, width)).astype(np.float32)

    def __len__(self):
        return self.steps

    def __iter__(self):
        rng = np.random.default_rng(1)
        for _ in range(self.steps):
            rows = rng.integers(len(self.source), size=self.items)
            x = self.source[rows]
            yield mx.array(x), mx.array((x[:, :10]).argmax(axis=1).astype(np.int32))


def bare_step(model, clip: bool):
    """The usual compiled step of MLX's examples, optionally with norm clipping."""
    model.attach(Trainer(max_steps=1000, logger=False))  # for the schedule's length
    optimizer = model.configure_optimizers().corrected_optimizer()
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]
    mx.eval(state)
    loss_and_gradients = nn.value_and_grad(model, lambda batch: model.compute_loss(batch))

    def step(batch):
        (loss, metrics), gradients = loss_and_gradients(batch)
        if clip:
            gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return loss, metrics

    return mx.compile(step, inputs=state, outputs=state), state


def bare_seconds(step, state, batches, overlapped: bool) -> float:
    """Seconds of one pass: mx.eval after each step, or async with a queue of one."""
    began = time.perf_counter()
    before = None
    for batch in batches:
        numbers = step(batch)
        if not overlapped:
            mx.eval(state, numbers)
            continue
        mx.async_eval(state, numbers)
        if before is not None:
            mx.eval(before)
        before = numbers
    mx.eval(state)
    return time.perf_counter() - began


class Clock:
    """Reads the time around the batches of a fit, so that building is not counted."""

    def __init__(self, batches):
        self.batches = batches
        self.set_epoch = self.begin

    def begin(self, _):
        self.began = time.perf_counter()

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Fit:
    """A Trainer kept warm: each call of `seconds` is one more epoch of the same fit."""

    def __init__(self, model, batches, clip: bool, rounds: int, turn):
        clock = Clock(batches)
        outer = self
        self.times = []

        class Timer(Callback):
            def on_train_epoch_start(self, trainer, module):
                turn()

            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                if batch_idx == len(batches) - 1:
                    mx.eval(trainer.step.state())
                    outer.times.append(time.perf_counter() - clock.began)

        with tempfile.TemporaryDirectory() as folder:
            Trainer(
                max_epochs=rounds,
                callbacks=[Timer()],
                default_root_dir=folder,
                gradient_clip_val=1.0 if clip else None,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(model, clock)


def compare(name: str, make_model, batches, rounds: int) -> None:
    """Print one line; the Trainer's rounds and the bare loops take turns."""
    steps, model = len(batches), make_model()
    plain, clipped = bare_step(make_model(), False), bare_step(make_model(), True)
    eager, overlapped, clipping = [], [], []

    def turn():
        eager.append(bare_seconds(*plain, batches, overlapped=False))
        overlapped.append(bare_seconds(*plain, batches, overlapped=True))
        clipping.append(bare_seconds(*clipped, batches, overlapped=True))

    fit = Fit(model, batches, True, rounds + 1, turn)

    def median(times):
        return statistics.median(times[1:]) / steps * 1e3  # milliseconds, first round traces

    trainer, bare = median(fit.times), median(eager)
    size = sum(a.size for _, a in tree_flatten(model.parameters())) / 1e6
    print(
        f"{name:<6}{size:6.2f} M  Trainer {trainer:7.3f} ms/step (clips, checks NaN, logs); "
        f"bare {bare:7.3f}, overlapped {median(overlapped):7.3f}, "
        f"overlapped+clip {median(clipping):7.3f};  "
        f"ratio to bare {trainer / bare:.3f}, to overlapped+clip {trainer / median(clipping):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare("tiny", lambda: Network(64, 2), Batches(300, 64, 64), rounds)
        compare("small", lambda: Network(256, 4), Batches(60, 512, 256), rounds)
        compare("mid", lambda: Network(512, 8), Batches(8, 1024, 512), rounds)
        compare("chords", chord_model, Frames(4), rounds)


if __name__ == "__main__":
    main()
