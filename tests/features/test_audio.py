"""Audio files: spans and streams equal the whole file, and each bad file is one clear line."""

import os
import re
import sys

import numpy as np
import pytest
import soundfile
import soxr

from audiotrain.features import audio
from audiotrain.features.audio import AudioError


def chirp(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """A tone that climbs, quieter in each further channel: (samples, channels)."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * (100 * t + 150 * t**2))
    return np.stack([tone / (1 + c) for c in range(channels)], axis=1).astype(np.float32)


def wav(path, samples, rate, **options):
    soundfile.write(path, samples, rate, subtype=options.pop("subtype", "FLOAT"), **options)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_every_format_is_read_as_float32_mono(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, chirp(2.0, 44100, channels=2), 44100)
    samples = audio.read(path, 22050)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) / 22050 == pytest.approx(2.0, abs=0.06)
    expected = soxr.resample(chirp(2.0, 44100)[:, 0] * 0.75, 44100, 22050)
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(samples, expected, atol=1e-4)
    assert np.abs(samples).max() == pytest.approx(np.abs(expected).max(), rel=0.1)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path, channels):
    samples = chirp(0.5, 8000, channels)
    path = wav(tmp_path / "x.wav", samples, 8000)
    assert audio.info(path) == (0.5, 8000, channels)
    np.testing.assert_allclose(audio.read(path, 8000), samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("native", [8000, 11025, 16000, 32000, 44100, 48000, 96000, 192000])
def test_a_tone_keeps_its_pitch_and_time_at_every_rate(tmp_path, native):
    t = np.arange(native) / native
    tone = np.sin(2 * np.pi * 440 * t).astype("f")
    samples = audio.read(wav(tmp_path / "x.wav", tone, native), 22050)
    assert len(samples) == pytest.approx(22050, abs=1)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 22050)
    np.testing.assert_allclose(samples[2000:-2000], expected[2000:-2000], atol=2e-4)


@pytest.mark.parametrize(("native", "rate"), [(44100, 22050), (48000, 22050), (8000, 22050)])
@pytest.mark.parametrize(("start", "seconds"), [(0, 1), (0.7, 2.5), (3.3333, 1.0), (5.5, 9)])
def test_a_span_equals_that_span_of_the_whole(tmp_path, native, rate, start, seconds):
    path = wav(tmp_path / "x.wav", chirp(6.0, native), native)
    whole = audio.read(path, rate)
    span = audio.read(path, rate, start, seconds)
    first = round(start * rate)
    np.testing.assert_allclose(span, whole[first : first + round(seconds * rate)], atol=2e-6)


@pytest.mark.parametrize(("native", "rate"), [(44100, 22050), (48000, 22050), (22050, 22050)])
@pytest.mark.parametrize("block_seconds", [0.37, 2.0, 60.0])
def test_a_stream_equals_the_whole_without_drift(tmp_path, native, rate, block_seconds):
    path = wav(tmp_path / "x.wav", chirp(35.0, native), native)
    blocks = list(audio.stream(path, rate, block_seconds))
    assert {len(block) for block in blocks[:-1]} <= {round(block_seconds * rate)}
    np.testing.assert_allclose(np.concatenate(blocks), audio.read(path, rate), atol=1e-6)


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".ogg", ".mp3"])
def test_a_span_of_a_long_file_is_read_without_decoding_the_rest(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"long{suffix}"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(10):
            file.write(np.zeros(8000 * 60, np.float32))
    decoded = []
    read = soundfile.SoundFile.read

    def count(self, frames=-1, *args, **options):
        decoded.append(frames)
        return read(self, frames, *args, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    assert len(audio.read(path, 16000, start=500, seconds=5)) == 80_000
    assert sum(decoded) < 8000 * 6


def test_a_tenth_of_a_second_and_silence_are_fine(tmp_path):
    short = wav(tmp_path / "short.wav", chirp(0.1, 48000), 48000)
    assert len(audio.read(short, 22050)) == 2205
    silence = wav(tmp_path / "silence.wav", np.zeros(8000, "f"), 8000)
    assert not audio.read(silence, 22050).any()


def test_what_is_written_is_read_again(tmp_path):
    samples = chirp(2.0, 22050)[:, 0]
    for suffix, tolerance in ((".wav", 0), (".flac", 1e-4), (".ogg", 0.1)):
        path = tmp_path / f"x{suffix}"
        audio.write(path, samples, 22050)
        np.testing.assert_allclose(audio.read(path, 22050), samples, atol=tolerance)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.flac", "x.ogg", "x.wav"]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="cannot write .nothing"):
        audio.write(tmp_path / "x.nothing", np.zeros(10, "f"), 22050)
    assert list(tmp_path.iterdir()) == []


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def spoilt(path, second, value):
    samples = chirp(2.0, 8000, 2)
    samples[round(second * 8000) :, 1] = value
    return wav(path, samples, 8000)


def patched(path, position, number):
    """The file with four bytes of its header, of which FLAC's are big-endian, set to a number."""
    data = bytearray(path.read_bytes())
    data[position : position + 4] = number.to_bytes(
        4, "big" if path.suffix == ".flac" else "little"
    )
    path.write_bytes(data)
    return path


BAD_FILES = {
    "missing": (lambda p: p / "x.wav", "x.wav: no such audio file"),
    "empty": (lambda p: cut(wav(p / "x.wav", chirp(1, 8000), 8000), 0), "the file is empty"),
    "no samples": (lambda p: wav(p / "x.wav", np.zeros((0, 1), "f"), 8000), "no audio samples"),
    "text": (
        lambda p: (p / "x.wav").write_text("hello " * 99) and p / "x.wav",
        "not readable as audio",
    ),
    "cut wav": (
        lambda p: cut(wav(p / "x.wav", chirp(3, 8000), 8000), 0.4),
        r"cut short: 1\.\d+ s of 3\.\d+ s can be decoded, less than half",
    ),
    "cut flac": (
        lambda p: cut(wav(p / "x.flac", chirp(30, 8000), 8000, subtype="PCM_16"), 0.4),
        r"cut short: 1\d\.\d+ s of 30\.\d+ s can be decoded, less than half",
    ),
    "folder": (
        lambda p: (p / "x.wav").mkdir() or p / "x.wav",
        "x.wav: is a folder, expected audio",
    ),
    "text called mp3": (
        lambda p: (p / "x.mp3").write_text("hello " * 99) and p / "x.mp3",
        "not readable as audio",
    ),
    "rate of 1 Hz": (
        lambda p: patched(wav(p / "x.wav", chirp(2, 22050), 22050, subtype="PCM_16"), 24, 1),
        "x.wav: sample rate 1 Hz, expected 1000 to 1000000",
    ),
    "rate of 2 GHz": (
        lambda p: patched(
            wav(p / "x.wav", chirp(2, 22050), 22050, subtype="PCM_16"), 24, 2**31 - 1
        ),
        "x.wav: sample rate 2147483647 Hz, expected 1000 to 1000000",
    ),
    "huge": (
        lambda p: spoilt(p / "x.wav", 1.25, -1e30),
        "6000 samples above 1e.12, the first at 1.2",
    ),
    "nan": (
        lambda p: spoilt(p / "x.wav", 1.25, np.nan),
        "6000 NaN or Inf samples, the first at 1.250 s",
    ),
    "inf": (lambda p: spoilt(p / "x.wav", 0.5, np.inf), "NaN or Inf samples, the first at 0.500 s"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, case):
    make, message = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        audio.read(path, 22050)
    assert re.match(re.escape(str(path)), str(caught.value))
    assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match=message):
        list(audio.stream(path, 22050))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has names in UTF-8 alone")
def test_a_name_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "x.wav"
    audio.write(path, np.zeros(800, np.float32), 8000)
    path = path.rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    with pytest.raises(AudioError, match=r"caf\\udce9\.wav': the name is not in UTF-8: rename it"):
        audio.info(path)


def test_only_the_span_that_is_read_must_be_sound(tmp_path):
    path = spoilt(tmp_path / "x.wav", 1.5, np.nan)
    assert np.isfinite(audio.read(path, 8000, 0.0, 1.0)).all()


def test_a_span_outside_the_file_is_refused(tmp_path):
    path = wav(tmp_path / "x.wav", chirp(1, 8000), 8000)
    with pytest.raises(AudioError, match="span starts at 1.5 s, but the audio ends at 1.000 s"):
        audio.read(path, 8000, start=1.5)
    with pytest.raises(ValueError, match="expected start >= 0"):
        audio.read(path, 8000, start=-1)


def test_a_wav_header_of_a_stream_that_knows_no_length_is_accepted(tmp_path):
    path = wav(tmp_path / "x.wav", chirp(1, 8000), 8000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert len(audio.read(path, 8000)) == 8000


def test_real_recordings_of_every_format(shared_data):
    paths = [
        next(iter(sorted((shared_data / folder).glob(pattern))))
        for folder, pattern in (
            ("berklee", "*.mp3"),
            ("esc10", "*.ogg"),
            ("piano-chords", "*.flac"),
        )
    ]
    assert len(paths) == 3
    for path in paths:
        whole = audio.read(path, 22050)
        assert np.isfinite(whole).all()
        assert len(whole) / 22050 == pytest.approx(audio.info(path).seconds, abs=0.1)
        middle = audio.info(path).seconds / 2
        first = round(middle * 22050)
        span = audio.read(path, 22050, middle, 0.2)
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=1e-3)


@pytest.mark.parametrize(
    ("subtype", "rate", "channels", "atol"),
    [
        *(("PCM_U8", 8000, 1, 0.02), ("ULAW", 8000, 1, 0.03), ("DOUBLE", 44100, 1, 1e-6)),
        *(("PCM_16", 192000, 6, 1e-4), ("PCM_24", 44100, 6, 1e-6), ("FLOAT", 8000, 1, 1e-6)),
    ],
)
def test_all_kinds_of_wav_samples_are_read(tmp_path, subtype, rate, channels, atol):
    samples = chirp(1.0, rate, channels)
    path = wav(tmp_path / "x.wav", samples, rate, subtype=subtype)
    np.testing.assert_allclose(audio.read(path, rate), samples.mean(axis=1), atol=atol)
    assert len(audio.read(path, 22050)) == 22050


def test_one_sample_and_full_scale_are_fine(tmp_path):
    one = wav(tmp_path / "one.wav", np.ones((1, 1), "f"), 8000)
    assert len(audio.read(one, 22050)) == len(np.concatenate(list(audio.stream(one, 22050))))
    square = np.sign(chirp(1.0, 22050)) * 2**31  # whole numbers, written as floats
    clipped = audio.read(wav(tmp_path / "clipped.wav", square, 22050), 22050)
    np.testing.assert_array_equal(clipped, square[:, 0])


def test_a_file_of_many_channels_is_read_in_small_blocks(tmp_path, monkeypatch):
    path = wav(tmp_path / "x.wav", np.zeros((60_000, 512), "i2"), 192000, subtype="PCM_16")
    sizes = []
    read = soundfile.SoundFile.read

    def record(self, frames=-1, *args, **options):
        sizes.append(frames * self.channels)
        return read(self, frames, *args, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", record)
    assert len(audio.read(path, 192000)) == 60_000
    assert max(sizes) <= 2**22
    assert len(sizes) > 4


def test_a_tar_member_larger_than_its_tar_costs_no_memory(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"RIFF" * 100)
    member = audio.TarMember(tmp_path / "x.tar", "x.wav", 100, 2**60)
    with pytest.raises(AudioError, match="cut short: 300 of 1152921504606846976 bytes"):
        audio.read(member, 22050)
