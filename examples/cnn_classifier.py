"""A convolutional classifier of pictures like MNIST's, step by step.

The pictures are noise and their labels chance: put your own into MyDataset.
Run: python examples/cnn_classifier.py [--epochs 10] [--images 5000]
"""

import argparse

from audiotrain import (  # isort: skip
    DataLoader,
    Dataset,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    OptimizerConfig,
    ProgressBar,
    TrainModule,
    Trainer,
    WarmupCosineScheduler,
    masked_cross_entropy,
)
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

# Step 1: the data set


class MyDataset(Dataset):
    """Custom dataset for image classification."""

    def __init__(self, size: int = 1000, train: bool = True):
        self.size = size
        np.random.seed(42 if train else 123)

        # Generate synthetic data (replace with real data loading)
        self._images = np.random.randn(size, 28, 28).astype(np.float32)
        self._labels = np.random.randint(0, 10, size=size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, idx: int) -> tuple:
        return self._images[idx], int(self._labels[idx])


# Step 2: the model, its loss and its optimizer


class MNISTClassifier(TrainModule):
    """CNN classifier for MNIST."""

    def __init__(self):
        super().__init__()
        # Convolutional layers
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        # Fully connected layers
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def __call__(self, x: mx.array) -> mx.array:
        # Add channel dimension: [B, 28, 28] -> [B, 28, 28, 1]
        if x.ndim == 3:
            x = x[:, :, :, None]

        # Conv blocks
        x = nn.relu(self.conv1(x))
        x = self.pool(x)
        x = nn.relu(self.conv2(x))
        x = self.pool(x)

        # Flatten and FC
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(self.fc1(x))
        return self.fc2(x)

    def compute_loss(self, batch: tuple) -> tuple[mx.array, dict[str, mx.array]]:
        """Compute cross-entropy loss and accuracy."""
        images, labels = batch

        logits = self(images)
        loss = masked_cross_entropy(logits, labels)

        predictions = mx.argmax(logits, axis=-1)
        accuracy = mx.mean(predictions == labels)

        return loss, {"accuracy": accuracy}

    def configure_optimizers(self) -> OptimizerConfig:
        """Configure AdamW with warmup + cosine decay."""
        total_steps = self.trainer.max_steps or 1000
        warmup_steps = min(100, total_steps // 10)

        schedule = WarmupCosineScheduler(
            peak_lr=1e-3,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            min_lr=1e-5,
        )

        return OptimizerConfig(
            optimizer=optim.AdamW(learning_rate=schedule, weight_decay=0.01),
            lr_schedule_name="warmup_cosine",
        )


# Step 3: loaders


def to_mlx_batch(batch: list) -> tuple[mx.array, mx.array]:
    """Convert batch to MLX arrays."""
    images = np.stack([item[0] for item in batch])
    labels = np.array([item[1] for item in batch])
    return mx.array(images), mx.array(labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=5000)
    settings = parser.parse_args()

    # Create datasets
    train_dataset = MyDataset(size=settings.images, train=True)
    val_dataset = MyDataset(size=settings.images // 5, train=False)

    # Create dataloaders
    train_loader = DataLoader(
        train_dataset,
        batch_size=64,
        shuffle=True,
        collate_fn=lambda x: x,  # Return list
        mlx_transforms=to_mlx_batch,  # Convert to MLX in main thread
    )

    val_loader = DataLoader(
        val_dataset,
        batch_size=64,
        shuffle=False,
        collate_fn=lambda x: x,
        mlx_transforms=to_mlx_batch,
    )

    # Step 4: callbacks and trainer
    callbacks = [
        ProgressBar(refresh_rate=10),
        LearningRateMonitor(logging_interval="step"),
        ModelCheckpoint(
            dirpath="./checkpoints",
            monitor="val_accuracy",
            mode="max",
            save_top_k=2,
        ),
        EarlyStopping(
            monitor="val_accuracy",
            mode="max",
            patience=5,
            min_delta=0.001,
        ),
    ]

    # Create trainer
    trainer = Trainer(
        max_epochs=settings.epochs,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        seed=42,
    )

    # Step 5: train
    model = MNISTClassifier()
    total, trainable = model.parameter_counts()
    print(f"Parameters: {total:,}, trainable: {trainable:,}")

    trainer.fit(model, train_loader, val_loader)
    # To go on after a stop: trainer.fit(..., ckpt_path="./checkpoints/last")


if __name__ == "__main__":
    main()
