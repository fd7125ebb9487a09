"""The parts of a run's data: its file split.json, and what of each part can be read."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from audiotrain.datasets import splits
from audiotrain.datasets.items import Corpus
from audiotrain.datasets.splits import SPLITS
from audiotrain.datasets.summary import PROBLEMS, list_unreadable, tell_left_out
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.files import write_json

SPLIT = "split.json"
Ids = dict[str, list[str]]  # by "train", "valid" and "test"


def problems_file(run: Path) -> Path | None:
    """The file that lists the problems of a run's data; None on ranks that write nothing."""
    return run / PROBLEMS if distributed.join().rank == 0 else None


def read_split(path: Path) -> Ids:
    """The ids in a split.json. ValueError, one line, when it is missing or damaged."""
    try:
        names = json.loads(path.read_text("utf-8"))["items"]
        return {part: [str(name) for name in names[part]] for part in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a run's split ({error!r})") from None


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
    except ValueError:
        if is_new and distributed.join().rank == 0:
            path.unlink(missing_ok=True)
        raise


def divide(
    corpus: Corpus,
    settings,
    run: Path,
    required: Mapping[str, int],
    unit: str,
    chosen: Path | None = None,
) -> dict[str, list]:
    """The items by part as split.json of the run says, which is made by `datasets.splits` or is a
    copy of the file `chosen`; rank 0's on all ranks. ValueError when a part has fewer than
    `required`, and for ids that are no item's."""
    shares = (1 - settings.valid - settings.test, settings.valid, settings.test)
    saved = run / SPLIT

    def ids() -> Ids:
        if chosen is None:
            parts = splits.split(corpus, settings.seed, shares, saved)
            return {part: [item.id for item in items] for part, items in parts.items()}
        return copy_split(chosen, saved)

    parts = pick(
        {item.id: item for item in corpus.items}, distributed.join().from_first(ids), corpus.folder
    )
    for name, items in parts.items():
        if len(items) < required[name]:
            raise ValueError(
                f"{corpus.folder}: the split of {len(corpus.items)} {unit} leaves "
                f"{len(items) or 'none'} for {name}, expected at least {required[name]}"
            )
    return parts


def copy_split(chosen: Path, saved: Path) -> Ids:
    """The ids in the split of another run, kept in `saved`."""
    ids = read_split(chosen)
    if not saved.exists():
        write_split(saved, ids)
    return ids


def pick(items: Mapping[str, Any], ids: Mapping[str, Sequence[str]], source: object) -> dict:
    """Items by part. ValueError for an id that `items` lacks, which come from `source`."""
    if missing := sorted({one for part in ids.values() for one in part} - set(items)):
        raise ValueError(f"{source}: no {missing[0]}, which the split names: it is of other data")
    return {part: [items[one] for one in part_ids] for part, part_ids in ids.items()}


def load_parts(
    parts: Mapping[str, list],
    load: Callable[[list, str], tuple[Any, list[str]]],
    required: Mapping[str, int],
    unit: str,
    listed: Path | None,
    strict: bool = False,
) -> dict[str, Any]:
    """What `load(items, part)` reads of each part, rank 0 first; what cannot be read is counted,
    named and listed in a file. ValueError when that leaves too few items, or is any when
    `strict`."""
    loaded, problems = {}, []
    for name, items in parts.items():
        loaded[name], lines = distributed.join().first_goes_first(
            lambda items=items, name=name: load(items, name)
        )
        problems += lines
        if lines and (strict or len(loaded[name]) < required[name]):
            list_unreadable(problems, listed)
            count = f"{len(lines)} of {len(items)}"
            raise ValueError(f"{count} {name} {unit} can't be read: {lines[0]}")
    tell_left_out(problems, sum(map(len, parts.values())), unit, listed)
    return loaded


# ---- the split of a trained run


def parts_by_path(run: Path) -> dict[str, str]:
    """The part of each item of a run's data, by its full path; empty for a run without data or
    split."""
    if not ((run / SPLIT).is_file() and (run / "config.yaml").is_file()):
        return {}
    data = yaml.safe_load((run / "config.yaml").read_text("utf-8")).get("data")
    if data is None:
        return {}
    data = Path(data).expanduser()
    folder = (data if data.is_dir() else data.parent).resolve()
    ids = read_split(run / SPLIT)
    return {f"{folder / one}": part for part in SPLITS for one in ids[part]}


def parts_of_items(run: Path, corpus: Corpus) -> dict[str, str]:
    """The part that a run had each item of a corpus in, by id, where it had it in one."""
    parts, folder = parts_by_path(run), corpus.folder.resolve()
    paths = {item.id: f"{folder / item.id}" for item in corpus.items}
    return {one: parts[path] for one, path in paths.items() if path in parts}


def warn_if_trained_on(runs: Sequence[Path], corpus: Corpus, unit: str) -> None:
    """Print how many items a run was trained with: trained on, or the checkpoint chosen by."""
    seen = {
        one for run in runs for one, part in parts_of_items(run, corpus).items() if part != "test"
    }
    if seen:
        by = "the run" if len(runs) == 1 else "one of the runs or more"
        print(
            f"{len(seen)} of {len(corpus.items)} {unit} were in the training of {by}; "
            "--split test scores others",
            file=sys.stderr,
        )
