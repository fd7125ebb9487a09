"""Run folders on disk: settings, scores, history and problems.

A run folder has a `config.yaml`, a `status.json`, a `history.json`, a `metrics.jsonl` or a
cross-validation's `folds.json`. What is missing or damaged is listed in `problems`; no function
raises for it. Settings and scores are flat, by dotted name.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiotrain.config.diff import flat
from audiotrain.config.yaml_files import current_name
from audiotrain.train import checkpoint
from audiotrain.train.history import VALIDATION
from audiotrain.train.run_folder import STATES, STATUS, is_held
from audiotrain.utils.errors import UserError

MARKS = ("config.yaml", STATUS, "history.json", "metrics.jsonl", "folds.json")
WRITTEN = (*MARKS, "metrics.json", "metrics.csv")
INNER = ("checkpoints", "model", "tokenizer", "wandb", "mlruns", "tensorboard", "node_modules")
ABSENT = object()  # the value of a setting that is not there
# Settings of where a run is, which do not change what it computes.
SAME = ("output", "resume", "training.output_dir")
LOWER_IS_BETTER = ("loss", "rank", "error", "seconds", "deviation", "perplexity")
DEEPEST = 12  # levels of nested settings or scores
# Scores that stand for a run in one line: names in metrics.json and for people, by kind.
HEADLINES = {
    "chords": {
        f"viterbi.corpus.{name}": name for name in ("root", "majmin", "sevenths", "mirex", "seg")
    },
    "clap": {
        f"retrieval.{direction}_{score}": f"{short} {score}"
        for direction, short in (("text_to_audio", "t2a"), ("audio_to_text", "a2t"))
        for score in ("R@1", "mAP@10")
    },
    "classify": {name: name for name in ("accuracy", "balanced_accuracy", "lwlrap", "map")},
}
MEANS = ("root", "majmin", "sevenths", "mirex", "seg", *HEADLINES["classify"])  # of folds
CV = "cv"  # ends the kind of a cross-validation
KEYS = {  # settings that only this recipe has
    "chords": {"features.bins_per_octave"},
    "clap": {"pretrained", "templates"},
    "classify": {"task", "folds_of"},
}


class Run(NamedTuple):
    """A run as its folder describes it; `written` is in seconds since 1970, `seconds` is the time
    spent on training."""

    folder: Path
    name: str
    kind: str
    written: float
    seconds: float | None
    settings: dict[str, Any]
    scores: dict[str, float]
    rows: list[dict[str, float]]
    problems: tuple[str, ...]
    scored: bool  # it has a metrics.json or history.json, which are written at the end
    status: dict[str, Any]  # of its status.json, which older runs lack

    @property
    def recipe(self) -> str:
        """Its kind, without saying whether it is a cross-validation: runs of one recipe have the
        same settings and scores."""
        return self.kind.removesuffix(CV).rstrip()

    @property
    def step(self) -> int | None:
        """The last step that it logged, or reached."""
        steps = [int(row["step"]) for row in self.rows]
        reached = self.status.get("step")
        if isinstance(reached, int | float) and is_number(reached) and (steps or reached):
            steps.append(int(reached))
        return max(steps, default=None)

    @property
    def state(self) -> str:
        """finished, running, stopped (by Ctrl-C or SIGTERM), failed (by an error) or interrupted
        (its process was killed); unfinished where an older run has no results; broken where a file
        is."""
        if self.problems:
            return "broken"
        return self.status.get("state") or ("finished" if self.scored else "unfinished")


def find_runs(folder: Path) -> list[Run]:
    """All runs in and below `folder`, newest first. ValueError when there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected one that holds runs")
    runs = [read_run(path, _name(path, folder)) for path in _run_folders(folder)]
    return sorted(runs, key=lambda run: run.written, reverse=True)


