"""A training run from one settings file.

aliases.py             Names that notebooks of other trainers use
competition.py         Cross-validation, ensembles and submissions for competitions
config.py              A whole training run as one file
configured_trainer.py  ConfiguredTrainer
factory.py             create_trainer
modules.py             Models with a loss or a head as training modules
names.py               What settings may call by a short name
optimizers.py          The optimizer and the schedule that settings describe, for one module
"""

from audiotrain.utils.lazy import lazy_names

_ALIASES = (
    "BaseTrainerConfig KaggleTrainerConfig MLXTrainer OptimizerConfig SchedulerConfig "
    "create_kaggle_trainer"
)
__getattr__ = lazy_names(__name__, {"aliases": _ALIASES})
