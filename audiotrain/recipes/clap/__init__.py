"""CLAP: `python -m audiotrain.recipes.clap`.

classes.py        How well embeddings tell classes apart
clips.py          The clips of a run
commands.py       Train and use CLAP
cv.py             Cross-validation of what a CLAP's embeddings know of classes
dataset.py        Captioned clips as training samples, with what frozen towers gave
embedder.py       A trained CLAP as a tool
finetuning.py     Modes: which parameters are trained; their learning rates
frozen_towers.py  What frozen towers give, computed once for each clip and caption and kept on
index.py          Embeddings of a folder in one file, safetensors or npz, to be searched later
inference.py      What a trained CLAP is used for
pretrained.py     What a run starts from; the model folder that it writes
scoring.py        How good a CLAP is on captioned clips
settings.py       Settings of CLAP's training and export
training.py       The training modules of CLAP; validation by retrieval
use_settings.py   Settings of the commands that use a trained CLAP
windows.py        Recordings of any length as windows of CLAP's input, decoded in threads and
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {"main": "commands", "CLAPTrainModule": "training"},
)
