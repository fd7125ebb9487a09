"""Fingerings of chords on fretted instruments, computed from their tuning.

All shapes that a hand can play in a window of four frets are listed once, with the notes they
sound; a chord's fingerings are those with its notes and its bass, the easiest first: open shapes,
then movable ones, low positions before high ones.
"""

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from audiotrain.music.chord_classes import CHORD_TYPES, chord_pitch_classes

MUTED = -1
REACH = 4  # frets under one hand
HIGHEST = 9  # fret of the first finger
FINGERS = 4


class Instrument(NamedTuple):
    """Open strings as MIDI pitches from the player's thumb side; at least `fewest` of
    them sound in a chord of three notes.

    Where the first string isn't the lowest (ukulele), a shape has no bass of its own.
    """

    name: str
    strings: tuple[int, ...]
    fewest: int

    @property
    def has_bass(self) -> bool:
        return self.strings[0] == min(self.strings)


GUITAR = Instrument("guitar", (40, 45, 50, 55, 59, 64), 4)
UKULELE = Instrument("ukulele", (67, 60, 64, 69), 4)
INSTRUMENTS = {instrument.name: instrument for instrument in (GUITAR, UKULELE)}

# Notes that chords with more notes than strings or fingers may leave out, besides the fifth.
_OPTIONAL = {"11": {4, 2}, "min11": {2}, "13": {2, 5}, "maj13": {2, 5}, "min9": set(), "9": set()}


_COUNTS = np.array([number.bit_count() for number in range(1 << 12)])
# Shapes that every guitarist knows: barre chords by their form at the nut, and open ones that take
# all fingers.
_BARRE_FORMS = (
    *("022100", "022000", "020100", "020000", "021100", "022200"),
    *("x02220", "x02210", "x02020", "x02010", "x02120", "x02230"),
)
_OPEN_FORMS = ("x32310", "x21202", "xx3210", "x02230", "022200", "x32030", "200232", "332010")


class _Shapes(NamedTuple):
    frets: np.ndarray  # (shapes, strings), MUTED where a string is not played
    notes: np.ndarray  # (shapes,) bits of the pitch classes that sound
    by_bass: list[np.ndarray]  # numbers of the shapes by the pitch class of their lowest note
    cost: np.ndarray  # (shapes,) how hard it is, without what the chord has to do with it


def fingerings(
    chord_type: int, root: int, bass: int, instrument: Instrument = GUITAR, most: int = 3
) -> list[tuple[int, ...]]:
    """The easiest shapes of a chord: frets by string, 0 an open one, -1 one that is not played.

    `chord_type` counts in CHORD_TYPES, `root` and `bass` are pitch classes. At most `most`, in
    different positions; none for no chord, or where no hand can play it.

    >>> fingerings(CHORD_TYPES.index("maj"), 0, 0)[0], fingerings(CHORD_TYPES.index("min"), 2, 2)[0]
    ((-1, 3, 2, 0, 1, 0), (-1, -1, 0, 2, 3, 1))
    """
    shapes = _shapes(instrument)
    steps = set(chord_pitch_classes(chord_type))
    if not steps:
        return []
    if steps == {0} and bass == root:
        return _single_notes(root, instrument)[:most]
    optional = set(_OPTIONAL.get(CHORD_TYPES[chord_type], set()))
    if len(steps) > 3:
        optional |= {7} & steps
    if not instrument.has_bass and len(steps) > len(instrument.strings):
        optional |= {0}
    added = {(bass - root) % 12} if instrument.has_bass else set()
    wanted = _bits(root, steps | added)
    needed = _bits(root, (steps - optional) | added)
    numbers = shapes.by_bass[bass % 12 if instrument.has_bass else 0]
    notes = shapes.notes[numbers]
    numbers = numbers[((notes & needed) == needed) & ((notes & ~wanted) == 0)]
    muted = (shapes.frets[numbers] < 0).sum(axis=1)
    if len(steps) > 2:
        whole = muted <= len(instrument.strings) - instrument.fewest
        numbers, muted = numbers[whole], muted[whole]
    cost = shapes.cost[numbers] + 0.8 * _COUNTS[wanted & ~shapes.notes[numbers]]
    if len(steps) < 3:  # power chords: few strings, side by side, low
        first, inner = _ends(shapes.frets[numbers])[0], _ends(shapes.frets[numbers])[2]
        cost = cost - 3 * muted + 2 * first + 4 * inner
    found: list[tuple[int, ...]] = []
    places: set[int] = set()
    for number in numbers[np.argsort(cost, kind="stable")]:
        frets = tuple(int(fret) for fret in shapes.frets[number])
        place = min((fret for fret in frets if fret > 0), default=0)
        if place not in places:
            places.add(place)
            found.append(frets)
        if len(found) == most:
            break
    return found


