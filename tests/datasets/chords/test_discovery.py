"""Folders of every layout, the report of what is in them, and splits that stay as they are."""

import json
import math
import os
import re

import numpy as np
import pytest

from audiotrain.datasets import chords, pairing, tables
from audiotrain.datasets.chords.items import chord_of_name
from audiotrain.datasets.synthesis.midi import midi_seconds
from audiotrain.features import audio
from audiotrain.features.audio import AUDIO_SUFFIXES, FORMATS
from audiotrain.music.chord_classes import CHORD_TYPES, IGNORE, encode
from audiotrain.music.segments import Segment

LAB = "0 1 C:maj\n1 2 G:7/3\n"
MIDI = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"


def grow(folder, *names, **contents):
    """Make files: recordings are empty (discover does not open them), label files hold LAB."""
    for name in names:
        name, _, text = name.partition("=")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        labelled = path.suffix in (".lab", ".txt")
        path.write_text(text or (LAB if labelled else ""), "utf-8")
    return folder


def tone(path, seconds=1.0, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    audio.write(path, 0.1 * np.sin(2 * np.pi * 440 * times).astype(np.float32), rate)


def pairs(corpus):
    """Label file by item id, both as names in the folder."""
    return {i.id: i.annotation.relative_to(corpus.folder).as_posix() for i in corpus.items}


def kinds(corpus):
    return [problem.kind for problem in corpus.problems]


# ---- layouts: recordings and label files


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # same folder and stem, any depth, any suffix
        (["x.wav", "x.lab"], {"x.wav": "x.lab"}),
        (["x.MP3", "x.txt"], {"x.MP3": "x.txt"}),
        (["x.flac", "x.csv=start,end,chord\n0,1,C\n"], {"x.flac": "x.csv"}),
        (["a/b/x.ogg", "a/b/x.lab", "a/c/x.m4a", "a/c/x.lab"],
         {"a/b/x.ogg": "a/b/x.lab", "a/c/x.m4a": "a/c/x.lab"}),
        (["01. Song.mp3", "01. Song.lab"], {"01. Song.mp3": "01. Song.lab"}),
        (["x.mid", "x.lab"], {"x.mid": "x.lab"}),
        # separate trees
        (["audio/x.wav", "annotations/x.lab"], {"audio/x.wav": "annotations/x.lab"}),
        (["audio/1/01.wav", "audio/2/01.wav", "lab/1/01.lab", "lab/2/01.lab"],
         {"audio/1/01.wav": "lab/1/01.lab", "audio/2/01.wav": "lab/2/01.lab"}),
        (["queen/audio/x.wav", "queen/chords/x.lab", "abba/audio/x.wav", "abba/chords/x.lab"],
         {"queen/audio/x.wav": "queen/chords/x.lab", "abba/audio/x.wav": "abba/chords/x.lab"}),
        (["music/deep/er/x.wav", "lab/x.lab"], {"music/deep/er/x.wav": "lab/x.lab"}),
        (["music/x.wav", "music/deep/er/y.wav", "lab/x.lab", "lab/y.lab"],
         {"music/x.wav": "lab/x.lab", "music/deep/er/y.wav": "lab/y.lab"}),
        # names with additions
        (["mic/x_mic.wav", "ann/x.lab"], {"mic/x_mic.wav": "ann/x.lab"}),
        (["x.wav", "x_chords.txt"], {"x.wav": "x_chords.txt"}),
        (["x.wav", "x.wav.lab"], {"x.wav": "x.wav.lab"}),
        # a folder a song
        (["0004/audio.flac", "0004/salami_chords.txt=# metre: 4/4\n0\t| C:maj |\n1\tend\n"],
         {"0004/audio.flac": "0004/salami_chords.txt"}),
        (["1/1.mid", "1/chord_midi.txt", "1/chord_audio.txt", "1/beat_midi.txt=0.1 1 1\n"],
         {"1/1.mid": "1/chord_midi.txt"}),
        # several kinds of annotation
        (["audio/x.wav", "chordlab/x.lab", "beatlab/x.lab=0.1 1\n0.5 2\n",
          "seglab/x.lab=0 1 verse\n1 2 chorus\n"], {"audio/x.wav": "chordlab/x.lab"}),
        (["audio/x.wav", "chordlab/x.lab", "keylab/x.lab=0 2 E\n"],
         {"audio/x.wav": "chordlab/x.lab"}),
        (["x.wav", "x.mid", "x.lab"], {"x.wav": "x.lab"}),
        (["flac/x.flac", "mp3/x.mp3", "lab/x.lab"],
         {"flac/x.flac": "lab/x.lab", "mp3/x.mp3": "lab/x.lab"}),
        # the same words
        (["The Band/01 Song.wav", "The_Band/01_-_Song.lab"],
         {"The Band/01 Song.wav": "The_Band/01_-_Song.lab"}),
        (["audio/The Band/01 Song.wav", "lab/The_Band/01_-_Song.lab", "audio/x.wav", "lab/x.lab"],
         {"audio/The Band/01 Song.wav": "lab/The_Band/01_-_Song.lab", "audio/x.wav": "lab/x.lab"}),
        (["audio/The Band/01 Song.wav", "lab/01_song.lab"],
         {"audio/The Band/01 Song.wav": "lab/01_song.lab"}),
        (["x.wav", "x.lab", "readme.txt=Hello", "x/notes.txt=1 2 3\n4 5 6\n"], {"x.wav": "x.lab"}),
    ],
)  # fmt: skip
def test_label_files_find_their_recordings(tmp_path, files, expected):
    corpus = chords.discover(grow(tmp_path, *files))
    assert pairs(corpus) == expected
    assert all(item.audio == corpus.folder / item.id for item in corpus.items)


