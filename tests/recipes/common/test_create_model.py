"""create_model: models by name and sizes, and heads with their loss and predictions."""

import mlx.core as mx
import numpy as np
import pytest

from audiotrain import CLAP, ChordRecognitionModel, DataLoader, create_model, create_trainer

BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 16, "max_position_embeddings": 16}
MELS = {"num_mel_bins": 16, "spec_size": 32, "window_size": 4, "patch_size": 4}
MELS |= {"patch_embeds_hidden_size": 8, "depths": (1, 1), "num_attention_heads": (2, 2)}


def test_models_by_name():
    model = create_model("chords", d_model=32, num_blocks=1)
    assert isinstance(model, ChordRecognitionModel)
    clap = create_model("clap", audio_config=MELS, text_config=BERT, projection_dim=8)
    assert isinstance(clap, CLAP)
    assert clap.embed_text(mx.array([[0, 4, 2]])).shape == (1, 8)
    mel = create_model("mel_with_head", **MELS)
    assert mel.predict_step((mx.zeros((2, 1, 64, 16)), None)).shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head_type", "labels", "targets"),
    [
        ("binary_classification", None, np.arange(24) % 2),
        ("multiclass_classification", 3, np.arange(24) % 3),
        ("multilabel_classification", 2, np.stack([np.arange(24) % 2, np.arange(24) % 3 > 0], 1)),
        ("regression", None, np.arange(24) % 4 / 4),
    ],
)
def test_a_bert_with_a_head_learns_its_targets(tmp_path, head_type, labels, targets):
    tokens = np.random.default_rng(0).integers(2, 50, (24, 6)).astype(np.int32)
    targets = targets.astype(np.int32 if targets.ndim == 1 and head_type[0] != "r" else np.float32)
    sizes = BERT | {"hidden_dropout_prob": 0.0} | ({"num_labels": labels} if labels else {})
    trainer = create_trainer(
        lambda: create_model("bert_with_head", head_type=head_type, **sizes),
        "development",
        output_dir=tmp_path / "run",
        progress=False,
        num_epochs=60,
        batch_size=12,
        learning_rate=0.01,
    )
    data = {"input_ids": tokens, "attention_mask": np.ones((24, 6), np.int32), "labels": targets}
    result = trainer.train(data, data)
    assert result.metrics["val_loss"] < 0.1 * result.history[0]["val_loss"]
    found = np.concatenate([np.array(part) for part in trainer.predict(data)])
    if head_type == "multiclass_classification":
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        found, targets = found, np.eye(3)[targets]
    assert np.abs(found - targets).mean() < 0.1
    pairs = DataLoader([*zip(tokens, targets, strict=True)], 12)  # (x, targets), without a mask
    again = np.concatenate([np.array(part) for part in trainer.predict(pairs)])
    np.testing.assert_allclose(again, found, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("bert_with_heads", {}, "found 'bert_with_heads' .did you mean bert_with_head.., expected"),
        ("bert_with_head", {"head_type": "binary"}, "head_type is 'binary'.*, expected one of bin"),
        ("bert_with_head", {"num_labels": 3}, "num_labels is 3 for 'binary_cl.*', expected none"),
        (
            "table_with_head",
            {"head_type": "multiclass_classification", "width": 3},
            "num_labels is None for 'multiclass_classification', expected the number of classes",
        ),
        (
            "table_with_head",
            {},
            "create_model: EmbeddingClassifier: missing .*'width', expected width, classes, hidden",
        ),
        ("chords", {"size": 3}, "ChordRecognitionModel: .*argument 'size', expected d_model, num_"),
        ("clap", {"audio_config": 3}, "audio_config: found .3., expected HTSATConfig"),
        ("bert_with_head", {"hiden_size": 3}, "hiden_size"),
    ],
)
def test_refused_names_and_sizes(name, sizes, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **sizes)
