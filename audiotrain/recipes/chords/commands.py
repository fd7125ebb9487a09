"""Train, evaluate and use a chord recogniser.

    python -m audiotrain.recipes.chords                          learns from synthesised songs
    python -m audiotrain.recipes.chords --data FOLDER            learns from audio and labels
    python -m audiotrain.recipes.chords cv --data FOLDER         trains and tests on each fold
    python -m audiotrain.recipes.chords ensemble RUN RUN        joins runs to one model
    python -m audiotrain.recipes.chords evaluate --data FOLDER   scores the newest run
    python -m audiotrain.recipes.chords predict song.mp3         writes song.lab

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes, prints and evaluates.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from audiotrain import config
from audiotrain.datasets import items as datasets_items
from audiotrain.datasets.chords import writers
from audiotrain.datasets.chords.items import Item
from audiotrain.datasets.summary import PROBLEMS, tell_left_out
from audiotrain.evaluation import plots
from audiotrain.features import audio as audio_files
from audiotrain.recipes.chords import cv as chord_cv
from audiotrain.recipes.chords import dataset, predictor, scoring
from audiotrain.recipes.chords import ensemble as chord_ensemble
from audiotrain.recipes.chords import songs as chord_data
from audiotrain.recipes.chords.blending import ensemble
from audiotrain.recipes.chords.chord_trainer import ChordTrainer as ChordTrainer
from audiotrain.recipes.chords.chord_trainer import TrainingConfig as TrainingConfig
from audiotrain.recipes.chords.predict_files import predict
from audiotrain.recipes.chords.settings import (
    CvSettings,
    EnsembleSettings,
    EvaluateSettings,
    PredictSettings,
    TrainSettings,
    check_effect,
)
from audiotrain.recipes.chords.songs import Library, Song
from audiotrain.recipes.chords.split import (
    discover,
    first_classes,
    first_renderings,
    library_of,
    prepare,
    read_split,
    tell_data,
)
from audiotrain.recipes.chords.training import ChordTraining, count_types, type_weights
from audiotrain.recipes.common import cli
from audiotrain.recipes.common import run as runs
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.run import makers, open_run
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.distributed import ranks as distributed
from audiotrain.train.run_folder import evaluation_name, only_run_in, refuse_results

LOGGERS = makers("audiotrain-chords")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("chords", COMMANDS, argv, all_cores=lambda settings: True)


# ---------------------------------------------------------------- train


def train(settings: TrainSettings) -> dict:
    """Train, test on unseen songs and predict one of them; what metrics.json says.

    Under mlx.launch the other ranks train and leave with nothing.
    """
    begun = time.monotonic()
    ranks = distributed.join()
    settings = sized(settings)
    run = Path(ranks.from_first(lambda: str(open_run(settings, "chords"))))
    library = library_of(settings)
    with ranks.hush():
        parts, items = prepare(settings, library, run)
    with runs.resumable(run):
        result = fit(settings, library, parts, items, run)
    if ranks.rank == 0:
        print(f"\n{run}: {time.monotonic() - begun:.0f} s in all")
    return result


def fit(
    settings: TrainSettings, library: Library, parts: dict[str, list[list[Song]]],
    items: dict[str, Item], run: Path, keep: scoring.Keep = lambda *_: None,
) -> dict:  # fmt: skip
    """Train on parts of songs and fill a run folder; what metrics.json says, nothing on other
    ranks. `keep` is told of the test songs' log-probabilities."""
    module = make_module(settings, parts["train"])
    trainer, loaders = make_trainer(settings, parts, run)
    if not runs.fit(settings, trainer, module, loaders, run):
        return {}
    result, recognizer = score_unseen(settings, parts, items, run, keep)
    for logger in trainer.loggers:
        for picture in sorted(run.glob("confusion-*.png")):
            logger.log_image(picture.stem, picture, trainer.global_step)
        logger.finish()
    show_example(settings, recognizer, library, items, first_renderings(parts["test"]), run)
    return result


def cv(settings: CvSettings) -> dict:
    """Train and test on each fold; what metrics.json says."""
    return chord_cv.cross_validate(sized(settings), fit)


