"""Training of a recipe: its run folder, Trainer, loaders and loggers; how a run is resumed."""

import contextlib
import importlib.util
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from audiotrain import config
from audiotrain.config.diff import refused_changes
from audiotrain.config.words import alone
from audiotrain.evaluation import plots
from audiotrain.recipes.common.recipe import Experiment, Recipe
from audiotrain.recipes.common.settings import LoggerNames, RunSettings
from audiotrain.train import checkpoint
from audiotrain.train.callbacks.base import Callback
from audiotrain.train.callbacks.builtin import EarlyStopping
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.declarative.config import TrackingSettings
from audiotrain.train.distributed import ranks
from audiotrain.train.loggers.base import Logger
from audiotrain.train.loggers.build import fold_group, parent_run, run_loggers
from audiotrain.train.loggers.mlflow_logger import MLflowLogger
from audiotrain.train.run_folder import begun, evaluation_name, holds, only_run_in, refuse_results
from audiotrain.train.trainer import Trainer
from audiotrain.utils.errors import MissingPackageError, UserError

RECIPES = Path(__file__).parents[1]
# Settings of a resumed run that change nothing of what was learned.
RESUME_MAY_CHANGE = ("output", "resume", "cache", "workers", "loggers")
# Not in cross-validation and in rounds of pseudo-labels, whose runs must match.
RESUME_MAY_EXTEND = ("steps", "epochs", "max_minutes", "validations", "patience")
RUN_FILES = "config.yaml", "model"  # what a run writes besides checkpoints and results
MULTI_RUN_SETTINGS = ("folds", "rounds")
Settings = TypeVar("Settings", bound=RunSettings)


def train(recipe: Recipe, folder: Path | None = None):
    """Train, keep the best checkpoint and test it on unseen items; its scores.

    A run of several, such as a round, is resumed as the `folder` that holds them. Under mlx.launch
    the other ranks train and give None.
    """
    begun = time.monotonic()
    run = open_run_on_all_ranks(recipe.settings, recipe.name)
    with ranks.join().rank0_output_only():
        parts = recipe.read(run)
    scores = train_on(recipe, parts, run, folder)
    if ranks.join().rank == 0:
        print(f"\n{run}: {time.monotonic() - begun:.0f} s in all")
    return scores


def train_on(recipe: Recipe, parts: Mapping, run: Path, folder: Path | None = None):
    """`train` on parts that have been read, in an open run folder."""
    with ranks.join().rank0_output_only():
        experiment = recipe.experiment(parts, run)
    trainer, loaders = make_trainer(recipe, experiment, run)
    with resumable(folder or run):
        if not fit(recipe.settings, trainer, experiment, loaders, run):
            return None
    scores = recipe.score(parts, run)
    for logger in trainer.loggers:
        for picture in sorted(run.glob(recipe.pictures)):
            logger.log_image(picture.stem, picture, trainer.global_step)
        logger.finish()
    return scores


