"""What the Trainer costs: its fit against a bare compiled MLX loop on the same model and batches.

Three models: a tiny one, the chord recipe's, and one of 50 million parameters. Trainer and loops
run in this process, interleaved; printed are medians and ratios. The Trainer clips gradients,
leaves out steps that are not finite (a choice between old and new for each number of the state),
and logs. The bare loop does none of it, and waits for each step; the even one clips, and computes
while the next batch is made, as the Trainer does. "loading": batches are collated from items, in
the loops by hand, for the Trainer by its DataLoader with one worker; "ready": they lie in memory.
Run: python benchmarks/trainer_overhead.py [--rounds 7] [--quick] [--only tiny] [--no-clipping]
"""

import argparse
import tempfile
import time
import warnings

from audiotrain import OptimizerConfig, TrainModule, Trainer  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from audiotrain.models.chords import ChordModelSettings
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.chords.training import ChordTraining, LossSettings, OptimizationSettings
from audiotrain.train.callbacks import Callback
from audiotrain.train.data.loader import DataLoader, Dataset


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
        x, y = batch["x"], batch["y"]
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


class Vectors(Dataset):
    """Items (width,) and their class."""

    def __init__(self, items: int, width: int):
        rng = np.random.default_rng(0)
        self.vectors = rng.normal(size=(min(items, 4096), width)).astype(np.float32)
        self.classes = self.vectors[:, :10].argmax(axis=1).astype(np.int32)
        self.items = items

    def __len__(self):
        return self.items

    def __getitem__(self, index):
        index %= len(self.vectors)
        return {"x": self.vectors[index], "y": self.classes[index]}


class Frames(Dataset):
    """Windows of the chord recipe with random content."""

    def __init__(self, items: int):
        rng, settings = np.random.default_rng(0), TrainSettings()
        shape = (64, settings.window)
        self.features = rng.normal(size=(*shape, settings.features.bins)).astype(np.float32)
        self.classes = rng.integers(12, size=(*shape, 3)).astype(np.int32)
        self.items = items

    def __len__(self):
        return self.items

    def __getitem__(self, index):
        index %= len(self.features)
        return {"features": self.features[index], "classes": self.classes[index]}


class ByHand:
    """Shuffled batches of a data set, as a loop without a framework makes them."""

    def __init__(self, dataset: Dataset, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self):
        return len(self.dataset) // self.batch_size

    def __iter__(self):
        order = np.random.default_rng(0).permutation(len(self.dataset))
        for number in range(len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            items = [self.dataset[int(row)] for row in rows]
            yield {key: mx.array(np.stack([item[key] for item in items])) for key in items[0]}


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

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        self.began = now()

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def fit_seconds(model, batches, epochs: int, clip: bool, turn) -> list[np.ndarray]:
    """Seconds of each epoch of one fit; `turn` is called before each."""
    clock, times = Clock(batches), []

    class Timer(Callback):
        def on_train_epoch_start(self, trainer, module):
            turn()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == len(batches) - 1:
                mx.eval(trainer.step.state())
                times.append(now() - clock.began)

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            max_epochs=epochs,
            callbacks=[Timer()],
            default_root_dir=folder,
            gradient_clip_val=1.0 if clip else None,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(model, clock)
    return times


def compare(
    name: str, make_model, dataset: Dataset, batch_size: int, rounds: int, clip: bool
) -> None:
    """Print two lines; the Trainer's epochs and the loops take turns."""
    by_hand = ByHand(dataset, batch_size)
    loader = DataLoader(
        dataset, batch_size, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    ready = list(by_hand)
    for kind, loops, trainers in (("loading", by_hand, loader), ("ready", ready, ready)):
        model = make_model()
        plain, clipped = bare_step(make_model(), False), bare_step(make_model(), True)
        bare, even = [], []

        def turn(plain=plain, clipped=clipped, bare=bare, even=even, loops=loops):
            bare.append(bare_seconds(*plain, loops, overlapped=False))
            even.append(bare_seconds(*clipped, loops, overlapped=True))

        times = fit_seconds(model, trainers, rounds + 1, clip, turn)
        columns = []
        for found in (times, bare, even):  # milliseconds a step; the first round traces
            columns.append(np.median(found[1:], axis=0) / len(by_hand) * 1e3)
        size = sum(a.size for _, a in tree_flatten(model.parameters())) / 1e6
        head = f"{name:<8}{size:>8.2f} M {kind:<9}"
        for unit, o, b, e in zip(("clock", "CPU"), *columns, strict=True):
            print(f"{head:<28}{unit:<6}{o:>9.3f}{b:>11.3f}{e:>11.3f}{o / b:>12.3f}{o / e:>12.3f}")
            head = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="short rounds, for a first look")
    parser.add_argument("--only", nargs="+", help="names of models: tiny, chords, large")
    parser.add_argument("--no-clipping", action="store_true", help="the Trainer clips nothing")
    options = parser.parse_args()
    rounds, share = (2, 4) if options.quick else (options.rounds, 1)
    print(f"{'':34}{'milliseconds a step':>31}{'Trainer to':>24}")
    print(
        f"{'model':<8}{'parameters, batches':<26}{'Trainer':>9}{'bare loop':>11}{'even loop':>11}"
        f"{'bare loop':>12}{'even loop':>12}"
    )
    chord_batch = TrainSettings().batch_size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, make_model, dataset, batch_size in (
            ("tiny", lambda: Network(64, 2), Vectors(400 * 64 // share, 64), 64),
            ("chords", chord_model, Frames(8 * chord_batch // share), chord_batch),
            ("large", lambda: Network(2048, 12), Vectors(4 * 256 // share, 2048), 256),
        ):
            if options.only is None or name in options.only:
                compare(name, make_model, dataset, batch_size, rounds, not options.no_clipping)


if __name__ == "__main__":
    main()
