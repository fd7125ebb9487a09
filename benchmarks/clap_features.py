"""CLAP's front end against transformers' ClapFeatureExtractor: how equal, and how much faster.

Each clip of a folder goes through both in turn, in this process; the batch column is the transform
of all clips at once in MLX, per clip.
Run: python benchmarks/clap_features.py [--clips 16] [--folder ../shared/data/esc10]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from audiotrain.features import audio
from audiotrain.features.log_mel import LogMel
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings

import mlx.core as mx  # isort: skip (after audiotrain, which loads the BLAS)
from transformers import ClapFeatureExtractor  # isort: skip


def compare(clips: list[np.ndarray], truncation: str) -> str:
    """One row: the largest difference in dB, milliseconds a clip, and the ratio."""
    settings = ClapFeatureSettings(truncation=truncation)
    features = ClapFeatures(settings)
    reference = ClapFeatureExtractor(truncation=truncation, frequency_min=settings.fmin)
    spent = {"ours": 0.0, "theirs": 0.0}
    worst = 0.0
    for clip in clips:
        start = time.perf_counter()
        expected = reference(clip, sampling_rate=settings.rate, return_tensors="np")
        middle = time.perf_counter()
        found, _ = features(clip)
        spent["theirs"] += middle - start
        spent["ours"] += time.perf_counter() - middle
        worst = max(worst, float(np.abs(expected["input_features"][0] - found).max()))
    batch = mx.array(np.stack([features.fit(clip) for clip in clips]))
    transform = LogMel(settings.log_mel)
    mx.eval(transform(batch))  # once before, so that nothing is built in what is timed
    start = time.perf_counter()
    mx.eval(transform(batch))
    in_batch = time.perf_counter() - start
    milliseconds = [1e3 * seconds / len(clips) for seconds in (*spent.values(), in_batch)]
    ratio = spent["theirs"] / spent["ours"]
    return f"{truncation:12s} {worst:10.1e} " + " ".join(
        [f"{milliseconds[1]:9.1f}", f"{milliseconds[0]:9.1f}", f"{ratio:7.1f}x"]
        + [f"{milliseconds[2]:9.1f}"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=shared / "esc10", help="audio files")
    arguments = parser.parse_args()
    rate = ClapFeatureSettings().rate
    paths = [p for p in sorted(arguments.folder.rglob("*")) if p.suffix in audio.AUDIO_SUFFIXES]
    if not paths:
        raise SystemExit(f"{arguments.folder}: no audio")
    paths = paths[:: max(1, len(paths) // arguments.clips)][: arguments.clips]
    clips = [audio.read(path, rate)[: 10 * rate] for path in paths]
    print(f"{len(clips)} clips of up to 10 s; milliseconds a clip")
    print(f"{'':12s} {'worst dB':>10s} {'theirs':>9s} {'ours':>9s} {'ratio':>8s} {'MLX batch':>9s}")
    for truncation in ("rand_trunc", "fusion"):
        compare(clips[:2], truncation)
        print(compare(clips, truncation))


if __name__ == "__main__":
    main()
