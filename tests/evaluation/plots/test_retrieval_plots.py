"""Pictures of retrieval say what its numbers say; its table reads back."""

import csv

import numpy as np
import pytest

from audiotrain.evaluation.plots import style
from audiotrain.evaluation.plots.retrieval import (
    recall_picture,
    retrieval_csv,
    similarity_picture,
)
from audiotrain.evaluation.retrieval import retrieval_scores, retrieve


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order; the files are written too."""
    seen, original = [], style.save

    def keep(figure, path):
        seen.append(figure)
        original(figure, path)

    monkeypatch.setattr(style, "save", keep)
    return seen


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(60, 6))
    owner = np.repeat(np.arange(60), 2)
    return retrieve(audio, audio[owner] + rng.normal(size=(120, 6)), owner)


def png(path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_curves_are_shares_of_ranks(tmp_path, figures, found):
    recall_picture(found, tmp_path / "recall.png", title="Held out")
    assert png(tmp_path / "recall.png")
    (axis,) = figures[0].axes
    assert axis.get_title(loc="left") == "Held out"
    curves = {line.get_label(): line for line in axis.lines}
    for direction, one in found.items():
        curve = curves[f"{direction.replace('_', ' ')}, {one.items} items"]
        assert curve.get_xdata().tolist() == list(range(1, 101))
        expected = [np.mean(one.ranks <= depth) for depth in range(1, 101)]
        np.testing.assert_allclose(curve.get_ydata(), expected)
    scores = retrieval_scores(found)
    numbers = [text.get_text() for text in axis.texts]
    for direction in found:
        for depth in (1, 5, 10):
            assert f"{100 * scores[f'{direction}_R@{depth}']:.1f}" in numbers


def test_chance_is_that_of_random_orders(tmp_path, figures):
    rng = np.random.default_rng(0)
    owner = np.array([0, 0, 0, 1, 2, 2])
    found = retrieve(rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), owner)
    recall_picture(found, tmp_path / "recall.png")
    dashed = [line.get_ydata() for line in figures[0].axes[0].lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[0][:3], [1 / 3, 2 / 3, 1])
    places = [rng.permutation(6) for _ in range(20_000)]
    first = np.array([[order[owner == clip].min() for clip in range(3)] for order in places])
    for depth in range(1, 7):
        assert dashed[1][depth - 1] == pytest.approx(np.mean(first < depth), abs=0.01)


def test_a_curve_of_few_items_ends_with_them(tmp_path, figures):
    recall_picture(retrieve(np.eye(3), np.eye(3), range(3)), tmp_path / "few.png")
    assert max(max(line.get_xdata()) for line in figures[0].axes[0].lines) == 3


@pytest.mark.parametrize("size", [3, 60])
def test_similarities_with_names_and_true_pairs(tmp_path, figures, size):
    similarities = np.random.default_rng(0).uniform(-1, 1, (size, size))
    similarities[0, 0] = 2
    captions = ["a $dog$ " + "barks " * 20, *(f"caption {n}" for n in range(1, size))]
    names = [f"{n}.wav" for n in range(size)]
    similarity_picture(similarities, tmp_path / "similar.png", names, captions)
    assert png(tmp_path / "similar.png")
    axis = figures[0].axes[0]
    assert np.array_equal(axis.images[0].get_array(), similarities)
    assert [patch.get_xy() for patch in axis.patches] == [(n - 0.5, n - 0.5) for n in range(size)]
    shown = [label.get_text() for label in axis.get_yticklabels()]
    assert shown == (names if size == 3 else [])
    right = np.mean(similarities.argmax(axis=1) == np.arange(size))
    assert any(f"{right:.0%} of {size} clips" in text.get_text() for text in axis.texts)


def test_similarities_that_are_no_square(tmp_path, figures):
    matches = np.array([[1, 1, 0], [0, 0, 1]])
    similarity_picture(matches * 0.5, tmp_path / "a.png", ["x", "y"], ["a", "b", "c"], matches)
    axis = figures[0].axes[0]
    assert [patch.get_xy() for patch in axis.patches] == [(-0.5, -0.5), (0.5, -0.5), (1.5, 0.5)]
    assert any("100% of 2 clips" in text.get_text() for text in axis.texts)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected 1 clips, 3 captions"):
        similarity_picture(matches, tmp_path / "b.png", ["x"], ["a", "b", "c"])


def test_the_table_reads_back(tmp_path, found):
    scores = retrieval_scores(found)
    retrieval_csv(scores, tmp_path / "retrieval.csv")
    with open(tmp_path / "retrieval.csv", encoding="utf-8") as file:
        rows = {row.pop("direction"): row for row in csv.DictReader(file)}
    assert list(rows) == ["text_to_audio", "audio_to_text"]
    values = {f"{d}_{name}": float(v) for d, row in rows.items() for name, v in row.items() if v}
    assert values == pytest.approx(scores, abs=1e-4)
