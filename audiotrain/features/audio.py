"""Audio files as float32 mono arrays: a whole file, a span of it, or a stream of blocks.

Times are seconds, rates Hz. Channels are averaged; resampling is soxr's HQ, aligned so that output
sample i is at i / rate seconds for whole files, spans and streams alike.
"""

import contextlib
import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from audiotrain.features import decoder_messages, mp3_header
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import replacing

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a")
WRITTEN_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
PLATFORM_SUFFIXES = (".m4a", ".mp4", ".aac")  # libsndfile cannot read these

LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz that a file may have
LOUDEST = 1e12  # of a sample; 1 is full scale, and files of whole numbers as floats reach 2e9

_FILTER_REACH = 512  # samples at the lower of two rates: more than the reach of soxr's HQ filter
_READ_SECONDS = 30  # native audio decoded at a time, but not more than
_READ_SAMPLES = 2**22  # samples of all channels
_SAMPLES_A_BYTE = 8192  # more than any format holds: digital silence in FLAC has up to 6000
_LARGEST_PAGE = 65307  # bytes of an Ogg page at most
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes; in wav headers of a stream, or more


class AudioError(UserError):
    """A file that cannot be read as audio; one line that names it."""


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


class TarMember(NamedTuple):
    """A file inside a tar that is not compressed, read where it lies: `size` bytes at `offset`."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"

    def read(self) -> bytes:
        """Its content. AudioError when the tar is gone or ends before."""
        try:
            with open(self.tar, "rb") as file:
                room = max(0, os.fstat(file.fileno()).st_size - self.offset)
                file.seek(self.offset)
                data = file.read(min(self.size, room))
        except OSError as error:
            raise AudioError(f"{self}: can't be read: {error.strerror}") from None
        if len(data) < self.size:
            raise AudioError(f"{self}: cut short: {len(data)} of {self.size} bytes")
        return data


AudioPath = str | Path | TarMember


class AudioInfo(NamedTuple):
    """Length in seconds, sample rate in Hz and number of channels of a file."""

    seconds: float
    rate: int
    channels: int


def info(path: AudioPath) -> AudioInfo:
    """Length, rate and channels from the header. AudioError when it is not audio."""
    with _open(path) as source:
        return AudioInfo(source.frames / source.rate, source.rate, source.channels)


def read(
    path: AudioPath, rate: int, start: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """Mono samples (samples,) at `rate` from `start` on; up to the end of the file or `seconds`.

    A span equals the same span of the whole file; only it is decoded. It is shorter than `seconds`
    where the file ends before. AudioError for files that are empty, cut short or hold NaN or Inf,
    whose rate is not in 1 kHz to 1 MHz, and for a span that starts behind the end. ValueError for
    a negative `start`, and for `seconds` that are not positive.
    """
    if start < 0 or (seconds is not None and seconds <= 0):
        raise UserError(
            f"{path}: span of {seconds} s from {start} s, expected start >= 0, length > 0"
        )
    with _open(path) as source:
        length = source.frames / source.rate
        if start > 0 and start >= length:
            raise AudioError(
                f"{path}: span starts at {start} s, but the audio ends at {length:.3f} s"
            )
        first = round(start * rate)
        last = None if seconds is None else first + max(1, round(seconds * rate))
        return _read_span(source, rate, first, last)


def stream(path: AudioPath, rate: int, block_seconds: float = 30.0) -> Iterator[np.ndarray]:
    """The samples of `read(path, rate)` as blocks of `block_seconds`, the last one shorter.

    Memory does not depend on the length of the file. AudioError as from `read`, from the first
    block on.
    """
    size = max(1, round(block_seconds * rate))
    held: list[np.ndarray] = []
    count = 0
    with _open(path) as source:
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


def _read_span(source: "_Source", rate: int, first: int, last: int | None) -> np.ndarray:
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
def _open(path: AudioPath) -> Iterator["_Source"]:
    if isinstance(path, TarMember):
        source = _source_in_tar(path)
    else:
        path = Path(path)
        if not path.is_file():
            kind = "is a folder, expected" if path.is_dir() else "no such"
            raise AudioError(f"{path}: {kind} audio file")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes)")
        platform = path.suffix.lower() in PLATFORM_SUFFIXES
        source = _PlatformSource(path) if platform else _SndfileSource(path, path)
    with contextlib.closing(source):
        size = path.size if isinstance(path, TarMember) else path.stat().st_size
        _refuse_header(source, size)
        yield source


def _refuse_header(source: "_Source", size: int) -> None:
    """AudioError for a header that cannot be true of a file of `size` bytes."""
    if source.frames <= 0:
        raise AudioError(f"{source.path}: holds no audio samples")
    if not LOWEST_RATE <= source.rate <= HIGHEST_RATE:
        raise AudioError(
            f"{source.path}: sample rate {source.rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    if source.frames > size * _SAMPLES_A_BYTE:
        raise AudioError(f"{source.path}: damaged header: {source.frames} samples in {size} bytes")


def _source_in_tar(member: TarMember) -> "_Source":
    if Path(member.name).suffix.lower() in PLATFORM_SUFFIXES:
        raise AudioError(f"{member}: this format is not read inside a tar: convert it to flac")
    data = member.read()
    if not data:
        raise AudioError(f"{member}: the file is empty (0 bytes)")
    return _SndfileSource(member, io.BytesIO(data))


class _Source:
    """An open file; sample numbers are at its own rate."""

    path: Path | TarMember
    frames: int
    rate: int
    channels: int
    _file: Any

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """Mono blocks of `count` (None: all) samples from `first` on."""
        raise NotImplementedError

    def close(self) -> None:
        self._file.close()

    def mono(self, first: int, count: int | None) -> np.ndarray:
        pieces = list(self.blocks(first, count))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _mix(self, samples: np.ndarray, first: int) -> np.ndarray:
        """(samples, channels) -> (samples,). AudioError when one is NaN, Inf or above LOUDEST."""
        channels = samples.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            # a product, because mean(axis=1) takes 50 times longer
            weights = np.full(channels, 1 / channels, "f")
            mono = samples[:, 0] if channels == 1 else samples @ weights
            is_sound = mono @ mono < LOUDEST**2
        if not is_sound:
            self._refuse_samples(samples, first)
        return mono

    def _refuse_samples(self, samples: np.ndarray, first: int) -> None:
        for bad, kind in (
            (~np.isfinite(samples).all(axis=1), "NaN or Inf samples"),
            ((np.abs(samples) > LOUDEST).any(axis=1), f"samples above {LOUDEST:g}"),
        ):
            if bad.any():
                second = (first + int(bad.argmax())) / self.rate
                raise AudioError(f"{self.path}: {bad.sum()} {kind}, the first at {second:.3f} s")


class _SndfileSource(_Source):
    """wav, flac, ogg, mp3 and whatever else libsndfile reads."""

    def __init__(self, path: Path | TarMember, file: Path | io.BytesIO):
        self.path = path
        try:
            with decoder_messages.hidden():
                self._file = soundfile.SoundFile(file)
        except UnicodeEncodeError:
            raise AudioError(f"{ascii(str(path))}: the name is not in UTF-8: rename it") from None
        except (soundfile.SoundFileError, TypeError) as error:
            raise AudioError(f"{path}: not readable as audio: {_reason(error)}") from None
        self.frames, self.rate = self._file.frames, self._file.samplerate
        self.channels = self._file.channels
        self._refuse_short_data()
        self._refuse_short_page(file)
        self._refuse_audio_after_header(file)

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        stop = self.frames if count is None else min(self.frames, first + count)
        size = max(1, min(_READ_SECONDS * self.rate, _READ_SAMPLES // self.channels))
        quiet = decoder_messages.hidden if self._is_mp3() else contextlib.nullcontext
        try:
            with quiet():
                if first:
                    self._file.seek(min(first, self.frames))
            while first < stop:
                wanted = min(size, stop - first)
                with quiet():
                    samples = self._file.read(wanted, dtype="float32", always_2d=True)
                if not len(samples) and not first:
                    raise AudioError(f"{self.path}: no audio in it can be decoded")
                yield self._mix(samples, first)
                first += len(samples)
                # The header of an mp3 counts its padding, up to a few frames of 1152 samples.
                if len(samples) < wanted and first < self.frames - 4 * 1152:
                    raise AudioError(
                        f"{self.path}: cut short: {first / self.rate:.3f} s of "
                        f"{self.frames / self.rate:.3f} s can be decoded"
                    )
                if len(samples) < wanted:
                    return
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{self.path}: damaged after {first / self.rate:.3f} s of "
                f"{self.frames / self.rate:.3f} s: {_reason(error)}"
            ) from None

    def _is_mp3(self) -> bool:
        return self._file.format == "MPEG" or self._file.subtype.startswith("MPEG")

    def _refuse_short_data(self) -> None:
        """AudioError for a wav whose header promises more data than the file has."""
        sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", self._file.extra_info, re.MULTILINE)
        promised, present = (int(sizes[1]), int(sizes[2])) if sizes else (0, 0)
        if present < promised < _UNKNOWN_LENGTH:
            self._file.close()
            raise AudioError(f"{self.path}: cut short: {present} of {promised} bytes of samples")

    def _refuse_short_page(self, file: Path | io.BytesIO) -> None:
        """AudioError for an Ogg file that ends within a page."""
        if self._file.format != "OGG":
            return
        _, mark, page = _tail(file, _LARGEST_PAGE).rpartition(b"OggS\0")
        count = page[21] if len(page) > 21 else 0  # of the page's segments, whose lengths follow
        promised = 22 + count + sum(page[22 : 22 + count])
        if mark and len(page) < promised:
            self._file.close()
            raise AudioError(f"{self.path}: cut short: {len(page)} of {promised} bytes of a page")

    def _refuse_audio_after_header(self, file: Path | io.BytesIO) -> None:
        """AudioError for an MP3 that goes on after the end that its header states."""
        if not self._is_mp3():
            return
        with open(file, "rb") if isinstance(file, Path) else io.BytesIO(file.getvalue()) as opened:
            unread = mp3_header.audio_after_the_stated(opened)
        if unread:
            self._file.close()
            raise AudioError(
                f"{self.path}: wrong header: {unread.after} bytes of audio follow the "
                f"{self.frames / self.rate:.3f} s that it states; `ffmpeg -i FILE -c copy NEW.mp3` "
                "writes the right one"
            )


class _PlatformSource(_Source):
    """m4a and its kin by CoreAudio, GStreamer or ffmpeg, whichever this platform has."""

    def __init__(self, path: Path):
        import audioread

        self.path = path
        _refuse_short_boxes(path)
        try:
            with warnings.catch_warnings():  # it looks for decoders in deprecated modules
                warnings.simplefilter("ignore", DeprecationWarning)
                self._file = audioread.audio_open(str(path))
        except audioread.NoBackendError:
            others = {one.__name__ for one in audioread.available_backends()} - {"RawAudioFile"}
            if others:
                raise AudioError(f"{path}: not readable as audio by any decoder here") from None
            raise AudioError(
                f"{path}: no decoder for {path.suffix} here: install ffmpeg or convert it to flac"
            ) from None
        except (audioread.DecodeError, OSError, EOFError) as error:
            raise AudioError(f"{path}: not readable as audio: {_reason(error)}") from None
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.frames = round(self._file.duration * self.rate)

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        position, stop = 0, math.inf if count is None else first + count
        for buffer in self._file:
            samples = np.frombuffer(buffer, "<i2").reshape(-1, self.channels)
            samples = samples.astype(np.float32) / 32768
            last = max(0, int(min(stop - position, len(samples))))
            inside = samples[max(0, first - position) : last]
            if len(inside):
                yield self._mix(inside, max(first, position))
            position += len(samples)
            if position >= stop:
                return


def _tail(file: Path | io.BytesIO, size: int) -> bytes:
    """The last bytes of a file, `size` of them at most."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()[-size:]
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - size))
        return opened.read()


def _refuse_short_boxes(path: Path) -> None:
    """AudioError for an MP4 (m4a) file that ends within one of its boxes."""
    whole, position = path.stat().st_size, 0
    with open(path, "rb") as file:
        while position + 8 <= whole:
            file.seek(position)
            head = file.read(16)
            if position == 0 and head[4:8] != b"ftyp":
                return
            size = int.from_bytes(head[:4], "big")
            if size == 1:  # a long box has its size after its name
                size = int.from_bytes(head[8:], "big")
            if size < 8:  # 0: up to the end
                return
            position += size
    if position > whole:
        raise AudioError(f"{path}: cut short: {whole} of {position} bytes")


def _reason(error: Exception) -> str:
    """The message of a library's error on one line, without the path that it repeats."""
    text = getattr(error, "error_string", None) or str(error)
    if "does not exist" in text:  # libsndfile's guess when it finds no mp3 frame
        text = "no audio in it"
    return " ".join(text.split()).rstrip(".") or type(error).__name__