@pytest.mark.parametrize(
    ("files", "unpaired"),
    [
        # the labels of one album are not those of another
        (["d/1.wav", "d/1.lab", "d/2.wav", "e/2.lab", "e/3.wav", "e/3.lab"], "d/2.wav"),
        (["a/x.wav", "b/x.wav", "lab/x.lab", "o.wav", "o.lab"], "a/x.wav"),
        (["x.wav", "y.lab", "o.wav", "o.lab"], "x.wav"),
        (["x_2.wav", "x.lab", "o.wav", "o.lab"], "x_2.wav"),
        # words of two
        (["a b.wav", "a_b.lab", "a-b.lab", "o.wav", "o.lab"], "a b.wav"),
        (["a b.wav", "a-b.wav", "a_b.lab", "o.wav", "o.lab"], "a b.wav"),
        (["C#.wav", "C.lab", "o.wav", "o.lab"], "C#.wav"),
        (["!!.wav", "__.lab", "o.wav", "o.lab"], "!!.wav"),
        # names that say nothing beyond their folder
        ([*(f"audio/{n}.wav" for n in ("dog/1", "dog/2", "dog/3", "cat/1", "cat/2")),
          *(f"text/{n}.lab" for n in ("dog/1", "dog/2", "cat/1", "cat/2", "cat/3"))],
         "audio/dog/3.wav"),
        (["a/x.wav", "a/b/x.wav", "lab/b/x.lab", "lab/q/x.lab"], "a/x.wav"),
        (["audio/x.wav", "one/x.lab", "two/x.lab", "audio/o.wav", "one/o.lab"], "audio/x.wav"),
    ],
)  # fmt: skip
def test_doubtful_pairs_are_not_made(tmp_path, files, unpaired):
    corpus = chords.discover(grow(tmp_path, *files))
    assert unpaired not in pairs(corpus)
    assert any(unpaired in problem.text for problem in corpus.problems)


def test_what_is_left_over_is_told_by_kind(tmp_path):
    grow(
        tmp_path,
        "x.wav",
        "x.lab",
        "x.mp3",
        "x.txt",
        "alone.wav",
        "alone2.mid",
        "other.lab",
        "y.wav",
        "y.lab=0 1 verse\n1 2 chorus\n",
        "z.wav",
        "z.lab=\n",
        "w.opus",
        "w.rm",
    )
    corpus = chords.discover(tmp_path)
    assert pairs(corpus) == {"x.wav": "x.lab"}
    told = {(p.kind, p.text.split(":")[0]) for p in corpus.problems}
    assert told == {
        ("same recording in two formats", "x.mp3"),
        ("second label files, not used", "x.txt"),
        ("audio without labels", "alone.wav"),
        ("audio without labels", "y.wav"),
        ("audio without labels", "z.wav"),
        ("audio without labels", "w.opus"),
        (f"audio in a format not read ({FORMATS} are)", "w.rm"),
        ("MIDI without labels", "alone2.mid"),
        ("labels without audio", "other.lab"),
        ("label files that can't be used", "y.lab"),
        ("label files that can't be used", "z.lab"),
    }
    assert "y.lab:1: unreadable chord label 'verse'" in str(corpus.problems)


def test_a_label_file_may_say_that_nothing_is_known(tmp_path):
    corpus = chords.discover(grow(tmp_path, "x.wav", "x.lab=0 1 X\n1 2 X\n", "y.wav", "y.lab"))
    assert pairs(corpus) == {"x.wav": "x.lab", "y.wav": "y.lab"}
    assert chords.load(corpus.items[0]).segments == [Segment(0, 1, "X"), Segment(1, 2, "X")]
    assert corpus.problems == []


def test_jams_selector_goes_to_the_reader(tmp_path, shared_data):
    folder = shared_data / "guitarset-clip"
    (instructed,), (performed,) = (chords.discover(folder, selector=s).items for s in (None, 1))
    assert chords.load(instructed).segments[2].label == "D#:maj"
    assert chords.load(performed).segments[2].label == "D#:maj7"
    with pytest.raises(ValueError, match=r"found 1 audio.*found 2 chord annotations, expected one"):
        chords.discover(folder, selector=7)


