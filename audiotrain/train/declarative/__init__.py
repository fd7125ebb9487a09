"""A training run from one settings file.

competition.py         Cross-validation, the ensemble of its models and a submission, for a
config.py              A whole training run as one file
configured_trainer.py  ConfiguredTrainer
factory.py             create_trainer
modules.py             Models and losses as training modules
names.py               What settings may call by a short name
optimizers.py          The optimizer and the schedule that settings describe, for one module
"""
