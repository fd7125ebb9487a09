"""Samplers: which samples make an epoch, in what order, alone or in whole batches.

What a sampler gives depends on (seed, epoch) alone, so a pass can be resumed without a record of
what came before. An epoch's length is always the same.
"""

from collections.abc import Hashable, Iterator, Sequence, Sized

import numpy as np

from audiotrain.train.data.workers import ORDER, generator
from audiotrain.utils.errors import UserError


class Sampler:
    """Base class: indices of one epoch by `__iter__`, how many by `__len__`.

    Given to a DataLoader as `sampler` it gives indices one by one, as `batch_sampler` a list of
    indices for each batch. The loader calls `set_epoch(epoch)` before each pass; whatever is
    random comes from `rng()`, so that two iterations of one epoch are equal. ValueError for a
    `seed` that is no whole number from 0, of all samplers.

    >>> class Backwards(Sampler):
    ...     def __iter__(self):
    ...         return iter([2, 1, 0])
    ...     def __len__(self):
    ...         return 3
    """

    def __init__(self, seed: int = 0):
        check_count("seed", seed, 0)
        self.seed, self.epoch = int(seed), 0

    def set_epoch(self, epoch: int) -> None:
        """Iterate over `epoch`, from 0, from now on."""
        self.epoch = epoch

    def rng(self) -> np.random.Generator:
        """A generator for (seed, epoch), new at every call."""
        return generator(ORDER, self.seed, self.epoch)

    def __iter__(self) -> Iterator:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")


class WeightedRandomSampler(Sampler):
    """`num_samples` indices an epoch, sampled in proportion to `weights` (items,); a `sampler`.

    Without `replacement` no index comes twice, and `num_samples` of the weights must be above 0.
    `num_samples` is the number of weights by default. ValueError for fewer weights above 0 than
    that, a weight that is negative or not finite, weights that are all 0, and a `num_samples`
    below 1.
    """

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray,
        num_samples: int | None = None,
        replacement: bool = True,
        seed: int = 0,
    ):
        super().__init__(seed)
        values = np.asarray(weights, dtype=np.float64)
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
            raise UserError("weights: expected one finite number >= 0 per sample")
        if values.sum() == 0:
            raise UserError("weights: all are zero, expected at least one above")
        self.shares = values / values.sum()
        self.num_samples = len(values) if num_samples is None else num_samples
        self.replacement = replacement
        check_count("num_samples", self.num_samples, 1)
        positive = np.count_nonzero(values)
        if not replacement and self.num_samples > positive:
            raise UserError(
                f"num_samples={self.num_samples}: expected at most {positive}, the number of"
                " weights above 0, without replacement"
            )

    def __iter__(self) -> Iterator[int]:
        count = len(self.shares), self.num_samples
        sampled = self.rng().choice(*count, replace=self.replacement, p=self.shares)
        return iter(sampled.tolist())

    def __len__(self) -> int:
        return self.num_samples


