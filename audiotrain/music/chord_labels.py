"""Chord names as people write them -> labels in Harte's grammar, which mir_eval reads.

`root:shorthand(degrees)/bass`, `N` for no chord, `X` for unknown. Degrees count along the major
scale of the root: `b7` is 10 semitones, `9` is 14; `*3` is a third left out.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from audiotrain.utils.errors import UserError

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
DEGREE_NAMES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")  # by semitone

# The degrees that each shorthand stands for.
SHORTHANDS = {
    "maj": "1,3,5",
    "min": "1,b3,5",
    "dim": "1,b3,b5",
    "aug": "1,3,#5",
    "sus2": "1,2,5",
    "sus4": "1,4,5",
    "1": "1",
    "5": "1,5",
    "maj6": "1,3,5,6",
    "min6": "1,b3,5,6",
    "7": "1,3,5,b7",
    "maj7": "1,3,5,7",
    "min7": "1,b3,5,b7",
    "minmaj7": "1,b3,5,7",
    "dim7": "1,b3,b5,bb7",
    "hdim7": "1,b3,b5,b7",
    "9": "1,3,5,b7,9",
    "maj9": "1,3,5,7,9",
    "min9": "1,b3,5,b7,9",
    "11": "1,3,5,b7,9,11",
    "min11": "1,b3,5,b7,9,11",
    "13": "1,3,5,b7,9,11,13",
    "maj13": "1,3,5,7,9,11,13",
    "min13": "1,b3,5,b7,9,11,13",
}
# Shorthands in use that mir_eval 0.8.2 cannot read, or that are no shorthands.
REPAIRED_SHORTHANDS = {
    "aug7": ("aug", ("b7",)),
    "maj11": ("maj9", ("11",)),
    "4": ("sus4", ()),
    "6": ("maj6", ()),
}
NO_CHORD_WORDS = {"n", "nc", "n.c.", "n.c", "&pause", "*", "z", "silence", "nochord", "none"}
UNREADABLE = "unreadable chord label"  # in all messages about one
UNKNOWN_WORDS = {"x", "?", "unknown"}

_DEGREE = r"(?:b*|#*)(?:1[0-3]|[1-9])"
_NAMES = "|".join(sorted((*SHORTHANDS, *REPAIRED_SHORTHANDS), key=len, reverse=True))
_HARTE = re.compile(
    rf"(?P<root>[A-G](?:b*|#*))(?P<colon>:?)(?P<shorthand>(?:{_NAMES})?)"
    rf"(?:\((?P<degrees>\*?{_DEGREE}(?:,\*?{_DEGREE})*)\))?(?:/(?P<bass>{_DEGREE}))?"
)
_SIGNS = str.maketrans({"♯": "#", "♭": "b", "＃": "#"})
_WORD = re.compile(
    "|".join(sorted((n for n in SHORTHANDS if len(n) > 2), key=len, reverse=True)), re.I
)


def pitch_class(name: str) -> int:
    """Pitch class 0-11 (C = 0) of a note name such as `F#` or `Bb`."""
    return (NATURALS[name[0]] + name.count("#") - name[1:].count("b")) % 12


def degree_semitones(degree: str) -> int:
    """Semitones above the root, not folded into an octave: `b3` is 3, `9` is 14, `bb7` is 9."""
    number = int(degree.lstrip("b#")) - 1
    return 12 * (number // 7) + MAJOR_SCALE[number % 7] + degree.count("#") - degree.count("b")


def split(label: str) -> tuple[str, str, tuple[str, ...], str]:
    """Parts (root, shorthand, degrees, bass) of a label that `repair` gave. ValueError for `N`, `X`
    and what is not in Harte's grammar."""
    match = _HARTE.fullmatch(label)
    if match is None:
        raise UserError(f"chord label {label!r} is not in Harte's grammar")
    degrees = tuple(match["degrees"].split(",")) if match["degrees"] else ()
    shorthand = match["shorthand"] or ("" if degrees else "maj")
    return match["root"], shorthand, degrees, match["bass"] or "1"


