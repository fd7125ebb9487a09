"""Cross-validation of the chord recipe: a run folder for each fold, posteriors of every song.

FOLDER/folds.json        songs that each fold is tested on
FOLDER/fold-K/           the run that was not trained on them
FOLDER/oof/K-N.npz       log-probabilities of one of them, by that run
FOLDER/metrics.json      mean and deviation of all scores, and the folds'
FOLDER/problems.txt      all that is wrong with the data
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.chords import items as chords
from audiotrain.datasets.summary import PROBLEMS, tell_left_out
from audiotrain.recipes.chords.decoding import heads_of
from audiotrain.recipes.chords.scoring import SHOWN
from audiotrain.recipes.chords.settings import CvSettings, TrainSettings
from audiotrain.recipes.chords.songs import Library, Song, load_songs
from audiotrain.recipes.chords.split import compose, find, library_of, parts_of, write_split
from audiotrain.recipes.common.run import open_run, resumable, save_settings
from audiotrain.train import crossval
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.files import write, write_json


class Material(NamedTuple):
    """What is cross-validated: songs, as lists of renderings, the group of each, and one chord of
    each where all are clips of one; composed songs that all folds train on; items by name."""

    songs: list[list[Song]]
    groups: list[str]
    labels: list[str] | None
    further: list[list[Song]]
    items: dict[str, chords.Item]

    @property
    def names(self) -> list[str]:
        """The songs' names."""
        return [renderings[0].name for renderings in self.songs]


def cross_validate(settings: CvSettings, fit: Callable) -> dict:
    """Train and test on each fold that is not done yet; what metrics.json says.

    `fit(settings, library, parts, items, run, keep)` fills a run folder and gives its metrics.
    """
    begun = time.monotonic()
    ranks = distributed.join()
    folder = Path(ranks.from_first(lambda: str(open_run(settings, "chords-cv"))))
    library = library_of(settings)
    with ranks.hush():
        listed = folder / PROBLEMS if ranks.rank == 0 else None
        material = gather(settings, library, ranks, listed)
    folds = crossval.make_folds(material.groups, settings.folds, material.labels, settings.seed)
    if material.labels is not None and ranks.rank == 0:
        for line in crossval.missing_labels(folds, material.labels):
            print(line)
    splits = [split_of(settings, material, folds, k) for k in range(len(folds))]
    ranks.from_first(lambda: crossval.keep_folds(folder, [split["test"] for split in splits]))
    ranks.from_first(lambda: save_settings(settings, folder))
    results = []
    for k, split in enumerate(splits):
        store, run = Posteriors(folder, k), folder / f"fold-{k}"
        if not ranks.from_first(store.done):
            if ranks.rank == 0:
                print(f"\nfold {k} of {len(folds)}: {run}", flush=True)
                write_split(run / "split.json", split)
            _fit_fold(settings, fit, library, material, split, run, store)
        results.append(ranks.from_first(lambda run=run: read_scores(run)))
    summary = crossval.summarize(results)
    if ranks.rank == 0:
        write_json(folder / "metrics.json", summary)
        print(f"\n{len(material.songs)} songs, each tested once, in {len(folds)} folds:")
        print(table(summary))
        print(f"\n{folder}: {time.monotonic() - begun:.0f} s in all")
    return summary


def _fit_fold(settings, fit, library, material: Material, split, run: Path, store) -> None:
    own = {field.name: getattr(settings, field.name) for field in fields(TrainSettings)}
    fold = replace(TrainSettings(**own), output=run, split=run / "split.json")
    ranks = distributed.join()
    ranks.from_first(lambda: str(open_run(fold, "chords")))
    parts = parts_of(material.songs, split)
    parts["train"] = parts["train"] + material.further
    with resumable(run.parent):
        fit(fold, library, parts, material.items, run, store.keep)
    if ranks.rank == 0:
        store.finish()


