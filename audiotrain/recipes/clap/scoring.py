"""How good a CLAP is on captioned clips: retrieval both ways, and classes where clips have them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from audiotrain.datasets.captions.discovery import TEMPLATES
from audiotrain.datasets.items import Clip, meaning
from audiotrain.evaluation import plots, retrieval
from audiotrain.evaluation.classification_report import TOP, ClassificationReport
from audiotrain.evaluation.linear_probe import LabelledEmbeddings, probe_scores, zero_shot
from audiotrain.evaluation.plots import retrieval_plots
from audiotrain.evaluation.retrieval import Retrieved
from audiotrain.recipes.clap.embedder import EmbeddedClips, Embedder
from audiotrain.utils.files import write_json

SAMPLE = 32  # clips of the similarity picture
QUERIES = 1024  # that are compared with everything at a time
SHOWN = ("R@1", "R@5", "R@10", "mAP@10")
METHODS = {"zero_shot": "zero-shot", "linear_probe": "linear probe"}


@dataclass(frozen=True)
class ClassScores:
    """How well labelled clips are classified, by method.

    `targets` (clips,) are numbers of the classes `names`; `methods` has scores (clips, classes) and
    a phrase on how they were computed, by the names in METHODS.
    """

    names: list[str]
    targets: np.ndarray
    methods: dict[str, tuple[np.ndarray, str]]

    @cached_property
    def reports(self) -> dict[str, ClassificationReport]:
        """A report on each method."""
        targets = np.eye(len(self.names))[self.targets]
        ids = [str(row) for row in range(len(targets))]
        return {
            name: ClassificationReport(self.names, ids, targets, scores, rankings=False)
            for name, (scores, _) in self.methods.items()
        }

    def as_dict(self) -> dict:
        """Accuracies as shares of 1, by method."""
        largest = float(np.bincount(self.targets).max() / len(self.targets))
        counts = {"classes": len(self.names), "clips": len(self.targets), "largest_class": largest}
        return counts | {
            name: self.reports[name].numbers | {"how": how}
            for name, (_, how) in self.methods.items()
        }

    def table(self) -> str:
        """A row for each method, in percent."""
        lines = [f"{'classes':16}{'accuracy':>9}{'balanced':>9}{f'top {TOP}':>8}"]
        for name, (_, how) in self.methods.items():
            accuracy, balanced, top = (100 * share for share in self.reports[name].numbers.values())
            lines.append(f"{METHODS[name]:16}{accuracy:9.1f}{balanced:9.1f}{top:8.1f}   {how}")
        lines.append(f"{'largest class':16}{100 * self.as_dict()['largest_class']:9.1f}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """For each method its confusions as PNG and CSV, and its precision, recall and F1 by
        class."""
        for name, report in self.reports.items():
            suffix, title = f"-{name.replace('_', '-')}", f"Classes, {METHODS[name]}"
            report.write_classes(folder, suffix, title)


@dataclass(frozen=True)
class Scores:
    """What was measured on `clips`, from audio (clips, dim) and text (captions, dim), which has
    every caption of every clip, one clip after the other. `left_out`: lines on unreadable clips."""

    clips: Sequence[Clip]
    audio: np.ndarray
    text: np.ndarray
    seconds: float = 0.0
    classes: ClassScores | None = None
    left_out: list[str] = field(default_factory=list)

    @cached_property
    def owners(self) -> np.ndarray:
        """The clip (captions,) of each caption."""
        return np.repeat(np.arange(len(self.clips)), [len(clip.captions) for clip in self.clips])

    @cached_property
    def captions(self) -> list[str]:
        """Every caption, in the order of `text`."""
        return [caption for clip in self.clips for caption in clip.captions]

    @cached_property
    def meanings(self) -> list[str]:
        """What each caption means: equal ones are right for each other's clips."""
        return [meaning(text, clip.concept) for clip in self.clips for text in clip.captions]

    @cached_property
    def found(self) -> dict[str, Retrieved]:
        """Retrieval by direction; empty where all captions mean the same."""
        if len(set(self.meanings)) < 2:
            return {}
        return retrieval.retrieve(self.audio, self.text, self.owners, self.meanings)

    def as_dict(self) -> dict:
        """What metrics.json says; shares are of 1."""
        return {
            "clips": len(self.clips),
            "seconds": self.seconds,
            "captions": len(self.captions),
            "distinct_captions": len(set(self.meanings)),
            "left_out": len(self.left_out),
            "retrieval": retrieval.retrieval_scores(self.found) if self.found else None,
            "classes": self.classes.as_dict() if self.classes else None,
        }

    def table(self) -> str:
        """The scores to be read, in percent."""
        found = self.as_dict()
        lines = [
            f"{found['clips']} clips, {self.seconds / 60:.1f} minutes; {found['captions']} "
            f"captions, {found['distinct_captions']} of them distinct"
        ]
        if self.found:
            lines += ["", self._retrieval_table(found["retrieval"])]
        else:
            lines.append("nothing to retrieve: all captions mean the same")
        if self.classes:
            lines += ["", self.classes.table()]
        return "\n".join(lines)

    def _retrieval_table(self, scores: dict[str, float]) -> str:
        heads = "".join(f"{name:>8}" for name in SHOWN)
        lines = [f"{'retrieval':16}{heads}{'median rank':>13}{'queries':>9}{'among':>8}"]
        for direction, one in self.found.items():
            shares = "".join(f"{100 * scores[f'{direction}_{name}']:8.1f}" for name in SHOWN)
            rank = scores[f"{direction}_median_rank"]
            counts = f"{rank:13.0f}{len(one.ranks):9}{one.items:8}"
            lines.append(f"{direction.replace('_', ' '):16}{shares}{counts}")
        return "\n".join(lines)

    def examples(self, count: int = 5) -> str:
        """A line for each of a few captions, evenly taken: + or -, and the clip nearest to it."""
        lines = []
        for place in dict.fromkeys(np.linspace(0, len(self.clips) - 1, count).astype(int)):
            row = int(np.searchsorted(self.owners, place))
            found = int(np.argmax(self.audio @ self.text[row]))
            clip = self.clips[found]
            meant = {meaning(text, clip.concept) for text in clip.captions}
            sign = "+" if self.meanings[row] in meant else "-"
            lines.append(f"  {sign} {self.captions[row]!r} -> {clip.id} {clip.captions[0]!r}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """metrics.json, and for retrieval a table, a row for each caption and clip, and pictures;
        for classes confusions and tables."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", self.as_dict())
        if self.found:
            scores = retrieval.retrieval_scores(self.found)
            retrieval_plots.retrieval_csv(scores, folder / "retrieval.csv")
            self._write_queries(folder)
            title = f"Retrieval on {len(self.clips)} clips"
            retrieval_plots.recall_picture(self.found, folder / "recall.png", title)
            self._picture_similarities(folder / "similarity.png")
        if self.classes:
            self.classes.write(folder)

    def _write_queries(self, folder: Path) -> None:
        """captions.csv and clips.csv: what each one found first; the worst come first."""
        names = [clip.id for clip in self.clips]
        own = np.einsum("ij,ij->i", self.text, self.audio[self.owners])
        first, cosines = nearest(self.text, self.audio)
        ranks = self.found["text_to_audio"].ranks
        rows = [
            {"caption": self.captions[row], "clip": names[self.owners[row]],
             "rank": int(ranks[row]), "cosine": float(own[row]),
             "found": names[first[row]], "found_cosine": float(cosines[row])}
            for row in np.argsort(-ranks, kind="stable")
        ]  # fmt: skip
        plots.table_csv(rows, folder / "captions.csv")
        first, cosines = nearest(self.audio, self.text)
        ranks = self.found["audio_to_text"].ranks
        rows = [
            {"clip": names[row], "rank": int(ranks[row]), "found": self.captions[first[row]],
             "found_cosine": float(cosines[row])}
            for row in np.argsort(-ranks, kind="stable")
        ]  # fmt: skip
        plots.table_csv(rows, folder / "clips.csv")

    def _picture_similarities(self, path: Path) -> None:
        """Clips that mean different things, evenly chosen, and a caption of each."""
        starts = np.searchsorted(self.owners, np.arange(len(self.clips)))
        by_meaning = {self.meanings[start]: number for number, start in enumerate(starts)}
        different = sorted(by_meaning.values())
        count = min(SAMPLE, len(different))
        places = np.linspace(0, len(different) - 1, count).round().astype(int)
        rows = np.array(different)[places]
        meant = [self.meanings[starts[row]] for row in rows]
        matches = np.array([[a == b for b in meant] for a in meant])
        retrieval_plots.similarity_picture(
            self.audio[rows] @ self.text[starts[rows]].T,
            path,
            [self.clips[row].id for row in rows],
            [self.captions[starts[row]] for row in rows],
            matches,
            f"Similarity of {count} of {len(self.clips)} clips",
        )


