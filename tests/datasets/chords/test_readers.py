"""Label file formats: closed forms, round trips, mir_eval and the JAMS schema as references."""

import contextlib
import json
import math
import os
import re
from dataclasses import replace

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.datasets.chords import billboard, readers, writers
from audiotrain.datasets.chords.items import Item, segments
from audiotrain.music.beats import Beats
from audiotrain.music.chord_classes import CHORD_TYPES, HEAD_SIZES, decode, encode
from audiotrain.music.chord_names import chord_name, plain
from audiotrain.music.keys import key_name
from audiotrain.music.segments import Segment

ALL_LABELS = ["N"] + [
    decode((chord_type, root, bass))
    for chord_type in range(1, HEAD_SIZES[0])
    for root in (0, 3, 6, 10)
    for bass in range(12)
]
SEGMENTS = [Segment(0.0, 1.5, "N"), Segment(1.5, 2.25, "C:maj/3"), Segment(2.25, 4.0, "F#:hdim7")]


def save(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def about(segments, expected):
    """True when labels are equal and times to 1e-5 s."""
    same = [s.label for s in segments] == [e[2] for e in expected]
    times = [s[:2] for s in segments], [e[:2] for e in expected]
    return same and np.allclose(*times, atol=1e-5, rtol=0)


# ---- reading


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.lab", "0 1.5 N\n1.5 2.25 C:maj/3\n2.25 4 F#:hdim7\n"),
        ("x.lab", "\ufeff0\t1.5\tN\r\n1.5\t2.25\tC:maj/3\r\n2.25\t4\tF#:hdim7\r\n"),
        ("x.txt", "0.0\t1.5\tN\n\\\t100\t200\n1.5\t2.25\tC:maj/3\n2.25\t4.0\tF#:hdim7\n"),
        ("x.csv", "0,1.5,N\n1.5,2.25,C:maj/3\n2.25,4,F#:hdim7\n"),
        ("x.csv", "start,end,label\n0,1.5,N\n1.5,2.25,C:maj/3\n2.25,4,F#:hdim7\n"),
        ("x.csv", "Chord;Start;Duration\nN;0;1.5\nC:maj/3;1.5;.75\nF#:hdim7;2.25;1.75\n"),
        ("x.csv", '# made by hand\n"0","1.5","N"\n1.5,2.25,C:maj/3\n\n2.25,4,F#:hdim7\n'),
        ("x.csv", '0.0,1.5,"N"\n1.5,2.25,"C:maj/3"\n2.25,4.0,"F#:hdim7"\n'),
        ("x.tsv", "time\tend\tvalue\n0\t1.5\tN\n1.5\t2.25\tC:maj/3\n2.25\t4\tF#:hdim7\n"),
        (
            "x.json",
            '{"segments": [{"start": 0, "end": 1.5, "label": "N"}, {"start": 1.5, "end": 2.25, '
            '"label": "C:maj/3"}, {"start": 2.25, "end": 4, "label": "F#:hdim7"}]}',
        ),
    ],
)
def test_every_text_format_gives_the_same_segments(tmp_path, name, text):
    annotation = readers.read(save(tmp_path / name, text))
    assert about(annotation.segments, SEGMENTS)
    assert annotation.problems == []


