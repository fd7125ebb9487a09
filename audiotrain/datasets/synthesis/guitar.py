"""Strummed and picked guitar songs: chord shapes on six strings, plucked by additive synthesis.

A voicing is the fret of each string from the lowest (E2) to the highest (E4), None where a string
is silent; frets count from the nut, with or without a capo.
"""

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft, signal

from audiotrain.datasets.synthesis import progressions
from audiotrain.datasets.synthesis.arrangement import fading
from audiotrain.datasets.synthesis.progressions import Beat
from audiotrain.features import augment
from audiotrain.music.chord_classes import CHORD_TYPES, ChordClass, decode, encode
from audiotrain.music.chord_classes import chord_pitch_classes as intervals_of
from audiotrain.music.segments import Segment, merge_equal

VERSION = 3  # raise it when the same seed gives another song
OPEN_STRINGS = (40, 45, 50, 55, 59, 64)  # MIDI pitches
LAST_FRET = 14  # highest position of a barre, with a capo; 12 without
MAXIMUM_TUNING = 40.0  # cents that a whole guitar may be off
LONGEST_NOTE = 6.0  # seconds

Voicing = tuple[int | None, ...]

# Frets of the strings from low to high above the barre: the root is on the lowest one that sounds.
_E_SHAPES = {
    **{"maj": "022100", "min": "022000", "7": "020100", "min7": "020000", "maj7": "021100"},
    **{"sus4": "022200", "sus2": "024400", "5": "022xxx", "dim": "0120xx", "hdim7": "0100xx"},
    **{"maj6": "022120", "min6": "022020", "maj(9)": "022102", "min(9)": "022002"},
    **{"9": "020102", "maj9": "021102", "min9": "020002", "sus4(b7)": "020200", "aug": "032110"},
    **{"dim7": "012020", "minmaj7": "021000", "7(b9)": "020101", "7(#9)": "020103"},
    **{"aug(b7)": "0x0110", "maj6(9)": "022122", "sus4(b7,9)": "020202"},
}
_A_SHAPES = {
    **{"maj": "x02220", "min": "x02210", "7": "x02020", "min7": "x02010", "maj7": "x02120"},
    **{"sus4": "x02230", "sus2": "x02200", "5": "x022xx", "dim": "x0121x", "hdim7": "x0101x"},
    **{"maj6": "x02222", "min6": "x02212", "maj(9)": "x02420", "min(9)": "x02410"},
    **{"9": "x02423", "maj9": "x02424", "min9": "x02413", "sus4(b7)": "x02030", "aug": "x03221"},
    **{"dim7": "x01212", "minmaj7": "x02110", "7(b9)": "x02323", "aug(b7)": "x03021"},
    **{"maj6(9)": "x02422", "sus4(b7,9)": "x00000"},
}
# Chords with open strings; those of the two shapes above are not repeated.
_OPEN_CHORDS = {
    "C:maj": ("x32010", "x32013"),
    "C:maj7": ("x32000",),
    "C:maj(9)": ("x32030", "x32033"),
    "C:sus4": ("x33011",),
    "D:maj": ("xx0232",),
    "D:min": ("xx0231",),
    "D:7": ("xx0212",),
    "D:maj7": ("xx0222",),
    "D:min7": ("xx0211",),
    "D:sus4": ("xx0233",),
    "D:sus2": ("xx0230",),
    "D:maj6": ("xx0202",),
    "D:dim": ("xx0131",),
    "D:dim7": ("xx0101",),
    "E:min7": ("022030",),
    "F:maj": ("xx3211",),
    "F:min": ("xx3111",),
    "F:maj7": ("xx3210",),
    "G:maj": ("320003", "320033"),
    "G:7": ("320001",),
    "G:maj7": ("320002",),
    "G:maj6": ("320000",),
    "G:sus4": ("330013",),
    "A:min7": ("x02013",),
    "B:7": ("x21202",),
    "B:min7": ("x20202",),
}
# Types without a shape, and what is played in their place.
_NEAREST = {"1": "5", "11": "sus4(b7,9)", "min11": "min9", "13": "9", "maj13": "maj9"}


