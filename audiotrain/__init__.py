"""Train audio models on one's own machine with MLX: chord recognition, CLAP, and your own.

Importing the package loads a fast BLAS where MLX lacks one, so import it before `mlx.core`. It
changes no environment variable; `audiotrain.backend.describe()` says what is active.

    recipes/      chords/  clap/  classify/  common/: programs that a user starts
    evaluation/   scores of chords, classes and retrieval; plots/, report/
    datasets/     chords/  captions/  classes, synthesis/: files on disk to labelled items
    models/       chords/  clap/  layers, LoRA, classifiers
    train/        the Trainer, callbacks/  loggers/  engine/  data/  distributed/  declarative/
    features/     audio files, CQT, log-mel, onsets, tuning, augmentation, cache
    music/        chord classes, labels and segments
    config/       settings from presets, YAML files and flags
    backend/      MLX on a CPU: BLAS, kernels, streams, fast operations
    utils/        files, progress, arrays, text
"""

from audiotrain.backend import configure_on_import
from audiotrain.utils.lazy import lazy_names

__version__ = "0.1.0"

_HOMES = {
    "TrainModule": "train.module",
    "OptimizerConfig": "train.module",
    "Trainer": "train.trainer",
    "DataLoader": "train.data.loader",
    "Dataset": "train.data.loader",
    "create_trainer": "train.declarative.factory",
    "register_trainer": "train.declarative.factory",
    "create_competition_trainer": "train.declarative.competition",
    "CompetitionTrainer": "train.declarative.competition",
    "get_trainer_config": "train.declarative.config",
    "TrainerConfig": "train.declarative.config",
    "OptimizerSettings": "train.declarative.config",
    "SchedulerSettings": "train.declarative.config",
    "CompetitionConfig": "train.declarative.config",
    "MLflowConfig": "train.loggers.build",
    "MLflowCallback": "train.loggers.build",
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

configure_on_import()

__getattr__ = lazy_names(__name__, _HOMES)
