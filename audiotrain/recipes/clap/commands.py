"""Train and use CLAP: sounds and captions in one space.

    python -m audiotrain.recipes.clap                            learns from composed scenes
    python -m audiotrain.recipes.clap --data FOLDER --pretrained laion/clap-htsat-unfused
                                                                 fine-tunes on audio and captions
    python -m audiotrain.recipes.clap evaluate --data FOLDER     scores the newest run
    python -m audiotrain.recipes.clap embed --data FOLDER --output sounds.safetensors
    python -m audiotrain.recipes.clap search "rain on a roof" --index sounds.safetensors
    python -m audiotrain.recipes.clap classify FILES --labels dog,rain
    python -m audiotrain.recipes.clap export --output FOLDER     writes what transformers reads

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes and prints.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from audiotrain.datasets.items import Clip
from audiotrain.datasets.summary import PROBLEMS
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.clap import clips as clap_clips
from audiotrain.recipes.clap import inference
from audiotrain.recipes.clap.dataset import Library, Pairs, Vectors, collate
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.frozen_towers import frozen_vectors
from audiotrain.recipes.clap.pretrained import (
    Start,
    export,
    make_module,
    take_statistics,
    withdraw,
    write_best,
)
from audiotrain.recipes.clap.scoring import score_clips
from audiotrain.recipes.clap.settings import ExportSettings, TrainSettings
from audiotrain.recipes.clap.training import MONITOR, CLAPTraining, Retrieval
from audiotrain.recipes.clap.training import CLAPTrainModule as CLAPTrainModule
from audiotrain.recipes.common import cli
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.run import AtTrainStart, fit, makers, open_run, resumable, trainer_of
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.distributed import ranks as distributed

LOGGERS = makers("audiotrain-clap")
STEPS = 600  # without data
UNTOLD = (
    "the validation clips all mean the same, so retrieval tells no checkpoint from another: the "
    "one of the lowest loss, or else the last, is kept, and patience does not stop the run"
)
HEARD_FOR_STATISTICS = 200  # clips


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("clap", COMMANDS, argv, all_cores=worth_its_memory)


def worth_its_memory(settings) -> bool:
    """Whether batches are cut: not where blocks are computed twice to save memory, more than twice
    as much of which parts would take."""
    return not getattr(settings, "checkpoint_blocks", False)


# ---------------------------------------------------------------- train


def train(settings: TrainSettings) -> dict:
    """Train, write the best model's folder and test it on unseen clips; what metrics.json says.

    Under mlx.launch the other ranks train and leave with nothing.
    """
    begun = time.monotonic()
    ranks = distributed.join()
    run = Path(ranks.from_first(lambda: str(open_run(settings, "clap"))))
    with ranks.hush():
        start, module, library, parts = prepare(settings, run)
        vectors = begin(settings, module, start, library, parts)
    trainer, loaders = make_trainer(settings, library, parts, vectors, run)
    with resumable(run):
        if not fit(settings, trainer, module, loaders, run):
            return {}
    model = write_best(module, start, run)
    result = score_unseen(settings, model, parts["test"], run)
    for logger in trainer.loggers:
        logger.log_image("recall", run / "recall.png", trainer.global_step)
        logger.finish()
    print(f"\n{run}: {time.monotonic() - begun:.0f} s in all")
    return result


def score_unseen(settings: TrainSettings, model: Path, clips: Sequence[Clip], run: Path) -> dict:
    """Scores of a model folder on clips of no other part, written into the run and printed."""
    embedder = Embedder.from_folder(model, workers=max(1, settings.workers))
    scores = score_clips(embedder, clips, templates=settings.templates, linear_probe=False)
    scores.write(run)
    print(f"\nunseen: {scores.table()}\n\ncaption -> nearest clip\n{scores.examples()}")
    return scores.as_dict()


def prepare(
    settings: TrainSettings, run: Path
) -> tuple[Start, CLAPTraining, Library, clap_clips.Parts]:
    """What the run starts from, what it trains, what makes its samples, and its clips that can be
    read."""
    ranks = distributed.join()
    if settings.pretrained is not None:
        Start.pretrained(settings.pretrained)  # refuses before the data are looked at
    saved = run / "split.json"
    is_new = not saved.exists()
    listed = run / PROBLEMS if ranks.rank == 0 else None
    try:
        corpus = ranks.first_goes_first(lambda: clap_clips.find(settings, listed))
        parts = clap_clips.divide(settings, corpus, saved)
        texts = [text for clip in parts["train"] for text in clip.captions]
        start = ranks.first_goes_first(lambda: Start.of(settings, texts, run))
        module = make_module(settings, start)  # refuses settings before all audio is read
        tell_longer(start.tokenizer, [clip for part in parts.values() for clip in part])
        features = ClapFeatures(start.features)
        library = Library(features, start.tokenizer, settings.cache.expanduser(), settings.workers)
        parts = clap_clips.readable(parts, library.clips, settings, listed)
    except ValueError:
        if is_new and ranks.rank == 0:
            saved.unlink(missing_ok=True)  # worth nothing, and would keep later clips' places
        raise
    return start, module, library, parts


def tell_longer(tokenizer: Tokenizer, clips: Sequence[Clip]) -> None:
    """Say which captions are not read to their ends."""
    texts = [text for clip in clips for text in clip.captions]
    longer = tokenizer.longer(texts) if distributed.join().rank == 0 else []
    if longer:
        tokens = f"more than {tokenizer.length} tokens, of which the end is not read"
        print(f"{len(longer)} of {len(texts)} captions have {tokens}: {longer[0]:.40}…")


def begin(
    settings: TrainSettings,
    module: CLAPTraining,
    start: Start,
    library: Library,
    parts: clap_clips.Parts,
) -> Vectors:
    """Statistics of the input for a model from scratch; what frozen towers give for all clips."""
    if start.folder is None:
        sounds = library.clips(parts["train"][:HEARD_FOR_STATISTICS])
        take_statistics(module.clap, [sounds.sound(place)["mel"] for place in range(len(sounds))])
    if not settings.caches_towers:
        return Vectors()
    clips = [clip for part in parts.values() for clip in part]
    return frozen_vectors(module, library, clips, at_once(settings), distributed.join())


def make_trainer(
    settings: TrainSettings,
    library: Library,
    parts: clap_clips.Parts,
    vectors: Vectors,
    run: Path,
):
    """The Trainer of a run, and its loaders for training and validation."""
    ranks = distributed.join()
    pairs = Pairs(library.clips(parts["train"], settings.augmentation), vectors)
    batch = min(settings.batch_size, len(pairs) // ranks.size)
    if batch * ranks.size < 2:
        raise ValueError(f"{len(pairs)} clips to train on, expected one or more for each process")
    train_loader = DataLoader(
        pairs, batch, shuffle=True, num_workers=settings.workers, collate_fn=collate,
        drop_last=True, seed=settings.seed, persistent_workers=True,
    )  # fmt: skip
    if batch < settings.batch_size and ranks.rank == 0:
        print(f"batches of {batch}: there are {len(pairs)} clips to train on", flush=True)
    ranks.shard(train_loader)  # how many batches there are depends on it
    retrieval = Retrieval(parts["valid"], library, vectors, batch * ranks.size, at_once(settings))
    if not retrieval.tells:
        if ranks.rank == 0:
            print(f"{UNTOLD}; --valid takes more", file=sys.stderr)
        settings = replace(settings, patience=0)
    steps = settings.steps
    if steps is None:
        steps = STEPS if settings.data is None else settings.epochs * len(train_loader)
    trainer = trainer_of(
        settings,
        run,
        steps,
        LOGGERS,
        {},
        MONITOR,
        "max",
        [retrieval, AtTrainStart(lambda: withdraw(run))],
        tie="val_loss",
        precision=settings.precision,
    )
    return trainer, (train_loader, retrieval.loader)


def at_once(settings: TrainSettings) -> int:
    """Clips or captions that are embedded at a time where nothing is trained."""
    return settings.micro_batch or min(settings.batch_size, 32)


COMMANDS = {
    "train": Command(TrainSettings, train),
    **inference.COMMANDS,
    "export": Command(ExportSettings, export),
}
