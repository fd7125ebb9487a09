"""CLAP: embeddings of sounds and texts in one space.

config.py              Sizes of a CLAP model, with the names and defaults of Hugging Face's
feature_extraction.py  Log-mel inputs of recordings, as its checkpoints expect them
htsat.py               HTSAT, the audio tower
model.py               Both towers and their projections
roberta.py             RoBERTa, the text tower
tokenizer.py           Captions to token ids
torch_pickle.py        Tensors of a PyTorch .bin file, without PyTorch
weights.py             Weights and folders of Hugging Face's CLAP models
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(__name__, {"model": "CLAP", "config": "CLAPConfig"})
