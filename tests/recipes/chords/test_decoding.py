"""Decoding against brute force, argmax, and itself in blocks."""

import itertools
import tracemalloc

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from audiotrain.music.chord_classes import CHORD_TYPES, HEAD_SIZES, HEADS, IGNORE, decode
from audiotrain.recipes.chords import decoding
from audiotrain.recipes.chords.decoding import (
    AHEAD,
    BLOCK,
    CHORDS,
    STATES,
    UTILITY_METRICS,
    WIDTH,
    split_heads,
    viterbi_states,
)


def random_posteriors(frames, seed=0, scale=3.0, hold=1):
    """Log-probabilities (frames, 385); logits stay for `hold` frames, with a little noise."""
    rng = np.random.default_rng(seed)
    shapes = dict(zip(HEADS, [(size,) for size in HEAD_SIZES], strict=True))
    shapes["chord_type_of_root"] = 12, 32
    logits = {}
    for head, shape in shapes.items():
        steps = rng.normal(0, scale, (-(-frames // hold), *shape)).repeat(hold, axis=0)[:frames]
        logits[head] = steps + rng.normal(0, 0.3, steps.shape)
    return decoding.log_probabilities(logits)


def whole(posteriors, cost):
    """One Viterbi over all frames at once."""
    return STATES[viterbi_states(decoding.state_scores(posteriors), cost)]


def in_pieces(posteriors, cost, sizes):
    ends = itertools.takewhile(
        lambda end: end < len(posteriors), itertools.accumulate(itertools.cycle(sizes))
    )
    decoded = list(decoding.decode_stream(np.split(posteriors, list(ends)), cost))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in decoded]), posteriors)
    return np.concatenate([classes for _, classes in decoded])


# ---- Viterbi


def path_score(scores, path, cost):
    gained = scores[np.arange(len(path)), path].sum()
    return gained - cost * np.count_nonzero(np.diff(path))


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0, 3.0, 50.0]),
)
@settings(max_examples=60, deadline=None)
def test_viterbi_finds_the_best_of_all_paths(seed, frames, states, cost):
    scores = np.random.default_rng(seed).normal(0, 1.5, (frames, states))
    best = max(
        path_score(scores, np.array(path), cost)
        for path in itertools.product(range(states), repeat=frames)
    )
    found = path_score(scores, viterbi_states(scores, cost), cost)
    assert found == pytest.approx(best, abs=1e-4)


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([0.2, 1.0, 4.0]))
@settings(max_examples=40, deadline=None)
def test_viterbi_continues_from_sums_of_before(seed, frames, cost):
    rng = np.random.default_rng(seed)
    scores, before = rng.normal(0, 1.5, (frames, 3)), rng.normal(0, 3, 3)
    paths = itertools.product(range(3), repeat=frames + 1)

    def score(path):
        return before[path[0]] + path_score(scores, path[1:], cost) - cost * (path[0] != path[1])

    best = max(score(np.array(path)) for path in paths)
    found = viterbi_states(scores, cost, before)
    reached = max(score(np.array([first, *found])) for first in range(3))
    assert reached == pytest.approx(best, abs=1e-4)


def test_viterbi_with_no_cost_is_the_best_state_of_each_frame():
    scores = np.random.default_rng(0).normal(size=(50, 9))
    np.testing.assert_array_equal(viterbi_states(scores, 0.0), scores.argmax(axis=1))


def test_viterbi_with_an_endless_cost_is_the_best_single_state():
    scores = np.random.default_rng(0).normal(size=(50, 9))
    assert set(viterbi_states(scores, 1e6)) == {scores.sum(axis=0).argmax()}


def test_viterbi_does_not_lose_precision_over_long_songs():
    scores = np.full((30_000, 2), -70.0, np.float32)
    scores[:15_000, 0] += 0.01
    scores[15_000:, 1] += 0.01
    path = viterbi_states(scores, 5.0)
    assert path[:14_000].max() == 0
    assert path[16_000:].min() == 1


# ---- chords, states and heads


def test_there_is_a_state_for_each_chord():
    assert len(STATES) == 31 * 12 * 12 + 1
    assert len({tuple(state) for state in STATES.tolist()}) == len(STATES)
    assert len({decode(state) for state in STATES.tolist()}) == len(STATES)
    assert STATES[0].tolist() == [0, IGNORE, IGNORE]


