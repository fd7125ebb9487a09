"""Pictures say what the numbers say, tables can be read back, the timeline fits its terminal."""

import csv
import json
import math
import os
import re
import sys
import threading
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy import Losses, Scripted, trainer

from audiotrain.evaluation.plots import chord_timeline, style
from audiotrain.evaluation.plots import chord_timeline as timeline
from audiotrain.evaluation.plots.chord_timeline import (
    agreement,
    chords_picture,
    clock,
    merged,
    root_of,
    share_agreed,
    short_label,
)
from audiotrain.evaluation.plots.confusion import confusion_csv, confusion_json, confusion_picture
from audiotrain.evaluation.plots.curves import curves_picture
from audiotrain.evaluation.plots.style import TRAINING, VALIDATION
from audiotrain.evaluation.plots.tables import scores_picture, table_csv
from audiotrain.recipes.common import run as runs
from audiotrain.train import checkpoint
from audiotrain.train.callbacks import ModelCheckpoint

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

    original = style.save
    monkeypatch.setattr(style, "save", keep)
    return seen


def texts(axis):
    return [text.get_text() for text in axis.texts if text.get_text()]


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


def lines_of(figure):
    """Its lines of metrics by label."""
    lines = [line for axis in figure.axes for line in axis.lines]
    return {line.get_label(): line for line in lines if not line.get_label().startswith("_")}


def legend_of(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def rules(figure):
    """Where the vertical lines of each panel are."""
    return [
        [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]
        for axis in figure.axes
    ]


def rings(axis):
    """The places that are marked in a panel."""
    return [line.get_xydata()[0].tolist() for line in axis.lines if line.get_markersize() == 8]


@pytest.mark.parametrize("epochs", [1, 2, 8, 100])
def test_curves_draw_what_the_history_says(tmp_path, figures, epochs):
    curves_picture(rows(epochs), tmp_path / "a.png", title="Run 1")
    loss, accuracy, rate = figures[0].axes
    assert [axis.get_title(loc="left") for axis in (loss, accuracy, rate)] == [
        "loss",
        "accuracy",
        "learning rate",
    ]
    lines = lines_of(figures[0])
    assert set(lines) == {
        "training loss",
        "validation loss",
        "validation root",
        "validation accuracy",
        "training learning rate",
    }
    assert lines["training loss"].get_xdata().tolist() == list(range(1, epochs + 1))
    assert lines["training loss"].get_ydata().tolist() == [3 / (e + 1) for e in range(epochs)]
    assert legend_of(accuracy) == ["accuracy", "root"]
    assert loss.get_legend() is None  # the picture's own tells training from validation
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "training",
        "validation",
    ]
    assert accuracy.yaxis.get_major_formatter()(0.75, 0) == "75%"
    best = min(epochs, 4)
    assert texts(loss) == [f"best {abs(best - 4) + 1:.3f}, epoch {best}"]
    assert rules(figures[0]) == [[], [], []]
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


SCORES = [  # the first best score, then the same with less loss; the least loss is elsewhere
    {"val_map_at_10": 0.25, "val_loss": 3.0},
    {"val_map_at_10": 0.75, "val_loss": 2.5},
    {"val_map_at_10": 0.75, "val_loss": 2.0},
    {"val_map_at_10": 0.75, "val_loss": 2.0},
    {"val_map_at_10": 0.5, "val_loss": 1.0},
    {"val_map_at_10": math.nan, "val_loss": 1.5},
]
CLAP = [
    {"epoch": epoch, "step": 10 * epoch + 10, "train_loss": 4.0 - epoch / 2, "gradient_norm": 1.0}
    | {"val_text_to_audio_recall_at_1": 0.3, "val_text_R@1": 0.2, "train_logit_scale": 14.0}
    | {"train_audio_acc": 0.5, "val_audio_acc": 0.25, "learning_rate": 0.1, "val_part_loss": 9.0}
    | row
    for epoch, row in enumerate(SCORES)
]


def test_every_metric_of_training_and_validation_has_a_panel(tmp_path, figures):
    curves_picture(CLAP, tmp_path / "a.png", monitor="val_map_at_10", mode="max")
    axes = figures[0].axes
    panels = ["loss", "accuracy", "retrieval", "logit scale", "learning rate"]
    assert [axis.get_title(loc="left") for axis in axes] == panels
    assert legend_of(axes[2]) == ["mAP@10", "text R@1", "text to audio R@1"]
    assert axes[2].yaxis.get_major_formatter()(0.75, 0) == "75%"
    assert [len({axis.get_position().y0 for axis in row}) for row in (axes[:3], axes[3:])] == [1, 1]
    width, height = size(tmp_path / "a.png")
    assert width < 2100  # as three panels in a row
    assert axes[0].get_position().y0 > axes[3].get_position().y1


