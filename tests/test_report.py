"""Pictures say what the numbers say, tables can be read back, the timeline fits its terminal."""

import csv
import json
import math
import os
import re
import sys
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiotrain import report, timeline
from audiotrain.report import (
    chords_picture,
    confusion_csv,
    confusion_json,
    confusion_picture,
    curves_picture,
    scores_picture,
    table_csv,
)
from audiotrain.timeline import agreement, clock, merged, root_of, share_agreed, short_label

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SONG = [(0.0, 2.0, "C:maj"), (2.0, 4.0, "A:min"), (4.0, 5.5, "F:maj7"), (5.5, 8.0, "G:7")]
GUESS = [(0.0, 2.5, "C"), (2.5, 4.0, "A:min"), (4.0, 8.0, "F:maj")]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order; the files are written too."""
    seen = []

    def keep(figure, path):
        seen.append(figure)
        original(figure, path)

    original = report.save
    for module in (report, timeline):
        monkeypatch.setattr(module, "save", keep)
    return seen


def texts(axis):
    return [text.get_text() for text in axis.texts]


def size(path):
    """Width and height of a PNG, from its header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


# --- confusion matrices


@pytest.mark.parametrize("classes", [1, 2, 12, 32])
@pytest.mark.parametrize("scale", ["sqrt", "linear"])
def test_confusion_shows_shares_and_counts(tmp_path, figures, classes, scale):
    rng = np.random.default_rng(classes)
    matrix = rng.integers(0, 3000, (classes, classes)) * (rng.random((classes, classes)) < 0.5)
    matrix[0] = 0
    matrix[0, 0] = 1234
    names = [f"class {i}" for i in range(classes)]
    path = tmp_path / "a.png"
    confusion_picture(matrix, names, path, title="Root", scale=scale)
    (axes,) = (axis for axis in figures[0].axes if axis.images)
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, matrix / np.maximum(matrix.sum(1, keepdims=True), 1))
    assert axes.images[0].norm(0.25) == pytest.approx(0.5 if scale == "sqrt" else 0.25)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(0, 0)] == "1.2k"
    cells = {(column, row) for row, column in zip(*np.nonzero(matrix), strict=True)}
    assert cells <= set(written)
    assert len(axes.texts) == len(cells) + classes + 1  # and a recall a row, and the second title
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert "100% of 1.2k" in texts(axes)
    assert axes.get_title(loc="left") == "Root"
    share = np.trace(matrix) / matrix.sum()
    assert f"{share:.1%} of {matrix.sum():,} frames correct" in texts(axes)
    assert min(size(path)) > 400


def test_of_many_classes_those_that_do_not_occur_are_left_out(tmp_path, figures):
    matrix = np.zeros((32, 32), int)
    matrix[3, 3], matrix[3, 9], matrix[20, 20] = 8, 1, 1
    confusion_picture(matrix, [f"class {i}" for i in range(32)], tmp_path / "a.png")
    axes = figures[0].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["class 3", "class 9", "class 20"]
    assert "90.0% of 10 frames correct, 29 classes do not occur" in texts(axes)
    assert len(np.asarray(axes.images[0].get_array())) == 3


def test_confusion_without_any_count_is_still_a_picture(tmp_path, figures):
    confusion_picture(np.zeros((3, 3), int), "abc", tmp_path / "a.png")
    assert texts(figures[0].axes[0]).count("none") == 3
    assert "empty" in texts(figures[0].axes[0])


def test_confusion_tables_read_back(tmp_path):
    matrix = np.array([[5, 1], [0, 7]])
    confusion_csv(matrix, ["maj", "sus4(b7,9)"], tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["reference", "maj", "sus4(b7,9)"], ["maj", "5", "1"], ["sus4(b7,9)", "0", "7"]]
    confusion_json(matrix, ["maj", "min"], tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["counts"] == matrix.tolist()
    assert (content["rows"], content["names"]) == ("reference", ["maj", "min"])


@pytest.mark.parametrize("write", [confusion_picture, confusion_csv, confusion_json])
def test_confusion_of_another_size_is_refused(tmp_path, write):
    with pytest.raises(ValueError, match=r"confusion of shape \(2, 2\), expected 3 names a side"):
        write(np.eye(2), "abc", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_unknown_scale_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scale='log': expected 'sqrt' or 'linear'"):
        confusion_picture(np.eye(2), "ab", tmp_path / "a.png", scale="log")


# --- curves and scores


def rows(epochs):
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 3 / (epoch + 1),
            "val_loss": abs(epoch - 3) + 1.0,
            "val_root_acc": epoch / epochs,
            "val_accuracy": 0.5,
            "learning_rate": 1e-3,
        }
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 8, 100])
def test_curves_draw_what_the_history_says(tmp_path, figures, epochs):
    curves_picture(rows(epochs), tmp_path / "a.png", title="Run 1")
    loss, accuracy, rate = figures[0].axes
    assert [axis.get_title(loc="left") for axis in (loss, accuracy, rate)] == [
        "loss",
        "accuracy",
        "learning rate",
    ]
    lines = {line.get_label(): line for line in [*loss.lines, *accuracy.lines, *rate.lines]}
    assert {"training", "validation", "root", "accuracy", "learning rate"} <= set(lines)
    assert lines["training"].get_xdata().tolist() == list(range(1, epochs + 1))
    assert lines["training"].get_ydata().tolist() == [3 / (e + 1) for e in range(epochs)]
    assert accuracy.yaxis.get_major_formatter()(0.75, 0) == "75%"
    best = min(epochs, 4)
    assert any(text.startswith("best ") and text.endswith(f"epoch {best}") for text in texts(loss))
    ticks = [tick for tick in rate.get_xticks() if 0.5 <= tick <= epochs + 0.5]
    assert ticks
    assert all(float(tick).is_integer() for tick in ticks)