def one_chord(chord, bass, frames=1, sure=9.0):
    """Log-probabilities (frames, 385), not normalised, that speak for one chord, such as (5, 3)."""
    posteriors = np.full((frames, WIDTH), -sure, np.float32)
    posteriors[:, [CHORDS.tolist().index(list(chord)), len(CHORDS) + bass]] = 0
    return posteriors


def test_the_utility_of_a_chord_is_the_mean_of_mir_evals_metrics():
    assert UTILITY_METRICS == ("majmin", "tetrads", "mirex")
    table, rng = decoding.utility_matrix(), np.random.default_rng(0)
    labels = [decode((*chord, chord[1])) for chord in CHORDS[1:].tolist()]
    for true, said in rng.integers(0, len(labels), (300, 2)):
        if rng.random() < 0.5:
            said = said // 12 * 12 + true % 12  # the same root
        names = [getattr(mir_eval.chord, name) for name in UTILITY_METRICS]
        right = [max(0, compare([labels[true]], [labels[said]])[0]) for compare in names]
        expected = 0.9 * np.mean(right) + 0.1 * (true == said)
        assert table[true, said] == pytest.approx(expected), (labels[true], labels[said])


def test_the_score_of_a_state_is_its_expected_utility():
    posteriors = random_posteriors(3)
    scores, chords = decoding.state_scores(posteriors), np.exp(posteriors[:, :373])
    for number in (1, 17, 2000, len(STATES) - 1):
        chord_type, root, bass = STATES[number]
        column = (chord_type - 1) * 12 + root
        utility = (chords[:, 1:] * decoding.utility_matrix()[:, column]).sum(-1)
        expected = np.log(utility + 1e-9) + posteriors[:, 373 + bass]
        np.testing.assert_allclose(scores[:, number], expected, rtol=1e-4)
    odds = chords[:, 0] / chords[:, 1:].sum(-1)
    np.testing.assert_allclose(scores[:, 0], scores[:, 1:].max(-1) + np.log(odds), rtol=1e-4)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("none", [0.1, 0.45, 0.55, 0.9, 1 - 1e-12])
def test_no_chord_is_named_where_it_is_likelier_than_any(none):
    """However unsure the model is of which chord it would be."""
    types = np.full(32, np.log((1 - none) / 31))
    types[0] = np.log(none)
    heads = {"chord_type": types[None], "root": np.zeros((1, 12)), "bass_note": np.zeros((1, 12))}
    posteriors = decoding.log_probabilities(heads)
    for cost in (0.0, None):
        assert (decoding.decode(posteriors, cost)[0, 0] == 0) == (none > 0.5)


def test_viterbi_says_what_is_most_often_right():
    """Sus4 is the likeliest type, but major or a seventh, both of which major is right by, are
    likelier than it."""
    types = np.full(32, -12.0)
    types[[CHORD_TYPES.index(name) for name in ("sus4", "maj", "7")]] = np.log([0.4, 0.32, 0.28])
    sure = np.where(np.arange(12) == 7, 0.0, -12.0)
    posteriors = decoding.log_probabilities(
        {"chord_type": types[None], "root": sure[None], "bass_note": sure[None]}
    )
    assert decode(decoding.decode(posteriors, None)[0]) == "G:sus4"
    assert decode(decoding.decode(posteriors, 2.0)[0]) == "G:maj"


def test_probabilities_of_chords_and_of_heads():
    """By hand, of a model that knows types by root; and of one that does not."""
    rng = np.random.default_rng(0)
    logits = {n: rng.normal(0, 2, (5, s)) for n, s in zip(HEADS, HEAD_SIZES, strict=True)}
    given = rng.normal(0, 2, (5, 12, 32))
    posteriors = decoding.log_probabilities(logits | {"chord_type_of_root": given})
    none = softmax(logits["chord_type"], -1)[:, :1]
    roots, types = softmax(logits["root"], -1), softmax(given[..., 1:], -1)
    both = (1 - none)[..., None] * roots[..., None] * types
    for number, (chord_type, root) in enumerate(CHORDS[1:], start=1):
        expected = both[:, root, chord_type - 1]
        np.testing.assert_allclose(np.exp(posteriors[:, number]), expected, rtol=1e-4)
    by_head = [np.exp(part) for part in split_heads(decoding.heads_of(posteriors))]
    np.testing.assert_allclose(by_head[0][:, :1], none, rtol=1e-4)
    np.testing.assert_allclose(by_head[0][:, 1:], both.sum(1), rtol=1e-4)
    np.testing.assert_allclose(by_head[1], roots, rtol=1e-4)
    by_head = split_heads(decoding.heads_of(decoding.log_probabilities(logits)))
    for part, head in zip(by_head, HEADS, strict=True):
        np.testing.assert_allclose(np.exp(part), softmax(logits[head], -1), rtol=1e-4)


