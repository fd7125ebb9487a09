"""Scores as a picture, rows as CSV."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotrain.evaluation.plots import style
from audiotrain.utils.files import csv_text, write


def scores_picture(
    scores: Mapping[str, Any], path: str | os.PathLike, title: str = "Scores"
) -> None:
    """Write a PNG of bars: `scores` {comparison: share of 1}, or {system: {comparison: share}}.
    ValueError for a file that cannot be written."""
    if not all(isinstance(part, Mapping) for part in scores.values()):
        scores = {"": scores}
    names = list(dict.fromkeys(name for part in scores.values() for name in part))
    height = 0.8 / len(scores)
    figure, (axis,) = style.new_figure(7.2, 0.9 + len(names) * (0.18 + 0.2 * len(scores)))
    for number, (system, part) in enumerate(scores.items()):
        heights = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        values = [part.get(name, math.nan) for name in names]
        color = style.LINES[number % len(style.LINES)]
        bars = axis.barh(heights, values, height * 0.88, color=color, label=system)
        axis.bar_label(bars, fmt="{:.3f}", padding=2, fontsize=8, color=style.INK)
    axis.set_yticks(range(len(names)), labels=names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks(np.linspace(0, 1, 6))
    style.tidy(axis, grid=False)
    axis.tick_params(axis="y", colors=style.INK, labelsize=9)
    if any(scores):
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    style.add_heading(figure, title)
    style.save(figure, path)


def table_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write a CSV of rows with all columns that any row has, floats to 4 decimals, NaN empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_cell(row.get(name)) for name in names] for row in rows]
    write(path, csv_text([names, *lines]))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float | np.floating) else value


def compact(count: float) -> str:
    """A count in at most four characters.

    >>> [compact(count) for count in (7, 950, 1234, 56789, 2_500_000)]
    ['7', '950', '1.2k', '57k', '2.5M']
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            scaled = count / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"
