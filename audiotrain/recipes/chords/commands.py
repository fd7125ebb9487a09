"""Train, evaluate and use a chord recogniser.

    python -m audiotrain.recipes.chords                          trains on synthesised songs
    python -m audiotrain.recipes.chords --data FOLDER            trains on audio and labels
    python -m audiotrain.recipes.chords cv --data FOLDER         trains and tests on each fold
    python -m audiotrain.recipes.chords ensemble RUN RUN         joins runs to one model
    python -m audiotrain.recipes.chords evaluate --data FOLDER   scores the newest run
    python -m audiotrain.recipes.chords predict song.mp3         writes song.lab

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes, prints and evaluates.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation.chord_report import ChordReport
from audiotrain.recipes.chords import scoring
from audiotrain.recipes.chords.cv import cross_validate
from audiotrain.recipes.chords.ensemble import Join, ensemble, from_spec
from audiotrain.recipes.chords.predict_files import predict
from audiotrain.recipes.chords.recipe import ChordRecipe, with_pretrained
from audiotrain.recipes.chords.settings import (
    CvSettings,
    EnsembleSettings,
    EvaluateSettings,
    PredictSettings,
    TrainSettings,
)
from audiotrain.recipes.chords.songs import SongLibrary, discover, load_songs
from audiotrain.recipes.common import cli, run, split
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.ensemble import EnsembleSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("chords", COMMANDS, argv, all_cores=lambda settings: True)


def train(settings: TrainSettings) -> ChordReport | None:
    """Train, test on unseen songs and predict one of them; None on ranks other than 0."""
    return run.train(ChordRecipe(with_pretrained(settings)))


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a folder; the content of metrics.json."""
    paths = settings.checkpoint
    spec = EnsembleSpec.of(paths, "chords", settings.join, get_args(Join))
    # One run's scores go into it; those of several into the first path that is named.
    home = spec.runs[0] if len(spec.runs) == 1 else paths[0]
    suffix = f"-of-{len(spec.runs)}" if len(paths) > 1 else ""
    with run.scores_folder(settings, home, suffix) as output:
        recognizer = from_spec(spec, "transpose" in settings.tta)
        log = ProblemLog(output)
        corpus = discover(settings.data, settings, log)
        if settings.split is not None:
            part = split.part_of(spec.runs, corpus, settings.split, "songs")
            corpus = replace(corpus, items=part)
        library = SongLibrary(recognizer.settings, settings.cache.expanduser(), settings.seed)
        tuned = "tuning" in settings.tta
        songs = load_songs(library, corpus.items, log, settings.rendering, tuned, settings.workers)
        split.warn_if_trained_on(spec.runs, corpus, "songs")
        scores = scoring.score(recognizer, songs, "scoring")
        scores.evaluated = {
            "data": str(settings.data.resolve()),
            "split": settings.split,
            "checkpoint": [str(path.resolve()) for path in spec.runs],
            "tta": list(settings.tta),
        }
        scores.write(output, scoring.recordings_of(corpus.items))
        print(f"\n{scores.table()}\n\n{output}")
        return scores.as_dict()


COMMANDS = {
    "train": Command(TrainSettings, train),
    "cv": Command(CvSettings, cross_validate),
    "evaluate": Command(EvaluateSettings, evaluate),
    "ensemble": Command(EnsembleSettings, ensemble, "checkpoint"),
    "predict": Command(PredictSettings, predict, "audio"),
}
