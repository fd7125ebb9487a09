"""Features of recordings in MLX, equal to librosa 0.11 and 1.0: log-mel here, constant-Q in cqt.py.

Frame i is centred at i * hop / rate seconds and there are 1 + samples // hop frames.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain.backend.ops import computed_on_cpu
from audiotrain.features import audio as audio_files
from audiotrain.features.cqt import CQT, CQTSettings, frame_count
from audiotrain.features.log_mel import LogMel, LogMelSettings

Settings = CQTSettings | LogMelSettings
OnSamples = Callable[[np.ndarray], None]


@lru_cache(maxsize=8)
def front_end(settings: Settings) -> CQT | LogMel:
    """The transform of `settings`, built once."""
    return CQT(settings) if isinstance(settings, CQTSettings) else LogMel(settings)


def extract(
    audio: str | Path | np.ndarray,
    settings: Settings,
    block_seconds: float | None = None,
    on_samples: OnSamples = lambda samples: None,
    on_missing: audio_files.OnMissing = audio_files.warn,
) -> np.ndarray:
    """Features (frames, bins) float32 of a file or of mono samples (samples,) at settings.rate.

    Works in blocks of about `block_seconds` (None: as is fastest), so memory besides the result
    does not depend on the length. Frames equal those of the whole file at once. `on_samples` is
    called with all samples once, in order, `on_missing` as by audio.read. AudioError as from
    audio.read, ValueError as from audio.mono_samples, and for settings with a `top_db`.
    """
    return np.concatenate(
        list(feature_blocks(audio, settings, block_seconds, on_samples, on_missing))
    )


def feature_blocks(
    audio: str | Path | np.ndarray,
    settings: Settings,
    block_seconds: float | None = None,
    on_samples: OnSamples = lambda samples: None,
    on_missing: audio_files.OnMissing = audio_files.warn,
) -> Iterator[np.ndarray]:
    """The features of `extract` as consecutive blocks (frames, bins).

    They are computed on the CPU, each block by one thread, and blocks do not depend on the number
    of cores: a cache gets the same bytes from any process on a machine, also where MLX computes on
    a GPU. Errors as those of `extract`, from the first block on.
    """
    if getattr(settings, "top_db", None) is not None:
        raise ValueError("top_db depends on the whole recording: extract needs top_db=None")
    transform, hop = front_end(settings), settings.hop
    margin = transform.context // hop + 1  # frames
    seconds = transform.block_seconds if block_seconds is None else block_seconds
    size = max(1, round(seconds * settings.rate / hop))  # frames
    if isinstance(audio, np.ndarray):
        audio = audio_files.mono_samples(audio)
        frames = frame_count(len(audio), hop)
        if frames > size:  # an even number of blocks, for machines of two cores
            size = -(-frames // (2 * -(-frames // (2 * size))))
        on_samples(audio)
        slabs = _slabs_of_array(audio, hop, size, margin)
    else:
        pieces = audio_files.stream(audio, settings.rate, size * hop / settings.rate, on_missing)
        slabs = _slabs_of_stream(_reported(pieces, on_samples), hop, size, margin)
    blocks = ((mx.array(slab)[None], first, stop) for slab, first, stop in slabs)
    yield from computed_on_cpu(lambda *block: transform.frames(*block)[0], blocks)


def _reported(pieces: Iterator[np.ndarray], on_samples: OnSamples) -> Iterator[np.ndarray]:
    for piece in pieces:
        on_samples(piece)
        yield piece


def _slabs_of_array(
    audio: np.ndarray, hop: int, size: int, margin: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Samples with `margin` frames around each `size` frames, and which frames of them count."""
    audio = np.asarray(audio, np.float32)
    frames = frame_count(len(audio), hop)
    for first in range(0, frames, size):
        begin, stop = max(0, first - margin), min(frames, first + size)
        slab = audio[begin * hop : (stop + margin) * hop if stop < frames else None]
        yield slab, first - begin, stop - begin


def _slabs_of_stream(
    pieces: Iterator[np.ndarray], hop: int, size: int, margin: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """`_slabs_of_array` for pieces of `size` * hop samples, the last one shorter."""
    room = np.empty((size + 3 * margin + 1) * hop, np.float32)  # one buffer for the whole file
    held, done = 0, 0  # samples in `room`, frames at its start that are done
    for piece in pieces:
        room[held : held + len(piece)] = piece
        held += len(piece)
        ready = held // hop - margin  # frames whose whole context has arrived
        if ready > done:
            yield room[: (ready + margin) * hop], done, ready
            drop = max(0, ready - margin)
            room[: held - drop * hop] = room[drop * hop : held]
            held, done = held - drop * hop, ready - drop
    yield room[:held], done, frame_count(held, hop)
