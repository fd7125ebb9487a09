"""A trained CLAP as a tool: embeddings of recordings of any length and of texts.

The same recording gives the same embedding (on a CPU bit for bit, but for OpenBLAS by AVX2)
whatever is embedded with it: batches have one shape, the last one is padded, and rows do not depend
on each other.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from audiotrain.backend.ops import by_device, can_compile, even_batch
from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AudioError, AudioPath, TarMember, as_error
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.models.clap.model import CLAP
from audiotrain.models.clap.tokenizer import LENGTH, Tokenizer
from audiotrain.models.clap.weights import (
    CONFIG,
    RELEASED,
    is_hub_id,
    pretrained_folder,
    refuse_partial,
    values_digest,
)
from audiotrain.recipes.clap.dataset import TOKEN_STEP
from audiotrain.recipes.clap.windows import Event, read_windows
from audiotrain.recipes.common.checkpoints import recipe_of
from audiotrain.recipes.common.split import none_readable
from audiotrain.train import checkpoint
from audiotrain.utils.arrays import l2_normalize
from audiotrain.utils.cores import available_cores
from audiotrain.utils.errors import UserError
from audiotrain.utils.progress import output, progress

MODEL = "model"  # folder in a run, with its best weights
BATCH_ON_CPU, BATCH_ON_GPU = 4, 32  # windows; larger batches are no faster on a CPU
CAPTIONS = 8  # of a batch


class Spans(NamedTuple):
    """The windows of one clip: embeddings (windows, dim) of length 1, `starts` and `ends`
    (windows,) in seconds of the clip; `missing` says what could not be decoded of it."""

    embeddings: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    missing: str = ""

    @property
    def mean(self) -> np.ndarray:
        """Embedding (dim,) of the whole clip, of length 1."""
        return l2_normalize(self.embeddings.astype(np.float64).mean(axis=0)).astype(np.float32)


@dataclass(frozen=True)
class EmbeddedClips:
    """The clips that could be read, the windows of each, a line for each clip that could not, and
    one for each of which a part could not be decoded."""

    clips: list[Clip]
    spans: list[Spans]
    problems: list[str]
    incomplete: list[str] = field(default_factory=list)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(clips, dim) float32 of length 1."""
        return np.stack([windows.mean for windows in self.spans])

    @property
    def seconds(self) -> np.ndarray:
        """Lengths (clips,)."""
        return np.array([windows.ends[-1] for windows in self.spans])


