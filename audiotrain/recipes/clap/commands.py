"""Train and use CLAP: sounds and captions in one space.

    python -m audiotrain.recipes.clap                            learns from composed scenes
    python -m audiotrain.recipes.clap --data FOLDER --pretrained
                                                                 fine-tunes on audio and captions
    python -m audiotrain.recipes.clap search "rain on a roof" --data FOLDER
    python -m audiotrain.recipes.clap classify FILES --labels dog,rain
    python -m audiotrain.recipes.clap embed --data FOLDER --output sounds.safetensors
    python -m audiotrain.recipes.clap evaluate --data FOLDER --checkpoint latest
                                                                 scores the newest run
    python -m audiotrain.recipes.clap export --output FOLDER     writes what transformers reads

Without --checkpoint, the model is laion/clap-htsat-unfused of Hugging Face's hub.
Each command explains its settings with --help, prints its results and returns them. A recording
that can't be read is named and left out. Under mlx.launch all processes train; rank 0 alone writes
and prints.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.special

from audiotrain.datasets.captions import corpus as captions_corpus
from audiotrain.datasets.captions import discovery
from audiotrain.datasets.items import Clip, Corpus
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import linear_probe, plots
from audiotrain.models.clap.model import logit_scale
from audiotrain.models.clap.weights import CONFIG, RELEASED, HubError, is_hub_id
from audiotrain.recipes.clap.cv import cross_validate
from audiotrain.recipes.clap.embedder import MODEL, EmbeddedClips, Embedder, model_folder
from audiotrain.recipes.clap.embedding_store import EmbeddingStore
from audiotrain.recipes.clap.index import Index
from audiotrain.recipes.clap.pretrained import export
from audiotrain.recipes.clap.recipe import ClapRecipe, refuse_one_meaning
from audiotrain.recipes.clap.scoring import Scores, embed_prompts, score_clips
from audiotrain.recipes.clap.settings import (
    ClassifySettings,
    CvSettings,
    EmbedSettings,
    EvaluateSettings,
    ExportSettings,
    ScoreSettings,
    SearchSettings,
    StoreSettings,
    TrainSettings,
    UseSettings,
)
from audiotrain.recipes.clap.sound_library import Match, SoundLibrary, nearest, others, query_vector
from audiotrain.recipes.common import checkpoints, cli, run, split
from audiotrain.recipes.common.cli import Command
from audiotrain.train.run_folder import evaluation_name, refuse_results
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import refuse_existing, write_json
from audiotrain.utils.text import clock, count, of_total

Parts = tuple[Sequence[Clip], Sequence[Clip], Sequence[Clip]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("clap", COMMANDS, argv, all_cores=uses_batch_splitting)


def uses_batch_splitting(settings) -> bool:
    """Whether batches are split over the cores: not with checkpoint_blocks, since splitting undoes
    what gradient checkpointing saves."""
    return not getattr(settings, "checkpoint_blocks", False)


def train(settings: TrainSettings) -> Scores | None:
    """Train, write the best model's folder and test it on unseen clips; their scores, on rank 0."""
    return run.train(ClapRecipe(settings))


# ---------------------------------------------------------------- evaluate and cv


@contextlib.contextmanager
def scoring(
    settings: ScoreSettings, name: str
) -> Iterator[tuple[Embedder, list[Path], Corpus[Clip], Path]]:
    """The model, the run it is from, if any, the clips, after printing what they are, and the
    folder for their scores."""
    refuse_results(settings.output, settings.overwrite)  # before anything is read
    corpus = discovery.discover(settings.data, settings.templates, settings.group)
    embedder = load_embedder(settings)
    runs = runs_of(embedder)
    folder = Path(embedder.checkpoint)
    model = folder.parent.name if folder.name == MODEL else folder.name
    home, suffix = (runs[0], "") if runs else (checkpoints.RUNS, f"-of-{model}")
    with run.scores_folder(settings, home, suffix, name) as output:
        corpus = captions_corpus.check(corpus, settings.strict)
        print(captions_corpus.report(corpus, ProblemLog(output, brief=True)), flush=True)
        yield embedder, runs, corpus, output


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a captioned folder; the content of metrics.json."""
    name = evaluation_name(settings.data, settings.split)
    with scoring(settings, name) as (embedder, runs, corpus, output):
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
        ProblemLog(output).report_unreadable(scores.left_out, len(test), "recordings")
        ProblemLog(output).report_incomplete(scores.incomplete, len(test), "recordings")
    print(f"\n{scores.table()}\n\n{output}")
    return scores.as_dict()


def cv(settings: CvSettings) -> dict:
    """Cross-validate zero-shot and a linear probe; the content of metrics.json."""
    name = f"cv-{settings.data.resolve().stem}"
    with scoring(settings, name) as (embedder, runs, corpus, output):
        clips = [clip for clip in corpus.items if clip.label]
        split.warn_if_trained_on(runs, corpus, "clips", advice="")
        return cross_validate(settings, embedder, clips, output)


def runs_of(embedder: Embedder) -> list[Path]:
    """The run folder of a model; empty for a model from elsewhere."""
    run = run_of(Path(embedder.name))
    return [] if run is None else [run]


def run_of(folder: Path) -> Path | None:
    """The run folder of a model's folder; None for a model from elsewhere."""
    is_run = folder.name == MODEL and (folder.parent / "config.yaml").is_file()
    return folder.parent if is_run else None


