"""Audio that PyAV (ffmpeg's libraries) decodes: MP3, AAC, video containers, whatever libsndfile
does not read whole.

What counts is the packets: a header's length is only compared with them. A part that cannot be
decoded is silence where audio goes on after it, so that times stay right.
"""

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotrain.features import containers
from audiotrain.features.joined_source import ToRate
from audiotrain.features.sources import (
    LOUDEST,
    READ_SAMPLES,
    READ_SECONDS,
    SHORTEST_MISSING,
    AudioError,
    AudioPath,
    Missing,
    Part,
    Source,
    reason,
    refuse_half,
)

if TYPE_CHECKING:
    import av

# Demuxers of files with sound; others, such as playlists, would open further files.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,ogg,tak,truehd,tta,voc,w64,wav,wv"
)
_RAW = ("mp3", "aac", "ac3", "eac3", "dts", "loas")  # frames follow one another without times
_SYNC = {"mp3": (0xFF, 0xE0, 0xE0), "aac": (0xFF, 0xF0, 0xF6)}  # first byte; second, by its mask
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"RIFF", b"Xing", b"Info")
_MOST_CHANNELS = 8  # of a frame, unless the file begins with more
_PREROLL = 32  # packets before a span of an MP3 that fill the decoder's reservoir: 511 bytes
_FAILURES = 50  # of reading packets one after another, after which the rest of a file is left
_LONGEST_GAP = 600.0  # seconds; a later timestamp than this is another clock
_ROUGH = 0.1  # seconds by which timestamps of a coarse clock are off


