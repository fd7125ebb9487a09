"""Recordings of any length as windows of CLAP's input, decoded in threads and a few at a time.

Windows are as long as the model's input, 10 s, cover the recording evenly and end with it; a
shorter recording is one window, filled up as the front end does it.
"""

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.items import Clip
from audiotrain.features.audio import AudioError
from audiotrain.models.clap.feature_extraction import ClapFeatures

SPARE_SECONDS = 1.0  # by which a header may tell less than there is, without a window more


class Window(NamedTuple):
    """One window: log-mel (1, frames, mels) float32 in dB, and its seconds of the clip."""

    mel: np.ndarray
    start: float
    end: float


class Event(NamedTuple):
    """What is known of clip number `clip`: a window more, or that there is no other.

    An `error` says what was wrong with its audio; windows that came before count for nothing.
    """

    clip: int
    window: Window | None = None
    error: AudioError | None = None


def windows(clip: Clip, features: ClapFeatures) -> Iterator[Window]:
    """The windows of a clip in time; no more of it is in memory than a few blocks.

    AudioError when it cannot be read.
    """
    settings = features.settings
    expected = int(clip.seconds * settings.rate + 0.5)
    blocks = clip.stream(settings.rate, settings.seconds)
    for start, samples in cut(blocks, expected, settings.samples, SPARE_SECONDS * settings.rate):
        if not len(samples):
            raise AudioError(f"{clip.audio}: holds no audio samples")
        mel = features.log_mel(features.fit(samples))[None]
        yield Window(mel, start / settings.rate, (start + len(samples)) / settings.rate)


def cut(
    blocks: Iterable[np.ndarray], expected: int, size: int, spare: float
) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample, samples) of windows of `size` that cover the blocks evenly, if they hold as
    many samples as `expected`.

    The last window always ends with the sound; where that goes on for more than `spare` after
    what was expected there are windows more.

    >>> sound = np.split(np.arange(26), [9, 20])
    >>> [(start, len(samples)) for start, samples in cut(sound, 26, 10, 2)]
    [(0, 10), (8, 10), (16, 10)]
    """
    count = max(1, -(-expected // size))
    even = np.linspace(0, max(0, expected - size), count).round().astype(int).tolist()
    later = itertools.count(even[-1], size)  # the last that was expected, and what comes after it
    starts = itertools.chain(((start, 0) for start in even[:-1]), ((s, spare) for s in later))
    start, beyond = next(starts)
    held, first, given = np.zeros(0, np.float32), 0, None  # held[0] is sample `first`
    for block in blocks:
        held = np.concatenate([held, block])
        while first + len(held) > start + size + beyond:
            yield start, held[start - first : start - first + size]
            given = start
            start, beyond = next(starts)
        kept = max(0, min(start - first, len(held) - size))
        held, first = held[kept:], first + kept
    last = max(0, first + len(held) - size)
    if last != given:
        yield last, held[last - first :]


def heard(
    clips: Sequence[Clip], features: ClapFeatures, threads: int, waiting: int
) -> Iterator[Event]:
    """The windows of all clips, those of one clip in their order, read by `threads` that are at
    most `waiting` windows ahead."""
    if threads < 1:
        raise ValueError(f"workers={threads}, expected 1 or more")
    ready: queue.Queue[Event | BaseException] = queue.Queue(waiting)
    stopped = threading.Event()
    numbers = iter(range(len(clips)))  # each taken by one thread: next() is atomic
    workers = [
        threading.Thread(target=_read, args=(clips, numbers, features, ready, stopped), daemon=True)
        for _ in range(min(threads, len(clips)))
    ]
    for worker in workers:
        worker.start()
    left = len(clips)
    try:
        while left:
            event = ready.get()
            if isinstance(event, BaseException):
                raise event
            left -= event.window is None
            yield event
    finally:
        stopped.set()
        for worker in workers:
            worker.join()


def _read(
    clips: Sequence[Clip],
    numbers: Iterator[int],
    features: ClapFeatures,
    ready: queue.Queue,
    stopped: threading.Event,
) -> None:
    """A thread's work: clip after clip, until none is left or nobody listens."""

    def put(event: Event | BaseException) -> None:
        while not stopped.is_set():
            try:
                ready.put(event, timeout=0.1)
                return
            except queue.Full:
                pass

    for number in numbers:
        error = None
        try:
            for window in windows(clips[number], features):
                put(Event(number, window))
                if stopped.is_set():
                    return
        except AudioError as found:
            error = found
        except BaseException as found:  # not of the audio: the caller's to know
            put(found)
            return
        put(Event(number, error=error))
