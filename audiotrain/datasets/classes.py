"""Clips with classes, one or several each: `discover` a folder or a table, `check`, `report`.

`synthesised` gives clips that need no files: sound events, of which the kind is the class.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiotrain.datasets import tables
from audiotrain.datasets.captions.corpus import check as check
from audiotrain.datasets.captions.corpus import clips_line, readable
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import split_files, without_suffix
from audiotrain.datasets.search import Search
from audiotrain.datasets.summary import BAR_WIDTH, NO_LOG, ProblemLog, leaks, split_lines, splits_of
from audiotrain.datasets.synthesis import sound_events
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import count

LAYOUTS = (
    "one folder a class, or a table (CSV, TSV, JSON lines) with a column of files and a column "
    "label or labels (several with , or | between)"
)
MULTILABEL_COLUMNS = ("labels", "tags")  # whose cells may name several classes
CLASS_COLUMNS = (
    *MULTILABEL_COLUMNS,
    *("label", "category", "class", "class_name", "class_label"),
)
COLUMNS = {**tables.COLUMNS, "label": CLASS_COLUMNS}
FOLD = "fold"  # column of folds that the data name
NO_LABELS = re.compile(r"sample_?submission", re.IGNORECASE)  # a table of made-up answers
SHOWN = 20  # classes that a report shows
LONGEST_SYNTHESISED = 4.0  # seconds
_SEEDS = 1_000_000  # clips of one seed at most


def discover(folder: str | os.PathLike, group: str | None = None) -> Corpus[Clip]:
    """Labelled clips of a folder, or of one table, in any of LAYOUTS.

    Their `labels` are the names of their classes as the data write them, `columns` the
    further columns of a table, such as a fold. `group` names the column whose equal values stay
    together.
    Words such as train and test in names of tables, and folders called so, split the clips.
    ValueError when there is no such folder, or nothing in it is labelled.
    """
    path = Path(folder)
    search = _Search(path)
    table_names = [name for name in search.files if is_table(search.folder / name)]
    if not table_names and path.is_file():
        raise UserError(f"{path}: {tables.lacking(path, COLUMNS['audio'], CLASS_COLUMNS)}")
    splits = split_files(table_names)
    for table in table_names:
        search.use_table(table, splits.get(table), group)
    if not table_names:
        search.use_class_folders()
    search.report_unused_audio()
    counts = f"{len(search.findable)} audio files and {len(table_names)} tables of labels"
    return search.corpus(counts, LAYOUTS)


def is_table(path: Path) -> bool:
    """Whether a file is a table with a column of files and one of classes."""
    is_sample = NO_LABELS.match(path.name)
    return not is_sample and tables.has_columns(path, COLUMNS["audio"], CLASS_COLUMNS)


def labels_of(cell: object, is_multilabel: bool) -> tuple[str, ...]:
    """Names of classes in a cell: a list of JSON, or text, multilabel text split at , and |.

    >>> labels_of("Bark,Run | Walk", True), labels_of("Chink, clink", False)
    (('Bark', 'Run', 'Walk'), ('Chink, clink',))
    """
    if isinstance(cell, list):
        parts = [str(one) for one in cell]
    else:
        text = tables.cell_text(cell)
        parts = re.split(r"[,|]", text) if is_multilabel else [text]
    return tuple(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))


class _Search(Search[Clip]):
    def use_table(self, table: str, split: str | None, group: str | None) -> None:
        rows = self.read_table(table, COLUMNS, group)
        for where, audio, row in self.with_audio(table, rows):
            column = tables.find_column(row.record, CLASS_COLUMNS) or ""
            labels = labels_of(row.record.get(column), column.lower() in MULTILABEL_COLUMNS)
            usage = tables.find_column(row.columns, ("usage",))
            if usage and row.columns[usage].lower() == "ignored":  # test clips of FSDKaggle2018
                self.problem("clips that the data say to ignore", where)
                continue
            if not labels:
                self.problem("lines without a label, not used", where)
                continue
            id = tables.span_name(audio, row.start, row.end)
            clip = Clip(
                id,
                self.folder / audio,
                (),
                start=row.start or 0.0,
                end=row.end,
                split=row.split or split,
                group=row.group or without_suffix(audio),
                labels=labels,
                columns=row.columns,
            )
            self.used.add(audio)
            known = self.items.setdefault(id, clip)
            if known.labels != labels:
                text = f"{where}: {id} is {'|'.join(known.labels)} before, {'|'.join(labels)} now"
                self.problem("listed twice with other labels, the first used", text)

    def use_class_folders(self) -> None:
        for name, label in self.class_folders().items():
            self.used.add(name)
            group = without_suffix(name)
            self.items[name] = Clip(name, self.folder / name, (), group=group, labels=(label,))


def synthesised(number: int, seed: int = 0) -> Corpus[Clip]:
    """Clips of one sound event each, its kind the class; the same for the same seed.

    >>> [clip.labels for clip in synthesised(2).items]
    [('bell',), ('rising siren',)]
    """
    if not 1 <= number <= _SEEDS:
        raise UserError(f"{number} synthesised clips, expected 1 to {_SEEDS}")
    kinds, clips = list(sound_events.KINDS), []
    for index in range(number):
        event_seed = seed * _SEEDS + index
        rng = np.random.default_rng([event_seed, 4])
        event = sound_events.random_event(rng, kinds[index % len(kinds)])
        event = replace(event, seconds=min(event.seconds, LONGEST_SYNTHESISED))
        name, scene = f"event-{seed}-{index:06d}", Scene((event,), "", event_seed)
        clips.append(Clip(name, scene, (), group=name, labels=(event.kind,)))
    return Corpus(Path("synthesised"), clips, [])


def classes_of(clips: Iterable[Clip]) -> tuple[str, ...]:
    """The names of all classes, in the order of the alphabet."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))


def report(corpus: Corpus[Clip], log: ProblemLog = NO_LOG) -> str:
    """What is in a corpus and what is wrong with it, for a terminal; `log` gets all problems."""
    clips, lengths, problems = readable(corpus)
    lines = []
    if clips:
        lines = [clips_line(lengths, len({clip.group for clip in clips})), *_class_lines(clips)]
        lines += split_lines(splits_of(clips))
        folds = Counter(clip.columns[FOLD] for clip in clips if clip.columns.get(FOLD))
        if folds:
            counts = ", ".join(f"{name} {number}" for name, number in sorted(folds.items()))
            lines.append(f"folds of the data: {counts}")
    problems = corpus.problems + problems + leaks(clips)
    return log.summary(corpus.folder, (f"  {line}" for line in lines), problems)


def _class_lines(clips: list[Clip]) -> list[str]:
    counts = Counter(label for clip in clips for label in clip.labels).most_common()
    multilabel = count(sum(len(clip.labels) > 1 for clip in clips), "clip")
    what = count(len(counts), "class", "classes")
    lines = [f"{what}, {multilabel} of several" if multilabel else what]
    width = max(len(name) for name, _ in counts)
    rows = [
        f"  {name:<{width}} {number:6}  {'█' * max(1, round(BAR_WIDTH * number / counts[0][1]))}"
        for name, number in counts
    ]
    if len(rows) > SHOWN:
        more = f"  … {len(rows) - SHOWN} more …"
        rows = [*rows[: SHOWN // 2], more, *rows[-SHOWN // 2 :]]
    return lines + rows