class GroupSampler(Sampler):
    """Random batches with no two samples of one group, for contrastive losses; a `batch_sampler`.

    `groups` names each sample's group, such as the recording that a caption is of: to such a loss
    two captions of one recording would be each other's wrong answers. Every sample comes once an
    epoch, in as many batches as the largest group needs; their sizes differ by at most one and are
    at most `batch_size`. With `drop_last` all have exactly `batch_size` samples, so that a
    compiled step is traced once, and each epoch leaves others out. ValueError for no samples, a
    `batch_size` below 1, and with `drop_last` for fewer groups than `batch_size`.

    >>> batches = list(GroupSampler(["a", "a", "b", "b"], batch_size=2))
    >>> [len({index // 2 for index in batch}) for batch in batches]
    [2, 2]
    """

    def __init__(
        self, groups: Sequence[Hashable], batch_size: int, drop_last: bool = False, seed: int = 0
    ):
        super().__init__(seed)
        check_count("batch_size", batch_size, 1)
        numbers: dict[Hashable, int] = {}
        self.groups = np.array([numbers.setdefault(group, len(numbers)) for group in groups], int)
        sizes = np.bincount(self.groups)
        if not len(sizes):
            raise UserError("groups: expected the group of each sample, found none")
        if drop_last and len(sizes) < batch_size:
            raise UserError(
                f"batch_size={batch_size}: expected at most the {len(sizes)} groups there are"
            )
        if drop_last:  # as many batches as can be full, when each has one sample of a group
            count = len(self.groups) // batch_size
            while np.minimum(sizes, count).sum() < count * batch_size:
                count = int(np.minimum(sizes, count).sum()) // batch_size
            self.batches, self.samples = count, count * batch_size
        else:
            self.samples = len(self.groups)
            self.batches = max(-(-self.samples // batch_size), int(sizes.max()))

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = self.rng()
        order = self._by_group(rng)
        group = self.groups[order]
        dealt = np.empty(0, dtype=int)  # the batch of each sample of `order`, a round at a time
        while (begin := len(dealt)) < len(order):
            batches = rng.permutation(self.batches)
            # The group at the seam of two rounds must not get a batch that has it already.
            same = np.flatnonzero(group == group[begin])
            taken = np.isin(batches, dealt[same[same < begin]])
            first = batches[~taken][: np.count_nonzero(same >= begin)]
            rest = batches[~np.isin(batches, first)]
            dealt = np.concatenate([dealt, first, rest])[: len(order)]
        by_batch = order[np.argsort(dealt, kind="stable")]
        ends = np.cumsum(np.bincount(dealt, minlength=self.batches))[:-1]
        return iter([batch.tolist() for batch in np.split(by_batch, ends)])

    def _by_group(self, rng: np.random.Generator) -> np.ndarray:
        """Samples of the epoch, groups in random order, at most one of a group for each batch."""
        shuffled = rng.permutation(len(self.groups))
        place = rng.permutation(int(self.groups.max()) + 1)[self.groups[shuffled]]
        order = shuffled[np.argsort(place, kind="stable")]
        starts = np.flatnonzero(np.diff(self.groups[order], prepend=-1))
        within = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return order[within < self.batches][: self.samples]


class BucketSampler(Sampler):
    """Batches of samples of similar length; a `batch_sampler`.

    A bucket has the samples that are longer than the boundary before its own and at most as long
    as that; samples left over after its last full batch join the next longer bucket. Only the last
    batch of the longest bucket can be short, and `drop_last` leaves it out. Together with
    `collate_fn=partial(pad_collate, lengths=sampler.boundaries)` a compiled step sees a shape for
    each bucket, and one more. `buckets` is a number of buckets, of about as many samples each, or
    the boundaries themselves, in the unit of `lengths` (items,). ValueError for lengths that are no
    whole numbers (items,), a `batch_size` or number of buckets below 1, and boundaries that are all
    below the longest sample.

    >>> sampler = BucketSampler([3, 9, 4, 10], batch_size=2, buckets=2, shuffle=False)
    >>> sampler.boundaries, list(sampler)
    ((4, 10), [[0, 2], [1, 3]])
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        buckets: int | Sequence[int] = 6,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
    ):
        super().__init__(seed)
        check_count("batch_size", batch_size, 1)
        sizes = np.asarray(lengths)
        if sizes.ndim != 1 or not len(sizes) or sizes.dtype.kind not in "iu":
            raise UserError("lengths: expected one whole number per sample")
        if isinstance(buckets, int):
            check_count("buckets", buckets, 1)
            shares = np.arange(1, buckets + 1) / buckets
            edges = np.unique(np.quantile(sizes, shares, method="inverted_cdf"))
        else:
            edges = np.unique(buckets)
            if not len(edges) or edges[-1] < sizes.max():
                raise UserError(
                    f"buckets={buckets!r}: the longest sample has length {sizes.max()}, "
                    f"expected a boundary at or above"
                )
        self.boundaries = tuple(edges.tolist())
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        bucket = np.searchsorted(edges, sizes)
        self.members = [np.flatnonzero(bucket == number) for number in range(len(edges))]

    def __len__(self) -> int:
        samples = sum(map(len, self.members))
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng, size = self.rng(), self.batch_size
        batches: list[list[int]] = []
        rest: list[int] = []
        for members in self.members:
            rest += (rng.permutation(members) if self.shuffle else members).tolist()
            full = len(rest) // size * size
            batches += [rest[start : start + size] for start in range(0, full, size)]
            rest = rest[full:]
        if rest and not self.drop_last:
            batches.append(rest)
        order = rng.permutation(len(batches)) if self.shuffle else range(len(batches))
        return iter([batches[number] for number in order])


class DistributedSampler(Sampler):
    """One rank's share of `dataset` (or of so many samples), as PyTorch's; a `sampler`.

    All ranks get equally many: the first samples of the epoch come twice to make it even, or with
    `drop_last` the last ones are left out. `rank` and `world_size` are those of the launched
    processes by default. A DataLoader in a Trainer needs none, and then repeats no sample.
    ValueError unless 0 <= rank < world_size.

    >>> [list(DistributedSampler(5, shuffle=False, rank=r, world_size=2)) for r in (0, 1)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized | int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        super().__init__(seed)
        if rank is None or world_size is None:
            import mlx.core as mx  # here, so that process workers never load it

            group = mx.distributed.init()
            rank = group.rank() if rank is None else rank
            world_size = group.size() if world_size is None else world_size
        if not 0 <= rank < world_size:
            raise UserError(f"rank={rank!r}: expected 0..{world_size - 1}")
        self.samples = dataset if isinstance(dataset, int) else len(dataset)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        samples = self.samples if self.drop_last else self.samples + self.world_size - 1
        return samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        order = self.rng().permutation(self.samples) if self.shuffle else np.arange(self.samples)
        order = np.resize(order, len(self) * self.world_size)  # repeated from its start, or cut
        return iter(order[self.rank :: self.world_size].tolist())


def check_count(name: str, value: int, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise UserError(f"{name}={value!r}: expected a whole number of at least {minimum}")
