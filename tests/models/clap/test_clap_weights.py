"""Folders of CLAP models: read, refused, written, and read by transformers."""

import json
import os

import huggingface_hub.constants
import mlx.core as mx
import numpy as np
import pytest
from clap_folders import cache_model, save_model
from mlx.utils import tree_flatten

from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.clap.weights import (
    RELEASED,
    HubError,
    hf_name,
    is_hub_id,
    pretrained_folder,
)

CONFIG = CLAPConfig(
    HTSATConfig(
        spec_size=64,
        window_size=4,
        patch_embeds_hidden_size=8,
        depths=(2, 1),
        num_attention_heads=(2, 2),
        enable_fusion=True,
    ),
    RoBERTaConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
    ),
    projection_dim=6,
)


@pytest.fixture
def folder(tmp_path):
    """A saved model."""
    mx.random.seed(0)
    CLAP(CONFIG).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def outputs(model: CLAP) -> np.ndarray:
    rng = np.random.default_rng(0)
    audio = mx.array(rng.normal(-20, 5, (2, 4, 60, 64)).astype(np.float32))
    ids = mx.array(rng.integers(4, 30, (2, 7)))
    return np.array(model.eval()(audio, ids, None, mx.array([True, False]))["logits_per_audio"])


def rewrite(folder, change) -> None:
    """Change the arrays of a model.safetensors."""
    file = folder / "model.safetensors"
    arrays = dict(mx.load(str(file)))
    mx.eval(arrays)
    change(arrays)
    mx.save_safetensors(str(file), arrays)


def test_what_was_saved_is_loaded(folder):
    mx.random.seed(0)
    model = CLAP(CONFIG)
    loaded = CLAP.from_pretrained(folder)
    assert loaded.config == CONFIG
    assert not loaded.training
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_transformers_reads_what_was_saved(folder):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    transformers = pytest.importorskip("transformers", reason="audiotrain[reference]")
    theirs, told = transformers.ClapModel.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    rng = np.random.default_rng(0)
    audio = rng.normal(-20, 5, (2, 4, 60, 64)).astype(np.float32)
    ids = rng.integers(4, 30, (2, 7))
    with torch.no_grad():
        expected = theirs.eval()(
            input_features=torch.from_numpy(audio),
            input_ids=torch.from_numpy(ids),
            is_longer=torch.tensor([[True], [False]]),
        )
    found = outputs(CLAP.from_pretrained(folder))
    np.testing.assert_allclose(found, expected.logits_per_audio.numpy(), atol=1e-5)


def test_half_precision_files_become_float32(folder):
    before = outputs(CLAP.from_pretrained(folder))

    def halve(arrays):
        arrays |= {name: array.astype(mx.float16) for name, array in arrays.items()}

    rewrite(folder, halve)
    model = CLAP.from_pretrained(folder)
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}
    np.testing.assert_allclose(outputs(model), before, atol=0.1)


def test_every_key_that_does_not_fit_is_named(folder):
    def change(arrays):
        arrays.pop("audio_projection.linear1.bias")
        arrays.pop("text_model.pooler.dense.weight")
        arrays["classifier.weight"] = mx.zeros((2, 2))
        arrays["logit_scale_a"] = mx.zeros((3,))

    rewrite(folder, change)
    with pytest.raises(ValueError, match="model.safetensors does not fit the model") as error:
        CLAP.from_pretrained(folder)
    message = str(error.value)
    assert "2 missing: audio_projection.linear1.bias, text_model.pooler.dense.weight" in message
    assert "1 unexpected: classifier.weight" in message
    assert "1 misshaped: logit_scale_a (found (3,), expected ())" in message
    assert "\n" not in message


def test_damaged_and_missing_files_are_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="neither model.safetensors nor pytorch_model.bin"):
        CLAP.from_pretrained(tmp_path / "empty")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="model.safetensors: damaged"):
        CLAP.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        CLAP.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        CLAP.from_pretrained(folder)


def test_companions_are_copied_and_others_stay(folder, tmp_path):
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    (target / "tokenizer.json").write_text("old")
    (folder / "tokenizer.json").write_text("new")
    (folder / "training_log.txt").write_text("not copied")
    CLAP.from_pretrained(folder).save_pretrained(target, source=folder)
    assert (target / "tokenizer.json").read_text() == "new"
    assert (target / "notes.txt").read_text() == "mine"
    assert not (target / "training_log.txt").exists()
    assert not list(target.glob(".*.partial-*"))


