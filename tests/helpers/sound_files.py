"""Sound files of all kinds, made by PyAV and libsndfile, whole, joined and damaged."""

import io
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from audiotrain.features.audio import TarMember

RATE = 44100


@cache
def music(seconds: float = 6.0, rate: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    """A tone that climbs, in noise that swells, (samples, channels): no two places are alike."""
    t = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(t)) * 0.05 * (1 + np.sin(3 * t))
    mono = 0.3 * np.sin(2 * np.pi * (200 * t + 60 * t**2)) + noise
    mono = mono if rate == RATE else soxr.resample(mono, RATE, rate)
    return np.stack([mono / (1 + c) for c in range(channels)], axis=1).astype(np.float32)


def encoded(
    samples: np.ndarray,
    rate: int,
    codec: str,
    container: str,
    options: dict[str, str] | None = None,
    bit_rate: int = 128_000,
) -> bytes:
    """Samples (samples, channels) as a file of PyAV's `container`."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with (
        tempfile.NamedTemporaryFile() as file,  # faststart reads what was written
        av.open(file.name, "w", format=container, options=options or {}) as target,
    ):
        stream = target.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = bit_rate
        context = stream.codec_context
        resampler = av.AudioResampler(
            format=context.format.name, layout=layout, rate=rate, frame_size=context.frame_size or 0
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.reshape(1, -1)), format="flt", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(piece):
                target.mux(packet)
        for packet in stream.encode(None):
            target.mux(packet)
        target.close()
        return Path(file.name).read_bytes()


def mp3(
    seconds: float = 6.0,
    bit_rate: int = 128_000,
    rate: int = RATE,
    channels: int = 2,
    xing: bool = True,
    seed: int = 0,
    gain: float = 1.0,
    id3: bool = False,
) -> bytes:
    """An MP3 of constant bit rate; without `xing` no header says how long it is."""
    options = {"write_xing": str(int(xing)), "id3v2_version": str(3 * id3)}
    return encoded(
        gain * music(seconds, rate, channels, seed), rate, "libmp3lame", "mp3", options, bit_rate
    )


def vbr_mp3(seconds: float = 6.0) -> bytes:
    """An MP3 of variable bit rate with a Xing header."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", RATE, 2, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3
    ) as target:
        target.write(music(seconds))
    return file.getvalue()


def sndfile(
    container: str, subtype: str | None = None, seconds=6.0, rate=RATE, channels=2
) -> bytes:
    """The file that libsndfile writes."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as target:
        for piece in np.array_split(music(seconds, rate, channels), 10):
            target.write(piece)
    return file.getvalue()


def without_xing(data: bytes) -> bytes:
    """An MP3 without its first frame, which has the header."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    begin = data.rfind(b"\xff\xfb", 0, at)
    return data[data.index(b"\xff\xfb", at) :] if begin >= 0 else data


def with_xing_frames(data: bytes, frames: int) -> bytes:
    """An MP3 whose header states another number of frames."""
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return data[:at] + frames.to_bytes(4, "big") + data[at + 4 :]


def with_vbri(data: bytes) -> bytes:
    """An MP3 whose first frame has Fraunhofer's header, which states twice the frames."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    begin = data.rfind(b"\xff\xfb", 0, at)
    header = b"VBRI\0\1\0\0\0\x50" + len(data).to_bytes(4, "big") + (460).to_bytes(4, "big")
    place = begin + 36
    return (
        data[: begin + 4]
        + bytes(32)
        + header
        + bytes(at + 120 - place - len(header))
        + data[at + 120 :]
    )


def id3(size: int) -> bytes:
    """An ID3v2 tag with a picture of `size` bytes, some of which could begin a frame."""
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + sizes + (b"\xff\xfb\x90\0" + bytes(60)) * (size // 64) + bytes(size % 64)


def replaced(data: bytes, share: float, new: bytes) -> bytes:
    """The data with other bytes from a share of it on."""
    at = int(share * len(data))
    return data[:at] + new + data[at + len(new) :]


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def wav_data_size(data: bytes, size: int) -> bytes:
    """A WAV whose data chunk states another size."""
    at = data.index(b"data") + 4
    return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]


def flac_of_unknown_length(data: bytes) -> bytes:
    """A FLAC as a pipe has it: no number of samples, no checksum."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(20) + data[42:]


