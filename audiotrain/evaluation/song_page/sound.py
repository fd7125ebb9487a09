"""Sound for pages: MP3, which every browser plays and seeks in, written by libsndfile."""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from audiotrain.features import audio
from audiotrain.utils.files import replacing
from audiotrain.utils.progress import progress

RATE = 44100  # Hz of a song's page
KBITS = 96  # a second of a song's page
# Lowest and highest kbit/s of MP3 at a rate, between which libsndfile's compression level counts.
_KBITS = {True: (32, 320), False: (8, 160)}  # MPEG-1 above 32 kHz, MPEG-2 below


def encode(
    blocks: Iterable[np.ndarray], rate: int, kbits: float, target: str | IO[bytes] | Path
) -> str:
    """Write mono samples, given in consecutive blocks (samples,), to a file; its media type.

    Ogg Vorbis where libsndfile writes no MP3. Memory does not grow with the length.
    """
    import soundfile

    lowest, highest = _KBITS[rate >= 32000]
    level = (highest - kbits) / (highest - lowest)
    mp3 = "MP3" in soundfile.available_formats()
    form = {"format": "MP3", "bitrate_mode": "CONSTANT"} if mp3 else {"format": "OGG"}
    with soundfile.SoundFile(target, "w", rate, 1, compression_level=level, **form) as file:
        for block in blocks:
            for first in range(0, len(block), rate):  # libsndfile crashes on long arrays in Ogg
                file.write(block[first : first + rate])
    return "audio/mpeg" if mp3 else "audio/ogg"


def embedded(blocks: Iterable[np.ndarray], rate: int, kbits: float) -> dict[str, str]:
    """Sound as plain data for a page: its media type and its bytes in base64."""
    target = io.BytesIO()
    kind = encode(blocks, rate, kbits, target)
    return {"type": kind, "base64": base64.b64encode(target.getvalue()).decode()}


def fits(seconds: float, megabytes: float, kbits: float = KBITS) -> bool:
    """Whether that much sound is embedded in a page of at most `megabytes` of sound."""
    return seconds * kbits * 125 <= megabytes * 1e6


def for_page(
    source: str | Path | np.ndarray, rate: int, seconds: float, megabytes: float, beside: Path
) -> dict[str, str]:
    """The sound of a song's page as plain data.

    `source` is a file, or mono samples (samples,) at `rate` Hz. Within `megabytes` it is embedded;
    a longer one is written to the file `beside`, with a progress bar, and the data have its name
    alone. AudioError when the source cannot be read.
    """
    if isinstance(source, np.ndarray):
        samples, rate = source.astype(np.float32, copy=False), max(rate, 8000)
        blocks: Iterable[np.ndarray] = iter([samples])
    else:
        rate = RATE
        blocks = audio.stream(source, rate, on_missing=audio.ignore)
    kbits = KBITS if rate >= 32000 else 64
    if fits(seconds, megabytes, kbits):
        return embedded(blocks, rate, kbits)
    first = next(iter(blocks), np.zeros(0, np.float32))  # a source that cannot be read leaves none
    blocks = itertools.chain([first], blocks)
    with replacing(beside) as partial, progress(None, beside.name, round(seconds), " s") as bar:
        with open(partial, "wb") as file:
            encode(_counted(blocks, rate, bar), rate, kbits, file)
    return {"file": beside.name}


def _counted(blocks: Iterable[np.ndarray], rate: int, bar: tqdm) -> Iterator[np.ndarray]:
    """The blocks, whose seconds move the bar once they are taken."""
    for block in blocks:
        yield block
        bar.update(min(len(block) / rate, (bar.total or 0) - bar.n))  # a header may be wrong
