"""Several chord models as one, transpositions, and tuning."""

import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from test_predictor import MODEL
from tiny_chords import TINY, command, make_quick, sung

from audiotrain.features.tuning import tuning_of
from audiotrain.models.chords import FrameChordModel
from audiotrain.music import chord_classes
from audiotrain.recipes.chords import decoding, ensemble
from audiotrain.recipes.chords import songs as chord_data
from audiotrain.recipes.chords.decoding import (
    CHORDS,
    WIDTH,
    log_probabilities,
    log_softmax,
    split,
    split_heads,
)
from audiotrain.recipes.chords.ensemble import Ensemble, join, transposed
from audiotrain.recipes.chords.predictor import FrameRecognizer, Recognizer
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.train import crossval
from audiotrain.utils import arrays as checkpoint

FEATURES = FeatureSettings(hop=4096, bins=48, bins_per_octave=12, margin=3)


def normalised(logits):
    return np.concatenate([log_softmax(part) for part in split(logits)], -1)


def some_posteriors(frames=5, seed=0):
    return normalised(np.random.default_rng(seed).standard_normal((frames, WIDTH), np.float32))


def members(count=2):
    """Untrained models that differ in their weights."""
    found = []
    for seed in range(count):
        mx.random.seed(seed)
        model = FrameChordModel(FEATURES.bins, MODEL, FEATURES.bins_per_octave)
        model.trunk.feature_mean, model.trunk.feature_std = mx.array(-50.0), mx.array(20.0)
        model.heads.linear.weight = model.heads.linear.weight * 8  # chords that differ
        found.append(Recognizer(model, FEATURES, window=16))
    return found


def some_features(frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-80, 0, (frames, FEATURES.bins)).astype(np.float32)


def test_joining_by_hand():
    a, b = some_posteriors(seed=0), some_posteriors(seed=1)
    weights = np.array([0.25, 0.75])
    mean = join([a, b], weights)
    assert np.allclose(np.exp(mean), 0.25 * np.exp(a) + 0.75 * np.exp(b), atol=1e-6)
    geometric = join([a, b], weights, "geometric")
    for part, one, two in zip(*map(split, (geometric, a, b)), strict=True):
        wanted = np.exp(one) ** 0.25 * np.exp(two) ** 0.75
        assert np.allclose(np.exp(part), wanted / wanted.sum(-1, keepdims=True), atol=1e-6)
    assert np.allclose(join([a, b], np.array([1.0, 0.0])), a, atol=1e-6)


def test_transposed_probabilities_are_of_transposed_chords():
    posteriors = some_posteriors()
    for semitones in (-3, 1, 12):
        moved = decoding.argmax(transposed(posteriors, semitones))
        wanted = chord_classes.transpose(decoding.argmax(posteriors), semitones)
        assert np.array_equal(moved, wanted)


@pytest.mark.parametrize("how", ["mean", "geometric"])
def test_an_ensemble_of_one_model_twice_is_that_model(how):
    (one,) = members(1)
    values = some_features(100)
    found = Ensemble([one, one], how=how).song_log_probabilities(values)
    assert np.allclose(found, one.song_log_probabilities(values), atol=1e-4)


def test_an_ensembles_windows_are_the_mean_of_its_members():
    a, b = members()
    windows = np.stack([some_features(a.window, seed) for seed in range(3)])
    found = Ensemble([a, b], [3, 1]).log_probs(windows)
    wanted = 0.75 * np.exp(a.log_probs(windows)) + 0.25 * np.exp(b.log_probs(windows))
    assert np.allclose(np.exp(found), wanted, atol=1e-6)
    a.switching_cost, b.switching_cost = 1.0, 5.0
    assert Ensemble([a, b], [3, 1]).switching_cost == pytest.approx(2.0)
    a.min_confidence, b.min_confidence = 0.2, 0.1
    assert Ensemble([a, b], [3, 1]).min_confidence == 0.1


def test_transpositions_hear_the_margin_bins_and_answer_in_the_songs_key():
    """A member that names the loudest bin's pitch: each transposition says the same."""

    class Loudest(Recognizer):
        def log_probs(self, windows):
            octave = self.settings.bins_per_octave // 12
            root = windows.argmax(-1) // octave % 12
            logits = np.full((*windows.shape[:2], WIDTH), -9.0, np.float32)
            np.put_along_axis(logits, 1 + 12 * 4 + root[..., None], 0, -1)
            np.put_along_axis(logits, len(CHORDS) + root[..., None], 0, -1)
            return normalised(logits)

    plain = members(1)[0]
    member = Loudest(plain.model, plain.settings, plain.window)
    settings = plain.settings
    both = Ensemble([member], shifts=ensemble.SHIFTS)
    assert both.takes_margin
    rng = np.random.default_rng(0)
    bins = settings.bins + 2 * settings.margin_bins
    values = rng.uniform(-80, -60, (60, bins)).astype(np.float32)
    pitch = 12 + rng.integers(0, 24, 60)  # semitones above the lowest bin, away from both ends
    values[np.arange(60), settings.margin_bins + pitch * settings.bins_per_semitone] = 0
    song = chord_data.Song("song", values, np.zeros((60, 3), np.int16), [])
    windows = both.inputs(song)[None, : both.window]
    found = decoding.argmax(both.log_probs(windows)[0])
    assert np.array_equal(found[:, 1], pitch[: both.window] % 12)
    assert plain.inputs(song).shape[1] == settings.bins


