"""Features of many recordings, computed on all cores by processes that end before training.

Where several ranks train, each prepares its share of the recordings.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from audiotrain.features.cache import FeatureCache
from audiotrain.train.distributed.ranks import Alone
from audiotrain.utils.cores import available_cores
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
    ranks: Alone | None = None,
) -> list[str | None]:
    """`function(item)` for each item, with a progress bar that says `text`: None, or what is wrong
    with it; the function leaves what it made in `caches`, in whichever process it runs.

    The `ranks` of one host share its cores and its items; all have the same results. ValueError,
    one line, when a worker process dies (`name(item)` says where), here or on another rank.
    """
    ranks = ranks or Alone()
    hosts = ranks.gather(socket.gethostname())
    here = [rank for rank, host in enumerate(hosts) if host == hosts[ranks.rank]]
    share = range(here.index(ranks.rank), len(items), len(here))
    workers = max(1, available_cores() // len(here))
    results: list[str | None] = []
    error = None
    try:
        mine = [items[number] for number in share]
        with contextlib.closing(
            map_in_processes(function, mine, workers=workers, name=name)
        ) as found:
            results.extend(progress(found, text, len(mine)))
    except ValueError as raised:
        error = raised
    finally:
        if len(results) < len(share):
            for cache in caches:
                cache.remove_partial()
    answers = ranks.gather([list(share), results, None if error is None else str(error)])
    if error is not None:
        raise error
    problems: list[str | None] = [None] * len(items)
    for rank, (numbers, lines, failure) in enumerate(answers):
        if failure is not None:
            raise ValueError(f"rank {rank}: {failure}")
        for number, line in zip(numbers, lines, strict=True):
            problems[number] = problems[number] or line
    return problems