@lru_cache(maxsize=65536)
def repair(label: str, pop_spellings: bool = False) -> str:
    """The same chord in Harte's grammar, valid for mir_eval 0.8.2. ValueError when unreadable.

    Always repaired: words for no chord, a missing colon, `:4`, `:6`, `aug7`, `maj11`, spaces. With
    `pop_spellings` also names such as `Cm7b5`, `CM7`, `Csus`, `C°`, `Am7/G`, `am`, `A minor 7`, and
    German `H`, `Fis` and `Es`. The whole label is read, or none of it.

    >>> repair("A7/3"), repair("C:aug7"), repair("NC"), repair("F#m7b5", pop_spellings=True)
    ('A:7/3', 'C:aug(b7)', 'N', 'F#:hdim7')
    """
    text = re.sub(r"[\s_]+", "", label.translate(_SIGNS).strip("\"' "))
    if text.lower() in NO_CHORD_WORDS:
        return "N"
    if text.lower() in UNKNOWN_WORDS:
        return "X"
    readers = [_repair_harte]
    if pop_spellings:
        readers.insert(0 if ":" not in text else 1, _repair_pop)
    for reader in readers:
        repaired = reader(text)
        if repaired:
            return repaired
    known = "" if pop_spellings else _repair_pop(text)
    hint = f"; --pop-spellings reads {known:.40}" if known else ""
    raise UserError(f"{UNREADABLE} {label[:40]!r}, expected root:type(degrees)/bass, N or X{hint}")


def _repair_harte(text: str) -> str:
    """`text` with its shorthand and colon repaired; empty when it isn't close to the grammar."""
    match = _HARTE.fullmatch(_WORD.sub(lambda word: word[0].lower(), text))
    if match is None:
        return ""
    shorthand, degrees = match["shorthand"], match["degrees"] or ""
    is_sixth = shorthand == "6" or (shorthand in ("maj6", "min6") and not match["colon"])
    if is_sixth and match["bass"] == "9":  # C6/9 has a ninth, and not in the bass
        shorthand = "min6" if shorthand == "min6" else "maj6"
        return _join(match["root"], shorthand, ("9", *filter(None, degrees.split(","))), None)
    shorthand, extra = REPAIRED_SHORTHANDS.get(shorthand, (shorthand, ()))
    return _join(
        match["root"], shorthand, (*extra, *filter(None, degrees.split(","))), match["bass"]
    )


def _join(root: str, shorthand: str, degrees: tuple[str, ...], bass: str | None) -> str:
    if not shorthand and not degrees:
        shorthand = "maj"
    added = f"({','.join(degrees)})" if degrees else ""
    return f"{root}:{shorthand}{added}" + (f"/{bass}" if bass and bass != "1" else "")


