"""What the Trainer costs: its fit against a bare compiled MLX loop on the same model and batches.

Three models: a tiny one, the chord recipe's, and one of 50 million parameters. Trainer and loops
run in this process, interleaved; printed are medians and ratios. The Trainer clips gradients,
leaves out steps that are not finite (a choice between old and new for each number of the state),
and logs. The bare loop does none of it, and waits for each step; the even one clips, and computes
while the next batch is made, as the Trainer does. Run:
python benchmarks/trainer_overhead.py [--rounds 7] [--quick]
"""

import argparse
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
from audiotrain.recipes.chord_settings import TrainSettings
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
        rng, settings = np.random.default_rng(0), TrainSettings()
        shape = settings.batch_size, settings.window
        self.steps = steps
        self.features = rng.normal(size=(*shape, settings.features.bins)).astype(np.float32)
        self.classes = rng.integers(12, size=(*shape, 3))

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


def now() -> np.ndarray:
    """Seconds of the clock, and of CPU in all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def bare_seconds(step, state, batches, overlapped: bool) -> np.ndarray:
    """Seconds of one pass: mx.eval after each step, or async with a queue of one."""
    began = now()
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
    return now() - began


class Clock:
    """Reads the time around the batches of a fit, so that building is not counted."""

    def __init__(self, batches):
        self.batches = batches
        self.set_epoch = self.begin

    def begin(self, _):
        self.began = now()

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
                    outer.times.append(now() - clock.began)

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
    """Print one line; the Trainer's rounds and the loops take turns."""
    steps, model = len(batches), make_model()
    plain, clipped = bare_step(make_model(), False), bare_step(make_model(), True)
    bare, even = [], []

    def turn():
        bare.append(bare_seconds(*plain, batches, overlapped=False))
        even.append(bare_seconds(*clipped, batches, overlapped=True))

    fit = Fit(model, batches, True, rounds + 1, turn)

    def median(times):
        return np.median(times[1:], axis=0) / steps * 1e3  # milliseconds; the first round traces

    ours, bare, even = median(fit.times), median(bare), median(even)
    size = sum(a.size for _, a in tree_flatten(model.parameters())) / 1e6
    head = f"{name:<8}{size:>8.2f} M"
    for unit, o, b, e in zip(("clock", "CPU"), ours, bare, even, strict=True):
        print(f"{head:<18}{unit:<6}{o:>10.3f}{b:>11.3f}{e:>11.3f}{o / b:>12.3f}{o / e:>12.3f}")
        head = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="short rounds, for a first look")
    parser.add_argument("--only", nargs="+", help="names of models: tiny, chords, large")
    options = parser.parse_args()
    rounds, share = (2, 4) if options.quick else (options.rounds, 1)
    print(f"{'':24}{'milliseconds a step':>32}{'Trainer to':>24}")
    print(
        f"{'model':<8}{'parameters':>10}{'':6}{'Trainer':>10}{'bare loop':>11}{'even loop':>11}"
        f"{'bare loop':>12}{'even loop':>12}"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, make_model, batches in (
            ("tiny", lambda: Network(64, 2), Batches(400 // share, 64, 64)),
            ("chords", chord_model, Frames(8 // share)),
            ("large", lambda: Network(2048, 12), Batches(4 // share, 256, 2048)),
        ):
            if options.only is None or name in options.only:
                compare(name, make_model, batches, rounds)


if __name__ == "__main__":
    main()
