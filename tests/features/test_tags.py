"""Titles and artists of files whose tags are written by hand, by libsndfile and by ffmpeg."""

import io
import struct
import tarfile

import numpy as np
import pytest
import soundfile

from audiotrain.features.audio import TarMember
from audiotrain.features.tags import LONGEST, Tags, plain, read_tags

TITLE, ARTIST = "Ça ira 日本 🎵", "Édith & Müller"
RATE = 48000


def tone() -> np.ndarray:
    return (0.2 * np.sin(np.arange(RATE // 4) * 0.05)).astype(np.float32)


def write_by_ffmpeg(path, codec, metadata) -> None:
    import av

    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=RATE, bit_rate=96000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([tone()] * 2), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        form = stream.codec_context.format
        resampler = av.AudioResampler(form, "stereo", RATE, stream.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))


@pytest.fixture(scope="module")
def mp3(tmp_path_factory) -> bytes:
    """A second of MP3 without tags."""
    path = tmp_path_factory.mktemp("mp3") / "x.mp3"
    soundfile.write(path, tone(), RATE)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *((".mp3", "libmp3lame"), (".flac", "flac"), (".opus", "libopus"), (".m4a", "aac")),
        *((".mp4", "aac"), (".mov", "aac"), (".wav", "pcm_s16le"), (".wma", "wmav2")),
        *((".mkv", "libopus"), (".webm", "libopus"), (".caf", "pcm_s16le"), (".avi", "mp3")),
    ],
)
def test_tags_that_ffmpeg_writes(tmp_path, suffix, codec):
    path = tmp_path / f"01 other name{suffix}"
    write_by_ffmpeg(path, codec, {"title": TITLE, "artist": ARTIST})
    assert read_tags(path) == Tags(TITLE, ARTIST)
    assert read_tags(str(path)) == Tags(TITLE, ARTIST)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".wav", ".aiff"])
def test_tags_that_libsndfile_writes(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.title, file.artist = TITLE, ARTIST
        file.write(tone())
    assert read_tags(path) == Tags(TITLE, ARTIST)


def id3(*frames: tuple[bytes, bytes], version: int = 4) -> bytes:
    """An ID3v2 tag; a frame is its name and its content, whose first byte is the encoding."""

    def seven_bits(size: int) -> bytes:
        return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))

    body = b""
    for name, content in frames:
        size = seven_bits(len(content)) if version == 4 else struct.pack(">I", len(content))
        body += name + size + b"\0\0" + content
    return b"ID3" + bytes([version, 0, 0]) + seven_bits(len(body)) + body


def id3v1(title: bytes, artist: bytes) -> bytes:
    return b"TAG" + title.ljust(30, b"\0") + artist.ljust(30, b" ") + b"\0" * 64 + b"\xff"


@pytest.mark.parametrize(
    ("before", "after", "tags"),
    [
        (b"", b"", Tags()),
        (b"", id3v1("Für Elise".encode("latin-1"), b"Ludwig"), Tags("Für Elise", "Ludwig")),
        (b"", id3v1("Für Elise".encode(), b""), Tags("Für Elise")),
        (id3((b"TIT2", b"\0Beyonc\xe9"), version=3), b"", Tags("Beyoncé")),
        (id3((b"TIT2", b"\x01" + TITLE.encode("utf-16")), version=3), b"", Tags(TITLE)),
        (id3((b"TIT2", b"\x02" + TITLE.encode("utf-16-be"))), b"", Tags(TITLE)),
        (id3((b"TIT2", b"\x03caf\xe9 \x81")), b"", Tags("café")),
        (id3((b"TIT2", b"\x03a\r\nb\tc\x07\x1b[31m")), b"", Tags("a b c [31m")),
        (id3((b"TIT2", b'\x03<b>{A} & "B"</b>')), b"", Tags('<b>{A} & "B"</b>')),
        (id3((b"TIT2", b"\x03"), (b"TPE1", b"\x03 \n ")), b"", Tags()),
        (id3((b"TPE2", b"\x03The Band"), (b"TPE1", b"\x03")), b"", Tags("", "The Band")),
        (id3((b"TPE2", b"\x03Various"), (b"TPE1", b"\x03A")), b"", Tags("", "A")),
        (id3((b"TPE1", b"\x03A/B; C feat. D")), b"", Tags("", "A/B; C feat. D")),
        (id3((b"TPE1", b"\x03A\0B")), b"", Tags("", "A")),
        (id3((b"TPE1", b"\x03Two")), id3v1(b"One", b"Old"), Tags("", "Two")),
        (id3((b"TIT2", b"\x03" + b"x" * 100_000)), b"", Tags("x" * (LONGEST - 1) + "…")),
        (id3((b"TIT2", b"\x03x"))[:-1] + b"\xff" * 200, b"", Tags()),
    ],
)
def test_tags_of_an_mp3(tmp_path, mp3, before, after, tags):
    (tmp_path / "Artist - Title.mp3").write_bytes(before + mp3 + after)
    found = read_tags(tmp_path / "Artist - Title.mp3")
    assert found == tags or before.endswith(b"\xff" * 200)
    assert all(len(text) <= LONGEST for text in found)


