"""What settings may call by a short name: optimizers, schedules, callbacks, trainers.

Anything else is an import path, `package.module.Name`, which has a dot.
"""

import mlx.optimizers as optim

from audiotrain.train import callbacks
from audiotrain.train.schedulers import (
    ExponentialLRScheduler,
    OneCycleLRScheduler,
    StepLRScheduler,
    WarmupCosineScheduler,
    WarmupLinearScheduler,
)

OPTIMIZERS = {
    "sgd": optim.SGD,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.AdaDelta,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "adamax": optim.Adamax,
    "lion": optim.Lion,
    "adafactor": optim.Adafactor,
    "muon": optim.Muon,
}
SCHEDULERS = {
    "cosine": WarmupCosineScheduler,
    "linear": WarmupLinearScheduler,
    "one_cycle": OneCycleLRScheduler,
    "step": StepLRScheduler,
    "exponential": ExponentialLRScheduler,
}
CALLBACKS = {name: getattr(callbacks, name) for name in callbacks.__all__}
del CALLBACKS["Callback"], CALLBACKS["Monitor"]  # bases
# Import paths, or classes that register_trainer was given.
TRAINERS: dict[str, str | type] = {
    "default": "audiotrain.train.declarative.configured_trainer.ConfiguredTrainer",
    "competition": "audiotrain.train.declarative.competition.CompetitionTrainer",
}
