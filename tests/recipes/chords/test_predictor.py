"""Prediction: frames however they arrive, times that end with the audio, checkpoints refused."""

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.features import audio
from audiotrain.features.audio import AudioError
from audiotrain.features.onsets import Onsets
from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.music.beats import Beats
from audiotrain.music.chord_classes import HEAD_SIZES, decode, encode
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords import decoding, predictor
from audiotrain.recipes.chords.predictor import (
    Analysis,
    Prediction,
    Recognizer,
    describe,
    write_decoding,
)
from audiotrain.recipes.chords.songs import SILENCE, FeatureSettings
from audiotrain.train import checkpoint
from audiotrain.utils import arrays
from audiotrain.utils.errors import UserError

FEATURES = FeatureSettings(hop=4096, bins=48, bins_per_octave=12, margin=0)
MODEL = ChordModelSettings(width=48, blocks=1, pools=1, hidden=24, kernel=3, patch=2)
WINDOW = 16


def recognizer(window=WINDOW, **changes):
    mx.random.seed(0)
    model = FrameChordModel(FEATURES.bins, MODEL, FEATURES.bins_per_octave)
    model.trunk.feature_mean, model.trunk.feature_std = mx.array(-50.0), mx.array(20.0)
    model.heads.linear.weight = model.heads.linear.weight * 8  # chords that differ
    return Recognizer(model, FEATURES, window, **changes)


@pytest.fixture(scope="module")
def ours():
    return recognizer()


def features(frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(SILENCE, 0, (frames, FEATURES.bins)).astype(np.float32)


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def cut(values, sizes):
    ends = np.cumsum(sizes)
    return np.split(values, ends[ends < len(values)])


# ---- windows


def reference(ours, values):
    """Every frame as the weighed mean of the two windows that hold it, one window at a time."""
    window, step = ours.window, ours.window // 2
    count = -(-len(values) // step) + 1
    padded = np.full(((count + 1) * step, values.shape[1]), SILENCE, np.float32)
    padded[step : step + len(values)] = values
    ramp = np.minimum(np.arange(window), np.arange(window)[::-1])[:, None] + 0.5
    total, weight = np.zeros((len(padded), 385)), np.zeros((len(padded), 1))
    for k in range(count):
        part = slice(k * step, k * step + window)
        logits = ours.model(mx.array(padded[part])[None])
        posteriors = decoding.log_probabilities({n: np.array(v)[0] for n, v in logits.items()})
        total[part] += ramp * posteriors
        weight[part] += ramp
    return (total / np.maximum(weight, 1e-9))[step : step + len(values)]


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 15, 16, 17, 40, 300])
def test_windows_overlap_and_are_averaged(ours, frames):
    values = features(frames)
    found = ours.song_log_probabilities(values)
    assert found.shape == (frames, 385)
    np.testing.assert_allclose(found, reference(ours, values), atol=2e-4)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 150))
@settings(max_examples=30, deadline=None)
def test_blocks_of_any_size_give_the_same(ours, sizes, frames):
    values = features(frames)
    found = np.concatenate(list(ours.log_probabilities(cut(values, sizes))))
    assert len(found) == frames
    np.testing.assert_allclose(found, ours.song_log_probabilities(values), atol=1e-4)


def test_frames_come_out_while_they_go_in(ours):
    given_frames = []

    def blocks():
        for number in range(40):
            given_frames.append((number + 1) * 10)
            yield features(10, number)

    behind = [
        given_frames[-1] - taken for taken in lengths_so_far(ours.log_probabilities(blocks()))
    ]
    assert max(behind) <= 2 * WINDOW * predictor.WINDOWS_AT_ONCE
    assert max(behind[:-10]) <= 3 * WINDOW  # and in fact far sooner


def lengths_so_far(pieces):
    total = 0
    for piece in pieces:
        total += len(piece)
        yield total


