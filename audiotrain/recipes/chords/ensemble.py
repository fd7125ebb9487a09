"""Several trained chord models as one, and one model on several transpositions.

The command `ensemble` fits the weights of runs on songs that no run was trained on, or writes the
mean of their weights, a soup. Weights are fitted head by head; the ensemble joins whole chords.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from audiotrain import config
from audiotrain.datasets.summary import ProblemLog
from audiotrain.features import augment
from audiotrain.recipes.chords import predictor, scoring
from audiotrain.recipes.chords.cv import read_posteriors
from audiotrain.recipes.chords.decoding import by_type, heads_of, log_softmax, split, split_heads
from audiotrain.recipes.chords.predictor import FrameRecognizer, Recognizer
from audiotrain.recipes.chords.settings import EnsembleSettings, TrainSettings
from audiotrain.recipes.chords.songs import Song, SongLibrary, discover, load_songs
from audiotrain.recipes.common.checkpoints import ENSEMBLE, best_checkpoint, locate, resolve
from audiotrain.recipes.common.ensemble import EnsembleSpec, are_cross_validations, refuse_used
from audiotrain.recipes.common.split import SPLIT, read_split
from audiotrain.train import checkpoint, crossval, ensembling, weight_averaging
from audiotrain.utils.errors import UserError
from audiotrain.utils.progress import progress
from audiotrain.utils.text import count

SHIFTS = (-2, -1, 0, 1, 2)  # semitones, of test-time transposition
Join = Literal["mean", "geometric"]
# Of a song: log-probabilities (frames, 56) by each model, and its classes (frames, 3).
Predictions = tuple[Sequence[np.ndarray], np.ndarray]
Fit = tuple[np.ndarray, Callable[[np.ndarray], float]]  # weights, the cross entropy of any weights


def join(members: Sequence[np.ndarray], weights: Sequence[float], how: Join = "mean") -> np.ndarray:
    """Log-probabilities (..., 385) of an ensemble from its members': the logarithm of the weighted
    mean of probabilities, or the weighted mean of logarithms, normalised: chords, bass notes."""
    is_geometric = how == "geometric"
    weighted = [
        np.float32(weight) * (posteriors if is_geometric else np.exp(posteriors))
        for posteriors, weight in zip(members, weights, strict=True)
        if weight
    ]
    joined = np.sum(weighted, axis=0)
    if is_geometric:
        return np.concatenate([log_softmax(part) for part in split(joined)], -1)
    return np.log(np.maximum(joined, np.finfo(np.float32).tiny))


def transposed(posteriors: np.ndarray, semitones: int) -> np.ndarray:
    """Log-probabilities (..., 385) of music moved up by `semitones`."""
    chords, bass = split(posteriors)
    moved = np.roll(by_type(chords), semitones, axis=-1).reshape(*chords.shape[:-1], -1)
    return np.concatenate([chords[..., :1], moved, np.roll(bass, semitones, axis=-1)], axis=-1)


class Ensemble(FrameRecognizer):
    """Members' log-probabilities joined window by window, each on all transpositions `shifts`.

    Weights None are equal. The cost of a switch is the members' weighted mean, `min_confidence` is
    their smallest, until both are chosen anew. ValueError, one line, for members of other features
    or another window than the first's.
    """

    def __init__(
        self,
        members: Sequence[Recognizer],
        weights: Sequence[float] | None = None,
        how: Join = "mean",
        shifts: Sequence[int] = (0,),
        names: Sequence[object] = (),
    ):
        names = names or [f"member {number}" for number in range(len(members))]
        expected = _input_settings(members[0])
        for name, member in zip(names, members, strict=True):
            for key, value in _input_settings(member).items():
                if value != expected[key]:
                    raise UserError(
                        f"{name}: {key} is {value}, expected {expected[key]} as in {names[0]}: "
                        "members of an ensemble take the same input"
                    )
        self.members, self.how = members, how
        self.weights = ensembling.member_weights(weights, len(members))
        self.settings, self.window = members[0].settings, members[0].window
        self.shifts = [shift for shift in shifts if abs(shift) <= self.settings.margin] or [0]
        self.takes_margin = any(self.shifts)
        costs = [member.switching_cost for member in members]
        self.switching_cost = float(np.dot(self.weights, costs))
        self.min_confidence = min(member.min_confidence for member in members)

    def log_probs(self, windows: np.ndarray) -> np.ndarray:
        predictions, weights = [], []
        for shift in self.shifts:
            moved = windows
            if self.takes_margin:
                moved = augment.transpose_bins(
                    windows, shift, self.settings.bins_per_semitone, self.settings.margin_bins
                )
            for member, weight in zip(self.members, self.weights, strict=True):
                if weight:
                    predictions.append(transposed(member.log_probs(moved), -shift))
                    weights.append(weight / len(self.shifts))
        return join(predictions, weights, self.how)


def _input_settings(member: Recognizer) -> dict[str, object]:
    features = asdict(member.settings).items()
    return {"window": member.window} | {f"features.{name}": value for name, value in features}


def load(
    paths: Sequence[Path], how: Join | None = None, transpose: bool = False
) -> FrameRecognizer:
    """The model that `--checkpoint` names. CheckpointError or ValueError, one line, for one that is
    missing, damaged or no chord model's, members of other features or another window than the
    first's, and `how` beside an ensemble, which has its own."""
    return from_spec(EnsembleSpec.of(paths, "chords", how, get_args(Join)), transpose)


