"""A trained CLAP as a tool: embeddings of recordings of any length and of texts.

The same recording gives the same embedding (on a CPU bit for bit) whatever is embedded with it:
batches have one shape, the last one is padded, and rows do not depend on each other.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from tqdm import tqdm

from audiotrain.backend.ops import by_device, can_compile, even_batch
from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AudioError, AudioPath, TarMember
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.models.clap.model import CLAP
from audiotrain.models.clap.tokenizer import LENGTH, Tokenizer
from audiotrain.models.clap.weights import CONFIG, pretrained_folder
from audiotrain.recipes.clap.dataset import TOKEN_STEP
from audiotrain.recipes.clap.windows import read_windows
from audiotrain.train import checkpoint
from audiotrain.utils.cores import available_cores

MODEL = "model"  # where a run keeps the folder of its best weights
BATCH_ON_CPU, BATCH_ON_GPU = 4, 32  # windows; larger batches are no faster on a CPU
CAPTIONS = 8  # of a batch


class Spans(NamedTuple):
    """The windows of one clip: embeddings (windows, dim) of length 1, `starts` and `ends`
    (windows,) in seconds of the clip."""

    embeddings: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Embedding (dim,) of the whole clip, of length 1."""
        return _unit(self.embeddings.astype(np.float64).mean(axis=0)).astype(np.float32)


class EmbeddedClips(NamedTuple):
    """The clips that could be read, their embeddings (clips, dim) float32 of length 1 and lengths
    (clips,) in seconds, and a line for each clip that could not."""

    clips: list[Clip]
    embeddings: np.ndarray
    seconds: np.ndarray
    problems: list[str]


