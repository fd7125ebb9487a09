"""What a checkpoint of a Trainer holds, and how a run continues from it, bit for bit."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from audiotrain.train import checkpoint
from audiotrain.train.engine.compiled_function import random_key
from audiotrain.train.engine.evaluation_loop import Averages
from audiotrain.utils import arrays as utils_arrays


def trees(trainer) -> dict[str, dict]:
    """The trees of arrays that make up a training state, by the name of their file."""
    step = trainer.step
    found = {"model": step.module.state, "optimizer": step.optimizer.state}
    if "ema" in step.extra:
        found["ema"] = step.extra["ema"]
    if trainer.group:  # inside a group of accumulated batches
        found["accumulator"] = step.extra["accumulator"]
    return found


def save(trainer, path: str | Path) -> None:
    """Write a checkpoint of the whole run: rank 0, once all ranks are between steps."""
    if trainer.group and trainer.world_size > 1:
        raise ValueError(
            f"save_checkpoint: called after {trainer.group} of {trainer.accumulate_grad_batches} "
            f"accumulated batches; several ranks can save only between optimizer steps"
        )
    if trainer.is_global_zero:
        checkpoint.save(path, arrays_to_save(trainer), position(trainer))


def resolve(trainer, path: str | Path) -> Path:
    """A path, or the "last" or "best" of the trainer's ModelCheckpoint."""
    saver = trainer.checkpoint_callback
    if path not in ("last", "best") or Path(path).exists() or saver is None:
        return Path(path)
    found = saver.folder(trainer) / "last" if path == "last" else saver.best_model_path
    if found is None:
        raise ValueError("ckpt_path 'best': no best checkpoint was written yet")
    return Path(found)


def load_weights(trainer, path: Path) -> dict:
    """Load weights, averaged ones where there are any, that rank 0 reads into the module of every
    rank; the checkpoint's meta."""
    module = trainer.module
    trainer.step = None  # its running average belongs to other weights
    meta = trainer.ranks.broadcast_from_rank0(lambda: checkpoint.load_weights(module, path))
    trainer.ranks.broadcast([module.state])
    return meta


def arrays_to_save(trainer) -> dict[str, utils_arrays.Arrays]:
    """Evaluated arrays of `trees`, flat."""
    mx.eval(trainer.step.state())
    # The average is flat already, under the parameters' own names.
    return {name: utils_arrays.arrays_of(tree) for name, tree in trees(trainer).items()}


def position(trainer) -> dict:
    """Where the run stands, as plain data."""
    finished = trainer.epoch_finished
    loader, loader_state = trainer.train_loader, None
    if not finished and not trainer.overfit_batches and hasattr(loader, "state_dict"):
        loader_state = loader.state_dict()
        if hasattr(loader, "state_after"):  # of what was trained, whoever else iterates over it
            loader_state = loader.state_after(trainer.current_epoch, trainer.batches_done)
    averages = Averages() if finished else trainer.averages
    return {
        "epoch": trainer.current_epoch + finished,
        "batches": 0 if finished else trainer.batches_done,
        "group": trainer.group,
        "global_step": trainer.global_step,
        "skipped_steps": trainer.skipped_steps,
        "skipped_run": trainer.skipped_run,
        "validation_due": trainer.validation_due,
        "checked_batches": trainer.checked_batches,
        "validated_step": trainer.validated_step,
        "seconds": trainer.elapsed(),
        "random_key": str(random_key()),  # 64 bits, more than some JSON readers keep
        "loader": loader_state,
        "epoch_averages": averages.state_dict(),
        "interval_averages": trainer.interval.state_dict(),
        "metrics": trainer.callback_metrics,
        "records": trainer.records.pending(),
        "trained": sorted(utils_arrays.arrays_of(trainer.module.trainable_parameters())),
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
    trainer.group = meta["group"]
    trainer.current_epoch, trainer.batches_done = meta["epoch"], meta["batches"]
    trainer.global_step, trainer.validation_due = meta["global_step"], meta["validation_due"]
    trainer.validated_step = meta["validated_step"]
    trainer.checked_batches = meta.get("checked_batches", meta["batches"])  # older ones lack it
    trainer.skipped_steps, trainer.skipped_run = meta["skipped_steps"], meta["skipped_run"]
    trainer.started = time.monotonic() - meta["seconds"]
    trainer.averages.load_state_dict(meta["epoch_averages"])
    trainer.interval.load_state_dict(meta["interval_averages"])
    trainer.callback_metrics = dict(meta["metrics"])
    trainer.history.load_state_dict(meta["history"])
    for name, value in meta.get("records", {}).items():
        trainer.record(name, value)
    for objects, states in (
        (trainer.callbacks, meta["callbacks"]),
        (trainer.loggers, meta.get("loggers", {})),  # older checkpoints have none
    ):
        for name, one in numbered(objects):
            if name in states:
                one.load_state_dict(states[name])
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
        found = arrays.get(name, {})
        checkpoint.match(found, utils_arrays.arrays_of(tree), f"{path} ({name})")
    if "ema" in arrays and trainer.ema_decay is None:
        warnings.warn(f"{path}: its running average is left out, ema_decay is None", stacklevel=6)
    for name, tree in expected.items():
        if name == "ema":
            tree.update(arrays[name])
        else:
            utils_arrays.put_arrays(tree, arrays.get(name, {}))
    return meta


def _restore_modes(trainer, meta: dict) -> None:
    """Freeze, unfreeze, and set to train or eval as in the run that was saved."""
    if "trained" not in meta:  # of an older checkpoint
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
    count: dict[str, int] = {}
    named = []
    for one in objects:
        kind = type(one).__name__
        count[kind] = count.get(kind, 0) + 1
        named.append((f"{kind}.{count[kind]}", one))
    return named
