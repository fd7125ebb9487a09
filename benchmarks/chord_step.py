"""A whole training step of the chord model beside PyTorch's, in one run.

Forward, loss, backward, clipping and AdamW on the same weights, batch and settings. Each side has a
process of its own (two thread pools in one would disturb each other, and PyTorch would take our
BLAS) and they take turns of a few steps, as a training takes them; printed are medians of turns.
Compare seconds of CPU on a busy machine, with --threads 1.
Run: python benchmarks/chord_step.py [--rounds 15] [--threads 2]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from audiotrain.recipes.chords.settings import TrainSettings  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from audiotrain import backend
from audiotrain.backend.configuration import VARIABLE
from audiotrain.backend.ops import can_compile
from audiotrain.models.chords import FrameChordModel
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS, IGNORE
from audiotrain.recipes.chords.training import change_loss, criterion, with_root
from audiotrain.train.engine.update import gradient_norm

SETTINGS = TrainSettings()
RATE = 1e-4
SIDES = {"MLX": {}, "PyTorch": {VARIABLE: "off"}, "PyTorch compiled": {VARIABLE: "off"}}
STOCK = "MLX as installed"
STEPS = 8  # of a turn
PAUSE = 0.3  # seconds; the threads of a BLAS go on spinning for 0.2 s


def batch_of(size: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features (size, frames, bins) and classes (size, frames, 3), a tenth unlabelled."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((size, frames, SETTINGS.features.bins), np.float32)
    classes = rng.integers(0, HEAD_SIZES, (size, frames, 3)).astype(np.int32)
    classes[rng.random((size, frames)) < 0.1] = IGNORE
    return features, classes


def mlx_step(
    model: FrameChordModel, features: np.ndarray, classes: np.ndarray
) -> Callable[[], float]:
    """A function that takes one step and gives its loss."""
    chosen, loss_of = SETTINGS.optimization, criterion(SETTINGS.loss, None)
    optimizer = optim.AdamW(
        RATE, [0.9, chosen.beta2], weight_decay=chosen.weight_decay, bias_correction=True
    )
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]
    batch = mx.array(features), mx.array(classes)
    mx.eval(state, batch)

    def loss_function(features, classes):
        targets = {head: classes[..., number] for number, head in enumerate(HEADS)}
        logits = model(features)
        loss = loss_of(with_root(logits, targets["root"]), targets)[0]
        if "change" in logits:
            loss = loss + SETTINGS.loss.change_weight * change_loss(logits["change"], classes)
        return loss

    def step(features, classes):
        loss, gradients = nn.value_and_grad(model, loss_function)(features, classes)
        norm = gradient_norm(gradients)
        scale = mx.minimum(chosen.gradient_clip / norm, 1.0)
        optimizer.update(model, tree_map(lambda g: g * scale, gradients))
        return loss

    if can_compile():
        step = mx.compile(step, inputs=state, outputs=state)

    losses = [mx.array(0.0)]

    def take() -> float:  # one step ahead, as the Trainer is
        losses.append(step(*batch))
        mx.async_eval(state, losses[-1])
        return losses.pop(0).item()

    return take


def torch_step(
    model: FrameChordModel, features: np.ndarray, classes: np.ndarray, compiled: bool
) -> Callable[[], float]:
    """The same by PyTorch, eager or through torch.compile."""
    import torch
    from torch_chords import chord_loss, twin_of

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    twin = twin_of(model)
    chosen = SETTINGS.optimization
    optimizer = torch.optim.AdamW(
        twin.parameters(), RATE, (0.9, chosen.beta2), weight_decay=chosen.weight_decay, fused=True
    )
    batch = torch.from_numpy(features), torch.from_numpy(classes.astype(np.int64))

    def loss_function(features, classes):
        return chord_loss(twin(features), classes, SETTINGS.loss.label_smoothing)

    if compiled:
        loss_function = torch.compile(loss_function)

    def take() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), chosen.gradient_clip)
        optimizer.step()
        return loss.item()

    return take


def serve(side: str, architecture: str) -> None:
    """Take a turn for every line on stdin; print its last loss, and seconds and seconds of CPU of a
    step."""
    backend.configure("full")
    mx.random.seed(0)
    settings = replace(SETTINGS.model, architecture=architecture)
    model = FrameChordModel(SETTINGS.features.bins, settings)
    batch = batch_of(SETTINGS.batch_size, SETTINGS.window)
    if "PyTorch" in side:
        take = torch_step(model, *batch, compiled="compiled" in side)
    else:
        take = mlx_step(model, *batch)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            loss = take()
        mx.synchronize()  # MLX's last step, which is not waited for
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(loss, wall / STEPS, cpu / STEPS, flush=True)


class Side:
    """A process that takes steps when asked."""

    def __init__(self, name: str, architecture: str, threads: int, variables: dict[str, str]):
        pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys(pools, str(threads)) | variables
        command = [sys.executable, __file__, "--side", name, "--architectures", architecture]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> tuple[float, float, float]:
        """Loss, seconds, seconds of CPU."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"side {self.process.args[3]} ended with {self.process.wait()}")
        loss, wall, cpu = map(float, line.split())
        return loss, wall, cpu

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(
    names: Sequence[str], architecture: str, threads: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Median (seconds, seconds of CPU) of a step of each side; two more rounds trace."""
    variables = SIDES | {STOCK: {VARIABLE: "off"}}
    sides = {name: Side(name, architecture, threads, variables[name]) for name in names}
    taken: dict[str, list] = {name: [] for name in names}
    try:
        for number in range(rounds + 2):
            for name, side in sides.items():
                loss, wall, cpu = side.step()
                time.sleep(PAUSE)
                if number == 0:
                    print(
                        f"  {name:17} loss {loss:.3f} after {STEPS} steps, "
                        f"{STEPS * wall:.1f} s with tracing"
                    )
                if number >= 2:
                    taken[name].append((wall, cpu))
    finally:
        for side in sides.values():
            side.close()
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in taken.items()
    }


def table(found: dict[str, tuple[float, float]]) -> str:
    """The medians as text, with the ratio of every side to MLX."""
    lines = []
    for name, (wall, cpu) in found.items():
        line = f"  {name:17}{wall * 1e3:9.1f} ms a step, {cpu * 1e3:9.1f} ms of CPU"
        if name != "MLX":
            ours, ours_cpu = found["MLX"]
            line += f"   MLX is {wall / ours:5.2f}x as fast, {cpu / ours_cpu:5.2f}x by CPU"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--architectures", nargs="+", default=[SETTINGS.model.architecture])
    parser.add_argument("--compiled", action="store_true", help="torch.compile too (a minute more)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        return serve(chosen.side, chosen.architectures[0])
    names = list(SIDES)[: 2 + chosen.compiled]
    for architecture in chosen.architectures:
        size = f"{SETTINGS.batch_size} windows of {SETTINGS.window} frames"
        print(f"{architecture}, {size}, {chosen.threads} threads")
        print(table(measure(names, architecture, chosen.threads, chosen.rounds)), flush=True)


if __name__ == "__main__":
    main()
