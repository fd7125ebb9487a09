"""Find recordings and their captions in a folder, whatever its layout (LAYOUTS)."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from audiotrain.datasets import tables, webdataset
from audiotrain.datasets.captions import readers
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import split_files, without_suffix
from audiotrain.datasets.search import Search
from audiotrain.datasets.summary import progress
from audiotrain.features.audio import AudioPath, TarMember
from audiotrain.utils.errors import UserError

LAYOUTS = (
    "x.wav beside x.txt (a caption a line) or x.json, audio/x.wav and captions/x.txt, metadata.csv "
    "or another table with columns audio and caption, one folder a class, WebDataset tars"
)
TEMPLATES = ("This is a sound of {label}.",)
UNUSABLE = "caption files that can't be used"


def discover(
    folder: str | os.PathLike, templates: Sequence[str] = TEMPLATES, group: str | None = None
) -> Corpus[Clip]:
    """Captioned clips of a folder, of one table or of one tar, in any of LAYOUTS.

    Clips with a class and no caption get one from each of `templates`. `group` names the column of
    a table whose equal values must stay in one split. ValueError when there is no such folder,
    nothing in it can be used, or a template has no `{label}`.
    """
    for template in templates:
        if "{label}" not in template:
            raise UserError(f"template {template!r}: expected {{label}} in it")
    search = _Search(Path(folder), templates)
    search.use_tars()
    search.use_tables(group)
    search.use_sidecars()
    if not search.captioned:
        search.use_class_folders()
    search.report_unused()
    found = len(search.sidecars) + len(search.tables)
    counts = f"{len(search.audio)} audio, {found} caption files or tables and "
    return search.corpus(f"{counts}{len(search.tars)} tars", LAYOUTS)


def name_of_class(name: str) -> str:
    """The words of a class that is named in a path or a table.

    >>> name_of_class("dog_bark"), name_of_class("001 - Dog")
    ('dog bark', '001 - Dog')
    """
    return " ".join(name.replace("_", " ").split())


class _Search(Search[Clip]):
    kind = "caption"

    def __init__(self, path: Path, templates: Sequence[str]):
        super().__init__(path)
        self.templates = templates
        self.tars = self.having(webdataset.TAR_SUFFIXES)
        names = self.having(tables.TABLE_SUFFIXES)
        self.lacking = {name: readers.lacking_columns(self.folder / name) for name in names}
        self.tables = [name for name in names if not self.lacking[name]]
        self.sidecars = self.having(readers.SIDECAR_SUFFIXES)
        self.splits = split_files([*self.tables, *self.tars])  # from their names
        self.captioned = False  # whether anything but names of folders gives captions

    def add(
        self, name: str, audio: AudioPath, captions: tuple[str, ...], label: str = "", **more
    ) -> None:
        """Add a clip, or captions to a clip that is there."""
        label = name_of_class(label)
        concept = ""
        if not captions:
            captions = tuple(template.format(label=label) for template in self.templates)
            concept = label
        known = self.items.get(name)
        if known is None:
            more |= {"label": label or None, "concept": concept}
            self.items[name] = Clip(name, audio, captions, **more)
        elif not concept:
            joined = tuple(dict.fromkeys(known.captions + captions))
            self.items[name] = replace(known, captions=joined)

    def use_tars(self) -> None:
        for shard in progress(self.tars, "reading tars", "tar"):
            faults: list[str] = []
            for key, members in webdataset.samples(self.folder / shard, faults).items():
                self.use_sample(shard, f"{shard}/{key}", members)
            for fault in faults:
                self.problem("tars not read whole", fault)
        for name in self.files:
            if name.lower().endswith(webdataset.COMPRESSED_TARS):
                self.problem("compressed tars, not read (expected .tar)", name)

    def use_sample(self, shard: str, where: str, members: dict[str, TarMember]) -> None:
        audio = webdataset.audio_of(members)
        sidecars = [members[s] for s in readers.SIDECAR_SUFFIXES if s in members]
        if audio is None:
            self.problem("captions without audio", where)
            return
        captions: tuple[str, ...] = ()
        for sidecar in sidecars:
            text = sidecar.read().decode("utf-8", errors="replace")
            try:
                captions += readers.parse_captions(text, sidecar.name)
            except UserError as error:
                self.problem(UNUSABLE, f"{shard}/{sidecar.name}: {error}")
        captions = tuple(dict.fromkeys(captions))
        if not captions:
            self.problem("audio without captions", where)
            return
        self.captioned = True
        group, split = without_suffix(where), self.splits.get(shard)
        self.add(f"{shard}/{audio.name}", audio, captions, group=group, split=split)

    def use_tables(self, group: str | None) -> None:
        for table in self.tables:
            rows = self.read_table(table, readers.COLUMNS, group)
            for where, audio, row in self.with_audio(table, rows):
                self.use_row(table, where, audio, row)

    def use_row(self, table: str, where: str, audio: str, row: tables.Row) -> None:
        try:
            captions = readers.row_captions(row)
        except UserError as error:
            self.problem(tables.UNUSED_LINES, f"{where}: {error}")
            return
        name = tables.span_name(audio, row.start, row.end)
        known = self.items.get(name)
        if known is not None and set(captions) <= set(known.captions):
            self.problem("listed twice", f"{where}: {name} with the same caption")
        self.captioned = True
        self.used.add(audio)
        captioned = readers.caption_columns(row.columns)
        self.add(
            name,
            self.folder / audio,
            captions,
            row.label,
            start=row.start or 0.0,
            end=row.end,
            split=row.split or self.splits.get(table),
            group=row.group or without_suffix(audio),
            columns={key: row.columns[key] for key in row.columns if key not in captioned},
        )

    def use_sidecars(self) -> None:
        pairs = self.pairs(self.audio, self.sidecars)
        for audio in progress(list(pairs), "reading captions"):
            self.captioned = True
            try:
                captions, problems = readers.read_captions(self.folder / pairs[audio])
            except UserError as error:
                self.problem(UNUSABLE, str(error))
                continue
            for text in problems:
                self.problem("caption files not in UTF-8, read as Latin-1", text)
            self.add(audio, self.folder / audio, captions, group=without_suffix(audio))

    def use_class_folders(self) -> None:
        for name, label in self.class_folders().items():
            self.used.add(name)
            self.add(name, self.folder / name, (), label, group=without_suffix(name))

    def report_unused(self) -> None:
        for table, lacking in self.lacking.items():
            if lacking:
                self.problem("tables without the columns that are needed", f"{table}: {lacking}")
        self.report_unused_audio()
        used = {(path.parent, path.suffix) for path in map(PurePosixPath, self.used)}
        for name in self.unused(self.sidecars):
            path = PurePosixPath(name)
            if (path.parent, path.suffix) in used:  # beside files that have captions
                self.problem("captions without audio", name)
