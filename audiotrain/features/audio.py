"""Audio files as float32 mono arrays: a whole file, a span of it, or a stream of blocks.

Times are seconds, rates Hz. Channels are averaged; resampling is soxr's HQ, aligned so that output
sample i is at i / rate seconds for whole files, spans and streams alike.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from audiotrain.features import containers
from audiotrain.features.joined_source import JoinedSource
from audiotrain.features.sndfile_source import SndfileSource
from audiotrain.features.sources import (
    LOUDEST,
    AudioError,
    AudioPath,
    AudioWarning,
    Missing,
    Part,
    Source,
    TarMember,
    as_error,
)
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import replacing

__all__ = ["AudioError", "AudioPath", "AudioWarning", "Missing", "TarMember", "as_error"]

AUDIO_SUFFIXES = (  # of what a folder search takes; a file that is named is read with any suffix
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".opus", ".wma", ".aiff", ".aif", ".aifc"),
    *(".oga", ".spx", ".mp2", ".m4b", ".m4r", ".mka", ".weba", ".caf", ".au", ".snd", ".w64"),
    *(".rf64", ".ac3", ".dts", ".amr", ".3gp", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".tak"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg"),
)
FORMATS = "WAV, FLAC, Ogg, MP3, M4A, AAC, Opus, WMA, AIFF or video"
WRITTEN_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
VERSION = 2  # raise it when the samples of the same file change

LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz that a file may have

_FILTER_REACH = 512  # samples at the lower of two rates: more than the reach of soxr's HQ filter

OnMissing = Callable[[AudioPath, Missing], None]


def warn(path: AudioPath, missing: Missing) -> None:
    """Give an AudioWarning for what cannot be decoded of a file; the default `on_missing`."""
    warnings.warn(f"{path}: {missing}", AudioWarning, stacklevel=2)


def refuse(path: AudioPath, missing: Missing) -> None:
    """Raise AudioError for a file of which something cannot be decoded."""
    raise AudioError(as_error(f"{path}: {missing}"))


class Gathered:
    """An `on_missing` that keeps what is missing of one file, read whole or in spans."""

    def __init__(self):
        self._parts: list[Missing] = []

    def __call__(self, path: AudioPath, missing: Missing) -> None:
        self._parts.append(missing)

    @property
    def text(self) -> str:
        """What is missing, without the file's name; "" where nothing is."""
        if not self._parts:
            return ""
        holes = sum(one.holes for one in self._parts)
        tail = sum(one.tail for one in self._parts)
        first = next((one.first for one in self._parts if one.holes), 0.0)
        return str(Missing(holes, first, tail))


def ignore(path: AudioPath, missing: Missing) -> None:
    """Do nothing about what cannot be decoded: another read of the file reports it."""


def mono_samples(audio: np.ndarray) -> np.ndarray:
    """Samples (samples,) as float32 in -1..1; signed whole numbers are divided by full scale, as
    those of a file are.

    ValueError, one line, for no samples, several channels, another type of numbers, NaN, Inf, or
    samples above LOUDEST.
    """
    if audio.ndim != 1 or not len(audio):
        raise UserError(f"audio of shape {audio.shape}, expected (samples,), at least one")
    if audio.dtype.kind not in "fi":
        raise UserError(f"audio of type {audio.dtype}, expected floats or signed whole numbers")
    if audio.dtype.kind == "i":
        return (audio / -float(np.iinfo(audio.dtype).min)).astype(np.float32)
    if not float(max(-audio.min(), audio.max())) <= LOUDEST:  # NaN is not either
        raise UserError(f"audio with NaN, Inf or samples above {LOUDEST:g}, expected -1 to 1")
    return audio.astype(np.float32, copy=False)


class AudioInfo(NamedTuple):
    """Length in seconds, sample rate in Hz and number of channels of a file."""

    seconds: float
    rate: int
    channels: int


def info(path: AudioPath) -> AudioInfo:
    """Length, rate and channels of what can be decoded, by the packets where a header may be wrong.
    AudioError when it is not audio, or less than half of it can be read."""
    try:
        stat = os.stat(path.tar if isinstance(path, TarMember) else path)
        stamp = stat.st_size, stat.st_mtime_ns
    except OSError:
        stamp = 0, 0
    return _info(path if isinstance(path, TarMember) else Path(path), stamp)


@lru_cache(maxsize=65536)
def _info(path: AudioPath, stamp: tuple[int, int]) -> AudioInfo:
    with _open(path, ignore) as source:
        return AudioInfo(source.length() / source.rate, source.rate, source.channels)


