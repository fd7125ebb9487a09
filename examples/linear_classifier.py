"""The smallest model that the Trainer trains: one linear layer.

Run: python examples/linear_classifier.py [--epochs 10]
"""

import argparse

from audiotrain import (  # isort: skip
    DataLoader,
    Dataset,
    OptimizerConfig,
    TrainModule,
    Trainer,
    masked_cross_entropy,
)
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np


class Pictures(Dataset):
    """Ten fixed pictures of 784 random pixels, each time covered by noise."""

    def __init__(self, size: int, seed: int):
        originals = np.random.default_rng(0).normal(size=(10, 784))
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(10, size=size)
        self.pixels = (originals[self.labels] + 3 * rng.normal(size=(size, 784))).astype(np.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, idx):
        return self.pixels[idx], int(self.labels[idx])


class MyModel(TrainModule):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def __call__(self, x):
        return self.linear(x)

    def compute_loss(self, batch):
        x, y = batch
        logits = self(x)
        loss = masked_cross_entropy(logits, y)
        accuracy = mx.mean(mx.argmax(logits, axis=-1) == y)
        return loss, {"accuracy": accuracy}

    def configure_optimizers(self):
        return OptimizerConfig(optimizer=optim.AdamW(learning_rate=1e-4))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs

    train_loader = DataLoader(Pictures(4000, seed=1), batch_size=32, shuffle=True)
    val_loader = DataLoader(Pictures(500, seed=2), batch_size=32)

    model = MyModel()
    trainer = Trainer(max_epochs=epochs)
    trainer.fit(model, train_loader, val_loader)
    print(f"accuracy on unseen pictures: {trainer.callback_metrics['val_accuracy']:.3f}")


if __name__ == "__main__":
    main()
