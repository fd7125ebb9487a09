"""Clips with classes, one or several each: `discover` a folder or a table, `check`, `report`.

`synthesised` gives clips that need no files: sound events, of which the kind is the class.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from audiotrain.datasets import tables as manifest
from audiotrain.datasets.captions.corpus import check as check
from audiotrain.datasets.captions.readers import AUDIO_COLUMNS, GROUP_COLUMNS
from audiotrain.datasets.items import Clip, Corpus, Problem
from audiotrain.datasets.paths import SPLIT_NAMES, Finder, split_folders, walk, without_suffix
from audiotrain.datasets.summary import BAR_WIDTH, NO_LOG, ProblemLog, leaks
from audiotrain.datasets.synthesis import sound_events
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features.audio import AUDIO_SUFFIXES, AudioError
from audiotrain.utils.text import count, duration

LAYOUTS = (
    "one folder a class, or a table (CSV, TSV, JSON lines) with a column of files and a column "
    "label or labels (several with , or | between)"
)
SEVERAL = ("labels", "tags")  # columns whose cells may name several classes
CLASS_COLUMNS = (*SEVERAL, "label", "category", "class", "class_name", "class_label")
FOLD = "fold"  # column of folds that the data name
NO_LABELS = re.compile(r"sample_?submission", re.IGNORECASE)  # a table of made-up answers
SHOWN = 20  # classes that a report draws
LONGEST_SYNTHESISED = 4.0  # seconds
_SEEDS = 1_000_000  # clips of one seed at most


# ---- found


def discover(folder: str | os.PathLike, group: str | None = None) -> Corpus[Clip]:
    """Labelled clips of a folder, or of one table, in any of LAYOUTS.

    Their `labels` are the names of their classes as the data write them, `columns` what a table
    says besides, such as a fold. `group` names the column whose equal values belong together.
    Tables called train… and test…, and folders called so, split the clips where both are there.
    ValueError when there is no such folder, or nothing in it is labelled.
    """
    place = Path(folder)
    if not place.exists():
        raise ValueError(f"{place}: no such folder or table")
    folder = place if place.is_dir() else place.parent
    names = sorted(walk(folder))
    tables = [n for n in names if is_table(folder / n)] if place.is_dir() else [place.name]
    if not place.is_dir() and not is_table(place):
        columns = ", ".join(manifest.first_record(place)) or "none"
        raise ValueError(
            f"{place}: found the columns {columns}, expected one of files "
            f"({', '.join(AUDIO_COLUMNS[:4])}) and one of {', '.join(CLASS_COLUMNS)}"
        )
    audio = [name for name in names if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES]
    clips: dict[str, Clip] = {}
    problems: list[Problem] = []
    splits = _splits_of_tables(tables)
    for table in tables:
        _read_table(folder, table, audio, group, splits.get(table), clips, problems)
    if not tables:
        clips = _of_class_folders(folder, audio)
    elif place.is_dir() and clips:
        listed = {os.path.normpath(folder / clip.audio) for clip in clips.values()}
        free = [name for name in audio if os.path.normpath(folder / name) not in listed]
        problems += [Problem("audio without a label, not used", name) for name in free]
    if not clips:
        told = f" ({problems[0].text})" if problems else ""
        raise ValueError(
            f"{place}: found {len(audio)} audio files and {len(tables)} tables of labels, but no "
            f"labelled clip{told}; expected {LAYOUTS}"
        )
    by_folder = split_folders(clips)
    found = [replace(c, split=c.split or by_folder.get(c.id)) for _, c in sorted(clips.items())]
    return Corpus(folder, found, problems)


def is_table(path: Path) -> bool:
    """Whether a file is a table with a column of files and one of classes."""
    if NO_LABELS.match(path.name):
        return False
    columns = manifest.first_record(path)
    return all(manifest.find_column(columns, known) for known in (AUDIO_COLUMNS, CLASS_COLUMNS))


def labels_of(cell: object, several: bool) -> tuple[str, ...]:
    """Names of classes in a cell: a list of JSON, or text; `several` splits it at , and |.

    >>> labels_of("Bark,Run | Walk", several=True), labels_of("Chink, clink", several=False)
    (('Bark', 'Run', 'Walk'), ('Chink, clink',))
    """
    if isinstance(cell, list):
        parts = [str(one) for one in cell]
    else:
        text = manifest.cell_text(cell)
        parts = re.split(r"[,|]", text) if several else [text]
    return tuple(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))


def _splits_of_tables(tables: Iterable[str]) -> dict[str, str]:
    """Split by table where several splits stand at the beginning of their names."""
    splits = {}
    for table in tables:
        word = re.split(r"[^a-z]", PurePosixPath(table).stem.lower())[0]
        if word in SPLIT_NAMES:
            splits[table] = SPLIT_NAMES[word]
    return splits if len(set(splits.values())) > 1 else {}


def _read_table(
    folder: Path,
    table: str,
    audio: list[str],
    group: str | None,
    split: str | None,
    clips: dict[str, Clip],
    problems: list[Problem],
) -> None:
    """Add the clips of a table, and what is wrong with its lines."""
    faults: list[str] = []
    records = list(manifest.records(folder / table, faults))
    names = list(dict.fromkeys(name for _, record in records for name in record))
    manifest.check_group_column(folder / table, names, group)
    column = manifest.find_column(names, CLASS_COLUMNS)
    places = {
        "audio": manifest.find_column(names, AUDIO_COLUMNS),
        "start": manifest.find_column(names, manifest.START_COLUMNS),
        "end": manifest.find_column(names, manifest.END_COLUMNS),
        "split": manifest.find_column(names, manifest.SPLIT_COLUMNS),
        "group": group or manifest.find_column(names, GROUP_COLUMNS),
        "usage": manifest.find_column(names, ("usage",)),
    }
    find = Finder(folder, PurePosixPath(table).parent, audio, AUDIO_SUFFIXES)
    for line, record in records:
        where = f"{table}:{line}"
        texts = {name: manifest.cell_text(cell).strip() for name, cell in record.items()}
        cells = {key: texts.get(name, "") if name else "" for key, name in places.items()}
        labels = labels_of(record.get(column), column.lower() in SEVERAL)
        name = find(cells["audio"]) if cells["audio"] else None
        try:
            start, end = manifest.span(cells["start"], cells["end"])
        except ValueError as error:
            problems.append(Problem("lines of a table not used", f"{where}: {error}"))
            continue
        if cells["usage"].lower() == "ignored":  # FSDKaggle2018 fills its test set up with these
            problems.append(Problem("clips that the data say to ignore", where))
        elif name is None:
            text = f"{where}: found no file {cells['audio']!r}"
            problems.append(Problem("labels without audio", text))
        elif not labels:
            problems.append(Problem("lines without a label, not used", where))
        else:
            own = SPLIT_NAMES.get(cells["split"].lower())
            if cells["split"] and own is None:
                text = f"{where}: found {cells['split']!r}, expected train, valid or test"
                problems.append(Problem("unknown splits, taken as none", text))
            whole = not start and end is None
            id = name if whole else f"{name}@{start or 0:g}-{'' if end is None else f'{end:g}'}"
            clip = Clip(
                id, folder / name, (), start or 0.0, end, own or split,
                cells["group"] or without_suffix(name), labels=labels, columns=texts,
            )  # fmt: skip
            _add(clip, where, clips, problems)
    problems += [Problem("lines of a table not used", fault) for fault in faults]


def _add(clip: Clip, where: str, clips: dict[str, Clip], problems: list[Problem]) -> None:
    known = clips.setdefault(clip.id, clip)
    if known is not clip and known.labels != clip.labels:
        text = f"{where}: {clip.id} is {'|'.join(known.labels)} before, {'|'.join(clip.labels)} now"
        problems.append(Problem("listed twice with other labels, the first used", text))


def _of_class_folders(folder: Path, audio: list[str]) -> dict[str, Clip]:
    """Clips in folders named by their class; none where there is only one such folder."""
    named = {name: PurePosixPath(name).parent.name for name in audio}
    named = {n: own for n, own in named.items() if own and own.lower() not in SPLIT_NAMES}
    if len(set(named.values())) < 2:
        return {}
    return {
        name: Clip(name, folder / name, (), group=without_suffix(name), labels=(own,))
        for name, own in named.items()
    }


def synthesised(number: int, seed: int = 0) -> Corpus[Clip]:
    """Clips of one sound event each, its kind the class; the same for the same seed.

    >>> [clip.labels for clip in synthesised(2).items]
    [('bell',), ('rising siren',)]
    """
    if not 1 <= number <= _SEEDS:
        raise ValueError(f"{number} synthesised clips, expected 1 to {_SEEDS}")
    kinds, clips = list(sound_events.KINDS), []
    for place in range(number):
        own = seed * _SEEDS + place
        event = sound_events.random_event(
            np.random.default_rng([own, 4]), kinds[place % len(kinds)]
        )
        event = replace(event, seconds=min(event.seconds, LONGEST_SYNTHESISED))
        name = f"event-{seed}-{place:06d}"
        clips.append(Clip(name, Scene((event,), "", own), (), group=name, labels=(event.kind,)))
    return Corpus(Path("synthesised"), clips, [])


# ---- told


def classes_of(clips: Iterable[Clip]) -> tuple[str, ...]:
    """The names of all classes, in the order of the alphabet."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))


