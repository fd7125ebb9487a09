"""Scores of a CLAP on captioned clips: retrieval both ways, and classes where clips have them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from audiotrain.datasets.captions.discovery import TEMPLATES
from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification_report import ClassScores
from audiotrain.evaluation.linear_probe import LabelledEmbeddings, probe_scores, zero_shot
from audiotrain.evaluation.retrieval_report import RetrievalReport
from audiotrain.recipes.clap.embedder import EmbeddedClips, Embedder
from audiotrain.utils.files import write_json
from audiotrain.utils.text import count


@dataclass(frozen=True)
class Scores:
    """Scores on `clips`, from audio (clips, dim) and text (captions, dim), which has every caption
    of every clip, one clip after the other. `left_out` are lines on unreadable clips, `incomplete`
    on clips of which a part could not be decoded."""

    clips: Sequence[Clip]
    audio: np.ndarray
    text: np.ndarray
    seconds: float = 0.0
    classes: ClassScores | None = None
    left_out: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @cached_property
    def retrieval(self) -> RetrievalReport:
        """Retrieval between the clips and their captions."""
        return RetrievalReport(self.clips, self.audio, self.text)

    def as_dict(self) -> dict:
        """The content of metrics.json; scores are shares of 1."""
        captions = self.retrieval.captions
        return {
            "clips": len(self.clips),
            "seconds": self.seconds,
            "captions": len(captions.texts),
            "distinct_captions": len(set(captions.meanings)),
            "left_out": len(self.left_out),
            "retrieval": self.retrieval.numbers,
            "classes": self.classes.as_dict() if self.classes else None,
        }

    def table(self) -> str:
        """The scores in percent, as text."""
        captions = self.retrieval.captions
        distinct = len(set(captions.meanings))
        counts = f"{count(len(captions.texts), 'caption')}, {distinct} of them distinct"
        lines = [f"{count(len(self.clips), 'clip')}, {self.seconds / 60:.1f} minutes; {counts}"]
        lines += ["", self.retrieval.table()]
        if self.classes:
            lines += ["", self.classes.table()]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """metrics.json, and the tables and pictures of retrieval and of classes."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", self.as_dict())
        self.retrieval.write(folder)
        if self.classes:
            self.classes.write(folder)


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

    Where clips have labels of two classes or more, they are classified zero-shot by `templates` and
    by a linear probe, which is fitted to `training` and `validation`, or else across folds.
    ValueError when no clip can be read.
    """
    embedded = embedder.embed(clips, "embedding clips", strict)
    names = sorted({clip.label for clip in embedded.clips if clip.label})
    classes = None
    if len(names) > 1:
        tested = labelled(embedded, names)
        how = f"{len(names)} classes, {len(tested.targets)} clips, "
        how += f"{len(templates)} templates" if len(templates) > 1 else repr(templates[0])
        prompts = embed_prompts(embedder, names, templates)
        methods = {"zero_shot": (zero_shot(tested.embeddings, prompts), how)}
        if linear_probe:
            known: list[LabelledEmbeddings | None] = []
            for part in (training, validation):
                part = [clip for clip in part if clip.label in names]
                what = "embedding clips for the probe"
                known.append(labelled(embedder.embed(part, what), names) if part else None)
            if (result := probe_scores(tested, len(names), *known)) is not None:
                methods["linear_probe"] = result
            else:
                print("no linear probe: too few classes or groups of clips to fit it to")
        classes = ClassScores(names, tested.targets, methods)
    return Scores(
        embedded.clips,
        embedded.embeddings,
        embed_captions(embedder, embedded.clips),
        float(embedded.seconds.sum()),
        classes,
        embedded.problems,
        embedded.incomplete,
    )


def embed_captions(embedder: Embedder, clips: Sequence[Clip]) -> np.ndarray:
    """(captions, dim) of every caption of every clip; equal ones are embedded once."""
    captions = [caption for clip in clips for caption in clip.captions]
    distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    return embedder.text(list(distinct))[[distinct[caption] for caption in captions]]


def embed_prompts(
    embedder: Embedder, names: Sequence[str], templates: Sequence[str]
) -> list[np.ndarray]:
    """For each class (templates, dim): its name in each of the sentences."""
    texts = [template.format(label=name) for name in names for template in templates]
    return np.split(embedder.text(texts), len(names))


def labelled(embedded: EmbeddedClips, names: Sequence[str]) -> LabelledEmbeddings:
    """The clips with one of the classes `names`."""
    rows, targets, groups = [], [], []
    for row, clip in enumerate(embedded.clips):
        if clip.label in names:
            rows.append(row)
            targets.append(names.index(clip.label))
            groups.append(clip.group or clip.id)
    return LabelledEmbeddings(embedded.embeddings[rows], np.array(targets, np.int64), groups)
