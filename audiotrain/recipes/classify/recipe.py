"""Training of a clip classifier as a recipe: its clips, their features, its module and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain import config
from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.summary import NO_LOG, ProblemLog
from audiotrain.evaluation.classification_report import ClassificationReport
from audiotrain.recipes.classify import baseline
from audiotrain.recipes.classify.dataset import Task, Windows
from audiotrain.recipes.classify.features import (
    AUTO,
    ClipFeatures,
    ExtractedClip,
    statistics_of,
)
from audiotrain.recipes.classify.predictor import Classifier, describe
from audiotrain.recipes.classify.settings import STEPS, STEPS_WITHOUT_DATA, TrainSettings
from audiotrain.recipes.classify.training import ClassifyTraining, make_model
from audiotrain.recipes.common.recipe import Experiment, Recipe
from audiotrain.recipes.common.split import Incomplete
from audiotrain.train.crossval import read_folds
from audiotrain.train.data.datasets import ArrayDataset
from audiotrain.train.data.loader import Dataset
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write_json
from audiotrain.utils.text import count

MONITOR = "val_ranking"  # finer than the accuracy where few clips are there to validate on


class ClassifyRecipe(Recipe[TrainSettings]):
    """A run on the clips of a corpus, by default those that `find` gives."""

    name = "classify"

    def __init__(self, settings: TrainSettings, corpus: Corpus[Clip] | None = None):
        super().__init__(settings)
        self.corpus = corpus
        self.baseline: baseline.Baseline | None = None
        self.features = ClipFeatures(settings.input, settings.cache.expanduser())

    def discover(self, log: ProblemLog) -> Corpus[Clip]:
        """The clips, split by `test_fold` where the settings name one."""
        corpus = self.corpus or find(self.settings, log)
        self.task = task_of(self.settings, corpus)
        return with_fold(self.settings, corpus)

    def load(self, items: Sequence[tuple[str, Clip]]) -> list[ExtractedClip | str | Incomplete]:
        """The clips with their features, or why they can't be read."""
        return self.features.extract([clip for _, clip in items], distributed.join())

    def read(self, run: Path) -> dict[str, list[ExtractedClip]]:
        """The clips of each part with the features that are trained on: where these are "auto" the
        settings get the decision, which the run keeps."""
        parts, inputs = super().read(run), self.settings.input
        if inputs.embeddings not in (None, AUTO):
            return parts
        ranks, (train, valid) = distributed.join(), (parts["train"], parts["valid"])
        measured = ranks.broadcast_from_rank0(
            lambda: baseline.measure(train, valid, self.task, inputs.floor)
        )
        self.baseline = None if measured is None else baseline.Baseline(*measured)
        if inputs.embeddings is None:
            return parts
        decided = ranks.broadcast_from_rank0(
            lambda: baseline.decide(
                self.settings, run, len(train), self.task.multilabel, self.baseline
            )
        )
        embeddings, why = decided
        print(f"input: {why}")
        self.settings = replace(self.settings, input=replace(inputs, embeddings=embeddings))
        if embeddings is None:
            return parts
        return {
            name: [ExtractedClip(clip, statistics_of(mel, inputs.floor)) for clip, mel in part]
            for name, part in parts.items()
        }

    def experiment(self, parts: Mapping[str, list[ExtractedClip]], run: Path) -> Experiment:
        """An untrained module with the statistics of the training clips, and its samples."""
        settings, inputs, task = self.settings, self.settings.input, self.task
        train, valid = parts["train"], parts["valid"]
        targets = [task.targets([clip for clip, _ in part]) for part in (train, valid)]
        model = {"model": config.to_plain(settings.model)}
        samples: list[Dataset]
        if inputs.embeddings is None:
            mean, deviation = mel_statistics([mel for _, mel in train], inputs.floor)
            window = inputs.features.frames, inputs.floor
            change = settings.augmentation, mean.astype(np.float32)
            samples = [
                Windows(train, targets[0], *window, task.multilabel, *change),
                Windows(valid, targets[1], *window),
            ]
        else:
            vectors = [np.stack([vector for _, vector in part]) for part in (train, valid)]
            trained_on = vectors[0].astype(np.float64)
            mean, deviation = trained_on.mean(axis=0), trained_on.std(axis=0)
            model |= {"head": config.to_plain(settings.head), "width": len(mean)}
            pairs = zip(vectors, targets, strict=True)
            samples = [ArrayDataset({"input": x, "target": y}) for x, y in pairs]
        description = describe(task, inputs, model)
        mx.random.seed(settings.seed)
        untrained = make_model(description)
        untrained.take_statistics(mean, deviation)
        steps = STEPS_WITHOUT_DATA if settings.data is None else STEPS
        return Experiment(
            module=ClassifyTraining(untrained, task.multilabel, settings.optimization),
            train=samples[0],
            valid=samples[1],
            steps=steps if settings.epochs is None else None,
            monitor=MONITOR,
            mode="max",
            description={"classifier": description},
        )

    def score(self, parts: Mapping[str, list[ExtractedClip]], run: Path) -> ClassificationReport:
        """Scores of the best model on the test clips; metrics.json has those on the validation
        clips, too."""
        classifier = Classifier.from_run(run)
        valid, test = (self._report(classifier, parts[name]) for name in ("valid", "test"))
        test.write(run)
        metrics = test.as_dict() | {"valid": valid.as_dict()}
        if self.baseline is not None:
            metrics["baseline"] = self.baseline._asdict()
        write_json(run / "metrics.json", metrics)
        unseen = count(len(test.ids), "unseen clip")
        print(f"\n{unseen} of {len(test.classes)} classes:")
        print(test.table())
        if self.baseline is not None:
            print(baseline.compared(self.settings.input.embeddings, valid.score, self.baseline))
        return test

    def _report(self, model: Classifier, part: Sequence[ExtractedClip]) -> ClassificationReport:
        probabilities = model.probabilities([array for _, array in part])
        return model.task.report([clip for clip, _ in part], probabilities)