def test_what_cannot_be_written_keeps_what_was_there(folder, monkeypatch, tmp_path):
    before = (folder / "model.safetensors").read_bytes()
    model = CLAP(CONFIG)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write the model \(No space left on device\)"):
        model.save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*.partial-*"))
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write the model"):
        model.save_pretrained(tmp_path / "file")


def test_saving_where_it_was_loaded_from(folder):
    model = CLAP.from_pretrained(folder)
    before = outputs(model)
    model.save_pretrained(folder, source=folder)
    np.testing.assert_array_equal(outputs(CLAP.from_pretrained(folder)), before)


def test_sparse_and_verbose_configs_are_the_same():
    larger = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024}
    sparse = CLAPConfig.from_dict({"model_type": "clap", "audio_config": larger})
    assert sparse == CLAPConfig(HTSATConfig(patch_embeds_hidden_size=128, depths=(2, 2, 12, 2)))
    verbose = json.loads(json.dumps(sparse.to_dict())) | {"hidden_size": 768, "torch_dtype": "f"}
    verbose["audio_config"]["patch_size"] = [4, 4]
    verbose["text_config"]["bos_token_id"] = 0
    assert CLAPConfig.from_dict(verbose) == sparse
    assert CLAPConfig.from_dict({}) == CLAPConfig()


@pytest.mark.parametrize("fusion", [False, True])
def test_configs_equal_transformers(fusion):
    transformers = pytest.importorskip("transformers", reason="audiotrain[reference]")
    audio = {"enable_fusion": fusion, "fusion_type": "aff_2d" if fusion else None}
    theirs = transformers.ClapConfig(audio_config=audio)
    assert CLAPConfig.from_dict(theirs.to_dict()) == CLAPConfig(HTSATConfig(enable_fusion=fusion))
    ours = transformers.ClapConfig.from_dict(CONFIG.to_dict())
    assert CLAPConfig.from_dict(ours.to_dict()) == CONFIG


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        (None, {"model_type": "bert"}, "model_type='bert', expected 'clap'"),
        (None, {"projection_dim": 0}, "projection_dim=0, expected 1 to 1000000"),
        (None, {"audio_config": [1]}, "audio_config=[1], expected an object"),
        (None, {"text_config": "x"}, "text_config='x', expected an object"),
        ("audio_config", {"spec_size": 10**9}, "spec_size=1000000000, expected 1 to 4096"),
        ("text_config", {"vocab_size": 10**12}, "vocab_size=1000000000000, expected 1 to 1000000"),
        ("audio_config", {"hidden_act": "relu"}, "hidden_act='relu', expected 'gelu'"),
        ("audio_config", {"patch_stride": [2, 2]}, "patch_stride=2, expected 4"),
        ("audio_config", {"hidden_size": 1024}, "hidden_size=1024, expected 768"),
        ("audio_config", {"depths": [2, 2]}, "expected as many heads as stages"),
        ("audio_config", {"depths": 2}, "depths: found '2', expected a list, each a whole number"),
        ("audio_config", {"window_size": 7}, "expected multiples of window_size=7"),
        ("audio_config", {"num_mel_bins": 60}, "expected each to be a multiple of the next"),
        ("audio_config", {"num_attention_heads": [5, 8, 16, 32]}, "width 96 and 5 heads"),
        (
            "audio_config",
            {"drop_path_rate": 1},
            "drop_path_rate=1.0, expected 0 or more and less than 1",
        ),
        (
            "audio_config",
            {"enable_fusion": True, "fusion_type": "channel_map"},
            "fusion_type='channel_map', expected 'aff_2d'",
        ),
        ("text_config", {"type_vocab_size": 2}, "type_vocab_size=2, expected 1"),
        (
            "text_config",
            {"hidden_size": "768"},
            "hidden_size: found '768', expected a whole number",
        ),
        ("text_config", {"hidden_size": 100}, "not a multiple of num_attention_heads=12"),
    ],
)
def test_other_models_are_refused(section, values, told):
    with pytest.raises(ValueError, match=r"^here.json: ") as error:
        CLAPConfig.from_dict(values if section is None else {section: values}, "here.json")
    assert told in str(error.value)


