"""What the DataLoader delivers beside PyTorch's, in one run: samples a second, and time waited.

Samples are small arrays (overhead alone), and 5 s of OGG decoded from a folder (real work; 24 files
are written for it when no folder is given). Each measure repeats, interleaved; printed are medians.
Run: python benchmarks/loader.py [--audio FOLDER] [--rounds 5]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from audiotrain.train.data.loader import DataLoader, Dataset  # isort: skip (BLAS before MLX)
import mlx.core as mx
import numpy as np
import soundfile

RATE, SECONDS = 22050, 5


class Small(Dataset):
    """Pictures of MNIST's size."""

    def __init__(self, samples: int):
        self.images = np.zeros((samples, 28, 28), np.float32)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 10


class Audio(Dataset):
    """The first 5 s of each file, decoded anew each time."""

    def __init__(self, files: list[Path], repeats: int):
        self.files = files * repeats

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        audio, rate = soundfile.read(self.files[index], dtype="float32", always_2d=True)
        mono = audio.mean(axis=1)[: rate * SECONDS]
        return {"audio": np.pad(mono, (0, 44100 * SECONDS))[: 44100 * SECONDS], "label": index}


def write_clips(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [folder / f"{number:02d}.ogg" for number in range(24)]
    for file in files:
        soundfile.write(file, 0.1 * rng.standard_normal(RATE * SECONDS), RATE)
    return files


def seconds_of(loader, work: float = 0.0) -> tuple[float, float]:
    """Seconds of a pass, and those of it spent waiting for batches; `work` seconds a batch."""
    start, waited = time.perf_counter(), 0.0
    stream = iter(loader)
    while True:
        before = time.perf_counter()
        batch = next(stream, None)
        waited += time.perf_counter() - before
        if batch is None:
            return time.perf_counter() - start, waited
        leaves = batch.values() if isinstance(batch, dict) else batch
        mx.eval([leaf for leaf in leaves if isinstance(leaf, mx.array)])
        if work:
            time.sleep(work)


def loaders(dataset, batch_size: int) -> dict[str, object]:
    """Every loader to compare, by name; PyTorch's where it is installed."""
    common = {"batch_size": batch_size, "shuffle": True}
    ours = {
        "ours, no worker": DataLoader(dataset, **common),
        "ours, 1 thread": DataLoader(dataset, num_workers=1, **common),
        "ours, 2 threads": DataLoader(dataset, num_workers=2, **common),
        "ours, 2 processes": DataLoader(
            dataset, num_workers=2, worker_type="process", persistent_workers=True, **common
        ),
    }
    try:
        from torch.utils.data import DataLoader as TorchLoader
    except ImportError:
        print("PyTorch is not installed: no peer to compare with")
        return ours
    workers = {
        "num_workers": 2,
        "persistent_workers": True,
        "multiprocessing_context": "forkserver",
    }
    return ours | {
        "torch, no worker": TorchLoader(dataset, **common),
        "torch, 2 processes": TorchLoader(dataset, **workers, **common),
    }


def compare(title: str, dataset, batch_size: int, rounds: int, work: float = 0.0) -> None:
    print(f"\n{title}: {len(dataset)} samples, batches of {batch_size}")
    measured: dict[str, list[tuple[float, float]]] = {}
    candidates = loaders(dataset, batch_size)
    for loader in candidates.values():
        next(iter(loader))  # processes start, files come into the cache
    for _ in range(rounds):
        for name, loader in candidates.items():
            measured.setdefault(name, []).append(seconds_of(loader, work))
    medians = {
        name: [statistics.median(column) for column in zip(*times, strict=True)]
        for name, times in measured.items()
    }
    for name, (seconds, waited) in medians.items():
        peer = medians.get("torch, no worker" if "no worker" in name else "torch, 2 processes")
        ratio = f"{peer[0] / seconds:5.2f}x torch" if peer and "ours" in name else ""
        print(
            f"  {name:18}  {len(dataset) / seconds:9,.0f} samples/s"
            f"  waiting {waited / seconds:4.0%}  {ratio}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, help="folder of audio files")
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    compare("small samples", Small(20_000), 64, settings.rounds)
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(settings.audio.glob("*.*g"))[:48] if settings.audio else []
        files = files or write_clips(Path(folder))
        repeats = -(-96 // len(files))
        compare("audio files", Audio(files, repeats), 8, settings.rounds)
        compare("audio files, a step of 50 ms", Audio(files, repeats), 8, settings.rounds, 0.05)


if __name__ == "__main__":
    main()
