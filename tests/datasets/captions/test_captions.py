"""Captioned folders of every layout, what is wrong with them, and their split."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotrain.datasets import captions
from audiotrain.datasets.captions import check, composed, discover, report, survey
from audiotrain.datasets.items import Clip
from audiotrain.datasets.splits import join_groups, split
from audiotrain.datasets.summary import ProblemLog
from audiotrain.features import audio

RATE = 8000


def tone(seconds: float = 0.5, hertz: float = 440) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def wav(path: Path, seconds: float = 0.5, hertz: float = 440) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, hertz), RATE)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(corpus) -> dict[str, tuple[str, ...]]:
    return {clip.id: clip.captions for clip in corpus.items}


def kinds(corpus) -> list[str]:
    return [problem.kind for problem in corpus.problems]


# ---- layouts


def test_text_and_json_beside_the_audio(tmp_path):
    for name in "abcdef":
        wav(tmp_path / "deep" / f"{name}.wav")
    write(tmp_path / "deep/a.txt", "Rain falls.\n\n  a roof   in the rain \nRain falls.\n")
    write(tmp_path / "deep/b.json", '{"caption": "a dog"}')
    write(tmp_path / "deep/c.json", '{"captions": ["a bell", "a ringing bell"], "tag": ["x"]}')
    write(tmp_path / "deep/d.json", '{"text": ["wind"]}')
    write(tmp_path / "deep/e.json", '{"Caption": "über den Wolken"}')
    write(tmp_path / "deep/f.txt", "both\n")
    write(tmp_path / "deep/f.json", '{"caption": "not used"}')
    corpus = discover(tmp_path)
    assert found(corpus) == {
        "deep/a.wav": ("Rain falls.", "a roof in the rain"),
        "deep/b.wav": ("a dog",),
        "deep/c.wav": ("a bell", "a ringing bell"),
        "deep/d.wav": ("wind",),
        "deep/e.wav": ("über den Wolken",),
        "deep/f.wav": ("both",),
    }
    assert corpus.problems == [
        ("second caption files, not used", "deep/f.json: deep/f.txt is used")
    ]


def test_captions_in_a_tree_of_their_own(tmp_path):
    wav(tmp_path / "audio/x/1.wav")
    write(tmp_path / "captions/x/1.txt", "a siren")
    assert found(discover(tmp_path)) == {"audio/x/1.wav": ("a siren",)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "metadata.csv",
            'file_name,text\na.wav,rain\na.wav,falling rain\nb.wav,"a dog, barking"\n',
        ),
        ("any.tsv", "path\tcaption\na.wav\train\na.wav\tfalling rain\nb\ta dog, barking\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.wav", "captions": ["rain", "falling rain"]}\n'
            '{"file_name": "b.wav", "captions": ["a dog, barking", null]}\n',
        ),
        (
            "clotho.csv",
            "file_name,caption_1,caption_2,keywords\n"
            'a.wav,rain,falling rain,x\nb.wav,"a dog, barking",,y\n',
        ),
        ("list.csv", "audio;description\na.wav;rain\na.wav;falling rain\nb.wav;a dog, barking\n"),
    ],
)
def test_tables(tmp_path, name, text):
    wav(tmp_path / "a.wav")
    wav(tmp_path / "b.wav", hertz=300)
    write(tmp_path / name, text)
    corpus = discover(tmp_path)
    assert found(corpus) == {"a.wav": ("rain", "falling rain"), "b.wav": ("a dog, barking",)}
    assert corpus.problems == []
    assert found(discover(tmp_path / name)) == found(corpus)


def test_a_table_says_spans_splits_groups_classes_and_more(tmp_path):
    wav(tmp_path / "clips/a.wav", 3)
    write(
        tmp_path / "metadata.csv",
        "file_name,caption,label,start,end,split,group,mood\n"
        "clips/a.wav,one,dog_bark,0,1,train,s1,calm\n"
        "clips/a.wav,two,dog_bark,1,2.5,validation,s2,calm\n"
        "clips/a.wav,three,cat,2.5,,odd,s2,wild\n",
    )
    corpus = discover(tmp_path)
    first, second, third = corpus.items
    assert first.id == "clips/a.wav@0-1"
    assert (first.captions, first.label, first.split) == (("one",), "dog bark", "train")
    assert (second.start, second.end, second.split, second.group) == (1, 2.5, "valid", "s2")
    assert (third.end, third.split, third.columns) == (None, None, {"mood": "wild"})
    assert [clip.seconds for clip in corpus.items] == [1, 1.5, 0.5]
    assert corpus.problems == [
        (
            "unknown splits, taken as none",
            "metadata.csv:4: found 'odd', expected train, valid or test",
        )
    ]
    assert [clip.group for clip in discover(tmp_path, group="mood").items] == [
        "calm",
        "calm",
        "wild",
    ]
    with pytest.raises(ValueError, match="metadata.csv:1: found no column 'artist' to group by"):
        discover(tmp_path, group="artist")


def test_clips_of_one_source_have_one_group(tmp_path):
    for name in "abc":
        wav(tmp_path / f"{name}.wav")
    write(
        tmp_path / "metadata.csv", "file_name,caption,youtube_id\na.wav,x,1\nb.wav,y,1\nc.wav,z,2\n"
    )
    assert [clip.group for clip in discover(tmp_path).items] == ["1", "1", "2"]


def test_wrong_lines_of_tables_are_named(tmp_path):
    wav(tmp_path / "a.wav")
    write(
        tmp_path / "metadata.jsonl",
        '{"file_name": "a.wav", "text": "good"}\n{"file_name": "a.wav"}\nnot json\n'
        '{"file_name": "a.wav", "text": {"en": "x"}}\n{"file_name": "gone.wav", "text": "x"}\n'
        '{"text": "x"}\n{"file_name": "a.wav", "text": "x", "start": -1}\n'
        '{"file_name": "a.wav", "text": "good"}\n',
    )
    corpus = discover(tmp_path)
    assert found(corpus) == {"a.wav": ("good",)}
    texts = [problem.text for problem in corpus.problems]
    for line, text in (
        (2, "found no caption"),
        (3, "not JSON"),
        (4, "found caption \"{'en': 'x'}\", expected text"),
        (5, "found no file 'gone.wav'"),
        (6, "found no audio"),
        (7, "found start '-1'"),
        (8, "a.wav with the same caption"),
    ):
        assert any(
            found.startswith(f"metadata.jsonl:{line}: ") and text in found for found in texts
        )
    assert len(texts) == 7


def test_huggingface_audiofolder_with_split_folders(tmp_path):
    for part in ("train", "test"):
        wav(tmp_path / part / "1.wav", hertz=300 if part == "test" else 400)
        write(tmp_path / part / "metadata.csv", f"file_name,transcription\n1.wav,{part} sound\n")
    corpus = discover(tmp_path)
    assert found(corpus) == {"test/1.wav": ("test sound",), "train/1.wav": ("train sound",)}
    assert [clip.split for clip in corpus.items] == ["test", "train"]


def splits(corpus) -> dict[str, str | None]:
    return {clip.id: clip.split for clip in corpus.items}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("clotho_captions_development", "clotho_captions_validation", "clotho_captions_evaluation"),
    ],
)
def test_names_of_tables_say_splits(tmp_path, names):
    """But for what a row says; and one table alone may be called so for another reason."""
    for name in names:
        wav(tmp_path / f"audio/{name}.wav")
        write(tmp_path / f"{name}.csv", f"file_name,caption_1,split\n{name}.wav,a {name},\n")
    wav(tmp_path / "audio/other.wav")
    write(
        tmp_path / f"{names[0]}.csv",
        f"file_name,caption_1,split\n{names[0]}.wav,a,\nother.wav,b,test\n",
    )
    found = splits(captions.discover(tmp_path))
    expected = zip((f"audio/{name}.wav" for name in names), captions.SPLITS, strict=True)
    assert found == {**dict(expected), "audio/other.wav": "test"}
    for name in names[1:]:
        (tmp_path / f"{name}.csv").unlink()
    assert splits(captions.discover(tmp_path))[f"audio/{names[0]}.wav"] is None


def test_folders_of_clotho_say_splits(tmp_path):
    for number, name in enumerate(("development", "validation", "evaluation")):
        wav(tmp_path / f"{name}/{number}.wav")
        write(tmp_path / f"{name}/{number}.txt", f"sound {number}")
    assert [*splits(captions.discover(tmp_path)).values()] == ["train", "test", "valid"]


def test_names_of_tars_say_splits(tmp_path):
    for number, name in enumerate(("train-000000", "train-000001", "test-000000")):
        shard(tmp_path / f"{name}.tar", {"a.wav": encoded("WAV"), "a.txt": f"{number}".encode()})
    assert splits(captions.discover(tmp_path)) == {
        "train-000000.tar/a.wav": "train",
        "train-000001.tar/a.wav": "train",
        "test-000000.tar/a.wav": "test",
    }


def test_a_folder_a_class(tmp_path):
    wav(tmp_path / "train/dog_bark/1.wav")
    wav(tmp_path / "train/rain/1.wav")
    wav(tmp_path / "test/rain/2.wav")
    corpus = discover(tmp_path)
    assert found(corpus) == {
        "test/rain/2.wav": ("This is a sound of rain.",),
        "train/dog_bark/1.wav": ("This is a sound of dog bark.",),
        "train/rain/1.wav": ("This is a sound of rain.",),
    }
    assert [(clip.label, clip.concept, clip.split) for clip in corpus.items] == [
        ("rain", "rain", "test"),
        ("dog bark", "dog bark", "train"),
        ("rain", "rain", "train"),
    ]
    two = discover(tmp_path, templates=("{label}", "I hear {label}"))
    assert two.items[1].captions == ("dog bark", "I hear dog bark")
    with pytest.raises(ValueError, match="template 'a sound': expected {label}"):
        discover(tmp_path, templates=("a sound",))


def test_a_class_column_without_captions(tmp_path):
    wav(tmp_path / "a.wav")
    write(tmp_path / "esc50.csv", "filename,fold,category,src_file\na.wav,1,sea_waves,77\n")
    (clip,) = discover(tmp_path).items
    assert clip.captions == ("This is a sound of sea waves.",)
    assert (clip.label, clip.group, clip.columns) == ("sea waves", "77", {"fold": "1"})


def test_folders_are_no_classes_where_captions_are(tmp_path):
    for name in ("x/a.wav", "y/b.wav"):
        wav(tmp_path / name)
    write(tmp_path / "x/a.txt", "rain")
    corpus = discover(tmp_path)
    assert found(corpus) == {"x/a.wav": ("rain",)}
    assert corpus.problems == [("audio without captions", "y/b.wav")]


# ---- tars


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def encoded(kind: str, hertz: float = 440) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(1.0, hertz), RATE, format=kind)
    return buffer.getvalue()


def test_tars_are_read_where_they_lie(tmp_path):
    shard(
        tmp_path / "train/0000.tar",
        {
            "a.flac": encoded("FLAC"),
            "a.json": b'{"text": ["a tone", "a beep"]}',
            "sub/b.c.wav": encoded("WAV", 880),
            "sub/b.txt": b"a high tone\n",
            "c.mp3": encoded("MP3"),
            "d.txt": b"alone",
            "e.ogg": encoded("OGG"),
            "e.json": b"{",
            "__meta__.txt": b"x",
        },
    )
    corpus = check(discover(tmp_path))
    assert found(corpus) == {
        "train/0000.tar/a.flac": ("a tone", "a beep"),
        "train/0000.tar/sub/b.c.wav": ("a high tone",),
    }
    expected = tone(1.0)
    np.testing.assert_allclose(corpus.items[0].read(RATE), expected, atol=1e-3)
    np.testing.assert_allclose(
        corpus.items[1].read(RATE, 0.25, 0.5), tone(1.0, 880)[2000:6000], atol=1e-3
    )
    assert corpus.items[0].seconds == 1
    told = dict((text.split(":")[0], kind) for kind, text in corpus.problems)
    assert told["train/0000.tar/c"] == "audio without captions"
    assert told["train/0000.tar/d"] == "captions without audio"
    assert told["train/0000.tar/e"] == "audio without captions"
    assert "caption files that can't be used" in told.values()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0000.tar", "train"]
    assert len(found(discover(tmp_path / "train/0000.tar"))) == 2


def test_the_files_of_a_tar_lie_in_any_order(tmp_path):
    names = [f"./sub/k{number}" for number in range(8)]
    files = {f"{name}.flac": encoded("FLAC", 300 + 50 * k) for k, name in enumerate(names)}
    files |= {f"{name}.json": json.dumps({"text": name}).encode() for name in reversed(names)}
    shard(tmp_path / "s.tar", files)
    corpus = check(discover(tmp_path))
    assert sorted(found(corpus).values()) == [(name,) for name in names]
    assert corpus.problems == []
    for k, clip in enumerate(corpus.items):
        np.testing.assert_allclose(clip.read(RATE), tone(1.0, 300 + 50 * k), atol=1e-3)


def test_of_two_files_in_a_tar_with_one_key_and_suffix_the_later_is_used(tmp_path):
    files = {"a.1.wav": encoded("WAV"), "a.2.wav": encoded("WAV", 300), "a.txt": b"a tone"}
    shard(tmp_path / "s.tar", files)
    corpus = discover(tmp_path)
    assert found(corpus) == {"s.tar/a.2.wav": ("a tone",)}
    assert corpus.problems == [
        ("tars not read whole", "s.tar/a.1.wav: not used, but a.2.wav further on")
    ]


def test_broken_tars_are_named(tmp_path):
    data = {"a.flac": encoded("FLAC"), "a.txt": b"a tone", "b.flac": encoded("FLAC"), "b.txt": b"x"}
    whole = shard(tmp_path / "0.tar", data)
    (tmp_path / "1.tar").write_bytes(whole.read_bytes()[: len(encoded("FLAC")) + 2500])
    (tmp_path / "2.tar").write_bytes(b"no tar at all")
    (tmp_path / "3.tar.gz").write_bytes(b"x")
    corpus = discover(tmp_path)
    assert set(found(corpus)) == {"0.tar/a.flac", "0.tar/b.flac", "1.tar/a.flac"}
    told = [(kind, text.split(":")[0]) for kind, text in corpus.problems]
    assert ("tars not read whole", "2.tar") in told
    assert ("compressed tars, not read (expected .tar)", "3.tar.gz") in told


def test_a_damaged_member_is_an_audio_error(tmp_path):
    path = shard(tmp_path / "0.tar", {"a.wav": encoded("WAV")})
    with pytest.raises(audio.AudioError, match=r"0.tar/a.wav: cut short: .* of 999999 bytes"):
        audio.read(audio.TarMember(path, "a.wav", 512, 999_999), RATE)
    with pytest.raises(audio.AudioError, match="0.tar/a.wav: the file is empty"):
        audio.info(audio.TarMember(path, "a.wav", 512, 0))
    with pytest.raises(audio.AudioError, match=r"gone.tar/a.wav: can't be read"):
        audio.info(audio.TarMember(tmp_path / "gone.tar", "a.wav", 0, 10))


# ---- what is wrong


def test_captions_that_cannot_be_used_are_told(tmp_path):
    for name in "abcd":
        wav(tmp_path / f"{name}.wav")
    write(tmp_path / "a.txt", "fine")
    write(tmp_path / "b.txt", " \n\n")
    write(tmp_path / "c.json", "[1]")
    write(tmp_path / "z.txt", "whose?")
    write(tmp_path / "readme.md", "x")
    wav(tmp_path / "x.aiff")
    write(tmp_path / "y.aax", "protected")
    corpus = discover(tmp_path)
    assert found(corpus) == {"a.wav": ("fine",)}
    assert sorted(corpus.problems) == [
        (f"audio in a format not read ({audio.FORMATS} are)", "y.aax"),
        ("audio without captions", "b.wav"),
        ("audio without captions", "c.wav"),
        ("audio without captions", "d.wav"),
        ("audio without captions", "x.aiff"),
        ("caption files that can't be used", "b.txt: found no caption"),
        ("caption files that can't be used", "c.json: found '[1]', expected an object"),
        ("captions without audio", "z.txt"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "file,words\na.wav,x\n", "found columns file, words, expected one for captions"),
        ("m.tsv", "clip\ttext\na.wav\tx\n", "found columns clip, text, expected one for audio"),
        ("m.jsonl", '{"wave": "a.wav", "words": "x"}', r"wave, words, .* audio .*\) and one for"),
        ("m.csv", "", "found no rows, expected one for audio"),
    ],
)
def test_tables_without_the_columns_are_named(tmp_path, name, text, told):
    wav(tmp_path / "a.wav")
    write(tmp_path / name, text)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"needed: {name}: .*{told}") as caught:
            discover(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no such folder"),
        ({"a.txt": "x"}, "found 0 audio, 1 caption files or tables and 0 tars, but no pair"),
        (
            {"a.wav": ""},
            "1 audio, .* but no pair .audio without captions: a.wav.; known layouts: x",
        ),
    ],
)
def test_a_folder_with_nothing_in_it_is_refused(tmp_path, files, message):
    folder = tmp_path / "data"
    for name, text in files.items():
        write(folder / name, text)
    with pytest.raises(ValueError, match=message):
        discover(folder)


def test_broken_files_are_named_and_left_out(tmp_path):
    wav(tmp_path / "good.wav")
    write(tmp_path / "bad.wav", "no audio")
    write(tmp_path / "empty.flac", "")
    lines = [f"{name},a sound" for name in ("good.wav", "bad.wav", "empty.flac")]
    write(tmp_path / "m.csv", "\n".join(["file,caption", *lines, ""]))
    corpus = check(discover(tmp_path))
    assert list(found(corpus)) == ["good.wav"]
    assert kinds(corpus) == ["audio that can't be read, left out"] * 2
    assert corpus.problems[0].text.startswith("bad.wav: not readable as audio")
    with pytest.raises(ValueError, match="2 of 3 clips can't be read, first bad.wav: not readable"):
        check(discover(tmp_path), strict=True)
    (tmp_path / "good.wav").write_bytes(b"x")
    with pytest.raises(ValueError, match="3 of 3 clips can't be read"):
        check(discover(tmp_path))


def test_spans_past_the_end_are_left_out(tmp_path):
    wav(tmp_path / "a.wav", 1)
    write(tmp_path / "m.csv", "file,caption,start,end\na.wav,x,0,0.5\na.wav,y,2,3\na.wav,z,0.5,9\n")
    corpus = check(discover(tmp_path))
    assert list(found(corpus)) == ["a.wav@0-0.5", "a.wav@0.5-9"]
    assert "span starts at 2 s, but the audio ends at 1.000 s" in corpus.problems[0].text
    first, last = corpus.items
    assert (first.seconds, last.seconds) == (0.5, 0.5)
    assert len(first.read(RATE)) == len(last.read(RATE)) == RATE // 2
    np.testing.assert_allclose(first.read(RATE, 0.25, 9), tone(1)[2000:4000], atol=1e-3)
    np.testing.assert_allclose(last.read(RATE, 0.25, 0.1), tone(1)[6000:6800], atol=1e-3)


def test_damage_behind_the_header_is_found_by_reading(tmp_path):
    samples = np.zeros(RATE, np.float32)
    samples[5000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    wav(tmp_path / "b.wav")
    write(tmp_path / "m.csv", "file,caption\na.wav,x\nb.wav,y\n")
    damaged, sound = check(discover(tmp_path)).items
    assert len(sound.read(RATE)) == RATE // 2
    with pytest.raises(audio.AudioError, match=r"a\.wav: 1 NaN or Inf samples"):
        damaged.read(RATE)


def test_equal_files_share_a_group(tmp_path):
    for name, hertz in (("a", 440), ("b", 440), ("c", 500), ("d", 440)):
        wav(tmp_path / f"{name}.wav", hertz=hertz)
    rows = ["a.wav,x,g1", "b.wav,y,g2", "c.wav,z,g2", "d.wav,w,g3"]
    write(tmp_path / "m.csv", "\n".join(["file,caption,group", *rows]))
    corpus = check(discover(tmp_path))
    assert {clip.group for clip in corpus.items} == {"g1"}, "c comes along with b's group"
    assert [problem.text for problem in corpus.problems] == [
        "b.wav: equal to a.wav",
        "d.wav: equal to a.wav",
    ]


def test_groups_that_are_joined_one_after_the_other_are_one():
    """2 joins 1, then 1 joins 3: 2 is of 3, too."""
    clips = [Clip(str(n), Path("x.wav"), (), group=group) for n, group in enumerate("123132")]
    joined = join_groups(clips, ["a", "a", "b", "b", None, None])
    assert [clip.group for clip in joined] == ["3"] * 6
    apart = join_groups(clips, [None] * 6)
    assert [clip.group for clip in apart] == list("123132")


# ---- report and split


def test_survey_counts(tmp_path):
    wav(tmp_path / "a.wav", 1)
    wav(tmp_path / "b.wav", 2)
    wav(tmp_path / "c.wav", 3)
    rows = ["a.wav,A dog barks.,dog", "a.wav,woof,dog", "b.wav,a dog  barks,dog"]
    rows += ["c.wav,rain on a tin roof,rain"]
    write(tmp_path / "m.csv", "\n".join(["file,caption,label", *rows]))
    counted = survey(check(discover(tmp_path)))
    assert (counted.clips, counted.captions, counted.most_captions) == (3, 4, 2)
    assert counted.lengths.tolist() == [1, 2, 3]
    assert (counted.distinct, counted.shared) == (3, 2)
    assert counted.words == (1, 3, 5)
    assert counted.vocabulary == len({"a", "dog", "barks", "woof", "rain", "on", "tin", "roof"})
    assert counted.classes == {"dog": 2, "rain": 1}


def test_report_says_it(tmp_path):
    wav(tmp_path / "a.wav", 1)
    write(tmp_path / "a.txt", "one two\nthree")
    wav(tmp_path / "b.wav", 1)
    text = report(check(discover(tmp_path)))
    assert "1 clip: 1.0 s, 1.0 s to 1.0 s long" in text
    assert "2 captions, 2 a clip, at most 2; 2 of them distinct, 0 clips share theirs" in text
    assert "words in a caption: 1 to 2, median 2; 3 different words" in text
    assert "1 audio without captions\n          b.wav" in text


def test_what_a_report_abbreviates_a_file_lists(tmp_path):
    log, listed = ProblemLog(tmp_path / "run"), tmp_path / "run/problems.txt"
    for number in range(6):
        wav(tmp_path / f"d/{number}.wav", 0.1 + number / 10)
    write(tmp_path / "d/0.txt", "rain")
    assert f"          and 2 more, all in {listed}" in report(discover(tmp_path / "d"), log)
    lines = [f"audio without captions: {number}.wav" for number in range(1, 6)]
    assert listed.read_text().splitlines() == lines
    for number in range(4, 6):
        (tmp_path / f"d/{number}.wav").unlink()
    assert "problems.txt" not in report(discover(tmp_path / "d"), log)
    assert listed.read_text().splitlines() == lines[:3]
    for number in range(1, 4):
        (tmp_path / f"d/{number}.wav").unlink()
    report(discover(tmp_path / "d"), log)
    assert not listed.exists()


def test_split_keeps_groups_together_and_is_reused(tmp_path):
    corpus = composed(60, seed=1)
    corpus.items[:] = [
        Clip(clip.id, clip.audio, clip.captions, group=f"g{number // 3}")
        for number, clip in enumerate(corpus.items)
    ]
    path = tmp_path / "split.json"
    parts = split(corpus, seed=5, path=path)
    groups = [{clip.group for clip in part} for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert [len(part) for part in parts.values()] == [48, 6, 6]
    corpus.items.reverse()
    again = split(corpus, seed=5, path=path)
    for name in parts:
        assert {clip.id for clip in again[name]} == {clip.id for clip in parts[name]}
    assert set(json.loads(path.read_text())["items"]["test"]) == {c.id for c in parts["test"]}


# ---- composed, and real folders


@pytest.mark.parametrize(
    ("said", "sizes"),
    [
        ("train", (8, 1, 1)),
        ("train valid", (8, 1, 1)),
        ("train test", (8, 1, 1)),
        ("train valid test", (8, 1, 1)),
    ],
)
def test_parts_that_the_data_do_not_name_come_from_train(said, sizes):
    names = said.split()
    clips = [
        replace(clip, split=names[max(0, place - 10 + len(names))])
        for place, clip in enumerate(captions.composed(10).items)
    ]
    parts = captions.split(captions.Corpus(Path(), clips, []))
    assert tuple(len(parts[name]) for name in captions.SPLITS) == sizes
    for name in set(names) - {"train"}:
        assert [clip.split for clip in parts[name]] == [name]


def test_composed_clips_are_the_same_for_the_same_seed():
    one, two, other = composed(12, 3), composed(20, 3), composed(12, 4)
    assert one.items == two.items[:12]
    assert {clip.audio for clip in one.items}.isdisjoint(clip.audio for clip in other.items)
    assert check(one, strict=True).items == one.items
    assert "12 clips" in report(one)
    with pytest.raises(ValueError, match="0 composed clips"):
        composed(0)


def test_esc10(shared_data):
    corpus = check(discover(shared_data / "esc10"), strict=True)
    counted = survey(corpus)
    assert (counted.clips, counted.captions, counted.distinct) == (320, 320, 10)
    assert set(counted.classes.values()) == {32}
    assert corpus.problems == []
    assert counted.groups == len({clip.group for clip in corpus.items}) < 320
    sources = {}
    for clip in corpus.items:  # 1-172649-A, 1-172649-B, ... are of one recording
        sources.setdefault(clip.id.split("-")[1], set()).add(clip.group)
    assert max(map(len, sources.values())) == 1


def test_berklee(shared_data):
    corpus = check(discover(shared_data / "berklee"))
    counted = survey(corpus)
    assert counted.clips == 582
    assert 35 * 60 < counted.lengths.sum() < 38 * 60
    assert all(len(clip.captions) == 1 for clip in corpus.items)
    assert captions.LAYOUTS
