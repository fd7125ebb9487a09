"""Chord recognition: `python -m audiotrain.recipes.chords`.

chord_trainer.py  ChordTrainer: train on raw waveforms with train / train_epoch / validate
commands.py       The commands: train, cv, evaluate, ensemble, predict, export
cv.py             Cross-validation; its posteriors out of fold
dataset.py        Windows of songs, as training and validation take them
decoding.py       From a model's logits to chords in time
ensemble.py       Several models as one, one model on several transpositions; the command ensemble
export.py         A model as a folder to pass on, with its model card; the command export
pages.py          Pages of recognised songs, and their index
predictor.py      A trained model on audio of any length
recipe.py         ChordRecipe: data, module and scores
scoring.py        Scores of a model
settings.py       Settings of the commands
songs.py          Songs as cached features, frame labels and onsets; the songs of a run
training.py       The training module
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__, {"commands": "main", "chord_trainer": "ChordTrainer TrainingConfig"}
)
