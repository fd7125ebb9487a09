"""What test_distributed.py trains, in one process and on ranks: `ranks.py FOLDER SCENARIO…`.

Each scenario writes what came of it to FOLDER as NAME-RANK.npz.
"""

import contextlib
import io
import os
import signal
import sys
from pathlib import Path

import audiotrain.train.distributed.ranks  # isort: skip
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny_chords
import tiny_clap
from toy import Classifier, Points, trainer, weights

from audiotrain import DataLoader, Dataset, OptimizerConfig, TrainModule, create_competition_trainer
from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS
from audiotrain.recipes.clap import recipe as clap_recipe
from audiotrain.train.callbacks import Callback, EarlyStopping, ModelCheckpoint
from audiotrain.train.engine.grad_cache import in_micro_batches
from audiotrain.train.loggers import Logger
from audiotrain.train.losses import ContrastiveLoss

SIZES = dict(zip(HEADS, HEAD_SIZES, strict=True))
BATCH = int(os.environ.get("RANKS_BATCH", 4))  # samples of all ranks together


class Songs(Dataset):
    """13 spectrograms of 8 frames with chord labels; the last frames of some are padding."""

    def __init__(self, count: int = 13):
        self.count = count

    def __len__(self):
        return self.count

    def get(self, index, rng):
        fixed = np.random.default_rng(index)
        song = {head: fixed.integers(size, size=8) for head, size in SIZES.items()}
        noise = rng.normal(size=(8, 12))  # differs by epoch, must not differ by rank
        x = fixed.normal(size=(8, 12)) + 0.1 * noise
        return song | {"x": x.astype(np.float32), "mask": np.arange(8) < 3 + index % 6}


class Chords(TrainModule):
    """The frame model; the loss is a mean over frames that are no padding."""

    def __init__(self):
        super().__init__()
        mx.random.seed(int(os.environ.get("MLX_RANK", 0)))  # ranks must start from one's weights
        small = {"width": 16, "blocks": 1, "heads": 2, "hidden": 16, "dropout": 0.0}
        self.model = FrameChordModel(12, ChordModelSettings("relu-transformer", **small))

    def compute_loss(self, batch):
        logits, mask = self.model(batch["x"]), batch["mask"]
        losses = sum(
            nn.losses.cross_entropy(logits[head].astype(mx.float32), batch[head]) for head in HEADS
        )
        right = mx.argmax(logits["root"], axis=-1) == batch["root"]
        frames = mx.sum(mask)
        return mx.sum(losses * mask) / frames, {"root_acc": mx.sum(right * mask) / frames}

    def batch_weight(self, batch):
        return mx.sum(batch["mask"])

    def configure_optimizers(self):
        rate = optim.cosine_decay(0.1, self.trainer.estimated_total_steps)
        return OptimizerConfig(optim.SGD(rate, momentum=0.9))


class Frames(Points):
    """Points in three frames each: batch normalisation runs over those, too."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"x": np.stack([item["x"] * scale for scale in (0.5, 1.0, 2.0)])}


class Spoiled(Frames):
    """Sample 6 has a NaN."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"x": item["x"] * np.nan} if index == 6 else item


class FrameClassifier(Classifier):
    def __call__(self, x):
        return mx.mean(super().__call__(x), axis=1)


class Counted(Logger):
    """Says in a file that a run began: once, however many ranks there are."""

    def __init__(self, path):
        self.path = path

    def log_hyperparams(self, config):
        with open(self.path, "a") as file:
            file.write("run\n")


class At(Callback):
    """Does something on one rank after a step."""

    def __init__(self, rank, step, action):
        self.rank, self.step, self.action = rank, step, action

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            self.action(trainer)


def ranks() -> int:
    return audiotrain.train.distributed.ranks.join().size


