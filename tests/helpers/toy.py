"""A small model and data that several tests of the training wing share."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain import DataLoader, Dataset, OptimizerConfig, Trainer, TrainModule


class Points(Dataset):
    """Items {"x": (8,), "y": 0..2}: the place of the largest of the first three numbers."""

    def __init__(self, count: int = 40):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=8).astype(np.float32)
        return {"x": x, "y": int(x[:3].argmax())}


class Classifier(TrainModule):
    """Has what a resumed run may lose: dropout, batch norm buffers, a frozen part, a schedule."""

    def __init__(self, optimizer=None, dropout=0.2, seed=0):
        super().__init__()
        mx.random.seed(seed)
        self.first = nn.Linear(8, 16)
        self.norm = nn.BatchNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(16, 3)
        self.frozen = nn.Linear(16, 16)
        self.frozen.freeze()
        self.make_optimizer = optimizer or (lambda: optim.AdamW(learning_rate=1e-2))

    def __call__(self, x):
        x = self.dropout(self.norm(nn.relu(self.first(x))))
        return self.last(x + 0.1 * self.frozen(x))

    def compute_loss(self, batch):
        logits = self(batch["x"])
        loss = nn.losses.cross_entropy(logits, batch["y"], reduction="mean")
        return loss, {"accuracy": mx.mean(mx.argmax(logits, axis=-1) == batch["y"])}

    def configure_optimizers(self):
        return OptimizerConfig(self.make_optimizer(), "test")


class Line(TrainModule):
    """y = w x with w = 0 at first: gradients are known."""

    def __init__(self, optimizer=None):
        super().__init__()
        self.w = mx.zeros((2,))
        self.make_optimizer = optimizer or (lambda: optim.SGD(learning_rate=1.0))

    def compute_loss(self, batch):
        return mx.mean(mx.sum(self.w * batch, axis=-1)), {}

    def configure_optimizers(self):
        return OptimizerConfig(self.make_optimizer())


def loaders(count: int = 40, batch_size: int = 8, **settings):
    """Training and validation loaders; the last validation batch is smaller."""
    train = DataLoader(Points(count), batch_size=batch_size, shuffle=True, seed=3, **settings)
    return train, DataLoader(Points(20), batch_size=8)


def trainer(folder, **settings) -> Trainer:
    """A silent Trainer."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    if not {"max_epochs", "max_steps", "max_time"} & set(settings):
        settings["max_epochs"] = 1
    return Trainer(default_root_dir=folder, **(quiet | settings))


class Scripted(Line):
    """Its validation loss is its batch."""

    def validation_step(self, batch):
        return batch, {}


class Losses:
    """A validation loader: one batch a pass, the next of the listed losses."""

    def __init__(self, losses):
        self.losses = iter(losses)

    def __iter__(self):
        return iter([mx.array(next(self.losses), mx.float32)])


def fit_on(folder, losses, *callbacks, **settings) -> Trainer:
    """Train an epoch of two batches for each of the validation losses."""
    data = [mx.ones((2, 2))] * 2
    run = trainer(folder, callbacks=list(callbacks), max_epochs=len(losses), **settings)
    run.fit(Scripted(), data, Losses(losses))
    return run


def weights(module) -> dict[str, np.ndarray]:
    """All arrays of a module, also frozen ones and buffers, as copies."""
    from audiotrain.utils.arrays import arrays_of

    return {key: np.array(array) for key, array in arrays_of(module.state).items()}


def same(first: dict, second: dict) -> bool:
    """Whether two results of `weights` are equal bit for bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


class Plain(TrainModule):
    """A module that leaves the optimizer to the settings."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
        self.dropout = nn.Dropout(0.2)

    def __call__(self, x):
        return self.layers(self.dropout(x))

    def compute_loss(self, batch):
        logits = self(batch["x"])
        return mx.mean(nn.losses.cross_entropy(logits, batch["y"])), {}

    def predict_step(self, batch):
        return mx.softmax(self(batch["x"]), axis=-1)


def quiet(tmp_path, **settings):
    """Settings of a short run in `tmp_path`/run that prints no progress."""
    return {"output_dir": tmp_path / "run", "progress": False, "num_epochs": 2} | settings
