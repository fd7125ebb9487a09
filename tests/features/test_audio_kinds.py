"""Audio as people bring it: every container, headers that are wrong, files that are damaged.

The files are made here by PyAV and soundfile, from a signal whose times are known; each is read
from a path and from a tar.
"""

import io
import re
import tarfile
import threading
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from audiotrain.features import audio
from audiotrain.features.audio import AudioError, AudioWarning

RATE = 44100
SECONDS = 6.0


def signal(seconds=SECONDS, rate=RATE) -> np.ndarray:
    """Noise whose loudness changes, so that any two places differ (samples,)."""
    rng = np.random.default_rng(0)
    samples = round(seconds * rate)
    slow = np.repeat(rng.uniform(0.05, 0.5, samples // 2000 + 1), 2000)[:samples]
    tone = np.sin(2 * np.pi * 330 * np.arange(samples) / rate)
    return (slow * (tone + 0.3 * rng.standard_normal(samples)) / 2).astype(np.float32)


def encode(path, container, codec, samples=None, rate=RATE, bit_rate=128_000, options=None, **more):
    """Write mono samples by PyAV; `container` is the name of ffmpeg's format."""
    samples = signal() if samples is None else samples
    if codec == "libvorbis":  # PyAV's wheels cannot write it
        with soundfile.SoundFile(path, "w", rate, 1, "VORBIS", format="OGG") as target:
            for first in range(0, len(samples), rate):
                target.write(samples[first : first + rate])
        return path
    with av.open(str(path), "w", format=container, options=options or {}) as target:
        stream = target.add_stream(codec, rate=rate, options=more)
        stream.layout = "mono"
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(stream.format.name, "mono", rate, stream.frame_size or 4096)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            target.mux(stream.encode(piece))
        target.mux(stream.encode(None))
    return path


def in_tar(path):
    """The same file as a member of a tar."""
    tar = path.with_suffix(".tar")
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("before"), io.BytesIO())
        archive.add(path, path.name)
    with tarfile.open(tar) as archive:
        member = archive.getmember(path.name)
    return audio.TarMember(tar, path.name, member.offset_data, member.size)


def delay(found, expected) -> float:
    """Seconds by which `found` is later than `expected`, both at RATE, to a tenth of a sample."""
    size = min(len(found), len(expected))
    spectrum = np.fft.rfft(found[:size], 2 * size) * np.fft.rfft(expected[:size], 2 * size).conj()
    correlation = np.fft.irfft(spectrum)
    lag = int(np.argmax(correlation))
    return (lag if lag < size else lag - 2 * size) / RATE


def read_all(path, seconds, tolerance=0.03):
    """The samples of a file, the same from a path, a tar and a stream, without a warning."""
    samples = audio.read(path, RATE)
    assert len(samples) / RATE == pytest.approx(seconds, abs=tolerance)
    assert audio.info(path).seconds == pytest.approx(len(samples) / RATE, abs=0.002)
    np.testing.assert_allclose(audio.read(in_tar(path), RATE), samples, atol=1e-5)
    streamed = np.concatenate(list(audio.stream(path, RATE, 1.3)))
    np.testing.assert_allclose(streamed, samples, atol=1e-5)
    return samples


CONTAINERS = {  # of a codec each; most seconds by which times may be off
    "x.mp3": ("mp3", "libmp3lame", 0.003),
    "x.m4a": ("ipod", "aac", 0.003),
    "x.mp4": ("mp4", "aac", 0.003),
    "x.mov": ("mov", "aac", 0.003),
    "x.opus": ("ogg", "libopus", 0.003),
    "x.webm": ("webm", "libopus", 0.003),
    "x.ogg": ("ogg", "libvorbis", 0.003),
    "x.mka": ("matroska", "flac", 0.003),
    "x.mkv": ("matroska", "libmp3lame", 0.06),
    "x.wma": ("asf", "wmav2", 0.06),
    "x.aac": ("adts", "aac", 0.06),
    "x.flac": ("flac", "flac", 0.0001),
    "x.aiff": ("aiff", "pcm_s16be", 0.0001),
    "x.caf": ("caf", "pcm_s16le", 0.0001),
    "x.wav": ("wav", "pcm_s16le", 0.0001),
    "x.au": ("au", "pcm_s16be", 0.0001),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_read_whole_and_in_time(tmp_path, name):
    container, codec, tolerance = CONTAINERS[name]
    rate = 48000 if codec == "libopus" else RATE
    path = encode(tmp_path / name, container, codec, signal(rate=rate), rate)
    samples = read_all(path, SECONDS, 0.08)
    expected = signal()
    if rate != RATE:
        import soxr

        expected = soxr.resample(signal(rate=rate), rate, RATE)
    assert abs(delay(samples, expected)) <= tolerance


@pytest.mark.parametrize("name", ["x.mp3", "x.m4a", "x.opus", "x.wma", "x.ogg", "x.flac"])
def test_a_span_equals_that_span_of_the_whole(tmp_path, name):
    container, codec, _ = CONTAINERS[name]
    rate = 48000 if codec == "libopus" else RATE
    path = encode(tmp_path / name, container, codec, signal(20.0, rate), rate)
    whole = audio.read(path, RATE)
    for start, seconds in ((0.0, 1.0), (3.3333, 2.5), (17.9, 9.0)):
        span, first = audio.read(path, RATE, start, seconds), round(start * RATE)
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=2e-3)
        assert len(span) == min(round(seconds * RATE), len(whole) - first)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"movflags": "frag_keyframe+empty_moov"}, "x.mp4"), ({"movflags": "faststart"}, "x.m4a")],
)
def test_fragmented_and_fast_start_mp4(tmp_path, options, name):
    path = encode(tmp_path / name, "mp4", "aac", options=options)
    read_all(path, SECONDS, 0.08)


