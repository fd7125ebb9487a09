"""evaluate, embed, search and classify as commands: what they write, and what they refuse."""

import csv
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from clap_folders import save_model, sound, write_clip

from audiotrain import config
from audiotrain.evaluation import plots
from audiotrain.evaluation.plots import retrieval as retrieval_plots
from audiotrain.features import audio
from audiotrain.recipes.clap import scoring
from audiotrain.recipes.clap.commands import COMMANDS, read_labels
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.index import Index


def command(name, *words):
    """What a command gives for words of a command line."""
    settings, function, positional = COMMANDS[name]
    return function(config.load(settings, [str(word) for word in words], positional=positional))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a `model`, another one, and `data`: 6 captioned clips and one of 25 s."""
    folder = tmp_path_factory.mktemp("use")
    save_model(folder / "model")
    save_model(folder / "other", seed=1)
    rows = ["file_name,caption,label,split"]
    for number in range(6):
        write_clip(folder / f"data/clips/{number}.wav", 1, 16000, number)
        kind = ("dog", "rain")[number % 2]
        rows.append(
            f"clips/{number}.wav,{kind} number {number},{kind},{'test' if number > 3 else 'train'}"
        )
    (folder / "data/metadata.csv").write_text("\n".join(rows))
    write_clip(folder / "long/long.flac", 25, 16000, 8)
    write_clip(folder / "long/short.wav", 2, 16000, 9)
    return folder


@pytest.fixture
def refused(place):
    """The one line with which a command refuses words."""

    def call(name, *words, checkpoint=True):
        flags = ["--checkpoint", place / "model"] if checkpoint else []
        with pytest.raises(ValueError, match=".") as caught:
            command(name, *words, *flags)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take longer than what they show."""
    monkeypatch.setattr(plots, "confusion_picture", lambda *_, **__: None)
    for name in ("recall_picture", "similarity_picture"):
        monkeypatch.setattr(retrieval_plots, name, lambda *_, **__: None)


# ---- evaluate


def test_evaluate(place, tmp_path, capsys, no_pictures):
    words = ["--data", place / "data", "--checkpoint", place / "model", "--output", tmp_path / "e"]
    result = command("evaluate", *words)
    printed = capsys.readouterr().out
    assert "6 clips" in printed
    assert "text to audio" in printed
    assert "zero-shot" in printed
    assert json.loads((tmp_path / "e/metrics.json").read_text()) == result
    assert (result["clips"], result["distinct_captions"], result["classes"]["clips"]) == (6, 6, 6)
    with pytest.raises(ValueError, match="e: holds metrics.json already; --overwrite replaces it"):
        command("evaluate", *words)
    words.append("--overwrite")
    part = command("evaluate", *words, "--split", "test", "--templates", "{label}", "a {label}")
    assert part["clips"] == 2
    assert part["classes"]["linear_probe"]["how"].startswith("learnt from 4 clips of train")
    assert part["classes"]["zero_shot"]["how"].endswith("2 templates")
    bare = command("evaluate", *words, "--no-linear-probe")
    assert "linear_probe" not in bare["classes"]


def test_the_probe_of_evaluate_keeps_groups_together(place, tmp_path, monkeypatch, no_pictures):
    rows = ["file_name,caption,label,group"]
    for number in range(3):
        write_clip(tmp_path / f"data/{number}.wav", 1, 16000, number)
        rows.append(f"{number}.wav,{number} drops,{'ab'[number % 2]},g{number // 2}")
    (tmp_path / "data/metadata.csv").write_text("\n".join(rows))
    groups = []
    monkeypatch.setattr(scoring, "probe_scores", lambda tested, *_: groups.extend(tested.groups))
    words = ["--checkpoint", place / "model", "--output", tmp_path / "scores"]
    command("evaluate", "--data", tmp_path / "data", *words)
    assert groups == ["g0", "g0", "g1"]


