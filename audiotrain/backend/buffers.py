"""Buffers: arrays of a module that are measured, not trained, such as BatchNorm's statistics."""

import mlx.nn as nn


class Buffered(nn.Module):
    """A module that `unfreeze` never makes train buffers: BatchNorm's statistics, at any depth,
    and the arrays of its own that BUFFERS names. MLX unfreezes a parent's parts without asking
    them, so BatchNorm's own care is lost.

    >>> class Network(Buffered):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.norm = nn.BatchNorm(2)
    >>> sorted(Network().unfreeze().trainable_parameters()["norm"])
    ['bias', 'weight']
    """

    BUFFERS: tuple[str, ...] = ()

    def unfreeze(self, *args, **kwargs):
        """Everything but buffers."""
        super().unfreeze(*args, **kwargs)
        return freeze_buffers(self)


def freeze_buffers(module: nn.Module) -> nn.Module:
    """Take the buffers of a module and its parts out of what is trained; gives the module."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm):
            part.freeze(recurse=False, keys=["running_mean", "running_var"])
        elif isinstance(part, Buffered):
            part.freeze(recurse=False, keys=list(part.BUFFERS))
    return module
