"""Test-time augmentation: predictions for several transforms of the same data, averaged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from audiotrain.train.distributed.ranks import join
from audiotrain.utils.errors import UserError

Transform = Callable[[Any], Any] | None
"""None: the data as they are"""


def transformed(items: Iterable, transforms: Sequence[Transform]) -> Iterator:
    """Each item by each of the transforms, before the next item.

    >>> list(transformed([1, 2], [None, lambda item: -item]))
    [1, -1, 2, -2]
    """
    return (item if one is None else one(item) for item in items for one in transforms)


def check_transforms(transforms: Sequence[Transform]) -> Sequence[Transform]:
    """The transforms; ValueError for what is no sequence of functions and None.

    >>> check_transforms([None, "flip"])
    Traceback (most recent call last):
        ...
    audiotrain.UserError: tta: found 'flip', expected a list of functions of a batch, or None
    """
    is_list = isinstance(transforms, Sequence) and not isinstance(transforms, str)
    for one in transforms if is_list else [transforms]:
        if not is_list or not (one is None or callable(one)):
            raise UserError(
                f"tta: found {one!r:.60}, expected a list of functions of a batch, or None"
            )
    return transforms


def means(outputs: Sequence, count: int) -> list:
    """The mean of each `count` arrays: of the predictions for one item of `transformed`.

    ValueError for outputs that are not arrays.
    """
    for output in outputs:
        if not hasattr(output, "shape"):
            raise UserError(f"tta: predict_step gave a {type(output).__name__}, expected an array")
    return [sum(outputs[i : i + count]) / count for i in range(0, len(outputs), count)]


class TransformedLoader:
    """The batches of a loader, each by each of the transforms."""

    def __init__(self, loader: Any, transforms: Sequence[Transform]):
        self.loader, self.transforms = loader, transforms

    def __iter__(self) -> Iterator:
        return transformed(self.loader, self.transforms)

    def owns(self, index: int) -> bool:
        """Whether batch `index` has samples for this rank, rather than one that fills in."""
        batch = index // len(self.transforms)
        return not hasattr(self.loader, "owns") or self.loader.owns(batch)

    def shard(self, rank: int, world_size: int) -> None:
        """Give this rank its share of each batch of the loader."""
        join().shard(self.loader)