def test_links_are_followed_once_and_hidden_files_left_out(tmp_path):
    grow(tmp_path / "data", "x.wav", "x.lab", ".cache/y.wav", "__MACOSX/z.wav", "._x.wav")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "data").symlink_to(tmp_path / "data")
    assert [item.id for item in chords.discover(tmp_path / "links").items] == ["data/x.wav"]
    assert chords.discover(tmp_path / "links").problems == []


# ---- layouts: tables


def test_manifest_with_spans_splits_and_groups(tmp_path):
    grow(
        tmp_path,
        "songs/a.wav",
        "songs/b.wav",
        "labels/a.lab",
        "list.csv=audio,label,start,end,split,group,key\n"
        "songs/a.wav,labels/a.lab,0.5,1.5,training,g1,C\n"
        "songs/b.wav,C#m,,,Test,g2,D\n",
    )
    corpus = chords.discover(tmp_path)
    first, second = corpus.items
    assert (first.id, first.start, first.end) == ("songs/a.wav@0.5-1.5", 0.5, 1.5)
    assert (first.split, first.group, first.columns) == ("train", "g1", {"key": "C"})
    assert chords.segments(first) == [Segment(0, 0.5, "C:maj"), Segment(0.5, 1, "G:7/3")]
    assert (second.clip_label, second.split, second.start, second.end) == (
        "C#:min",
        "test",
        0,
        None,
    )
    assert chords.segments(second, 2.0) == [Segment(0, 2.0, "C#:min")]
    assert corpus.problems == []
    assert chords.discover(tmp_path / "list.csv").items == corpus.items


def test_manifest_as_json_lines(tmp_path):
    lines = [{"audio": "a.wav", "label": "C:maj7"}, {"audio": "b.wav", "label": "N", "end": 2}]
    text = "\n".join(map(json.dumps, lines))
    corpus = chords.discover(grow(tmp_path, "a.wav", "b.wav", f"list.jsonl={text}\n[]\n{{"))
    assert [(i.id, i.clip_label) for i in corpus.items] == [("a.wav", "C:maj7"), ("b.wav@0-2", "N")]
    assert ["list.jsonl:3:" in corpus.problems[0].text, "list.jsonl:4:" in corpus.problems[1].text]


def test_spans_of_one_recording_become_one_song(tmp_path):
    table = "file,start,end,chord\nx.wav,1,2.5,G\nx.wav,0,1,C\nx.wav,2,3,Am\ny.wav,0,1,E\n"
    corpus = chords.discover(grow(tmp_path, "x.wav", "y.wav", f"chords.csv={table}"))
    song, clip = corpus.items
    assert song.id == "x.wav"
    assert chords.segments(song) == [
        Segment(0, 1, "C:maj"),
        Segment(1, 2, "G:maj"),
        Segment(2, 3, "A:min"),
    ]
    assert (clip.id, clip.clip_label, clip.end) == ("y.wav@0-1", "E:maj", 1.0)


@pytest.mark.parametrize(
    "table",
    [
        "file,chord,start\nx.wav,C,0\nx.wav,Am,3\nx.wav,G,1\n",
        "file,chord,onset,duration\nx.wav,C,0,1\nx.wav,G,1,2\nx.wav,Am,3,\n",
        "file,chord,start,end\nx.wav,C,0,1\nx.wav,G,1,\nx.wav,Am,3,\n",
        "file,chord,start,group\nx.wav,C,0,a\nx.wav,G,1,a\nx.wav,Am,3,a\n",
    ],
)
def test_an_open_end_is_the_next_onset(tmp_path, table):
    corpus = chords.discover(grow(tmp_path, "x.wav", f"chords.csv={table}"))
    (song,) = corpus.items
    assert (song.id, song.start, song.end) == ("x.wav", 0.0, None)
    assert chords.segments(song, 8.0) == [
        Segment(0, 1, "C:maj"),
        Segment(1, 3, "G:maj"),
        Segment(3, 8.0, "A:min"),
    ]
    assert corpus.problems == []


def test_a_duration_alone_is_that_of_the_file(tmp_path):
    table = "file,chord,duration\nx.wav,C,4.2\n"
    (item,) = chords.discover(grow(tmp_path, "x.wav", f"chords.csv={table}")).items
    assert (item.id, item.end, item.columns) == ("x.wav", None, {"duration": "4.2"})