def test_degrees_with_commas_survive_csv(tmp_path):
    path = save(tmp_path / "x.csv", 'start,end,chord\n0,1,"C:sus4(b7,9)"\n1,2,"D:maj(9,11)"\n')
    assert [s.label for s in readers.read(path).segments] == ["C:sus4(b7,9)", "D:maj(9,11)"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_read(tmp_path, encoding):
    path = save(tmp_path / "x.csv", "start,end,chord\n0,1,C:maj\n1,2,é\n", encoding)
    annotation = readers.read(path)
    assert [s.label for s in annotation.segments] == ["C:maj", "X"]
    assert any("not UTF-8" in p for p in annotation.problems) == (encoding == "latin-1")


def test_problems_name_file_and_line(tmp_path):
    path = save(tmp_path / "x.csv", "start,end,chord\n0,1,C:maj\nsoon,2,D\n2,3,Hello\n3,4\n")
    annotation = readers.read(path)
    assert [s.label for s in annotation.segments] == ["C:maj", "X"]
    told = [(f":{line}: ", text) for line, text in ((3, "soon"), (4, "Hello"), (5, "expected"))]
    assert all(any(a in p and b in p for p in annotation.problems) for a, b in told)


def test_the_last_instant_lasts_to_the_end_of_the_audio(tmp_path):
    path = save(tmp_path / "x.csv", "0.0,C:maj\n1.5,G:maj\n")
    annotation = readers.read(path)
    assert about(annotation.segments, [(0, 1.5, "C:maj"), (1.5, math.inf, "G:maj")])
    assert annotation.problems == []
    assert segments(Item("x", path, path, "x"), 4.0)[-1] == Segment(1.5, 4.0, "G:maj")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.wav", "", r"x\.wav: found suffix '\.wav', expected \.lab"),
        ("x.json", "{", r"x\.json: not JSON"),
        ("x.json", "[1]", r"x\.json: found no 'annotations'"),
        ("x.jams", '{"annotations": []}', r"x\.jams: found no annotation of namespace chord"),
        ("x.csv", "a,b,c\n1,2,C\n", r"x\.csv:1: found columns a, b, c, expected start, end"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        readers.read(save(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.lab: can't be read"):
        readers.read(tmp_path / "gone.lab")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(readers.READ_SUFFIXES))
def test_any_bytes_give_ordered_segments_or_one_line(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    path.write_bytes(data)
    segments = []
    with contextlib.suppress(ValueError):
        segments = readers.read(path).segments
    assert all(0 <= s.start < s.end for s in segments)
    assert all(a.end <= b.start for a, b in zip(segments, segments[1:], strict=False))


# ---- JAMS


def jams(*annotators, dense=False):
    """A JAMS file with a chord annotation by each annotator, of chords C, D, ... for 2 s."""
    chords = []
    for number, name in enumerate(annotators):
        value = "CDEFGAB"[number] + ":maj"
        data = [{"time": 0.5, "duration": 2.0, "value": value, "confidence": None}]
        if dense:
            data = {"time": [0.5], "duration": [2.0], "value": [value], "confidence": [None]}
        about = {"annotator": {"name": name}, "curator": {"name": "", "email": ""}}
        chords.append({"namespace": "chord", "annotation_metadata": about, "data": data})
    beats = {"namespace": "beat", "annotation_metadata": {}, "data": []}
    return json.dumps({"annotations": [beats, *chords], "file_metadata": {}, "sandbox": {}})


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("selector", "label"),
    [(None, "C:maj"), (0, "C:maj"), (1, "D:maj"), ("1", "D:maj"), ("bo", "D:maj")],
)
def test_selector_picks_the_annotation(tmp_path, selector, label, dense):
    path = save(tmp_path / "x.jams", jams("Ann", "Bo", dense=dense))
    assert readers.read(path, selector).segments == [Segment(0.5, 2.5, label)]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (2, "found 2 chord annotations, expected one numbered 2"),
        ("Cy", "found no chord annotation by 'Cy', expected 0 to 1 or one of 'ann', 'bo'"),
    ],
)
def test_missing_annotation_is_refused(tmp_path, selector, message):
    path = save(tmp_path / "x.jams", jams("Ann", "Bo"))
    with pytest.raises(ValueError, match=message):
        readers.read(path, selector)


def test_guitarset_has_instructed_and_performed_chords(shared_data):
    path = shared_data / "guitarset-clip" / "00_BN1-129-Eb_comp.jams"
    instructed, performed = readers.read(path), readers.read(path, 1)
    assert [s.label[:2] for s in instructed.segments] == ["D#", "G#", "D#", "A#", "G#", "D#"]
    assert performed.segments[2].label == "D#:maj7"
    assert performed.problems == []
    (told,) = instructed.problems  # which one is read
    assert "found 2 chord annotations (" in told
    assert "used the first; selector names another" in told
    for annotation in (instructed, performed):
        assert annotation.segments[-1].end == pytest.approx(22.3244, abs=1e-4)


# ---- McGill Billboard

SONG = """# title: Test
# artist: Nobody
# metre: 4/4
# tonic: C

0.0	silence
1.0	A, intro, | C:maj | (2/4) G:7 |, (guitar
4.0	B, verse, | C:maj . F:maj . | A:min G:maj | x2, voice)
# metre: 3/4
8.0	| D:min | &pause | * . E:min | ->
11	Z, applause
12.5	end
"""


def test_billboard_times_are_shared_by_metre_and_bars(tmp_path):
    annotation = readers.read(save(tmp_path / "salami_chords.txt", SONG))
    assert annotation.problems == []
    assert about(
        annotation.segments,
        [
            (0, 1, "N"),
            (1, 3, "C:maj"),
            (3, 4, "G:7"),
            (4, 4.5, "C:maj"),
            (4.5, 5, "F:maj"),
            (5, 5.5, "A:min"),
            (5.5, 6, "G:maj"),
            (6, 6.5, "C:maj"),
            (6.5, 7, "F:maj"),
            (7, 7.5, "A:min"),
            (7.5, 8, "G:maj"),
            (8, 9, "D:min"),
            (9, 10 + 2 / 3, "N"),
            (10 + 2 / 3, 11, "E:min"),
            (11, 12.5, "N"),
        ],
    )


def test_billboard_problems_name_the_line():
    text = (
        "# metre: 4/4\n0\t| C:maj | Q:maj |\nchorus\n1\t| D:maj |\n0.5\t| E:maj |\n2\t| F:maj |\n"
    )
    annotation = billboard.parse(text, "s.txt")
    assert [s.label for s in annotation.segments] == ["C:maj", "X", "D:maj"]
    assert [p.split(":")[1] for p in annotation.problems[:3]] == ["2", "3", "5"]
    assert "the last phrase has no end time" in annotation.problems[3]


def test_every_billboard_song_is_read_whole(shared_data):
    paths = sorted((shared_data / "billboard").glob("*/salami_chords.txt"))
    assert len(paths) > 500
    for path in paths:
        segments, problems = readers.read(path)
        end = float(path.read_text().strip().splitlines()[-1].split()[0])
        assert problems == []
        assert segments[0].start == 0.0
        assert segments[-1].end == pytest.approx(end)
        ends, starts = [s.end for s in segments[:-1]], [s.start for s in segments[1:]]
        assert np.allclose(ends, starts, atol=1e-9, rtol=0)


def test_a_metre_in_brackets_counts_for_its_bar_only(shared_data):
    """Phrases with such a bar keep the song's tempo: that is what chooses between the readings."""
    ratios = []
    for path in sorted((shared_data / "billboard").glob("*/salami_chords.txt")):
        text = path.read_text("utf-8")
        phrases, _ = billboard._phrases(text, str(path), False)
        tempo, changed = [], []
        for (start, bars), (end, _) in zip(phrases, phrases[1:], strict=False):
            if bars != [billboard.Bar(1.0, ("N",))]:
                weights = [bar.weight for bar in bars]
                (changed if len(set(weights)) > 1 else tempo).append((end - start) / sum(weights))
        ratios += [seconds / np.median(tempo) for seconds in changed]
    assert len(ratios) > 100
    assert np.median(np.abs(np.log(ratios))) < 0.015


# ---- writing


@pytest.mark.parametrize("suffix", [".lab", ".txt", ".jams", ".csv", ".json"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    segments = [Segment(0.5 * i, 0.5 * i + 0.5, label) for i, label in enumerate(ALL_LABELS)]
    path = tmp_path / f"x{suffix}"
    readers.write(path, segments, np.linspace(0, 1, len(segments)), duration=1000.0)
    annotation = readers.read(path)
    assert annotation.problems == []
    assert [encode(s.label) for s in annotation.segments] == [encode(s.label) for s in segments]
    assert np.allclose([s[:2] for s in annotation.segments], [s[:2] for s in segments], atol=1e-5)
    assert os.listdir(tmp_path) == [path.name]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10_000), st.sampled_from(ALL_LABELS)), max_size=20))
