"""Pseudo-labels: what a model predicts with confidence labels training clips of the next one.

The labelled clips keep their split. Rounds are compared by its validation clips alone; the test
clips serve only for the scores of each round.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from audiotrain import config
from audiotrain.datasets import classes
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import recordings
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.ensemble import Ensemble
from audiotrain.recipes.classify.features import InputSettings
from audiotrain.recipes.classify.recipe import ClassifyRecipe, find, task_of
from audiotrain.recipes.classify.settings import PseudoSettings, TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common.checkpoints import ROUNDS
from audiotrain.recipes.common.crossval import fold_settings
from audiotrain.recipes.common.ensemble import EnsembleSpec
from audiotrain.recipes.common.split import SPLIT, read_split
from audiotrain.train.distributed import ranks as distributed
from audiotrain.train.pseudo_labels import select, train_in_rounds
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import csv_text, write, write_json
from audiotrain.utils.text import count

# An unlabelled clip with its predicted classes as labels, and the smallest of their probabilities.
PseudoLabel = tuple[Clip, float]


def pseudo(settings: PseudoSettings) -> dict:
    """Train on the labelled clips (round-0), then up to `rounds` times with pseudo-labelled clips,
    too; the content of rounds.json, with the `best` round by its validation score.

    labels-N.csv is the table that round N trains on; `train --data` takes it, too. ValueError when
    there are no unlabelled clips, or a threshold is of no class.
    """
    if (size := distributed.join().size) > 1:
        raise UserError(f"pseudo: expected one process, found {size}")
    unlabelled = recordings(settings.unlabelled, [])
    corpus = find(settings)
    task = task_of(settings, corpus)
    thresholds = thresholds_of(settings, task)
    unlabelled = without_labelled(unlabelled, corpus)
    folder = runs.open_run(settings, "classify-pseudo")
    runs.save_settings(settings, folder)
    print(f"\n{count(len(unlabelled), 'unlabelled clip')} in {settings.unlabelled}", flush=True)
    rows: list[dict] = []
    pairs: list[PseudoLabel] = []

    def label(number: int) -> list[Clip]:
        run = folder / rows[-1]["run"]
        pairs[:] = select_pseudo_labels(settings, run, unlabelled, corpus, folder, thresholds)
        return [clip for clip, _ in pairs]

    def train(number: int, labels: list[Clip] | None) -> float:
        table = settings.data
        if labels is not None:
            counts = Counter(name for clip in labels for name in clip.labels).most_common()
            by_class = ", ".join(f"{name} {number}" for name, number in counts)
            total = f"{len(labels)} of {len(unlabelled)} unlabelled clips"
            print(f"\n{total} are pseudo-labelled: {by_class}")
            table = folder / f"labels-{number}.csv"
            write_table(table, corpus, read_split(folder / "round-0" / SPLIT), pairs, task)
        print(f"\nround {number}", flush=True)
        run = folder / f"round-{number}"
        rows.append(_round(settings, run, table, task, len(labels or ())))
        write_json(folder / ROUNDS, {"best": best_of(rows), "rounds": rows})
        return rows[-1]["valid"]

    train_in_rounds(settings.rounds, train, label)
    print()
    for row in rows:
        scores = f"valid {row['valid']:.3f}   test {row['test']:.3f}"
        print(f"{row['run']:10}{row['pseudo_labelled']:6} pseudo-labelled   {scores}")
    print(f"best: {folder / best_of(rows)}")
    return {"best": best_of(rows), "rounds": rows}


def best_of(rounds: Sequence[dict]) -> str:
    """The run with the best validation score, of equal ones the first."""
    return max(rounds, key=lambda row: row["valid"])["run"]


def _round(settings: PseudoSettings, run: Path, table: Path, task: Task, added: int) -> dict:
    """Train one round, or read the metrics of one that is done; its scores."""
    if not (run / "metrics.json").exists():
        changes: dict[str, Any] = {"task": "multi" if task.multilabel else "single"}
        if first := inputs_of(run.parent / "round-0"):
            changes["input"] = first  # the same for all rounds
        if added:
            changes |= {"test_fold": None, "folds_of": None, "group": None}  # the table has a split
        round_settings = fold_settings(settings, TrainSettings, run, data=table, **changes)
        runs.train(ClassifyRecipe(round_settings), run.parent)
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    name = "lwlrap" if task.multilabel else "accuracy"
    scores = {"valid": metrics["valid"][name], "test": metrics[name]}
    return {"run": run.name, "pseudo_labelled": added} | scores


def inputs_of(run: Path) -> InputSettings | None:
    """The input that a run was trained on; None for one that has not begun."""
    file = run / "config.yaml"
    return config.load(TrainSettings, ["--config", str(file)]).input if file.is_file() else None


def without_labelled(unlabelled: Sequence[Clip], corpus: Corpus[Clip]) -> list[Clip]:
    """The unlabelled files that are not, and do not equal, a labelled one. ValueError for none."""
    labelled = {full_path(clip) for clip in corpus.items}
    paths = [full_path(clip) for clip in unlabelled if isinstance(clip.audio, Path)]
    others = [
        Clip(str(path), path, (), group=f"unlabelled {path}")
        for path in paths
        if path not in labelled
    ]
    groups, ids = {clip.group for clip in corpus.items}, {clip.id for clip in others}
    checked = classes.check(Corpus(corpus.folder, [*corpus.items, *others], [])).items
    others = [clip for clip in checked if clip.id in ids and clip.group not in groups]
    if not others:
        raise UserError(
            f"--unlabelled: all {len(unlabelled)} recordings are among the labelled ones or can't "
            "be read, expected others"
        )
    return others


def full_path(clip: Clip) -> Path:
    assert isinstance(clip.audio, Path)
    return clip.audio.resolve()


def thresholds_of(settings: PseudoSettings, task: Task) -> np.ndarray:
    """Smallest probability (classes,) of a pseudo-label of each class. ValueError for CLASS=SHARE
    that names no class."""
    thresholds = np.full(len(task.classes), settings.threshold)
    for text in settings.thresholds:
        name, _, share = text.rpartition("=")
        if name not in task.classes:
            raise UserError(
                f"--thresholds {text}: found {name!r}, expected one of {', '.join(task.classes)}"
            )
        thresholds[task.classes.index(name)] = float(share)
    return thresholds


def select_pseudo_labels(
    settings: PseudoSettings,
    run: Path,
    clips: Sequence[Clip],
    corpus: Corpus[Clip],
    folder: Path,
    thresholds: np.ndarray,
) -> list[PseudoLabel]:
    """The clips that a run's model labels with confidence, after calibration on the labelled
    validation clips."""
    model = Ensemble(EnsembleSpec(((run,),)), settings.cache.expanduser())
    task, ids = model.task, set(read_split(folder / "round-0" / SPLIT)["valid"])
    valid, probabilities, *_ = model([clip for clip in corpus.items if clip.id in ids])
    known = probabilities, task.targets(valid)
    readable, probabilities, *_ = model(clips)
    rows = zip(readable, *select(probabilities, thresholds, known, task.multilabel), strict=True)
    return [
        (replace(clip, labels=tuple(compress(task.classes, labels))), float(row[labels].min()))
        for clip, labels, row in rows
        if labels.any()
    ]


def write_table(
    path: Path,
    corpus: Corpus[Clip],
    split: dict[str, list[str]],
    labels: Sequence[PseudoLabel],
    task: Task,
) -> None:
    """The table of a round: labelled clips in their parts of the split, pseudo-labelled ones among
    those to train on, with the model's confidence. Files are full paths: the table may move."""
    part_of = {id: name for name, ids in split.items() for id in ids}
    column = "labels" if task.multilabel else "label"
    lines: list[list] = [["file", column, "start", "end", "split", "group", "confidence"]]
    rows = [(clip, part_of[clip.id], "") for clip in corpus.items if clip.id in part_of]
    rows += [(clip, "train", f"{probability:.4f}") for clip, probability in labels]
    for clip, part, confidence in rows:
        span = clip.start or "", "" if clip.end is None else clip.end
        names = "|".join(clip.labels)
        lines.append([full_path(clip), names, *span, part, clip.group, confidence])
    write(path, csv_text(lines))
