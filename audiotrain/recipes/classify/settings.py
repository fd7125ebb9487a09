"""Settings of clip classification; their defaults are stated here and nowhere else."""

import contextlib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from audiotrain.config.schema import PositiveInt, PositiveShare, validated
from audiotrain.models.clap.config import HTSATConfig
from audiotrain.recipes.classify.dataset import AugmentationSettings
from audiotrain.recipes.classify.features import AUTO, InputSettings
from audiotrain.recipes.classify.training import HeadSettings, OptimizationSettings
from audiotrain.recipes.common import settings as common
from audiotrain.recipes.common.settings import Folds
from audiotrain.train.ensembling import Vote
from audiotrain.utils.errors import UserError

CACHE = Path("~/.cache/audiotrain/classify")
STEPS, STEPS_WITHOUT_DATA = 1000, 240
SMALL_TOWER = HTSATConfig(  # 0.5 M parameters; 5 s are 16 x 16 patches
    spec_size=128,
    patch_size=8,
    window_size=8,
    patch_embeds_hidden_size=64,
    depths=(1, 2),
    num_attention_heads=(2, 4),
    hidden_dropout_prob=0.1,
    drop_path_rate=0.1,
)


def _check_threshold(text: str) -> str:
    name, _, share = text.rpartition("=")
    with contextlib.suppress(ValueError):
        if name and 0 < float(share) <= 1:
            return text
    raise UserError(f"found {text!r}, expected CLASS=SHARE, the share above 0 and at most 1")


@validated(kw_only=True)
class TrainSettings(common.RunSettings):
    """Train a classifier of clips on a folder for each class or on a table, or, without data, on
    synthesised sounds."""

    data: Path | None = None
    """folder with a folder for each class, folder with a table, or the table; default: synthesised
    sound events"""
    cache: Path = CACHE
    task: Literal["auto", "single", "multi"] = "auto"
    """whether a clip has one class or may have several; auto: as in the data"""
    test_fold: str | None = None
    """value of the data's column `fold` (or number of a fold of `folds_of`) to test on; all others
    are trained on"""
    folds_of: Path | None = None
    """folder of a cross-validation whose folds `test_fold` names"""
    synthesised: Annotated[int, Field(ge=10)] = 540
    """number of synthesised clips without data"""
    steps: PositiveInt | None = None
    """optimizer steps; default: 240 without data, 1000 with data, unless `epochs` is given"""
    epochs: PositiveInt | None = None
    """passes over the training clips, instead of steps"""
    input: InputSettings = InputSettings()
    """what the model gets of a clip"""
    augmentation: AugmentationSettings = AugmentationSettings()
    """random changes of log-mel windows in training"""
    model: HTSATConfig = SMALL_TOWER
    """the network on log-mel spectrograms"""
    head: HeadSettings = HeadSettings()
    """the network on embeddings"""
    optimization: OptimizationSettings = OptimizationSettings()
    """optimizer and loss"""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        features, tower = self.input.features, self.model
        if self.steps is not None and self.epochs is not None:
            yield f"steps={self.steps} and epochs={self.epochs}, expected one of them"
        if self.folds_of is not None and self.test_fold is None:
            yield f"folds_of={self.folds_of}, expected test_fold, too: the number of a fold"
        if features.fused or tower.enable_fusion:
            fusion = "input.features.truncation=fusion or model.enable_fusion"
            yield f"{fusion}, expected neither: long clips are split into windows"
        has_tower = self.input.embeddings in (None, AUTO)
        if has_tower and features.frames > tower.frames:
            yield (
                f"input.features give {features.frames} frames, expected at most the "
                f"{tower.frames} of model.spec_size={tower.spec_size}"
            )
        if has_tower and features.mels != tower.num_mel_bins:
            expected = f"{tower.num_mel_bins} as in model.num_mel_bins"
            yield f"input.features.mels={features.mels}, expected {expected}"


@validated(kw_only=True)
class CrossValidateSettings(TrainSettings):
    """Train a model for each fold, and predict each clip by the model that was not trained on
    it."""

    folds: Folds = 5
    """number of folds where the data have no column `fold`; groups stay whole, and all folds have
    about the same share of each class"""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.test_fold is not None:
            yield f"test_fold={self.test_fold}, expected none: each fold is tested"


@validated(kw_only=True)
class PseudoSettings(TrainSettings):
    """Train, label further clips by what the model predicts with confidence, train on these too,
    and again, as long as the score on the labelled validation clips does not fall."""

    data: Path = field()
    """labelled clips: folder with a folder for each class, folder with a table, or the table"""
    unlabelled: Path
    """folder of audio without labels"""
    threshold: PositiveShare = 0.9
    """smallest probability of a pseudo-label, after calibration on the validation clips"""
    thresholds: tuple[Annotated[str, AfterValidator(_check_threshold)], ...] = ()
    """other thresholds for some classes: CLASS=SHARE …"""
    rounds: PositiveInt = 3
    """largest number of trainings with pseudo-labels"""


@validated(kw_only=True)
class ModelsSettings(common.UseSettings):
    """Trained classifiers, whose probabilities are joined."""

    cache: Path = CACHE
    join: Vote | None = None
    """how the probabilities of several models are joined: mean, geometric mean or majority;
    default: mean, or as the folder of an ensemble says"""
    tta: tuple[Literal["shift", "crop"], ...] = ()
    """test-time augmentation: average over shifts by a mel bin; over crops of each window"""


@validated(kw_only=True)
class EvaluateSettings(ModelsSettings, common.EvaluateSettings):
    """Score classifiers on labelled clips."""

    data: Path
    """folder with a folder for each class, folder with a table, or the table"""
    group: str | None = None
    """column of a table whose equal values are one group"""


@validated(kw_only=True)
class PredictSettings(ModelsSettings, common.PredictSettings):
    """Write the probabilities of all classes for audio files."""

    output: Path = Path("predictions.csv")
    """CSV to write: file, label, confidence, and a column for each class; with `submission` a
    competition's file"""
    submission: Path | None = None
    """sample_submission.csv, whose ids, columns and order the output gets"""
    top: int = 1
    """number of classes in a submission with one column of names"""


@validated(kw_only=True)
class EnsembleSettings(common.EnsembleSettings):
    """Join runs to one model: a vote, or weights or a stacked model fitted on out-of-fold
    predictions."""

    join: Literal["mean", "geometric", "majority", "blend", "stack"] = "blend"
    """mean, geometric mean, majority; blend: mean with fitted weights; stack: logistic regression
    on the predictions. The last two need cross-validations of the same clips"""
    weights: tuple[float, ...] = ()
    """a weight for each, for mean, geometric and majority; default: equal weights"""

    def __post_init__(self):
        super().__post_init__()
        if len(self.checkpoint) < 2:
            raise UserError(f"checkpoint: {len(self.checkpoint)} named, expected two or more")
        if self.weights and self.join in ("blend", "stack"):
            raise UserError(f"weights: join={self.join} fits them, expected none")
