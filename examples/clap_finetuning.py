"""Fine-tuning CLAP on pairs of audio and text, with a training module of its own.

The pairs are random here; put your own into AudioTextDataset, and begin with trained weights by
CLAPTrainModule(clap=CLAP.from_pretrained("laion/clap-htsat-unfused")). For a folder of recordings
and captions `python -m audiotrain.recipes.clap --data FOLDER` does it all.
Run: python examples/clap_finetuning.py [--epochs 10] [--pairs 500] [--small]
"""

import argparse
import os

from audiotrain import (  # isort: skip
    CLAP,
    CLAPConfig,
    CLAPTrainModule,
    DataLoader,
    Dataset,
    EarlyStopping,
    GradientClipper,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    Trainer,
    WandbLogger,
)
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import numpy as np

VOCABULARY = 50265  # RoBERTa's


class AudioTextDataset(Dataset):
    """{"mel" (1, 64 mels, 256 frames), "input_ids" (64,), "attention_mask" (64,)}."""

    def __init__(self, size: int = 500, train: bool = True):
        self.size, self.seed = size, 42 if train else 123

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, idx: int) -> dict:
        rng = np.random.default_rng([self.seed, idx])
        return {
            "mel": rng.normal(size=(1, 64, 256)).astype(np.float32),
            "input_ids": rng.integers(0, VOCABULARY, size=64).astype(np.int32),
            "attention_mask": np.ones(64, dtype=np.int32),
        }


def collate_fn(batch: list) -> tuple:
    """Collate audio-text pairs."""
    mels = np.stack([item["mel"] for item in batch])
    input_ids = np.stack([item["input_ids"] for item in batch])
    attention_masks = np.stack([item["attention_mask"] for item in batch])
    return mels, input_ids, attention_masks


def to_mlx_batch(batch: tuple) -> tuple:
    """Convert to MLX arrays."""
    mels, input_ids, attention_masks = batch
    return mx.array(mels), mx.array(input_ids), mx.array(attention_masks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--small", action="store_true", help="a model that a CPU trains quickly")
    settings = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "offline")  # WANDB_MODE=online sends it to your account

    loaders = [
        DataLoader(
            AudioTextDataset(size, train),
            batch_size=8,
            shuffle=train,
            collate_fn=collate_fn,
            mlx_transforms=to_mlx_batch,
        )
        for size, train in ((settings.pairs, True), (max(8, settings.pairs // 5), False))
    ]

    clap = CLAP(CLAPConfig.small(VOCABULARY)) if settings.small else None
    model = CLAPTrainModule(freeze_audio=False, freeze_text=True, clap=clap)

    # Check trainable parameters
    total, trainable = model.parameter_counts()
    print(f"Total: {total:,}, Trainable: {trainable:,}")

    callbacks = [
        ProgressBar(refresh_rate=10),
        LearningRateMonitor(logging_interval="step"),
        GradientClipper(max_norm=1.0),  # Important for contrastive learning
        ModelCheckpoint(
            dirpath="./checkpoints/clap",
            monitor="val_loss",
            mode="min",
            save_top_k=2,
        ),
        EarlyStopping(
            monitor="val_loss",
            mode="min",
            patience=5,
        ),
    ]
    trainer = Trainer(
        max_epochs=settings.epochs,
        callbacks=callbacks,
        logger=WandbLogger(project="clap-finetune", name="experiment-1"),
        seed=42,
    )
    trainer.fit(model, *loaders)


if __name__ == "__main__":
    main()
