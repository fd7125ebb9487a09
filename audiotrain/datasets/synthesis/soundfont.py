"""A SoundFont 2 player: notes in, mono samples out, at any rate and tuning.

Written because symusic's synthesizer plays this soundfont's piano a ninth to two octaves sharp and
never ends on high notes. Volume envelopes, loops, key and velocity zones, tuning and a static
low-pass are played; modulators, LFOs, pan and effects are not. After the SoundFont 2.04
specification, whose generator numbers stand in the code.
"""

import importlib.util
import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from scipy.signal import butter, lfilter

LONGEST_NOTE = 12.0  # seconds that a key is held at most
SILENT_RELEASE = 1.5  # seconds of a release that are played at most
VOICE_SECONDS = (2.0, 3.0, 5.0, 8.0, LONGEST_NOTE + SILENT_RELEASE)  # lengths kept ready to be cut
DRUM_BANK = 128

# Generator: default value. Others than these are not played.
DEFAULTS = {
    8: 13500, 33: -12000, 34: -12000, 35: -12000, 36: -12000, 37: 0, 38: -12000, 46: -1, 48: 0,
    51: 0, 52: 0, 54: 0, 56: 100, 58: -1, 0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 12: 0, 45: 0, 50: 0,
}  # fmt: skip
NEVER_ADDED = {46, 54, 58, 43, 44, 53, 41, 0, 1, 2, 3, 4, 12, 45, 50}  # a preset cannot change them
KEYS, VELOCITIES, INSTRUMENT, SAMPLE = 43, 44, 41, 53
CHUNKS = (b"smpl", b"phdr", b"pbag", b"pgen", b"inst", b"ibag", b"igen", b"shdr")


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
    """What sounds for some keys and velocities: generator values and their sample's number."""

    keys: tuple[int, int]
    velocities: tuple[int, int]
    generators: dict[int, int]
    sample: int


class SoundFont:
    """The presets of an .sf2 file; `render` plays notes. ValueError, one line, when it cannot be
    read as a SoundFont 2. Samples stay on disk until they are played."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            data = np.memmap(self.path, np.uint8, "r") if self.path.stat().st_size else np.zeros(0)
        except OSError as error:
            raise ValueError(f"{path}: soundfont can't be read: {error.strerror}") from None
        if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
            raise ValueError(f"{path}: no SoundFont 2 file")
        if (wanted := 8 + int(data[4:8].view("<u4")[0])) > len(data):
            raise ValueError(f"{path}: cut short, {len(data)} of {wanted} bytes")
        try:
            chunks = _chunks(data, 12, wanted)
            if b"ifil" in chunks and (version := int(chunks[b"ifil"][0])) != 2:
                raise ValueError(f"{path}: SoundFont version {version}, expected 2 (.sf2)")
            self._read({name: chunks[name] for name in CHUNKS})
        except (KeyError, IndexError, struct.error) as error:
            raise ValueError(f"{path}: SoundFont 2 file is damaged ({error})") from None
        self._voice = lru_cache(maxsize=512)(self._make_voice)

    def _read(self, chunks: dict[bytes, np.ndarray]) -> None:
        samples = chunks.pop(b"smpl")
        self._data = samples[: len(samples) // 2 * 2].view("<i2")
        tables = {name: chunk.tobytes() for name, chunk in chunks.items()}
        self.fingerprint = zlib.crc32(repr(tables).encode())  # what another soundfont has not
        self._samples = [
            Sample(*row[1:6], row[6], row[7])
            for row in struct.iter_unpack("<20sIIIIIBbHH", tables[b"shdr"])
        ][:-1]
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
        self, notes: Iterable[tuple[float, float, int, int]], program: int, is_drum: bool,
        rate: int, cents: float = 0.0,
    ) -> np.ndarray:  # fmt: skip
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
                tail = wave[held : held + len(fade)]
                onset = int(start * rate)
                held = min(held, len(wave))
                mix[onset : onset + held] += gain * wave[:held][: len(mix) - onset]
                mix[onset + held : onset + held + len(tail)] += (gain * tail * fade[: len(tail)])[
                    : max(0, len(mix) - onset - held)
                ]
        return mix

    def _zones_of(self, program: int, is_drum: bool, pitch: int, velocity: int):
        """(number of the zone, gain) of all that sounds; drums fall back to the standard kit."""
        bank = DRUM_BANK if is_drum else 0
        key = (bank, program) if (bank, program) in self._presets else (bank, 0)
        for number, zone in enumerate(self._presets.get(key, [])):
            if (
                zone.keys[0] <= pitch <= zone.keys[1]
                and zone.velocities[0] <= velocity <= zone.velocities[1]
            ):
                # Attenuation in centibels; all known players take 0.4 of it, as did the hardware.
                gain = (velocity / 127) ** 2 * 10 ** (-0.4 * zone.generators[48] / 200)
                yield (key, number), gain

    def _make_voice(
        self, zone: tuple[tuple[int, int], int], pitch: int, rate: int, cents: float, seconds: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """A key held for `seconds` or until its sound ends, and how its sound decays when it is
        released."""
        key, number = zone
        values = self._presets[key][number].generators
        sample = self._samples[self._presets[key][number].sample]
        wave, factor = self._sound(self._presets[key][number].sample, sample.rate > 1.5 * rate)
        root = values[58] if values[58] >= 0 else sample.pitch
        tuning = 100 * values[51] + values[52] + sample.cents + cents
        interval = (pitch - root) * values[56] + tuning  # cents
        step = 2 ** (interval / 1200) * sample.rate / factor / rate
        loop = self._loop(sample, values, factor)
        frames = int(seconds * rate)
        if loop is None:
            frames = min(frames, int((len(wave) - 2) / step))
        place = np.arange(frames) * step
        if loop is not None:
            begin, length = loop
            repeated = place[np.searchsorted(place, begin + length) :]
            repeated -= begin
            np.fmod(repeated, length, out=repeated)
            repeated += begin
        whole = np.minimum(place.astype(np.int64), len(wave) - 2)
        part = np.subtract(place, whole, out=place).astype(np.float32)
        sound = wave.take(whole) * (1 - part) + wave.take(np.add(whole, 1, out=whole)) * part
        cutoff = 8.176 * 2 ** (values[8] / 1200)
        if cutoff < 0.4 * rate and len(sound):
            sound = lfilter(*butter(2, cutoff / (rate / 2)), sound).astype(np.float32)
        release = max(0.02, _seconds(values[38]) / 6)  # time constant in seconds
        fading = np.arange(int(min(5 * release, SILENT_RELEASE) * rate), dtype=np.float32)
        return sound * _envelope(values, len(sound), rate), np.exp(fading * (-1 / (release * rate)))

    def _sound(self, number: int, halve: bool) -> tuple[np.ndarray, int]:
        """A sample's waveform in -1..1, at half its rate when it would alias."""
        sample = self._samples[number]
        wave = self._data[sample.start : max(sample.end, sample.start + 4)] / np.float32(32768)
        if halve:
            wave = soxr.resample(wave.astype(np.float32), 2, 1)
        return np.concatenate([wave, np.zeros(4, np.float32)]).astype(np.float32), 1 + halve

    def _loop(self, sample: Sample, values: dict[int, int], factor: int):
        """Where the loop begins and how long it is, in samples; None without one."""
        begin = sample.loop_start - sample.start + values[2] + 32768 * values[45]
        end = sample.loop_end - sample.start + values[3] + 32768 * values[50]
        if values[54] & 1 == 0 or end - begin < 8 or begin < 0:
            return None
        return begin / factor, (end - begin) / factor


