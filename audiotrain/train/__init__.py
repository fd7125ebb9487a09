"""The Trainer and all that trains arrays.

arguments.py         Checks of the Trainer's settings and loaders, before anything runs
callbacks/           Callbacks of the Trainer
checkpoint.py        Checkpoints
contrastive.py       Contrastive losses on a batch of pairs
crossval.py          Cross-validation
data/                Datasets, loaders, samplers, collation
declarative/         A training run from one settings file
distributed/         Training on several processes
engine/              What the Trainer runs
ensembling.py        Several models as one
history.py           The numbers of a run as plain rows
loggers/             Loggers of the Trainer
losses.py            Losses on logits and class numbers
module.py            TrainModule
optimizers.py        Groups of parameters, each with an optimizer of its own
run_folder.py        Run folders
schedulers.py        Learning rate as a callable of the optimizer step
submission.py        Predictions as a CSV in the columns and order of a competition's
trainer.py           Trainer
trainer_state.py     What a checkpoint of a Trainer holds, and how a run continues from it,
weight_averaging.py  Weights between two models, to be fine-tuned and yet robust
"""