# Pop names: families of qualities, and what a number means in each: a shorthand and degrees added.
_POP_FAMILIES = {
    "maj": ("M", "maj", "ma", "major", "j"),
    "delta": ("Δ", "△", "^"),
    "min": ("m", "-", "mi", "min", "minor"),
    "dim": ("dim", "°", "º", "o", "diminished"),
    "hdim": ("hdim", "ø", "Ø", "h", "halfdim", "half-dim", "halfdiminished", "half-diminished"),
    "aug": ("aug", "+", "augmented"),
    "dom": ("dom", "dominant"),
    "": ("",),
}
_POP_FAMILY = {name: family for family, names in _POP_FAMILIES.items() for name in names}
_POP_TYPES = {
    "": {
        "": "maj", "2": "maj 9", "4": "sus4", "5": "5", "6": "maj6", "69": "maj6 9",
        "7": "7", "9": "9", "11": "11", "13": "13",
    },
    "maj": {
        "": "maj", "6": "maj6", "69": "maj6 9",
        "7": "maj7", "9": "maj9", "11": "maj9 11", "13": "maj13",
    },
    "delta": {"": "maj7", "7": "maj7", "9": "maj9", "11": "maj9 11", "13": "maj13"},
    "min": {
        "": "min", "6": "min6", "69": "min6 9",
        "7": "min7", "9": "min9", "11": "min11", "13": "min13",
    },
    "dom": {"": "7", "7": "7", "9": "9", "11": "11", "13": "13"},
    "minmaj": {"7": "minmaj7", "9": "minmaj7 9", "11": "minmaj7 9 11"},
    "dim": {"": "dim", "7": "dim7", "9": "dim7 9"},
    "hdim": {"": "hdim7", "7": "hdim7", "9": "hdim7 9", "11": "hdim7 9 11"},
    "dimmaj": {"7": "dim 7"},
    "aug": {"": "aug", "7": "aug b7", "9": "aug b7 9"},
    "augmaj": {"7": "aug 7", "9": "aug 7 9"},
    "sus4": {"": "sus4", "6": "sus4 6", "7": "sus4 b7", "9": "sus4 b7 9", "11": "sus4 b7 9",
             "13": "sus4 b7 9 13"},
    "sus2": {"": "sus2", "6": "sus2 6", "7": "sus2 b7"},
    "sus2sus4": {"": "sus4 9", "7": "sus4 b7 9"},
    "sus4maj": {"7": "sus4 7", "9": "sus4 7 9"},
    "sus2maj": {"7": "sus2 7"},
}  # fmt: skip
# A degree added to, or a fifth altered in, these types gives one with a shorthand of its own.
_ADDED = {
    ("maj", "b7"): "7",
    ("min", "b7"): "min7",
    ("dim", "b7"): "hdim7",
    ("maj", "7"): "maj7",
    ("min", "7"): "minmaj7",
    ("maj", "6"): "maj6",
    ("min", "6"): "min6",
}
_FIFTHS = {"dim": "b5", "dim7": "b5", "hdim7": "b5", "aug": "#5"}
_ALTERED_FIFTHS = {
    ("maj", "#5"): "aug",
    ("min", "b5"): "dim",
    ("7", "#5"): "aug b7",
    ("9", "#5"): "aug b7 9",
    ("min7", "b5"): "hdim7",
    ("min9", "b5"): "hdim7 9",
    ("maj7", "#5"): "aug 7",
}
# A note: German Fis, Des, As and Es too, unless the s begins `sus`.
_NOTE = r"[A-Ha-h](?:is|es|(?<=[AEae])s(?!us)|b+|#+)?"
_MAJOR = r"(?:major|maj|ma|M|Δ|△|\^)"
_POP = re.compile(
    rf"(?P<root>{_NOTE})"
    r"(?P<quality>half-?diminished|half-?dim|diminished|augmented|dominant|dom|minor|min|mi"
    r"|major|maj|ma|hdim|dim|aug|[mMjohøØΔ△^°º+-])?"
    rf"(?P<major>\(?{_MAJOR}(?=\)?(?:7|9|11|13|sus)))?(?P<number>69|2|4|5|6|7|9|11|13)?\)?"
    rf"(?:\(?(?P<sus>sus(?:2sus4|24|[24])?)\(?(?P<susmajor>{_MAJOR}(?=7|9))?(?P<susnumber>6|7|9|11|13)?\)?)?"
    rf"(?P<altered>(?:[(,]*(?:add|no|omit)?(?:{_MAJOR}|[b#+-])?(?:1[0-3]|[2-9])[),]*)*)"
    rf"(?:/(?P<bass>{_NOTE}|(?:b*|#*)(?:1[0-3]|[1-9])))?"
)
_POP_WORD = re.compile(
    "minor|major|min|maj|diminished|dim|augmented|aug|dominant|suspended|sus|add|omit|half", re.I
)
_ALTERATION = re.compile(rf"(add|no|omit)?({_MAJOR})?([b#+-]?)(1[0-3]|[2-9])")


