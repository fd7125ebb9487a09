"""Several clip classifiers as one, and the command `ensemble` that fits how they are joined.

`--checkpoint` names a run, a cross-validation (all its folds), the best of rounds of
pseudo-labels, or an ensemble that the command `ensemble` wrote.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.features import ClipFeatures, ExtractedClips, InputSettings
from audiotrain.recipes.classify.predictor import Classifier
from audiotrain.recipes.classify.scoring import Scores
from audiotrain.recipes.classify.settings import EnsembleSettings
from audiotrain.train import crossval, ensembling
from audiotrain.train.ensembling import Stacked, Vote, member_weights, vote
from audiotrain.utils.files import write_json

FOLDS, ROUNDS, ENSEMBLE = "folds.json", "rounds.json", "ensemble.json"  # what folders are known by


@dataclass(frozen=True)
class Join:
    """How what several places say becomes one: a vote of their runs, where the runs of one place
    share its weight (nothing: equal ones), or a model of what the places say on average."""

    how: Vote = "mean"
    weights: tuple[float, ...] = ()
    stacked: Stacked | None = None

    def __call__(
        self, probabilities: Sequence[Sequence[np.ndarray]], multilabel: bool
    ) -> np.ndarray:
        """(clips, classes) of the probabilities of each run of each member."""
        if self.stacked is not None:
            return self.stacked([np.mean(runs, axis=0) for runs in probabilities])
        weights = member_weights(self.weights or None, len(probabilities))
        shares = [
            w / len(runs) for w, runs in zip(weights, probabilities, strict=True) for _ in runs
        ]
        return vote([run for runs in probabilities for run in runs], shares, self.how, multilabel)


class Ensemble:
    """Classifiers of the same classes, whose probabilities are joined; `groups` are the runs of
    each place. ValueError as `members_of`."""

    def __init__(
        self, groups: Sequence[Sequence[Path]], cache: Path, workers: int = 2, join: Join = Join()
    ):
        self.groups, self.join = [list(group) for group in groups], join
        self.runs = [run for group in self.groups for run in group]
        self.members = members_of(self.runs)
        self.task = self.members[0].task
        self.extractors = {
            inputs: ClipFeatures(inputs, cache, workers)
            for inputs in dict.fromkeys(member.inputs for member in self.members)
        }

    def __call__(self, clips: Sequence) -> tuple[list, np.ndarray, list[str]]:
        """The clips that can be read, their probabilities (clips, classes), and what was wrong."""
        extracted: dict[InputSettings, ExtractedClips] = {}
        problems: list[str] = []
        for inputs, features in self.extractors.items():
            extracted[inputs] = features.extract(clips)
            clips, problems = extracted[inputs].clips, problems + extracted[inputs].problems
        probabilities = iter(
            member.probabilities(extracted[member.inputs].select(clips)) for member in self.members
        )
        grouped = [[next(probabilities) for _ in group] for group in self.groups]
        return list(clips), self.join(grouped, self.task.multilabel), problems


def members_of(runs: Sequence[Path]) -> list[Classifier]:
    """The models of runs of one task. ValueError, naming the run, for one of other classes."""
    members = [Classifier.from_run(run) for run in runs]
    task = members[0].task
    for run, member in zip(runs, members, strict=True):
        if member.task != task:
            raise ValueError(
                f"{run}: its {len(member.task.classes)} classes are not the {len(task.classes)} of "
                f"{runs[0]}; expected models of one task"
            )
    return members


# ---- places


def load(
    places: Sequence[Path], cache: Path, workers: int = 2, how: Vote | None = None
) -> Ensemble:
    """What all places say together, each with the same weight, or the ensemble that one is.
    ValueError for an ensemble that is to be joined in another way than it says."""
    if len(places) == 1 and (places[0] / ENSEMBLE).is_file():
        if how is not None:
            raise ValueError(
                f"--join {how}: {places[0]} is an ensemble, which says how; expected none"
            )
        groups, join = read(places[0])
        return Ensemble(groups, cache, workers, join)
    return Ensemble([runs_of(place) for place in places], cache, workers, Join(how or "mean"))


def runs_of(folder: Path) -> list[Path]:
    """Run folders: a run itself, all folds of a cross-validation, the best round of pseudo-labels,
    the newest of these in a folder. ValueError when there is none, or a fold is not done."""
    if (folder / "checkpoints").is_dir():
        return [folder]
    if (folder / FOLDS).is_file():
        return _folds_of(folder)
    if (folder / ROUNDS).is_file():
        return [folder / json.loads((folder / ROUNDS).read_text("utf-8"))["best"]]
    if (folder / ENSEMBLE).is_file():
        raise ValueError(f"--checkpoint {folder}: an ensemble, expected it alone or not at all")
    kinds = ("*/checkpoints", f"*/{FOLDS}", f"*/{ROUNDS}")
    found = [path for kind in kinds for path in folder.glob(kind)]
    if not found:
        raise ValueError(
            f"--checkpoint {folder}: no trained run there; "
            "`python -m audiotrain.recipes.classify` trains one"
        )
    return runs_of(max(found, key=lambda path: path.stat().st_mtime).parent)


def _folds_of(folder: Path) -> list[Path]:
    folds = range(len(crossval.read_folds(folder)))
    for k in folds:
        if not crossval.fold_file(folder, k).is_file():
            raise ValueError(
                f"{folder}: fold {k} of {len(folds)} is not done: cv --output {folder} --resume, "
                "or name the runs inside it"
            )
    return [folder / f"fold-{k}" for k in folds]


def write(folder: Path, groups: Sequence[Sequence[Path]], join: Join) -> None:
    """Save which runs an ensemble joins, and how; `read` reads it again."""
    members = [[str(run.resolve()) for run in group] for group in groups]
    stacked = None if join.stacked is None else join.stacked.as_dict()
    content = {"members": members, "join": join.how, "weights": list(join.weights)}
    write_json(folder / ENSEMBLE, content | {"stacked": stacked})


def read(folder: Path) -> tuple[list[list[Path]], Join]:
    """What `write` saved. ValueError, one line, when it is damaged."""
    file = folder / ENSEMBLE
    try:
        content = json.loads(file.read_text("utf-8"))
        groups = [[Path(name) for name in group] for group in content["members"]]
        weights = tuple(float(weight) for weight in content["weights"])
        stacked = content["stacked"] and Stacked.of(content["stacked"])
        join = Join(content["join"], weights, stacked)
        if join.how not in get_args(Vote) or not all(groups) or not groups:
            raise ValueError(f"{len(groups)} members, join {join.how}")
        member_weights(weights or None, len(groups))
        if stacked is not None and stacked.members != len(groups):
            raise ValueError(f"{len(groups)} members, {stacked.members} of them stacked")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not an ensemble of the classify recipe ({error})") from None
    return groups, join


LOWEST = 1e-6  # a probability in a cross entropy


def fit_ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, and its scores where all places are cross-validations."""
    output, places = settings.output, settings.checkpoint
    for name in (ENSEMBLE, "checkpoints", FOLDS):
        if (output / name).exists():
            raise ValueError(f"{output}: holds {name} already; --output names another folder")
    groups = [runs_of(place) for place in places]
    task = members_of([run for group in groups for run in group])[0].task
    fitted = settings.join in ("blend", "stack")
    if not all((place / FOLDS).is_file() for place in places):
        other = next(place for place in places if not (place / FOLDS).is_file())
        if fitted:
            raise ValueError(
                f"{other}: --join {settings.join} is fitted on out-of-fold predictions, expected "
                "cross-validations; or --join mean, geometric or majority"
            )
        join = Join(settings.join, settings.weights)
    else:
        ids, targets, said, folds = out_of_fold(places)
        join = _fit(settings, said, targets, task)
        found = np.empty_like(said[0])
        for rows in folds:  # scored by what was fitted on the others
            rest = np.setdiff1d(np.arange(len(ids)), rows)
            own = _fit(settings, [one[rest] for one in said], targets[rest], task)
            found[rows] = own([[one[rows]] for one in said], task.multilabel)
        equal = Join()([[one] for one in said], task.multilabel)
        joined = settings.join + (
            ", fitted without the fold that it is scored on" if fitted else ""
        )
        print(f"{'score':>8}{'cross entropy':>15}   {len(ids)} clips out of fold")
        for name, probabilities in (
            *zip(places, said, strict=True), ("equal weights", equal), (joined, found),
        ):  # fmt: skip
            score = Scores(task, ids, targets, probabilities).score
            print(f"{score:8.3f}{cross_entropy(probabilities, targets, task):15.4f}   {name}")
        Scores(task, ids, targets, found).write(output)
    write(output, groups, join)
    weights = ", ".join(f"{weight:.3f}" for weight in join.weights)
    print(f"\n{output}: {len(places)} members{f', weights {weights}' if weights else ''}")
    return output


