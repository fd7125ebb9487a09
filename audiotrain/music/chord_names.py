"""Names of chords to read: letters spelled by the key, German letters, Roman numerals.

A name is a note, a suffix of the chord type and, where the bass is another note, a slash and the
bass. Accidentals are ♯ and ♭. Pitch classes count from C = 0.
"""

from collections.abc import Sequence
from typing import Literal

from audiotrain.music.chord_classes import CHORD_TYPES, chord_pitch_classes, encode

Mode = Literal["major", "minor"]
SHARPS: tuple[int, Mode] = (4, "major")  # a key in which all black keys are sharps
Naming = Literal["letters", "german", "roman"]
Level = Literal["all", "sevenths", "triads"]

# A chord type in letters; in Roman numerals, whose case has the third already; and the types that
# stand for it where only sevenths, or only triads, are shown.
_TYPES = {
    "N": ("N.C.", "N.C.", "N", "N"),
    "maj": ("", "", "maj", "maj"),
    "min": ("m", "", "min", "min"),
    "dim": ("dim", "°", "dim", "dim"),
    "aug": ("aug", "+", "aug", "aug"),
    "sus2": ("sus2", "sus2", "sus2", "sus2"),
    "sus4": ("sus4", "sus4", "sus4", "sus4"),
    "5": ("5", "5", "5", "5"),
    "1": ("1", "1", "1", "1"),
    "maj6": ("6", "6", "maj6", "maj"),
    "min6": ("m6", "6", "min6", "min"),
    "7": ("7", "7", "7", "maj"),
    "maj7": ("maj7", "maj7", "maj7", "maj"),
    "min7": ("m7", "7", "min7", "min"),
    "minmaj7": ("m(maj7)", "(maj7)", "minmaj7", "min"),
    "dim7": ("dim7", "°7", "dim7", "dim"),
    "hdim7": ("m7♭5", "ø7", "hdim7", "dim"),
    "aug(b7)": ("7♯5", "+7", "aug(b7)", "aug"),
    "sus4(b7)": ("7sus4", "7sus4", "sus4(b7)", "sus4"),
    "maj(9)": ("add9", "add9", "maj", "maj"),
    "min(9)": ("m(add9)", "add9", "min", "min"),
    "maj6(9)": ("6/9", "6/9", "maj6", "maj"),
    "9": ("9", "9", "7", "maj"),
    "maj9": ("maj9", "maj9", "maj7", "maj"),
    "min9": ("m9", "9", "min7", "min"),
    "sus4(b7,9)": ("9sus4", "9sus4", "sus4(b7)", "sus4"),
    "7(b9)": ("7♭9", "7♭9", "7", "maj"),
    "7(#9)": ("7♯9", "7♯9", "7", "maj"),
    "11": ("11", "11", "7", "maj"),
    "min11": ("m11", "11", "min7", "min"),
    "13": ("13", "13", "7", "maj"),
    "maj13": ("maj13", "maj13", "maj7", "maj"),
}
SUFFIXES = tuple(_TYPES[name][0] for name in CHORD_TYPES)
NUMERAL_SUFFIXES = tuple(_TYPES[name][1] for name in CHORD_TYPES)
SEVENTHS = tuple(CHORD_TYPES.index(_TYPES[name][2]) for name in CHORD_TYPES)
TRIADS = tuple(CHORD_TYPES.index(_TYPES[name][3]) for name in CHORD_TYPES)
# Whether a chord's numeral is a small letter: those with a minor third and no major one.
IS_MINOR = tuple(
    3 in chord_pitch_classes(number) and 4 not in chord_pitch_classes(number)
    for number in range(len(CHORD_TYPES))
)

_FIFTHS = "FCGDAEB"  # letters along the line of fifths, F = -1
_MAJOR_KEYS = (0, -5, 2, -3, 4, -1, 6, 1, -4, 3, -2, 5)  # tonics on the line of fifths, F♯ for 6
_MINOR_KEYS = (0, 7, 2, -3, 4, -1, 6, 1, 8, 3, -2, 5)  # of C minor to B minor
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
_DEGREES = ("1", "♭2", "2", "♭3", "3", "4", "♭5", "5", "♭6", "6", "♭7", "7")
_GERMAN_SHARPS = {"A": "Ais", "B": "His", "E": "Eis"}
_GERMAN_FLATS = {"A": "As", "B": "B", "E": "Es"}


def pitch_names(tonic: int, mode: Mode = "major") -> tuple[str, ...]:
    """Letters of the twelve pitch classes in a key: its scale as its signature has it, the others
    as ♭2, ♭3, ♯4, ♭6, ♭7 of the tonic (of a minor key: ♭2, 3, ♯4, 6, 7), without double signs.

    >>> pitch_names(3)[:6], pitch_names(4)[:6], pitch_names(9, "minor")[8]
    (('C', 'D♭', 'D', 'E♭', 'E', 'F'), ('C', 'C♯', 'D', 'D♯', 'E', 'F'), 'G♯')
    """
    home = (_MAJOR_KEYS if mode == "major" else _MINOR_KEYS)[tonic % 12]
    scale = {(tonic + step) % 12 for step in _SCALES[mode]}
    names = [""] * 12
    for place in range(home - 5, home + 7):
        pitch = 7 * place % 12
        lowest, highest = (-7, 11) if pitch in scale else (-6, 10)
        names[pitch] = _letter(place + 12 * (place < lowest) - 12 * (place > highest))
    return tuple(names)


