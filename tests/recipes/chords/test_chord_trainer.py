"""ChordTrainer: seed 002's API, on a model small enough to train in a moment."""

import contextlib
import json
import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import same, weights

from audiotrain import DataLoader, Dataset, OptimizerConfig
from audiotrain.evaluation.classification import MetricsTracker
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS
from audiotrain.recipes.chords.chord_trainer import ChordTrainer, TrainingConfig
from audiotrain.train import checkpoint
from audiotrain.train.losses import ChordRecognitionLoss

HISTORY = {
    "train_loss",
    "val_loss",
    "val_chord_type_acc",
    "val_root_acc",
    "val_bass_note_acc",
    "learning_rate",
}


class Sounds(Dataset):
    """(audio (32,), classes): the classes can be heard, the first few samples say them."""

    def __init__(self, count: int, first: int = 0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(self.first + index)
        audio = rng.normal(size=32).astype(np.float32)
        classes = [int(audio[:4].argmax()), int(audio[4:8].argmax()), int(audio[8:12].argmax())]
        return audio, dict(zip(HEADS, classes, strict=True))


class Ear(nn.Module):
    """Logits of the three heads from 32 samples."""

    def __init__(self, seed: int = 0, dropout: float = 0.0):
        super().__init__()
        mx.random.seed(seed)
        self.layer, self.out = nn.Linear(32, 32), nn.Linear(32, sum(HEAD_SIZES))
        self.dropout = nn.Dropout(dropout)

    def __call__(self, audio):
        logits = self.out(self.dropout(nn.relu(self.layer(audio))))
        return dict(
            zip(HEADS, mx.split(logits, np.cumsum(HEAD_SIZES)[:2].tolist(), -1), strict=True)
        )


def make(folder, seed=0, criterion=None, val_loader=None, dropout=0.0, **settings):
    settings = {"num_epochs": 3, "warmup_epochs": 1, "learning_rate": 1e-2} | settings
    config = TrainingConfig(checkpoint_dir=folder / "checkpoints", **settings)
    train_loader = DataLoader(Sounds(20), batch_size=8, shuffle=True)
    val_loader = val_loader or DataLoader(Sounds(10, first=100), batch_size=8)
    return ChordTrainer(Ear(seed, dropout), train_loader, val_loader, config, criterion)


def test_defaults_are_those_of_the_guide():
    expected = {
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "batch_size": 16,
        "num_epochs": 100,
        "warmup_epochs": 5,
        "scheduler": "cosine",
        "gradient_clip": 1.0,
        "label_smoothing": 0.1,
        "checkpoint_dir": "checkpoints",
        "save_every": 5,
        "patience": 15,
        "min_delta": 0.001,
        "log_every": 50,
        "device": "auto",
    }
    config = TrainingConfig()
    assert {name: getattr(config, name) for name in expected} == expected
    trainer = ChordTrainer(Ear(), [], [])
    assert trainer.config == config
    run = trainer.trainer
    assert (run.max_epochs, run.gradient_clip_val, run.log_every_n_steps) == (100, 1.0, 50)
    stopping = run.callbacks[0]
    assert (stopping.monitor, stopping.patience, stopping.min_delta) == ("val_loss", 15, 0.001)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_epochs": 0}, "num_epochs=0, expected 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate=0.0, expected more than 0"),
        ({"gradient_clip": -1.0}, "gradient_clip=-1.0, expected 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0, expected 0 or more and less than 1"),
        ({"scheduler": "step"}, "scheduler: found 'step', expected one of cosine, onecycle"),
        ({"device": "tpu"}, "device: found 'tpu', expected one of auto, cpu, gpu, cuda, mps"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps"])
def test_a_gpu_that_is_not_there_is_reported(monkeypatch, name):
    monkeypatch.setattr(mx, "is_available", lambda device: False)
    with pytest.raises(ValueError, match=f"device='{name}', but MLX has no GPU here"):
        ChordTrainer(Ear(), [], [], TrainingConfig(device=name))


def test_the_optimizer_and_the_length_are_the_configs(tmp_path):
    found = {}
    for decay in (0.0, 0.5):
        trainer = make(tmp_path, weight_decay=decay, num_epochs=2, learning_rate=0.02)
        history = trainer.train()
        optimizer = trainer.trainer.optimizer
        assert type(optimizer) is optim.AdamW
        assert optimizer.weight_decay == decay
        assert len(history["train_loss"]) == trainer.trainer.current_epoch == 2
        assert max(history["learning_rate"]) == pytest.approx(0.02)
        found[decay] = np.linalg.norm(weights(trainer.module)["model.out.weight"])
    assert found[0.5] < found[0.0]


@pytest.mark.parametrize("clip", [0.25, 0.0])
def test_a_step_is_no_longer_than_the_clipped_gradient(tmp_path, clip):
    trainer = make(tmp_path, gradient_clip=clip, num_epochs=1, log_every=1)
    trainer.trainer.configure_optimizers = lambda module: OptimizerConfig(optim.SGD(1.0))
    trainer.trainer.arguments = replace(trainer.trainer.arguments, max_steps=1)
    before = weights(trainer.module)
    trainer.train()
    after = weights(trainer.module)
    moved = math.sqrt(sum(np.sum((after[name] - before[name]) ** 2) for name in after))
    norm = trainer.trainer.history.log[0]["gradient_norm"]
    assert norm > 0.3
    assert moved == pytest.approx(clip or norm, rel=1e-4)


def test_history_is_of_each_validation_in_percent(tmp_path):
    trainer = make(tmp_path)
    history = trainer.train()
    found = trainer.validate()
    assert {name: history[f"val_{name}"][-1] for name in found if "acc" in name} == {
        name: value for name, value in found.items() if "acc" in name
    }
    assert history["val_loss"][-1] == found["total_loss"]
    assert found["root_acc"] > 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", None), ("cpu", mx.cpu), ("gpu", mx.gpu), ("cuda", mx.gpu), ("mps", mx.gpu)],
)
def test_where_it_computes(tmp_path, monkeypatch, name, expected):
    """Without a GPU the stream cannot be entered, so it is only seen which one is asked for."""
    entered = []

    @contextlib.contextmanager
    def stream(device):
        if not isinstance(device, mx.Stream):  # of loaders
            entered.append(device)
        yield

    trainer = make(tmp_path, num_epochs=1)
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    trainer = ChordTrainer(
        Ear(), trainer.train_loader, trainer.val_loader, replace(trainer.config, device=name)
    )
    monkeypatch.setattr(mx, "stream", stream)
    trainer.train_epoch()
    trainer.validate()
    assert entered == [expected or mx.default_device()] * 2


def test_history_has_its_keys_and_is_exported(tmp_path):
    trainer = make(tmp_path, log_every=2)
    history = trainer.train()
    assert set(history) == HISTORY
    assert all(len(values) == 3 for values in history.values())
    assert history["train_loss"][-1] < history["train_loss"][0]
    trainer.export_history(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text()) == history
    steps = [row["step"] for row in trainer.trainer.history.log]
    assert steps == [2, 4, 6, 8]  # log_every


def test_validate_is_the_tracker_over_all_batches(tmp_path):
    trainer = make(tmp_path)
    trainer.train_epoch()
    found = trainer.validate()
    criterion, tracker = ChordRecognitionLoss(label_smoothing=0.1), MetricsTracker()
    for audio, targets in trainer.val_loader:  # 8 items, then 2
        logits = trainer.module.model(audio)
        loss, losses = criterion(logits, targets)
        tracker.update({"total_loss": loss} | losses, logits, targets, len(audio))
    assert found == pytest.approx(tracker.get_metrics(), rel=1e-5)
    assert list(found) == [
        "total_loss",
        "chord_type_loss",
        "root_loss",
        "bass_note_loss",
        "chord_type_acc",
        "root_acc",
        "bass_note_acc",
    ]
    assert max(found.values()) > 1.5  # percent


def test_epochs_one_by_one_are_the_same_run(tmp_path):
    whole = make(tmp_path / "whole", dropout=0.2)
    history = whole.train()
    parts = make(tmp_path / "parts", dropout=0.2)
    first = parts.train_epoch()
    assert list(first) == [
        "total_loss",
        "chord_type_loss",
        "root_loss",
        "bass_note_loss",
        "learning_rate",
    ]
    parts.validate()
    parts.train_epoch()
    resumed = parts.train()
    assert same(weights(whole.module), weights(parts.module))
    assert resumed["train_loss"] == history["train_loss"]
    assert first["total_loss"] == history["train_loss"][0]
    assert math.isnan(resumed["val_loss"][0])  # train_epoch does not validate
    assert resumed["val_loss"][2] == history["val_loss"][2]
    assert parts.train()["train_loss"] == history["train_loss"]  # nothing is left to do
    assert parts.trainer.global_step == 9


def test_a_checkpoint_continues_exactly(tmp_path):
    whole = make(tmp_path / "whole", dropout=0.2)
    history = whole.train()
    first = make(tmp_path / "first", dropout=0.2)
    first.train_epoch()
    path = tmp_path / "first" / "checkpoints" / "my_checkpoint.pt"
    first.save_checkpoint(str(path))
    meta = checkpoint.load_meta(path)
    assert meta["config"]["num_epochs"] == 3
    second = make(tmp_path / "second", seed=1, dropout=0.2)
    second.load_checkpoint(str(path))
    assert same(weights(first.module), weights(second.module))
    assert second.validate() == first.validate()
    assert second.history["train_loss"] == history["train_loss"][:1]
    assert second.train()["train_loss"] == history["train_loss"]
    assert same(weights(whole.module), weights(second.module))


def test_the_best_model_is_kept_and_training_goes_on_from_it(tmp_path):
    trainer = make(tmp_path, num_epochs=4, save_every=2, learning_rate=0.3, patience=4)
    history = trainer.train()  # such a rate does not improve for long
    folder = tmp_path / "checkpoints"
    written = {path.name for path in folder.iterdir() if path.is_dir()}
    assert written == {"best_model.pt", "last", "epoch-001.pt", "epoch-003.pt"}
    assert trainer.best_val_loss == min(history["val_loss"])
    epochs = history["val_loss"].index(min(history["val_loss"])) + 1
    assert checkpoint.load_meta(folder / "best_model.pt")["epoch"] == epochs
    again = make(tmp_path, num_epochs=4, save_every=2, learning_rate=0.3, patience=4, seed=1)
    again.load_checkpoint(folder / "best_model.pt")
    assert again.train() == history
    assert again.best_val_loss == trainer.best_val_loss
    assert not (folder / "best_model-1.pt").exists()
    make(tmp_path, num_epochs=1).train()  # another run sets the old best aside
    assert checkpoint.load_meta(folder / "best_model.pt")["epoch"] == 1
    assert checkpoint.load_meta(folder / "best_model-1.pt")["epoch"] == epochs


def test_patience_and_min_delta(tmp_path):
    trainer = make(tmp_path, num_epochs=9, patience=2, min_delta=100.0)
    assert len(trainer.train()["val_loss"]) == 3  # the first counts as an improvement
    with pytest.raises(ValueError, match="stopped early at epoch 3 by patience=2"):
        trainer.train_epoch()


def test_cosine_goes_by_epochs(tmp_path):
    rates = make(tmp_path, num_epochs=5, warmup_epochs=2, learning_rate=0.1).train()[
        "learning_rate"
    ]
    falling = [0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi * done / 3)) for done in range(3)]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, *falling], rel=1e-5)


