"""Settings that recipes share. A recipe's own dataclasses inherit them, and declare again only what
has another default or needs another sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from audiotrain.config.schema import InnerShare, NonNegativeInt, Positive, PositiveInt, validated
from audiotrain.train.ensembling import member_weights
from audiotrain.utils.errors import UserError

LoggerNames = tuple[Literal["wandb", "tensorboard", "mlflow"], ...]
Part = Literal["train", "valid", "test"]
Folds = Annotated[int, Field(ge=2)]
Checkpoints = Annotated[tuple[Path, ...], Field(min_length=1)]


@validated(kw_only=True)
class RunSettings:
    """One training run, or several of the same kind."""

    data: Path | None = None
    """folder or table of labelled recordings; default: synthesised ones"""
    output: Path | None = None
    """run folder, new or to be resumed; default: runs/RECIPE-DATE-TIME"""
    resume: bool = False
    """continue the run in `output` where it stopped"""
    cache: Path = Path("~/.cache/audiotrain")
    """folder of extracted features, reused by later runs"""
    strict: bool = False
    """stop at audio that can't be read whole, instead of leaving it or a part of it out"""
    seed: NonNegativeInt = 0
    """seed of the split, the synthesis, the weights and the order"""
    valid: InnerShare = 0.1
    """share of the recordings to validate on"""
    test: InnerShare = 0.1
    """share of the recordings to test on"""
    group: str | None = None
    """column of a table whose equal values stay in one part of the split"""
    batch_size: PositiveInt = 32
    """examples in a batch, for each process under mlx.launch"""
    gradient_accumulation_steps: PositiveInt = 1
    """batches whose gradients are averaged for an optimizer step"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed computes in bfloat16, for GPUs"""
    steps: PositiveInt | None = None
    """optimizer steps; default: `epochs`"""
    epochs: PositiveInt | None = 10
    """passes over the training data when `steps` is not given"""
    max_minutes: Positive | None = None
    """stop training after this many minutes"""
    validations: PositiveInt = 10
    """how many times training is interrupted to validate"""
    patience: NonNegativeInt = 0
    """stop after this many validations without improvement; 0: never"""
    workers: NonNegativeInt = 2
    """threads that load training batches; recordings are prepared before, on all cores"""
    loggers: LoggerNames = ()
    """where metrics, settings and pictures go besides the run folder"""

    def __post_init__(self):
        if lines := list(self.conflicts()):
            raise UserError("\n".join(lines))

    def conflicts(self) -> Iterator[str]:
        """What is wrong with settings together, a line for each mistake."""
        if self.valid + self.test >= 1:
            yield (
                f"valid={self.valid} and test={self.test}, "
                "expected shares that add up to less than 1"
            )


@validated(kw_only=True)
class ResultSettings:
    """Commands that read recordings and write results."""

    overwrite: bool = False
    """replace results that exist already"""
    strict: bool = False
    """stop at audio that can't be read whole, instead of leaving it or a part of it out"""
    workers: PositiveInt | None = None
    """processes or threads that read recordings; default: one for each core"""


@validated(kw_only=True)
class CheckpointSettings(ResultSettings):
    """Commands that use trained models."""

    checkpoint: Checkpoints = (Path("latest"),)
    """runs, cross-validations (all folds) or an ensemble; several are joined; of a folder of runs
    the newest; latest: the newest of this recipe below runs"""


@validated(kw_only=True)
class PredictSettings(CheckpointSettings):
    """Commands that use trained models on audio files."""

    audio: tuple[Path, ...] = ()
    """audio files, or folders of them; needed"""

    def __post_init__(self):
        # Checkpoints are folders: files that follow them on a command line are recordings.
        files = tuple(path for path in self.checkpoint if path.is_file())
        runs = tuple(path for path in self.checkpoint if path not in files)
        object.__setattr__(self, "audio", self.audio + files)
        object.__setattr__(self, "checkpoint", runs)
        if not self.checkpoint:
            raise UserError("--checkpoint: nothing follows, expected runs")
        if not self.audio:
            order = "; folders go before --checkpoint" if len(runs) > 1 else ""
            raise UserError(f"--audio: required, audio files or folders of them{order}")


@validated(kw_only=True)
class UseSettings(CheckpointSettings):
    """Commands that use trained models and cache features."""

    cache: Path = Path("~/.cache/audiotrain")
    """folder of extracted features, reused by later runs"""


@validated(kw_only=True)
class EvaluateSettings(UseSettings):
    """Score trained models on labelled recordings."""

    data: Path
    """folder or table of labelled recordings"""
    output: Path | None = None
    """folder for metrics.json, tables and pictures; default: RUN/evaluation-NAME, with -SPLIT for a
    part"""
    split: Part | None = None
    """only this part, of the run's own split or as the data say; default: everything"""


@validated(kw_only=True)
class EnsembleSettings:
    """Join runs to one model."""

    checkpoint: Checkpoints
    """two or more runs or cross-validations; the runs of a cross-validation share one weight"""
    output: Path
    """folder for the ensemble, which evaluate and predict take as --checkpoint"""
    weights: tuple[float, ...] = ()
    """a weight for each; default: those of --join"""

    def __post_init__(self):
        if self.weights:
            member_weights(self.weights, len(self.checkpoint))
