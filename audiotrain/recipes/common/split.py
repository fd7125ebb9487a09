"""The parts of a run's data: its file split.json, and what of each part can be read."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audiotrain.config import conform, read_yaml
from audiotrain.datasets import splits
from audiotrain.datasets.items import Corpus
from audiotrain.datasets.splits import SPLITS
from audiotrain.datasets.summary import ProblemLog
from audiotrain.features.audio import as_error
from audiotrain.recipes.common import checkpoints
from audiotrain.recipes.common.exported import DESCRIPTION, is_exported, read_description
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object, write_json
from audiotrain.utils.text import count, of_total

if TYPE_CHECKING:
    from audiotrain.recipes.common.recipe import Recipe

SPLIT = "split.json"
Ids = dict[str, list[str]]  # by "train", "valid" and "test"


@dataclass(frozen=True)
class _TrainedOn:
    songs: Ids
    pretrained: dict[str, Any] | None = None


class Incomplete(NamedTuple):
    """A result of `Recipe.load` of which a part could not be decoded: the item, and a line that
    names the file and the seconds."""

    item: Any
    line: str


def problem_log(run: Path, brief: bool = False) -> ProblemLog:
    """The log of the problems of a run's data, which rank 0 writes."""
    return ProblemLog(run if distributed.join().rank == 0 else None, brief)


def read_split(path: Path) -> Ids:
    """Return the ids in a split.json. UserError when it is missing or damaged."""
    place = f"{path}: not a run's split"
    ids = conform(read_json_object(path, place).get("items"), dict[str, list[str]], place)
    if missing := [part for part in SPLITS if part not in ids]:
        raise UserError(f"{place}: no {missing[0]}")
    return {part: ids[part] for part in SPLITS}


def write_split(path: Path, ids: Mapping[str, Sequence[str]]) -> None:
    """Save ids by part as `read_split` reads them."""
    write_json(path, {"items": ids})


@contextlib.contextmanager
def withdrawn_on_error(run: Path) -> Iterator[None]:
    """Remove a split.json that is made inside the block when the data are refused there: it would
    decide the parts of better data."""
    path = run / SPLIT
    is_new = not path.exists()
    try:
        yield
    except UserError:
        if is_new and distributed.join().rank == 0:
            path.unlink(missing_ok=True)
        raise


def divide(recipe: "Recipe", corpus: Corpus, run: Path) -> dict[str, list]:
    """The items by part of the run's split.json, which is made by `datasets.splits` or is a copy of
    the recipe's `chosen_split`; rank 0's on all ranks. ValueError when a part has fewer
    than the recipe's `required`, and for ids that are no item's."""
    settings, saved = recipe.settings, run / SPLIT

    def ids() -> Ids:
        if recipe.chosen_split is not None:
            return copy_split(recipe.chosen_split, saved)
        shares = (1 - settings.valid - settings.test, settings.valid, settings.test)
        parts = splits.split(corpus, settings.seed, shares, saved)
        return {part: [item.id for item in items] for part, items in parts.items()}

    known = {item.id: item for item in corpus.items}
    chosen = distributed.join().broadcast_from_rank0(ids)
    parts = pick(known, chosen, recipe.chosen_split or corpus.folder, recipe.unit)
    for name, items in parts.items():
        if len(items) < recipe.required[name]:
            items_in_all = count(len(known), recipe.unit.removesuffix("s"))
            raise UserError(
                f"{corpus.folder}: the split of {items_in_all} leaves "
                f"{len(items) or 'none'} for {name}, expected {recipe.required[name]} or more"
            )
    return parts


def copy_split(chosen: Path, saved: Path) -> Ids:
    """The ids in the split of another run, kept in `saved`."""
    ids = read_split(chosen)
    if not saved.exists():
        write_split(saved, ids)
    return ids


def pick(
    items: Mapping[str, Any], ids: Mapping[str, Sequence[str]], source: object, unit: str
) -> dict[str, list]:
    """The items of each part, from their `ids`; the number of items in no part is printed.

    `source` is the file of the ids. ValueError for an id that no item has.
    """
    named = {one for part in ids.values() for one in part}
    if missing := sorted(named - set(items)):
        raise UserError(f"{source}: no {missing[0]} here, which the split names")
    if unnamed := len(items) - len(named):
        unnamed_items = of_total(unnamed, len(items), unit)
        print(f"left out {unnamed_items} that --split {source} does not name")
    return {part: [items[one] for one in part_ids] for part, part_ids in ids.items()}


