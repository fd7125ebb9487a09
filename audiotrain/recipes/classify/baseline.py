"""What a linear model of statistics reaches on the clips of a run, and whether a network is better.

A tower from scratch needs many clips; `input.embeddings` "auto" decides by their number.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain import config
from audiotrain.evaluation.classification import class_accuracies
from audiotrain.evaluation.linear_probe import LabelledEmbeddings, probe_scores, tune_probe
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.features import STATISTICS, ExtractedClip, statistics_of
from audiotrain.recipes.classify.settings import SMALL_TOWER, TrainSettings

FEW_CLIPS = 1000  # for training; with fewer the statistics were better, see docs/figures.md
MOST_CLIPS = 2000  # more take longer than seconds


class Decision(NamedTuple):
    """The input that is trained on, and a line that says why."""

    embeddings: str | None
    why: str


class Baseline(NamedTuple):
    """Accuracies of a linear model of statistics that was fitted to the training clips: on the
    validation clips, and by cross-validation on the training clips."""

    valid: float
    cross_validated: float | None
    seconds: float


def is_saved(settings: TrainSettings, run: Path) -> bool:
    """Whether a run goes on, whose settings say what its input is."""
    return settings.resume and (run / "config.yaml").is_file()


def decide(
    settings: TrainSettings, run: Path, clips: int, multilabel: bool, baseline: Baseline | None
) -> Decision:
    """Decide what `input.embeddings` "auto" is for a number of training `clips`."""
    if is_saved(settings, run):
        saved = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
        return Decision(saved.input.embeddings, f"as {run} began")
    default = TrainSettings()
    if (settings.model, settings.augmentation) != (SMALL_TOWER, default.augmentation):
        return Decision(None, "a tower on the spectrograms, whose settings are given")
    if multilabel or clips >= FEW_CLIPS:
        few = f"{clips} clips of several classes" if multilabel else f"{clips} training clips"
        return Decision(None, f"{few}: a tower on the spectrograms")
    right = ""
    if baseline is not None and baseline.cross_validated is not None:
        right = f", {baseline.cross_validated:.2f} right in cross-validation"
    return Decision(
        STATISTICS,
        f"{clips} training clips, fewer than {FEW_CLIPS}: statistics of the spectrograms{right}; "
        "--input.embeddings none trains a tower",
    )


def compared(embeddings: str | None, score: float, baseline: Baseline) -> str:
    """Return a line that compares a model's accuracy on the validation clips with the baseline's,
    and recommends the statistics where these are better than a tower."""
    line = f"validation clips: {score:.3f}, a linear model of statistics {baseline.valid:.3f}"
    if embeddings is None and baseline.valid > score:
        line += ": --input.embeddings statistics trains such a model in seconds"
    return line


def measure(
    train: Sequence[ExtractedClip], valid: Sequence[ExtractedClip], task: Task, floor: float
) -> Baseline | None:
    """The accuracies of a linear model of statistics on clips with their spectrograms (frames,
    mels), in folds that keep groups whole. None for multilabel clips, for more than MOST_CLIPS, and
    where there are too few to fit it."""
    if task.multilabel or len(train) > MOST_CLIPS:
        return None
    begun = time.monotonic()
    training, validation = (labelled(part, task, floor) for part in (train, valid))
    mean, deviation = training.embeddings.mean(axis=0), training.embeddings.std(axis=0)
    training, validation = (
        LabelledEmbeddings((one.embeddings - mean) / (deviation + 1e-6), one.targets, one.groups)
        for one in (training, validation)
    )
    probe = tune_probe(training, None, len(task.classes))
    if probe is None:
        return None
    scored = probe_scores(training, len(task.classes))
    cross_validated = None if scored is None else accuracy(scored[0], training.targets)
    valid_accuracy = accuracy(probe(validation.embeddings), validation.targets)
    return Baseline(valid_accuracy, cross_validated, time.monotonic() - begun)


def labelled(clips: Sequence[ExtractedClip], task: Task, floor: float) -> LabelledEmbeddings:
    """The statistics of clips with a class each, from their spectrograms (frames, mels)."""
    found = np.stack([statistics_of(mel, floor) for _, mel in clips]).astype(np.float64)
    targets = task.answers(task.targets([clip for clip, _ in clips]))
    return LabelledEmbeddings(found, targets, [clip.group or clip.id for clip, _ in clips])


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows of scores (items, classes) whose largest is the target's (items,)."""
    return class_accuracies(scores, targets)["accuracy"]
