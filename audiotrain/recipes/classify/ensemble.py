"""Ensembles of clip classifiers, and the command `ensemble` that fits how they are joined.

The scores of a fitted ensemble are of clips that neither the models nor the weights or the stacked
model that join them were fitted on.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast, get_args

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification_report import ClassificationReport
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.features import ClipFeatures, InputSettings
from audiotrain.recipes.classify.predictor import Classifier
from audiotrain.recipes.classify.settings import EnsembleSettings
from audiotrain.recipes.common import split
from audiotrain.recipes.common.checkpoints import ENSEMBLE, locate, resolve
from audiotrain.recipes.common.ensemble import EnsembleSpec, are_cross_validations, refuse_used
from audiotrain.train import crossval
from audiotrain.train.ensembling import Stacked, Vote, cross_entropy, fit_join, join_members
from audiotrain.utils.errors import UserError


class Ensemble:
    """Classifiers of the same classes, whose probabilities are joined as `spec` says; `tta` as
    `Classifier.probabilities`. ValueError as `load_classifiers`."""

    def __init__(
        self,
        spec: EnsembleSpec,
        cache: Path,
        workers: int | None = None,
        tta: Sequence[str] = (),
    ):
        self.spec, self.runs, self.tta = spec, spec.runs, tta
        self.classifiers = load_classifiers(spec.runs)
        self.task = self.classifiers[0].task
        self.extractors = {
            inputs: ClipFeatures(inputs, cache, workers)
            for inputs in dict.fromkeys(classifier.inputs for classifier in self.classifiers)
        }

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        cache: Path,
        workers: int | None = None,
        how: Vote | None = None,
        tta: Sequence[str] = (),
    ) -> "Ensemble":
        """The ensemble of the paths of `--checkpoint`, see `EnsembleSpec.of`."""
        spec = EnsembleSpec.of(paths, "classify", how, get_args(Vote))
        if saved := spec.extra.get("stacked"):
            place = f"{paths[0] / ENSEMBLE}: not an ensemble of the classify recipe"
            stacked = Stacked.of(saved, place)
            if stacked.members != len(spec.members):
                raise UserError(f"{place}: {len(spec.members)} members, {stacked.members} stacked")
        return cls(spec, cache, workers, tta)

    def __call__(
        self, clips: Sequence[Clip], strict: bool = False
    ) -> tuple[list[Clip], np.ndarray, list[str], list[str]]:
        """The clips that can be read, their probabilities (clips, classes), a line for each other
        clip, and one for each of which a part cannot be decoded. ValueError when none can be read,
        or when `strict` and one cannot be read whole."""
        features: dict[InputSettings, dict[str, np.ndarray]] = {}
        readable, problems, incomplete = list(clips), [], dict[str, None]()
        for inputs, extractor in self.extractors.items():
            extracted, lines, partly = split.readable(extractor.extract(readable), strict)
            problems += lines
            incomplete |= dict.fromkeys(partly)
            features[inputs] = {clip.id: array for clip, array in extracted}
            readable = [clip for clip, _ in extracted]
        if problems and strict:
            raise UserError(f"{len(problems)} of {len(clips)} clips can't be read: {problems[0]}")
        if not readable:
            raise UserError(split.none_readable(problems, "clips"))
        each = iter(
            classifier.probabilities(
                [features[classifier.inputs][clip.id] for clip in readable], self.tta
            )
            for classifier in self.classifiers
        )
        by_member = [[next(each) for _ in member] for member in self.spec.members]
        probabilities = join(self.spec, by_member, self.task.multilabel)
        return readable, probabilities, problems, list(incomplete)


def load_classifiers(runs: Sequence[Path]) -> list[Classifier]:
    """The models of runs of one task. ValueError, naming the run, for one of other classes."""
    classifiers = [Classifier.from_run(run) for run in runs]
    task = classifiers[0].task
    for run, classifier in zip(runs, classifiers, strict=True):
        if classifier.task != task:
            raise UserError(
                f"{run}: its {len(classifier.task.classes)} classes are not the "
                f"{len(task.classes)} of {runs[0]}; expected models of one task"
            )
    return classifiers


def join(
    spec: EnsembleSpec, probabilities: Sequence[Sequence[np.ndarray]], multilabel: bool
) -> np.ndarray:
    """(clips, classes) from the probabilities of each run of each member."""
    saved = spec.extra.get("stacked")
    stacked = Stacked.of(saved) if saved else None
    how = cast(Vote, spec.join)
    return join_members(probabilities, how, spec.weights, stacked, multilabel)


def ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, with its scores where all members are cross-validations."""
    settings = replace(settings, checkpoint=locate(settings.checkpoint, "classify"))
    output, paths = settings.output, settings.checkpoint
    refuse_used(output)
    members = tuple(resolve(paths, "classify"))
    task = load_classifiers([run for member in members for run in member])[0].task
    if are_cross_validations(paths):
        spec = replace(_fit_and_score(settings, task), members=members)
    elif settings.join in ("blend", "stack"):
        other = next(path for path in paths if not are_cross_validations([path]))
        raise UserError(
            f"{other}: --join {settings.join} is fitted on out-of-fold predictions, expected "
            "cross-validations; or --join mean, geometric or majority"
        )
    else:
        spec = EnsembleSpec(members, settings.weights, settings.join)
    spec.write(output)
    weights = ", ".join(f"{weight:.3f}" for weight in spec.weights)
    print(f"\n{output}: {len(paths)} members{f', weights {weights}' if weights else ''}")
    return output


