"""The runs that `--checkpoint` names."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiotrain.config.yaml_files import current_name
from audiotrain.train import checkpoint, crossval

FOLDS, ROUNDS, ENSEMBLE = "folds.json", "rounds.json", "ensemble.json"  # what folders are known by


def resolve(paths: Sequence[Path], recipe: str) -> list[tuple[Path, ...]]:
    """The run folders that each path names: a run or a checkpoint itself, all folds of a
    cross-validation, the best of rounds, or the newest of these inside a folder.

    ValueError, one line, where there is none, for a fold that is not done, and for an ensemble:
    `ensemble.EnsembleSpec.of` takes one alone.
    """
    return [_runs(path, recipe) for path in paths]


def _runs(path: Path, recipe: str) -> tuple[Path, ...]:
    if _is_run(path):
        return (path,)
    if (path / FOLDS).is_file():
        return _folds(path)
    if (path / ROUNDS).is_file():
        return (path / json.loads((path / ROUNDS).read_text("utf-8"))["best"],)
    if (path / ENSEMBLE).is_file():
        raise ValueError(f"--checkpoint {path}: an ensemble, expected it alone or not at all")
    return _runs(newest(path, recipe, ("checkpoints", FOLDS, ROUNDS)), recipe)


def newest_run(path: Path, recipe: str, flag: str = "--checkpoint") -> Path:
    """The folder itself when it is a run or a checkpoint, else the newest run inside it.
    ValueError, which names the flag, when there is none."""
    return path if _is_run(path) else newest(path, recipe, ("checkpoints",), flag)


def newest(path: Path, recipe: str, names: Sequence[str], flag: str = "--checkpoint") -> Path:
    """The folder in `path` with the newest file or folder of one of these names."""
    marks = [mark for name in names for mark in path.glob(f"*/{name}")]
    if not marks:
        raise ValueError(
            f"{flag} {path}: no trained run there; "
            f"`python -m audiotrain.recipes.{recipe}` trains one"
        )
    return max(marks, key=lambda mark: mark.stat().st_mtime).parent


def best_checkpoint(run: Path) -> Path:
    """A run's best checkpoint, or its last one where there is no best. CheckpointError without."""
    for name in ("best", "last"):
        if checkpoint.exists(run / "checkpoints" / name):
            return run / "checkpoints" / name
    raise checkpoint.CheckpointError(f"{run}: no checkpoints/best or checkpoints/last in this run")


@contextlib.contextmanager
def described(folder: Path, key: str, recipe: str) -> Iterator[Mapping[str, Any]]:
    """The description of the model in a checkpoint, from which the block builds the model.
    CheckpointError, one line, when there is none or the block cannot read it."""
    description = (checkpoint.load_meta(folder).get("config") or {}).get(key)
    if description is None:
        raise checkpoint.CheckpointError(f"{folder}: not a checkpoint of the {recipe} recipe")
    try:
        yield description
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(
            f"{folder}: its {key} is not one of this version ({error!r})"
        ) from None


def current_names(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Settings of a `group` in a checkpoint, by the names that they have now."""
    prefix = f"{group}."
    return {
        current_name(prefix + name).removeprefix(prefix): value for name, value in settings.items()
    }


def _is_run(path: Path) -> bool:
    return (path / "checkpoints").is_dir() or (path / "state.json").is_file()


def _folds(path: Path) -> tuple[Path, ...]:
    runs = [path / f"fold-{k}" for k in range(len(crossval.read_folds(path)))]
    for k, run in enumerate(runs):
        if not any((path / "oof" / name).is_file() for name in (f"{k}.json", f"fold-{k}.npz")):
            raise ValueError(
                f"{path}: fold {k} of {len(runs)} is not done: cv --output {path} --resume, or "
                f"name runs inside it, such as {run}"
            )
    return tuple(runs)
