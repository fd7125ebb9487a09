"""Train, evaluate and use a chord recogniser.

    python -m audiotrain.recipes.chords                          trains on synthesised songs
    python -m audiotrain.recipes.chords --data FOLDER            trains on audio and labels
    python -m audiotrain.recipes.chords cv --data FOLDER         trains and tests on each fold
    python -m audiotrain.recipes.chords ensemble RUN RUN         joins runs to one model
    python -m audiotrain.recipes.chords evaluate --data FOLDER   scores the shipped model
    python -m audiotrain.recipes.chords predict song.mp3         writes song.lab
    python -m audiotrain.recipes.chords predict song.mp3 --checkpoint latest   by the newest run
    python -m audiotrain.recipes.chords export --output FOLDER   writes the newest run to pass on

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes, prints and evaluates.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from audiotrain.datasets.chords import writers
from audiotrain.datasets.paths import recordings
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import plots
from audiotrain.evaluation.chord_report import ChordReport
from audiotrain.evaluation.song_page.song import has_little_music
from audiotrain.features import audio as audio_files
from audiotrain.features.audio import AudioError
from audiotrain.features.tags import read_tags
from audiotrain.features.tuning import tuning_of
from audiotrain.music.chord_names import SHARPS, spelled
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords import scoring
from audiotrain.recipes.chords.cv import cross_validate
from audiotrain.recipes.chords.ensemble import Join, ensemble, from_spec, load
from audiotrain.recipes.chords.export import export
from audiotrain.recipes.chords.pages import SOUND_SUFFIX, PageWriter, index_of
from audiotrain.recipes.chords.predictor import Analysis, FrameRecognizer, Prediction, analyse
from audiotrain.recipes.chords.recipe import ChordRecipe, with_pretrained
from audiotrain.recipes.chords.settings import (
    CvSettings,
    EnsembleSettings,
    EvaluateSettings,
    ExportSettings,
    ModelSettings,
    PredictSettings,
    TrainSettings,
)
from audiotrain.recipes.chords.songs import FeatureSettings, SongLibrary, discover, load_songs
from audiotrain.recipes.common import checkpoints, cli, exported, run, split
from audiotrain.recipes.common.cli import Command
from audiotrain.recipes.common.ensemble import EnsembleSpec
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import writing
from audiotrain.utils.process_pool import map_in_processes
from audiotrain.utils.progress import progress
from audiotrain.utils.text import clock, count

LONGEST = 1200.0  # seconds of a recording that a worker reads; a longer one streams through


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("chords", COMMANDS, argv, all_cores=lambda settings: True)


def train(settings: TrainSettings) -> ChordReport | None:
    """Train, test on unseen songs and predict one of them; None on ranks other than 0."""
    return run.train(ChordRecipe(with_pretrained(settings)))


def evaluate(settings: EvaluateSettings) -> dict:
    """Score a model on a folder; the content of metrics.json."""
    paths = checkpoints.report_model(settings.checkpoint, "chords")
    spec = EnsembleSpec.of(paths, "chords", settings.join, get_args(Join))
    # One run's scores go into it; those of several into the first path that is named; exported
    # models are left as they are.
    home = spec.runs[0] if len(spec.runs) == 1 else paths[0]
    suffix = f"-of-{len(spec.runs)}" if len(paths) > 1 else ""
    if exported.is_exported(home):
        name = checkpoints.SHIPPED if home == checkpoints.PRETRAINED / "chords" else home.name
        home, suffix = checkpoints.RUNS, suffix or f"-of-{name}"
    with run.scores_folder(settings, home, suffix) as output:
        recognizer = as_set(settings, from_spec(spec, "transpose" in settings.tta))
        log = ProblemLog(output, brief=True)
        corpus = discover(settings.data, settings, log)
        if settings.split is not None:
            part = split.part_of(spec.runs, corpus, settings.split, "songs")
            corpus = replace(corpus, items=part)
        library = SongLibrary(recognizer.settings, settings.cache.expanduser(), settings.seed)
        tuned = settings.estimates_tuning
        how = settings.rendering, tuned, settings.workers, settings.strict
        songs = load_songs(library, corpus.items, log, *how)
        split.warn_if_trained_on(spec.runs, corpus, "songs")
        scores = scoring.score(recognizer, songs, "scoring")
        scores.evaluated = {
            "data": str(settings.data.resolve()),
            "split": settings.split,
            "checkpoint": [str(path.resolve()) for path in spec.runs],
            "tta": list(settings.tta),
        }
        if not tuned:
            scores.evaluated["tuning"] = False
        if settings.min_confidence is not None:
            scores.evaluated["min_confidence"] = settings.min_confidence
        scores.write(output, scoring.recordings_of(corpus.items))
        print(f"\n{scores.table()}\n\n{output}")
        return scores.as_dict()


def predict(settings: PredictSettings) -> list[Path]:
    """Write the chords of every file; the files written. Those that cannot be read are reported.

    UserError, at the end, where a result could not be written.
    """
    models = checkpoints.report_model(settings.checkpoint, "chords")
    recognizer = as_set(settings, load(models, settings.join, "transpose" in settings.tta))
    targets = results(settings)
    pages = PageWriter(index_of(pages_of(targets), settings.output), settings.sound_megabytes)
    unreadable: list[str] = []
    incomplete: list[str] = []
    songs = _Results(pages, settings.spelling)
    total = round(sum(map(seconds_of, targets)))
    bar = progress(None, "predicting", total, unit=" s")

    def advance(seconds: float) -> None:
        bar.update(min(seconds, total - bar.n))  # the last frame may end after its file

    features, find_tuning = recognizer.settings, settings.estimates_tuning
    read = partial(read_analysis, features, recognizer.takes_margin, find_tuning, LONGEST)
    begun = time.monotonic()
    analyses = map_in_processes(read, list(targets), workers=settings.workers)
    for (source, paths), found in zip(targets.items(), analyses, strict=True):
        try:
            if isinstance(found, AudioError):
                raise found
            tuning, analysis = found
            prediction = recognizer.predict(
                source, settings.decoding == "viterbi", settings.bass, advance, tuning, analysis
            )
            if prediction.missing:
                incomplete.append(f"{source}: {prediction.missing}")
                if settings.strict:
                    raise AudioError(audio_files.as_error(incomplete[-1]))
        except AudioError as error:
            if settings.strict:
                raise
            unreadable.append(str(error))
            continue
        speed = prediction.seconds / max(time.monotonic() - begun, 1e-9)
        songs.add(source, paths, prediction, speed, settings.timeline)
        begun = time.monotonic()
    bar.close()
    split.print_incomplete(incomplete)
    return songs.finish(unreadable, len(targets))


class _Results:
    """Writes the results of songs, and prints a line for each song once they are on disk.

    A page is written after the next song is known. `written` has the files on disk, `unwritten` a
    line for each that could not be written, such as on a full disk; the others are not affected.
    """

    def __init__(self, pages: PageWriter, spelling: writers.Spelling):
        self.pages, self.spelling = pages, spelling
        self.written: list[Path] = []
        self.unwritten: list[str] = []
        self._waiting: list[tuple[str, list[Path], str]] = []  # songs that are not printed yet

    def add(
        self,
        source: Path,
        paths: Sequence[Path],
        prediction: Prediction,
        speed: float,
        timeline: bool,
    ) -> None:
        """Write the files of a song, predicted `speed` times as fast as it plays."""
        done = []
        for path in paths:
            try:
                write_result(path, source, prediction, self.pages, self.spelling)
                done.append(path)
            except UserError as error:
                self.unwritten.append(str(error))
        times = [f"{speed:.0f}x real time"] if speed >= 1 else []
        about = ", ".join([*described(prediction), *times])
        rows = plots.timeline(as_spelled(prediction, self.spelling), rows=4) if timeline else ""
        self._waiting.append((f"\n{source}: {about}", done, rows))
        self._print()

    def finish(self, unreadable: Sequence[str], total: int) -> list[Path]:
        """Write the last page and the index of all; print what was left out of `total` recordings,
        and return the files written. UserError where a file could not be."""
        indexes = self.pages.close()
        self._print()
        self.written += indexes
        unwritten = [*self.unwritten, *self.pages.failed.values()]
        if not self.written and not unwritten:
            raise UserError(split.none_readable(unreadable, "files"))
        split.print_left_out(unreadable, total, "files")
        for index in indexes:
            print(f"all songs: {index}")
        if unwritten:
            for problem in unwritten[1:]:
                print(f"left out: {problem}", file=sys.stderr)
            results_in_all = count(len(self.written) + len(unwritten), "result")
            raise UserError(
                f"{unwritten[0]} ({len(unwritten)} of {results_in_all} could not be written)"
            )
        return self.written

    def _print(self) -> None:
        """Print the songs whose files are all written, in their order."""
        while self._waiting and not self.pages.waiting & set(self._waiting[0][1]):
            about, paths, rows = self._waiting.pop(0)
            there = [path for path in paths if path not in self.pages.failed]
            self.written += there
            names = [str(there[0]), *(path.suffix for path in there[1:])] if there else []
            print(f"{about} -> {', '.join(names) or 'nothing written'}")
            if rows:
                print(rows, flush=True)


def as_set(settings: ModelSettings, recognizer: FrameRecognizer) -> FrameRecognizer:
    """The recognizer with the `min_confidence` of the settings where they have one."""
    if settings.min_confidence is not None:
        recognizer.min_confidence = settings.min_confidence
    return recognizer


def write_result(
    path: Path, source: Path, prediction: Prediction, pages: PageWriter, spelling: writers.Spelling
) -> None:
    """Write one file of the results of a recording. UserError where it cannot be written."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    tags = read_tags(source)
    if path.suffix == ".html":
        pages.add(path, source, prediction, tags)
        return
    writers.write(
        path,
        prediction.segments,
        prediction.confidences,
        prediction.seconds,
        {"title": tags.title or source.stem, "artist": tags.artist, "tool": "audiotrain"},
        prediction.beats,
        prediction.key,
        spelling,
    )