def loader(dataset, world_size, **settings):
    return DataLoader(dataset, batch_size=BATCH // world_size, seed=3, **settings)


def momentum():
    return optim.SGD(0.05, momentum=0.9)


def result(trainer, model, **more):
    numbers = {f"history.{k}": v for k, v in trainer.history.rows[-1].items()}
    counted = {"step": trainer.global_step, "skipped": trainer.skipped_steps}
    return weights(model) | numbers | counted | more


def chords(folder, size):
    """Accumulation over an uneven tail: rank 1 has no sample in an epoch's last batch."""
    model = Chords()
    counted = Counted(folder / "runs.txt")
    run = trainer(
        folder,
        max_epochs=2,
        accumulate_grad_batches=3,
        gradient_clip_val=1.0,
        logger=counted,
        num_sanity_val_steps=1,
    )
    run.fit(model, loader(Songs(), size, shuffle=True), loader(Songs(5), size))
    tested = run.test(model, loader(Songs(6), size), ckpt_path="last")
    return result(run, model, tested=tested["test_loss"], traced=run.trace_count)


def norm(folder, size, dataset=None, normalized=True, **settings):
    model = FrameClassifier(momentum, dropout=0.0)
    if not normalized:
        model.norm = nn.Identity()
    run = trainer(folder, max_epochs=3, ema_decay=0.9, **settings)
    run.fit(model, loader(dataset or Frames(13), size, shuffle=True), loader(Frames(7), size))
    return result(run, model)


class Pairs(TrainModule):
    """Two towers and a logit scale; the negatives are those of all ranks, a row at a time."""

    def __init__(self):
        super().__init__()
        mx.random.seed(0)
        self.towers = [nn.Linear(8, 4), nn.Linear(8, 4)]
        self.logit_scale = mx.array(1.0)

    def embed(self, x):
        return [tower(x) for tower in self.towers]

    def compute_loss(self, batch):
        embeddings = in_micro_batches(self, self.embed, batch["x"], micro_batch=1)
        loss = ContrastiveLoss(self.trainer.ranks.gather_rows)
        return loss(*embeddings, mx.exp(self.logit_scale), groups=batch["y"])

    def configure_optimizers(self):
        return OptimizerConfig(momentum())


def contrastive(folder, size, **settings):
    model = Pairs()
    run = trainer(folder, max_epochs=2, **settings)
    run.fit(model, loader(Points(24), size, shuffle=True))
    return result(run, model)


def contrastive_accumulated(folder, size):
    return contrastive(folder, size, accumulate_grad_batches=3)


def norm_accumulated(folder, size):
    return norm(folder, size, accumulate_grad_batches=2, compile=False)


def spoiled(folder, size):
    return norm(folder, size, Spoiled(13), compile=False)


def spoiled_accumulated(folder, size):
    return norm(folder, size, Spoiled(13), accumulate_grad_batches=2, compile=False)


def spoiled_at_one(folder, size):
    """Without batch normalisation, which would show the NaN to all ranks, one alone has it."""
    return norm(folder, size, Spoiled(13), normalized=False, compile=False)


def spoiled_at_one_accumulated(folder, size):
    settings = {"normalized": False, "accumulate_grad_batches": 2, "compile": False}
    return norm(folder, size, Spoiled(13), **settings)


def whole(folder, size, callbacks=(), ckpt_path=None):
    """With dropout: not the numbers of one process, but those of any other run on ranks."""
    model = Classifier(dropout=0.5)
    run = trainer(folder, max_epochs=4, callbacks=list(callbacks), compile=False)
    try:
        run.fit(model, loader(Points(24), size, shuffle=True), loader(Points(7), size), ckpt_path)
        stopped = 0
    except SystemExit as end:
        stopped = end.code
    return result(run, model, stopped=stopped)


def interrupted(folder, size):
    """SIGTERM at one rank in the second epoch, then a new run from what rank 0 saved."""
    kill = At(size - 1, 8, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    stopped = whole(folder, size, [kill])
    resumed = whole(folder, size, ckpt_path=folder / "checkpoints" / "last")
    return resumed | {"stopped": stopped["stopped"], "stopped_step": stopped["step"]}


def asked(folder, size):
    """One rank alone wants to stop."""
    stop = At(size - 1, 3, lambda trainer: setattr(trainer, "should_stop", True))
    return whole(folder, size, [stop])


def timed(folder, size):
    """Time is up on one rank alone."""
    model = Classifier(dropout=0.0)
    run = trainer(folder, max_time=3600.0, compile=False)
    run.callbacks.append(At(size - 1, 3, lambda t: setattr(t, "started", -1e9)))
    run.fit(model, loader(Points(24), size, shuffle=True))
    return result(run, model)


def early(folder, size):
    """No validation is better than the first: EarlyStopping ends all ranks."""
    stop = EarlyStopping(patience=1, min_delta=1e3, verbose=True)
    return whole(folder, size, [stop, ModelCheckpoint(monitor="val_loss", save_top_k=1)])


def killed(folder, size):
    """A rank dies; checkpoints are written every second step."""
    die = At(size - 1, 9, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    saver = ModelCheckpoint(every_n_steps=2, save_top_k=0)
    run = trainer(folder, max_epochs=4, callbacks=[die, saver], compile=False)
    train = loader(Points(24), size, shuffle=True)
    run.fit(Classifier(dropout=0.5), train, loader(Points(7), size))


def recipe(folder, size):
    """The chord recipe from its command line, on a folder of songs."""
    own = audiotrain.train.distributed.ranks.join()
    own.broadcast_from_rank0(lambda: str(tiny_chords.sung(folder / "songs")))
    words = ["--data", folder / "songs", "--output", folder / "run", "--cache", folder / "cache"]
    words += [*tiny_chords.TINY, "--steps", 4, "--model.dropout", 0, "--batch-size", 8 // size]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        tiny_chords.make_quick(patch)
        with contextlib.redirect_stderr(said):
            code = tiny_chords.command(*words)
    return {"code": code, "said": said.getvalue()}


def clap(folder, size):
    """The CLAP recipe from its command line: what it learned, on each rank."""
    own = audiotrain.train.distributed.ranks.join()
    own.broadcast_from_rank0(lambda: str(tiny_clap.captioned(folder / "clips")))
    own.broadcast_from_rank0(lambda: str(tiny_clap.pretrained(folder / "start", dropout=0.0)))
    words = ["--data", folder / "clips", "--output", folder / "run", "--cache", folder / "cache"]
    words += [*tiny_clap.TINY, "--steps", 4, "--pretrained", folder / "start", "--epochs", 2]
    words += ["--batch-size", 8 // size, "--optimization.learning-rate", 1e-3]
    words += ["--optimization.head-rate", 1e-2, "--augmentation.time-masks", 1]
    said, modules = io.StringIO(), []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        make = clap_recipe.make_module
        patch.setattr(
            clap_recipe,
            "make_module",
            lambda *given: modules.append(make(*given)) or modules[0],
        )
        patch.setattr(clap_recipe, "write_best", lambda *given: folder / "start")
        tiny_clap.make_quick(patch)
        with contextlib.redirect_stderr(said):
            code = tiny_clap.command(*words)
    own.gather(None)
    return weights(modules[0]) | {"code": code, "said": said.getvalue()}


def competition(folder, size):
    """A cross-validation, continued when it is done, and its submission."""
    mx.random.seed(0)
    points = [Points(46)[number] for number in range(46)]
    x, y = (np.stack([point[name] for point in points]) for name in "xy")

    def loss(model, x, y):
        return nn.losses.cross_entropy(model(x), y).mean()

    run = create_competition_trainer(
        nn.Linear(8, 3),
        "tones",
        (x[40:], y[40:]),
        {},
        loss=loss,
        output_dir=folder / "run",
        progress=False,
        num_epochs=3,
        cv_folds=3,
        batch_size=BATCH // size,
        learning_rate=0.05,
    )
    first = run.train_with_cv((x[:40], y[:40]))
    again = run.train_with_cv((x[:40], y[:40]), resume=True)
    np.testing.assert_array_equal(again.predictions, first.predictions)
    names = ["c0", "c1", "c2"]
    path = run.create_submission(ids=list("abcdef"), columns=names, probabilities=False)
    return first.mean | {
        "predictions": first.predictions,
        "tested": run.predict(),
        "written": path.read_text(),
    }


SCENARIOS = [chords, norm, norm_accumulated, spoiled, spoiled_accumulated]
SCENARIOS += [spoiled_at_one, spoiled_at_one_accumulated]
SCENARIOS += [contrastive, contrastive_accumulated]
SCENARIOS += [whole, interrupted, asked, timed, early, killed, recipe, clap, competition]


def run(scenario, folder: Path) -> None:
    size, rank = ranks(), int(os.environ.get("MLX_RANK", 0))
    own = folder / scenario.__name__
    own.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{scenario.__name__}-{rank}.npz", **scenario(own, size))


if __name__ == "__main__":
    for name in sys.argv[2:]:
        run(next(s for s in SCENARIOS if s.__name__ == name), Path(sys.argv[1]))
