"""A SoundFont 2 player: notes in, mono samples out, at any rate and tuning.

Written because no player could be required: symusic 0.6 fails with NumPy 2, and the wheel of
tinysoundfont 0.3.7 requires pyaudio, which does not build without PortAudio. Volume envelopes,
loops, key and velocity zones, tuning and a static low-pass are played; modulators, LFOs, pan and
effects are not. After the SoundFont 2.04 specification, whose names of generators these are.
"""

import importlib.util
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from scipy.signal import butter, lfilter

from audiotrain.utils.errors import MissingPackageError, UserError

LONGEST_NOTE = 12.0  # seconds that a key is held at most
SILENT_RELEASE = 1.5  # seconds of a release that are played at most
VOICE_SECONDS = (2.0, 3.0, 5.0, 8.0, LONGEST_NOTE + SILENT_RELEASE)  # lengths kept ready to be cut
DRUM_BANK = 128
KEY_RANGE, VELOCITY_RANGE, INSTRUMENT, SAMPLE = 43, 44, 41, 53  # numbers of generators
CHUNKS = (b"smpl", b"phdr", b"pbag", b"pgen", b"inst", b"ibag", b"igen", b"shdr")


class Generators(NamedTuple):
    """How a zone is played, with the defaults of the specification; envelope times in timecents."""

    filter_cutoff: int = 13500  # cents
    delay: int = -12000
    attack: int = -12000
    hold: int = -12000
    decay: int = -12000
    sustain: int = 0  # decibels / 10 below the peak
    release: int = -12000
    attenuation: int = 0  # centibels
    coarse_tune: int = 0  # semitones
    fine_tune: int = 0  # cents
    scale_tuning: int = 100  # cents a key
    loop_start: int = 0  # samples
    loop_end: int = 0
    loop_start_coarse: int = 0  # 32768 samples
    loop_end_coarse: int = 0
    sample_modes: int = 0
    root_key: int = -1


# The numbers of these generators; a preset adds to the first ones alone.
_OF_PRESETS = (8, 33, 34, 35, 36, 37, 38, 48, 51, 52, 56)
_NUMBERS = (*_OF_PRESETS, 2, 3, 45, 50, 54, 58)
Values = dict[int, int]  # of the generators in a file, by number


class Sample(NamedTuple):
    """A recorded sound: where it lies in the data, its loop, rate in Hz, pitch and cents."""

    start: int
    end: int
    loop_start: int
    loop_end: int
    rate: int
    pitch: int
    cents: int


class Zone(NamedTuple):
    """A zone: ranges of keys and velocities, generators, and the number of its sample."""

    keys: tuple[int, int]
    velocities: tuple[int, int]
    generators: Generators
    sample: int


ZoneKey = tuple[tuple[int, int], int]  # (bank, program) of a preset, number of its zone


