"""Chord names as people write them against pitch classes that were written down by hand."""

import mir_eval
import numpy as np
import pytest

from audiotrain.music.chord_labels import repair
from audiotrain.utils.errors import UserError

NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Name: semitones above the root, and where there is one the semitones of the bass above the root.
ON_C = """
C: 0 4 7
CM: 0 4 7
Cmaj: 0 4 7
Cma: 0 4 7
Cmajor: 0 4 7
C major: 0 4 7
Cm: 0 3 7
Cmin: 0 3 7
Cmi: 0 3 7
C-: 0 3 7
Cminor: 0 3 7
C minor: 0 3 7
C m: 0 3 7
Cdim: 0 3 6
C°: 0 3 6
Co: 0 3 6
C diminished: 0 3 6
Caug: 0 4 8
C+: 0 4 8
C augmented: 0 4 8
C(#5): 0 4 8
C(b5): 0 4 6
C5: 0 7
Csus: 0 5 7
Csus4: 0 5 7
Csus2: 0 2 7
Csus2sus4: 0 2 5 7
C suspended: 0 5 7
C suspended 4: 0 5 7
C sus2: 0 2 7
C2: 0 2 4 7
Cadd2: 0 2 4 7
C(add2): 0 2 4 7
Cadd9: 0 2 4 7
C(add9): 0 2 4 7
C add9: 0 2 4 7
Cadd4: 0 4 5 7
Cadd11: 0 4 5 7
Cadd13: 0 4 7 9
Cmadd9: 0 2 3 7
Cm(add9): 0 2 3 7
Cm(add2)(add4): 0 2 3 5 7
Cm(add11): 0 3 5 7
C6: 0 4 7 9
C 6: 0 4 7 9
Cmaj6: 0 4 7 9
CM6: 0 4 7 9
Cm6: 0 3 7 9
C-6: 0 3 7 9
Cmin6: 0 3 7 9
C69: 0 2 4 7 9
C6/9: 0 2 4 7 9
C 6/9: 0 2 4 7 9
C6(9): 0 2 4 7 9
Cm69: 0 2 3 7 9
Cm6/9: 0 2 3 7 9
C6(7): 0 4 7 9 10
C7: 0 4 7 10
C 7: 0 4 7 10
C(7): 0 4 7 10
Cadd7: 0 4 7 10
Cdom7: 0 4 7 10
C dominant 7: 0 4 7 10
C dominant 7th: 0 4 7 10
Cmaj7: 0 4 7 11
CM7: 0 4 7 11
Cma7: 0 4 7 11
Cj7: 0 4 7 11
CΔ: 0 4 7 11
CΔ7: 0 4 7 11
C^: 0 4 7 11
C^7: 0 4 7 11
C(maj7): 0 4 7 11
C(addmaj7): 0 4 7 11
C major 7: 0 4 7 11
C maj 7: 0 4 7 11
Cmaj7#11: 0 4 6 7 11
Cmaj7(#11): 0 4 6 7 11
Cmaj7#5: 0 4 8 11
Cmaj7b5: 0 4 6 11
Cm7: 0 3 7 10
Cmin7: 0 3 7 10
Cmi7: 0 3 7 10
C-7: 0 3 7 10
Cm(7): 0 3 7 10
C m7: 0 3 7 10
C minor 7: 0 3 7 10
C min 7: 0 3 7 10
Cm7b5: 0 3 6 10
Cm7(b5): 0 3 6 10
C-7b5: 0 3 6 10
Cm7-5: 0 3 6 10
Cm7/5-: 0 3 6 10
Cø: 0 3 6 10
Cø7: 0 3 6 10
Ch: 0 3 6 10
Ch7: 0 3 6 10
Chdim7: 0 3 6 10
C half-dim: 0 3 6 10
C half-diminished: 0 3 6 10
C half diminished 7: 0 3 6 10
Cdim7: 0 3 6 9
C°7: 0 3 6 9
Co7: 0 3 6 9
C diminished 7: 0 3 6 9
Co^7: 0 3 6 11
Coomit5: 0 3
CmM7: 0 3 7 11
Cm(maj7): 0 3 7 11
Cmmaj7: 0 3 7 11
Cm(M7): 0 3 7 11
C-^7: 0 3 7 11
C-Δ7: 0 3 7 11
C minor major 7: 0 3 7 11
Caug7: 0 4 8 10
C+7: 0 4 8 10
C7#5: 0 4 8 10
C7(#5): 0 4 8 10
C7+5: 0 4 8 10
Caugmaj7: 0 4 8 11
C+M7: 0 4 8 11
C7b5: 0 4 6 10
C7-5: 0 4 6 10
C7(b5): 0 4 6 10
C7b9: 0 1 4 7 10
C7(b9): 0 1 4 7 10
C7-9: 0 1 4 7 10
C7#9: 0 3 4 7 10
C7(#9): 0 3 4 7 10
C7 #9: 0 3 4 7 10
C7+9: 0 3 4 7 10
C7b9#9: 0 1 3 4 7 10
C7#5#9: 0 3 4 8 10
C7(#5,#9): 0 3 4 8 10
C7b5b9: 0 1 4 6 10
C7#11: 0 4 6 7 10
C7b13: 0 4 7 8 10
C7(13): 0 4 7 9 10
C7(9,13): 0 2 4 7 9 10
C7sus: 0 5 7 10
C7sus4: 0 5 7 10
C7(sus4): 0 5 7 10
C 7sus4: 0 5 7 10
Csus7: 0 5 7 10
Csus4(7): 0 5 7 10
C7sus2: 0 2 7 10
Csus9: 0 2 5 7 10
C9sus: 0 2 5 7 10
C9sus4: 0 2 5 7 10
Csus13: 0 2 5 7 9 10
C13sus4: 0 2 5 7 9 10
Cmaj7sus4: 0 5 7 11
Csusmaj7: 0 5 7 11
C9: 0 2 4 7 10
C 9 sus4: 0 2 5 7 10
Cmaj9: 0 2 4 7 11
CM9: 0 2 4 7 11
CΔ9: 0 2 4 7 11
Cm9: 0 2 3 7 10
C-9: 0 2 3 7 10
Cm9b5: 0 2 3 6 10
C9#5: 0 2 4 8 10
C9b5: 0 2 4 6 10
C9#11: 0 2 4 6 7 10
C11: 0 2 4 5 7 10
Cm11: 0 2 3 5 7 10
Cmaj11: 0 2 4 5 7 11
C13: 0 2 4 5 7 9 10
Cmaj13: 0 2 4 7 9 11
Cm13: 0 2 3 5 7 9 10
Cno3: 0 7
C7no5: 0 4 10
C7(omit5): 0 4 10
C7omit3: 0 7 10
cm: 0 3 7
cm7: 0 3 7 10
C/E: 0 4 7 / 4
C / E: 0 4 7 / 4
C/Bb: 0 4 7 10 / 10
C7/Bb: 0 4 7 10 / 10
Cm/G: 0 3 7 / 7
Cm7/F: 0 3 5 7 10 / 5
Cmaj7/E: 0 4 7 11 / 4
Csus7/G: 0 5 7 10 / 7
C/3: 0 4 7 / 4
C6/9/E: 0 2 4 7 9 / 4
"""
ROWS = [line.rsplit(": ", 1) for line in ON_C.strip().splitlines()]
OTHER_ROOTS = {
    "Fis": (6, "maj"), "As": (8, "maj"), "Es": (3, "maj"), "Cis": (1, "maj"), "Des": (1, "maj"),
    "Ges7": (6, "7"), "Asm": (8, "min"), "H": (11, "maj"), "Hdim7": (11, "dim7"), "Hm": (11, "min"),
    "B♭": (10, "maj"), "F♯m": (6, "min"), "Bb": (10, "maj"), "A sharp": (10, "maj"),
    "am": (9, "min"),
    "Asus4": (9, "sus4"), "Esus": (4, "sus4"), "E flat minor": (3, "min"),
    "F# minor 7": (6, "min7"),
}  # fmt: skip


