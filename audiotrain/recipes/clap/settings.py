"""Settings of CLAP's commands; their defaults are stated here and nowhere else."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from audiotrain.config.schema import NonNegativeInt, PositiveInt, Share, validated
from audiotrain.config.words import Alone
from audiotrain.datasets.captions.discovery import TEMPLATES
from audiotrain.models.clap.config import CLAPConfig, HTSATConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.models.clap.weights import RELEASED
from audiotrain.recipes.clap.dataset import ClipAugmentation
from audiotrain.recipes.clap.finetuning import LoraSettings, Mode, OptimizationSettings
from audiotrain.recipes.clap.training import LossSettings
from audiotrain.recipes.common.settings import Folds, Part, ResultSettings, RunSettings
from audiotrain.utils.errors import UserError

CACHE = Path("~/.cache/audiotrain/clap")
COMPOSED = 2400  # clips without data
# 25 frames a second of sounds up to 12 kHz; a model of 1 M parameters that takes 10 s of them as 64
# patches, each of 640 ms, in one window.
SMALL_FEATURES = ClapFeatureSettings(rate=24000, hop=960, fmax=12000)
SMALL_MODEL = CLAPConfig(
    HTSATConfig(
        spec_size=128,
        patch_size=16,
        patch_embeds_hidden_size=128,
        depths=(3,),
        num_attention_heads=(4,),
        hidden_dropout_prob=0.0,
    ),
    replace(
        CLAPConfig.small().text_config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ),
    projection_dim=128,
)


def _check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        try:
            names_the_class = template.format(label="dog") != template.format(label="rain")
        except (LookupError, ValueError):
            names_the_class = False
        if not names_the_class:
            raise UserError(f"found {template!r}, expected {{label}} and no other {{}}")
    return templates


def _suffix(*suffixes: str) -> AfterValidator:
    def check(path: Path) -> Path:
        if path.suffix not in suffixes:
            raise UserError(f"found {path.suffix!r}, expected {' or '.join(suffixes)}")
        return path

    return AfterValidator(check)


Templates = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_check_templates)]
ResultFile = Annotated[Path, _suffix(".csv", ".json")]
IndexFile = Annotated[Path, _suffix(".safetensors", ".npz")]


@validated(kw_only=True)
class TrainSettings(RunSettings):
    """Train CLAP on a folder of audio and captions, or on composed scenes; from weights or from
    scratch."""

    data: Path | None = None
    """folder of audio and captions, a table or a tar; default: scenes composed of synthesised
    events"""
    pretrained: Annotated[str | None, Alone(RELEASED)] = None
    """model folder, or id of Hugging Face's hub whose weights training starts from; without a
    value laion/clap-htsat-unfused; default: a small model from scratch"""
    mode: Mode = "full"
    """what trains: all, the two projections alone, a tower with the projections, LoRA updates with
    the projections, or the last blocks of both towers with the projections"""
    last: PositiveInt = 2
    """blocks of each tower that mode last-n trains"""
    cache_towers: bool = True
    """compute the outputs of frozen towers once for each clip or caption and reuse them; clips are
    then cut to their centre and not augmented. Mixed or joined clips are never cached"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    templates: Templates = ("This is a sound of {label}.",)
    """captions of clips that have a class and no caption"""
    composed: NonNegativeInt | None = None
    """scenes composed for training; default: 2400 without data, none with data"""
    vocabulary: Annotated[int, Field(ge=261)] = 1024
    """tokens that a tokenizer learns from the captions, at most, where there is no --pretrained"""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """clips of a batch, for each process under mlx.launch; each is compared with all others"""
    gradient_accumulation_steps: PositiveInt = 1
    """batches whose gradients are averaged for an optimizer step; clips of different batches are
    not compared, which `micro_batch` does"""
    micro_batch: NonNegativeInt = 0
    """clips that are embedded at a time, for large batches on small memory; 0: all. The gradients
    are those of the whole batch, and so are the statistics of the input's norm"""
    checkpoint_blocks: bool = False
    """compute the towers' blocks twice to keep less in memory"""
    steps: PositiveInt | None = None
    """optimizer steps; default: 600 without data, `epochs` with data"""
    patience: NonNegativeInt = 0
    """stop after this many validations without a better retrieval mAP@10; 0: never"""
    augmentation: ClipAugmentation = ClipAugmentation(gain=3.0)
    """changes of clips besides a random crop and caption"""
    lora: LoraSettings = LoraSettings()
    """updates of mode lora"""
    loss: LossSettings = LossSettings()
    """loss"""
    optimization: OptimizationSettings = OptimizationSettings()
    """optimizer"""
    features: ClapFeatureSettings = SMALL_FEATURES
    """front end where there is no --pretrained"""
    model: CLAPConfig = SMALL_MODEL
    """sizes where there is no --pretrained; the vocabulary is the tokenizer's"""

    def __post_init__(self):
        super().__post_init__()
        if self.data is None and self.composed_clips < 10:
            raise UserError(f"composed={self.composed} without data, expected 10 or more")
        if self.pretrained is None:
            if self.mode != "full":
                raise UserError(f"mode={self.mode}, expected --pretrained, a model to start from")
            self.features.check(self.model.audio_config, "features")
            return
        for name, default in (("features", SMALL_FEATURES), ("model", SMALL_MODEL)):
            if getattr(self, name) != default:
                raise UserError(
                    f"--{name}…: expected no such setting, since --pretrained has its own"
                )
        # A folder or a hub's id, so no Path, which `run.save_settings` would make absolute.
        if (folder := Path(self.pretrained).expanduser()).is_dir():
            object.__setattr__(self, "pretrained", os.path.abspath(folder))

    @property
    def composed_clips(self) -> int:
        """How many scenes are composed."""
        if self.composed is not None:
            return self.composed
        return COMPOSED if self.data is None else 0

    @property
    def caches_towers(self) -> bool:
        """Whether outputs of frozen towers are kept: not where clips are mixed into new ones."""
        change = self.augmentation
        return self.cache_towers and change.mix + change.join + change.blend == 0


