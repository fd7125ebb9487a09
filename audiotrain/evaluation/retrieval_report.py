"""Retrieval between clips and captions as numbers, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip, meaning
from audiotrain.evaluation import plots
from audiotrain.evaluation.plots import retrieval as retrieval_plots
from audiotrain.evaluation.retrieval import Retrieved, retrieval_scores, retrieve

PICTURED = 32  # clips of the similarity picture
QUERIES = 1024  # that are compared with everything at a time
SHOWN = ("R@1", "R@5", "R@10", "mAP@10")


@dataclass(frozen=True)
class Captions:
    """All captions of clips, one clip after the other: texts, the row of each one's clip, and its
    meaning, equal where captions fit the same clips."""

    texts: list[str]
    clips: list[int]
    meanings: list[str]

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> "Captions":
        """Those of clips in their order."""
        rows = [(text, row) for row, clip in enumerate(clips) for text in clip.captions]
        meanings = [meaning(text, clips[row].concept) for text, row in rows]
        return cls([text for text, _ in rows], [row for _, row in rows], meanings)

    @property
    def first(self) -> np.ndarray:
        """The row (clips,) of each clip's first caption."""
        return np.unique(self.clips, return_index=True)[1]


@dataclass(frozen=True)
class RetrievalReport:
    """How well captions find clips, and clips captions.

    audio (clips, width) and text (captions, width) are embeddings of length 1; every caption of
    every clip has a row, one clip after the other.
    """

    clips: Sequence[Clip]
    audio: np.ndarray
    text: np.ndarray

    @cached_property
    def captions(self) -> Captions:
        """The captions in the order of `text`."""
        return Captions.of(self.clips)

    @cached_property
    def results(self) -> dict[str, Retrieved]:
        """Ranks by direction; empty where all captions mean the same."""
        captions = self.captions
        if len(set(captions.meanings)) < 2:
            return {}
        return retrieve(self.audio, self.text, captions.clips, captions.meanings)

    @cached_property
    def numbers(self) -> dict[str, float] | None:
        """`retrieval_scores`; None where all captions mean the same."""
        return retrieval_scores(self.results) if self.results else None

    def table(self) -> str:
        """A row for each direction, in percent."""
        if self.numbers is None:
            return "nothing to retrieve: all captions mean the same"
        heads = "".join(f"{name:>8}" for name in SHOWN)
        lines = [f"{'retrieval':16}{heads}{'median rank':>13}{'queries':>9}{'among':>8}"]
        for direction, one in self.results.items():
            shares = "".join(f"{100 * self.numbers[f'{direction}_{name}']:8.1f}" for name in SHOWN)
            rank = self.numbers[f"{direction}_median_rank"]
            counts = f"{rank:13.0f}{len(one.ranks):9}{one.items:8}"
            lines.append(f"{direction.replace('_', ' '):16}{shares}{counts}")
        return "\n".join(lines)

    def examples(self, count: int = 5) -> str:
        """A line for each of `count` captions, at even intervals, with the clip nearest to it: +
        where that clip has a caption of the same meaning, else -."""
        lines = []
        for clip in dict.fromkeys(np.linspace(0, len(self.clips) - 1, count).astype(int)):
            row = self.captions.first[clip]
            nearest_clip = self.clips[int(np.argmax(self.audio @ self.text[row]))]
            meanings = {meaning(text, nearest_clip.concept) for text in nearest_clip.captions}
            sign = "+" if self.captions.meanings[row] in meanings else "-"
            caption, other = self.captions.texts[row], nearest_clip.captions[0]
            lines.append(f"  {sign} {caption!r} -> {nearest_clip.id} {other!r}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """retrieval.csv, captions.csv and clips.csv with a row for each query, recall.png and
        similarity.png; nothing where all captions mean the same."""
        if self.numbers is None:
            return
        retrieval_plots.retrieval_csv(self.numbers, folder / "retrieval.csv")
        self._write_queries(folder)
        title = f"Retrieval on {len(self.clips)} clips"
        retrieval_plots.recall_picture(self.results, folder / "recall.png", title)
        self._picture_similarities(folder / "similarity.png")

    def _write_queries(self, folder: Path) -> None:
        """captions.csv and clips.csv: the nearest item of each query, the worst ranks first."""
        clips, texts = [clip.id for clip in self.clips], self.captions.texts
        owners = self.captions.clips
        cosines = np.einsum("ij,ij->i", self.text, self.audio[owners]).tolist()
        captions = [
            {"caption": text, "clip": clips[owner], "rank": 0, "cosine": cosine}
            for text, owner, cosine in zip(texts, owners, cosines, strict=True)
        ]
        self._write_found(folder / "captions.csv", "text_to_audio", captions, clips)
        rows = [{"clip": clip, "rank": 0} for clip in clips]
        self._write_found(folder / "clips.csv", "audio_to_text", rows, texts)

    def _write_found(
        self, path: Path, direction: str, rows: Sequence[dict], names: Sequence[str]
    ) -> None:
        """The rows of queries with their ranks and the nearest item, `names` being the items'."""
        vectors = (self.text, self.audio)
        items, cosines = nearest(*(vectors if direction == "text_to_audio" else vectors[::-1]))
        ranks = self.results[direction].ranks
        for row, rank, item, cosine in zip(rows, ranks, items, cosines, strict=True):
            row |= {"rank": int(rank), "found": names[item], "found_cosine": float(cosine)}
        plots.table_csv([rows[number] for number in np.argsort(-ranks, kind="stable")], path)

    def _picture_similarities(self, path: Path) -> None:
        """Clips of different meanings, evenly chosen, and a caption of each."""
        first = self.captions.first
        meanings = [self.captions.meanings[row] for row in first]
        different = np.array(sorted({one: clip for clip, one in enumerate(meanings)}.values()))
        count = min(PICTURED, len(different))
        chosen = different[np.linspace(0, len(different) - 1, count).round().astype(int)]
        retrieval_plots.similarity_picture(
            self.audio[chosen] @ self.text[first[chosen]].T,
            path,
            [self.clips[clip].id for clip in chosen],
            [self.captions.texts[row] for row in first[chosen]],
            np.array([[meanings[a] == meanings[b] for b in chosen] for a in chosen]),
            f"Similarity of {count} of {len(self.clips)} clips",
        )


def nearest(queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the item nearest to each query (queries,), and their cosine (queries,).

    Embeddings (…, width) are of length 1.
    """
    numbers, cosines = [], []
    for start in range(0, len(queries), QUERIES):
        scores = queries[start : start + QUERIES] @ items.T
        numbers.append(scores.argmax(axis=1))
        cosines.append(scores.max(axis=1))
    return np.concatenate(numbers), np.concatenate(cosines)
