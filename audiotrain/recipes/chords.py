"""Train, evaluate and use a chord recogniser.

    python -m audiotrain.recipes.chords                          learns from synthesised songs
    python -m audiotrain.recipes.chords --data FOLDER            learns from audio and labels
    python -m audiotrain.recipes.chords evaluate --data FOLDER   scores the newest run
    python -m audiotrain.recipes.chords predict song.mp3         writes song.lab

Each command explains its settings with --help.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain import audio as audio_files
from audiotrain import config, harmony, report
from audiotrain.callbacks import EarlyStopping
from audiotrain.datasets import annotation_writers, chords
from audiotrain.loader import DataLoader
from audiotrain.recipes import chord_data, chord_inference, chord_scoring
from audiotrain.recipes.chord_data import Library, Song
from audiotrain.recipes.chord_prediction import newest_run, predict
from audiotrain.recipes.chord_settings import (
    EvaluateSettings,
    PredictSettings,
    TrainSettings,
    resumed,
)
from audiotrain.recipes.chord_trainer import ChordTrainer as ChordTrainer
from audiotrain.recipes.chord_trainer import TrainingConfig as TrainingConfig
from audiotrain.recipes.chord_training import ChordTraining, count_types, type_weights
from audiotrain.saving import ModelCheckpoint
from audiotrain.trainer import Trainer

PRESETS = Path(__file__).parent / "presets"
COMMANDS = {"train": TrainSettings, "evaluate": EvaluateSettings, "predict": PredictSettings}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        command, rest = config.choose_command(words, tuple(COMMANDS), "train")
        settings = load_settings(command, rest)
        {"train": train, "evaluate": evaluate, "predict": predict}[command](settings)
    except (ValueError, ImportError) as error:
        return refuse(str(error))
    except OSError as error:  # of the file system: a folder that is full or may not be written
        place = "" if error.filename is None else f"{error.filename}: "
        return refuse(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def refuse(message: str) -> int:
    """Tell a mistake on a line of its own; the exit code for it."""
    chord_data.end_progress()
    print(f"error: {message}", file=sys.stderr)
    return 2


def load_settings(command: str, words: Sequence[str]):
    """Settings of a command from its words; a resumed run's are its own, then the words."""
    settings = config.load(
        COMMANDS[command],
        words,
        presets=PRESETS if command == "train" else None,
        prog=f"audiotrain chords {command}",
        description=COMMANDS[command].__doc__ or "",
        positional="audio" if command == "predict" else None,
    )
    if not isinstance(settings, TrainSettings) or not settings.resume:
        return settings
    if settings.output is None:
        raise ValueError("--resume: needs --output, the run folder to continue")
    own = settings.output / "config.yaml"
    if not own.exists():
        raise ValueError(f"{settings.output}: no config.yaml, so there is no run to resume")
    saved = config.load(TrainSettings, ["--config", str(own)])
    wanted = config.load(TrainSettings, ["--config", str(own), *words], presets=PRESETS)
    return resumed(saved, wanted)


# ---------------------------------------------------------------- train


def train(settings: TrainSettings) -> dict:
    """Train, test on unseen songs and predict one of them; what metrics.json says."""
    begun = time.monotonic()
    run = open_run(settings)
    library = Library(settings.features, settings.cache.expanduser(), settings.seed)
    parts, corpus = prepare(settings, library, run)
    module = make_module(settings, parts["train"])
    trainer, loaders = make_trainer(settings, parts, run)
    last = run / "checkpoints" / "last"
    try:
        trainer.fit(module, *loaders, ckpt_path=last if settings.resume and last.is_dir() else None)
    except SystemExit:  # Ctrl-C or SIGTERM: the trainer has saved its state
        print(f"to continue this run: --output {run} --resume", file=sys.stderr)
        raise
    trainer.export_history(run / "history.json")
    report.curves_picture(trainer.history.rows, run / "curves.png")

    recognizer = chord_inference.Recognizer.from_checkpoint(run)
    weights = None
    if settings.loss.class_power:
        weights = type_weights(settings.loss, count_types(first_classes(parts["train"])))
    chord_scoring.choose_decoding(recognizer, first_renderings(parts["valid"]), weights)
    chord_inference.write_decoding(recognizer, run / "checkpoints" / "decoding.json")
    tested = first_renderings(parts["test"])
    scores = chord_scoring.score(recognizer, tested, "testing")
    scores.write(run)
    result = scores.as_dict()
    print(f"\n{len(tested)} unseen songs, {result['seconds'] / 60:.0f} minutes:")
    print(chord_scoring.table(result))
    show_example(settings, recognizer, library, corpus, tested, run)
    print(f"\n{run}: {time.monotonic() - begun:.0f} s in all")
    return result