def from_spec(spec: EnsembleSpec, transpose: bool = False) -> FrameRecognizer:
    """The runs of an ensemble, joined; the model itself where there is one run alone."""
    members = [Recognizer.from_checkpoint(run) for run in spec.runs]
    model: FrameRecognizer = members[0]
    if len(members) > 1 or transpose:
        how, shifts = cast(Join, spec.join), SHIFTS if transpose else (0,)
        model = Ensemble(members, spec.run_weights, how, shifts, spec.runs)
    if "switching_cost" in spec.extra:
        options = predictor.decoding_options(spec.extra, ENSEMBLE)
        model.switching_cost = options["switching_cost"]
        model.min_confidence = options["min_confidence"]
    return model


# ---- the command


def ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, or of a soup; where it is."""
    output, paths = settings.output, locate(settings.checkpoint, "chords")
    refuse_used(output)
    spec = EnsembleSpec(tuple(resolve(paths, "chords")), settings.weights, settings.join)
    if settings.join == "soup":
        return soup(settings, spec)
    songs: list[Song] = []
    if not settings.weights and len(paths) > 1:
        if same_folds(paths):
            weights = fit_weights(paths, out_of_fold_predictions(paths), settings.join)
        else:
            songs = validation_songs(settings, spec.runs)
            models = [load([path], settings.join) for path in paths]
            weights = fit_weights(paths, predictions_of(models, songs), settings.join)
        spec = replace(spec, weights=tuple(round(float(weight), 6) for weight in weights))
    model = from_spec(spec)
    if songs:
        scoring.choose_decoding(model, songs)
    replace(spec, extra=predictor.decoding_of(model)).write(output)
    print(f"{output}: {count(len(spec.runs), 'run')}, cost of a switch {model.switching_cost:g}")
    return output


def soup(settings: EnsembleSettings, spec: EnsembleSpec) -> Path:
    """Save the mean of the runs' weights as a run's best checkpoint."""
    runs, folders = spec.runs, [best_checkpoint(run) for run in spec.runs]
    members = [Recognizer.from_checkpoint(folder) for folder in folders]
    architectures = [(one.model.trunk.settings, one.settings, one.window) for one in members]
    for run, architecture in zip(runs, architectures, strict=True):
        if architecture != architectures[0]:
            raise UserError(f"{run}: another architecture or features than {runs[0]}: no soup")
    arrays = weight_averaging.soup(folders, spec.run_weights)
    best = settings.output / "checkpoints" / "best"
    checkpoint.save(best, {"model": arrays}, {"config": checkpoint.load_meta(folders[0])["config"]})
    recognizer = Recognizer.from_checkpoint(settings.output)
    try:
        songs = validation_songs(settings, runs)
    except UserError as error:
        print(f"it decodes as {runs[0]} does, not by songs of its own: {error}")
        recognizer.switching_cost = members[0].switching_cost
        recognizer.type_offsets = members[0].type_offsets
        recognizer.min_confidence = members[0].min_confidence
    else:
        scoring.choose_decoding(recognizer, songs)
    predictor.write_decoding(recognizer, settings.output / "checkpoints" / "decoding.json")
    print(f"{settings.output}: the mean of the weights of {len(runs)} runs")
    return settings.output


# ---- weights fitted to predictions


def fit_weights(paths: Sequence[Path], songs: Iterable[Predictions], how: Join) -> np.ndarray:
    """Weights (paths,) by what the model of each path predicts for songs; printed in a table with
    the cross entropy of each model alone."""
    weights, entropy = (fit_geometric if how == "geometric" else fit_mean)(songs)
    print(f"{'weight':>8}{'cross entropy':>15}")
    for path, weight, alone in zip(paths, weights, np.eye(len(paths)), strict=True):
        print(f"{weight:8.3f}{entropy(alone):15.4f}  {path}")
    print(f"{'equal':>8}{entropy(np.full(len(paths), 1 / len(paths))):15.4f}")
    print(f"{'fitted':>8}{entropy(weights):15.4f}")
    return weights


def fit_mean(songs: Iterable[Predictions]) -> Fit:
    """Weights of the mean of probabilities."""
    likelihoods = np.concatenate(
        [[label_probabilities(one, classes) for one in heads] for heads, classes in songs], axis=1
    )
    floor = np.maximum(likelihoods, ensembling.TINIEST)
    return ensembling.mixture_weights(likelihoods), lambda w: float(-np.log(w @ floor).mean())


def fit_geometric(songs: Iterable[Predictions]) -> Fit:
    """Weights of the geometric mean. It depends on the probabilities of all classes, not only of
    the labels: they are kept as float16, as posteriors are on disk."""
    logs, targets = [], []
    for heads, classes in songs:
        for parts in zip(*(labelled(one, classes) for one in heads), strict=True):
            logs.append(np.stack([part for part, _ in parts]).astype(np.float16))
            targets.append(parts[0][1])
    weights = ensembling.geometric_weights(logs, targets)
    return weights, lambda w: ensembling.geometric_cross_entropy(logs, targets, w)[0]


def labelled(heads: np.ndarray, classes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each head log-probabilities (frames, its classes) that sum to 1, of the frames that
    `classes` (frames, 3) has a label for, and these labels; heads (frames, 56)."""
    has = classes >= 0
    parts = (log_softmax(part) for part in split_heads(heads))
    return [(part[has[:, n]], classes[has[:, n], n]) for n, part in enumerate(parts)]