def load_parts(recipe: "Recipe", parts: Mapping[str, list], log: ProblemLog) -> dict[str, list]:
    """The loaded items of each part; those that cannot be read go into `log`. ValueError when too
    few are left, or when one cannot be read and the recipe is strict."""
    results = iter(recipe.load([(name, item) for name, items in parts.items() for item in items]))
    loaded: dict[str, list] = {}
    problems: list[str] = []
    incomplete: list[str] = []
    for name, items in parts.items():
        loaded[name], lines, partly = readable([next(results) for _ in items], recipe.strict)
        problems += lines
        incomplete += partly
        if lines and (recipe.strict or len(loaded[name]) < recipe.required[name]):
            log.add_unreadable(problems)
            unreadable = of_total(len(lines), len(items), f"{name} {recipe.unit}")
            raise UserError(f"{unreadable} can't be read: {lines[0]}")
    total = sum(map(len, parts.values()))
    log.report_unreadable(problems, total, recipe.unit)
    log.report_incomplete(incomplete, total, recipe.unit)
    return loaded


def keep_readable(results: Sequence, unit: str, log: ProblemLog, strict: bool = False) -> list:
    """The items that were read; the reasons of the others go into `log`. ValueError when none was
    read, or when one was not and `strict` is set."""
    loaded, problems, incomplete = readable(results, strict)
    if problems and (strict or not loaded):
        log.add_unreadable(problems)
        unreadable = of_total(len(problems), len(results), unit)
        raise UserError(f"{unreadable} can't be read: {problems[0]}")
    log.report_unreadable(problems, len(results), unit)
    log.report_incomplete(incomplete, len(results), unit)
    return loaded


def none_readable(problems: Sequence[str], unit: str) -> str:
    """The line for items of which none can be read, from the lines of all of them."""
    if len(problems) == 1:
        return problems[0]
    return f"none of {len(problems)} {unit} can be read: {problems[0]}"


def print_left_out(problems: Sequence[str], total: int, unit: str) -> None:
    """Print what could not be read of `total` items, on stderr."""
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if problems:
        print(f"left out {of_total(len(problems), total, unit)}", file=sys.stderr)


def print_incomplete(lines: Sequence[str]) -> None:
    """Print what could not be decoded of items that are used, on stderr."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def readable(results: Sequence, strict: bool = False) -> tuple[list, list[str], list[str]]:
    """Of the results of `Recipe.load`, the items that were read, the lines of the others, and those
    of items of which a part could not be decoded; such an item is not read when `strict`."""
    items: list = []
    problems: list[str] = []
    incomplete: list[str] = []
    for one in results:
        if isinstance(one, str):
            problems.append(one)
        elif not isinstance(one, Incomplete):
            items.append(one)
        elif strict:
            problems.append(as_error(one.line))
        else:
            items.append(one.item)
            incomplete.append(one.line)
    return items, problems, incomplete


# ---- the split of a trained run


def trained_parts(run: Path, corpus: Corpus) -> dict[str, str]:
    """The part of each item in a run's split, by id; only of items of the data that the run was
    trained on. An exported model keeps only their ids, whatever the folder that they are in, at any
    depth."""
    if is_exported(run):
        return next(all_trained_parts(run, corpus), {})
    if not ((run / SPLIT).is_file() and (run / "config.yaml").is_file()):
        return {}
    data = read_yaml(run / "config.yaml").get("data")
    if data is None:
        return {}
    data = Path(data).expanduser()
    folder = (data if data.is_dir() else data.parent).resolve()
    parts = {folder / one: part for one, part in _parts_by_id(read_split(run / SPLIT)).items()}
    paths = {item.id: corpus.folder.resolve() / item.id for item in corpus.items}
    return {one: parts[path] for one, path in paths.items() if path in parts}


def _parts_of_ids(ids: Mapping[str, Sequence[str]], corpus: Corpus) -> dict[str, str]:
    """The part of each item whose path ends with an id of a part."""
    known = _parts_by_id(ids)
    ends = {item.id: _known_end(item.id, known) for item in corpus.items}
    return {item: known[end] for item, end in ends.items() if end is not None}


def _parts_by_id(ids: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The part of each id."""
    return {one: part for part in ids for one in ids[part]}


