"""ChordPro: a song's chords as a grid of bars, https://www.chordpro.org/chordpro.

A bar is a line of cells, one a beat, between `|`; a cell without a new chord is `.`, and chords
that share one are joined by `~`.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from audiotrain.music.beats import Beats, grid
from audiotrain.music.chord_classes import encode
from audiotrain.music.chord_names import chord_name, plain, plain_names
from audiotrain.music.keys import Key
from audiotrain.music.segments import Segment

BARS_A_LINE = 4


def chordpro_text(
    segments: Sequence[Segment],
    seconds: float,
    beats: Beats,
    key: Key | None,
    metadata: Mapping[str, str],
    spelling: Key | None = None,
) -> str:
    """A song of `seconds` as ChordPro, its chords at the nearest beats, their notes spelled as in
    the key `spelling` (default: `key`); title and artist are in `metadata`. Without beats, a cell
    is half a second."""
    known = {name: _plain(metadata.get(name, "")) for name in ("title", "artist")}
    lines = [f"{{{name}: {text}}}" for name, text in known.items() if text]
    if key is not None:
        tonic, mode = key
        name = plain_names(tonic, mode)[tonic]
        lines.append(f"{{key: {name}{'m' if mode == 'minor' else ''}}}")
    if beats.tempo is not None:
        lines += [f"{{tempo: {beats.tempo:g}}}", f"{{time: {beats.metre}/{beats.unit}}}"]
    bars, _ = grid(beats, seconds)
    cells = iter(_cells(segments, [time for bar in bars for time in bar], spelling or key))
    written = [" ".join(next(cells) for _ in bar) for bar in bars]
    cells_a_line = max(
        sum(map(len, bars[first : first + BARS_A_LINE]))
        for first in range(0, len(bars), BARS_A_LINE)
    )
    size = max(beats.metre if beats.times else len(bars[0]), -(-cells_a_line // BARS_A_LINE))
    lines += ["", f'{{start_of_grid: shape="{BARS_A_LINE}x{size}"}}']  # room for irregular bars
    for first in range(0, len(written), BARS_A_LINE):
        end = "|" if first + BARS_A_LINE < len(written) else "|."
        lines.append(f"| {' | '.join(written[first : first + BARS_A_LINE])} {end}")
    return "\n".join([*lines, "{end_of_grid}", ""])


def _cells(segments: Sequence[Segment], times: Sequence[float], key: Key | None) -> list[str]:
    """The new chords at each of `times` in seconds; the first cell has the chord at 0."""
    middles = (np.asarray(times[1:]) + times[:-1]) / 2
    starting: list[list[str]] = [[] for _ in times]
    last = ""
    for start, _, label in segments:
        name = plain(chord_name(encode(label), key or (0, "major"))).replace("6/9", "69")
        name = "N.C." if name == "?" else name
        if name != last:
            starting[int(np.searchsorted(middles, start, "right"))].append(name)
        last = name
    return ["~".join(names) or "." for names in starting]


def _plain(text: str) -> str:
    """Text that may stand in a directive: one line, without braces."""
    return re.sub(r"[{}\s]+", " ", text).strip()
