"""Cross-validation of what a CLAP's embeddings know of classes: zero-shot and by a linear probe.

Each clip is embedded once; a fold's probe is fitted to the other folds, its C chosen among their
groups. Zero-shot is not fitted, so its deviation is that of the clips alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import classification, linear_probe
from audiotrain.evaluation.classification_report import ClassScores
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.scoring import embed_prompts, labelled
from audiotrain.recipes.clap.settings import CvSettings
from audiotrain.train import crossval
from audiotrain.utils.errors import UserError


def cross_validate(
    settings: CvSettings, embedder: Embedder, clips: Sequence[Clip], output: Path
) -> dict:
    """Score labelled clips fold by fold; the content of metrics.json in `output`.

    oof/ keeps the scores (clips, classes) of both methods for every clip. ValueError for fewer than
    two classes, or folds that cannot be made.
    """
    names = sorted({clip.label for clip in clips if clip.label})
    if len(names) < 2:
        raise UserError(f"{settings.data}: {len(names)} classes, expected two labels or more")
    make_folds(settings, clips)  # refused before the clips are embedded
    embedded = embedder.embed(clips, "embedding clips", settings.strict)
    clips, known = embedded.clips, labelled(embedded, names)
    folds = make_folds(settings, clips)
    if column := settings.fold_column:
        values = [clips[rows[0]].columns[column] for rows in folds]
        print("fold " + ", ".join(f"{k} is {column} {value}" for k, value in enumerate(values)))
    cv = crossval.CrossValidation(
        output,
        [clip.id for clip in clips],
        folds,
        crossval.OutOfFold,
        [clip.label for clip in clips],
    )
    prompts = embed_prompts(embedder, names, settings.templates)
    zero_shot = linear_probe.zero_shot(known.embeddings, prompts)
    scores = {"zero_shot": zero_shot, "linear_probe": np.empty_like(zero_shot)}
    rows = []
    for k, tested in enumerate(folds):
        training = known.take(cv.train_rows(k))
        probe = linear_probe.tune_probe(training, None, len(names))
        if probe is None:
            count = len(training.targets)
            raise UserError(f"fold {k}: its {count} training clips are of one class, expected two")
        scores["linear_probe"][tested] = probe(known.embeddings[tested])
        targets = known.targets[tested]
        predictions = {method: values[tested] for method, values in scores.items()}
        cv.store.save(k, predictions | {"targets": targets})
        rows.append(
            {
                f"{method}_{name}": value
                for method, values in predictions.items()
                for name, value in classification.class_accuracies(values, targets).items()
            }
        )
    methods = {method: (values, f"{len(folds)} folds") for method, values in scores.items()}
    report = ClassScores(names, known.targets, methods)
    report.write(output)
    summary = crossval.summarize(rows)
    cv.write(summary, classes=report.as_dict())
    total = len(clips) + len(embedded.problems)
    ProblemLog(output).report_unreadable(embedded.problems, total, "recordings")
    ProblemLog(output).report_incomplete(embedded.incomplete, total, "recordings")
    print(f"\n{summary.table()}\n\n{output}")
    return summary.as_dict()


def make_folds(settings: CvSettings, clips: Sequence[Clip]) -> list[np.ndarray]:
    """Rows of each fold: as a column says, or by group and label."""
    labels = [clip.label for clip in clips]
    return crossval.folds_of(clips, settings.folds, settings.fold_column, labels, settings.seed)
