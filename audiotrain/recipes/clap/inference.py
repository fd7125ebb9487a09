"""What a trained CLAP is used for: evaluate, embed, search, classify.

Each takes its settings and gives what it found; what it tells goes to the terminal. A recording
that can't be read is named and left out.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.special

from audiotrain import config
from audiotrain.datasets import items as datasets_items
from audiotrain.datasets import splits
from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.captions import discovery
from audiotrain.datasets.items import Clip, meaning
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import PROBLEMS, list_unreadable
from audiotrain.evaluation import linear_probe, plots
from audiotrain.models.clap.model import logit_scale
from audiotrain.recipes.clap import cv as clap_cv
from audiotrain.recipes.clap.embedder import MODEL, Embedder
from audiotrain.recipes.clap.index import Index, build, check_suffix
from audiotrain.recipes.clap.scoring import embed_prompts, score_clips
from audiotrain.recipes.clap.settings import TrainSettings
from audiotrain.recipes.clap.use_settings import (
    ClassifySettings,
    CvSettings,
    EmbedSettings,
    EvaluateSettings,
    SearchSettings,
    check_result,
    read_labels,
    refuse_existing,
)
from audiotrain.recipes.common.cli import Command
from audiotrain.train.run_folder import evaluation_name, refuse_results
from audiotrain.utils.files import write_json

WIDEST = 48  # characters of a file's name in a table
Parts = tuple[Sequence[Clip], Sequence[Clip], Sequence[Clip]]


# ---------------------------------------------------------------- evaluate


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a captioned folder; what metrics.json says."""
    refuse_results(settings.output, settings.overwrite)
    embedder = _embedder(settings)
    run = run_of(embedder)
    output = output_folder(settings, run, evaluation_name(settings.data, settings.split))
    corpus = checked(settings, output)
    own = placed(corpus, own_parts(run))
    tested, training, validation = parts_of(corpus, own, settings.split)
    if settings.split is None:
        tell_trained(own.values(), len(tested), "; --split test scores others")
    refuse_alike(tested, settings.data)
    output.mkdir(parents=True, exist_ok=True)
    scores = score_clips(
        embedder, tested, training, validation, settings.templates, settings.linear_probe,
        settings.strict,
    )  # fmt: skip
    scores.write(output)
    tell_left_out(scores.left_out, len(tested))
    list_unreadable(scores.left_out, output / PROBLEMS)
    print(f"\n{scores.table()}\n\n{output}")
    return scores.as_dict()


def cv(settings: CvSettings) -> dict:
    """Cross-validate zero-shot and a linear probe; what metrics.json says."""
    refuse_results(settings.output, settings.overwrite)
    embedder = _embedder(settings)
    run = run_of(embedder)
    output = output_folder(settings, run, f"cv-{settings.data.resolve().stem}")
    corpus = checked(settings, output)
    clips = [clip for clip in corpus.items if clip.label]
    tell_trained(placed(corpus, own_parts(run)).values(), len(corpus.items))
    return clap_cv.cross_validate(settings, embedder, clips, output)


def checked(settings: EvaluateSettings | CvSettings, output: Path) -> datasets_items.Corpus[Clip]:
    """The clips of the data, after printing what they are; what is wrong with them is in the folder
    `output`."""
    corpus = discovery.discover(settings.data, settings.templates, settings.group)
    corpus = captions_corpus.check(corpus, settings.strict)
    print(captions_corpus.report(corpus, output / PROBLEMS), flush=True)
    return corpus


def run_of(embedder: Embedder) -> Path | None:
    """The run folder of a model; None for a model from elsewhere."""
    folder = Path(embedder.name)
    is_run = folder.name == MODEL and (folder.parent / "config.yaml").is_file()
    return folder.parent if is_run else None


def output_folder(settings: EvaluateSettings | CvSettings, run: Path | None, name: str) -> Path:
    """Where results go: where the settings say, else `name` in the model's run if it has one."""
    if settings.output is not None:
        return settings.output
    if run is not None:
        return run / name
    return Path("runs") / f"{name}-of-{Path(settings.checkpoint).resolve().name}"


def own_parts(run: Path | None) -> dict[str, str]:
    """The part that the clips of a run's data had in it, by their whole names; empty for none."""
    split = {} if run is None else saved_split(run)
    data = (
        config.load(TrainSettings, ["--config", str(run / "config.yaml")]).data if split else None
    )
    if data is None:
        return {}
    folder = (data if data.is_dir() else data.parent).resolve()
    return {f"{folder / name}": part for name, part in split.items()}


def placed(corpus: datasets_items.Corpus[Clip], own: dict[str, str]) -> dict[str, str]:
    """The part of a corpus' clips, by id, of those that are a run's `own`."""
    folder = corpus.folder.resolve()
    whole = {clip.id: f"{folder / clip.id}" for clip in corpus.items}
    return {name: own[path] for name, path in whole.items() if path in own}


def tell_trained(parts: Iterable[str | None], total: int, advice: str = "") -> None:
    """Say how many of the clips the model was trained on."""
    if trained := sum(part == "train" for part in parts):
        print(f"{trained} of {total} clips were trained on{advice}", file=sys.stderr)