def test_round_trip_of_any_segments(tmp_path_factory, lengths):
    folder, start, segments = tmp_path_factory.mktemp("trip"), 0.0, []
    for milliseconds, label in lengths:
        segments.append(Segment(start, start + milliseconds / 1000, label))
        start = segments[-1].end
    for suffix in (".lab", ".jams", ".csv", ".json"):
        readers.write(folder / f"x{suffix}", segments)
        found = readers.read(folder / f"x{suffix}").segments
        assert [encode(s.label) for s in found] == [encode(s.label) for s in segments]
        assert np.allclose([s[:2] for s in found], [s[:2] for s in segments], atol=1e-5)


# The pattern of values in JAMS 0.3.5, schemata/namespaces/chord/harte.json.
JAMS_VALUE = re.compile(
    r"^((N)|(([A-G][b#]*)((:(maj|min|dim|aug|maj7|min7|7|dim7|hdim7|minmaj7|maj6|min6|9|maj9|min9|"
    r"sus4)(\((\*?([b#]*([1-9]|1[0-3]?))(,\*?([b#]*([1-9]|1[0-3]?)))*)\))?)|"
    r"(:\((\*?([b#]*([1-9]|1[0-3]?))(,\*?([b#]*([1-9]|1[0-3]?)))*)\)))?"
    r"((/([b#]*([1-9]|1[0-3]?)))?)?))$"
)


