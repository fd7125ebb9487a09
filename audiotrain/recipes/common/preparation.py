"""Features of many recordings, computed on all cores by processes that end before training.

Where several ranks train, each prepares its share of the recordings.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from audiotrain.features.cache import FeatureCache
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.train.distributed.watchdog import lost_connection
from audiotrain.utils.cores import available_cores
from audiotrain.utils.errors import UserError
from audiotrain.utils.process_pool import map_in_processes
from audiotrain.utils.progress import progress

Item = TypeVar("Item")


def prepare(
    function: Callable[[Item], str | None],
    items: Sequence[Item],
    text: str,
    *,
    name: Callable[[Item], str],
    caches: Iterable[FeatureCache],
    workers: int | None = None,
    ranks: SingleProcess | None = None,
) -> list[str | None]:
    """`function(item)` for each item, with a progress bar named `text`: None, or a line with
    the problem; the function leaves what it made in `caches`, in whichever process it runs.

    `workers` processes compute, by default one for each core; the `ranks` of one host share its
    cores and the items. UserError, one line, when a worker process dies (with `name(item)`),
    here or on another rank. Any other exception of `function` ends the preparation, with a note
    that has `name(item)`.
    """

    def compute(share: Sequence[int], cores: int) -> list[str | None]:
        mine = [items[number] for number in share]
        count = cores if workers is None else workers
        results = map_in_processes(function, mine, workers=count, name=name)
        try:
            with contextlib.closing(results):
                return list(progress(results, text, len(mine)))
        except BaseException:
            for cache in caches:
                cache.remove_partial()
            raise

    return share_out(len(items), compute, ranks or SingleProcess())


def share_out(
    count: int, compute: Callable[[Sequence[int], int], list[str | None]], ranks: SingleProcess
) -> list[str | None]:
    """The result of `compute(numbers, cores)` for each of `count` items, shared out over the ranks
    of one host; another host may have a cache of its own.

    UserError on all ranks when one raises it, or has ended.
    """
    hosts = _gather(ranks, socket.gethostname())
    here = [rank for rank, host in enumerate(hosts) if host == hosts[ranks.rank]]
    share = range(here.index(ranks.rank), count, len(here))  # every n-th item
    results: list[str | None] = []
    error: UserError | None = None
    try:
        results = compute(share, max(1, available_cores() // len(here)))
    except UserError as raised:
        error = raised
    answers = _gather(ranks, [results, None if error is None else str(error)])
    if error is not None:
        raise error
    lines: list[str | None] = [None] * count
    for rank, (of_rank, failure) in enumerate(answers):
        if failure is not None:
            raise UserError(f"rank {rank}: {failure}")
        if rank in here:
            lines[here.index(rank) :: len(here)] = of_rank
    return lines


def fill_cache(
    cache: FeatureCache,
    items: Sequence[Item],
    key: Callable[[Item], tuple[Path | bytes | str, object]],
    compute: Callable[[Sequence[Item]], Iterable[tuple[int, np.ndarray | str]]],
    ranks: SingleProcess,
) -> list[np.ndarray | str]:
    """The cached array of each item, or a line that says why there is none.

    `key(item)` is (source, settings), the item's key in the cache. The ranks share the items that
    are not in it: `compute(items)` yields (number, array or such a line) for those of this rank.
    """
    problems: dict[int, str | None] = {}
    missing = []
    for row, item in enumerate(items):
        try:
            if not cache.holds(*key(item)):
                missing.append(row)
        except UserError as error:  # the source cannot be read
            problems[row] = str(error)

    def compute_share(share: Sequence[int], cores: int) -> list[str | None]:
        mine = [items[missing[number]] for number in share]
        lines: list[str | None] = [None] * len(mine)
        for number, result in compute(mine) if mine else ():
            if isinstance(result, str):
                lines[number] = result
            else:
                cache.get(*key(mine[number]), partial(np.asarray, result))
        return lines

    problems |= zip(missing, share_out(len(missing), compute_share, ranks), strict=True)
    return [problems.get(row) or cache.get(*key(item), None) for row, item in enumerate(items)]


def _gather(ranks: SingleProcess, value: Any) -> list:
    try:
        return ranks.gather(value)
    except RuntimeError as error:
        reason = lost_connection(error)
        if reason is None:
            raise
        raise UserError(f"a rank ended while recordings were prepared: {reason}") from None
