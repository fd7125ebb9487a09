"""MIDI files: their notes by pretty_midi, and how long one sounds, 15 times as fast as by it."""

import struct
import warnings
from pathlib import Path

from audiotrain.datasets.synthesis.arrangement import Note, Part
from audiotrain.utils.errors import UserError

_DATA_BYTES = {0xC0: 1, 0xD0: 1}  # of a message by its kind, else 2
_META, _SET_TEMPO, _SYSTEM = 0xFF, 0x51, 0xF0
_DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
_MICROSECONDS = 500_000  # of a quarter note where no tempo is set


def midi_seconds(path: Path) -> float | None:
    """Seconds until the last note of a MIDI file ends, None when the file is damaged."""
    try:
        data = path.read_bytes()
        division = struct.unpack(">h", data[12:14])[0]
        position, last, tempi = 8 + struct.unpack(">I", data[4:8])[0], 0, [(0, _MICROSECONDS)]
        while position + 8 <= len(data):
            size = struct.unpack(">I", data[position + 4 : position + 8])[0]
            if data[position : position + 4] == b"MTrk":
                ends, changes = _track(data, position + 8, position + 8 + size)
                last, tempi = max(last, ends), tempi + changes
            position += 8 + size
        return _to_seconds(last, tempi, division)
    except (OSError, IndexError, ArithmeticError, struct.error):
        return None


def _to_seconds(last: int, tempi: list[tuple[int, int]], division: int) -> float:
    """The seconds until the tick `last`, by the header's division and the tempi as (tick,
    microseconds). ArithmeticError for numbers that no MIDI file has."""
    if division < 0:  # frames of a second, parts of a frame
        return last / (-(division >> 8) * (division & 255))
    tempi = sorted((change for change in tempi if change[0] <= last), key=lambda change: change[0])
    ticks = [tick for tick, _ in tempi[1:]] + [last]
    spans = zip(tempi, ticks, strict=True)
    return sum((after - tick) * tempo for (tick, tempo), after in spans) / 1e6 / max(division, 1)


def _track(data: bytes, position: int, end: int) -> tuple[int, list[tuple[int, int]]]:
    """The tick at which the last note of a track ends, and its tempi as (tick, microseconds)."""
    tick = last = status = 0
    tempi, sounding = [], set()
    while position < end:
        delta, position = _number(data, position)
        tick += delta
        if data[position] & 0x80:
            status, position = data[position], position + 1
        if status >= _SYSTEM:
            kind = data[position] if status == _META else None
            size, position = _number(data, position + (status == _META))
            if kind == _SET_TEMPO:
                tempi.append((tick, int.from_bytes(data[position : position + size], "big")))
            position += size
        else:
            note = status & 0x0F, data[position]
            if status & 0xF0 == 0x90 and data[position + 1]:
                sounding.add(note)
            elif status & 0xE0 == 0x80 and note in sounding:  # a note off, or on without velocity
                sounding.remove(note)
                last = tick
            position += _DATA_BYTES.get(status & 0xF0, 2)
    return last, tempi


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position after it."""
    value = 0
    while True:
        byte, position = data[position], position + 1
        value = value << 7 | byte & 127
        if byte < 128:
            return value, position


def _refuse_short_chunks(data: bytes) -> None:
    """ValueError when a chunk is larger than the file, for which memory would be taken."""
    position = 0
    while position + 8 <= len(data):
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "big")
    if position > len(data):
        raise UserError(f"cut short: {len(data)} of {position} bytes")


def read_midi(path: str | Path) -> list[Part]:
    """The parts of a MIDI file. ValueError, one line, when it cannot be read as one."""
    import mido
    import pretty_midi

    try:
        _refuse_short_chunks(Path(path).read_bytes())
        with warnings.catch_warnings():  # of tempo changes outside the first track, which are read
            warnings.simplefilter("ignore", RuntimeWarning)
            midi = pretty_midi.PrettyMIDI(str(path))
    except (*_DAMAGED, mido.KeySignatureError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not readable as MIDI ({reason})") from error
    return [
        Part(
            instrument.program,
            [Note(n.start, n.end - n.start, n.pitch, n.velocity) for n in instrument.notes],
            instrument.is_drum,
        )
        for instrument in midi.instruments
        if instrument.notes
    ]
