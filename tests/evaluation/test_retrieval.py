"""Retrieval against loops, LAION-CLAP's protocol and scikit-learn; ties, equals, chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score

from audiotrain.evaluation.retrieval import retrieval_scores, retrieve


def pairs(seed, clips=12, width=6, most=4, noise=1.0):
    """Embeddings of clips, and of 1 to `most` captions for each, and whose they are."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(clips, width))
    owner = rng.permutation(np.repeat(np.arange(clips), rng.integers(1, most + 1, clips)))
    text = audio[owner] + noise * rng.normal(size=(len(owner), width))
    return audio.astype(np.float32), text.astype(np.float32), owner


def naive(audio, text, owner, captions):
    """(best ranks, average precisions) both ways, by sorting each query's items."""
    normed = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, text)]
    scores = (normed[1].astype(np.float64) @ normed[0].T.astype(np.float64)).astype(np.float32)
    relevant = np.array(
        [
            [
                any(captions[k] == captions[j] for k in np.flatnonzero(owner == i))
                for i in range(len(audio))
            ]
            for j in range(len(text))
        ]
    )
    found = {}
    for name, near, right in (
        ("text_to_audio", scores, relevant),
        ("audio_to_text", scores.T, relevant.T),
    ):
        ranks, precisions = [], []
        for row, wanted in zip(near, right, strict=True):
            order = sorted(range(len(row)), key=lambda n: (-row[n], wanted[n]))  # right ones last
            hits = [place for place, n in enumerate(order, 1) if wanted[n]]
            ranks.append(hits[0])
            first = [number / place for number, place in enumerate(hits, 1) if place <= 10]
            precisions.append(sum(first) / min(len(hits), 10))
        found[name] = ranks, precisions
    return found


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([None, 1, 5]))
@settings(max_examples=30, deadline=None)
def test_ranks_and_precisions_are_those_of_a_loop(seed, equals, chunk):
    audio, text, owner = pairs(seed)
    rng = np.random.default_rng(seed)
    captions = list(range(len(text)))
    if equals:
        captions = rng.integers(0, 8, len(text)).tolist()
        text[len(text) // 2 :] = np.round(text[len(text) // 2 :])  # and some ties
        text[:, 0] += 0.25  # no caption is at the origin
        audio[1] = audio[0]
    found = retrieve(audio, text, owner, captions if equals else None, chunk)
    for name, (ranks, precisions) in naive(audio, text, owner, captions).items():
        assert found[name].ranks.tolist() == ranks
        np.testing.assert_allclose(found[name].precision, precisions)


def laion(audio, text):
    """The protocol of LAION-CLAP's evaluation for five captions a clip, as its docstring has it,
    and its mAP@10 as its code has it: captions in the order they were given."""
    clips, scores, ranks = len(audio), {}, []
    for number in range(5):
        logits = (text @ audio.T).reshape(clips, 5, clips)[:, number]
        ranking = np.argsort(-logits, axis=1)
        ranks.append(np.where(ranking == np.arange(clips)[:, None])[1])
    ranks = np.concatenate(ranks)
    scores["text_to_audio_mean_rank"] = ranks.mean() + 1
    scores["text_to_audio_median_rank"] = np.floor(np.median(ranks)) + 1
    scores["text_to_audio_mAP@10"] = np.where(ranks < 10, 1 / (ranks + 1), 0).mean()
    best, precise, as_given = [], [], []
    for clip in range(clips):
        ranking = np.argsort(-(audio[clip] @ text.T))
        places = np.array([np.flatnonzero(ranking == 5 * clip + n)[0] for n in range(5)])
        best.append(places.min())
        near = places[places < 10]
        numbers = np.arange(1, len(near) + 1)
        as_given.append((numbers / (near + 1)).sum() / 5)
        precise.append((numbers / (np.sort(near) + 1)).sum() / 5)
    for depth in (1, 5, 10):
        scores[f"text_to_audio_R@{depth}"] = (ranks < depth).mean()
        scores[f"audio_to_text_R@{depth}"] = (np.array(best) < depth).mean()
    scores["audio_to_text_mAP@10"] = np.mean(precise)
    scores["audio_to_text_mAP@10_laion"] = np.mean(as_given)
    return scores


def test_five_captions_give_the_numbers_of_laion():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(40, 8))
    text = np.repeat(audio, 5, axis=0) + 0.9 * rng.normal(size=(200, 8))
    audio, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, text))
    found = retrieval_scores(retrieve(audio, text, np.repeat(np.arange(40), 5)))
    expected = laion(audio, text)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["audio_to_text_mAP@10"] < found["audio_to_text_mAP@10_laion"]
    assert set(found) == {*expected, "audio_to_text_median_rank", "audio_to_text_mean_rank"}


def test_precision_is_scikit_learns():
    """Among ten items, average precision at ten is that of the whole ranking."""
    audio, text, owner = pairs(3, clips=10, most=1)
    found = retrieve(audio, text, owner)["text_to_audio"]
    normed = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, text)]
    right = owner[:, None] == np.arange(10)
    expected = label_ranking_average_precision_score(right, normed[1] @ normed[0].T)
    assert found.precision.mean() == pytest.approx(expected)
    assert 0.2 < expected < 0.95


def test_perfect_and_collapsed_embeddings():
    perfect = retrieve(np.eye(20), 3 * np.eye(20), range(20))
    scores = retrieval_scores(perfect)
    assert set(scores.values()) == {1.0}
    assert perfect["text_to_audio"].items == 20
    # All the same: a model that knows nothing gets nothing.
    rng = np.random.default_rng(0)
    ones = rng.normal(size=(1, 5)) * rng.uniform(0.1, 10, size=(20, 1))
    for chunk in (None, 7):
        scores = retrieval_scores(retrieve(ones, ones, range(20), chunk=chunk))
        assert scores["text_to_audio_R@10"] == scores["audio_to_text_mAP@10"] == 0
        assert scores["text_to_audio_mean_rank"] == scores["audio_to_text_median_rank"] == 20
    # But where all captions are equal, all that is found is right.
    scores = retrieval_scores(retrieve(ones, ones, range(20), captions=["a dog"] * 20))
    assert scores["text_to_audio_R@1"] == scores["audio_to_text_mAP@10"] == 1


def test_chunks_change_nothing():
    audio, text, owner = pairs(7, clips=50)
    whole = retrieve(audio, text, owner, chunk=10_000)
    for chunk in (1, 3, 64):
        part = retrieve(audio, text, owner, chunk=chunk)
        for name, expected in whole.items():
            for one, other in zip(part[name], expected, strict=True):
                assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.zeros((3, 4))}, "audio is 4 wide and text 5, expected one width"),
        ({"audio": np.zeros(5)}, r"audio \(5,\), expected \(items, width\)"),
        ({"text": np.full((3, 5), np.nan)}, "text has 3 rows that are not finite, first row 0"),
        ({"clips": [0, 1]}, r"clips \(2,\) int64, expected \(3,\) whole numbers"),
        ({"clips": [0, 1, 3]}, "clips 0 to 3, expected 0 to 2"),
        ({"clips": [0, 0, 2]}, "1 clip without a caption, first clip 1"),
        ({"captions": ["a"]}, "1 captions, expected 3, one for each row of text"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"audio": np.ones((3, 5)), "text": np.ones((3, 5)), "clips": [0, 1, 2]} | change
    with pytest.raises(ValueError, match=message):
        retrieve(**given)