def _fit_and_score(settings: EnsembleSettings, task: Task) -> EnsembleSpec:
    """How cross-validations are joined. Prints and writes the scores of each fold's clips by what
    was fitted on the other folds."""
    ids, targets, oof, folds = out_of_fold(settings.checkpoint)
    spec = _fit(settings, oof, targets, task)
    joined = np.empty_like(oof[0])
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(ids)), rows)
        without = _fit(settings, [member[rest] for member in oof], targets[rest], task)
        joined[rows] = join(without, [[member[rows]] for member in oof], task.multilabel)
    equal = join(EnsembleSpec(spec.members), [[member] for member in oof], task.multilabel)
    is_fitted = settings.join in ("blend", "stack")
    name = settings.join + (", fitted without the fold that it is scored on" if is_fitted else "")
    print(f"{'score':>8}{'cross entropy':>15}   {len(ids)} clips out of fold")
    report = partial(ClassificationReport, task.classes, ids, targets, multilabel=task.multilabel)
    names = [*map(str, settings.checkpoint), "equal weights", name]
    for label, probabilities in zip(names, [*oof, equal, joined], strict=True):
        score = report(scores=probabilities).score
        entropy = cross_entropy(probabilities, task.answers(targets))
        print(f"{score:8.3f}{entropy:15.4f}   {label}")
    report(scores=joined).write(settings.output)
    return spec


def _fit(
    settings: EnsembleSettings, oof: Sequence[np.ndarray], targets: np.ndarray, task: Task
) -> EnsembleSpec:
    """How the members are joined, from their probabilities (clips, classes) for these clips."""
    members = tuple((path,) for path in settings.checkpoint)
    how, weights, stacked = fit_join(settings.join, oof, task.answers(targets))
    extra = {"stacked": stacked.as_dict()} if stacked else {}
    return EnsembleSpec(members, weights or settings.weights, how, extra)


def out_of_fold(
    paths: Sequence[Path],
) -> tuple[list[str], np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """(ids, targets (clips, classes), probabilities of each cross-validation, rows of each fold of
    the first). ValueError, one line, for those of other clips, or of an earlier version."""
    stores = [crossval.read_out_of_fold(path) for path in paths]
    ids, probabilities = stores[0][0], []
    for path, (other_ids, arrays) in zip(paths, stores, strict=True):
        if "targets" not in arrays:
            raise UserError(f"{path}: no targets with its predictions, expected those of cv")
        if different := sorted(set(ids) ^ set(other_ids)):
            raise UserError(
                f"{path}: {len(other_ids)} clips, {len(different)} of which differ from those of "
                f"{paths[0]}, such as {different[0]}; expected cross-validations of the same"
            )
        row = {name: number for number, name in enumerate(other_ids)}
        probabilities.append(arrays["probabilities"][[row[name] for name in ids]])
    sizes = [len(fold) for fold in crossval.read_folds(paths[0])]
    folds = np.split(np.arange(len(ids)), np.cumsum(sizes)[:-1])
    return ids, stores[0][1]["targets"], probabilities, folds
