"""Classifiers of clips: `python -m audiotrain.recipes.classify`.

baseline.py       What a linear model of statistics reaches; whether few clips are given
commands.py       Train and use a classifier of audio clips, of one class each or multilabel
cv.py             Cross-validation of a clip classifier
dataset.py        Labelled clips as training samples
ensemble.py       Ensembles of clip classifiers; the command `ensemble`
features.py       Log-mel or embeddings of clips, kept on disk
predictor.py      A trained clip classifier
pseudo_labels.py  Rounds of training on unlabelled clips
recipe.py         A run: its clips, features, module and scores
settings.py       Settings of clip classification
training.py       Clip classifiers and their training
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(__name__, {"commands": "main"})
