"""Models of CLAP runs: exported, of a run that goes on, between a start and an end."""

import shutil

import mlx.core as mx
import numpy as np
import pytest
import tiny_clap
from tiny_clap import captioned, command, make_quick, tuned

from audiotrain.models.clap import CLAP
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.clap import recipe
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.pretrained import withdraw
from audiotrain.train import checkpoint
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that holds `data`, `cache`, the model folder `start` and the trained `run`."""
    folder = tmp_path_factory.mktemp("export")
    captioned(folder / "data")
    tiny_clap.pretrained(folder / "start")
    return folder


@pytest.fixture(scope="module")
def run(place):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        assert command(*tuned(place, place / "run")) == 0
    return place / "run"


@pytest.fixture
def quick(run, monkeypatch):
    """Small runs without what takes their time."""
    make_quick(monkeypatch)


def test_export_lies_between_start_and_end(run, place, tmp_path, capsys):
    before, after = (arrays_of(CLAP.from_pretrained(f)) for f in (place / "start", run / "model"))
    for share in (0, 0.25, 1):
        output = tmp_path / str(share)
        assert command("export", "--checkpoint", run, "--output", output, "--share", share) == 0
        found = arrays_of(CLAP.from_pretrained(output))
        for name, array in found.items():
            wanted = (1 - share) * before[name] + share * after[name]
            np.testing.assert_allclose(array, wanted, atol=1e-6, err_msg=name)
    assert command("export", "--checkpoint", run.parent, "--output", tmp_path / "newest") == 0
    assert command("export", "--checkpoint", run, "--output", tmp_path / "1") == 2
    assert "exists already" in capsys.readouterr().err


def test_the_start_is_found_from_anywhere_and_must_be_the_same(
    quick, place, tmp_path, monkeypatch, capsys
):
    """Named relative to where training ran; and its folder may hold other weights by now."""
    start = tmp_path / "start"
    shutil.copytree(place / "start", start)
    monkeypatch.chdir(tmp_path)
    assert command(*tuned(place, "run", "--pretrained", "start")) == 0
    monkeypatch.chdir(place)
    export = ["export", "--checkpoint", tmp_path / "run", "--share", 0.5, "--output"]
    assert command(*export, tmp_path / "out") == 0
    tiny_clap.model(seed=1).save_pretrained(start)
    capsys.readouterr()
    assert command(*export, tmp_path / "more") == 2
    assert command("--output", tmp_path / "run", "--resume") == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 2
    for line in printed:
        assert line.startswith(f"error: {start}: its weights have digest ")
        assert line.endswith(": they were replaced")
    assert not (tmp_path / "more").exists()


def test_a_stopped_run_is_exported_from_its_best(run, place, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    assert command("export", "--checkpoint", tmp_path / "run", "--output", tmp_path / "out") == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "model" / name).read_bytes()


def test_a_run_that_goes_on_has_no_model_until_its_end(quick, run, tmp_path, capsys):
    """Neither what it had nor what was exported before stands for its new best."""
    going, outputs = tmp_path / "run", [tmp_path / "first", tmp_path / "second"]
    shutil.copytree(run, going)
    withdraw(going)  # as when it is resumed
    best = going / "checkpoints" / "best"
    arrays, meta = checkpoint.load(best)
    bias = "clap.audio_projection.linear1.bias"
    for output in outputs:
        assert command("export", "--checkpoint", going, "--output", output) == 0
        found = CLAP.from_pretrained(output).audio_projection.linear1.bias
        assert mx.array_equal(found, arrays["model"][bias])
        arrays["model"][bias] = arrays["model"][bias] + 1
        checkpoint.save(best, arrays, meta)
    with pytest.raises(ValueError, match="a run that was stopped.*--resume finishes it, `export"):
        Embedder.from_folder(going)


def test_resuming_withdraws_the_model(quick, run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")

    def stopped(*_):
        raise UserError("stopped")

    monkeypatch.setattr(recipe, "write_best", stopped)
    assert command("--output", tmp_path / "run", "--resume") == 2
    assert not (tmp_path / "run" / "model" / "config.json").exists()


def test_a_resume_that_is_refused_changes_nothing(quick, run, tmp_path, capsys):
    going = tmp_path / "run"
    shutil.copytree(run, going)
    arrays, meta = checkpoint.load(going / "checkpoints" / "last")
    name = next(iter(arrays["model"]))
    arrays["model"][name] = arrays["model"][name][:1]
    checkpoint.save(going / "checkpoints" / "last", arrays, meta)
    before = {p: p.read_bytes() for p in going.rglob("*") if p.is_file()}
    assert command("--output", going, "--resume", "--steps", 99) == 2
    assert name in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in going.rglob("*") if p.is_file()}


def test_transformers_reads_what_is_exported(quick, place, tmp_path):
    transformers = pytest.importorskip("transformers", reason="audiotrain[reference]")
    torch = pytest.importorskip("torch", reason="audiotrain[reference]")
    assert command(*tuned(place, tmp_path / "run", "--mode", "lora")) == 0
    output = tmp_path / "out"
    command("export", "--checkpoint", tmp_path / "run", "--output", output, "--share", 0.5)
    ours = CLAP.from_pretrained(output)
    theirs, printed = transformers.ClapModel.from_pretrained(output, output_loading_info=True)
    assert not printed["missing_keys"]
    assert not printed["unexpected_keys"]
    tokenizer = transformers.RobertaTokenizerFast.from_pretrained(output)
    captions = ["a shrill tone number 3", "tone 4, low"]
    ids, mask = Tokenizer.read(output, 24)(captions)
    encoded = tokenizer(captions, padding="max_length", max_length=24, return_tensors="pt")
    np.testing.assert_array_equal(encoded["input_ids"], ids)
    mel = np.random.default_rng(0).normal(-40, 10, (2, 1, 51, 16)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs.eval()(input_features=torch.tensor(mel), **encoded)
    found = ours(mx.array(mel), mx.array(ids), mx.array(mask))
    np.testing.assert_allclose(found["logits_per_audio"], wanted.logits_per_audio, atol=2e-4)
    np.testing.assert_allclose(found["text_embeds"], wanted.text_embeds, atol=1e-5)
