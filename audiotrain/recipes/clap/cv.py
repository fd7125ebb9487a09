"""Cross-validation of what a CLAP's embeddings know of classes: zero-shot and by a linear probe.

The model hears each clip once; a fold's probe learns from the other folds, its C chosen among
their groups. Zero-shot learns nothing, so its deviation is that of the clips alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import classification, linear_probe
from audiotrain.evaluation.classification_report import ClassScores
from audiotrain.evaluation.linear_probe import LabelledEmbeddings
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.scoring import embed_prompts, labelled
from audiotrain.recipes.clap.use_settings import CvSettings
from audiotrain.train import crossval
from audiotrain.utils.files import write_json


def cross_validate(
    settings: CvSettings, embedder: Embedder, clips: Sequence[Clip], output: Path
) -> dict:
    """Judge labelled clips fold by fold; what metrics.json in `output` says.

    oof/ keeps scores (clips, classes) of each way for every clip. ValueError for fewer than two
    classes, or folds that cannot be.
    """
    names = sorted({clip.label for clip in clips})
    if len(names) < 2:
        raise ValueError(f"{settings.data}: {len(names)} classes, expected two labels or more")
    make_folds(settings, clips)  # refused before the clips are embedded
    embedded = embedder.embed(clips, "embedding clips", settings.strict)
    clips, known = embedded.clips, labelled(embedded, names)
    folds = make_folds(settings, clips)
    if column := settings.fold_column:
        named = [
            f"{k} is {column} {clips[rows[0]].columns[column]}" for k, rows in enumerate(folds)
        ]
        print(f"fold {', '.join(named)}")
    store = crossval.OutOfFold(output, [clip.id for clip in clips], folds)
    for line in crossval.missing_labels(folds, [clip.label for clip in clips]):
        print(line)
    prompts = embed_prompts(embedder, names, settings.templates)
    zero_shot = linear_probe.zero_shot(known.embeddings, prompts)
    rows = []
    for k, tested in enumerate(folds):
        scores = {"zero_shot": zero_shot[tested], "linear_probe": probed(known, folds, k, names)}
        targets = known.targets[tested]
        store.save(k, scores | {"targets": targets})
        rows.append(
            {
                f"{way}_{name}": value
                for way, said in scores.items()
                for name, value in classification.class_accuracies(said, targets).items()
            }
        )
    kept = store.load()
    how = f"{len(folds)} folds"
    methods = {name: (kept[name], how) for name in ("zero_shot", "linear_probe")}
    scores = ClassScores(names, kept["targets"], methods)
    scores.write(output)
    summary = crossval.summarize(rows)
    write_json(output / "metrics.json", summary.as_dict() | {"classes": scores.as_dict()})
    for problem in embedded.problems:
        print(f"left out: {problem}")
    ProblemLog(output).add_unreadable(embedded.problems)
    print(f"\n{summary.table()}\n\n{output}")
    return summary.as_dict()


def make_folds(settings: CvSettings, clips: Sequence[Clip]) -> list[np.ndarray]:
    """Rows of each fold: as a column says, or by group and label."""
    labels = [clip.label for clip in clips]
    return crossval.folds_of(clips, settings.folds, settings.fold_column, labels, settings.seed)


def probed(
    known: LabelledEmbeddings, folds: Sequence[np.ndarray], k: int, names: Sequence[str]
) -> np.ndarray:
    """Scores (clips of the fold, classes) of a probe that learnt from the other folds."""
    rest = np.setdiff1d(np.arange(len(known.targets)), folds[k])
    probe = linear_probe.tune_probe(known.take(rest), None, len(names))
    if probe is None:
        raise ValueError(f"fold {k}: its {len(rest)} training clips are of one class, expected two")
    return probe(known.embeddings[folds[k]])
