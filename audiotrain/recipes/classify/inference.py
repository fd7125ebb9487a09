"""What trained clip classifiers are used for: scores on labelled clips, probabilities of any."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from audiotrain.datasets import classes as labelled
from audiotrain.datasets.items import Clip
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import PROBLEMS
from audiotrain.recipes.clap.inference import parts_of, saved_split
from audiotrain.recipes.clap.use_settings import refuse_existing
from audiotrain.recipes.classify.clips import tell_unreadable
from audiotrain.recipes.classify.ensemble import Ensemble, load
from audiotrain.recipes.classify.scoring import SURE, Scores
from audiotrain.recipes.classify.settings import EvaluateSettings, PredictSettings
from audiotrain.train.run_folder import evaluation_name, refuse_results
from audiotrain.train.submission import read_sample, write_submission
from audiotrain.utils.files import write


def evaluate(settings: EvaluateSettings) -> Scores:
    """Scores of a model, or of the mean of several, on labelled clips, written and printed."""
    refuse_results(settings.output, settings.overwrite)
    ensemble = ensemble_of(settings)
    corpus = labelled.check(labelled.discover(settings.data, settings.group), settings.strict)
    run = ensemble.runs[0]
    name = evaluation_name(settings.data, settings.split)
    output = settings.output or (run if len(ensemble.runs) == 1 else run.parent) / name
    if settings.split is not None and len(ensemble.runs) > 1:
        raise ValueError(
            f"--split {settings.split}: {len(ensemble.runs)} runs have each their own split, "
            "expected one run"
        )
    clips = list(parts_of(corpus, saved_split(run), settings.split)[0])
    ensemble.task.targets(clips)  # refuses classes of other data before anything is written
    print(labelled.report(corpus, output / PROBLEMS), flush=True)
    clips, probabilities, problems = ensemble(clips)
    if settings.split is None and (known := len(trained_on(ensemble.runs, clips))):
        print(f"\n{known} of {len(clips)} clips have names that the models were trained on")
    tell_unreadable(problems, len(clips) + len(problems), settings.strict, output / PROBLEMS)
    scores = Scores(
        ensemble.task, [clip.id for clip in clips], ensemble.task.targets(clips), probabilities
    )
    output.mkdir(parents=True, exist_ok=True)
    scores.write(output)
    of = f", by {len(ensemble.runs)} models" if len(ensemble.runs) > 1 else ""
    print(f"\n{len(clips)} clips{of}:\n{scores.table()}\n\n{output}")
    return scores


def predict(settings: PredictSettings) -> Path:
    """Write the probabilities of every clip, or a competition's submission; the file written."""
    refuse_existing(settings.output, settings.overwrite)
    sample = None if settings.submission is None else read_sample(settings.submission)
    ensemble = ensemble_of(settings)
    problems: list[str] = []  # of tars
    clips = [clip for path in settings.audio for clip in recordings(path, problems)]
    ids = [clip.id for clip in clips]
    if sample is not None:
        clips, ids = _sampled(clips, sample[1])
    else:
        clips, ids = _distinct(clips)
    asked = dict(zip(ids, clips, strict=True))
    found, probabilities, more = ensemble([_named(clip, id) for id, clip in asked.items()])
    for problem in [*problems, *more]:
        print(f"left out: {problem}", file=sys.stderr)
    ids = [clip.id for clip in found]
    if sample is not None:
        classes = ensemble.task.classes
        write_submission(
            ids, classes, probabilities, settings.submission, settings.output, settings.top
        )
    else:
        write(settings.output, _table(ensemble, ids, probabilities))
    models = "1 model" if len(ensemble.runs) == 1 else f"{len(ensemble.runs)} models"
    print(f"{len(ids)} clips by {models} -> {settings.output}")
    return settings.output


def ensemble_of(settings: EvaluateSettings | PredictSettings) -> Ensemble:
    """The models that the settings name, as one."""
    return load(settings.checkpoint, settings.cache.expanduser(), settings.workers, settings.join)


def trained_on(runs: Sequence[Path], clips: Sequence[Clip]) -> list[Clip]:
    """The clips whose names the split of a run has among those to train on."""
    names: set[str] = set()
    for run in runs:
        if (run / "split.json").is_file():
            names |= set(json.loads((run / "split.json").read_text("utf-8"))["items"]["train"])
    return [clip for clip in clips if clip.id in names]


def _named(clip: Clip, id: str) -> Clip:
    return Clip(id, clip.audio, (), clip.start, clip.end)


def _distinct(clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips with names that tell them apart: those of several folders may be equal."""
    names = [clip.id for clip in clips]
    if len(set(names)) < len(names):
        names = [str(clip.audio) for clip in clips]
    unique = dict(zip(names, clips, strict=True))
    return list(unique.values()), list(unique)


def _sampled(clips: Sequence[Clip], wanted: Sequence[str]) -> tuple[list[Clip], list[str]]:
    """The clips that a sample asks for, by its ids: a path, a file's name, or that without suffix.

    ValueError naming an id that several clips fit; one that none fits is told when it is written.
    """
    known: dict[str, list[Clip]] = {}
    for clip in clips:
        path = PurePosixPath(clip.id)
        for name in {clip.id, path.name, path.stem}:
            known.setdefault(name, []).append(clip)
    chosen = {}
    for id in wanted:
        if len(known.get(id, ())) > 1:
            first, second = known[id][:2]
            raise ValueError(f"id {id!r} of the sample fits {first.id} and {second.id}")
        if id in known:
            chosen[id] = known[id][0]
    if not chosen:
        raise ValueError(
            f"none of the sample's {len(wanted)} ids, such as {wanted[0]!r}, is among "
            f"{len(clips)} clips, such as {clips[0].id}"
        )
    return list(chosen.values()), list(chosen)


def _table(ensemble: Ensemble, ids: Sequence[str], probabilities: np.ndarray) -> str:
    """CSV: file, label (several with | between), confidence of the first, and all classes."""
    classes, several = ensemble.task
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["file", "labels" if several else "label", "confidence", *classes])
    for id, row in zip(ids, probabilities, strict=True):
        first = int(row.argmax())
        named = [classes[place] for place in np.flatnonzero(row >= SURE)] if several else []
        label = "|".join(named) if several else classes[first]
        lines.writerow([id, label, *(f"{value:.6g}" for value in (row[first], *row))])
    return text.getvalue()