def open_run(settings: TrainSettings) -> Path:
    """The run folder with the settings in it. ValueError when it holds a run already."""
    run = settings.output or Path("runs") / time.strftime("chords-%Y%m%d-%H%M%S")
    begun = [
        name for name in ("checkpoints", "metrics.csv", "metrics.json") if (run / name).exists()
    ]
    if begun and not settings.resume:
        raise ValueError(f"{run}: holds a run already ({begun[0]}); --resume continues it")
    try:
        run.mkdir(parents=True, exist_ok=True)
        config.save(replace(settings, resume=False), run / "config.yaml")
    except OSError as error:
        raise ValueError(f"run folder {run}: {error.strerror}") from None
    return run


def prepare(
    settings: TrainSettings, library: Library, run: Path
) -> tuple[dict[str, list[list[Song]]], dict[str, chords.Item]]:
    """Songs, as lists of renderings, by "train", "valid" and "test"; and the items by name."""
    fractions = (1 - settings.valid - settings.test, settings.valid, settings.test)
    items: dict[str, chords.Item] = {}
    if settings.data is not None:
        corpus = find(settings.data, settings.selector, settings.group, settings.pop_spellings)
        items = {item.id: item for item in corpus.items}
        saved = run / "split.json"
        is_new = not saved.exists()
        split = chords.split(corpus, settings.seed, fractions, saved)
        try:
            parts = load_parts(settings, library, split)
        except ValueError:
            if is_new:
                saved.unlink()  # it is worth nothing, and would keep later songs' places
            raise
        parts["train"] += compose(settings, library)
        return parts, items
    composed = compose(settings, library)
    count = len(composed)
    first = min(max(1, round(count * fractions[0])), count - 2)
    second = min(first + max(1, round(count * fractions[1])), count - 1)
    parts = {"train": composed[:first], "valid": composed[first:second], "test": composed[second:]}
    return parts, items


def load_parts(
    settings: TrainSettings, library: Library, split: dict[str, list[chords.Item]]
) -> dict[str, list[list[Song]]]:
    """The songs of each part of a split. ValueError when one is empty that may not be."""
    needed = [name for name in split if name != "train" or not settings.composed_songs]
    total = sum(map(len, split.values()))
    for name in needed:
        if not split[name]:
            raise ValueError(
                f"{settings.data}: the split of {total} recordings leaves none for {name}; "
                "expected at least one each to train, validate and test"
            )
    parts, problems = {}, []
    for name, chosen in split.items():
        renderings = range(settings.renderings if name == "train" else 1)
        parts[name], found = chord_data.load_songs(library, chosen, name, renderings)
        problems += found
        if name in needed and not parts[name]:
            raise ValueError(f"none of {len(chosen)} {name} recordings can be read: {found[0]}")
    tell(problems, total)
    return parts


def find(data: Path, selector: str | None, group: str | None, pop_spellings: bool) -> chords.Corpus:
    """The labelled recordings of a folder, after printing what is in it."""
    chosen = int(selector) if selector is not None and selector.isdigit() else selector
    corpus = chords.discover(data, chosen, group, pop_spellings)
    corpus = chords.check(corpus)
    print(chords.report(corpus), flush=True)
    if not any(item.audio is not None for item in corpus.items):
        raise ValueError(f"{data}: labels of {len(corpus.items)} songs but no audio to train on")
    return corpus


def compose(settings: TrainSettings, library: Library) -> list[list[Song]]:
    """The synthesised songs of a run."""
    number = settings.composed_songs
    if not number:
        return []
    borrowed = []
    if settings.progressions is not None:
        borrowed = [
            chords.segments(item)
            for item in chords.discover(settings.progressions).items
            if item.clip_label is None
        ]
    seconds = settings.composed_seconds
    songs = chord_data.progress(range(number), "composing")
    return [[library.composed(index, seconds, borrowed)] for index in songs]


def tell(problems: list[str], total: int) -> None:
    """Say which recordings are left out."""
    if problems:
        print(f"left out {len(problems)} of {total} recordings that cannot be read, such as")
        print("\n".join(f"  {problem}" for problem in problems[:5]), flush=True)


def first_renderings(songs: list[list[Song]]) -> list[Song]:
    """One rendering of each song."""
    return [renderings[0] for renderings in songs]


