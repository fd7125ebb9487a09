"""Runs joined to one model: weights fitted on songs that no run was trained on, or a soup.

Weights are fitted to what members say head by head; the ensemble joins what they say of chords.
The folder that is written is a place for `--checkpoint`: an ensemble.json, or a run's checkpoint.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from audiotrain import config
from audiotrain.datasets.summary import PROBLEMS, tell_left_out
from audiotrain.recipes.chords import ensemble as chord_ensemble
from audiotrain.recipes.chords import predictor, scoring
from audiotrain.recipes.chords import songs as chord_data
from audiotrain.recipes.chords.cv import read_posteriors
from audiotrain.recipes.chords.decoding import heads_of, log_softmax, split_heads
from audiotrain.recipes.chords.ensemble import runs_of
from audiotrain.recipes.chords.predictor import FrameRecognizer, Recognizer
from audiotrain.recipes.chords.settings import EnsembleSettings, TrainSettings
from audiotrain.recipes.chords.songs import Library, Song
from audiotrain.recipes.chords.split import find, first_renderings, read_split
from audiotrain.train import checkpoint, crossval, ensembling, weight_averaging
from audiotrain.utils.progress import progress

Said = tuple[Sequence[np.ndarray], np.ndarray]  # of a song: see `fit`
Fitted = tuple[np.ndarray, Callable[[np.ndarray], float]]  # weights, cross entropy of any weights


def ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, or of a soup; where it is."""
    output, places = settings.output, settings.checkpoint
    for name in ("ensemble.json", "checkpoints", "folds.json", "metrics.json"):
        if (output / name).exists():
            raise ValueError(f"{output}: holds {name} already; --output names another folder")
    groups = [runs_of(place) for place in places]
    runs = [run for group in groups for run in group]
    if settings.join == "soup":
        return soup(settings, groups, runs)
    songs: list[Song] = []
    if settings.weights:
        weights = ensembling.member_weights(settings.weights, len(places))
    elif len(places) == 1:
        weights = np.ones(1)
    elif out_of_fold(places):
        weights = fit(places, said_out_of_fold(places), settings.join)
    else:
        songs = validation_songs(settings, runs)
        alone = [chord_ensemble.load([place], settings.join)[0] for place in places]
        weights = fit(places, said_of(alone, songs), settings.join)
    shares = spread(weights, groups)
    members = [Recognizer.from_checkpoint(run) for run in runs]
    joined = chord_ensemble.Ensemble(members, shares, settings.join, names=runs)
    if songs:
        scoring.choose_decoding(joined, songs)
    chord_ensemble.write(output, joined, runs)
    print(f"{output}: {len(runs)} runs, cost of a switch {joined.switching_cost:g}")
    return output


def soup(settings: EnsembleSettings, groups: Sequence[Sequence[Path]], runs: list[Path]) -> Path:
    """Save the mean of the runs' weights as a run's best checkpoint."""
    described = [checkpoint.load_meta(predictor.best_checkpoint(run)) for run in runs]
    wanted = described[0].get("config", {}).get("recognizer")
    for run, meta in zip(runs, described, strict=True):
        found = meta.get("config", {}).get("recognizer")
        if found != wanted:
            raise ValueError(f"{run}: another architecture or features than {runs[0]}: no soup")
    weights = ensembling.member_weights(settings.weights or None, len(groups))
    folders = [predictor.best_checkpoint(run) for run in runs]
    arrays = weight_averaging.soup(folders, spread(weights, groups))
    meta = {"config": described[0]["config"]}
    checkpoint.save(settings.output / "checkpoints" / "best", {"model": arrays}, meta)
    recognizer = Recognizer.from_checkpoint(settings.output)
    try:
        songs = validation_songs(settings, runs)
    except ValueError as error:
        print(f"it decodes as {runs[0]} does, not by songs of its own: {error}")
        first = Recognizer.from_checkpoint(runs[0])
        recognizer.switching_cost, recognizer.type_offsets = (
            first.switching_cost, first.type_offsets,
        )  # fmt: skip
    else:
        scoring.choose_decoding(recognizer, songs)
    predictor.write_decoding(recognizer, settings.output / "checkpoints" / "decoding.json")
    print(f"{settings.output}: the mean of the weights of {len(runs)} runs")
    return settings.output


def spread(weights: np.ndarray, groups: Sequence[Sequence[Path]]) -> list[float]:
    """A weight for each run: runs of one place share the place's."""
    return [float(w) / len(group) for w, group in zip(weights, groups, strict=True) for _ in group]


