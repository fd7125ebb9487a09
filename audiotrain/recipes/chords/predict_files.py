"""Write the chords of audio files and folders with the newest run's model."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from audiotrain.datasets.chords import writers
from audiotrain.evaluation import plots
from audiotrain.features import audio as audio_files
from audiotrain.features.tuning import tuning_of
from audiotrain.recipes.chords import ensemble
from audiotrain.recipes.chords.predictor import analyse
from audiotrain.recipes.chords.settings import PredictSettings
from audiotrain.utils.process_pool import map_in_processes
from audiotrain.utils.progress import progress

LONGEST = 1200.0  # seconds of a recording that a worker reads; a longer one streams through


def predict(settings: PredictSettings) -> list[Path]:
    """Write the chords of every file; the files written. Those that cannot be read are named."""
    if not settings.audio:
        raise ValueError("--audio: required, audio files or folders of them")
    recognizer, _ = ensemble.load(settings.checkpoint, settings.join, "transpose" in settings.tta)
    targets = results(settings)
    written, problems = [], []
    total = sum(map(seconds_of, targets))
    bar = progress(None, "predicting", round(total), unit=" s")

    def heard(seconds: float) -> None:
        bar.update(min(seconds, bar.total - bar.n))  # the last frame may end after its file

    find_tuning = "tuning" in settings.tta
    read = partial(analyse, recognizer.settings, recognizer.spare, find_tuning, LONGEST)
    begun = time.monotonic()
    analyses = map_in_processes(read, list(targets))
    for (source, paths), analysis in zip(targets.items(), analyses, strict=True):
        try:
            if isinstance(analysis, audio_files.AudioError):
                raise analysis
            tuning = 0.0
            if analysis is None and find_tuning:
                tuning = tuning_of(source, recognizer.settings.rate)
            viterbi = settings.decoding == "viterbi"
            prediction = recognizer.predict(source, viterbi, settings.bass, heard, tuning, analysis)
        except audio_files.AudioError as error:
            problems.append(str(error))
            continue
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            writers.write(
                path, prediction.segments, prediction.confidences, prediction.seconds,
                {"title": source.stem, "tool": "audiotrain"},
            )  # fmt: skip
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


def seconds_of(path: Path) -> float:
    """How long a recording says it is; 0 when it cannot be read."""
    try:
        return audio_files.info(path).seconds
    except audio_files.AudioError:
        return 0.0


def results(settings: PredictSettings) -> dict[Path, list[Path]]:
    """The files to write for each recording. ValueError when one would take another's place."""
    targets: dict[Path, list[Path]] = {}
    sources: dict[Path, Path] = {}
    for source, name in recordings(settings.audio):
        target = source if settings.output is None else settings.output / name
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


def recordings(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(file, its path below the folder given) of all audio. ValueError when there is none."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in audio_files.AUDIO_SUFFIXES
            )
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ValueError(f"{path}: no such file or folder")
    if not found:
        raise ValueError(f"{', '.join(map(str, paths))}: no audio file inside")
    return found
