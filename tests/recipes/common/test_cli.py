"""The command line: lists of commands, help of each, words without a flag, training by default."""

import contextlib
import subprocess
import sys
import typing
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import audiotrain.__main__
from audiotrain import config
from audiotrain.features import audio
from audiotrain.recipes.chords import commands as chords
from audiotrain.recipes.chords.settings import PredictSettings
from audiotrain.recipes.clap import commands as clap
from audiotrain.recipes.classify import commands as classify
from audiotrain.recipes.classify.settings import PredictSettings as ClassifyPredictSettings
from audiotrain.recipes.common import cli

RECIPES = {"chords": chords, "clap": clap, "classify": classify}


def shown(capsys, main, *words):
    with contextlib.suppress(SystemExit):
        assert main(list(words)) == 0
    return capsys.readouterr().out


def phrases(text: str) -> dict[str, str]:
    """The commands of a list, and what it says of each."""
    lines = [line[2:].split("  ", 1) for line in text.splitlines() if line[:2] == "  " != line[2:4]]
    return {name: phrase.strip() for name, phrase in lines}


def test_audiotrain_lists_its_commands_with_a_phrase_each(capsys):
    for words in ([], ["--help"], ["-h"]):
        found = phrases(shown(capsys, audiotrain.__main__.main, *words))
        assert list(found) == list(audiotrain.__main__.COMMANDS)
        assert all(len(phrase) > 20 for phrase in found.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_lists_its_commands_with_a_phrase_each(recipe, capsys):
    found = phrases(shown(capsys, audiotrain.__main__.main, recipe, "--help"))
    assert list(found) == list(RECIPES[recipe].COMMANDS)
    assert all(len(phrase) > 20 for phrase in found.values())


def test_a_recipe_as_a_module_lists_its_commands():
    command = [sys.executable, "-m", "audiotrain.recipes.chords", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "predict" in phrases(done.stdout)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("width", [60, 100])
def test_help_has_every_setting_in_sentences_that_wrap_at_the_width(
    recipe, width, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    for name, command in RECIPES[recipe].COMMANDS.items():
        text = shown(capsys, RECIPES[recipe].main, name, "--help")
        assert max(map(len, text.splitlines())) <= width
        assert "(default: )" not in text
        assert "\n\n\n" not in text
        plain = " ".join(text.replace("│", " ").split())
        types = typing.get_type_hints(command.settings)
        groups = {field for field, kind in types.items() if is_dataclass(kind)}
        for field, doc in config.field_docs(command.settings).items():
            assert f"--{field.replace('_', '-')}" in plain
            if field not in groups:  # which have a box
                assert doc in plain


def test_words_without_a_flag_may_follow_a_list_of_formats():
    words = ["--formats", "lab", "jams", "a.mp3", "--tta", "tuning", "b.mp3"]
    settings = config.load(PredictSettings, words, positional="audio")
    assert settings.formats == ("lab", "jams")
    assert settings.audio == (Path("a.mp3"), Path("b.mp3"))


@pytest.mark.parametrize("settings", [PredictSettings, ClassifyPredictSettings])
def test_files_may_follow_the_checkpoints_and_folders_go_before_them(settings, tmp_path):
    run, clips, recording = tmp_path / "run", tmp_path / "clips", tmp_path / "a.wav"
    for folder in (run, clips):
        folder.mkdir()
    recording.touch()
    words = [str(clips), "--checkpoint", str(run), str(recording)]
    loaded = config.load(settings, words, positional="audio")
    assert loaded.checkpoint == (run,)
    assert loaded.audio == (clips, recording)
    with pytest.raises(ValueError, match="--audio: required.*; folders go before --checkpoint"):
        config.load(settings, ["--checkpoint", str(run), str(clips)], positional="audio")


@pytest.mark.parametrize("words", [[], ["--data", "songs"], ["train"]])
def test_a_recipe_trains_without_a_command(words, monkeypatch):
    ran = []
    trains = chords.COMMANDS["train"]._replace(function=ran.append)
    monkeypatch.setitem(chords.COMMANDS, "train", trains)
    monkeypatch.setattr("audiotrain.backend.configure", lambda *args, **kwargs: None)
    assert chords.main(words) == 0
    assert [settings.data for settings in ran] == [Path("songs") if len(words) > 1 else None]


def test_a_command_that_there_is_not(capsys):
    assert chords.main(["predcit"]) == 2
    assert "unknown command 'predcit' (did you mean predict?)" in capsys.readouterr().err
    assert audiotrain.__main__.main(["chord"]) == 2
    assert "no command 'chord' (did you mean chords?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("chords config diff a b", "did you mean audiotrain config diff A B?"),
        ("clap diff a b", "did you mean audiotrain config diff A B?"),
        ("classify runs", "did you mean audiotrain runs?"),
        ("diff a b", "did you mean config diff A B?"),
        ("config", "usage: audiotrain config diff A B"),
        ("config a b", "usage: audiotrain config diff A B"),
    ],
)
def test_commands_that_compare_runs_are_found(words, expected, capsys):
    assert audiotrain.__main__.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert audiotrain.__main__.main([]) == 0
    assert "config diff A B" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_the_version_is_printed(word, capsys):
    assert audiotrain.__main__.main([word]) == 0
    assert capsys.readouterr().out == f"audiotrain {audiotrain.__version__}\n"


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("chords predict", "audiotrain chords predict AUDIO"),
        ("chords predict --formats html", "audiotrain chords predict AUDIO"),
        ("classify predict", "audiotrain classify predict AUDIO"),
        ("clap classify --labels a b", "audiotrain clap classify AUDIO"),
        ("chords ensemble --output x", "audiotrain chords ensemble CHECKPOINT"),
        ("report", "audiotrain report RUNS"),
    ],
)
def test_a_command_without_its_words_names_them(words, usage, capsys):
    assert audiotrain.__main__.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ": required, " in line
    assert line.endswith(usage)


def test_all_mistakes_of_a_file_and_of_flags_come_at_once(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("stesp: 3\nvalid: 1.5\nmodel:\n  dropout: high\n")
    words = ["train", "--config", str(file), "--steps", "0", "--batch-size", "x", "--sed", "1"]
    assert chords.main(words) == 2
    error, *lines = capsys.readouterr().err.splitlines()
    assert [error.removeprefix("error: "), *lines] == [
        "--sed: unknown flag (did you mean --seed?)",
        f"{file}:1: stesp: no such setting (did you mean steps?)",
        f"{file}:2: valid=1.5, expected more than 0 and less than 1",
        "--batch-size: found 'x', expected a whole number, 1 or more",
        "--steps=0, expected 1 or more",
        f"{file}:4: model.dropout: found 'high', expected a number, 0 or more and less than 1",
    ]


def test_all_settings_that_a_resumed_run_may_not_change_come_at_once(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("version: 2\nseed: 0\nmodel:\n  width: 36\n")
    words = ["--seed", "1", "--model.width", "48", "--steps", "3", "--workers", "2"]
    assert chords.main(["--output", str(tmp_path), "--resume", *words]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: --resume: seed is 1, expected 0 as in the run in {tmp_path}",
        f"--resume: model.width is 48, expected 36 as in the run in {tmp_path}; only cache, "
        "workers, loggers, steps, epochs, max_minutes, validations, patience may change",
    ]


def test_missing_audio_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8 * 22050), 22050)
    path.write_bytes(path.read_bytes()[:-4000])
    with cli.missing_audio_reported():
        for _ in range(2):
            assert len(audio.read(path, 22050)) > 7 * 22050
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: ")
    assert line.endswith(" s at the end can't be decoded, left out")