class Embedder:
    """A CLAP in eval mode with its tokenizer and front end.

    Recordings longer than the input are split into windows, each embedded as a short clip, also by
    models with fusion. `batch_size` windows, or a few more so that all cores have as many, are
    embedded at once, by default as many as suit the device; `workers` threads (None: one for each
    core) decode, which releases Python's lock: two do 1.9 times as much as one. `name`
    stands for the model in error messages; `checkpoint` is what `from_folder` takes for the same
    model, "" where it is from elsewhere. An embedding does not depend on the other clips of its
    batch (but for the last bits, where OpenBLAS has only AVX2). ValueError for a `batch_size` or
    `workers` below 1, and where tokenizer or front end do not fit the model.

    >>> embedder = Embedder.pretrained()  # doctest: +SKIP
    >>> embedder.text(["rain on a roof"]) @ embedder.audio(["rain.wav"], "embedding").T
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
                raise UserError(f"{setting}={value}, expected 1 or more")
        self.batch_size, self._captions = even_batch(batch_size), even_batch(CAPTIONS)
        self.model, self.tokenizer, self.features = model.eval(), tokenizer, features
        self.name, self.checkpoint, self.workers = name, "", workers
        self.tokenizer.check(model.config.text_config.vocab_size)
        self.features.settings.check(model.config.audio_config, name)
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
        refuse_partial(name, folder)
        model = CLAP.from_pretrained(folder)
        tokenizer = Tokenizer.read(folder, min(LENGTH, model.config.text_config.max_tokens))
        features = ClapFeatures(ClapFeatureSettings.read(folder))
        embedder = cls(model, tokenizer, features, str(folder), batch_size, workers)
        embedder.checkpoint = str(name) if is_hub_id(name) else os.path.abspath(folder)
        return embedder

    @classmethod
    def pretrained(cls) -> "Embedder":
        """The CLAP laion/clap-htsat-unfused of Hugging Face's hub, about 600 MB that are fetched
        once. ValueError, one line, when it cannot be fetched."""
        return cls.from_folder(RELEASED)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.model.config.projection_dim

    @cached_property
    def digest(self) -> str:
        """Hash, 16 characters, of all that embeddings of audio depend on: weights, sizes and front
        end."""
        settings = [self.model.config.to_dict(), asdict(self.features.settings)]
        return values_digest(self.model, json.dumps(settings, sort_keys=True), size=8)

    def audio(self, clips: Iterable[Clip | AudioPath], what: str) -> np.ndarray:
        """Embeddings (clips, dim) float32 of length 1, with a progress bar titled `what`.

        AudioError, one line, for a clip that cannot be read; ValueError for no clips, and for an
        embedding that is not finite.
        """
        return self.embed(clips, what, strict=True).embeddings

    def embed(
        self, clips: Iterable[Clip | AudioPath], what: str, strict: bool = False
    ) -> EmbeddedClips:
        """Embed all clips that can be read. Memory does not depend on their lengths, but for the
        embeddings of their windows. ValueError when none can be read, or when `strict` and one
        cannot, and for an embedding that is not finite."""
        all_clips = [as_clip(clip) for clip in clips]
        if not all_clips:
            raise UserError(f"{what}: no clips")
        results: dict[int, Spans | AudioError] = {}
        for number, result in self.spans(all_clips, what):
            if strict and isinstance(result, AudioError):
                raise result
            if strict and isinstance(result, Spans) and result.missing:
                raise AudioError(as_error(f"{all_clips[number].audio}: {result.missing}"))
            results[number] = result
        in_order = [(clip, results[number]) for number, clip in enumerate(all_clips)]
        problems = [str(result) for _, result in in_order if isinstance(result, AudioError)]
        read = [(clip, result) for clip, result in in_order if isinstance(result, Spans)]
        if not read:
            raise UserError(none_readable(problems, "recordings"))
        incomplete = [f"{clip.audio}: {spans.missing}" for clip, spans in read if spans.missing]
        clips_read, spans_read = [clip for clip, _ in read], [spans for _, spans in read]
        return EmbeddedClips(clips_read, spans_read, problems, incomplete)

    def spans(self, clips: Sequence[Clip], what: str) -> Iterator[tuple[int, Spans | AudioError]]:
        """The number of a clip with its windows, or with the error of a clip that cannot be read,
        in the order in which they are done; with a progress bar titled `what`. ValueError for an
        embedding that is not finite."""
        done: dict[int, list[tuple[np.ndarray, float, float]]] = defaultdict(list)
        waiting: list[Event] = []  # whose windows are not embedded yet

        def flush() -> Iterator[tuple[int, Spans | AudioError]]:
            mels = [event.window.mel for event in waiting if event.window]
            rows = iter(self._batch(mels) if mels else ())
            for number, window, error, missing in waiting:
                if window is not None:
                    row = next(rows)
                    if not np.isfinite(row).all():
                        raise UserError(
                            f"{self.name}: the embedding of {clips[number].id} is not finite"
                        )
                    done[number].append((row, window.start, window.end))
                    continue
                windows = done.pop(number, [])
                if error is not None:
                    yield number, error
                    continue
                vectors, starts, ends = map(np.stack, zip(*windows, strict=True))
                yield number, Spans(vectors, starts, ends, missing)
            waiting.clear()

        total = sum(map(_seconds, clips))
        with progress(None, what, total, " s") as bar:
            full = 0
            for event in read_windows(clips, self.features, self.workers, 2 * self.batch_size):
                waiting.append(event)
                if event.window:
                    full += 1  # windows may overlap
                    bar.update(min(event.window.end - event.window.start, total - bar.n))
                if full == self.batch_size or not full:
                    yield from flush()
                    full = 0
            yield from flush()

    def text(self, captions: Sequence[str]) -> np.ndarray:
        """Embeddings (captions, dim) float32 of length 1. ValueError for an empty caption, and for
        an embedding that is not finite.

        Captions are cut to the tokenizer's number of tokens.
        """
        for number, caption in enumerate(captions):
            if not caption.strip():
                raise UserError(f"caption {number + 1} of {len(captions)} is empty, expected text")
        ids, mask = self.tokenizer(captions)
        lengths = -(-mask.sum(axis=1) // TOKEN_STEP) * TOKEN_STEP
        lengths = np.minimum(lengths, ids.shape[1])
        embeddings = np.zeros((len(captions), self.width), np.float32)
        with tqdm(
            desc="captions",
            total=len(captions),
            unit="caption",
            delay=2,
            leave=False,
            file=output(),
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
            raise UserError(f"{self.name}: gives embeddings of text that are not finite")
        return embeddings

    def _batch(self, mels: list[np.ndarray]) -> np.ndarray:
        """Embeddings (windows, dim) of up to `batch_size` log-mels (1, frames, mels)."""
        batch = np.zeros((self.batch_size, *mels[0].shape), np.float32)
        batch[: len(mels)] = mels
        return np.array(self._embed_audio(mx.array(batch)))[: len(mels)]


def model_folder(name: str | Path, setting: str = "--checkpoint") -> Path:
    """The model folder of `name`; see Embedder.from_folder."""
    folder = Path(name).expanduser()
    for candidate in (folder, folder / MODEL):
        if (candidate / CONFIG).is_file():
            return candidate
    runs = sorted(folder.glob(f"*/{MODEL}/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    if runs:
        return runs[-1].parent
    if checkpoint.exists(folder / "checkpoints" / "best"):
        if (recipe := recipe_of(folder)) not in ("clap", None):
            raise UserError(f"{setting} {name}: a run of {recipe}, expected one of clap")
        raise UserError(
            f"{setting} {name}: a run that was stopped, without a model yet: --output {name} "
            f"--resume finishes it, `export --checkpoint {name} --output FOLDER` writes its best"
        )
    if folder.is_dir() or "/" not in str(name):
        raise UserError(
            f"{setting} {name}: found no {CONFIG} of a model and no trained run there; "
            "`python -m audiotrain.recipes.clap` trains one"
        )
    return pretrained_folder(name)


def as_clip(clip: Clip | AudioPath) -> Clip:
    """A recording as a clip without captions; a clip as it is."""
    if isinstance(clip, Clip):
        return clip
    return Clip(str(clip), clip if isinstance(clip, TarMember) else Path(clip), ())


def _seconds(clip: Clip) -> float:
    try:
        return clip.seconds
    except AudioError:  # reported when it is read
        return 0.0