def test_a_run_shorter_than_its_warmup_ends_in_it(tmp_path):
    rates = make(tmp_path, num_epochs=2, warmup_epochs=5, learning_rate=0.6).train()
    assert rates["learning_rate"] == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize("cycle_momentum", [False, True])
def test_onecycle_goes_by_batches(tmp_path, cycle_momentum):
    trainer = make(tmp_path, scheduler="onecycle", cycle_momentum=cycle_momentum, learning_rate=0.1)
    rates = trainer.train()["learning_rate"]  # of steps 2, 5, 8; the peak is at step 3
    low = 0.1 / 25
    expected = [low + (0.1 - low) * 2 / 3, 0.1 - (0.1 - low / 1e4) * 2 / 5, low / 1e4]
    assert rates == pytest.approx(expected, rel=1e-4, abs=1e-7)
    optimizer = trainer.trainer.optimizer
    assert type(optimizer) is not optim.AdamW if cycle_momentum else type(optimizer) is optim.AdamW
    if cycle_momentum:
        assert optimizer.state["momentum"].item() == pytest.approx(0.95)


def test_smoothing_of_the_config_counts_without_a_criterion(tmp_path):
    def first_loss(criterion=None, **settings):
        return make(tmp_path, criterion=criterion, **settings).validate()["total_loss"]

    assert first_loss(label_smoothing=0.0) == first_loss(ChordRecognitionLoss(label_smoothing=0.0))
    assert first_loss(label_smoothing=0.5) != first_loss(label_smoothing=0.0)
    own = ChordRecognitionLoss(bass_weight=0.0, label_smoothing=0.3)
    assert first_loss(own, label_smoothing=0.1) == first_loss(own, label_smoothing=0.2)


