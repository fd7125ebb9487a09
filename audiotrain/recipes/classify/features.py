"""The input features of clip classifiers, extracted once and kept on disk.

They are log-mel spectrograms (frames, mels) float32 in dB of whole clips, or embeddings (width,).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.config.schema import Positive, validated
from audiotrain.datasets.items import Clip
from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features.audio import AudioError, Gathered
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.common.preparation import fill_cache, prepare
from audiotrain.recipes.common.split import Incomplete
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

# Words for --input.embeddings: statistics of the mels, which need no network; what
# `baseline.decide` decides once the clips are read, by their number.
STATISTICS, AUTO = "statistics", "auto"


@validated(kw_only=True)
class InputSettings:
    """The input of a classifier."""

    features: ClapFeatureSettings = ClapFeatureSettings(
        rate=24000, hop=480, fmax=12000, seconds=5.1
    )
    """log-mel spectrogram; `seconds` is the length of a model's input window"""
    floor: float = -60.0
    """dB below which a spectrogram is clipped"""
    longest: Positive = 60.0
    """seconds of a clip that are used, from its beginning"""
    embeddings: str | None = AUTO
    """what the model gets: none, the log-mel spectrogram; "statistics" of it; embeddings of a CLAP
    (run folder, model folder or hub id); auto: statistics where there are few training clips, else
    none"""


class ExtractedClip(NamedTuple):
    """A clip with its log-mel spectrogram (frames, mels) or its embedding (width,)."""

    clip: Clip
    features: np.ndarray


class ClipFeatures:
    """Extracts the features of clips with `workers` processes or threads (None: one for each
    core), and keeps them in the folder `cache`."""

    def __init__(self, settings: InputSettings, cache: Path, workers: int | None = None):
        self.settings = settings
        self.workers = None if workers is None else max(1, workers)
        self.features = ClapFeatures(settings.features)
        self._mels = FeatureCache(cache / "mels", np.float16)
        self._vectors = FeatureCache(cache / "vectors")
        self._embedder: Embedder | None = None

    def extract(
        self, clips: Sequence[Clip], ranks: SingleProcess | None = None
    ) -> list[ExtractedClip | str | Incomplete]:
        """Each clip with its features, marked where a part of it cannot be decoded, or a line that
        says why it cannot be read. The features are
        computed on all cores, and shared out over the `ranks`."""
        ranks = ranks or SingleProcess()
        results: Sequence[np.ndarray | str]
        if self.settings.embeddings in (None, STATISTICS, AUTO):
            problems = prepare(
                self._problem,
                clips,
                "reading",
                name=lambda clip: clip.id,
                caches=[self._mels],
                workers=self.workers,
                ranks=ranks,
            )
            pairs = zip(clips, problems, strict=True)
            results = [problem or self._read(clip) for clip, problem in pairs]
        else:
            results = self._embed(clips, self.settings.embeddings, ranks)
        return [
            result if isinstance(result, str) else self._whole(ExtractedClip(clip, result))
            for clip, result in zip(clips, results, strict=True)
        ]

    def _whole(self, extracted: ExtractedClip) -> ExtractedClip | Incomplete:
        """A clip with its features, marked where a part of it could not be decoded."""
        clip, missing = extracted.clip, Gathered()
        if isinstance(clip.audio, Scene):
            return extracted

        def text() -> str:
            clip.read(self.settings.features.rate, 0.0, self.settings.longest, missing)
            return missing.text

        line = self._mels.text(*clip.cache_key(), text)
        return Incomplete(extracted, f"{clip.audio}: {line}") if line else extracted

    def mel(self, clip: Clip) -> np.ndarray:
        """(frames, mels) of the whole clip, read-only. AudioError when it cannot be read."""
        key = self.settings.features.key
        spec = {name: key[name] for name in ("rate", "n_fft", "hop", "mels", "fmin", "fmax")}
        spec |= {"longest": float(self.settings.longest)}
        source, span = clip.cache_key()
        return self._mels.get(source, spec | span, lambda: self._compute(clip))

    def _compute(self, clip: Clip) -> np.ndarray:
        rate = self.settings.features.rate
        missing = Gathered()
        samples = clip.read(rate, 0.0, self.settings.longest, missing)
        if not isinstance(clip.audio, Scene):
            self._mels.text(*clip.cache_key(), lambda: missing.text)
        if not len(samples):
            raise AudioError(f"{clip.audio}: too short for a sample at {rate} Hz")
        shortest = self.settings.features.n_fft
        return self.features.log_mel(np.resize(samples, max(shortest, len(samples))))

    def _problem(self, clip: Clip) -> str | None:
        """Why a clip cannot be read; None when its spectrogram is in the cache now."""
        try:
            self.mel(clip)
        except UserError as error:
            return str(error)
        return None

    def _read(self, clip: Clip) -> np.ndarray:
        """The spectrogram of a clip, or its statistics."""
        mel = self.mel(clip)
        is_mel = self.settings.embeddings in (None, AUTO)
        return mel if is_mel else statistics_of(mel, self.settings.floor)

    def _embed(
        self, clips: Sequence[Clip], name: str, ranks: SingleProcess
    ) -> list[np.ndarray | str]:
        """Embeddings by the CLAP `name`, or why a clip cannot be read."""
        embedder = self._embedder = self._embedder or load_embedder(name, self.workers)

        def key(clip: Clip) -> tuple[Path | str, dict]:
            source, span = clip.cache_key()
            return source, {"embedder": embedder.digest} | span

        def compute(clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray | str]]:
            for number, spans in embedder.spans(clips, "reading"):
                yield number, str(spans) if isinstance(spans, AudioError) else spans.mean

        return fill_cache(self._vectors, clips, key, compute, ranks)


def load_embedder(name: str, workers: int | None) -> Embedder:
    """The CLAP of `input.embeddings`. ValueError, one line, where there is none."""
    setting = "--input.embeddings"
    suggestion = nearest(name, [STATISTICS, AUTO])
    if suggestion and "/" not in name and not Path(name).exists():
        raise UserError(f"{setting}: found {name!r}{suggestion}, expected {STATISTICS} or a CLAP")
    return Embedder.from_folder(name, workers=workers, setting=setting)


def statistics_of(mel: np.ndarray, floor: float) -> np.ndarray:
    """Return the `statistics` of a spectrogram (frames, mels) that is clipped at `floor` dB."""
    return statistics(np.maximum(np.asarray(mel, np.float32), floor))


def statistics(mel: np.ndarray) -> np.ndarray:
    """Statistics of a spectrogram (frames, mels), (6 * mels,) float32: mean, deviation, 10th, 50th
    and 90th percentile of each bin, and its mean absolute change from frame to frame."""
    changes = np.abs(np.diff(mel, axis=0)).mean(axis=0) if len(mel) > 1 else np.zeros(mel.shape[1])
    parts = [mel.mean(axis=0), mel.std(axis=0), *np.percentile(mel, (10, 50, 90), axis=0), changes]
    return np.concatenate(parts).astype(np.float32)
