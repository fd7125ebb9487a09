"""What an MP3's header states: frames, joined files, tags that are no audio."""

import functools
import io
import tarfile

import numpy as np
import pytest
import soundfile

from audiotrain.features import audio, mp3_header

KINDS = [
    (44100, 2, "VARIABLE"),
    (48000, 1, "CONSTANT"),
    (22050, 1, "AVERAGE"),
    (8000, 2, "VARIABLE"),
]


@functools.cache
def mp3(rate: int, channels: int, mode: str, seconds: float = 5.0, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(size=(round(seconds * rate), channels)) / 10
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, channels, format="MP3", bitrate_mode=mode, compression_level=0.3
    ) as target:
        target.write(noise)
    return file.getvalue()


def id3(size: int) -> bytes:
    """An ID3v2 tag with a picture of `size` bytes, some of which could begin a frame."""
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + sizes + (b"\xff\xfb\x90\0" * (size // 4 + 1))[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_follow_one_another_to_the_end_of_a_file(kind):
    data, position = mp3(*kind), 0
    while position < len(data):
        length = mp3_header._frame_length(data[position : position + 4])
        assert length
        position += length
    assert position == len(data)
    assert mp3_header._stated_bytes(data[:200]) == len(data)
    assert mp3_header.audio_after_the_stated(io.BytesIO(data)) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begin", [b"", id3(500)])
@pytest.mark.parametrize("between", [b"", id3(50_000), b"TAG" + bytes(125) + id3(70_000)])
def test_joined_files_are_refused(tmp_path, kind, begin, between):
    first, second = mp3(*kind), mp3(*kind, seconds=8.0, seed=1)
    path = tmp_path / "x.mp3"
    path.write_bytes(begin + first + between + second)
    after = len(between + second)
    with pytest.raises(
        audio.AudioError, match=rf"^{path}: wrong header: {after} bytes .* 5\.\d+ s"
    ):
        audio.info(path)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(path, "x.mp3")
    with tarfile.open(tmp_path / "x.tar") as tar:
        place = tar.getmember("x.mp3").offset_data
    member = audio.TarMember(tmp_path / "x.tar", "x.mp3", place, path.stat().st_size)
    with pytest.raises(audio.AudioError, match="x.tar/x.mp3: wrong header"):
        audio.read(member, 22050)


@pytest.mark.parametrize(
    "end",
    [
        b"TAG" + bytes(125),
        b"APETAGEX\xff\xfb\x90\0" + np.random.default_rng(0).bytes(200_000),
        id3(200_000),
        bytes(200_000),
        mp3(44100, 2, "VARIABLE", seconds=0.1),
    ],
)
def test_what_is_no_audio_may_follow(tmp_path, end):
    path = tmp_path / "x.mp3"
    path.write_bytes(id3(3000) + mp3(44100, 2, "VARIABLE") + end)
    assert audio.info(path).seconds == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("size", [0, 3, 9, 10, 100])
def test_a_file_that_ends_early_states_nothing(size):
    for data in (b"", id3(500), mp3(44100, 2, "VARIABLE")):
        assert mp3_header.audio_after_the_stated(io.BytesIO(data[:size])) is None
