"""Settings of the chord recipe's commands; their defaults are stated here and nowhere else."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from audiotrain.datasets.synthesis.soundfont import SoundFont
from audiotrain.models.chords.model import ChordModelSettings
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.chords.training import LossSettings, OptimizationSettings

CACHE = Path("~/.cache/audiotrain/chords")


@dataclass(frozen=True)
class TrainSettings:
    """Train a chord recogniser on a folder of audio and labels, or on synthesised songs."""

    data: Path | None = None
    """folder of audio (or MIDI) and chord labels, or a manifest; nothing: synthesised songs"""
    pretrained: Path | None = None
    """trained run whose weights training starts from, with its features and model; nothing: from
    scratch"""
    output: Path | None = None
    """run folder, new or to be resumed; nothing: runs/chords-DATE-TIME"""
    resume: bool = False
    """continue the run in `output` where it stopped"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    seed: int = 0
    """seed of the split, the synthesis, the weights and the order"""
    valid: float = 0.1
    """share of the songs to validate on"""
    test: float = 0.1
    """share of the songs to test on"""
    split: Path | None = None
    """split.json of another run, whose parts are taken; nothing: as the data say, or drawn"""
    group: str | None = None
    """column of a table whose equal values stay in one part of the split"""
    selector: str | None = None
    """which chord annotation of a JAMS file: a number or an annotator's name"""
    pop_spellings: bool = False
    """read Cm7b5, CM7, Csus, C°, Cø and German H too"""
    renderings: int = 2
    """how often a MIDI file is played for training: as written, then on drawn instruments"""
    plain: float = 0.6
    """share of training windows that are heard as they are, but for the key; the others are of any
    rendering, and varied in loudness, tone, noise and length"""
    composed: int | None = None
    """songs synthesised for training; nothing: 120 without data, none with data"""
    composed_seconds: float = 60.0
    """length of a synthesised song in seconds"""
    progressions: Path | None = None
    """folder of chord labels whose progressions synthesised songs borrow"""
    soundfonts: tuple[Path, ...] = ()
    """.sf2 files whose instruments play, too, wherever instruments are drawn: in synthesised songs
    and in renderings other than as written"""
    window: int = 128
    """frames of a training window, 12 s"""
    batch_size: int = 24
    """windows of a batch, for each process under mlx.launch"""
    steps: int | None = None
    """optimizer steps; nothing: 700 without data, `epochs` with data"""
    epochs: int = 20
    """passes over the songs when `steps` is not given"""
    max_minutes: float | None = None
    """stop training after so many minutes"""
    validations: int = 10
    """how many times training is interrupted to validate"""
    patience: int = 0
    """stop after so many validations without improvement; 0: never"""
    workers: int = 1
    """threads that load training batches; songs are prepared before, on all cores"""
    loggers: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ()
    """where numbers, settings and confusion matrices go besides the run folder"""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """front end"""
    model: ChordModelSettings = field(default_factory=ChordModelSettings)
    """frame model"""
    loss: LossSettings = field(default_factory=LossSettings)
    """loss"""
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    """optimizer"""

    def __post_init__(self):
        check_training(self)

    @property
    def composed_songs(self) -> int:
        """How many songs are synthesised."""
        if self.composed is not None:
            return self.composed
        return 120 if self.data is None else 0


@dataclass(frozen=True)
class CvSettings(TrainSettings):
    """Train once for each fold of the songs and test on that fold, with all settings of train.

    `output` holds a run folder for each fold; `test` and `split` do nothing.
    """

    folds: int = 5
    """parts of the songs, each tested on by a model that is trained on the others"""
    songs: int | None = None
    """so many songs of the data, evenly spread; nothing: all"""

    def __post_init__(self):
        super().__post_init__()
        if self.folds < 2:
            raise ValueError(f"folds={self.folds}, expected 2 or more")
        if self.songs is not None and self.songs < self.folds:
            raise ValueError(f"songs={self.songs}, expected {self.folds} or more, as many as folds")
        if self.split is not None:
            raise ValueError(f"split={self.split}, expected nothing: cv draws folds of its own")


@dataclass(frozen=True)
class EvaluateSettings:
    """Score a trained model on a labelled folder."""

    data: Path
    """folder of audio (or MIDI) and chord labels, or a manifest"""
    checkpoint: tuple[Path, ...] = (Path("runs"),)
    """runs, cross-validations (all folds) or an ensemble; several: joined; a folder of runs: its
    newest run"""
    join: Literal["mean", "geometric"] | None = None
    """how several models' probabilities are joined: their mean, or that of their logarithms;
    nothing: their mean, or as an ensemble's folder says"""
    tta: tuple[Literal["transpose", "tuning"], ...] = ()
    """hear each recording transposed, too; find its tuning first"""
    output: Path | None = None
    """folder for metrics.json, songs.csv and pictures; nothing: RUN/evaluation-NAME, and -SPLIT of
    a part"""
    overwrite: bool = False
    """replace scores that are in --output already"""
    split: Literal["train", "valid", "test"] | None = None
    """only this part of the run's own split; nothing: everything in the folder"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    selector: str | None = None
    """which chord annotation of a JAMS file: a number or an annotator's name"""
    pop_spellings: bool = False
    """read Cm7b5, CM7, Csus, C°, Cø and German H too"""
    rendering: int = 0
    """how MIDI files are played: 0 as written, 1 and on each time on other drawn instruments"""
    seed: int = 0
    """seed of those instruments"""

    def __post_init__(self):
        check_checkpoint(self.checkpoint)
        if self.rendering < 0:
            raise ValueError(f"rendering={self.rendering}, expected 0 or more")


