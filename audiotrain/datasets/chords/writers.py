"""Write chord segments: .lab, CSV, JAMS and JSON with confidences, MIDI to listen to, ChordPro.

Every writer replaces its file in one step or leaves it untouched.
"""

import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from audiotrain.datasets.chords.chordpro import chordpro_text
from audiotrain.music.beats import NO_BEATS, Beats
from audiotrain.music.chord_classes import UNKNOWN, chord_pitch_classes, decode, encode
from audiotrain.music.chord_names import SHARPS, chord_name, plain, spelled
from audiotrain.music.keys import Key, key_name
from audiotrain.music.segments import Segment, write_lab
from audiotrain.utils import files
from audiotrain.utils.errors import MissingPackageError, UserError

WRITE_SUFFIXES = (".lab", ".txt", ".jams", ".csv", ".json", ".mid", ".midi", ".chordpro")
Spelling = Literal["key", "sharps"]
JSON_FORMAT = "audiotrain chords"
TICKS = 960  # of a quarter note in MIDI
LONGEST_TEMPO = (1 << 24) - 1  # microseconds of a quarter note


def write(
    path: str | os.PathLike,
    segments: Sequence[Segment],
    confidences: Sequence[float] | None = None,
    duration: float | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
    beats: Beats = NO_BEATS,
    key: Key | None = None,
    spelling: Spelling = "key",
) -> None:
    """Write segments as the suffix of `path` says: .lab, .txt, .jams, .csv, .json, .mid or
    .chordpro.

    `confidences` has one number in 0..1 a segment (CSV, JSON and JAMS keep it); `duration` is that
    of the audio in seconds, by default the last end; `metadata` may have title, artist and tool.
    Title and artist are in JSON, JAMS, MIDI and ChordPro, as `beats` and `key` are. Roots are
    spelled as the key has them, or, with `spelling` "sharps", with sharps alone; without a key, as
    they are.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise UserError(f"{path}: found suffix {suffix!r}, expected {', '.join(WRITE_SUFFIXES)}")
    if confidences is not None and len(confidences) != len(segments):
        raise UserError(
            f"{path}: found {len(confidences)} confidences, expected {len(segments)}, one a segment"
        )
    scores = [None] * len(segments) if confidences is None else [float(c) for c in confidences]
    if not all(score is None or math.isfinite(score) for score in scores):
        raise UserError(f"{path}: found a confidence that is no number, expected 0 to 1")
    names = SHARPS if spelling == "sharps" else key
    if names is not None:
        segments = [one._replace(label=spelled(one.label, names)) for one in segments]
    seconds = float(duration) if duration else max((s.end for s in segments), default=0.0)
    if suffix in (".lab", ".txt"):
        write_lab(path, segments)
    elif suffix == ".csv":
        files.write(path, _csv_text(segments, scores))
    elif suffix == ".json":
        files.write(path, _json_text(segments, scores, seconds, metadata, beats, key))
    elif suffix == ".jams":
        files.write(path, _jams_text(segments, scores, seconds, metadata, path.name, beats, key))
    elif suffix == ".chordpro":
        metadata = {"title": path.stem, **metadata}
        files.write(path, chordpro_text(segments, seconds, beats, key, metadata, names))
    else:
        files.write(path, midi_bytes(segments, beats, key, metadata, names))


def _csv_text(segments: Sequence[Segment], confidences: list) -> str:
    rows = [("start", "end", "chord", "confidence")]
    for (start, end, label), confidence in zip(segments, confidences, strict=True):
        score = "" if confidence is None else f"{confidence:.4f}"
        rows.append((f"{start:.6f}", f"{end:.6f}", label, score))
    return files.csv_text(rows)


def _json_text(
    segments: Sequence[Segment],
    confidences: list,
    seconds: float,
    metadata: Mapping[str, str],
    beats: Beats,
    key: Key | None,
) -> str:
    rows = [
        {**segment._asdict(), "confidence": confidence}
        for segment, confidence in zip(segments, confidences, strict=True)
    ]
    content = {
        "format": JSON_FORMAT,
        **metadata,
        "duration": seconds,
        "key": key and key_name(key),
        "tempo": beats.tempo,
        "metre": beats.metre if beats.times else None,
        "beats": list(beats.times),
        "downbeats": list(beats.downbeats),
        "segments": rows,
    }
    return json.dumps(content, indent=1) + "\n"


def _jams_text(
    segments: Sequence[Segment],
    confidences: list,
    seconds: float,
    metadata: Mapping[str, str],
    name: str,
    beats: Beats,
    key: Key | None,
) -> str:
    """A JAMS file with a `chord_harte` annotation, which has no word for unknown: that is a gap;
    where they are known, one of `beat` (its values are positions in the bar), `tempo` and
    `key_mode`."""
    data = [
        _observation(
            max(segment.start, 0.0),
            segment.end - max(segment.start, 0.0),
            harte_spelling(segment.label),
            confidence,
        )
        for segment, confidence in zip(segments, confidences, strict=True)
        if segment.end > 0 and encode(segment.label) != UNKNOWN
    ]
    about = {
        "curator": {"name": "", "email": ""},
        "annotator": {"name": metadata.get("tool", "audiotrain")},
        "version": "",
        "corpus": "",
        "annotation_tools": metadata.get("tool", "audiotrain"),
        "validation": "",
        "data_source": "program",
    }
    found = {"chord_harte": data}
    if beats.tempo is not None:
        pairs = zip(beats.times, beats.positions(), strict=True)
        found["beat"] = [_observation(time, 0.0, position) for time, position in pairs]
        found["tempo"] = [_observation(0.0, seconds, beats.tempo, 1.0)]
    if key is not None:
        found["key_mode"] = [_observation(0.0, seconds, key_name(key))]
    annotations = [
        {
            "namespace": namespace,
            "annotation_metadata": {**about, "annotation_rules": _RULES.get(namespace, "")},
            "time": 0.0,
            "duration": seconds,
            "data": observations,
            "sandbox": {},
        }
        for namespace, observations in found.items()
    ]
    file_metadata = {
        "title": metadata.get("title", Path(name).stem),
        "artist": metadata.get("artist", ""),
        "release": metadata.get("release", ""),
        "duration": seconds,
        "identifiers": {},
        "jams_version": "0.3.5",
    }
    content = {"annotations": annotations, "file_metadata": file_metadata, "sandbox": {}}
    return json.dumps(content, indent=1) + "\n"


_RULES = {"chord_harte": "Harte et al., ISMIR 2005"}


def _observation(
    time: float, duration: float, value: str | float, confidence: float | None = None
) -> dict[str, Any]:
    return {"time": time, "duration": duration, "value": value, "confidence": confidence}


# Shorthands that the JAMS namespace lacks, by degrees or on the next smaller one.
_HARTE_TYPES = {
    "sus2": "(1,2,5)",
    "5": "(1,5)",
    "1": "(1)",
    "11": "9(11)",
    "min11": "min9(11)",
    "13": "9(11,13)",
    "maj13": "maj9(11,13)",
    "min13": "min9(11,13)",
}
_HARTE_NAMES = "maj min dim aug maj7 min7 7 dim7 hdim7 minmaj7 maj6 min6 9 maj9 min9 sus4".split()


def harte_spelling(label: str) -> str:
    """The same chord with the shorthands of JAMS's `chord_harte`. ValueError when it can't be read.

    >>> harte_spelling("C:13/b7"), harte_spelling("D:sus2"), harte_spelling("Eb:maj7/3")
    ('C:9(11,13)/b7', 'D:(1,2,5)', 'Eb:maj7/3')
    """
    label = decode(encode(label)) if ":" not in label else label
    match = re.fullmatch(r"([A-G][#b]*):([^(/]*)(?:\(([^)]*)\))?(/.*)?", label)
    if match is None or (not match[2] and match[3]):
        encode(label)
        return label
    root, shorthand, degrees, bass = match[1], match[2], match[3], match[4] or ""
    if shorthand in _HARTE_NAMES:
        return label
    if shorthand not in _HARTE_TYPES:
        return harte_spelling(decode(encode(label)))
    spelled = _HARTE_TYPES[shorthand]
    if degrees:
        spelled = f"{spelled[:-1]},{degrees})"
    return f"{root}:{spelled}{bass}"


def midi_bytes(
    segments: Sequence[Segment],
    beats: Beats = NO_BEATS,
    key: Key | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
    spelling: Key | None = None,
) -> bytes:
    """A MIDI file: each chord in close position around middle C over its bass note, piano; names
    such as `Ebm7`, spelled as in the key `spelling` (default: `key`), are its lyrics. Beats give
    its tempo map and bars, the key its key signature; title and artist of `metadata` are the name
    of its first track and a text.
    """
    try:
        import pretty_midi
    except ImportError:
        message = "writing MIDI needs pretty_midi: pip install pretty_midi"
        raise MissingPackageError(message) from None
    song = pretty_midi.PrettyMIDI(_tempo_map(beats))
    if key is not None:
        tonic, mode = key
        number = tonic + (12 if mode == "minor" else 0)
        song.key_signature_changes.append(pretty_midi.KeySignature(number, 0.0))
    piano = pretty_midi.Instrument(program=0, name="chords")
    for start, end, label in segments:
        name = plain(chord_name(encode(label), spelling or key or (0, "major")))
        song.lyrics.append(pretty_midi.Lyric(name, start))
        for pitch in voicing(label):
            piano.notes.append(pretty_midi.Note(velocity=80, pitch=pitch, start=start, end=end))
    song.instruments.append(piano)
    file = io.BytesIO()
    song.write(file)
    return _named(file, metadata)


def _named(file: io.BytesIO, metadata: Mapping[str, str]) -> bytes:
    """A MIDI file with the title as the name of its first track, and the artist as a text there."""
    import mido

    file.seek(0)
    song, names = mido.MidiFile(file=file), {"track_name": "name", "text": "text"}
    texts = [metadata.get("title", ""), metadata.get("artist", "")]
    song.tracks[0][:0] = [
        # in UTF-8, though mido writes Latin-1
        mido.MetaMessage(kind, **{name: text.encode(errors="replace").decode("latin-1")})
        for (kind, name), text in zip(names.items(), texts, strict=True)
        if text
    ]
    named = io.BytesIO()
    song.save(file=named)
    return named.getvalue()


def _tempo_map(beats: Beats) -> io.BytesIO | None:
    """A MIDI file of no notes with a beat of its own length at each of `beats`, and a time
    signature wherever a bar has another number of beats; None without beats.

    What is before the first beat is beats of about its length in the first bar.
    """
    import mido

    if beats.tempo is None:
        return None
    times = np.asarray(beats.times)
    lead = max(1, round(times[0] * beats.tempo / 60)) if times[0] > 0 else 0
    times = np.concatenate([np.linspace(0.0, times[0], lead, endpoint=False), times])
    starts = sorted({0, *np.searchsorted(times, beats.downbeats).tolist()})
    sizes = [*np.diff(starts).tolist(), beats.metre]
    ticks = TICKS * 4 // beats.unit  # of a beat
    track, begun, size = mido.MidiTrack(), 0, None
    for beat, micros in enumerate(np.diff(np.rint(times * 1e6)).tolist()):
        is_new = beat in starts and sizes[starts.index(beat)] != size
        if is_new:
            size = int(sizes[starts.index(beat)])
            signature = {"numerator": size, "denominator": beats.unit}
            since = ticks * (beat - begun)
            track.append(mido.MetaMessage("time_signature", **signature, time=since))
            begun = beat
        tempo = min(round(micros * TICKS / ticks), LONGEST_TEMPO)
        track.append(mido.MetaMessage("set_tempo", tempo=tempo, time=ticks * (beat - begun)))
        begun = beat
    file = io.BytesIO()
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(file=file)
    file.seek(0)
    return file


def voicing(label: str) -> list[int]:
    """MIDI pitches of a chord: the bass in C2..B2 (36-47), the chord's notes in F#3..F4 (54-65).

    >>> voicing("C:maj/3"), voicing("N")
    ([40, 55, 60, 64], [])
    """
    chord_type, root, bass_note = encode(label)
    if chord_type <= 0:
        return []
    notes = [(root + above) % 12 for above in chord_pitch_classes(chord_type)]
    return [36 + bass_note] + sorted(54 + (note - 54) % 12 for note in notes)
