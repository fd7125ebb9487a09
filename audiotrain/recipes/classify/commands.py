"""Train and use a classifier of audio clips, of one class each or of several.

    python -m audiotrain.recipes.classify                          learns from synthesised sounds
    python -m audiotrain.recipes.classify --data FOLDER            a folder a class, or a table
    python -m audiotrain.recipes.classify cv --data FOLDER         a model a fold, each clip once
    python -m audiotrain.recipes.classify ensemble --checkpoint CV1 CV2 --output FOLDER
    python -m audiotrain.recipes.classify pseudo --data FOLDER --unlabelled FOLDER2
    python -m audiotrain.recipes.classify evaluate --data FOLDER   scores the newest run
    python -m audiotrain.recipes.classify predict FILES            writes predictions.csv

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes and prints."""

import csv
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import mlx.core as mx
import numpy as np

from audiotrain import config
from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import PROBLEMS
from audiotrain.recipes.clap.inference import parts_of, saved_split
from audiotrain.recipes.clap.use_settings import refuse_existing
from audiotrain.recipes.classify import cv, pseudo_labels
from audiotrain.recipes.classify.clips import Parts, find, read_parts, task_of, tell_unreadable
from audiotrain.recipes.classify.dataset import Task, Vectors, Windows
from audiotrain.recipes.classify.ensemble import Ensemble, fit_ensemble, load
from audiotrain.recipes.classify.features import ClipFeatures
from audiotrain.recipes.classify.predictor import Classifier, describe
from audiotrain.recipes.classify.scoring import THRESHOLD, Scores
from audiotrain.recipes.classify.settings import (
    STEPS,
    STEPS_WITHOUT_DATA,
    CrossValidateSettings,
    EnsembleSettings,
    EvaluateSettings,
    PredictSettings,
    PseudoSettings,
    TrainSettings,
)
from audiotrain.recipes.classify.training import ClassifyTraining, make_model
from audiotrain.recipes.common import cli
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.run import fit, makers, open_run, resumable, trainer_of
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.distributed import ranks as distributed
from audiotrain.train.run_folder import evaluation_name, refuse_results
from audiotrain.train.submission import read_sample, write_submission
from audiotrain.utils.files import write, write_json

LOGGERS = makers("audiotrain-classify")
MONITOR = "val_ranking"  # finer than the accuracy where few clips are there to validate on


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("classify", COMMANDS, argv)


# ---------------------------------------------------------------- train


def train(
    settings: TrainSettings, corpus: Corpus[Clip] | None = None, whole: Path | None = None
) -> Scores | None:
    """Train, keep the best model and test it on unseen clips, whose scores are given.

    `corpus` is what `find` would give; `whole` is the folder that the run is a part of, and that is
    resumed. Under mlx.launch the other ranks leave with nothing.
    """
    begun, ranks = time.monotonic(), distributed.join()
    run = Path(ranks.from_first(lambda: str(open_run(settings, "classify"))))
    with ranks.hush():
        listed = run / PROBLEMS if ranks.rank == 0 else None
        corpus = corpus or ranks.first_goes_first(lambda: find(settings, listed))
        task = task_of(settings, corpus)
        features = ClipFeatures(settings.hearing, settings.cache.expanduser(), settings.workers)
        parts = read_parts(settings, corpus, features, run)
        module, described = make_module(settings, task, parts)
    trainer, loaders = make_trainer(settings, task, parts, described, run)
    with resumable(whole or run):
        if not fit(settings, trainer, module, loaders, run):
            return None
    scores = score_unseen(parts, run)
    for logger in trainer.loggers:
        if (run / "confusion.png").exists():
            logger.log_image("confusion", run / "confusion.png", trainer.global_step)
        logger.finish()
    print(f"\n{run}: {time.monotonic() - begun:.0f} s in all")
    return scores


def score_unseen(parts: Parts, run: Path) -> Scores:
    """Scores of the best model on the test clips, written into the run and printed; metrics.json
    has those on the validation clips, too."""
    classifier = Classifier.from_run(run)
    valid, tested = (
        Scores(
            classifier.task,
            [clip.id for clip in parts[name].clips],
            classifier.task.targets(parts[name].clips),
            classifier.probabilities(parts[name]),
        )
        for name in ("valid", "test")
    )
    tested.write(run)
    write_json(run / "metrics.json", tested.as_dict() | {"valid": valid.as_dict()})
    print(f"\n{len(tested.ids)} unseen clips of {len(tested.task.classes)} classes:")
    print(tested.table())
    return tested