@dataclass(frozen=True)
class PredictSettings:
    """Write the chords of audio files of any length."""

    audio: tuple[Path, ...] = ()
    """audio files, or folders of them; needed"""
    checkpoint: tuple[Path, ...] = (Path("runs"),)
    """runs, cross-validations (all folds) or an ensemble; several: joined; a folder of runs: its
    newest run"""
    join: Literal["mean", "geometric"] | None = None
    """how several models' probabilities are joined: their mean, or that of their logarithms;
    nothing: their mean, or as an ensemble's folder says"""
    tta: tuple[Literal["transpose", "tuning"], ...] = ()
    """hear each recording transposed, too; find its tuning first"""
    output: Path | None = None
    """folder for the results; nothing: beside each audio file"""
    overwrite: bool = False
    """replace results, and labels, that exist already"""
    formats: tuple[Literal["lab", "jams", "mid", "csv", "json"], ...] = ("lab",)
    """what to write"""
    decoding: Literal["viterbi", "argmax"] = "viterbi"
    """viterbi: what is right by most comparisons, and steady; argmax: each frame's likeliest"""
    bass: Literal["any", "chord-tone", "off"] = "any"
    """which bass notes a label may show"""
    timeline: bool = True
    """show the first minute of each file on the terminal"""

    def __post_init__(self):
        if not self.formats:
            raise ValueError("--formats: nothing follows, expected lab, jams, mid, csv or json")
        # Checkpoints are folders: files that follow them on a command line are recordings.
        files = tuple(path for path in self.checkpoint if path.is_file())
        if files:
            places = tuple(path for path in self.checkpoint if path not in files)
            object.__setattr__(self, "audio", self.audio + files)
            object.__setattr__(self, "checkpoint", places)
        check_checkpoint(self.checkpoint)


@dataclass(frozen=True)
class EnsembleSettings:
    """Join runs to one model: weights fitted on songs that none was trained on, or a soup."""

    checkpoint: tuple[Path, ...]
    """two or more runs or cross-validations; runs of a cross-validation have one weight"""
    output: Path
    """folder for the ensemble, which evaluate and predict take as --checkpoint"""
    join: Literal["mean", "geometric", "soup"] = "mean"
    """join probabilities, their logarithms, or (of runs of one architecture) the weights"""
    weights: tuple[float, ...] = ()
    """a weight for each; nothing: fitted on out-of-fold posteriors of cross-validations of the
    same folds, else on the songs of `data` that all runs validated on"""
    data: Path | None = None
    """folder of audio and labels that the runs were trained on; nothing: the first run's"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    selector: str | None = None
    """which chord annotation of a JAMS file: a number or an annotator's name"""
    pop_spellings: bool = False
    """read Cm7b5, CM7, Csus, C°, Cø and German H too"""

    def __post_init__(self):
        check_checkpoint(self.checkpoint)
        count = len(self.checkpoint)
        if self.weights and len(self.weights) != count:
            raise ValueError(
                f"{len(self.weights)} weights, expected {count}, as many as checkpoints"
            )


def check_checkpoint(places: tuple[Path, ...]) -> None:
    """ValueError when nothing is named."""
    if not places:
        raise ValueError("--checkpoint: nothing follows, expected runs")


def check_training(settings: TrainSettings) -> None:
    """ValueError naming the first setting that cannot be, before anything is read or written."""
    least = {
        "seed": 0, "renderings": 1, "window": 2, "batch_size": 1, "epochs": 1, "validations": 1,
        "workers": 0, "patience": 0, "composed": 0, "steps": 1,
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
    if not 0 <= settings.plain <= 1:
        raise ValueError(f"plain={settings.plain}, expected 0 to 1")
    window, patch = settings.window, settings.model.patch
    if window % 2 or window % patch:
        raise ValueError(
            f"window={window}, expected an even number that model.patch={patch} divides"
        )
    optimization = settings.optimization
    above = {
        "composed_seconds": settings.composed_seconds,
        "max_minutes": settings.max_minutes,
        "optimization.learning_rate": optimization.learning_rate,
        "optimization.muon_rate": optimization.muon_rate,
        "optimization.gradient_clip": optimization.gradient_clip,
        "loss.largest_class_weight": settings.loss.largest_class_weight,
    }
    for name, value in above.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}={value}, expected more than 0")
    shares = {
        "loss.label_smoothing": settings.loss.label_smoothing,
        "optimization.ema_decay": optimization.ema_decay,
        "optimization.beta2": optimization.beta2,
    }
    for name in (
        "chord_type_weight", "root_weight", "bass_weight", "change_weight", "class_power",
    ):  # fmt: skip
        if not 0 <= getattr(settings.loss, name) < math.inf:
            raise ValueError(f"loss.{name}={getattr(settings.loss, name)}, expected 0 or more")
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value}, expected 0 or more and less than 1")
    if settings.data is None and settings.composed_songs < 3:
        raise ValueError(f"composed={settings.composed} without data, expected 3 songs or more")


def check_effect(settings: TrainSettings) -> None:
    """ValueError naming the first setting of a new run that would do nothing."""
    if settings.data is None:
        for name in ("group", "selector"):
            if getattr(settings, name) is not None:
                raise ValueError(f"{name}={getattr(settings, name)} without data, expected nothing")
    if (folder := settings.progressions) is not None:
        if not settings.composed_songs:
            raise ValueError(
                f"progressions={folder} without composed songs, expected composed of 1 or more"
            )
        if not folder.exists():
            raise ValueError(f"progressions={folder}: no such folder")
    for path in settings.soundfonts:
        SoundFont(path.expanduser())  # refuses what it cannot read
    if settings.soundfonts and not settings.composed_songs and settings.renderings < 2:
        raise ValueError(
            f"soundfonts={settings.soundfonts[0]} without composed songs and with renderings=1, "
            "expected composed of 1 or more, or renderings of 2 or more"
        )