def _single_notes(pitch: int, instrument: Instrument) -> list[tuple[int, ...]]:
    """A pitch class on one string, in the lowest positions first."""
    frets = [(pitch - string) % 12 for string in instrument.strings]
    order = sorted(range(len(frets)), key=lambda string: frets[string])
    return [
        tuple(frets[string] if string == chosen else MUTED for string in range(len(frets)))
        for chosen in order
    ]


def is_open(frets: tuple[int, ...]) -> bool:
    """Whether a shape has an open string and is played near the nut.

    >>> is_open((-1, 3, 2, 0, 1, 0)), is_open((1, 3, 3, 2, 1, 1))
    (True, False)
    """
    return 0 in frets and max(frets) <= REACH


def written(frets: tuple[int, ...]) -> str:
    """A shape as text, a sign for each string: x where it is not played, letters from fret 10 on.

    >>> written((-1, 3, 2, 0, 1, 0))
    'x32010'
    """
    return "".join("x" if fret < 0 else "0123456789abcdefghij"[fret] for fret in frets)


@lru_cache(maxsize=1)
def tables() -> dict[str, dict[str, list[str]]]:
    """Instrument -> "type.root.bass" -> shapes as text, for all chords; plain data for a page.

    Three shapes of chords in root position, one with another bass; without entry where there is
    none. Instruments without a bass of their own have root positions only.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for instrument in INSTRUMENTS.values():
        table = found[instrument.name] = {}
        basses = range(12) if instrument.has_bass else (0,)
        for chord_type, root, up in itertools.product(
            range(1, len(CHORD_TYPES)), range(12), basses
        ):
            shapes = fingerings(chord_type, root, (root + up) % 12, instrument, 1 if up else 3)
            if shapes:
                key = f"{chord_type}.{root}.{(root + up) % 12}"
                table[key] = [written(shape) for shape in shapes]
    return found


def _bits(root: int, steps: set[int]) -> np.int64:
    return np.int64(sum(1 << (root + step) % 12 for step in steps))


@lru_cache(maxsize=4)
def _shapes(instrument: Instrument) -> _Shapes:
    """Every shape that a hand can play."""
    count = len(instrument.strings)
    grid = np.stack(np.meshgrid(*[np.arange(REACH + 2)] * count, indexing="ij"), -1)
    choices = grid.reshape(-1, count).astype(np.int16)  # 0 muted, 1 open, 2.. frets of the window
    blocks = []
    for place in range(1, HIGHEST + 1):
        frets = np.where(choices < 2, choices - 1, choices - 2 + place).astype(np.int16)
        lowest = np.where(frets > 0, frets, 99).min(axis=1)
        kept = lowest == place if place > 1 else (lowest == 1) | (lowest == 99)
        blocks.append(frets[kept])
    frets = np.concatenate(blocks)
    sounding = frets >= 0
    frets = frets[_is_playable(frets) & (sounding.sum(axis=1) >= min(3, count))]
    sounding = frets >= 0
    pitches = frets + np.array(instrument.strings, np.int16)
    bits = np.where(sounding, 1 << (pitches.astype(np.int64) % 12), 0)
    notes = np.bitwise_or.reduce(bits, axis=1)
    bass = np.where(sounding, pitches, 999).min(axis=1) % 12
    groups = [np.flatnonzero(bass == pitch) for pitch in range(12)]
    by_bass = groups if instrument.has_bass else [np.arange(len(frets))]
    cost = _cost(frets) - _familiarity(frets)
    return _Shapes(frets, notes, by_bass, cost)


def _barre(frets: np.ndarray) -> np.ndarray:
    """(shapes,) whether the first finger can lie across: no open string between its strings."""
    lowest = np.where(frets > 0, frets, 99).min(axis=1, keepdims=True)
    at_lowest = frets == lowest
    first, last = at_lowest.argmax(axis=1), frets.shape[1] - 1 - at_lowest[:, ::-1].argmax(axis=1)
    strings = np.arange(frets.shape[1])
    between = (strings >= first[:, None]) & (strings <= last[:, None])
    return (at_lowest.sum(axis=1) > 1) & ~(between & (frets <= 0)).any(axis=1)


def _fingers(frets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shapes,) fingers that a shape takes, and whether the first one lies across."""
    fretted = (frets > 0).sum(axis=1)
    lowest = np.where(frets > 0, frets, 99).min(axis=1, keepdims=True)
    above = (frets > lowest).sum(axis=1)
    has_open = (frets == 0).any(axis=1)
    # With open strings around, a barre of few strings is no easier than fingers of their own.
    lies = _barre(frets) & ((fretted > FINGERS) | (~has_open & (fretted > 3)))
    return np.where(lies, above + 1, fretted), lies