@pytest.mark.parametrize(
    ("monitor", "mode", "tie", "panel", "epoch", "text"),
    [
        ("val_map_at_10", "max", None, "retrieval", 2, "kept: 75.0%, epoch 2"),
        ("val_map_at_10", "max", "val_loss", "retrieval", 4, "kept: 75.0%, epoch 4"),
        ("val_map_at_10", "min", None, "retrieval", 1, "kept: 25.0%, epoch 1"),
        ("val_loss", "min", None, "loss", 5, "kept: 1.000, epoch 5"),
        ("train_loss", "min", None, "loss", 6, "kept: 1.500, epoch 6"),
        ("val_part_loss", "min", None, "loss", 1, "kept: 9.000, epoch 1"),
        ("gradient_norm", "min", None, "gradient norm", 1, "kept: 1.000, epoch 1"),
    ],
)
def test_what_is_kept_is_marked_where_it_is_decided(
    tmp_path, figures, monitor, mode, tie, panel, epoch, text
):
    curves_picture(CLAP, tmp_path / "a.png", monitor=monitor, mode=mode, tie=tie)
    axes = {axis.get_title(loc="left"): axis for axis in figures[0].axes}
    assert {name: texts(axis) for name, axis in axes.items() if axis.texts} == {panel: [text]}
    assert [name for name, axis in axes.items() if rings(axis)] == [panel]
    assert rings(axes[panel]) == [[epoch, CLAP[epoch - 1][monitor]]]
    assert rules(figures[0]) == [[epoch]] * len(axes)


def test_nothing_is_marked_where_nothing_was_kept_by_the_monitor(tmp_path, figures):
    curves_picture(CLAP, tmp_path / "a.png", monitor="val_ranking", mode="max")
    assert not any(map(rings, figures[0].axes))
    assert rules(figures[0]) == [[]] * 5
    with pytest.raises(ValueError, match="mode is 'most', expected 'min' or 'max'"):
        curves_picture(CLAP, tmp_path / "b.png", monitor="val_loss", mode="most")


def test_validations_inside_epochs_are_drawn_where_they_were(tmp_path, figures):
    """Two in the first epoch, whose row has the second; one in and one after the other epoch."""
    history = [
        {"epoch": 0, "step": 8, "train_loss": 3.0, "val_loss": 2.0},
        {"epoch": 1, "step": 16, "train_loss": 2.0, "val_loss": 1.0},
    ]
    log = [
        {"epoch": 0, "step": 2, "loss": 7.0},
        {"epoch": 0, "step": 2, "val_loss": 0.5},
        {"epoch": 0, "step": 6, "val_loss": 2.0},
        {"epoch": 1, "step": 12, "val_loss": 1.5},
    ]
    curves_picture(history, tmp_path / "a.png", log=log, monitor="val_loss")
    line = lines_of(figures[0])["validation loss"]
    assert line.get_xydata().tolist() == [[0.25, 0.5], [0.75, 2.0], [1.5, 1.5], [2.0, 1.0]]
    assert texts(figures[0].axes[0]) == ["kept: 0.500, epoch 1"]


