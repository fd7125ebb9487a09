"""`audiotrain report RUN…`: runs side by side on one HTML page without other files.

The page is `page/page.html` with its style and script in it, and the runs as JSON that the script
draws. It loads nothing over the network: its policy lets the browser run this script only.
"""

import csv
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from audiotrain import config
from audiotrain.evaluation.plots.confusion import MANY
from audiotrain.evaluation.report.chord_player import songs_and_sounds
from audiotrain.evaluation.report.run_reader import (
    CV,
    Run,
    differing,
    find_runs,
    headlines,
    is_lower_better,
    is_run,
    read_run,
    written_out,
)
from audiotrain.evaluation.report.run_table import date, took
from audiotrain.evaluation.song_page.document import ASSETS as SHARED
from audiotrain.evaluation.song_page.document import document
from audiotrain.utils.errors import UserError, exit_code
from audiotrain.utils.files import write
from audiotrain.utils.text import count

PAGE = Path(__file__).parent / "page"
SHARED_SCRIPTS = ("elements.js", "player.js")  # with a song's page
SCRIPTS = ("page.js", "tables.js", "curves.js", "confusion.js", "listen.js", "main.js")
SIGN = '<meta name="generator" content="audiotrain report">'  # of a page that may be replaced
MOST_POINTS = 800  # of a curve
MOST_ROWS = 200  # of a table
COUNTS = ("seconds", "songs", "clips", "captions", "distinct_captions", "switching_cost", "folds")
NO_TABLES = ("metrics", "confusion")  # how CSV files begin that are not shown as tables


@dataclass(frozen=True)
class ReportSettings:
    """Compare runs on one HTML page: curves, scores, confusions, settings, chords with sound."""

    runs: Annotated[tuple[Path, ...], Field(min_length=1)]
    """run folders, what `evaluate` wrote, or folders of runs; differences are to the first"""
    output: Path = Path("report.html")
    """the page"""
    title: str | None = None
    """its heading (default: the runs' names)"""
    sound_megabytes: Annotated[float, Field(ge=0, le=100)] = 6.0
    """of recordings to embed, compressed; 0: none"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; 2 and a line on stderr for a mistake."""

    def run() -> None:
        settings = config.load(ReportSettings, argv, prog="audiotrain report", positional="runs")
        runs = chosen_runs(settings.runs)
        content = page(runs, settings.title, round(settings.sound_megabytes * 1e6))
        refuse_other_files(settings.output)
        write(settings.output, content)
        print(f"{settings.output}: {count(len(runs), 'run')}, {len(content) / 1e6:.1f} MB")

    return exit_code(run)


def chosen_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of the folders, each once, in their order, a cross-validation's folds after it;
    ValueError for a folder without any."""
    by_folder: dict[Path, Run] = {}
    for folder in folders:
        evaluated = (folder / "metrics.json").is_file()  # a run, or what `evaluate` wrote of one
        runs = [read_run(folder)] if evaluated or is_run(folder) else find_runs(folder)
        if len(runs) == 1 and runs[0].kind.endswith(CV):
            inside = [run for run in find_runs(folder) if run.folder.resolve() != folder.resolve()]
            runs += sorted(inside, key=lambda run: run.name)
        if not runs:
            raise UserError(f"{folder}: no run in it, expected a run folder or a folder of runs")
        for run in runs:
            by_folder.setdefault(run.folder.resolve(), run)
    return distinct(list(by_folder.values()))


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs, those of one name called by more of their path."""
    counts = Counter(run.name for run in runs)
    return [run._replace(name=str(run.folder)) if counts[run.name] > 1 else run for run in runs]


def refuse_other_files(path: Path) -> None:
    """ValueError when `path` holds something that this did not write."""
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected the name of a page, such as report.html")
    if path.exists() and SIGN not in path.read_bytes()[:2000].decode("utf-8", "replace"):
        raise UserError(f"{path}: holds something else than a report; --output names another")


def page(runs: Sequence[Run], title: str | None = None, sound_bytes: int = 6_000_000) -> str:
    """The whole page as text."""
    names = ", ".join(run.name for run in runs[:4]) + (" …" if len(runs) > 4 else "")
    return document(
        PAGE / "page.html",
        [SHARED / "player.css", PAGE / "page.css"],
        [*(SHARED / name for name in SHARED_SCRIPTS), *(PAGE / name for name in SCRIPTS)],
        title or names,
        describe(runs, sound_bytes),
        kind="report",
    )


