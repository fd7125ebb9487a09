"""Samples of WebDataset tars, read without extracting: files of one key are one sample."""

import tarfile
from pathlib import Path, PurePosixPath

from audiotrain.features.audio import AUDIO_SUFFIXES, TarMember

TAR_SUFFIXES = (".tar",)
COMPRESSED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def samples(path: Path, problems: list[str]) -> dict[str, dict[str, TarMember]]:
    """The files of each key by suffix, wherever in the tar they are.

    A key is the name up to the first dot of its last part, as in WebDataset. `problems` gets a tar
    that is cut short or none at all, and a file that is replaced by a later one of its key and
    suffix.
    """
    keys: dict[str, dict[str, TarMember]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                name = PurePosixPath(entry.name)
                if not entry.isfile() or name.name.startswith("."):
                    continue
                members = keys.setdefault(str(name.with_name(name.name.split(".")[0])), {})
                suffix = name.suffix.lower()
                if suffix in members:
                    problems.append(f"{members[suffix]}: not used, but {entry.name} further on")
                members[suffix] = TarMember(path, entry.name, entry.offset_data, entry.size)
    except (tarfile.TarError, OSError) as error:
        problems.append(f"{path}: not a whole tar: {error}")
    return keys


def audio_of(members: dict[str, TarMember]) -> TarMember | None:
    """The recording among a sample's files."""
    return next((members[suffix] for suffix in AUDIO_SUFFIXES if suffix in members), None)
