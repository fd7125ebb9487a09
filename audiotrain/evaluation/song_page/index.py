"""The list of several songs' pages."""

from collections.abc import Sequence
from html import escape

from audiotrain.evaluation.song_page.document import ASSETS, document
from audiotrain.evaluation.song_page.song import Song
from audiotrain.music.chord_names import pitch_names
from audiotrain.utils.text import clock


def page(songs: Sequence[Song], addresses: Sequence[str], title: str = "Songs") -> str:
    """The page as text: each song with its artist, key, tempo and length, and a link to its
    `addresses`."""
    rows = [_row(song, address) for song, address in zip(songs, addresses, strict=True)]
    style = [ASSETS / "index.css"]
    return document(ASSETS / "index.html", style, [], title, None, body="\n".join(rows))


def _row(song: Song, address: str) -> str:
    about = [clock(int(song.seconds))]
    if song.key is not None:
        tonic, mode = song.key
        about.insert(0, f"{pitch_names(tonic, mode)[tonic]} {mode}")
    if (beats := song.beats.tempo) is not None:
        about.append(f"{beats:.0f} bpm")
    artist = f" <span>{escape(song.artist)}</span>" if song.artist else ""
    return (
        f'<li><div><a href="{escape(address)}">{escape(song.title)}</a>{artist}</div>'
        f"<span>{escape(' · '.join(about))}</span></li>"
    )
