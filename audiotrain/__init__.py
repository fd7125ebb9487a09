"""Train audio models on one's own machine with MLX: chord recognition, CLAP, and your own.

Importing the package loads a fast BLAS where MLX lacks one, so import it before `mlx.core`; there
MLX's kernels are then compiled to faster ones, too.

    __main__.py  `audiotrain chords …`, `clap …`, `classify …`
    backend/     MLX on a CPU
    config/      Settings
    datasets/    Files on disk to labelled items
    evaluation/  Scores, pictures and reports
    features/    Audio files and what is computed from them
    models/      Models in MLX
    music/       Chord classes, chord labels, segments
    recipes/     Programs that users start
    train/       The Trainer and all that trains arrays
    utils/       Files, progress bars, trees of arrays, text
"""

from audiotrain.backend import blas, kernel_rewriter
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

blas.load()
if not blas.has_cuda():
    blas.keep_freed_memory()
    kernel_rewriter.vectorise()

__getattr__ = lazy_names(__name__, _HOMES)
