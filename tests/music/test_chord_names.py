"""Names of chords: spelled by the key, and read back as the same chord."""

import itertools

import pytest

from audiotrain.music import chord_names
from audiotrain.music.chord_classes import CHORD_TYPES, encode, parse
from audiotrain.music.chord_labels import pitch_class
from audiotrain.music.chord_names import chord_name, german_names, numerals, pitch_names

KEYS = list(itertools.product(range(12), ("major", "minor")))
ASCII = str.maketrans("♯♭", "#b")
GERMAN = {"H": "B", "B": "Bb", "As": "Ab", "Es": "Eb", "Ais": "A#", "Eis": "E#", "His": "B#"}


@pytest.mark.parametrize(("tonic", "mode"), KEYS)
def test_every_name_is_its_pitch_class(tonic, mode):
    names = pitch_names(tonic, mode)
    assert [pitch_class(name.translate(ASCII)) for name in names] == list(range(12))
    assert max(len(name) for name in names) == 2  # no double signs
    for name, german in zip(names, german_names(tonic, mode), strict=True):
        plain = GERMAN.get(german) or german.replace("is", "#").replace("es", "b")
        assert plain == name.translate(ASCII)


@pytest.mark.parametrize(("tonic", "mode"), KEYS)
def test_a_scale_has_each_letter_once(tonic, mode):
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10)
    names = pitch_names(tonic, mode)
    assert sorted(names[(tonic + step) % 12][0] for step in steps) == list("ABCDEFG")
    signs = {names[(tonic + step) % 12][1:] for step in steps} - {""}
    assert len(signs) <= 1  # sharps or flats, not both


@pytest.mark.parametrize(
    ("label", "key", "letters", "german", "roman"),
    [
        ("C:maj", (0, "major"), "C", "C", "I"),
        ("A:min7", (0, "major"), "Am7", "Am7", "vi7"),
        ("Bb:maj", (0, "major"), "B♭", "B", "♭VII"),
        ("B:hdim7", (0, "major"), "Bm7♭5", "Hm7♭5", "viiø7"),
        ("F#:min", (2, "major"), "F♯m", "Fism", "iii"),
        ("C#:7/3", (6, "major"), "C♯7/E♯", "Cis7/Eis", "V7/3"),
        ("Eb:maj/5", (3, "major"), "E♭/B♭", "Es/B", "I/5"),
        ("G#:min", (3, "major"), "A♭m", "Asm", "iv"),
        ("G#:maj", (9, "minor"), "G♯", "Gis", "♯VII"),
        ("D:min/b7", (5, "major"), "Dm/C", "Dm/C", "vi/♭7"),
        ("E:7", (9, "minor"), "E7", "E7", "V7"),
        ("C:maj", (9, "minor"), "C", "C", "III"),
        ("G:sus4(b7)", (0, "major"), "G7sus4", "G7sus4", "V7sus4"),
        ("B:dim7", (0, "minor"), "Bdim7", "Hdim7", "♯vii°7"),
        ("N", (0, "major"), "N.C.", "N.C.", "N.C."),
        ("X", (0, "major"), "?", "?", "?"),
    ],
)
def test_chords_as_musicians_write_them(label, key, letters, german, roman):
    named = [chord_name(encode(label), key, naming) for naming in ("letters", "german", "roman")]
    assert named == [letters, german, roman]


@pytest.mark.parametrize("chord_type", range(1, len(CHORD_TYPES)))
@pytest.mark.parametrize("tonic", [1, 4, 10])
def test_a_name_is_read_as_the_chord_it_names(chord_type, tonic):
    for root, up in ((0, 0), (1, 4), (6, 7), (10, 10)):
        chord = (chord_type, root, (root + up) % 12)
        text = chord_name(chord, (tonic, "major")).translate(ASCII)
        name, slash, bass = text.replace("6/9", "69").partition("/")
        if name[len(name.rstrip("#b1")) :].endswith("1") and CHORD_TYPES[chord_type] == "1":
            continue  # a single note has no pop name
        assert encode(name, pop_spellings=True)[:2] == chord[:2], text
        assert pitch_class(bass or name[: 1 + (name[1:2] in ("#", "b"))]) == chord[2]
        assert bool(slash) == bool(up)


def test_simpler_chords_have_fewer_notes_of_the_same_chord():
    for number, name in enumerate(CHORD_TYPES):
        if name in ("N", "1", "5"):
            continue
        whole = parse(f"C:{name}").notes
        seventh = parse(f"C:{CHORD_TYPES[chord_names.SEVENTHS[number]]}").notes
        triad = parse(f"C:{CHORD_TYPES[chord_names.TRIADS[number]]}").notes
        assert len(triad) == 3
        assert len(seventh) in (3, 4)
        assert triad <= whole, name
        assert seventh <= whole, name
    assert chord_name((CHORD_TYPES.index("min9"), 2, 5), level="triads") == "Dm"
    assert chord_name((CHORD_TYPES.index("13"), 7, 11), level="sevenths") == "G7/B"


def test_numerals_rise_by_degree():
    for mode in ("major", "minor"):
        plain = [name.strip("♭♯") for name in numerals(mode)]
        order = [("I", "II", "III", "IV", "V", "VI", "VII").index(name) for name in plain]
        assert order == sorted(order)
        assert len(set(numerals(mode))) == 12