@lru_cache(maxsize=1)
def general_midi() -> SoundFont:
    """The General MIDI soundfont in the pretty_midi wheel (TimGM6mb.sf2)."""
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("no soundfont: pip install pretty_midi")
    return SoundFont(Path(next(iter(spec.submodule_search_locations))) / "TimGM6mb.sf2")


def _chunks(data: np.ndarray, position: int, stop: int) -> dict[bytes, np.ndarray]:
    """All RIFF chunks by name, those inside lists too."""
    found = {}
    while position + 8 <= stop:
        name, size = struct.unpack("<4sI", bytes(data[position : position + 8]))
        if name == b"LIST":
            found |= _chunks(data, position + 12, position + 8 + size)
        else:
            found[name] = data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    return found


def _zones(chunks, heads: bytes, bags: bytes, generators: bytes, head: str, last: int):
    """(header, its zones as generator dicts) of presets or instruments, global zones merged in."""
    rows = list(struct.iter_unpack(head, chunks[heads]))
    starts = [row[1 if len(row) == 2 else 3] for row in rows]
    bag = [first for first, _ in struct.iter_unpack("<HH", chunks[bags])]
    values = list(struct.iter_unpack("<Hh", chunks[generators]))
    result = []
    for number, row in enumerate(rows[:-1]):
        shared, zones = {}, []
        for place in range(starts[number], starts[number + 1]):
            zone = dict(values[bag[place] : bag[place + 1]])
            if last in zone:
                zones.append(shared | zone)
            elif place == starts[number]:
                shared = zone
        result.append((row, zones))
    return result


def _combine(preset: dict[int, int], instruments: list) -> list[Zone]:
    """The zones of a preset zone's instrument: its ranges cut, its values added."""
    zones = []
    for inner in instruments[preset[INSTRUMENT]][1]:
        keys = _overlap(_range(preset, KEYS), _range(inner, KEYS))
        velocities = _overlap(_range(preset, VELOCITIES), _range(inner, VELOCITIES))
        if keys[0] > keys[1] or velocities[0] > velocities[1]:
            continue
        values = {
            number: inner.get(number, default)
            + (0 if number in NEVER_ADDED else preset.get(number, 0))
            for number, default in DEFAULTS.items()
        }
        zones.append(Zone(keys, velocities, values, inner[SAMPLE]))
    return zones


def _range(zone: dict[int, int], number: int) -> tuple[int, int]:
    value = zone.get(number, 127 << 8) & 0xFFFF
    return value & 0xFF, value >> 8


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), min(one[1], other[1])


def _seconds(timecents: int) -> float:
    return 2 ** (timecents / 1200)


def _envelope(values: dict[int, int], frames: int, rate: int) -> np.ndarray:
    """Volume of a held key: linear attack, hold, decay straight in dB to the sustain level."""
    time = np.arange(frames, dtype=np.float32) / rate - _seconds(values[33])
    attack, hold, decay = (_seconds(values[number]) for number in (34, 35, 36))
    rise = np.clip(time / attack, 0, 1)
    sustain = min(max(values[37], 0), 1000) / 10  # dB below the peak
    fall = np.minimum(np.maximum(time - attack - hold, 0) / decay * 100, sustain)
    steady = min(int(np.searchsorted(fall, sustain)) + 1, frames)  # frames until it is the last
    level = 10 ** (-fall[:steady] / 20)
    rise[:steady] *= level
    rise[steady:] *= level[-1:]
    return rise.astype(np.float32)
