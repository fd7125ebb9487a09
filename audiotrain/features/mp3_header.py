"""The number of bytes that an MP3's header states, compared with what its file holds.

A Xing header states the bytes and frames of the audio, and decoders stop where it says. Joined
files and recorded streams have the header of their first part.
"""

from typing import BinaryIO, NamedTuple

_RATES = (44100, 48000, 32000)  # Hz of MPEG 1; half of that of MPEG 2, a quarter of MPEG 2.5
_SHIFTS = {3: 0, 2: 1, 0: 2}  # by the number that stands for the version in a frame's head
_KBITS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SEARCHED = 8192  # bytes after the stated ones, in which a frame begins if audio follows
_HEAD = 200  # bytes that hold a frame's head and its Xing header
_TOLERATED = 2**14  # bytes, or one in fifty, by which headers of whole files are off


class Unread(NamedTuple):
    """Bytes that a header states, and bytes of the file after them, which begin with audio."""

    stated: int
    after: int


def audio_after_the_stated(file: BinaryIO) -> Unread | None:
    """What a decoder leaves unread of an open MP3; None where its header states all, or nothing."""
    begin = _after_tags(file, 0)
    file.seek(begin)
    stated = _stated_bytes(file.read(_HEAD))
    after = file.seek(0, 2) - begin - stated
    if not stated or after <= max(_TOLERATED, stated // 50):
        return None
    file.seek(_after_tags(file, begin + stated))
    return Unread(stated, after) if _has_frames(file.read(_SEARCHED)) else None


def _after_tags(file: BinaryIO, position: int) -> int:
    """Where the tags end that begin at `position`: the ID3v1 tag of a file before, an ID3v2 tag."""
    file.seek(position)
    head = file.read(138)
    if head.startswith(b"TAG"):
        position, head = position + 128, head[128:]
    if len(head) < 10 or not head.startswith(b"ID3"):
        return position
    size = 0
    for byte in head[6:10]:  # seven bits of each
        size = size << 7 | byte & 0x7F
    return position + 10 + size


def _stated_bytes(head: bytes) -> int:
    """The bytes that the Xing header of a first frame states; 0 where it states none."""
    if not _frame_length(head):
        return 0
    is_first_version, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at = 4 + ((17 if is_mono else 32) if is_first_version else (9 if is_mono else 17))
    mark, flags = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "big")
    if mark not in (b"Xing", b"Info") or not flags & 2:
        return 0
    at += 12 if flags & 1 else 8  # behind the number of frames
    return int.from_bytes(head[at : at + 4], "big")


def _has_frames(data: bytes) -> bool:
    """Whether two frames follow one another somewhere."""
    for at in range(len(data)):
        length = _frame_length(data[at : at + 4])
        if length and _frame_length(data[at + length : at + length + 4]):
            return True
    return False


def _frame_length(head: bytes) -> int:
    """Bytes of the layer III frame that begins with `head`; 0 where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version not in _SHIFTS or bits in (0, 15) or rate == 3:
        return 0
    kbits = (_KBITS_1 if version == 3 else _KBITS_2)[bits - 1]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbits * 1000 // (_RATES[rate] >> _SHIFTS[version]) + (head[2] >> 1 & 1)
