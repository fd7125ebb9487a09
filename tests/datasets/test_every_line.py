"""Every line of a table and every file of a messy folder is used, or listed as not used."""

import io
import re
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest
import soundfile
from tiny_clips import tone

from audiotrain.datasets import captions, classes
from audiotrain.datasets.captions import discovery as caption_discovery
from audiotrain.datasets.chords import discovery as chord_discovery
from audiotrain.datasets.tables import SHORT_LINES, UNUSED_LINES, records

DISCOVER = {
    "chords": chord_discovery.discover,
    "clap": captions.discover,
    "classify": classes.discover,
}
GOOD = {"chords": "C:maj", "clap": "a dog barks", "classify": "dog"}
COLUMN = {"chords": "chord", "clap": "caption", "classify": "label"}


def sounds(folder: Path, *names: str) -> None:
    for name in names:
        tone(folder / name, 200 + 10 * len(name))


def mentioned(corpus) -> str:
    return "\n".join(f"{problem.kind}: {problem.text}" for problem in corpus.problems)


@pytest.mark.parametrize("recipe", DISCOVER)
@pytest.mark.parametrize(
    ("end", "encoding", "delimiter"),
    [
        ("\n", "latin-1", ","),
        ("\r\n", "utf-8-sig", ";"),
        ("\r", "utf-8", "\t"),
        ("\n", "utf-16", ","),
    ],
)
def test_each_line_of_a_table_is_used_or_listed(tmp_path, recipe, end, delimiter, encoding):
    good = GOOD[recipe]
    rows = {
        f"a.wav,{good},x": True,
        f'b.wav,"{good},x': False,
        f"c.wav,{good},x": True,
        f"d.wav,{good},x,y": False,
        f'e.wav,"{good}",é': True,
        f"f.wav,{good}": True,
        f"nowhere.wav,{good},x": False,
        "g.wav,,x": False,
        f",{good},x": False,
        "": None,
        f'h.wav,{good},x"': False,
        f"i\0.wav,{good},x": False,
        f'j.wav,"{good}"z,x': False,
        f"k.wav,{good},,": True,
        f'l.wav,"{good}","open to the end': False,
    }
    lines = [f"file,{COLUMN[recipe]},note", *rows]
    text = end.join(lines).replace(",", delimiter)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    sounds(tmp_path, *(f"{letter}.wav" for letter in "abcdefghijkl"))
    found = DISCOVER[recipe](tmp_path)
    used = {item.id for item in found.items}
    for number, (row, is_used) in enumerate(rows.items(), 2):
        listed = re.search(rf"^(.*): t\.csv:{number}(?:: |$)", mentioned(found), re.M)
        if is_used:
            assert row.split(",")[0] in used
            assert listed is None or listed[1] == SHORT_LINES
        elif is_used is False:
            assert row.split(",")[0] not in used
            assert listed is not None, f"line {number} is not listed: {row}"
    named = re.findall(r"audio without \w+: (\w\.wav)", mentioned(found))
    assert len(used) + len(named) == 12
    alone = DISCOVER[recipe](tmp_path / "t.csv")
    assert [item.id for item in alone.items] == [item.id for item in found.items]
    assert {p for p in found.problems if p.kind == UNUSED_LINES} <= set(alone.problems)


@pytest.mark.parametrize(
    ("name", "recipe", "used", "unused"),
    [
        ("captions", "clap", "c0 c1 c2 c3 c4 c6 c7 c8", [8, 12]),
        ("classes", "classify", "0002 0003 0005", [2, 3, 6]),
        ("chords", "chords", "a0", [3, 4]),
    ],
)
def test_the_tables_of_the_cases(tmp_path, shared_data, name, recipe, used, unused):
    shutil.copy(shared_data / "cases" / "tables" / f"{name}.csv", tmp_path / "t.csv")
    rows = [next(iter(cells.values())) for _, cells in records(tmp_path / "t.csv", [])]
    sounds(tmp_path, *rows, *"c5.wav c9.wav 0000.wav 0001.wav 0004.wav a1.wav a2.wav".split())
    if recipe == "classify":
        (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text() + "0006.wav,dog\n")
        sounds(tmp_path, "0006.wav")
        used += " 0006"
    found = DISCOVER[recipe](tmp_path / "t.csv")
    assert " ".join(Path(item.id).stem for item in found.items) == used
    lines = [p.text for p in found.problems if p.kind == UNUSED_LINES]
    assert [int(line.split(":")[1]) for line in lines] == unused


