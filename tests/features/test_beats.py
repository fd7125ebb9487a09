"""Beats and downbeats of recordings made from known ones."""

import mir_eval
import numpy as np
import pytest

from audiotrain.features import beats as tracker
from audiotrain.features.beats import find_beats, likely_periods, pulses
from audiotrain.features.onsets import Onsets
from audiotrain.music.beats import NO_BEATS
from audiotrain.music.segments import Segment

RATE, HOP = 22050, 2048
PROGRESSION = ("C:maj", "A:min", "F:maj", "G:maj")


def tone(pitch, seconds, loudness):
    clock = np.arange(int(seconds * RATE)) / RATE
    wave = sum(
        np.sin(2 * np.pi * k * 440 * 2 ** ((pitch - 69) / 12) * clock) / k for k in (1, 2, 3)
    )
    return loudness * wave * np.exp(-4 * clock)


def song(beats, metre, parts=2, pickup=0):
    """Samples, chords and downbeats: a bass note a bar, a softer one in the middle of four and six,
    a note a beat, softer ones between, and a chord that changes with the bar, in every second bar
    of six also in its middle."""
    samples = np.zeros(int((beats[-1] + 3) * RATE), np.float32)
    roots, segments, downbeats = (48, 45, 41, 43), [], []

    def add(pitch, time, loudness):
        begin = int(time * RATE)
        note = tone(pitch, 0.4, loudness)
        samples[begin : begin + len(note)] += note

    for number, (time, after) in enumerate(zip(beats, beats[1:], strict=False)):
        bar, place = divmod(number - pickup, metre)
        if place == 0 or (metre == 6 and place == 3 and bar % 2):
            segments.append(Segment(time, time, PROGRESSION[len(segments) % 4]))
        root = roots[(len(segments) - 1) % 4]
        if place == 0:
            downbeats.append(time)
            add(root - 12, time, 0.3)
        elif metre != 3 and place == metre // 2:
            add(root - 12, time, 0.15)
        add(root + 12, time, 0.05 if metre == 6 and place % 3 else 0.15)
        for part in range(1, parts):
            add(root + 19, time + part * (after - time) / parts, 0.06)
    ends = [*(one.start for one in segments[1:]), len(samples) / RATE]
    return (
        samples,
        [one._replace(end=end) for one, end in zip(segments, ends, strict=True)],
        downbeats,
    )


def track(samples, segments):
    onsets = Onsets(RATE, HOP)
    onsets.add(np.asarray(samples, np.float32))
    return find_beats(onsets.strengths(), onsets.low_strengths(), onsets.step, segments)


def agreement(known, found):
    return mir_eval.beat.f_measure(np.asarray(known), np.asarray(found), 0.05)


@pytest.mark.parametrize(
    ("metre", "interval"),
    [(4, 0.5), (4, 0.8), (4, 1.0), (3, 0.32), (3, 0.45), (3, 0.7), (6, 0.45)],
)
def test_beats_bars_and_metre_of_songs_in_several_tempi(metre, interval):
    beats = 0.3 + interval * np.arange(16 * metre)
    samples, segments, downbeats = song(beats, metre, parts=1 if metre == 6 else 2)
    found = track(samples, segments)
    assert found.metre == metre
    assert found.tempo == pytest.approx(60 / interval, rel=0.02)
    assert agreement(beats, found.times) > 0.95
    assert agreement(downbeats, found.downbeats) > 0.9


@pytest.mark.parametrize("drift", [-0.1, 0.1])
def test_a_tempo_that_drifts_is_followed(drift):
    intervals = 0.6 * np.linspace(1, 1 + drift, 80)
    beats = 0.3 + np.cumsum(intervals)
    samples, segments, downbeats = song(beats, 4)
    found = track(samples, segments)
    assert agreement(beats, found.times) > 0.95
    assert agreement(downbeats, found.downbeats) > 0.9


def test_bars_move_where_a_bar_is_irregular():
    beats = 0.3 + 0.6 * np.arange(98)
    first, chords, downs = song(beats[:49], 4)
    second, more, others = song(beats[:49], 4)
    offset = 0.6 * 50  # the first part's last bar has 50 - 48 = 2 beats
    samples = np.zeros(int(offset * RATE) + len(second), np.float32)
    samples[: len(first)] += first
    samples[int(offset * RATE) :] += second
    moved = [one._replace(start=one.start + offset, end=one.end + offset) for one in more]
    found = track(samples, [*chords, *moved])
    late = [time + offset for time in others]
    assert agreement(late, [time for time in found.downbeats if time > offset]) > 0.9
    assert agreement(downs, [time for time in found.downbeats if time < 0.6 * 48]) > 0.9


def test_a_pulse_is_found_by_its_period_and_followed_step_by_step():
    strengths = np.zeros(2000)
    strengths[7::40] = 5.0
    found = pulses(strengths, period=38.0)
    assert set(np.arange(87, 1900, 40)) <= set(found)
    assert set(np.diff(found[2:-2])) == {40}
    widened = np.convolve(strengths, np.hanning(9), "same")
    assert likely_periods(widened, step=0.01)[0] == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize(
    "kind", ["silence", "held chord", "a second", "empty", "noise", "one note"]
)
def test_what_has_no_pulse_has_no_beats(kind):
    rng = np.random.default_rng(0)
    samples = {
        "silence": np.zeros(20 * RATE),
        "held chord": sum(np.sin(2 * np.pi * f * np.arange(20 * RATE) / RATE) for f in (262, 330)),
        "a second": tone(60, 1.0, 0.5),
        "empty": np.zeros(0),
        "noise": 0.1 * rng.standard_normal(20 * RATE),
        "one note": np.concatenate([np.zeros(5 * RATE), tone(60, 10.0, 0.5)]),
    }[kind]
    assert track(samples, [Segment(0.0, 20.0, "C:maj")]) == NO_BEATS


def test_free_time_is_answered():
    rng = np.random.default_rng(1)
    beats = np.cumsum(rng.uniform(0.3, 1.6, 40))
    samples, segments, _ = song(beats, 4, parts=1)
    found = track(samples, segments)
    assert all(np.diff(found.times) > 0)
    assert set(found.downbeats) <= set(found.times)


def test_bars_are_the_best_of_all_paths():
    rng = np.random.default_rng(2)
    evidence = np.column_stack([rng.uniform(0, 1.4, (6, 2)), rng.integers(0, 2, 6), np.ones(6)])
    score, path = tracker.bars(evidence, parts=1, metre=3)
    weights = np.array([tracker.PLACES[name] for name in ("downbeat", "beat", "beat")])

    def total(places):
        steps = [
            tracker.SHIFT * ((b - a) % 3 != 1) for a, b in zip(places, places[1:], strict=False)
        ]
        return (evidence * weights[list(places)]).sum() - sum(steps)

    best = max(np.ndindex(*[3] * 6), key=total)
    assert score == pytest.approx(total(best))
    assert total(tuple(path)) == pytest.approx(score)
