"""Captioned clips: any folder of audio and captions.

corpus.py     Captioned audio for training
discovery.py  Find recordings and their captions in a folder, whatever its layout (LAYOUTS)
readers.py    Captions out of files
"""

from audiotrain.datasets.items import Clip, Corpus, Problem
from audiotrain.datasets.splits import SPLITS, split
from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "corpus": "Survey check composed report survey",
        "discovery": "LAYOUTS TEMPLATES discover",
    },
)
__all__ = ["Clip", "Corpus", "Problem", "SPLITS", "split"]