def describe(runs: Sequence[Run], sound_bytes: int) -> dict[str, Any]:
    """The data of the page's script: runs by recipe, their scores, songs and sounds."""
    recipes = {run.recipe: [one for one in runs if one.recipe == run.recipe] for run in runs}
    runs = [run for group in recipes.values() for run in group]
    songs, sounds = songs_and_sounds(runs, sound_bytes)
    names = dict.fromkeys(name for run in runs for name in run.scores)
    return {
        "made": date(time.time()),
        "runs": [describe_run(run) for run in runs],
        "differing": {recipe: list(differing(group)) for recipe, group in recipes.items()},
        "neutral": [name for name in names if name.rpartition(".")[2] in COUNTS],
        "lower": [name for name in names if is_lower_better(name)],
        "songs": songs,
        "sounds": sounds,
    }


def describe_run(run: Run) -> dict[str, Any]:
    """The data of one run."""
    return {
        "name": run.name,
        "kind": run.kind,
        "recipe": run.recipe,
        "state": run.state,
        "problems": run.problems,
        "written": date(run.written),
        "step": run.step,
        "took": None if run.seconds is None else took(run),
        "settings": {name: written_out(value) for name, value in run.settings.items()},
        "scores": run.scores,
        "headlines": headlines(run),
        "series": series(run.rows),
        "confusions": confusions(run.folder),
        "tables": tables(run.folder),
    }


def series(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    """Metric -> its steps "x" and values "y", thinned to MOST_POINTS with both ends kept.

    >>> series([{"step": 1, "epoch": 0, "loss": 2.0}, {"step": 2, "epoch": 0, "loss": 1.0}])
    {'loss': {'x': [1, 2], 'y': [2.0, 1.0]}}
    """
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                points.setdefault(name, {})[row["step"]] = float(f"{value:.6g}")
    thinned = {}
    for name, values in points.items():
        steps = sorted(values)
        stride = -(-len(steps) // MOST_POINTS)
        kept = steps[:-1][::stride] + steps[-1:]
        thinned[name] = {"x": kept, "y": [values[step] for step in kept]}
    return thinned


def confusions(folder: Path) -> list[dict[str, Any]]:
    """Confusion matrices of a run's CSV files, those of most classes first; cells are [reference,
    predicted, count]."""
    matrices: list[tuple[int, dict[str, Any]]] = []
    for path in sorted(folder.glob("confusion*.csv")):
        header, *rows = _csv(path) or [[]]
        classes = [str(name) for name in header[1:]]
        if not classes or [len(row) for row in rows] != [len(header)] * len(classes):
            continue
        cells = [
            (r, c, count)
            for r, row in enumerate(rows)
            for c, count in enumerate(row[1:])
            if isinstance(count, float) and count > 0
        ]
        name = path.stem.removeprefix("confusion").removeprefix("-") or "classes"
        matrix = {"name": name, "classes": classes, "cells": cells}
        if len(classes) > MANY and cells:  # without classes that neither occur nor are predicted
            kept = sorted({number for r, c, _ in cells for number in (r, c)})
            matrix["classes"] = [classes[number] for number in kept]
            matrix["cells"] = [(kept.index(r), kept.index(c), count) for r, c, count in cells]
        matrices.append((len(classes), matrix))
    return [matrix for _, matrix in sorted(matrices, key=lambda pair: -pair[0])]


def tables(folder: Path) -> list[dict[str, Any]]:
    """The other tables of a run, at most MOST_ROWS of each."""
    shown = []
    for path in sorted(folder.glob("*.csv")):
        lines = [] if path.name.startswith(NO_TABLES) else _csv(path)
        if len(lines) > 1:
            columns = [str(name) for name in lines[0]]
            rows = [(row + [None] * len(columns))[: len(columns)] for row in lines[1:]]
            table = {"name": path.stem, "columns": columns, "rows": rows[:MOST_ROWS]}
            shown.append(table | {"total": len(rows)})
    return shown


def _csv(path: Path) -> list[list[Any]]:
    """Rows of a CSV, numbers as floats, None for empty cells; none if it is damaged."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [header, *([row[0] or None, *map(_cell, row[1:])] for row in rows)] if header else []


def _cell(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
