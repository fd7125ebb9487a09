"""Labels <-> classes against mir_eval's own reading; the reader of label files on any text."""

import collections
import re

import mir_eval.chord
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiotrain.music import chord_labels
from audiotrain.music.chord_classes import (
    CHORD_TYPES,
    IGNORE,
    PITCH_NAMES,
    ChordClass,
    chord_pitch_classes,
    decode,
    encode,
    encode_labels,
    parse,
    transpose,
)
from audiotrain.music.segments import (
    Segment,
    frames_to_segments,
    parse_lab,
    read_lab,
    segments_to_frames,
    write_lab,
)

# Several processes may share the cores, so no example is too slow.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

CHORDS = [ChordClass(t, r, b) for t in range(1, 32) for r in range(12) for b in range(12)]
NO_CHORD = ChordClass(0, IGNORE, IGNORE)
UNKNOWN = ChordClass(IGNORE, IGNORE, IGNORE)

degrees = st.from_regex(r"(b{0,2}|#{0,2})(1[0-3]|[1-9])", fullmatch=True)
roots = st.from_regex(r"[A-G](b{0,2}|#{0,2})", fullmatch=True)
harte_labels = st.builds(
    lambda root, shorthand, added, bass: (
        f"{root}:{shorthand}"
        + (f"({','.join(added)})" if added or not shorthand else "")
        + (f"/{bass}" if bass else "")
    ),
    roots,
    st.sampled_from([*chord_labels.SHORTHANDS]),
    st.lists(st.tuples(st.sampled_from(["", "*"]), degrees).map("".join), max_size=3, unique=True),
    st.one_of(st.none(), degrees),
)


def bitmap(notes) -> list[int]:
    return [int(note in notes) for note in range(12)]


# ---- labels


def test_every_triple_survives_its_label_and_mir_eval_reads_it():
    assert len(CHORDS) == 12 * 31 * 12
    for chord in [*CHORDS, NO_CHORD, UNKNOWN]:
        label = decode(chord)
        assert encode(label) == chord, label
        mir_eval.chord.validate_chord_label(label)
        mir_eval.chord.encode(label)


@pytest.mark.parametrize("reduce_extended", [False, True])
def test_types_have_the_notes_that_mir_eval_gives_them(reduce_extended):
    for number, name in enumerate(CHORD_TYPES[1:], start=1):
        theirs = mir_eval.chord.encode(f"C:{name}", reduce_extended_chords=reduce_extended)[1]
        ours = chord_pitch_classes(number) if reduce_extended else parse(f"C:{name}").tetrad
        assert bitmap(ours) == theirs.tolist(), name
    assert chord_pitch_classes(0) == ()
    assert len({chord_pitch_classes(number) for number in range(32)}) == 32


@given(harte_labels)
def test_any_label_has_the_notes_that_mir_eval_gives_it(label):
    chord = parse(label)
    numbers = re.findall(r"\d+", label.partition("(")[2].partition(")")[0])
    assume(len(set(numbers)) == len(numbers) and "*" not in label)  # mir_eval sums +1 and -1
    root, notes, bass = mir_eval.chord.encode(label)
    assert (chord.root, (chord.bass - chord.root) % 12) == (root, bass)
    assert bitmap(chord.tetrad | {bass}) == notes.tolist()
    notes = mir_eval.chord.encode(label, reduce_extended_chords=True)[1]
    assert bitmap(chord.notes | {bass}) == notes.tolist()


def test_omitted_degrees_are_removed():
    assert parse("C:maj(*3)").notes == {0, 7}
    assert parse("C:min7(*5,b5)").notes == parse("C:hdim7").notes
    assert parse("C:9(*9)").notes == parse("C:7").notes


@given(harte_labels)
def test_encode_never_fails_on_the_grammar_and_keeps_root_and_bass(label):
    chord = parse(label)
    assert encode(label)[1:] == (chord.root, chord.bass)
    assert 1 <= encode(label).chord_type < 32


@pytest.mark.parametrize(
    ("label", "nearest"),
    [
        ("C:7(#11)", "C:7"),
        ("C:min13", "C:min11"),
        ("C:min7(11)", "C:min11"),
        ("C:maj(#11)", "C:maj"),
        ("C:sus4(9)", "C:sus4"),  # the notes of C:sus2 and a fourth, but mir_eval drops the ninth
        ("C:5(b7)", "C:5"),
        ("C:1(3)", "C:maj"),
        ("C:maj6(b7)", "C:7"),
        ("C:min(b13)/5", "C:min/5"),
    ],
)
def test_notes_outside_the_vocabulary_fall_to_the_nearest_type(label, nearest):
    assert decode(encode(label)) == nearest


