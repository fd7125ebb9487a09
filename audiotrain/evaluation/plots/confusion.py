"""Confusion matrices as pictures, CSV and JSON; counts are frames or clips."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiotrain.evaluation.plots import style, tables
from audiotrain.utils.files import csv_text, write

MANY = 16  # classes; more are printed smaller


def confusion_picture(
    matrix: np.ndarray,
    names: Sequence[str],
    path: str | os.PathLike,
    title: str = "Confusion",
    scale: str = "sqrt",
    unit: str = "frames",
) -> None:
    """Write a PNG of a confusion matrix: counts, over the share of each reference class as colour.

    matrix (classes, classes): row the reference, column the prediction, counts of `unit`. The
    colours' `scale` is "sqrt", which shows rare confusions, or "linear". Of more than MANY classes
    those that do not occur are left out. ValueError when the matrix does not fit the names, for
    another `scale`, and for a file that cannot be written.
    """
    from matplotlib.colors import PowerNorm

    matrix = _square(matrix, names)
    if scale not in ("sqrt", "linear"):
        raise ValueError(f"scale={scale!r}: expected 'sqrt' or 'linear'")
    left_out = 0
    if len(names) > MANY and matrix.any():
        kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
        left_out = len(names) - len(kept)
        matrix, names = matrix[np.ix_(kept, kept)], [names[number] for number in kept.tolist()]
    classes = len(names)
    support = matrix.sum(axis=1)
    shares = matrix / np.maximum(support, 1)[:, None]
    side = max(3.6, 0.36 * classes if classes > MANY else 0.5 * classes)
    figure, (axes,) = style.new_figure(side + 2, side + 1.5)
    norm = PowerNorm(0.5 if scale == "sqrt" else 1.0, 0, 1)
    image = style.draw_cells(axes, shares, norm=norm)
    _write_counts(axes, matrix, norm(shares), 7.5 if classes <= MANY else 5.5)
    _name_classes(axes, names, shares, support, 9 if classes <= MANY else 7.5)
    bar = style.add_color_bar(
        axes, image, 1 + 0.95 / side, 0.14 / side, "share of the reference class"
    )
    ticks = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1) if scale == "sqrt" else np.linspace(0, 1, 6)
    bar.set_ticks(ticks, labels=[f"{share:.0%}" for share in ticks])
    total = matrix.sum()
    correct = f"{np.trace(matrix) / total:.1%} of {total:,.0f} {unit} correct" if total else "empty"
    correct += f", {left_out} classes do not occur" if left_out else ""
    style.add_title(axes, title, correct)
    style.save(figure, path)


def _write_counts(axes: Any, matrix: np.ndarray, shades: np.ndarray, points: float) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shades[row, column] > 0.5 else style.INK
        count = tables.compact(matrix[row, column])
        axes.text(column, row, count, fontsize=points, color=color, **style.CENTERED)


def _name_classes(
    axes: Any, names: Sequence[str], shares: np.ndarray, support: np.ndarray, points: float
) -> None:
    """Names along both axes, and each class's recall and support at the right."""
    positions = np.arange(len(names))
    style.tidy(axes, grid=False)
    slant = 90 if max(map(len, names), default=0) > 3 else 0
    axes.set_xticks(positions, labels=names, fontsize=points, rotation=slant, color=style.INK)
    axes.set_yticks(positions, labels=names, fontsize=points, color=style.INK)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#eceff3", linewidth=1)
    axes.set_xlabel("predicted", color=style.PALE, fontsize=9)
    axes.set_ylabel("reference", color=style.PALE, fontsize=9)
    for number, label in enumerate(axes.get_yticklabels()):
        count = support[number]
        label.set_color(style.INK if count else style.PALE)
        recall = f"{shares[number, number]:.0%} of {tables.compact(count)}" if count else "none"
        text_style = {"va": "center", "fontsize": points - 1, "color": style.PALE}
        right = axes.get_yaxis_transform()
        axes.annotate(recall, (1, number), (6, 0), right, "offset points", **text_style)


def confusion_csv(matrix: np.ndarray, names: Sequence[str], path: str | os.PathLike) -> None:
    """Write a CSV of counts (classes, classes), a row a reference class, under a header."""
    matrix = _square(matrix, names)
    lines = [
        ["reference", *names],
        *([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    ]
    write(path, csv_text(lines))


def confusion_json(matrix: np.ndarray, names: Sequence[str], path: str | os.PathLike) -> None:
    """Write {"rows": "reference", "columns": "predicted", "names": …, "counts": …}."""
    matrix = _square(matrix, names)
    content = {"rows": "reference", "columns": "predicted", "names": list(names)}
    write(path, json.dumps(content | {"counts": matrix.tolist()}) + "\n")


def _square(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"confusion of shape {matrix.shape}, expected {len(names)} names a side")
    return matrix
