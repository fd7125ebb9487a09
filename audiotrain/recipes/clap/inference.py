"""Use of a trained CLAP: evaluate, cv, embed, search, classify.

Each command prints its results and returns them. A recording that can't be read is named and left
out.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.special

from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.captions import discovery
from audiotrain.datasets.items import Clip, Corpus, meaning
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import linear_probe, plots
from audiotrain.models.clap.model import logit_scale
from audiotrain.recipes.clap import cv as clap_cv
from audiotrain.recipes.clap.embedder import MODEL, Embedder
from audiotrain.recipes.clap.index import Index, build, check_suffix
from audiotrain.recipes.clap.scoring import embed_prompts, score_clips
from audiotrain.recipes.clap.use_settings import (
    ClassifySettings,
    CvSettings,
    EmbedSettings,
    EvaluateSettings,
    SearchSettings,
    check_result,
    read_labels,
)
from audiotrain.recipes.common import split
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.run import scores_folder
from audiotrain.train.run_folder import evaluation_name, refuse_results
from audiotrain.utils.files import refuse_existing, write_json
from audiotrain.utils.text import clock

MAX_NAME = 48  # characters of a file's name in a table
Parts = tuple[Sequence[Clip], Sequence[Clip], Sequence[Clip]]


# ---------------------------------------------------------------- evaluate


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a captioned folder; what metrics.json says."""
    refuse_results(settings.output, settings.overwrite)  # before the model is read
    embedder = load_embedder(settings)
    runs = runs_of(embedder)
    name = evaluation_name(settings.data, settings.split)
    with scores_folder(settings, *home_of(settings, runs), name=name) as output:
        corpus = read_corpus(settings, output)
        test, training, validation = parts_of(corpus, runs, settings.split)
        if settings.split is None:
            split.warn_if_trained_on(runs, corpus, "clips")
        refuse_one_meaning(test, settings.data)
        scores = score_clips(
            embedder,
            test,
            training,
            validation,
            settings.templates,
            settings.linear_probe,
            settings.strict,
        )
        scores.write(output)
        print_left_out(scores.left_out, len(test))
        ProblemLog(output).add_unreadable(scores.left_out)
    print(f"\n{scores.table()}\n\n{output}")
    return scores.as_dict()


def cv(settings: CvSettings) -> dict:
    """Cross-validate zero-shot and a linear probe; what metrics.json says."""
    refuse_results(settings.output, settings.overwrite)  # before the model is read
    embedder = load_embedder(settings)
    runs = runs_of(embedder)
    name = f"cv-{settings.data.resolve().stem}"
    with scores_folder(settings, *home_of(settings, runs), name=name) as output:
        corpus = read_corpus(settings, output)
        clips = [clip for clip in corpus.items if clip.label]
        split.warn_if_trained_on(runs, corpus, "clips", advice="")
        return clap_cv.cross_validate(settings, embedder, clips, output)


def read_corpus(settings: EvaluateSettings | CvSettings, output: Path) -> Corpus[Clip]:
    """The clips of the data, after printing what they are; problems.txt in `output` gets every
    problem."""
    corpus = discovery.discover(settings.data, settings.templates, settings.group)
    corpus = captions_corpus.check(corpus, settings.strict)
    print(captions_corpus.report(corpus, ProblemLog(output)), flush=True)
    return corpus


def runs_of(embedder: Embedder) -> list[Path]:
    """The run folder of a model; empty for a model from elsewhere."""
    folder = Path(embedder.name)
    is_run = folder.name == MODEL and (folder.parent / "config.yaml").is_file()
    return [folder.parent] if is_run else []


def home_of(settings: EvaluateSettings | CvSettings, runs: Sequence[Path]) -> tuple[Path, str]:
    """The folder that has the folders of scores, and how their names end."""
    if runs:
        return runs[0], ""
    return Path("runs"), f"-of-{Path(settings.checkpoint).resolve().name}"


def parts_of(corpus: Corpus[Clip], runs: Sequence[Path], name: str | None) -> Parts:
    """The clips to test, those that a probe learns from, and those that it is chosen by; all are
    tested where no part is named. ValueError when neither the run nor the data have the part."""
    if name is None:
        return corpus.items, (), ()
    tested = split.part_of(runs, corpus, name, "clips")
    parts = split.item_parts(runs[0] if runs else None, corpus)
    if unplaced := sum(clip.id not in parts for clip in corpus.items):
        total = len(corpus.items)
        print(f"{unplaced} of {total} clips are in no part of the split: left out", file=sys.stderr)
    training, validation = (
        [clip for clip in corpus.items if parts.get(clip.id) == part] for part in ("train", "valid")
    )
    return tested, training if name != "train" else (), validation if name == "test" else ()


def refuse_one_meaning(clips: Sequence[Clip], data: Path) -> None:
    """ValueError when all captions mean the same."""
    meanings = {meaning(text, clip.concept) for clip in clips for text in clip.captions}
    if len(meanings) < 2:
        count = "1 clip" if len(clips) == 1 else f"{len(clips)} clips that mean the same"
        example = next(iter(meanings), "")[:60]
        raise ValueError(f"{data}: {count} ({example!r}), expected two captions that differ")


# ---------------------------------------------------------------- embed