def test_log_softmax_is_normalised_and_stable():
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], np.float32)
    logs = decoding.log_softmax(logits)
    np.testing.assert_allclose(np.exp(logs).sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(logs[1], -np.log(3), rtol=1e-6)
    posteriors = random_posteriors(4)
    assert posteriors.shape == (4, WIDTH)
    for part, size in zip(decoding.split(posteriors), (373, 12), strict=True):
        assert part.shape == (4, size)
        np.testing.assert_allclose(np.exp(part).sum(axis=-1), 1, rtol=1e-5)
    for part, size in zip(split_heads(decoding.heads_of(posteriors)), HEAD_SIZES, strict=True):
        assert part.shape == (4, size)
        np.testing.assert_allclose(np.exp(part).sum(axis=-1), 1, rtol=1e-5)


def test_offsets_of_types_are_added_to_their_logits():
    rng = np.random.default_rng(0)
    logits = {n: rng.normal(size=(3, s)) for n, s in zip(HEADS, HEAD_SIZES, strict=True)}
    offsets = rng.normal(size=32).astype(np.float32)
    moved = logits | {"chord_type": logits["chord_type"] + offsets}
    np.testing.assert_allclose(
        decoding.offset_types(decoding.log_probabilities(logits), offsets),
        decoding.log_probabilities(moved),
        rtol=1e-4,
        atol=1e-5,
    )


def test_argmax_ignores_root_and_bass_of_no_chord():
    posteriors = np.concatenate([one_chord((0, IGNORE), 4), one_chord((5, 3), 4)])
    assert decoding.argmax(posteriors).tolist() == [[0, IGNORE, IGNORE], [5, 3, 4]]


# ---- decoding a song


@pytest.mark.parametrize("seed", range(3))
def test_cost_0_is_the_best_state_of_each_frame(seed):
    posteriors = random_posteriors(300, seed)
    best = STATES[decoding.state_scores(posteriors).argmax(-1)]
    assert (best[:, 0] == 0).any()
    np.testing.assert_array_equal(decoding.decode(posteriors, 0.0), best)


@pytest.mark.parametrize("cost", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("hold", [1, 20])
def test_blocks_give_the_path_of_the_whole(cost, hold):
    posteriors = random_posteriors(2 * BLOCK + AHEAD + 70, seed=hold, hold=hold)
    np.testing.assert_array_equal(decoding.decode(posteriors, cost), whole(posteriors, cost))


def test_a_block_goes_on_from_the_last_chord():
    """A chord that hardly anything speaks for goes on over the border of two blocks."""
    nothing = decoding.log_probabilities(
        {"chord_type": np.zeros((1, 32)), "root": np.zeros((1, 12)), "bass_note": np.zeros((1, 12))}
    )
    chord_type = STATES[decoding.state_scores(nothing).argmax()][0]  # all roots are alike
    posteriors = nothing + one_chord((chord_type, 3), 3, 2 * BLOCK, sure=0.001)
    posteriors[:300] += one_chord((chord_type, 3), 3, 300, sure=3)
    found = decoding.decode(posteriors, 6.0)
    assert set(map(tuple, found.tolist())) == {(chord_type, 3, 3)}


@pytest.mark.parametrize("cost", [None, 2.0])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (64,), (BLOCK + AHEAD,), (5000,)])
def test_how_frames_arrive_does_not_matter(cost, sizes):
    posteriors = random_posteriors(1500, hold=7)
    found = in_pieces(posteriors, cost, sizes)
    assert found.shape == (1500, 3)
    np.testing.assert_array_equal(found, decoding.decode(posteriors, cost))


@pytest.mark.parametrize("frames", [0, 1, AHEAD, BLOCK, BLOCK + AHEAD - 1, BLOCK + AHEAD + 1])
@pytest.mark.parametrize("cost", [None, 1.0])
def test_every_frame_gets_a_chord(frames, cost):
    assert decoding.decode(random_posteriors(frames, hold=5), cost).shape == (frames, 3)


