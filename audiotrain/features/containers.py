"""What a file says of its parts where decoders do not look: Ogg links, WAV chunks, Xing frames."""

import itertools
import mmap
import string
from typing import NamedTuple

from audiotrain.features.sources import Part

_BEGIN_OF_STREAM = b"OggS\0\2"  # the first page of a logical stream
_NEAR = 400  # bytes, in which the streams of one link begin: their first pages are short
_LARGEST_PAGE = 65307  # bytes of an Ogg page at most
_LIBSNDFILE = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b".snd", b"caff")
_JUNK = 4096  # bytes after the last chunk that may be anything
_PRINTABLE = set((string.ascii_letters + string.digits + string.punctuation + " ").encode())


def ogg_links(part: Part) -> list[int]:
    """Where the links of a chained Ogg file begin, in bytes; one link is an ordinary file, none is
    another format."""
    if part.bytes_at(0, 4) != b"OggS":
        return []
    begins = []
    with open(part.path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            stop = part.offset + part.size
            at = data.find(_BEGIN_OF_STREAM, part.offset, stop)
            while at >= 0:
                begins.append(at - part.offset)
                at = data.find(_BEGIN_OF_STREAM, at + 1, stop)
    links = [later for earlier, later in itertools.pairwise(begins) if later - earlier > _NEAR]
    return [0, *links]


def unfinished_page(part: Part) -> int:
    """Bytes of the page at the end of an Ogg file that ends within it; 0 where it is whole."""
    tail = part.bytes_at(part.size - _LARGEST_PAGE, _LARGEST_PAGE)
    _, mark, page = tail.rpartition(b"OggS\0")
    count = page[21] if len(page) > 21 else 0  # of the page's segments, whose lengths follow
    stated = 22 + count + sum(page[22 : 22 + count])
    return len(page) if mark and len(page) < stated else 0


def is_for_libsndfile(part: Part) -> bool:
    """Whether a file begins as those that libsndfile reads whole; MP3, also in WAV, does not."""
    head = part.bytes_at(0, 22)
    return head[:4] in _LIBSNDFILE and not (head[12:16] == b"fmt " and head[20:22] == b"\x55\0")


def wav_data_lies(part: Part) -> bool:
    """Whether the data chunk of a WAV file is shorter than the sound: what follows is no chunk."""
    if part.bytes_at(0, 4) != b"RIFF":
        return False
    at, name = 12, b""
    while at + 8 <= part.size:
        head = part.bytes_at(at, 8)
        if not _PRINTABLE.issuperset(head[:4]):
            return name == b"data" and part.size - at > _JUNK
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data" and size == 0:
            return at + 8 < part.size
        at += 8 + size
        if size % 2 and part.bytes_at(at, 1) == b"\0":  # some writers leave the padding out
            at += 1
    return False


class Stated(NamedTuple):
    """What a Xing header states: frames and bytes of an MP3, 0 where it does not say."""

    frames: int
    size: int


def xing(head: bytes) -> Stated:
    """What the Xing header in the bytes before an MP3's first packet states."""
    at = max(head.rfind(b"Xing"), head.rfind(b"Info"))
    fields = head[at + 4 : at + 16] if at >= 0 else b""
    if len(fields) < 12:
        return Stated(0, 0)
    flags, first, second = (int.from_bytes(fields[i : i + 4], "big") for i in (0, 4, 8))
    if not flags & 1:
        return Stated(0, first if flags & 2 else 0)
    return Stated(first, second if flags & 2 else 0)
