"""Chord models.

btc.py          The bi-directional block of BTC (Park et al
equivariant.py  Blocks that transpose with the music
model.py        Chord models
"""

from audiotrain.utils.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "ChordModelSettings": "model",
        "ChordRecognitionModel": "model",
        "FrameChordModel": "model",
    },
)
