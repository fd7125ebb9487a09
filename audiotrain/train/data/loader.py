"""Dataset and DataLoader: batches of samples, loaded by workers that use NumPy only.

Order and randomness of a pass depend on (seed, epoch, index) alone, so the number and kind of
workers change nothing and a resumed pass continues where it stood without replaying samples.
"""

import collections
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from audiotrain.train.data.collate import default_collate, pad_collate, to_mlx
from audiotrain.train.data.samplers import DistributedSampler, Sampler, check_count
from audiotrain.train.data.workers import ORDER, Failure, Processes, Source, Threads, generator
from audiotrain.train.protocols import DatasetProtocol, check_protocol
from audiotrain.utils.errors import UserError

__all__ = [
    "DataLoader",
    "Dataset",
    "SampleError",
    "default_collate",
    "pad_collate",
    "to_mlx",
]


Task = tuple[int, np.ndarray]  # an epoch, and the rows of one of its batches


class Dataset:
    """Samples by number: define `__len__` and `__getitem__`.

    A sample is a dict, a tuple, a NumPy array or a number. A dataset may also define

    - `get(index, rng)`: called instead of `__getitem__`, with a NumPy Generator of its own for
      (seed, epoch, index): random crops and augmentation belong there;
    - `describe(index) -> str`: the file or row behind a sample, named in errors.
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")


class SampleError(ValueError):
    """A sample could not be loaded; the message names it, `__cause__` is the original error."""


class UnreadableSampleError(SampleError, UserError):
    """A sample could not be loaded because of its file: its `__cause__` is a UserError."""


class DataLoader:
    """Batches of `dataset`, one pass per `iter`, each pass a new epoch.

    - `num_workers`: 0 loads in the calling thread; otherwise `worker_type` "thread" or "process"
      (forkserver; dataset, cpu_transforms and collate_fn must then be picklable). At most
      prefetch_factor * num_workers batches are in preparation or waiting.
    - `cpu_transforms`: a callable or a list of them, `item -> item`, in the workers, NumPy only;
      one whose second parameter is named `rng` gets the sample's generator too.
    - `collate_fn`: list of items -> batch, in the workers; None is `default_collate`.
    - `mlx_transforms`: a callable or a list of them, `batch -> batch`, in the calling thread; None
      turns NumPy leaves into mx.array, an empty tuple leaves them alone.
    - `sampler`: a `samplers.Sampler` of indices, instead of `shuffle`.
    - `batch_sampler`: one of whole batches, instead of `batch_size`, `shuffle` and `drop_last`.
    - `persistent_workers`: keeps the workers, and a process's copy of the dataset, between passes.

    Under `mlx.launch` the Trainer has each rank load its share: `batch_size` is per rank, and batch
    n of all ranks together has the samples, augmented alike, that batch n of a single process with
    batch_size * ranks has. No sample is repeated to make the last batch even.

    ValueError for an object that is no dataset, sampler or function where one is expected, numbers
    that cannot be, and options that exclude each other; in a pass for indices beyond the dataset,
    and for what cannot be pickled for a process. In a pass also SampleError for a sample that
    cannot be loaded, and RuntimeError when a worker process dies.

    Example:
    >>> loader = DataLoader([3, 1, 2], batch_size=2, mlx_transforms=())
    >>> [batch.tolist() for batch in loader]
    [[3, 1], [2]]
    """

    def __init__(
        self,
        dataset: DatasetProtocol,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        collate_fn: Callable | None = None,
        drop_last: bool = False,
        prefetch_factor: int = 2,
        worker_type: str = "thread",
        persistent_workers: bool = False,
        cpu_transforms: Callable | Sequence[Callable] | None = None,
        mlx_transforms: Callable | Sequence[Callable] | None = None,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_sampler: Sampler | None = None,
    ):
        if not (hasattr(dataset, "get") and hasattr(dataset, "__len__")):  # `get` is enough
            check_protocol("dataset", dataset, DatasetProtocol)
        if isinstance(dataset, Mapping):
            raise UserError(
                f"dataset: found a {type(dataset).__name__}, expected a Dataset; "
                f"audiotrain.train.data.datasets.ArrayDataset makes one of arrays by name"
            )
        check_count("batch_size", batch_size, 1)
        check_count("num_workers", num_workers, 0)
        check_count("prefetch_factor", prefetch_factor, 1)
        check_count("seed", seed, 0)
        if worker_type not in ("thread", "process"):
            raise UserError(f"worker_type={worker_type!r}: expected 'thread' or 'process'")
        if sampler is not None and shuffle:
            raise UserError("shuffle=True together with a sampler: the sampler gives the order")
        other_order = batch_size != 1 or shuffle or drop_last or sampler is not None
        if batch_sampler is not None and other_order:
            raise UserError(
                "batch_sampler together with batch_size, shuffle, drop_last or sampler:"
                " the batch_sampler gives whole batches"
            )
        self._sampler = sampler if batch_sampler is None else batch_sampler
        if self._sampler is not None and not isinstance(self._sampler, Sampler):
            name = "sampler" if batch_sampler is None else "batch_sampler"
            raise UserError(f"{name} is a {type(self._sampler).__name__}, expected a Sampler")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.num_workers, self.worker_type = num_workers, worker_type
        self.drop_last, self.prefetch_factor = drop_last, prefetch_factor
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.persistent_workers, self.seed, self.epoch = persistent_workers, seed, 0
        self.cpu_transforms = as_tuple("cpu_transforms", cpu_transforms)
        self.collate_fn = default_collate if collate_fn is None else collate_fn
        mlx_transforms = to_mlx if mlx_transforms is None else mlx_transforms
        self.mlx_transforms = as_tuple("mlx_transforms", mlx_transforms)
        self._consumed = 0  # batches of this epoch that the user was given
        self._begun = False  # whether a pass over this epoch has begun
        self._resuming = False  # whether the next pass begins at `_consumed`
        self._passes = 0
        self._pool: Threads | Processes | None = None
        self.rank, self.world_size = 0, 1

    def shard(self, rank: int, world_size: int) -> None:
        """Give rank `rank` of `world_size` its share of each batch from the next pass on.

        Single samples are shared out, or the whole batches of a batch_sampler; a
        DistributedSampler does it itself. The length is the same on all ranks: a rank without a
        share of the last batch gets a sample of another rank to fill in. ValueError unless
        0 <= rank < world_size.
        """
        if not 0 <= rank < world_size:
            raise UserError(f"rank={rank!r}: expected 0..{world_size - 1}")
        if not isinstance(self._sampler, DistributedSampler):
            self.rank, self.world_size = rank, world_size

    def owns(self, index: int) -> bool:
        """Whether batch `index` has samples for this rank, rather than one that fills in."""
        return self._count() - index * self._together > self.rank

    @property
    def _together(self) -> int:
        """Samples (or batches of a batch_sampler) that one batch of all ranks takes."""
        return self.batch_size * self.world_size

    def _count(self) -> int:
        """Samples in an epoch, or batches of a batch_sampler."""
        return len(self.dataset) if self._sampler is None else len(self._sampler)

    def __len__(self) -> int:
        """Batches in an epoch."""
        count = self._count()
        return count // self._together if self.drop_last else -(-count // self._together)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`, from its start or, after load_state_dict of that
        epoch, from the saved batch. Without this call every pass is the next epoch. ValueError for
        an epoch that is no whole number from 0."""
        check_count("epoch", epoch, 0)
        if epoch != self.epoch or not self._resuming:
            self._consumed, self._resuming = 0, False
        self.epoch, self._begun = epoch, False

    def state_dict(self) -> dict[str, Any]:
        """The position in plain data. Batches prefetched but not given don't count."""
        return self.state_after(self.epoch, self._consumed)

    def state_after(self, epoch: int, batches: int) -> dict[str, Any]:
        """The `state_dict` of this loader once it has given `batches` of `epoch`."""
        state = {
            "seed": self.seed,
            "epoch": epoch,
            "consumed": batches,
            "batches": len(self),
            "batch_size": self._together,
            "samples": self._count(),
            "shuffle": self.shuffle,
            "sampler": type(self._sampler).__name__,
        }
        return state if self._sampler is None else state | {"sampler_seed": self._sampler.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`: the next pass gives the rest of that epoch's batches.

        ValueError when the state lacks an entry, or is inside an epoch whose batches differ from
        this loader's.
        """
        expected = self.state_dict()
        newer = ("samples", "shuffle", "sampler")  # older states lack these
        if missing := [name for name in expected if name not in {*newer, *state}]:
            raise UserError(f"state of the data loader lacks {', '.join(missing)}")
        if 0 < state["consumed"] < state["batches"]:
            for name in ("batches", "batch_size", *newer):
                if state.get(name, expected[name]) != expected[name]:
                    raise UserError(
                        f"data loader: {name} is {expected[name]}, but the saved state stopped"
                        f" inside an epoch with {name} {state[name]}"
                    )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        if self._sampler is not None:
            self._sampler.seed = int(state["sampler_seed"])
        self._consumed, self._resuming, self._begun = int(state["consumed"]), True, False

    def __iter__(self) -> Iterator:
        if self._begun:
            self.epoch += 1
        if not self._resuming:
            self._consumed = 0
        self._begun, self._resuming = True, False
        self._passes += 1
        return self._pass(self._passes, self.epoch, self._consumed)

    def _pass(self, number: int, epoch: int, start: int) -> Iterator:
        tasks = ((epoch, rows) for rows in self._batches(epoch)[start:])
        with_workers = self.num_workers > 0 and start < len(self)
        results = self._prefetched(tasks) if with_workers else self._loaded(tasks)
        try:
            for consumed, batch in enumerate(results, start + 1):
                if isinstance(batch, Failure):
                    mendable = isinstance(batch.cause, UserError)
                    kind = UnreadableSampleError if mendable else SampleError
                    raise kind(batch.message) from batch.cause
                for transform in self.mlx_transforms:
                    batch = transform(batch)
                if number == self._passes:  # an older pass doesn't speak for the loader
                    self._consumed = consumed
                yield batch
        finally:
            results.close()

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Rows of each batch: (index, how often it came before in this epoch), (items, 2)."""
        order, ends = self._order(epoch)
        last = len(self.dataset) - 1
        if len(order) and not (0 <= order.min() and order.max() <= last):
            raise UserError(
                f"sampler gave indices {order.min()}..{order.max()}, expected 0..{last}"
            )
        rows = np.stack([order, occurrences(order)], axis=1)
        batches = np.split(rows, ends[:-1]) if len(ends) else []
        return batches if self.world_size == 1 else self._share(batches)

    def _share(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """This rank's part of the batches of all ranks."""
        rank, step = self.rank, self.world_size
        if self.batch_sampler is None:
            return [batch[rank::step] if len(batch) > rank else batch[:1] for batch in batches]
        return [
            batches[min(first + rank, len(batches) - 1)] for first in range(0, len(batches), step)
        ]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's indices (samples,), and where in them each batch ends (batches,)."""
        sampler = self._sampler
        if sampler is not None:
            sampler.set_epoch(epoch)
            given = list(sampler)
            if len(given) != len(sampler):
                raise UserError(
                    f"{type(sampler).__name__} gave {len(given)} in epoch {epoch}, but its length"
                    f" is {len(sampler)}"
                )
        if self.batch_sampler is not None:
            order = np.array([index for batch in given for index in batch], dtype=np.int64)
            return order, np.cumsum([len(batch) for batch in given], dtype=np.int64)
        if self.sampler is not None:
            order = np.array(given, dtype=np.int64)
        else:
            rng, count = generator(ORDER, self.seed, epoch), len(self.dataset)
            order = rng.permutation(count) if self.shuffle else np.arange(count)
        ends = np.minimum(np.arange(1, len(self) + 1) * self._together, len(order))
        return order[: ends[-1] if len(ends) else 0], ends

    def _source(self) -> Source:
        return Source(self.dataset, self.cpu_transforms, self.collate_fn, self.seed)

    def _loaded(self, tasks: Iterator[Task]) -> Generator:
        source = self._source()
        return (source.load(*task) for task in tasks)

    def _prefetched(self, tasks: Iterator[Task]) -> Generator:
        """Results of `tasks` in order, a bounded window of them submitted ahead."""
        pool = self._open_pool()
        stop = threading.Event()
        window: collections.deque[Future] = collections.deque()
        try:
            for task in itertools.islice(tasks, self.prefetch_factor * self.num_workers):
                window.append(pool.submit(*task, stop))
            while window:
                try:
                    result = window.popleft().result()
                except BrokenProcessPool as error:
                    pool.broken = True
                    raise RuntimeError(
                        f"a data worker process died while loading epoch {self.epoch} (killed, out"
                        " of memory, or crashed in native code); worker_type='thread' shows more"
                    ) from error
                for task in itertools.islice(tasks, 1):
                    window.append(pool.submit(*task, stop))
                yield result
        finally:
            stop.set()
            for future in window:
                future.cancel()
            if not self.persistent_workers:
                pool.close()

    def _open_pool(self) -> Threads | Processes:
        kind = Threads if self.worker_type == "thread" else Processes
        if not self.persistent_workers:
            return kind(self._source(), self.num_workers)
        if self._pool is None or self._pool.broken or self._pool.seed != self.seed:
            self._pool = kind(self._source(), self.num_workers)
        return self._pool


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often each entry of `order` (samples,) occurred before."""
    by_value = np.argsort(order, kind="stable")
    position = np.arange(len(order))
    is_first = np.diff(order[by_value], prepend=-1) != 0
    counts = np.empty_like(position)
    counts[by_value] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return counts


def as_tuple(name: str, transforms: Callable | Sequence[Callable] | None) -> tuple[Callable, ...]:
    functions = (transforms,) if callable(transforms) else () if transforms is None else transforms
    if not isinstance(functions, Sequence) or not all(map(callable, functions)):
        raise UserError(f"{name} is {transforms!r}, expected a function or a list of functions")
    return tuple(functions)
