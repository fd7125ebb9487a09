"""Keys from chords."""

from pathlib import Path

import mir_eval
import numpy as np
import pytest

from audiotrain.music.chord_classes import PITCH_NAMES
from audiotrain.music.keys import key_name, key_of
from audiotrain.music.segments import Segment, read_lab

POP909 = Path(__file__).parents[3] / "shared" / "data" / "pop909"


def chords(*names):
    return [Segment(float(n), n + 1.0, name) for n, name in enumerate(names)]


@pytest.mark.parametrize("up", range(12))
def test_cadences_are_in_their_key(up):
    def moved(*degrees):
        return chords(*(f"{PITCH_NAMES[(root + up) % 12]}:{kind}" for root, kind in degrees))

    major = moved((0, "maj"), (5, "maj7"), (7, "7"), (0, "maj"))
    minor = moved((0, "min"), (8, "maj"), (5, "min7"), (7, "7"), (0, "min"))
    assert key_of(major) == (up, "major")
    assert key_of(minor) == (up, "minor")


def test_the_longest_key_counts_and_silence_has_none():
    low = chords(*["C:maj", "F:maj", "G:maj"] * 3)
    high = chords(*["D:maj", "G:maj", "A:maj"])
    assert key_of([*low, *high]) == (0, "major")
    assert key_of(chords("N", "X")) is None
    assert key_of([]) is None
    assert key_of([Segment(0, 1, "C:maj"), Segment(1, 30, "N")]) == (0, "major")
    assert key_of([Segment(0, 1, "C:maj"), Segment(1, 100, "N")]) is None


def test_labels_of_pop909_are_in_the_annotated_key():
    if not POP909.is_dir():
        pytest.skip(f"needs the POP909 annotations in {POP909}")
    scores = []
    for path in sorted(POP909.glob("*.key"))[::15]:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        known = max(rows, key=lambda row: float(row[1]) - float(row[0]))[2]
        known = known.replace(":maj", " major").replace(":min", " minor")
        found = key_of(read_lab(path.with_suffix(".lab")).segments)
        scores.append(mir_eval.key.weighted_score(known, key_name(found).replace(":", " ")))
    assert len(scores) > 40
    assert np.mean(scores) > 0.85
