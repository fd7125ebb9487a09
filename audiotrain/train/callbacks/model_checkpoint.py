"""ModelCheckpoint: when checkpoints are written, which are kept, what they are called."""

import math
import string
import warnings
from pathlib import Path
from typing import NamedTuple

from audiotrain.train import checkpoint
from audiotrain.train.callbacks.base import Monitor, Score
from audiotrain.utils.errors import UserError


class _ByName(string.Formatter):
    """Formats whole names, such as "val/loss" or "val.f1", not parts of one."""

    def get_field(self, field_name, args, kwargs):
        return kwargs[field_name], field_name


class Kept(NamedTuple):
    """One of the best checkpoints."""

    score: Score
    path: str


class ModelCheckpoint(Monitor):
    """Writes checkpoints: the `save_top_k` best by `monitor` (-1: all), and `last`.

    `filename` may use epoch, step and any metric with a format, "model-{epoch:02d}-{val_loss:.2f}".
    Without a monitor the newest count as best. `dirpath` is the run folder's checkpoints/ by
    default. Best ones are chosen after each validation (or epoch) of every `every_n_epochs`-th
    epoch; `every_n_steps` writes in between. Of equal ones the first counts as better; with `tie`,
    a metric, the one of its lower value, then the last. Only what it wrote is ever deleted, and an
    older run's `last` becomes `last-v1`.

    ValueError for another `mode`, a `save_top_k` below -1, an interval below 1 and a `filename`
    with wrong braces; in fit for a metric that does not exist. CheckpointError when one cannot be
    written.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        mode: str = "min",
        save_last: bool = True,
        save_top_k: int = 3,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        save_on_exception: bool = False,
        tie: str | None = None,
    ):
        super().__init__(monitor, mode, tie)
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value!r}, expected 1 or more")
        if save_top_k < -1:
            raise UserError(f"save_top_k is {save_top_k!r}, expected -1 (all), 0 or more")
        self.dirpath, self.filename = dirpath, filename or "epoch-{epoch:03d}-step-{step:06d}"
        self.save_last, self.save_top_k = save_last, save_top_k
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.save_on_exception = save_on_exception
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(self.filename)]
        except ValueError as error:
            raise UserError(f"filename is {filename!r}: {error}") from None
        if "" in fields:
            raise UserError(f"filename is {filename!r}, expected a name in each pair of braces")
        self._fields = {name for name in fields if name is not None}
        self.kept: list[Kept] = []  # best first
        self.written: tuple[int, int] | None = None  # step and epoch of `last`
        self.resumable = Path(dirpath or ".")  # where the kept ones of a resumed run are

    @property
    def best_model_path(self) -> Path | None:
        """The best checkpoint, None before one is written."""
        return Path(self.kept[0].path) if self.kept else None

    @property
    def best_model_score(self) -> float | None:
        """The monitored value of the best checkpoint."""
        return self.kept[0].score[0] if self.kept else None

    def folder(self, trainer) -> Path:
        """Where checkpoints go."""
        return Path(self.dirpath or trainer.default_root_dir / "checkpoints")

    def setup(self, trainer, module) -> None:
        self.kept, self.written = [], None
        self.resumable = self.folder(trainer)
        if self.by_validation and trainer.val_loader is None:
            warnings.warn(
                f"ModelCheckpoint: no validation loader, so no {self.monitor}: "
                f"only the last checkpoint is saved",
                stacklevel=4,
            )

    def on_validation_end(self, trainer, module) -> None:
        # At an epoch's end the epoch is closed first, so that a resumed run does not repeat it.
        if self.by_validation and not trainer.epoch_ending and self._due(trainer):
            self._save(trainer, fresh=True)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        every = self.every_n_steps
        if every and trainer.group == 0 and trainer.global_step % every == 0:
            self._save(trainer, fresh=self.monitor is None)

    def on_train_epoch_end(self, trainer, module) -> None:
        last_of_all = trainer.should_stop or not trainer.epoch_finished
        if self._due(trainer) or last_of_all:
            self._save(trainer, fresh=not self.by_validation or trainer.validated_now)

    def _due(self, trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def on_train_end(self, trainer, module) -> None:
        if self.save_last and self.written != (trainer.global_step, trainer.current_epoch):
            self.write_last(trainer)

    def on_exception(self, trainer, module, error) -> None:
        if self.save_on_exception and (trainer.group == 0 or trainer.world_size == 1):
            self.write_last(trainer)

    def write_last(self, trainer) -> Path:
        """Write `last`, a directory of its own. CheckpointError when it cannot be written."""
        path = self.folder(trainer) / "last"
        if self.written is None and not trainer.resumed and trainer.is_global_zero:
            self._step_aside(path)
        trainer.save_checkpoint(path)
        self.written = trainer.global_step, trainer.current_epoch + trainer.epoch_finished
        return path

    @staticmethod
    def _step_aside(path: Path) -> None:
        """Give an older run's `last` another name."""
        if not checkpoint.exists(path):
            return
        version = 1
        while (other := path.with_name(f"{path.name}-v{version}")).exists():
            version += 1
        checkpoint.move(path, other)

    def _save(self, trainer, fresh: bool) -> None:
        """Keep the state if it is among the best, then `last`, which knows about the best."""
        dropped = self._keep(trainer) if fresh and self.save_top_k else []
        if self.save_last:
            self.write_last(trainer)
        for path in dropped if trainer.is_global_zero else ():
            checkpoint.remove(path)  # once `last` no longer counts them among the kept

    def _keep(self, trainer) -> list[str]:
        if self.by_validation and trainer.val_loader is None:
            return []
        newest = -float(trainer.global_step) if self.mode == "min" else float(trainer.global_step)
        score = self.value(trainer) if self.monitor else newest, self.tie_value(trainer)
        if not self.monitor and any(one.score == score for one in self.kept):
            return []  # every_n_steps and the epoch's end meet
        full = 0 < self.save_top_k <= len(self.kept)
        if full and not self._wins(score, self.kept[-1].score):
            return []
        before = list(self.kept)
        dropped = [self.kept.pop().path] if full else []
        path = trainer.ranks.broadcast_from_rank0(
            lambda: str(self._path(trainer, reusable=dropped))
        )
        place = sum(not self._wins(score, one.score) for one in self.kept)
        self.kept.insert(place, Kept(score, path))
        try:
            trainer.save_checkpoint(path)
        except checkpoint.CheckpointError:
            self.kept = before
            raise
        return [old for old in dropped if old != path]

    def _wins(self, score: Score, than: Score) -> bool:
        """Whether what is new is better than what is kept."""
        return self.beats(score, than) or self.tie is not None and score == than

    def _path(self, trainer, reusable: list[str]) -> Path:
        """The next name by `filename`; "-v1", "-v2"… when another checkpoint has it."""
        values = trainer.callback_metrics | {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
        }
        if missing := sorted(self._fields - set(values)):
            raise UserError(
                f"ModelCheckpoint: filename {self.filename!r} uses {missing[0]!r}, "
                f"there are {', '.join(sorted(values))}"
            )
        try:
            name = _ByName().vformat(self.filename, (), values).replace("/", "_")
        except ValueError as error:
            raise UserError(f"ModelCheckpoint: filename {self.filename!r}: {error}") from None
        path, version = self.folder(trainer) / name, 0
        while path.exists() and str(path) not in reusable and not self._rerun(path, trainer):
            version += 1
            path = self.folder(trainer) / f"{name}-v{version}"
        return path

    def _rerun(self, path: Path, trainer) -> bool:
        """Whether `path` is of this very step, written before the run was killed and resumed."""
        if not (trainer.resumed and checkpoint.exists(path)):
            return False
        return checkpoint.load_meta(path)["global_step"] == trainer.global_step

    def state_dict(self) -> dict:
        return {"kept": [(one.score[0], Path(one.path).name, one.score[1]) for one in self.kept]}

    def load_state_dict(self, state: dict) -> None:
        self.kept = []
        # By name: a run folder may have been moved, or be a copy, whose original is not ours.
        # Older checkpoints have no tie.
        for value, name, *tie in state["kept"]:
            path = self.resumable / Path(name).name
            if (path / checkpoint.STATE).is_file():
                self.kept.append(Kept((value, *(tie or [math.inf])), str(path)))