def german_names(tonic: int, mode: Mode = "major") -> tuple[str, ...]:
    """As `pitch_names`, as they are called in German: H, B, Cis, Es.

    >>> german_names(3)[10], german_names(4)[11], german_names(4)[1]
    ('B', 'H', 'Cis')
    """
    return tuple(map(_german, pitch_names(tonic, mode)))


def numerals(mode: Mode = "major") -> tuple[str, ...]:
    """Roman numerals of the twelve semitones above the tonic.

    >>> numerals()[:5], numerals("minor")[8:]
    (('I', '♭II', 'II', '♭III', 'III'), ('VI', '♯VI', 'VII', '♯VII'))
    """
    scale = _SCALES[mode]
    names = []
    for semitone in range(12):
        if semitone in scale:
            names.append(_NUMERALS[scale.index(semitone)])
        elif semitone == 6 or (mode == "minor" and semitone > 3):
            names.append("♯" + _NUMERALS[scale.index(semitone - 1)])
        else:
            names.append("♭" + _NUMERALS[scale.index(semitone + 1)])
    return tuple(names)


def chord_name(
    chord: Sequence[int],
    key: tuple[int, Mode] = (0, "major"),
    naming: Naming = "letters",
    level: Level = "all",
) -> str:
    """The name of class numbers (type, root, bass) in a key of (tonic, mode).

    Roman numerals give the bass as a degree of the chord. `level` replaces richer chords by
    sevenths, or by triads without another bass. `?` for what has no class.

    >>> [chord_name((1, 3, 7), (3, "major"), naming) for naming in ("letters", "roman")]
    ['E♭/G', 'I/3']
    """
    chord_type, root, bass = simplified(chord, level)
    if chord_type == 0:
        return SUFFIXES[0]
    if chord_type < 0 or root < 0:
        return "?"
    tonic, mode = key
    slash = bass >= 0 and bass != root
    if naming == "roman":
        numeral = numerals(mode)[(root - tonic) % 12]
        name = numeral.lower() if IS_MINOR[chord_type] else numeral
        name += NUMERAL_SUFFIXES[chord_type]
        return f"{name}/{_DEGREES[(bass - root) % 12]}" if slash else name
    names = (german_names if naming == "german" else pitch_names)(tonic, mode)
    return names[root] + SUFFIXES[chord_type] + (f"/{names[bass]}" if slash else "")


def simplified(chord: Sequence[int], level: Level) -> tuple[int, int, int]:
    """Class numbers with richer types replaced by sevenths, or by triads in root position.

    >>> simplified((CHORD_TYPES.index("min9"), 0, 3), "triads")
    (2, 0, 0)
    """
    chord_type, root, bass = (int(number) for number in chord)
    if level == "all" or chord_type < 0:
        return chord_type, root, bass
    if level == "sevenths":
        return SEVENTHS[chord_type], root, bass
    return TRIADS[chord_type], root, root


def spelled(label: str, key: tuple[int, Mode]) -> str:
    """A label in Harte's grammar with its root as `pitch_names` spells it; `N` and `X` as they are.
    ValueError for a label that can't be read.

    >>> [spelled(label, (8, "major")) for label in ("C#:min7/b3", "F:min", "N")]
    ['Db:min7/b3', 'F:min', 'N']
    """
    root = encode(label).root
    return label if root < 0 else plain_names(*key)[root] + label.lstrip("ABCDEFG#b")


def plain_names(tonic: int, mode: Mode = "major") -> tuple[str, ...]:
    """Return the letters of `pitch_names` as files have them: with # and b, and B and F in place of
    C♭ and E♯, which many programs do not know.

    >>> plain_names(3, "minor")[11], plain_names(6)[5]
    ('B', 'F')
    """
    return tuple(map(plain, pitch_names(tonic, mode)))


def plain(name: str) -> str:
    """Return the name of a chord or a note with # and b, without C♭ and E♯.

    >>> plain("C♭maj7/E♭"), plain("E♯m7♭5")
    ('Bmaj7/Eb', 'Fm7b5')
    """
    name = name.replace("C♭", "B").replace("E♯", "F")
    return name.replace("♯", "#").replace("♭", "b")


def tables() -> dict:
    """All of this as plain data, for a page that names chords by itself."""
    modes: tuple[Mode, ...] = ("major", "minor")
    keys = [(tonic, mode) for mode in modes for tonic in range(12)]
    return {
        "types": list(CHORD_TYPES),
        "suffixes": list(SUFFIXES),
        "numeralSuffixes": list(NUMERAL_SUFFIXES),
        "isMinor": list(IS_MINOR),
        "sevenths": list(SEVENTHS),
        "triads": list(TRIADS),
        "notes": [list(chord_pitch_classes(number)) for number in range(len(CHORD_TYPES))],
        "letters": [list(pitch_names(*key)) for key in keys],
        "german": [list(german_names(*key)) for key in keys],
        "numerals": [list(numerals("major")), list(numerals("minor"))],
        "degrees": list(_DEGREES),
    }


def _letter(place: int) -> str:
    """A note by its place on the line of fifths, C = 0."""
    signs = (place + 1) // 7
    return _FIFTHS[(place + 1) % 7] + ("♯" * signs if signs > 0 else "♭" * -signs)


def _german(name: str) -> str:
    letter, sign = name[0], name[1:]
    plain = "H" if letter == "B" else letter
    if sign == "♯":
        return _GERMAN_SHARPS.get(letter, f"{plain}is")
    return _GERMAN_FLATS.get(letter, f"{plain}es") if sign == "♭" else plain
