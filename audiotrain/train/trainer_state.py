"""What a checkpoint of a Trainer holds, and how a run continues from it, bit for bit."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from audiotrain.train import checkpoint
from audiotrain.train.callbacks import LearningRateScheduler
from audiotrain.train.engine.compiled_function import random_key
from audiotrain.train.engine.evaluation_loop import Averages
from audiotrain.train.run_folder import runs_in
from audiotrain.utils.arrays import arrays_of, put_arrays
from audiotrain.utils.errors import UserError

# Where a run stands: attributes of the Trainer that a checkpoint holds under the same names.
COUNTERS = (
    "group global_step skipped_steps skipped_run validation_due checked_batches validated_step"
).split()


def trees(trainer) -> dict[str, dict]:
    """The trees of arrays that make up a training state, by the name of their file."""
    step = trainer.step
    states = {"model": step.module.state, "optimizer": step.optimizer.state}
    if "ema" in step.extra:
        states["ema"] = step.extra["ema"]
    if trainer.group:  # inside a group of accumulated batches
        states["accumulator"] = step.extra["accumulator"]
    return states


def save(trainer, path: str | Path) -> None:
    """Write a checkpoint of the whole run: rank 0, once all ranks are between steps."""
    if trainer.group and trainer.world_size > 1:
        raise UserError(
            f"save_checkpoint: called after {trainer.group} of {trainer.accumulate_grad_batches} "
            f"accumulated batches; several ranks can save only between optimizer steps"
        )
    if trainer.is_global_zero:
        mx.eval(trainer.step.state())
        arrays = {name: arrays_of(tree) for name, tree in trees(trainer).items()}
        checkpoint.save(path, arrays, position(trainer))


def resolve(trainer, path: str | Path) -> Path:
    """A path, or the "last" or "best" of the trainer's ModelCheckpoint."""
    saver = trainer.checkpoint_callback
    if path not in ("last", "best") or Path(path).exists() or saver is None:
        return Path(path)
    if path == "last":
        last = saver.folder(trainer) / "last"
        if saver.dirpath or trainer.keeps_folder or trainer.module is not None:
            return last
        # A Trainer that has not trained: of the runs in its folder, the one that was saved last.
        places = [run / "checkpoints" / "last" for run in runs_in(trainer.default_root_dir)]
        found = [place for place in places if checkpoint.exists(place)]
        return max(found, key=lambda place: place.stat().st_mtime, default=last)
    if saver.best_model_path is None:
        raise UserError("ckpt_path 'best': no best checkpoint was written yet")
    return saver.best_model_path


def load_weights(trainer, path: Path) -> dict:
    """Load a checkpoint's weights, averaged ones where it has them, into the module of every rank
    (rank 0 reads them); the checkpoint's meta."""
    module = trainer.module
    trainer.step = None  # its running average belongs to other weights
    meta = trainer.ranks.broadcast_from_rank0(lambda: checkpoint.load_weights(module, path))
    trainer.ranks.broadcast([module.state])
    return meta


def position(trainer) -> dict:
    """Where the run stands, as plain data."""
    finished = trainer.epoch_finished
    loader, loader_state = trainer.train_loader, None
    if not finished and not trainer.overfit_batches and hasattr(loader, "state_dict"):
        loader_state = loader.state_dict()
        if hasattr(loader, "state_after"):  # of the trained batches: other code may iterate, too
            loader_state = loader.state_after(trainer.current_epoch, trainer.batches_done)
    averages = Averages() if finished else trainer.averages
    return {
        "run": trainer.run_name,
        "epoch": trainer.current_epoch + finished,
        "batches": 0 if finished else trainer.batches_done,
        **{name: trainer.__dict__[name] for name in COUNTERS},
        "seconds": trainer.elapsed(),
        "random_key": str(random_key()),  # 64 bits, more than some JSON readers keep
        "loader": loader_state,
        "epoch_averages": averages.state_dict(),
        "interval_averages": trainer.interval.state_dict(),
        "metrics": trainer.callback_metrics,
        "records": trainer.records.pending(),
        "trained": sorted(arrays_of(trainer.module.trainable_parameters())),
        "evaluating": [name for name, part in trainer.module.named_modules() if not part.training],
        "history": trainer.history.state_dict(),
        "callbacks": {name: c.state_dict() for name, c in numbered(trainer.callbacks)},
        "loggers": {name: logger.state_dict() for name, logger in numbered(trainer.loggers)},
        "config": trainer.config,
    }


