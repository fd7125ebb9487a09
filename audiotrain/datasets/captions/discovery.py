"""Find recordings and their captions in a folder, whatever its layout (LAYOUTS).

Names here are paths relative to the folder, with `/` between the parts.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from audiotrain.datasets import pairing, webdataset
from audiotrain.datasets import tables as manifest
from audiotrain.datasets.captions import readers
from audiotrain.datasets.items import Clip, Corpus, Problem
from audiotrain.datasets.paths import (
    OTHER_AUDIO_SUFFIXES,
    SPLIT_NAMES,
    Finder,
    split_files,
    split_folders,
    walk,
    without_suffix,
)
from audiotrain.features.audio import AUDIO_SUFFIXES, AudioPath

LAYOUTS = (
    "x.wav beside x.txt (a caption a line) or x.json, audio/x.wav and captions/x.txt, metadata.csv "
    "or another table with columns audio and caption, one folder a class, WebDataset tars"
)
TEMPLATES = ("This is a sound of {label}.",)


def discover(
    folder: str | os.PathLike, templates: Sequence[str] = TEMPLATES, group: str | None = None
) -> Corpus[Clip]:
    """Captioned clips of a folder, of one table or of one tar, in any of LAYOUTS.

    Clips with a class and no caption get one from each of `templates`. `group` names the column of
    a table whose equal values must stay in one split. ValueError when there is no such folder,
    nothing in it can be used, or a template has no `{label}`.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ValueError(f"{folder}: no such folder")
    for template in templates:
        if "{label}" not in template:
            raise ValueError(f"template {template!r}: expected {{label}} in it")
    search = _Search(folder, templates, group)
    search.use_tars()
    search.use_tables()
    search.use_sidecars()
    search.use_class_folders()
    search.tell_unused()
    if not search.clips:
        raise ValueError(search.failure())
    splits = split_folders(search.clips)
    clips = [
        replace(clip, split=clip.split or splits.get(clip.id)) for clip in search.clips.values()
    ]
    return Corpus(search.folder, sorted(clips, key=lambda clip: clip.id), search.problems)


def name_of_class(name: str) -> str:
    """The words of a class that is named in a path or a table.

    >>> name_of_class("dog_bark"), name_of_class("001 - Dog")
    ('dog bark', '001 - Dog')
    """
    return " ".join(name.replace("_", " ").split())


