"""A bug is a traceback and exit code 1, wherever it is; only a UserError is a line."""

import importlib
import itertools
import shutil
import sys

import pytest
import tiny_chords
import tiny_clips

from audiotrain.features import audio
from audiotrain.recipes.chords import songs
from audiotrain.recipes.classify import features as classify_features
from audiotrain.utils.errors import UserError

BROKEN = [  # a function of each package that a training of chords calls
    "audiotrain.utils.files:write_json",
    "audiotrain.backend.ops:contiguous_gradients",
    "audiotrain.config.merge:Merged.checked",
    "audiotrain.music.segments:segments_to_frames",
    "audiotrain.features.extract:extract",
    "audiotrain.train.losses:ChordRecognitionLoss.__call__",
    "audiotrain.datasets.chords.items:segments",
    "audiotrain.models.chords.model:FrameChordModel.__call__",
    "audiotrain.evaluation.chords:chord_scores",
    "audiotrain.recipes.chords.scoring:choose_decoding",
]
ERRORS = [
    TypeError("'NoneType' object is not subscriptable"),
    IndexError("list index out of range"),
    ValueError("operands could not be broadcast together with shapes (3,) (4,)"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_chords.sung(tmp_path_factory.mktemp("songs") / "songs", count=6)


def break_function(monkeypatch, place: str, error: Exception) -> None:
    """Replace a function by one that raises, under every name that a module has for it."""

    def broken(*arguments, **named):
        raise error

    module, _, path = place.partition(":")
    *classes, name = path.split(".")
    owner = importlib.import_module(module)
    for one in classes:
        owner = getattr(owner, one)
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, broken)
    for other in [module for name, module in sys.modules.items() if name.startswith("audiotrain")]:
        for known, value in list(vars(other).items()):
            if value is original:
                monkeypatch.setattr(other, known, broken)


@pytest.mark.parametrize(
    ("place", "error"),
    [*zip(BROKEN, itertools.cycle(ERRORS), strict=False), (BROKEN[3], ERRORS[2])],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_function_is_a_bug(data, tmp_path, monkeypatch, capsys, place, error):
    tiny_chords.make_quick(monkeypatch)
    break_function(monkeypatch, place, error)
    words = ["train", "--data", data, "--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert tiny_chords.command(*words, *tiny_chords.TINY, *tiny_chords.STEPS) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("Traceback (most recent call last)") for line in lines)
    assert f"{type(error).__name__}: {error}" in lines
    assert lines[-1].startswith("bug: an error inside audiotrain ")
    assert "report the lines above and the command" in lines[-1]
    assert not any(line.startswith("error:") for line in lines)


def test_a_bug_in_one_song_ends_the_run_and_names_the_song(data, tmp_path, monkeypatch, capsys):
    tiny_chords.make_quick(monkeypatch)
    original = songs.SongLibrary.song

    def song(self, item, *arguments):
        if item.id == "song3.wav":
            raise ERRORS[2]
        return original(self, item, *arguments)

    monkeypatch.setattr(songs.SongLibrary, "song", song)
    words = ["train", "--data", data, "--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert tiny_chords.command(*words, *tiny_chords.TINY, *tiny_chords.STEPS) == 1
    errors = capsys.readouterr().err
    assert f"while preparing {data / 'song3.wav'}" in errors
    assert "can't be read" not in errors


def test_a_song_that_a_person_can_mend_is_left_out(data, tmp_path, monkeypatch, capsys):
    tiny_chords.make_quick(monkeypatch)
    folder = shutil.copytree(data, tmp_path / "songs")
    (folder / "song3.wav").write_bytes(b"no audio")
    words = ["train", "--data", folder, "--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert tiny_chords.command(*words, *tiny_chords.TINY, *tiny_chords.STEPS) == 0
    printed = "".join(capsys.readouterr())
    assert "song3.wav" in printed
    assert "Traceback" not in printed


def test_a_bug_while_a_clip_is_read_ends_the_run(tmp_path, monkeypatch, capsys):
    clips = tiny_clips.class_folders(tmp_path / "clips")
    monkeypatch.setattr(classify_features, "statistics", _broken)
    words = ["train", "--data", clips, "--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert tiny_clips.command(*words, *tiny_clips.STATISTICS) == 1
    assert "bug: " in capsys.readouterr().err.splitlines()[-1]


def _broken(*arguments, **named):
    raise ERRORS[0]


def test_the_classes_that_a_person_can_mend():
    from audiotrain.models.clap.weights import HubError
    from audiotrain.train.checkpoint import CheckpointError
    from audiotrain.train.data.loader import SampleError, UnreadableSampleError
    from audiotrain.train.engine.step_metrics import NonFiniteError
    from audiotrain.utils.errors import MissingPackageError

    mendable = (
        audio.AudioError,
        CheckpointError,
        HubError,
        MissingPackageError,
        NonFiniteError,
        UnreadableSampleError,
    )
    assert all(issubclass(one, UserError) for one in mendable)
    assert issubclass(UserError, ValueError)  # as those who call the library catch it
    assert not issubclass(SampleError, UserError)
