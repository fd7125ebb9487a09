"""Pictures and tables of a run: confusion matrices, training curves, scores, chords along time.

Pictures are PNG files drawn off screen; every file appears whole or not at all. Counts are frames
or what the caller says, scores are shares of 1, times seconds.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotrain.drawing import (
    INK,
    LINES,
    PALE,
    TRAINING,
    VALIDATION,
    WHITE_TO_NAVY,
    Part,
    add_title,
    draw_line,
    draw_mark,
    name_kinds,
    name_parts,
    new_figure,
    save,
    tidy,
)
from audiotrain.files import write
from audiotrain.timeline import chords_picture, timeline

__all__ = [
    "chords_picture",
    "confusion_csv",
    "confusion_json",
    "confusion_picture",
    "curves_picture",
    "scores_picture",
    "table_csv",
    "timeline",
]


# --- confusion matrices

MANY = 16  # classes; more are printed smaller


def confusion_picture(
    matrix: np.ndarray,
    names: Sequence[str],
    path: str | os.PathLike,
    title: str = "Confusion",
    scale: str = "sqrt",
    unit: str = "frames",
) -> None:
    """PNG of a confusion matrix (classes, classes), rows the reference, columns the prediction.

    Colour is the share of the row, counts stand where they fit. `scale` "sqrt" shows rare
    confusions, "linear" the shares as they are. Rows without reference stay white; of more than
    MANY classes those are left out that neither occur nor are predicted.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    matrix = _square(matrix, names)
    if scale not in ("sqrt", "linear"):
        raise ValueError(f"scale={scale!r}: expected 'sqrt' or 'linear'")
    left_out = 0
    if len(names) > MANY and matrix.any():
        kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
        left_out = len(names) - len(kept)
        matrix, names = matrix[np.ix_(kept, kept)], [names[number] for number in kept]
    classes = len(names)
    support = matrix.sum(axis=1)
    shares = matrix / np.maximum(support, 1)[:, None]
    side = max(3.6, 0.36 * classes if classes > MANY else 0.5 * classes)
    figure, (axes,) = new_figure(side + 2, side + 1.5)
    norm = PowerNorm(0.5 if scale == "sqrt" else 1.0, 0, 1)
    colors = LinearSegmentedColormap.from_list("white to navy", WHITE_TO_NAVY)
    image = axes.imshow(shares, cmap=colors, norm=norm, aspect="equal")
    _write_counts(axes, matrix, norm(shares), 7.5 if classes <= MANY else 5.5)
    _name_classes(axes, names, shares, support, 9 if classes <= MANY else 7.5)
    _scale_bar(figure, axes, image, side, scale)
    total = matrix.sum()
    correct = f"{np.trace(matrix) / total:.1%} of {total:,.0f} {unit} correct" if total else "empty"
    correct += f", {left_out} classes do not occur" if left_out else ""
    add_title(axes, title, correct)
    save(figure, path)


def _scale_bar(figure: Any, axes: Any, image: Any, side: float, scale: str) -> None:
    """A bar at the right, `side` inches high, beyond the column of recalls."""
    place = axes.inset_axes((1 + 0.95 / side, 0, 0.14 / side, 1))
    bar = figure.colorbar(image, cax=place)
    ticks = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1) if scale == "sqrt" else np.linspace(0, 1, 6)
    bar.set_ticks(ticks, labels=[f"{share:.0%}" for share in ticks])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=PALE, length=0)
    bar.set_label("share of the reference class", fontsize=8, color=PALE)