def test_a_transposing_ensemble_predicts_from_audio():
    samples = np.random.default_rng(0).standard_normal(22050 * 3).astype(np.float32) * 0.1
    found = Ensemble(members(1), shifts=(-1, 0, 1)).predict(samples)
    assert found.segments[-1].end == pytest.approx(3.0, abs=0.01)


def test_too_few_margin_bins_leave_out_transpositions():
    settings = replace(FEATURES, margin=1)
    first = members(1)[0]
    ours = Recognizer(first.model, settings, first.window)
    assert Ensemble([ours], shifts=ensemble.SHIFTS).shifts == [-1, 0, 1]


def test_members_that_hear_otherwise_are_refused():
    first, second = members()
    other = replace(FEATURES, hop=1024)
    second = Recognizer(second.model, other, second.window)
    with pytest.raises(ValueError, match="^B: features.hop is 1024, expected .* as in A: members"):
        Ensemble([first, second], names=["A", "B"])
    third = Recognizer(first.model, first.settings, first.window * 2)
    with pytest.raises(ValueError, match="member 1: window is"):
        Ensemble([first, third])


def test_frame_recognizers_need_ears():
    with pytest.raises(NotImplementedError):
        FrameRecognizer().log_probs(np.zeros((1, 2, 3)))


# ---- tuning


def test_a_tuned_transform_hears_detuned_music_as_if_it_were_in_tune():
    settings = FeatureSettings()
    seconds = np.arange(22050 * 2) / 22050
    plain, sharp = (np.sin(2 * np.pi * 440 * 2 ** (s / 12) * seconds) for s in (0, 0.5))
    extract = chord_data.extract.extract
    wanted = extract(plain.astype(np.float32), settings.cqt(False))[5:-5].mean(0)
    found = extract(sharp.astype(np.float32), settings.cqt(False, 0.5))[5:-5].mean(0)
    untuned = extract(sharp.astype(np.float32), settings.cqt(False))[5:-5].mean(0)
    assert found.argmax() == wanted.argmax() != untuned.argmax()


# ---- the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("ensemble")


@pytest.fixture(scope="module")
def runs(place):
    """Two runs on one split that started from other weights, and a third of another hop."""
    data, found = sung(place / "data"), []
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        for name, more in (("a", []), ("b", ["--seed", 1]), ("c", ["--features.hop", 2048])):
            split = ["--split", place / "a" / "split.json"] if found else []
            words = ["--data", data, "--output", place / name, "--cache", place / "cache"]
            assert command(*words, *TINY, "--steps", 4, *more, *split) == 0
            found.append(place / name)
    return found


@pytest.fixture
def quick(runs, monkeypatch):
    make_quick(monkeypatch)


