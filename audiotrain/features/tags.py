"""Title and artist of a recording by its tags: ID3, Vorbis comments, MP4 atoms, RIFF INFO, ASF.

What cannot be read is no tag, so that no prediction fails for it.
"""

import io
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from audiotrain.features.audio import AudioError, AudioPath, TarMember

LONGEST = 200  # characters of a title or an artist
# Demuxers of files with sound; others, such as playlists, would open further files.
_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,ogg,tak,truehd,tta,voc,w64,wav,wv"
)
# Marks that turn the direction of all text after them, also of that around a title.
_TURNS = dict.fromkeys(map(ord, "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067"))
_TURNS |= dict.fromkeys(map(ord, "\u2068\u2069\ufeff"))


class Tags(NamedTuple):
    """Title and artist of a recording, each one line; empty where its tags have none."""

    title: str = ""
    artist: str = ""


class _Member(io.BytesIO):
    """Bytes in which a place before the beginning, as damaged files ask for, is the beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(max(0, offset) if whence == os.SEEK_SET else offset, whence)


def read_tags(path: AudioPath) -> Tags:
    """Return the title and the artist in the tags of a file, or of a member of a tar.

    Without an artist it is the album's. Several artists of Vorbis comments are joined by "; ", of
    several in one frame of ID3v2.4 ffmpeg reads the first. A file that is gone, damaged or no audio
    has no tags.
    """
    import av

    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        source = _Member(path.read()) if isinstance(path, TarMember) else os.path.abspath(path)
        # A tag in another encoding than UTF-8 keeps its bytes for `plain`.
        with av.open(source, options=options, metadata_errors="surrogateescape") as container:
            streams = [stream.metadata for stream in container.streams.audio[:1]]
            found = [_lower_names(one) for one in (container.metadata, *streams)]
    except (AudioError, OSError, UnicodeEncodeError, av.FFmpegError):
        return Tags()
    artist = _first(found, "artist", "author", "album_artist")
    return Tags(_first(found, "title"), re.sub(r";(?=\S)", "; ", artist))


def plain(text: str) -> str:
    """Return a tag as one line of text: without control characters and marks that turn its
    direction, cut after LONGEST characters. Bytes that are not UTF-8 are read as Windows-1252,
    which ID3v1 and old programs write.

    >>> plain(" Für\\x1b\\n Elise "), plain("F\\udcfcr Elise")
    ('Für Elise', 'Für Elise')
    """
    data = text.encode("utf-8", "surrogateescape")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "ignore")
    text = unicodedata.normalize("NFC", text.translate(_TURNS))
    kept = (" " if unicodedata.category(one) in ("Cc", "Zl", "Zp") else one for one in text)
    line = " ".join("".join(kept).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def _lower_names(metadata: Mapping[str, str]) -> dict[str, str]:
    """Matroska has names in capitals."""
    return {name.lower(): value for name, value in metadata.items()}


def _first(found: list[dict[str, str]], *names: str) -> str:
    """The first tag of these names that is not empty."""
    values = (plain(tags.get(name, "")) for name in names for tags in found)
    return next(filter(None, values), "")
