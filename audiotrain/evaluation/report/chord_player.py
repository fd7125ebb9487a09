"""Songs of a report: reference chords, those that each run predicted, and sound to embed.

A run's `timelines.json` has every song that it was scored on: {"song", "score", "audio", "start",
"end", "reference", "prediction"}, chords as [start, end, label] in seconds; `example.wav` with
`example.lab` and `example-reference.lab` is the song that `train` shows.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from audiotrain.evaluation.plots.chord_timeline import root_of, short_label
from audiotrain.evaluation.report.run_reader import Run
from audiotrain.evaluation.song_page import sound
from audiotrain.features import audio

RATE, KBITS = 22050, 40  # Hz, and kbit/s, of embedded sound
MOST_SONGS = 24  # the worst ones
RECORDED = 2  # at least, where so many have a recording
NO_SOUND = "no recording was kept, chords only"

Chords = list[list[Any]]  # [start, end, label as musicians write it, root or -1]
Spans = list[tuple[pydantic.FiniteFloat, pydantic.FiniteFloat, str]]  # start, end, label


@dataclass(frozen=True)
class Entry:
    """A song of a run; `audio` is relative to the run's folder, `digest` of a song without name."""

    song: str
    score: float | None
    audio: str | None
    start: float
    end: float | None
    reference: Spans | None
    prediction: Spans
    digest: str = ""


def songs_and_sounds(runs: Sequence[Run], most_bytes: int) -> tuple[list[dict], dict[str, dict]]:
    """The worst songs, the worst first, and their sounds by key, `most_bytes` in all.

    Runs that were scored on the same song, by its name and labels, share it.
    """
    songs: dict[str, dict] = {}
    for number, run in enumerate(runs):
        for entry in sorted(_timelines(run) or _example(run), key=_score):
            key = json.dumps([entry.song, entry.reference, entry.digest])
            song = songs.setdefault(key, _song(entry, run.folder))
            song["lanes"].append({"run": number, "chords": _chords(entry.prediction)})
    ordered = sorted(songs.values(), key=lambda song: song["score"])
    rest = [song for song in ordered[MOST_SONGS:] if song["source"]]
    recorded = sum(bool(song["source"]) for song in ordered[:MOST_SONGS])
    worst = ordered[:MOST_SONGS] + rest[: max(0, RECORDED - recorded)]
    sounds: dict[str, dict] = {}
    for song in worst:
        most_bytes = _add_sound(song, sounds, most_bytes)
    return worst, sounds


def _score(entry: Entry) -> float:
    return math.inf if entry.score is None else entry.score


def _song(entry: Entry, folder: Path) -> dict[str, Any]:
    ends = [end for _, end, _ in (*(entry.reference or ()), *entry.prediction)]
    return {
        "name": entry.song,
        "score": _score(entry),
        "seconds": max(ends, default=0.0),
        "reference": None if entry.reference is None else _chords(entry.reference),
        "lanes": [],
        "sound": None,
        "silence": NO_SOUND,
        "source": entry.audio and (folder / entry.audio, entry.start, entry.end),
    }


def _chords(spans: Spans) -> Chords:
    """Spans with the label as musicians write it and the root's pitch class."""
    chords: Chords = []
    for start, end, label in spans:
        text, root = short_label(label), root_of(label)
        if chords and chords[-1][2] == text and abs(chords[-1][1] - start) < 1e-3:
            chords[-1][1] = round(end, 3)
        elif end > start:
            chords.append([round(start, 3), round(end, 3), text, -1 if root is None else root])
    return chords


def _timelines(run: Run) -> list[Entry]:
    """Entries of timelines.json; none where there is no such file, or one of another form."""
    try:
        content = (run.folder / "timelines.json").read_bytes()
        return pydantic.TypeAdapter(list[Entry]).validate_json(content)
    except (OSError, ValueError):
        return []


def _example(run: Run) -> list[Entry]:
    """The song of example.wav, when its chords are beside it."""
    wav, prediction = run.folder / "example.wav", _lab(run.folder / "example.lab")
    if prediction is None or not wav.is_file():
        return []
    with open(wav, "rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest()
    reference = _lab(run.folder / "example-reference.lab")
    return [Entry("an unseen song", None, wav.name, 0.0, None, reference, prediction, digest)]


def _lab(path: Path) -> Spans | None:
    """The lines of a label file; None where there is none that can be read."""
    try:
        lines = [line.split(None, 2) for line in path.read_text(encoding="utf-8").splitlines()]
        return pydantic.TypeAdapter(Spans).validate_python([line for line in lines if line])
    except (OSError, ValueError):
        return None


def _add_sound(song: dict[str, Any], sounds: dict[str, dict], most_bytes: int) -> int:
    """Embed a song's recording if it fits into `most_bytes`; the bytes that are left."""
    source = song.pop("source")
    if not source:
        return most_bytes
    path, start, end = source
    seconds = None if end is None else end - start
    if KBITS * 125 * song["seconds"] > most_bytes:
        song["silence"] = "its sound was left out to keep the page small"
        return most_bytes
    try:
        samples = audio.read(path, RATE, start, seconds, audio.ignore)
        embedded = sound.embedded([samples], RATE, KBITS)
    except (audio.AudioError, OSError) as error:
        song["silence"] = f"no sound: {error}"
        return most_bytes
    song["sound"] = f"sound {len(sounds)}"
    sounds[song["sound"]] = embedded
    return most_bytes - len(embedded["base64"]) * 3 // 4
