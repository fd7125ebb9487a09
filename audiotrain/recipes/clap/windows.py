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
from audiotrain.features.audio import AudioError, Gathered, OnMissing, warn
from audiotrain.models.clap.feature_extraction import ClapFeatures

MARGIN_SECONDS = 1.0  # beyond the length in the header, before there is another window


class Window(NamedTuple):
    """One window: log-mel (1, frames, mels) float32 in dB, and its seconds of the clip."""

    mel: np.ndarray
    start: float
    end: float


class Event(NamedTuple):
    """The next window of clip number `clip`, or without one the clip's end.

    An `error` says why the clip cannot be read; its earlier windows are then void. With the end
    comes what is `missing` of the clip.
    """

    clip: int
    window: Window | None = None
    error: AudioError | None = None
    missing: str = ""


def windows(clip: Clip, features: ClapFeatures, on_missing: OnMissing = warn) -> Iterator[Window]:
    """The windows of a clip in the order of time; only a few blocks of it are in memory.

    AudioError when it cannot be read.
    """
    settings = features.settings
    expected = int(clip.seconds * settings.rate + 0.5)
    blocks = clip.stream(settings.rate, settings.seconds, on_missing)
    for start, samples in cut(blocks, expected, settings.samples, MARGIN_SECONDS * settings.rate):
        if not len(samples):
            raise AudioError(f"{clip.audio}: too short for a sample at {settings.rate} Hz")
        mel = features.log_mel(features.fit(samples))[None]
        yield Window(mel, start / settings.rate, (start + len(samples)) / settings.rate)


def cut(
    blocks: Iterable[np.ndarray], expected: int, size: int, margin: float
) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample, samples) of windows of `size` samples that cover the blocks evenly, where
    these have as many samples as `expected`.

    The last window always ends with the sound; where that goes on for more than `margin` samples
    after what was expected, further windows follow.

    >>> sound = np.split(np.arange(26), [9, 20])
    >>> [(start, len(samples)) for start, samples in cut(sound, 26, 10, 2)]
    [(0, 10), (8, 10), (16, 10)]
    """
    count = max(1, -(-expected // size))
    even = np.linspace(0, max(0, expected - size), count).round().astype(int).tolist()
    later = itertools.count(even[-1], size)  # the last expected window, and those beyond it
    starts = itertools.chain(((start, 0) for start in even[:-1]), ((s, margin) for s in later))
    start, beyond = next(starts)
    buffer, first, previous = np.zeros(0, np.float32), 0, None  # buffer[0] is sample `first`
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while first + len(buffer) > start + size + beyond:
            yield start, buffer[start - first : start - first + size]
            previous = start
            start, beyond = next(starts)
        dropped = max(0, min(start - first, len(buffer) - size))
        buffer, first = buffer[dropped:], first + dropped
    last = max(0, first + len(buffer) - size)
    if last != previous:
        yield last, buffer[last - first :]


def read_windows(
    clips: Sequence[Clip], features: ClapFeatures, threads: int, waiting: int
) -> Iterator[Event]:
    """The windows of all clips, those of one clip in order, read by `threads` threads that are at
    most `waiting` windows ahead."""
    ready: queue.Queue[Event | BaseException] = queue.Queue(waiting)
    stopped = threading.Event()
    numbers = iter(range(len(clips)))  # each taken by one thread: next() is atomic

    def put(event: Event | BaseException) -> None:
        while not stopped.is_set():
            try:
                ready.put(event, timeout=0.1)
                return
            except queue.Full:
                pass

    def read() -> None:
        try:
            for number in numbers:
                error, missing = None, Gathered()
                try:
                    for window in windows(clips[number], features, missing):
                        put(Event(number, window))
                        if stopped.is_set():
                            return
                except AudioError as unreadable:
                    error = unreadable
                put(Event(number, error=error, missing=missing.text))
        except BaseException as failure:  # not of the audio: raised by the consumer
            put(failure)

    workers = [threading.Thread(target=read, daemon=True) for _ in range(min(threads, len(clips)))]
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
