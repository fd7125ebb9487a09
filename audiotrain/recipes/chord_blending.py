"""Runs joined to one model: weights fitted on songs that no run was trained on, or a soup.

The folder that is written is a place for `--checkpoint`: an ensemble.json, or a run's checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotrain import checkpoint, config, crossval, ensembles
from audiotrain.recipes import chord_data, chord_ensemble, chord_inference, chord_scoring
from audiotrain.recipes.chord_cv import read_posteriors
from audiotrain.recipes.chord_data import Library, Song
from audiotrain.recipes.chord_decoding import split_heads
from audiotrain.recipes.chord_ensemble import normalise, runs_of
from audiotrain.recipes.chord_inference import FrameRecognizer, Recognizer
from audiotrain.recipes.chord_settings import EnsembleSettings, TrainSettings
from audiotrain.recipes.chord_songs import find, first_renderings, read_split, tell
from audiotrain.recipes.terminal import progress


def ensemble(settings: EnsembleSettings) -> Path:
    """Write the folder of an ensemble, or of a soup; where it is."""
    output, places = settings.output, settings.checkpoint
    for name in ("ensemble.json", "checkpoints", "folds.json"):
        if (output / name).exists():
            raise ValueError(f"{output}: holds {name} already; --output names another folder")
    groups = [runs_of(place) for place in places]
    runs = [run for group in groups for run in group]
    if settings.join == "soup":
        return soup(settings, groups, runs)
    songs: list[Song] = []
    if settings.weights:
        weights = ensembles.member_weights(settings.weights, len(places))
    elif len(places) == 1:
        weights = np.ones(1)
    elif out_of_fold(places):
        weights = fit(places, out_of_fold_likelihoods(places))
    else:
        songs = validation_songs(settings, runs)
        said = [chord_ensemble.load([place])[0] for place in places]
        weights = fit(places, np.array([likelihoods(one, songs) for one in said]))
    shares = spread(weights, groups)
    members = [Recognizer.from_checkpoint(run) for run in runs]
    joined = chord_ensemble.Ensemble(members, shares, settings.join, names=runs)
    if songs:
        chord_scoring.choose_decoding(joined, songs)
    chord_ensemble.write(output, joined, runs)
    print(f"{output}: {len(runs)} runs, cost of a switch {joined.switching_cost:g}")
    return output


def soup(settings: EnsembleSettings, groups: Sequence[Sequence[Path]], runs: list[Path]) -> Path:
    """Save the mean of the runs' weights as a run's best checkpoint."""
    described = [checkpoint.load_meta(chord_inference.best_checkpoint(run)) for run in runs]
    wanted = described[0].get("config", {}).get("recognizer")
    for run, meta in zip(runs, described, strict=True):
        found = meta.get("config", {}).get("recognizer")
        if found != wanted:
            raise ValueError(f"{run}: another architecture or features than {runs[0]}: no soup")
    weights = ensembles.member_weights(settings.weights or None, len(groups))
    folders = [chord_inference.best_checkpoint(run) for run in runs]
    arrays = ensembles.soup(folders, spread(weights, groups))
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
        chord_scoring.choose_decoding(recognizer, songs)
    chord_inference.write_decoding(recognizer, settings.output / "checkpoints" / "decoding.json")
    print(f"{settings.output}: the mean of the weights of {len(runs)} runs")
    return settings.output


def spread(weights: np.ndarray, groups: Sequence[Sequence[Path]]) -> list[float]:
    """A weight for each run: runs of one place share the place's."""
    return [float(w) / len(group) for w, group in zip(weights, groups, strict=True) for _ in group]


def fit(places: Sequence[Path], observed: np.ndarray) -> np.ndarray:
    """Weights (places,) for probabilities (places, observations) of what was the case; told in a
    table with the cross entropy of each place alone."""
    weights = ensembles.mixture_weights(observed)
    floor = np.maximum(observed, ensembles.TINIEST)
    print(f"{'weight':>8}{'cross entropy':>15}")
    for place, weight, values in zip(places, weights, floor, strict=True):
        print(f"{weight:8.3f}{-np.log(values).mean():15.4f}  {place}")
    print(f"{'equal':>8}{-np.log(floor.mean(axis=0)).mean():15.4f}")
    print(f"{'fitted':>8}{-np.log(weights @ floor).mean():15.4f}")
    return weights


def known(heads: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The probabilities that log-probabilities (frames, 56) give to what classes (frames, 3) say,
    of all heads, wherever there is a label."""
    parts = split_heads(normalise(heads))
    found = []
    for number, part in enumerate(parts):
        frames = np.flatnonzero(classes[:, number] >= 0)
        found.append(np.exp(part[frames, classes[frames, number]]))
    return np.concatenate(found)


def likelihoods(recognizer: FrameRecognizer, songs: Sequence[Song]) -> np.ndarray:
    """`known` of all songs."""
    return np.concatenate(
        [
            known(recognizer.song_log_probabilities(recognizer.inputs(song)), song.classes)
            for song in progress(songs, "blending")
        ]
    )


def out_of_fold(places: Sequence[Path]) -> bool:
    """Whether all places are cross-validations of the same folds."""
    if not all((place / "folds.json").is_file() for place in places):
        return False
    first, *others = (crossval.read_folds(place) for place in places)
    return all(folds == first for folds in others)


def out_of_fold_likelihoods(places: Sequence[Path]) -> np.ndarray:
    """(places, observations) from what each cross-validation has kept of every song."""
    rows = []
    for songs in zip(*(read_posteriors(place) for place in places), strict=True):
        shapes = {heads.shape for _, heads, _ in songs}
        if len(shapes) > 1:
            raise ValueError(
                f"{songs[0][0]}: {' and '.join(str(shape[0]) for shape in sorted(shapes))} frames, "
                "expected the same features in all cross-validations"
            )
        rows.append([known(heads, songs[0][2]) for _, heads, _ in songs])
    return np.concatenate(rows, axis=1)


def validation_songs(settings: EnsembleSettings, runs: Sequence[Path]) -> list[Song]:
    """Songs that all runs validated on, as written. ValueError when there are none."""
    names = set.intersection(*(set(read_split(run / "split.json")["valid"]) for run in runs))
    trained = config.load(TrainSettings, ["--config", str(runs[0] / "config.yaml")])
    data = settings.data or trained.data
    if data is None or not names:
        raise ValueError(
            f"{len(names)} songs that all {len(runs)} runs validated on, expected some in --data; "
            "or give --weights"
        )
    corpus = find(data, settings.selector, trained.group, settings.pop_spellings)
    items = [item for item in corpus.items if item.id in names]
    library = Library(trained.features, settings.cache.expanduser(), trained.seed)
    songs, problems = chord_data.load_songs(library, items, "reading")
    tell(problems, len(items))
    if not songs:
        raise ValueError(f"{data}: none of the {len(names)} songs that all runs validated on")
    return first_renderings(songs)