def test_dropout_is_off(ours):
    values = features(30)
    first, second = (ours.song_log_probabilities(values) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("window", [0, 1, 15])
def test_windows_without_a_middle_are_refused(window):
    with pytest.raises(ValueError, match=f"window={window}, expected an even number"):
        recognizer(window)


def test_windows_of_half_an_hour_are_refused():
    with pytest.raises(ValueError, match="window=1048576, expected up to 16384 frames"):
        recognizer(1 << 20)


# ---- files and arrays


@pytest.mark.parametrize("viterbi", [True, False])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 7.3])
def test_a_file_is_its_array(ours, tmp_path, viterbi, seconds):
    samples = noise(round(seconds * FEATURES.rate))
    audio.write(tmp_path / "x.wav", samples, FEATURES.rate)
    from_file = ours.predict(tmp_path / "x.wav", viterbi)
    from_array = ours.predict(samples, viterbi)
    assert from_file.segments == from_array.segments
    np.testing.assert_allclose(from_file.confidences, from_array.confidences, atol=1e-5)
    assert from_file.seconds == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 2047, 2205, 4095, 4096, 4097, 81920, 100_000])
def test_chords_cover_the_audio_and_end_with_it(ours, samples):
    prediction = ours.predict(noise(samples), viterbi=False)
    segments = prediction.segments
    assert prediction.seconds == pytest.approx(samples / FEATURES.rate)
    assert segments[0].start == 0
    assert segments[-1].end == prediction.seconds
    for before, after in zip(segments[:-1], segments[1:], strict=True):
        assert before.end == after.start
        assert before.label != after.label
    assert all(segment.end > segment.start for segment in segments)
    assert len(prediction.confidences) == len(segments)
    assert all(0 <= confidence <= 1 for confidence in prediction.confidences)
    assert all(encode(segment.label) for segment in segments)


def test_progress_is_reported_in_seconds(ours):
    seconds = []
    ours.predict(noise(10 * FEATURES.rate), on_progress=seconds.append)
    assert len(seconds) > 1
    assert sum(seconds) == pytest.approx(10, abs=FEATURES.frame_seconds)


@pytest.fixture
def no_onsets(monkeypatch):
    monkeypatch.setattr(predictor, "to_onsets", lambda times, *_: times)


def test_changes_are_half_way_between_frames(ours, no_onsets):
    prediction = ours.predict(noise(60_000), viterbi=False)
    assert len(prediction.segments) > 3
    for segment in prediction.segments[1:]:
        frames = segment.start / FEATURES.frame_seconds
        assert frames % 1 == pytest.approx(0.5, abs=1e-6)


def test_silence_has_chords_too(ours):
    prediction = ours.predict(np.zeros(30_000, np.float32))
    assert prediction.segments
    assert np.isfinite(prediction.confidences).all()


def test_changes_are_at_onsets(ours):
    samples = 0.01 * noise(90_000)
    clicks = np.arange(0.2, 4.0, 0.2)
    samples[(clicks * FEATURES.rate).astype(int)] = 1
    changes = [segment.start for segment in ours.predict(samples, viterbi=False).segments[1:]]
    assert len(changes) > 3
    apart = np.abs(np.array(changes)[:, None] - clicks).min(axis=1)
    assert np.mean(apart < 0.03) > 0.8


def test_confidence_is_the_mean_of_the_frames(ours, no_onsets):
    samples = noise(50_000)
    prediction = ours.predict(samples, viterbi=False)
    from audiotrain.features import extract as extraction
    from audiotrain.recipes.chords.songs import decibels

    values = decibels(extraction.extract(samples, FEATURES.cqt(margin=False)))
    posteriors = ours.song_log_probabilities(values)
    classes = decoding.argmax(posteriors)
    sure = decoding.confidences(posteriors, classes)
    centres = np.arange(len(sure)) * FEATURES.frame_seconds
    assert len(prediction.segments) > 3
    for segment, confidence in zip(prediction.segments, prediction.confidences, strict=True):
        inside = (centres >= segment.start) & (centres < segment.end)
        if segment is prediction.segments[-1]:
            inside = centres >= segment.start
        assert confidence == pytest.approx(sure[inside].mean(), rel=1e-4)


def test_the_bass_rule_joins_chords_that_become_equal(ours):
    samples = noise(100_000)
    all_of_them = ours.predict(samples, viterbi=False, bass="any").segments
    without = ours.predict(samples, viterbi=False, bass="off").segments
    assert any("/" in segment.label for segment in all_of_them)
    assert not any("/" in segment.label for segment in without)
    for before, after in zip(without[:-1], without[1:], strict=True):
        assert before.label != after.label