def refused(capsys, *words):
    assert command(*words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return lines[0]


def test_several_runs_evaluate_and_predict_as_one(quick, runs, place, tmp_path):
    a, b, _ = runs
    cache = ["--cache", place / "cache"]
    data = ["--data", place / "data", "--split", "test"]
    tta = ["--tta", "transpose", "tuning"]
    assert command("evaluate", *data, "--checkpoint", a, b, *tta, *cache) == 0
    assert (a / "evaluation-data-test-of-2" / "metrics.json").is_file()
    song = place / "data" / "song0.wav"
    out = ["--output", tmp_path / "out"]
    assert command("predict", "--tta", "tuning", "--checkpoint", a, b, song, *out) == 0
    lines = (tmp_path / "out" / "song0.lab").read_text().splitlines()
    recognizer = ensemble.load([a, b])
    tuned = recognizer(song)
    assert tuned == recognizer.predict(song, tuning=tuning_of(song, 22050))
    assert [line.split()[2] for line in lines] == [s.label for s in tuned.segments]


def test_blended_weights_are_kept_and_no_worse_than_equal_ones(quick, runs, place, capsys):
    a, b, _ = runs
    output = place / "blended"
    assert command("ensemble", a, b, "--output", output, "--cache", place / "cache") == 0
    table = dict(
        line.split()[:2]
        for line in capsys.readouterr().out.splitlines()
        if line.split()[:1] in (["equal"], ["fitted"])
    )
    assert float(table["fitted"]) <= float(table["equal"]) + 1e-6
    with pytest.raises(ValueError, match="--join mean: .* is an ensemble with a join"):
        ensemble.load([output], "mean")
    joined = ensemble.load([output])
    assert len(joined.members) == 2
    assert joined.weights.sum() == pytest.approx(1)
    words = ["--checkpoint", output, "--output", place / "out"]
    assert command("predict", place / "data" / "song1.wav", *words) == 0
    assert "holds ensemble.json already" in refused(capsys, "ensemble", a, b, "--output", output)
    (output / "ensemble.json").write_text('{"members": []}')
    assert "not an ensemble of the chords recipe" in refused(
        capsys, "predict", place / "data" / "song0.wav", "--checkpoint", output
    )


@pytest.mark.parametrize("join", ["mean", "soup"])
def test_what_is_wrong_with_songs_to_blend_by_is_in_the_ensembles_folder(
    quick, runs, place, tmp_path, capsys, join
):
    a, b, _ = runs
    data = shutil.copytree(place / "data", tmp_path / "data")
    for number in range(9):
        (data / f"alone{number}.lab").write_text("0 1 C")
    words = ["--output", tmp_path / "e", "--cache", place / "cache"]
    assert command("ensemble", a, b, "--join", join, "--data", data, *words) == 0
    listed = tmp_path / "e" / "problems.txt"
    assert sum("alone" in line for line in listed.read_text().splitlines()) == 9
    assert str(listed) in capsys.readouterr().out


def test_a_soup_of_runs_is_a_run(quick, runs, place, tmp_path, capsys):
    a, b, c = runs
    words = ["--join", "soup", "--cache", place / "cache", "--output"]
    assert command("ensemble", a, b, "--weights", 3, 1, *words, tmp_path / "soup") == 0
    soup, first, second = (
        checkpoint.arrays_of(Recognizer.from_checkpoint(run).model)
        for run in (tmp_path / "soup", a, b)
    )
    for name, array in soup.items():
        assert np.allclose(array, 0.75 * first[name] + 0.25 * second[name], atol=1e-5)
    assert "another architecture or features than" in refused(
        capsys, "ensemble", a, c, *words, tmp_path / "x"
    )


def test_what_cannot_be_joined_is_refused(quick, runs, place, tmp_path, capsys):
    a, b, c = runs
    song = place / "data" / "song0.wav"
    line = refused(capsys, "predict", song, "--checkpoint", a, c)
    assert f"{c}: features.hop is 2048, expected 4096 as in {a}" in line
    assert "weights 1, expected 2 numbers" in refused(
        capsys, "ensemble", a, b, "--weights", 1, "--output", tmp_path / "x"
    )
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "metrics.json").write_text("{}")
    line = refused(capsys, "ensemble", a, b, "--output", tmp_path / "scores")
    assert "scores: holds metrics.json already; --output names another folder" in line
    composed = shutil.copytree(b, tmp_path / "runs" / "composed")
    (composed / "split.json").unlink()
    line = refused(capsys, "ensemble", a, composed, "--output", tmp_path / "x")
    assert f"{composed}: no split.json, as of composed songs alone" in line
    assert "--audio: required" in refused(capsys, "predict", "--checkpoint", a)
    assert "no trained run there" in refused(capsys, "predict", song, "--checkpoint", a, tmp_path)


def test_cross_validations_are_blended_by_what_they_kept(quick, runs, place, tmp_path):
    """The first one has learned, the second one's posteriors are uniform."""
    words = ["cv", "--data", place / "data", "--cache", place / "cache", *TINY, "--folds", 2]
    for name in "xy":
        assert command(*words, "--steps", 4, "--output", tmp_path / name) == 0
    for file in sorted((tmp_path / "y" / "oof").glob("*.npz")):
        with np.load(file) as arrays:
            found = dict(arrays)
        found["log_probabilities"] = np.zeros_like(found["log_probabilities"])
        np.savez(file, **found)
        with np.load(tmp_path / "x" / "oof" / file.name) as arrays:
            sure = np.full(arrays["log_probabilities"].shape, -9.0)
            classes = arrays["classes"].astype(int)
            for head, begin in enumerate((0, 32, 44)):
                rows = np.flatnonzero(classes[:, head] >= 0)
                sure[rows, begin + classes[rows, head]] = 0
            np.savez(tmp_path / "x" / "oof" / file.name, **{**arrays, "log_probabilities": sure})
    output = tmp_path / "joined"
    assert command("ensemble", tmp_path / "x", tmp_path / "y", "--output", output) == 0
    joined = ensemble.load([output])
    assert joined.weights == pytest.approx([0.5, 0.5, 0, 0], abs=0.01)
    both = ensemble.load([tmp_path / "x"])
    assert len(both.members) == 2
    (tmp_path / "x" / "oof" / "1.json").unlink()
    with pytest.raises(ValueError, match="fold 1 of 2 is not done"):
        ensemble.load([tmp_path / "x"])
    assert not ensemble.same_folds([tmp_path / "x", place / "a"])