@pytest.mark.parametrize(
    ("table", "segments", "told"),
    [
        (
            "start,end\nx.wav,C,0,5\nx.wav,G,2,8\n",
            [(0, 2, "C:maj"), (2, 8, "G:maj")],
            "chords.csv:3: overlaps chords.csv:2, which is cut",
        ),
        (
            "start,end\nx.wav,C,0,5\nx.wav,G,2,\n",
            [(0, 2, "C:maj"), (2, 8, "G:maj")],
            "chords.csv:3: overlaps chords.csv:2, which is cut",
        ),
        (
            "start,end\nx.wav,C,0,\nx.wav,G,0,\nx.wav,F,1,\n",
            [(0, 1, "G:maj"), (1, 8, "F:maj")],
            "chords.csv:3: overlaps chords.csv:2, which is cut",
        ),
        (
            "start,end\nx.wav,C,,\nx.wav,G,0,2\nx.wav,F,2,4\n",
            [(0, 2, "G:maj"), (2, 4, "F:maj")],
            "chords.csv:2: found no start, expected one as in chords.csv:3",
        ),
        (
            "start,duration\nx.wav,C,0,2\nx.wav,D,2,long\nx.wav,F,2,3\n",
            [(0, 2, "C:maj"), (2, 5, "F:maj")],
            "chords.csv:3: found duration 'long', expected seconds",
        ),
    ],
)
def test_times_of_a_table_that_do_not_fit_are_told(tmp_path, table, segments, told):
    corpus = chords.discover(grow(tmp_path, "x.wav", f"chords.csv=file,chord,{table}"))
    (song,) = corpus.items
    assert chords.segments(song, 8.0) == [Segment(*segment) for segment in segments]
    assert [problem.text for problem in corpus.problems] == [told]


@pytest.mark.parametrize("named", ["x.wav", "sub/x.wav", "x", "sub\\x.wav", "../data/sub/x.wav"])
def test_tables_name_files_in_many_ways(tmp_path, named):
    grow(tmp_path / "data", "sub/x.wav", f"meta/labels.csv=file,chord\n{named},C\n")
    (item,) = chords.discover(tmp_path / "data").items
    assert item.audio.samefile(tmp_path / "data" / "sub" / "x.wav")


def test_lines_of_a_table_that_cannot_be_used_are_told(tmp_path):
    table = (
        "file,chord,start,end,split\nx.wav,C,,,\ngone.wav,C,,,\nx.wav,Hello,,,\nx.wav,C,2,1,\n"
        "x.wav,C,soon,,\n,C,,,\nx.wav,C,,,\ny.wav,gone.lab,,,\ny.wav,F,,,fold1\n"
    )
    corpus = chords.discover(grow(tmp_path, "x.wav", "y.wav", f"labels.csv={table}"))
    assert [item.id for item in corpus.items] == ["x.wav", "y.wav"]
    lines = {
        number: problem.kind
        for problem in corpus.problems
        for number in re.findall(r"labels\.csv:(\d+)", problem.text)
    }
    assert lines == {
        "3": "labels without audio",
        "4": "unreadable labels",
        "5": "lines of a table not used",
        "6": "lines of a table not used",
        "7": "lines of a table not used",
        "9": "labels without a file",
        "10": "unknown splits, taken as none",
    }
    assert "listed twice" in kinds(corpus)


def test_a_table_of_other_labels_gives_way_to_label_files(tmp_path):
    table = "file,label\nx.wav,verse\ny.wav,A\nz.wav,chorus\n"
    grow(tmp_path, "x.wav", "y.wav", "z.wav", "x.lab", "y.lab", f"parts.csv={table}")
    corpus = chords.discover(tmp_path)
    assert pairs(corpus) == {"x.wav": "x.lab", "y.wav": "y.lab"}
    assert [tuple(problem) for problem in corpus.problems] == [
        (
            "tables not used, but the label files beside their audio",
            "parts.csv:2: found 'verse', expected a chord",
        ),
        ("audio without labels", "z.wav"),
    ]


@pytest.mark.parametrize("column", ["label", "chord"])
def test_label_files_that_a_table_replaces_are_told(tmp_path, column):
    table = f"file,{column}\nx.wav,A\ny.wav,B\n"
    grow(tmp_path, "x.wav", "y.wav", "x.lab", "y.txt=no chords\n", f"grades.csv={table}")
    corpus = chords.discover(tmp_path)
    assert [item.clip_label for item in corpus.items] == ["A:maj", "B:maj"]
    told = ("label files that a table replaces", "x.lab: grades.csv is used")
    assert tuple(corpus.problems[0]) == told


def test_group_column_by_name(tmp_path):
    grow(tmp_path, "x.wav", "labels.csv=file,chord,guitar\nx.wav,C,3\n")
    assert chords.discover(tmp_path, group="guitar").items[0].group == "3"
    with pytest.raises(ValueError, match=r"labels\.csv:1: found no column 'room' to group by"):
        chords.discover(tmp_path, group="room")


