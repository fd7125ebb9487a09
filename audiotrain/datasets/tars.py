"""Samples of WebDataset tars, found without extracting: files of one key are one sample."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from audiotrain.audio import AUDIO_SUFFIXES, TarMember

TAR_SUFFIXES = (".tar",)
COMPRESSED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def samples(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, TarMember]]]:
    """(key, its files by suffix) in the order of the tar.

    A key is the name up to the first dot of its last part, as WebDataset has it. A tar that is
    cut short or none at all is told in `problems`.
    """
    key, members = "", {}
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                name = PurePosixPath(entry.name)
                if not entry.isfile() or name.name.startswith("."):
                    continue
                stem = name.name.split(".")[0]
                if members and key != str(name.with_name(stem)):
                    yield key, members
                    members = {}
                key = str(name.with_name(stem))
                members[name.suffix.lower()] = TarMember(
                    path, entry.name, entry.offset_data, entry.size
                )
    except (tarfile.TarError, OSError) as error:
        problems.append(f"{path}: not a whole tar: {error}")
    if members:
        yield key, members


def audio_of(members: dict[str, TarMember]) -> TarMember | None:
    """The recording among a sample's files."""
    return next((members[suffix] for suffix in AUDIO_SUFFIXES if suffix in members), None)
