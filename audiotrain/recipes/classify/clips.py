"""The clips of a run: found or synthesised, what is to be told of them, split into parts, read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.splits import SPLITS, split
from audiotrain.datasets.summary import PROBLEMS, list_unreadable, tell_left_out
from audiotrain.recipes.classify.dataset import Task
from audiotrain.recipes.classify.features import ClipFeatures, ExtractedClips
from audiotrain.recipes.classify.settings import CrossValidateSettings, TrainSettings
from audiotrain.train.crossval import make_folds, missing_labels, read_folds
from audiotrain.train.distributed import ranks as distributed

Parts = dict[str, ExtractedClips]


def find(settings: TrainSettings, listed: Path | None = None) -> Corpus[Clip]:
    """The clips of the data or synthesised ones, after printing what they are; all that is wrong
    with them is in the file `listed`."""
    if settings.data is None:
        corpus = labelled.synthesised(settings.synthesised, settings.seed)
    else:
        corpus = labelled.discover(settings.data, settings.group)
        corpus = labelled.check(corpus, settings.strict)
    print(labelled.report(corpus, listed), flush=True)
    return corpus


def task_of(settings: TrainSettings, corpus: Corpus[Clip]) -> Task:
    """The classes, and whether a clip may have several. ValueError for fewer than two classes, and
    for clips of several where the settings say that they have one."""
    classes = labelled.classes_of(corpus.items)
    if len(classes) < 2:
        raise ValueError(
            f"{corpus.folder}: all {len(corpus.items)} clips are {', '.join(classes)}, expected "
            "two classes or more"
        )
    several = [clip for clip in corpus.items if len(clip.labels) > 1]
    if several and settings.task == "single":
        raise ValueError(
            f"task=single, but {len(several)} clips have several classes, such as {several[0].id}: "
            f"{'|'.join(several[0].labels)}"
        )
    return Task(classes, settings.task == "multi" or bool(several))


def read_parts(
    settings: TrainSettings, corpus: Corpus[Clip], features: ClipFeatures, run: Path
) -> Parts:
    """What is heard of the clips of "train", "valid" and "test"; rank 0's split on all ranks.

    Clips that cannot be read are counted and named. ValueError when a part is left empty.
    """
    ranks, saved = distributed.join(), run / "split.json"
    is_new = not saved.exists()
    shares = (1 - settings.valid - settings.test, settings.valid, settings.test)
    try:
        corpus = with_fold(settings, corpus)
        chosen = ranks.from_first(
            lambda: {
                part: [clip.id for clip in own]
                for part, own in split(corpus, settings.seed, shares, saved).items()
            }
        )
        clips = {clip.id: clip for clip in corpus.items}
        parts = {}
        for name in SPLITS:
            if not chosen[name]:
                raise ValueError(
                    f"{corpus.folder}: the split of {len(clips)} clips leaves none for {name}, "
                    "expected at least one each to train, validate and test"
                )
            own = [clips[id] for id in chosen[name]]
            parts[name] = features.extract(own, f"reading {name}", ranks)
        problems = [line for part in parts.values() for line in part.problems]
        listed = run / PROBLEMS if ranks.rank == 0 else None
        ranks.first_goes_first(
            lambda: tell_unreadable(problems, len(clips), settings.strict, listed)
        )
    except ValueError:
        if is_new and ranks.rank == 0:
            saved.unlink(missing_ok=True)  # worth nothing, and would keep later clips' places
        raise
    return parts


def tell_unreadable(
    problems: Sequence[str], total: int, strict: bool = False, listed: Path | None = None
) -> None:
    """Say which clips can't be read, all of them in the file `listed`. ValueError when `strict` and
    there is any."""
    if problems and strict:
        list_unreadable(problems, listed)
        raise ValueError(f"{len(problems)} of {total} clips can't be read: {problems[0]}")
    tell_left_out(problems, total, "clips", listed)


# ---- folds


def with_fold(settings: TrainSettings, corpus: Corpus[Clip]) -> Corpus[Clip]:
    """The corpus split by `test_fold`: that fold is tested on, all others are there to train on."""
    if settings.test_fold is None:
        return corpus
    if settings.folds_of is None:
        places = {clip.id: clip.columns.get(labelled.FOLD, "") for clip in corpus.items}
    else:
        folds = read_folds(settings.folds_of)
        places = {id: str(number) for number, ids in enumerate(folds) for id in ids}
    known = sorted(set(places.values()) - {""})
    if settings.test_fold not in known:
        raise ValueError(
            f"test_fold={settings.test_fold}, expected one of {', '.join(known)}"
            if known
            else f"test_fold={settings.test_fold}, but no clip of {corpus.folder} has a fold"
        )
    clips = [
        replace(clip, split="test" if places[clip.id] == settings.test_fold else "train")
        for clip in corpus.items
        if places.get(clip.id)
    ]
    return replace(corpus, items=clips)


def folds_of(settings: CrossValidateSettings, clips: Sequence[Clip]) -> list[np.ndarray]:
    """Rows of clips that each fold is tested on: as the column `fold` says where all clips have
    one, else by group and class. What a fold lacks is printed."""
    named = [clip.columns.get(labelled.FOLD, "") for clip in clips]
    kinds = ["|".join(clip.labels) for clip in clips]
    if all(named):
        names = sorted(set(named), key=lambda name: (len(name), name))
        if len(names) < 2:
            raise ValueError(f"all {len(clips)} clips are of fold {names[0]}, expected two or more")
        folds = [np.flatnonzero(np.array(named) == name) for name in names]
        print(f"\nfolds as the data name them: {', '.join(names)}")
    else:
        groups = [clip.group or clip.id for clip in clips]
        several = any(len(clip.labels) > 1 for clip in clips)
        folds = make_folds(groups, settings.folds, None if several else kinds, settings.seed)
    if not any(len(clip.labels) > 1 for clip in clips):
        for line in missing_labels(folds, kinds):
            print(f"  {line}")
    return folds