def read_run(folder: Path, name: str | None = None) -> Run:
    """The run in `folder`, called `name` or as its folder."""
    problems: list[str] = []
    file = next((n for n in ("config.yaml", "config.json") if (folder / n).exists()), "config.yaml")
    settings = _flat(_object(folder / file, problems) or {}, file, problems)
    metrics = _object(folder / "metrics.json", problems) or {}
    rows = _rows(folder, problems)
    status, meta = _status(folder, problems), _meta(folder)
    if not settings and isinstance(meta.get("config"), dict):
        inner = meta["config"].get("settings", meta["config"])
        settings = _flat(inner if isinstance(inner, dict) else {}, "checkpoint", problems)
    if str(settings.pop("version", 1)) == "1":
        settings = {current_name(name): value for name, value in settings.items()}
    measured = {
        key: float(value)
        for key, value in _flat(metrics, "metrics.json", problems).items()
        if is_number(value) and not isinstance(value, bool)
    }
    if isinstance(best_metric := metrics.get("best_metric"), str):
        measured = _of_training(measured, best_metric, rows)
    written = [(folder / file).stat().st_mtime for file in WRITTEN if (folder / file).exists()]
    seconds = meta.get("seconds")
    return Run(
        folder=folder,
        name=name or folder.resolve().name,
        kind=_kind(settings, measured, folder),
        written=max(written, default=0.0),
        seconds=seconds if is_number(seconds) else None,
        settings=settings,
        scores=measured | best_and_last(rows) | measured,  # as measured, where both have it
        rows=rows,
        problems=tuple(problems),
        scored=any((folder / file).exists() for file in ("metrics.json", "history.json")),
        status=status,
    )


def _status(folder: Path, problems: list[str]) -> dict[str, Any]:
    """What status.json says; "interrupted" where a run neither ended nor has a process."""
    status = _object(folder / STATUS, problems) or {}
    if status.get("state") not in STATES:
        return {}
    if status["state"] == "running" and not is_held(folder):
        return status | {"state": "interrupted"}
    return status


def is_run(folder: Path) -> bool:
    """Whether a folder holds a file that a run writes."""
    return any((folder / name).is_file() for name in MARKS)


def headlines(run: Run) -> dict[str, str]:
    """Up to five scores that stand for a run: name in `run.scores` -> name for people.

    For a run of no recipe: the metric by which the best checkpoint was chosen, then shares, then
    losses; the best value of validation metrics.
    """
    known = HEADLINES.get(run.kind) or {f"mean.{name}": name for name in MEANS}
    if present := {key: text for key, text in known.items() if key in run.scores}:
        return dict(list(present.items())[:5])
    keys = [key for key in run.scores if not key.startswith(("last.", "deviation."))]
    best = {key.removeprefix("best."): key for key in keys if key.startswith("best.")}
    names = {key.removeprefix("best."): key for key in keys} | best
    chosen = [name for name in best if name == run.settings.get("training.best_metric")]
    shares = [name for name, key in names.items() if 0 <= run.scores[key] <= 1]
    shares = [name for name in shares if not is_lower_better(name)]
    losses = [name for name in names if "loss" in name]
    order = list(dict.fromkeys([*chosen, *shares, *best, *losses]))
    return {names[name]: name.rpartition(".")[2] for name in order[:4]}


def differing(runs: Sequence[Run]) -> dict[str, Any]:
    """Settings that differ among the runs that have any, with the value of more than half of them;
    ABSENT where no value is so common, or the commonest is to have none."""
    known = [run.settings for run in runs if run.settings]
    usual = {}
    for name in dict.fromkeys(name for settings in known for name in settings):
        values = [settings.get(name, ABSENT) for settings in known]
        counts = Counter(map(_comparable, values))
        if name not in SAME and len(counts) > 1:
            text, count = counts.most_common(1)[0]
            commonest = next(value for value in values if _comparable(value) == text)
            usual[name] = commonest if 2 * count > len(known) else ABSENT
    return usual


