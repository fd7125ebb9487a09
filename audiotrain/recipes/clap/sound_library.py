"""A folder of recordings, searched by words or by sound."""

import contextlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.datasets.paths import recordings
from audiotrain.features.audio import AudioPath
from audiotrain.recipes.clap.embedder import Embedder, Spans
from audiotrain.recipes.clap.embedding_store import EmbeddingStore
from audiotrain.recipes.clap.settings import CACHE
from audiotrain.utils.errors import UserError

SAME = 0.999  # cosine of a recording's embeddings by two runs


class Match(NamedTuple):
    """A window of a recording: its rank from 1 on, its cosine with the query, the recording's path
    in the folder, and the window's seconds of it."""

    rank: int
    cosine: float
    file: str
    start: float
    end: float


class SoundLibrary:
    """The recordings of a folder at any depth, also in tars; or of one file.

    `embedder` is a model, or a function that loads one, by default the released CLAP.
    Embeddings are kept in the folder `cache` and found by the content of the files: each search
    embeds what is new, with a progress bar, and nothing twice, whether files were renamed or moved.
    Memory does not depend on the number and the lengths of recordings. `problems` has a line for
    each recording that could not be read at the last search, `incomplete` one for each of which a
    part could not be decoded, unless `strict`, which raises the first one. ValueError when the
    folder has no audio.

    >>> library = SoundLibrary("sounds")  # doctest: +SKIP
    >>> library.search("rain on a roof", top=1)  # doctest: +SKIP
    [Match(rank=1, cosine=0.61, file='weather/shed.wav', start=20.0, end=30.0)]
    >>> library.search(audio="door.wav")  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        embedder: Embedder | Callable[[], Embedder] | None = None,
        cache: str | Path = CACHE,
        strict: bool = False,
    ):
        self.folder, self.cache, self.strict = Path(folder).expanduser(), Path(cache), strict
        self.problems: list[str] = []
        self.incomplete: list[str] = []
        self.size = len(recordings(self.folder, []))  # refused before a model is loaded
        embedder = embedder or Embedder.pretrained
        self.embedder = embedder if isinstance(embedder, Embedder) else embedder()

    def search(
        self,
        query: str | None = None,
        audio: AudioPath | None = None,
        top: int = 10,
        per_file: int | None = None,
    ) -> list[Match]:
        """The `top` windows nearest to words, or to a recording, best first.

        At most `per_file` windows of one recording, by default 1, or any number where there is only
        one recording. ValueError when no recording can be read, and unless either words or audio
        are given. A recording that is searched for is not among the results, unless it is the only
        one.
        """
        vector = query_vector(self.embedder, query, audio)
        with contextlib.closing(EmbeddingStore(self.cache, self.embedder)) as store:
            self.problems = []
            clips = recordings(self.folder, self.problems)
            found, problems, self.incomplete = store.update(clips, "embedding", self.strict)
            self.size, self.problems = len(clips), self.problems + problems
            if audio is not None:
                own = os.path.realpath(str(audio))
                found = [pair for pair in found if _path(pair[0]) != own] or found
            parts = ((clip.id, store.spans(key)) for clip, key in found)
            return nearest(parts, vector, top, per_file or (1 if len(found) > 1 else top))


def _path(clip: Clip) -> str:
    return os.path.realpath(str(clip.audio))


def others(
    parts: Iterable[tuple[str, Spans]], audio: AudioPath, vector: np.ndarray
) -> list[tuple[str, Spans]]:
    """Return the parts of an index without the recording `audio`, whose embedding is `vector`
    (dim,): the one whose name is the end of its path, and whose windows are like it."""
    path = Path(os.path.realpath(str(audio))).as_posix()

    def is_own(name: str, spans: Spans) -> bool:
        mean = spans.embeddings.mean(axis=0)
        is_alike = float(mean @ vector) > SAME * float(np.linalg.norm(mean))
        return f"/{path}".endswith(f"/{name}") and is_alike

    parts = list(parts)
    return [part for part in parts if not is_own(*part)] or parts


def query_vector(embedder: Embedder, query: str | None, audio: AudioPath | None) -> np.ndarray:
    """Embedding (dim,) of words or of a recording. ValueError unless it is one of them."""
    if (query is None) == (audio is None):
        raise UserError("expected words to search for, or audio, and not both")
    if audio is not None:
        return embedder.audio([audio], "query")[0]
    return embedder.text([str(query)])[0]


def nearest(
    parts: Iterable[tuple[str, Spans]], vector: np.ndarray, top: int, per_file: int
) -> list[Match]:
    """The `top` windows with the largest cosine with `vector` (dim,), at most `per_file` of a
    recording; `parts` are recordings by name, with windows. The earlier one of two equals is first.
    """

    def windows() -> Iterator[tuple[float, str, float, float]]:
        for name, spans in parts:
            cosines = spans.embeddings @ vector
            for row in np.argsort(-cosines, kind="stable")[:per_file]:
                yield float(cosines[row]), name, float(spans.starts[row]), float(spans.ends[row])

    best = heapq.nlargest(top, windows(), key=lambda window: window[0])
    return [Match(rank, *window) for rank, window in enumerate(best, 1)]