def gather(
    settings: CvSettings, library: Library, ranks: distributed.Alone, listed: Path | None = None
) -> Material:
    """All songs of the folder, or composed ones, prepared by all `ranks`; all that is wrong with
    them in the file `listed`."""
    composed = compose(settings, library, ranks)
    if settings.data is None:
        names = [renderings[0].name for renderings in composed]
        return Material(composed, names, None, [], {})
    corpus = ranks.first_goes_first(
        lambda: find(
            settings.data, settings.selector, settings.group, settings.pop_spellings, listed
        )
    )
    items = {item.id: item for item in corpus.items}
    renderings = range(settings.renderings)
    chosen = corpus.items
    if settings.songs is not None and settings.songs < len(chosen):
        chosen = [chosen[n * len(chosen) // settings.songs] for n in range(settings.songs)]
    songs, problems = load_songs(library, chosen, "reading", renderings, ranks=ranks)
    tell_left_out(problems, len(chosen), "recordings", listed)
    if not songs:
        raise ValueError(f"none of {len(chosen)} recordings can be read, such as {problems[0]}")
    own = [items[found[0].name] for found in songs]
    groups = [item.group or item.id for item in own]
    labels = [item.clip_label for item in own]
    return Material(songs, groups, None if None in labels else labels, composed, items)


def split_of(
    settings: CvSettings, material: Material, folds: Sequence[np.ndarray], k: int
) -> dict[str, list[str]]:
    """Names of songs by part: the fold is tested on, `settings.valid` of all songs, of other
    groups, is validated on. ValueError when one group alone is left to train on."""
    rest = np.setdiff1d(np.arange(len(material.groups)), folds[k])
    groups = [material.groups[row] for row in rest]
    if len(set(groups)) < 2:
        raise ValueError(
            f"fold {k}: {len(set(groups))} group of songs left to train on, expected 2 or more, "
            f"one to validate on; there are {len(set(material.groups))} in all"
        )
    pieces = max(2, round(len(rest) / (settings.valid * len(material.groups))))
    pieces = min(pieces, len(set(groups)))
    chosen = rest[crossval.make_folds(groups, pieces, seed=settings.seed)[0]]
    rows = {"train": np.setdiff1d(rest, chosen), "valid": chosen, "test": folds[k]}
    names = material.names
    return {part: [names[row] for row in own] for part, own in rows.items()}


class Posteriors:
    """The log-probabilities of one fold's songs, a file each, under a cross-validation's folder."""

    def __init__(self, folder: Path, k: int):
        self.folder, self.k = folder / "oof", k
        self._kept: dict[str, str] = {}  # song to file

    def keep(self, song: Song, posteriors: np.ndarray) -> None:
        """Save a song's log-probabilities, by head (frames, 56), and its classes (frames, 3)."""
        buffer, heads = io.BytesIO(), heads_of(posteriors)
        np.savez_compressed(
            buffer, log_probabilities=heads.astype(np.float16), classes=song.classes, song=song.name
        )
        file = f"{self.k}-{len(self._kept):05d}.npz"
        write(self.folder / file, buffer.getvalue())
        self._kept[song.name] = file

    def finish(self) -> None:
        """Say which file is whose; after that the fold is done."""
        write_json(self.folder / f"{self.k}.json", self._kept)

    def done(self) -> bool:
        """Whether all songs of the fold are there."""
        return (self.folder / f"{self.k}.json").is_file()


def read_posteriors(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(song, log-probabilities (frames, 56), classes (frames, 3)) of each song of a finished
    cross-validation, fold by fold. ValueError when one is missing or damaged."""
    for k, names in enumerate(crossval.read_folds(folder)):
        index = folder / "oof" / f"{k}.json"
        if not index.is_file():
            raise ValueError(f"{folder}: fold {k} is not done; cv --output {folder} --resume")
        files = json.loads(index.read_text("utf-8"))
        for name in names:
            try:
                with np.load(index.parent / files[name], allow_pickle=False) as arrays:
                    yield name, arrays["log_probabilities"].astype(np.float32), arrays["classes"]
            except (OSError, ValueError, KeyError) as error:
                raise ValueError(f"{index}: {name}: no posteriors ({error})") from None


def read_scores(run: Path) -> dict[str, float]:
    """A run's scores by name: Viterbi's as they are, argmax's and the share of right frames."""
    try:
        result = json.loads((run / "metrics.json").read_text("utf-8"))
        rows = dict(result["viterbi"]["corpus"])
        rows |= {f"argmax_{name}": value for name, value in result["argmax"]["corpus"].items()}
        rows |= result["frames"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run}: no metrics.json of a finished run ({error})") from None
    return {name: math.nan if value is None else float(value) for name, value in rows.items()}


def table(summary: dict) -> str:
    """The scores that recipes show, as text."""
    shown = [*SHOWN, *(f"argmax_{name}" for name in ("majmin", "mirex", "seg")), "chord_acc"]
    return crossval.summary_table(
        summary | {part: {n: summary[part][n] for n in shown} for part in ("mean", "deviation")}
    )