def fit(places: Sequence[Path], songs: Iterable[Said], how: chord_ensemble.Join) -> np.ndarray:
    """Weights (places,) by what each place says of songs: its log-probabilities (frames, 56), and
    the song's classes (frames, 3); told in a table with the cross entropy of each place alone."""
    weights, entropy = (fit_geometric if how == "geometric" else fit_mean)(songs)
    print(f"{'weight':>8}{'cross entropy':>15}")
    for place, weight, alone in zip(places, weights, np.eye(len(places)), strict=True):
        print(f"{weight:8.3f}{entropy(alone):15.4f}  {place}")
    print(f"{'equal':>8}{entropy(np.full(len(places), 1 / len(places))):15.4f}")
    print(f"{'fitted':>8}{entropy(weights):15.4f}")
    return weights


def fit_mean(songs: Iterable[Said]) -> Fitted:
    """Weights of the mean of probabilities."""
    observed = np.concatenate(
        [[of_labels(heads, classes) for heads in said] for said, classes in songs], axis=1
    )
    floor = np.maximum(observed, ensembling.TINIEST)
    return ensembling.mixture_weights(observed), lambda w: float(-np.log(w @ floor).mean())


def fit_geometric(songs: Iterable[Said]) -> Fitted:
    """Weights of the geometric mean, in which all probabilities have a part, not only those of what
    was the case: they are kept as float16, as posteriors are on disk."""
    logs, targets = [], []
    for said, classes in songs:
        for parts in zip(*(labelled(heads, classes) for heads in said), strict=True):
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


def of_labels(heads: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The probabilities that log-probabilities (frames, 56) give to what classes (frames, 3) say,
    of all heads, wherever there is a label."""
    parts = labelled(heads, classes)
    return np.concatenate([np.exp(part[np.arange(len(own)), own]) for part, own in parts])


def said_of(recognizers: Sequence[FrameRecognizer], songs: Sequence[Song]) -> Iterator[Said]:
    """What models say of songs, with a progress bar."""
    for song in progress(songs, "blending"):
        said = [heads_of(one.song_log_probabilities(one.inputs(song))) for one in recognizers]
        yield said, song.classes


def out_of_fold(places: Sequence[Path]) -> bool:
    """Whether all places are cross-validations. ValueError where their folds are not the same."""
    if not all((place / "folds.json").is_file() for place in places):
        return False
    first, *others = (crossval.read_folds(place) for place in places)
    for place, folds in zip(places[1:], others, strict=True):
        if folds != first:
            raise ValueError(
                f"{place}: {_count(folds)}, others than the {_count(first)} of {places[0]}; "
                "expected cross-validations of the same folds, or --weights"
            )
    return True


def _count(folds: Sequence[Sequence[str]]) -> str:
    return f"{len(folds)} folds of {sum(map(len, folds))} songs"


def said_out_of_fold(places: Sequence[Path]) -> Iterator[Said]:
    """What each cross-validation has kept of every song. ValueError for other features."""
    for songs in zip(*(read_posteriors(place) for place in places), strict=True):
        shapes = {heads.shape for _, heads, _ in songs}
        if len(shapes) > 1:
            raise ValueError(
                f"{songs[0][0]}: {' and '.join(str(shape[0]) for shape in sorted(shapes))} frames, "
                "expected the same features in all cross-validations"
            )
        yield [heads for _, heads, _ in songs], songs[0][2]


def validation_songs(settings: EnsembleSettings, runs: Sequence[Path]) -> list[Song]:
    """Songs that all runs validated on, as written; all that is wrong with the data is in a file of
    `settings.output`. ValueError when there are none."""
    for run in runs:
        if not (run / "split.json").is_file():
            raise ValueError(
                f"{run}: no split.json, as of composed songs alone: no songs that all runs "
                "validated on; or give --weights"
            )
    names = set.intersection(*(set(read_split(run / "split.json")["valid"]) for run in runs))
    trained = config.load(TrainSettings, ["--config", str(runs[0] / "config.yaml")])
    data = settings.data or trained.data
    if data is None or not names:
        raise ValueError(
            f"{len(names)} songs that all {len(runs)} runs validated on, expected some in --data; "
            "or give --weights"
        )
    listed = settings.output / PROBLEMS
    corpus = find(data, settings.selector, trained.group, settings.pop_spellings, listed)
    items = [item for item in corpus.items if item.id in names]
    library = Library(trained.features, settings.cache.expanduser(), trained.seed)
    songs, problems = chord_data.load_songs(library, items, "reading")
    tell_left_out(problems, len(items), "recordings", listed)
    if not songs:
        raise ValueError(f"{data}: none of the {len(names)} songs that all runs validated on")
    return first_renderings(songs)