def test_joined_chords_have_the_mean_of_their_confidences():
    classes = np.array([[1, 0, 0], [1, 0, 4], [1, 0, 4], [2, 0, 0]], np.int16)
    rng = np.random.default_rng(0)
    posteriors = decoding.log_probabilities(
        {
            "chord_type": rng.normal(size=(4, 32)),
            "root": rng.normal(size=(4, 12)),
            "bass_note": rng.normal(size=(4, 12)),
        }
    )
    sure = decoding.confidences(posteriors, classes)
    names = [decode(chord, "off") for chord in classes[[0, 3]]]
    labels = np.array([0, 0, 0, 1])
    found = predictor.to_prediction(
        names, labels, sure, 0.1, 0.35, moved=lambda times: times - 0.01
    )
    assert [segment.label for segment in found.segments] == ["C:maj", "C:min"]
    assert found.confidences == pytest.approx([sure[:3].mean(), sure[3]], rel=1e-5)
    assert found.segments[0].end == found.segments[1].start == pytest.approx(0.24)
    assert found.seconds == found.segments[-1].end == pytest.approx(0.35)


def test_chords_are_those_of_predict_without_beats(ours):
    samples = noise(100_000)
    analysis = predictor.analyse(FEATURES, False, samples)
    found, whole = ours.chords(analysis), ours.predict(samples)
    assert (found.segments, found.confidences) == (whole.segments, whole.confidences)
    assert len(found.segments) > 1


@pytest.mark.parametrize(("longest", "times"), [(5.0, (1.0,)), (1.0, ())])
def test_recordings_of_hours_have_no_beats(ours, monkeypatch, longest, times):
    monkeypatch.setattr(predictor, "find_beats", lambda *_: Beats((1.0,)))
    monkeypatch.setattr(predictor, "LONGEST_WITH_BEATS", longest)
    assert ours.predict(noise(3 * FEATURES.rate)).beats.times == times