def described(prediction: Prediction) -> list[str]:
    """A recording's length, its tuning where it is not A = 440 Hz, and whether it has little
    music, or no chord."""
    seconds = prediction.seconds
    length = f"{seconds:.{0 if seconds >= 10 else 1 if seconds >= 0.1 else 3}f} s"
    found = [clock(round(seconds)) if seconds >= 3600 else length]
    cents = round(100 * prediction.tuning)
    found += [f"tuned {cents:+} cents from A = 440 Hz"] if cents else []
    if all(one.label in ("N", "X") for one in prediction.segments):
        return [*found, "no chords found"]
    is_little = has_little_music(prediction.segments, prediction.confidences)
    return found + (["little music found"] if is_little else [])


def as_spelled(prediction: Prediction, spelling: writers.Spelling = "key") -> list[Segment]:
    """The chords as the song's key spells them, or with sharps."""
    key = SHARPS if spelling == "sharps" else prediction.key
    if key is None:
        return prediction.segments
    return [one._replace(label=spelled(one.label, key)) for one in prediction.segments]


def read_analysis(
    settings: FeatureSettings, margin: bool, find_tuning: bool, longest: float, path: Path
) -> tuple[float, Analysis | None] | AudioError:
    """The tuning of a file in semitones and its analysis (None for one of more than `longest`
    seconds), or why it cannot be read; for worker processes."""
    try:
        tuning = tuning_of(path, settings.rate) if find_tuning else 0.0
        if seconds_of(path) > longest:
            return tuning, None
        analysis = analyse(settings, margin, path, tuning)
        return tuning, analysis._replace(blocks=list(analysis.blocks))
    except AudioError as error:
        return error


