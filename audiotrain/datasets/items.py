"""The items of a corpus, and clips: their length, their samples, their key in a cache."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from audiotrain.datasets.synthesis.sound_scenes import Scene
from audiotrain.features import audio
from audiotrain.features.audio import OnMissing, warn

SYNTHESIS = 1  # raise it when the samples of the same scene change


@dataclass(frozen=True)
class LabelledItem:
    """One recording, or a span of one, with what is to be learnt of it in subclasses.

    `id` is its path relative to the data folder, with `/` between the parts. `start` and `end` are
    seconds of the recording (`end` None: to its end). Items of one `group` belong in the same
    split, since they come from one source; `split` is "train", "valid" or "test" where the data
    name it. `columns` has the further columns of its table.
    """

    id: str
    audio: audio.AudioPath | Scene | None
    start: float = field(default=0.0, kw_only=True)
    end: float | None = field(default=None, kw_only=True)
    split: str | None = field(default=None, kw_only=True)
    group: str = field(default="", kw_only=True)
    columns: dict[str, str] = field(default_factory=dict, hash=False, kw_only=True)


@dataclass(frozen=True)
class Clip(LabelledItem):
    """One captioned or labelled recording, a span of one, or a composed scene.

    `captions` all describe the whole clip. `label` is the clip's class where the data name one,
    `labels` all its classes where a classifier learns them. Clips of one `concept` mean the same,
    whatever the words of their captions; without a concept the caption is the meaning.
    """

    audio: audio.AudioPath | Scene
    captions: tuple[str, ...]
    label: str | None = None
    labels: tuple[str, ...] = ()
    concept: str = ""

    @property
    def seconds(self) -> float:
        """Length in seconds. AudioError when it cannot be read, or its span is empty."""
        if isinstance(self.audio, Scene):
            whole = self.audio.seconds
        else:
            whole = audio.info(self.audio).seconds
        end = whole if self.end is None else min(whole, self.end)
        if end <= self.start:
            raise audio.AudioError(
                f"{self.audio}: span starts at {self.start:g} s, but the audio ends at "
                f"{whole:.3f} s"
            )
        return end - self.start

    def cache_key(self) -> tuple[Path | str, dict]:
        """Source and settings of the clip for a FeatureCache: the file, position in a tar or scene
        of its audio, and its span. AudioError when a tar is gone."""
        span: dict = {"start": self.start, "end": self.end}
        if isinstance(self.audio, Scene):
            return repr(self.audio), span | {"synthesis": SYNTHESIS}
        span["reader"] = audio.VERSION
        if isinstance(self.audio, audio.TarMember):
            try:
                changed = self.audio.tar.stat().st_mtime_ns
            except OSError as error:
                raise audio.AudioError(f"{self.audio}: can't be read: {error.strerror}") from None
            return f"{self.audio} {self.audio.offset} {self.audio.size} {changed}", span
        return Path(self.audio), span

    def read(
        self,
        rate: int,
        start: float = 0.0,
        seconds: float | None = None,
        on_missing: OnMissing = warn,
    ) -> np.ndarray:
        """Mono samples (samples,) at `rate` Hz, from `start` seconds of the clip on, up to its end
        or `seconds`; AudioError and `on_missing` as of audio.read."""
        left = None if self.end is None else self.end - self.start - start
        length = seconds if left is None else left if seconds is None else min(left, seconds)
        if isinstance(self.audio, Scene):
            first = round((self.start + start) * rate)
            last = None if length is None else first + max(1, round(length * rate))
            return self.audio.render(rate)[first:last]
        return audio.read(self.audio, rate, self.start + start, length, on_missing)

    def stream(
        self,
        rate: int,
        block_seconds: float = 30.0,
        on_missing: OnMissing = warn,
    ) -> Iterator[np.ndarray]:
        """The samples of `read(rate)` in blocks, the last one shorter; of a recording of any
        length no more than a few blocks are in memory."""
        if isinstance(self.audio, Scene):
            yield self.read(rate)
        elif not self.start and self.end is None:
            yield from audio.stream(self.audio, rate, block_seconds, on_missing)
        else:
            start, seconds = 0.0, self.seconds
            while seconds - start > 0.5 / rate:
                yield self.read(rate, start, block_seconds, on_missing)
                start += block_seconds


def meaning(caption: str, concept: str = "") -> str:
    """The concept of a clip, or without one its caption: what clips of equal meaning share."""
    return concept or normalised(caption)


def normalised(caption: str) -> str:
    """A caption without differences of case and spaces and without its full stop.

    >>> normalised(" A dog  barks.")
    'a dog barks'
    """
    return " ".join(caption.casefold().split()).rstrip(".!")


class Problem(NamedTuple):
    """Something wrong with the data: a kind to count by, and "file:line: text" or "file: text"."""

    kind: str
    text: str


AnyItem = TypeVar("AnyItem", bound=LabelledItem)


@dataclass(frozen=True)
class Corpus(Generic[AnyItem]):
    """The items of a folder in the order of their ids, the problems of what can't be used, and what
    else a report says of it."""

    folder: Path
    items: list[AnyItem]
    problems: list[Problem]
    notes: tuple[str, ...] = ()
