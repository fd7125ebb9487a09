"""Chord names as people write them; what comes out is always valid for mir_eval."""

import re

import mir_eval.chord
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.music import chord_labels
from audiotrain.music.chord_classes import encode


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *((word, "N") for word in ("NC", "N.C.", "&pause", "*", "Z", "silence", "n", "no chord")),
        *((word, "X") for word in ("x", "?", "unknown")),
        ("C", "C:maj"),
        ("Bb/5", "Bb:maj/5"),
        ("C:", "C:maj"),
        ("C:4", "C:sus4"),
        ("C:6/5", "C:maj6/5"),
        ("A7/3", "A:7/3"),
        ("F#min7", "F#:min7"),
        ("G:aug7", "G:aug(b7)"),
        ("G:aug7(9)", "G:aug(b7,9)"),
        ("D:maj11/5", "D:maj9(11)/5"),
        ("C:Maj7", "C:maj7"),
        ("C♯:MIN", "C#:min"),
        ("E♭:sus4(b7, 9)", "Eb:sus4(b7,9)"),
        ("D:(1,5)", "D:(1,5)"),
        ("C:maj/1", "C:maj"),
    ],
)
def test_repairs(label, expected):
    assert chord_labels.repair(label) == expected
    assert chord_labels.repair(label, pop_spellings=True) == expected
    assert chord_labels.repair(expected) == expected
    mir_eval.chord.encode(expected)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Cm7b5", "C:hdim7"),
        ("C-7(b5)", "C:hdim7"),
        ("CM7", "C:maj7"),
        ("Cm7", "C:min7"),
        ("CΔ", "C:maj7"),
        ("CmM7", "C:minmaj7"),
        ("Cm(maj7)", "C:minmaj7"),
        ("Csus", "C:sus4"),
        ("C7sus4", "C:sus4(b7)"),
        ("C9sus", "C:sus4(b7,9)"),
        ("C°", "C:dim"),
        ("Co7", "C:dim7"),
        ("Cø", "C:hdim7"),
        ("C+", "C:aug"),
        ("C7#5", "C:aug(b7)"),
        ("C7b5", "C:7(*5,b5)"),
        ("C7#9", "C:7(#9)"),
        ("C13(b9,#11)", "C:13(b9,#11)"),
        ("C6/9", "C:maj6(9)"),
        ("C2", "C:maj(9)"),
        ("C(add9)", "C:maj(9)"),
        ("C(no3)", "C:maj(*3)"),
        ("Am7/G", "A:min7/b7"),
        ("C/Bb", "C:maj/b7"),
        ("Db:7sus4", "Db:sus4(b7)"),
        ("H", "B:maj"),
        ("Hm/F#", "B:min/5"),
        ("am", "A:min"),
        ("c#m", "C#:min"),
        ("C#major", "C#:maj"),
        ("A minor", "A:min"),
        ("B_flat minor", "Bb:min"),
    ],
)
def test_pop_spellings_behind_their_flag(label, expected):
    assert chord_labels.repair(label, pop_spellings=True) == expected
    mir_eval.chord.encode(expected)
    assert encode(label, pop_spellings=True) == encode(expected)
    try:
        without = chord_labels.repair(label)
    except ValueError:
        return
    assert without == {"C2": None}.get(label, expected)


@pytest.mark.parametrize(
    "label", ["", "H:foo", "C:foo", "do", "go", "a", "bb", "C:maj(", "C//5", "1"]
)
@pytest.mark.parametrize("pop_spellings", [False, True])
def test_unreadable_labels_are_named(label, pop_spellings):
    with pytest.raises(ValueError, match=f"unreadable chord label {re.escape(repr(label))}"):
        encode(label, pop_spellings)


def test_what_pop_spellings_would_read_is_said():
    for label, chord in (("Cm", "C:min"), ("Am7", "A:min7"), ("F/A", "F:maj/3")):
        with pytest.raises(ValueError, match=f"N or X; --pop-spellings reads {chord}$"):
            chord_labels.repair(label)
    with pytest.raises(ValueError, match="N or X$"):
        chord_labels.repair("verse")


@settings(deadline=None)
@given(
    st.text(max_size=12) | st.from_regex(r"[A-Ha-h][mM#b0-9(),/sudijnaΔø°+-]{0,9}"), st.booleans()
)
def test_whatever_repair_gives_is_valid_for_mir_eval(text, pop_spellings):
    try:
        label = chord_labels.repair(text, pop_spellings)
    except ValueError:
        return
    mir_eval.chord.encode(label)
    assert chord_labels.repair(label, pop_spellings) == label
    encode(label)