def pitches(label: str) -> tuple[int, set[int], int]:
    """Root, pitch classes above it, and bass above it, by mir_eval, which leaves degrees that are
    left out (`*5`) and the bass to us."""
    root, bitmap, bass = mir_eval.chord.encode(label, reduce_extended_chords=False)
    notes = set(np.flatnonzero(bitmap).tolist())
    extended = label.split(":", 1)[1].partition("(")[2].partition(")")[0]
    for degree in filter(None, extended.split(",")):
        semitones = mir_eval.chord.scale_degree_to_semitone(degree.lstrip("*")) % 12
        notes = notes - {semitones} if degree[0] == "*" else notes | {semitones}
    shorthand = label.split(":", 1)[1].split("(")[0].split("/")[0]
    notes |= {
        mir_eval.chord.scale_degree_to_semitone(one) % 12
        for one in {"9": "9", "maj9": "9", "min9": "9", "11": "9 11", "min11": "9 11",
                    "13": "9 11 13", "min13": "9 11 13", "maj13": "9 13"}.get(shorthand, "").split()
    }  # fmt: skip
    return root, notes, bass


def test_there_are_many_names():
    assert len(ROWS) + len(OTHER_ROOTS) >= 150
    assert len({name for name, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("name", "expected"), ROWS)
def test_a_pop_name_has_its_pitch_classes(name, expected):
    notes, _, bass = expected.partition(" / ")
    label = repair(name, pop_spellings=True)
    root, found, found_bass = pitches(label)
    assert root == 0
    assert found | {found_bass} == {int(note) for note in notes.split()}, label
    assert found_bass == int(bass or 0)


@pytest.mark.parametrize("root", ["Db", "D", "F#", "Bb"])
def test_other_roots_move_all_notes(root):
    number = (NOTES[root[0]] + root.count("#") - root[1:].count("b")) % 12
    for name, _ in ROWS:
        if "/" in name.replace("6/9", "") or name[0] == "c":
            continue
        moved, at_c = repair(root + name[1:], True), repair(name, True)
        assert pitches(moved)[0] == number
        assert pitches(moved)[1:] == pitches(at_c)[1:]


@pytest.mark.parametrize(("name", "expected"), OTHER_ROOTS.items())
def test_german_names_signs_and_words(name, expected):
    root, kind = expected
    found = pitches(repair(name, pop_spellings=True))
    assert found == (root, *pitches(f"C:{kind}")[1:])


@pytest.mark.parametrize(
    "name",
    ["C or G", "C -> G", "C ?", "E7 # check this", "A;min", "A7alt", "h", "c", "do", "Hello", "C7+",
     "C | G", "C, G", "CG", "C (hold)", "Cmaj8", "C/x", "C6/9 or so", "Csus3", "Cfoo7"],
)  # fmt: skip
@pytest.mark.parametrize("pop_spellings", [False, True])
def test_what_is_no_chord_as_a_whole_is_refused(name, pop_spellings):
    with pytest.raises(UserError, match="unreadable chord label"):
        repair(name, pop_spellings)


@pytest.mark.parametrize("name", ["A minor", "D m7", "G dominant 7", "C / E", "Am(7)"])
def test_without_the_flag_the_message_says_how_it_would_be_read(name):
    with pytest.raises(
        UserError,
        match=f"--pop-spellings reads {repair(name, True)}".replace("(", r"\(").replace(")", r"\)"),
    ):
        repair(name)