def restore(trainer, path: Path) -> None:
    """Continue from a checkpoint: arrays, counters, averages, callbacks, loader, random key.

    Only rank 0 reads it; its arrays reach the others when fit begins.
    """
    meta = trainer.ranks.broadcast_from_rank0(lambda: _restore_arrays(trainer, path))
    try:
        _restore_position(trainer, meta)
    except KeyError as error:
        raise checkpoint.CheckpointError(f"{path}: no {error} in {checkpoint.STATE}") from None


def _restore_position(trainer, meta: dict) -> None:
    _restore_modes(trainer, meta)  # on the ranks that read no arrays, too
    meta.setdefault("checked_batches", meta["batches"])  # older checkpoints lack it
    vars(trainer).update({name: meta[name] for name in COUNTERS})
    trainer.current_epoch, trainer.batches_done = meta["epoch"], meta["batches"]
    trainer.started = time.monotonic() - meta["seconds"]
    trainer.averages.load_state_dict(meta["epoch_averages"])
    trainer.interval.load_state_dict(meta["interval_averages"])
    trainer.callback_metrics = dict(meta["metrics"])
    trainer.history.load_state_dict(meta["history"])
    for name, value in meta.get("records", {}).items():
        trainer.record(name, value)
    states = meta["callbacks"], meta.get("loggers", {})  # older checkpoints have no loggers
    for objects, saved in zip((trainer.callbacks, trainer.loggers), states, strict=True):
        for name, one in numbered(objects):
            if name in saved:
                one.load_state_dict(saved[name])
    trainer.loader_resumes = meta["loader"] is not None and meta["batches"] > 0
    if trainer.loader_resumes:
        trainer.train_loader.load_state_dict(meta["loader"])
    mx.random.seed(int(meta["random_key"]))


def _restore_arrays(trainer, path: Path) -> dict:
    arrays, meta = checkpoint.load(path)
    if meta.get("group") and not trainer.step.accumulate:
        raise checkpoint.CheckpointError(
            f"{path}: saved after {meta['group']} accumulated batches, but accumulate_grad_batches "
            f"is 1: expected the number of that run"
        )
    _restore_modes(trainer, meta)
    trainer.group = meta.get("group", 0)
    expected = trees(trainer)
    for name, tree in expected.items():  # all of them before anything is changed
        checkpoint.match(arrays.get(name, {}), arrays_of(tree), f"{path} ({name})")
    if "ema" in arrays and trainer.ema_decay is None:
        warnings.warn(f"{path}: its running average is left out, ema_decay is None", stacklevel=6)
    _warn_of_learning_rate(trainer, arrays.get("optimizer", {}), path)
    for name, tree in expected.items():
        if name == "ema":
            tree.update(arrays[name])
        else:
            put_arrays(tree, arrays.get(name, {}))
    return meta


def _warn_of_learning_rate(trainer, saved: dict, path: Path) -> None:
    """Say which learning rate is used where the optimizer has another one than its checkpoint; one
    with a schedule follows the schedule."""
    schedules = getattr(trainer.step.optimizer, "_schedulers", {})
    by_callback = any(isinstance(one, LearningRateScheduler) for one in trainer.callbacks)
    if "learning_rate" not in saved or "learning_rate" in schedules or by_callback:
        return
    ours, theirs = trainer.current_learning_rate(), float(saved["learning_rate"])
    if abs(ours - theirs) > 1e-6 * abs(theirs):
        warnings.warn(
            f"{path}: its learning rate {theirs:g} is used, and not {ours:g} of this optimizer; a "
            "schedule changes it",
            stacklevel=7,
        )


def _restore_modes(trainer, meta: dict) -> None:
    """Freeze, unfreeze, and set to train or eval as in the run that was saved."""
    if "trained" not in meta:  # an older checkpoint
        return
    trained, evaluating = set(meta["trained"]), set(meta["evaluating"])
    for name, part in trainer.module.named_modules():
        part._training = name not in evaluating
        prefix = f"{name}." if name else ""
        for key, leaf in part.items():
            if isinstance(leaf, mx.array):
                (part._no_grad.discard if prefix + key in trained else part._no_grad.add)(key)
    trainer.step.refresh()


def numbered(objects: Sequence) -> list[tuple[str, Any]]:
    """Callbacks or loggers under the names their state has in a checkpoint: class and number.

    >>> numbered([1, 2.0, 3])
    [('int.1', 1), ('float.1', 2.0), ('int.2', 3)]
    """
    kinds = [type(one).__name__ for one in objects]
    numbers = (kinds[: index + 1].count(kind) for index, kind in enumerate(kinds))
    return [(f"{kind}.{n}", one) for kind, n, one in zip(kinds, numbers, objects, strict=True)]
