"""Names that notebooks of other trainers use, for what has another name here.

OptimizerConfig and SchedulerConfig are the groups of settings; `audiotrain.OptimizerConfig` is what
a module's configure_optimizers gives.
"""

from audiotrain.train.declarative.competition import create_competition_trainer
from audiotrain.train.declarative.config import (
    CompetitionConfig,
    OptimizerSettings,
    SchedulerSettings,
    TrainerConfig,
)
from audiotrain.train.declarative.configured_trainer import ConfiguredTrainer

BaseTrainerConfig = TrainerConfig
KaggleTrainerConfig = CompetitionConfig
MLXTrainer = ConfiguredTrainer
OptimizerConfig = OptimizerSettings
SchedulerConfig = SchedulerSettings
create_kaggle_trainer = create_competition_trainer
