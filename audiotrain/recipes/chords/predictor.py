"""A trained chord model on audio of any length: overlapping windows, averaged, in little memory."""

import itertools
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from pydantic import Field

from audiotrain.config import conform
from audiotrain.features import audio as audio_files
from audiotrain.features import extract
from audiotrain.features.beats import find_beats
from audiotrain.features.onsets import Onsets, step_of, to_onsets
from audiotrain.features.tuning import tuning_of
from audiotrain.models.chords.model import ChordModelSettings, FrameChordModel
from audiotrain.music.beats import NO_BEATS, Beats
from audiotrain.music.chord_classes import (
    CHORD_TYPES,
    HEAD_SIZES,
    NO_CHORD,
    PITCH_NAMES,
    BassRule,
    decode,
)
from audiotrain.music.keys import Key, key_of
from audiotrain.music.segments import Segment, frames_to_segments
from audiotrain.recipes.chords import decoding
from audiotrain.recipes.chords.songs import SILENCE, FeatureSettings, Song, decibels
from audiotrain.recipes.common import exported
from audiotrain.recipes.common.checkpoints import (
    best_checkpoint,
    current_names,
    described,
    of_this_version,
    shipped,
)
from audiotrain.train import checkpoint
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object, write_json

if TYPE_CHECKING:
    from audiotrain.recipes.chords.pages import NotebookPage

WINDOWS_AT_ONCE, LONGEST_WINDOW = 16, 1 << 14
MOST_BLOCKS, LARGEST_SIZE = 1000, 1 << 14  # of a model that is read; others take all memory
LARGEST_COST, LARGEST_OFFSET = 1e9, 1e4  # of a switch; of a chord type's log-probability
# Seconds: longer recordings, of many tempos, have no beats, whose search takes 20 MB an hour.
LONGEST_WITH_BEATS = 10800.0


@dataclass(frozen=True)
class Prediction:
    """Chords of one recording: segments, a confidence in 0..1 for each, its seconds, the tuning
    that was assumed, in semitones above A = 440 Hz, its beats, and its key (the tonic's pitch class
    and the mode; None without chords). `missing` says what could not be decoded of its file.

    A confidence is the probability of the label; of N in place of a chord that was too unsure, the
    probability that this chord is wrong."""

    segments: list[Segment]
    confidences: list[float]
    seconds: float
    tuning: float = 0.0
    beats: Beats = NO_BEATS
    key: Key | None = None
    source: Path | None = field(default=None, repr=False, compare=False)  # of a file
    missing: str = ""

    def _repr_html_(self) -> str:
        """The page of the song inside a notebook, without its sound, as `show()` is."""
        return self.show()._repr_html_()

    def show(self, audio: bool = False) -> "NotebookPage":
        """Return the page of the song, which a notebook shows; with `audio` its sound is embedded,
        .7 MB a minute, which are saved in the notebook.

        AudioError when the file cannot be read again; UserError for sound that is of no file, or
        longer than the page of a notebook holds.
        """
        from audiotrain.recipes.chords.pages import notebook_page

        return notebook_page(self, audio)


class Analysis(NamedTuple):
    """A recognizer's input for a recording: features (frames, bins) in dB in consecutive blocks;
    the onset detector, complete after the last block; the length in seconds; the tuning that the
    features are computed for, in semitones above A = 440 Hz; what cannot be decoded of the
    recording, complete after the last block."""

    blocks: Iterable[np.ndarray]
    onsets: Onsets
    seconds: float
    tuning: float = 0.0
    missing: audio_files.Gathered | None = None


def analyse(
    settings: FeatureSettings, margin: bool, audio: str | Path | np.ndarray, tuning: float = 0.0
) -> Analysis:
    """The analysis of a file, or of mono samples, computed block by block as it is read; AudioError
    when it cannot be read."""
    onsets = Onsets(settings.rate, settings.hop)
    missing = audio_files.Gathered()
    blocks = extract.feature_blocks(
        audio, settings.cqt(margin, tuning), on_samples=onsets.add, on_missing=missing
    )
    if isinstance(audio, np.ndarray):
        seconds = audio.size / settings.rate
    else:
        seconds = audio_files.info(audio).seconds
    return Analysis(map(decibels, blocks), onsets, seconds, tuning, missing)