def make_module(settings: TrainSettings, task: Task, parts: Parts) -> tuple[ClassifyTraining, dict]:
    """The untrained module, which knows the statistics of the training clips, and what a
    checkpoint says of it."""
    features = parts["train"].features
    sizes = {"model": config.to_plain(settings.model)}
    if settings.hearing.embeddings is not None:
        sizes |= {"head": config.to_plain(settings.head), "width": len(features[0])}
    described = describe(task, settings.hearing, sizes)
    mx.random.seed(settings.seed)
    model = make_model(described)
    if settings.hearing.embeddings is not None:
        vectors = np.stack(features).astype(np.float64)
        model.take_statistics(vectors.mean(axis=0), vectors.std(axis=0))
    else:
        model.take_statistics(*statistics_of(features, settings.hearing.floor))
    return ClassifyTraining(model, task.multilabel, settings.optimization), described


def statistics_of(mels: Sequence[np.ndarray], floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (mels,) of all clips' frames in dB, and one deviation for all bins, (mels,) too."""
    count = sum(map(len, mels))
    loud = [np.maximum(np.asarray(mel, np.float64), floor) for mel in mels]
    mean = sum(mel.sum(axis=0) for mel in loud) / count
    variance = sum(np.square(mel - mean.mean()).sum() for mel in loud) / count / len(mean)
    return mean, np.full(len(mean), max(variance**0.5, 1e-3))


def make_trainer(settings: TrainSettings, task: Task, parts: Parts, described: dict, run: Path):
    """The Trainer of a run, and its loaders for training and validation."""
    ranks = distributed.join()
    training, validation = datasets(settings, task, parts)
    batch = max(1, min(settings.batch_size, len(training) // ranks.size))
    loader = DataLoader(
        training, batch, shuffle=True, num_workers=settings.workers, drop_last=True,
        seed=settings.seed, persistent_workers=True,
    )  # fmt: skip
    ranks.shard(loader)  # how many batches there are depends on it
    steps = settings.steps
    if steps is None:
        steps = STEPS_WITHOUT_DATA if settings.data is None else STEPS
        steps = steps if settings.epochs is None else settings.epochs * len(loader)
    described = {"classifier": described}
    trainer = trainer_of(settings, run, steps, LOGGERS, described, MONITOR, "max")
    return trainer, (loader, DataLoader(validation, batch, num_workers=settings.workers))


def datasets(settings: TrainSettings, task: Task, parts: Parts):
    """Samples to train and to validate on."""
    targets = [task.targets(parts[name].clips) for name in ("train", "valid")]
    if settings.hearing.embeddings is not None:
        return Vectors(parts["train"], targets[0]), Vectors(parts["valid"], targets[1])
    floor, frames = settings.hearing.floor, settings.hearing.features.frames
    mean, _ = statistics_of(parts["train"].features, floor)
    training = Windows(
        parts["train"], targets[0], frames, floor, task.multilabel, settings.augmentation,
        mean.astype(np.float32),
    )  # fmt: skip
    return training, Windows(parts["valid"], targets[1], frames, floor)


def cross_validate(settings: CrossValidateSettings) -> Scores:
    """Out-of-fold scores of a model for each fold."""
    _refuse_ranks("cv")
    return cv.cross_validate(settings, train)


def pseudo(settings: PseudoSettings) -> dict:
    """Rounds of training on what the model is sure of; what rounds.json says."""
    _refuse_ranks("pseudo")
    return pseudo_labels.pseudo(settings, train)


def _refuse_ranks(command: str) -> None:
    """Only `train` shares its work; the other ranks have left already."""
    if distributed.join().size > 1:
        raise ValueError(f"{command}: expected one process, found {distributed.join().size}")


# ---------------------------------------------------------------- evaluate, predict


def evaluate(settings: EvaluateSettings) -> Scores:
    """Scores of a model, or of the mean of several, on labelled clips, written and printed."""
    refuse_results(settings.output, settings.overwrite)
    ensemble = ensemble_of(settings)
    corpus = labelled.check(labelled.discover(settings.data, settings.group), settings.strict)
    run = ensemble.runs[0]
    name = evaluation_name(settings.data, settings.split)
    output = settings.output or (run if len(ensemble.runs) == 1 else run.parent) / name
    if settings.split is not None and len(ensemble.runs) > 1:
        raise ValueError(
            f"--split {settings.split}: {len(ensemble.runs)} runs have each their own split, "
            "expected one run"
        )
    clips = list(parts_of(corpus, saved_split(run), settings.split)[0])
    ensemble.task.targets(clips)  # refuses classes of other data before anything is written
    print(labelled.report(corpus, output / PROBLEMS), flush=True)
    clips, probabilities, problems = ensemble(clips)
    if settings.split is None and (known := len(trained_on(ensemble.runs, clips))):
        print(f"\n{known} of {len(clips)} clips have names that the models were trained on")
    tell_unreadable(problems, len(clips) + len(problems), settings.strict, output / PROBLEMS)
    scores = Scores(
        ensemble.task, [clip.id for clip in clips], ensemble.task.targets(clips), probabilities
    )
    output.mkdir(parents=True, exist_ok=True)
    scores.write(output)
    of = f", by {len(ensemble.runs)} models" if len(ensemble.runs) > 1 else ""
    print(f"\n{len(clips)} clips{of}:\n{scores.table()}\n\n{output}")
    return scores


def predict(settings: PredictSettings) -> Path:
    """Write the probabilities of every clip, or a competition's submission; the file written."""
    refuse_existing(settings.output, settings.overwrite)
    sample = None if settings.submission is None else read_sample(settings.submission)
    ensemble = ensemble_of(settings)
    problems: list[str] = []  # of tars
    clips = [clip for path in settings.audio for clip in recordings(path, problems)]
    ids = [clip.id for clip in clips]
    if sample is not None:
        clips, ids = _sampled(clips, sample[1])
    else:
        clips, ids = _distinct(clips)
    asked = dict(zip(ids, clips, strict=True))
    found, probabilities, more = ensemble([_named(clip, id) for id, clip in asked.items()])
    for problem in [*problems, *more]:
        print(f"left out: {problem}", file=sys.stderr)
    ids = [clip.id for clip in found]
    if sample is not None:
        classes = ensemble.task.classes
        write_submission(
            ids, classes, probabilities, settings.submission, settings.output, settings.top
        )
    else:
        write(settings.output, _table(ensemble, ids, probabilities))
    models = "1 model" if len(ensemble.runs) == 1 else f"{len(ensemble.runs)} models"
    print(f"{len(ids)} clips by {models} -> {settings.output}")
    return settings.output


def ensemble_of(settings: EvaluateSettings | PredictSettings) -> Ensemble:
    """The models that the settings name, as one."""
    return load(settings.checkpoint, settings.cache.expanduser(), settings.workers, settings.join)


def trained_on(runs: Sequence[Path], clips: Sequence[Clip]) -> list[Clip]:
    """The clips whose names the split of a run has among those to train on."""
    names: set[str] = set()
    for run in runs:
        if (run / "split.json").is_file():
            names |= set(json.loads((run / "split.json").read_text("utf-8"))["items"]["train"])
    return [clip for clip in clips if clip.id in names]


def _named(clip: Clip, id: str) -> Clip:
    return Clip(id, clip.audio, (), clip.start, clip.end)


def _distinct(clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips with names that tell them apart: those of several folders may be equal."""
    names = [clip.id for clip in clips]
    if len(set(names)) < len(names):
        names = [str(clip.audio) for clip in clips]
    unique = dict(zip(names, clips, strict=True))
    return list(unique.values()), list(unique)


def _sampled(clips: Sequence[Clip], wanted: Sequence[str]) -> tuple[list[Clip], list[str]]:
    """The clips that a sample asks for, by its ids: a path, a file's name, or that without suffix.

    ValueError naming an id that several clips fit; one that none fits is told when it is written.
    """
    known: dict[str, list[Clip]] = {}
    for clip in clips:
        path = PurePosixPath(clip.id)
        for name in {clip.id, path.name, path.stem}:
            known.setdefault(name, []).append(clip)
    chosen = {}
    for id in wanted:
        if len(known.get(id, ())) > 1:
            first, second = known[id][:2]
            raise ValueError(f"id {id!r} of the sample fits {first.id} and {second.id}")
        if id in known:
            chosen[id] = known[id][0]
    if not chosen:
        raise ValueError(
            f"none of the sample's {len(wanted)} ids, such as {wanted[0]!r}, is among "
            f"{len(clips)} clips, such as {clips[0].id}"
        )
    return list(chosen.values()), list(chosen)


def _table(ensemble: Ensemble, ids: Sequence[str], probabilities: np.ndarray) -> str:
    """CSV: file, label (several with | between), confidence of the first, and all classes."""
    classes, several = ensemble.task
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["file", "labels" if several else "label", "confidence", *classes])
    for id, row in zip(ids, probabilities, strict=True):
        first = int(row.argmax())
        named = [classes[place] for place in np.flatnonzero(row >= THRESHOLD)] if several else []
        label = "|".join(named) if several else classes[first]
        lines.writerow([id, label, *(f"{value:.6g}" for value in (row[first], *row))])
    return text.getvalue()


COMMANDS = {
    "train": Command(TrainSettings, train),
    "evaluate": Command(EvaluateSettings, evaluate),
    "predict": Command(PredictSettings, predict, "audio"),
    "cv": Command(CrossValidateSettings, cross_validate),
    "ensemble": Command(EnsembleSettings, fit_ensemble),
    "pseudo": Command(PseudoSettings, pseudo),
}