def test_a_higher_cost_changes_chords_less_often():
    posteriors = random_posteriors(400, hold=3, scale=2)
    changes = [
        np.count_nonzero(np.diff(decoding.decode(posteriors, cost), axis=0).any(axis=1))
        for cost in (0, 1, 3, 9)
    ]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > changes[-1]


def test_memory_does_not_grow_with_the_song():
    def peak(blocks):
        posteriors = random_posteriors(BLOCK)
        tracemalloc.start()
        for _ in decoding.decode_stream(itertools.repeat(posteriors, blocks), 2.0):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(6) < 1.1 * peak(2)


def test_refuses_a_negative_cost():
    with pytest.raises(ValueError, match="switching cost -1, expected 0 or more"):
        decoding.decode(random_posteriors(2), -1)


def test_confidences_are_the_models_probabilities():
    posteriors = random_posteriors(50)
    posteriors[::5, 1:373] -= 9  # N is likelier than a chord
    classes = decoding.decode(posteriors, None)
    found = decoding.confidences(posteriors, classes)
    for frame, (chord_type, root, bass) in enumerate(classes):
        expected = np.exp(posteriors[frame, 0])
        if chord_type:
            logs = (
                posteriors[frame, 1 + 12 * (chord_type - 1) + root],
                posteriors[frame, 373 + bass],
            )
            expected = np.exp(sum(logs))
        assert found[frame] == pytest.approx(expected, rel=1e-5)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert (classes[:, 0] == 0).any()


# ---- passages that are too unsure


def gained(gains, rejected):
    """What decoding.unsure_passages maximises."""
    changes = np.count_nonzero(np.diff(rejected.astype(int), prepend=0))
    return float(gains[~rejected].sum()) - decoding.REJECTION_COST * changes


@pytest.mark.parametrize("seed", range(20))
def test_unsure_passages_are_the_best_of_all(seed):
    gains = np.random.default_rng(seed).normal(0, 0.3, 11)
    found = decoding.unsure_passages(gains)
    all_ways = (np.array(way) for way in itertools.product([False, True], repeat=11))
    assert gained(gains, found) == pytest.approx(max(gained(gains, way) for way in all_ways))


@pytest.mark.parametrize("frame_seconds", [0.05, 0.1])
@pytest.mark.parametrize(
    ("passages", "expected"),  # (confidence, seconds), seconds that are N
    [
        ([(0.05, 10)], 10),
        ([(0.6, 60)], 0),
        ([(0.05, 7), (0.6, 30)], 7),  # a spoken intro
        ([(0.6, 30), (0.05, 4)], 4),  # applause at the end
        ([(0.6, 30), (0.05, 4), (0.6, 30)], 0),  # chords that are unclear for a while
        ([(0.05, 60), (0.6, 5)], 60),  # speech, then a jingle
        ([(0.17, 30)], 30),  # as unsure all the time
        ([(0.17, 30), (0.4, 30)], 0),  # as unsure, in a song
        ([(0.05, 20), (0.17, 5)], 25),  # the rest of a recording that is speech
        ([(0.05, 1)], 0),  # a short clip
    ],
)
def test_what_is_long_and_unsure_is_rejected(frame_seconds, passages, expected):
    sure = np.concatenate([np.full(round(s / frame_seconds), one) for one, s in passages])
    found = decoding.is_rejected(sure, np.ones(len(sure), bool), 0.2, frame_seconds)
    assert found.sum() * frame_seconds == pytest.approx(expected)


def test_a_rejected_passage_keeps_its_pauses():
    sure, is_chord = np.full(300, 0.05), np.ones(300, bool)
    sure[100:150], is_chord[100:150] = 0.9, False  # a silence that is N with confidence
    sure[200:] = 0.5
    found = decoding.is_rejected(sure, is_chord, 0.2, 0.1)
    assert np.flatnonzero(found).tolist() == list(range(200))


def test_nothing_is_rejected_where_the_rule_is_off():
    assert not decoding.is_rejected(np.zeros(200), np.ones(200, bool), 0.0, 0.1).any()
    assert decoding.is_rejected(np.zeros(0), np.zeros(0, bool), 0.2, 0.1).shape == (0,)
