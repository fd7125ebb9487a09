"""What a fast BLAS gains: GFLOP/s of a matrix product, and the chord training step.

MLX as installed, MLX with the BLAS that audiotrain loads, and PyTorch, each in a process of its
own. Run: python benchmarks/blas.py [--size 2048] [--rounds 7] [--threads 2]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import chord_step

PEERS = {"MLX": "", chord_step.STOCK: "off", "PyTorch": "off"}


def product_of(side: str, size: int):
    """A function that multiplies two float32 matrices (size, size)."""
    if side == "PyTorch":
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        a, b = torch.randn(size, size), torch.randn(size, size)
        return lambda: a @ b
    import mlx.core as mx

    a, b = mx.random.normal((2, size, size))
    mx.eval(a, b)
    return lambda: mx.eval(a @ b)


def serve(side: str, size: int, rounds: int) -> None:
    """Print the median seconds, and seconds of CPU, of a product, and the BLAS that was loaded."""
    from audiotrain.backend import blas

    product = product_of(side, size)
    product()
    times = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        product()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    name = "its own" if side == "PyTorch" else blas.load().name
    print(wall, cpu, name, sep="\t")


def gigaflops(side: str, size: int, rounds: int, threads: int) -> tuple[float, float, str]:
    """GFLOP/s, GFLOP per second of CPU, and the name of the BLAS, measured in a new process."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(pools, str(threads))
    if PEERS[side]:
        environment[chord_step.VARIABLE] = PEERS[side]
    command = [sys.executable, __file__, "--side", side]
    command += ["--size", str(size), "--rounds", str(rounds)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    wall, cpu, name = output.stdout.strip().split("\t")
    work = 2 * size**3 / 1e9
    return work / float(wall), work / float(cpu), name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        return serve(chosen.side, chosen.size, chosen.rounds)
    print(f"{chosen.size} x {chosen.size} float32 matrix product, {chosen.threads} threads")
    found = {side: gigaflops(side, chosen.size, chosen.rounds, chosen.threads) for side in PEERS}
    ours = found["MLX"]
    for side, (wall, cpu, name) in found.items():
        ratio = "" if side == "MLX" else f"   MLX is {ours[0] / wall:5.1f}x as fast"
        ratio += "" if side == "MLX" else f", {ours[1] / cpu:5.1f}x by CPU"
        print(f"  {side:17}{wall:7.1f} GFLOP/s, {cpu:7.1f} per CPU second ({name}){ratio}")
    architecture = chord_step.SETTINGS.model.architecture
    print(f"training step of the chord model ({architecture})", flush=True)
    rounds = min(chosen.rounds, 5)
    print(chord_step.table(chord_step.measure(PEERS, architecture, chosen.threads, rounds)))


if __name__ == "__main__":
    main()