def nearest(queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the item nearest to each query (queries,), and their cosine (queries,).

    Embeddings (…, dim) are of length 1.
    """
    first, cosines = [], []
    for start in range(0, len(queries), QUERIES):
        scores = queries[start : start + QUERIES] @ items.T
        first.append(scores.argmax(axis=1))
        cosines.append(scores.max(axis=1))
    return np.concatenate(first), np.concatenate(cosines)


def score_clips(
    embedder: Embedder,
    clips: Sequence[Clip],
    training: Sequence[Clip] = (),
    validation: Sequence[Clip] = (),
    templates: Sequence[str] = TEMPLATES,
    linear_probe: bool = True,
    strict: bool = False,
) -> Scores:
    """The scores of a model on captioned clips; those that can't be read are left out, or stop it
    if `strict`.

    Where clips have labels of two classes or more, they are told zero-shot by `templates` and by a
    linear probe, which learns from `training` and `validation`, or else across folds. ValueError
    when no clip can be read.
    """
    embedded = embedder.embed(clips, "embedding clips", strict)
    text = embed_captions(embedder, embedded.clips)
    classes = None
    if len({clip.label for clip in embedded.clips if clip.label}) > 1:
        others = (
            [_embed_for_probe(embedder, part) for part in (training, validation)]
            if linear_probe
            else []
        )
        classes = score_classes(embedder, embedded, others, templates, linear_probe)
    seconds = float(embedded.seconds.sum())
    return Scores(embedded.clips, embedded.embeddings, text, seconds, classes, embedded.problems)


def embed_captions(embedder: Embedder, clips: Sequence[Clip]) -> np.ndarray:
    """(captions, dim) of every caption of every clip; equal ones are embedded once."""
    captions = [caption for clip in clips for caption in clip.captions]
    distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    return embedder.text(list(distinct))[[distinct[caption] for caption in captions]]


def score_classes(
    embedder: Embedder,
    embedded: EmbeddedClips,
    others: Sequence[EmbeddedClips | None],
    templates: Sequence[str],
    linear_probe: bool,
) -> ClassScores:
    """What is known of the labels of clips that have one; `others` to learn from, and to choose."""
    names = sorted({clip.label for clip in embedded.clips if clip.label})
    tested = labelled(embedded, names)
    prompts = embed_prompts(embedder, names, templates)
    how = f"{len(names)} classes, {len(tested.targets)} clips, "
    how += f"{len(templates)} templates" if len(templates) > 1 else repr(templates[0])
    methods = {"zero_shot": (zero_shot(tested.embeddings, prompts), how)}
    if linear_probe:
        known = [None if other is None else labelled(other, names) for other in others]
        known = [None if one is None or not len(one.targets) else one for one in known]
        probed = probe_scores(tested, len(names), *known)
        if probed is not None:
            methods["linear_probe"] = probed
        else:
            print("no linear probe: too few classes or groups of clips to learn it from")
    return ClassScores(names, tested.targets, methods)


def embed_prompts(embedder: Embedder, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """(classes, templates, dim): each class's name in each of the sentences."""
    texts = [template.format(label=name) for name in names for template in templates]
    return embedder.text(texts).reshape(len(names), len(templates), -1)


def _embed_for_probe(embedder: Embedder, clips: Sequence[Clip]) -> EmbeddedClips | None:
    """Labelled clips for the probe to learn from."""
    clips = [clip for clip in clips if clip.label]
    return embedder.embed(clips, "embedding clips for the probe") if clips else None


def labelled(embedded: EmbeddedClips, names: Sequence[str]) -> LabelledEmbeddings:
    """The clips with one of the classes `names`."""
    places = {name: number for number, name in enumerate(names)}
    rows = [row for row, clip in enumerate(embedded.clips) if clip.label in places]
    clips = [embedded.clips[row] for row in rows]
    targets = np.array([places[clip.label] for clip in clips], np.int64)
    groups = [clip.group or clip.id for clip in clips]
    return LabelledEmbeddings(embedded.embeddings[rows], targets, groups)
