"""Tokenizer against transformers' own, and what any caption must survive."""

import json
import pickle

import numpy as np
import pytest

from audiotrain.models.clap.tokenizer import SMALLEST_VOCABULARY, Tokenizer, train_bpe

CAPTIONS = [
    "This is a sound of rain.",
    "A dog barks, then a bell rings twice",
    "rain while a siren rises",
    "the rain on the roof and the bell",
]
STRANGE = [
    "",
    "   ",
    "rain " * 2000,
    "Überfälle à côté — 雨の音 🐕",
    "a\nb\tc",
    "<s> <mask> x </s>",
    "\x00",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(CAPTIONS * 3, size=310)


def test_special_tokens_are_where_the_text_encoder_expects_them(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert [vocabulary[name] for name in names] == [0, 1, 2, 3, 4]
    assert tokenizer.size == len(vocabulary) == 310


def test_shape_padding_and_mask(tokenizer):
    ids, mask = tokenizer(["rain", "", "rain " * 2000])
    assert ids.shape == mask.shape == (3, 77)
    assert ids.dtype == mask.dtype == np.int32
    assert (ids[:, 0] == 0).all()
    assert ids[1].tolist() == [0, 2] + [1] * 75
    assert ((ids != 1) == (mask == 1)).all()
    assert mask[2].sum() == 77
    assert ids[2, -1] == 2, "a long caption keeps its end token"


def test_those_that_are_cut_are_told(tokenizer):
    """Start and end are tokens, too."""
    fit = next(n for n in range(300, 0, -1) if not tokenizer.longer(["x" * n]))
    assert tokenizer(["x" * fit])[1].all()
    assert tokenizer.longer(["x" * fit, "", "x" * (fit + 1)]) == ["x" * (fit + 1)]
    assert tokenizer.longer([]) == []


def test_no_captions_are_no_rows(tokenizer):
    ids, mask = tokenizer([])
    assert ids.shape == mask.shape == (0, 77)


@pytest.mark.parametrize("text", [*CAPTIONS, STRANGE[3], STRANGE[4]])
def test_decode_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer([text])[0][0]) == text


def test_a_caption_means_the_same_in_any_batch(tokenizer):
    ids, mask = tokenizer(STRANGE)
    for row, text in enumerate(STRANGE):
        alone, alone_mask = tokenizer([text])
        np.testing.assert_array_equal(ids[row], alone[0])
        np.testing.assert_array_equal(mask[row], alone_mask[0])


def test_saved_and_read_from_either_layout(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    expected = tokenizer(CAPTIONS + STRANGE)
    np.testing.assert_array_equal(Tokenizer.read(tmp_path)(CAPTIONS + STRANGE), expected)
    (tmp_path / "tokenizer.json").unlink()
    np.testing.assert_array_equal(Tokenizer.read(tmp_path)(CAPTIONS + STRANGE), expected)
    assert Tokenizer.read(tmp_path, length=5)(CAPTIONS)[0].shape == (4, 5)


def test_equal_to_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    for files in ("tokenizer.json", "vocab.json"):
        if files == "vocab.json":
            (tmp_path / "tokenizer.json").unlink()
        theirs = transformers.RobertaTokenizerFast.from_pretrained(tmp_path)
        found = theirs(
            CAPTIONS + STRANGE, padding="max_length", truncation=True, return_tensors="np"
        )
        ids, mask = Tokenizer.read(tmp_path)(CAPTIONS + STRANGE)
        np.testing.assert_array_equal(ids, found["input_ids"])
        np.testing.assert_array_equal(mask, found["attention_mask"])


def test_reads_what_transformers_saves(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.RobertaTokenizerFast.from_pretrained(tmp_path)
    saved = tmp_path / "theirs"
    theirs.save_pretrained(saved)
    np.testing.assert_array_equal(Tokenizer.read(saved)(CAPTIONS)[0], tokenizer(CAPTIONS)[0])


def test_frequent_words_become_tokens(tokenizer):
    _, mask = tokenizer(["rain", "qzxj"])
    assert mask.sum(axis=1).tolist() == [3, 6]


def test_survives_the_way_to_a_worker(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(copy(STRANGE), tokenizer(STRANGE))


def test_a_tokenizer_of_another_size_is_refused(tokenizer):
    tokenizer.check(310)
    tokenizer.check(384)  # padded to a multiple of 128
    with pytest.warns(UserWarning, match="found 310 tokens, but .* vocabulary of 50265: does it"):
        tokenizer.check(50265)
    with pytest.raises(ValueError, match="found 310 tokens, but .* vocabulary of 300"):
        tokenizer.check(300)


def test_refusals(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no tokenizer.json and no vocab.json and no merges.txt"):
        Tokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json: not a tokenizer"):
        Tokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "</s>": 1, "<pad>": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="expected 1 for <pad>"):
        Tokenizer.read(tmp_path)
    (tmp_path / "vocab.json").write_text("[]")
    with pytest.raises(ValueError, match="not a vocabulary"):
        Tokenizer.read(tmp_path)
    with pytest.raises(ValueError, match=f"size 200, expected {SMALLEST_VOCABULARY}"):
        train_bpe(CAPTIONS, 200)
    with pytest.raises(ValueError, match="length=1"):
        train_bpe(CAPTIONS, 300, length=1)