def test_every_weight_has_a_name_of_its_own():
    names = [name for name, _ in tree_flatten(CLAP(CONFIG).parameters())]
    assert len({hf_name(name) for name in names}) == len(names) > 60


def test_the_small_model_is_small():
    model = CLAP(CLAPConfig.small())
    heard = sum(array.size for _, array in tree_flatten(model.audio_encoder.parameters()))
    assert 1e6 < heard < 3e6
    assert model.config.text_config.max_tokens >= 77


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs/clap-frist", "not in runs, which holds clap-first (did you mean clap-first?)"),
        ("runs/model.pt", "a file"),
        ("runs/other.pt", "not in runs, which holds clap-first"),
        ("else/model.safetensors", "no such folder"),
        ("./missing/model", "no such folder"),
        ("missing", "no such folder"),
        ("../owner/name", "no such folder"),
    ],
)
def test_what_is_of_this_computer_is_no_hub_id(tmp_path, monkeypatch, name, found):
    def asked(*_, **__):
        raise AssertionError("the hub is asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "clap-first").mkdir(parents=True)
    (tmp_path / "runs" / "model.pt").touch()
    with pytest.raises(ValueError, match="expected a folder or a hub id such as laion/") as error:
        pretrained_folder(name)
    assert str(error.value).startswith(f"{name}: {found}, expected")
    assert "\n" not in str(error.value)


def test_the_released_model_is_of_the_hub_whatever_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laion" / "other").mkdir(parents=True)
    assert is_hub_id(RELEASED)
    assert not is_hub_id("laion/otter")


def test_the_hub_offline(monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nowhere")
    with pytest.raises(HubError, match="nobody/nothing: no folder, not in the cache") as error:
        pretrained_folder("nobody/nothing")
    assert str(error.value).endswith(
        "/nowhere, and HF_HUB_OFFLINE is set. Unset it, set HF_ENDPOINT to a mirror or HF_HOME to "
        "another cache"
    )
    assert not capsys.readouterr().err


def test_the_hub_gives_safetensors_or_else_the_bin(monkeypatch, tmp_path, capsys):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, list(allow_patterns)))
        if name != "nobody/empty":
            (tmp_path / "config.json").touch()
        if "pytorch_model.bin" in allow_patterns and name.startswith("laion"):
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(HubError, match=r"nobody/empty: .* has no config\.json of it\. Connect"):
        pretrained_folder("nobody/empty")
    with pytest.raises(HubError, match=r" no model\.safetensors and no pytorch_model\.bin of it"):
        pretrained_folder("nobody/nothing")
    asked.clear()
    capsys.readouterr()
    assert pretrained_folder("laion/clap-htsat-unfused") == tmp_path
    line = "fetching laion/clap-htsat-unfused from Hugging Face's hub, about 600 MB, once\n"
    assert capsys.readouterr().err == line
    assert ["pytorch_model.bin" in names for _, names in asked] == [False, True]
    (tmp_path / "model.safetensors").write_bytes(b"")
    asked.clear()
    pretrained_folder("laion/clap-htsat-fused")
    assert ["pytorch_model.bin" in names for _, names in asked] == [False]
    assert {"tokenizer.json", "processor_config.json"} <= set(asked[0][1])
    line = "fetching laion/clap-htsat-fused from Hugging Face's hub\n"
    assert capsys.readouterr().err == line


def test_what_the_hubs_cache_has_needs_no_network(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: asked.append(1) or str(snapshot)
    )
    snapshot = cache_model(tmp_path / "hub", save_model(tmp_path / "model"))
    assert pretrained_folder("laion/clap-htsat-unfused") == snapshot
    assert not asked
    assert not capsys.readouterr().err
    (snapshot / "preprocessor_config.json").unlink()  # of a download that was interrupted
    assert pretrained_folder("laion/clap-htsat-unfused") == snapshot
    assert asked
    (snapshot / "processor_config.json").touch()  # as transformers 5 writes it
    asked.clear()
    assert pretrained_folder("laion/clap-htsat-unfused") == snapshot
    assert not asked


def test_a_model_from_a_bin_file(folder):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    before = outputs(CLAP.from_pretrained(folder))
    arrays = mx.load(str(folder / "model.safetensors"))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    np.testing.assert_array_equal(outputs(CLAP.from_pretrained(folder)), before)
