"""CLAP.

config.py              Sizes of a CLAP model, with the names and defaults of Hugging Face's
feature_extraction.py  CLAP's front end
htsat.py               HTSAT (Chen et al
model.py               CLAP (Wu et al
roberta.py             RoBERTa (Liu et al
tokenizer.py           Captions to token ids
torch_pickle.py        Reads tensors of a PyTorch .bin file without PyTorch, and without
weights.py             Weights and folders of Hugging Face's CLAP models
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "CLAP": "model",
        "CLAPConfig": "config",
    },
)
