"""Without --checkpoint: the released CLAP, from the hub's cache or the hub; or the newest run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from clap_folders import cache_model, save_model, write_clip
from tiny_clap import command

import audiotrain
from audiotrain import Embedder, SoundLibrary
from audiotrain.models.clap.weights import HubError
from audiotrain.recipes.clap.pretrained import Start
from audiotrain.recipes.common import checkpoints
from audiotrain.train import checkpoint

RELEASED = "laion/clap-htsat-unfused"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a hub's cache that has a small model as the released one, a run, and `data`."""
    folder = tmp_path_factory.mktemp("default")
    cache_model(folder / "home/hub", save_model(folder / "released"))
    run = folder / "work/runs/mine"
    save_model(run / "model", seed=1)
    (run / "config.yaml").write_text("data: null\n")
    for number in range(3):
        write_clip(folder / f"data/deep/{number}.wav", 1, 16000, number)
    return folder


@pytest.fixture
def hub(place, monkeypatch):
    """The hub's cache, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place / "home/hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("hub"))
    return place / "home/hub"


def in_process(place, *words, home="home", **environment):
    """The command `audiotrain clap` with a network that is dead, in the folder `work`."""
    environment = os.environ | {
        "HF_HOME": str(place / home),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(audiotrain.__file__).parents[1]),
        "HF_HUB_OFFLINE": "0",
        **environment,
    }
    line = [sys.executable, "-m", "audiotrain", "clap", *map(str, words)]
    return subprocess.run(
        line, env=environment, cwd=place / "work", capture_output=True, text=True, check=False
    )


def test_one_command_searches_a_folder(place):
    words = ["search", "rain", "on", "a", "roof", "--data", place / "data"]
    words += ["--cache", place / "cache"]
    done = in_process(place, *words)
    assert done.returncode == 0, done.stderr
    model, head, *rows = done.stdout.splitlines()
    assert model == f"model: {RELEASED}"
    assert head.split() == ["rank", "cosine", "start", "file"]
    assert {row.split()[-1] for row in rows} == {f"deep/{number}.wav" for number in range(3)}
    assert "fetching" not in done.stderr


@pytest.mark.slow
def test_without_network_one_line_says_what_to_do(place):
    words = ["search", "rain", "--data", place / "data", "--cache", place / "cache"]
    done = in_process(place, *words, home="empty")
    assert done.returncode == 2
    assert done.stdout == f"model: {RELEASED}\n"
    fetching, error = done.stderr.splitlines()
    assert fetching == f"fetching {RELEASED} from Hugging Face's hub, about 600 MB, once"
    start, sentence, more = error.partition(". Connect to the network, ")
    assert start.startswith(f"error: {RELEASED}: no folder, not in the cache ")
    assert start.endswith(", and the hub does not answer")
    assert sentence
    assert ". " not in more
    for advice in ("HF_ENDPOINT", "HF_HOME", "--checkpoint latest", "--checkpoint FOLDER"):
        assert advice in error
    done = in_process(place, *words, home="empty", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert "HF_HUB_OFFLINE is set" in error


@pytest.mark.parametrize(
    ("gone", "lacked"),
    [
        (["preprocessor_config.json"], "preprocessor_config.json and no processor_config.json"),
        (["tokenizer.json", "merges.txt"], "tokenizer.json and no merges.txt"),
        (["config.json"], "config.json"),
    ],
)
def test_a_part_of_the_model_in_the_cache_is_as_none(place, monkeypatch, tmp_path, gone, lacked):
    """Without a network, huggingface_hub gives the folder of an earlier download, whatever it
    lacks: transformers' ClapModel fetches neither tokenizer nor front end."""
    snapshot = cache_model(tmp_path / "hub", place / "released")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    for name in gone:
        (snapshot / name).unlink()
    with pytest.raises(HubError, match=rf"has no {lacked} of it\. Connect to the network") as error:
        Embedder.pretrained()
    with pytest.raises(HubError):
        Start.pretrained(RELEASED)
    assert len(str(error.value).splitlines()) == 1