def test_evaluate_takes_the_runs_split_and_folder(place, tmp_path, no_pictures, capsys):
    run = tmp_path / "runs/first"
    save_model(run / "model")
    (run / "config.yaml").write_text(f"data: {place / 'data'}\n")
    items = {
        "train": ["clips/0.wav", "clips/1.wav"],
        "valid": [],
        "test": ["clips/3.wav", "clips/2.wav"],
    }
    (run / "split.json").write_text(json.dumps({"items": items}))
    words = ["--data", place / "data", "--checkpoint", tmp_path / "runs", "--split", "test"]
    assert command("evaluate", *words)["clips"] == 2
    rows = csv.DictReader((run / "evaluation-data-test/clips.csv").read_text().splitlines())
    assert {row["clip"] for row in rows} == {"clips/2.wav", "clips/3.wav"}
    warning = "2 of 6 clips are in no part of the split: left out"
    assert warning in capsys.readouterr().err.splitlines()
    command("evaluate", *words[:-2])
    warning = "2 of 6 clips were in the training of the run; --split test scores others"
    assert warning in capsys.readouterr().err.splitlines()
    files = [place / "data/clips/1.wav", place / "data/clips/2.wav", place / "long/short.wav"]
    command("classify", *files, "--labels", "dog,rain", *words[2:4])
    assert "1 of 3 clips were in the training of the run" in capsys.readouterr().err.splitlines()
    (run / "config.yaml").write_text(f"data: {tmp_path}\n")  # with clips of the same names
    command("evaluate", *words)  # of other data: what these say themselves
    assert "of 6 clips" not in capsys.readouterr().err
    rows = csv.DictReader((run / "evaluation-data-test/clips.csv").read_text().splitlines())
    assert {row["clip"] for row in rows} == {"clips/4.wav", "clips/5.wav"}


def test_evaluate_leaves_out_what_is_broken(place, tmp_path, capsys, no_pictures):
    for number in range(3):
        write_clip(tmp_path / f"d/{number}.wav", 1, seed=number)
        (tmp_path / f"d/{number}.txt").write_text(f"sound {number}\nLärm {number}")
    damaged = tmp_path / "d/2.flac"  # whose header is whole
    audio.write(damaged, sound(3), 48000)
    samples = sound(3)
    samples[40_000:] = np.nan
    damaged = damaged.rename(tmp_path / "d/2.aif")
    audio.soundfile.write(damaged, samples, 48000, subtype="FLOAT", format="AIFF")
    (tmp_path / "d/2.wav").unlink()
    (tmp_path / "d/3.wav").touch()
    (tmp_path / "d/3.txt").write_text("nothing")
    words = ["--data", tmp_path / "d", "--checkpoint", place / "model", "--output", tmp_path / "e"]
    found = command("evaluate", *words)
    assert (found["clips"], found["captions"], found["left_out"]) == (2, 4, 1)
    printed = capsys.readouterr()
    assert "3.wav: the file is empty" in printed.out
    assert "left out 1 of 3 recordings" in printed.out
    header, end = (tmp_path / "e/problems.txt").read_text().splitlines()
    assert "3.wav: the file is empty" in header
    assert "2.aif: " in end
    with pytest.raises(ValueError, match=r"3\.wav: the file is empty"):
        command("evaluate", *words[:-1], tmp_path / "strict", "--strict")


def test_evaluate_refuses(place, tmp_path, refused):
    write_clip(tmp_path / "one/a.wav")
    (tmp_path / "one/a.txt").write_text("rain")
    refusal = refused("evaluate", "--data", tmp_path / "one")
    assert refusal == f"{tmp_path}/one: 1 clip ('rain'), expected captions of two meanings or more"
    write_clip(tmp_path / "one/b.wav", seed=1)
    (tmp_path / "one/b.txt").write_text("Rain.")
    assert "2 clips that mean the same ('rain')" in refused("evaluate", "--data", tmp_path / "one")
    refusal = refused("evaluate", "--data", place / "data", "--split", "valid")
    assert "--split valid: the data do not name any of the 6 clips" in refusal
    refusal = refused("evaluate", "--data", place / "data", "--templates", "a sound")
    assert "found 'a sound', expected {label}" in refusal
    assert "no such folder" in refused("evaluate", "--data", tmp_path / "none")
    assert not list(tmp_path.glob("*evaluation*"))


