"""Models that recognise chords.

btc.py          The bi-directional block of BTC
equivariant.py  Blocks that transpose with the music
model.py        Models of frames and of clips, and their settings
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__, {"model": "ChordModelSettings ChordRecognitionModel FrameChordModel"}
)
