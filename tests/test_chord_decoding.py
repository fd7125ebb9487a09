"""Decoding against brute force, argmax, and itself in blocks."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotrain.harmony import HEAD_SIZES, IGNORE, decode
from audiotrain.recipes import chord_decoding
from audiotrain.recipes.chord_decoding import AHEAD, BLOCK, STATES, Decoder, viterbi_states

WIDTH = sum(HEAD_SIZES)


def random_heads(frames, seed=0, scale=3.0, hold=1):
    """Log-probabilities (frames, 56); logits stay for `hold` frames, with a little noise."""
    rng = np.random.default_rng(seed)
    sizes = dict(zip(("chord_type", "root", "bass_note"), HEAD_SIZES, strict=True))
    logits = {}
    for head, size in sizes.items():
        steps = rng.normal(0, scale, (-(-frames // hold), size)).repeat(hold, axis=0)[:frames]
        logits[head] = steps + rng.normal(0, 0.3, steps.shape)
    return chord_decoding.log_probabilities(logits)


def whole(heads, cost):
    """One Viterbi over all frames at once."""
    return STATES[viterbi_states(chord_decoding.state_scores(heads), cost)]


def in_pieces(heads, cost, sizes):
    decoder = Decoder(cost)
    found, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(heads):
            break
        found.append(decoder.add(heads[at : at + size]))
        at += size
    return np.concatenate([*found, decoder.finish()])


# ---- Viterbi


def path_score(scores, path, cost):
    gained = scores[np.arange(len(path)), path].sum()
    return gained - cost * np.count_nonzero(np.diff(path))


@given(
    st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0, 3.0, 50.0]),
)  # fmt: skip
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


# ---- states and heads


def test_there_is_a_state_for_each_chord():
    assert len(STATES) == 31 * 12 * 12 + 1
    assert len({tuple(state) for state in STATES.tolist()}) == len(STATES)
    assert len({decode(state) for state in STATES.tolist()}) == len(STATES)
    assert STATES[0].tolist() == [0, IGNORE, IGNORE]


def test_a_states_score_is_the_sum_of_its_heads():
    heads = random_heads(3)
    scores = chord_decoding.state_scores(heads)
    for number in (1, 17, 2000, len(STATES) - 1):
        chord_type, root, bass = STATES[number]
        expected = heads[:, chord_type] + heads[:, 32 + root] + heads[:, 44 + bass]
        np.testing.assert_allclose(scores[:, number], expected, rtol=1e-6)


def test_log_softmax_is_normalised_and_stable():
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], np.float32)
    logs = chord_decoding.log_softmax(logits)
    np.testing.assert_allclose(np.exp(logs).sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(logs[1], -np.log(3), rtol=1e-6)
    heads = random_heads(4)
    for part, size in zip(chord_decoding.split_heads(heads), HEAD_SIZES, strict=True):
        assert part.shape == (4, size)
        np.testing.assert_allclose(np.exp(part).sum(axis=-1), 1, rtol=1e-5)


def test_argmax_ignores_root_and_bass_of_no_chord():
    heads = np.full((2, WIDTH), -9.0, np.float32)
    heads[0, [0, 32 + 3, 44 + 4]] = 0  # N
    heads[1, [5, 32 + 3, 44 + 4]] = 0
    assert chord_decoding.argmax(heads).tolist() == [[0, IGNORE, IGNORE], [5, 3, 4]]


# ---- decoding a song


@pytest.mark.parametrize("seed", range(3))
def test_cost_0_is_argmax(seed):
    heads = random_heads(300, seed)
    assert (chord_decoding.argmax(heads)[:, 0] == 0).any()
    np.testing.assert_array_equal(
        chord_decoding.decode(heads, 0.0), chord_decoding.decode(heads, None)
    )


@pytest.mark.parametrize("cost", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("hold", [1, 20])
def test_blocks_give_the_path_of_the_whole(cost, hold):
    heads = random_heads(2 * BLOCK + AHEAD + 70, seed=hold, hold=hold)
    np.testing.assert_array_equal(chord_decoding.decode(heads, cost), whole(heads, cost))


def test_a_block_goes_on_from_the_last_chord():
    """A chord that hardly anything speaks for goes on over the border of two blocks."""
    heads = np.zeros((2 * BLOCK, WIDTH), np.float32)
    heads[:, [5, 32 + 3, 44 + 3]] += 0.001
    heads[:300, [5, 32 + 3, 44 + 3]] += 3
    assert set(map(tuple, chord_decoding.decode(heads, 6.0).tolist())) == {(5, 3, 3)}


@pytest.mark.parametrize("cost", [None, 2.0])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (64,), (BLOCK + AHEAD,), (5000,)])
def test_how_frames_arrive_does_not_matter(cost, sizes):
    heads = random_heads(1500, hold=7)
    found = in_pieces(heads, cost, sizes)
    assert found.shape == (1500, 3)
    np.testing.assert_array_equal(found, chord_decoding.decode(heads, cost))


@pytest.mark.parametrize("frames", [0, 1, AHEAD, BLOCK, BLOCK + AHEAD - 1, BLOCK + AHEAD + 1])
@pytest.mark.parametrize("cost", [None, 1.0])
def test_every_frame_gets_a_chord(frames, cost):
    assert chord_decoding.decode(random_heads(frames, hold=5), cost).shape == (frames, 3)


def test_a_higher_cost_changes_chords_less_often():
    heads = random_heads(400, hold=3, scale=2)
    changes = [
        np.count_nonzero(np.diff(chord_decoding.decode(heads, cost), axis=0).any(axis=1))
        for cost in (0, 1, 3, 9)
    ]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > changes[-1]


def test_memory_does_not_grow_with_the_song():
    def peak(blocks):
        heads = random_heads(BLOCK)
        tracemalloc.start()
        decoder = Decoder(2.0)
        for _ in range(blocks):
            decoder.add(heads)
        decoder.finish()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(6) < 1.1 * peak(2)


def test_refuses_a_negative_cost():
    with pytest.raises(ValueError, match="switching cost -1, expected 0 or more"):
        Decoder(-1)


def test_confidences_are_the_models_probabilities():
    heads = random_heads(50)
    classes = chord_decoding.decode(heads, None)
    found = chord_decoding.confidences(heads, classes)
    for frame, (chord_type, root, bass) in enumerate(classes):
        expected = np.exp(heads[frame, chord_type])
        if chord_type:
            expected *= np.exp(heads[frame, 32 + root] + heads[frame, 44 + bass])
        assert found[frame] == pytest.approx(expected, rel=1e-5)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert (classes[:, 0] == 0).any()