def test_commands_say_which_model_and_where_a_run_is(place, hub, monkeypatch, capsys):
    monkeypatch.chdir(place / "work")
    monkeypatch.setattr(checkpoints, "latest_run", lambda recipe: Path("runs/mine"))
    note = f"model: {RELEASED} (--checkpoint latest takes runs/mine)"
    output = ["--output", place / "index.npz"]
    for words in (
        ["classify", place / "data", "--labels", "dog,rain"],
        ["embed", "--data", place / "data", *output, "--overwrite"],
        ["search", "rain", "--data", place / "data"],
        ["search", "rain", "--index", place / "index.npz"],
    ):
        for more, line in (
            ([], note),
            (["--checkpoint", "shipped"], note),
            (["--checkpoint", "latest"], "model: runs/mine"),
        ):
            if more and "--index" in words:
                continue
            assert command(*words, *more) == 0
            assert capsys.readouterr().out.splitlines()[0] == line
            if "embed" in words and more != ["--checkpoint", "latest"]:
                (place / "index.npz").rename(place / "kept.npz")
        if "embed" in words:
            (place / "kept.npz").replace(place / "index.npz")


def test_a_run_of_another_recipe_is_one_line(tmp_path):
    for recipe, key in (("chords", "recognizer"), ("classify", "classifier")):
        best = tmp_path / recipe / "checkpoints" / "best"
        checkpoint.save(best, {}, {"config": {key: {}}})
        with pytest.raises(ValueError, match=rf"{recipe}: a run of {recipe}, expected one of clap"):
            Embedder.from_folder(tmp_path / recipe)


def test_latest_without_a_run_is_one_line(place, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["classify", place / "data", "--labels", "dog,rain", "--checkpoint", "latest"]
    assert command(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--checkpoint latest: no trained run of clap in runs" in line


def test_scores_of_the_released_model_are_below_runs(place, hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        clip = write_clip(tmp_path / f"d/{number}.wav", 1, 16000, number)
        clip.with_suffix(".txt").write_text(f"sound {number}")
    assert command("evaluate", "--data", "d", "--no-linear-probe") == 0
    assert (tmp_path / "runs/evaluation-d-of-clap-htsat-unfused/metrics.json").is_file()


def test_data_that_are_not_there_are_refused_before_a_model_is_fetched(monkeypatch, capsys):
    monkeypatch.setattr(Embedder, "from_folder", lambda *_: pytest.fail("fetched"))
    for words in (
        ["search", "rain", "--data", "gone"],
        ["embed", "--data", "gone", "--output", "x.npz"],
        ["classify", "gone", "--labels", "a,b"],
        ["evaluate", "--data", "gone"],
    ):
        assert command(*words) == 2
        printed = capsys.readouterr()
        assert "gone: no such f" in printed.err
        assert not printed.out


# ---- in Python


def test_a_library_in_python(place, hub, tmp_path):
    library = SoundLibrary(place / "data", cache=tmp_path)
    assert library.embedder.checkpoint == RELEASED
    found = library.search("rain on a roof", top=2)
    assert [match.rank for match in found] == [1, 2]
    assert found[0].cosine > found[1].cosine
    same = library.search(audio=place / "data/deep/1.wav")
    assert len(same) == 2
    assert "deep/1.wav" not in [match.file for match in same]
    shutil.copy(place / "data/deep/1.wav", tmp_path / "copy.wav")
    same = library.search(audio=tmp_path / "copy.wav")
    assert (same[0].file, same[0].start) == ("deep/1.wav", 0)
    assert same[0].cosine == pytest.approx(1, abs=1e-5)
    (place / "data/deep/bad.wav").write_text("bad")
    with pytest.raises(ValueError, match=r"bad\.wav: not readable"):
        SoundLibrary(place / "data", library.embedder, tmp_path, strict=True).search("rain")
    assert len(library.search("rain")) == 3
    assert [line.partition(": ")[0] for line in library.problems] == [
        str(place / "data/deep/bad.wav")
    ]
    (place / "data/deep/bad.wav").unlink()
    for words in ({}, {"query": "rain", "audio": "x.wav"}):
        with pytest.raises(ValueError, match="words to search for, or audio, and not both"):
            library.search(**words)


def test_windows_of_one_recording(place, hub, tmp_path):
    write_clip(tmp_path / "sounds/a.wav", 25, 16000, 1)
    write_clip(tmp_path / "sounds/b.wav", 25, 16000, 2)
    library = SoundLibrary(tmp_path / "sounds", cache=tmp_path)
    assert sorted(match.file for match in library.search("rain")) == ["a.wav", "b.wav"]
    assert len(library.search("rain", per_file=2)) == 4
    alone = SoundLibrary(tmp_path / "sounds/a.wav", library.embedder, tmp_path)
    assert len(alone.search("rain")) == 3
