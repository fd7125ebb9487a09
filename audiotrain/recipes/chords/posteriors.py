"""What the models of a cross-validation predict for the songs that they were not trained on.

FOLDER/oof/K-N.npz   log-probabilities of a song by the model of fold K, and its classes
FOLDER/oof/K.json    which file is whose, once fold K is done
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiotrain.recipes.chords.decoding import heads_of
from audiotrain.recipes.chords.songs import Song
from audiotrain.train import crossval
from audiotrain.utils.files import write, write_json


class Posteriors:
    """The log-probabilities of one fold's songs, a file each, under a cross-validation's folder."""

    def __init__(self, folder: Path, k: int):
        self.folder, self.k = folder / "oof", k
        self._files: dict[str, str] = {}  # by song

    def save(self, song: Song, posteriors: np.ndarray) -> None:
        """Keep a song's log-probabilities (frames, 385), by head (frames, 56), and its classes
        (frames, 3)."""
        buffer, heads = io.BytesIO(), heads_of(posteriors)
        np.savez_compressed(
            buffer, log_probabilities=heads.astype(np.float16), classes=song.classes, song=song.name
        )
        file = f"{self.k}-{len(self._files):05d}.npz"
        write(self.folder / file, buffer.getvalue())
        self._files[song.name] = file

    def finish(self) -> None:
        """Write which file is whose; after that the fold is done."""
        write_json(self.folder / f"{self.k}.json", self._files)

    @staticmethod
    def is_done(folder: Path, k: int) -> bool:
        """Whether all songs of a fold are there."""
        return (folder / "oof" / f"{k}.json").is_file()


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