class Embedder:
    """A CLAP in eval mode with its tokenizer and front end.

    Recordings longer than the input are split into windows, each embedded as a short clip, also by
    models with fusion. `batch_size` windows, or a few more so that all cores have as many, are
    embedded at once, by default as many as suit the device; `workers` threads (None: one for each
    core) decode, which releases Python's lock: two do 1.9 times as much as one. `name` is
    what error messages call the model. An embedding does not depend in any bit on what is embedded
    with it (in the last bits, where OpenBLAS has only AVX2).

    >>> embedder = Embedder.from_folder("runs")  # doctest: +SKIP
    >>> embedder.text(["rain on a roof"]) @ embedder.audio(["rain.wav"], "listening").T
    ... # doctest: +SKIP
    array([[0.61]], dtype=float32)
    """

    def __init__(
        self,
        model: CLAP,
        tokenizer: Tokenizer,
        features: ClapFeatures,
        name: str = "model",
        batch_size: int | None = None,
        workers: int | None = None,
    ):
        if batch_size is None:
            batch_size = by_device(cpu=BATCH_ON_CPU, gpu=BATCH_ON_GPU)
        workers = available_cores() if workers is None else workers
        for setting, value in (("batch_size", batch_size), ("workers", workers)):
            if value < 1:
                raise ValueError(f"{setting}={value}, expected 1 or more")
        self.batch_size, self._captions = even_batch(batch_size), even_batch(CAPTIONS)
        self.model, self.tokenizer, self.features = model.eval(), tokenizer, features
        self.name, self.workers = name, workers
        _check_parts(self)
        self._embed_audio, self._embed_text = model.embed_audio, model.embed_text
        if can_compile():
            self._embed_audio = mx.compile(model.embed_audio, inputs=[model.state])
            self._embed_text = mx.compile(model.embed_text, inputs=[model.state])

    @classmethod
    def from_folder(
        cls,
        name: str | Path,
        batch_size: int | None = None,
        workers: int | None = None,
        setting: str = "--checkpoint",
    ) -> "Embedder":
        """The model of a run folder, of the newest run in a folder of runs, of a model folder
        (Hugging Face's), or of the hub (laion/clap-htsat-unfused).

        ValueError, one line, when there is none, which `setting` named, or a part of it is missing
        or damaged.
        """
        folder = model_folder(name, setting)
        model = CLAP.from_pretrained(folder)
        tokenizer = Tokenizer.read(folder, min(LENGTH, model.config.text_config.max_tokens))
        features = ClapFeatures(ClapFeatureSettings.read(folder))
        return cls(model, tokenizer, features, str(folder), batch_size, workers)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.model.config.projection_dim

    @cached_property
    def digest(self) -> str:
        """Hash, 16 characters, of all that embeddings of audio depend on: weights, sizes and front
        end."""
        described = [self.model.config.to_dict(), asdict(self.features.settings)]
        hashed = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8)
        for name, array in sorted(tree_flatten(self.model.parameters())):
            hashed.update(name.encode())
            hashed.update(np.ascontiguousarray(np.array(array.astype(mx.float32))))
        return hashed.hexdigest()

    def audio(self, clips: Iterable[Clip | AudioPath], what: str) -> np.ndarray:
        """Embeddings (clips, dim) float32 of length 1, with a progress bar that says `what`.

        AudioError, one line, for a clip that cannot be read.
        """
        return self.embed(clips, what, strict=True).embeddings

    def embed(
        self, clips: Iterable[Clip | AudioPath], what: str, strict: bool = False
    ) -> EmbeddedClips:
        """Embed all clips that can be read. ValueError when none can be read, or when `strict` and
        one cannot."""
        clips = [as_clip(clip) for clip in clips]
        if not clips:
            raise ValueError(f"{what}: no clips")
        embeddings = np.zeros((len(clips), self.width), np.float32)
        seconds = np.zeros(len(clips))
        problems: dict[int, str] = {}
        for number, spans in self.each(clips, what, strict):
            if isinstance(spans, AudioError):
                problems[number] = str(spans)
            else:
                embeddings[number], seconds[number] = spans.mean, spans.ends[-1]
        kept = [number for number in range(len(clips)) if number not in problems]
        return EmbeddedClips(
            [clips[number] for number in kept],
            embeddings[kept],
            seconds[kept],
            [problems[number] for number in sorted(problems)],
        )

    def each(
        self, clips: Sequence[Clip], what: str, strict: bool = False
    ) -> Iterator[tuple[int, Spans | AudioError]]:
        """The number of a clip with its windows, or with the error of a clip that cannot be read,
        in the order in which they are done.

        Memory does not depend on the lengths of the clips, but for their embeddings. ValueError
        when no clip can be read, or when `strict` and one cannot.
        """
        errors: list[AudioError] = []
        for number, result in self.spans(clips, what):
            if isinstance(result, AudioError):
                if strict:
                    raise result
                errors.append(result)
                if len(errors) == len(clips):
                    raise ValueError(f"none of {len(errors)} recordings can be read: {errors[0]}")
            yield number, result

    def spans(self, clips: Sequence[Clip], what: str) -> Iterator[tuple[int, Spans | AudioError]]:
        """`each` without its ValueErrors."""
        done: dict[int, list[tuple[np.ndarray, float, float]]] = defaultdict(list)
        waiting: list = []  # events whose windows are not embedded yet

        def flush() -> Iterator[tuple[int, Spans | AudioError]]:
            mels = [event.window.mel for event in waiting if event.window]
            rows = iter(self._batch(mels) if mels else ())
            for number, window, error in waiting:
                if window is not None:
                    done[number].append((self._finite(next(rows), clips[number]), *window[1:]))
                    continue
                spans = done.pop(number, [])
                yield number, error or Spans(*map(np.stack, zip(*spans, strict=True)))
            waiting.clear()

        with _progress(clips, what) as bar:
            full = 0
            for event in read_windows(clips, self.features, self.workers, 2 * self.batch_size):
                waiting.append(event)
                full += event.window is not None
                if event.window:
                    bar.advance(event.window.end - event.window.start)
                if full == self.batch_size or not full:
                    yield from flush()
                    full = 0
            yield from flush()

    def text(self, captions: Sequence[str]) -> np.ndarray:
        """Embeddings (captions, dim) float32 of length 1. ValueError for an empty caption.

        Captions are cut to the tokenizer's number of tokens.
        """
        for number, caption in enumerate(captions):
            if not caption.strip():
                raise ValueError(f"caption {number + 1} of {len(captions)} is empty, expected text")
        ids, mask = self.tokenizer(captions)
        lengths = -(-mask.sum(axis=1) // TOKEN_STEP) * TOKEN_STEP
        lengths = np.minimum(lengths, ids.shape[1])
        embeddings = np.zeros((len(captions), self.width), np.float32)
        with tqdm(
            desc="captions", total=len(captions), unit="caption", delay=2, leave=False
        ) as bar:
            for length in np.unique(lengths):
                same_length = np.flatnonzero(lengths == length)
                for first in range(0, len(same_length), self._captions):
                    rows = same_length[first : first + self._captions]
                    padded = np.resize(rows, self._captions)  # one shape: rows are repeated
                    tokens = [mx.array(array[padded, :length]) for array in (ids, mask)]
                    embeddings[rows] = np.array(self._embed_text(*tokens))[: len(rows)]
                    bar.update(len(rows))
        if not np.isfinite(embeddings).all():
            raise ValueError(f"{self.name}: gives embeddings of text that are not finite")
        return embeddings

    def _batch(self, mels: list[np.ndarray]) -> np.ndarray:
        """Embeddings (windows, dim) of up to `batch_size` log-mels (1, frames, mels)."""
        batch = np.zeros((self.batch_size, *mels[0].shape), np.float32)
        batch[: len(mels)] = mels
        return np.array(self._embed_audio(mx.array(batch)))[: len(mels)]

    def _finite(self, row: np.ndarray, clip: Clip) -> np.ndarray:
        if not np.isfinite(row).all():
            raise ValueError(f"{self.name}: the embedding of {clip.id} is not finite")
        return row


def model_folder(name: str | Path, setting: str = "--checkpoint") -> Path:
    """The folder with the model that `name` means; see Embedder.from_folder."""
    folder = Path(name).expanduser()
    for place in (folder, folder / MODEL):
        if (place / CONFIG).is_file():
            return place
    runs = sorted(folder.glob(f"*/{MODEL}/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    if runs:
        return runs[-1].parent
    if checkpoint.exists(folder / "checkpoints" / "best"):
        raise ValueError(
            f"{setting} {name}: a run that was stopped, without a model yet: --output {name} "
            f"--resume finishes it, `export --checkpoint {name} --output FOLDER` writes its best"
        )
    if folder.is_dir() or "/" not in str(name):
        raise ValueError(
            f"{setting} {name}: found no {CONFIG} of a model and no trained run there; "
            "`python -m audiotrain.recipes.clap` trains one"
        )
    return pretrained_folder(name)


def as_clip(clip: Clip | AudioPath) -> Clip:
    """A recording as a clip without captions; a clip as it is."""
    if isinstance(clip, Clip):
        return clip
    return Clip(str(clip), clip if isinstance(clip, TarMember) else Path(clip), ())


def _check_parts(embedder: Embedder) -> None:
    """ValueError when tokenizer or front end belong to another model."""
    config, settings = embedder.model.config, embedder.features.settings
    embedder.tokenizer.check(config.text_config.vocab_size)
    sizes = config.audio_config
    if settings.mels != sizes.num_mel_bins or settings.frames > sizes.frames:
        raise ValueError(
            f"{embedder.name}: the front end gives {settings.frames} frames of {settings.mels} "
            f"mels, but the model takes up to {sizes.frames} of {sizes.num_mel_bins}: they belong "
            "to different checkpoints"
        )


class _Minutes(tqdm):
    """A progress bar of minutes."""

    def advance(self, seconds: float) -> None:
        """Add seconds; windows may overlap, so never beyond the total."""
        self.update(min(seconds / 60, self.total - self.n))


def _progress(clips: Sequence[Clip], what: str) -> _Minutes:
    total = 0.0
    for clip in clips:
        try:
            total += clip.seconds
        except AudioError:  # reported when it is read
            continue
    terminal = sys.stderr.isatty()
    return _Minutes(
        desc=what, total=total / 60, mininterval=0.1 if terminal else 20, ascii=not terminal,
        dynamic_ncols=terminal, ncols=None if terminal else 80,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} min "
        "[{elapsed}<{remaining}]",
    )  # fmt: skip


def _unit(x: np.ndarray) -> np.ndarray:
    return x / max(float(np.linalg.norm(x)), 1e-12)
