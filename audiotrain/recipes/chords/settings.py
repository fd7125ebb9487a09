"""Settings of the chord recipe's commands; their defaults are stated here and nowhere else."""

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from audiotrain.config.schema import NonNegativeInt, Positive, PositiveInt, Share, validated
from audiotrain.config.words import Alone
from audiotrain.datasets.chords.writers import Spelling
from audiotrain.datasets.synthesis import speech
from audiotrain.datasets.synthesis.soundfont import SoundFont
from audiotrain.models.chords.model import ChordModelSettings
from audiotrain.recipes.chords.songs import FeatureSettings, LabelSettings
from audiotrain.recipes.chords.training import LossSettings, OptimizationSettings
from audiotrain.recipes.common import settings as common
from audiotrain.recipes.common.settings import Checkpoints, Folds
from audiotrain.utils.errors import UserError

CACHE = Path("~/.cache/audiotrain/chords")
COMPOSED = 120  # songs without data


@validated(kw_only=True)
class ModelSettings(common.CheckpointSettings):
    """Trained models, and how the predictions of several of them, or of several transpositions, are
    joined."""

    checkpoint: Checkpoints = (Path("shipped"),)
    """runs, cross-validations (all folds) or an ensemble; several are joined; of a folder of runs
    the newest; shipped: the model that audiotrain comes with; latest: the newest below runs"""
    join: Literal["mean", "geometric"] | None = None
    """how several models' probabilities are joined: their mean, or that of their logarithms;
    default: their mean, or that of the ensemble"""
    tta: tuple[Literal["transpose", "tuning"], ...] = ()
    """test-time augmentation: average over transpositions; tuning: the same as --tuning"""
    tuning: bool = True
    """estimate how far a recording is from A = 440 Hz, and analyse it in that tuning"""
    min_confidence: Share | None = None
    """confidence below which passages are N, as in speech, applause and drums alone; 0: none are;
    default: as was chosen for the model"""

    @property
    def estimates_tuning(self) -> bool:
        """Whether the tuning is estimated."""
        return self.tuning or "tuning" in self.tta


@validated(kw_only=True)
class TrainSettings(LabelSettings, common.RunSettings):
    """Train a chord recogniser on a folder of audio and labels, or on synthesised songs."""

    data: Path | None = None
    """folder of audio (or MIDI) and chord labels, or a manifest; default: synthesised songs"""
    pretrained: Annotated[Path | None, Alone("shipped")] = None
    """trained run or exported model whose weights training starts from, with its features and
    model; without a value the model that audiotrain comes with; default: from scratch"""
    pretrained_sha256: str | None = None
    """hash of the weights of an exported model in `pretrained`; others are refused. Training writes
    it into config.yaml"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    split: Path | None = None
    """split.json of another run, whose parts are taken; default: as the data say, or random"""
    renderings: PositiveInt = 2
    """how often a MIDI file is played for training: as written, then on random instruments"""
    degraded: NonNegativeInt = 0
    """degraded copies of each training song: speech or singing over it, drums, rooms, noise,
    clipping, MP3, in another tuning where it is played; needs the program flite"""
    plain: Share = 0.6
    """share of training windows that are only transposed; the others are of any rendering, and
    varied in loudness, tone, noise and length"""
    composed: NonNegativeInt | None = None
    """songs synthesised for training; default: 120 without data, none with data"""
    composed_seconds: Positive = 60.0
    """length of a synthesised song in seconds"""
    strummed: NonNegativeInt = 0
    """songs of a strummed guitar synthesised for training, in all positions of the neck"""
    progressions: Path | None = None
    """folder of chord labels whose progressions synthesised songs borrow"""
    soundfonts: tuple[Path, ...] = ()
    """.sf2 files with more instruments for synthesised songs, and for renderings other than as
    written"""
    window: Annotated[int, Field(ge=2)] = 128
    """frames of a training window, 12 s"""
    batch_size: PositiveInt = 24
    """windows in a batch, for each process under mlx.launch"""
    steps: PositiveInt | None = None
    """optimizer steps; default: 700 without data, `epochs` with data"""
    epochs: PositiveInt = 20
    """passes over the songs when `steps` is not given"""
    workers: NonNegativeInt = 1
    """threads that load training batches; songs are prepared before, on all cores"""
    export: bool = False
    """at the end also write the model as RUN/export, see the command export"""
    card: Path | None = None
    """template of the model card in it, see the command export"""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """front end"""
    model: ChordModelSettings = field(default_factory=ChordModelSettings)
    """frame model"""
    loss: LossSettings = field(default_factory=LossSettings)
    """loss"""
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    """optimizer"""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.window % 2 or self.window % self.model.patch:
            yield (
                f"window={self.window}, expected an even number that "
                f"model.patch={self.model.patch} divides"
            )
        if self.data is None and self.composed_songs < 3:
            yield f"composed={self.composed} without data, expected 3 songs or more"

    @property
    def composed_songs(self) -> int:
        """How many songs are synthesised."""
        if self.composed is not None:
            return self.composed
        return COMPOSED if self.data is None else 0

    def without_effect(self) -> Iterator[str]:
        """Why settings of a new run would do nothing, and files that cannot be read."""
        if self.data is None:
            for name in ("group", "selector"):
                if getattr(self, name) is not None:
                    yield f"{name}={getattr(self, name)} without data, expected nothing"
        if self.progressions is not None:
            name = f"progressions={self.progressions}"
            if not self.composed_songs and not self.strummed:
                yield f"{name} without composed songs, expected composed of 1 or more"
            elif not self.progressions.exists():
                yield f"{name}: no such folder"
        if self.degraded:
            try:
                speech.require_flite()
            except UserError as error:
                yield f"degraded={self.degraded}: {error}"
        for path in self.soundfonts:
            if not path.expanduser().exists():
                yield (
                    f"soundfonts={path}: no such file; `apt install fluid-soundfont-gm` installs "
                    "FluidR3_GM.sf2, --soundfonts names another one"
                )
                continue
            try:
                SoundFont(path.expanduser())
            except UserError as error:
                yield str(error)
        if (
            self.soundfonts
            and not self.composed_songs
            and self.renderings < 2
            and not self.degraded
        ):
            yield (
                f"soundfonts={self.soundfonts[0]} without composed songs and with renderings=1, "
                "expected composed of 1 or more, or renderings of 2 or more"
            )


@validated(kw_only=True)
class CvSettings(TrainSettings):
    """Train once for each fold of the songs and test on that fold, with all settings of train.

    `output` holds a run folder for each fold; `test` and `split` do nothing.
    """

    folds: Folds = 5
    """parts of the songs, each tested on by a model that is trained on the others"""
    songs: PositiveInt | None = None
    """use only this many songs of the data, evenly spread; default: all"""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.songs is not None and self.songs < self.folds:
            yield f"songs={self.songs}, expected {self.folds} or more, as many as folds"
        if self.split is not None:
            yield f"split={self.split}, expected nothing: cv makes its own folds"


@validated(kw_only=True)
class EvaluateSettings(LabelSettings, ModelSettings, common.EvaluateSettings):
    """Score a trained model on a labelled folder."""

    data: Path
    """folder of audio (or MIDI) and chord labels, or a manifest"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""
    rendering: NonNegativeInt = 0
    """how MIDI files are played: 0 as written, 1 and on each time on other random instruments"""
    seed: NonNegativeInt = 0
    """seed of those instruments"""


