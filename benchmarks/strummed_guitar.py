"""Songs of strummed barre chords for `chord_robustness.py`, by Karplus-Strong strings.

E- and A-shapes at all frets up to the eleventh, in major, minor and sevenths. Karplus and Strong,
"Digital synthesis of plucked-string and drum timbres", Computer Music Journal 7(2), 1983; picking
position and tuning after Jaffe and Smith, "Extensions of the Karplus-Strong plucked-string
algorithm", in the same issue.
"""

from typing import NamedTuple

import numpy as np
from scipy import signal

from audiotrain.music.chord_classes import PITCH_NAMES
from audiotrain.music.segments import Segment, merge_equal

STRINGS = (40, 45, 50, 55, 59, 64)  # MIDI pitches of the open strings
MUTED = -1
FRETS = 12  # positions of a shape
# Frets of the six strings at the nut, by shape and chord type.
SHAPES = {
    "E": {
        "maj": (0, 2, 2, 1, 0, 0),
        "min": (0, 2, 2, 0, 0, 0),
        "7": (0, 2, 0, 1, 0, 0),
        "maj7": (0, 2, 1, 1, 0, 0),
        "min7": (0, 2, 0, 0, 0, 0),
    },
    "A": {
        "maj": (MUTED, 0, 2, 2, 2, 0),
        "min": (MUTED, 0, 2, 2, 1, 0),
        "7": (MUTED, 0, 2, 0, 2, 0),
        "maj7": (MUTED, 0, 2, 1, 2, 0),
        "min7": (MUTED, 0, 2, 0, 1, 0),
    },
}
ROOTS = {"E": 4, "A": 9}  # pitch classes of the shapes at the nut
# Chords of four bars: semitones above the key, chord type.
LOOPS = (
    ((0, "maj"), (7, "maj"), (9, "min"), (5, "maj")),
    ((0, "min"), (8, "maj"), (3, "maj"), (10, "maj")),
    ((0, "maj"), (9, "min"), (2, "min"), (7, "maj")),
    ((0, "min"), (5, "min"), (7, "maj"), (0, "min")),
    ((2, "min7"), (7, "7"), (0, "maj7"), (9, "min7")),
    ((0, "min7"), (5, "7"), (10, "maj7"), (3, "maj7")),
    ((0, "7"), (5, "7"), (0, "7"), (7, "7")),
)
STRUMS = ("D...D...", "D.D.D.D.", "D.DU.UDU", "D.D..UDU", "D..D..DU")  # eighths, down and up


class Chord(NamedTuple):
    """A shape at a fret: `pitches` of the six strings, MUTED or a MIDI number, and the label."""

    pitches: tuple[int, ...]
    label: str


def chord(shape: str, root: int, chord_type: str) -> Chord:
    """The chord on pitch class `root`; its fret follows, 0 to 11."""
    fret = (root - ROOTS[shape]) % FRETS
    frets = SHAPES[shape][chord_type]
    pitches = (
        MUTED if own == MUTED else string + own + fret
        for string, own in zip(STRINGS, frets, strict=True)
    )
    return Chord(tuple(pitches), f"{PITCH_NAMES[root % 12]}:{chord_type}")


def song(number: int, rate: int, seed: int = 0) -> tuple[np.ndarray, list[Segment]]:
    """Samples at `rate` Hz and labels of the `number`-th song: a loop in each of the twelve keys,
    each of its chords in both shapes; three to four minutes."""
    bars, beat = _bars(number, seed)
    guitar = Guitar(rate, np.random.default_rng([seed, number, 1]))
    return guitar.strum(bars, beat), labels(number, seed)


def labels(number: int, seed: int = 0) -> list[Segment]:
    """The labels of a `song`."""
    bars, beat = _bars(number, seed)
    starts = np.arange(len(bars) + 1) * 4 * beat
    return merge_equal(
        Segment(float(start), float(end), bar.label)
        for start, end, bar in zip(starts, starts[1:], bars, strict=False)
    )


def _bars(number: int, seed: int) -> tuple[list[Chord], float]:
    """The chord of each bar of a song, and the seconds of a beat, of which a bar has four."""
    rng = np.random.default_rng([seed, number, 0])
    beat = 60 / rng.uniform(95, 145)
    bars = []
    for turn, key in enumerate(rng.permutation(12)):
        loop = LOOPS[(turn + number) % len(LOOPS)]
        for shapes in ("EAEA", "AEAE"):
            bars += [
                chord(shape, int(key + above) % 12, kind)
                for shape, (above, kind) in zip(shapes, loop, strict=True)
            ]
    return bars, beat


