"""Peak memory of a step of CLAP by batch size: whole, and some clips at a time (GradCache).

Printed are MB above the model and its batch, and the seconds of a step. Run:
python benchmarks/clap_memory.py [--micro 4] [--batches 4 8 16 32] [--small]
"""

import argparse
import time

from audiotrain.models.clap import CLAP  # isort: skip (BLAS before MLX)
import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiotrain.models.clap import CLAPConfig
from audiotrain.recipes.clap.training import CLAPTraining
from audiotrain.train.trainer import Trainer


def batch(config: CLAPConfig, clips: int) -> dict[str, mx.array]:
    """Spectrograms of 10 s, captions of 32 tokens."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, config.text_config.vocab_size, (clips, 32))
    return {
        "mel": mx.array(rng.normal(0, 1, (clips, 1, 1001, 64)).astype(np.float32)),
        "is_longer": mx.zeros((clips,), mx.bool_),
        "input_ids": mx.array(ids),
        "attention_mask": mx.ones((clips, 32), mx.int32),
        "group": mx.arange(clips),
    }


def step(config: CLAPConfig, clips: int, micro: int) -> tuple[float, float]:
    """(MB above what is there before, seconds) of loss and gradients, compiled as in training."""
    module = CLAPTraining(CLAP(config), micro_batch=micro)
    module.attach(Trainer(max_steps=1, logger=False))
    module.train()
    data = batch(config, clips)
    mx.eval(module.parameters(), data)
    gradients = nn.value_and_grad(module, lambda data: module.compute_loss(data)[0])
    state = [module.state, mx.random.state]
    run = mx.compile(lambda data: gradients(data), inputs=state, outputs=state)
    mx.eval(run(data))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    began = time.perf_counter()
    mx.eval(run(data))
    return (mx.get_peak_memory() - before) / 1e6, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--micro", type=int, default=4, help="clips at a time")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--small", action="store_true", help="the small model")
    options = parser.parse_args()
    config = CLAPConfig.small() if options.small else CLAPConfig()
    print(f"{'clips':>6}{'whole':>12}{'':10}{f'{options.micro} at a time':>14}")
    for clips in options.batches:
        whole, parts = step(config, clips, 0), step(config, clips, options.micro)
        line = f"{clips:6}{whole[0]:9.0f} MB{whole[1]:8.1f} s{parts[0]:11.0f} MB{parts[1]:8.1f} s"
        print(f"{line}   {whole[0] / parts[0]:.2f}x the memory", flush=True)


if __name__ == "__main__":
    main()