def _repair_pop(text: str) -> str:
    """A pop name in Harte's grammar; empty when it isn't one."""
    match = _pop_match(text)
    if match is None:
        return ""
    # A small letter alone could be a major chord, a minor one or a word; so could `do` and `go`.
    if text[0].islower() and (match.end("root") == len(text) or match["quality"] in ("o", "h")):
        return ""
    known = _POP_TYPES.get(_pop_family(match), {}).get(match["number"] or match["susnumber"] or "")
    if known is None or (match["number"] and match["susnumber"]):
        return ""
    root, bass = _pop_note(match["root"]), match["bass"]
    altered = _alter(known, match["altered"])
    if altered is None:
        return ""
    shorthand, *degrees = altered.split()
    if bass and bass[0].upper() in "ABCDEFGH" and not bass[-1].isdigit():
        bass = DEGREE_NAMES[(pitch_class(_pop_note(bass)) - pitch_class(root)) % 12]
    return _join(root, shorthand, tuple(degrees), bass)


def _pop_match(text: str) -> re.Match | None:
    text = _POP_WORD.sub(lambda word: word[0].lower(), text).replace("suspended", "sus")
    text = re.sub(r"(?<=\d)(?:th|nd)(?![a-z])", "", text.replace("seventh", "7"))
    text = re.sub(r"(?<=6)[/,](?=9)", "", text).replace(":", "")
    text = text.replace("sharp", "#").replace("flat", "b")
    text = re.sub(r"[/(,](5|9|11|13)([+-])(?=\)|$)", r"\2\1", text)  # m7/5- is m7-5
    return _POP.fullmatch(text)


def ambiguous_names(labels: Iterable[str]) -> list[str]:
    """Return what is ambiguous in the pop names of one file: an H is German, whose B is B flat."""
    notes = [match["root"] for match in map(_pop_match, map(str.strip, labels)) if match]
    if "H" in notes and "B" in notes:
        return ["H is the German B, so that B could be B flat; read as B natural"]
    return []


def _pop_family(match: re.Match) -> str:
    """The family of _POP_TYPES that the quality, a further `maj7` and `sus` name; "?" for none."""
    family = _POP_FAMILY[match["quality"] or ""]
    if match["sus"]:
        words = {"sus2sus4": "sus2sus4", "sus24": "sus2sus4", "sus2": "sus2"}
        sus = words.get(match["sus"], "sus4")
        if family == "maj" and (match["number"] or match["susnumber"]):
            return f"{sus}maj"
        if family or (match["major"] and match["susmajor"]):
            return "?"
        return f"{sus}maj" if match["major"] or match["susmajor"] else sus
    if match["major"]:
        return {"": "maj", "min": "minmaj", "aug": "augmaj", "dim": "dimmaj"}.get(family, "?")
    return family


_GERMAN = {"is": "#", "es": "b", "s": "b"}


def _pop_note(name: str) -> str:
    letter, rest = name[0].upper(), name[1:]
    return ("B" if letter == "H" else letter) + _GERMAN.get(rest, rest)


def _alter(known: str, altered: str) -> str | None:
    """`known` ("shorthand degree degree") with a pop name's alterations, such as `b5(add9)`. A 7 is
    the minor seventh unless `maj` stands before it; None where `maj` stands before another one."""
    for word, major, sign, number in _ALTERATION.findall(altered):
        degree = {"+": "#", "-": "b"}.get(sign, sign) + number
        degree = {"2": "9", "4": "11"}.get(degree, degree)
        is_left_out = word in ("no", "omit")
        is_degree = number not in ("8", "10", "12") and (number != "3" or is_left_out)
        if not is_degree or (major and degree != "7"):
            return None
        if degree == "7" and not major:
            degree = "b7"
        if is_left_out:
            fifth = _FIFTHS.get(known.split()[0], "5")
            known += f" *{fifth if degree == '5' else degree}"
        elif number == "5" and sign:
            known = _ALTERED_FIFTHS.get((known, degree), f"{known} *5 {degree}")
        elif known in ("7", "min7", "hdim7") and degree == "b7":
            continue
        else:
            known = _ADDED.get((known, degree), f"{known} {degree}")
    return known