def seconds_of(path: Path) -> float:
    """Length by the file's header; 0 when it cannot be read."""
    try:
        return audio_files.info(path).seconds
    except AudioError:
        return 0.0


def results(settings: PredictSettings) -> dict[Path, list[Path]]:
    """The files to write for each recording. ValueError when one would replace another, or
    `output` is a file."""
    if settings.output is not None and settings.output.is_file():
        raise UserError(f"--output {settings.output}: is a file, expected a folder")
    targets: dict[Path, list[Path]] = {}
    sources: dict[Path, Path] = {}
    for clip in (clip for path in settings.audio for clip in recordings(path, [])):
        source = clip.audio
        assert isinstance(source, Path)
        target = source if settings.output is None else settings.output / clip.id
        targets[source] = [target.with_suffix(f".{suffix}") for suffix in settings.formats]
        for path in targets[source]:
            if sources.setdefault(path, source) != source:
                raise UserError(
                    f"{path}: would be written for both {sources[path]} and {source}; predict one "
                    "of them, or each to an --output of its own"
                )
    pages = pages_of(targets)
    index = index_of(pages, settings.output)
    if index is not None and index in sources:
        raise UserError(
            f"{index}: would be both the page of {sources[index]} and the list of all songs; "
            "rename that recording, or predict it alone"
        )
    beside = [path.with_suffix(SOUND_SUFFIX) for path in pages]
    existing = [
        path for path in (*sources, *filter(None, [index]), *beside) if os.path.exists(path)
    ]
    if existing and not settings.overwrite:
        count = f"and {len(existing) - 1} more exist" if len(existing) > 1 else "exists"
        raise UserError(
            f"{existing[0]} {count} already: --overwrite replaces, --output FOLDER writes elsewhere"
        )
    return targets


def pages_of(targets: Mapping[Path, Sequence[Path]]) -> list[Path]:
    """The pages among the files to write."""
    return [path for paths in targets.values() for path in paths if path.suffix == ".html"]


COMMANDS = {
    "train": Command(TrainSettings, train),
    "cv": Command(CvSettings, cross_validate),
    "evaluate": Command(EvaluateSettings, evaluate),
    "ensemble": Command(EnsembleSettings, ensemble, "checkpoint"),
    "predict": Command(PredictSettings, predict, "audio"),
    "export": Command(ExportSettings, export),
}