def _known_end(path: str, known: Mapping[str, str]) -> str | None:
    """The longest end of a path, in whole names, that is among the known ones.

    >>> _known_end("songs/pop909/001.mid", {"001.mid": "train"})
    '001.mid'
    """
    names = path.split("/")
    ends = ("/".join(names[first:]) for first in range(len(names)))
    return next((end for end in ends if end in known), None)


def pretrained_of(run: Path) -> Path | None:
    """The run or the exported model that the training of a run started from; None where there is
    none any more."""
    if not (run / "config.yaml").is_file():
        return None
    settings = read_yaml(run / "config.yaml")
    if settings.get("pretrained") is None:
        return None
    start = Path(settings["pretrained"]).expanduser()
    if start == Path(checkpoints.SHIPPED):
        start = checkpoints.PRETRAINED / str(checkpoints.recipe_of(run))
    is_model = is_exported(start) or (start / SPLIT).is_file()
    return start if is_model and start.resolve() != run.resolve() else None


def all_trained_parts(run: Path, corpus: Corpus) -> Iterator[dict[str, str]]:
    """`trained_parts` of a run, of the model that its training started from, and so on.
    CheckpointError, one line, where the description of an exported model does not say."""
    if not is_exported(run):
        yield trained_parts(run, corpus)
        if (start := pretrained_of(run)) is not None:
            yield from all_trained_parts(start, corpus)
        return
    with checkpoints.of_this_version(f"{run / DESCRIPTION}: trained_on"):
        description = read_description(run)
        while description:
            trained_on = conform(description.get("trained_on"), _TrainedOn, "trained_on")
            yield _parts_of_ids(trained_on.songs, corpus)
            description = trained_on.pretrained


def item_parts(run: Path | None, corpus: Corpus) -> dict[str, str]:
    """The part of each item, by id: that of the run for items of its data; else that of the data;
    else (of data that were moved) that of the run for the same ids."""
    declared = {item.id: item.split for item in corpus.items if item.split}
    if run is None:
        return declared
    if parts := trained_parts(run, corpus) or declared:
        return parts
    ids = _parts_by_id(read_split(run / SPLIT)) if (run / SPLIT).is_file() else {}
    known = {item.id: ids[item.id] for item in corpus.items if item.id in ids}
    if known:
        print(
            f"{corpus.folder} is not the folder that {run} was trained on: the parts of its split "
            f"are taken by the names of {len(known)} of {len(corpus.items)} recordings",
            file=sys.stderr,
        )
    return known


def part_of(runs: Sequence[Path], corpus: Corpus, part: str, unit: str) -> list:
    """The items that are in a part by the `item_parts` of all runs; without a run, by those of the
    data. ValueError when there is none."""
    parts = [item_parts(run, corpus) for run in runs or (None,)]
    items = [item for item in corpus.items if all(one.get(item.id) == part for one in parts)]
    if not items:
        whose = "the run's split" if len(runs) == 1 else f"the splits of all {len(runs)} runs"
        where = f"neither {whose} nor the data" if runs else "the data do not"
        raise UserError(
            f"--split {part}: {where} name any of the {count(len(corpus.items), unit[:-1])} in "
            f"{corpus.folder}"
        )
    return items


def warn_if_trained_on(
    runs: Sequence[Path],
    corpus: Corpus,
    unit: str,
    advice: str = "; --split test scores others",
) -> None:
    """Print how many items were in the training or validation parts of runs, or of the models that
    their training started from; `advice` follows where the runs have test items of the data."""
    seen = {
        one
        for run in runs
        for parts in all_trained_parts(run, corpus)
        for one, part in parts.items()
        if part != "test"
    }
    if seen:
        by = "the run" if len(runs) == 1 else "one of the runs or more"
        parts = [item_parts(run, corpus) for run in runs]
        if not any(all(one.get(item.id) == "test" for one in parts) for item in corpus.items):
            advice = ""
        print(
            f"{of_total(len(seen), len(corpus.items), unit)} were in the training of {by}{advice}",
            file=sys.stderr,
        )