def test_jams_is_valid_and_keeps_confidences(tmp_path):
    segments = [Segment(float(i), i + 1.0, label) for i, label in enumerate(["X", *ALL_LABELS])]
    scores = np.linspace(0, 1, len(segments))
    path = tmp_path / "song.jams"
    readers.write(path, segments, scores, duration=2000.0, metadata={"artist": "me"})
    content = json.loads(path.read_text())
    (annotation,) = content["annotations"]
    assert set(annotation) >= {"annotation_metadata", "data", "namespace"}
    assert set(annotation["annotation_metadata"]["curator"]) >= {"name", "email"}
    assert annotation["namespace"] == "chord_harte"
    assert content["file_metadata"]["duration"] == annotation["duration"] == 2000.0
    assert (content["file_metadata"]["title"], content["file_metadata"]["artist"]) == ("song", "me")
    assert len(annotation["data"]) == len(ALL_LABELS)  # unknown is a gap
    for row, confidence in zip(annotation["data"], scores[1:], strict=True):
        assert JAMS_VALUE.match(row["value"]), row["value"]
        assert row["confidence"] == pytest.approx(confidence)
        assert row["time"] >= 0
        assert row["duration"] == 1.0


BEATS = Beats([0.4, 1.0, 1.6, 2.2, 2.8, 3.4, 4.0, 4.5], [1.0, 2.8], metre=3)


def test_json_has_beats_and_key(tmp_path):
    readers.write(tmp_path / "x.json", SEGMENTS, beats=BEATS, key=(3, "minor"))
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["beats"] == BEATS.times
    assert content["downbeats"] == BEATS.downbeats
    assert (content["key"], content["metre"], content["tempo"]) == ("Eb:minor", 3, 100.0)
    assert readers.read(tmp_path / "x.json").problems == []
    readers.write(tmp_path / "y.json", SEGMENTS)
    bare = json.loads((tmp_path / "y.json").read_text())
    assert (bare["beats"], bare["key"], bare["metre"], bare["tempo"]) == ([], None, None, None)


# What the schemas of JAMS 0.3.5 allow as value and confidence of a namespace's observations.
JAMS_KEY = re.compile(
    r"N|[A-G][b#]?(:(major|minor|ionian|dorian|phrygian|lydian|mixolydian|aeolian|locrian))?"
)


