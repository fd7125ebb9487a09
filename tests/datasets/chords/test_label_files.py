# ruff: noqa: E501
"""Label files as people bring them: other programs' formats, times of other units, whole labels."""

import json
import math

import numpy as np
import pytest

from audiotrain.datasets.chords import corpus, readers
from audiotrain.datasets.chords.items import Item, segments
from audiotrain.features import audio
from audiotrain.music.segments import Segment
from audiotrain.utils.errors import UserError

INF = math.inf
# What each file of shared/data/cases/labels says: its segments with pop spellings.
WANTED = {
    "StartTime.csv": [(0, 2, "C:maj"), (2, 4, "A:min")],
    "audacity_comma.txt": [(0, 2.5, "C:maj"), (2.5, 4.75, "A:min"), (4.75, 7, "F:maj")],
    "audacity_point.txt": [(0.5, 2.5, "C:maj"), (2.5, 4.75, "A:min"), (4.75, INF, "F:maj")],
    "chordino_space.txt": [
        (0, 0.046439909, "N"), (0.046439909, 2.3, "C:maj"), (2.3, 4.5, "F:min"), (4.5, 6, "C:aug"),
        (6, 8, "C:7"), (8, 10, "C#:maj6"), (10, INF, "N"),
    ],
    "comma_semicolon.csv": [(0, 2.5, "C:maj"), (2.5, 4.75, "A:min")],
    "rwc.csv": [(0.04, 1.5, "N"), (1.5, 3.1, "C:maj"), (3.1, 5, "A:min7"), (5, 7.2, "F:maj/3"),
                (7.2, INF, "N")],
    "spaces_b.csv": [(0, 2, "A:min"), (2, 4, "D:min7"), (4, 6, "C:maj/3")],
    "spaces_c.jams": [(0, 2, "A:min"), (2, 4, "E:min7")],
    "spaces_e.csv": [(0, 2, "C:7(#9)"), (2, 4, "A:7")],
    "sv_region.txt": [
        (0.232199546, 57.260408163, "C:maj"), (57.260408163, 112.198820861, "A:min"),
        (112.198820861, 167.601632654, "F:maj"),
    ],
}  # fmt: skip
LABELS = {
    "spaces_a.txt": "A:min C:maj F#:min7 G:7 B:dim D:min7 E:min Bb:maj7 C:aug F:maj7 A:min7 E:7(#9) "
    "C:maj(9) G:sus4 D:sus4(b7) C:maj/3 A:min7 B:hdim7 X X X X A:min7 G:sus4(b7) C:maj/3 A:min "
    "E:hdim7",
    "spaces_d.lab": "C:7(#9) G:aug(b7) C:7(#9) X D:hdim7 F:maj6(9) F:maj6 A:7 D:sus4(b7,9)",
    "pop.lab": "C:sus4(b7)/5 F:maj7/5 E:maj/3 E:maj(9) C:min(9,11) D:hdim7 G:7(b13) A:minmaj7 C:maj7 "
    "C:maj7 A:hdim7 F#:hdim7 C:dim7 C:dim(7) X A:7(b9,#9) C:dim C:dim(*b5) Eb:aug E:min(9) Bb:maj/3 "
    "C:maj6(9)/5 B:dim7 C:hdim7 B:maj B:7 X X A:min Bb:min7 C:maj6(9) D:hdim7 F#:hdim7 G:maj7(#11) "
    "C:min7 C:maj7 C:hdim7 C:dim7 C:minmaj7 C:minmaj7 C:sus4(b7) C:sus4(b7) C:sus4(b7,9) C:maj(9) C:5 "
    "C:7(#9) C:aug(b7) C:aug(b7) C:aug(b7) C:dim F#:maj Ab:maj Eb:maj Bb:maj C:maj(9) C:sus4(9) C:13 "
    "C:7/b7 A:min/6 D:maj/3 N",
}
OTHER_UNITS = {"ms.lab": "milliseconds", "samples.lab": "samples at 22050 Hz"}


@pytest.fixture
def cases(shared_data):
    return shared_data / "cases" / "labels"


def about(found, expected) -> bool:
    same = [s.label for s in found] == [e[2] for e in expected]
    return same and np.allclose(
        [s[:2] for s in found], [e[:2] for e in expected], atol=1e-6, rtol=0
    )


def test_every_case_has_a_wanted_reading(cases):
    assert {path.name for path in cases.iterdir()} == {*WANTED, *LABELS, *OTHER_UNITS}


@pytest.mark.parametrize("name", WANTED)
def test_a_file_of_another_program_is_read(cases, name):
    found, problems = readers.read(cases / name, pop_spellings=True)
    assert about(found, WANTED[name]), found
    assert problems == []


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_read_whole_or_named(cases, name):
    found, problems = readers.read(cases / name, pop_spellings=True)
    assert [segment.label for segment in found] == LABELS[name].split()
    unknown = [number for number, one in enumerate(LABELS[name].split(), 1) if one == "X"]
    lines = [
        int(text.split(f"{name}:")[1].split(":")[0]) for text in problems if "unreadable" in text
    ]
    assert lines == unknown


@pytest.mark.parametrize("name", [*WANTED, *LABELS])
def test_without_pop_spellings_no_label_is_another_chord(cases, name):
    """It is the same, or unreadable with its line."""
    plain, problems = readers.read(cases / name)
    assert len(plain) == len(readers.read(cases / name, pop_spellings=True).segments)
    for one, other in zip(
        plain, readers.read(cases / name, pop_spellings=True).segments, strict=True
    ):
        assert one.label in (other.label, "X")
    unreadable = sum("unreadable" in text for text in problems)
    assert unreadable == sum(segment.label == "X" for segment in plain)