class _Search:
    """The files of one folder, those already used, and the clips and problems found so far."""

    def __init__(self, folder: Path, templates: Sequence[str], group: str | None):
        self.folder = folder if folder.is_dir() else folder.parent
        self.templates, self.group = templates, group
        self.clips: dict[str, Clip] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        nearby = sorted(walk(self.folder))  # where a table that is given alone may find its audio
        files = nearby if folder.is_dir() else [folder.name]
        by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in files:
            by_suffix[PurePosixPath(name).suffix.lower()].append(name)
        self.audio = [name for suffix in AUDIO_SUFFIXES for name in by_suffix[suffix]]
        self.findable = [n for n in nearby if PurePosixPath(n).suffix.lower() in AUDIO_SUFFIXES]
        self.other_audio = [name for suffix in OTHER_AUDIO_SUFFIXES for name in by_suffix[suffix]]
        self.tars = [name for suffix in webdataset.TAR_SUFFIXES for name in by_suffix[suffix]]
        self.compressed = [n for n in files if n.lower().endswith(webdataset.COMPRESSED_TARS)]
        tables = [name for suffix in manifest.TABLE_SUFFIXES for name in by_suffix[suffix]]
        self.lacking = {n: readers.lacking_columns(self.folder / n) for n in tables}
        self.tables = [name for name in tables if not self.lacking[name]]
        self.sidecars = [n for s in readers.SIDECAR_SUFFIXES for n in by_suffix[s]]
        self.splits = split_files([*self.tables, *self.tars])  # that their names tell
        self.captioned = False  # whether something besides names of folders says captions

    def problem(self, kind: str, text: str) -> None:
        self.problems.append(Problem(kind, text.replace(f"{self.folder}{os.sep}", "")))

    def add(
        self, name: str, audio: AudioPath, captions: tuple[str, ...], label: str, **more
    ) -> None:
        """One clip more, or more captions of a clip that is there."""
        label = name_of_class(label)
        concept = ""
        if not captions:
            captions = tuple(template.format(label=label) for template in self.templates)
            concept = label
        known = self.clips.get(name)
        if known is None:
            self.clips[name] = Clip(
                name, audio, captions, label=label or None, concept=concept, **more
            )
        elif not concept:
            joined = tuple(dict.fromkeys(known.captions + captions))
            self.clips[name] = replace(known, captions=joined)

    # ---- tars

    def use_tars(self) -> None:
        for shard in tqdm(self.tars, desc="reading tars", unit="tar", delay=2, leave=False):
            self.used.add(shard)
            faults: list[str] = []
            for key, members in webdataset.samples(self.folder / shard, faults).items():
                self.use_sample(shard, key, members)
            for fault in faults:
                self.problem("tars not read whole", fault)
        for name in self.compressed:
            self.problem("compressed tars, not read (expected .tar)", name)

    def use_sample(self, shard: str, key: str, members: dict) -> None:
        audio = webdataset.audio_of(members)
        sidecar = next((members[s] for s in readers.SIDECAR_SUFFIXES if s in members), None)
        where = f"{shard}/{key}"
        if audio is None or sidecar is None:
            kind = "captions without audio" if audio is None else "audio without captions"
            self.problem(kind, where)
            return
        try:
            text = sidecar.read().decode("utf-8", errors="replace")
            read = readers.json_captions if sidecar.name.lower().endswith(".json") else (
                readers.text_captions
            )  # fmt: skip
            captions = read(text)
        except ValueError as error:
            self.problem("caption files that can't be used", f"{where}: {error}")
            return
        if not captions:
            self.problem("audio without captions", where)
            return
        self.captioned = True
        self.add(
            f"{shard}/{audio.name}", audio, captions, "", group=without_suffix(where),
            split=self.splits.get(shard),
        )  # fmt: skip

    # ---- tables

    def use_tables(self) -> None:
        for table in self.tables:
            self.used.add(table)
            rows, problems = readers.read_table(self.folder / table, self.group)
            for text in problems:
                self.problem("lines of a table not used", text)
            find = Finder(self.folder, PurePosixPath(table).parent, self.findable, AUDIO_SUFFIXES)
            for row in rows:
                self.use_row(table, row, find)

    def use_row(self, table: str, row: readers.Row, find: Finder) -> None:
        where = f"{table}:{row.line}"
        audio = find(row.audio)
        if audio is None:
            self.problem("captions without audio", f"{where}: found no file {row.audio!r}")
            return
        split = SPLIT_NAMES.get(row.split.lower()) if row.split else self.splits.get(table)
        if row.split and split is None:
            text = f"{where}: found {row.split!r}, expected train, valid or test"
            self.problem("unknown splits, taken as none", text)
        whole = not row.start and row.end is None
        start = row.start or 0.0
        name = audio if whole else f"{audio}@{start:g}-{'' if row.end is None else f'{row.end:g}'}"
        known = self.clips.get(name)
        if known is not None and set(row.captions) <= set(known.captions):
            self.problem("listed twice", f"{where}: {name} with the same caption")
        self.captioned = True
        self.used.add(audio)
        self.add(
            name, self.folder / audio, row.captions, row.label, start=start, end=row.end,
            split=split, group=row.group or without_suffix(audio), columns=row.columns,
        )  # fmt: skip

    # ---- caption files

    def use_sidecars(self) -> None:
        free = [name for name in self.audio if name not in self.used]
        if not free:
            return
        pairs = pairing.pair(free, [name for name in self.sidecars if name not in self.used])
        found = pairs.labels.items()
        for audio, sidecar in tqdm(
            found, desc="reading captions", unit="file", delay=2, leave=False
        ):
            self.used.update((audio, sidecar))
            self.captioned = True
            try:
                captions, problems = readers.read_captions(self.folder / sidecar)
            except ValueError as error:
                self.problem("caption files that can't be used", str(error))
                continue
            for text in problems:
                self.problem("caption files not in UTF-8, read as Latin-1", text)
            group = without_suffix(audio)
            self.add(audio, self.folder / audio, captions, "", group=group)
        for audio, sidecar in pairs.spare:
            self.used.add(sidecar)
            text = f"{sidecar}: {pairs.labels[audio]} is used"
            self.problem("second caption files, not used", text)
        for audio, sidecars in pairs.ambiguous.items():
            self.used.update((audio, *sidecars))
            self.problem("several caption files fit", f"{audio}: {', '.join(sidecars)}")

    # ---- names alone

    def use_class_folders(self) -> None:
        """Clips in folders named by their class, if nothing else says what they are."""
        if self.captioned:
            return
        folders = {name: PurePosixPath(name).parent.name for name in self.audio}
        classes = {folder for folder in folders.values() if folder.lower() not in SPLIT_NAMES}
        if len(classes - {""}) < 2:  # one folder of recordings says nothing about them
            return
        for name, folder in folders.items():
            if folder in classes and folder:
                self.used.add(name)
                group = without_suffix(name)
                self.add(name, self.folder / name, (), folder, group=group)

    # ---- what is left

    def tell_unused(self) -> None:
        for table, lacking in self.lacking.items():
            if lacking:
                self.problem("tables without the columns that are needed", f"{table}: {lacking}")
        for name in self.audio:
            if name not in self.used:
                self.problem("audio without captions", name)
        for name in self.other_audio:
            self.problem(f"audio in a format not read ({', '.join(AUDIO_SUFFIXES)} are)", name)
        homes = {(str(PurePosixPath(n).parent), PurePosixPath(n).suffix) for n in self.used}
        for name in self.sidecars:
            path = PurePosixPath(name)
            if name not in self.used and (str(path.parent), path.suffix) in homes:
                self.problem("captions without audio", name)

    def failure(self) -> str:
        """One line for a folder without clips: what was found, and what seems to be wrong."""
        names = len(self.sidecars) + len(self.tables)
        found = (
            f"{len(self.audio)} audio, {names} caption files or tables and {len(self.tars)} tars"
        )
        told = sorted(self.problems, key=lambda problem: problem.kind.startswith("audio"))
        first = f" ({told[0].kind}: {told[0].text})" if told else ""
        return f"{self.folder}: found {found}, but no pair{first}; known layouts: {LAYOUTS}"