@pytest.mark.parametrize("xing", [True, False])
def test_mp3_of_variable_bit_rate_with_and_without_its_header(tmp_path, xing):
    samples = signal(20.0)
    samples[: 4 * RATE] = 0  # a silent intro has the smallest frames
    options = {"write_xing": str(int(xing))}
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame", samples, options=options, q="2")
    read_all(path, 20.0, 0.06)


@pytest.mark.parametrize("frames", [0, 10])
def test_an_mp3_that_states_too_few_frames_is_read_whole(tmp_path, frames):
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame")
    data = bytearray(path.read_bytes())
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    data[at + 8 : at + 12] = frames.to_bytes(4, "big")
    path.write_bytes(data)
    read_all(path, SECONDS, 0.06)


def test_joined_mp3s_of_other_bit_rates(tmp_path):
    parts = [
        encode(tmp_path / f"{rate}.mp3", "mp3", "libmp3lame", signal(4.0), bit_rate=rate)
        for rate in (64_000, 192_000)
    ]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    read_all(path, 8.0, 0.12)


def test_tags_are_no_sound(tmp_path):
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame")
    whole = audio.read(path, RATE)
    tag = b"TAG" + bytes(125)
    apes = b"APETAGEX" + bytes(24) + b"\0" * 40
    path.write_bytes(path.read_bytes() + apes + tag)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(audio.read(path, RATE)) == len(whole)


@pytest.mark.parametrize("rate", [RATE, 22050])
def test_a_chained_ogg_is_all_of_its_links(tmp_path, rate):
    first = encode(tmp_path / "1.ogg", "ogg", "libvorbis", signal(3.0))
    second = encode(tmp_path / "2.ogg", "ogg", "libvorbis", signal(4.0, rate), rate)
    path = tmp_path / "chained.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    read_all(path, 7.0, 0.05)