class SoundFont:
    """The presets of an .sf2 file; `render` plays notes. ValueError, one line, when it cannot be
    read as a SoundFont 2. Samples stay on disk until they are played."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            data = np.memmap(self.path, np.uint8, "r") if self.path.stat().st_size else np.zeros(0)
        except OSError as error:
            raise UserError(f"{path}: soundfont can't be read: {error.strerror}") from None
        if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
            raise UserError(f"{path}: no SoundFont 2 file")
        if (wanted := 8 + int(data[4:8].view("<u4")[0])) > len(data):
            raise UserError(f"{path}: cut short, {len(data)} of {wanted} bytes")
        try:
            chunks = _chunks(data, 12, wanted)
            if b"ifil" in chunks and (version := int(chunks[b"ifil"][0])) != 2:
                raise UserError(f"{path}: SoundFont version {version}, expected 2 (.sf2)")
            self._read({name: chunks[name] for name in CHUNKS})
        except (KeyError, IndexError, struct.error) as error:
            raise UserError(f"{path}: SoundFont 2 file is damaged ({error})") from None
        self._voice = lru_cache(maxsize=512)(self._make_voice)

    def _read(self, chunks: dict[bytes, np.ndarray]) -> None:
        samples = chunks.pop(b"smpl")
        self._data = samples[: len(samples) // 2 * 2].view("<i2")
        tables = {name: chunk.tobytes() for name, chunk in chunks.items()}
        self.fingerprint = zlib.crc32(repr(tables).encode())  # what another soundfont has not
        headers = struct.iter_unpack("<20xIIIIIBbHH", tables[b"shdr"])
        self._samples = [Sample(*row[:7]) for row in headers][:-1]
        instruments = _zones(tables, b"inst", b"ibag", b"igen", "<20sH", SAMPLE)
        presets = _zones(tables, b"phdr", b"pbag", b"pgen", "<20sHHHIII", INSTRUMENT)
        self._presets = {
            (bank, program): [z for outer in zones for z in _combine(outer, instruments)]
            for (_, program, bank, *_), zones in presets
        }

    def has(self, program: int, is_drum: bool) -> bool:
        """Whether it has the instrument itself, or a drum kit."""
        return ((DRUM_BANK, 0) if is_drum else (0, program)) in self._presets

    def render(
        self,
        notes: Iterable[tuple[float, float, int, int]],
        program: int,
        is_drum: bool,
        rate: int,
        cents: float = 0.0,
    ) -> np.ndarray:
        """Samples (n,) float32 at `rate` Hz of notes (start, duration in seconds, pitch, velocity).

        `program` 0-127 of General MIDI (a drum kit's number for drums), `cents` above 440 Hz.
        """
        notes = list(notes)
        room = max((start + min(length, LONGEST_NOTE) for start, length, *_ in notes), default=0.0)
        mix = np.zeros(int((room + SILENT_RELEASE) * rate) + 2, np.float32)
        for start, length, pitch, velocity in notes:
            for zone, gain in self._zones_of(program, is_drum, pitch, velocity):
                held = LONGEST_NOTE if is_drum else min(length, LONGEST_NOTE)
                lasting = next(s for s in VOICE_SECONDS if s >= held + SILENT_RELEASE)
                wave, fade = self._voice(zone, pitch, rate, round(cents, 3), lasting)
                held = int(held * rate)
                tail = gain * wave[held : held + len(fade)]
                tail *= fade[: len(tail)]
                onset = int(start * rate)
                _add(mix, onset, gain * wave[:held])
                _add(mix, onset + min(held, len(wave)), tail)
        return mix

    def _zones_of(
        self, program: int, is_drum: bool, pitch: int, velocity: int
    ) -> Iterator[tuple[ZoneKey, float]]:
        """(where the zone is, gain) of all that sounds; drums fall back to the standard kit."""
        bank = DRUM_BANK if is_drum else 0
        key = (bank, program) if (bank, program) in self._presets else (bank, 0)
        for number, zone in enumerate(self._presets.get(key, [])):
            keys, velocities = zone.keys, zone.velocities
            if keys[0] <= pitch <= keys[1] and velocities[0] <= velocity <= velocities[1]:
                # Attenuation in centibels; all known players take 0.4 of it, as did the hardware.
                gain = (velocity / 127) ** 2 * 10 ** (-0.4 * zone.generators.attenuation / 200)
                yield (key, number), gain

    def _make_voice(
        self, zone: ZoneKey, pitch: int, rate: int, cents: float, seconds: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """A key held for `seconds` or until its sound ends, and how its sound decays when it is
        released."""
        key, number = zone
        _, _, values, sample_id = self._presets[key][number]
        sample = self._samples[sample_id]
        wave, factor = self._sound(sample, sample.rate > 1.5 * rate)
        root = values.root_key if values.root_key >= 0 else sample.pitch
        tuning = 100 * values.coarse_tune + values.fine_tune + sample.cents + cents
        interval = (pitch - root) * values.scale_tuning + tuning  # cents
        # A damaged file may ask for less than any step that a float has.
        step = max(1e-9, 2 ** (interval / 1200) * sample.rate / factor / rate)
        loop = _loop(sample, values, factor)
        frames = int(seconds * rate)
        if loop is None:
            frames = min(frames, int((len(wave) - 2) / step))
        position = np.arange(frames) * step
        if loop is not None:
            begin, length = loop
            repeated = position[np.searchsorted(position, begin + length) :]
            repeated -= begin
            np.fmod(repeated, length, out=repeated)
            repeated += begin
        whole = np.minimum(position.astype(np.int64), len(wave) - 2)
        part = np.subtract(position, whole, out=position).astype(np.float32)
        sound = wave.take(whole) * (1 - part) + wave.take(np.add(whole, 1, out=whole)) * part
        cutoff = 8.176 * 2 ** (values.filter_cutoff / 1200)
        if cutoff < 0.4 * rate and len(sound):
            sound = lfilter(*butter(2, cutoff / (rate / 2)), sound).astype(np.float32)
        release = max(0.02, _seconds(values.release) / 6)  # time constant in seconds
        fading = np.arange(int(min(5 * release, SILENT_RELEASE) * rate), dtype=np.float32)
        return sound * _envelope(values, len(sound), rate), np.exp(fading * (-1 / (release * rate)))

    def _sound(self, sample: Sample, halve: bool) -> tuple[np.ndarray, int]:
        """A sample's waveform in -1..1, and 2 when it is at half its rate, else 1."""
        wave = self._data[sample.start : max(sample.end, sample.start + 4)] / np.float32(32768)
        if halve:
            wave = soxr.resample(wave.astype(np.float32), 2, 1)
        return np.concatenate([wave, np.zeros(4, np.float32)]).astype(np.float32), 1 + halve


@lru_cache(maxsize=1)
def general_midi() -> SoundFont:
    """The General MIDI soundfont in the pretty_midi wheel (TimGM6mb.sf2)."""
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("no soundfont: pip install pretty_midi")
    return SoundFont(Path(next(iter(spec.submodule_search_locations))) / "TimGM6mb.sf2")


def _add(mix: np.ndarray, onset: int, samples: np.ndarray) -> None:
    """Add samples from `onset` on, up to the end of the mix."""
    target = mix[onset : onset + len(samples)]
    target += samples[: len(target)]


def _loop(sample: Sample, values: Generators, factor: int) -> tuple[float, float] | None:
    """Where the loop begins and how long it is, in samples; None without one."""
    start = values.loop_start + 32768 * values.loop_start_coarse
    end = values.loop_end + 32768 * values.loop_end_coarse
    begin = sample.loop_start - sample.start + start
    length = sample.loop_end - sample.start + end - begin
    if values.sample_modes & 1 == 0 or length < 8 or begin < 0:
        return None
    return begin / factor, length / factor


def _chunks(data: np.ndarray, position: int, stop: int) -> dict[bytes, np.ndarray]:
    """All RIFF chunks by name, those inside lists too."""
    chunks: dict[bytes, np.ndarray] = {}
    while position + 8 <= stop:
        name, size = struct.unpack("<4sI", bytes(data[position : position + 8]))
        if name == b"LIST":
            chunks |= _chunks(data, position + 12, position + 8 + size)
        else:
            chunks[name] = data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    return chunks


def _zones(
    chunks: dict[bytes, bytes], heads: bytes, bags: bytes, generators: bytes, head: str, last: int
) -> list[tuple[tuple, list[Values]]]:
    """(header, the values of its zones) of presets or instruments, global zones merged in."""
    rows = list(struct.iter_unpack(head, chunks[heads]))
    starts = [row[1 if len(row) == 2 else 3] for row in rows]
    bag = [first for first, _ in struct.iter_unpack("<HH", chunks[bags])]
    values = list(struct.iter_unpack("<Hh", chunks[generators]))
    result = []
    for number, row in enumerate(rows[:-1]):
        shared: Values = {}
        zones = []
        for index in range(starts[number], starts[number + 1]):
            zone = dict(values[bag[index] : bag[index + 1]])
            if last in zone:
                zones.append(shared | zone)
            elif index == starts[number]:
                shared = zone
        result.append((row, zones))
    return result


def _combine(preset: Values, instruments: list[tuple[tuple, list[Values]]]) -> list[Zone]:
    """The zones of a preset zone's instrument: its ranges cut, its values added."""
    zones = []
    for inner in instruments[preset[INSTRUMENT]][1]:
        keys, velocities = (
            _overlap(preset.get(name, 127 << 8), inner.get(name, 127 << 8))
            for name in (KEY_RANGE, VELOCITY_RANGE)
        )
        if keys[0] > keys[1] or velocities[0] > velocities[1]:
            continue
        values: dict[str, int] = Generators()._asdict()
        for name, number in zip(values, _NUMBERS, strict=True):
            added = preset.get(number, 0) if number in _OF_PRESETS else 0
            values[name] = inner.get(number, values[name]) + added
        zones.append(Zone(keys, velocities, Generators(**values), inner[SAMPLE]))
    return zones


def _overlap(one: int, other: int) -> tuple[int, int]:
    """The lowest and the highest number in two ranges, each with the lowest in its low byte."""
    lowest, highest = one & 0xFF, one >> 8 & 0xFF
    return max(lowest, other & 0xFF), min(highest, other >> 8 & 0xFF)


def _seconds(timecents: int) -> float:
    return 2 ** (timecents / 1200)


def _envelope(values: Generators, frames: int, rate: int) -> np.ndarray:
    """Volume of a held key: linear attack, hold, decay straight in dB to the sustain level."""
    time = np.arange(frames, dtype=np.float32) / rate - _seconds(values.delay)
    attack, hold, decay = map(_seconds, (values.attack, values.hold, values.decay))
    rise = np.clip(time / attack, 0, 1)
    sustain = min(max(values.sustain, 0), 1000) / 10  # dB below the peak
    fall = np.minimum(np.maximum(time - attack - hold, 0) / decay * 100, sustain)
    steady = min(int(np.searchsorted(fall, sustain)) + 1, frames)  # frames until it is the last
    level = 10 ** (-fall[:steady] / 20)
    rise[:steady] *= level
    rise[steady:] *= level[-1:]
    return rise.astype(np.float32)
