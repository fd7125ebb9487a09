"""Audio files: spans and streams equal the whole file, and each bad file is one clear line."""

import os
import re
import sys
import threading
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import correlate
from sound_files import DAMAGED, RATE, WHOLE, content, cut, in_tar, music, write

from audiotrain.features import audio, av_source
from audiotrain.features.audio import AudioError, AudioWarning


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


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
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


def test_a_span_of_a_long_mp3_is_read_without_decoding_the_rest(tmp_path, monkeypatch):
    path = tmp_path / "long.mp3"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(10):
            file.write(np.zeros(8000 * 60, np.float32))
    decoded = []
    decode = av_source.AvSource._decode

    def count(self, packet):
        decoded.append(packet)
        return decode(self, packet)

    monkeypatch.setattr(av_source.AvSource, "_decode", count)
    assert len(audio.read(path, 16000, start=500, seconds=5)) == 80_000
    assert len(decoded) < 8000 * 8 / 576


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


def cut_file(path, share):
    path.write_bytes(cut(path.read_bytes(), share))
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
    "empty": (lambda p: cut_file(wav(p / "x.wav", chirp(1, 8000), 8000), 0), "the file is empty"),
    "no samples": (lambda p: wav(p / "x.wav", np.zeros((0, 1), "f"), 8000), "no audio samples"),
    "text": (
        lambda p: (p / "x.wav").write_text("hello " * 99) and p / "x.wav",
        "not readable as audio",
    ),
    "cut wav": (
        lambda p: cut_file(wav(p / "x.wav", chirp(3, 8000), 8000), 0.4),
        r"x.wav: damaged or cut short: 1.19\d s of 3.000 s can be decoded, less than half",
    ),
    "cut flac": (
        lambda p: cut_file(wav(p / "x.flac", chirp(9, 8000), 8000, subtype="PCM_16"), 0.4),
        r"damaged or cut short: \d.\d+ s of 9.000 s can be decoded, less than half",
    ),
    "cut mp3": (
        lambda p: write(p, "x.mp3", cut(content("plain.mp3"), 0.4)),
        r"damaged or cut short: 2.\d+ s of 6.\d+ s can be decoded, less than half",
    ),
    "m4a without its end": (
        lambda p: write(p, "x.m4a", cut(content("plain.m4a"), 0.9)),
        "x.m4a: not readable as audio: Invalid data",
    ),
    "wav of zeros": (lambda p: write(p, "x.wav", bytes(9000)), "not readable as audio"),
    "mp3 of zeros": (
        lambda p: write(p, "x.mp3", content("noxing.mp3")[:20_000] + bytes(90_000)),
        "can be decoded, less than half",
    ),
    "a playlist": (
        lambda p: write(p, "x.mp3", b"#EXTM3U\n#EXTINF:9,x\nhttp://localhost/x.ts\n" * 9),
        "x.mp3: not readable as audio",
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
    "flac of 2**32 samples": (
        lambda p: patched(
            wav(p / "x.flac", chirp(2, 22050), 22050, subtype="PCM_16"), 22, 2**32 - 1
        ),
        r"2.000 s of \d+.\d+ s can be decoded, less than half",
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


# ---- all kinds of files


def test_there_are_files_of_all_kinds():
    assert len(WHOLE) > 45
    assert len(DAMAGED) > 15
    suffixes = {name[name.index(".") :] for name in WHOLE}
    assert len(suffixes & set(audio.AUDIO_SUFFIXES)) > 15


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read_to_its_end(tmp_path, name):
    """Encoders' delays and padding are up to 0.04 s of each part; warnings are errors."""
    path, seconds = write(tmp_path, name), WHOLE[name][1]
    for place in (path, in_tar(path)):
        whole = audio.read(place, RATE)
        assert len(whole) / RATE == pytest.approx(seconds, abs=0.15)
        assert audio.info(place).seconds == pytest.approx(len(whole) / RATE, abs=0.015)
        ends = [np.abs(part).max() for part in (whole[: 2 * RATE], whole[-RATE:])]
        assert min(ends) > 0.1 or name == "silent_intro.mp3"
        span = audio.read(place, RATE, seconds / 2, 0.5)
        first = round(seconds / 2 * RATE)
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=1e-6)
        blocks = list(audio.stream(place, RATE, 0.7))
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


@pytest.mark.parametrize("name", DAMAGED)
def test_what_can_be_decoded_is_read_and_the_rest_is_one_line(tmp_path, name):
    path, seconds, missing = write(tmp_path, name), *DAMAGED[name][1:]
    for place in (path, in_tar(path)):
        found = audio.Gathered()
        whole = audio.read(place, RATE, on_missing=found)
        assert len(whole) / RATE == pytest.approx(seconds, abs=0.1)
        assert audio.info(place).seconds == pytest.approx(seconds, abs=0.1)
        if not missing:
            assert found.text == ""
            continue
        amount = float(re.match(r"(\d+\.\d+) s at ", found.text)[1])
        assert amount == pytest.approx(missing, abs=max(0.1, missing / 2))
        kind = "left out" if name.startswith("tail") else "silence instead"
        assert found.text.endswith(f"can't be decoded, {kind}")
        with pytest.warns(AudioWarning, match=re.escape(f"{place}: {found.text}")) as caught:
            np.concatenate(list(audio.stream(place, RATE)))
        assert len(caught) == 1
        with pytest.raises(AudioError, match=r"s at .* can't be decoded$"):
            audio.read(place, RATE, on_missing=audio.refuse)


@pytest.mark.parametrize("name", [name for name in DAMAGED if name.startswith("hole")])
def test_times_after_a_hole_stay_right(tmp_path, name):
    read = audio.read(write(tmp_path, name), RATE, on_missing=audio.ignore)
    end = round(5.5 * RATE)
    assert abs(delay(read, 4.8, end)) < (0.15 if name.endswith(".mp3") else 0.03)


DELAYS = {
    **dict.fromkeys(("plain.mp3", "vbr.mp3", "xing_zero.mp3", "picture.mp3", "plain.m4a"), 0.0),
    **dict.fromkeys(("faststart.m4a", "alac.m4a", "plain.mov", "plain.mkv"), 0.0),
    **dict.fromkeys(("plain.opus", "opus_in.ogg", "plain.webm", "plain.mka", "plain.ogg"), 0.0),
    **dict.fromkeys(("plain.aiff", "plain.flac", "unknown.flac", "half_stated.wav"), 0.0),
    **dict.fromkeys(("plain.wma", "rf64.wav", "plain.caf", "plain.au", "plain.wav"), 0.0),
    # No header says how much the encoder is late.
    **dict.fromkeys(("noxing.mp3", "vbr_noxing.mp3", "mp3_in.wav"), 1105 / RATE),
    **dict.fromkeys(("plain.aac", "fragmented.mp4"), 1024 / RATE),
}


def delay(read: np.ndarray, start: float, end: int) -> float:
    """Seconds by which samples are later than those of `music`, from `start` on."""
    first, reach = round(start * RATE), 8000
    wanted = music()[first:end].mean(axis=1)
    padded = np.concatenate([np.zeros(reach, np.float32), read, np.zeros(reach, np.float32)])
    found = correlate(padded[first : end + 2 * reach], wanted, "valid")
    return (int(found.argmax()) - reach) / RATE


@pytest.mark.parametrize("name", DELAYS)
def test_times_agree_with_the_wav(tmp_path, name):
    read = audio.read(write(tmp_path, name), RATE)
    for start in (0.0, 4.0):
        assert delay(read, start, round((start + 1.5) * RATE)) == pytest.approx(
            DELAYS[name], abs=0.003
        )


SHARED_CASES = {
    **dict.fromkeys(("vbr_noxing.mp3", "xing_zero.mp3", "piped.flac", "chained.ogg"), 29.3),
    **{"silfirst_noxing.mp3": 32.3, "joined_bitrates.mp3": 33.3, "m4a_named.mp3": 29.3},
}


@pytest.mark.parametrize("name", SHARED_CASES)
def test_files_that_were_read_to_a_part(shared_data, name):
    path = shared_data / "cases" / "audio" / name
    assert audio.info(path).seconds == pytest.approx(SHARED_CASES[name], abs=0.06)
    assert len(audio.read(path, 22050)) / 22050 == pytest.approx(SHARED_CASES[name], abs=0.06)


def test_a_wav_of_ten_hours_is_streamed_in_little_memory(tmp_path):
    path = tmp_path / "long.wav"
    hour = 3600 * 8000
    header = content("plain.wav")[:44]
    fields = (1).to_bytes(2, "little") + (8000).to_bytes(4, "little")
    size = (20 * hour).to_bytes(4, "little")
    head = header[:22] + fields + (16000).to_bytes(4, "little") + b"\2\0\x10\0data" + size
    with path.open("wb") as file:
        file.write(head[:4] + (20 * hour + 36).to_bytes(4, "little") + head[8:])
        file.truncate(44 + 20 * hour)
    assert audio.info(path).seconds == 36_000
    tracemalloc.start()
    for number, block in enumerate(audio.stream(path, 8000, 10.0)):
        assert len(block) == 80_000
        if number == 30:
            break
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(("name", "times"), [("plain.mp3", 200), ("plain.ogg", 20)])
def test_long_joined_files_are_streamed_in_little_memory(tmp_path, name, times):
    path = write(tmp_path, name, times * content(name))
    assert audio.info(path).seconds == pytest.approx(6 * times, rel=0.02)
    tracemalloc.start()
    for number, block in enumerate(audio.stream(path, 8000, 10.0)):
        assert len(block) == 80_000
        if number == 9:
            break
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


def test_threads_read_files_at_the_same_time(tmp_path):
    paths = [write(tmp_path, name) for name in ("plain.mp3", "plain.m4a", "plain.flac", "hole.wma")]
    wanted = [audio.read(path, 22050, on_missing=audio.ignore) for path in paths]
    wrong = []

    def read(number):
        for _ in range(3):
            found = audio.read(paths[number % 4], 22050, on_missing=audio.ignore)
            if not np.array_equal(found, wanted[number % 4]):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["hole_zero.mp3", "joined_with_tags.mp3", "tail.m4a", "ape.mp3"])
def test_decoders_print_nothing(tmp_path, capfd, name):
    audio.read(write(tmp_path, name), 22050, on_missing=audio.ignore)
    assert capfd.readouterr() == ("", "")


def test_the_sound_of_a_video_is_read(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as target:
        pictures = target.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 64
        sound = target.add_stream("aac", rate=RATE, layout="mono")
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            frame.pts = number
            target.mux(pictures.encode(frame))
        for first in range(0, 4 * RATE, 1024):
            piece = music(4.0)[first : first + 1024].mean(axis=1)
            frame = av.AudioFrame.from_ndarray(piece[None].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, first
            target.mux(sound.encode(frame))
        for stream in (pictures, sound):
            target.mux(stream.encode(None))
    read = audio.read(path, RATE)
    assert len(read) / RATE == pytest.approx(4.0, abs=0.03)
    assert audio.info(path) == (pytest.approx(4.0, abs=0.03), RATE, 1)
    assert abs(delay(read, 1.0, 3 * RATE)) < 0.003
