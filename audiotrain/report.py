"""Pictures and tables of a run: confusion matrices, training curves, scores, chords along time.

Pictures are PNG files drawn off screen; every file appears whole or not at all. Counts are frames
or what the caller says, scores are shares of 1, times seconds.
"""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotrain.drawing import INK, LINES, PALE, WHITE_TO_NAVY, add_title, new_figure, save, tidy
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


def curves_picture(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, title: str = "Training"
) -> None:
    """PNG of a history: loss, accuracies and learning rate over epochs, a panel each.

    `rows` are the history's, one per epoch; a panel without numbers is left out.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    accuracies = [name for name in names if name.endswith(("acc", "accuracy"))]
    panels = {
        "loss": [name for name in ("train_loss", "val_loss") if name in names],
        "accuracy": accuracies,
        "learning rate": [name for name in names if name == "learning_rate"],
    }
    panels = {
        panel: found for panel, found in panels.items() if any(_points(rows, n)[0] for n in found)
    }
    if not panels:
        raise ValueError("history has neither losses nor accuracies nor learning rates to draw")
    figure, axes = new_figure(4.6 * len(panels) + 0.6, 3.9, columns=len(panels))
    for axis, (panel, found) in zip(axes, panels.items(), strict=True):
        for color, name in zip(LINES, found, strict=False):
            _line(axis, rows, name, color)
        _finish_panel(axis, panel, rows, found)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    save(figure, path)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    points = [
        (row.get("epoch", number) + 1, row[name])
        for number, row in enumerate(rows)
        if row.get(name) is not None and math.isfinite(row[name])
    ]
    return [x for x, _ in points], [y for _, y in points]


def _line(axis: Any, rows: Sequence[Mapping[str, Any]], name: str, color: str) -> None:
    epochs, values = _points(rows, name)
    if not epochs:
        return
    label = name.removeprefix("val_").removesuffix("_acc").replace("_", " ")
    label = {"train_loss": "training", "val_loss": "validation"}.get(name, label)
    marker = "o" if len(epochs) <= 30 else None
    axis.plot(epochs, values, color=color, label=label, marker=marker, markersize=3, linewidth=1.8)
    if name == "val_loss":
        best = int(np.argmin(values))
        axis.plot(
            epochs[best], values[best], "o", color=color, markersize=8, markerfacecolor="white"
        )
        axis.annotate(
            f"best {values[best]:.3f}, epoch {epochs[best]}",
            (epochs[best], values[best]),
            xytext=(0, 10),
            textcoords="offset points",
            ha="right" if best > len(values) / 2 else "left",
            fontsize=8,
            color=color,
        )


def _finish_panel(
    axis: Any, panel: str, rows: Sequence[Mapping[str, Any]], found: list[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_title(panel, loc="left", fontsize=10, color=INK)
    axis.set_xlabel("epoch", fontsize=9, color=PALE)
    epochs = [epoch for name in found for epoch in _points(rows, name)[0]]
    axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    tidy(axis)
    if panel == "accuracy":
        top = max(max(_points(rows, name)[1], default=0) for name in found)
        hundred = 100 if top <= 1 else 1
        axis.yaxis.set_major_formatter(lambda share, _: f"{round(hundred * share, 6):g}%")
    if panel == "learning rate":
        axis.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axis.set_ylim(bottom=0)
    else:
        axis.legend(
            frameon=False, fontsize=8, labelcolor=INK, loc="upper center", ncols=3,
            bbox_to_anchor=(0.5, -0.17), columnspacing=1.2, handlelength=1.4,
        )  # fmt: skip


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
