"""Weights & Biases."""

from pathlib import Path

from audiotrain.train.loggers.base import Logger, opened
from audiotrain.utils.errors import MissingPackageError, UserError


class WandbLogger(Logger):
    """Weights & Biases; the axis is the optimizer step.

    A run continued from a checkpoint continues its W&B run; `id` names another one to continue.
    Runs with the same `group`, such as the folds of a cross-validation, are shown together. At
    first use ImportError without wandb, and ValueError, one line, where W&B starts no run.
    """

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
        self._run = None

    @property
    def run(self):
        """The W&B run, started at first use."""
        if self._run is None:
            try:
                import wandb
            except ImportError:
                raise MissingPackageError("WandbLogger needs wandb: pip install wandb") from None
            try:
                self._run = wandb.init(
                    project=self.project,
                    name=self.name,
                    config=self.config,
                    id=self.id,
                    resume="allow" if self.id else None,
                    dir=str(self.save_dir) if self.save_dir else None,
                    mode=self.mode,
                    group=self.group,
                )
            except wandb.Error as error:
                what = str(error).partition("\n")[0].rstrip(".")
                raise UserError(f"W&B: {what}; WANDB_MODE=offline does without") from None
            self.id = self._run.id
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step")
        return self._run

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
        self.id = self.id or state["id"]

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
