"""Beats and downbeats of a recording, from its onsets and its chords.

Pulses are found in onset strengths by dynamic programming (Ellis, "Beat Tracking by Dynamic
Programming", 2007), at the likeliest periods. Each pulse may be a beat or a part of one, and a bar
may have 3, 4 or 6 beats: the hypothesis under which onsets, the low register and changes of chord
are most likely is taken, bars by Viterbi, so that their phase can move.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal

from audiotrain.features.onsets import EARLY
from audiotrain.music.beats import NO_BEATS, Beats
from audiotrain.music.chord_classes import encode
from audiotrain.music.segments import Segment

PULSES = (0.19, 0.75)  # seconds from one pulse to the next
BEATS = (0.36, 1.5)  # seconds from one beat to the next
PERIODS = 4  # that are tried
TIGHTNESS = 400.0  # of pulses: cost of the squared logarithm of an interval over the period
METRE_COSTS = {4: 0.0, 6: 0.2, 3: 0.27}  # nats a second that a metre has to be likelier by
# Seconds of a beat. Slower bars of six are written as two of three; waltzes have up to 200 bpm.
METRE_BEATS = {4: BEATS, 6: (BEATS[0], 0.65), 3: (0.3, BEATS[1])}
SHIFT, RESTART = 5.0, 14.0  # nats: a bar that begins at another beat, or at another pulse
# A chord's root stays for so many beats, the mean over a song: a tempo is judged by the pace of
# its chords, so that songs are treated alike at any speed.
CHORD_BEATS, CHORD_SPREAD, CHORD_WEIGHT = 2.8, 0.35, 0.5
TYPICAL_BEAT = 0.6  # seconds, where too few chords change
FEWEST_CHANGES = 4
MIN_SCORE = 0.4  # nats a second: less is no beat
NEAR_ONSET, NEAR_CHANGE = 0.023, 0.058  # seconds from a pulse
STEADY = 0.5  # share of the strong onsets' strength that no quarter of a song with pulses exceeds
ACTIVE = 0.1  # share of the strong onsets' strength below which nothing is played

# Log-likelihood ratios of a pulse at each place of a bar to any moment of a song: weights of the
# square roots of its onset strength and that of the low register, both relative to the song's
# strong ones, of a change of chord, and a constant. Logistic regression on 106 training songs of
# POP909 and their beats.
PLACES = {
    "downbeat": (3.41, 2.23, 0.90, -4.69),
    "middle": (3.68, 1.33, -0.06, -3.54),
    "beat": (4.74, -0.60, -0.92, -2.63),
    "half": (3.18, -0.24, -2.00, -1.54),
    "quarter": (0.44, -0.53, -1.62, 0.11),
    "third": (-2.74, 0.05, -1.94, 0.85),
}
PARTS = {1: (), 2: ("half",), 3: ("third", "third"), 4: ("quarter", "half", "quarter")}


class Hypothesis(NamedTuple):
    """Pulses in seconds, the place of each in its bar, pulses a beat, beats a bar, and nats a
    second by which it is likelier than no beat."""

    pulses: np.ndarray
    places: np.ndarray
    parts: int
    metre: int
    score: float


def find_beats(
    strengths: np.ndarray, low: np.ndarray, step: float, segments: Sequence[Segment]
) -> Beats:
    """The beats of a recording from its onset strengths (steps,) every `step` seconds, those of the
    low register (steps,), and its chords. None where there is no steady pulse.

    Strengths are those of `onsets.Onsets`.
    """
    hypotheses = list(_hypotheses(strengths, low, step, changes_of(segments)))
    best = max(hypotheses, key=lambda one: one.score, default=None)
    if best is None or best.score < MIN_SCORE:
        return NO_BEATS
    strong = np.flatnonzero(strengths > ACTIVE * _strong(strengths)) * step
    slack = best.parts * float(np.median(np.diff(best.pulses))) / 2
    played = (best.pulses > strong[0] - slack) & (best.pulses < strong[-1] + slack)
    times = np.maximum(best.pulses, 0.0).round(4)
    beats = times[played & (best.places % best.parts == 0)].tolist()
    return Beats(beats, times[played & (best.places == 0)].tolist(), best.metre)


def changes_of(segments: Sequence[Segment]) -> np.ndarray:
    """Times at which the root changes, or a chord begins or ends."""
    roots = [encode(segment.label).root for segment in segments]
    pairs = zip(segments[1:], roots, roots[1:], strict=False)
    return np.array([segment.start for segment, before, root in pairs if root != before])


def _hypotheses(
    strengths: np.ndarray, low: np.ndarray, step: float, changes: np.ndarray
) -> Iterator[Hypothesis]:
    seconds = len(strengths) * step
    if len(strengths) < 4 or not strengths.any() or _is_steady(strengths, step):
        return
    for period in likely_periods(strengths, step):
        found = pulses(strengths, period / step)
        if len(found) < 2 * min(METRE_COSTS):
            continue
        evidence = _evidence(strengths, low, step, found, changes)
        times = (found - 0.5) * step + EARLY
        for parts in PARTS:
            beat = parts * float(np.median(np.diff(times)))
            for metre, cost in METRE_COSTS.items():
                if not METRE_BEATS[metre][0] < beat < METRE_BEATS[metre][1]:
                    continue
                score, places = bars(evidence, parts, metre)
                score = score / seconds - cost - _pace_cost(beat, seconds, len(changes))
                yield Hypothesis(times, places, parts, metre, score)


def _pace_cost(beat: float, seconds: float, changes: int) -> float:
    """Nats a second that a beat's length costs, given how often chords change."""
    expected = seconds / changes / CHORD_BEATS if changes >= FEWEST_CHANGES else TYPICAL_BEAT
    return CHORD_WEIGHT / 2 * (np.log(expected / beat) / CHORD_SPREAD) ** 2


