"""Settings of clip classification; their defaults are stated here and nowhere else."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from audiotrain.models.clap.config import HTSATConfig
from audiotrain.recipes.classify.dataset import AugmentationSettings
from audiotrain.recipes.classify.features import InputSettings
from audiotrain.recipes.classify.training import HeadSettings, OptimizationSettings
from audiotrain.train.ensembling import Vote, member_weights

CACHE = Path("~/.cache/audiotrain/classify")
SYNTHESISED = 540  # clips without data
STEPS, STEPS_WITHOUT_DATA = 1000, 240


def small_tower() -> HTSATConfig:
    """An HTSAT of 0.5 M parameters that hears 5 s as 16 x 16 patches."""
    return HTSATConfig(
        spec_size=128, patch_size=8, window_size=8, patch_embeds_hidden_size=64, depths=(1, 2),
        num_attention_heads=(2, 4), hidden_dropout_prob=0.1, drop_path_rate=0.1,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainSettings:
    """Train a classifier of clips on a folder for each class or on a table, or, without data, on
    synthesised sounds."""

    data: Path | None = None
    """folder of a folder for each class, folder with a table, or the table; nothing: synthesised
    sound events"""
    output: Path | None = None
    """run folder, new or to be resumed; nothing: runs/classify-DATE-TIME"""
    resume: bool = False
    """continue the run in `output` where it stopped"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    seed: int = 0
    """seed of the split, the weights and the order"""
    task: Literal["auto", "single", "multi"] = "auto"
    """whether a clip has one class or may have several; auto: as the data have it"""
    valid: float = 0.1
    """share of the clips to validate on"""
    test: float = 0.1
    """share of the clips to test on, where neither the data nor `test_fold` say it"""
    test_fold: str | None = None
    """value of the data's column `fold` (or number of a fold of `folds_of`) that is tested on, all
    others being trained on"""
    folds_of: Path | None = None
    """folder of a cross-validation whose folds `test_fold` names"""
    group: str | None = None
    """column of a table whose equal values stay in one part of the split"""
    strict: bool = False
    """stop at audio that cannot be read instead of leaving it out"""
    synthesised: int = SYNTHESISED
    """clips that are synthesised without data"""
    batch_size: int = 32
    """clips of a batch, for each process under mlx.launch"""
    steps: int | None = None
    """optimizer steps; nothing: 240 without data, 1000 with data, unless `epochs` are given"""
    epochs: int | None = None
    """passes over the training clips, instead of steps"""
    max_minutes: float | None = None
    """stop training after so many minutes"""
    validations: int = 10
    """how many times training is interrupted to validate"""
    patience: int = 0
    """stop after so many validations without a better ranking of classes; 0: never"""
    workers: int = 2
    """threads that load training batches; clips are read before, on all cores"""
    loggers: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ()
    """where numbers and settings go besides the run folder"""
    hearing: InputSettings = field(default_factory=InputSettings)
    """what of a clip is heard"""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """what is done to log-mel windows in training"""
    model: HTSATConfig = field(default_factory=small_tower)
    """the tower that hears log-mel"""
    head: HeadSettings = field(default_factory=HeadSettings)
    """what hears embeddings"""
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    """optimizer and loss"""

    def __post_init__(self):
        check_training(self)


@dataclass(frozen=True)
class CrossValidateSettings(TrainSettings):
    """Train a model for each fold and predict every clip once by one that never heard it."""

    folds: int = 5
    """how many, where the data have no column `fold`; groups stay whole, each class is spread"""


@dataclass(frozen=True, kw_only=True)
class PseudoSettings(TrainSettings):
    """Train, name unlabelled clips that the model is sure of, train on these too, and again, as
    long as the score on the labelled validation clips does not fall."""

    unlabelled: Path
    """folder of audio without labels"""
    threshold: float = 0.9
    """least probability of a class that is believed, as right as the validation clips say"""
    thresholds: tuple[str, ...] = ()
    """other ones for some classes: CLASS=SHARE …"""
    rounds: int = 3
    """trainings with pseudo-labels, at most"""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold}, expected above 0, at most 1")
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}, expected 1 or more")


