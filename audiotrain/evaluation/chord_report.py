"""Numbers, tables and pictures of recognised chords: by song, corpus and frame."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotrain.evaluation import chords, classification, plots
from audiotrain.music.chord_classes import CHORD_TYPES, HEADS, PITCH_NAMES, decode, encode
from audiotrain.music.segments import Segment
from audiotrain.utils.files import finite_or_none, write, write_json
from audiotrain.utils.text import count

NAMES = {"chord_type": CHORD_TYPES, "root": PITCH_NAMES, "bass_note": PITCH_NAMES}
SHOWN = (
    *("root", "thirds", "triads", "sevenths", "tetrads", "majmin", "mirex"),
    *("overseg", "underseg", "seg", "acqa"),
)
DECODINGS = ("viterbi", "argmax")
NO_RECORDING = {"audio": None, "start": 0.0, "end": None}


class ChordReport:
    """Sums over songs: mir_eval's scores of both DECODINGS, frame accuracies, confusions.

    `evaluated` describes the data and the checkpoints, where it is not a run's own test.
    """

    def __init__(self, switching_cost: float, min_confidence: float = 0.0):
        self.switching_cost, self.min_confidence = switching_cost, min_confidence
        self.evaluated: dict[str, Any] = {}
        self.songs: list[dict] = []
        self.timelines: list[dict] = []
        self.scores: dict[str, list[dict]] = {name: [] for name in DECODINGS}
        self.quality = {name: np.zeros((len(CHORD_TYPES), 2)) for name in DECODINGS}
        self.tracker = classification.MetricsTracker()  # of frames
        self.intervals = np.zeros((len(CHORD_TYPES), 12), np.int64)
        self._right: dict[str, list[np.ndarray]] = defaultdict(list)

    def add_song(
        self,
        name: str,
        seconds: float,
        reference: Sequence[Segment],
        estimates: Mapping[str, Sequence[Segment]],
    ) -> None:
        """Score the estimates of a song of that length by each of DECODINGS."""
        row = {"song": name, "seconds": seconds}
        for decoding in DECODINGS:
            scores = chords.chord_scores(reference, estimates[decoding])
            self.scores[decoding].append(scores)
            self.quality[decoding] += chords.quality_seconds(reference, estimates[decoding])
        shown = self.scores["viterbi"][-1]
        covered = {key: shown.get(f"{key}_seconds", shown["seconds"]) for key in SHOWN}
        self.songs.append(
            row | {key: shown[key] if covered[key] else math.nan for key in SHOWN if key in shown}
        )
        end = max(seconds, reference[-1].end if reference else 0.0)
        labels = {"reference": spelled_alike(reference), "prediction": estimates["viterbi"]}
        self.timelines.append(
            {"song": name, "score": shown["mirex"]}
            | {
                kind: [[round(s.start, 3), round(min(s.end, end), 3), s.label] for s in segments]
                for kind, segments in labels.items()
            }
        )

    def add_frames(
        self, classes: np.ndarray, heads: Sequence[np.ndarray], decoded: np.ndarray
    ) -> None:
        """Count the frames of a song: labels `classes` (frames, 3), negative ones ignored; scores
        (frames, classes) by each of `heads`; the most likely whole chords `decoded` (frames, 3)."""
        self.tracker.update({}, heads, dict(zip(HEADS, classes.T, strict=True)), len(classes))
        for number, name in enumerate(HEADS):
            target = classes[:, number]
            valid = target >= 0
            for k in (3, 5):
                ranked = np.argpartition(-heads[number][valid], k, axis=-1)[:, :k]
                self._right[f"{name}_top{k}"].append((ranked == target[valid, None]).any(-1))
        is_right = ((decoded == classes) | (classes < 0)).all(-1)
        self._right["chord_acc"].append(is_right[classes[:, 0] >= 0])
        has_root = classes[:, 1] >= 0
        interval = (heads[1][has_root].argmax(-1) - classes[has_root, 1]) % 12
        np.add.at(self.intervals, (classes[has_root, 0], interval), 1)

    def as_dict(self) -> dict:
        """{"songs", "seconds", "viterbi": {"corpus", "mean", "median"}, "argmax", "frames"}."""
        result: dict = {
            "songs": len(self.songs),
            "seconds": sum(row["seconds"] for row in self.songs),
            "switching_cost": self.switching_cost,
            "min_confidence": self.min_confidence,
        }
        for name, rows in self.scores.items():
            result[name] = chords.aggregate_scores(rows)
            result[name]["corpus"]["acqa"] = chords.acqa(self.quality[name])
        right = {name: np.concatenate(parts) for name, parts in self._right.items()}
        result["frames"] = {f"{head}_acc": self.tracker.accuracy(head) for head in HEADS}
        result["frames"] |= {name: one.sum() / max(len(one), 1) for name, one in right.items()}
        return result | ({"evaluated": self.evaluated} if self.evaluated else {})

    def table(self) -> str:
        """The corpus scores, a column a metric, and the shares of right frames."""
        result = self.as_dict()
        lines = [f"{count(result['songs'], 'song')}, {result['seconds'] / 60:.0f} minutes:"]
        lines.append(f"{'':9}" + "".join(f"{name:>9}" for name in SHOWN))
        for name in reversed(DECODINGS):
            corpus = result[name]["corpus"]
            # Power chords are neither major nor minor: songs of them have no such scores.
            cells = ("–" if math.isnan(corpus[key]) else f"{corpus[key]:.3f}" for key in SHOWN)
            lines.append(f"{name:9}" + "".join(f"{cell:>9}" for cell in cells))
        frames = result["frames"]
        shares = ", ".join(
            f"{head.replace('_', ' ')} {frames[f'{head}_acc']:.3f}" for head in HEADS
        )
        lines.append(f"frames right: {shares}, whole chord {frames['chord_acc']:.3f}")
        return "\n".join(lines)

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
        worst_first = sorted(self.songs, key=lambda row: (math.isnan(row["mirex"]), row["mirex"]))
        plots.table_csv(worst_first, folder / "songs.csv")
        for head, names in NAMES.items():
            stem, title = folder / f"confusion-{head}", head.replace("_", " ").capitalize()
            matrix = self.tracker.confusions[head]
            plots.confusion_picture(matrix, names, stem.with_suffix(".png"), title)
            plots.confusion_csv(matrix, names, stem.with_suffix(".csv"))
        rows = [
            {"chord type": CHORD_TYPES[number]}
            | {f"root +{interval}": int(frames) for interval, frames in enumerate(counts)}
            for number, counts in enumerate(self.intervals)
            if counts.sum()
        ]
        plots.table_csv(rows, folder / "root-intervals.csv")
        shown = {name: {key: result[name]["corpus"][key] for key in SHOWN} for name in DECODINGS}
        plots.scores_picture(
            shown, folder / "scores.png", f"Scores of {count(len(self.songs), 'song')}"
        )


def spelled_alike(segments: Sequence[Segment]) -> list[Segment]:
    """Segments with labels as a model spells them, so that D# and Eb look the same."""
    return [segment._replace(label=decode(encode(segment.label))) for segment in segments]


def numbers(result: dict) -> dict[str, float]:
    """The scores in a metrics.json by name: of the corpus, "argmax_..." those of the most likely
    chords, and the shares of right frames."""
    rows = dict(result["viterbi"]["corpus"])
    rows |= {f"argmax_{name}": value for name, value in result["argmax"]["corpus"].items()}
    rows |= result["frames"]
    return {name: math.nan if value is None else float(value) for name, value in rows.items()}
