"""Trainer: fits, validates, tests and predicts with any TrainModule, and continues exactly.

Where the seeds of its API are silent, names and meanings are PyTorch Lightning's.
"""

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from audiotrain.backend.ops import can_compile
from audiotrain.train import checkpoint
from audiotrain.train.arguments import TrainerArguments, as_list, check_loaders
from audiotrain.train.callbacks.builtin import default_callbacks
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.distributed.ranks import join
from audiotrain.train.engine.compiled_function import StepOutputs, as_float
from audiotrain.train.engine.evaluation_loop import (
    Averages,
    count_batches,
    evaluate,
    evaluating,
    predict,
)
from audiotrain.train.engine.fit_loop import FitLoop
from audiotrain.train.engine.precision import PRECISIONS, Precision
from audiotrain.train.engine.signals import Interrupted, SignalGuard
from audiotrain.train.engine.step_metrics import LoggedScalars
from audiotrain.train.engine.steps import EvaluationStep, TrainStep, learning_rate_of
from audiotrain.train.history import History
from audiotrain.train.loggers.base import FileLogger, Logger, file_loggers
from audiotrain.train.module import OptimizerConfig, TrainModule, optimizer_config
from audiotrain.train.protocols import CallbackProtocol, LoggerProtocol
from audiotrain.train.run_folder import (
    folder_of_new_run,
    only_run_in,
    status_kept,
    trained_in,
)
from audiotrain.train.trainer_state import load_weights, resolve, restore, save
from audiotrain.utils.errors import UserError

SETTINGS = {field.name for field in fields(TrainerArguments)}


