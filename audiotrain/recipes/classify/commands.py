"""Train and use a classifier of audio clips, of one class each or of several.

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

import time
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain import config
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.summary import PROBLEMS
from audiotrain.recipes.classify import blending, cv, inference, pseudo_labels
from audiotrain.recipes.classify.clips import Parts, find, read_parts, task_of
from audiotrain.recipes.classify.dataset import Listener, Task, Vectors, Windows
from audiotrain.recipes.classify.predictor import Classifier, describe
from audiotrain.recipes.classify.scoring import Scores
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
from audiotrain.utils.files import write_json

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
        listener = Listener(settings.hearing, settings.cache.expanduser(), settings.workers)
        parts = read_parts(settings, corpus, listener, run)
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
    heard = parts["train"].sounds
    embedded = settings.hearing.embeddings is not None
    own = {"head": config.to_plain(settings.head), "width": len(heard[0])} if embedded else {}
    own |= {"model": config.to_plain(settings.model)}
    described = describe(task, settings.hearing, own)
    mx.random.seed(settings.seed)
    model = make_model(described)
    if embedded:
        vectors = np.stack(heard).astype(np.float64)
        model.take_statistics(vectors.mean(axis=0), vectors.std(axis=0))
    else:
        model.take_statistics(*statistics_of(heard, settings.hearing.floor))
    return ClassifyTraining(model, task.several, settings.optimization), described


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
    mean, _ = statistics_of(parts["train"].sounds, floor)
    training = Windows(
        parts["train"], targets[0], frames, floor, task.several, settings.augmentation,
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


COMMANDS = {
    "train": Command(TrainSettings, train),
    "evaluate": Command(EvaluateSettings, inference.evaluate),
    "predict": Command(PredictSettings, inference.predict, "audio"),
    "cv": Command(CrossValidateSettings, cross_validate),
    "ensemble": Command(EnsembleSettings, blending.ensemble),
    "pseudo": Command(PseudoSettings, pseudo),
}
