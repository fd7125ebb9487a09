"""Loggers of the Trainer.

base.py                Logger
build.py               A run's loggers from its settings
mlflow_logger.py       MLflow
tensorboard_logger.py  TensorBoard
wandb_logger.py        Weights & Biases
"""

from audiotrain.train.loggers.base import CSVLogger, JSONLLogger, Logger
from audiotrain.train.loggers.mlflow_logger import MLflowLogger
from audiotrain.train.loggers.tensorboard_logger import TensorBoardLogger
from audiotrain.train.loggers.wandb_logger import WandbLogger

__all__ = ["CSVLogger", "JSONLLogger", "Logger", "MLflowLogger", "TensorBoardLogger", "WandbLogger"]