def first_classes(songs: list[list[Song]]) -> list[np.ndarray]:
    """The classes (frames, 3) of each song."""
    return [renderings[0].classes for renderings in songs]


def make_module(settings: TrainSettings, songs: list[list[Song]]) -> ChordTraining:
    """The untrained module for these songs."""
    mx.random.seed(settings.seed)
    return ChordTraining(
        settings.features,
        settings.model,
        settings.loss,
        settings.optimization,
        chord_data.statistics(songs, settings.features),
        count_types(first_classes(songs)),
    )


def make_trainer(settings: TrainSettings, parts: dict[str, list[list[Song]]], run: Path):
    """The Trainer of a run, and its loaders for training and validation."""
    windows = chord_data.Windows(parts["train"], settings.window, settings.features)
    batch = min(settings.batch_size, len(windows))
    train_loader = DataLoader(
        windows, batch, shuffle=True, num_workers=settings.workers, drop_last=True,
        seed=settings.seed, persistent_workers=True,
    )  # fmt: skip
    valid = chord_data.Sequential(
        first_renderings(parts["valid"]), settings.window, settings.features
    )
    val_loader = DataLoader(valid, batch, num_workers=settings.workers)
    steps = settings.steps
    if steps is None:
        steps = 300 if settings.data is None else settings.epochs * len(train_loader)
    callbacks = [
        ModelCheckpoint(run / "checkpoints", "best", monitor="val_loss", save_top_k=1),
    ]
    if settings.patience:
        callbacks.append(EarlyStopping("val_loss", patience=settings.patience))
    described = chord_inference.describe(settings.model, settings.features, settings.window)
    trainer = Trainer(
        max_steps=steps,
        max_time=None if settings.max_minutes is None else settings.max_minutes * 60,
        val_check_interval=max(1, steps // settings.validations),
        gradient_clip_val=settings.optimization.gradient_clip,
        ema_decay=settings.optimization.ema_decay or None,
        default_root_dir=run,
        callbacks=callbacks,
        seed=settings.seed,
        config={"recognizer": described, "settings": config.to_plain(settings)},
    )
    return trainer, (train_loader, val_loader)


def show_example(settings, recognizer, library, items, tested: list[Song], run: Path) -> None:
    """Predict an unseen song from its audio: example.wav and .lab, a picture, a timeline."""
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
    annotation_writers.write(
        run / "example.lab", prediction.segments, prediction.confidences, prediction.seconds
    )
    # Both in one spelling, so that D# and Eb are the same chord to the eye too.
    reference = [s._replace(label=harmony.decode(harmony.encode(s.label))) for s in song.segments]
    report.chords_picture(
        prediction.segments, run / "example.png", reference, title=f"{song.name}, never seen"
    )
    print(f"\n{song.name}, an unseen song ({run / 'example.lab'}):")
    print(report.timeline(prediction.segments, reference, rows=4))


# ---------------------------------------------------------------- evaluate


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a folder; what metrics.json says."""
    run = newest_run(settings.checkpoint)
    recognizer = chord_inference.Recognizer.from_checkpoint(run)
    corpus = find(settings.data, settings.selector, None, settings.pop_spellings)
    items = corpus.items
    if settings.split is not None:
        items = part_of(corpus, run / "split.json", settings.split)
    library = Library(recognizer.settings, settings.cache.expanduser(), settings.seed)
    songs, problems = chord_data.load_songs(library, items, "reading", [settings.rendering])
    tell(problems, len(items))
    if not songs:
        raise ValueError(f"none of {len(items)} recordings can be read, such as {problems[0]}")
    scores = chord_scoring.score(recognizer, first_renderings(songs), "scoring")
    output = settings.output or run / f"evaluation-{settings.data.resolve().name}"
    output.mkdir(parents=True, exist_ok=True)
    scores.write(output)
    result = scores.as_dict()
    print(f"\n{len(songs)} songs, {result['seconds'] / 60:.0f} minutes:")
    print(chord_scoring.table(result))
    print(f"\n{output}")
    return result


def part_of(corpus: chords.Corpus, split: Path, name: str) -> list[chords.Item]:
    """The items that a run's saved split has in one part. ValueError when there is none."""
    try:
        chosen = set(json.loads(split.read_text("utf-8"))["items"][name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--split {name}: {split}: not a run's split ({error})") from None
    items = [item for item in corpus.items if item.id in chosen]
    if not items:
        raise ValueError(
            f"--split {name}: {split} names none of the {len(corpus.items)} recordings in "
            f"{corpus.folder}: it is the split of other data"
        )
    return items


if __name__ == "__main__":
    sys.exit(main())
