"""The Trainer and what it trains with; no audio.

arguments.py         TrainerArguments: the settings of a Trainer, checked by their types
calibration.py       Calibration of probabilities by a temperature
callbacks/           Callbacks of the Trainer
checkpoint.py        Checkpoints
crossval.py          Cross-validation
data/                Datasets, loaders, samplers, collation
declarative/         A training run from one settings file
distributed/         Training on several processes
engine/              What the Trainer runs
ensembling.py        Voting, blending and stacking of predictions
history.py           The numbers of a run as plain rows
loggers/             Loggers of the Trainer
losses.py            Losses on logits and class numbers, contrastive losses
module.py            TrainModule
optimizers.py        Optimizers of groups of parameters, settings of AdamW
protocols.py         What is taken for a callback, a logger and a dataset
pseudo_labels.py     Pseudo-labels for unlabelled items, and rounds of training on them
run_folder.py        Run folders
schedulers.py        Learning rate as a callable of the optimizer step
submission.py        Predictions as the CSV that a competition expects
trainer.py           Trainer
trainer_state.py     The state of a Trainer in a checkpoint, saved and restored
tta.py               Predictions for several transforms of the same data, averaged
weight_averaging.py  Interpolation of two models' weights, soups of checkpoints
"""