def likely_periods(strengths: np.ndarray, step: float) -> list[float]:
    """Seconds between pulses, the likeliest first: peaks of the autocorrelation at 1, 2, 3, 4, 6
    and 8 periods together."""
    centred = strengths - strengths.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)]
    periods = np.exp(np.arange(np.log(PULSES[0]), np.log(PULSES[1]), 0.01))
    lags = np.arange(len(correlation)) * step
    together = sum(np.interp(n * periods, lags, correlation) for n in (1, 2, 3, 4, 6, 8))
    peaks = scipy.signal.find_peaks(together)[0]
    return periods[peaks[np.argsort(-together[peaks])][:PERIODS]].tolist()


def pulses(strengths: np.ndarray, period: float) -> np.ndarray:
    """Steps of pulses that are about `period` steps apart, from the first step to the last."""
    radius = np.arange(-int(period), int(period) + 1)
    bell = np.exp(-0.5 * np.square(radius * 32 / period))
    local = np.convolve(strengths / (strengths.std() or 1.0), bell, "same")[: len(strengths)]
    lags = np.arange(max(1, round(0.6 * period)), round(1.6 * period) + 1)
    costs = TIGHTNESS * np.square(np.log(lags / period))
    total = np.zeros(len(local) + lags[-1])  # the best sum that ends at each step, after a margin
    before = np.zeros(len(local), np.int64)
    for first in range(0, len(local), lags[0]):  # no step of a block precedes another one in it
        steps = np.arange(first, min(first + lags[0], len(local)))
        sums = total[steps[:, None] - lags + lags[-1]] - costs
        best = sums.argmax(axis=1)
        before[steps] = steps - lags[best]
        total[steps + lags[-1]] = local[steps] + sums[np.arange(len(steps)), best]
    found = [len(local) - 1 - int(total[: -lags[-1] - 1 : -1].argmax())]
    while (step := int(before[found[-1]])) >= 0:
        found.append(step)
    return np.array(found[::-1])


def _strong(strengths: np.ndarray) -> float:
    return max(float(np.percentile(strengths, 98)), 1e-3)


def _is_steady(strengths: np.ndarray, step: float) -> bool:
    """Whether there is hardly a moment without an onset, as in noise and held sounds."""
    return float(np.percentile(_near(strengths, step), 25)) > STEADY * _strong(strengths)


def _near(strengths: np.ndarray, step: float) -> np.ndarray:
    """The strongest onset near each step."""
    return scipy.ndimage.maximum_filter1d(strengths, 2 * round(NEAR_ONSET / step) + 1)


def _evidence(
    strengths: np.ndarray, low: np.ndarray, step: float, found: np.ndarray, changes: np.ndarray
) -> np.ndarray:
    """What PLACES weighs, (pulses, 4), of pulses at steps `found`."""
    columns = [
        np.sqrt(np.minimum(_near(each, step)[found] / _strong(each), 2.0))
        for each in (strengths, low)
    ]
    times = found * step
    nearest = np.searchsorted(changes, times - NEAR_CHANGE)
    changes = np.append(changes, np.inf)
    columns += [changes[nearest] <= times + NEAR_CHANGE, np.ones(len(found))]
    return np.column_stack(columns)


def bars(evidence: np.ndarray, parts: int, metre: int) -> tuple[float, np.ndarray]:
    """The log-likelihood ratio of pulses in bars of `metre` beats of `parts` pulses, and the place
    (pulses,) of each in its bar, from evidence (pulses, 4)."""
    names = [name for beat in range(metre) for name in (_name(beat, metre), *PARTS[parts])]
    ratios = evidence @ np.array([PLACES[name] for name in names]).T
    places = np.arange(len(names))
    previous = (places - 1) % len(names)
    part = previous % parts
    totals = np.empty_like(ratios)
    totals[0] = total = ratios[0]
    for pulse in range(1, len(ratios)):
        shifted = total.reshape(metre, parts).max(axis=0)[part] - SHIFT
        total = np.maximum(np.maximum(total[previous], shifted), total.max() - RESTART)
        total = totals[pulse] = total + ratios[pulse]
    path = np.empty(len(ratios), np.int64)
    path[-1] = total.argmax()
    for pulse in range(len(ratios) - 1, 0, -1):
        total, source = totals[pulse - 1], previous[path[pulse]]
        gains = total - np.where(places % parts == source % parts, SHIFT, RESTART)
        gains[source] = total[source]
        path[pulse - 1] = gains.argmax()
    return float(totals[-1].max()), path


def _name(beat: int, metre: int) -> str:
    if beat == 0:
        return "downbeat"
    return "middle" if metre % 2 == 0 and beat == metre // 2 else "beat"
