"""Embeddings of a folder in one file, safetensors or npz, to be searched later.

Both hold `embeddings` (rows, dim) float32 of length 1, `clip` (rows,) int32, `start` and `end`
(rows,) in seconds, `ids` the names of the clips, and `model`, the digest of the model.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AudioError
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.utils.files import replacing

SUFFIXES = (".safetensors", ".npz")
FORMAT = "audiotrain-clap-index"
ARRAYS = {"embeddings": np.float32, "clip": np.int32, "start": np.float32, "end": np.float32}


@dataclass(frozen=True)
class Index:
    """Embeddings (rows, dim); row r is `ids[clip[r]]` from `start[r]` to `end[r]` seconds."""

    embeddings: np.ndarray
    clip: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ids: list[str]
    model: str

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. ValueError when the file system refuses."""
        arrays = {
            name: np.ascontiguousarray(getattr(self, name), kind) for name, kind in ARRAYS.items()
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                if path.suffix == ".npz":
                    with open(partial, "wb") as file:
                        np.savez(file, **arrays, ids=np.array(self.ids), model=self.model)
                else:
                    meta = {"format": FORMAT, "model": self.model, "ids": json.dumps(self.ids)}
                    partial.write_bytes(save(arrays, meta))
        except OSError as error:
            raise ValueError(f"{path}: cannot write: {error.strerror or error}") from None

    @classmethod
    def read(cls, path: Path) -> "Index":
        """What `write` wrote. ValueError, one line, for any other file."""
        check_suffix(path, "--index")
        damaged = (
            SafetensorError, zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError,
        )  # fmt: skip
        try:
            found = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
            index = cls(**found)
            rows = len(index.embeddings)
            shapes = {name: getattr(index, name).shape for name in ("clip", "start", "end")}
            whole = index.embeddings.ndim == 2 and rows and set(shapes.values()) == {(rows,)}
            if not whole or not 0 <= index.clip.min() <= index.clip.max() < len(index.ids):
                raise ValueError(f"{index.embeddings.shape} embeddings for {shapes}")
        except OSError as error:
            why = error.strerror or error
            raise ValueError(f"--index {path}: {why}; `embed --output` writes one") from None
        except damaged as error:
            raise ValueError(f"{path}: not an index that `embed` wrote: {error}") from None
        return index


def build(
    embedder: Embedder, clips: Sequence[Clip], windows: bool, strict: bool = False
) -> tuple[Index, list[str]]:
    """An index of clips, a row for each window or each clip, and a line for each clip that is left
    out since it can't be read. ValueError when none can, or when `strict` and one cannot."""
    rows: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    problems: dict[int, str] = {}
    for number, found in embedder.each(clips, "embedding", strict):
        if isinstance(found, AudioError):
            problems[number] = str(found)
        else:
            rows[number] = (
                found if windows else (found.mean[None], found.starts[:1], found.ends[-1:])
            )
    order = sorted(rows)
    embeddings, starts, ends = (
        np.concatenate([rows[number][part] for number in order]) for part in range(3)
    )
    clip = np.repeat(np.arange(len(order)), [len(rows[number][0]) for number in order])
    ids = [clips[number].id for number in order]
    told = [problems[number] for number in sorted(problems)]
    return Index(embeddings, clip, starts, ends, ids, embedder.digest), told


def check_suffix(path: Path, flag: str) -> None:
    """ValueError naming the flag unless it is a format of an index."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{flag} {path}: found {path.suffix!r}, expected {' or '.join(SUFFIXES)}")


def _read_npz(path: Path) -> dict:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
        arrays = {name: found[name].astype(kind) for name, kind in ARRAYS.items()}
        return arrays | {"ids": found["ids"].tolist(), "model": str(found["model"])}


def _read_safetensors(path: Path) -> dict:
    with safe_open(str(path), "numpy") as found:
        meta = found.metadata() or {}
        if meta.get("format") != FORMAT:
            raise ValueError(f"format is {meta.get('format')!r}, expected {FORMAT!r}")
        arrays = {name: found.get_tensor(name).astype(kind) for name, kind in ARRAYS.items()}
        return arrays | {"ids": json.loads(meta["ids"]), "model": meta["model"]}