def test_columns_of_one_name_and_a_table_without_header(tmp_path):
    sounds(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("file,label,Label\na.wav,dog,cat\nb.wav,cat,dog\n")
    found = classes.discover(tmp_path)
    assert [clip.labels for clip in found.items] == [("dog",), ("cat",)]
    assert "t.csv:1: Label is there again, the second one read as Label_2" in mentioned(found)
    (tmp_path / "u.csv").write_text("a.wav,dog\nb.wav,cat\n")
    for discover in (classes.discover, captions.discover, chord_discovery.discover):
        try:
            text = mentioned(discover(tmp_path))
        except ValueError as error:  # labels that are no chords
            text = str(error)
            continue
        assert "u.csv: found columns a.wav, dog" in text


def test_cells_of_json_lines_that_are_no_text(tmp_path):
    sounds(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    rows = [
        '{"audio": "a.wav", "label": ["dog", null, "cat"]}',
        '{"audio": {"path": "b.wav"}, "label": "dog"}',
        '{"audio": "c.wav", "label": {"name": "dog"}}',
        '{"audio": "d.wav", "label": NaN}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    found = classes.discover(tmp_path)
    assert [clip.labels for clip in found.items] == [("dog", "cat")]
    for number, word in ((2, "audio"), (3, "label"), (4, "a label")):
        assert re.search(rf"t\.jsonl:{number}.*", mentioned(found)), word


# ---- names


@pytest.mark.parametrize("recipe", DISCOVER)
@pytest.mark.parametrize(
    "name",
    [
        "audio\\one\\x.wav",
        "C:\\music\\data\\audio\\one\\x.wav",
        "/elsewhere/audio/one/x.wav",
        "../audio/one/x.wav",
        "one/x.wav",
    ],
)
def test_a_recording_is_found_by_the_longest_end_of_its_path(tmp_path, recipe, name):
    sounds(tmp_path, "audio/one/x.wav", "audio/two/x.wav", "audio/y.wav")
    (tmp_path / "meta").mkdir()
    text = f"file,{COLUMN[recipe]}\n{name},{GOOD[recipe]}\ny.wav,{GOOD[recipe]}\n"
    (tmp_path / "meta/t.csv").write_text(text)
    found = DISCOVER[recipe](tmp_path)
    assert [item.id for item in found.items] == ["audio/one/x.wav", "audio/y.wav"]


def test_a_name_is_not_taken_for_the_file_of_another_row(tmp_path):
    sounds(tmp_path, "cat/1.wav", "cat/2.wav")
    (tmp_path / "t.csv").write_text("file,label\ndog/1.wav,dog\ncat/1.wav,cat\ncat/2.wav,cat\n")
    found = classes.discover(tmp_path)
    assert [(clip.id, clip.labels) for clip in found.items] == [
        ("cat/1.wav", ("cat",)),
        ("cat/2.wav", ("cat",)),
    ]
    assert "t.csv:2: found no file 'dog/1.wav'; cat/1.wav is another row's, too" in mentioned(found)


@pytest.mark.parametrize("form", ["labels\\x.lab", "D:\\old\\labels\\x.lab", "/old/labels/x.lab"])
@pytest.mark.parametrize("alone", [False, True])
def test_label_paths_are_found_as_recordings_are(tmp_path, form, alone):
    sounds(tmp_path, "audio/song.wav")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/x.lab").write_text("0 0.5 C:maj\n")
    (tmp_path / "t.csv").write_text(f"file,label\nsong.wav,{form}\n")
    found = chord_discovery.discover(tmp_path / "t.csv" if alone else tmp_path)
    assert [(item.id, item.annotation) for item in found.items] == [
        ("audio/song.wav", tmp_path / "labels/x.lab")
    ]
    assert found.problems == []


@pytest.mark.parametrize("recipe", DISCOVER)
def test_names_in_two_forms_of_unicode_are_one(tmp_path, recipe):
    composed = unicodedata.normalize("NFC", "Café")
    parts = unicodedata.normalize("NFD", "Café")
    sounds(tmp_path, f"{parts}.wav", "Other.wav", "Third.wav")
    rows = [f"{name}.wav,{GOOD[recipe]}" for name in (composed, "Other", "Third")]
    (tmp_path / "t.csv").write_text("\n".join([f"file,{COLUMN[recipe]}", *rows]))
    (tmp_path / "train.txt").write_text(f"{composed}\nOther\n")
    (tmp_path / "test.txt").write_text("Third\n")
    found = DISCOVER[recipe](tmp_path)
    assert [(item.id, item.split) for item in found.items] == [
        (f"{composed}.wav", "train"),
        ("Other.wav", "train"),
        ("Third.wav", "test"),
    ]


# ---- lists of names


@pytest.mark.parametrize("recipe", DISCOVER)
@pytest.mark.parametrize("valid", ["valid.txt", "val.txt", "lists/validation_list.txt", "dev.lst"])
def test_lists_of_names_split_a_folder(tmp_path, recipe, valid):
    names = [f"audio/{n}.wav" for n in range(6)]
    sounds(tmp_path, *names)
    text = "\n".join([f"file,{COLUMN[recipe]}", *(f"{name},{GOOD[recipe]}" for name in names)])
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "train.txt").write_text("audio/0.wav\n1\naudio\\2\n9.wav\n")
    (tmp_path / valid).parent.mkdir(exist_ok=True)
    (tmp_path / valid).write_text("\n# held out\n/old/audio/3.wav\n1.wav\n")
    (tmp_path / "test.txt").write_text("4.wav")
    for data in (tmp_path, tmp_path / "t.csv"):
        found = DISCOVER[recipe](data)
        splits = [item.split for item in found.items]
        assert splits[:1] + splits[2:] == ["train", "train", "valid", "test"]
        assert splits[1] in ("train", "valid")  # in both: the first list is used
        assert found.notes[0].startswith("split by ")
        assert valid in found.notes[0]
        text = mentioned(found)
        assert "train.txt:4: found no recording '9.wav'" in text
        assert re.search(r"[\w./]+:\d: '1(.wav)?' is in the list of \w+ already", text)
        assert "not used: audio/5.wav" in text


def test_a_caption_called_train_is_no_list(tmp_path):
    sounds(tmp_path, "train.wav", "rain.wav")
    (tmp_path / "train.txt").write_text("rain\n")
    (tmp_path / "rain.txt").write_text("rain on a roof\n")
    found = captions.discover(tmp_path)
    assert [clip.captions for clip in found.items] == [("rain on a roof",), ("rain",)]
    assert found.notes == ()


# ---- AudioCaps


@pytest.mark.parametrize(
    "form",
    [
        *("{id}", "Y{id}", "{id}_{s}", "{id}_{s}_{e}", "{id}-{s}-{e}", "{id}_{ms}_{me}", "{n}"),
        "Y{id}_{s}.000_{e}.000",
    ],
)
def test_audiocaps_as_the_tools_download_it(tmp_path, form):
    rows = [("1000", "yt00_-Ab", 0), ("1001", "yt00_-Ab", 0), ("1010", "-t01_-Ab", 30)]
    (tmp_path / "audiocaps.csv").write_text(
        "audiocap_id,youtube_id,start_time,caption\r\n"
        + "".join(f'{n},{id},{s},"hum {n}, low"\r\n' for n, id, s in rows)
    )
    names = {
        form.format(id=id, s=s, e=s + 10, ms=1000 * s, me=1000 * (s + 10), n=n) for n, id, s in rows
    }
    sounds(tmp_path, *(f"{name}.wav" for name in names))
    if form == "{id}-{s}-{e}":
        with pytest.raises(ValueError, match="audiocaps.csv:2: found no file 'yt00_-Ab'"):
            captions.discover(tmp_path)
        return
    found = captions.discover(tmp_path)
    assert {clip.id.removesuffix(".wav") for clip in found.items} == names
    assert sorted(caption for clip in found.items for caption in clip.captions) == [
        f"hum {n}, low" for n, _, _ in rows
    ]
    assert all(clip.end is None and not clip.start for clip in found.items)
    assert {clip.group for clip in found.items} == {id for _, id, _ in rows}
    assert found.problems == []


def test_a_whole_video_gives_the_seconds_of_its_clip(tmp_path):
    tone(tmp_path / "yta.wav", 200, seconds=50)
    tone(tmp_path / "ytb.wav", 200, seconds=10)
    tone(tmp_path / "ytc.wav", 200, seconds=10)
    rows = ["1,yta,30,a hum", "2,ytb,30,a beep", "3,ytc,0,a", "4,ytc,60,b"]
    (tmp_path / "t.csv").write_text("\n".join(["audiocap_id,youtube_id,start_time,caption", *rows]))
    found = captions.discover(tmp_path)
    assert [(clip.id, clip.start, clip.end) for clip in found.items] == [
        ("yta.wav@30-40", 30.0, 40.0),
        ("ytb.wav", 0.0, None),
    ]
    assert "t.csv:4: found no file 'ytc'" in mentioned(found)  # one of two clips, not known which


# ---- files


def test_files_that_nothing_uses_are_listed(tmp_path):
    sounds(tmp_path, "dog/a.wav", "cat/b.wav")
    names = "notes.txt sheet.xlsx other.csv x.json chords.lab old.tar sub/list.lst".split()
    (tmp_path / "sub").mkdir()
    for name in [*names, "README.txt", "LICENSE.txt", "cover.jpg"]:
        (tmp_path / name).write_text("words\n")
    text = mentioned(classes.discover(tmp_path))
    assert [name for name in names if name not in text] == []
    assert not re.search("README|LICENSE|cover", text)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def test_each_file_of_a_tar_is_used_or_listed(tmp_path):
    sound = io.BytesIO()
    soundfile.write(sound, [0.1] * 2000, 8000, format="WAV")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key in "abc":
            add(tar, f"{key}.wav", sound.getvalue())
        add(tar, "a.txt", b"rain\n")
        add(tar, "a.json", b'{"caption": "water"}')
        add(tar, "a.flac", b"second")
        add(tar, "a.cls", b"3")
        add(tar, "b.cls", b"4")
        add(tar, "b.txt", b"hail")
        add(tar, "b.json", b'{"caption": 3}')
        add(tar, "c.json", b'{"url": "x"}')
        add(tar, "d.txt", b"alone")
    found = caption_discovery.discover(tmp_path)
    assert [clip.captions for clip in found.items] == [("rain", "water"), ("hail",)]
    assert sorted(problem.text.partition(": ")[0] for problem in found.problems) == sorted(
        ["s.tar/a.flac", "s.tar", "s.tar/b.json", "s.tar/c.json", "s.tar/c", "s.tar/d"]
    )
    assert "s.tar: 2 files .cls" in mentioned(found)


def test_lines_of_one_recording_are_compared(tmp_path):
    sounds(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text(
        "file,caption,label,split\n"
        "a.wav,rain,dog,train\na.wav,rain,dog,train\na.wav,hail,cat,test\nb.wav,,dog,\nb.wav,,cat,\n"
    )
    found = captions.discover(tmp_path)
    assert [clip.captions[:2] for clip in found.items] == [
        ("rain", "hail"),
        ("This is a sound of dog.",),
    ]
    text = mentioned(found)
    for line, words in ((3, "same caption"), (4, "dog before, cat now"), (4, "train before, test")):
        assert re.search(rf"t\.csv:{line}: .*{words}", text)
    assert "t.csv:6: b.wav is dog before, cat now" in text