def test_an_artist_of_a_vorbis_comment_that_is_there_twice(tmp_path):
    write_by_ffmpeg(tmp_path / "x.flac", "flac", {"artist": "Anna"})
    data = (tmp_path / "x.flac").read_bytes()
    at = data.index(b"artist=Anna") - 4
    count = struct.unpack("<I", data[at - 4 : at])[0]
    two = struct.pack("<I", count + 1) + b"\x0a\0\0\0ARTIST=Bob" + data[at:]
    block = data.index(b"\x84" if b"\x84" in data[:60] else b"\x04", 40)
    size = int.from_bytes(data[block + 1 : block + 4], "big") + 14
    head = data[:block] + data[block : block + 1] + size.to_bytes(3, "big")
    (tmp_path / "x.flac").write_bytes(head + data[block + 4 : at - 4] + two)
    assert read_tags(tmp_path / "x.flac") == Tags("", "Bob; Anna")


def test_a_member_of_a_tar(tmp_path, mp3):
    data = id3((b"TIT2", b"\x03" + TITLE.encode())) + mp3
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.mp3", "b.mp3"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(tmp_path / "x.tar") as tar:
        last = tar.getmember("b.mp3")
    place = (tmp_path / "x.tar", "b.mp3", last.offset_data, last.size)
    assert read_tags(TarMember(*place)) == Tags(TITLE)
    assert read_tags(TarMember(*place[:2], 10**9, 100)) == Tags()


@pytest.mark.parametrize("name", ["concat:a.mp3", "data:,x", "-", "%d #1?.mp3", "日本 🎵", "a'b"])
def test_any_name_is_that_of_a_file(tmp_path, monkeypatch, mp3, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(id3((b"TIT2", b"\x03x")) + mp3)
    assert read_tags(name) == Tags("x")


def test_a_name_that_is_not_utf8_has_no_tags_or_its_own(tmp_path, mp3):
    path = tmp_path / "f\udcff.mp3"
    try:
        path.write_bytes(id3((b"TIT2", b"\x03x")) + mp3)
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert read_tags(path) in (Tags("x"), Tags())


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"#EXTM3U\n/etc/passwd\n", b"\0" * 5000, b"text"]
)
def test_what_is_no_audio_has_no_tags(tmp_path, content):
    (tmp_path / "x.mp3").write_bytes(content)
    assert read_tags(tmp_path / "x.mp3") == Tags()


def test_what_is_not_there_has_no_tags(tmp_path):
    assert read_tags(tmp_path) == read_tags(tmp_path / "gone.wav") == Tags()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u202eevil\u2066", "evil"),
        ("e\u0301", "é"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\u2028b\u0085c", "a b c"),
        ("\udcd0\udc9f", "П"),  # UTF-8 after all
    ],
)
def test_plain_text(text, expected):
    assert plain(text) == expected