class AvSource(Source):
    """The first audio stream of a file."""

    def __init__(self, path: AudioPath, part: Part, ignore_length: bool = False):
        import av
        from av.stream import Discard

        self.path, self._part, self._errors = path, part, av.FFmpegError
        options = {"format_whitelist": FORMATS}
        if ignore_length:
            options["ignore_length"] = "1"
        try:
            self._container: Any = av.open(part, options=options, metadata_errors="ignore")
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise AudioError(f"{path}: not readable as audio: {reason(error)}") from None
        streams = [one for one in self._container.streams.audio if one.codec_context is not None]
        if not streams:
            is_unknown = bool(self._container.streams.audio)
            self._container.close()
            what = "of a codec that is not known" if is_unknown else "no audio in it"
            raise AudioError(f"{path}: not readable as audio: {what}")
        self._stream = streams[0]
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = Discard.all
        self._kind = self._container.format.name
        self._set_clock()
        self._packets = self._read_packets()
        self.channels = 0  # until the first frame
        self._head: list[tuple[Any, list | None]] = []  # packets that are decoded already
        self.rate, self.channels = self._first_format()

    def _set_clock(self) -> None:
        base = self._stream.time_base
        self._tick = float(base) if base else 0.0
        is_exact = 0 < self._tick <= 1 / 8000 and self._kind != "ogg"
        self._tolerance = SHORTEST_MISSING if is_exact else _ROUGH
        # The packets alone tell where each sample is.
        self._is_countable = self._kind in ("mp3", "aac") or (self._kind[:3] == "mov" and is_exact)

    def close(self) -> None:
        self._container.close()

    # ---- packets

    def _read_packets(self) -> Iterator[Any]:
        """All packets of the stream, the last one empty. After an error the rest is tried."""
        failures = 0
        while failures < _FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    yield packet
                    failures = 0 if packet.size else failures
                return
            except (self._errors, ValueError, MemoryError):
                failures += 1

    def _decode(self, packet: Any) -> "list[av.AudioFrame] | None":
        """The frames of a packet; None where it cannot be decoded."""
        try:
            frames = [frame for frame in packet.decode() if frame.samples > 0]
        except (self._errors, ValueError, MemoryError):
            return None
        # Damaged AAC gives frames of 40 channels, of which some are not in memory.
        most = max(_MOST_CHANNELS, self.channels)
        return frames if all(one.layout.nb_channels <= most for one in frames) else None

    def _first_format(self) -> tuple[int, int]:
        """Rate and channels of the first frame; what is decoded for it is kept. AudioError where
        there is none."""
        self._first_pts: float | None = None
        for packet in self._packets:
            if self._first_pts is None:
                self._first_pts = (packet.pts or 0) * self._tick
            is_sound = not (self._is_garbage(packet) or self._is_cut(packet))
            frames = self._decode(packet) if is_sound else None
            self._head.append((packet, frames))
            if frames:
                return frames[0].sample_rate, frames[0].layout.nb_channels
        self.close()
        raise AudioError(f"{self.path}: holds no audio samples that can be decoded")

    def _is_garbage(self, packet: Any) -> bool:
        """Whether a packet has the bytes between two frames, which ffmpeg's parsers hand out."""
        if self._kind not in _SYNC or packet.size < 2:
            return False
        first, second, mask = _SYNC[self._kind]
        head = memoryview(packet)
        return head[0] != first or head[1] & mask != second

    def _is_cut(self, packet: Any) -> bool:
        """Whether a file ends within a packet, of which nothing can be decoded then but PCM."""
        is_pcm = self._stream.codec_context.name.startswith("pcm_")
        return packet.size > 0 and packet.is_corrupt and not is_pcm

    def _samples_of(self, packet: Any) -> int:
        """Samples that a packet decodes to, without those that the file says to skip."""
        if packet.is_discard or not packet.duration:
            return 0
        count = round(packet.duration * self._tick * self.rate)
        if packet.has_sidedata("skip_samples"):
            data = bytes(packet.get_sidedata("skip_samples"))
            skipped = sum(int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
            self._to_skip += skipped
        skipped = min(count, self._to_skip)
        self._to_skip -= skipped
        return count - skipped

    # ---- samples

    def length(self) -> int:
        return sum(count for count, _ in self._pieces(math.inf))

    def blocks(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        stop = math.inf if count is None else first + count
        size = max(1, min(READ_SECONDS * self.rate, READ_SAMPLES // self.channels))
        held: list[np.ndarray] = []
        position = waiting = 0
        begin = first
        for samples, piece in self._pieces(first):
            if piece is not None:
                last = max(0, int(min(stop - position, samples)))
                held.append(piece[max(0, first - position) : last])
                waiting += len(held[-1])
            position += samples
            if waiting >= size:
                yield self._checked(np.concatenate(held), begin)
                begin, held, waiting = begin + waiting, [], 0
            if position >= stop:
                self.missing = self._track.so_far()
                break
        if waiting:
            yield self._checked(np.concatenate(held), begin)

    def _checked(self, mono: np.ndarray, first: int) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            is_sound = mono @ mono < LOUDEST**2
        if not is_sound:
            self.refuse_samples(mono[:, None], first)
        return mono

    def _pieces(self, first: float) -> Iterator[tuple[int, np.ndarray | None]]:
        """Consecutive numbers of samples, with the samples where they are after `first`."""
        self._to_skip = 0
        track = self._track = _Track(self, 0.0 if first == math.inf else first)
        resampler = ToRate(self.rate)
        for packet, frames, is_decoded in self._steps(first, track):
            if not is_decoded:
                for silence in track.gap(None):
                    yield silence, None
                track.good(packet)
                samples = self._samples_of(packet)
                track.position += samples
                yield samples, None
                continue
            if frames is None:
                track.bad(packet)
                continue
            kept = self._kept(packet, frames)
            for frame in frames:
                for silence in track.gap(frame):
                    yield silence, np.zeros(silence, np.float32) if first < math.inf else None
                if first == math.inf:
                    samples = min(kept, frame.samples)
                    samples, mono = round(samples * self.rate / frame.sample_rate), None
                else:
                    with np.errstate(over="ignore", invalid="ignore"):  # refused as Inf or NaN
                        mono = resampler(_mono(frame)[:kept], frame.sample_rate)
                    samples = len(mono)
                track.position += samples
                yield samples, mono if track.position > first else None
            track.good(packet)
        if first < math.inf and len(rest := resampler.flush()):
            yield len(rest), rest
        track.finish()

    def _kept(self, packet: Any, frames: list) -> int:
        """Samples of a packet's frames that are kept: MP4 states that the last one is shorter."""
        if self._kind[:3] != "mov" or len(frames) != 1 or not packet.duration:
            return sys.maxsize
        kept = round(packet.duration * self._tick * frames[0].sample_rate)
        return kept if kept > 0 else sys.maxsize

    def _steps(
        self, first: float, track: "_Track"
    ) -> Iterator[tuple[Any, "list[av.AudioFrame] | None", bool]]:
        """(packet, its frames or None where they cannot be decoded, whether that was tried)."""
        yield from ((packet, frames, True) for packet, frames in self._head)
        self._head = []
        was_skipped = False
        for packet in self._packets:
            if self._is_garbage(packet) or self._is_cut(packet):
                yield packet, None, True
                continue
            if self._is_countable and packet.size and (first == math.inf or self._kind == "mp3"):
                ahead = first - track.position
                if ahead > _PREROLL * max(1.0, packet.duration * self._tick * self.rate):
                    was_skipped = True
                    yield packet, None, False
                    continue
            if was_skipped:
                self._stream.codec_context.flush_buffers()
                was_skipped = False
            yield packet, self._decode(packet), True


class _Track:
    """Where the samples of a source are, and what is missing between them."""

    def __init__(self, source: AvSource, first: float):
        self._source, self._begin = source, first
        self.position = 0  # samples
        self._expected: float | None = None  # time stamp in seconds of the next frame
        self._count, self._bytes, self._seconds = 0, 0, 0.0  # of packets that are decoded
        self._lost, self._is_tag = 0.0, False  # seconds since the last frame; whether in a tag
        self._holes, self._first, self._end = 0.0, 0.0, 0
        self._stated: containers.Stated | None = None

    def good(self, packet: Any) -> None:
        """Count a packet of sound."""
        if self._stated is None and self._source._kind == "mp3":
            head = self._source._part.bytes_at(max(0, (packet.pos or 0) - 4096), 4096)
            self._stated = containers.xing(head[: packet.pos or 0])
        self._count += packet.size > 0
        begin = self._end if packet.pos is None or packet.pos < 0 else packet.pos
        self._end = begin + packet.size
        self._bytes += packet.size
        self._seconds += (packet.duration or 0) * self._source._tick
        self._is_tag = False

    def bad(self, packet: Any) -> None:
        """Count a packet that cannot be decoded, unless it has a tag."""
        source = self._source
        if source._kind not in _RAW:
            if self.position:
                self._lost += (packet.duration or 0) * source._tick
            return
        if self._lost == 0:
            self._is_tag = bytes(packet)[:16].lstrip(b"\0").startswith(_TAGS) or self._is_over()
        if self._is_tag or not self._seconds or not packet.size:
            return
        self._lost += packet.size * self._seconds / self._bytes

    def _is_over(self) -> bool:
        """Whether all frames that an MP3's header states were found."""
        stated = self._stated.frames if self._stated else 0
        return 0 < stated <= self._count

    def gap(self, frame: "av.AudioFrame | None") -> Iterator[int]:
        """Samples of silence, in pieces, that stand for what is lost before a frame, or before a
        packet that is not decoded (None)."""
        source = self._source
        lost, self._lost = max(self._lost, self._jump(frame)), 0.0
        if lost < SHORTEST_MISSING or (frame is None and not self.position):
            return
        if self.position >= self._begin and self.position:
            self._first = self._first if self._holes else self.position / source.rate
            self._holes += lost
            self._refuse_endless()
        left = round(lost * source.rate)
        while left > 0:
            piece = min(left, READ_SECONDS * source.rate)
            self.position += piece
            yield piece
            left -= piece

    def _jump(self, frame: "av.AudioFrame | None") -> float:
        """Seconds by which a frame's time stamp is later than the end of the frame before."""
        source, before = self._source, self._expected
        if frame is None or source._kind in _RAW:
            return 0.0
        now = before
        if frame.pts is not None:
            now = frame.pts * float(frame.time_base or source._tick)
        if now is None:
            return 0.0
        self._expected = now + frame.samples / frame.sample_rate
        if before is None:
            return self._before_first(frame, now)
        jump = now - before
        return jump if source._tolerance < jump < _LONGEST_GAP else 0.0

    def _before_first(self, frame: "av.AudioFrame", now: float) -> float:
        """Seconds at the beginning that WMA's decoder leaves out: a frame, which is no hole."""
        source = self._source
        if not source._stream.codec_context.name.startswith("wma"):
            return 0.0
        length = frame.samples / frame.sample_rate
        lead = max(0, round((now - (source._first_pts or 0.0)) / length) - 1)
        return lead * length

    def _refuse_endless(self) -> None:
        """AudioError where silence would be made without end by damaged time stamps."""
        decoded = self.position / self._source.rate - self._holes
        if self._holes > _LONGEST_GAP:
            refuse_half(self._source.path, max(decoded, 0.0), Missing(self._holes))

    def so_far(self) -> Missing:
        """The holes since the first sample that is wanted."""
        return Missing(self._holes, self._first)

    def finish(self) -> None:
        """Set the source's `missing` at its end. AudioError when it is more than half."""
        source = self._source
        tail = max(self._lost, self._before_stated_end())
        if tail < SHORTEST_MISSING:
            tail = 0.0
        source.missing = Missing(self._holes, self._first, tail)
        if not self._begin:
            refuse_half(source.path, self.position / source.rate - self._holes, source.missing)

    def _before_stated_end(self) -> float:
        """Seconds between the last packet and the end that the file states; 0 where it is silent
        about that, or states less."""
        source, reached = self._source, self.position / self._source.rate
        part, stream = source._part, source._stream
        if source._kind == "mp3":
            stated = self._stated or containers.Stated(0, 0)
            if not stated.frames:
                return self._after_last_packet()
            is_cut = part.size < (stated.size or part.size + 1)
            lacking = stated.frames - self._count if is_cut else 0
            return max(0, lacking) * self._seconds / max(1, self._count)
        if source._kind == "ogg":
            size = containers.unfinished_page(part)
            return size * reached / max(1, part.size - size)
        if source._kind in _RAW:
            return self._after_last_packet()
        missing = self._stated_seconds(stream) - reached
        return missing if missing > _ROUGH else 0.0

    def _after_last_packet(self) -> float:
        """Seconds of the bytes after the last packet of a raw stream, but for a tag."""
        rest = self._source._part.size - self._end
        tag = self._source._part.bytes_at(self._end, 16).lstrip(b"\0")
        if self._lost or rest <= 0 or tag.startswith(_TAGS):
            return 0.0
        return rest * self._seconds / max(1, self._bytes)

    def _stated_seconds(self, stream: Any) -> float:
        """The length that the container states for the stream, in seconds."""
        if stream.duration and self._source._tick:
            return stream.duration * self._source._tick
        container = self._source._container
        is_alone = len(container.streams) == 1
        return container.duration / 1e6 if is_alone and container.duration else 0.0


def _mono(frame: "av.AudioFrame") -> np.ndarray:
    """The mean of a frame's channels (samples,) as float32, full scale 1."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype.kind == "u":
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)  # type: ignore[type-var]
    if channels == 1:
        return values[0].astype(np.float32)
    if channels == 2:
        return ((values[0] + values[1]) * 0.5).astype(np.float32)
    return values.mean(axis=0).astype(np.float32)