# ---- layouts: names alone


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("C#major", "C#:maj"), ("am", "A:min"), ("B7", "B:7"), ("Silence", "N"), ("N", "N"),
        ("Bb_minor", "Bb:min"), ("A-minor", "A:min"), ("F#m7", "F#:min7"), ("Eb", "Eb:maj"),
        ("G_sharp_dim", "G#:dim"), ("C:maj7", "C:maj7"), ("Dsus4", "D:sus4"), ("Hm", "B:min"),
        ("drums", None), ("audio", None), ("data", None), ("X", None), ("Beatles", None),
    ],
)  # fmt: skip
def test_chords_of_names(name, label):
    assert chord_of_name(name) == label


def test_one_folder_a_chord(tmp_path):
    names = [
        "C#major/1.wav",
        "am/1.wav",
        "B7/guitar/1.wav",
        "Silence/1.wav",
        "N/2.wav",
        "odd/3.wav",
    ]
    corpus = chords.discover(grow(tmp_path, *names))
    found = {item.id: item.clip_label for item in corpus.items}
    assert found == dict(zip(sorted(names[:-1]), ["B:7", "C#:maj", "N", "N", "A:min"], strict=True))
    assert corpus.problems == [chords.Problem("audio without labels", "odd/3.wav")]


def test_folders_called_like_chords_mean_nothing_beside_label_files(tmp_path):
    corpus = chords.discover(grow(tmp_path, "A/abba/x.wav", "A/abba/x.lab", "B/beatles/y.wav"))
    assert pairs(corpus) == {"A/abba/x.wav": "A/abba/x.lab"}


def test_split_folders_count_only_together(tmp_path):
    grow(tmp_path / "one", "train/Am/1.wav", "Test/Am/1.wav", "val/C/2.wav")
    splits = {item.id: item.split for item in chords.discover(tmp_path / "one").items}
    assert splits == {"train/Am/1.wav": "train", "Test/Am/1.wav": "test", "val/C/2.wav": "valid"}
    grow(tmp_path / "two", "train/x.wav", "train/x.lab", "abba/y.wav", "abba/y.lab")
    assert {item.split for item in chords.discover(tmp_path / "two").items} == {None}


def test_label_files_alone_are_songs_to_synthesise(tmp_path):
    song = "salami_chords.txt=# metre: 4/4\n0\t| C:maj |\n1\tend\n"
    grow(tmp_path, f"0003/{song}", f"0004/{song}", "0005/full.lab", "0005/majmin.lab", "abba/x.lab")
    corpus = chords.discover(tmp_path)
    assert {item.group: item.id for item in corpus.items} == {
        "0003": "0003/salami_chords.txt",
        "0004": "0004/salami_chords.txt",
        "0005": "0005/full.lab",
        "abba/x": "abba/x.lab",
    }
    assert all(item.audio is None and not item.midi for item in corpus.items)


# ---- the real folders


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "items", "hours"),
    [
        ("pop909", 728, (48, 52)),
        ("billboard", 606, (35, 45)),
        ("guitar-chords", 500, (0.2, 0.4)),
        ("piano-chords", 246, (0.1, 0.2)),
        ("guitarset-clip", 1, (0.006, 0.0063)),
    ],
)
def test_real_folders_are_found_whole(shared_data, folder, items, hours):
    corpus = chords.check(chords.discover(shared_data / folder))
    survey = chords.survey(corpus)
    assert len(corpus.items) == survey.items == survey.groups == items
    several = ["files of several chord annotations, the first one used"]
    assert [p.kind for p in survey.problems] == (several if folder == "guitarset-clip" else [])
    assert hours[0] < survey.seconds / 3600 < hours[1]
    labelled = survey.types.sum() + survey.unknown + survey.unlabelled
    assert labelled == pytest.approx(survey.seconds, rel=1e-3)
    assert survey.types.sum() > 0.99 * survey.seconds
    assert survey.types.sum() - survey.types[0] == pytest.approx(survey.roots.sum())
    assert survey.midi == (728 if folder == "pop909" else 0)
    assert survey.labels_only == (606 if folder == "billboard" else 0)
    clips = folder in ("guitar-chords", "piano-chords")
    assert survey.clips == (items if clips else 0)


def test_real_tables_keep_their_columns(shared_data):
    guitar = chords.discover(shared_data / "guitar-chords", group="guitar").items
    assert {item.group for item in guitar} == {"1", "2", "3", "4"}
    assert {item.columns["room"] for item in guitar} == {"anechoic", "noisy"}
    piano = chords.discover(shared_data / "piano-chords").items
    assert {item.split for item in piano} == {"train", "test"}
    assert len({item.clip_label for item in piano}) == 25


@pytest.mark.parametrize("folder", ["esc10", "berklee"])
def test_folders_of_other_audio_are_refused(shared_data, folder):
    with pytest.raises(ValueError, match=rf"{folder}: found \d+ audio, 0 MIDI and 1 label files"):
        chords.discover(shared_data / folder)


# ---- bad input