def test_gradients_are_clipped_unless_the_norm_is_0(tmp_path):
    assert make(tmp_path, gradient_clip=0.25).trainer.gradient_clip_val == 0.25
    assert make(tmp_path, gradient_clip=0).trainer.gradient_clip_val is None


def test_datasets_are_batched_by_the_config():
    trainer = ChordTrainer(Ear(), Sounds(20), Sounds(10), TrainingConfig(batch_size=5))
    assert (len(trainer.train_loader), trainer.train_loader.shuffle) == (4, True)
    assert (len(trainer.val_loader), trainer.val_loader.shuffle) == (2, False)


def test_a_loader_without_length_is_named(tmp_path):
    trainer = make(tmp_path)
    trainer.train_loader = iter(trainer.train_loader)
    with pytest.raises(ValueError, match="train_loader has no length"):
        trainer.train()


def test_a_class_that_the_model_does_not_have_is_reported_and_not_learned(tmp_path):
    class Wrong(Sounds):
        def __getitem__(self, index):
            audio, classes = super().__getitem__(index)
            return audio, classes | {"chord_type": 32 if index == self.count - 1 else -1}

    trainer = make(tmp_path, num_epochs=1)
    trainer.train_loader = DataLoader(Wrong(20), batch_size=8)
    message = "batch 2 of epoch 0: chord_type 32, expected 0 to 31, or below 0 to ignore"
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert all(np.isfinite(array).all() for array in weights(trainer.module).values())
    trainer = make(tmp_path, num_epochs=1, val_loader=DataLoader(Wrong(3), batch_size=2))
    with pytest.raises(ValueError, match="validation batch 1: chord_type 32, expected 0 to 31"):
        trainer.train()


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle"])
def test_accumulated_batches_equal_the_large_batch(tmp_path, scheduler):
    def fit(size, **settings):
        folder = tmp_path / f"{scheduler}-{size}"
        config = TrainingConfig(
            checkpoint_dir=folder,
            batch_size=size,
            num_epochs=3,
            warmup_epochs=1,
            scheduler=scheduler,
            **settings,
        )
        trainer = ChordTrainer(Ear(), Sounds(20), Sounds(10, first=100), config)
        return trainer, trainer.train()

    (large, expected), (small, history) = fit(8), fit(4, gradient_accumulation_steps=2)
    assert small.trainer.global_step == large.trainer.global_step == 9
    for name in ("learning_rate", "train_loss", "val_loss"):
        assert history[name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.filterwarnings("ignore:precision 'bf16-mixed' on a CPU")
def test_precision_is_the_trainers(tmp_path):
    exact, rounded = (
        make(tmp_path / precision, precision=precision, num_epochs=1).train()["train_loss"][0]
        for precision in ("32-true", "bf16-mixed")
    )
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