@validated(kw_only=True)
class PredictSettings(ModelSettings, common.PredictSettings):
    """Write the chords of audio files of any length."""

    output: Path | None = None
    """folder for the results; default: beside each audio file"""
    formats: Annotated[
        tuple[Literal["lab", "jams", "mid", "csv", "json", "chordpro", "html"], ...],
        Field(min_length=1),
    ] = ("lab",)
    """what to write; chordpro: a grid of bars; html: a page to play along with, of several songs
    also an index.html"""
    sound_megabytes: Annotated[float, Field(ge=0, le=100)] = 20.0
    """sound inside a page of html; longer sound is written beside it"""
    decoding: Literal["viterbi", "argmax"] = "viterbi"
    """viterbi: steady chords of the highest expected score; argmax: each frame's most probable"""
    bass: Literal["any", "chord-tone", "off"] = "any"
    """which bass notes a label may show"""
    spelling: Spelling = "key"
    """how files and the terminal spell notes: key: Eb or D# as the song's key has it; sharps: D#"""
    timeline: bool = True
    """show the beginning of each file on the terminal, in up to four rows"""


@validated(kw_only=True)
class EnsembleSettings(LabelSettings, common.EnsembleSettings):
    """Join runs to one model: weights fitted on songs that none was trained on, or a soup."""

    join: Literal["mean", "geometric", "soup"] = "mean"
    """join probabilities, their logarithms, or (of runs of one architecture) the weights"""
    weights: tuple[float, ...] = ()
    """a weight for each; default: fitted on out-of-fold posteriors of cross-validations of the
    same folds, else on the songs of `data` that all runs validated on"""
    data: Path | None = None
    """folder of audio and labels that the runs were trained on; default: the first run's"""
    cache: Path = CACHE
    """folder of extracted features, reused by later runs"""


@validated(kw_only=True)
class ExportSettings:
    """Write a trained model as a folder to pass on: float16 weights, model.json, a model card."""

    output: Path
    """folder for the model, new or empty"""
    checkpoint: Checkpoints = (Path("latest"),)
    """run; of a folder of runs the newest; latest: the newest below runs"""
    card: Path | None = None
    """template of the model card, with $names as in recipes/chords/model_card.md; default: that
    file"""
    overwrite: bool = False
    """replace a model that `output` holds"""