def test_a_flac_of_unknown_length(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, signal(), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples, 36 bits
    data[22:26] = bytes(4)
    path.write_bytes(data)
    read_all(path, SECONDS, 0.001)


@pytest.mark.parametrize("stated", [0, "half", 0xFFFFFFFF])
def test_a_wav_whose_data_chunk_states_another_length(tmp_path, stated):
    path = tmp_path / "x.wav"
    soundfile.write(path, signal(), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    size = int.from_bytes(data[at : at + 4], "little")
    data[at : at + 4] = (size // 2 if stated == "half" else stated).to_bytes(4, "little")
    path.write_bytes(data)
    read_all(path, SECONDS, 0.001)


@pytest.mark.parametrize(
    ("made", "container", "codec", "named"),
    [
        ("x.m4a", "ipod", "aac", "x.mp3"),
        ("x.aac", "adts", "aac", "y.mp3"),
        ("x.mp3", "mp3", "libmp3lame", "x.wav"),
        ("x.wav", "wav", "pcm_s16le", "x2.mp3"),
        ("x.flac", "flac", "flac", "x.m4a"),
        ("x.wav", "wav", "libmp3lame", "inside.wav"),
    ],
)
def test_names_that_lie(tmp_path, made, container, codec, named):
    path = encode(tmp_path / made, container, codec)
    path = path.rename(tmp_path / named)
    read_all(path, SECONDS, 0.08)


# ---- damaged


def missing_of(path) -> str:
    """The only warning of a read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        audio.read(path, RATE)
    assert [one.category for one in caught] == [AudioWarning], [str(one.message) for one in caught]
    return str(caught[0].message)


@pytest.mark.parametrize("name", ["x.mp3", "x.ogg", "x.flac", "x.wav", "x.opus", "x.mkv", "x.wma"])
def test_a_tail_that_is_cut_off_is_a_warning_with_its_seconds(tmp_path, name):
    container, codec, _ = {**CONTAINERS, "x.mkv": ("matroska", "aac", 0)}[name]
    rate = 48000 if codec == "libopus" else RATE
    path = encode(tmp_path / name, container, codec, signal(20.0, rate), rate)
    data = path.read_bytes()
    path.write_bytes(data[: round(0.8 * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = len(audio.read(path, RATE)) / RATE
    assert seconds == pytest.approx(16.0, abs=1.6)
    if name not in ("x.ogg", "x.opus"):  # whose length stands on the last page alone
        told = missing_of(path)
        assert told.startswith(f"{path}: ")
        lacking = float(re.search(r"([\d.]+) s at the end", told)[1])
        tolerance = 3.0 if name == "x.wma" else 1.2  # its header counts a lead of three seconds
        assert seconds + lacking == pytest.approx(20.0, abs=tolerance)


@pytest.mark.parametrize("size", [60, 150, 390, 600])
def test_a_last_frame_that_is_cut_is_left_out(tmp_path, size):
    """A quarter of ordinary MP3s end within a frame, of about 420 bytes and 26 ms here."""
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame", options={"write_xing": "0"})
    whole = len(audio.read(path, RATE))
    path.write_bytes(path.read_bytes()[:-size])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = audio.read(path, RATE)
    told = sum(float(re.search(r": ([\d.]+) s", str(one.message))[1]) for one in caught)
    assert (whole - len(samples)) / RATE <= told + size / 16000 + 0.001
    assert whole - len(samples) <= 2 * 1152


def test_strict_reading_refuses_what_is_cut(tmp_path):
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame")
    path.write_bytes(path.read_bytes()[:-5000])
    assert "at the end can't be decoded, left out" in missing_of(path)
    with pytest.raises(AudioError, match="at the end can't be decoded$"):
        audio.read(path, RATE, on_missing=audio.refuse)


def test_a_hole_is_silence_and_a_warning(tmp_path):
    path = encode(tmp_path / "x.mp3", "mp3", "libmp3lame", signal(20.0))
    data = bytearray(path.read_bytes())
    first, last = len(data) // 2, round(0.55 * len(data))
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = audio.read(path, RATE)
    assert len(samples) / RATE == pytest.approx(20.0, abs=0.3)
    told = missing_of(path)
    assert "silence instead" in told
    assert float(told.split(": ")[1].split(" s ")[0]) == pytest.approx(1.0, abs=0.3)
    late = signal(20.0)[-3 * RATE :]
    assert abs(delay(samples[-len(late) :], late)) < 0.15  # times after it stay right


@pytest.mark.parametrize("name", ["x.mp3", "x.flac", "x.wav", "x.mkv"])
def test_less_than_half_is_refused(tmp_path, name):
    container, codec, _ = CONTAINERS[name]
    path = encode(tmp_path / name, container, codec, signal(20.0))
    data = path.read_bytes()
    path.write_bytes(data[: round(0.3 * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(AudioError, match=r"can be decoded, less than half") as caught:
            audio.read(path, RATE)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", audio.AUDIO_SUFFIXES)
def test_no_bytes_and_no_audio_are_one_line(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    for content in (b"", b"hello " * 200, bytes(3000), b"ID3\x04" + bytes(100)):
        path.write_bytes(content)
        for read in (audio.read, lambda path, rate: list(audio.stream(path, rate))):
            with pytest.raises(AudioError) as caught:
                read(path, RATE)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)


def test_the_cases(shared_data):
    """Files that were read wrong once, with their true seconds."""
    cases = {
        "vbr_noxing.mp3": 29.3, "xing_zero.mp3": 29.3, "silfirst_noxing.mp3": 32.3,
        "piped.flac": 29.3, "chained.ogg": 29.3, "joined_bitrates.mp3": 33.3, "m4a_named.mp3": 29.3,
    }  # fmt: skip
    folder = shared_data / "cases" / "audio"
    assert {path.name for path in folder.iterdir()} == set(cases)
    for name, seconds in cases.items():
        assert len(audio.read(folder / name, 22050)) / 22050 == pytest.approx(seconds, abs=0.06)
        assert audio.info(folder / name).seconds == pytest.approx(seconds, abs=0.06)


# ---- long files, threads


@pytest.mark.slow
def test_twenty_hours_are_streamed(tmp_path):
    """Of a recording of any length no more than a block is in memory."""
    path = tmp_path / "long.mka"
    with av.open(str(path), "w", format="matroska") as target:
        stream = target.add_stream("flac", rate=8000)
        stream.layout = "mono"
        stream.codec_context.open()
        size = stream.frame_size
        frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        first = stream.encode(frame)
        packet = bytes([*first, *stream.encode(None)][0])
        for number in range(20 * 3600 * 8000 // size):
            one = av.Packet(packet)
            one.stream, one.time_base = stream, Fraction(1, 8000)
            one.pts = one.dts = number * size
            one.duration = size
            target.mux(one)
    assert audio.info(path).seconds == pytest.approx(20 * 3600, abs=5)
    blocks = audio.stream(path, 8000, 30.0)
    assert sum(len(next(blocks)) for _ in range(20)) == 20 * 30 * 8000
    blocks.close()
    assert len(audio.read(path, 8000, 3600.0, 2.0)) == 16000


def test_threads_read_the_same_files(tmp_path):
    paths = [
        encode(tmp_path / name, *CONTAINERS[name][:2]) for name in ("x.mp3", "x.m4a", "x.flac")
    ]
    expected = [audio.read(path, 22050) for path in paths]
    found: dict[int, list] = {}

    def work(number):
        found[number] = [audio.read(path, 22050) for path in paths]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for samples in found.values():
        for one, other in zip(samples, expected, strict=True):
            np.testing.assert_array_equal(one, other)
