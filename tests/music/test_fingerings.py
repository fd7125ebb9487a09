"""Fingerings: what they sound, what a hand can do, and the shapes that everybody knows."""

import itertools

import pytest

from audiotrain.music.chord_classes import CHORD_TYPES, chord_pitch_classes, encode
from audiotrain.music.fingerings import (
    GUITAR,
    INSTRUMENTS,
    UKULELE,
    fingerings,
    is_open,
    tables,
    written,
)

KNOWN = {
    "C": "x32010", "A": "x02220", "G": "320003", "E": "022100", "D": "xx0232", "F": "133211",
    "Bb": "x13331", "B": "x24442", "Ab": "466544", "A:min": "x02210", "E:min": "022000",
    "D:min": "xx0231", "B:min": "x24432", "F#:min": "244222", "C#:min": "x46654",
    "C:min": "x35543", "G:min": "355333", "F:min": "133111", "A:7": "x02020", "E:7": "020100",
    "D:7": "xx0212", "G:7": "320001", "C:7": "x32310", "B:7": "x21202", "C:maj7": "x32000",
    "A:min7": "x02010", "E:min7": "020000", "D:min7": "xx0211", "D:maj7": "xx0222",
    "F:maj7": "xx3210", "D:sus4": "xx0233", "A:sus2": "x02200", "G/3": "x20003",
    "D/3": "200232", "C/3": "032010", "C/5": "332010", "G:5": "355xxx",
}  # fmt: skip
UKULELES = {
    "C": "0003", "F": "2010", "G": "0232", "A": "2100", "D": "2220", "Bb": "3211", "B": "4322",
    "Eb": "0331", "A:min": "2000", "D:min": "2210", "G:7": "0212", "C:7": "0001", "E:7": "1202",
    "A:min7": "0000", "C:maj7": "0002", "G:min": "0231", "B:min": "4222",
}  # fmt: skip


@pytest.mark.parametrize(("label", "shape"), KNOWN.items())
def test_the_guitars_first_shape_is_the_usual_one(label, shape):
    assert written(fingerings(*encode(label))[0]) == shape


@pytest.mark.parametrize(("label", "shape"), UKULELES.items())
def test_the_ukuleles_first_shape_is_the_usual_one(label, shape):
    assert written(fingerings(*encode(label), UKULELE)[0]) == shape


def sounding(instrument, frets):
    """MIDI pitches of a shape."""
    pairs = zip(instrument.strings, frets, strict=True)
    return [string + fret for string, fret in pairs if fret >= 0]


@pytest.mark.parametrize("chord_type", range(1, len(CHORD_TYPES)))
def test_shapes_sound_the_chord_over_its_bass(chord_type):
    steps = set(chord_pitch_classes(chord_type))
    needed = {0, 3 if 3 in steps else 4} & steps if len(steps) < 6 else {0, 10, 11} & steps
    for root, up in itertools.product(range(12), sorted(steps)):
        bass = (root + up) % 12
        shapes = fingerings(chord_type, root, bass)
        assert shapes or (up and len(steps) > 4) or len(steps) > 5, (root, up)
        for frets in shapes:
            notes = sounding(GUITAR, frets)
            assert {(note - root) % 12 for note in notes} <= steps
            assert {(note - root) % 12 for note in notes} >= needed
            assert min(notes) % 12 == bass
            fretted = [fret for fret in frets if fret > 0]
            assert not fretted or max(fretted) - min(fretted) < 4


def test_no_chord_has_no_shape():
    assert fingerings(0, -1, -1) == []


def test_a_capo_moves_shapes_as_it_moves_strings():
    """A chord three semitones up, on strings three semitones up, has the same shapes."""
    raised = GUITAR._replace(strings=tuple(string + 3 for string in GUITAR.strings))
    for label, higher in (("C:maj7", "Eb:maj7"), ("A:min/b3", "C:min/b3"), ("D:7", "F:7")):
        assert fingerings(*encode(label)) == fingerings(*encode(higher), raised)


def test_the_table_has_every_chord_in_root_position():
    table = tables()
    for name, instrument in INSTRUMENTS.items():
        for chord_type, root in itertools.product(range(1, len(CHORD_TYPES)), range(12)):
            shapes = table[name].get(f"{chord_type}.{root}.{root}", [])
            assert all(len(shape) == len(instrument.strings) for shape in shapes)
            if len(chord_pitch_classes(chord_type)) <= 4:
                assert shapes, (name, CHORD_TYPES[chord_type], root)
    assert table["guitar"]["1.0.0"][0] == "x32010"


def test_open_shapes_have_an_open_string_near_the_nut():
    assert is_open((3, 2, 0, 0, 0, 3))
    assert not is_open((-1, 3, 5, 5, 5, 3))
    assert not is_open((0, 7, 9, 9, 9, 7))