def test_jams_has_beats_tempo_and_key(tmp_path):
    readers.write(tmp_path / "x.jams", SEGMENTS, duration=5.0, beats=BEATS, key=(6, "minor"))
    content = json.loads((tmp_path / "x.jams").read_text())
    found = {one["namespace"]: one["data"] for one in content["annotations"]}
    assert list(found) == ["chord_harte", "beat", "tempo", "key_mode"]
    assert [row["time"] for row in found["beat"]] == BEATS.times
    assert [row["value"] for row in found["beat"]] == [3, 1, 2, 3, 1, 2, 3, 4]
    (tempo,) = found["tempo"]
    assert (tempo["value"], tempo["duration"]) == (100.0, 5.0)
    assert 0 <= tempo["confidence"] <= 1
    (key,) = found["key_mode"]
    assert key["value"] == "F#:minor"
    for tonic in range(12):
        for mode in ("major", "minor"):
            assert JAMS_KEY.fullmatch(key_name((tonic, mode)))
    annotation = readers.read(tmp_path / "x.jams")
    assert [segment.label for segment in annotation.segments] == [s.label for s in SEGMENTS]


def test_midi_has_the_beats_as_its_tempo_map_and_the_key(tmp_path):
    pretty_midi = pytest.importorskip("pretty_midi")
    for metre in (3, 6):
        readers.write(
            tmp_path / "x.mid", SEGMENTS, beats=replace(BEATS, metre=metre), key=(3, "minor")
        )
        song = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
        beats, bars = song.get_beats(), song.get_downbeats()
        if metre == 3:
            assert beats[1:7] == pytest.approx(BEATS.times[:6], abs=1e-4)  # to the last note
            assert bars[1:3] == pytest.approx(BEATS.downbeats, abs=1e-4)
        signature = song.time_signature_changes[-1]
        assert signature.denominator == {3: 4, 6: 8}[metre]
        (key,) = song.key_signature_changes
        assert pretty_midi.key_number_to_key_name(key.key_number) == "Eb minor"
        starts = [note.start for note in song.instruments[0].notes]
        known = [segment.start for segment in SEGMENTS if segment.label not in "NX"]
        assert sorted(set(starts)) == pytest.approx(known, abs=1e-3)


def test_chordpro_is_a_grid_of_bars(tmp_path):
    segments = [
        Segment(0.0, 0.9, "N"),
        Segment(0.9, 2.3, "Eb:maj/3"),
        Segment(2.3, 2.4, "Ab:min7"),
        Segment(2.4, 2.8, "X"),
        Segment(2.8, 5.0, "Bb:hdim7"),
    ]
    metadata = {"title": "a {b}\nc"}
    readers.write(
        tmp_path / "x.chordpro", segments, metadata=metadata, beats=BEATS, key=(3, "major")
    )
    assert (tmp_path / "x.chordpro").read_text().splitlines() == [
        "{title: a b c}",
        "{key: Eb}",
        "{tempo: 100}",
        "{time: 3/4}",
        "",
        '{start_of_grid: shape="4x3"}',
        "| N.C. | Eb/G . Abm7~N.C. | Bbm7b5 . . | . |.",
        "{end_of_grid}",
    ]
    readers.write(tmp_path / "y.chordpro", SEGMENTS)
    lines = (tmp_path / "y.chordpro").read_text().splitlines()
    assert lines[:3] == ["{title: y}", "", '{start_of_grid: shape="4x4"}']


SONG_TAGS = {"title": "L'été {1} \\ <b>日本</b>", "artist": "A; B & \u266f"}