def test_missing_and_empty_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: no such folder$"):
        chords.discover(tmp_path / "nowhere")
    for files, message in [
        (
            [],
            "found 0 audio, 0 MIDI and 0 label files or tables, but no pair; known layouts: x.wav",
        ),
        (["x.wav", "y.lab"], r"found 1 audio, 0 MIDI and 1 label files.*labels without audio: y"),
        (["x.wav", "y.wav"], "found 2 audio"),
    ]:
        folder = grow(tmp_path / f"{len(files)}{message[:9]}", *files)
        folder.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message) as caught:
            chords.discover(folder)
        assert "\n" not in str(caught.value)


def test_broken_audio_is_left_out_and_told(tmp_path):
    tone(tmp_path / "good.wav", 2.0)
    grow(tmp_path, "empty.wav", "text.flac=hello", "m.mid=x")
    (tmp_path / "n.mid").write_bytes(MIDI)
    grow(tmp_path, "good.lab", "empty.lab", "text.lab", "m.lab", "n.lab")
    corpus = chords.check(chords.discover(tmp_path))
    assert [item.id for item in corpus.items] == ["good.wav", "n.mid"]
    told = sorted((p.kind, p.text.split(":")[0]) for p in corpus.problems)
    assert told == [
        ("MIDI that can't be read", "m.mid"),
        ("audio that can't be read", "empty.wav"),
        ("audio that can't be read", "text.flac"),
    ]


def test_nothing_but_broken_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no audio that can be read, first x\.wav: .*0 bytes"):
        chords.check(chords.discover(grow(tmp_path, "x.wav", "x.lab")))


def test_odd_files_in_the_folder_do_no_harm(tmp_path):
    grow(
        tmp_path, "x.wav", "x.lab", f"huge.csv=file,chord\n{'a' * 200_000}\n", "b.json={", "e.csv="
    )
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "gone.lab").symlink_to(tmp_path / "nowhere.lab")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    corpus = chords.discover(tmp_path)
    assert [item.id for item in corpus.items] == ["x.wav"]
    assert sorted(kinds(corpus)) == [
        "audio without labels",
        "label files that can't be used",
        "labels without audio",
        tables.SHORT_LINES,
        "other files, not used",
        "other files, not used",
        "tables that are no labels, not used",
    ]


# ---- report


@pytest.fixture
def faulty(tmp_path):
    tone(tmp_path / "a.wav", 4.0)
    tone(tmp_path / "b.wav", 2.0)
    grow(
        tmp_path,
        "a.lab=0 2 C:maj\n1.5 3 A:min/b3\n3 3 N\n3 4 Hello\n",
        "b.lab=-1 1 N\n1 9 G:7\n",
        "c.lab",
    )
    return chords.check(chords.discover(tmp_path))


def test_survey_adds_up_times(faulty):
    survey = chords.survey(faulty)
    seconds = {CHORD_TYPES[k]: s for k, s in enumerate(survey.types) if s}
    assert seconds == pytest.approx({"maj": 1.5, "min": 1.5, "N": 1.0, "7": 1.0})
    assert {k: s for k, s in enumerate(survey.roots) if s} == pytest.approx({0: 1.5, 9: 1.5, 7: 1})
    assert (survey.seconds, survey.unknown, survey.unlabelled, survey.inverted) == pytest.approx(
        (6.0, 1.0, 0.0, 1.5)
    )


def test_report_counts_problems_with_file_and_line(faulty):
    text = chords.report(faulty)
    for pattern in (
        r"2 songs: 6\.0 s",
        r"1 overlapping labels.*\n +a\.lab:2: ",
        r"1 unreadable labels.*\n +a\.lab:4: unreadable chord label 'Hello'",
        r"1 labels of no length.*\n +a\.lab:3: ",
        r"1 labels that start before 0 s.*\n +b\.lab:1: ",
        r"1 labels past the end of the audio\n +b\.wav: last label ends at 9\.00 s, the audio at 2",
        r"1 labels without audio\n +c\.lab",
        r"maj +1\.50 +30\.0 %  █+",
    ):
        assert re.search(pattern, text), f"{pattern}\n{text}"
    assert max(map(len, text.splitlines())) < 200


def test_labels_past_the_end_are_told_wherever_they_stand(tmp_path):
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(initial_tempo=90)
    midi.instruments = [pretty_midi.Instrument(0)]
    midi.instruments[0].notes = [pretty_midi.Note(90, 60, 1.0, 4.0)]
    midi.write(str(tmp_path / "m.mid"))
    for name in "abcd":
        tone(tmp_path / f"{name}.wav", 4.0)
    rows = "a,C,0,2\na,G,2,9\nb,C,0,9\nc,C,0,4.4\nd,C,0,2\nd,G,2,\n".replace(",C", ".wav,C")
    rows = rows.replace(",G", ".wav,G")
    grow(tmp_path, f"t.csv=file,chord,start,end\n{rows}", "m.lab=0 6 C\n6 9 G\n")
    told = chords.survey(chords.check(chords.discover(tmp_path))).problems
    assert {problem.kind for problem in told} == {"labels past the end of the audio"}
    assert sorted(problem.text for problem in told) == [
        f"{name}: last label ends at 9.00 s, the audio at 4.00 s"
        for name in ("a.wav", "b.wav@0-9", "m.mid")
    ]


