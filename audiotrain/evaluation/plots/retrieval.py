"""Pictures and tables of retrieval: recall curves, similarities of clips and captions."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotrain.evaluation.plots import style
from audiotrain.evaluation.plots.tables import table_csv
from audiotrain.evaluation.retrieval import RECALLS, Retrieved

DEEPEST = 100  # of the curves
MOST_NAMED = 40  # rows or columns of a similarity matrix that can still be named
NAME_LENGTH = 48  # characters of a caption that are shown


def recall_picture(
    results: Mapping[str, Retrieved], path: str | os.PathLike, title: str = "Retrieval"
) -> None:
    """Write a PNG of curves: the share of queries that find a relevant item among the first k.

    `results` by direction, as `retrieve` returns them. R@1, R@5 and R@10 are dots with their
    numbers; the dashed lines are the recall of a random order.
    """
    figure, (axis,) = style.new_figure(6.4, 4.2)
    deepest = min(DEEPEST, max(one.items for one in results.values()))
    depths = np.arange(1, deepest + 1)
    curves = np.array([(one.ranks[:, None] <= depths).mean(axis=0) for one in results.values()])
    for number, (direction, one) in enumerate(results.items()):
        color, name = style.LINES[number % len(style.LINES)], direction.replace("_", " ")
        label = f"{name}, {one.items} items"
        axis.plot(depths, curves[number], color=color, linewidth=1.8, label=label)
        axis.plot(depths, _chance(one, depths), "--", color=color, linewidth=0.8)
        for depth in (depth for depth in RECALLS if depth <= deepest):
            here = curves[:, depth - 1]
            _dot(axis, depth, here[number], color, above=number == here.argmax())
    axis.set_xscale("log")
    ticks = [depth for depth in (1, 2, 5, 10, 20, 50, 100) if depth <= deepest]
    axis.set_xticks(ticks, labels=[str(depth) for depth in ticks])
    axis.set_xticks([], minor=True)
    axis.set_ylim(0, 1.04)
    axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}%")
    axis.set_xlabel("first k items", fontsize=9, color=style.PALE)
    style.tidy(axis)
    axis.legend(frameon=False, fontsize=8, labelcolor=style.INK, loc="best")
    style.add_title(axis, title, "share of queries that find a relevant item; dashed: chance")
    style.save(figure, path)


def _chance(one: Retrieved, depths: np.ndarray) -> np.ndarray:
    """Share of queries with a relevant item among the first of a random order, by depth."""
    counts, queries = np.unique(one.relevant, return_counts=True)
    earlier = depths - 1
    missed = (one.items - counts[:, None] - earlier) / np.maximum(one.items - earlier, 1)
    recalls = 1 - np.cumprod(np.clip(missed, 0, 1), axis=1)
    return queries @ recalls / queries.sum()


def _dot(axis: Any, depth: int, share: float, color: str, above: bool) -> None:
    axis.plot(depth, share, "o", color=color, markersize=5)
    text_style = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": color}
    axis.annotate(f"{100 * share:.1f}", (depth, share), (0, 6 if above else -14), **text_style)


def similarity_picture(
    similarities: np.ndarray,
    path: str | os.PathLike,
    clips: Sequence[str],
    captions: Sequence[str],
    matches: np.ndarray | None = None,
    title: str = "Similarity",
) -> None:
    """Write a PNG of cosines (clips, captions): a row a clip, a column a caption.

    A frame marks the true pairs: `matches` (clips, captions), or the diagonal of a square. Axes of
    up to MOST_NAMED rows or columns have names. ValueError for cosines of another shape.
    """
    from matplotlib.patches import Rectangle

    similarities = np.asarray(similarities)
    rows, columns = len(clips), len(captions)
    if similarities.shape != (rows, columns) or not similarities.size:
        raise ValueError(
            f"similarities of shape {similarities.shape}, expected {rows} clips, {columns} captions"
        )
    if matches is None:
        matches = np.eye(rows, columns) if rows == columns else np.zeros((rows, columns))
    most = max(rows, columns)
    cell = min(0.8, max(0.26, 3.6 / columns)) if most <= MOST_NAMED else 6.5 / most  # inches
    figure, (axis,) = style.new_figure(max(2.4, cell * columns) + 2.6, max(1.8, cell * rows) + 2.0)
    image = style.draw_cells(axis, similarities)
    for row, column in zip(*np.nonzero(matches), strict=True):
        corner = (column - 0.5, row - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=style.LINES[1], linewidth=1.2))
    style.tidy(axis, grid=False)
    _name(axis.set_yticks, clips)
    _name(axis.set_xticks, captions, rotation=90)
    side = cell * columns
    style.add_color_bar(axis, image, 1 + 0.2 / side, 0.14 / side, "cosine")
    first = np.asarray(matches, bool)[np.arange(rows), similarities.argmax(axis=1)]
    correct = f"{first.mean():.0%} of {rows} clips are nearest to a caption of theirs"
    style.add_title(axis, title, correct)
    style.save(figure, path)


def _name(set_ticks: Any, names: Sequence[str], **layout: Any) -> None:
    if len(names) > MOST_NAMED:
        set_ticks([])
        return
    short = [n if len(n) <= NAME_LENGTH else n[: NAME_LENGTH - 1] + "…" for n in names]
    # Matplotlib sets text between dollar signs as mathematics.
    labels = [name.replace("$", r"\$") for name in short]
    set_ticks(range(len(names)), labels=labels, fontsize=7.5, color=style.INK, **layout)


def retrieval_csv(scores: Mapping[str, float], path: str | os.PathLike) -> None:
    """Write a CSV of `retrieval_scores`: a row a direction, a column a score, to 4 decimals."""
    rows: dict[str, dict[str, Any]] = {}
    for name, value in scores.items():
        direction = next(one for one in ("text_to_audio", "audio_to_text") if name.startswith(one))
        row = rows.setdefault(direction, {"direction": direction})
        row[name.removeprefix(f"{direction}_")] = value
    table_csv(list(rows.values()), path)
