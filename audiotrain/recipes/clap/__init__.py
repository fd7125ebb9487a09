"""CLAP: `python -m audiotrain.recipes.clap`.

commands.py         train, evaluate, cv, embed, search, classify, export
cv.py               Cross-validation of what a CLAP's embeddings know of classes
dataset.py          Captioned clips as training samples; which can be decoded
embedder.py         A trained CLAP as a tool
embedding_store.py  Embeddings of recordings on disk, found by content
finetuning.py       Modes: which parameters are trained; their learning rates
frozen_towers.py    Outputs of frozen towers, computed once and kept on disk
index.py            Embeddings of a folder in one file, safetensors or npz, to be searched later
pretrained.py       What a run starts from; the model folder that it writes
recipe.py           A run: its clips, start, module and scores
scoring.py          Scores of a CLAP on captioned clips
settings.py         Settings of all commands
sound_library.py    A folder of recordings, searched by words or by sound
training.py         The training modules of CLAP; validation by retrieval
windows.py          Recordings of any length as windows of CLAP's input
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(__name__, {"commands": "main", "training": "CLAPTrainModule"})