def _ends(frets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shapes,) strings not played before those that are, after them, and between them."""
    sounding = frets >= 0
    first, last = sounding.argmax(axis=1), sounding[:, ::-1].argmax(axis=1)
    return first, last, frets.shape[1] - first - last - sounding.sum(axis=1)


def _is_playable(frets: np.ndarray) -> np.ndarray:
    fingers, _ = _fingers(frets)
    inner = _ends(frets)[2]
    far_open = (frets == 0).any(axis=1) & (frets.max(axis=1) > REACH)
    return (fingers <= FINGERS) & (inner <= 1) & ~far_open


def _familiarity(frets: np.ndarray) -> np.ndarray:
    """(shapes,) how much a guitar's shape gains by being one that everybody plays."""
    if frets.shape[1] != len(GUITAR.strings):
        return np.zeros(len(frets))
    gains = dict.fromkeys(_OPEN_FORMS, 4.5)
    for form, place in itertools.product(_BARRE_FORMS, range(1, HIGHEST + 1)):
        moved = tuple(-1 if sign == "x" else int(sign) + place for sign in form)
        gains[written(moved)] = 3.0
    return np.array([gains.get(written(tuple(row)), 0.0) for row in frets.tolist()])


def _cost(frets: np.ndarray) -> np.ndarray:
    fingers, lies = _fingers(frets)
    first, last, inner = _ends(frets)
    fretted = frets > 0
    place = np.where(fretted, frets, 99).min(axis=1)
    place = np.where(place == 99, 0, place)
    highest = np.where(fretted, frets, 0).max(axis=1)
    span = highest - place
    has_open = (frets == 0).any(axis=1)
    return (
        0.9 * fingers
        + 1.5 * lies
        + 0.55 * np.maximum(place - 1, 0)
        + np.array([0, 0, 0.5, 2.5])[np.minimum(span, 3)]
        + 6.0 * inner
        + 0.9 * first  # low strings that are left out
        + 2.0 * last  # and high ones
        - 0.5 * (frets == 0).sum(axis=1)
        # Fingers that must stand up between open strings.
        + has_open * (1.6 * (fingers == 4) + 2.5 * (highest >= REACH) + 1.0 * (span > 2))
    )