class Pluck(NamedTuple):
    """A string plucked: start and duration until it is damped in seconds, string 0 (low) to 5,
    fret, amplitude, and whether the palm mutes it."""

    start: float
    duration: float
    string: int
    fret: int
    level: float
    muted: bool = False


class String(NamedTuple):
    """How a plucked string sounds."""

    position: float = 0.15  # where it is plucked, as a share of the open string's length
    slope: float = 1.2  # partial k has amplitude sin(pi k position) / k ** slope
    brightness: float = 4000.0  # Hz where plectrum or finger take 4.3 dB (half a neper) away
    decay: float = 5.0  # seconds in which a partial of 110 Hz falls by 60 dB
    corner: float = 1500.0  # Hz where partials decay twice as fast as the lowest
    inharmonicity: float = 5e-5  # B of f_k = k f sqrt(1 + B k^2)


class Guitar(NamedTuple):
    """An instrument as one song has it: see `random_guitar` for the ranges."""

    strings: list[String]
    cents: np.ndarray  # (6, frets) deviation from equal temperament at A440
    gains: np.ndarray  # (6,)
    noise: float  # amplitude of the plectrum's noise relative to the string's
    knock: float  # amplitude of the body's low knock, likewise
    body: np.ndarray  # (peaks, 3): Hz, quality, gain; no rows for a solid body
    drive: float  # amplifier: dB above the level that it leaves undistorted, 0 for none
    cabinet: float  # Hz above which nothing much is left


def voicings(chord: ChordClass, capo: int = 0) -> tuple[list[Voicing], list[Voicing]]:
    """Voicings that have exactly the notes of `chord` and its bass note lowest: (open, movable).

    Movable ones are E- and A-shape barre chords at each position from the capo up. A bass note
    other than the root sounds where it is within reach of a shape; elsewhere there are none.

    >>> voicings(encode("A:min"))[1][:2]
    [(5, 7, 7, 5, 5, 5), (None, 0, 2, 2, 1, 0)]
    """
    name = CHORD_TYPES[chord.chord_type]
    movable = []
    for shapes, pitch in ((_E_SHAPES, OPEN_STRINGS[0]), (_A_SHAPES, OPEN_STRINGS[1])):
        barre = (chord.root - pitch) % 12
        for position in (barre, barre + 12):
            if name in shapes and capo <= position <= (LAST_FRET if capo else 12):
                movable += _with_bass(_frets(shapes[name], position), chord, capo)
    spelled = decode(ChordClass(chord.chord_type, (chord.root - capo) % 12, -1))
    opened = [
        voicing
        for frets in _OPEN_CHORDS.get(spelled, ())
        for voicing in _with_bass(_frets(frets, capo), chord, capo)
    ]
    return opened, movable


def _frets(pattern: str, position: int) -> Voicing:
    return tuple(None if fret == "x" else int(fret) + position for fret in pattern)


def pitches(voicing: Voicing) -> list[int]:
    """MIDI pitches of the strings that sound, from the lowest string up."""
    strings = zip(OPEN_STRINGS, voicing, strict=True)
    return [pitch + fret for pitch, fret in strings if fret is not None]


def _with_bass(voicing: Voicing, chord: ChordClass, capo: int) -> list[Voicing]:
    """`voicing`, where its bass is another one: with lower strings left out, or a lower one added
    within reach of the hand."""
    if _plays(voicing, chord):
        return [voicing]
    tried: list[Voicing] = []
    lowest = min(fret for fret in voicing if fret is not None)
    for string in range(3):
        above = voicing[string + 1 :]
        tried.append((*(None,) * (string + 1), *above))
        fret = (chord.bass_note - OPEN_STRINGS[string]) % 12
        fret += 12 if fret < max(capo, lowest - 1) else 0
        if max(capo, lowest - 1) <= fret <= lowest + 3:
            tried.append((*(None,) * string, fret, *above))
    return list(dict.fromkeys(v for v in tried if _plays(v, chord)))