def test_curves_leave_out_what_is_missing(tmp_path, figures):
    history = [
        {"epoch": 0, "train_loss": 2.0, "val_loss": None},
        {"epoch": 1, "train_loss": math.nan, "val_root_acc": 70.0},
        {"epoch": 2, "train_loss": 1.0, "val_root_acc": 80.0},
    ]
    curves_picture(history, tmp_path / "a.png")
    loss, accuracy = figures[0].axes
    (line,) = loss.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 3], [2.0, 1.0])
    assert accuracy.yaxis.get_major_formatter()(80.0, 0) == "80%"


@pytest.mark.parametrize("history", [[], [{"epoch": 0}], [{"epoch": 0, "train_loss": math.nan}]])
def test_curves_of_nothing_are_an_error(tmp_path, history):
    with pytest.raises(ValueError, match="neither losses nor accuracies nor learning rates"):
        curves_picture(history, tmp_path / "a.png")


def test_scores_as_bars(tmp_path, figures):
    scores_picture({"root": 0.9, "majmin": math.nan}, tmp_path / "a.png")
    systems = {"argmax": {"root": 0.9, "seg": 0.8}, "Viterbi": {"root": 0.91}}
    scores_picture(systems, tmp_path / "b.png", title="Songs")
    one, two = (figure.axes[0] for figure in figures)
    assert texts(one) == ["0.900"]
    assert texts(two) == ["0.900", "0.800", "0.910"]
    widths = [bar.get_width() for bar in two.patches]
    assert widths[:3] == [0.9, 0.8, 0.91]
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["argmax", "Viterbi"]


def test_table_has_every_column(tmp_path):
    songs = [{"song": "a, b", "root": 1 / 3, "frames": 3}, {"song": "c", "seg": np.float32(0.5)}]
    table_csv([*songs, {"song": "d", "root": math.nan}], tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["song", "root", "frames", "seg"],
            ["a, b", "0.3333", "3", ""],
            ["c", "", "", "0.5000"],
            ["d", "", "", ""],
        ]


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    table_csv([{"a": 1}], path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"a\.csv: cannot write: No space left"):
        table_csv([{"a": 2}], path)
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_need_no_global_state(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    threads = [
        threading.Thread(target=chords_picture, args=(SONG, tmp_path / f"{i}.png"))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(3)}) == 1
    assert loaded or "matplotlib.pyplot" not in sys.modules


# --- chords along time


def bars(axis):
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches]


def test_chords_picture_covers_the_time_of_each_chord(tmp_path, figures):
    chords_picture(GUESS, tmp_path / "a.png", reference=SONG, title="Song")
    (axis,) = figures[0].axes
    assert bars(axis)[:7] == [span[:2] for span in SONG + GUESS]
    assert texts(axis) == [
        "C",
        "Am",
        "Fmaj7",
        "G7",
        "C",
        "Am",
        "F",
        "same label in 43.8% of the time",
    ]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["reference", "estimate"]
    red = [
        span
        for span, bar in zip(bars(axis), axis.patches, strict=True)
        if bar.get_facecolor()[0] > 0.85 and bar.get_height() < 0.1
    ]
    assert red == [(2.0, 2.5), (4.0, 5.5), (5.5, 8.0)]


def test_chords_picture_breaks_rows_and_takes_a_part(tmp_path, figures):
    chords_picture(SONG, tmp_path / "a.png", row_seconds=3)
    assert [axis.get_xlim() for axis in figures[0].axes] == [(0, 3), (3, 6), (6, 9)]
    assert bars(figures[0].axes[1]) == [(3, 4), (4, 5.5), (5.5, 6)]
    chords_picture(SONG, tmp_path / "b.png", reference=SONG, start=3, seconds=2)
    assert bars(figures[1].axes[0])[:2] == [(3, 4), (4, 5)]
    hours = [(i * 60.0, i * 60 + 60.0, "C" if i % 2 else "G") for i in range(180)]
    chords_picture(hours, tmp_path / "c.png")
    assert len(figures[2].axes) == 40
    with pytest.raises(ValueError, match="no chords between"):
        chords_picture([], tmp_path / "d.png")


def test_colors_tell_all_roots_apart():
    fills = {
        timeline._chord_colors(f"{note}:{kind}")[0] for note in NOTES for kind in ("maj", "min")
    }
    assert len(fills) == 24
    assert timeline._chord_colors("N") == timeline._chord_colors("X")


