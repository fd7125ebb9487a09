"""How good a chord model is: mir_eval's scores by song and corpus, frame accuracies, confusions."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.chords.items import Item
from audiotrain.evaluation import chords as evaluation_chords
from audiotrain.evaluation import classification, plots
from audiotrain.music.chord_classes import CHORD_TYPES, HEADS, PITCH_NAMES, decode, encode
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords import decoding
from audiotrain.recipes.chords.predictor import FrameRecognizer
from audiotrain.recipes.chords.songs import Song
from audiotrain.utils.files import finite_or_none, write, write_json
from audiotrain.utils.progress import progress

COSTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of a switch, that `choose_decoding` tries
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the class weights, that it tries to undo
CHOSEN_BY = (*decoding.UTILITY_METRICS, "seg")  # the metrics whose mean it maximises
NAMES = {"chord_type": CHORD_TYPES, "root": PITCH_NAMES, "bass_note": PITCH_NAMES}
SHOWN = (
    "root", "thirds", "triads", "sevenths", "tetrads", "majmin", "mirex", "overseg", "underseg",
    "seg", "acqa",
)  # fmt: skip

Save = Callable[[Song, np.ndarray], object]  # takes a song's log-probabilities (frames, 385)
NO_RECORDING = {"audio": None, "start": 0.0, "end": None}


class Scores:
    """Sums over songs; `as_dict` is metrics.json. `save` gets the posteriors of each song."""

    def __init__(self, recognizer: FrameRecognizer, save: Save | None = None):
        self.recognizer, self.save = recognizer, save
        self.songs: list[dict] = []
        self.timelines: list[dict] = []
        self.by_decoding: dict[str, list[dict]] = {"viterbi": [], "argmax": []}
        self.quality = {name: np.zeros((len(CHORD_TYPES), 2)) for name in self.by_decoding}
        self.confusions = {
            head: np.zeros((len(names), len(names)), np.int64) for head, names in NAMES.items()
        }
        self.intervals = np.zeros((len(CHORD_TYPES), 12), np.int64)
        self.evaluated: dict = {}  # data and model, where it is not the run's own test
        self.right: dict[str, float] = {}
        self.frames: dict[str, int] = {}

    def add(self, song: Song) -> None:
        """Predict a song both ways and compare it with its labels."""
        settings = self.recognizer.settings
        posteriors = self.recognizer.song_log_probabilities(self.recognizer.inputs(song))
        if self.save is not None:
            self.save(song, posteriors)
        seconds = max(song.seconds(settings), song.segments[-1].end if song.segments else 0.0)
        row = {"song": song.name, "seconds": song.seconds(settings)}
        costs = {"viterbi": self.recognizer.switching_cost, "argmax": None}
        for name, cost in costs.items():
            classes = decoding.decode(posteriors, cost)
            estimate = self.recognizer.segments(classes, song.onsets, seconds)
            scores = evaluation_chords.chord_scores(song.segments, estimate)
            self.by_decoding[name].append(scores)
            self.quality[name] += evaluation_chords.quality_seconds(song.segments, estimate)
            if name == "viterbi":
                row |= {key: scores[key] for key in SHOWN if key in scores}
                self.timelines.append(_timeline(song, seconds, scores["mirex"], estimate))
        self.songs.append(row)
        self._add_frames(posteriors, song.classes)

    def _add_frames(self, posteriors: np.ndarray, classes: np.ndarray) -> None:
        parts = decoding.split_heads(decoding.heads_of(posteriors))
        best = np.stack([part.argmax(-1) for part in parts], -1)
        for number, head in enumerate(HEADS):
            chosen, target = parts[number], classes[:, number]
            valid = target >= 0
            self._count(f"{head}_acc", best[valid, number] == target[valid])
            for k in (3, 5):
                ranked = np.argpartition(-chosen[valid], k, axis=-1)[:, :k]
                self._count(f"{head}_top{k}", (ranked == target[valid, None]).any(-1))
            self.confusions[head] += classification.confusion_matrix(
                best[:, number], target, len(NAMES[head])
            )
        is_right = ((decoding.argmax(posteriors) == classes) | (classes < 0)).all(-1)
        self._count("chord_acc", is_right[classes[:, 0] >= 0])
        rooted = classes[:, 1] >= 0
        interval = (best[rooted, 1] - classes[rooted, 1]) % 12
        np.add.at(self.intervals, (classes[rooted, 0], interval), 1)

    def _count(self, name: str, right: np.ndarray) -> None:
        self.right[name] = self.right.get(name, 0.0) + float(right.sum())
        self.frames[name] = self.frames.get(name, 0) + len(right)

    def as_dict(self) -> dict:
        """{"songs", "seconds", "viterbi": {"corpus", "mean", "median"}, "argmax", "frames"}."""
        result: dict = {
            "songs": len(self.songs),
            "seconds": sum(row["seconds"] for row in self.songs),
            "switching_cost": self.recognizer.switching_cost,
        }
        for name, rows in self.by_decoding.items():
            result[name] = evaluation_chords.aggregate_scores(rows)
            result[name]["corpus"]["acqa"] = evaluation_chords.acqa(self.quality[name])
        result["frames"] = {
            name: self.right[name] / max(self.frames[name], 1) for name in self.right
        }
        return result | ({"evaluated": self.evaluated} if self.evaluated else {})

    def write(self, folder: Path, recordings: Mapping[str, dict] | None = None) -> None:
        """metrics.json, songs.csv, timelines.json, and the confusion matrices as PNG and CSV, in
        `folder`; `recordings` has the audio of songs by name."""
        result, audio = self.as_dict(), recordings or {}
        write_json(folder / "metrics.json", result)
        lines = [
            json.dumps(finite_or_none(line | audio.get(line["song"], NO_RECORDING)))
            for line in self.timelines
        ]
        write(folder / "timelines.json", "[\n" + ",\n".join(lines) + "\n]\n")
        plots.table_csv(sorted(self.songs, key=lambda row: row["mirex"]), folder / "songs.csv")
        for head, names in NAMES.items():
            stem, title = folder / f"confusion-{head}", head.replace("_", " ").capitalize()
            plots.confusion_picture(self.confusions[head], names, stem.with_suffix(".png"), title)
            plots.confusion_csv(self.confusions[head], names, stem.with_suffix(".csv"))
        rows = [
            {"chord type": CHORD_TYPES[number]}
            | {f"root +{interval}": int(count) for interval, count in enumerate(counts)}
            for number, counts in enumerate(self.intervals)
            if counts.sum()
        ]
        plots.table_csv(rows, folder / "root-intervals.csv")
        shown = {
            name: {key: result[name]["corpus"][key] for key in SHOWN} for name in self.by_decoding
        }
        plots.scores_picture(shown, folder / "scores.png", f"Scores of {len(self.songs)} songs")


def spelled_alike(segments: Sequence[Segment]) -> list[Segment]:
    """The labels as the model spells them, so that D# and Eb look the same."""
    return [segment._replace(label=decode(encode(segment.label))) for segment in segments]