def printed(text):
    """The weights, and the cross entropy of each place, of equal and of fitted weights."""
    rows = [line.split() for line in text.splitlines()]
    rows = rows[rows.index(["weight", "cross", "entropy"]) + 1 :][:4]
    return [float(row[0]) for row in rows[:2]], [float(row[1]) for row in rows]


def by_head(logits):
    """Log-probabilities (frames, 56) from logits."""
    return np.concatenate([log_softmax(part) for part in split_heads(logits)], -1)


def cross_entropy(places, weights, how):
    """Of what cross-validations kept of all songs, joined head by head, as weights are fitted."""
    losses = []
    for songs in zip(*map(ensemble.read_posteriors, places), strict=True):
        said = [by_head(heads) for _, heads, _ in songs]
        if how == "geometric":
            joined = by_head(np.tensordot(weights, said, 1))
        else:
            joined = np.log(np.tensordot(weights, np.exp(said), 1))
        classes = songs[0][2].astype(int)
        for head, part in enumerate(split_heads(joined)):
            frames = np.flatnonzero(classes[:, head] >= 0)
            losses.append(-part[frames, classes[frames, head]])
    return np.concatenate(losses).mean()


def write_drawn(folder, seed, skills):
    """Posteriors of songs of 30 frames, a fold for each skill: drawn, with that much for what is
    right; as a finished cross-validation keeps them."""
    names = [f"song{k}" for k in range(len(skills))]
    store = crossval.RaggedOutOfFold(folder, names, np.arange(len(names))[:, None])
    for k, skill in enumerate(skills):
        song = chord_data.Song(f"song{k}", None, np.full((30, 3), -1, np.int16), [])
        draws = np.random.default_rng(k)
        song.classes[:25] = np.stack([draws.integers(0, n, 25) for n in (32, 12, 12)], 1)
        heads = np.random.default_rng([seed, k]).normal(0, 1.5, (30, 56))
        for head, begin in enumerate((0, 32, 44)):
            heads[np.arange(25), begin + song.classes[:25, head]] += skill
        logits = dict(zip(chord_classes.HEADS, split_heads(heads), strict=True))
        posteriors = decoding.heads_of(log_probabilities(logits)).astype(np.float16)
        store.save(k, song.name, {"log_probabilities": posteriors, "classes": song.classes})
        store.finish(k)


@pytest.mark.parametrize("how", ["mean", "geometric"])
def test_weights_are_fitted_for_the_join_that_they_serve(tmp_path, capsys, how):
    places = [tmp_path / name for name in "xy"]
    for place, skill in zip(places, (3, 2), strict=True):
        write_drawn(place, skill, [skill, skill])
    songs = ensemble.out_of_fold_predictions(places)
    fitted = ensemble.fit_weights(places, songs, how)
    weights, entropies = printed(capsys.readouterr().out)
    assert fitted == pytest.approx(weights, abs=6e-4)
    wanted = [cross_entropy(places, pair, how) for pair in ([1, 0], [0, 1], [0.5, 0.5], fitted)]
    assert entropies == pytest.approx(wanted, abs=2e-3)
    tried = [cross_entropy(places, [w, 1 - w], how) for w in np.linspace(0, 1, 41)]
    assert entropies[3] <= min(tried) + 2e-4
    assert weights[0] == pytest.approx(np.linspace(0, 1, 41)[np.argmin(tried)], abs=0.03)


def test_the_command_fits_the_join_that_it_writes(quick, runs, place, tmp_path, monkeypatch):
    a, b, _ = runs
    joins, fit = [], ensemble.fit_weights
    monkeypatch.setattr(
        ensemble, "fit_weights", lambda *given: joins.append(given[2]) or fit(*given)
    )
    more = ["--join", "geometric", "--cache", place / "cache", "--output", tmp_path / "joined"]
    assert command("ensemble", a, b, *more) == 0
    assert joins == ["geometric"]
    assert ensemble.load([tmp_path / "joined"]).how == "geometric"


def test_cross_validations_of_other_folds_are_refused_as_such(tmp_path):
    write_drawn(tmp_path / "x", 0, [1, 1])
    write_drawn(tmp_path / "y", 0, [1, 1, 1])
    wanted = "y: 3 folds of 3 songs, others than the 2 folds of 2 songs of .*x; expected cross-val"
    with pytest.raises(ValueError, match=wanted):
        ensemble.same_folds([tmp_path / "x", tmp_path / "y"])