def recording(path, seconds=4.0):
    audio.write(path, np.full(round(seconds * 8000), 0.01, np.float32), 8000)
    return path


@pytest.mark.parametrize(("name", "unit"), OTHER_UNITS.items())
def test_times_of_another_unit_are_refused(cases, tmp_path, name, unit):
    (tmp_path / name).write_bytes((cases / name).read_bytes())
    sound = recording(tmp_path / name.replace(".lab", ".wav"), {"ms.lab": 6.0}.get(name, 4.0))
    item = Item(sound.name, sound, tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: last label ends at .* are these {unit}\\?"):
        segments(item, audio.info(sound).seconds)
    from audiotrain.datasets.items import Corpus

    found = corpus.survey(Corpus(tmp_path, [item], []))
    assert any(unit in problem.text for problem in found.problems)
    assert found.types.sum() == 0


def test_units_of_htk_are_named(tmp_path):
    (tmp_path / "x.lab").write_text("0 20000000 C:maj\n20000000 40000000 G:maj\n")
    item = Item("x.wav", recording(tmp_path / "x.wav"), tmp_path / "x.lab")
    with pytest.raises(UserError, match="are these units of 100 ns, as in HTK"):
        segments(item, 4.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "start_ms,end_ms,chord\n0,2000,C:maj\n2000,4000,A:min\n"),
        ("x.csv", "Start (ms);End (ms);Label\n0;2000;C:maj\n2000;4000;A:min\n"),
        ("x.csv", "Onset Time [s],Duration,Chords\n0,2,C:maj\n2,2,A:min\n"),
        (
            "x.csv",
            '"/home/me/x.wav",0.0,2.0,"C:maj"\n,2.0,2.0,"A:min"\n'.replace(",2.0,2.0", ",2.0,4.0"),
        ),
        ("x.tsv", "t0\tt1\tchord\n0\t2\tC:maj\n2\t4\tA:min\n"),
        ("x.txt", "start\tend\tchord\n0\t2\tC:maj\n2\t4\tA:min\n"),
        ("x.txt", "0,0\t2,0\tC:maj\n2,0\t4,0\tA:min\n"),
        ("x.lab", "0;2;C:maj;0.9\n2;4;A:min;0.8\n"),
        ("x.txt", "0\t1\t2\tC:maj\n2\t1\t2\tA:min\n"),
        ("x.txt", "0 2 0.9 C:maj\n2 4 0.8 A:min\n"),
    ],
)
def test_columns_and_units(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found, problems = readers.read(tmp_path / name)
    assert about(found, [(0, 2, "C:maj"), (2, 4, "A:min")]), found
    assert problems == []


@pytest.mark.parametrize(
    "text",
    [
        '"/home/me/x.wav",0.0,"C:maj"\n"/home/me/x.wav",2.0,"A:min"\n',
        '"/home/me/x.wav",0.0,"C:maj"\n,2.0,"A:min"\n',
        "t;chord\n0;C:maj\n2,0;A:min\n",
        "TIME,LABEL\n0.0,C:maj\n2.0,A:min\n",
    ],
)
def test_instants_last_to_the_next_one(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    found, problems = readers.read(tmp_path / "x.csv")
    assert about(found, [(0, 2, "C:maj"), (2, INF, "A:min")]), found
    assert problems == []
    item = Item("x.wav", tmp_path / "x.wav", tmp_path / "x.csv")
    assert segments(item, 5.0)[-1] == Segment(2.0, 5.0, "A:min")


def test_places_in_bars_are_no_times(tmp_path):
    (tmp_path / "x.csv").write_text("bar,beat,chord\n1,1,C:maj\n2,1,A:min\n")
    with pytest.raises(
        UserError, match=r"x\.csv:1: found columns bar, beat, chord, places in bars"
    ):
        readers.read(tmp_path / "x.csv")


def test_a_label_goes_on_after_one_inside_it(tmp_path):
    (tmp_path / "x.lab").write_text("0 10 C:maj\n2 3 G:7\n5 6 F:maj\n10 12 A:min\n")
    found, problems = readers.read(tmp_path / "x.lab")
    assert about(
        found,
        [(0, 2, "C:maj"), (2, 3, "G:7"), (3, 5, "C:maj"), (5, 6, "F:maj"), (6, 10, "C:maj"),
         (10, 12, "A:min")],
    )  # fmt: skip
    assert len(problems) == 2
    assert all("goes on after it" in text for text in problems)


def test_several_annotations_are_named_and_one_is_chosen(tmp_path):
    def chords(label, who):
        data = [{"time": 0, "duration": 2, "value": label, "confidence": 1}]
        return {
            "namespace": "chord",
            "data": data,
            "annotation_metadata": {"annotator": {"name": who}},
        }

    content = {"annotations": [chords("C:maj", "Ann"), chords("A:min", "Bo")]}
    (tmp_path / "x.jams").write_text(json.dumps(content))
    found, problems = readers.read(tmp_path / "x.jams")
    assert found[0].label == "C:maj"
    assert "x.jams:1: found 2 chord annotations (0: ann; 1: bo), used the first" in problems[0]
    assert readers.read(tmp_path / "x.jams", "bo") == ([Segment(0.0, 2.0, "A:min")], [])


def test_broken_lines_of_a_csv_cost_no_other_line(tmp_path):
    text = (
        'start,end,chord\n0,1,C:maj\n1,2,G:maj, extra\n2,3,"A:min\n3,4,F:maj\n4,5,"D:maj(9,11)"\n'
    )
    (tmp_path / "x.csv").write_text(text)
    found, problems = readers.read(tmp_path / "x.csv")
    assert [segment.label for segment in found] == ["C:maj", "F:maj", "D:maj(9,11)"]
    assert sum(f"x.csv:{line}:" in text for line in (3, 4) for text in problems) == 2