def test_bass_rules():
    assert decode((1, 0, 4)) == "C:maj/3"
    assert decode((1, 0, 2)) == "C:maj/2"
    assert decode((1, 0, 2), bass="chord-tone") == "C:maj"
    assert decode((1, 0, 4), bass="chord-tone") == "C:maj/3"
    assert decode((1, 0, 4), bass="off") == "C:maj"
    assert decode((4, 0, 8)) == "C:aug/#5"
    assert decode((0, 3, 4)) == "N"
    assert decode((5, IGNORE, 3)) == "X"
    assert decode((1, 0, IGNORE)) == "C:maj"


def test_transposing_moves_root_and_bass_only():
    classes = np.array([[*encode("B:min7/b3")], NO_CHORD, UNKNOWN], np.int16)
    up = transpose(classes, 3)
    assert [decode(row) for row in up] == ["D:min7/b3", "N", "X"]
    assert up.dtype == classes.dtype
    np.testing.assert_array_equal(transpose(up, -3), classes)
    each = transpose(np.stack([classes, classes]), np.array([[1], [2]]))
    assert [decode(row) for row in each[:, 0]] == ["C:min7/b3", "C#:min7/b3"]


def billboard_tokens(folder) -> collections.Counter:
    """How many bars each chord token fills; the `.` of a bar repeats the token before it."""
    bars = collections.Counter()
    for path in sorted(folder.rglob("salami_chords.txt")):
        for bar in re.findall(r"(?<=\|)[^|\n]+(?=\|)", path.read_text("utf-8")):
            tokens = [token for token in bar.split() if not token.startswith("(")]
            for place, token in enumerate(tokens):
                if token == "." and place:
                    tokens[place] = token = tokens[place - 1]
                bars[token] += 1 / len(tokens)
    bars.pop(".", None)
    return bars


@pytest.mark.parametrize(
    ("comparison", "ceiling"),
    [("majmin", 0.9999), ("tetrads", 0.993), ("triads_inv", 0.997), ("tetrads_inv", 0.993)],
)
def test_vocabulary_ceiling_on_real_songs(shared_data, comparison, ceiling):
    bars = billboard_tokens(shared_data / "billboard")
    assert sum(bars.values()) > 50_000
    reference = [chord_labels.repair(token) for token in bars]
    weights = np.array([*bars.values()])
    estimated = [decode(encode(label)) for label in reference]
    scores = getattr(mir_eval.chord, comparison)(reference, estimated)
    assert mir_eval.chord.weighted_accuracy(scores, weights) > ceiling
    exact = [
        r in "NX" or parse(r).notes == parse(e).notes
        for r, e in zip(reference, estimated, strict=True)
    ]
    assert np.average(exact, weights=weights) > 0.985


# ---- segments and frames


@st.composite
def segment_lists(draw):
    """Segments in order, with gaps, times in whole milliseconds."""
    labels = st.sampled_from(["C:maj", "A:min7/b3", "N", "X", "F#:sus4(b7)"])
    bounds = sorted(draw(st.sets(st.integers(0, 20_000), max_size=16)))
    rows = zip(bounds[:-1:2], bounds[1::2], strict=False)
    return [Segment(start / 1000, end / 1000, draw(labels)) for start, end in rows]


@given(
    st.lists(st.sampled_from([*CHORDS[:40], NO_CHORD, UNKNOWN]), max_size=60),
    st.floats(0.005, 0.5),
    st.floats(0, 0.999),
)
def test_frames_survive_segments(chords, frame_seconds, tail):
    """`tail`: audio after the last frame's centre, in frames; a whole one would be a new frame."""
    classes = np.array(chords, np.int16).reshape(-1, 3)
    duration = max(len(classes) - 1 + tail, 0) * frame_seconds
    assume(duration or not chords)
    segments = frames_to_segments(classes, frame_seconds, duration)
    np.testing.assert_array_equal(
        segments_to_frames(segments, len(classes), frame_seconds), classes
    )
    assert [s.label for s in segments] == [
        label
        for i, label in enumerate(map(decode, chords))
        if not i or label != decode(chords[i - 1])
    ]
    if segments:
        assert (segments[0].start, segments[-1].end) == (0, duration)
        for one, next_one in zip(segments, segments[1:], strict=False):
            assert one.end == next_one.start


