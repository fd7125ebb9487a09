"""What rewriting MLX's CPU kernels gains: seconds to compile those of a chord step, with nothing
compiled before, and nanoseconds a parameter of clipping and AdamW, beside PyTorch's fused AdamW.

Each side has new processes, which take turns.
Run: python benchmarks/kernels.py [--rounds 3] [--what compile|update]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from chord_step import SETTINGS, VARIABLE, batch_of, mlx_step  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map

from audiotrain import backend
from audiotrain.models.chords import FrameChordModel
from audiotrain.train.engine.update import gradient_norm

SIDES = {"audiotrain": "full", "MLX": "blas", "PyTorch": "off"}
SHAPES = [(768, 3072)] * 30 + [(768,)] * 100  # 71 M parameters
STEPS = 8
MEASURED = {"compile": "kernels of a chord step", "update": "clipping and AdamW"}


def first_step() -> float:
    """Seconds of the first step of the chord model over those of a later one."""
    model = FrameChordModel(SETTINGS.features.bins, SETTINGS.model)
    take = mlx_step(model, *batch_of(SETTINGS.batch_size, SETTINGS.window))
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        take()
        mx.synchronize()
        times.append(time.perf_counter() - begun)
    return times[0] - times[-1]


def mlx_update() -> float:
    """Seconds of clipping and AdamW."""
    weights = {str(number): mx.random.normal(shape) for number, shape in enumerate(SHAPES)}
    gradients = tree_map(lambda w: w * 0.01, weights)
    optimizer = optim.AdamW(1e-4)
    optimizer.init(weights)
    state = [weights, optimizer.state]

    def step(gradients):
        scale = mx.minimum(1.0 / gradient_norm(gradients), 1.0)
        clipped = tree_map(lambda g: g * scale, gradients)
        weights.update(optimizer.apply_gradients(clipped, weights))

    compiled = mx.compile(step, inputs=state, outputs=state)

    def take():
        compiled(gradients)
        mx.eval(state)

    mx.eval(state, gradients)
    return median_of(take)


def torch_update() -> float:
    """The same by PyTorch."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for weight in weights:
        weight.grad = weight.detach() * 0.01
    optimizer = torch.optim.AdamW(weights, 1e-4, fused=True)

    def take():
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return median_of(take)


def median_of(take) -> float:
    take()
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        take()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def serve(side: str, what: str) -> None:
    """Print the seconds of one measurement."""
    if side == "PyTorch":
        print(torch_update())
        return
    backend.configure()
    print(first_step() if what == "compile" else mlx_update())


def measured(side: str, what: str, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:  # MLX keeps its kernels there
        variables = {"TMPDIR": folder, "HOME": folder, VARIABLE: SIDES[side]}
        pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | variables | dict.fromkeys(pools, str(threads))
        command = [sys.executable, __file__, "--side", side, "--what", what]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=MEASURED, help="one of both measurements")
    chosen = parser.parse_args()
    if chosen.side is not None:
        return serve(chosen.side, chosen.what)
    count = sum(mx.zeros(shape).size for shape in SHAPES)
    scales = {"compile": ("s", 1.0), "update": ("ns a parameter", 1e9 / count)}
    for what in [chosen.what] if chosen.what else MEASURED:
        unit, scale = scales[what]
        sides = [side for side in SIDES if (side, what) != ("PyTorch", "compile")]
        rounds = [
            [measured(side, what, chosen.threads) for side in sides] for _ in range(chosen.rounds)
        ]
        print(MEASURED[what])
        medians = dict(zip(sides, map(statistics.median, zip(*rounds, strict=True)), strict=True))
        for side, seconds in medians.items():
            ratio = seconds / medians["audiotrain"]
            note = "" if side == "audiotrain" else f"   audiotrain is {ratio:.2f}x as fast"
            print(f"  {side:12}{seconds * scale:8.2f} {unit}{note}", flush=True)


if __name__ == "__main__":
    main()