def aac(container: str, options: dict[str, str] | None = None, codec: str = "aac") -> bytes:
    return encoded(music(), RATE, codec, container, options)


def opus(container: str) -> bytes:
    return encoded(music(rate=48000), 48000, "libopus", container)


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}
NOISE = np.random.default_rng(5).bytes(4000)
Maker = Callable[[], bytes]

# Files by the name that they get, with the seconds of sound that they hold.
WHOLE: dict[str, tuple[Maker, float]] = {
    "plain.mp3": (mp3, 6.0),
    "vbr.mp3": (vbr_mp3, 6.0),
    "vbr_noxing.mp3": (lambda: without_xing(vbr_mp3()), 6.0),
    "noxing.mp3": (lambda: mp3(xing=False), 6.0),
    "xing_zero.mp3": (lambda: with_xing_frames(vbr_mp3(), 0), 6.0),
    "xing_few.mp3": (lambda: with_xing_frames(vbr_mp3(), 60), 6.0),
    "vbri.mp3": (lambda: with_vbri(vbr_mp3()), 6.0),
    "silent_intro.mp3": (
        lambda: mp3(4, 32_000, xing=False, gain=0) + mp3(6, 160_000, xing=False),
        10.0,
    ),
    "loud_intro.mp3": (lambda: mp3(2, 320_000, xing=False) + mp3(6, 48_000, xing=False), 8.0),
    "joined.mp3": (lambda: mp3() + mp3(3.0, seed=1), 9.0),
    "joined_bit_rates.mp3": (lambda: mp3(3.0, 64_000) + mp3(4.0, 192_000) + vbr_mp3(), 13.0),
    "joined_rates.mp3": (lambda: mp3(xing=False) + mp3(4.0, rate=22050, channels=1), 10.0),
    "joined_with_tags.mp3": (lambda: id3(500) + mp3() + id3(50_000) + mp3(seed=1), 12.0),
    "id3v1.mp3": (lambda: mp3(xing=False) + b"TAG" + bytes(125), 6.0),
    "ape.mp3": (lambda: mp3() + b"APETAGEX" + 5 * NOISE + b"APETAGEX" + bytes(24), 6.0),
    "picture.mp3": (lambda: id3(300_000) + mp3(), 6.0),
    "junk_before.mp3": (lambda: NOISE + mp3(), 6.0),
    "mp3_in.wav": (lambda: encoded(music(), RATE, "libmp3lame", "wav"), 6.0),
    "plain.m4a": (lambda: aac("ipod"), 6.0),
    "faststart.m4a": (lambda: aac("ipod", {"movflags": "faststart"}), 6.0),
    "alac.m4a": (lambda: aac("ipod", codec="alac"), 6.0),
    "fragmented.mp4": (lambda: aac("mp4", FRAGMENTED), 6.0),
    "plain.mov": (lambda: aac("mov"), 6.0),
    "plain.mkv": (lambda: aac("matroska"), 6.0),
    "plain.aac": (lambda: aac("adts"), 6.0),
    "plain.opus": (lambda: opus("ogg"), 6.0),
    "plain.webm": (lambda: opus("webm"), 6.0),
    "plain.wma": (lambda: aac("asf", codec="wmav2"), 6.0),
    "plain.mka": (lambda: aac("matroska", codec="flac"), 6.0),
    "plain.ac3": (lambda: aac("ac3", codec="ac3"), 6.0),
    "plain.wav": (lambda: sndfile("WAV"), 6.0),
    "plain.aiff": (lambda: sndfile("AIFF"), 6.0),
    "plain.au": (lambda: sndfile("AU"), 6.0),
    "plain.caf": (lambda: sndfile("CAF"), 6.0),
    "plain.flac": (lambda: sndfile("FLAC"), 6.0),
    "plain.ogg": (lambda: sndfile("OGG"), 6.0),
    "opus_in.ogg": (lambda: sndfile("OGG", "OPUS", rate=48000), 6.0),
    "rf64.wav": (lambda: sndfile("RF64"), 6.0),
    "plain.w64": (lambda: sndfile("W64"), 6.0),
    "unknown.flac": (lambda: flac_of_unknown_length(sndfile("FLAC")), 6.0),
    "half_stated.wav": (lambda: wav_data_size(sndfile("WAV"), 6 * RATE * 2), 6.0),
    "zero_stated.wav": (lambda: wav_data_size(sndfile("WAV"), 0), 6.0),
    "endless.wav": (lambda: wav_data_size(sndfile("WAV"), 0xFFFFFFFF), 6.0),
    "chained.ogg": (lambda: sndfile("OGG") + sndfile("OGG", seconds=3.0), 9.0),
    "chained_rates.ogg": (
        lambda: sndfile("OGG") + sndfile("OGG", seconds=3.0, rate=22050, channels=1),
        9.0,
    ),
    "chained_opus.ogg": (lambda: sndfile("OGG") + opus("ogg"), 12.0),
    "aac_named.mp3": (lambda: aac("adts"), 6.0),
    "m4a_named.mp3": (lambda: aac("ipod"), 6.0),
    "mp3_named.wav": (lambda: mp3(xing=False), 6.0),
    "wav_named.mp3": (lambda: sndfile("WAV"), 6.0),
    "flac_named.m4a": (lambda: sndfile("FLAC"), 6.0),
    "mp3_named.flac": (mp3, 6.0),
}
# With the seconds of the whole and those that cannot be decoded.
DAMAGED: dict[str, tuple[Maker, float, float]] = {
    "tail.mp3": (lambda: cut(mp3(), 0.7), 4.2, 1.8),
    "tail_noxing.mp3": (lambda: cut(mp3(xing=False), 0.7), 4.2, 0.0),
    "hole_zero.mp3": (lambda: replaced(mp3(), 0.5, bytes(8000)), 6.0, 0.5),
    "hole_noise.mp3": (lambda: replaced(mp3(xing=False), 0.5, NOISE), 6.0, 0.25),
    "hole.m4a": (
        lambda: replaced(aac("ipod", {"movflags": "faststart"}), 0.5, bytes(8000)),
        6.0,
        0.5,
    ),
    "hole.mkv": (lambda: replaced(aac("matroska"), 0.6, bytes(2000)), 6.0, 1.0),
    "hole.wma": (lambda: replaced(aac("asf", codec="wmav2"), 0.5, bytes(8000)), 6.0, 0.5),
    "hole.flac": (lambda: replaced(sndfile("FLAC"), 0.5, bytes(30000)), 6.0, 0.4),
    "hole.ogg": (lambda: replaced(sndfile("OGG"), 0.5, bytes(4000)), 6.0, 0.7),
    "hole.opus": (lambda: replaced(opus("ogg"), 0.4, bytes(2000)), 6.0, 1.0),
    "tail.m4a": (lambda: cut(aac("ipod", {"movflags": "faststart"}), 0.7), 4.2, 1.8),
    "tail.mkv": (lambda: cut(aac("matroska"), 0.7), 4.2, 1.8),
    "tail.wma": (lambda: cut(aac("asf", codec="wmav2"), 0.7), 4.25, 0.3),
    "tail.flac": (lambda: cut(sndfile("FLAC"), 0.7), 4.2, 1.8),
    "tail.wav": (lambda: cut(sndfile("WAV"), 0.7), 4.2, 1.8),
    "tail.w64": (lambda: cut(sndfile("W64"), 0.7), 4.2, 1.8),
    "tail.aiff": (lambda: cut(sndfile("AIFF"), 0.7), 4.2, 1.8),
    "tail.ogg": (lambda: cut(sndfile("OGG"), 0.7), 3.87, 0.2),
}


@cache
def content(name: str) -> bytes:
    """The bytes of a file of WHOLE or DAMAGED."""
    return (WHOLE | DAMAGED)[name][0]()


def write(folder: Path, name: str, data: bytes | None = None) -> Path:
    """A file of that name, by default of WHOLE or DAMAGED."""
    path = folder / name
    path.write_bytes(content(name) if data is None else data)
    return path


def in_tar(path: Path) -> TarMember:
    """The file as a member of a tar beside it."""
    name = path.with_name(path.name + ".tar")
    with tarfile.open(name, "w") as tar:
        tar.add(path.parent / path.name, "first")
        tar.add(path, path.name)
    with tarfile.open(name) as tar:
        place = tar.getmember(path.name)
    return TarMember(name, path.name, place.offset_data, place.size)