def score_unseen(
    settings: TrainSettings, parts: dict[str, list[list[Song]]], items: dict[str, Item],
    run: Path, keep: scoring.Keep,
) -> tuple[dict, predictor.Recognizer]:  # fmt: skip
    """The best model, once it is chosen how it decodes, and its scores on the test songs."""
    recognizer = predictor.Recognizer.from_checkpoint(run)
    weights = None
    if settings.loss.class_power:
        weights = type_weights(settings.loss, count_types(first_classes(parts["train"])))
    scoring.choose_decoding(recognizer, first_renderings(parts["valid"]), weights)
    predictor.write_decoding(recognizer, run / "checkpoints" / "decoding.json")
    tested = first_renderings(parts["test"])
    scores = scoring.score(recognizer, tested, "testing", keep)
    recordings = scoring.recordings_of(items.values())
    # The song that `show_example` renders, when it is no recording.
    recordings.setdefault(tested[0].name, scoring.NOWHERE | {"audio": "example.wav"})
    scores.write(run, recordings)
    result = scores.as_dict()
    print(f"\n{len(tested)} unseen songs, {result['seconds'] / 60:.0f} minutes:")
    print(scoring.table(result))
    return result, recognizer


def sized(settings: TrainSettings) -> TrainSettings:
    """The settings with the features and the model of `pretrained`. ValueError, one line, for
    others that were chosen beside it, and for settings that would do nothing."""
    if not settings.resume:
        check_effect(settings)
    if settings.pretrained is None:
        return settings
    run = chord_ensemble.newest_run(settings.pretrained, "--pretrained")
    known = predictor.Recognizer.from_checkpoint(run)
    own = {"features": known.settings, "model": known.model.trunk.settings}
    for name, value in own.items():
        if getattr(settings, name) not in (getattr(TrainSettings(), name), value):
            raise ValueError(
                f"--{name}…: other than in {settings.pretrained}, expected no such setting, since "
                "--pretrained has its own"
            )
    return replace(settings, pretrained=run, **own)


def make_module(settings: TrainSettings, songs: list[list[Song]]) -> ChordTraining:
    """The module for these songs: untrained, or with the weights of `pretrained`."""
    mx.random.seed(settings.seed)
    module = ChordTraining(
        settings.features,
        settings.model,
        settings.loss,
        settings.optimization,
        chord_data.statistics(songs, settings.features),
        count_types(first_classes(songs)),
    )
    if settings.pretrained is not None:
        known = predictor.Recognizer.from_checkpoint(settings.pretrained)
        module.model.update(known.model.parameters())
    return module