def _comparable(value: Any) -> str:
    """The same for the same values: 50 is 50.0."""
    return repr(float(value) if type(value) is int and is_number(value) else value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold, which a whole one of 400 digits is not.

    >>> [is_number(value) for value in (1, 0.5, "1", float("nan"), 10**400)]
    [True, True, False, False, False]
    """
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def is_lower_better(score: str) -> bool:
    """Whether a lower score is better, by its name.

    >>> [is_lower_better(name) for name in ("best.val_loss", "retrieval.median_rank", "val_acc")]
    [True, True, False]
    """
    return any(word in score for word in LOWER_IS_BETTER)


def written_out(value: Any) -> str:
    """A setting as people write it.

    >>> [written_out(value) for value in (None, True, [1, 2], 0.1)]
    ['none', 'true', '1, 2', '0.1']
    """
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def best_and_last(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The best and the last value of each validation metric, as best.NAME and last.NAME.

    >>> best_and_last([{"step": 1, "val_loss": 1.0}, {"step": 2, "val_loss": 2.0}])
    {'best.val_loss': 1.0, 'last.val_loss': 2.0}
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(VALIDATION):
                values.setdefault(name, []).append(value)
    best = {
        f"best.{name}": (min if is_lower_better(name) else max)(column)
        for name, column in values.items()
    }
    return best | {f"last.{name}": column[-1] for name, column in values.items()}


def _flat(tree: Mapping, file: str, problems: list[str]) -> dict[str, Any]:
    """Values by dotted name; a file that nests too deep is a problem, and has none."""
    try:
        return flat(tree, deepest=DEEPEST)
    except ValueError as error:
        problems.append(f"{file}: {error}")
        return {}


def _of_training(
    measured: Mapping[str, float], best_metric: str, rows: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The scores in the metrics.json of create_trainer: without logged numbers of the last batch
    (loss, rates, memory), and the best score under the name of its metric."""
    logged = {
        name
        for row in rows
        for name in row
        if not name.startswith(("train_", "train/", *VALIDATION))
    }
    kept = {name: value for name, value in measured.items() if name not in logged}
    if "best_score" in kept:
        kept[f"best.{best_metric}"] = kept.pop("best_score")
    return kept


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, inside, _ in os.walk(folder):
        inside[:] = sorted(
            name for name in inside if name not in INNER and not name.startswith(".")
        )
        if is_run(Path(path)):
            yield Path(path)


def _name(path: Path, folder: Path) -> str:
    return folder.resolve().name if path == folder else path.relative_to(folder).as_posix()


def _text(path: Path, problems: list[str]) -> str | None:
    """A file's text; None when there is none, and a problem when it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: cannot be read: {getattr(error, 'strerror', 'not UTF-8')}")
        return None


def _object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """The keys and values of a JSON or YAML file; None where there is no such file, and a problem
    where it holds something else."""
    import yaml

    text = _text(path, problems)
    if text is None:
        return None
    is_yaml = path.suffix == ".yaml"
    try:
        # YAML as JSON has it: dates are text, and a list that holds itself is refused.
        content = json.loads(json.dumps(yaml.safe_load(text), default=str) if is_yaml else text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        kind = "YAML" if is_yaml else "JSON"
        problems.append(f"{path.name}{line}: not valid {kind}: {problem}")
        return None
    if isinstance(content, dict):
        return content
    if content is not None or not is_yaml:  # an empty YAML file
        expected = "`key: value` lines" if is_yaml else "an object"
        problems.append(f"{path.name}: holds {type(content).__name__}, expected {expected}")
    return None


def _rows(folder: Path, problems: list[str]) -> list[dict[str, float]]:
    """Rows of numbers by step: of history.json, or of the log files while there is none."""
    history = _object(folder / "history.json", problems)
    if history is not None:
        parts = [history.get("rows", []), history.get("log", [])]
        if all(isinstance(part, list) for part in parts):
            return _numbers([*parts[1], *parts[0]])
        problems.append("history.json: rows and log are expected to be lists")
    lines = (_text(folder / "metrics.jsonl", problems) or "").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):  # the last line may be being written
                problems.append(f"metrics.jsonl:{number}: not valid JSON")
                break
    return _numbers(rows)


def _numbers(rows: Sequence[Any]) -> list[dict[str, float]]:
    """The finite numbers of rows that have a step, by step."""
    kept = []
    for row in (row for row in rows if isinstance(row, dict)):
        kept.append({str(name): value for name, value in row.items() if is_number(value)})
    return sorted((row for row in kept if "step" in row), key=lambda row: row["step"])


def _meta(folder: Path) -> dict[str, Any]:
    """The description of the run in its last checkpoint; empty where none can be read."""
    for name in ("last", "best"):
        try:
            return checkpoint.load_meta(folder / "checkpoints" / name)
        except (checkpoint.CheckpointError, OSError):
            continue
    return {}


def _kind(settings: Mapping[str, Any], scores: Mapping[str, float], folder: Path) -> str:
    """Which recipe wrote the run, by its settings or scores, else trainer; "cv" after it for
    folds."""
    kinds = [kind for kind, keys in KEYS.items() if keys <= settings.keys()]
    kinds += [kind for kind in ("chords", "clap") if HEADLINES[kind].keys() & scores.keys()]
    kind = (*kinds, "trainer")[0]
    return f"{kind} {CV}" if (folder / "folds.json").exists() else kind
