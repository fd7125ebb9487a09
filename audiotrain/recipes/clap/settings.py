"""Settings of CLAP's training and export; their defaults are stated here and nowhere else."""

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from audiotrain.models.clap.config import CLAPConfig, HTSATConfig
from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.recipes.clap.dataset import ClipAugmentation
from audiotrain.recipes.clap.finetuning import LoraSettings, Mode, OptimizationSettings
from audiotrain.recipes.clap.training import LossSettings

CACHE = Path("~/.cache/audiotrain/clap")
COMPOSED = 2400  # clips without data


def small_model() -> CLAPConfig:
    """A model of 1 M parameters that hears 10 s as 64 patches, each of 640 ms, in one window."""
    small = CLAPConfig.small()
    audio = HTSATConfig(
        spec_size=128,
        patch_size=16,
        patch_embeds_hidden_size=128,
        depths=(3,),
        num_attention_heads=(4,),
        hidden_dropout_prob=0.0,
    )
    text = replace(small.text_config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return CLAPConfig(audio, text, projection_dim=128)


def small_features() -> ClapFeatureSettings:
    """25 frames a second of sounds up to 12 kHz: what `small_model` takes."""
    return ClapFeatureSettings(rate=24000, hop=960, fmax=12000)


@dataclass(frozen=True)
class TrainSettings:
    """Train CLAP on a folder of audio and captions, or on composed scenes; from weights or from
    scratch."""

    data: Path | None = None
    """folder of audio and captions, a table or a tar; nothing: scenes composed of synthesised
    events"""
    pretrained: str | None = None
    """model folder, or id of Hugging Face's hub such as laion/clap-htsat-unfused, to start from;
    nothing: a small model from scratch"""
    mode: Mode = "full"
    """what trains: all, the two projections alone, a tower with the projections, LoRA updates with
    the projections, or the last blocks of both towers with the projections"""
    last: int = 2
    """blocks of each tower that mode last-n trains"""
    cache_towers: bool = True
    """compute what a frozen tower gives once for each clip or caption and read it from then on;
    clips are then cut to their centre and not augmented. Mixed or joined clips are never cached"""
    output: Path | None = None
    """run folder, new or to be resumed; nothing: runs/clap-DATE-TIME"""
    resume: bool = False
    """continue the run in `output` where it stopped"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    seed: int = 0
    """seed of the split, the scenes, the weights and the order"""
    valid: float = 0.1
    """share of the clips to validate on"""
    test: float = 0.1
    """share of the clips to test on"""
    group: str | None = None
    """column of a table whose equal values stay in one part of the split"""
    templates: tuple[str, ...] = ("This is a sound of {label}.",)
    """captions of clips that have a class and no caption"""
    strict: bool = False
    """stop at audio that cannot be read instead of leaving it out"""
    composed: int | None = None
    """scenes composed for training; nothing: 2400 without data, none with data"""
    vocabulary: int = 1024
    """tokens that a tokenizer learns from the captions, at most, where there is no --pretrained"""
    batch_size: int = 64
    """clips of a batch, for each process under mlx.launch; each is compared with all others"""
    micro_batch: int = 0
    """clips that are embedded at a time, for large batches on small memory; 0: all. The gradients
    are those of the whole batch, and so are the statistics of the input's norm"""
    checkpoint_blocks: bool = False
    """compute the towers' blocks twice to keep less in memory"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed computes in bfloat16, for GPUs"""
    steps: int | None = None
    """optimizer steps; nothing: 600 without data, `epochs` with data"""
    epochs: int = 10
    """passes over the clips when `steps` is not given"""
    max_minutes: float | None = None
    """stop training after so many minutes"""
    validations: int = 10
    """how many times training is interrupted to validate"""
    patience: int = 0
    """stop after so many validations without a better retrieval mAP@10; 0: never"""
    workers: int = 2
    """threads that load training batches; clips are read before, on all cores"""
    loggers: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ()
    """where numbers and settings go besides the run folder"""
    augmentation: ClipAugmentation = field(default_factory=lambda: ClipAugmentation(gain=3.0))
    """what is done to clips besides drawing a crop and a caption"""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """updates of mode lora"""
    loss: LossSettings = field(default_factory=LossSettings)
    """loss"""
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    """optimizer"""
    features: ClapFeatureSettings = field(default_factory=small_features)
    """front end where there is no --pretrained"""
    model: CLAPConfig = field(default_factory=small_model)
    """sizes where there is no --pretrained; the vocabulary is the tokenizer's"""

    def __post_init__(self):
        # A folder or a hub's name, so no Path, which a run would remember in full by itself.
        if self.pretrained is not None and (folder := Path(self.pretrained).expanduser()).is_dir():
            object.__setattr__(self, "pretrained", os.path.abspath(folder))
        check_training(self)

    @property
    def composed_clips(self) -> int:
        """How many scenes are composed."""
        if self.composed is not None:
            return self.composed
        return COMPOSED if self.data is None else 0

    @property
    def caches_towers(self) -> bool:
        """Whether what frozen towers give is kept: not where clips are mixed into new ones."""
        change = self.augmentation
        return self.cache_towers and change.mix + change.join + change.blend == 0


@dataclass(frozen=True)
class ExportSettings:
    """Write a run's model as a folder that Hugging Face's ClapModel reads."""

    output: Path
    """folder for the model, new or empty"""
    checkpoint: Path = Path("runs")
    """run folder; a folder of runs: its newest run"""
    share: float = 1.0
    """how far from the starting weights (0) to the trained ones (1): in between, what was known
    before is better kept (WiSE-FT)"""

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share}, expected 0 to 1")