@pytest.mark.parametrize(
    ("label", "root", "short"),
    [
        ("C:maj", 0, "C"),
        ("Cb:min", 11, "Cbm"),
        ("B#:7/b7", 0, "B#7/b7"),
        ("F##:hdim7", 7, "F##hdim7"),
        ("D:(1,5)", 2, "D(1,5)"),
        ("E/3", 4, "E/3"),
        ("N", None, "N"),
        ("X", None, "X"),
        ("", None, ""),
    ],
)
def test_labels(label, root, short):
    assert root_of(label) == root
    assert short_label(label) == short


def test_merged_joins_equal_neighbours_only():
    spans = [(0, 1, "C"), (1, 2, "C"), (2, 2, "G"), (2.5, 3, "C"), (3, 4, "D")]
    assert merged(spans) == [(0, 2, "C"), (2.5, 3, "C"), (3, 4, "D")]


songs = st.lists(st.tuples(st.floats(0.05, 9), st.sampled_from(["C", "G:7", "A:min7/b3", "N"])))


def laid_out(pieces):
    at, spans = 0.0, []
    for length, label in pieces:
        spans.append((at, at + length, label))
        at += length
    return spans


@example(
    [(1.1538329450967577, "C"), (1.6692119656617264, "C"), (5.807803606403246, "C")],
    [(1.1538329450967577, "C"), (5.807803606403246, "C"), (1.6692119656617261, "C")],
)
@given(songs, songs)
def test_agreement_covers_the_reference_and_is_right_everywhere(one, other):
    reference, estimate = laid_out(one), laid_out(other)
    parts = agreement(reference, estimate)
    total = reference[-1][1] if reference else 0
    assert sum(end - start for start, end, _ in parts) == pytest.approx(total)

    def label(spans, time):
        return next((text for start, end, text in spans if start <= time < end), "N")

    for start, end, same in parts:
        middle = (start + end) / 2
        if not start < middle < end:  # neighbouring numbers have none in between
            continue
        assert same == (label(reference, middle) == label(estimate, middle))
    assert all(same for _, _, same in agreement(reference, reference))
    assert not parts or 0 <= share_agreed(parts) <= 1


def test_x_of_a_reference_agrees_with_nothing_and_differs_from_nothing():
    reference, estimate = [(0, 4, "C:maj"), (4, 6, "X"), (6, 8, "G:maj")], [(0, 8, "C:maj")]
    assert agreement(reference, estimate) == [(0, 4, True), (6, 8, False)]
    text = timeline.timeline(estimate, reference, width=50, color=False)
    assert "same label in 66.7% of 0:06" in text
    assert "same label" not in timeline.timeline(estimate, [(0, 8, "X")], width=50, color=False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.96, "1:00"), (61.5, "1:01.5"), (3599.99, "1:00:00"), (36000, "10:00:00")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_timeline_aligns_reference_and_estimate():
    shown = report.timeline(GUESS, SONG, width=50, color=False).splitlines()
    assert shown == [
        "          0:00      0:02      0:04      0:06",
        "reference │C        │Am       │Fmaj7  │G7",
        "estimate  │C          │Am     │F",
        "differ              ××        ××××××××××××××××××××",
        "",
        "same label in 43.8% of 0:08",
    ]


@settings(deadline=None, max_examples=150)
@example(song=[(0.125, "C")], guess=[(5.0, "C")], width=30, row_seconds=None)
@given(
    song=songs.filter(bool),
    guess=st.none() | songs,
    width=st.integers(30, 200),
    row_seconds=st.none() | st.sampled_from([1, 5, 20]),
)
def test_timeline_fits_its_width_and_shows_every_long_chord(song, guess, width, row_seconds):
    reference = laid_out(song)
    estimate = laid_out(guess or [])
    plain = report.timeline(
        reference, None if guess is None else estimate, width, False, row_seconds
    )
    lines = plain.splitlines()
    assert max(map(len, lines)) <= max(width, 30)
    painted = report.timeline(
        reference, None if guess is None else estimate, width, True, row_seconds
    )
    bare = re.sub(r"\x1b\[[\d;]*m", "", painted)
    assert [line.rstrip() for line in bare.splitlines()] == lines
    name = "chord" if guess is None else "estimate"
    cells = "".join(line for line in lines if line.startswith(name))
    rows = sum(line.startswith(name) for line in lines)
    length = max(end for _, end, _ in (*reference, *estimate))
    for start, end, label in merged(reference):
        if (end - start) / length * rows * 20 > 40:
            assert timeline.ROOT.sub(r"\1", short_label(label))[0] in cells


def test_timeline_without_chords_or_with_few_rows():
    assert report.timeline([]) == "no chords"
    long = [(float(i), i + 1.0, NOTES[i % 12]) for i in range(600)]
    shown = report.timeline(long, width=60, color=False, row_seconds=20, rows=2).splitlines()
    assert len(shown) == 5
    assert shown[-1] == "… and 9:20 more"


def test_color_only_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert "\x1b" not in report.timeline(SONG, width=60)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[38;5;16;48;5;" in report.timeline(SONG, width=60)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in report.timeline(SONG, width=60)
