"""The models that `--checkpoint` names: runs, the newest run, or the shipped one."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import audiotrain
from audiotrain.config import conform
from audiotrain.config.yaml_files import current_name
from audiotrain.recipes.common.exported import (
    DESCRIPTION,
    is_exported,
    read_description,
    weights_sha256,
)
from audiotrain.train import checkpoint, crossval
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object

FOLDS, ROUNDS, ENSEMBLE = "folds.json", "rounds.json", "ensemble.json"  # what folders are known by
LATEST, SHIPPED = "latest", "shipped"  # words in place of a folder
WORDS = Path(LATEST), Path(SHIPPED)
RUNS = Path("runs")  # where runs are written by default
PRETRAINED = Path(audiotrain.__file__).parent / "pretrained"  # models that are installed, by recipe
RUN_MARKS = "checkpoints", FOLDS, ROUNDS
# Key of a checkpoint's config -> the recipe that wrote it; checkpoints of today name their recipe.
_KEYS = {"recognizer": "chords", "classifier": "classify"}


def locate(paths: Sequence[Path], recipe: str, flag: str = "--checkpoint") -> tuple[Path, ...]:
    """The folders that the paths of `--checkpoint` name: those of the words `latest` and `shipped`,
    and other paths as they are. ValueError, one line, where a word names none."""
    by_word = {Path(LATEST): latest_run, Path(SHIPPED): shipped}
    try:
        return tuple(by_word[path](recipe) if path in by_word else path for path in paths)
    except UserError as error:
        raise UserError(f"{flag} {error}") from None


def latest_run(recipe: str) -> Path:
    """The newest run, or run of several, of a recipe below RUNS. ValueError when there is none."""
    runs = _newest_first(RUNS, RUN_MARKS)
    found = next((run for run in runs if recipe_of(run) == recipe), None)
    if found is None:
        raise _no_run(f"{LATEST}: no trained run of {recipe} in {RUNS}", recipe)
    return found


def shipped(recipe: str) -> Path:
    """The folder of the model that is installed with audiotrain. ValueError where there is none."""
    folder = PRETRAINED / recipe
    if not is_exported(folder):
        raise UserError(
            f"{SHIPPED}: this audiotrain has no {folder / DESCRIPTION}; expected a run, or "
            f"{LATEST} for the newest below {RUNS}"
        )
    return folder


def report_model(paths: Sequence[Path], recipe: str) -> tuple[Path, ...]:
    """Print which model answers, and which run `--checkpoint latest` would take in place of the
    shipped one; the folders of `locate`."""
    folders = locate(paths, recipe)
    names = [_name(path, folder, recipe) for path, folder in zip(paths, folders, strict=True)]
    note = latest_note(recipe) if Path(SHIPPED) in paths else ""
    print(f"model: {', '.join(names)}{note}", flush=True)
    return folders


def _name(path: Path, folder: Path, recipe: str) -> str:
    """What to call a model: an exported one by the beginning of its hash, too, and a folder of runs
    by its newest."""
    if not is_exported(folder):
        joined = any((folder / name).is_file() for name in (FOLDS, ROUNDS, ENSEMBLE))
        runs = [] if joined or _is_run(folder) else _newest_first(folder, RUN_MARKS)
        return str(runs[0] if runs else folder)
    name = str(folder)
    if path == Path(SHIPPED):
        name = f"{SHIPPED} with audiotrain {audiotrain.__version__}"
    return f"{name}, sha256 {weights_sha256(folder, read_description(folder, recipe))[:12]}"


def latest_note(recipe: str) -> str:
    """What to print after the name of a model that is no run: the run that `--checkpoint latest`
    takes; "" when there is none."""
    try:
        return f" (--checkpoint {LATEST} takes {latest_run(recipe)})"
    except UserError:
        return ""


def resolve(paths: Sequence[Path], recipe: str) -> list[tuple[Path, ...]]:
    """The run folders that each path names: a run, a checkpoint or an exported model itself, all
    folds of a cross-validation, the best of rounds, or the newest of these inside a folder; for the
    words `latest` and `shipped` see `locate`.

    ValueError, one line, where there is none, for a fold that is not done, and for an ensemble:
    `ensemble.EnsembleSpec.of` takes one alone.
    """
    return [_runs(path, recipe) for path in locate(paths, recipe)]


def _runs(path: Path, recipe: str) -> tuple[Path, ...]:
    if _is_run(path):
        return (path,)
    if (path / FOLDS).is_file():
        return _folds(path)
    if (path / ROUNDS).is_file():
        best = conform(read_json_object(path / ROUNDS).get("best"), str, f"{path / ROUNDS}: best")
        return (path / best,)
    if (path / ENSEMBLE).is_file():
        raise UserError(f"--checkpoint {path}: an ensemble, expected it alone or not at all")
    return _runs(newest(path, recipe, RUN_MARKS), recipe)


def newest_run(path: Path, recipe: str, flag: str = "--checkpoint") -> Path:
    """The folder itself when it is a run or a checkpoint, else the newest run inside it.
    ValueError, which names the flag, when there is none."""
    return path if _is_run(path) else newest(path, recipe, ("checkpoints",), flag)


def newest(path: Path, recipe: str, names: Sequence[str], flag: str = "--checkpoint") -> Path:
    """The folder in `path` with the newest file or folder of one of these names."""
    runs = _newest_first(path, names)
    if not runs:
        raise _no_run(f"{flag} {path}: no trained run there", recipe)
    return runs[0]


def _no_run(found: str, recipe: str) -> UserError:
    return UserError(f"{found}; `python -m audiotrain.recipes.{recipe}` trains one")


def _newest_first(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in `folder` with a file or folder of one of these names."""
    marks = [mark for name in names for mark in folder.glob(f"*/{name}")]
    marks.sort(key=lambda mark: mark.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(mark.parent for mark in marks))