class Trainer:
    """Runs a TrainModule over batches with one compiled step.

    Length: `max_epochs`, `max_steps` (optimizer steps; goes before max_epochs) or `max_time`
    (seconds, timedelta or "days:hours:minutes:seconds"); at least one.

    Validation: `val_check_interval` float = share of an epoch, int = every N steps;
    `check_val_every_n_epoch`; `num_sanity_val_steps` batches before the first step. A run's last
    state is always validated.

    Steps: `gradient_clip_val` with `gradient_clip_algorithm` "norm" or "value";
    `accumulate_grad_batches`; `ema_decay` keeps a running average of the weights, used for
    validation and stored in checkpoints; `max_skipped_steps` non-finite batches in a row stop.

    Numbers: `precision` "32-true" or "bf16-mixed" (`precision.Bfloat16Mixed`: layers of matrices in
    bfloat16; parameters, optimizer, losses and checkpoints in float32). Bytes that MLX may use
    during fit: `memory_limit`, `cache_limit` of freed memory that is kept, `wired_limit` (Metal).

    Tests of one's own code: `fast_dev_run` (True or a number of batches), `overfit_batches`,
    `limit_*_batches` (int = number, float = share), `debug_lazy_eval` (no compile, each step
    evaluated at once, so that an error comes from its own line).

    Under `mlx.launch` each process is a rank (`global_rank` of `world_size`) that takes its share
    of every batch; weights and metrics are those of one process with batch_size * world_size. Only
    rank 0 (`is_global_zero`) writes. Dropout differs by rank.

    `default_root_dir` is the run's folder: metrics.csv, metrics.jsonl, status.json, checkpoints/.
    Where a run is in it already, the next one goes to its folder run-2, which then is
    `trainer.default_root_dir`; a run that is continued stays where it is. `config` is plain data
    about the run, stored in checkpoints and given to loggers.
    `configure_optimizers` gives the OptimizerConfig of a module in place of the module's own.

    ValueError, a line for each setting that cannot be; also for a callback or logger that lacks
    methods, and for a ModelCheckpoint beside `enable_checkpointing=False`.
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        max_time: float | str | timedelta | None = None,
        *,
        val_check_interval: float | int = 1.0,
        check_val_every_n_epoch: int = 1,
        num_sanity_val_steps: int = 2,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str = "norm",
        accumulate_grad_batches: int = 1,
        ema_decay: float | None = None,
        max_skipped_steps: int = 10,
        precision: str = "32-true",
        memory_limit: int | None = None,
        cache_limit: int | None = None,
        wired_limit: int | None = None,
        default_root_dir: str | Path = "./logs",
        enable_checkpointing: bool = True,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = True,
        compile: bool = True,
        seed: int = 42,
        callbacks: Sequence[CallbackProtocol] | CallbackProtocol | None = None,
        logger: LoggerProtocol | Sequence[LoggerProtocol] | bool | None = None,
        log_every_n_steps: int = 50,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0,
        fast_dev_run: bool | int = False,
        debug_lazy_eval: bool = False,
        config: dict | None = None,
        configure_optimizers: Callable[[TrainModule], OptimizerConfig] | None = None,
    ):
        self.arguments = TrainerArguments.of(locals())
        self.configure_optimizers = configure_optimizers
        self.ranks = join()
        given = as_list("callbacks", callbacks, CallbackProtocol)
        self.callbacks = default_callbacks(given, self.arguments)
        self.loggers: list[LoggerProtocol] = []
        self._root = self.arguments.default_root_dir  # as given, which may hold several runs
        self._files: list[FileLogger] = []
        if logger is not False and not fast_dev_run:
            self._files = file_loggers(self._root)
            self.loggers += self._files
            self.loggers += [] if logger is True else as_list("logger", logger, LoggerProtocol)
        if not self.is_global_zero:
            self.loggers = [Logger() for _ in self.loggers]
        self.module: TrainModule | None = None
        self.step: TrainStep | None = None
        self.train_loader: Iterable | None = None
        self.val_loader: Iterable | None = None
        self.sanity_checking = False
        self.guard: SignalGuard | None = None
        self.latest: StepOutputs | None = None
        self.loop: FitLoop | None = None
        # For code that opens a run folder, and finishes loggers, itself.
        self.keeps_folder = self.loggers_stay_open = False
        self.how_to_continue = 'fit(..., ckpt_path="{path}")'  # what an interrupted run says
        self.records = LoggedScalars()
        self._evaluation_steps: dict[str, EvaluationStep] = {}
        self._resume_from: Path | None = None
        self._reset()
        self._place_loggers()
        mx.random.seed(seed)

    # State, for modules and callbacks

    if not TYPE_CHECKING:  # typed code reads `arguments`

        def __getattr__(self, name: str):
            """Settings under their own names, as in Lightning: `trainer.max_steps`."""
            return getattr(self.__dict__["arguments"], name)

        def __setattr__(self, name: str, value) -> None:
            """Settings may change between fits, `trainer.max_epochs = 20`, and are checked."""
            given = name
            if name in SETTINGS:
                name, value = "arguments", replace(self.arguments, **{name: value})
            super().__setattr__(name, value)
            if given == "default_root_dir":
                self._root = self.arguments.default_root_dir

    @property
    def global_rank(self) -> int:
        """Which of the processes that train together this is, from 0."""
        return self.ranks.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self.ranks.size

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0, which writes what is written."""
        return self.ranks.rank == 0

    @property
    def run_name(self) -> str:
        """The name of the run's folder in the folder that was given as `default_root_dir`; "." for
        that folder itself."""
        folder = self.arguments.default_root_dir
        return folder.name if folder.parent == self._root else "."

    @property
    def logger(self) -> LoggerProtocol | None:
        """The first logger beside those of the run folder's files, else the CSV one."""
        others = (one for one in self.loggers if not isinstance(one, FileLogger))
        return next(others, self.loggers[0] if self.loggers else None)

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first ModelCheckpoint."""
        return next((c for c in self.callbacks if isinstance(c, ModelCheckpoint)), None)

    @property
    def optimizer(self):
        """The optimizer in use, None before fit."""
        return self.step.optimizer if self.step else None

    @property
    def trace_count(self) -> int:
        """How often the training step was traced."""
        return self.step.trace_count if self.step else 0

    @property
    def num_training_batches(self) -> int | None:
        """Batches in an epoch, limits applied; None when the loader has no length. ValueError where
        the limit is a share of a loader without length."""
        name = "overfit_batches" if self.arguments.overfit_batches else "limit_train_batches"
        return self.count_batches(self.train_loader, name)

    @property
    def estimated_total_steps(self) -> int:
        """Optimizer steps of the whole fit; ValueError when nothing fixes their number."""
        epochs, steps = self.arguments.max_epochs, self.arguments.max_steps
        if steps is not None:
            return steps
        if epochs is None:
            raise UserError("max_time alone fixes no number of steps: give max_epochs or max_steps")
        if (batches := self.num_training_batches) is None:
            raise UserError("the training loader has no length: give max_steps")
        return epochs * -(-batches // self.arguments.accumulate_grad_batches)

    def count_batches(self, loader: Iterable | None, limit: str) -> int | None:
        """Batches of a pass over `loader` under the setting `limit`; None when it has no length.
        ValueError where the limit is a share of a loader without length."""
        return count_batches(loader, vars(self.arguments)[limit], limit)

    def record(self, name: str, value: mx.array | float) -> None:
        """Keep a scalar for the step being traced, or for the next row (TrainModule.log); in a
        hook it is among `callback_metrics` at once. ValueError for what is not one number, and for
        the names epoch and step."""
        number = self.records.add(name, value)
        if not self.records.in_step:
            self.callback_metrics[name] = as_float(number)

    def log_metrics(self, metrics: dict[str, float]) -> dict[str, float]:
        """Give one row of numbers to every logger, and back, with what hooks recorded."""
        row = {name: float(value) for name, value in (self.records.take() | metrics).items()}
        self.callback_metrics.update(row)
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch} | row, self.global_step)
        return row

    def call_callbacks(self, hook: Callable[[CallbackProtocol], None]) -> None:
        """Run a hook of every callback, checkpoints last:
        `call_callbacks(lambda c: c.on_train_start(trainer, module))`."""
        for callback in self.callbacks:
            if self.is_global_zero or not getattr(callback, "rank_zero_only", False):
                hook(callback)

    def current_learning_rate(self) -> float:
        """Rate of the last optimizer step."""
        assert self.step is not None, "fit has begun"
        return as_float(learning_rate_of(self.step.optimizer))

    def check_signal(self) -> None:
        """Leave the loop when Ctrl-C or SIGTERM has come."""
        if self.guard is not None and self.ranks.signal(self.guard.received) is not None:
            raise Interrupted

    # The four verbs

    def fit(
        self,
        model: TrainModule,
        train_loader: Iterable,
        val_loader: Iterable | None = None,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Train; `ckpt_path` (a checkpoint, "last" or "best") continues exactly where it stood.

        ValueError for a model that is no TrainModule, loaders without batches or without a length
        that a setting needs, and a run folder that cannot be written or is in use; NonFiniteError,
        a ValueError, after `max_skipped_steps`. CheckpointError for a checkpoint that is missing,
        damaged or of another model.
        """
        if val_loader is train_loader and hasattr(val_loader, "state_after"):
            val_loader = copy.copy(val_loader)  # with passes of its own
        self.train_loader, self.val_loader = train_loader, val_loader
        if ckpt_path is None:
            ckpt_path = self._resume_from
        self._resume_from = None
        if ckpt_path is not None:
            ckpt_path = resolve(self, ckpt_path)  # before callbacks forget the run before
        self._attach(model)
        self.ranks.shard(train_loader)
        self.ranks.shard(val_loader)
        check_loaders(self)
        self._open_folder(ckpt_path)
        self.call_callbacks(lambda c: c.setup(self, model))
        self.step = self._training_step(model)
        self._reset()
        mx.random.seed(self.arguments.seed)
        if ckpt_path is not None:
            restore(self, ckpt_path)
            self.resumed = True
        self.ranks.broadcast(self.step.state())
        marked = self.arguments.default_root_dir if self._files and self.is_global_zero else None
        with only_run_in(self._folders()), status_kept(marked, lambda: self.global_step):
            with self._logging():
                FitLoop(self).run()

    def validate(self, model: TrainModule, val_loader: Iterable, ckpt_path=None) -> dict:
        """Metrics over `val_loader`, named "val_…", weighted by batch; `ckpt_path`: its weights.

        ValueError for a model that is no TrainModule and a loader without batches; CheckpointError
        for a checkpoint that is missing, damaged or of another model.
        """
        self._attach(model, self._to_evaluate(ckpt_path))
        return self._evaluate(val_loader, "validation_step", "val_")

    def test(self, model: TrainModule, test_loader: Iterable, ckpt_path=None) -> dict:
        """Metrics over `test_loader`, named "test_…", weighted by batch. Errors as those of
        `validate`."""
        self._attach(model, self._to_evaluate(ckpt_path))
        return self._evaluate(test_loader, "test_step", "test_")

    def predict(self, model: TrainModule, loader: Iterable, ckpt_path=None) -> list:
        """What `predict_step` gives for each batch (each rank: of its share), evaluated, in eval
        mode. ValueError for a model that is no TrainModule; CheckpointError as `validate`."""
        self._attach(model, self._to_evaluate(ckpt_path))
        self.ranks.shard(loader)
        return predict(self, loader)

    def export_history(self, path: str | Path) -> None:
        """Write the history as JSON (rank 0): lists by metric, one value an epoch; all rows.
        ValueError when the file cannot be written."""
        if self.is_global_zero:
            self.history.export(path)

    # Checkpoints

    def save_checkpoint(self, path: str | Path) -> None:
        """Write everything needed to continue to the folder `path`, atomically (rank 0); that is a
        folder, too, where the name ends in .pt.

        ValueError before a fit, and on several ranks between accumulated batches; CheckpointError
        when it cannot be written.
        """
        if self.step is None:
            raise UserError("save_checkpoint: nothing to save, fit a model first")
        if self.loop is not None:
            self.loop.drain()
            if self.epoch_ending:
                self.loop.flush()
        save(self, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights, averaged ones where it has them, into the attached module or the next one
        that is evaluated; the next fit continues from `path`. CheckpointError when it is missing,
        damaged or of another model; ValueError for "best" before there is one."""
        self._resume_from = path = resolve(self, path)
        if self.module is not None:
            load_weights(self, path)
        else:
            self.ranks.broadcast_from_rank0(lambda: checkpoint.load(path)[1])

    # Inside

    def elapsed(self) -> float:
        """Seconds of training so far, over all continuations."""
        return time.monotonic() - self.started

    def evaluation_step(self, method: str) -> EvaluationStep:
        """The compiled step for "validation_step" or "test_step" of the attached module."""
        if method not in self._evaluation_steps:
            step = EvaluationStep(self.module, method, self._precision(), self._compiles())
            self._evaluation_steps[method] = step
        return self._evaluation_steps[method]

    def _evaluate(self, loader, method: str, prefix: str) -> dict:
        self.ranks.shard(loader)
        with evaluating(self):
            batches = self.count_batches(loader, f"limit_{prefix}batches")
            metrics = evaluate(self, loader, method, prefix, batches)
        self.log_metrics(metrics)
        return metrics

    def _to_evaluate(self, ckpt_path):
        """The checkpoint whose weights are evaluated, None for those that the model has."""
        waiting = self._resume_from if self.module is None else None
        return waiting if ckpt_path is None else ckpt_path

    def _attach(self, model: TrainModule, ckpt_path=None) -> None:
        if not isinstance(model, TrainModule):
            raise UserError(f"model is a {type(model).__name__}, expected a TrainModule")
        if model is not self.module:
            self._evaluation_steps.clear()
            self.step = None
        for step in self._evaluation_steps.values():
            step.clear()
        self.module = model
        model.attach(self)
        if ckpt_path is not None:
            meta = load_weights(self, resolve(self, ckpt_path))
            self.current_epoch, self.global_step = meta["epoch"], meta["global_step"]
        else:
            self.ranks.broadcast([model.state])

    def _training_step(self, model: TrainModule) -> TrainStep:
        arguments = self.arguments
        self.optimizer_config = optimizer_config(model, self.configure_optimizers)
        return TrainStep(
            model,
            self.optimizer_config.corrected_optimizer(),
            clip_value=arguments.gradient_clip_val,
            clip_algorithm=arguments.gradient_clip_algorithm,
            accumulate=arguments.accumulate_grad_batches > 1,
            ema_decay=arguments.ema_decay,
            precision=self._precision(),
            ranks=self.ranks,
            compile=self._compiles(),
        )

    def _precision(self) -> Precision:
        return PRECISIONS[self.arguments.precision]()

    def _compiles(self) -> bool:
        return self.arguments.compile and not self.arguments.debug_lazy_eval and can_compile()

    def _open_folder(self, ckpt_path: Path | None) -> None:
        """Give a new run a folder of its own, and a continued one that in which it was."""
        if not self.keeps_folder and (self.loggers or self.checkpoint_callback):
            folder = self.ranks.broadcast_from_rank0(lambda: str(self._folder_of_run(ckpt_path)))
            self.arguments = replace(self.arguments, default_root_dir=Path(folder))
        folder = self.arguments.default_root_dir
        shown = self.arguments.enable_progress_bar or self.arguments.enable_model_summary
        if shown and folder != self._root and ckpt_path is None and self.is_global_zero:
            print(f"{self._root} holds a run already, this one is in {folder}", file=sys.stderr)
        self._place_loggers()

    def _folder_of_run(self, ckpt_path: Path | None) -> Path:
        if ckpt_path is None:
            return folder_of_new_run(self._root)
        try:
            name = checkpoint.load_meta(ckpt_path).get("run", ".")  # older checkpoints lack it
        except checkpoint.CheckpointError:  # `restore` says more
            name = "."
        folder = self._root / name
        return folder if trained_in(folder) else self._root

    def _place_loggers(self) -> None:
        folder = self.arguments.default_root_dir
        for file in self._files:
            file.path = folder / file.path.name
        for logger in self.loggers:
            if isinstance(logger, Logger):
                logger.run_folder = folder

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Loggers of this run inside the block, finished at its end."""
        try:
            for logger in self.loggers:
                logger.start(self.global_step)
                logger.log_hyperparams(self.arguments.config or {})
            yield
        except BaseException as error:
            for logger in self.loggers:
                try:
                    logger.fail() if isinstance(logger, Logger) else logger.finish()
                except Exception as second:
                    error.add_note(f"then {type(logger).__name__} failed: {second}")
            raise
        for logger in () if self.loggers_stay_open else self.loggers:
            logger.finish()

    def _folders(self) -> dict[Path, str]:
        """Folders that this rank writes to, each with the setting that named it."""
        savers = [c for c in self.callbacks if isinstance(c, ModelCheckpoint)]
        if not (self.is_global_zero and (self.loggers or savers)):
            return {}
        folders = {saver.folder(self): "dirpath" for saver in savers if saver.dirpath}
        return folders | {self.arguments.default_root_dir: "default_root_dir"}

    def _reset(self) -> None:
        self.current_epoch = self.global_step = self.batches_done = self.group = 0
        self.checked_batches = 0  # of the epoch, when a validation inside it was last considered
        self.skipped_steps = self.skipped_run = 0
        self.validated_step = -1
        self.resumed = self.loader_resumes = self.validation_due = self.validated_now = False
        self.epoch_finished = self.epoch_ending = self.should_stop = False
        self.averages, self.interval = Averages(), Averages()
        self.callback_metrics: dict[str, float] = {}
        self.history = History()
        self.started = time.monotonic()
