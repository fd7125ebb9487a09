"""Mutated files of every format: a valid result or one line, whatever is in them.

20 cases a format, and 100 more, thousands in all, in the slow tests. `python tests/helpers/fuzz.py
--total 10000` runs more; what it found is in the parametrized tests.
"""

import json
import struct
import sys
from types import SimpleNamespace

import fuzz
import numpy as np
import pytest

from audiotrain.datasets.captions import discovery
from audiotrain.datasets.chords import corpus as chord_corpus
from audiotrain.datasets.chords import discovery as chord_discovery
from audiotrain.datasets.chords import readers
from audiotrain.datasets.synthesis.midi import midi_seconds, read_midi
from audiotrain.datasets.tables import records
from audiotrain.features.audio import AudioError
from audiotrain.features.av_source import AvSource
from audiotrain.music.segments import parse_lab
from audiotrain.recipes.chords.predictor import Recognizer
from audiotrain.recipes.common.split import read_split
from audiotrain.train import crossval
from audiotrain.utils.errors import UserError

CASES, SLOW_CASES = 20, 120


@pytest.fixture(scope="module")
def reader():
    if sys.platform == "win32":
        pytest.skip("its limits of memory and time need POSIX")
    reader = fuzz.Reader()
    yield reader
    reader.close()


@pytest.mark.parametrize("name", fuzz.FORMATS)
@pytest.mark.parametrize(
    "cases",
    [range(CASES), pytest.param(range(CASES, SLOW_CASES), marks=pytest.mark.slow)],
    ids=["few", "more"],
)
def test_mutated_files_are_read_or_refused_in_one_line(reader, cases, name):
    outcomes = {number: reader.outcome(name, number) for number in cases}
    wrong = {number: one for number, one in outcomes.items() if one not in ("ok", "refused")}
    assert wrong == {}
    assert "refused" in outcomes.values() or name in ("lab", "salami", "run", "sidecars", "tags")


def test_an_error_a_message_and_a_crash_are_outcomes(tmp_path):
    path = tmp_path / "x.wav"

    def raising(error):
        def read(path):
            raise error

        return fuzz.outcome_of(read, path, tmp_path)

    assert raising(UserError(f"{path}: no audio")) == "refused"
    assert raising(AudioError(f"{path}: no audio")) == "refused"
    assert "does not name x.wav" in raising(UserError("no audio"))
    assert "not one line" in raising(UserError(f"{path}: no\naudio"))
    assert raising(ValueError(f"{path}: no audio")).startswith("ValueError")
    assert raising(KeyError("rate")).startswith("KeyError")
    assert raising(RuntimeWarning("overflow")).startswith("RuntimeWarning")


def test_the_last_line_has_what_took_most(reader):
    tally = fuzz.Tally()
    for number in range(3):
        outcome = reader.outcome("lab", number)
        reader.size, reader.seconds = number << 20, number / 2
        tally.add("lab", number, outcome, reader)
    line = tally.line(1, 4.4)
    assert line.startswith("3 mutated files of 1 formats: 0 faults, ")
    assert line.endswith("largest memory 2 MiB (lab 2), slowest 1.0 s (lab 2); 4 s in all")


def test_a_case_is_the_same_each_time(tmp_path):
    bench = fuzz.Bench("lab", tmp_path)
    assert bench.case(3) == bench.case(3)
    assert len({bench.case(number) for number in range(20)}) > 15


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jams", DEEP, "nested too deeply"),
        ("x.json", DEEP, "nested too deeply"),
        ("x.jams", '{"annotations": [{"namespace": "chord", "data": 5}]}', "found data '5'"),
        ("x.csv", "a\x0bb\x1cd,c\n1,2\n", r"found columns a\\x0bb\\x1cd, c, expected start"),
    ],
)
def test_a_label_file_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        readers.read(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_jams_metadata_of_another_kind_has_no_names(tmp_path):
    row = {"namespace": "chord", "annotation_metadata": ["x"], "data": {"time": 3}}
    (tmp_path / "x.jams").write_text(json.dumps({"annotations": [row]}))
    assert readers.read(tmp_path / "x.jams").segments == []
    with pytest.raises(ValueError, match="found no chord annotation by 'x'"):
        readers.read(tmp_path / "x.jams", "x")


def test_billboard_repeats_times_and_metres_without_end(tmp_path):
    song = "# metre: 4/4\n0.0\t| C:maj | G:maj | x999999999\n2.0\t| (9{0}/4) F:maj |\n1e999\tend\n"
    (tmp_path / "salami_chords.txt").write_text(song.format("9" * 400))
    annotation = readers.read(tmp_path / "salami_chords.txt")
    assert [segment.label for segment in annotation.segments] == ["C:maj", "G:maj"]
    assert any("found '1e999" in problem for problem in annotation.problems)


def test_a_problem_quotes_the_beginning_of_a_long_cell(tmp_path):
    fuzz.FORMATS["classes"].make(tmp_path)
    (tmp_path / "x.csv").write_text(f"file,caption,start\na.wav,rain,{'9' * 5000}\nb.wav,dog,0\n")
    found = discovery.discover(tmp_path / "x.csv")
    assert [len(one.text) < 200 for one in found.problems if "start" in one.text] == [True]


def test_a_deep_line_of_a_table_is_a_problem(tmp_path):
    (tmp_path / "x.jsonl").write_text(f'{DEEP}\n{{"audio": "a.wav"}}\n')
    problems = []
    assert [line for line, _ in records(tmp_path / "x.jsonl", problems)] == [2]
    assert "x.jsonl:1: not JSON: lists or objects nested too deeply" in problems[0].text


def midi_file(*track: bytes, size: int | None = None) -> bytes:
    data = b"".join(track) + b"\0\xff\x2f\0"
    header = b"MThd" + struct.pack(">IHHH", 6, 1, 1, 220)
    return header + b"MTrk" + struct.pack(">I", len(data) if size is None else size) + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (midi_file(b"\0\xff\x59\x02\xfd\x02"), "Could not decode key"),
        (midi_file(size=2**32 - 1), "cut short: 26 of 4294967317 bytes"),
    ],
)
def test_a_damaged_midi_file_is_one_line(tmp_path, data, message):
    (tmp_path / "x.mid").write_bytes(data)
    with pytest.raises(ValueError, match=f"x.mid: not readable as MIDI .*{message}"):
        read_midi(tmp_path / "x.mid")