def recordings_of(items: Iterable[Item]) -> dict[str, dict]:
    """Where each item's recording is: {"audio", "start", "end"}, the last two in its seconds."""
    return {
        item.id: {"audio": str(item.audio.resolve()), "start": item.start, "end": item.end}
        for item in items
        if isinstance(item.audio, Path) and not item.midi
    }


def _timeline(song: Song, seconds: float, score: float, estimate: Sequence[Segment]) -> dict:
    """A song's reference and predicted chords for the report, as [start, end, label]."""
    chords = {"reference": spelled_alike(song.segments), "prediction": estimate}
    return {"song": song.name, "score": score} | {
        name: [[round(s.start, 3), round(min(s.end, seconds), 3), s.label] for s in segments]
        for name, segments in chords.items()
    }


def score(
    recognizer: FrameRecognizer,
    songs: Sequence[Song],
    text: str,
    save: Save | None = None,
) -> Scores:
    """The scores of all songs, with a progress bar; see `Scores`."""
    scores = Scores(recognizer, save)
    for song in progress(songs, text):
        scores.add(song)
    return scores


def headline(result: dict) -> str:
    """How many songs a metrics.json is of, and how long they are."""
    return f"{result['songs']} songs, {result['seconds'] / 60:.0f} minutes"


def numbers(result: dict) -> dict[str, float]:
    """The scores in a metrics.json by name: of the corpus, "argmax_..." those of the likeliest
    chords, and the share of right frames."""
    rows = dict(result["viterbi"]["corpus"])
    rows |= {f"argmax_{name}": value for name, value in result["argmax"]["corpus"].items()}
    rows |= result["frames"]
    return {name: math.nan if value is None else float(value) for name, value in rows.items()}


def table(result: dict) -> str:
    """The corpus scores of `Scores.as_dict` as text: a column a comparison."""
    lines = [f"{'':9}" + "".join(f"{name:>9}" for name in SHOWN)]
    for name in ("argmax", "viterbi"):
        corpus = result[name]["corpus"]
        lines.append(f"{name:9}" + "".join(f"{corpus[key]:9.3f}" for key in SHOWN))
    frames = result["frames"]
    shares = ", ".join(f"{head.replace('_', ' ')} {frames[f'{head}_acc']:.3f}" for head in HEADS)
    lines.append(f"frames right: {shares}, whole chord {frames['chord_acc']:.3f}")
    return "\n".join(lines)


def choose_decoding(
    recognizer: FrameRecognizer, songs: Sequence[Song], type_weights: np.ndarray | None = None
) -> None:
    """Choose how a recognizer decodes: the best on up to 30 songs by the mean of CHOSEN_BY.

    First, of the weights (32,) that chord types had in the loss, the share that is undone: a rare
    type trained with weight w is predicted w times too often (Menon et al. 2021, arXiv:2007.07314).
    Then the cost of a switch.
    """
    recognizer.type_offsets, recognizer.switching_cost = None, 2.0
    settings, predictions = recognizer.settings, []
    for song in progress(list(songs)[:30], "decoding"):
        posteriors = recognizer.song_log_probabilities(recognizer.inputs(song))
        predictions.append((song, posteriors.astype(np.float16)))

    def total_score(cost: float, offsets: np.ndarray) -> float:
        scores = []
        for song, values in predictions:
            posteriors = decoding.offset_types(values.astype(np.float32), offsets)
            classes = decoding.decode(posteriors, cost)
            estimate = recognizer.segments(classes, song.onsets, song.seconds(settings))
            scores.append(evaluation_chords.chord_scores(song.segments, estimate))
        corpus = evaluation_chords.aggregate_scores(scores)["corpus"]
        return sum(corpus[name] for name in CHOSEN_BY)

    offsets = np.zeros(decoding.TYPES, np.float32)
    if type_weights is not None:
        logs = np.log(type_weights).astype(np.float32)
        tried = progress(SHARES, "decoding")
        share = max(tried, key=lambda share: total_score(recognizer.switching_cost, -share * logs))
        offsets = recognizer.type_offsets = -share * logs
    tried = progress(COSTS, "decoding")
    recognizer.switching_cost = max(tried, key=lambda cost: total_score(cost, offsets))
