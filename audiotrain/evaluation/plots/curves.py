"""Curves of training and validation."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from audiotrain.evaluation.plots import style
from audiotrain.evaluation.plots.style import Part

RANKED = {"map", "mAP", "recall", "R", "mrr", "ndcg"}  # words in names of retrieval's metrics
PERCENT = ("accuracy", "retrieval")  # panels of shares
COLUMNS = 3  # panels side by side

Placed = list[tuple[float, Mapping[str, Any]]]  # (time in epochs, row); 1.0 is the end of the first


def curves_picture(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    title: str = "Training",
    log: Sequence[Mapping[str, Any]] = (),
    monitor: str | None = None,
    mode: str = "min",
    tie: str | None = None,
) -> None:
    """Write a PNG of a history over epochs: panels for the loss, accuracies, retrieval, the
    learning rate and each other metric of training or validation.

    `rows` are the history's, one per epoch, `log` has the validations inside epochs; a panel
    without numbers is left out. A mark shows the epoch with the best `monitor` by `mode` (of
    several equal ones, that with the lowest `tie`); without `monitor` that with the lowest
    validation loss. ValueError for a history without numbers, another `mode`, and a file that
    cannot be written.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is {mode!r}, expected 'min' or 'max'")
    placed = _placed(rows, log)
    panels = _panels(placed, monitor)
    if not panels:
        raise ValueError("history has neither losses nor accuracies nor learning rates to plot")
    high = math.ceil(len(panels) / COLUMNS)
    wide = math.ceil(len(panels) / high)
    figure, axes = style.new_figure(4.6 * wide + 0.6, 3.9 * high, rows=high, columns=wide)
    decides = monitor or "val_loss"
    kept = _kept(placed, decides, mode if monitor else "min", tie if monitor else None)
    for axis, (panel, names) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, panel, placed, names)
        if kept and monitor:
            axis.axvline(kept[0], color=style.PALE, linewidth=0.9, linestyle=":", zorder=1)
        if kept and decides in names:
            share = f"{kept[1] * _hundred(placed, names):.1f}%"
            value = share if panel in PERCENT else f"{kept[1]:.3f}"
            text = f"{'kept:' if monitor else 'best'} {value}, epoch {math.ceil(kept[0])}"
            style.draw_mark(axis, kept, text, _part(decides).shades[0], below=mode == "min")
    for axis in axes[len(panels) :]:
        axis.remove()
    style.add_heading(figure, title)
    style.name_parts(figure, sorted({_part(name) for names in panels.values() for name in names}))
    style.save(figure, path)


def _placed(rows: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]) -> Placed:
    """Rows at the ends of their epochs, validations of the log where they were; the last of an
    epoch is in its row, too, and is left out there."""
    placed: Placed = []
    begin = 0
    for number, row in enumerate(rows):
        epoch, end = row.get("epoch", number), row.get("step", 0)
        inside: dict[str, Any] = {}
        for entry in log:
            numbers = {
                name: value for name, value in entry.items() if name.startswith(("val_", "val/"))
            }
            if entry["epoch"] == epoch and numbers:
                share = (entry["step"] - begin) / (end - begin) if end > begin else 1
                placed.append((epoch + share, numbers))
                inside |= numbers
        again = inside and all(row.get(name) == value for name, value in inside.items())
        placed.append((epoch + 1, {k: row[k] for k in row if not (again and k in inside)}))
        begin = end
    return placed


def _with(placed: Placed, name: str) -> Placed:
    return [(x, row) for x, row in placed if row.get(name) is not None and math.isfinite(row[name])]


def _kept(placed: Placed, monitor: str, mode: str, tie: str | None) -> tuple[float, float] | None:
    """Epochs and value of the checkpoint that ModelCheckpoint keeps; None without a value.

    Of equal values the first, with `tie` the last of those where that is lowest.
    """
    sign = 1 if mode == "min" else -1
    rows = _with(placed, monitor)[:: 1 if tie is None else -1]
    if not rows:
        return None
    x, row = min(rows, key=lambda one: (sign * one[1][monitor], one[1].get(tie or "", 0)))
    return x, row[monitor]


def _part(name: str) -> Part:
    return style.VALIDATION if name.startswith(("val_", "val/")) else style.TRAINING


def _kind(name: str) -> str:
    for stage in ("train_", "train/", "val_", "val/"):
        name = name.removeprefix(stage)
    return name


def _label(name: str) -> str:
    """A metric's name in a legend, without its part.

    >>> [_label(name) for name in ("val_chord_type_acc", "val_text_to_audio_recall_at_1")]
    ['chord type', 'text to audio R@1']
    """
    short = _kind(name).removesuffix("_acc").replace("recall_at_", "R@").replace("map_at_", "mAP@")
    return short.replace("_", " ")


def _panel_of(name: str, monitor: str | None) -> str | None:
    """The panel of a metric; None for what is not shown, such as parts of a loss."""
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
    """Panel -> names of its metrics: what is monitored first, then by name. Colours follow from
    the order, so it does not depend on when the first validation was."""
    panels: dict[str, list[str]] = {}
    names = {name for _, row in placed for name in row}
    decides = _kind(monitor or "")
    for name in sorted(names, key=lambda name: (_kind(name) != decides, _kind(name), name)):
        panel = _panel_of(name, monitor)
        if panel and _with(placed, name):
            panels.setdefault(panel, []).append(name)
    first = ("loss", "accuracy", "retrieval")
    order = [*first, *sorted(set(panels) - {*first, "learning rate"}), "learning rate"]
    return {panel: panels[panel] for panel in order if panel in panels}


def _draw_panel(axis: Any, panel: str, placed: Placed, names: Sequence[str]) -> None:
    """A line a metric: colour and dashes by its part, shade and marker by its kind."""
    lines: dict[str, list] = {}
    for name in names:
        artists = lines.setdefault(_label(name), [])
        number = list(lines).index(_label(name))
        rows = _with(placed, name)
        x, y = [x for x, _ in rows], [row[name] for _, row in rows]
        artists += style.draw_line(axis, x, y, _label(name), _part(name), number)
    _finish_panel(axis, panel, placed, names)
    if len(lines) > 1:
        style.name_kinds(axis, lines)


def _finish_panel(axis: Any, panel: str, placed: Placed, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_title(panel, loc="left", fontsize=10, color=style.INK)
    axis.set_xlabel("epoch", fontsize=9, color=style.PALE)
    axis.set_xlim(0.5, max(x for x, _ in placed) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    style.tidy(axis)
    if panel in PERCENT:
        hundred = _hundred(placed, names)
        axis.yaxis.set_major_formatter(lambda share, _: f"{round(hundred * share, 6):g}%")
    if panel == "learning rate":
        axis.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axis.set_ylim(bottom=0)


def _hundred(placed: Placed, names: Sequence[str]) -> int:
    """The factor that makes percent of a panel's values: 100 where they are shares of 1."""
    return 100 if all(row[name] <= 1 for name in names for _, row in _with(placed, name)) else 1
