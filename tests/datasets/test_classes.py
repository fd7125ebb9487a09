"""Labelled clips: every layout that is read, what is wrong with them, what they sound like."""

import json

import numpy as np
import pytest
import tiny_clips
from tiny_clips import class_folders, table, tone

from audiotrain.datasets import classes
from audiotrain.datasets.classes import discover


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder `audio` of six clips, without labels."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        tone(folder / "audio" / f"{number}.wav", 200, seed=number)
    return folder


@pytest.fixture
def place(clips, tmp_path):
    (tmp_path / "audio").symlink_to(clips / "audio")
    return tmp_path


def test_a_folder_a_class(tmp_path):
    found = discover(class_folders(tmp_path, 2)).items
    assert [(clip.id, clip.labels) for clip in found][:3] == [
        ("high/high-0.wav", ("high",)),
        ("high/high-1.wav", ("high",)),
        ("low/low-0.wav", ("low",)),
    ]
    assert classes.classes_of(found) == ("high", "low", "middle_one")
    assert len({clip.group for clip in found}) == 6


def test_the_layout_of_esc50(place):
    """meta/esc50.csv: the class is `category`, not the number `target`; folds are kept."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    lines += [f"{n}.wav,{n % 5 + 1},{n},kind_{n % 2},False,{n // 2},A" for n in range(6)]
    table(place / "meta", [lines], "esc50.csv").write_text("\n".join(lines))
    found = discover(place)
    assert [clip.labels for clip in found.items][:2] == [("kind_0",), ("kind_1",)]
    assert [clip.columns["fold"] for clip in found.items] == ["1", "2", "3", "4", "5", "1"]
    assert [clip.group for clip in found.items] == ["0", "0", "1", "1", "2", "2"]
    told = classes.report(found)
    assert "folds of the data: 1 2, 2 1, 3 1, 4 1, 5 1" in told
    assert "2 classes" in told
    assert "no problems found" in told


def test_the_layout_of_fsdkaggle(place):
    """Tables of train and test by their names, several classes in quotes, no made-up answers."""
    (place / "train_curated.csv").write_text('fname,labels\n0.wav,"Bark,Run"\n1.wav,Bark\n')
    (place / "test_post_competition.csv").write_text(
        "fname,label,usage\n2.wav,Run,Private\n3.wav,None,Ignored\n"
    )
    (place / "sample_submission.csv").write_text("fname,label\n4.wav,Bark Run\n")
    found = discover(place)
    assert [(clip.labels, clip.split) for clip in found.items] == [
        (("Bark", "Run"), "train"),
        (("Bark",), "train"),
        (("Run",), "test"),
    ]
    kinds = [problem.kind for problem in found.problems]
    assert kinds.count("clips that the data say to ignore") == 1
    assert kinds.count("audio without labels") == 3
    assert "1 clip of several" in classes.report(found)


def test_one_table_of_train_splits_nothing(place):
    (place / "train.csv").write_text("fname,label\n0.wav,a\n1.wav,b\n")
    assert {clip.split for clip in discover(place).items} == {None}


def test_json_lines_and_tsv(place):
    rows = [{"path": "audio/0.wav", "labels": ["a", "b, c"]}, {"path": "1", "labels": "a|b"}]
    (place / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = discover(place / "list.jsonl").items
    assert [clip.labels for clip in found] == [("a", "b, c"), ("a", "b")]
    (place / "list.tsv").write_text(
        "file\tlabel\tstart\tend\n0.wav\ta, b\t0.1\t0.2\n1.wav\tc\t\t\n"
    )
    first = discover(place / "list.tsv").items[0]
    assert (first.labels, first.start, first.end) == (("a, b",), 0.1, 0.2)


def test_what_is_wrong_is_told_with_its_line(place):
    table(
        place,
        [
            ["file", "label", "split"],
            ["0.wav", "a", "train"],
            ["gone.wav", "b", ""],
            ["1.wav", "", ""],
            ["2.wav", "b", "dev2"],
            ["0.wav", "b", ""],
        ],
    )
    found = discover(place)
    assert [clip.labels for clip in found.items] == [("a",), ("b",)]
    told = classes.report(found)
    for text in (
        "meta.csv:3: found no file 'gone.wav'",
        "meta.csv:4",
        "meta.csv:5: found 'dev2'",
        "meta.csv:6: audio/0.wav is a before, b now",
    ):
        assert text in told, text


def test_spans_of_one_recording_stay_together(place):
    table(
        place,
        [
            ["file", "label", "start", "end", "group"],
            ["0.wav", "a", "0", "0.1", "x"],
            ["0.wav", "b", "0.1", "0.2", "y"],
            ["1.wav", "b", "", "", "y"],
        ],
    )
    found = classes.check(discover(place))
    assert len({clip.group for clip in found.items}) == 1
    assert "0.wav@0-0.1 in x, audio/0.wav@0.1-0.2 in y" in classes.report(found)


def test_refusals(place, clips):
    with pytest.raises(ValueError, match="gone: no such folder"):
        discover(place / "gone")
    with pytest.raises(ValueError, match="found 6 audio files and 0 tables of labels, but no"):
        discover(clips)
    table(place, [["file", "size"], ["0.wav", "3"]], "other.csv")
    with pytest.raises(ValueError, match="found columns file, size, expected one of labels"):
        discover(place / "other.csv")
    table(place, [["file", "label"], ["gone.wav", "a"]])
    with pytest.raises(ValueError, match=r"but no pair \(labels without audio: meta.csv:2"):
        discover(place)
    with pytest.raises(ValueError, match="found no column 'who' to group by"):
        discover(place, "who")


def test_synthesised_clips_sound_as_their_class_and_the_same_again():
    first, again = (classes.synthesised(5, seed=1).items for _ in range(2))
    other = classes.synthesised(5, seed=2).items
    for a, b, c in zip(first, again, other, strict=True):
        assert a == b
        assert a.labels == c.labels
        np.testing.assert_array_equal(a.read(8000), b.read(8000))
        assert a.audio != c.audio
        assert a.seconds <= 4.0
    assert tiny_clips.RATE == 8000