def _plays(voicing: Voicing, chord: ChordClass) -> bool:
    """Whether a voicing has the chord's notes, its bass note lowest."""
    notes = {(chord.root + interval) % 12 for interval in intervals_of(chord.chord_type)}
    played = pitches(voicing)
    found = {pitch % 12 for pitch in played}
    return (
        bool(played)
        and min(played) % 12 == chord.bass_note == played[0] % 12
        and (found == notes | {chord.bass_note})
    )


def playable(label: str) -> str:
    """The label of the chord that is played for `label`: itself, in root position where the bass
    is out of reach, or of the nearest type with a shape; N for what has no notes.

    >>> playable("C:13/3"), playable("D:min/5"), playable("X")
    ('C:9', 'D:min/5', 'N')
    """
    chord = encode(label)
    if chord.root < 0:
        return "N"
    name = CHORD_TYPES[chord.chord_type]
    chord = chord._replace(chord_type=CHORD_TYPES.index(_NEAREST.get(name, name)))
    if not any(voicings(chord)):
        chord = chord._replace(bass_note=chord.root)
    return decode(chord)


# ---- songs


def strummed(
    progression: Sequence[Beat],
    rng: np.random.Generator,
    tempo: float,
    seconds: float | None = None,
) -> tuple[list[Pluck], list[Segment]]:
    """A progression played by one guitarist at `tempo` beats a minute: (plucks, labels in seconds).

    Strummed in a pattern with rests, picked as arpeggios (one song in five), or each chord strummed
    once and left to ring for 2 to 4 s. Labels name what is played, see `playable`. The progression
    is repeated up to its chord that passes `seconds`; None plays it once.
    """
    player = _Player(rng, 60.0 / tempo)
    time = float(rng.uniform(0, 0.5))
    segments = [Segment(0.0, time, "N")] if time > 0.05 else []
    for label, beats in progression if seconds is None else itertools.cycle(progression):
        label = playable(label)
        length = beats * player.beat
        if player.style == "ring":
            length = float(rng.uniform(2, 4))
        if label != "N":
            player.play(label, time, time + length)
        segments.append(Segment(time, time + length, label))
        time += length
        player.beats += beats
        if seconds is not None and time >= seconds:
            break
    return _damped(player.plucks), fading(merge_equal(segments))


