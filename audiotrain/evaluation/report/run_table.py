"""`audiotrain runs FOLDER`: all runs of a folder, their scores, and the settings that differ."""

import json
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiotrain import config
from audiotrain.evaluation.report.run_reader import (
    ABSENT,
    CV,
    Run,
    differing,
    find_runs,
    headlines,
    is_lower_better,
    written_out,
)
from audiotrain.utils.errors import UserError, exit_code
from audiotrain.utils.files import csv_text, finite_or_none
from audiotrain.utils.text import nearest

NARROWEST, WIDEST = 60, 160  # columns of a terminal
NAME = (16, 40)  # columns of a run's name


@dataclass(frozen=True)
class RunsSettings:
    """List the runs below a folder: scores, time, and the settings in which they differ."""

    folder: Path = Path("runs")
    """where to look, at any depth"""
    sort: str | None = None
    """a score's name, the best run first (default: the newest run first)"""
    json: bool = False
    """write everything as JSON"""
    csv: bool = False
    """write all scores and the differing settings as CSV"""

    def __post_init__(self):
        if self.json and self.csv:
            raise UserError("--json and --csv: expected one of them")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the runs of a folder. The exit code is 2, with a line on stderr, for a mistake."""

    def run() -> None:
        settings = config.load(RunsSettings, argv, prog="audiotrain runs", positional="folder")
        runs = find_runs(settings.folder)
        if not runs:
            raise UserError(f"{settings.folder}: no runs in it or below it")
        if settings.sort is not None:
            runs = sorted_by(runs, settings.sort)
        if settings.json:
            print(json.dumps(finite_or_none([plain(run) for run in runs]), indent=1))
        elif settings.csv:
            sys.stdout.write(as_csv(runs))
        else:
            width = shutil.get_terminal_size((100, 24)).columns
            print(as_text(runs, min(max(width, NARROWEST), WIDEST)))

    return exit_code(run)


def sorted_by(runs: Sequence[Run], score: str) -> list[Run]:
    """The runs with the best `score` first, those without it last.

    `score` is a name in `Run.scores`, or the end of one; ValueError when no run has it.
    """
    values = {run.folder: _find(run, score) for run in runs}
    if all(value is None for value in values.values()):
        known = list(dict.fromkeys(name for run in runs for name in (*run.scores, *headlines(run))))
        raise UserError(f"--sort: no run has the score {score!r}{nearest(score, known)}")
    worst = math.inf if is_lower_better(score) else -math.inf
    ordered = {folder: worst if value is None else value for folder, value in values.items()}
    return sorted(runs, key=lambda run: ordered[run.folder], reverse=worst < 0)


def _find(run: Run, score: str) -> float | None:
    names = [name for name, text in headlines(run).items() if score in (name, text)]
    names += [name for name in run.scores if name == score or name.endswith(f".{score}")]
    return run.scores[names[0]] if names else None


def plain(run: Run) -> dict[str, Any]:
    """A run as an object for JSON."""
    return {
        "run": run.name,
        "folder": str(run.folder),
        "kind": run.kind,
        "state": run.state,
        "problems": list(run.problems),
        "written": date(run.written),
        "seconds": run.seconds,
        "step": run.step,
        "scores": run.scores,
        "settings": run.settings,
    }


def as_csv(runs: Sequence[Run]) -> str:
    """A row a run: all scores, and the settings that are not the same in all runs."""
    scores = list(dict.fromkeys(name for run in runs for name in run.scores))
    names = differing(runs)
    heads = ["run", "kind", "state", "written", "seconds", "step", *scores, *names]
    lines: list[list[Any]] = [heads]
    for run in runs:
        about = [run.name, run.kind, run.state, date(run.written), run.seconds, run.step]
        numbers = [run.scores.get(name, "") for name in scores]
        lines.append(about + numbers + [run.settings.get(name, "") for name in names])
    return csv_text(lines)


def as_text(runs: Sequence[Run], width: int) -> str:
    """Lines of at most `width` columns: a table for each kind, and differing settings under it."""
    kinds = dict.fromkeys(run.kind for run in runs)
    return "\n\n".join(_section([run for run in runs if run.kind == kind], width) for kind in kinds)


def _section(runs: Sequence[Run], width: int) -> str:
    whole_first = sorted(runs, key=lambda run: run.state != "finished")
    columns = list(dict.fromkeys(c for run in whole_first for c in headlines(run).values()))[:5]
    sizes = [max(6, len(column)) for column in columns]
    form = "%Y-%m-%d %H:%M" if width > 96 else "%m-%d %H:%M"
    day = len(date(0, form))
    tail = 2 + 11 + 2 + day + 8  # state, date, duration
    while columns and sum(size + 1 for size in sizes) + tail + NAME[0] > width:
        columns, sizes = columns[:-1], sizes[:-1]
    room = width - tail - sum(size + 1 for size in sizes)
    name = min(max(NAME[0], *(len(run.name) for run in runs)), NAME[1], room)
    count = f"{runs[0].kind} ({len(runs)})"
    head = f"{_fit(count, name)}  {'state':11}  {'written':{day}}{'took':>8}"
    head += "".join(f" {column:>{size}}" for column, size in zip(columns, sizes, strict=True))
    usual = differing(runs)
    common = {name: value for name, value in usual.items() if value is not ABSENT}
    lines = [head.rstrip(), *_settings("most: ", common, width)]
    for run in runs:
        scores = {text: run.scores[key] for key, text in headlines(run).items()}
        line = f"{_fit(run.name, name)}  {run.state:11}  {date(run.written, form)}{took(run):>8}"
        for column, size in zip(columns, sizes, strict=True):
            line += f" {scores[column]:{size}.3f}" if column in scores else " " * size + "-"
        lines.append(line.rstrip())
        lines += _wrapped("  ".join(_remarks(run)), width)
        differ = [name for name in usual if run.settings.get(name, usual[name]) != usual[name]]
        lines += _settings("", {name: run.settings[name] for name in differ}, width)
    return "\n".join(lines)


def _remarks(run: Run) -> list[str]:
    """Problems of a run, and where it stopped."""
    remarks = list(run.problems)
    if run.kind.endswith(CV) and not run.scored:
        remarks.append("not all folds are done")
    elif run.state != "finished" and not (run.problems and run.scored):
        wanted = run.settings.get("steps")
        of = f" of {wanted}" if isinstance(wanted, int) else ""
        remarks.append("no step yet" if run.step is None else f"at step {run.step}{of}")
        if isinstance(error := run.status.get("error"), str):
            remarks.append(error)
    return remarks


def _settings(head: str, values: Mapping[str, Any], width: int) -> list[str]:
    texts = [f"{name}={_value(value)}" for name, value in values.items()]
    return _wrapped(head + "  ".join(texts), width) if texts else []


def _wrapped(text: str, width: int) -> list[str]:
    inside = textwrap.TextWrapper(width - 4, break_on_hyphens=False)
    return [f"    {line}" for line in inside.wrap(_clean(text))]


def _value(value: Any) -> str:
    text = written_out(value)
    return text if len(text) <= 48 else f"…{text[-47:]}"


def _fit(text: str, size: int) -> str:
    text = _clean(text)
    return f"{text:{size}}" if len(text) <= size else f"…{text[len(text) - size + 1 :]}"


def _clean(text: str) -> str:
    """Without control characters, which would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def date(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Seconds since 1970 as local date and time."""
    return time.strftime(form, time.localtime(seconds))


def took(run: Run) -> str:
    """The time of a run's training; - where no checkpoint has it."""
    if run.seconds is None:
        return "-"
    minutes, seconds = divmod(round(run.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
