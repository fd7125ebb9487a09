"""Validation of CLAP: retrieval among all validation clips, and the loss of their embeddings."""

from collections.abc import Sequence

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.evaluation.retrieval import retrieval_scores, retrieve
from audiotrain.recipes.clap.data import Captions, Library, Sounds, Texts, Vectors
from audiotrain.train.callbacks.base import Callback
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.engine.evaluation_loop import predict
from audiotrain.train.engine.precision import PRECISIONS

MONITOR = "val_map_at_10"  # mean of both directions
SHOWN = {"text_to_audio_R@1": "val_text_to_audio_recall_at_1",
         "audio_to_text_R@1": "val_audio_to_text_recall_at_1"}  # fmt: skip


class Embedded(Dataset):
    """Embeddings of clips and of their first captions, {"audio", "text", "group"}, once they are
    filled in."""

    def __init__(self, groups: np.ndarray):
        self.groups = groups
        self.audio = self.text = np.zeros((len(groups), 1), np.float32)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        found = {"audio": self.audio[index], "text": self.text[index]}
        return found | {"group": self.groups[index]}


class Whole(DataLoader):
    """Batches that every rank has all of."""

    def shard(self, rank: int, world_size: int) -> None:
        """Nothing is divided."""


class Retrieval(Callback):
    """Embeds all validation clips and captions before each validation, with the weights that it
    validates; records recall and mAP@10 (MONITOR), and fills the batches of `loader`."""

    def __init__(
        self, clips: Sequence[Clip], library: Library, vectors: Vectors, batch_size: int,
        embedded_at_once: int,
    ):  # fmt: skip
        self.captions = Captions.of(clips)
        # Among one clip, or captions that all fit all clips, whatever is found is right.
        self.tells = len(clips) > 1 and len(set(self.captions.meanings)) > 1
        self.sounds = Sounds(library.clips(clips), vectors)
        self.texts = Texts(self.captions.texts, library.tokenizer, vectors)
        numbers: dict[str, int] = {}
        meanings = [self.captions.meanings[place] for place in self.captions.first]
        groups = [numbers.setdefault(meaning, len(numbers)) for meaning in meanings]
        self.embedded = Embedded(np.array(groups, np.int64))
        self.library, self.batch_size = library, embedded_at_once
        self.loader = Whole(self.embedded, batch_size, num_workers=0)

    def on_validation_start(self, trainer, module) -> None:
        precision = PRECISIONS[trainer.precision]()
        audio, text = (
            np.concatenate(
                [np.array(rows, np.float32) for rows in predict(trainer, loader, precision)]
            )
            for loader in (
                self.library.loader(self.sounds, self.batch_size),
                self.library.loader(self.texts, self.batch_size),
            )
        )
        self.embedded.audio, self.embedded.text = audio, text[self.captions.first]
        if trainer.sanity_checking:
            return
        found = retrieve(audio, text, self.captions.clips, self.captions.meanings)
        scores = retrieval_scores(found)
        for name, shown in SHOWN.items():
            trainer.record(shown, scores[name])
        both = [scores[f"{direction}_mAP@10"] for direction in found]
        trainer.record(MONITOR, sum(both) / len(both))
