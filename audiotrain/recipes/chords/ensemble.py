"""Several trained chord models as one, and one model hearing several transpositions.

A place that `--checkpoint` names is a run, a cross-validation (all its folds), or an ensemble that
the command `ensemble` wrote.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from audiotrain.features import augment
from audiotrain.recipes.chords.decoding import by_type, log_softmax, split
from audiotrain.recipes.chords.predictor import FrameRecognizer, Recognizer
from audiotrain.train import crossval
from audiotrain.train.ensembling import member_weights
from audiotrain.utils.files import write_json

SHIFTS = (-2, -1, 0, 1, 2)  # semitones, of test-time transposition
Join = Literal["mean", "geometric"]


def join(members: Sequence[np.ndarray], weights: np.ndarray, how: Join = "mean") -> np.ndarray:
    """Log-probabilities (..., 385) of an ensemble from its members': the logarithm of the weighted
    mean of probabilities, or the weighted mean of logarithms, normalised: chords, bass notes."""
    chosen = [(posteriors, w) for posteriors, w in zip(members, weights, strict=True) if w]
    if how == "geometric":
        joined = sum(np.float32(w) * posteriors for posteriors, w in chosen)
        return np.concatenate([log_softmax(part) for part in split(joined)], -1)
    mean = sum(np.float32(w) * np.exp(posteriors) for posteriors, w in chosen)
    return np.log(np.maximum(mean, np.finfo(np.float32).tiny))


def transposed(posteriors: np.ndarray, semitones: int) -> np.ndarray:
    """Log-probabilities (..., 385) of music moved up by `semitones`."""
    chords, bass = split(posteriors)
    moved = np.roll(by_type(chords), semitones, axis=-1).reshape(*chords.shape[:-1], -1)
    return np.concatenate([chords[..., :1], moved, np.roll(bass, semitones, axis=-1)], axis=-1)


class Ensemble(FrameRecognizer):
    """Members' log-probabilities joined window by window, each on all transpositions `shifts`.

    Weights None are equal. The cost of a switch is the members' weighted mean until it is chosen
    anew. ValueError, one line, for members of other features or another window than the first's.
    """

    def __init__(
        self, members: Sequence[Recognizer], weights: Sequence[float] | None = None,
        how: Join = "mean", shifts: Sequence[int] = (0,), names: Sequence[object] = (),
    ):  # fmt: skip
        names = names or [f"member {number}" for number in range(len(members))]
        for name, member in zip(names[1:], members[1:], strict=True):
            _agree(name, member, names[0], members[0])
        self.members, self.weights, self.how = members, member_weights(weights, len(members)), how
        self.settings, self.window = members[0].settings, members[0].window
        self.shifts = [shift for shift in shifts if abs(shift) <= self.settings.spare] or [0]
        self.spare = any(self.shifts)
        costs = [member.switching_cost for member in members]
        self.switching_cost = float(np.dot(self.weights, costs))

    def hear(self, windows: np.ndarray) -> np.ndarray:
        found, weights = [], []
        for shift in self.shifts:
            moved = windows
            if self.spare:
                moved = augment.transpose_bins(
                    windows, shift, self.settings.bins_per_semitone, self.settings.spare_bins
                )
            for member, weight in zip(self.members, self.weights, strict=True):
                if weight:
                    found.append(transposed(member.hear(moved), -shift))
                    weights.append(weight / len(self.shifts))
        return join(found, weights, self.how)


def _agree(name: object, member: Recognizer, first_name: object, first: Recognizer) -> None:
    own, wanted = asdict(member.settings), asdict(first.settings)
    own["window"], wanted["window"] = member.window, first.window
    for key in wanted:
        if own[key] != wanted[key]:
            setting = key if key == "window" else f"features.{key}"
            raise ValueError(
                f"{name}: {setting} is {own[key]}, expected {wanted[key]} as in {first_name}: "
                "members of an ensemble hear the same"
            )


# ---- places


def runs_of(place: Path) -> list[Path]:
    """The runs at a place: itself or the newest inside it, or a cross-validation's folds."""
    if not (place / "folds.json").is_file():
        return [newest_run(place)]
    runs = [place / f"fold-{k}" for k in range(len(crossval.read_folds(place)))]
    for k, run in enumerate(runs):
        if not (place / "oof" / f"{k}.json").is_file():
            raise ValueError(
                f"{place}: fold {k} of {len(runs)} is not done: cv --output {place} --resume, or "
                f"name runs inside it, such as {run}"
            )
    return runs


def newest_run(folder: Path, flag: str = "--checkpoint") -> Path:
    """The folder itself when it is a run or checkpoint, else the newest run inside it. ValueError
    naming the flag when there is none."""
    if (folder / "checkpoints").is_dir() or (folder / "state.json").is_file():
        return folder
    runs = sorted(folder.glob("*/checkpoints"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ValueError(
            f"{flag} {folder}: no trained run there; "
            "`python -m audiotrain.recipes.chords` trains one"
        )
    return runs[-1].parent


def load(
    places: Sequence[Path], how: Join | None = None, transpose: bool = False
) -> tuple[FrameRecognizer, list[Path]]:
    """What all places say together, each with the same weight, and the runs it consists of.
    ValueError for an ensemble that is to be joined in another way than it says."""
    if len(places) == 1 and (places[0] / "ensemble.json").is_file():
        if how is not None:
            raise ValueError(
                f"--join {how}: {places[0]} is an ensemble, which says how; expected none"
            )
        return read(places[0], transpose)
    runs, weights = [], []
    for place in places:
        own = runs_of(place)
        runs += own
        weights += [1 / len(own)] * len(own)
    return of_runs(runs, weights, how or "mean", transpose), runs


def of_runs(
    runs: Sequence[Path], weights: Sequence[float] | None, how: Join, transpose: bool = False
) -> FrameRecognizer:
    """Runs joined with these weights; the model itself where there is one alone."""
    members = [Recognizer.from_checkpoint(run) for run in runs]
    if len(members) == 1 and not transpose:
        return members[0]
    return Ensemble(members, weights, how, SHIFTS if transpose else (0,), runs)


def write(folder: Path, ensemble: Ensemble, runs: Sequence[Path]) -> None:
    """Save which runs an ensemble joins, and how; `read` reads it again."""
    write_json(
        folder / "ensemble.json",
        {
            "members": [str(run.resolve()) for run in runs],
            "weights": [round(float(weight), 6) for weight in ensemble.weights],
            "join": ensemble.how,
            "switching_cost": ensemble.switching_cost,
        },
    )


def read(folder: Path, transpose: bool = False) -> tuple[FrameRecognizer, list[Path]]:
    """The ensemble that `write` saved, and its runs. ValueError, one line, when it is damaged."""
    file = folder / "ensemble.json"
    try:
        content = json.loads(file.read_text("utf-8"))
        runs = [Path(name) for name in content["members"]]
        weights = [float(weight) for weight in content["weights"]]
        how, cost = content["join"], float(content["switching_cost"])
        if how not in ("mean", "geometric") or len(weights) != len(runs) or not runs:
            raise ValueError(f"{len(runs)} members, {len(weights)} weights, join {how}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not an ensemble of the chord recipe ({error})") from None
    shifts = SHIFTS if transpose else (0,)
    members = [Recognizer.from_checkpoint(run) for run in runs]
    ensemble = Ensemble(members, weights, how, shifts, runs)
    ensemble.switching_cost = cost
    return ensemble, runs