@validated(kw_only=True)
class ExportSettings:
    """Write a run's model as a folder that Hugging Face's ClapModel reads."""

    output: Path
    """folder for the model, new or empty"""
    checkpoint: Path = Path("latest")
    """run folder; of a folder of runs the newest; latest: the newest run below runs"""
    share: Share = 1.0
    """position between the starting weights (0) and the trained ones (1); in between the model
    keeps more of what it could before (WiSE-FT)"""


@validated(kw_only=True)
class UseSettings(ResultSettings):
    """Commands that use a trained CLAP."""

    checkpoint: str | None = None
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id;
    latest: the newest run below runs; default: laion/clap-htsat-unfused, from the hub"""
    batch_size: PositiveInt | None = None
    """windows embedded at once; default: what suits the device"""


@validated(kw_only=True)
class StoreSettings(UseSettings):
    """Commands that keep embeddings."""

    cache: Path = CACHE
    """folder of embeddings, found by the content of recordings, which are embedded once"""


@validated(kw_only=True)
class ScoreSettings(UseSettings):
    """Commands that score a model on captioned or labelled clips."""

    data: Path
    """folder of audio with captions or labels, a table or a tar"""
    output: Path | None = None
    """folder for metrics.json and tables"""
    group: str | None = None
    """column of a table whose equal values are one group, kept in one fold"""
    templates: Templates = TEMPLATES
    """sentences that name a class, with {label} in them"""


@validated(kw_only=True)
class EvaluateSettings(ScoreSettings):
    """Score a model on a captioned folder: retrieval both ways, and classes where it has labels."""

    output: Path | None = None
    """folder for metrics.json, tables and pictures; default: RUN/evaluation-NAME, with -SPLIT for a
    part, or runs/evaluation-NAME-of-MODEL for a model from elsewhere"""
    split: Part | None = None
    """only this part, of the run's split or of the data's own; default: everything"""
    linear_probe: bool = True
    """fit a linear probe where clips have labels"""


@validated(kw_only=True)
class CvSettings(ScoreSettings):
    """Cross-validate what a model knows of classes: zero-shot, and by a linear probe."""

    output: Path | None = None
    """folder for folds.json, oof, metrics.json, tables; default: RUN/cv-NAME, or
    runs/cv-NAME-of-MODEL for a model from elsewhere"""
    folds: Folds = 5
    """parts of the clips, by group, each with about the same share of every class"""
    fold_column: str | None = None
    """column of a table with the fold of each clip, such as ESC-50's fold"""
    seed: NonNegativeInt = 0
    """seed of the folds"""


@validated(kw_only=True)
class EmbedSettings(StoreSettings):
    """Write the embeddings of all audio in a folder to one file."""

    data: Path
    """folder of audio, at any depth, in tars too; or one file"""
    output: IndexFile
    """file to write: .safetensors or .npz"""
    windows: bool = False
    """an embedding for each 10 s instead of one for each file: long recordings can be searched"""


@validated(kw_only=True)
class SearchSettings(StoreSettings):
    """Find the recordings that fit a text, or sound like a recording."""

    query: tuple[str, ...] = ()
    """what to look for, in words"""
    data: Path | None = None
    """folder of audio, at any depth, in tars too; or one file. What is new is embedded first"""
    index: Path | None = None
    """file that `embed` wrote, instead of data; the model that made it is the default of
    --checkpoint"""
    audio: Path | None = None
    """recording to look for instead of words"""
    top: PositiveInt = 10
    """how many to show"""
    per_file: PositiveInt | None = None
    """how many windows of one recording are shown at most; default: 1, or all where there is only
    one recording"""
    output: ResultFile | None = None
    """file for the results: .csv or .json"""

    def __post_init__(self):
        if self.data is None and self.index is not None and self.index.is_dir():
            object.__setattr__(self, "data", self.index)
            object.__setattr__(self, "index", None)
        if bool(self.text) == (self.audio is not None):
            raise UserError(
                "search: expected words to look for, such as search 'rain on a roof', or --audio "
                "FILE, and not both"
            )
        if (self.data is None) == (self.index is None):
            raise UserError(
                "search: expected --data FOLDER, or --index FILE that `embed` wrote, and not both"
            )

    @property
    def text(self) -> str:
        """What to look for; "" with --audio."""
        return " ".join(" ".join(self.query).split())


@validated(kw_only=True)
class ClassifySettings(StoreSettings):
    """Predict the class of audio files by the names of the classes, without training."""

    audio: Annotated[tuple[Path, ...], Field(min_length=1)]
    """audio files, or folders of them"""
    labels: tuple[str, ...]
    """names of classes: dog,rain or dog rain or FILE.txt with one a line"""
    templates: Templates = TEMPLATES
    """sentences that name a class, with {label} in them"""
    top: PositiveInt = 3
    """how many classes to show for a file"""
    output: ResultFile | None = None
    """file for the results: .csv or .json"""