class _Player:
    """One guitarist's habits in a song, and what was played so far."""

    def __init__(self, rng: np.random.Generator, beat: float):
        self.rng, self.beat = rng, beat
        self.style = str(rng.choice(["strum", "arpeggio", "ring"], p=[0.55, 0.2, 0.25]))
        self.plucks: list[Pluck] = []
        self.beats = 0
        self.capo = int(rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 7]))
        self.likes_open = float(rng.choice([0.0, 0.5, 0.9]))  # open chords where there are any
        self.voicings: dict[str, Voicing] = {}
        self.spread = float(np.exp(rng.uniform(*np.log([0.005, 0.04]))))  # between strings, seconds
        self.slots = int(rng.choice([6, 8, 8, 8, 16]))  # of a bar, two or four to the beat
        self.pattern = rng.random(self.slots) < rng.uniform(0.25, 0.9)
        self.pattern[0] = True
        self.damps = rng.random(self.slots) < rng.choice([0.0, 0.0, 0.5])  # a rest is silent
        self.mutes = float(rng.choice([0.0, 0.0, 0.0, 0.4]))  # share of strokes by palm muting
        self.silent = float(rng.choice([0.0, 0.1, 0.3]))  # share of strings that fail to sound
        self.alternates = rng.random() < 0.2  # bass on the beat, the other strings off it
        self.order = [int(n) for n in rng.permutation(5)]  # of the strings above the bass
        self.fewest = int(rng.integers(3, 6))  # strings of an arpeggio, with the bass

    def play(self, label: str, start: float, end: float) -> None:
        voicing = self._sounding(self._voicing(label), label)
        if self.style == "ring":
            self._stroke(voicing, start, end, down=True)
        elif self.style == "arpeggio":
            self._arpeggio(voicing, start, end)
        else:
            self._strum(voicing, start, end)

    def _voicing(self, label: str) -> Voicing:
        """One of the chord's voicings, mostly the same each time in a song."""
        if label not in self.voicings or self.rng.random() < 0.1:
            chord = encode(label)
            opened, movable = voicings(chord, self.capo)
            if not opened and not movable:  # an inversion that the capo puts out of reach
                opened, movable = voicings(chord)
            takes_open = opened and (not movable or self.rng.random() < self.likes_open)
            choice = opened if takes_open else movable
            self.voicings[label] = choice[int(self.rng.integers(len(choice)))]
        return self.voicings[label]

    def _sounding(self, voicing: Voicing, label: str) -> Voicing:
        """`voicing` without strings that fail to sound, as long as the chord stays the same."""
        for string in range(6):
            if self.rng.random() < self.silent:
                fewer = (*voicing[:string], None, *voicing[string + 1 :])
                voicing = fewer if _plays(fewer, encode(label)) else voicing
        return voicing

    def _strum(self, voicing: Voicing, start: float, end: float) -> None:
        """Strokes in the song's pattern; the first one of a chord is down and on all strings."""
        unit = self.beat / (4 if self.slots == 16 else 2)
        first = round(self.beats * self.beat / unit)
        upper = _top(voicing, 4)
        for number in range(max(1, round((end - start) / unit))):
            slot = (first + number) % self.slots
            time = start + number * unit
            if number and not self.pattern[slot]:
                if self.damps[slot]:
                    self._damp(time)
                continue
            down = slot % 2 == 0 or not number
            if self.alternates and number:
                struck = _bottom(voicing, 1) if slot % 4 == 0 else upper
            else:
                struck = voicing if down else _top(voicing, int(self.rng.integers(3, 6)))
            self._stroke(struck, time, end, down, 0.4 * unit, accent=slot % 4 == 0)

    def _arpeggio(self, voicing: Voicing, start: float, end: float) -> None:
        """The bass, then strings above it one by one until all notes sound, again and again; all
        ring on."""
        unit = self.beat / (2 if self.beat < 0.6 else 4)
        strings = [string for string, fret in enumerate(voicing) if fret is not None]
        strings[1:] = [strings[1 + n] for n in self.order if 1 + n < len(strings)]
        notes = [(OPEN_STRINGS[string] + (voicing[string] or 0)) % 12 for string in strings]
        needed = 1 + max(notes.index(note) for note in notes)
        strings = strings[: max(needed, self.fewest)]
        for number in range(max(1, round((end - start) / unit))):
            string = strings[number % len(strings)]
            time = start + number * unit + float(self.rng.uniform(0, 0.01))
            level = float(self.rng.uniform(0.5, 1.0))
            self.plucks.append(Pluck(time, end - time, string, voicing[string] or 0, level))

    def _stroke(
        self,
        voicing: Voicing,
        start: float,
        end: float,
        down: bool,
        longest: float = math.inf,
        accent: bool = True,
    ) -> None:
        """All strings of `voicing` one after another, in `longest` seconds at most."""
        strings = [string for string, fret in enumerate(voicing) if fret is not None]
        spread = min(self.spread * float(self.rng.uniform(0.7, 1.3)), longest / 6, 0.04)
        loudness = float(self.rng.uniform(0.6, 1.0)) * (1.0 if accent else 0.8)
        muted = self.rng.random() < self.mutes
        for number, string in enumerate(strings if down else strings[::-1]):
            time = start + number * spread
            level = loudness * 0.97**number * float(self.rng.uniform(0.7, 1.0))
            fret = voicing[string] or 0
            self.plucks.append(Pluck(time, end - time, string, fret, level, bool(muted)))

    def _damp(self, time: float) -> None:
        """The hand stops all strings at `time`."""
        for number, pluck in enumerate(self.plucks[-30:], max(0, len(self.plucks) - 30)):
            length = time - pluck.start
            if 0.03 < length < pluck.duration:
                self.plucks[number] = pluck._replace(duration=length)


