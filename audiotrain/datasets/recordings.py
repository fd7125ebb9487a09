"""Recordings without captions or labels: all audio of a folder, and what lies in its tars."""

from pathlib import Path, PurePosixPath

from audiotrain.audio import AUDIO_SUFFIXES
from audiotrain.datasets import tars
from audiotrain.datasets.clips import Clip
from audiotrain.datasets.folders import walk


def recordings(path: Path, problems: list[str]) -> list[Clip]:
    """Clips of a folder, a tar or one recording, in the order of their names, which are relative to
    the folder. What of tars can't be read is told in `problems`; ValueError when there is no clip.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    clips = []
    for name in sorted(walk(path)) if path.is_dir() else [path.name]:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in tars.TAR_SUFFIXES:
            for members in tars.samples(folder / name, problems).values():
                member = tars.audio_of(members)
                if member is not None:
                    clips.append(Clip(_text(f"{name}/{member.name}"), member, ()))
        elif suffix in AUDIO_SUFFIXES or not path.is_dir():
            clips.append(Clip(_text(name), folder / name, ()))
    if not clips:
        told = f" ({problems[0]})" if problems else ""
        raise ValueError(f"{path}: no audio in it, expected {', '.join(AUDIO_SUFFIXES)}{told}")
    return clips


def _text(name: str) -> str:
    """A name that can be written, also where the file system has one that is not text."""
    return name.encode("utf-8", "replace").decode()