def test_title_and_artist_are_in_every_format_with_a_place_for_them(tmp_path):
    mido = pytest.importorskip("mido")
    pytest.importorskip("pretty_midi")
    for suffix in ("json", "jams", "mid", "chordpro"):
        readers.write(tmp_path / f"x.{suffix}", SEGMENTS, metadata=SONG_TAGS, beats=BEATS)
    content = json.loads((tmp_path / "x.json").read_text())
    assert {name: content[name] for name in SONG_TAGS} == SONG_TAGS
    content = json.loads((tmp_path / "x.jams").read_text())["file_metadata"]
    assert {name: content[name] for name in SONG_TAGS} == SONG_TAGS
    lines = (tmp_path / "x.chordpro").read_text(encoding="utf-8").splitlines()
    title = SONG_TAGS["title"].replace("{1}", "1")
    assert lines[:2] == [f"{{title: {title}}}", f"{{artist: {SONG_TAGS['artist']}}}"]
    first = mido.MidiFile(tmp_path / "x.mid", charset="utf-8").tracks[0]
    texts = {one.type: vars(one) for one in first if one.type in ("track_name", "text")}
    assert texts["track_name"]["name"] == SONG_TAGS["title"]
    assert texts["text"]["text"] == SONG_TAGS["artist"]


def test_a_midi_file_of_a_song_with_a_title_is_otherwise_the_same(tmp_path):
    pretty_midi = pytest.importorskip("pretty_midi")
    songs = []
    for metadata in ({}, SONG_TAGS):
        readers.write(
            tmp_path / "x.mid", SEGMENTS, beats=BEATS, key=(3, "minor"), metadata=metadata
        )
        songs.append(pretty_midi.PrettyMIDI(str(tmp_path / "x.mid")))
    bare, named = songs
    assert str(bare.instruments[0].notes) == str(named.instruments[0].notes)
    assert str(bare.lyrics) == str(named.lyrics)
    assert bare.get_beats().tolist() == named.get_beats().tolist()
    assert str(bare.key_signature_changes) == str(named.key_signature_changes)


def test_chordpro_grids_have_room_for_irregular_bars(tmp_path):
    times = np.arange(20).astype(float).tolist()
    irregular = Beats(times, [0.0, 5.0, 9.0, 13.0, 17.0])  # of 5, 4, 4, 4 and 3 beats
    readers.write(tmp_path / "x.chordpro", [Segment(0.0, 20.0, "C:maj")], beats=irregular)
    lines = (tmp_path / "x.chordpro").read_text().splitlines()
    first = lines.index('{start_of_grid: shape="4x5"}') + 1
    assert sum(cell in ("C", ".") for cell in lines[first].split()) == 17  # more than 4 x 4


# A cell of a grid: `.`, or chords as ChordPro's documentation spells them, joined by `~`.
CHORDPRO_CHORD = r"N\.C\.|[A-G][b#]?(m|maj|dim|aug|sus|add)*[\d#b()a-z]*(/[A-G][b#]?)?"


def test_chordpro_cells_are_chords_dots_and_bar_lines(tmp_path):
    segments = [Segment(float(n), n + 1.0, label) for n, label in enumerate(ALL_LABELS)]
    times = np.arange(len(segments)).astype(float).tolist()
    readers.write(tmp_path / "x.chordpro", segments, beats=Beats(times, times[::4]))
    lines = (tmp_path / "x.chordpro").read_text().splitlines()
    grid = lines[lines.index('{start_of_grid: shape="4x4"}') + 1 : lines.index("{end_of_grid}")]
    tokens = [token for line in grid for token in line.split()]
    cells = [token for token in tokens if not token.startswith("|")]
    assert {token for token in tokens if token.startswith("|")} == {"|", "|."}
    assert len(cells) == len(segments)
    for cell in cells:
        for name in cell.split("~"):
            assert name == "." or re.fullmatch(CHORDPRO_CHORD, name), name
    assert sum(cell != "." for cell in cells) > 25


def test_jams_library_agrees(tmp_path):
    jams_library = pytest.importorskip("jams", reason="pip install jams to check against it")
    readers.write(tmp_path / "x.jams", SEGMENTS, [0.5, 0.25, 1.0])
    assert jams_library.load(str(tmp_path / "x.jams")).validate(strict=True)