def _write_counts(axes: Any, matrix: np.ndarray, shades: np.ndarray, points: float) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        axes.text(
            column,
            row,
            _compact(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=points,
            color="white" if shades[row, column] > 0.5 else INK,
        )


def _name_classes(
    axes: Any, names: Sequence[str], shares: np.ndarray, support: np.ndarray, points: float
) -> None:
    """Names at both axes, and each row's recall and count at its right."""
    places = np.arange(len(names))
    tidy(axes, grid=False)
    slant = 90 if max(map(len, names), default=0) > 3 else 0
    axes.set_xticks(places, labels=names, fontsize=points, rotation=slant, color=INK)
    axes.set_yticks(places, labels=names, fontsize=points, color=INK)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#eceff3", linewidth=1)
    axes.set_xlabel("predicted", color=PALE, fontsize=9)
    axes.set_ylabel("reference", color=PALE, fontsize=9)
    for place, label in zip(places, axes.get_yticklabels(), strict=True):
        count = support[place]
        label.set_color(INK if count else PALE)
        recall = f"{shares[place, place]:.0%} of {_compact(count)}" if count else "none"
        axes.annotate(
            recall, (1, place), (6, 0), axes.get_yaxis_transform(), "offset points",
            va="center", fontsize=points - 1, color=PALE,
        )  # fmt: skip


def confusion_csv(matrix: np.ndarray, names: Sequence[str], path: str | os.PathLike) -> None:
    """The counts as CSV: one row per reference class, one column per predicted class."""
    matrix = _square(matrix, names)
    lines = [
        ["reference", *names],
        *([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    ]
    write(path, _csv_text(lines))


def confusion_json(matrix: np.ndarray, names: Sequence[str], path: str | os.PathLike) -> None:
    """The counts as JSON: {"names": […], "counts": [[…]]}, a row per reference class."""
    matrix = _square(matrix, names)
    content = {"rows": "reference", "columns": "predicted", "names": list(names)}
    write(path, json.dumps(content | {"counts": matrix.tolist()}) + "\n")


def _square(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"confusion of shape {matrix.shape}, expected {len(names)} names a side")
    return matrix


# --- curves and scores


RANKED = {"map", "mAP", "recall", "R", "mrr", "ndcg"}  # words in names of retrieval's metrics
PERCENT = ("accuracy", "retrieval")  # panels of shares
COLUMNS = 3  # panels side by side
Placed = list[tuple[float, Mapping[str, Any]]]  # rows beside their time in epochs; 1: one is done


def curves_picture(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, title: str = "Training",
    log: Sequence[Mapping[str, Any]] = (), monitor: str | None = None, mode: str = "min",
    tie: str | None = None,
) -> None:  # fmt: skip
    """PNG of a history over epochs: a panel for the loss, for accuracies, for retrieval, for the
    learning rate and for each other metric of training or validation.

    `rows` are the history's, one per epoch, `log` has the validations inside epochs; a panel
    without numbers is left out. The epoch that was kept, of the best `monitor` by `mode` (where
    that is the same: of the lowest `tie`), is marked; without `monitor` the least validation loss.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is {mode!r}, expected 'min' or 'max'")
    placed = _placed(rows, log)
    panels = _panels(placed, monitor)
    if not panels:
        raise ValueError("history has neither losses nor accuracies nor learning rates to draw")
    high = math.ceil(len(panels) / COLUMNS)
    wide = math.ceil(len(panels) / high)
    figure, axes = new_figure(4.6 * wide + 0.6, 3.9 * high, rows=high, columns=wide)
    decides = monitor or "val_loss"
    kept = _kept(placed, decides, mode if monitor else "min", tie if monitor else None)
    for axis, (panel, names) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, panel, placed, names)
        if kept and monitor:
            axis.axvline(kept[0], color=PALE, linewidth=0.9, linestyle=":", zorder=1)
        if kept and decides in names:
            share = f"{kept[1] * _hundred(placed, names):.1f}%"
            value = share if panel in PERCENT else f"{kept[1]:.3f}"
            text = f"{'kept:' if monitor else 'best'} {value}, epoch {math.ceil(kept[0])}"
            draw_mark(axis, kept, text, _part(decides).shades[0], below=mode == "min")
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    name_parts(figure, sorted({_part(name) for names in panels.values() for name in names}))
    save(figure, path)


def _placed(rows: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]) -> Placed:
    """Rows at the ends of their epochs, and the log's validations where they were; the last of
    these stands in its epoch's row too, and is left out there."""
    found, begin = [], 0
    for number, row in enumerate(rows):
        epoch, end = row.get("epoch", number), row.get("step", 0)
        inside: dict[str, Any] = {}
        for entry in log:
            numbers = {name: value for name, value in entry.items() if name.startswith("val_")}
            if entry["epoch"] == epoch and numbers:
                share = (entry["step"] - begin) / (end - begin) if end > begin else 1
                found.append((epoch + share, numbers))
                inside |= numbers
        again = inside and all(row.get(name) == value for name, value in inside.items())
        found.append((epoch + 1, {k: row[k] for k in row if not (again and k in inside)}))
        begin = end
    return found


def _with(placed: Placed, name: str) -> Placed:
    return [(x, row) for x, row in placed if row.get(name) is not None and math.isfinite(row[name])]


def _points(placed: Placed, name: str) -> tuple[list[float], list[float]]:
    rows = _with(placed, name)
    return [x for x, _ in rows], [row[name] for _, row in rows]


def _kept(placed: Placed, monitor: str, mode: str, tie: str | None) -> tuple[float, float] | None:
    """Epochs and value of the checkpoint that ModelCheckpoint keeps; None without a value.

    Of equal values the first, with `tie` the last of those where that is lowest.
    """
    sign = 1 if mode == "min" else -1
    rows = _with(placed, monitor)[:: 1 if tie is None else -1]
    if not rows:
        return None
    x, row = min(rows, key=lambda one: (sign * one[1][monitor], one[1].get(tie, 0)))
    return x, row[monitor]


def _part(name: str) -> Part:
    return VALIDATION if name.startswith("val_") else TRAINING


def _kind(name: str) -> str:
    return name.removeprefix("train_").removeprefix("val_")


def _label(name: str) -> str:
    """A metric's name in a legend, without its part.

    >>> [_label(name) for name in ("val_chord_type_acc", "val_text_to_audio_recall_at_1")]
    ['chord type', 'text to audio R@1']
    """
    short = _kind(name).removesuffix("_acc").replace("recall_at_", "R@").replace("map_at_", "mAP@")
    return short.replace("_", " ")


def _panel_of(name: str, monitor: str | None) -> str | None:
    """The panel of a metric; None for what is not drawn, as losses that are parts of a loss."""
    kind = _kind(name)
    if kind.endswith("loss"):
        return "loss" if kind in ("loss", _kind(monitor or "")) else None
    if kind.endswith(("acc", "accuracy")):
        return "accuracy"
    if kind.startswith("learning_rate"):
        return "learning rate"
    if RANKED & set(re.split("[_@]", kind)):
        return "retrieval"
    return _label(name) if kind != name or name == monitor else None


def _panels(placed: Placed, monitor: str | None) -> dict[str, list[str]]:
    """Panel -> names of its metrics. The order, on which colours depend, is no matter of when
    there was the first validation: what is monitored is first, the rest by name."""
    panels: dict[str, list[str]] = {}
    names = {name for _, row in placed for name in row}
    decides = _kind(monitor or "")
    for name in sorted(names, key=lambda name: (_kind(name) != decides, _kind(name), name)):
        panel = _panel_of(name, monitor)
        if panel and _points(placed, name)[0]:
            panels.setdefault(panel, []).append(name)
    first = ("loss", "accuracy", "retrieval")
    order = [*first, *sorted(set(panels) - {*first, "learning rate"}), "learning rate"]
    return {panel: panels[panel] for panel in order if panel in panels}


def _draw_panel(axis: Any, panel: str, placed: Placed, names: Sequence[str]) -> None:
    """A line a metric: its part says colour and dashes, its kind the shade and marker."""
    lines: dict[str, list] = {}
    for name in names:
        drawn = lines.setdefault(_label(name), [])
        number = list(lines).index(_label(name))
        drawn += draw_line(axis, *_points(placed, name), _label(name), _part(name), number)
    _finish_panel(axis, panel, placed, names)
    if len(lines) > 1:
        name_kinds(axis, lines)


def _finish_panel(axis: Any, panel: str, placed: Placed, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_title(panel, loc="left", fontsize=10, color=INK)
    axis.set_xlabel("epoch", fontsize=9, color=PALE)
    axis.set_xlim(0.5, max(x for x, _ in placed) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    tidy(axis)
    if panel in PERCENT:
        hundred = _hundred(placed, names)
        axis.yaxis.set_major_formatter(lambda share, _: f"{round(hundred * share, 6):g}%")
    if panel == "learning rate":
        axis.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axis.set_ylim(bottom=0)


def _hundred(placed: Placed, names: Sequence[str]) -> int:
    """What makes percent of a panel's shares: 100 where they are shares of 1."""
    return 100 if max(max(_points(placed, name)[1]) for name in names) <= 1 else 1


def scores_picture(
    scores: Mapping[str, Any], path: str | os.PathLike, title: str = "Scores"
) -> None:
    """PNG of bars: `scores` {comparison: share of 1}, or {system: {comparison: share}}."""
    if not all(isinstance(part, Mapping) for part in scores.values()):
        scores = {"": scores}
    names = list(dict.fromkeys(name for part in scores.values() for name in part))
    height = 0.8 / len(scores)
    figure, (axis,) = new_figure(7.2, 0.9 + len(names) * (0.18 + 0.2 * len(scores)))
    for number, (system, part) in enumerate(scores.items()):
        places = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        values = [part.get(name, math.nan) for name in names]
        axis.barh(places, values, height * 0.88, color=LINES[number % len(LINES)], label=system)
        for place, value in zip(places, values, strict=True):
            if math.isfinite(value):
                axis.text(value + 0.008, place, f"{value:.3f}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(names)), labels=names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks(np.linspace(0, 1, 6))
    tidy(axis, grid=False)
    axis.tick_params(axis="y", colors=INK, labelsize=9)
    if any(scores):
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    save(figure, path)


def table_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """A CSV of rows (per song, per class): all columns that any row has, floats to 4 decimals."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_cell(row.get(name)) for name in names] for row in rows]
    write(path, _csv_text([names, *lines]))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float | np.floating) else value


def _compact(count: float) -> str:
    """A count in at most four characters.

    >>> [_compact(count) for count in (7, 950, 1234, 56789, 2_500_000)]
    ['7', '950', '1.2k', '57k', '2.5M']
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            scaled = count / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def _csv_text(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