class FrameRecognizer:
    """Recognises chords in audio of any length; a subclass predicts windows, in `log_probs`."""

    settings: FeatureSettings
    window: int  # frames
    switching_cost: float = 2.0
    type_offsets: np.ndarray | None = None  # (32,), added to the log-probabilities of chord types
    min_confidence: float = 0.0  # passages below it are N by Viterbi, see `decoding.is_rejected`
    takes_margin = False  # whether `log_probs` takes the margin bins, too

    def log_probs(self, windows: np.ndarray) -> np.ndarray:
        """Log-probabilities (windows, frames, 385), see `decoding`, for features (windows, frames,
        bins) in dB."""
        raise NotImplementedError

    def inputs(self, song: Song) -> np.ndarray:
        """The features (frames, bins) of a song that `log_probs` takes."""
        margin = 0 if self.takes_margin else self.settings.margin_bins
        return song.features[:, margin : song.features.shape[1] - margin]

    def log_probabilities(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Log-probabilities (frames, 385) in consecutive pieces, for consecutive features
        (frames, bins) in dB. Every frame is the mean of two windows, weighted by how central it is.
        """
        window, step = self.window, self.window // 2
        positions = np.arange(window)
        ramp = (np.minimum(positions, positions[::-1]) + 0.5).astype(np.float32)[:, None]
        # Window k begins at frame (k - 1) * step, so the first one begins in silence.
        bins = self.settings.cqt(self.takes_margin).bins
        buffer = np.full((step, bins), SILENCE, np.float32)
        tail = None  # the second half of the window before
        received = yielded = 0  # frames
        # Silence at the end, so that the last frames are inside two windows.
        silence = np.full((window + step, bins), SILENCE, np.float32)
        for block in itertools.chain(blocks, [silence]):
            received += len(block) if block is not silence else 0
            buffer = np.concatenate([buffer, block])
            count = max(0, (len(buffer) - window) // step + 1)
            for first in range(0, count, WINDOWS_AT_ONCE):
                numbers = np.arange(first, min(first + WINDOWS_AT_ONCE, count))
                windows = buffer[numbers[:, None] * step + positions]
                for posteriors in self.log_probs(windows) * ramp:
                    if tail is not None and yielded < received:
                        joined = (tail + posteriors[:step]) / (ramp[step:] + ramp[:step])
                        yield joined[: received - yielded]
                        yielded += step
                    tail = posteriors[step:]
            buffer = buffer[count * step :]

    def song_log_probabilities(self, values: np.ndarray) -> np.ndarray:
        """(frames, 385) of one song's features (frames, bins) in dB."""
        return np.concatenate(list(self.log_probabilities([np.asarray(values, np.float32)])))

    def __call__(
        self, audio: str | Path | np.ndarray, viterbi: bool = True, bass: BassRule = "any"
    ) -> Prediction:
        """The chords of a file, or of mono samples (samples,) at the model's rate, in the tuning
        that is estimated; an AudioWarning where a part cannot be decoded. AudioError, one line with
        the file, when it cannot be read; ValueError, one line, for samples that
        `features.audio.mono_samples` refuses."""
        tuning = tuning_of(audio, self.settings.rate)
        prediction = self.predict(audio, viterbi, bass, tuning=tuning)
        if prediction.missing:
            text = f"{prediction.source}: {prediction.missing}"
            warnings.warn(text, audio_files.AudioWarning, stacklevel=2)
        return prediction

    def predict(
        self,
        audio: str | Path | np.ndarray,
        viterbi: bool = True,
        bass: BassRule = "any",
        on_progress: Callable[[float], None] | None = None,
        tuning: float = 0.0,
        analysis: Analysis | None = None,
    ) -> Prediction:
        """The chords, beats and key of a file, or of mono samples (samples,) at the model's rate,
        of any length; chords change where a note begins.

        `tuning` is in semitones above A = 440 Hz. `on_progress` is called now and then with the
        seconds analysed since the last call. An `analysis` of the audio is not computed again.
        AudioError, one line with the file, when it cannot be read; ValueError, one line, for
        samples that `features.audio.mono_samples` refuses.
        """
        if analysis is None:
            analysis = analyse(self.settings, self.takes_margin, audio, tuning)
        prediction = self.chords(analysis, viterbi, bass, on_progress)
        return replace(
            prediction,
            beats=beats_of(analysis, prediction.segments),
            key=key_of(prediction.segments),
            tuning=analysis.tuning,
            missing=analysis.missing.text if analysis.missing else "",
            source=None if isinstance(audio, np.ndarray) else Path(audio),
        )

    def chords(
        self,
        analysis: Analysis,
        viterbi: bool = True,
        bass: BassRule = "any",
        on_progress: Callable[[float], None] | None = None,
    ) -> Prediction:
        """As `predict`, without beats and key: reads the analysis's blocks once. ValueError for a
        negative `switching_cost`."""
        frame_seconds = self.settings.frame_seconds
        numbers: dict[str, int] = {}  # label -> its number
        # Of all frames, in memory that grows in place.
        labels, confidences = array("h"), array("f")
        pieces = self._reported(self.log_probabilities(analysis.blocks), on_progress)
        cost = self.switching_cost if viterbi else None
        for posteriors, classes in decoding.decode_stream(pieces, cost):
            names = (decode(chord, bass) for chord in classes.tolist())
            labels.extend(numbers.setdefault(name, len(numbers)) for name in names)
            found = decoding.confidences(posteriors, classes)
            confidences.frombytes(found.astype(np.float32).tobytes())
        none = numbers.setdefault(decode(NO_CHORD), len(numbers))
        decoded, sure = np.frombuffer(labels, np.int16), np.frombuffer(confidences, np.float32)
        is_chord, least = decoded != none, self.min_confidence if viterbi else 0.0
        rejected = decoding.is_rejected(sure, is_chord, least, frame_seconds)
        return to_prediction(
            list(numbers),
            np.where(rejected, none, decoded),
            np.where(rejected & is_chord, 1 - sure, sure),
            frame_seconds,
            analysis.seconds,
            self._snapping(analysis.onsets.strengths()),
        )

    def decode(self, posteriors: np.ndarray) -> np.ndarray:
        """Classes (frames, 3) of a whole song's log-probabilities (frames, 385) by Viterbi, N where
        they are too unsure."""
        classes = decoding.decode(posteriors, self.switching_cost)
        sure, is_chord = decoding.confidences(posteriors, classes), classes[:, 0] > 0
        rejected = decoding.is_rejected(
            sure, is_chord, self.min_confidence, self.settings.frame_seconds
        )
        classes[rejected] = NO_CHORD
        return classes

    def _reported(
        self, pieces: Iterable[np.ndarray], on_progress: Callable[[float], None] | None
    ) -> Iterator[np.ndarray]:
        for piece in pieces:
            if on_progress is not None:
                on_progress(len(piece) * self.settings.frame_seconds)
            yield piece

    def segments(self, classes: np.ndarray, onsets: np.ndarray, seconds: float) -> list[Segment]:
        """Classes of frames (frames, 3) as chords that change at a song's onsets, given by their
        strengths (steps,)."""
        frame_seconds = self.settings.frame_seconds
        return frames_to_segments(classes, frame_seconds, seconds, moved=self._snapping(onsets))

    def _snapping(self, onsets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A function that moves times to the nearest onsets."""
        step = step_of(self.settings.rate, self.settings.hop)
        return lambda times: to_onsets(times, onsets, step)


class Recognizer(FrameRecognizer):
    """A frame model with the features and window it was trained on.

    `window` is in frames, `type_offsets` (32,). ValueError for a window that is odd, that the
    model's patch does not divide, or above LONGEST_WINDOW.

    >>> recognizer = Recognizer.pretrained()  # doctest: +SKIP
    >>> recognizer("song.mp3").segments  # doctest: +SKIP
    [Segment(start=0.0, end=1.86, label='C:maj'), ...]
    """

    def __init__(
        self,
        model: FrameChordModel,
        settings: FeatureSettings,
        window: int,
        switching_cost: float = 2.0,
        type_offsets: np.ndarray | None = None,
    ):
        patch = model.trunk.settings.patch
        if window < 2 or window % 2 or window % patch:
            raise UserError(f"window={window}, expected an even number that patch={patch} divides")
        if window > LONGEST_WINDOW:
            raise UserError(f"window={window}, expected up to {LONGEST_WINDOW} frames")
        self.model, self.settings, self.window = model, settings, window
        self.switching_cost, self.type_offsets = switching_cost, type_offsets
        model.eval()

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> "Recognizer":
        """The model of a checkpoint folder, of a run folder's best checkpoint, or of a folder that
        `chords export` wrote.

        CheckpointError, one line, when it is damaged or no chord model's; ValueError, one line, for
        a damaged decoding.json.
        """
        folder = Path(folder)
        if exported.is_exported(folder):
            return cls._from_exported(folder)
        if (folder / "checkpoints").is_dir():
            folder = best_checkpoint(folder)
        with described(folder, "recognizer", "chord") as description:
            recognizer = cls._untrained(description)
        holder = nn.Module()
        holder.model = recognizer.model  # as in the training module, whose names checkpoints have
        checkpoint.load_weights(holder, folder)
        file = folder.parent / "decoding.json"
        if file.is_file():
            recognizer._decode_by(read_decoding(file))
        return recognizer

    @classmethod
    def pretrained(cls) -> "Recognizer":
        """The model that audiotrain comes with. ValueError where it is not installed,
        CheckpointError, one line, when it is damaged."""
        return cls.from_checkpoint(shipped("chords"))

    @classmethod
    def _from_exported(cls, folder: Path) -> "Recognizer":
        description = exported.read_description(folder, "chords")
        with of_this_version(f"{folder / exported.DESCRIPTION}: the model"):
            if description.get("vocabulary") != vocabulary():
                raise UserError("another vocabulary")
            recognizer = cls._untrained(description)
            recognizer._decode_by(decoding_options(description.get("decoding")))
        exported.load_weights(recognizer.model, folder, description)
        return recognizer

    @classmethod
    def _untrained(cls, description: Mapping[str, Any]) -> "Recognizer":
        """Build the model that `describe` described, without its weights. UserError for anything
        else than such a description."""
        content = conform(description, _Description, "description")
        settings = FeatureSettings(**current_names(content.features, "features"))
        sizes = ChordModelSettings(**content.model)
        refuse_large(sizes, settings)
        model = FrameChordModel(settings.bins, sizes, settings.bins_per_octave)
        return cls(model, settings, content.window)

    def _decode_by(self, options: Mapping[str, Any]) -> None:
        self.switching_cost = options["switching_cost"]
        self.type_offsets = options.get("type_offsets")
        self.min_confidence = options["min_confidence"]

    def log_probs(self, windows: np.ndarray) -> np.ndarray:
        logits = self.model(mx.array(windows, dtype=mx.float32))
        mx.eval(logits)
        arrays = {head: np.array(values) for head, values in logits.items()}
        posteriors = decoding.log_probabilities(arrays)
        if self.type_offsets is not None:
            posteriors = decoding.offset_types(posteriors, self.type_offsets)
        return posteriors


@dataclass(frozen=True)
class _Description:
    model: dict[str, Any]
    features: dict[str, Any]
    window: int


def refuse_large(model: ChordModelSettings, settings: FeatureSettings) -> None:
    """ValueError for sizes that no model has: building it would take all memory, or overflow."""
    sizes = {name: size for name, size in asdict(model).items() if isinstance(size, int)}
    for name, size in (sizes | {"bins": settings.bins}).items():
        most = MOST_BLOCKS if name in ("blocks", "pools") else LARGEST_SIZE
        if size > most:
            raise UserError(f"{name}={size}, expected up to {most}")


def to_prediction(
    names: Sequence[str],
    labels: np.ndarray,
    confidences: np.ndarray,
    frame_seconds: float,
    seconds: float,
    moved: Callable[[np.ndarray], np.ndarray],
) -> Prediction:
    """The chords of `seconds` of audio: frames of equal label, given by its number (frames,) among
    `names`, joined, with the mean of their confidences (frames,); `moved` gives better times of the
    changes."""
    frames = len(labels)
    # The header of an mp3 may be wrong; the audio ends within a hop after the last centre.
    seconds = min(max(seconds, (frames - 1) * frame_seconds), frames * frame_seconds)
    firsts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    bounds = [0.0, *moved((firsts[1:] - 0.5) * frame_seconds).tolist(), seconds]
    segments = list(map(Segment, bounds, bounds[1:], [names[label] for label in labels[firsts]]))
    sums = np.add.reduceat(confidences.astype(np.float64), firsts)
    means = np.minimum(1.0, sums / np.diff(firsts, append=frames))
    return Prediction(segments, means.tolist(), seconds)


def beats_of(analysis: Analysis, segments: Sequence[Segment]) -> Beats:
    """The beats of a recording of up to LONGEST_WITH_BEATS, after its analysis."""
    if analysis.seconds > LONGEST_WITH_BEATS:
        return NO_BEATS
    onsets = analysis.onsets
    return find_beats(onsets.strengths(), onsets.low_strengths(), onsets.step, segments)


def describe(model: ChordModelSettings, settings: FeatureSettings, window: int) -> dict:
    """The description of a model in its checkpoint, from which `from_checkpoint` builds it."""
    return {"model": asdict(model), "features": asdict(settings), "window": window}


def vocabulary() -> dict[str, list[str]]:
    """Names of the classes of each head."""
    return {
        "chord_type": list(CHORD_TYPES),
        "root": list(PITCH_NAMES),
        "bass_note": list(PITCH_NAMES),
    }


def decoding_of(recognizer: FrameRecognizer) -> dict[str, Any]:
    """How a recognizer decodes, as plain data: the cost of a switch, the confidence below which
    there is N, and offsets of the log-probabilities of chord types where it has them."""
    content: dict[str, Any] = {
        "switching_cost": recognizer.switching_cost,
        "min_confidence": recognizer.min_confidence,
    }
    if recognizer.type_offsets is not None:
        content["type_offsets"] = [round(float(offset), 6) for offset in recognizer.type_offsets]
    return content


_Offset = Annotated[float, Field(ge=-LARGEST_OFFSET, le=LARGEST_OFFSET)]
_A_TYPE = Field(min_length=HEAD_SIZES[0], max_length=HEAD_SIZES[0])


@dataclass(frozen=True)
class _Decoding:
    switching_cost: Annotated[float, Field(ge=0, le=LARGEST_COST)]
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0  # files of before have none
    type_offsets: Annotated[list[_Offset], _A_TYPE] | None = None


def decoding_options(content: Any, place: str = "decoding") -> dict[str, Any]:
    """Return what `decoding_of` wrote as options of a Recognizer. UserError, which begins with
    `place`, for anything else."""
    decoding = conform(content, _Decoding, place)
    options: dict[str, Any] = {
        "switching_cost": decoding.switching_cost,
        "min_confidence": decoding.min_confidence,
    }
    if decoding.type_offsets is not None:
        options["type_offsets"] = np.array(decoding.type_offsets, np.float32)
    return options


def write_decoding(recognizer: FrameRecognizer, path: Path) -> None:
    """Save how a recognizer decodes; `from_checkpoint` reads it again."""
    write_json(path, decoding_of(recognizer))


def read_decoding(path: Path) -> dict[str, Any]:
    """Return the options in a file of `write_decoding`. UserError when it is damaged."""
    place = f"{path}: expected a switching_cost, and {HEAD_SIZES[0]} type_offsets or none"
    return decoding_options(read_json_object(path, place), place)
