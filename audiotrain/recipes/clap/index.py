"""Embeddings of a folder in one file, safetensors or npz, to be searched later.

Both hold `embeddings` (rows, dim) float32 of length 1, `clip` (rows,) int32, `start` and `end`
(rows,) in seconds, `ids` the names of the clips, `model`, the digest of the model, and
`checkpoint`, where it is: a folder or an id of Hugging Face's hub ("" in files of before).
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from audiotrain.recipes.clap.embedder import EmbeddedClips, Embedder, Spans
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, write
from audiotrain.utils.text import shown

FORMAT = "audiotrain-clap-index"
ARRAYS = {"embeddings": np.float32, "clip": np.int32, "start": np.float32, "end": np.float32}
DAMAGED = (
    *(SafetensorError, zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError),
    *(RuntimeError, MemoryError, zlib.error),  # a compression or a size that no file of ours has
)


@dataclass(frozen=True)
class Index:
    """Embeddings (rows, dim); row r is `ids[clip[r]]` from `start[r]` to `end[r]` seconds."""

    embeddings: np.ndarray
    clip: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ids: list[str]
    model: str
    checkpoint: str = ""

    @classmethod
    def of(cls, embedded: EmbeddedClips, windows: bool, embedder: Embedder) -> "Index":
        """A row for each window of the clips, or for each clip, that `embedder` embedded."""
        spans = embedded.spans
        if not windows:
            spans = [Spans(one.mean[None], one.starts[:1], one.ends[-1:]) for one in spans]
        arrays = zip(*(one[:3] for one in spans), strict=True)
        embeddings, starts, ends = map(np.concatenate, arrays)
        clip = np.repeat(np.arange(len(spans)), [len(one.starts) for one in spans])
        ids = [one.id for one in embedded.clips]
        return cls(embeddings, clip, starts, ends, ids, embedder.digest, embedder.checkpoint)

    def parts(self) -> Iterator[tuple[str, Spans]]:
        """The name and the windows of each clip."""
        order = np.argsort(self.clip, kind="stable")
        bounds = np.searchsorted(self.clip[order], np.arange(1, len(self.ids)))
        for name, rows in zip(self.ids, np.split(order, bounds), strict=True):
            yield name, Spans(self.embeddings[rows], self.start[rows], self.end[rows])

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. ValueError when the file system refuses."""
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(self, name), kind) for name, kind in ARRAYS.items()
        }
        if path.suffix == ".npz":
            content = io.BytesIO()
            arrays |= {"ids": np.array(self.ids), "model": self.model}
            np.savez(content, **arrays, checkpoint=self.checkpoint)
            write(path, content.getvalue())
        else:
            meta = {"format": FORMAT, "model": self.model, "checkpoint": self.checkpoint}
            write(path, save(arrays, meta | {"ids": json.dumps(self.ids)}))

    @classmethod
    def read(cls, path: Path) -> "Index":
        """The index in a file of `write`. ValueError, one line, for any other file."""
        try:
            index = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
            rows = len(index.embeddings)
            shapes = {name: getattr(index, name).shape for name in ("clip", "start", "end")}
            whole = index.embeddings.ndim == 2 and rows and set(shapes.values()) == {(rows,)}
            if not whole or not 0 <= index.clip.min() <= index.clip.max() < len(index.ids):
                raise UserError(f"{index.embeddings.shape} embeddings for {shapes}")
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"--index {path}: {why}; `embed --output` writes one") from None
        except DAMAGED as error:
            reason = shown(str(error))
            raise UserError(f"{path}: not an index that `embed` wrote: {reason}") from None
        return index


def _read_npz(path: Path) -> Index:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name].astype(kind) for name, kind in ARRAYS.items()}
        checkpoint = str(content["checkpoint"]) if "checkpoint" in content else ""
        return Index(
            **arrays,
            ids=content["ids"].tolist(),
            model=str(content["model"]),
            checkpoint=checkpoint,
        )


def _read_safetensors(path: Path) -> Index:
    with safe_open(str(path), "numpy") as content:
        meta = content.metadata() or {}
        if meta.get("format") != FORMAT:
            raise UserError(f"format is {meta.get('format')!r}, expected {FORMAT!r}")
        arrays = {name: content.get_tensor(name).astype(kind) for name, kind in ARRAYS.items()}
        ids, checkpoint = parse_json(meta["ids"]), meta.get("checkpoint", "")
        return Index(**arrays, ids=ids, model=meta["model"], checkpoint=checkpoint)
