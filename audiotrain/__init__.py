"""Train audio models on one's own machine with MLX: chord recognition, CLAP, and your own.

Importing the package loads a fast BLAS where MLX lacks one, so import it before `mlx.core`; there
MLX's kernels are then compiled to faster ones, too.
"""

from importlib import import_module

from audiotrain import blas, kernels

__version__ = "0.1.0"

_HOMES = {
    "TrainModule": "module",
    "OptimizerConfig": "module",
    "Trainer": "trainer",
    "DataLoader": "loader",
    "Dataset": "loader",
    "create_trainer": "factory",
    "register_trainer": "factory",
    "create_competition_trainer": "competition",
    "CompetitionTrainer": "competition",
    "get_trainer_config": "run_config",
    "TrainerConfig": "run_config",
    "OptimizerSettings": "run_config",
    "SchedulerSettings": "run_config",
    "CompetitionConfig": "run_config",
    "MLflowConfig": "trackers",
    "MLflowCallback": "trackers",
}
__all__ = [
    "CompetitionConfig",
    "CompetitionTrainer",
    "DataLoader",
    "Dataset",
    "MLflowCallback",
    "MLflowConfig",
    "OptimizerConfig",
    "OptimizerSettings",
    "SchedulerSettings",
    "TrainModule",
    "Trainer",
    "TrainerConfig",
    "create_competition_trainer",
    "create_trainer",
    "get_trainer_config",
    "register_trainer",
]

if blas.load().name != "GPU":
    blas.keep_freed_memory()
    kernels.vectorise()


def __getattr__(name: str):
    """Import a public name when it is first used, so that `import audiotrain` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'audiotrain' has no attribute {name!r}")
    return getattr(import_module(f"audiotrain.{_HOMES[name]}"), name)