def find(settings: TrainSettings, log: ProblemLog = NO_LOG) -> Corpus[Clip]:
    """The clips of the data, or synthesised ones, after printing what they are; `log` gets every
    problem."""
    if settings.data is None:
        corpus = labelled.synthesised(settings.synthesised, settings.seed)
    else:
        corpus = labelled.discover(settings.data, settings.group)
        corpus = labelled.check(corpus, settings.strict)
    print(labelled.report(corpus, log), flush=True)
    return corpus


def task_of(settings: TrainSettings, corpus: Corpus[Clip]) -> Task:
    """The classes, and whether clips are multilabel. ValueError for fewer than two classes, and for
    clips of two or more where the settings say that they have one."""
    classes = labelled.classes_of(corpus.items)
    if len(classes) < 2:
        raise UserError(
            f"{corpus.folder}: all {len(corpus.items)} clips are {', '.join(classes)}, expected "
            "two classes or more"
        )
    multilabel = [clip for clip in corpus.items if len(clip.labels) > 1]
    if multilabel and settings.task == "single":
        raise UserError(
            f"task=single, but found several classes in {count(len(multilabel), 'clip')}, such as "
            f"{multilabel[0].id}: {'|'.join(multilabel[0].labels)}"
        )
    return Task(classes, settings.task == "multi" or bool(multilabel))


def with_fold(settings: TrainSettings, corpus: Corpus[Clip]) -> Corpus[Clip]:
    """The corpus split by `test_fold`: that fold is the test part, all others are for training."""
    if settings.test_fold is None:
        return corpus
    if settings.folds_of is None:
        folds = {clip.id: clip.columns.get(labelled.FOLD, "") for clip in corpus.items}
    else:
        numbered = enumerate(read_folds(settings.folds_of))
        folds = {id: str(number) for number, ids in numbered for id in ids}
    known = sorted(set(folds.values()) - {""})
    if settings.test_fold not in known:
        folds_known = f"folds of {corpus.folder}: {', '.join(known) or 'none'}"
        raise UserError(f"test_fold={settings.test_fold}, expected one of the {folds_known}")
    clips = [
        replace(clip, split="test" if folds[clip.id] == settings.test_fold else "train")
        for clip in corpus.items
        if folds.get(clip.id)
    ]
    return replace(corpus, items=clips)


def mel_statistics(mels: Sequence[np.ndarray], floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (mels,) over all frames of all clips, in dB, and one deviation for all bins, as (mels,),
    too."""
    count = sum(map(len, mels))
    raised = [np.maximum(np.asarray(mel, np.float64), floor) for mel in mels]
    mean = sum(mel.sum(axis=0) for mel in raised) / count
    variance = sum(np.square(mel - mean.mean()).sum() for mel in raised) / count / len(mean)
    return mean, np.full(len(mean), max(variance**0.5, 1e-3))
