"""Optimizers of groups of parameters, with rates per part or layer; AdamW as settings of a run.

In a pattern `*` stands for any characters of a parameter's dotted name, dots too, and `?` for one.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_unflatten

from audiotrain.config.schema import NonNegative, NonNegativeInt, Positive, ShareBelowOne, validated
from audiotrain.train.schedulers import WarmupCosineScheduler
from audiotrain.utils.arrays import Arrays, arrays_of
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import listed

Rule = tuple[str | Sequence[str], optim.Optimizer]


class GroupedOptimizer(optim.MultiOptimizer):
    """An optimizer made of one for each named group, as `parameter_groups` gives it."""

    def __init__(self, rules: Mapping[str, Rule]):
        filters = [_fits(patterns) for patterns, _ in rules.values()]
        super().__init__([optimizer for _, optimizer in rules.values()], filters[:-1])
        self.filters = filters  # MultiOptimizer's last takes whatever is left
        self.names = tuple(rules)

    def group(self, path: str) -> str | None:
        """The group of a parameter: the first with a pattern that fits its name."""
        groups = zip(self.names, self.filters, strict=True)
        return next((name for name, fits in groups if fits(path, None)), None)

    def init(self, parameters: dict) -> None:
        """Make the state; ValueError naming parameters, perhaps just unfrozen, without a group."""
        unmatched = [path for path in arrays_of(parameters) if self.group(path) is None]
        if unmatched:
            names = ", ".join(self.names)
            raise UserError(f"no group ({names}) has a pattern for {listed(unmatched, 3)}")
        for name, optimizer in zip(self.names, self.optimizers, strict=True):
            optimizer.init(self._part(name, parameters))

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        """The new parameters. MultiOptimizer's stumbles over lists of which a group has a part."""
        updated: Arrays = {}
        for name, optimizer in zip(self.names, self.optimizers, strict=True):
            part = optimizer.apply_gradients(self._part(name, gradients), parameters)
            updated |= arrays_of(part)
        return _tree(updated)

    def _part(self, name: str, tree: dict) -> dict:
        arrays = arrays_of(tree)
        return _tree({path: arrays[path] for path in arrays if self.group(path) == name})


def _tree(arrays: Arrays) -> dict:
    return tree_unflatten(list(arrays.items())) if arrays else {}


def parameter_groups(module: nn.Module, rules: Mapping[str, Rule]) -> GroupedOptimizer:
    """An optimizer for the module's trainable parameters, with one for each group inside.

    rules: by the group's name a pattern, or several, and an optimizer with a rate, a schedule and
    a weight decay of its own. The first rule that fits a parameter takes it. The first group's rate
    is the run's `learning_rate`; LearningRateMonitor logs all, as "lr-schedule/group". ValueError
    when a trainable parameter has no group, a group no parameter or no optimizer of its own.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> heads, rest = optim.SGD(learning_rate=1e-4), optim.SGD(learning_rate=1e-5)
    >>> optimizer = parameter_groups(model, {"head": ("layers.1.*", heads), "tower": ("*", rest)})
    >>> optimizer.group("layers.0.weight"), optimizer.group("layers.1.bias")
    ('tower', 'head')
    """
    if len({id(optimizer) for _, optimizer in rules.values()}) < max(len(rules), 1):
        raise UserError(
            f"parameter_groups got the groups {list(rules)}, expected one or more, "
            f"each with an optimizer of its own"
        )
    optimizer = GroupedOptimizer(rules)
    parameters = module.trainable_parameters()
    optimizer.init(parameters)
    taken = {optimizer.group(path) for path in arrays_of(parameters)}
    for name, (patterns, _) in rules.items():
        if name not in taken:
            raise UserError(
                f"group {name!r}: no trainable parameter of {type(module).__name__} fits "
                f"{patterns!r} that an earlier group has not taken"
            )
    return optimizer


def layer_decay(layers: Sequence[str], decay: float) -> dict[str, float]:
    """The share of the learning rate of each layer, from the input to the output: 1 for the last,
    times `decay` for each layer before it. ValueError unless 0 < decay <= 1. Clark et al. 2020,
    ELECTRA, arXiv:2003.10555.

    >>> layer_decay(["embeddings.*", "layers.0.*", "layers.1.*"], decay=0.5)
    {'embeddings.*': 0.25, 'layers.0.*': 0.5, 'layers.1.*': 1.0}
    """
    if not 0 < decay <= 1:
        raise UserError(f"decay is {decay!r}, expected above 0 and at most 1")
    return {layer: decay ** (len(layers) - 1 - place) for place, layer in enumerate(layers)}


def _fits(patterns: str | Sequence[str]):
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    return lambda path, _: any(fnmatchcase(path, pattern) for pattern in patterns)


class CycledAdamW(optim.AdamW):
    """AdamW whose first beta is `momentum`, a callable of the optimizer step; for float32 weights.

    >>> from audiotrain.train.schedulers import OneCycleLRScheduler
    >>> cycle = OneCycleLRScheduler(peak_lr=1e-3, warmup_steps=4, total_steps=9)
    >>> optimizer = CycledAdamW(cycle, cycle.momentum)
    >>> optimizer.update({}, {})
    >>> round(optimizer.state["momentum"].item(), 3)
    0.95
    """

    def __init__(
        self,
        learning_rate: float | Callable[[mx.array], mx.array],
        momentum: Callable[[mx.array], mx.array],
        beta2: float = 0.999,
        weight_decay: float = 0.01,
    ):
        super().__init__(learning_rate, betas=[0.0, beta2], weight_decay=weight_decay)
        self._maybe_schedule("momentum", momentum)

    @property
    def betas(self) -> list:
        """The momentum of the current step, and beta2."""
        return [self.state["momentum"], self._beta2]

    @betas.setter
    def betas(self, betas: list) -> None:
        self._beta2 = betas[1]


@validated(kw_only=True)
class AdamWSettings:
    """AdamW, gradient clipping and averaged weights; a recipe adds its `learning_rate`."""

    weight_decay: NonNegative = 0.01
    """decoupled weight decay of AdamW"""
    gradient_clip: Positive = 1.0
    """largest norm of the gradients"""
    beta2: ShareBelowOne = 0.98
    """decay of AdamW's second moment"""
    ema_decay: ShareBelowOne = 0.999
    """decay of the averaged weights that validation and prediction use; 0: none"""

    def adamw(
        self, schedule: Callable[[mx.array], mx.array], weight_decay: float | None = None
    ) -> optim.AdamW:
        """The optimizer; `weight_decay` takes the place of the setting."""
        decay = self.weight_decay if weight_decay is None else weight_decay
        return optim.AdamW(learning_rate=schedule, betas=[0.9, self.beta2], weight_decay=decay)


@validated(kw_only=True)
class WarmupSettings(AdamWSettings):
    """AdamW with a number of warm-up steps and a cosine down to a share of the peak rate."""

    final_share: ShareBelowOne = 0.02
    """learning rate at the end as a share of the peak"""
    warmup_steps: NonNegativeInt = 200
    """optimizer steps of linear warm-up, at most a tenth of all"""

    def schedule(self, peak: float, steps: int) -> WarmupCosineScheduler:
        """The learning rate over `steps` optimizer steps."""
        warmup = min(self.warmup_steps, steps // 10)
        return WarmupCosineScheduler(peak, warmup, steps, min_lr=peak * self.final_share)
