"""Which of ten pitches a noisy tone has: log-mel pictures into a small convolutional network.

Waveforms leave the data set as NumPy arrays, in threads; their log-mel spectrograms are computed
by MLX, a batch at a time. Run: python examples/audio_classifier.py [--epochs 50]
"""

import argparse
import os

from audiotrain import (  # isort: skip
    DataLoader,
    Dataset,
    EarlyStopping,
    LogMel,
    LogMelSettings,
    ModelCheckpoint,
    OptimizerConfig,
    ProgressBar,
    TrainModule,
    Trainer,
    WandbLogger,
    WarmupCosineScheduler,
    masked_cross_entropy,
)
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

RATE, SAMPLES = 22050, 31 * 512  # 32 frames
log_mel = LogMel(LogMelSettings(rate=RATE, hop=512, mels=32))


class Tones(Dataset):
    """Tones of ten pitches, 200 Hz and up by thirds of an octave, in noise."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed

    def __len__(self):
        return self.size

    def __getitem__(self, idx):
        rng = np.random.default_rng([self.seed, idx])
        label = int(rng.integers(10))
        time = np.arange(SAMPLES) / RATE
        tone = np.sin(2 * np.pi * 200 * 2 ** (label / 3) * time + rng.uniform(0, 2 * np.pi))
        noise = rng.normal(size=SAMPLES)
        return {"audio": (tone + noise).astype(np.float32), "label": label}


def to_mel(batch):
    """A batch of waveforms as pictures (batch, frames, mels, 1), in units of 20 dB."""
    mel = log_mel(mx.array(batch["audio"])) / 20
    return {"mel": mel[..., None], "label": mx.array(batch["label"])}


class AudioClassifier(TrainModule):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(64 * 6 * 6, num_classes)

    def __call__(self, x):
        x = nn.relu(self.conv1(x))
        x = self.pool(x)
        x = nn.relu(self.conv2(x))
        x = self.pool(x)
        x = x.reshape(x.shape[0], -1)
        return self.fc(x)

    def compute_loss(self, batch):
        x, y = batch["mel"], batch["label"]
        logits = self(x)
        loss = masked_cross_entropy(logits, y)
        accuracy = mx.mean(mx.argmax(logits, axis=-1) == y)
        return loss, {"accuracy": accuracy}

    def configure_optimizers(self):
        schedule = WarmupCosineScheduler(
            peak_lr=1e-3,
            warmup_steps=500,
            total_steps=self.trainer.max_steps or 10000,
        )
        return OptimizerConfig(
            optimizer=optim.AdamW(learning_rate=schedule, weight_decay=0.01),
            lr_schedule_name="warmup_cosine",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    epochs = parser.parse_args().epochs
    os.environ.setdefault("WANDB_MODE", "offline")  # WANDB_MODE=online sends it to your account

    train_loader = DataLoader(
        Tones(320, seed=0), batch_size=32, shuffle=True, num_workers=2, mlx_transforms=to_mel
    )
    val_loader = DataLoader(Tones(96, seed=1), batch_size=32, mlx_transforms=to_mel)

    # Create model and trainer
    model = AudioClassifier(num_classes=10)

    trainer = Trainer(
        max_epochs=epochs,
        gradient_clip_val=1.0,
        callbacks=[
            ProgressBar(),
            ModelCheckpoint(monitor="val_loss", save_top_k=3),
            EarlyStopping(monitor="val_loss", patience=5),
        ],
        logger=WandbLogger(project="audio-classifier"),
    )

    # Train
    trainer.fit(model, train_loader, val_loader)
    best = trainer.validate(model, val_loader, ckpt_path="best")
    print(f"accuracy on unseen tones: {best['val_accuracy']:.3f}")


if __name__ == "__main__":
    main()