class Guitar:
    """A guitar whose strings, body and picking are chosen at random."""

    def __init__(self, rate: int, rng: np.random.Generator):
        self.rate, self.rng = rate, rng
        self.cents = rng.normal(0, 3, len(STRINGS)) + rng.uniform(-8, 8)
        self.pick, self.damping = rng.uniform(0.1, 0.25), rng.uniform(0.05, 0.2)
        self.body = [(hertz * rng.uniform(0.9, 1.1), 8.0) for hertz in (105, 205, 400)]
        self._plucks: dict[tuple[int, int, int], np.ndarray] = {}

    def strum(self, bars: list[Chord], beat: float) -> np.ndarray:
        """Samples of chords that last four beats of `beat` seconds each; peak 0.5."""
        rng, rate = self.rng, self.rate
        plucks: list[list[tuple[float, int]]] = [[] for _ in STRINGS]  # seconds, MIDI pitch
        pattern = STRUMS[rng.integers(len(STRUMS))]
        for bar, one in enumerate(bars):
            if bar % 8 == 0:
                pattern = STRUMS[rng.integers(len(STRUMS))]
            for eighth, direction in enumerate(pattern):
                if direction == ".":
                    continue
                time = (4 * bar + eighth / 2) * beat + abs(rng.normal(0, 0.004))
                order = range(6) if direction == "D" else range(5, 1, -1)  # up: the upper strings
                gap = rng.uniform(0.004, 0.014)  # seconds between strings
                for place, string in enumerate(order):
                    if one.pitches[string] != MUTED or eighth == 0:
                        plucks[string].append((time + gap * place, one.pitches[string]))
        mix = np.zeros(int((4 * beat * len(bars) + 1.0) * rate), np.float32)
        for string, events in enumerate(plucks):
            self._play(mix, string, events)
        wet = sum(signal.lfilter(*signal.iirpeak(*one, fs=rate), mix) for one in self.body)
        mix = mix + 0.7 * wet + 1e-4 * np.abs(mix).max() * rng.normal(size=len(mix))
        return (0.5 / np.abs(mix).max() * mix).astype(np.float32)

    def _play(self, mix: np.ndarray, string: int, events: list[tuple[float, int]]) -> None:
        """Add a string, which sounds until it is plucked again or muted."""
        ends = [time for time, _ in events[1:]] + [len(mix) / self.rate]
        fade = np.linspace(1, 0, int(0.015 * self.rate), dtype=np.float32)
        for (time, pitch), end in zip(events, ends, strict=True):
            if pitch == MUTED:
                continue
            first = int(time * self.rate)
            sound = self._pluck(string, pitch)[: int(end * self.rate) - first + len(fade)].copy()
            sound[-len(fade) :] *= fade
            sound *= np.float32(self.rng.uniform(0.6, 1.0))
            room = mix[first : first + len(sound)]
            room += sound[: len(room)]

    def _pluck(self, string: int, pitch: int) -> np.ndarray:
        """One of three plucks of a string at a pitch, 4 s long."""
        key = (string, pitch, int(self.rng.integers(3)))
        if key not in self._plucks:
            hertz = 440 * 2 ** ((pitch - 69 + self.cents[string] / 100) / 12)
            self._plucks[key] = karplus_strong(
                hertz, 4.0, self.rate, self.rng, self.pick, self.damping
            )
        return self._plucks[key]


def karplus_strong(
    hertz: float,
    seconds: float,
    rate: int,
    rng: np.random.Generator,
    pick: float = 0.15,
    damping: float = 0.1,
) -> np.ndarray:
    """A plucked string, float32 (samples,): noise in a loop of a period's delay that loses treble.

    `pick` is where it is plucked, as a share of its length; the loop's low-pass is `damping`,
    1 - 2 `damping`, `damping`. The delay is tuned by Lagrange interpolation.
    """
    period = rate / hertz
    whole = int(period) - 2  # samples; the low-pass delays by 1, the interpolation by 1 to 2
    delay = period - whole - 1
    points = np.arange(4)
    lagrange = [np.prod([(delay - m) / (k - m) for m in points if m != k]) for k in points]
    lasting = 5.0 * (110 / hertz) ** 0.4  # seconds to decay by 60 dB
    loss = 10 ** (-3 / (lasting * hertz))
    taps = loss * np.convolve([damping, 1 - 2 * damping, damping], lagrange)
    reach = whole + len(taps) - 1
    sound = np.zeros(reach + int(seconds * rate) + whole)
    noise = signal.lfilter([0.5], [1, -0.5], rng.uniform(-1, 1, round(period)))
    sound[reach : reach + len(noise)] = noise - np.roll(noise, round(pick * period))
    for first in range(reach + len(noise), len(sound) - whole, whole):
        sound[first : first + whole] = np.convolve(sound[first - reach : first], taps, "valid")
    return sound[reach : reach + int(seconds * rate)].astype(np.float32)
