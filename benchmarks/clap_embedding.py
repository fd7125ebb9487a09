"""Embedding files with a full-size CLAP beside transformers', decoding included, and its memory.

Both sides embed the same clips with the same random weights in turn, in batches of 4; then a small
model embeds a file of 1 minute and one of 20, each in a process of its own.
Run: python benchmarks/clap_embedding.py [--clips 12] [--rounds 2] [--data ../shared/data/esc10]
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiotrain.features import audio
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.models.clap.tokenizer import train_bpe
from audiotrain.recipes.clap.embedder import Embedder

BATCH = 4  # clips that transformers embeds at once


def save_model(folder: Path, config: CLAPConfig) -> Path:
    """A model folder with fresh weights."""
    CLAP(config).save_pretrained(folder)
    train_bpe(["rain on a roof"], 300).save(folder)
    ClapFeatureSettings().save(folder)
    return folder


def theirs(folder: Path, paths: list[Path]) -> Callable[[], np.ndarray]:
    """Embeds the files with transformers, as its documentation does."""
    import torch
    from transformers import ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    extractor = ClapFeatureExtractor.from_pretrained(folder)

    def run() -> np.ndarray:
        found = []
        for first in range(0, len(paths), BATCH):
            clips = [audio.read(path, 48000) for path in paths[first : first + BATCH]]
            inputs = extractor(clips, sampling_rate=48000, return_tensors="pt")
            with torch.no_grad():
                hidden = model.audio_model(inputs["input_features"]).pooler_output
                found.append(torch.nn.functional.normalize(model.audio_projection(hidden), dim=-1))
        return torch.cat(found).numpy()

    return run


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """What it gives, its seconds and its seconds of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def compare(paths: list[Path], rounds: int) -> None:
    """x real time of both sides on the same clips, and how far apart the embeddings are."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), CLAPConfig())
        embedder = Embedder.from_folder(folder)
        sides = {
            "audiotrain": lambda: embedder.audio(paths, "audiotrain"),
            "transformers": theirs(Path(folder), paths),
        }
    seconds = sum(audio.info(path).seconds for path in paths)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        results = {name: timed(work) for name, work in sides.items()}
        for name, (_, wall, cpu) in results.items():
            if number:  # the first round traces
                taken[name].append((wall, cpu))
    apart = np.abs(results["audiotrain"][0] - results["transformers"][0]).max()
    print(f"{len(paths)} clips, {seconds:.0f} s, full size; embeddings differ by {apart:.1e}")
    medians = {name: np.median(rows, axis=0) for name, rows in taken.items()}
    for name, (wall, cpu) in medians.items():
        speed, milliseconds = seconds / wall, 1e3 * cpu / len(paths)
        print(f"  {name:13} {speed:6.1f}x real time, {milliseconds:6.0f} ms of CPU a clip")
    ratio = medians["transformers"] / medians["audiotrain"]
    print(f"  audiotrain is {ratio[0]:.2f}x as fast, {ratio[1]:.2f}x by CPU")


def embed_file(folder: str, path: str) -> None:
    """Embed one file and print x real time and the peak memory of this process in MB."""
    embedder = Embedder.from_folder(folder)
    embedder.text(["rain"])
    _, wall, _ = timed(lambda: embedder.audio([path], "embedding"))
    print(f"{audio.info(path).seconds / wall:.0f}x real time, peak {peak() / 1e6:.0f} MB")


def peak() -> float:
    """Most bytes that this process had in memory."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage begins with the peak of the starting process
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory() -> None:
    """A minute and twenty, with CLAPConfig.small()."""
    rng = np.random.default_rng(0)
    minute = rng.normal(0, 0.1, 60 * 44100).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = save_model(Path(name) / "model", CLAPConfig.small(300))
        for minutes in (1, 20):
            path = Path(name) / f"{minutes}.flac"
            audio.write(path, np.tile(minute, minutes), 44100)
            command = [sys.executable, __file__, "--file", str(folder), str(path)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"small model, a file of {minutes:2} minutes: {output.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=shared / "esc10", help="audio files")
    parser.add_argument("--file", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.file:
        return embed_file(*chosen.file)
    paths = [p for p in sorted(chosen.data.rglob("*")) if p.suffix in audio.AUDIO_SUFFIXES]
    if not paths:
        raise SystemExit(f"{chosen.data}: no audio")
    compare(paths[:: max(1, len(paths) // chosen.clips)][: chosen.clips], chosen.rounds)
    memory()


if __name__ == "__main__":
    main()