@pytest.mark.parametrize("every", [1, 2, 3, 7, 1.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_mark_of_a_run_is_at_the_step_of_its_best_checkpoint(tmp_path, figures, every, mode):
    losses = [3.0, 5.0, 1.0, 4.0, 1.0, 5.0, 2.0, 3.0, 2.0, 4.0, 3.0, 2.0]
    saver = ModelCheckpoint(tmp_path / "checkpoints", "best", "val_loss", mode, save_top_k=1)
    steps = {"max_epochs": 3, "val_check_interval": every, "callbacks": [saver]}
    run = trainer(tmp_path, compile=False, **steps)
    data = [[mx.ones((1, 2))] * 4, Losses(losses)]
    experiment = SimpleNamespace(module=Scripted(), monitor="val_loss", mode=mode, tie=None)
    assert runs.fit(SimpleNamespace(resume=False), run, experiment, data, tmp_path)
    step = checkpoint.load_meta(saver.best_model_path)["global_step"]
    assert rules(figures[0]) == [[step / 4]] * 2
    assert rings(figures[0].axes[0]) == [[step / 4, saver.best_model_score]]


@pytest.mark.parametrize("validated_first", [True, False])
@pytest.mark.parametrize("kinds", [("root",), ("root", "bass"), ("text", "root", "bass", "audio")])
def test_training_and_validation_look_the_same_in_every_panel_and_run(
    tmp_path, figures, validated_first, kinds
):
    train = {f"train_{kind}_acc": 0.5 for kind in kinds} | {"train_loss": 1.0, "learning_rate": 1}
    val = {f"val_{kind}_acc": 0.4 for kind in reversed(kinds)} | {"val_loss": 2.0}
    first = val | train if validated_first else train
    curves_picture([{"epoch": 0} | first, {"epoch": 1} | train | val], tmp_path / "a.png")
    lines = lines_of(figures[0])
    assert len(lines) == 2 * len(kinds) + 3
    looks = {}
    for label, line in lines.items():
        part = TRAINING if label.startswith("training") else VALIDATION
        assert line.get_color() in part.shades
        assert (line.get_linestyle() == "-") == (part is TRAINING)
        looks[label] = line.get_color(), line.get_marker()
    for number, kind in enumerate(sorted(kinds)):
        expected = [(part.shades[number], "os^D"[number]) for part in (TRAINING, VALIDATION)]
        assert [looks[f"training {kind}"], looks[f"validation {kind}"]] == expected
    assert looks["training loss"] == looks["training learning rate"] == (TRAINING.shades[0], "o")
    assert looks["validation loss"] == (VALIDATION.shades[0], "o")


@pytest.mark.parametrize("kinds", range(2, 10))
def test_no_row_of_a_legend_has_one_name_alone(tmp_path, figures, kinds):
    names = [f"val_kind{number}_acc" for number in range(kinds)]
    curves_picture([dict.fromkeys(names, 0.5)], tmp_path / "a.png")
    (axis,) = figures[0].axes
    heights = [round(text.get_window_extent().y0) for text in axis.get_legend().get_texts()]
    assert len(heights) == kinds
    assert all(heights.count(height) > 1 for height in heights)
    looks = {(line.get_color(), line.get_marker()) for line in lines_of(figures[0]).values()}
    assert len(looks) == min(kinds, 8)


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


@pytest.mark.slow
def test_chords_picture_breaks_rows_and_takes_a_part(tmp_path, figures):
    chords_picture(SONG, tmp_path / "a.png", row_seconds=3)
    assert [axis.get_xlim() for axis in figures[0].axes] == [(0, 3), (3, 6), (6, 9)]
    assert bars(figures[0].axes[1]) == [(3, 4), (4, 5.5), (5.5, 6)]
    chords_picture(SONG, tmp_path / "b.png", reference=SONG, start=3, seconds=2)
    assert bars(figures[1].axes[0])[:2] == [(3, 4), (4, 5)]
    chords_picture([(0.0, 30.1, "C")], tmp_path / "e.png")  # without an empty second row
    assert [axis.get_xlim() for axis in figures[2].axes] == [(0, 30.1)]
    hours = [(i * 60.0, i * 60 + 60.0, "C" if i % 2 else "G") for i in range(180)]
    chords_picture(hours, tmp_path / "c.png")
    assert len(figures[3].axes) == 40
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
    shown = chord_timeline.timeline(GUESS, SONG, width=50, color=False).splitlines()
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
    plain = chord_timeline.timeline(
        reference, None if guess is None else estimate, width, False, row_seconds
    )
    lines = plain.splitlines()
    assert max(map(len, lines)) <= max(width, 30)
    painted = chord_timeline.timeline(
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
            assert timeline.ROOT.sub(r"\g<0>", short_label(label))[0] in cells


def test_timeline_without_chords_or_with_few_rows():
    assert chord_timeline.timeline([]) == "no chords"
    assert chord_timeline.timeline([(0.0, 2e-5, "N")]) == "too short to show"
    long = [(float(i), i + 1.0, NOTES[i % 12]) for i in range(600)]
    shown = chord_timeline.timeline(
        long, width=60, color=False, row_seconds=20, rows=2
    ).splitlines()
    assert len(shown) == 5
    assert shown[-1] == "… and 9:20 more"


def test_the_end_of_a_song_of_thirty_seconds_gets_no_row_of_its_own():
    """Its file is a few milliseconds longer, as MP3s are."""
    for seconds, rows in ((29.99, 2), (30.05, 2), (30.4, 3), (31.0, 3)):
        spans = [(i * 1.0, min(i + 1.0, seconds), NOTES[i % 12]) for i in range(31)]
        lines = timeline.timeline(spans, width=80, color=False, row_seconds=15).splitlines()
        assert sum(line.startswith("chord") for line in lines) == rows
        assert all(line.strip() != "chord" for line in lines)
    spans = [(0.0, 20.0, "C"), (20.0, 60.1, "G")]
    assert "more" not in timeline.timeline(spans, width=80, row_seconds=15, rows=4)
    assert timeline.timeline(spans, width=80, row_seconds=15, rows=2).endswith("… and 0:30 more")


def test_times_over_a_timeline_end_with_the_song():
    first = timeline.timeline([(0.0, 5.1, "C"), (5.1, 5.5, "G")], width=80, row_seconds=10)
    assert first.splitlines()[0].split() == ["0:00", "0:02", "0:04"]


def test_color_only_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert "\x1b" not in chord_timeline.timeline(SONG, width=60)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[38;5;16;48;5;" in chord_timeline.timeline(SONG, width=60)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in chord_timeline.timeline(SONG, width=60)
