"""Train audio models on one's own machine with MLX: chord recognition, CLAP, and your own.

Importing the package loads a fast BLAS where MLX lacks one, so import it before `mlx.core`. It
changes no environment variable; `audiotrain.backend.describe()` lists what is active.

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

# Module below this package -> the names that it gives to `from audiotrain import ...`.
_NAMES = {
    "utils.errors": "UserError",
    "train.module": "TrainModule OptimizerConfig",
    "train.trainer": "Trainer",
    "train.data.loader": "DataLoader Dataset",
    "train.protocols": "CallbackProtocol DatasetProtocol LoggerProtocol",
    "train.callbacks": (
        "Callback EMA EarlyStopping GradientClipper LearningRateMonitor LearningRateScheduler "
        "MetricsLogger ModelCheckpoint ModelSummary ProgressBar Timer"
    ),
    "train.loggers": "MLflowLogger TensorBoardLogger WandbLogger",
    "train.loggers.build": "MLflowCallback MLflowConfig",
    "train.schedulers": (
        "ExponentialLRScheduler OneCycleLRScheduler StepLRScheduler WarmupCosineScheduler "
        "WarmupLinearScheduler"
    ),
    "train.losses": "ChordRecognitionLoss masked_cross_entropy",
    "train.engine.memory": "checkpoint_layers",
    "train.declarative.aliases": (
        "BaseTrainerConfig KaggleTrainerConfig MLXTrainer create_kaggle_trainer"
    ),
    "train.declarative.factory": "create_trainer register_trainer",
    "train.declarative.competition": "CompetitionTrainer create_competition_trainer",
    "train.declarative.config": (
        "CompetitionConfig OptimizerSettings SchedulerSettings TrainerConfig get_trainer_config"
    ),
    "features.log_mel": "LogMel LogMelSettings",
    "music.chord_classes": "CHORD_TYPES",
    "models.chords": "ChordRecognitionModel",
    "models.clap": "CLAP CLAPConfig",
    "evaluation.classification": (
        "MetricsTracker compute_confusion_matrix compute_per_class_metrics compute_topk_accuracy"
    ),
    "recipes.chords.chord_trainer": "ChordTrainer TrainingConfig",
    "recipes.chords.predictor": "Recognizer",
    "recipes.common.create_model": "create_model",
    "recipes.clap.embedder": "Embedder",
    "recipes.clap.sound_library": "SoundLibrary",
    "recipes.clap.training": "CLAPTrainModule",
}
__all__ = sorted(" ".join(_NAMES.values()).split())  # noqa: PLE0605

configure_on_import()

__getattr__ = lazy_names(__name__, _NAMES)
