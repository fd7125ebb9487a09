"""Captions to token ids: RoBERTa's byte-level BPE, read from a checkpoint or trained on captions.

`<s> <pad> </s> <unk> <mask>` are ids 0 to 4 where it is trained here; `<pad>` is 1 everywhere.
"""

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from audiotrain.utils import files
from audiotrain.utils.errors import UserError

LENGTH = 77  # tokens of a caption, as CLAP's checkpoints were trained
PADDING = 128  # vocabularies are padded to a multiple of it at most
PAD_ID = 1  # the text encoder counts positions by it
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROLES = dict(bos="<s>", cls="<s>", eos="</s>", sep="</s>", unk="<unk>", pad="<pad>", mask="<mask>")
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256  # every byte is a token
TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE = "tokenizer.json", "vocab.json", "merges.txt"


class Tokenizer:
    """Captions of any text to ids (captions, length), cut or padded to `length` tokens.

    ValueError for a length below 2, and for a vocabulary without <s> and </s>, or with another id
    of <pad> than RoBERTa's.

    >>> tokenizer = train_bpe(["rain on a roof", "a dog barks"], size=300)
    >>> ids, mask = tokenizer(["rain", ""])
    >>> ids.shape, ids.dtype, mask.sum(axis=1).tolist(), ids[1, :3].tolist()
    ((2, 77), dtype('int32'), [3, 2], [0, 2, 1])
    """

    def __init__(self, backend: tokenizers.Tokenizer, length: int = LENGTH, source: str = ""):
        if length < 2:
            raise UserError(f"length={length} tokens, expected 2 or more")
        self.length = length
        self.source = source or "tokenizer"
        ids = [backend.token_to_id(token) for token in ("<s>", "<pad>", "</s>")]
        if ids[1] != PAD_ID or None in ids:
            raise UserError(
                f"{self.source}: found ids {ids} of <s>, <pad>, </s>, expected {PAD_ID} for <pad>"
            )
        self.size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self._backend = backend
        backend.enable_truncation(length)
        backend.enable_padding(pad_id=PAD_ID, pad_token="<pad>", length=length)

    @classmethod
    def read(cls, folder: str | Path, length: int = LENGTH) -> "Tokenizer":
        """From a folder's tokenizer.json, or else its vocab.json and merges.txt.

        ValueError when it has neither, or they can't be read.
        """
        folder = Path(folder)
        path = folder / TOKENIZER_FILE
        if path.is_file():
            try:
                backend = tokenizers.Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises nothing narrower
                raise UserError(f"{path}: not a tokenizer: {error}") from None
            return cls(backend, length, str(path))
        vocabulary, merges = folder / VOCABULARY_FILE, folder / MERGES_FILE
        missing = [file.name for file in (vocabulary, merges) if not file.is_file()]
        if missing:
            raise UserError(
                f"{folder}: found no {TOKENIZER_FILE} and no {' and no '.join(missing)}"
            )
        try:
            model = models.BPE.from_file(str(vocabulary), str(merges), unk_token="<unk>")
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{vocabulary}, {merges.name}: not a vocabulary: {error}") from None
        return cls(_with_bytes(tokenizers.Tokenizer(model), str(vocabulary)), length, str(folder))

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and attention mask, both (captions, length) int32; the mask is 0 on padding."""
        encoded = self._backend.encode_batch(list(captions))
        shape = (len(encoded), self.length)
        ids = np.array([one.ids for one in encoded], np.int32).reshape(shape)
        mask = np.array([one.attention_mask for one in encoded], np.int32).reshape(shape)
        return ids, mask

    def longer(self, captions: Sequence[str]) -> list[str]:
        """The captions of more than `length` tokens, which are cut."""
        encoded = self._backend.encode_batch(list(captions))
        return [text for text, one in zip(captions, encoded, strict=True) if one.overflowing]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self._backend.decode([int(number) for number in ids])

    def check(self, vocabulary: int) -> None:
        """ValueError unless a text encoder with that many embeddings knows every id; a warning
        where it knows more than a vocabulary that is padded."""
        if self.size > vocabulary:
            raise UserError(
                f"{self.source}: found {self.size} tokens, but the text encoder has a "
                f"vocabulary of {vocabulary}: it belongs to another checkpoint"
            )
        if vocabulary - self.size >= PADDING:
            warnings.warn(
                f"{self.source}: found {self.size} tokens, but the text encoder has a vocabulary "
                f"of {vocabulary}: does it belong to another checkpoint?",
                stacklevel=2,
            )

    def save(self, folder: str | Path) -> None:
        """Write what Hugging Face reads: tokenizer.json, vocab.json, merges.txt and two configs.
        ValueError when a file cannot be written."""
        folder = Path(folder)
        backend = json.loads(self._backend.to_str())
        model = backend["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        special = {f"{role}_token": token for role, token in ROLES.items()}
        config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": self.length}
        for name, content in (
            (TOKENIZER_FILE, backend | {"truncation": None, "padding": None}),
            (VOCABULARY_FILE, model["vocab"]),
            ("special_tokens_map.json", special),
            ("tokenizer_config.json", config | {"add_prefix_space": False} | special),
        ):
            text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
            files.write(folder / name, text)
        files.write(folder / MERGES_FILE, "\n".join(["#version: 0.2", *merges, ""]))

    def __getstate__(self) -> dict:
        return {"text": self._backend.to_str(), "length": self.length, "source": self.source}

    def __setstate__(self, state: dict) -> None:
        backend = tokenizers.Tokenizer.from_str(state["text"])
        Tokenizer.__init__(self, backend, state["length"], state["source"])


def train_bpe(captions: Iterable[str], size: int, length: int = LENGTH) -> Tokenizer:
    """A byte-level BPE with up to `size` tokens, learnt from captions: any text can be encoded.

    ValueError when `size` does not even hold all bytes.
    """
    if size < SMALLEST_VOCABULARY:
        raise UserError(f"vocabulary size {size}, expected {SMALLEST_VOCABULARY} or more")
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    return Tokenizer(_with_bytes(backend, "captions"), length)


def _with_bytes(backend: tokenizers.Tokenizer, source: str) -> tokenizers.Tokenizer:
    """A bare BPE with RoBERTa's way of splitting text into words, and `<s>` and `</s>` around."""
    start, end = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    if start is None or end is None:
        raise UserError(f"{source}: found no <s> and </s> among its tokens")
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", end), ("<s>", start), add_prefix_space=False
    )
    known = backend.get_vocab()
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in known])
    return backend