@given(segment_lists(), st.integers(0, 120), st.floats(0.01, 0.3))
def test_each_frame_has_the_segment_at_its_centre(segments, frames, frame_seconds):
    classes = segments_to_frames(segments[::-1], frames, frame_seconds)
    assert classes.shape == (frames, 3)
    assert classes.dtype == np.int16
    for frame, row in enumerate(classes):
        centre = frame * frame_seconds
        assume(all(abs(centre - bound) > 1e-8 for s in segments for bound in s[:2] if bound))
        owner = [s.label for s in segments if s.start <= centre < s.end]
        assert tuple(row) == encode(*(owner or ["X"]))


def test_boundaries_do_not_drift_in_ten_minutes():
    """Frames of 2048 samples at 22050 Hz: each boundary within half a frame after 10 minutes."""
    frame_seconds = 2048 / 22050
    segments = [Segment(i * 1.5, i * 1.5 + 1.5, f"{PITCH_NAMES[i % 12]}:maj") for i in range(400)]
    frames = 1 + 600 * 22050 // 2048
    back = frames_to_segments(
        segments_to_frames(segments, frames, frame_seconds), frame_seconds, 600
    )
    assert [segment.label for segment in back] == [segment.label for segment in segments]
    drift = np.array([b.start - s.start for b, s in zip(back, segments, strict=True)])
    assert np.abs(drift).max() <= frame_seconds / 2 + 1e-9


def test_labels_instead_of_classes_and_unreadable_labels():
    assert frames_to_segments(["N", "N", "C:maj"], 1.0, 2.25) == [
        Segment(0.0, 1.5, "N"),
        Segment(1.5, 2.25, "C:maj"),
    ]
    assert frames_to_segments([], 1.0, 0.0) == []
    classes = segments_to_frames([Segment(0, 1, "what"), Segment(1, 2, "Cm7")], 2, 1.0, True)
    assert [decode(row) for row in classes] == ["X", "C:min7"]
    np.testing.assert_array_equal(encode_labels(["what", "N"]), [UNKNOWN, NO_CHORD])


# ---- label files

LINES = st.one_of(
    st.text(max_size=30),
    st.tuples(
        st.floats(-2, 30).map("{:.3f}".format),
        st.floats(-2, 30).map("{:.3f}".format),
        st.one_of(harte_labels, st.text(max_size=8)),
    ).map("\t".join),
)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(LINES, max_size=12).map("\n".join)), st.booleans())
def test_the_reader_takes_any_text(text, pop_spellings):
    segments, problems = parse_lab(text, "song.lab", pop_spellings)
    for problem in problems:
        assert re.match(r"song\.lab:\d+: .", problem)
        assert "\n" not in problem
    end = 0.0
    for segment in segments:
        assert end <= segment.start < segment.end  # infinite after the last instant
        end = segment.end
        mir_eval.chord.encode(segment.label)
    assert segments or problems


@given(st.binary(max_size=200))
def test_the_reader_takes_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.lab"
    path.write_bytes(data)
    read_lab(path)


@given(segment_lists())
def test_written_files_are_read_back(tmp_path_factory, segments):
    path = tmp_path_factory.getbasetemp() / "written.lab"
    write_lab(path, segments)
    read = read_lab(path)
    assert read.segments == segments
    assert not [problem for problem in read.problems if "nothing is labelled" not in problem] or (
        not segments and "no labels found" in read.problems[0]
    )


GOOD = [Segment(0.0, 1.5, "C:maj"), Segment(1.5, 3.0, "A:min/b3")]


@pytest.mark.parametrize(
    "text",
    [
        "0 1.5 C:maj\n1.5 3 A:min/b3",
        "0.0\t1.5\tC\r\n1.5\t3.0\tA:min/b3\r\n",
        "0,1.5,C:maj\r1.5,3,A:min/b3",
        "0;1.5;C:maj\n1.5;3;A:min/b3;0.93",
        "\ufeff# title\n\n0 1.5 C:maj\n# loud\n1.5e0 3 'A:min/b3'",
        'start,end,label\n0,1.5,"C:maj"\n1.5,3,"A:min/b3",0.5',
        "  0.000   1.500 C:maj\tverse\n+1.5 3. A:min/b3",
        "0 1.5004 C:maj\n1.5 3 A:min/b3",
        "0 1.499999 C:maj\n1.5 3 A:min/b3",
    ],
)
def test_harmless_variants_read_alike(text):
    assert parse_lab(text, "song.lab") == (GOOD, [])