def embed(settings: EmbedSettings) -> Index:
    """Write the embeddings of all audio in a folder; what was written."""
    check_suffix(settings.output, "--output")
    refuse_existing(settings.output, settings.overwrite)
    problems: list[str] = []
    clips = recordings(settings.data, problems)
    embedder = load_embedder(settings)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    index, unreadable = build(embedder, clips, settings.windows, settings.strict)
    index.write(settings.output)
    print_left_out(problems + unreadable, len(clips))
    rows = f"{len(index.embeddings)} windows of " if settings.windows else ""
    print(f"{settings.output}: {rows}{len(index.ids)} recordings, {embedder.width} numbers each")
    return index


# ---------------------------------------------------------------- search


def search(settings: SearchSettings) -> list[dict]:
    """The recordings nearest to a text or to a recording, best first."""
    check_result(settings.output, settings.overwrite)
    index = None if settings.index.is_dir() else Index.read(settings.index)
    embedder = load_embedder(settings)
    if index is None:
        problems: list[str] = []
        clips = recordings(settings.index, problems)
        index, unreadable = build(embedder, clips, windows=True)
        print_left_out(problems + unreadable, len(clips))
    elif index.model != embedder.digest:
        raise ValueError(
            f"--index {settings.index}: made by model {index.model}, but {embedder.name} is "
            f"{embedder.digest}: name its model by --checkpoint, or embed again"
        )
    if settings.audio is not None:
        query = embedder.audio([settings.audio], "query")[0]
    else:
        query = embedder.text([settings.query])[0]
    cosines = index.embeddings @ query
    rows = [
        {
            "rank": rank,
            "cosine": float(cosines[row]),
            "file": index.ids[index.clip[row]],
            "start": float(index.start[row]),
            "end": float(index.end[row]),
        }
        for rank, row in enumerate(np.argsort(-cosines, kind="stable")[: settings.top], 1)
    ]
    print(f"{'rank':>4}{'cosine':>9}{'start':>10}  file")
    for row in rows:
        print(f"{row['rank']:4}{row['cosine']:9.3f}{clock(round(row['start'])):>10}  {row['file']}")
    if settings.output is not None:
        write_rows(rows, rows, settings.output)
    return rows


# ---------------------------------------------------------------- classify


def classify(settings: ClassifySettings) -> list[dict]:
    """The most likely classes of each file, the likeliest first."""
    check_result(settings.output, settings.overwrite)
    names = read_labels(settings.labels)
    problems: list[str] = []
    clips = [
        replace(clip, id=str(path / clip.id) if path.is_dir() else str(path))
        for path in settings.audio
        for clip in recordings(path, problems)
    ]
    embedder = load_embedder(settings)
    prompts = embed_prompts(embedder, names, settings.templates)
    files = [replace(clip, id=os.path.realpath(clip.id)) for clip in clips]
    split.warn_if_trained_on(runs_of(embedder), Corpus(Path("/"), files, []), "clips", advice="")
    embedded = embedder.embed(clips, "clips", settings.strict)
    cosines = linear_probe.zero_shot(embedded.embeddings, prompts)
    scale = logit_scale(embedder.model.logit_scale_a).item()
    shares = scipy.special.softmax(scale * cosines, axis=1)
    results = []
    for clip, row, share in zip(embedded.clips, cosines, shares, strict=True):
        best = np.argsort(-row, kind="stable")[: settings.top]
        classes = [
            {"class": names[number], "share": float(share[number]), "cosine": float(row[number])}
            for number in best
        ]
        results.append({"file": clip.id, "classes": classes})
    print_classes(results)
    print_left_out(problems + embedded.problems, len(clips))
    if settings.output is not None:
        rows = [
            {"file": result["file"], "rank": rank, **row}
            for result in results
            for rank, row in enumerate(result["classes"], 1)
        ]
        write_rows(rows, results, settings.output)
    return results


def print_classes(results: Sequence[dict]) -> None:
    """A line for each file: its classes with their shares in percent."""
    files = [shorten(result["file"]) for result in results]
    width = max(map(len, files))
    class_width = max(len(row["class"]) for result in results for row in result["classes"])
    for file, result in zip(files, results, strict=True):
        columns = [
            f"{100 * row['share']:5.1f} % {row['class']:{class_width}}" for row in result["classes"]
        ]
        print(f"{file:{width}}  {'  '.join(columns)}".rstrip())


def shorten(name: str) -> str:
    """The end of a long name."""
    return name if len(name) <= MAX_NAME else "…" + name[1 - MAX_NAME :]


# ---------------------------------------------------------------- shared


def load_embedder(
    settings: EvaluateSettings | CvSettings | EmbedSettings | SearchSettings | ClassifySettings,
) -> Embedder:
    """The model that the settings name."""
    return Embedder.from_folder(settings.checkpoint, settings.batch_size, settings.workers)


def write_rows(rows: Sequence[dict], nested: Sequence[dict], path: Path) -> None:
    """Write `rows` as CSV, or `nested` as JSON, by the suffix."""
    if path.suffix == ".json":
        write_json(path, list(nested))
    else:
        plots.table_csv(rows, path)


def print_left_out(problems: Sequence[str], total: int) -> None:
    """Print which recordings could not be read, on stderr."""
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if problems:
        print(f"left out {len(problems)} of {total} recordings", file=sys.stderr)


COMMANDS = {
    "evaluate": Command(EvaluateSettings, evaluate),
    "cv": Command(CvSettings, cv),
    "embed": Command(EmbedSettings, embed),
    "search": Command(SearchSettings, search, "query"),
    "classify": Command(ClassifySettings, classify, "audio"),
}
