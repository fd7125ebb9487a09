"""A run is one file: tones are classified by declarative.yaml, then by the config of that run.

    python examples/declarative.py [--epochs 15]

The module defines the model and its loss, the file everything else. In runs/tones are
config.yaml, metrics.json, history.json and checkpoints/.
"""

import argparse
from pathlib import Path

from audiotrain import Dataset, TrainModule, create_trainer, masked_cross_entropy  # isort: skip
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import mlx.nn as nn
import numpy as np

KINDS = ("sine", "square", "noise")
SAMPLES = 1024  # 64 ms at 16 kHz


class Tones(Dataset):
    """Logarithms of spectra, about -1 to 1, of synthesised sounds of three kinds."""

    def __init__(self, count: int, first: int = 0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(self.first + index)
        kind = int(rng.integers(3))
        wave = np.sin(2 * np.pi * rng.uniform(200, 2000) * np.arange(SAMPLES) / 16000)
        wave = (wave, np.sign(wave), rng.normal(size=SAMPLES))[kind]
        wave = wave + rng.normal(0, 0.5, SAMPLES)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(SAMPLES)))[1:257]
        return (3 * (np.log10(spectrum + 1e-3) - 1)).astype(np.float32), kind


class ToneClassifier(TrainModule):
    """Two layers over a spectrum."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, len(KINDS)))

    def __call__(self, spectra):
        return self.layers(spectra)

    def compute_loss(self, batch):
        spectra, kinds = batch
        logits = self(spectra)
        accuracy = mx.mean(mx.argmax(logits, axis=-1) == kinds)
        return masked_cross_entropy(logits, kinds), {"accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    epochs = parser.parse_args().epochs
    train, valid, test = Tones(1000), Tones(200, 1000), Tones(300, 2000)

    # The class, not an instance: its first weights then belong to the run, by the file's seed.
    trainer = create_trainer(
        ToneClassifier, Path(__file__).with_name("declarative.yaml"), num_epochs=epochs
    )
    result = trainer.train(train, valid)
    scores = trainer.evaluate(test, checkpoint="best")
    print(f"best validation loss {result.best_score:.4f} in {result.run}")
    print(f"accuracy on unseen tones: {scores['test_accuracy']:.3f}")

    again = create_trainer(ToneClassifier, result.run, output_dir="runs/again")
    same = again.train(train, valid).history == result.history
    print(f"the run's own config gives the same numbers: {same}")


if __name__ == "__main__":
    main()
