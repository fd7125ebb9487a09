"""AdamW with linear warm-up and cosine decay, as settings of a recipe and as the optimizer."""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from audiotrain.config.schema import NonNegative, NonNegativeInt, Positive, ShareBelowOne, validated
from audiotrain.train.schedulers import WarmupCosineScheduler


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
