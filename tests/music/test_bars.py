"""Beats, their places in bars, and the grid of a chart (see also test_song_page)."""

import pytest

from audiotrain.music.beats import NO_BEATS, Beats


def test_tempo_is_of_the_median_distance():
    assert Beats([0.0, 0.5, 1.0, 1.5, 9.0]).tempo == pytest.approx(120)
    assert Beats([1.0]).tempo is None
    assert NO_BEATS.tempo is None


def test_positions_count_from_each_downbeat():
    beats = Beats([0.0, 1, 2, 3, 4, 5, 6], [1.0, 3.0], metre=3)
    assert beats.positions() == [3, 1, 2, 1, 2, 3, 4]
    assert Beats([0.0, 1], [], metre=4).positions() == [1, 2]
    assert (Beats(metre=6).unit, Beats(metre=3).unit) == (8, 4)