@pytest.mark.parametrize(
    ("text", "segments", "problem"),
    [
        ("0 2 C\n1.5 3 A:min/b3", GOOD, ":2: overlaps the label before it"),
        ("1.5 3 A:min/b3\n0 1.5 C", GOOD, ":1: lines are not in the order of time"),
        ("-1 1.5 C\n1.5 3 A:min/b3", GOOD, ":1: starts at -1.000 s"),
        ("0 1.5 C\n1.5 1.5 N\n1.5 3 A:min/b3", GOOD, ":2: ends at 1.500 s"),
        ("0 1.5 C\n1.5 1.2 N\n1.5 3 A:min/b3", GOOD, ":2: ends at 1.200 s"),
        ("0 1.5 C\nverse\n1.5 3 A:min/b3", GOOD, ":2: found 'verse'"),
        ("0 1.5 C\n1.5 3 A:min/b3\n3 nan N", GOOD, ":3: found one time and 'nan N'"),
        ("0 1 C\n1 2 Cm7b5", [Segment(0, 1, "C:maj"), Segment(1, 2, "X")], ":2: unreadable chord"),
        ("2 3 C", [Segment(2, 3, "C:maj")], ":1: nothing is labelled from 0.000 to 2.000 s"),
        ("", [], ":1: no labels found"),
    ],
)
def test_faults_are_mended_and_named(text, segments, problem):
    read = parse_lab(text, "song.lab")
    assert read.segments == segments
    assert any(f"song.lab{problem}" in found for found in read.problems), read.problems


@pytest.mark.parametrize("pop_spellings", [False, True])
@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("0\t2\tC\t4", "C:maj"),
        ("0\t2\tG:min\t7", "G:min"),
        ("0\t2\t'D:maj'\t6\tverse", "D:maj"),
        ("0 2 G:min 7", "G:min7"),
        ("0 2 C 0.5 4", "C:maj"),
        ("0,2,C,4", "C:maj"),
        ("0\t2\tC\tmin", "C:maj"),
        ("0 2 A min7", "A:min7"),
        ("0 2 C:maj (9, 11, 13)", "C:maj(9,11,13)"),
        ("0\t2\tC:sus4( b7, 9 )\t4", "C:sus4(b7,9)"),
    ],
)
def test_a_further_column_is_no_part_of_the_label(line, label, pop_spellings):
    assert parse_lab(line, "a.lab", pop_spellings) == ([Segment(0, 2, label)], [])


def test_pop_spellings_in_a_file():
    assert parse_lab("0 1 Cm7b5\n1 2 A minor", "a.lab", pop_spellings=True) == (
        [Segment(0, 1, "C:hdim7"), Segment(1, 2, "A:min")],
        [],
    )


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [("utf-8-sig", False), ("utf-16", False), ("utf-16-be", True), ("latin-1", True)],
)
def test_encodings(tmp_path, encoding, problem):
    path = tmp_path / "song.lab"
    text = "# Café\n0 1.5 C:maj\n1.5 3 A:min/b3\n"
    if encoding == "utf-16-be":
        text, problem = "\ufeff" + text, False
    path.write_bytes(text.encode(encoding))
    read = read_lab(path)
    assert read.segments == GOOD
    assert [("Latin-1" in found) for found in read.problems] == [True] * problem


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(ValueError, match="missing.lab: can't be read: No such file"):
        read_lab(tmp_path / "missing.lab")
    path = tmp_path / "song.lab"
    write_lab(path, GOOD)
    with pytest.raises(ValueError, match=r"song.lab/song.lab: cannot write: "):
        write_lab(path / "song.lab", GOOD)
    with pytest.raises(ZeroDivisionError):
        write_lab(path, (Segment(0, 1 / (1 - i), "N") for i in range(2)))
    assert read_lab(path).segments == GOOD
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.lab"]


def test_real_label_files(shared_data):
    paths = sorted((shared_data / "pop909").glob("*.lab"))[:100]
    assert paths
    seconds = unknown = 0.0
    for path in paths:
        segments, _ = read_lab(path)
        seconds += sum(s.end - s.start for s in segments)
        unknown += sum(s.end - s.start for s in segments if s.label == "X")
    assert seconds > 100 * 120
    assert unknown == 0