def batch_size(settings, samples: Dataset) -> int:
    """Samples in a batch of each rank: `settings.batch_size`, or all where a rank has fewer."""
    return max(1, min(settings.batch_size, len(samples) // ranks.join().size))


def make_trainer(recipe: Recipe, experiment: Experiment, run: Path):
    """The Trainer of a run, and its loaders for training and validation."""
    settings, batch = recipe.settings, batch_size(recipe.settings, experiment.train)
    train_loader = DataLoader(
        experiment.train,
        batch,
        shuffle=True,
        num_workers=settings.workers,
        collate_fn=experiment.collate,
        drop_last=True,
        seed=settings.seed,
        persistent_workers=True,
    )
    valid_loader = experiment.valid
    if not isinstance(valid_loader, DataLoader):
        valid_loader = DataLoader(
            valid_loader, batch, num_workers=settings.workers, collate_fn=experiment.collate
        )
    ranks.join().shard(train_loader)  # how many batches there are depends on it
    of_epoch = -(-len(train_loader) // settings.gradient_accumulation_steps)
    steps = settings.steps or experiment.steps or settings.epochs * of_epoch
    return build_trainer(recipe, experiment, run, steps), (train_loader, valid_loader)


def loggers_of(names: LoggerNames, project: str, run: Path) -> list[Logger]:
    """The loggers of these names for a run folder, under `project` in W&B and MLflow; the folds of
    a cross-validation are a group in W&B, and runs inside one run in MLflow."""
    group, parent = fold_group(run), None
    if group is not None and "mlflow" in names:
        outer = parent_run(run.parent, MLflowLogger(project, run.parent.name))
        outer.finish()
        parent = outer.run_id
    name = run.name if group is None else f"{group}-{run.name}"
    return run_loggers(TrackingSettings(names, project, name), run, group, parent)


def open_run(settings: RunSettings, kind: str) -> Path:
    """The run folder, empty: it gets its settings once the data are accepted (`save_settings`).

    ValueError when it holds a run already, or files that a run would replace.
    """
    for name in settings.loggers:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(f"--loggers {name}: not installed: pip install {name}")
    run = settings.output or Path("runs") / time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    existing = begun(run) or next((name for name in RUN_FILES if holds(run / name)), None)
    if existing and not settings.resume:
        raise UserError(
            f"{run}: holds a run already ({existing}); --resume continues it, "
            "--output names another"
        )
    with only_run_in({run: "run folder"}):  # refused before the data are read
        return run


def open_run_on_all_ranks(settings: RunSettings, kind: str) -> Path:
    """`open_run` by rank 0; its folder on all ranks."""
    return Path(ranks.join().broadcast_from_rank0(lambda: str(open_run(settings, kind))))


def continues(settings: RunSettings, run: Path) -> bool:
    """Whether training goes on from the run's last checkpoint."""
    return settings.resume and checkpoint.exists(run / "checkpoints" / "last")


def save_settings(settings: RunSettings, run: Path) -> None:
    """Write config.yaml, with which `--resume` goes on."""
    config.save(resolved(replace(settings, resume=False)), run / "config.yaml")


class AtTrainStart(Callback):
    """Calls `change` once training begins, after the checkpoint of a resumed run was loaded: when
    that is refused, the run stays as it was."""

    rank_zero_only = True

    def __init__(self, change: Callable[[], None]):
        self.change = change

    def on_train_start(self, trainer, module) -> None:
        self.change()


def resolved(settings: Settings) -> Settings:
    """The settings with absolute paths; those from the home folder (`~`), and a word in place of a
    path, are left as they are."""
    hints = typing.get_type_hints(type(settings), include_extras=True)

    def absolute(value):
        if isinstance(value, tuple):
            return tuple(map(absolute, value))
        is_relative = isinstance(value, Path) and not str(value).startswith("~")
        return value.resolve() if is_relative else value

    def is_word(name, value):
        word = alone(hints[name])
        return word is not None and str(value) == word.text

    values = {field.name: getattr(settings, field.name) for field in fields(settings) if field.init}
    return replace(
        settings, **{n: one if is_word(n, one) else absolute(one) for n, one in values.items()}
    )


def build_trainer(recipe: Recipe, experiment: Experiment, run: Path, steps: int) -> Trainer:
    """The Trainer of a run folder, which keeps the best checkpoint by the experiment's monitor and
    stops when that gets no better for `settings.patience` validations."""
    settings = recipe.settings
    monitor, mode, tie = experiment.monitor, experiment.mode, experiment.tie
    callbacks: list[Callback] = [
        AtTrainStart(lambda: save_settings(settings, run)),
        *experiment.callbacks,
        ModelCheckpoint(run / "checkpoints", "best", monitor, mode, save_top_k=1, tie=tie),
    ]
    if settings.patience and experiment.can_stop_early:
        callbacks.append(EarlyStopping(monitor, settings.patience, mode=mode, tie=tie))
    trainer = Trainer(
        max_steps=steps,
        max_time=None if settings.max_minutes is None else settings.max_minutes * 60,
        val_check_interval=max(1, steps // settings.validations),
        gradient_clip_val=settings.optimization.gradient_clip,
        accumulate_grad_batches=settings.gradient_accumulation_steps,
        ema_decay=settings.optimization.ema_decay or None,
        default_root_dir=run,
        callbacks=callbacks,
        logger=loggers_of(settings.loggers, f"audiotrain-{recipe.name}", run),
        seed=settings.seed,
        config={
            "recipe": recipe.name,
            **experiment.description,
            "settings": config.to_plain(settings),
        },
        precision=settings.precision,
    )
    trainer.keeps_folder = trainer.loggers_stay_open = True
    return trainer


def fit(settings, trainer: Trainer, experiment: Experiment, loaders: Sequence, run: Path) -> bool:
    """Train, from `last` where a run is resumed, and leave history.json and curves.png; whether
    this rank is the one that goes on to test and write."""
    goes_on = ranks.join().broadcast_from_rank0(lambda: continues(settings, run))
    last = run / "checkpoints" / "last"
    train_loader, valid_loader = loaders
    trainer.fit(experiment.module, train_loader, valid_loader, last if goes_on else None)
    if not trainer.is_global_zero:
        return False
    trainer.export_history(run / "history.json")
    plots.curves_picture(
        trainer.history.rows,
        run / "curves.png",
        log=trainer.history.log,
        monitor=experiment.monitor,
        mode=experiment.mode,
        tie=experiment.tie,
    )
    return True


@contextlib.contextmanager
def scores_folder(
    settings, home: Path, suffix: str = "", name: str | None = None
) -> Iterator[Path]:
    """The folder for scores of `settings.data`: `settings.output`, else one in `home`, by default
    named after the data and their part. ValueError, before any work, when it cannot be written
    to."""
    refuse_results(settings.output, settings.overwrite)
    name = name or evaluation_name(settings.data, settings.split)
    output = settings.output or home / (name + suffix)
    with only_run_in({output: "--output"}):
        yield output


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Inside the block Ctrl-C and SIGTERM, after which the trainer has saved its state, say how to
    go on."""
    try:
        yield
    except SystemExit:
        if ranks.join().rank == 0:
            print(f"to continue: --output {folder} --resume", file=sys.stderr)
        raise


def settings_of_resumed(
    kind: type[Settings], output: Path | None, words: Sequence[str], presets: Path
) -> Settings:
    """The settings of the run in `output`, then `words`. ValueError where these change what was
    learned, or would train some folds of a cross-validation (rounds of pseudo-labels) otherwise
    than others."""
    if output is None:
        raise UserError("--resume: needs --output, the run folder to continue")
    file = output / "config.yaml"
    if not file.exists():
        raise UserError(f"{output}: no config.yaml, so there is no run to resume")
    names = [field.name for field in fields(kind)]
    changeable: tuple[str, ...] = RESUME_MAY_CHANGE
    if not fold_group(output) and not set(names) & set(MULTI_RUN_SETTINGS):
        changeable += RESUME_MAY_EXTEND
    saved = resolved(config.load(kind, ["--config", str(file)]))
    wanted = resolved(config.load(kind, ["--config", str(file), *words], presets=presets))
    before, now = config.to_plain(saved), config.to_plain(wanted)
    if lines := refused_changes(before, now, changeable):
        lines = [f"--resume: {line} in {wanted.output}" for line in lines]
        raise UserError("\n".join(lines) + f"; only {', '.join(changeable[2:])} may change")
    return wanted
