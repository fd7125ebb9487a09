"""Pseudo-labels: unlabelled clips that a model is sure of become training clips of the next one.

The labelled clips keep their split; rounds are judged by its validation clips alone, and the test
clips are heard for the scores of each round only.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import scipy.optimize

from audiotrain.datasets import classes
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.splits import SPLITS
from audiotrain.recipes.classify.clips import find, task_of
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.ensemble import ROUNDS, Ensemble
from audiotrain.recipes.classify.settings import PseudoSettings, TrainSettings
from audiotrain.recipes.common.run import open_run, save_settings
from audiotrain.utils.files import write, write_json

SHARPNESS = (0.5, 3.0)  # smallest, largest
Named = list[tuple[Clip, tuple[str, ...], float]]  # clips, their believed classes, how sure


def pseudo(settings: PseudoSettings, train: Callable) -> dict:
    """Train on the labelled clips (round-0), then up to `rounds` times on what is believed of the
    unlabelled ones besides; what rounds.json says, with the `best` round by its validation score.

    labels-N.csv is the table that round N trains on, for `train --data`, too. `train` is the
    recipe's. ValueError for no unlabelled clips, and a threshold of no class.
    """
    if settings.data is None:
        raise ValueError("--data: required, the labelled clips")
    strangers = recordings(settings.unlabelled, [])
    corpus = find(settings)
    task = task_of(settings, corpus)
    thresholds = thresholds_of(settings, task)
    strangers = free(strangers, corpus)
    folder = open_run(settings, "classify-pseudo")
    save_settings(settings, folder)
    print(f"\n{len(strangers)} unlabelled clips in {settings.unlabelled}", flush=True)
    rounds: list[dict] = []
    believed: Named = []
    for number in range(settings.rounds + 1):
        run, table = folder / f"round-{number}", folder / f"labels-{number}.csv"
        if number:
            before = believed
            valid = part_of(corpus, folder / "round-0" / "split.json", "valid")
            run_before = folder / rounds[-1]["run"]
            believed = believe(settings, run_before, strangers, valid, thresholds)
            if not believed or _labels(believed) == _labels(before):
                why = "nothing new" if believed else f"nothing at {settings.threshold:g} or more"
                print(f"\nno round {number}: {why} to learn from")
                break
            tell(believed, len(strangers))
            write_table(table, corpus, folder / "round-0" / "split.json", believed, task)
        else:
            table = settings.data
        print(f"\nround {number}", flush=True)
        rounds.append(_round(settings, train, run, table, task, len(believed)))
        best = max(rounds, key=lambda row: row["valid"])  # of equal ones the first
        write_json(folder / ROUNDS, {"best": best["run"], "rounds": rounds})
        if rounds[-1]["valid"] < best["valid"]:
            print(
                f"\nthe validation score fell: {rounds[-1]['valid']:.3f} after {best['valid']:.3f}"
            )
            break
    told = "\n".join(f"{row['run']:10}{row['believed']:6} believed   valid {row['valid']:.3f}   "
                     f"test {row['test']:.3f}" for row in rounds)  # fmt: skip
    print(f"\n{told}\nbest: {folder / best['run']}")
    return {"best": best["run"], "rounds": rounds}


def _round(
    settings: PseudoSettings, train: Callable, run: Path, table: Path, task: Task, believed: int
) -> dict:
    """Train one round, or read what it gave before; its scores."""
    if not (run / "metrics.json").exists():
        chosen = {field.name: getattr(settings, field.name) for field in fields(TrainSettings)}
        chosen |= {"output": run, "data": table, "task": "multi" if task.multilabel else "single"}
        if believed:
            chosen |= {"test_fold": None, "folds_of": None, "group": None}  # the table's own split
        train(TrainSettings(**chosen | {"resume": run.exists()}), whole=run.parent)
    found = json.loads((run / "metrics.json").read_text("utf-8"))
    name = "lwlrap" if task.multilabel else "accuracy"
    return {
        "run": run.name,
        "believed": believed,
        "valid": found["valid"][name],
        "test": found[name],
    }


def free(strangers: Sequence[Clip], corpus: Corpus[Clip]) -> list[Clip]:
    """Unlabelled files that are not, and do not equal, a labelled one. ValueError for none."""
    taken = {Path(clip.audio).resolve() for clip in corpus.items}
    others = [
        replace(clip, id=str(Path(clip.audio).resolve()), group="")
        for clip in strangers
        if isinstance(clip.audio, Path) and clip.audio.resolve() not in taken
    ]
    others = [replace(clip, group=f"unlabelled {clip.id}") for clip in others]
    if others:
        groups = {clip.group for clip in corpus.items}
        both = classes.check(Corpus(corpus.folder, [*corpus.items, *others], [])).items
        ids = {clip.id for clip in others}
        others = [clip for clip in both if clip.id in ids and clip.group not in groups]
    if not others:
        raise ValueError(
            f"--unlabelled: all {len(strangers)} recordings are among the labelled ones or can't "
            "be read, expected others"
        )
    return others


def thresholds_of(settings: PseudoSettings, task: Task) -> np.ndarray:
    """Least probability (classes,) of each class that is believed. ValueError for CLASS=SHARE that
    names no class, or no share."""
    found = np.full(len(task.classes), settings.threshold)
    for text in settings.thresholds:
        name, _, share = text.rpartition("=")
        if name not in task.classes:
            raise ValueError(
                f"--thresholds {text}: found {name!r}, expected one of {', '.join(task.classes)}"
            )
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise ValueError(f"--thresholds {text}: expected a share above 0, at most 1")
        found[task.classes.index(name)] = value
    return found


def part_of(corpus: Corpus[Clip], split: Path, name: str) -> list[Clip]:
    """The clips that a saved split has in one part."""
    chosen = set(json.loads(split.read_text("utf-8"))["items"][name])
    return [clip for clip in corpus.items if clip.id in chosen]


def believe(
    settings: PseudoSettings,
    run: Path,
    clips: Sequence[Clip],
    valid: Sequence[Clip],
    least: np.ndarray,
) -> Named:
    """The clips of which the run's model is sure: of the likeliest class, or, where a clip may have
    several, of one or more. How sure it may be of others the labelled `valid` clips say."""
    ensemble = Ensemble([[run]], settings.cache.expanduser(), settings.workers)
    task, (known, said, _) = ensemble.task, ensemble(valid)
    factor = sharpness(said, task.targets(known), task.multilabel)
    heard, probabilities, _ = ensemble(clips)
    probabilities = sharpened(probabilities, factor, task.multilabel)
    named = []
    for clip, row in zip(heard, probabilities, strict=True):
        sure = row >= least
        if not task.multilabel:
            sure &= np.arange(len(row)) == row.argmax()
        if sure.any():
            names = tuple(task.classes[place] for place in np.flatnonzero(sure))
            named.append((clip, names, float(row[sure].min())))
    return named


def sharpness(probabilities: np.ndarray, targets: np.ndarray, several: bool) -> float:
    """By what logits are multiplied so that probabilities (clips, classes) are as often right as
    they say (Guo et al. 2017): label smoothing and mixed clips make a model less sure than it may
    be. Between a half and three: few clips say little.
    """

    def surprise(factor: float) -> float:
        found = sharpened(probabilities, factor, several).clip(1e-9, 1)
        losses = -(targets * np.log(found))
        if several:
            losses = losses - (1 - targets) * np.log((1 - found).clip(1e-9, 1))
        return float(losses.sum(axis=1).mean())

    return float(scipy.optimize.minimize_scalar(surprise, bounds=SHARPNESS, method="bounded").x)


def sharpened(probabilities: np.ndarray, factor: float, several: bool) -> np.ndarray:
    """Probabilities (clips, classes) with their logits multiplied.

    >>> sharpened(np.array([[0.25, 0.75]]), 2.0, several=False).round(3).tolist()
    [[0.1, 0.9]]
    """
    powers = probabilities**factor
    others = (1 - probabilities) ** factor if several else 0
    return powers / (powers + others if several else powers.sum(axis=1, keepdims=True))


def _labels(believed: Named) -> dict[str, tuple[str, ...]]:
    return {clip.id: names for clip, names, _ in believed}


def tell(believed: Named, total: int) -> None:
    """Say what is believed, by class."""
    counts = Counter(name for _, names, _ in believed for name in names).most_common()
    named = ", ".join(f"{name} {number}" for name, number in counts)
    print(f"\n{len(believed)} of {total} unlabelled clips are believed: {named}")


def write_table(path: Path, corpus: Corpus[Clip], split: Path, believed: Named, task: Task) -> None:
    """The table of a round: labelled clips in the parts that the saved split has them in, believed
    ones among those to train on, with how sure the model was."""
    parts = json.loads(split.read_text("utf-8"))["items"]
    places = {id: name for name in SPLITS for id in parts[name]}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    column = "labels" if task.multilabel else "label"
    lines.writerow(["file", column, "start", "end", "split", "group", "confidence"])
    for clip in corpus.items:
        if clip.id in places:
            end = "" if clip.end is None else clip.end
            lines.writerow([
                Path(clip.audio).resolve(), "|".join(clip.labels), clip.start or "", end,
                places[clip.id], clip.group, "",
            ])  # fmt: skip
    for clip, names, sure in believed:
        path_of = Path(clip.audio).resolve()  # the table lies elsewhere
        lines.writerow([path_of, "|".join(names), "", "", "train", clip.group, f"{sure:.4f}"])
    write(path, text.getvalue())