def parts_of(corpus: Corpus[Clip], runs: Sequence[Path], name: str | None) -> Parts:
    """The clips to test, those that a probe is fitted to, and those that choose its C; all are
    tested where no part is named. ValueError when neither the run nor the data have the part."""
    if name is None:
        return corpus.items, (), ()
    tested = split.part_of(runs, corpus, name, "clips")
    parts = split.item_parts(runs[0] if runs else None, corpus)
    if unplaced := sum(clip.id not in parts for clip in corpus.items):
        total = len(corpus.items)
        verb = "is" if total == 1 else "are"
        clips = f"{of_total(unplaced, total, 'clips')} {verb}"
        print(f"{clips} in no part of the split: left out", file=sys.stderr)
    training, validation = (
        [clip for clip in corpus.items if parts.get(clip.id) == part] for part in ("train", "valid")
    )
    return tested, training if name != "train" else (), validation if name == "test" else ()


# ---------------------------------------------------------------- embed and search


def embed(settings: EmbedSettings) -> Index:
    """Write the embeddings of all audio in a folder to a file."""
    refuse_existing(settings.output, settings.overwrite)
    problems: list[str] = []
    clips = recordings(settings.data, problems)
    embedder = load_embedder(settings)
    embedded = embed_clips(settings, embedder, clips)
    split.print_incomplete(embedded.incomplete)
    split.print_left_out(problems + embedded.problems, len(clips), "recordings")
    index = Index.of(embedded, settings.windows, embedder)
    index.write(settings.output)
    rows = f"{len(index.embeddings)} windows of " if settings.windows else ""
    recorded = count(len(index.ids), "recording")
    print(f"{settings.output}: {rows}{recorded}, {embedder.width} numbers each")
    return index


def embed_clips(
    settings: StoreSettings, embedder: Embedder, clips: Sequence[Clip]
) -> EmbeddedClips:
    """The embeddings of all clips that can be read, from the cache where it has them."""
    with contextlib.closing(EmbeddingStore(settings.cache, embedder)) as store:
        return store.embed(clips, "embedding", settings.strict)


def search(settings: SearchSettings) -> list[dict]:
    """The recordings nearest to a text or to a recording, best first."""
    if settings.output is not None:
        refuse_existing(settings.output, settings.overwrite)
    rows = [match._asdict() for match in matches(settings)]
    print(f"{'rank':>4}{'cosine':>9}{'start':>10}  file")
    for row in rows:
        print(f"{row['rank']:4}{row['cosine']:9.3f}{clock(round(row['start'])):>10}  {row['file']}")
    if settings.output is not None:
        write_rows(rows, rows, settings.output)
    return rows


def matches(settings: SearchSettings) -> list[Match]:
    """What `search` finds in a folder, after embedding what is new, or in an index."""
    text = settings.text or None
    if settings.data is not None:
        library = SoundLibrary(
            settings.data, lambda: load_embedder(settings), settings.cache, settings.strict
        )
        found = library.search(text, settings.audio, settings.top, settings.per_file)
        split.print_incomplete(library.incomplete)
        split.print_left_out(library.problems, library.size, "recordings")
        return found
    assert settings.index is not None
    index = Index.read(settings.index)
    embedder = load_embedder(settings, index_checkpoint(index, settings))
    if index.model != embedder.digest:
        raise UserError(
            f"--index {settings.index}: made by {index.checkpoint or 'a model'} with weights of "
            f"digest {index.model}, but those of {embedder.checkpoint} have {embedder.digest}: "
            "--checkpoint names its model, or embed again"
        )
    per_file = settings.per_file or (1 if len(index.ids) > 1 else settings.top)
    vector = query_vector(embedder, text, settings.audio)
    parts = index.parts()
    if settings.audio is not None:
        parts = iter(others(parts, settings.audio, vector))
    return nearest(parts, vector, settings.top, per_file)