# ---- embed


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_embed_and_read(place, tmp_path, suffix, capsys):
    target = tmp_path / f"new/index{suffix}"
    words = ["--checkpoint", place / "model", "--output", target]
    command("embed", "--data", place / "long", *words)
    assert "2 recordings" in capsys.readouterr().out
    embedder = Embedder.from_folder(place / "model")
    index = Index.read(target)
    paths = [place / "long/long.flac", place / "long/short.wav"]
    np.testing.assert_allclose(index.embeddings, embedder.audio(paths, "embedding"), atol=1e-6)
    assert index.ids == ["long.flac", "short.wav"]
    assert index.model == embedder.digest
    np.testing.assert_allclose(index.end, [25, 2])
    command("embed", "--data", place / "long", *words, "--windows", "--overwrite")
    index = Index.read(target)
    assert index.clip.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(index.start, [0, 7.5, 15, 0])
    np.testing.assert_allclose(index.end, [10, 17.5, 25, 2])
    np.testing.assert_allclose(np.linalg.norm(index.embeddings, axis=1), 1, atol=1e-6)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_safetensors_and_numpy_read_an_index(place, tmp_path):
    from safetensors.numpy import load_file

    for name in ("a.safetensors", "a.npz"):
        words = ["--checkpoint", place / "model", "--output", tmp_path / name]
        command("embed", "--data", place / "long", *words)
    arrays = load_file(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as other:
        assert other["ids"].tolist() == ["long.flac", "short.wav"]
        for key, array in arrays.items():
            np.testing.assert_array_equal(other[key], array)
    assert arrays["embeddings"].dtype == np.float32


def test_embed_reads_tars_and_leaves_out_what_is_broken(place, tmp_path, capsys):
    data = tmp_path / "data"
    write_clip(data / "z.wav", 1)
    (data / "bad.wav").write_text("bad")
    with tarfile.open(data / "shard.tar", "w") as tar:
        tar.add(place / "long/short.wav", "x/one.wav")
        tar.add(place / "data/metadata.csv", "x/two.csv")
    words = ["--checkpoint", place / "model", "--data", data, "--output", tmp_path / "i.npz"]
    index = command("embed", *words)
    assert index.ids == ["shard.tar/x/one.wav", "z.wav"]
    printed = capsys.readouterr().err
    assert "left out 1 of 3 recordings" in printed
    (tmp_path / "i.npz").unlink()
    with pytest.raises(ValueError, match=r"bad\.wav: not readable"):
        command("embed", *words, "--strict")
    assert not (tmp_path / "i.npz").exists()


def test_embed_refuses_before_it_reads_audio(place, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(Embedder, "from_folder", None)
    target = tmp_path / "index.npz"
    target.write_text("mine")
    refusal = refused("embed", "--data", place / "long", "--output", target)
    assert refusal == f"--output {target}: exists already; --overwrite replaces it"
    assert target.read_text() == "mine"
    refusal = refused("embed", "--data", place / "long", "--output", tmp_path / "index.txt")
    assert refusal.endswith("found '.txt', expected .safetensors or .npz")
    refusal = refused("embed", "--data", place / "long", "--output", target / "below.npz")
    assert "is a file, expected a folder" in refusal
    (tmp_path / "empty").mkdir()
    refusal = refused("embed", "--data", tmp_path / "empty", "--output", tmp_path / "x.npz")
    assert refusal.startswith(f"{tmp_path}/empty: no audio in it, expected WAV")
    refusal = refused("embed", "--data", tmp_path / "none", "--output", tmp_path / "x.npz")
    assert refusal == f"{tmp_path}/none: no such file or folder"


# ---- search


@pytest.fixture(scope="module")
def index(place):
    target = place / "index.safetensors"
    words = ["--checkpoint", place / "model", "--output", target, "--windows"]
    command("embed", "--data", place / "long", *words)
    return target


def test_search_by_sound_and_by_text(place, index, tmp_path, capsys):
    part = tmp_path / "part.wav"
    audio.write(part, audio.read(place / "long/long.flac", 16000, 15, 10), 16000)
    words = ["--index", index, "--checkpoint", place / "model"]
    every = ["--per-file", 9, "--output", tmp_path / "found.csv"]
    found = command("search", "--audio", part, *words, *every)
    assert (found[0]["file"], found[0]["start"]) == ("long.flac", 15)
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert [row["rank"] for row in found] == [1, 2, 3, 4]
    model, head, first, *_ = capsys.readouterr().out.splitlines()
    assert model == f"model: {place}/model"
    assert head.split() == ["rank", "cosine", "start", "file"]
    assert first.split() == ["1", "1.000", "0:15", "long.flac"]
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [row["file"] for row in found]
    own = command("search", "--audio", place / "long/long.flac", *words)
    assert {row["file"] for row in own} == {"short.wav"}
    found = command("search", "rain on a roof", *words, "--top", 2, "--output", tmp_path / "f.json")
    assert len(found) == 2
    assert json.loads((tmp_path / "f.json").read_text()) == found
    assert {row["file"] for row in found} == {"long.flac", "short.wav"}
    model = ["--checkpoint", place / "model"]
    for folder in (["--data", place / "long"], ["--index", place / "long"]):
        by_folder = command("search", *"rain on a roof".split(), *folder, *model)
        assert [list(row.values()) for row in by_folder] == [
            pytest.approx(list(row.values()), abs=1e-6) for row in found
        ]


def test_a_file_alone_is_searched_for_all_its_windows(place):
    words = ["--data", place / "long/long.flac", "--checkpoint", place / "model"]
    found = command("search", "rain", *words)
    assert sorted(row["start"] for row in found) == [0, 7.5, 15]
    assert command("search", "rain", *words, "--per-file", 1) == found[:1]


def test_search_refuses(place, index, tmp_path, refused):
    refusal = refused(
        "search", "rain", "--index", index, "--checkpoint", place / "other", checkpoint=False
    )
    assert refusal.startswith(f"--index {index}: made by {place}/model with weights of digest ")
    assert refusal.endswith("--checkpoint names its model, or embed again")
    for words in ([], ["rain", "--audio", "x.wav"], ["  "]):
        assert "--audio FILE, and not both" in refused("search", *words, "--index", index)
    for words in ([], ["--index", index, "--data", place / "long"]):
        assert "--data FOLDER, or --index FILE" in refused("search", "rain", *words)
    assert "no such audio file" in refused(
        "search", "--audio", tmp_path / "x.wav", "--index", index
    )
    assert "top=0" in refused("search", "rain", "--index", index, "--top", 0)
    assert "exists already" in refused(
        "search", "rain", "--index", index, "--output", _file(tmp_path / "a.csv")
    )
    assert "expected .csv or .json" in refused(
        "search", "rain", "--index", index, "--output", "a.txt"
    )


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz"])
def test_an_index_is_searched_by_the_model_that_made_it(place, tmp_path, name, capsys):
    save_model(tmp_path / "mine/model", seed=2)
    data = ["--data", place / "long"]
    command("embed", *data, "--checkpoint", tmp_path / "mine", "--output", tmp_path / name)
    capsys.readouterr()
    index = ["--index", tmp_path / name]
    found = command("search", "rain", *index)
    assert capsys.readouterr().out.startswith(f"model: {tmp_path}/mine/model\n")
    assert command("search", "rain", *index, "--checkpoint", tmp_path / "mine") == found
    save_model(tmp_path / "mine/model", seed=3)
    with pytest.raises(ValueError, match=f"made by {tmp_path}/mine/model with weights of digest"):
        command("search", "rain", *index)
    (tmp_path / "mine").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="/mine/model, where there is no model any more"):
        command("search", "rain", *index)
    save_model(tmp_path / "moved/model", seed=2)
    assert command("search", "rain", *index, "--checkpoint", tmp_path / "moved") == found
    replace(Index.read(tmp_path / name), checkpoint="").write(tmp_path / name)
    with pytest.raises(ValueError, match="does not say which model made it: --checkpoint names it"):
        command("search", "rain", *index)


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"no index at all", "cut", "foreign"])
def test_other_files_are_no_index(place, index, tmp_path, refused, name, content):
    path = tmp_path / name
    if content == "foreign":
        if name.endswith("npz"):
            np.savez(path, embeddings=np.zeros((2, 3)))
        else:
            path.write_bytes((place / "model/model.safetensors").read_bytes())
    elif content == "cut":
        Index.read(index).write(path)
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.write_bytes(content)
    refusal = refused("search", "rain", "--index", path)
    assert refusal.startswith(f"{path}: not an index that `embed` wrote: ")
    assert "`embed --output` writes one" in refused(
        "search", "rain", "--index", tmp_path / "none.npz"
    )


