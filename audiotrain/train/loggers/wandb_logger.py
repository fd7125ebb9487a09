"""Weights & Biases."""

import time
from pathlib import Path
from typing import ClassVar

from audiotrain.train.loggers.base import Logger, opened
from audiotrain.utils.errors import MissingPackageError, UserError


class WandbLogger(Logger):
    """Weights & Biases; the axis is the optimizer step.

    Each fit from the start is a run of W&B, finished at its end; several in one process, or at
    once, stay apart. A run continued from a checkpoint continues its W&B run; `id` names another
    one to continue. A run that was begun with `wandb.init` before is used, and left open. Runs with
    the same `group`, such as the folds of a cross-validation, are shown together. At first use
    ImportError without wandb, and ValueError, one line, where W&B starts no run.
    """

    _began: ClassVar[dict[str, float]] = {}  # by the id of a logger's run: seconds since 1970

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        config: dict | None = None,
        id: str | None = None,
        save_dir: str | Path | None = None,
        mode: str | None = None,
        group: str | None = None,
    ):
        self.project, self.name, self.config, self.id = project, name, config, id
        self.save_dir, self.mode, self.group = save_dir, mode, group
        self._own_id, self._run, self._adopted, self._ended = id, None, False, False

    @property
    def run(self):
        """The W&B run, started at first use."""
        if self._run is None:
            try:
                import wandb
            except ImportError:
                raise MissingPackageError("WandbLogger needs wandb: pip install wandb") from None
            active = wandb.run
            if active is not None and active.id not in self._began and self.id in (None, active.id):
                self._run, self._adopted, self.id = active, True, active.id
            else:
                self._run = self._begun(wandb, apart=active is not None)
                self._began[self._run.id] = time.time()
                self.id = self._run.id
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step")
        return self._run

    def _begun(self, wandb, apart: bool):
        """A new or continued run; `apart` from one that is open."""
        # W&B's folder of an offline run is named by id and second.
        while self.id in self._began and int(time.time()) == int(self._began[self.id]):
            time.sleep(0.05)
        try:
            return wandb.init(
                project=self.project,
                name=self.name,
                config=self.config,
                id=self.id,
                resume="allow" if self.id else None,
                dir=str(self.save_dir) if self.save_dir else None,
                mode=self.mode,
                group=self.group,
                reinit="create_new" if apart else None,
            )
        except wandb.Error as error:
            what = str(error).partition("\n")[0].rstrip(".")
            raise UserError(f"W&B: {what}; WANDB_MODE=offline does without") from None

    def start(self, step: int) -> None:
        if step == 0 and self._ended:
            self.finish()  # what was logged after the run before
            self.id, self._ended = self._own_id, False

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics | {"trainer/global_step": step})

    def log_hyperparams(self, config: dict) -> None:
        self.run.config.update(config, allow_val_change=True)

    def log_image(self, name: str, image, step: int) -> None:
        run = self.run
        import wandb

        run.log({name: wandb.Image(opened(image, name)), "trainer/global_step": step})

    def state_dict(self) -> dict:
        return {"id": self.id}

    def load_state_dict(self, state: dict) -> None:
        if self._run is not None and self.id != (self._own_id or state["id"]):
            self.finish()
        self.id, self._ended = self._own_id or state["id"], False

    def finish(self) -> None:
        self._close(exit_code=0)

    def fail(self) -> None:
        self._close(exit_code=1)

    def _close(self, exit_code: int) -> None:
        if self._run is not None:
            if not self._adopted:
                self._run.finish(exit_code)
            self._run, self._adopted, self._ended = None, False, True
