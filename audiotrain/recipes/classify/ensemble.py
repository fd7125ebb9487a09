"""Several clip classifiers as one: their probabilities joined by a vote, or by a stacked model.

A place that `--checkpoint` names is a run, a cross-validation (all its folds), the best of rounds
of pseudo-labels, or an ensemble that the command `ensemble` wrote.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from audiotrain.recipes.classify.dataset import Heard, HearingSettings, Listener
from audiotrain.recipes.classify.predictor import Classifier
from audiotrain.train import crossval
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

    def __call__(self, said: Sequence[Sequence[np.ndarray]], several: bool) -> np.ndarray:
        """(clips, classes) of the probabilities of each run of each place."""
        if self.stacked is not None:
            return self.stacked([np.mean(own, axis=0) for own in said])
        weights = member_weights(self.weights or None, len(said))
        shares = [w / len(own) for w, own in zip(weights, said, strict=True) for _ in own]
        return vote([one for own in said for one in own], shares, self.how, several)


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
        known: dict[HearingSettings, Listener] = {}
        self.listeners = [
            known.setdefault(member.hearing, Listener(member.hearing, cache, workers))
            for member in self.members
        ]

    def __call__(self, clips: Sequence) -> tuple[list, np.ndarray, list[str]]:
        """The clips that can be read, their probabilities (clips, classes), and what was wrong."""
        heard, problems = {}, []
        for listener in dict.fromkeys(self.listeners):
            heard[listener] = listener.listen(clips)
            clips, problems = heard[listener].clips, problems + heard[listener].problems
        found = iter(
            member.probabilities(_only(heard[listener], clips))
            for member, listener in zip(self.members, self.listeners, strict=True)
        )
        said = [[next(found) for _ in group] for group in self.groups]
        return list(clips), self.join(said, self.task.several), problems


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


def _only(heard: Heard, clips: Sequence) -> Heard:
    """What was heard of some of the clips."""
    sounds = dict(zip((clip.id for clip in heard.clips), heard.sounds, strict=True))
    return Heard(list(clips), [sounds[clip.id] for clip in clips], [])


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
