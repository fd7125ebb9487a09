"""Examples a second of ranks on one machine beside one process: the scaling ratio.

Each rank computes with `--threads` threads on a batch of its own, so `--ranks` is the ideal. Ranks
are started one by one; with `--launch` by mlx.launch, which keeps up to a core busy itself. Run:
python benchmarks/distributed.py [--ranks 2] [--steps 20] [--model chords] [--launch] [--quick]
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from audiotrain import DataLoader, Trainer  # isort: skip (BLAS before MLX)
import mlx.core as mx
import numpy as np
from trainer_overhead import Network, chord_model

from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.train.callbacks import Callback
from audiotrain.train.data.loader import Dataset

WARM_UP = 3  # steps that are not timed


class Frames(Dataset):
    """Windows of the chord recipe, or rows for the network, with random content."""

    def __init__(self, kind: str, count: int):
        rng = np.random.default_rng(0)
        self.count, self.kind = count, kind
        recipe = TrainSettings()
        shape = (recipe.window, recipe.features.bins) if kind == "chords" else (512,)
        self.features = rng.normal(size=shape).astype(np.float32)
        self.classes = rng.integers(10, size=(recipe.window, 3))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.kind == "network":
            return {"x": self.features, "y": self.classes[0, 0]}
        return {"features": self.features, "classes": self.classes}


class Clock(Callback):
    """When the warm-up was over and when the run was."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 == WARM_UP:
            mx.eval(trainer.step.state())
            self.began = time.perf_counter()

    def on_train_end(self, trainer, module):
        self.seconds = time.perf_counter() - self.began


def work(out: Path, kind: str, steps: int, batch_size: int) -> None:
    """One rank: train and, on rank 0, write the examples a second of all ranks."""
    clock = Clock()
    settings = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "default_root_dir": out.parent}
    trainer = Trainer(max_steps=WARM_UP + steps, callbacks=[clock], **settings)
    together = batch_size * trainer.world_size
    data = Frames(kind, together * (WARM_UP + steps))
    model = chord_model() if kind == "chords" else Network(512, 8)
    trainer.fit(model, DataLoader(data, batch_size))
    if trainer.is_global_zero:
        found = {"examples": together * steps / clock.seconds, "ranks": trainer.world_size}
        out.write_text(json.dumps(found))


def free_addresses(count: int) -> list[str]:
    """Addresses on this machine that nobody listens at."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def start(folder: Path, ranks: int, launch: bool, command: list[str], env: dict) -> list:
    """The processes of a run: one, the launcher, or one for each rank."""
    if launch and ranks > 1:
        launcher = Path(sys.executable).with_name("mlx.launch")
        command = [str(launcher), "-n", str(ranks), "--python", sys.executable, *command[1:]]
    if launch or ranks == 1:
        return [subprocess.Popen(command, env=env, stdin=subprocess.PIPE)]
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[address] for address in free_addresses(ranks)]))
    given = [env | {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)} for rank in range(ranks)]
    return [subprocess.Popen(command, env=own) for own in given]


def measure(ranks: int, threads: int, launch: bool, arguments: list[str]) -> float:
    """Examples a second of this script on so many ranks."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--work", str(out), *arguments]
        given = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        given["PYTHONPATH"] = os.pathsep.join(sys.path)
        processes = start(Path(folder), ranks, launch, command, os.environ | given)
        if codes := [process.returncode for process in processes if process.wait()]:
            raise SystemExit(f"{ranks} ranks ended with code {codes[0]}")
        found = json.loads(out.read_text())
    assert found["ranks"] == ranks
    return found["examples"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of a rank and of the one process")
    parser.add_argument("--model", choices=["chords", "network"], default="chords")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8, help="of one rank")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--launch", action="store_true", help="start the ranks by mlx.launch")
    parser.add_argument("--quick", action="store_true", help="one round of 6 steps")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps = 1, 6
    if args.work:
        warnings.simplefilter("ignore")
        return work(args.work, args.model, args.steps, args.batch_size)
    arguments = ["--model", args.model, "--steps", str(args.steps)]
    arguments += ["--batch-size", str(args.batch_size)]
    pairs = []
    for _ in range(args.rounds):
        one, many = (
            measure(ranks, args.threads, args.launch, arguments) for ranks in (1, args.ranks)
        )
        pairs.append((one, many))
        print(f"one process {one:.2f} examples/s, {args.ranks} ranks {many:.2f}", flush=True)
    ratios = sorted(many / one for one, many in pairs)
    middle = ratios[len(ratios) // 2]
    print(f"{args.ranks} ranks: {middle:.2f} times one process, of {args.ranks} at best")


if __name__ == "__main__":
    main()
