"""Makes small .sf2 files: one preset, whose samples are a sine."""

import struct

import numpy as np

from audiotrain.datasets.synthesis.soundfont import SoundFont

RATE = 22050
PERIOD = 50  # samples of the sine: 441 Hz at RATE
ROOT = 69


def chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def make(path, zones, preset=(), wave=None, loop=(0, 1000), bank=0, cents=0, program=5):
    """An .sf2 file with one preset; `zones` and `preset` are lists of {generator: value}."""
    if wave is None:
        wave = 16384 * np.sin(2 * np.pi * np.arange(2000) / PERIOD)
    samples = np.asarray(wave).round().astype("<i2")
    start, end = loop

    def bags(groups):
        bag, generators = b"", b""
        for group in groups:
            bag += struct.pack("<HH", len(generators) // 4, 0)
            generators += b"".join(struct.pack("<Hh", number, v) for number, v in group)
        count = len(generators) // 4
        return bag + struct.pack("<HH", count, 0), generators + struct.pack("<Hh", 0, 0)

    inside = [
        [*zone.items(), (53, 0)] if zone.pop("sample", True) else [*zone.items()]
        for zone in map(dict, zones)
    ]
    ibag, igen = bags(inside)
    pbag, pgen = bags([[*dict(preset).items(), (41, 0)]])
    head = struct.pack("<20sHHHIII", b"preset", program, bank, 0, 0, 0, 0)
    phdr = head + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0)
    inst = struct.pack("<20sH", b"sine", 0) + struct.pack("<20sH", b"EOI", len(inside))
    shdr = struct.pack(
        "<20sIIIIIBbHH", b"sine", 0, len(samples), start, end, RATE, ROOT, cents, 0, 1
    ) + struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    presets = {b"phdr": phdr, b"pbag": pbag, b"pgen": pgen}
    parts = presets | {b"inst": inst, b"ibag": ibag, b"igen": igen, b"shdr": shdr}
    pdta = b"pdta" + b"".join(chunk(name, data) for name, data in parts.items())
    sdta = b"sdta" + chunk(b"smpl", samples.tobytes())
    info = b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 4))
    body = b"sfbk" + chunk(b"LIST", info) + chunk(b"LIST", sdta) + chunk(b"LIST", pdta)
    path.write_bytes(chunk(b"RIFF", body))
    return SoundFont(path)