def test_a_line_of_digits_is_refused_without_backtracking():
    """With `\\d+\\.?\\d*` as the pattern of a number this line took seven minutes."""
    line = f"{'1' * 1500} {'1' * 1500}x"
    assert parse_lab(line, "x.lab").problems[0].startswith("x.lab:1: ")


def test_a_name_that_no_file_can_have_is_of_no_file(tmp_path):
    fuzz.FORMATS["chord-table"].make(tmp_path)
    rows = f"audio,chord,start,end\na.wav,C:maj,0,0.2\n{'x' * 3000}.wav,Am,0,0.2\n"
    (tmp_path / "table.csv").write_text(rows)
    found = chord_discovery.discover(tmp_path / "table.csv")
    assert [item.audio.name for item in found.items] == ["a.wav"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("preprocessor_config.json", {"max_length_s": 1e308}, "max_length_s=1e\\+308, expected"),
        ("preprocessor_config.json", {"hop_length": None, "sampling_rate": None}, "; "),
        ("config.json", {"audio_config": {"mlp_ratio": 2**31}}, "mlp_ratio=2147483648"),
    ],
)
def test_numbers_that_no_clap_has_are_one_line(tmp_path, name, changes, message):
    fuzz.make_clap(tmp_path)
    content = json.loads((tmp_path / name).read_text())
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        fuzz.read_clap(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_shares_of_a_moment_are_no_overflow(tmp_path):
    fuzz.FORMATS["chord-table"].make(tmp_path)
    (tmp_path / "table.csv").write_text("audio,chord,start,end\na.wav,C:maj,0,1e-320\n")
    found = chord_corpus.check(chord_discovery.discover(tmp_path / "table.csv"))
    assert "no chord 0.0 %, other bass than root 0.0 %" in chord_corpus.report(found)


def test_the_length_of_a_midi_file_without_a_possible_one_is_unknown(tmp_path):
    late = b"\0\x90\x40\x40" + b"\xff" * 200 + b"\0\x80\x40\x40"  # a delta of 1401 bits
    for data, seconds in (
        (midi_file(b"\0\x90\x40\x40" + b"\x83\x38\x80\x40\x40"), 1.0),
        (midi_file(late), None),
        (midi_file().replace(b"\0\xdc", b"\xe8\0"), None),  # no ticks in a frame
    ):
        (tmp_path / "x.mid").write_bytes(data)
        assert midi_seconds(tmp_path / "x.mid") == seconds


@pytest.mark.parametrize("text", [DEEP, "{", '{"a.wav"', "3"])
def test_damaged_files_of_a_split_and_of_folds_are_one_line(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ValueError, match="split.json: not a run's split"):
        read_split(tmp_path / "split.json")
    fuzz.make_folds(tmp_path)
    (tmp_path / "oof" / "0.json").write_text(text)
    with pytest.raises(ValueError, match="0.json: not the files of a fold"):
        list(crossval.read_ragged(tmp_path))


@pytest.mark.parametrize("config", [[], "x", {"recognizer": {"features": 3}}, {"recognizer": []}])
def test_a_checkpoint_with_another_description_is_one_line(tmp_path, config):
    folder = fuzz.make_chord_checkpoint(tmp_path)[0].parent
    state = json.loads((folder / "state.json").read_text())
    state["meta"]["config"] = config
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=str(folder)) as caught:
        Recognizer.from_checkpoint(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_sound_files_are_read(tmp_path):
    for number, name in enumerate(("wav", "mp3", "ogg", "flac", "m4a", "opus", "wma", "mkv")):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths = fuzz.FORMATS[name].make(folder)
        assert paths
        for path in paths:
            fuzz.read_audio(path)
    assert np.abs(fuzz.tone()).max() > 0.5


def test_frames_of_more_channels_than_a_decoder_fills_are_not_read():
    """Damaged AAC gives frames of 40 channels, of which some are not in memory: a crash."""
    source = object.__new__(AvSource)
    source._errors, source.channels = OSError, 2

    def packet(channels):
        frame = SimpleNamespace(samples=1024, layout=SimpleNamespace(nb_channels=channels))
        return SimpleNamespace(decode=lambda: [frame])

    assert len(source._decode(packet(6))) == 1
    assert source._decode(packet(40)) is None
