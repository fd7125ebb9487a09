"""What `--checkpoint` may name: which model is taken, and folders that cannot be one."""

import json
import os
import pickle
import zipfile

import huggingface_hub.constants
import mlx.core as mx
import numpy as np
import pytest
from clap_folders import save_model, write_clip

from audiotrain.models.clap.tokenizer import train_bpe
from audiotrain.recipes.clap.embedder import Embedder, model_folder


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model")


def refusal(folder) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(ValueError, match=".") as caught:
        Embedder.from_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_newest_run_is_taken(tmp_path):
    for age, name in enumerate(["new", "old"]):
        save_model(tmp_path / name / "model")
        os.utime(tmp_path / name / "model/config.json", (1e9 - age, 1e9 - age))
    (tmp_path / "empty").mkdir()
    assert model_folder(tmp_path) == tmp_path / "new/model"
    assert model_folder(tmp_path / "old") == tmp_path / "old/model"
    assert model_folder(tmp_path / "old/model") == tmp_path / "old/model"


def test_digest_tells_models_apart(folder, tmp_path):
    folders = [
        folder,
        save_model(tmp_path / "same"),
        save_model(tmp_path / "other", seed=1),
        save_model(tmp_path / "fused", fusion=True),
    ]
    found = [Embedder.from_folder(folder).digest for folder in folders]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_the_model_is_in_eval_mode(folder):
    assert not Embedder.from_folder(folder).model.training


def test_a_front_end_is_needed_that_fits(folder):
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text())
    file.unlink()
    assert "found no preprocessor_config.json" in refusal(folder)
    for change, message in (
        (
            {"max_length_s": 20},
            "gives 2001 frames of 64 mels, fusion False; the model takes up to 1024 of 64",
        ),
        ({"feature_size": 32}, "gives 1001 frames of 32 mels"),
        ({"truncation": "none"}, "truncation: found 'none', expected one of"),
    ):
        file.write_text(json.dumps(content | change))
        assert message in refusal(folder)


def test_a_tokenizer_is_needed_that_fits(folder):
    train_bpe([f"word{n} thing{n}" for n in range(300)], 600).save(folder)
    message = "but the text encoder has a vocabulary of 300: it belongs to another checkpoint"
    assert message in refusal(folder)
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    assert "found no tokenizer.json and no vocab.json" in refusal(folder)


def test_other_folders_and_names(folder, tmp_path, monkeypatch):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "bert"}))
    assert "model_type='bert', expected 'clap'" in refusal(folder)
    (folder / "config.json").unlink()
    message = "found no config.json of a model and no trained run there"
    assert message in refusal(folder)
    monkeypatch.chdir(tmp_path)
    assert refusal("runs").startswith(f"--checkpoint runs: {message}")
    assert "expected a folder or a hub id" in refusal(tmp_path / "none")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal("nobody/no-such-model").startswith("nobody/no-such-model: no folder, not in")


def test_weights_must_be_whole_and_run_nothing(folder, tmp_path):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1000])
    assert refusal(folder).startswith(f"{file}: damaged")
    file.unlink()
    assert "neither model.safetensors nor pytorch_model.bin in it" in refusal(folder)

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": Bomb()}))
    assert "which weights do not need" in refusal(folder)
    assert not (tmp_path / "boom").exists()


def test_weights_that_are_not_finite_are_told(folder, tmp_path):
    file = folder / "model.safetensors"
    arrays = dict(mx.load(str(file)))
    mx.eval(arrays)
    for tower in ("audio", "text"):
        arrays[f"{tower}_projection.linear2.bias"] = mx.full((12,), np.nan)
    mx.save_safetensors(str(file), arrays, metadata={"format": "pt"})
    embedder = Embedder.from_folder(folder)
    clip = write_clip(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"model: the embedding of .*a\.wav is not finite"):
        embedder.audio([clip], "embedding")
    with pytest.raises(ValueError, match="model: gives embeddings of text that are not finite"):
        embedder.text(["rain"])


@pytest.mark.parametrize("setting", ["batch_size", "workers"])
def test_settings_that_cannot_be(folder, setting):
    with pytest.raises(ValueError, match=f"{setting}=0, expected 1 or more"):
        Embedder.from_folder(folder, **{setting: 0})
