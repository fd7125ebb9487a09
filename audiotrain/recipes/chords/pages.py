"""Pages of recognised songs, each with links to its neighbours, and their index."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from audiotrain.evaluation.song_page import index, song, sound
from audiotrain.evaluation.song_page.song import Neighbours, Song
from audiotrain.features.tags import Tags, read_tags
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write, writing
from audiotrain.utils.text import clock

if TYPE_CHECKING:
    from audiotrain.recipes.chords.predictor import Prediction

SOUND_SUFFIX = ".mpga"  # MP3 by another name, so that no command takes it for a recording

FRAME_MEGABYTES = 20.0  # of sound in a notebook


class Page(NamedTuple):
    """A page to write: its file, the recording's, and the song."""

    path: Path
    source: Path
    song: Song


class PageWriter:
    """Writes a page for each song that is added, once its neighbours are known.

    `index` is the file of the list of all songs, or None for pages without one; `megabytes` of
    sound are embedded in a page, longer sound is a file beside it. `waiting` has the pages that are
    still to be written, `failed` a line for each file that could not be.
    """

    def __init__(self, index: Path | None, megabytes: float):
        self._index, self._megabytes = index, megabytes
        self._pages: list[Page] = []
        self.waiting: set[Path] = set()
        self.failed: dict[Path, str] = {}

    def add(self, path: Path, source: Path, prediction: "Prediction", tags: Tags) -> None:
        """Add the page `path` of a recording, and write the one before."""
        self._pages.append(Page(path, source, song_of(prediction, source.stem, tags)))
        self.waiting.add(path)
        if len(self._pages) > 1:
            self._write(len(self._pages) - 2)

    def close(self) -> list[Path]:
        """Write the last page and the index of the pages that are there; the index's file, if there
        is one."""
        if self._pages:
            self._write(len(self._pages) - 1)
        self._pages = [page for page in self._pages if page.path not in self.failed]
        if self._index is None or not self._pages:
            return []
        addresses = [address(page.path, self._index) for page in self._pages]
        songs = [replace(page.song, title=title) for page, title in self._titles(self._index)]
        try:
            write(self._index, index.page(songs, addresses))
        except UserError as error:
            self.failed[self._index] = str(error)
            return []
        return [self._index]

    def _titles(self, index: Path) -> Iterator[tuple[Page, str]]:
        """Each page with its title in the index: the song's, or its path from there where several
        songs of one artist have that title."""
        names = [(page.song.title, page.song.artist) for page in self._pages]
        counts = Counter(names)
        for page, name in zip(self._pages, names, strict=True):
            title = page.song.title
            if counts[name] > 1:
                title = Path(os.path.relpath(page.path, index.parent)).with_suffix("").as_posix()
            yield page, title

    def _write(self, number: int) -> None:
        path = self._pages[number].path
        try:
            with writing(path):
                self._write_page(number)
        except UserError as error:  # a full disk, or sound that cannot be read again
            self.failed[path] = str(error)
        self.waiting.discard(path)

    def _write_page(self, number: int) -> None:
        path, source, about = self._pages[number]
        beside = path.with_suffix(SOUND_SUFFIX)
        found = sound.for_page(source, sound.RATE, about.seconds, self._megabytes, beside)
        write(path, song.page(about, found, self._neighbours(number)))
        if not sound.fits(about.seconds, self._megabytes):
            print(f"{path}: its sound is in {beside.name}; keep both files in one folder")

    def _neighbours(self, number: int) -> Neighbours:
        path = self._pages[number].path
        if self._index is None:
            return song.NOBODY
        before, after = self._pages[:number][-1:], self._pages[number + 1 :][:1]
        return Neighbours(
            previous="".join(address(page.path, path) for page in before),
            next="".join(address(page.path, path) for page in after),
            index=address(self._index, path),
        )


def song_of(prediction: "Prediction", name: str, tags: Tags) -> Song:
    """A prediction as a page shows it, for a recording of that `name`, which is its title where the
    tags have none."""
    return Song(
        tags.title or name,
        prediction.segments,
        prediction.seconds,
        prediction.confidences,
        prediction.beats,
        prediction.key,
        tags.artist,
        name,
    )


class NotebookPage:
    """A song's page inside an element that a notebook shows."""

    def __init__(self, frame: str):
        self._frame = frame

    def _repr_html_(self) -> str:
        return self._frame

    def __repr__(self) -> str:
        return f"<the page of a song for a notebook, {len(self._frame) / 1e6:.1f} MB>"


def notebook_page(prediction: "Prediction", audio: bool) -> NotebookPage:
    """A prediction's page, with or without its sound; AudioError and UserError as in
    `Prediction.show`."""
    source = prediction.source
    tags = Tags() if source is None else read_tags(source)
    about = song_of(prediction, source.stem if source else "Song", tags)
    if not audio:
        return NotebookPage(song.frame(song.page(about)))
    if source is None:
        raise UserError("audio=True: the prediction is of samples, expected one of a file")
    if not sound.fits(about.seconds, FRAME_MEGABYTES):
        raise UserError(
            f"{source}: audio=True: its {clock(round(about.seconds))} take more than "
            f"{FRAME_MEGABYTES:g} MB; `audiotrain chords predict --formats html` writes sound "
            "beside a page"
        )
    found = sound.for_page(source, sound.RATE, about.seconds, FRAME_MEGABYTES, source)
    return NotebookPage(song.frame(song.page(about, found)))


def index_of(paths: Sequence[Path], output: Path | None) -> Path | None:
    """The file of the index of several pages, in `output` or the folder that has all of them; None
    for a single page."""
    if len(paths) < 2:
        return None
    folder = output or Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    return folder / "index.html"


def address(path: Path, seen_from: Path) -> str:
    """A file as a link in another one."""
    return quote(Path(os.path.relpath(path, seen_from.parent)).as_posix())
