"""Train and use a classifier of audio clips, of one class each or multilabel.

    python -m audiotrain.recipes.classify                          learns from synthesised sounds
    python -m audiotrain.recipes.classify --data FOLDER            a folder a class, or a table
    python -m audiotrain.recipes.classify cv --data FOLDER         a model a fold, each clip once
    python -m audiotrain.recipes.classify ensemble --checkpoint CV1 CV2 --output FOLDER
    python -m audiotrain.recipes.classify pseudo --data FOLDER --unlabelled FOLDER2
    python -m audiotrain.recipes.classify evaluate --data FOLDER   scores the newest run
    python -m audiotrain.recipes.classify predict FILES            writes predictions.csv

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes and prints.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation.classification_report import THRESHOLD, ClassificationReport
from audiotrain.recipes.classify.cv import cross_validate
from audiotrain.recipes.classify.ensemble import Ensemble, ensemble
from audiotrain.recipes.classify.pseudo_labels import pseudo
from audiotrain.recipes.classify.recipe import ClassifyRecipe
from audiotrain.recipes.classify.settings import (
    CrossValidateSettings,
    EnsembleSettings,
    EvaluateSettings,
    PredictSettings,
    PseudoSettings,
    TrainSettings,
)
from audiotrain.recipes.common import checkpoints, cli, run, split
from audiotrain.recipes.common.cli import Command
from audiotrain.train.submission import read_sample, write_submission
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import csv_text, refuse_existing, write
from audiotrain.utils.text import count


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("classify", COMMANDS, argv)


def train(settings: TrainSettings) -> ClassificationReport | None:
    """Train, keep the best model and test it on unseen clips; their scores, on rank 0."""
    return run.train(ClassifyRecipe(settings))


def evaluate(settings: EvaluateSettings) -> ClassificationReport:
    """Write and print the scores of a model or an ensemble on labelled clips."""
    joined = load(settings)
    runs = joined.runs
    home = runs[0] if len(runs) == 1 else runs[0].parent
    with run.scores_folder(settings, home) as output:
        corpus = labelled.check(labelled.discover(settings.data, settings.group), settings.strict)
        clips = corpus.items
        if settings.split is not None:
            clips = split.part_of(runs, corpus, settings.split, "clips")
        joined.task.targets(clips)  # refuses classes of other data before anything is written
        print(labelled.report(corpus, ProblemLog(output, brief=True)), flush=True)
        readable, probabilities, problems, incomplete = joined(clips, settings.strict)
        if settings.split is None:
            split.warn_if_trained_on(runs, corpus, "clips")
        read = [*readable, *problems]
        split.keep_readable(read, "clips", ProblemLog(output), settings.strict)
        ProblemLog(output).report_incomplete(incomplete, len(clips), "clips")
        scores = joined.task.report(readable, probabilities)
        scores.write(output)
    models = f", by {len(runs)} models" if len(runs) > 1 else ""
    print(f"\n{count(len(readable), 'clip')}{models}:\n{scores.table()}\n\n{output}")
    return scores


def predict(settings: PredictSettings) -> Path:
    """Write the probabilities of every clip, or a competition's submission; the file's path."""
    refuse_existing(settings.output, settings.overwrite)
    sample = None if settings.submission is None else read_sample(settings.submission)
    joined = load(settings)
    problems: list[str] = []
    clips = [clip for path in settings.audio for clip in recordings(path, problems)]
    named = distinct(clips) if sample is None else by_sample_id(clips, sample[1])
    requested = [replace(clip, id=id) for id, clip in named.items()]
    readable, probabilities, unreadable, incomplete = joined(requested, settings.strict)
    split.print_incomplete(incomplete)
    for problem in [*problems, *unreadable]:
        print(f"left out: {problem}", file=sys.stderr)
    ids = [clip.id for clip in readable]
    if settings.submission is not None:
        classes = joined.task.classes
        write_submission(
            ids, classes, probabilities, settings.submission, settings.output, settings.top
        )
    else:
        write(settings.output, predictions_csv(joined, ids, probabilities))
    models = count(len(joined.runs), "model")
    print(f"{count(len(ids), 'clip')} by {models} -> {settings.output}")
    return settings.output


def load(settings: EvaluateSettings | PredictSettings) -> Ensemble:
    """The models that the settings name, as one."""
    cache = settings.cache.expanduser()
    paths = checkpoints.report_model(settings.checkpoint, "classify")
    return Ensemble.load(paths, cache, settings.workers, settings.join, settings.tta)


def distinct(clips: Sequence[Clip]) -> dict[str, Clip]:
    """Clips by name: by their paths where those of two folders have the same name."""
    names = [clip.id for clip in clips]
    if len(set(names)) < len(names):
        names = [str(clip.audio) for clip in clips]
    return dict(zip(names, clips, strict=True))


def by_sample_id(clips: Sequence[Clip], ids: Sequence[str]) -> dict[str, Clip]:
    """The clips with the ids of a sample submission: a path, a file name, or that without suffix.

    ValueError naming an id that two clips fit; `write_submission` reports one that none fits.
    """
    known: dict[str, list[Clip]] = {}
    for clip in clips:
        path = PurePosixPath(clip.id)
        for name in {clip.id, path.name, path.stem}:
            known.setdefault(name, []).append(clip)
    for id in ids:
        if len(known.get(id, ())) > 1:
            first, second = known[id][:2]
            raise UserError(f"id {id!r} of the sample fits {first.id} and {second.id}")
    matches = {id: known[id][0] for id in ids if id in known}
    if not matches:
        raise UserError(
            f"none of the sample's {len(ids)} ids, such as {ids[0]!r}, is among "
            f"{len(clips)} clips, such as {clips[0].id}"
        )
    return matches


def predictions_csv(joined: Ensemble, ids: Sequence[str], probabilities: np.ndarray) -> str:
    """CSV: file, label (or labels with | between), largest probability, and all probabilities."""
    classes, multilabel = joined.task
    lines = [["file", "labels" if multilabel else "label", "confidence", *classes]]
    for id, row in zip(ids, probabilities, strict=True):
        numbers = np.flatnonzero(row >= THRESHOLD) if multilabel else [row.argmax()]
        label = "|".join(classes[number] for number in numbers)
        lines.append([id, label, *(f"{value:.6g}" for value in (row.max(), *row))])
    return csv_text(lines)


COMMANDS = {
    "train": Command(TrainSettings, train),
    "evaluate": Command(EvaluateSettings, evaluate),
    "predict": Command(PredictSettings, predict, "audio"),
    "cv": Command(CrossValidateSettings, cross_validate),
    "ensemble": Command(EnsembleSettings, ensemble),
    "pseudo": Command(PseudoSettings, pseudo),
}
