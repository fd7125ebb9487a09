"""The style of all pictures: figures, titles, axes, and lines of training and of validation, which
differ without colours, too."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiotrain.utils.files import write

INK, PALE, GRID = "#22272e", "#6b7280", "#e5e7eb"
LINES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#a16207", "#4b5563")
WHITE_TO_NAVY = ("#ffffff", "#dbeafe", "#93c5fd", "#3b82f6", "#1e40af", "#0f1f4b")


class Part(NamedTuple):
    """How lines of training, or of validation, look in every panel of every run."""

    name: str
    dashes: Any  # differ, too, for readers without colours
    width: float  # points
    shades: tuple[str, ...]


TRAINING = Part("training", "-", 1.4, ("#2563eb", "#14286b", "#7aa9fb", "#4a6396"))
VALIDATION = Part("validation", (0, (4, 1.3)), 1.9, ("#ea580c", "#7c2408", "#fca862", "#a8683f"))
CENTERED = {"ha": "center", "va": "center"}  # of text around its position
LEGEND = {"frameon": False, "labelcolor": INK}
MARKERS = "os^DvPX*"  # of the kinds in a panel: chord, root…


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list]:
    """A figure outside pyplot, sizes in inches, and its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()


def add_title(axis: Any, title: str, second: str = "") -> None:
    """A bold title over the axes' left edge, and a pale line under it."""
    pad = 24 if second else 8
    axis.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=pad)
    axis.annotate(second, (0, 1), (0, 8), "axes fraction", "offset points", fontsize=9, color=PALE)


def add_heading(figure: Any, title: str) -> None:
    """A bold title over all axes."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)


def draw_cells(axis: Any, values: Any, **options: Any) -> Any:
    """values (rows, columns) as squares, white to navy; gives the image."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("white to navy", WHITE_TO_NAVY)
    return axis.imshow(values, cmap=colors, aspect="equal", interpolation="nearest", **options)


def add_color_bar(axis: Any, image: Any, left: float, width: float, label: str) -> Any:
    """A colour bar at the right of the axes, `left` and `width` as shares of their width."""
    bar = axis.figure.colorbar(image, cax=axis.inset_axes((left, 0, width, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=PALE, length=0)
    bar.set_label(label, fontsize=8, color=PALE)
    return bar


def tidy(axis: Any, grid: bool = True) -> None:
    """No frame, no tick marks, a pale grid behind the data."""
    if grid:
        axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(which="both", length=0, labelsize=8, colors=PALE)
    for side in axis.spines.values():
        side.set_visible(False)


def draw_line(
    axis: Any, x: Sequence[float], y: Sequence[float], label: str, part: Part, number: int
) -> list:
    """The line of a metric: colour and dashes by `part`, shade and marker by its `number` in the
    panel."""
    return axis.plot(
        x,
        y,
        label=f"{part.name} {label}",
        color=part.shades[number % len(part.shades)],
        linestyle=part.dashes,
        linewidth=part.width,
        marker=MARKERS[number % len(MARKERS)],
        markersize=3.5,
        markevery=math.ceil(len(x) / 30),
    )


def draw_mark(axis: Any, point: tuple[float, float], text: str, color: str, below: bool) -> None:
    """A ring around a point of a line, and `text` beside it."""
    axis.margins(y=0.14)
    axis.plot(*point, "o", color=color, markersize=8, markerfacecolor="white", zorder=4)
    late = point[0] > sum(axis.get_xlim()) / 2
    axis.annotate(
        text,
        point,
        (4 if late else -4, -9 if below else 9),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top" if below else "bottom",
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        **{"fontsize": 8.5, "fontweight": "bold", "color": INK},
    )


def name_kinds(axis: Any, lines: Mapping[str, list]) -> None:
    """A legend under a panel, each name beside its line of training and that of validation."""
    from matplotlib.legend_handler import HandlerTuple

    fits = [n for n in (4, 3, 2) if n * max(map(len, lines)) <= 60 and len(lines) % n != 1]
    axis.legend(
        [tuple(artists) for artists in lines.values()],
        list(lines),
        ncols=max(fits, default=1),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
        handlelength=3.6,
        columnspacing=1.2,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        **LEGEND,
    )


def name_parts(figure: Any, parts: Sequence[Part]) -> None:
    """A legend beside the title: how training looks, and validation."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=p.shades[0], linestyle=p.dashes, linewidth=p.width, label=p.name)
        for p in parts
    ]
    legend = figure.legend(
        handles=handles, loc="upper right", ncols=2, fontsize=9, handlelength=3.4, **LEGEND
    )
    legend.set_in_layout(False)


def save(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as PNG, its margins trimmed."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", pad_inches=0.12)
    write(path, picture.getvalue())