def check_training(settings: TrainSettings) -> None:
    """ValueError naming the first setting that cannot be, before anything is read or written."""
    least = {
        "seed": 0, "last": 1, "composed": 0, "vocabulary": 261, "batch_size": 2, "micro_batch": 0,
        "steps": 1, "epochs": 1, "validations": 1, "patience": 0, "workers": 0,
    }  # fmt: skip
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and value < smallest:
            raise ValueError(f"{name}={value}, expected {smallest} or more")
    valid, test = settings.valid, settings.test
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(
            f"valid={valid} and test={test}, expected shares above 0 that add up to less than 1"
        )
    if settings.max_minutes is not None and not 0 < settings.max_minutes < math.inf:
        raise ValueError(f"max_minutes={settings.max_minutes}, expected more than 0")
    if not settings.templates:
        raise ValueError("--templates: nothing follows, expected captions with {label}")
    if settings.data is None and settings.composed_clips < 10:
        raise ValueError(f"composed={settings.composed} without data, expected 10 or more")
    _check_start(settings)


def _check_start(settings: TrainSettings) -> None:
    """Sizes come from --pretrained or from settings; parts stay frozen only where they know
    something."""
    if settings.pretrained is None:
        if settings.mode != "full":
            raise ValueError(f"mode={settings.mode}, expected --pretrained, a model to start from")
        frames, image = settings.features.frames, settings.model.audio_config.frames
        if frames > image:
            raise ValueError(
                f"features give {frames} frames, expected at most the {image} of "
                f"model.audio_config.spec_size={settings.model.audio_config.spec_size}"
            )
        for name, ours, theirs in (
            ("mels", settings.features.mels, settings.model.audio_config.num_mel_bins),
            ("fusion", settings.features.fused, settings.model.audio_config.enable_fusion),
        ):
            if ours != theirs:
                raise ValueError(f"features have {name} {ours}, model.audio_config {theirs}")
        return
    untouched = {"features": small_features(), "model": small_model()}
    for name, default in untouched.items():
        if getattr(settings, name) != default:
            raise ValueError(f"--{name}…: expected no such setting, since --pretrained has its own")