def _fit(
    settings: EnsembleSettings, said: Sequence[np.ndarray], targets: np.ndarray, task: Task
) -> Join:
    """How the places are joined, from their probabilities (clips, classes) for these clips."""
    answers = targets if task.multilabel else targets.argmax(axis=1)
    if settings.join == "blend":
        weights = ensembling.blend_weights(said, answers)
        return Join("mean", tuple(float(weight) for weight in weights))
    if settings.join == "stack":
        return Join(stacked=ensembling.stack(said, answers))
    return Join(settings.join, settings.weights)


def out_of_fold(
    places: Sequence[Path],
) -> tuple[list[str], np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """(ids, targets (clips, classes), probabilities of each place, rows of each fold of the first).

    ValueError, one line, for cross-validations of other clips, or of an earlier version.
    """
    found = [crossval.read_out_of_fold(place) for place in places]
    for place, (_, arrays) in zip(places, found, strict=True):
        if "targets" not in arrays:
            raise ValueError(f"{place}: keeps no targets with its predictions, as cv does now")
    ids, first = found[0]
    said = []
    for place, (own, arrays) in zip(places, found, strict=True):
        row = {name: number for number, name in enumerate(own)}
        if other := sorted(set(ids) ^ set(own)):
            raise ValueError(
                f"{place}: {len(own)} clips, {len(other)} of which differ from those of "
                f"{places[0]}, such as {other[0]}; expected cross-validations of the same"
            )
        said.append(arrays["probabilities"][[row[name] for name in ids]])
    sizes = [len(fold) for fold in crossval.read_folds(places[0])]
    folds = np.split(np.arange(len(ids)), np.cumsum(sizes)[:-1])
    return ids, first["targets"], said, folds


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """Mean over clips, and over classes where a clip may have several."""
    likely = probabilities.clip(LOWEST, 1 - LOWEST)
    losses = -(targets * np.log(likely))
    if task.multilabel:
        return float((losses - (1 - targets) * np.log(1 - likely)).mean())
    return float(losses.sum(axis=1).mean())