def label_probabilities(heads: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The probabilities of the labels in classes (frames, 3), of all heads, by log-probabilities
    (frames, 56)."""
    parts = labelled(heads, classes)
    return np.concatenate([np.exp(part[np.arange(len(own)), own]) for part, own in parts])


def predictions_of(
    recognizers: Sequence[FrameRecognizer], songs: Sequence[Song]
) -> Iterator[Predictions]:
    """Predictions of models for songs, with a progress bar."""
    for song in progress(songs, "blending"):
        yield (
            [heads_of(one.song_log_probabilities(one.inputs(song))) for one in recognizers],
            song.classes,
        )


def same_folds(paths: Sequence[Path]) -> bool:
    """Whether all paths are cross-validations. ValueError where their folds are not the same."""
    if not are_cross_validations(paths):
        return False
    first, *others = (crossval.read_folds(path) for path in paths)
    for path, folds in zip(paths[1:], others, strict=True):
        if folds != first:
            raise UserError(
                f"{path}: {_count(folds)}, others than the {_count(first)} of {paths[0]}; "
                "expected cross-validations of the same folds, or --weights"
            )
    return True


def _count(folds: Sequence[Sequence[str]]) -> str:
    return f"{len(folds)} folds of {sum(map(len, folds))} songs"


def out_of_fold_predictions(paths: Sequence[Path]) -> Iterator[Predictions]:
    """The saved predictions of each cross-validation for every song. ValueError where their
    features differ."""
    for songs in zip(*(read_posteriors(path) for path in paths), strict=True):
        shapes = {heads.shape for _, heads, _ in songs}
        if len(shapes) > 1:
            raise UserError(
                f"{songs[0][0]}: {' and '.join(str(shape[0]) for shape in sorted(shapes))} frames, "
                "expected the same features in all cross-validations"
            )
        yield [heads for _, heads, _ in songs], songs[0][2]


def validation_songs(settings: EnsembleSettings, runs: Sequence[Path]) -> list[Song]:
    """Songs that all runs validated on, as written; all that is wrong with the data is in a file of
    `settings.output`. ValueError when there are none."""
    for run in runs:
        if not (run / SPLIT).is_file():
            raise UserError(
                f"{run}: no {SPLIT}, as of composed songs alone: no songs that all runs validated "
                "on; or give --weights"
            )
    names = set.intersection(*(set(read_split(run / SPLIT)["valid"]) for run in runs))
    trained = config.load(TrainSettings, ["--config", str(runs[0] / "config.yaml")])
    data = settings.data or trained.data
    if data is None or not names:
        raise UserError(
            f"{len(names)} songs that all {len(runs)} runs validated on, expected some in --data; "
            "or give --weights"
        )
    log = ProblemLog(settings.output, brief=True)
    corpus = discover(data, settings, log, trained.group)
    items = [item for item in corpus.items if item.id in names]
    library = SongLibrary(trained.features, settings.cache.expanduser(), trained.seed)
    if not items:
        raise UserError(f"{data}: none of the {len(names)} songs that all runs validated on")
    return load_songs(library, items, log)
