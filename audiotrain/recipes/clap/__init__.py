"""CLAP: `python -m audiotrain.recipes.clap`.

classes.py        How well embeddings tell classes apart
clips.py          The clips of a run
commands.py       Train and use CLAP
cv.py             Cross-validation of what a CLAP's embeddings know of classes
data.py           Clips as what the training module takes
dataset.py        Captioned clips as training samples
embedder.py       A trained CLAP as a tool
export.py         Model folders of CLAP runs
finetuning.py     What of CLAP trains
frozen_towers.py  What frozen towers give, computed once for each clip and caption and kept on
index.py          Embeddings of a folder in one file, safetensors or npz, to be searched later
inference.py      What a trained CLAP is used for
pretrained.py     What a run of CLAP starts from
rates.py          Learning rates of CLAP's parts
scoring.py        How good a CLAP is on captioned clips
settings.py       Settings of CLAP's training and export
training.py       The training modules of CLAP
use_settings.py   Settings of the commands that use a trained CLAP
validation.py     Validation of CLAP
windows.py        Recordings of any length as windows of CLAP's input, decoded in threads and
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {"main": "commands", "CLAPTrainModule": "training"},
)