def parts_of(corpus: datasets_items.Corpus[Clip], own: dict[str, str], name: str | None) -> Parts:
    """The clips to test, those that a probe may learn from, and those to choose it by.

    A part is what the run's split says of its `own` clips, by id, or where it has none here, what
    the data say. ValueError when neither names it.
    """
    if name is None:
        return corpus.items, (), ()
    said = [own.get(clip.id) for clip in corpus.items]
    if any(said):
        if unplaced := said.count(None):
            print(
                f"{unplaced} of {len(said)} clips are in no part of the run's split: left out",
                file=sys.stderr,
            )
    else:
        said = [clip.split for clip in corpus.items]
    parts = {
        part: [clip for clip, place in zip(corpus.items, said, strict=True) if place == part]
        for part in splits.SPLITS
    }
    if not parts[name]:
        where = "neither the data nor the run's split" if own else "the data do not"
        raise ValueError(
            f"--split {name}: {where} name any of the {len(corpus.items)} clips in {corpus.folder}"
        )
    training = parts["train"] if name != "train" else ()
    return parts[name], training, parts["valid"] if name == "test" else ()


def saved_split(run: Path) -> dict[str, str]:
    """The part of each clip in a run's split.json; empty without one."""
    path = run / "split.json"
    if not path.is_file():
        return {}
    try:
        items = json.loads(path.read_text("utf-8"))["items"]
        return {name: part for part in splits.SPLITS for name in items[part]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a run's split ({error!r})") from None


def refuse_alike(clips: Sequence[Clip], data: Path) -> None:
    """ValueError when there is nothing to tell apart."""
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
    embedder = _embedder(settings)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    index, unread = build(embedder, clips, settings.windows, settings.strict)
    index.write(settings.output)
    tell_left_out(problems + unread, len(clips))
    rows = f"{len(index.embeddings)} windows of " if settings.windows else ""
    print(f"{settings.output}: {rows}{len(index.ids)} recordings, {embedder.width} numbers each")
    return index


# ---------------------------------------------------------------- search


def search(settings: SearchSettings) -> list[dict]:
    """The recordings nearest to a text or to a recording, best first."""
    check_result(settings.output, settings.overwrite)
    index = None if settings.index.is_dir() else Index.read(settings.index)
    embedder = _embedder(settings)
    if index is None:
        problems: list[str] = []
        clips = recordings(settings.index, problems)
        index, unread = build(embedder, clips, windows=True)
        tell_left_out(problems + unread, len(clips))
    elif index.model != embedder.digest:
        raise ValueError(
            f"--index {settings.index}: made by model {index.model}, but {embedder.name} is "
            f"{embedder.digest}: name its model by --checkpoint, or embed again"
        )
    if settings.audio is not None:
        query = embedder.audio([settings.audio], "listening")[0]
    else:
        query = embedder.text([settings.query])[0]
    cosines = index.embeddings @ query
    rows = [
        {"rank": rank, "cosine": float(cosines[row]), "file": index.ids[index.clip[row]],
         "start": float(index.start[row]), "end": float(index.end[row])}
        for rank, row in enumerate(np.argsort(-cosines, kind="stable")[: settings.top], 1)
    ]  # fmt: skip
    print(f"{'rank':>4}{'cosine':>9}{'start':>10}  file")
    for row in rows:
        print(f"{row['rank']:4}{row['cosine']:9.3f}{clock(row['start']):>10}  {row['file']}")
    if settings.output is not None:
        write_rows(rows, rows, settings.output)
    return rows


def clock(seconds: float) -> str:
    """A place in a recording.

    >>> clock(9.96), clock(3671)
    ('0:10', '1:01:11')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
    embedder = _embedder(settings)
    prompts = embed_prompts(embedder, names, settings.templates)
    own = own_parts(run_of(embedder))
    tell_trained([own.get(os.path.realpath(clip.id)) for clip in clips], len(clips))
    embedded = embedder.embed(clips, "listening", settings.strict)
    cosines = linear_probe.zero_shot(embedded.embeddings, prompts)
    scale = logit_scale(embedder.model.logit_scale_a).item()
    shares = scipy.special.softmax(scale * cosines, axis=1)
    found = []
    for clip, row, share in zip(embedded.clips, cosines, shares, strict=True):
        best = np.argsort(-row, kind="stable")[: settings.top]
        classes = [
            {"class": names[one], "share": float(share[one]), "cosine": float(row[one])}
            for one in best
        ]
        found.append({"file": clip.id, "classes": classes})
    print_classes(found)
    tell_left_out(problems + embedded.problems, len(clips))
    if settings.output is not None:
        rows = [
            {"file": one["file"], "rank": rank, **chosen}
            for one in found
            for rank, chosen in enumerate(one["classes"], 1)
        ]
        write_rows(rows, found, settings.output)
    return found


def print_classes(found: Sequence[dict]) -> None:
    """A line for each file: its classes with their shares in percent."""
    files = [shorten(one["file"]) for one in found]
    widest = max(map(len, files))
    names = max(len(chosen["class"]) for one in found for chosen in one["classes"])
    for file, one in zip(files, found, strict=True):
        columns = [f"{100 * c['share']:5.1f} % {c['class']:{names}}" for c in one["classes"]]
        print(f"{file:{widest}}  {'  '.join(columns)}".rstrip())


def shorten(name: str) -> str:
    """The end of a long name."""
    return name if len(name) <= WIDEST else "…" + name[1 - WIDEST :]


# ---------------------------------------------------------------- what they share


def _embedder(
    settings: EvaluateSettings | CvSettings | EmbedSettings | SearchSettings | ClassifySettings,
) -> Embedder:
    """The model that the settings name."""
    return Embedder.from_folder(settings.checkpoint, settings.batch_size, settings.workers)


def write_rows(rows: Sequence[dict], nested: Sequence[dict], path: Path) -> None:
    """`rows` as CSV, or `nested` as JSON, by the suffix."""
    if path.suffix == ".json":
        write_json(path, list(nested))
    else:
        plots.table_csv(rows, path)


def tell_left_out(problems: Sequence[str], total: int) -> None:
    """Name recordings that could not be read, on stderr."""
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
