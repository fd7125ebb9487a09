"""Chord recognition: `python -m audiotrain.recipes.chords`.

blending.py       Runs joined to one model
chord_trainer.py  ChordTrainer
commands.py       Train, evaluate and use a chord recogniser
cv.py             Cross-validation of the chord recipe
dataset.py        The windows of songs that training draws and validation goes through
decoding.py       From a model's logits to chords in time
ensemble.py       Several trained chord models as one, and one model hearing several
predict_files.py  Write the chords of audio files and folders with the newest run's model
predictor.py      A trained chord model on audio of any length
scoring.py        How good a chord model is
settings.py       Settings of the chord recipe's commands
songs.py          Songs as cached features, frame labels and onsets
split.py          The songs of a run
training.py       The training module of the chord recipe
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {"main": "commands", "ChordTrainer": "chord_trainer", "TrainingConfig": "chord_trainer"},
)