LONG = """
import resource, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_predictor import recognizer
found = recognizer()
found.settings = replace(found.settings, rate=int(sys.argv[3]), hop=int(sys.argv[4]))
seconds = found.predict(Path(sys.argv[2])).seconds
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize(
    ("hours", "features", "megabytes"),
    [(2.2, (22050, 4096), 60), (20.0, (4000, 2976), 100)],  # (rate, hop): 20 h in frames of .7 s
)
def test_memory_hardly_grows_with_a_recording(tmp_path, hours, features, megabytes):
    def peak(hours: float) -> float:
        """MiB that predicting clicks takes."""
        path, rate = tmp_path / "clicks.wav", 8000
        clicks = np.zeros(60 * rate, np.int16)
        clicks[:: rate // 2] = 20000
        with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
            for _ in range(round(hours * 60)):
                file.write(clicks)
        words = [sys.executable, "-c", LONG, Path(__file__).parent, path, *map(str, features)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds, kilobytes = done.stdout.split()
        assert float(seconds) == pytest.approx(hours * 3600, abs=1)
        return int(kilobytes) / 1024

    assert peak(hours) - peak(0.2) < megabytes


def test_a_switching_cost_makes_longer_chords():
    calm = recognizer(switching_cost=20.0)
    samples = noise(200_000)
    assert len(calm.predict(samples).segments) < len(calm.predict(samples, False).segments)


def predicted_with(model, samples, least):
    """The prediction of a model with a `min_confidence`."""
    model.min_confidence = least
    return model.predict(samples)


def test_unsure_chords_are_n_with_the_probability_that_they_are_wrong(no_onsets):
    model, samples = recognizer(), noise(400_000)
    plain, none = (predicted_with(model, samples, least) for least in (0.0, 0.99))
    assert {one.label for one in plain.segments} != {"N"}
    assert [one.label for one in none.segments] == ["N"]
    assert none.key is None
    assert none.confidences[0] > 0.9  # untrained: each chord has hardly any probability
    assert model.predict(samples, viterbi=False).segments != none.segments


@pytest.mark.parametrize("frames", [40, 300])
def test_what_is_streamed_is_rejected_as_a_whole_song_is(frames, no_onsets):
    model, values = recognizer(), features(frames)
    posteriors = model.song_log_probabilities(values)
    sure = decoding.confidences(posteriors, decoding.decode(posteriors, model.switching_cost))
    model.min_confidence = float(np.median(sure))
    seconds = frames * FEATURES.frame_seconds
    pieces = Analysis([values[:7], values[7:]], Onsets(FEATURES.rate, FEATURES.hop), seconds)
    expected = model.segments(model.decode(posteriors), np.zeros(0), seconds)
    assert model.chords(pieces).segments == expected


def test_what_cannot_be_read_is_named(ours, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(audio.AudioError, match=r"x\.wav: the file is empty"):
        ours.predict(tmp_path / "x.wav")


@pytest.mark.parametrize("shape", [(0,), (2, 9), (9, 2), (), (1, 1, 9)])
def test_samples_that_are_not_mono_are_refused(ours, shape):
    for recognise in (ours, ours.predict):
        with pytest.raises(ValueError, match=rf"audio of shape {re.escape(str(shape))}, expected"):
            recognise(np.zeros(shape, np.float32))


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf, 1e13])
def test_samples_that_are_no_sound_are_refused(ours, sample):
    samples = noise(50_000)
    samples[300] = sample
    for recognise in (ours, ours.predict):
        with pytest.raises(ValueError, match=r"^audio with NaN, Inf or samples above 1e\+12"):
            recognise(samples)


@pytest.mark.parametrize("kind", ["?", "c8", "O", "u1", "U1"])
def test_samples_of_other_types_are_refused(ours, kind):
    with pytest.raises(ValueError, match="^audio of type .*, expected floats or signed whole"):
        ours(np.zeros(9, np.int8).astype(kind))


def test_whole_numbers_are_samples_as_in_a_file(ours, tmp_path):
    samples = (noise(50_000) * 8000).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", samples, ours.settings.rate, subtype="PCM_16")
    whole, file = ours.predict(samples), ours.predict(tmp_path / "x.wav")
    assert whole.segments == file.segments
    assert whole.confidences == pytest.approx(file.confidences, abs=1e-5)
    assert len(ours(samples[:1]).segments) == 1


# ---- checkpoints


def save(folder, described=None, cost=None):
    """A checkpoint as training writes it."""
    ours = recognizer()
    holder = nn.Module()
    holder.model = ours.model
    if described is None:
        described = describe(MODEL, FEATURES, WINDOW)
    meta = {"config": {"recognizer": described}, "epoch": 0, "global_step": 1}
    checkpoint.save(folder, {"model": arrays.arrays_of(holder)}, meta)
    if cost is not None:
        (folder.parent / "decoding.json").write_text(json.dumps(cost))
    return ours


def test_a_checkpoint_predicts_as_the_model_did(tmp_path):
    ours = save(tmp_path / "run" / "checkpoints" / "best", cost={"switching_cost": 3.5})
    samples = noise(50_000)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "best"):
        again = Recognizer.from_checkpoint(folder)
        assert (again.switching_cost, again.type_offsets) == (3.5, None)
        assert (again.window, again.settings) == (WINDOW, FEATURES)
        assert again.predict(samples, False) == ours.predict(samples, False)


def test_offsets_of_chord_types_are_saved_and_used(tmp_path):
    ours = save(tmp_path / "checkpoints" / "best")
    ours.type_offsets = np.full(HEAD_SIZES[0], -30.0)
    ours.type_offsets[5] = 0.0
    write_decoding(ours, tmp_path / "checkpoints" / "decoding.json")
    again = Recognizer.from_checkpoint(tmp_path)
    np.testing.assert_array_equal(again.type_offsets, ours.type_offsets)
    segments = again.predict(noise(50_000)).segments
    assert {encode(segment.label).chord_type for segment in segments} == {5}


@pytest.mark.parametrize("offset", [None, float("nan"), 1e308, -1e5])
def test_offsets_that_no_probability_has_are_refused(tmp_path, offset):
    save(tmp_path / "checkpoints" / "best")
    content = {"switching_cost": 2.0, "type_offsets": [offset] + [0.0] * (HEAD_SIZES[0] - 1)}
    (tmp_path / "checkpoints" / "decoding.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"decoding\.json: expected a switching_cost, and 32 type"):
        Recognizer.from_checkpoint(tmp_path)


def test_a_min_confidence_is_saved_and_files_without_it_have_none(tmp_path):
    ours = save(tmp_path / "checkpoints" / "best")
    ours.min_confidence = 0.15
    write_decoding(ours, tmp_path / "checkpoints" / "decoding.json")
    assert Recognizer.from_checkpoint(tmp_path).min_confidence == 0.15
    save(tmp_path / "old" / "checkpoints" / "best", cost={"switching_cost": 3.5})
    assert Recognizer.from_checkpoint(tmp_path / "old").min_confidence == 0.0


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan"), "much", None])
def test_a_damaged_min_confidence_is_refused(tmp_path, least):
    content = {"switching_cost": 2.0, "min_confidence": least}
    save(tmp_path / "checkpoints" / "best", cost=content)
    with pytest.raises(UserError, match=r"decoding\.json: expected a switching_cost"):
        Recognizer.from_checkpoint(tmp_path)


def test_the_last_checkpoint_stands_in_for_the_best(tmp_path):
    save(tmp_path / "checkpoints" / "last")
    assert Recognizer.from_checkpoint(tmp_path).switching_cost == 2.0


def other_sizes():
    return describe(
        ChordModelSettings(width=48, blocks=1, pools=1, hidden=36, kernel=3), FEATURES, WINDOW
    )


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (other_sizes(), r"does not fit the model: .* misshaped: "),
        ({"features": {}, "model": {}}, "not one of this version .*window"),
        ({"features": {"tempo": 3}, "model": {}, "window": 16}, "not one of this version"),
        ({"features": {}, "model": {"patch": 0}, "window": 16}, "patch=0, expected 1 or more"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, described, message):
    save(tmp_path / "x", described)
    with pytest.raises(checkpoint.CheckpointError, match=message) as caught:
        Recognizer.from_checkpoint(tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x") in str(caught.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    checkpoint.save(tmp_path / "x", {"model": {"a": mx.array(1.0)}}, {"config": None})
    with pytest.raises(checkpoint.CheckpointError, match="not a checkpoint of the chord recipe"):
        Recognizer.from_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(tmp_path, name, share):
    save(tmp_path / "x")
    file = tmp_path / "x" / name
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(checkpoint.CheckpointError, match="cut short") as caught:
        Recognizer.from_checkpoint(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["", "checkpoints"])
def test_no_checkpoint_is_named(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint"):
        Recognizer.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"switching_cost": None},
        {"switching_cost": "much"},
        {"switching_cost": -1.0},
        {"switching_cost": float("nan")},
        {"switching_cost": 1.0, "type_offsets": [0.0]},
    ],
)
def test_a_damaged_switching_cost_is_refused(tmp_path, content):
    save(tmp_path / "checkpoints" / "best", cost=content)
    with pytest.raises(ValueError, match=r"decoding\.json: expected a switching_cost"):
        Recognizer.from_checkpoint(tmp_path)


def test_a_prediction_shows_itself_as_a_page(tmp_path):
    path = tmp_path / "<b>tune.wav"
    audio.write(path, np.zeros(22050, np.float32), 22050)
    prediction = Prediction([Segment(0.0, 1.0, "C:maj")], [0.9], 1.0, source=path)
    frame = prediction._repr_html_()
    assert frame.startswith("<iframe srcdoc='")
    assert "<b>" not in frame
    page = html.unescape(re.search(r"srcdoc='(.*?)'", frame, re.DOTALL)[1])
    assert '"sound":null' in page
    assert "allow-same-origin" not in frame
    assert '"base64"' in html.unescape(prediction.show(audio=True)._repr_html_())
    assert repr(prediction.show()) == "<the page of a song for a notebook, 0.2 MB>"
    path.unlink()
    assert prediction._repr_html_() == frame
    with pytest.raises(AudioError, match="no such audio file"):
        prediction.show(audio=True)
    with pytest.raises(UserError, match="audio=True: the prediction is of samples"):
        replace(prediction, source=None).show(audio=True)
    with pytest.raises(UserError, match="its 1:00:00 take more than 20 MB"):
        replace(prediction, seconds=3600.0).show(audio=True)


def test_a_prediction_in_a_notebook_is_light(tmp_path):
    """It was 4.8 MB for a song of five minutes, its sound among them."""
    labels = ["C:maj", "A:min7", "F:maj7/3", "G:9"] * 50
    segments = [Segment(1.5 * n, 1.5 * n + 1.5, label) for n, label in enumerate(labels)]
    beats = Beats(np.arange(0, 300, 0.5).tolist(), np.arange(0, 300, 2.0).tolist())
    prediction = Prediction(segments, [0.8] * 200, 300.0, beats=beats, source=tmp_path / "x.wav")
    assert len(prediction._repr_html_()) < 250_000