def index_checkpoint(index: Index, settings: SearchSettings) -> str:
    """The checkpoint that the settings name, or else the one that made the index. ValueError when
    it is not known, or gone."""
    name = settings.checkpoint or index.checkpoint
    place = f"--index {settings.index}: "
    if not name:
        raise UserError(f"{place}does not say which model made it: --checkpoint names it")
    if settings.checkpoint is None and not is_hub_id(name) and not (Path(name) / CONFIG).is_file():
        raise UserError(
            f"{place}made by {name}, where there is no model any more: --checkpoint names where "
            "it is, or embed again"
        )
    return name


# ---------------------------------------------------------------- classify


def classify(settings: ClassifySettings) -> list[dict]:
    """The most likely classes of each file, the most likely one first."""
    if settings.output is not None:
        refuse_existing(settings.output, settings.overwrite)
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
    embedded = embed_clips(settings, embedder, clips)
    cosines = linear_probe.zero_shot(embedded.embeddings, prompts)
    scale = logit_scale(embedder.model.logit_scale_a).item()
    shares = scipy.special.softmax(scale * cosines, axis=1)
    results: list[dict] = []
    for clip, row, share in zip(embedded.clips, cosines, shares, strict=True):
        best = np.argsort(-row, kind="stable")[: settings.top]
        classes = [
            {"class": names[number], "share": float(share[number]), "cosine": float(row[number])}
            for number in best
        ]
        results.append({"file": clip.id, "classes": classes})
    print_classes(results)
    split.print_incomplete(embedded.incomplete)
    split.print_left_out(problems + embedded.problems, len(clips), "recordings")
    if settings.output is not None:
        rows = [
            {"file": result["file"], "rank": rank, **row}
            for result in results
            for rank, row in enumerate(result["classes"], 1)
        ]
        write_rows(rows, results, settings.output)
    return results


def read_labels(labels: Sequence[str]) -> list[str]:
    """Names of classes from a text file, or from words with commas between.

    ValueError when they are fewer than two.

    >>> read_labels(["dog,rain", "sea waves"])
    ['dog', 'rain', 'sea waves']
    """
    source = "--labels"
    if len(labels) == 1 and labels[0].lower().endswith(".txt"):
        source = f"--labels {labels[0]}"
        try:
            words = Path(labels[0]).read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"{source}: can't be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: not UTF-8 text (byte {error.start})") from None
    else:
        words = ",".join(labels).split(",")
    names = list(dict.fromkeys(" ".join(word.split()) for word in words if word.strip()))
    if len(names) < 2:
        raise UserError(f"{source}: found {', '.join(names) or 'none'}, expected two or more")
    return names


def print_classes(results: Sequence[dict]) -> None:
    """A line for each file: its name, and its classes with their shares in percent."""
    class_width = max(len(row["class"]) for result in results for row in result["classes"])
    names = [result["file"] for result in results]
    width = max(map(len, names))
    for name, result in zip(names, results, strict=True):
        columns = [
            f"{100 * row['share']:5.1f} % {row['class']:{class_width}}" for row in result["classes"]
        ]
        print(f"{name:{width}}  {'  '.join(columns)}".rstrip())


# ---------------------------------------------------------------- shared


def load_embedder(settings: UseSettings, checkpoint: str | None = None) -> Embedder:
    """The model of `checkpoint`, or of the settings, after printing its name."""
    name = checkpoint or settings.checkpoint or checkpoints.SHIPPED
    if name == checkpoints.SHIPPED:
        name = RELEASED
    elif name == checkpoints.LATEST:
        name = str(checkpoints.locate([Path(name)], "clap")[0])
    if is_hub_id(name):
        print(f"model: {name}{checkpoints.latest_note('clap')}", flush=True)
    else:
        folder = model_folder(name)
        print(f"model: {run_of(folder) or folder}", flush=True)
        name = str(folder)
    try:
        return Embedder.from_folder(name, settings.batch_size, settings.workers)
    except HubError as error:
        raise UserError(
            f"{error}, or name a model: --checkpoint {checkpoints.LATEST} or --checkpoint FOLDER"
        ) from None


def write_rows(rows: Sequence[dict], nested: Sequence[dict], path: Path) -> None:
    """Write `rows` as CSV, or `nested` as JSON, by the suffix."""
    if path.suffix == ".json":
        write_json(path, list(nested))
    else:
        plots.table_csv(rows, path)


COMMANDS = {
    "train": Command(TrainSettings, train),
    "evaluate": Command(EvaluateSettings, evaluate),
    "cv": Command(CvSettings, cv),
    "embed": Command(EmbedSettings, embed),
    "search": Command(SearchSettings, search, "query"),
    "classify": Command(ClassifySettings, classify, "audio"),
    "export": Command(ExportSettings, export),
}
