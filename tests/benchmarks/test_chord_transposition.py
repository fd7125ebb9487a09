"""The benchmark of transposed songs compares by root and type, and leaves drums alone."""

import sys
from pathlib import Path

import pytest

from audiotrain.datasets.synthesis.arrangement import Note, Part
from audiotrain.music.segments import Segment

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import chord_transposition as bench  # noqa: E402

CHORDS = [Segment(0, 4, "C:maj/3"), Segment(4, 6, "N"), Segment(6, 10, "B:min7")]


def test_moved_transposes_labels_and_keeps_no_chord():
    labels = [one.label for one in bench.moved(CHORDS, 2)]
    assert labels == ["D:maj/3", "N", "C#:min7"]
    assert bench.moved(bench.moved(CHORDS, 5), -5) == CHORDS


def test_agreement_is_the_share_of_the_time():
    other = [CHORDS[0], CHORDS[1], Segment(6, 8, "B:min7"), Segment(8, 10, "B:min")]
    found = bench.agreement(CHORDS, other)
    assert found["type"] == pytest.approx(0.8)
    assert found["root"] == pytest.approx(1.0)
    assert found["tetrads"] == pytest.approx(0.8)
    weighted = bench.weighted([found, found | {"type": 0.2, "seconds": 30.0}])
    assert weighted == pytest.approx((0.8 * 10 + 0.2 * 30) / 40)


def test_drums_are_not_transposed():
    piano, drums = Part(0, [Note(0, 1, 60, 80)]), Part(0, [Note(0, 1, 38, 80)], is_drum=True)
    moved = bench.with_notes_moved([piano, drums], -6)
    assert [part.notes[0].pitch for part in moved] == [54, 38]
