"""A training step of a CLAP of full size beside PyTorch's, and parts of it, in one run.

The same random weights and batch, dropout off. The training step is the Trainer's: forward,
backward, clipping and AdamW. Each side has a process of its own and they take turns of some steps,
MLX's each begun before the last one has ended, as the Trainer's are; printed are medians of a step.
Compare seconds of CPU on a busy machine, with --threads 1.
Run: python benchmarks/clap_step.py [--clips 4] [--rounds 5] [--steps 4] [--threads 2] [--small]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from audiotrain.backend.configuration import VARIABLE  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain import Trainer, backend
from audiotrain.backend.ops import can_compile
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.recipes.clap.training import CLAPTrainModule
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.train.engine.precision import Float32
from audiotrain.train.engine.steps import TrainStep

SIDES = {"MLX": {}, "PyTorch": {VARIABLE: "off"}}
WORKS = ("forward", "forward and backward", "training step")
RATE, DECAY, CLIP = 1e-5, 0.01, 1.0
PAUSE = 0.3  # seconds; the threads of a BLAS go on spinning for 0.2 s
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def config_of(small: bool) -> CLAPConfig:
    """laion/clap-htsat-unfused or CLAPConfig.small(), without dropout."""
    config = CLAPConfig.small() if small else CLAPConfig()
    return replace(
        config,
        audio_config=replace(config.audio_config, **NO_DROPOUT),
        text_config=replace(config.text_config, **NO_DROPOUT),
    )


def batch(config: CLAPConfig, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectrograms (clips, 1, 1001, 64) and tokens (clips, 77)."""
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 1, (clips, 1, 1001, 64)).astype(np.float32)
    return audio, rng.integers(4, config.text_config.vocab_size, (clips, 77))


def mlx_work(config: CLAPConfig, clips: int) -> dict[str, Callable[[int], None]]:
    """What MLX does so many times, compiled."""
    mx.random.seed(0)
    model = CLAP(config)
    mx.eval(model.parameters())
    audio, ids = (mx.array(array) for array in batch(config, clips))
    labels = mx.arange(clips)

    def loss_of(audio, ids):
        return nn.losses.cross_entropy(model(audio, ids)["logits_per_audio"], labels).mean()

    def forward(audio, ids):
        return model(audio, ids)["logits_per_audio"]

    gradient = nn.value_and_grad(model, loss_of)
    compiled = mx.compile if can_compile() else lambda function, **_: function
    forward = compiled(forward, inputs=model.state, outputs=model.state)
    backward = compiled(lambda *b: gradient(*b), inputs=model.state, outputs=model.state)

    module = CLAPTrainModule(freeze_text=False, clap=model)
    module.attach(Trainer(max_steps=1, logger=False))
    module.eval()
    update = TrainStep(
        module,
        optim.AdamW(RATE, weight_decay=DECAY, bias_correction=True),
        clip_value=CLIP,
        clip_algorithm="norm",
        accumulate=False,
        ema_decay=None,
        precision=Float32(),
        ranks=SingleProcess(),
        compile=can_compile(),
    )

    def train(audio, ids):
        numbers = update((audio, ids, mx.ones_like(ids))).vector
        mx.async_eval(numbers, update.state())
        return numbers

    def run(step, steps: int) -> None:
        before = None
        for _ in range(steps):
            now = step(audio, ids)
            mx.async_eval(now)
            mx.eval(before)
            before = now
        mx.eval(before)
        mx.synchronize()  # the last step's state

    steps = forward, backward, train
    return {work: partial(run, step) for work, step in zip(WORKS, steps, strict=True)}


def torch_work(config: CLAPConfig, clips: int) -> dict[str, Callable[[int], None]]:
    """What PyTorch does so many times, eager."""
    import torch
    from transformers import ClapConfig, ClapModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = ClapModel(ClapConfig.from_dict(config.to_dict())).eval()
    audio, ids = (torch.from_numpy(array) for array in batch(config, clips))
    inputs = {"input_features": audio, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def run_forward(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                model(**inputs)

    def run_backward(steps: int) -> None:
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            logits = model(**inputs).logits_per_audio
            torch.nn.functional.cross_entropy(logits, torch.arange(clips)).backward()

    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=DECAY, fused=True)

    def run_training(steps: int) -> None:
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            outputs, targets = model(**inputs), torch.arange(clips)
            loss = torch.nn.functional.cross_entropy(outputs.logits_per_audio, targets)
            loss = loss + torch.nn.functional.cross_entropy(outputs.logits_per_text, targets)
            (loss / 2).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()

    return dict(zip(WORKS, (run_forward, run_backward, run_training), strict=True))


def serve(side: str, config: CLAPConfig, clips: int, steps: int) -> None:
    """Do the work that each line on stdin names; print seconds and seconds of CPU of a step, and
    bytes of memory."""
    backend.configure("full")  # as the recipe does
    works = (torch_work if side == "PyTorch" else mlx_work)(config, clips)
    for line in sys.stdin:
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        works[line.strip()](steps)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        print(*(seconds / steps for seconds in spent), peak_memory(), flush=True)


def forget_peak() -> None:
    """Let the process's peak memory begin anew; Linux only."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak_memory() -> float:
    """Bytes of the process's own memory at the most since then; not a number elsewhere."""
    status = STATUS.read_text() if STATUS.exists() else ""
    row = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: nan")
    return float(row.split()[1]) * 1024


def measure(chosen: argparse.Namespace) -> dict[tuple[str, str], tuple[float, ...]]:
    """Median (seconds, seconds of CPU, bytes at the most) by (work, side), after one round that
    traces."""
    sides = {}
    for name, variables in SIDES.items():
        pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        command = [sys.executable, __file__, "--side", name, "--clips", str(chosen.clips)]
        command += ["--steps", str(chosen.steps)]
        sides[name] = subprocess.Popen(
            command + ["--small"] * chosen.small,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(pools, str(chosen.threads)) | variables,
        )
    taken: dict[tuple[str, str], list] = {}
    for number in range(chosen.rounds + 1):
        for work in WORKS:
            for name, process in sides.items():
                process.stdin.write(work + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"side {name} ended with {process.wait()}")
                if number:
                    taken.setdefault((work, name), []).append(tuple(map(float, line.split())))
                time.sleep(PAUSE)
    for process in sides.values():
        process.stdin.close()
        process.wait()
    return {
        key: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for key, rows in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="one after the other, in a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="CLAPConfig.small() instead")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        return serve(chosen.side, config_of(chosen.small), chosen.clips, chosen.steps)
    found = measure(chosen)
    print(f"{chosen.clips} clips of 10 s and texts of 77 tokens, {chosen.threads} threads")
    for work in WORKS:
        (wall, cpu, peak), (their_wall, their_cpu, their_peak) = (
            found[work, "MLX"],
            found[work, "PyTorch"],
        )
        print(
            f"  {work:20} MLX {wall * 1e3:7.0f} ms ({cpu * 1e3:7.0f} of CPU), "
            f"PyTorch {their_wall * 1e3:7.0f} ms ({their_cpu * 1e3:7.0f} of CPU): "
            f"MLX is {their_wall / wall:.2f}x as fast, {their_cpu / cpu:.2f}x by CPU; "
            f"peak memory {peak / 1e9:.2f} and {their_peak / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
