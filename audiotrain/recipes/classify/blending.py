"""The command `ensemble`: cross-validations joined to one model, by what they said out of fold.

The folder that is written is a place for `--checkpoint`; its scores are of clips that neither the
models nor the weights that join them were fitted on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.recipes.classify import ensemble as classify_ensemble
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.ensemble import FOLDS, Join, members_of, runs_of
from audiotrain.recipes.classify.scoring import Scores
from audiotrain.recipes.classify.settings import EnsembleSettings
from audiotrain.train import crossval, ensembling

LOWEST = 1e-6  # a probability in a cross entropy


def ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, and its scores where all places are cross-validations."""
    output, places = settings.output, settings.checkpoint
    for name in (classify_ensemble.ENSEMBLE, "checkpoints", FOLDS):
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
            found[rows] = own([[one[rows]] for one in said], task.several)
        equal = Join()([[one] for one in said], task.several)
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
    classify_ensemble.write(output, groups, join)
    weights = ", ".join(f"{weight:.3f}" for weight in join.weights)
    print(f"\n{output}: {len(places)} members{f', weights {weights}' if weights else ''}")
    return output


def _fit(
    settings: EnsembleSettings, said: Sequence[np.ndarray], targets: np.ndarray, task: Task
) -> Join:
    """How the places are joined, from their probabilities (clips, classes) for these clips."""
    answers = targets if task.several else targets.argmax(axis=1)
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
    if task.several:
        return float((losses - (1 - targets) * np.log(1 - likely)).mean())
    return float(losses.sum(axis=1).mean())
