"""What all pictures share: a figure off screen, a title, quiet axes, a file that appears whole."""

import io
import os
from typing import Any

from audiotrain.files import write

INK, PALE, GRID = "#22272e", "#6b7280", "#e5e7eb"
LINES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#a16207", "#4b5563")
WHITE_TO_NAVY = ("#ffffff", "#dbeafe", "#93c5fd", "#3b82f6", "#1e40af", "#0f1f4b")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list]:
    """A figure of inches that no global state knows, and its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()


def add_title(axis: Any, title: str, second: str = "") -> None:
    """A bold title over the axes' left edge, and a pale line under it."""
    axis.set_title(
        title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=24 if second else 8
    )
    axis.annotate(
        second,
        (0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=PALE,
    )


def tidy(axis: Any, grid: bool = True) -> None:
    """No frame, no tick marks, a pale grid behind the data."""
    if grid:
        axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(which="both", length=0, labelsize=8, colors=PALE)
    for side in axis.spines.values():
        side.set_visible(False)


def save(figure: Any, path: str | os.PathLike) -> None:
    """The figure as PNG, trimmed."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", pad_inches=0.12)
    write(path, picture.getvalue())
