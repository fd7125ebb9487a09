"""A CLAP of full size against Hugging Face's ClapModel of the same random weights.

Prints the largest differences of embeddings, logits and gradients, and what those numbers are like.
Bias tables and BatchNorm statistics are random, as new ones hide faults. No download is needed.
Run: python benchmarks/clap_parity.py [--fused] [--larger] [--clips 2]
"""

import argparse
import tempfile

from audiotrain.models.clap import CLAP  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from mlx.utils import tree_flatten
from torch_clap import random_clap

from audiotrain.models.clap import CLAPConfig
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.models.clap.weights import to_hf


def config_of(fused: bool, larger: bool) -> CLAPConfig:
    """laion/clap-htsat-unfused, -fused or larger_clap_general."""
    larger_sizes = {"patch_embeds_hidden_size": 128, "depths": (2, 2, 12, 2)}
    return CLAPConfig(HTSATConfig(enable_fusion=fused, **(larger_sizes if larger else {})))


def batch(config: CLAPConfig, clips: int) -> dict[str, np.ndarray]:
    """Coloured noise of 10 s in dB, and texts of 77 tokens."""
    rng = np.random.default_rng(0)
    chunks = 4 if config.audio_config.enable_fusion else 1
    noise = rng.normal(0, 3, (clips, chunks, 1001, 64)) + rng.normal(0, 3, (clips, chunks, 1, 64))
    ids = rng.integers(4, config.text_config.vocab_size, (clips, 77))
    ids[0, 40:] = 1
    found = {
        "input_features": noise.astype(np.float32),
        "input_ids": ids,
        "attention_mask": (ids != 1).astype(np.int64),
    }
    if chunks > 1:
        found["is_longer"] = (np.arange(clips) % 2 == 0)[:, None]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--larger", action="store_true")
    parser.add_argument("--clips", type=int, default=2)
    chosen = parser.parse_args()
    config = config_of(chosen.fused, chosen.larger)
    theirs = random_clap(config)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = CLAP.from_pretrained(folder)
    inputs = batch(config, chosen.clips)
    wanted = np.random.default_rng(1).standard_normal((chosen.clips, chosen.clips), np.float32)

    def loss_and_outputs():
        found = ours(
            *(mx.array(inputs[name]) for name in ("input_features", "input_ids", "attention_mask")),
            mx.array(inputs["is_longer"]) if "is_longer" in inputs else None,
        )
        return (found["logits_per_audio"] * wanted).sum(), found

    (_, found), gradients = nn.value_and_grad(ours, loss_and_outputs)()
    mx.eval(found, gradients)
    expected = theirs(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    (expected.logits_per_audio * torch.from_numpy(wanted)).sum().backward()
    for name, array in found.items():
        reference = expected[name].detach().numpy()
        difference = np.abs(np.array(array) - reference).max()
        print(f"{name:18} differs by {difference:.1e}, largest {np.abs(reference).max():.2f}")
    mine = to_hf(dict(tree_flatten(gradients)))
    rows = []
    for name, weight in theirs.named_parameters():
        # logit_scale_t is in no logits_per_audio: no gradient there, zero here
        reference = np.zeros(()) if weight.grad is None else weight.grad.numpy()
        rows.append((np.abs(np.array(mine[name]) - reference).max(), np.abs(reference).max(), name))
    assert len(rows) == len(mine)
    worst, size, name = max(rows)
    print(f"gradients of {len(rows)} weights differ by {worst:.1e} at most ({name}: {size:.2f})")


if __name__ == "__main__":
    main()
