"""Callbacks of the Trainer.

base.py              Callback
builtin.py           The built-in callbacks
model_checkpoint.py  ModelCheckpoint
progress.py          ModelSummary and ProgressBar
"""

from audiotrain.train.callbacks.base import Callback, Monitor
from audiotrain.train.callbacks.builtin import (
    EMA,
    EarlyStopping,
    GradientClipper,
    LearningRateMonitor,
    LearningRateScheduler,
    MetricsLogger,
    Timer,
)
from audiotrain.train.callbacks.model_checkpoint import ModelCheckpoint
from audiotrain.train.callbacks.progress import ModelSummary, ProgressBar

__all__ = [
    "Callback",
    "EMA",
    "EarlyStopping",
    "GradientClipper",
    "LearningRateMonitor",
    "LearningRateScheduler",
    "MetricsLogger",
    "ModelCheckpoint",
    "ModelSummary",
    "Monitor",
    "ProgressBar",
    "Timer",
]
