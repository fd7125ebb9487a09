"""Functions of a loaded library made known to the dynamic linker under other names; Linux only.

A library that is loaded later takes them by those names. What says so is a shared object without
code, whose symbols are absolute addresses (System V ABI, "Symbol Table", SHN_ABS); glibc 2.28 or
later leaves those as they are.
"""

import ctypes
import os
import platform
import struct

MACHINES = {"x86_64": 62, "aarch64": 183}  # ELF's numbers
PAGE = 1 << 16  # the largest of the pages that these machines have
ABSOLUTE, GLOBAL_FUNCTION = 0xFFF1, 1 << 4 | 2
READ_WRITE = 6


def offer(library: ctypes.CDLL, names: dict[str, str]) -> None:
    """Make functions of `library` known to libraries loaded from now on, as {new name: its own}.

    Raises AttributeError for a function that the library lacks, OSError where the machine or its
    linker does not take it. Undone by nothing: it lasts as long as the process.
    """
    addresses = {
        name: ctypes.cast(getattr(library, own), ctypes.c_void_p).value or 0
        for name, own in names.items()
    }
    if platform.machine() not in MACHINES:
        raise OSError(f"{platform.machine()}: not one of {', '.join(MACHINES)}")
    # It stays open: the linker takes a file of the same name for the same library.
    file = os.memfd_create("audiotrain-symbols")
    os.write(file, shared_object(addresses, MACHINES[platform.machine()]))
    ctypes.CDLL(f"/proc/self/fd/{file}", mode=ctypes.RTLD_GLOBAL)


def shared_object(addresses: dict[str, int], machine: int) -> bytes:
    """A 64-bit ELF file whose only contents are these symbols."""
    strings = b"\0"
    symbols = bytes(24)
    for name, address in addresses.items():
        kind = GLOBAL_FUNCTION, 0, ABSOLUTE, address, 0
        symbols += struct.pack("<IBBHQQ", len(strings), *kind)
        strings += name.encode() + b"\0"
    count = len(addresses) + 1
    # One bucket, which holds them all: each points to the next, the last to none.
    chain = (0, *range(2, count), 0) if count > 1 else (0,)
    hashes = struct.pack(f"<{3 + count}I", 1, count, min(1, count - 1), *chain)

    at_symbols = 64 + 3 * 56
    at_hashes = at_symbols + len(symbols)
    at_strings = at_hashes + len(hashes)
    at_dynamic = -(-(at_strings + len(strings)) // 8) * 8
    hash_tag, string_tag, symbol_tag, string_size, symbol_size = 4, 5, 6, 10, 11
    entries = (
        (hash_tag, at_hashes),
        (string_tag, at_strings),
        (symbol_tag, at_symbols),
        (string_size, len(strings)),
        (symbol_size, 24),
        (0, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = at_dynamic + len(dynamic)

    load, dynamic_segment, stack = 1, 2, 0x6474E551  # without the last the stack could hold code
    segments = (
        (load, READ_WRITE, 0, 0, 0, size, size, PAGE),
        (dynamic_segment, READ_WRITE, *[at_dynamic] * 3, *[len(dynamic)] * 2, 8),
        (stack, READ_WRITE, 0, 0, 0, 0, 0, 16),
    )
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little end first, version 1
    header = struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    body = identity + header + b"".join(struct.pack("<IIQQQQQQ", *s) for s in segments)
    body += symbols + hashes + strings
    return body.ljust(at_dynamic, b"\0") + dynamic
