"""ChordTrainer on a second of audio at a time: root, chord type and bass note of triads.

The triads are made here; put your own clips into Triads.
Run: python examples/chord_trainer.py [--epochs 12] [--clips 240]
"""

import argparse

from audiotrain import (  # isort: skip
    CHORD_TYPES,
    ChordRecognitionLoss,
    ChordRecognitionModel,
    ChordTrainer,
    DataLoader,
    Dataset,
    MetricsTracker,
    TrainingConfig,
    compute_confusion_matrix,
    compute_per_class_metrics,
    compute_topk_accuracy,
)
import mlx.core as mx  # after audiotrain, which gives it a fast BLAS
import numpy as np

RATE = 44100
TRIADS = {"maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8)}


class Triads(Dataset):
    """(audio (44100,), {"chord_type", "root", "bass_note"}): three decaying notes over a bass."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed

    def __len__(self):
        return self.size

    def __getitem__(self, idx):
        rng = np.random.default_rng([self.seed, idx])
        name, root = list(TRIADS)[rng.integers(len(TRIADS))], int(rng.integers(12))
        bass = (root + int(rng.choice(TRIADS[name]))) % 12
        pitches = [36 + bass] + [60 + root + step for step in TRIADS[name]]  # MIDI numbers
        time = np.arange(RATE) / RATE
        hertz = 440 * 2 ** ((np.array(pitches) - 69) / 12)
        notes = np.exp(-3 * time) * np.sin(2 * np.pi * hertz[:, None] * time)
        audio = 0.2 * notes.sum(axis=0) + 0.01 * rng.normal(size=RATE)
        targets = {"chord_type": CHORD_TYPES.index(name), "root": root, "bass_note": bass}
        return audio.astype(np.float32), targets


def report(model, loader) -> None:
    """Print the losses and accuracies, and the scores of each chord type."""
    criterion, tracker = ChordRecognitionLoss(), MetricsTracker()
    logits, types = [], []
    model.eval()
    for audio, targets in loader:
        outputs = model(audio)
        loss, losses = criterion(outputs, targets)
        tracker.update({"total_loss": loss} | losses, outputs, targets, batch_size=len(audio))
        logits.append(np.array(outputs["chord_type"]))
        types.append(np.array(targets["chord_type"]))
    logits, types = np.concatenate(logits), np.concatenate(types)
    print(tracker.summary())
    print(f"right type among the first 3: {compute_topk_accuracy(logits, types, k=3):.1f} %")
    shown = [CHORD_TYPES.index(name) for name in TRIADS]
    print("reference down, predicted across:", *TRIADS)
    print(compute_confusion_matrix(logits, types)[np.ix_(shown, shown)])
    scores = compute_per_class_metrics(logits, types)
    for number in shown:
        text = ", ".join(f"{name} {values[number]:.2f}" for name, values in scores.items())
        print(f"{CHORD_TYPES[number]:>4}: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--clips", type=int, default=240)
    settings = parser.parse_args()

    # Initialize model
    mx.random.seed(0)
    model = ChordRecognitionModel(d_model=64, num_blocks=2)

    # Create loss function
    criterion = ChordRecognitionLoss(
        chord_type_weight=1.0,
        root_weight=1.0,
        bass_weight=0.5,
        label_smoothing=0.1,
    )

    # Prepare data loaders
    train_loader = DataLoader(
        Triads(settings.clips, seed=0), batch_size=16, shuffle=True, num_workers=1
    )
    val_loader = DataLoader(Triads(max(16, settings.clips // 4), seed=1), batch_size=16)

    # Configure training
    config = TrainingConfig(
        learning_rate=3e-3,
        num_epochs=settings.epochs,
        warmup_epochs=2,
        scheduler="cosine",
    )

    # Create trainer
    trainer = ChordTrainer(
        model=model,
        train_loader=train_loader,
        val_loader=val_loader,
        config=config,
        criterion=criterion,
    )

    # Train
    history = trainer.train()
    print(f"root right: {history['val_root_acc'][-1]:.1f} % of unseen clips")

    # Save history, and look at the best model
    trainer.export_history("history.json")
    trainer.load_checkpoint("checkpoints/best_model.pt")
    report(model, val_loader)


if __name__ == "__main__":
    main()