# ---- classify


def test_classify(place, tmp_path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("dog\n\nrain\nsea_waves\ndog\n", encoding="utf-8")
    words = ["--checkpoint", place / "model", "--labels"]
    paths = [place / "long", place / "data/clips/0.wav"]
    found = command("classify", *paths, *words, labels, "--output", tmp_path / "a.json", "--top", 9)
    assert [one["file"] for one in found] == [
        str(place / "long/long.flac"),
        str(place / "long/short.wav"),
        str(paths[1]),
    ]
    for one in found:
        shares = [chosen["share"] for chosen in one["classes"]]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert {chosen["class"] for chosen in one["classes"]} == {"dog", "rain", "sea_waves"}
    assert json.loads((tmp_path / "a.json").read_text()) == found
    lines = capsys.readouterr().out.splitlines()[1:]  # without the model
    assert len(lines) == 3
    assert len({line.index("%") for line in lines}) == 1
    more = ["--output", tmp_path / "a.csv", "--top", 1]
    again = command("classify", paths[1], *words, "dog,rain", "sea_waves", *more)
    assert again[0]["classes"][0] == pytest.approx(found[2]["classes"][0])
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [found[2]["classes"][0]["class"]]


def test_shares_are_the_softmax_of_the_models_logits(place):
    embedder = Embedder.from_folder(place / "model")
    path = place / "data/clips/3.wav"
    text = embedder.text(["This is a sound of dog.", "This is a sound of rain."])
    cosines = text @ embedder.audio([path], "embedding")[0]
    scale = float(np.exp(np.array(embedder.model.logit_scale_a)))
    wanted = np.exp(scale * cosines) / np.exp(scale * cosines).sum()
    found = command("classify", path, "--labels", "dog,rain", "--checkpoint", place / "model")
    shares = {chosen["class"]: chosen["share"] for chosen in found[0]["classes"]}
    np.testing.assert_allclose([shares["dog"], shares["rain"]], wanted, atol=1e-5)


def test_classify_refuses(place, tmp_path, refused):
    file = place / "data/clips/0.wav"
    assert "found dog, expected two" in refused("classify", file, "--labels", "dog,")
    assert "can't be read" in refused("classify", file, "--labels", tmp_path / "no.txt")
    (tmp_path / "latin.txt").write_bytes(b"h\xe9\nb")
    assert "not UTF-8 text (byte 1)" in refused(
        "classify", file, "--labels", tmp_path / "latin.txt"
    )
    (tmp_path / "bad.wav").write_text("bad")
    refusal = refused("classify", tmp_path / "bad.wav", "--labels", "a,b")
    assert refusal.startswith(f"{tmp_path}/bad.wav: not readable as audio")
    assert read_labels(["a, b", "c"]) == ["a", "b", "c"]


def _file(path, text="mine"):
    path.write_text(text)
    return path