def _top(voicing: Voicing, count: int) -> Voicing:
    """The `count` highest strings that sound."""
    kept = [string for string, fret in enumerate(voicing) if fret is not None][-count:]
    return tuple(fret if string in kept else None for string, fret in enumerate(voicing))


def _bottom(voicing: Voicing, count: int) -> Voicing:
    """The `count` lowest strings that sound."""
    kept = [string for string, fret in enumerate(voicing) if fret is not None][:count]
    return tuple(fret if string in kept else None for string, fret in enumerate(voicing))


def _damped(plucks: list[Pluck]) -> list[Pluck]:
    """Plucks in order of time, each stopped by the next one of its string."""
    ends = [math.inf] * 6
    stopped = []
    for pluck in sorted(plucks, reverse=True):
        duration = min(pluck.duration, ends[pluck.string] - pluck.start)
        ends[pluck.string] = pluck.start
        stopped.append(pluck._replace(duration=duration))
    return stopped[::-1]


# ---- sound


def partials(
    frequency: float, string: String, highest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies in Hz, amplitudes and decay rates in 1/s, each (partials,), of a plucked string
    whose lowest partial is at `frequency`; up to `highest` Hz.

    Stiff string and pluck position as in Fletcher and Rossing, The Physics of Musical Instruments
    (1998), chapters 2 and 9; the amplitudes' squares add up to 1.
    """
    numbers = np.arange(1, max(1, int(highest / frequency)) + 1)
    stiff = np.sqrt((1 + string.inharmonicity * numbers**2) / (1 + string.inharmonicity))
    frequencies = numbers * frequency * stiff
    amplitudes = np.sin(np.pi * numbers * string.position) / numbers**string.slope
    amplitudes *= np.exp(-0.5 * frequencies / string.brightness)
    amplitudes[frequencies > highest] = 0.0
    amplitudes /= np.sqrt((amplitudes**2).sum())
    slowest = np.log(1000.0) / string.decay * (frequency / 110.0) ** 0.5
    return frequencies, amplitudes, slowest * (1 + frequencies / string.corner)


def string_wave(frequency: float, string: String, seconds: float, rate: int) -> np.ndarray:
    """A plucked string: float32 (samples,) at `rate` Hz, starting at zero."""
    frequencies, amplitudes, decays = partials(frequency, string, min(0.45 * rate, 9000.0))
    # z^n of all partials as one matrix product: z^(block * size + n) = z^(block * size) z^n.
    samples = round(seconds * rate)
    size = max(1, math.isqrt(samples))
    exponents = (2j * np.pi * frequencies - decays) / rate
    within = np.exp(exponents[:, None] * np.arange(size))
    blocks = -1j * amplitudes * np.exp(np.outer(np.arange(-(-samples // size)) * size, exponents))
    left = np.concatenate([blocks.real, -blocks.imag], axis=1).astype(np.float32)
    right = np.concatenate([within.real, within.imag]).astype(np.float32)
    return (left @ right).reshape(-1)[:samples]


# Lowest and highest. Recorded chords of four acoustic guitars have spectral centroids of 600 to
# 1500 Hz and fall by 7 to 15 dB a second below 1 kHz, by 12 to 29 above; these ranges are wider.
_STRINGS = {
    "steel": (String(0.06, 0.6, 2500, 4, 1000, 3e-5), String(0.3, 1.3, 12000, 12, 6000, 1.2e-4)),
    "nylon": (String(0.1, 0.9, 1500, 3, 700, 1e-5), String(0.35, 1.6, 6000, 12, 4000, 5e-5)),
    "electric": (String(0.06, 0.7, 2000, 4, 1500, 3e-5), String(0.25, 1.3, 8000, 14, 8000, 1e-4)),
}


def random_guitar(rng: np.random.Generator) -> Guitar:
    """Steel strings (half of them), nylon ones (a fifth) or an electric guitar, at random."""
    kind = str(rng.choice(["steel", "nylon", "electric"], p=[0.5, 0.2, 0.3]))
    ranges = zip(*_STRINGS[kind], strict=True)
    base = String(*(_between(rng, low, high) for low, high in ranges))
    strings = []
    for number in range(6):
        wound = 1.0 if number < 3 else _between(rng, 1.0, 1.6)  # plain strings are brighter
        varied = [value * _between(rng, 0.85, 1.18) for value in base]
        strings.append(String(*varied)._replace(brightness=varied[2] * wound))
    frets = LAST_FRET + 6
    cents = rng.uniform(-MAXIMUM_TUNING, MAXIMUM_TUNING) + rng.normal(0, 2, (6, frets))
    cents += np.clip(rng.normal(0, 3, (6, 1)), -8, 8)
    electric = kind == "electric"
    peaks = 0 if electric else int(rng.integers(3, 6))
    body = np.stack(
        [rng.uniform(90, 400, peaks), rng.uniform(5, 20, peaks), rng.uniform(0.2, 1.5, peaks)], 1
    )
    return Guitar(
        strings,
        cents,
        augment.decibels_to_ratio(rng.normal(0, 1.5, 6)),
        float(augment.decibels_to_ratio(rng.uniform(-40, -25 if electric else -10))),
        0.0 if electric else float(augment.decibels_to_ratio(rng.uniform(-20, 2))),
        body,
        _between(rng, 2, 14) if electric and rng.random() < 0.6 else 0.0,
        _between(rng, 2500, 6000) if electric else _between(rng, 5000, 12000),
    )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between the two, each ratio as likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class GuitarSynthesizer:
    """Plays guitar songs at `rate` Hz; all that is random follows from `seed` and the song."""

    def __init__(self, rate: int, seed: int = 0):
        self.rate, self.seed = rate, seed

    def compose(
        self, number: int, seconds: float, borrowed: Sequence[list[Segment]]
    ) -> tuple[np.ndarray, list[Segment]]:
        """Samples, mono float32 (samples,) with a peak of 0.5, and labels of the `number`-th song
        of the seed, its progression from a grammar or from one of `borrowed`, other songs' labels.

        The song lasts `seconds` or until its chord at that time ends.
        """
        plucks, segments = self._composition(number, seconds, borrowed)
        rng = self._rng("played", number)
        audio = perform(plucks, random_guitar(rng), segments[-1].end, self.rate, rng)
        if rng.random() < 0.6:
            audio = augment.reverberate(audio, rng, self.rate, longest_seconds=1.0)
        if rng.random() < 0.5:
            audio = augment.equalise(audio, rng, self.rate, decibels=5.0)
        if rng.random() < 0.5:
            audio = augment.add_noise(audio, rng, lowest_snr=20.0, highest_snr=45.0)
        peak = float(np.abs(audio).max()) if audio.size else 0.0
        return audio * np.float32(0.5 / peak if peak > 0 else 1.0), segments

    def labels(
        self, number: int, seconds: float, borrowed: Sequence[list[Segment]]
    ) -> list[Segment]:
        """The labels that `compose` gives, without the samples."""
        return self._composition(number, seconds, borrowed)[1]

    def _composition(self, number: int, seconds: float, borrowed: Sequence[list[Segment]]):
        rng = self._rng("composed", number)
        progression, tempo = progressions.progression_of_song(rng, seconds, borrowed)
        return strummed(progression, rng, tempo, seconds)

    def _rng(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(repr(("guitar", *parts)).encode())])


def perform(
    plucks: Sequence[Pluck], guitar: Guitar, seconds: float, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Plucks on a guitar: mono float32 (samples,), `seconds` long at `rate` Hz."""
    mix = np.zeros(round(seconds * rate), np.float32)
    noises = _stroke_noises(guitar, rate, rng)
    waves: dict[tuple[int, int, bool], np.ndarray] = {}
    release = np.linspace(1, 0, round(0.03 * rate), dtype=np.float32)
    longest = max((pluck.duration for pluck in plucks), default=0.0) + 0.03
    for pluck in plucks:
        key = pluck.string, pluck.fret, pluck.muted
        if key not in waves:
            waves[key] = _note(guitar, *key, min(longest, LONGEST_NOTE), rate)
        start = round(pluck.start * rate)
        length = round(pluck.duration * rate) + len(release)
        wave = pluck.level * waves[key][: min(length, len(mix) - start)]
        if len(wave) >= len(release):
            wave[-len(release) :] *= release
        mix[start : start + len(wave)] += wave
        noise = noises[int(rng.integers(len(noises)))][: len(mix) - start]
        mix[start : start + len(noise)] += pluck.level * noise
    return _amplified(_radiated(mix, guitar, rate), guitar, rate)


def _note(
    guitar: Guitar, number: int, fret: int, muted: bool, seconds: float, rate: int
) -> np.ndarray:
    """One note of a guitar, with a soft first millisecond."""
    pitch = OPEN_STRINGS[number] + fret + guitar.cents[number, fret] / 100
    string = guitar.strings[number]
    # The hand stays where it is when a fret shortens the string.
    string = string._replace(position=min(0.5, string.position * 2 ** (fret / 12)))
    if muted:
        seconds = min(seconds, 0.6)
        string = string._replace(brightness=0.5 * string.brightness, decay=0.3, corner=600.0)
    wave = string_wave(440 * 2 ** ((pitch - 69) / 12), string, seconds, rate)
    attack = max(1, rate // 1000)
    wave[:attack] *= np.linspace(0, 1, attack, dtype=np.float32)
    return wave * np.float32(guitar.gains[number])


def _stroke_noises(guitar: Guitar, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Bursts (8, samples) of noise at a stroke: the plectrum, a few milliseconds, and the body."""
    time = np.arange(round(0.1 * rate)) / rate
    noise = np.zeros((8, len(time)))
    for level, colour, shortest, longest in (
        (guitar.noise, rng.uniform(0, 0.9), 0.002, 0.01),
        (guitar.knock, 0.98, 0.01, 0.03),
    ):
        white = level * np.sqrt(1 - colour**2) * rng.standard_normal(noise.shape)
        envelope = np.exp(-time / rng.uniform(shortest, longest)) * (1 - np.exp(-time / 0.0005))
        noise += envelope * signal.lfilter([1.0], [1.0, -colour], white)
    return noise.astype(np.float32)


def _radiated(audio: np.ndarray, guitar: Guitar, rate: int) -> np.ndarray:
    """Audio through the resonances of the body and the cabinet's limit, a second-order filter."""
    size = fft.next_fast_len(len(audio) + rate // 4, real=True)  # what rings must not wrap around
    frequencies = fft.rfftfreq(size, 1 / rate)
    response = np.ones(len(frequencies), np.complex64)
    for centre, quality, gain in guitar.body:
        width = 1j * frequencies * centre / quality
        response += gain * width / (centre**2 - frequencies**2 + width)
    response /= 1 + 1.4j * frequencies / guitar.cabinet - (frequencies / guitar.cabinet) ** 2
    return fft.irfft(fft.rfft(audio, size) * response.astype(np.complex64), size)[: len(audio)]


def _amplified(audio: np.ndarray, guitar: Guitar, rate: int) -> np.ndarray:
    """Audio with the distortion of an amplifier that is driven, mildly."""
    level = augment.rms(audio)
    if not guitar.drive or not level:
        return audio
    drive = augment.decibels_to_ratio(guitar.drive) / (4 * level)
    return np.tanh(np.float32(drive) * audio)