def read(
    path: AudioPath,
    rate: int,
    start: float = 0.0,
    seconds: float | None = None,
    on_missing: OnMissing = warn,
) -> np.ndarray:
    """Mono samples (samples,) at `rate` from `start` on; up to the end of the file or `seconds`.

    A span equals the same span of the whole file. It is shorter than `seconds` where the file ends
    before. What can be decoded is used: silence stands in for a hole, a tail is left out, and
    `on_missing` (by default `warn`, an AudioWarning) gets the seconds that are missing; `refuse`
    makes them an error. AudioError for files that are empty, of which less than half can be
    decoded, or that hold NaN or Inf, whose rate is not in 1 kHz to 1 MHz, and for a span that
    starts behind the end. ValueError for a negative `start`, and for `seconds` that are not
    positive.
    """
    if start < 0 or (seconds is not None and seconds <= 0):
        raise UserError(
            f"{path}: span of {seconds} s from {start} s, expected start >= 0, length > 0"
        )
    if start > 0 and start >= (length := info(path).seconds):
        raise AudioError(f"{path}: span starts at {start} s, but the audio ends at {length:.3f} s")
    with _open(path, on_missing) as source:
        first = round(start * rate)
        last = None if seconds is None else first + max(1, round(seconds * rate))
        return _read_span(source, rate, first, last)


def stream(
    path: AudioPath, rate: int, block_seconds: float = 30.0, on_missing: OnMissing = warn
) -> Iterator[np.ndarray]:
    """The samples of `read(path, rate)` as blocks of `block_seconds`, the last one shorter.

    Memory does not depend on the length of the file. AudioError as from `read`, from the first
    block on; `on_missing` is called after the last one.
    """
    size = max(1, round(block_seconds * rate))
    held: list[np.ndarray] = []
    count = 0
    with _open(path, on_missing) as source:
        for piece in _resampled(source.blocks(), source.rate, rate):
            held.append(piece)
            count += len(piece)
            if count >= size:
                joined = np.concatenate(held)
                whole = count - count % size
                yield from np.split(joined[:whole], range(size, whole, size))
                held, count = [joined[whole:]], count - whole
        if count:
            yield np.concatenate(held)


def write(path: str | Path, audio: np.ndarray, rate: int) -> None:
    """Write mono samples (samples,) in the format of the suffix, atomically; wav holds float32.

    ValueError for a suffix that is not in WRITTEN_SUFFIXES, and for several channels;
    soundfile.SoundFileError for a rate that the format does not have; OSError when the file cannot
    be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise UserError(f"{path}: cannot write {path.suffix}, expected {WRITTEN_SUFFIXES}")
    subtype = "FLOAT" if path.suffix.lower() == ".wav" else None
    with replacing(path) as partial:
        with soundfile.SoundFile(partial, "w", rate, 1, subtype=subtype) as target:
            # In pieces: libsndfile crashes on a long array written to Ogg Vorbis at once.
            for first in range(0, len(audio), rate):
                target.write(np.asarray(audio[first : first + rate], np.float32))


def _read_span(source: Source, rate: int, first: int, last: int | None) -> np.ndarray:
    """Output samples first..last (None: to the end) of a file at `rate`."""
    if source.rate == rate:
        return source.mono(first, None if last is None else last - first)
    # Start and stop where an input and an output sample coincide, the filter's reach outside.
    shared = math.gcd(source.rate, rate)
    in_period, out_period = source.rate // shared, rate // shared
    reach = math.ceil(_FILTER_REACH * max(1.0, rate / source.rate))
    period = max(0, (first - reach) // out_period)
    begin, offset = period * in_period, first - period * out_period
    if last is None:
        return soxr.resample(source.mono(begin, None), source.rate, rate, "HQ")[offset:]
    stop = -(-(last + reach) // out_period) * in_period
    resampled = soxr.resample(source.mono(begin, stop - begin), source.rate, rate, "HQ")
    return np.ascontiguousarray(resampled[offset : offset + last - first])


def _resampled(blocks: Iterator[np.ndarray], native: int, rate: int) -> Iterator[np.ndarray]:
    if native == rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(native, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


@contextlib.contextmanager
def _open(path: AudioPath, on_missing: OnMissing) -> Iterator[Source]:
    """The recording `path` by the decoder that reads all of it; `on_missing` is called at the end
    of the block where something is missing."""
    path = path if isinstance(path, TarMember) else Path(path)
    with Part.of(path) as part, contextlib.closing(_source(path, part)) as source:
        if not LOWEST_RATE <= source.rate <= HIGHEST_RATE:
            _refuse_rate(path, source.rate)
        yield source
        if source.missing.seconds:
            on_missing(path, source.missing)


def _refuse_rate(path: AudioPath, rate: int) -> None:
    raise AudioError(f"{path}: sample rate {rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}")


def _source(path: AudioPath, part: Part) -> Source:
    """libsndfile where it reads a file whole, else PyAV; the links of a chained Ogg one by one."""
    links = containers.ogg_links(part)
    if len(links) > 1:
        return JoinedSource(path, part, links, _source)
    lies = containers.wav_data_lies(part)
    source = None
    if containers.is_for_libsndfile(part) and not lies:
        with contextlib.suppress(soundfile.SoundFileError, TypeError):
            source = SndfileSource(path, part)
    if source is not None:
        if not LOWEST_RATE <= source.rate <= HIGHEST_RATE:
            source.close()
            _refuse_rate(path, source.rate)
        if source.is_whole():
            return source
        source.close()
    part.seek(0)
    from audiotrain.features.av_source import AvSource

    return AvSource(path, part, ignore_length=lies)