def test_a_midi_file_lasts_until_its_last_note(shared_data):
    import pretty_midi

    paths = sorted((shared_data / "pop909").glob("*.mid"))[::100]
    assert paths
    for path in paths:
        notes = [n for i in pretty_midi.PrettyMIDI(str(path)).instruments for n in i.notes]
        assert midi_seconds(path) == pytest.approx(max(note.end for note in notes))


@pytest.mark.parametrize("end", [0, 3, 13, 20, 30])
def test_a_damaged_midi_file_has_no_length(tmp_path, end):
    whole = MIDI + b"MTrk\x00\x00\x00\x0c\x00\x90\x3c\x50\x60\x80\x3c\x00\x00\xff\x2f\x00"
    (tmp_path / "x.mid").write_bytes(whole)
    assert midi_seconds(tmp_path / "x.mid") == 0.5
    (tmp_path / "x.mid").write_bytes(whole[:end])
    assert midi_seconds(tmp_path / "x.mid") in (None, 0.0)


def test_report_shows_three_examples_of_many(tmp_path):
    grow(tmp_path, "x.mid", "x.lab", *(f"{n}.mid" for n in range(9)))
    text = chords.report(chords.discover(tmp_path))
    assert re.search(r"9 MIDI without labels\n +0\.mid\n +1\.mid\n +2\.mid\n +and 6 more", text)


def test_report_of_names_that_are_no_text_can_be_printed(tmp_path):
    grow(tmp_path, "x.mid", "x.lab", "\udcff.mid")
    chords.report(chords.discover(tmp_path)).encode("utf-8")


# ---- frames


def test_frame_labels_of_a_span_start_at_its_start(tmp_path):
    grow(tmp_path, "x.wav", "x.lab", "list.csv=audio,label,start\nx.wav,x.lab,0.5\n")
    (item,) = chords.discover(tmp_path / "list.csv").items
    classes = chords.frame_labels(item, 10, 0.25)
    assert np.array_equal(classes[:2], [encode("C:maj")] * 2)
    assert np.array_equal(classes[2:6], [encode("G:7/3")] * 4)
    assert (classes[7:] == IGNORE).all()


def test_frame_labels_of_a_clip_fill_it(tmp_path):
    grow(tmp_path, "x.wav", "labels.csv=file,chord\nx.wav,F#:min7\n")
    (item,) = chords.discover(tmp_path).items
    assert math.isinf(item.annotation[0].end)
    assert np.array_equal(chords.frame_labels(item, 5, 0.1), [encode("F#:min7")] * 5)


def test_a_changed_label_file_is_read_again(tmp_path):
    (item,) = chords.discover(grow(tmp_path, "x.wav", "x.lab")).items
    assert len(chords.segments(item)) == 2
    path = tmp_path / "x.lab"
    path.write_text("0 1 N\n")
    os.utime(path, ns=(1, 1))
    assert [s.label for s in chords.segments(item)] == ["N"]


# ---- splits


def corpus_of(*items):
    """A corpus of (id, group, declared split)."""
    made = [chords.Item(name, None, (), group=group, split=split) for name, group, split in items]
    return chords.Corpus(None, made, [])


def songs(numbers, split=None):
    return [(f"{n}.wav", str(n), split) for n in numbers]


def ids(parts):
    return {name: {item.id for item in items} for name, items in parts.items()}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (100, (80, 10, 10))],
)
def test_split_has_the_asked_shares(count, expected):
    parts = chords.split(corpus_of(*songs(range(count))))
    assert tuple(len(parts[name]) for name in chords.SPLITS) == expected


def test_split_depends_on_the_seed_and_not_on_the_order():
    items = songs(range(50))
    assert ids(chords.split(corpus_of(*items))) == ids(chords.split(corpus_of(*items[::-1])))
    assert ids(chords.split(corpus_of(*items))) != ids(chords.split(corpus_of(*items), seed=1))