def test_harte_spelling_is_the_same_chord_to_mir_eval():
    for label in ALL_LABELS:
        ours, theirs = mir_eval.chord.encode(label), writers.harte_spelling(label)
        for expected, found in zip(ours, mir_eval.chord.encode(theirs), strict=True):
            assert np.array_equal(expected, found), (label, theirs)


def test_spellings_outside_the_vocabulary_are_written_too():
    assert writers.harte_spelling("C") == "C:maj"
    assert writers.harte_spelling("C:min13/b3") == "C:min9(11,13)/b3"
    assert writers.harte_spelling("C:sus2(b7)") == "C:(1,2,5,b7)"
    with pytest.raises(ValueError, match="Hello"):
        writers.harte_spelling("Hello")


def test_midi_sounds_the_chords_over_their_bass(tmp_path):
    pretty_midi = pytest.importorskip("pretty_midi")
    labels = ["N", "X", *ALL_LABELS[1::5]]
    segments = [Segment(float(i), i + 1.0, label) for i, label in enumerate(labels)]
    readers.write(tmp_path / "x.mid", segments)
    song = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
    notes = song.instruments[0].notes
    assert {round(note.start) for note in notes} == set(range(2, len(labels)))
    for start, label in list(enumerate(labels))[2:]:
        sounding = sorted(n.pitch for n in notes if abs(n.start - start) < 0.01)
        root, bitmap, bass = mir_eval.chord.encode(label)
        assert sounding[0] % 12 == (root + bass) % 12
        triad = {(root + note) % 12 for note in np.flatnonzero(bitmap)}
        assert triad <= {pitch % 12 for pitch in sounding}
    names = [plain(chord_name(encode(label))) for label in labels]
    assert [lyric.text for lyric in song.lyrics] == names


@pytest.mark.parametrize(
    ("spelling", "labels", "names"),
    [
        ("key", ["Eb:min", "B:maj", "Gb:maj/3", "N"], ["Ebm", "B", "Gb/Bb", "N.C."]),
        ("sharps", ["D#:min", "B:maj", "F#:maj/3", "N"], ["D#m", "B", "F#/A#", "N.C."]),
    ],
)
def test_all_formats_spell_alike(tmp_path, spelling, labels, names):
    """In E flat minor: B and not C flat, which programs that read ChordPro may not know."""
    pretty_midi = pytest.importorskip("pretty_midi")
    found = [
        Segment(float(number), number + 1.0, label)
        for number, label in enumerate(["D#:min", "B:maj", "F#:maj/3", "N"])
    ]
    for suffix in (".lab", ".csv", ".json", ".jams"):
        path = tmp_path / f"x{suffix}"
        readers.write(path, found, key=(3, "minor"), spelling=spelling)
        assert [segment.label for segment in readers.read(path).segments] == labels
    readers.write(tmp_path / "x.mid", found, key=(3, "minor"), spelling=spelling)
    song = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
    assert [lyric.text for lyric in song.lyrics] == names
    readers.write(tmp_path / "x.chordpro", found, key=(3, "minor"), spelling=spelling)
    grid = (tmp_path / "x.chordpro").read_text().split("{start_of_grid")[1]
    assert [name for name in names if f" {name} " in grid] == names


@pytest.mark.parametrize(
    ("name", "scores", "message"),
    [
        ("x.mp3", None, r"x\.mp3: found suffix '\.mp3', expected \.lab"),
        ("x.csv", [1.0], "found 1 confidences, expected 3, one a segment"),
        ("x.csv", [1.0, 0.5, math.nan], "found a confidence that is no number"),
    ],
)
def test_bad_writes_are_refused_and_leave_nothing(tmp_path, name, scores, message):
    with pytest.raises(ValueError, match=message):
        readers.write(tmp_path / name, SEGMENTS, scores)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    readers.write(path, SEGMENTS)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"x\.json: cannot write: No space left"):
        readers.write(path, SEGMENTS[:1])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.json"]


def test_labels_cover_all_chord_types():
    assert {encode(label).chord_type for label in ALL_LABELS} == set(range(len(CHORD_TYPES)))