def report(corpus: Corpus[Clip], log: ProblemLog = NO_LOG) -> str:
    """What is in a corpus and what is wrong with it, for a terminal; `log` gets all problems."""
    lengths, clips, problems = [], [], list(corpus.problems)
    for clip in corpus.items:
        try:
            lengths.append(clip.seconds)
            clips.append(clip)
        except AudioError as error:
            problems.append(Problem("audio that can't be read", str(error)))
    lines = [f"data in {corpus.folder}"]
    if clips:
        groups = len({clip.group for clip in clips})
        what = count(len(clips), "clip") + (
            f", in {count(groups, 'group')}" if groups < len(clips) else ""
        )
        lines.append(
            f"  {what}: {duration(sum(lengths))}, {duration(min(lengths))} to "
            f"{duration(max(lengths))} long"
        )
        lines += _class_lines(clips)
        for title, found in (
            ("split by the data", Counter(clip.split for clip in clips if clip.split)),
            ("folds of the data", Counter(c.columns[FOLD] for c in clips if c.columns.get(FOLD))),
        ):
            if found:
                parts = ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
                lines.append(f"  {title}: {parts}")
    problems += leaks(clips)
    return "\n".join([*lines, "", *log.report(problems)])


def _class_lines(clips: list[Clip]) -> list[str]:
    counts = Counter(label for clip in clips for label in clip.labels).most_common()
    several = sum(len(clip.labels) > 1 for clip in clips)
    lines = [f"  {count(len(counts), 'class', 'classes')}, {count(several, 'clip')} of several"]
    if not several:
        lines = [f"  {count(len(counts), 'class', 'classes')}"]
    shown = counts if len(counts) <= SHOWN else counts[: SHOWN // 2] + counts[-SHOWN // 2 :]
    width = max(len(name) for name, _ in shown)
    for place, (name, number) in enumerate(shown):
        if len(shown) < len(counts) and place == SHOWN // 2:
            lines.append(f"    … {len(counts) - len(shown)} more …")
        bar = "█" * max(1, round(BAR_WIDTH * number / counts[0][1]))
        lines.append(f"    {name:<{width}} {number:6}  {bar}")
    return lines