def test_groups_stay_together():
    corpus = corpus_of(*((f"{n}.wav", f"g{n % 7}", None) for n in range(70)))
    parts = chords.split(corpus)
    groups = [{item.group for item in items} for items in parts.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 7


def test_spans_of_one_recording_stay_together(tmp_path):
    rows = ["a,C,0,2,1", "a,G,2,4,2", "b,x.lab,0,1,2", "b,y.lab,1,2,3", "c,C,0,1,4", "d,C,0,1,5"]
    table = "\n".join(
        ["file,chord,start,end,artist", *(row.replace(",", ".wav,", 1) for row in rows)]
    )
    grow(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav", "x.lab", "y.lab", f"t.csv={table}\n")
    corpus = chords.discover(tmp_path, group="artist")
    assert [item.id for item in corpus.items] == [
        "a.wav",
        "b.wav@0-1",
        "b.wav@1-2",
        "c.wav@0-1",
        "d.wav@0-1",
    ]
    groups = [item.group for item in corpus.items]
    assert len(set(groups[:3])) == 1
    assert len(set(groups)) == 3
    assert [(p.kind, p.text) for p in corpus.problems] == [
        ("recordings in several groups, which are taken as one", text)
        for text in ("a.wav@0-2 in 1, a.wav@2-4 in 2", "b.wav@0-1 in 2, b.wav@1-2 in 3")
    ]


def test_declared_splits_stay_and_valid_is_taken_from_train():
    corpus = corpus_of(*songs(range(90), "train"), *songs(range(90, 120), "test"))
    parts = ids(chords.split(corpus))
    assert parts["test"] == {f"{n}.wav" for n in range(90, 120)}
    assert len(parts["valid"]) == 10
    whole = corpus_of(*songs(range(9), "train"), *songs([9], "valid"), *songs(range(10, 30)))
    parts = ids(chords.split(whole))
    assert "9.wav" in parts["valid"]
    assert len(parts["valid"]) == 1
    assert len(parts["test"]) == 2


def test_a_test_part_is_taken_from_train_where_the_data_name_all_others(tmp_path):
    named = [*songs(range(80), "train"), *songs(range(80, 90), "valid")]
    parts = ids(chords.split(corpus_of(*named), path=tmp_path / "split.json"))
    assert [len(parts[name]) for name in chords.SPLITS] == [71, 10, 9]
    assert parts["valid"] == {f"{n}.wav" for n in range(80, 90)}
    more = corpus_of(*named, *songs(range(90, 95)))  # these have no split
    again = ids(chords.split(more, path=tmp_path / "split.json"))
    assert all(parts[name] <= again[name] for name in chords.SPLITS)
    parts = ids(chords.split(corpus_of(*songs(range(100), "train"))))
    assert [len(parts[name]) for name in chords.SPLITS] == [80, 10, 10]


def test_saved_split_keeps_its_places(tmp_path):
    path = tmp_path / "split.json"
    before = ids(chords.split(corpus_of(*songs(range(40))), path=path))
    after = ids(chords.split(corpus_of(*songs(range(10, 300))), path=path))
    for name in chords.SPLITS:
        kept = {i for i in before[name] if int(i.removesuffix(".wav")) >= 10}
        assert kept <= after[name]
    assert 15 < len(after["test"]) < 50
    again = ids(chords.split(corpus_of(*songs(range(300))), path=path))
    for name in chords.SPLITS:
        assert before[name] | after[name] == again[name]
    assert json.loads(path.read_text())["items"]["train"]


def test_saved_split_is_not_rewritten_without_need(tmp_path):
    path = tmp_path / "split.json"
    chords.split(corpus_of(*songs(range(9))), path=path)
    path.chmod(0o444)
    changed = path.stat().st_mtime_ns
    chords.split(corpus_of(*songs(range(9))), path=path)
    assert path.stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"split\.json: not a saved split"),
        ("{}", r"split\.json: not a saved split: KeyError\('groups'\)"),
        (
            '{"groups": {"0": "tset"}, "seed": 0, "fractions": [0.8, 0.1, 0.1]}',
            "found split 'tset'",
        ),
        ('{"groups": {}, "seed": 3, "fractions": [0.8, 0.1, 0.1]}', "found a split of seed 3 and"),
    ],
)
def test_saved_split_of_other_settings_is_refused(tmp_path, text, message):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        chords.split(corpus_of(*songs(range(3))), path=path)


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.9, 0.2, 0.1), (1.1, -0.1, 0.0)])
def test_fractions_that_do_not_add_up_are_refused(fractions):
    with pytest.raises(ValueError, match=r"split fractions: found .*, expected three"):
        chords.split(corpus_of(*songs(range(3))), fractions=fractions)


def test_pairing_is_quick_on_many_files():
    songs = [f"audio/{n // 100}/{n}.mp3" for n in range(5000)]
    labels = [f"chords/{n // 100}/{n}.lab" for n in range(5000)]
    pairs = pairing.pair(songs, labels)
    assert len(pairs.labels) == 5000
    assert pairs.labels["audio/7/777.mp3"] == "chords/7/777.lab"


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_suffix_that_is_read_is_found(tmp_path, suffix):
    grow(tmp_path, f"song{suffix}", "song.lab")
    assert pairs(chords.discover(tmp_path)) == {f"song{suffix}": "song.lab"}
