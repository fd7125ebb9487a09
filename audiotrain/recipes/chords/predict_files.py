"""The command `predict`: writes the chords of audio files and folders."""

import sys
import time
from functools import partial
from pathlib import Path

from audiotrain.datasets.chords import writers
from audiotrain.datasets.paths import recordings
from audiotrain.evaluation import plots
from audiotrain.features import audio as audio_files
from audiotrain.features.audio import AudioError
from audiotrain.features.tuning import tuning_of
from audiotrain.recipes.chords.ensemble import load
from audiotrain.recipes.chords.predictor import Analysis, analyse
from audiotrain.recipes.chords.settings import PredictSettings
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.utils.process_pool import map_in_processes
from audiotrain.utils.progress import progress

LONGEST = 1200.0  # seconds of a recording that a worker reads; a longer one streams through


def predict(settings: PredictSettings) -> list[Path]:
    """Write the chords of every file; the files written. Those that cannot be read are reported."""
    recognizer = load(settings.checkpoint, settings.join, "transpose" in settings.tta)
    targets = results(settings)
    written: list[Path] = []
    problems = []
    left: float = round(sum(map(seconds_of, targets)))
    bar = progress(None, "predicting", int(left), unit=" s")

    def advance(seconds: float) -> None:
        nonlocal left
        bar.update(min(seconds, left))  # the last frame may end after its file
        left -= min(seconds, left)

    features, find_tuning = recognizer.settings, "tuning" in settings.tta
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
        except AudioError as error:
            problems.append(str(error))
            continue
        about = {"title": source.stem, "tool": "audiotrain"}
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            writers.write(path, *prediction, about)
        written += paths
        speed = prediction.seconds / max(time.monotonic() - begun, 1e-9)
        names = ", ".join(map(str, paths))
        print(f"\n{source}: {prediction.seconds:.0f} s, {speed:.0f}x real time -> {names}")
        begun = time.monotonic()
        if settings.timeline:
            print(plots.timeline(prediction.segments, rows=4), flush=True)
    bar.close()
    if not written:
        raise ValueError(f"none of {len(targets)} files can be read: {problems[0]}")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if problems:
        print(f"left out {len(problems)} of {len(targets)} files", file=sys.stderr)
    return written


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
    """The files to write for each recording. ValueError when one would replace another."""
    targets: dict[Path, list[Path]] = {}
    sources: dict[Path, Path] = {}
    for clip in (clip for path in settings.audio for clip in recordings(path, [])):
        source = clip.audio
        assert isinstance(source, Path)
        target = source if settings.output is None else settings.output / clip.id
        targets[source] = [target.with_suffix(f".{suffix}") for suffix in settings.formats]
        for path in targets[source]:
            if sources.setdefault(path, source) != source:
                raise ValueError(
                    f"{path}: would be written for both {sources[path]} and {source}; predict one "
                    "of them, or each to an --output of its own"
                )
    existing = [path for path in sources if path.exists()]
    if existing and not settings.overwrite:
        count = f"and {len(existing) - 1} more exist" if len(existing) > 1 else "exists"
        raise ValueError(
            f"{existing[0]} {count} already: --overwrite replaces, --output FOLDER writes elsewhere"
        )
    return targets