def make_trainer(settings: TrainSettings, parts: dict[str, list[list[Song]]], run: Path):
    """The Trainer of a run, and its loaders for training and validation."""
    windows = dataset.Windows(parts["train"], settings.window, settings.features, settings.plain)
    ranks = distributed.join()
    batch = min(settings.batch_size, max(1, len(windows) // ranks.size))
    train_loader = DataLoader(
        windows, batch, shuffle=True, num_workers=settings.workers, drop_last=True,
        seed=settings.seed, persistent_workers=True,
    )  # fmt: skip
    valid = dataset.Sequential(first_renderings(parts["valid"]), settings.window, settings.features)
    val_loader = DataLoader(valid, batch, num_workers=settings.workers)
    ranks.shard(train_loader)  # how many batches there are depends on it
    steps = settings.steps
    if steps is None:
        steps = 700 if settings.data is None else settings.epochs * len(train_loader)
    described = predictor.describe(settings.model, settings.features, settings.window)
    trainer = runs.trainer_of(
        settings, run, steps, LOGGERS, {"recognizer": described}, monitor="val_loss"
    )
    return trainer, (train_loader, val_loader)


def show_example(settings, recognizer, library, items, tested: list[Song], run: Path) -> None:
    """Predict an unseen song from its audio: example.wav, labels, a picture, a timeline."""
    song = tested[0]
    item = items.get(song.name)
    if item is None or item.midi:
        audio = library.audio_of(song.name, item)
        audio_files.write(run / "example.wav", audio, settings.features.rate)
        source = run / "example.wav"
    elif item.start or item.end is not None:
        source = library.span_of(item)
    else:
        source = item.audio
    prediction = recognizer.predict(source)
    writers.write(
        run / "example.lab", prediction.segments, prediction.confidences, prediction.seconds
    )
    reference = scoring.spelled_alike(song.segments)
    writers.write(run / "example-reference.lab", reference)
    plots.chords_picture(
        prediction.segments, run / "example.png", reference, title=f"{song.name}, never seen"
    )
    print(f"\n{song.name}, an unseen song ({run / 'example.lab'}):")
    print(plots.timeline(prediction.segments, reference, rows=4))


# ---------------------------------------------------------------- evaluate


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a folder; what metrics.json says."""
    refuse_results(settings.output, settings.overwrite)
    places = settings.checkpoint
    recognizer, runs = chord_ensemble.load(places, settings.join, "transpose" in settings.tta)
    # One run's scores go into it; those of several into the first place that is named.
    place = runs[0] if len(runs) == 1 else places[0]
    count = f"-of-{len(runs)}" if len(places) > 1 else ""
    output = settings.output or place / (evaluation_name(settings.data, settings.split) + count)
    with only_run_in({output: "--output"}):  # refused before hours of scoring
        corpus = discover(settings.data, settings.selector, None, settings.pop_spellings)
        items = corpus.items
        if settings.split is not None:
            for run in runs:
                items = part_of(corpus, items, run / "split.json", settings.split)
        tell_data(corpus, output / PROBLEMS)
        return score_items(settings, recognizer, runs, items, output)


def score_items(
    settings: EvaluateSettings, recognizer: predictor.FrameRecognizer, runs: Sequence[Path],
    items: Sequence[Item], output: Path,
) -> dict:  # fmt: skip
    """Score items and fill `output`; what metrics.json says."""
    library = Library(recognizer.settings, settings.cache.expanduser(), settings.seed)
    songs, problems = chord_data.load_songs(
        library, items, "reading", [settings.rendering], "tuning" in settings.tta
    )
    tell_left_out(problems, len(items), "recordings", output / PROBLEMS)
    if not songs:
        raise ValueError(f"none of {len(items)} recordings can be read, such as {problems[0]}")
    tell_trained_on(runs, settings.data, {renderings[0].name for renderings in songs})
    scores = scoring.score(recognizer, first_renderings(songs), "scoring")
    scores.evaluated = {
        "data": str(settings.data.resolve()),
        "split": settings.split,
        "checkpoint": [str(run.resolve()) for run in runs],
        "tta": list(settings.tta),
    }
    scores.write(output, scoring.recordings_of(items))
    result = scores.as_dict()
    print(f"\n{len(songs)} songs, {result['seconds'] / 60:.0f} minutes:")
    print(scoring.table(result))
    print(f"\n{output}")
    return result


def tell_trained_on(runs: Sequence[Path], data: Path, names: set[str]) -> None:
    """Say how many of the songs in `data` were seen in training by one of the runs."""
    seen: set[str] = set()
    for run in runs:
        if not ((run / "split.json").is_file() and (run / "config.yaml").is_file()):
            continue
        own = config.load(TrainSettings, ["--config", str(run / "config.yaml")]).data
        if own is not None and own.resolve() == data.resolve():
            split = read_split(run / "split.json")
            seen |= names.intersection(split["train"]) | names.intersection(split["valid"])
    if seen:
        print(
            f"{len(seen)} of {len(names)} songs were in the training of "
            + ("the run" if len(runs) == 1 else "one of the runs or more")
            + ": --split test scores the others"
        )


def part_of(corpus: datasets_items.Corpus, items: list[Item], split: Path, name: str) -> list[Item]:
    """Those of the items that a run's saved split has in a part. ValueError when there is none."""
    try:
        chosen = set(json.loads(split.read_text("utf-8"))["items"][name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--split {name}: {split}: not a run's split ({error})") from None
    found = [item for item in items if item.id in chosen]
    if not found:
        raise ValueError(
            f"--split {name}: {split} names none of the {len(items)} recordings in "
            f"{corpus.folder}: it is the split of other data"
            + (", or of a member with other parts" if len(items) < len(corpus.items) else "")
        )
    return found


COMMANDS = {
    "train": Command(TrainSettings, train),
    "cv": Command(CvSettings, cv),
    "evaluate": Command(EvaluateSettings, evaluate),
    "ensemble": Command(EnsembleSettings, ensemble, "checkpoint"),
    "predict": Command(PredictSettings, predict, "audio"),
}
