"""Audio that libsndfile reads whole: WAV, FLAC, Ogg, AIFF and its other formats without losses."""

import contextlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from audiotrain.features import containers
from audiotrain.features.sources import (
    LOUDEST,
    READ_SAMPLES,
    READ_SECONDS,
    SHORTEST_MISSING,
    AudioPath,
    Missing,
    Part,
    Source,
    refuse_half,
)

_SIZES = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes; in wav headers of a stream, or more
_WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_PACKED = {"FLAC": SHORTEST_MISSING, "OGG": 0.1}  # seconds by which time stamps may be off


class SndfileSource(Source):
    """A file that libsndfile opens. soundfile.SoundFileError and TypeError where it does not."""

    def __init__(self, path: AudioPath, part: Part):
        self.path, self._part = path, part
        is_file = isinstance(path, (str, Path)) and not part.offset and part.size
        whole = is_file and part.size == Path(str(path)).stat().st_size
        self._file = soundfile.SoundFile(Path(str(path)) if whole else part)
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self._frames = self._file.frames

    def close(self) -> None:
        self._file.close()

    def length(self) -> int:
        self._set_tail(self._frames)
        return self._frames

    def is_whole(self) -> bool:
        """Whether libsndfile reads all that the file holds, as far as can be known without
        decoding it."""
        if self._frames <= 0 or self._file.format == "MPEG" or "MPEG" in self._file.subtype:
            return False
        if (tolerance := _PACKED.get(self._file.format)) is not None:
            end = _known_end(self._part, tolerance)
            return end is not None and abs(end - self._frames) <= tolerance * self.rate
        width = _WIDTHS.get(self._file.subtype)
        if width and self._frames * self.channels * width > self._part.size:
            return False
        return True

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        stop = self._frames if count is None else min(self._frames, first + count)
        size = max(1, min(READ_SECONDS * self.rate, READ_SAMPLES // self.channels))
        try:
            self._go_to(min(first, self._frames))
            while first < stop:
                samples = self._file.read(min(size, stop - first), "float32", always_2d=True)
                if not len(samples):
                    break
                yield self._mix(samples, first)
                first += len(samples)
        except soundfile.SoundFileError:
            # Damaged there: PyAV finds what follows.
            yield from self._others(first, None if count is None else stop - first)
            return
        self._set_tail(first if first < stop else self._frames)

    def _go_to(self, position: int) -> None:
        """Go to a sample. In Ogg Vorbis libsndfile's seek is 448 samples off, or a multiple of it,
        so what is before is decoded there: 1,000 times as fast as it sounds."""
        if self._file.subtype != "VORBIS":
            self._file.seek(position)
            return
        room = np.empty((READ_SECONDS * self.rate, self.channels), np.float32)
        while position > 0:
            count = len(self._file.read(out=room[:position]))
            position = position - count if count else 0

    def _others(self, first: int, count: int | None) -> Iterator[np.ndarray]:
        """The blocks from `first` on by PyAV."""
        from audiotrain.features.av_source import AvSource

        with (
            self._part.part(0, self._part.size) as part,
            contextlib.closing(AvSource(self.path, part)) as other,
        ):
            yield from other.blocks(first, count)
            self.missing = other.missing

    def _set_tail(self, end: int) -> None:
        """Set `missing` for audio that ends with sample `end`."""
        sizes = _SIZES.search(self._file.extra_info)
        stated, present = (int(sizes[1]), int(sizes[2])) if sizes else (0, 0)
        tail = (self._frames - end) / self.rate
        if 0 < present < stated < _UNKNOWN_LENGTH:
            tail += (stated - present) / present * self._frames / self.rate
        self.missing = Missing(tail=tail if tail >= SHORTEST_MISSING else 0.0)
        refuse_half(self.path, end / self.rate, self.missing)

    def _mix(self, samples: np.ndarray, first: int) -> np.ndarray:
        """(samples, channels) -> (samples,). AudioError when one is NaN, Inf or above LOUDEST."""
        channels = samples.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            # a product, because mean(axis=1) takes 50 times longer
            weights = np.full(channels, 1 / channels, "f")
            mono = samples[:, 0] if channels == 1 else samples @ weights
            is_sound = mono @ mono < LOUDEST**2
        if not is_sound:
            self.refuse_samples(samples, first)
        return mono


def _known_end(part: Part, tolerance: float) -> int | None:
    """`packets_end`, found once as long as the file does not change: spans are read one by one."""
    stat = os.stat(part.path)
    return _packets_end((part.path, stat.st_mtime_ns, part.offset, part.size), tolerance)


@lru_cache(maxsize=4096)
def _packets_end(stamp: tuple[Path, int, int, int], tolerance: float) -> int | None:
    path, _, offset, size = stamp
    with Part(path, offset, size) as part:
        return packets_end(part, tolerance)


def packets_end(part: Part, tolerance: float) -> int | None:
    """Samples that the packets of a FLAC or Ogg file have, which are not decoded; None where time
    stamps jump by more than `tolerance` seconds, or the file ends within a packet."""
    import av

    expected, skipped = None, 0
    try:
        with (
            part.part(0, part.size) as opened,  # libsndfile keeps its own place in `part`
            av.open(opened, "r", metadata_errors="ignore") as container,
        ):
            stream = container.streams.audio[0]
            rate, tick = stream.codec_context.sample_rate, float(stream.time_base or 0)
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                if expected is not None and abs(packet.pts - expected) * tick > tolerance:
                    return None
                if packet.has_sidedata("skip_samples"):
                    data = bytes(packet.get_sidedata("skip_samples"))
                    skipped = int.from_bytes(data[4:8], "little")
                expected = packet.pts + (packet.duration or 0)
    except (av.FFmpegError, IndexError, ValueError):
        return None
    if expected is None or containers.unfinished_page(part):
        return None
    return round(expected * tick * rate) - skipped
