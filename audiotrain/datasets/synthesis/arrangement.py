"""Notes for instruments: `compose` arranges a progression, `reorchestrate` an existing piece.

All that is random comes from the generator given, so a seed is a song.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.synthesis.progressions import Beat
from audiotrain.music.chord_classes import ChordClass, encode
from audiotrain.music.chord_classes import chord_pitch_classes as intervals_of
from audiotrain.music.segments import Segment, merge_equal

PROGRAMS = {
    "piano": [0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
    "guitar": [24, 24, 25, 25, 25, 26, 27, 27, 28, 29, 30],
    "organ": [16, 17, 18, 19, 20],  # reeds 21-23 are out of tune in this soundfont
    "pad": [48, 49, 50, 51, 52, 53, 54, 88, 89, 90, 91, 92, 93, 94, 95],
    "bass": [32, 32, 33, 33, 34, 35, 36, 38, 39, 43],
    "pluck": [8, 11, 12, 13, 15, 45, 46, 104, 105, 106, 107, 108],
    "lead": [40, 41, 42, 56, 57, 60, 61, 64, 65, 66, 68, 71, 72, 73, 75, 80, 81, 85, 87],
}
RINGING = 1.5  # seconds that released notes may be audible for
CHORD_FAMILIES = {"piano": 0.34, "guitar": 0.3, "organ": 0.1, "pad": 0.16, "pluck": 0.1}  # shares
CHORD_PROGRAMS = [program for family in CHORD_FAMILIES for program in PROGRAMS[family]]
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH = 36, 38, 42, 46, 49


class Note(NamedTuple):
    """A note of an arrangement: start and duration in seconds, MIDI pitch, velocity 1-127."""

    start: float
    duration: float
    pitch: int
    velocity: int


class Part(NamedTuple):
    """The notes that one instrument plays: General MIDI program 0-127, or drums."""

    program: int
    notes: list[Note]
    is_drum: bool = False


class TimedChord(NamedTuple):
    """A chord from `start` to `end` seconds."""

    start: float
    end: float
    chord: ChordClass

    @property
    def tones(self) -> list[int]:
        """Pitch classes from the root up."""
        return [(self.chord.root + i) % 12 for i in intervals_of(self.chord.chord_type)]

    def bass_from(self, lowest: int) -> int:
        """MIDI pitch of the bass note in the octave from `lowest` up."""
        return lowest + (self.chord.bass_note - lowest) % 12

    def tones_from(self, lowest: int) -> list[int]:
        """MIDI pitches of the tones, each in the octave from `lowest` up."""
        return [lowest + (tone - lowest) % 12 for tone in self.tones]


def compose(
    progression: Sequence[Beat], rng: np.random.Generator, tempo: float | None = None
) -> tuple[list[Part], list[Segment]]:
    """Arrange a progression for random instruments: (parts, labels in seconds).

    `tempo` in beats a minute, at random from 60-180 when None. One to three chord parts (block,
    arpeggio, strum, broken or held), mostly a bass, sometimes a melody and drums.
    """
    segments, chords, beat = _timed(progression, rng, tempo)
    has_bass = rng.random() < 0.7
    parts = []
    for number in range(int(rng.choice([1, 1, 2, 2, 3]))):
        parts.append(_chord_part(rng, chords, beat, states_bass=number == 0))
    if has_bass:
        parts.append(_bass_part(rng, chords, beat))
    if rng.random() < 0.4:
        parts.append(_melody_part(rng, chords, beat))
    if not has_bass:
        parts = parts[:1] + [_above_bass(part, parts[0], chords) for part in parts[1:]]
    if rng.random() < 0.5:
        start = next(s.start for s in segments if s.start or s.label != "N")
        parts.append(drum_part(rng, start, segments[-1].end, beat))
    return parts, fading(merge_equal(segments))


def accompany(
    progression: Sequence[Beat], rng: np.random.Generator, tempo: float | None = None
) -> tuple[list[Part], list[Segment]]:
    """A progression as one guitarist or pianist accompanies a singer: (parts, labels in seconds).

    Freer than `compose`: bass and chords in a syncopated pattern, passing and added notes, some
    chords half a beat before their label.
    """
    segments, chords, beat = _timed(progression, rng, tempo)
    return [_comping_part(rng, chords, beat)], fading(merge_equal(segments))


def fading(segments: Sequence[Segment]) -> list[Segment]:
    """The same annotation with X, not N, while a chord's released notes may still be audible, as
    they are to an annotator.

    >>> fading([Segment(0, 4, "C:maj"), Segment(4, 8, "N")])[1:]
    [Segment(start=4, end=5.5, label='X'), Segment(start=5.5, end=8, label='N')]
    """
    found: list[Segment] = []
    for segment in segments:
        if segment.label == "N" and found:
            fades = min(segment.end, segment.start + RINGING)
            found.append(Segment(segment.start, fades, "X"))
            segment = Segment(fades, segment.end, "N")
        if segment.end > segment.start:
            found.append(segment)
    return found


def _timed(
    progression: Sequence[Beat], rng: np.random.Generator, tempo: float | None
) -> tuple[list[Segment], list[TimedChord], float]:
    """A progression in seconds, after up to half a second of silence; its chords, and the length of
    a beat."""
    beat = 60.0 / (tempo or float(rng.uniform(60, 180)))
    segments, time = [], float(rng.uniform(0, 0.5))
    if time > 0.05:
        segments.append(Segment(0.0, time, "N"))
    for label, beats in progression:
        segments.append(Segment(time, time + beats * beat, label))
        time += beats * beat
    chords = [TimedChord(s.start, s.end, encode(s.label)) for s in segments if s.label != "N"]
    return segments, chords, beat


def voicing(
    rng: np.random.Generator, timed: TimedChord, centre: float, voices: int, states_bass: bool
) -> list[int]:
    """MIDI pitches of a chord near `centre`: every chord tone once, then doublings; bass below.

    With `states_bass` the lowest pitch is the bass note.
    """
    tones = timed.tones
    if not states_bass and len(tones) > 4 and rng.random() < 0.5:
        tones = tones[1:]  # another part plays the root
    pitches: list[int] = []
    base = int(centre + rng.integers(-3, 4))
    while len(pitches) < max(voices, len(tones)):
        octave = 12 * (len(pitches) // len(tones))
        tone = tones[len(pitches) % len(tones)]
        pitches.append(base - 6 + (tone - base + 6) % 12 + octave)
    if rng.random() < 0.3:  # open position: every second voice an octave up
        pitches = [p + 12 * (n % 2) for n, p in enumerate(sorted(pitches))]
    if states_bass:
        lowest = min(pitches)
        bass = lowest - (lowest - timed.chord.bass_note) % 12
        pitches = [p for p in pitches if p > bass] + [bass]
    return sorted({p - 12 * max(0, -(-(p - 100) // 12)) for p in pitches})


def _guitar_voicing(timed: TimedChord) -> list[int]:
    """Six strings at most from the bass note upwards, tones a third to a fifth apart."""
    tones = set(timed.tones)
    pitches = [timed.bass_from(40)]
    while len(pitches) < 6 and pitches[-1] < 66:
        lowest = pitches[-1] + (5 if len(pitches) < 3 else 3)
        pitches.append(next(pitch for pitch in itertools.count(lowest) if pitch % 12 in tones))
    missing = [t for t in tones if t not in {p % 12 for p in pitches}]
    return sorted({*pitches, *(60 + (t - 60) % 12 for t in missing)})


def _chord_part(
    rng: np.random.Generator, chords: list[TimedChord], beat: float, states_bass: bool
) -> Part:
    family = str(rng.choice(list(CHORD_FAMILIES), p=list(CHORD_FAMILIES.values())))
    program = int(rng.choice(PROGRAMS[family]))
    styles = ["held", "block", "arpeggio", "strum", "broken", "offbeat"]
    style = "strum" if family == "guitar" and rng.random() < 0.5 else str(rng.choice(styles))
    if family == "pad":
        style = "held"
    centre, voices = float(rng.uniform(50, 70)), int(rng.integers(3, 6))
    loudness, unit = int(rng.integers(60, 115)), beat * float(rng.choice([0.5, 0.5, 0.25, 1.0]))
    sustain, spread = float(rng.uniform(0.5, 1.05)), float(rng.uniform(0.005, 0.04))
    as_guitar = family == "guitar" and rng.random() < 0.8
    notes: list[Note] = []
    for chord in chords:
        if as_guitar:
            pitches = _guitar_voicing(chord)
        else:
            pitches = voicing(rng, chord, centre, voices, states_bass)
        for onset, length, struck in _figure(rng, style, chord, beat, unit, pitches):
            delay = spread if style == "strum" else 0.0
            for number, pitch in enumerate(struck if rng.random() < 0.7 else struck[::-1]):
                begin = onset + delay * number
                stop = min(onset + length * sustain, chord.end)
                if stop - begin > 0.02:
                    velocity = int(np.clip(loudness + rng.integers(-15, 12), 20, 127))
                    notes.append(Note(begin, stop - begin, pitch, velocity))
    return Part(program, notes)


def _figure(
    rng: np.random.Generator,
    style: str,
    chord: TimedChord,
    beat: float,
    unit: float,
    pitches: list[int],
) -> list[tuple[float, float, list[int]]]:
    """(onset, length, pitches) of each stroke of a chord."""
    start, length = chord.start, chord.end - chord.start
    if style == "held":
        return [(start, length, pitches)]
    if style == "block":
        count = max(1, round(length / beat))
        return [(start + n * beat, min(beat, length), pitches) for n in range(count)]
    strokes = max(1, round(length / unit))
    if style == "arpeggio":
        order = pitches + pitches[-2:0:-1] if rng.random() < 0.5 else pitches
        rings = rng.random() < 0.5
        return [
            (start + n * unit, length - n * unit if rings else unit * 1.5, [order[n % len(order)]])
            for n in range(strokes)
        ]
    if style == "broken":  # bass first, then the rest on the following strokes
        return [
            (start + n * unit, unit * 1.5, pitches[:1] if n % 4 == 0 else pitches[1:] or pitches)
            for n in range(strokes)
        ]
    if style == "offbeat":
        onsets = [start + (n + 0.5) * beat for n in range(int(length / beat))]
        return [(start, unit, pitches), *((onset, beat / 2, pitches) for onset in onsets)]
    kept = [0, *[n for n in range(1, strokes) if rng.random() < 0.65]]
    return [(start + n * unit, unit * 1.8, pitches) for n in kept]


def _comping_part(rng: np.random.Generator, chords: list[TimedChord], beat: float) -> Part:
    """One guitar or piano: the bass on strong beats, the chord above it in a syncopated pattern,
    now and then from a semitone or tone away, coloured on top, or half a beat early."""
    program = int(rng.choice(PROGRAMS["guitar"] + PROGRAMS["piano"]))
    pattern = rng.random(8) < float(rng.uniform(0.3, 0.7))  # eighths of a bar with a stroke
    pattern[int(rng.integers(2))] = True
    early, passing, coloured = rng.uniform(0, [0.7, 0.15, 0.4])
    centre, loudness = float(rng.uniform(55, 66)), int(rng.integers(70, 115))
    ring, notes = float(rng.uniform(0.4, 1.6)), []

    def play(onset: float, length: float, pitches: Sequence[int], stop: float) -> None:
        for pitch in pitches:
            duration = min(length, stop - onset)
            if duration > 0.02:
                velocity = int(np.clip(loudness + rng.integers(-20, 12), 20, 127))
                notes.append(Note(onset, duration, int(pitch), velocity))

    half = beat / 2
    for chord, following in itertools.zip_longest(chords, chords[1:]):
        upper = voicing(rng, chord, centre, 3, states_bass=False)
        low = chord.bass_from(40)
        tones = chord.tones_from(low)
        joins = following is not None and following.start - chord.end < 0.01
        strokes = max(1, round((chord.end - chord.start) / half))
        for stroke in range(strokes):
            onset = chord.start + stroke * half
            if stroke % 4 == 0:
                fifth = stroke % 8 == 4 and len(tones) > 2
                play(onset, 2 * beat, [tones[2] if fifth else low], chord.end)
            if stroke and not pattern[stroke % 8]:
                continue
            pitches, length, stop = upper, half * (1 + ring), chord.end
            chance = rng.random()
            if joins and stroke == strokes - 1 and stroke and rng.random() < early:
                pitches = voicing(rng, following, centre, 3, states_bass=False)
                stop = chord.end + beat
            elif stroke and chance < passing:
                shift = int(rng.choice([-2, -1, 1, 2]))
                pitches, length = [pitch + shift for pitch in upper], half
            elif chance < passing + coloured:
                colour = int(chord.chord.root + rng.choice([2, 9]))
                pitches = [*upper, upper[-1] + (colour - upper[-1]) % 12]
            play(onset, length, sorted(set(pitches)), stop)
    return Part(program, notes)


def _bass_part(rng: np.random.Generator, chords: list[TimedChord], beat: float) -> Part:
    style = str(rng.choice(["held", "pulse", "fifths", "octaves", "walking"]))
    loudness = int(rng.integers(75, 120))
    notes = []
    for chord in chords:
        low = chord.bass_from(28)
        tones = chord.tones_from(low)
        count = 1 if style == "held" else max(1, round((chord.end - chord.start) / beat))
        for n in range(count):
            onset, pitch = chord.start + n * beat, low
            if style == "fifths" and n % 2:
                pitch = tones[min(2, len(tones) - 1)]
            elif style == "octaves":
                pitch = low + 12 * (n % 2)
            elif style == "walking" and n:
                pitch = int(rng.choice(tones))
            stop = chord.end if style == "held" else min(onset + beat * 0.95, chord.end)
            if stop - onset > 0.02:
                notes.append(Note(onset, stop - onset, pitch, loudness + int(rng.integers(-8, 8))))
    return Part(int(rng.choice(PROGRAMS["bass"])), notes)


def _melody_part(rng: np.random.Generator, chords: list[TimedChord], beat: float) -> Part:
    """Chord tones on the beats, now and then a neighbour a step away between them."""
    centre, loudness = int(rng.uniform(64, 82)), int(rng.integers(70, 115))
    density, notes = float(rng.uniform(0.3, 0.9)), []
    for chord in chords:
        for n in range(max(1, round((chord.end - chord.start) / beat * 2))):
            onset = chord.start + n * beat / 2
            if rng.random() > density or chord.end - onset < 0.05:
                continue
            pitch = int(rng.choice(chord.tones_from(centre)))
            if n % 2 and rng.random() < 0.4:
                pitch += int(rng.choice([-2, -1, 1, 2]))
            stop = min(onset + beat * float(rng.choice([0.5, 0.5, 1.0])), chord.end)
            notes.append(Note(onset, stop - onset, pitch, loudness + int(rng.integers(-10, 10))))
    return Part(int(rng.choice(PROGRAMS["lead"] + PROGRAMS["piano"])), notes)


def _above_bass(part: Part, stating: Part, chords: list[TimedChord]) -> Part:
    """`part` with the notes an octave or two higher that would be lower than the bass which
    another part states."""
    starts = np.array([chord.start for chord in chords]) - 1e-6
    lowest = np.full(len(chords), 127)
    owners = [np.searchsorted(starts, [n.start for n in p.notes]) - 1 for p in (part, stating)]
    np.minimum.at(lowest, owners[1], [note.pitch for note in stating.notes])
    moved = []
    for note, owner in zip(part.notes, owners[0], strict=True):
        if lowest[owner] < 127 and note.pitch % 12 != lowest[owner] % 12:
            octaves = max(0, -(-(int(lowest[owner]) - note.pitch) // 12))
            note = note._replace(pitch=note.pitch + 12 * octaves)
        moved.append(note)
    return part._replace(notes=moved)


def drum_part(rng: np.random.Generator, start: float, end: float, beat: float) -> Part:
    loudness, hat = int(rng.integers(50, 110)), int(rng.choice([CLOSED_HAT, OPEN_HAT, 51]))
    subdivision = float(rng.choice([0.5, 0.5, 1.0, 0.25]))
    notes = [Note(start, 0.2, CRASH, loudness)]
    for n in range(int((end - start) / beat)):
        onset = start + n * beat
        notes.append(Note(onset, 0.1, SNARE if n % 2 else KICK, loudness))
        for step in np.arange(0, 1, subdivision):
            notes.append(Note(onset + float(step) * beat, 0.1, hat, max(20, loudness - 20)))
        if rng.random() < 0.3:
            notes.append(Note(onset + beat / 2, 0.1, KICK, loudness))
    return Part(0, notes, is_drum=True)


def reorchestrate(parts: Sequence[Part], rng: np.random.Generator) -> list[Part]:
    """The same notes on random instruments of General MIDI, at other loudnesses, perhaps with
    drums: low parts get a bass, most single lines a lead, the others a chord instrument."""
    changed = []
    for part in parts:
        if part.is_drum:
            changed.append(part)
            continue
        louder = int(rng.integers(-25, 10))
        velocities = [int(np.clip(note.velocity + louder, 15, 127)) for note in part.notes]
        notes = [n._replace(velocity=v) for n, v in zip(part.notes, velocities, strict=True)]
        changed.append(Part(_program_for(part, rng), notes))
    if parts and rng.random() < 0.4:
        start = min(note.start for part in parts for note in part.notes)
        end = max(note.start + note.duration for part in parts for note in part.notes)
        changed.append(drum_part(rng, start, end, 60.0 / float(rng.uniform(70, 140))))
    return changed


def _program_for(part: Part, rng: np.random.Generator) -> int:
    starts = {round(note.start, 2) for note in part.notes}
    if np.mean([note.pitch for note in part.notes]) < 46:
        return int(rng.choice(PROGRAMS["bass"]))
    if len(starts) > 0.95 * len(part.notes) and rng.random() < 0.6:
        return int(rng.choice(PROGRAMS["lead"]))
    return int(rng.choice(CHORD_PROGRAMS if rng.random() < 0.7 else PROGRAMS["piano"]))