def recipe_of(run: Path) -> str | None:
    """The recipe that trained a run, or the first of several; None without a checkpoint yet."""
    runs = [run] if _is_run(run) else sorted(mark.parent for mark in run.glob("*/checkpoints"))
    try:
        written = checkpoint.load_meta(best_checkpoint(runs[0])).get("config") or {}
    except (IndexError, checkpoint.CheckpointError):
        return None
    older = next((recipe for key, recipe in _KEYS.items() if key in written), "clap")
    return written.get("recipe", older)


def best_checkpoint(run: Path) -> Path:
    """A run's best checkpoint, or its last one where there is no best. CheckpointError without."""
    for name in ("best", "last"):
        if checkpoint.exists(run / "checkpoints" / name):
            return run / "checkpoints" / name
    raise checkpoint.CheckpointError(f"{run}: no checkpoints/best or checkpoints/last in this run")


@contextlib.contextmanager
def described(folder: Path, key: str, recipe: str) -> Iterator[Mapping[str, Any]]:
    """The description of the model in a checkpoint, from which the block builds the model.
    CheckpointError when there is none, or for a UserError of the block."""
    config = checkpoint.load_meta(folder).get("config")
    description = config.get(key) if isinstance(config, dict) else None
    if not isinstance(description, dict):
        raise checkpoint.CheckpointError(f"{folder}: not a checkpoint of the {recipe} recipe")
    with of_this_version(f"{folder}: its {key}"):
        yield description


@contextlib.contextmanager
def of_this_version(what: str) -> Iterator[None]:
    """Turn a UserError of the block, which reads a description, into a CheckpointError that begins
    with `what`."""
    try:
        yield
    except UserError as error:
        message = f"{what} is not one of this version ({'; '.join(str(error).splitlines()):.300})"
        raise checkpoint.CheckpointError(message) from None


def current_names(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Settings of a `group` in a checkpoint, by the names that they have now."""
    prefix = f"{group}."
    return {
        current_name(prefix + name).removeprefix(prefix): value for name, value in settings.items()
    }


def _is_run(path: Path) -> bool:
    is_trained = (path / "checkpoints").is_dir() or (path / "state.json").is_file()
    return is_trained or is_exported(path)


def _folds(path: Path) -> tuple[Path, ...]:
    runs = [path / f"fold-{k}" for k in range(len(crossval.read_folds(path)))]
    for k, run in enumerate(runs):
        if not any((path / "oof" / name).is_file() for name in (f"{k}.json", f"fold-{k}.npz")):
            raise UserError(
                f"{path}: fold {k} of {len(runs)} is not done: cv --output {path} --resume, or "
                f"name runs inside it, such as {run}"
            )
    return tuple(runs)