@dataclass(frozen=True)
class EvaluateSettings:
    """Score classifiers on labelled clips."""

    data: Path
    """folder of a folder for each class, folder with a table, or the table"""
    checkpoint: tuple[Path, ...] = (Path("runs"),)
    """run folders, cross-validations (all their folds), folders of runs (the newest) or what
    `ensemble` wrote; several: joined"""
    join: Vote | None = None
    """how several models' probabilities are joined: their mean, geometric mean, or by majority;
    nothing: their mean, or as an ensemble's folder says"""
    output: Path | None = None
    """folder for metrics.json, tables and pictures; nothing: RUN/evaluation-NAME, and -SPLIT of a
    part"""
    overwrite: bool = False
    """replace scores that are in --output already"""
    split: Literal["train", "valid", "test"] | None = None
    """only this part, of the run's own split or as the data say; nothing: everything"""
    group: str | None = None
    """column of a table whose equal values are one group"""
    strict: bool = False
    """stop at a file that can't be read instead of leaving it out"""
    cache: Path = CACHE
    """folder of extracted features"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""


@dataclass(frozen=True)
class PredictSettings:
    """Write the probabilities of all classes for audio files."""

    audio: tuple[Path, ...]
    """audio files, or folders of them"""
    checkpoint: tuple[Path, ...] = (Path("runs"),)
    """run folders, cross-validations (all their folds), folders of runs (the newest) or what
    `ensemble` wrote; several: joined"""
    join: Vote | None = None
    """how several models' probabilities are joined: their mean, geometric mean, or by majority;
    nothing: their mean, or as an ensemble's folder says"""
    output: Path = Path("predictions.csv")
    """CSV to write: file, label, confidence, and a column for each class; with `submission` a
    competition's file"""
    submission: Path | None = None
    """sample_submission.csv, whose ids, columns and order the output gets"""
    top: int = 1
    """classes named in a submission with one column of names"""
    overwrite: bool = False
    """replace a file that exists already"""
    cache: Path = CACHE
    """folder of extracted features"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""

    def __post_init__(self):
        if not self.audio:
            raise ValueError("--audio: nothing follows, expected audio files or folders")


@dataclass(frozen=True)
class EnsembleSettings:
    """Join runs to one model: a vote, weights or a meta-model fitted on out-of-fold predictions."""

    checkpoint: tuple[Path, ...]
    """two or more runs or cross-validations; runs of a cross-validation have one weight"""
    output: Path
    """folder for the ensemble, which evaluate and predict take as --checkpoint"""
    join: Literal["mean", "geometric", "majority", "blend", "stack"] = "blend"
    """mean, geometric mean, majority; blend: their mean with fitted weights; stack: a logistic
    regression of what they say. The last two need cross-validations of the same clips"""
    weights: tuple[float, ...] = ()
    """a weight for each, for mean, geometric and majority; nothing: equal ones"""

    def __post_init__(self):
        if len(self.checkpoint) < 2:
            raise ValueError(f"--checkpoint: {len(self.checkpoint)} named, expected two or more")
        if self.weights and self.join in ("blend", "stack"):
            raise ValueError(f"--weights: --join {self.join} fits them, expected none")
        if self.weights:
            member_weights(self.weights, len(self.checkpoint))


def check_training(settings: TrainSettings) -> None:
    """ValueError naming the first setting that cannot be, before anything is read or written."""
    least = {
        "seed": 0, "synthesised": 10, "batch_size": 1, "steps": 1, "epochs": 1, "validations": 1,
        "patience": 0, "workers": 0, "folds": 2,
    }  # fmt: skip
    for name, smallest in least.items():
        value = getattr(settings, name, None)
        if value is not None and value < smallest:
            raise ValueError(f"{name}={value}, expected {smallest} or more")
    valid, test = settings.valid, settings.test
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(
            f"valid={valid} and test={test}, expected shares above 0 that add up to less than 1"
        )
    if settings.max_minutes is not None and not 0 < settings.max_minutes < math.inf:
        raise ValueError(f"max_minutes={settings.max_minutes}, expected more than 0")
    if settings.steps is not None and settings.epochs is not None:
        raise ValueError("--steps and --epochs: expected one of them")
    if settings.folds_of is not None and settings.test_fold is None:
        raise ValueError("--folds-of: expected --test-fold, the number of the fold to test on")
    features, tower = settings.hearing.features, settings.model
    if features.fused or tower.enable_fusion:
        raise ValueError("truncation=fusion: expected rand_trunc; long clips are heard in windows")
    if settings.hearing.embeddings is None:
        if features.frames > tower.frames:
            raise ValueError(
                f"hearing.features give {features.frames} frames, expected at most the "
                f"{tower.frames} of model.spec_size={tower.spec_size}"
            )
        if features.mels != tower.num_mel_bins:
            raise ValueError(
                f"hearing.features.mels={features.mels}, model.num_mel_bins={tower.num_mel_bins}: "
                "expected the same"
            )
