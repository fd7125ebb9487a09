"""Chord data: any folder of audio and labels.

billboard.py  The McGill Billboard format (`salami_chords.txt`)
chordpro.py   Chords as a grid of bars in ChordPro
corpus.py     Chord data for training
discovery.py  Find recordings and their chord labels in a folder, whatever its layout (LAYOUTS)
items.py      Labelled recordings
readers.py    Read chord annotations
spans.py      Labelled spans of a recording, as the lines of a table give them, joined to songs
writers.py    Write chord segments, beats and key
"""

from audiotrain.datasets.items import Corpus, Problem
from audiotrain.datasets.splits import SPLITS, split
from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "corpus": "Survey check check_audio item_seconds report survey",
        "discovery": "LAYOUTS discover",
        "items": "Item frame_labels load segments",
    },
)
__all__ = ["Corpus", "Problem", "SPLITS", "split"]
