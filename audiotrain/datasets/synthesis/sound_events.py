"""Sound events by synthesis: bells, sirens, rain, barks, steps, each with audible attributes.

An event has a kind and, where the kind has them, a pitch (low, high), a pace (slow, fast) and a
level (soft, loud); an empty attribute is the middle. Every sound follows from its generator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import signal

ATTRIBUTES = {
    "pitch": ("low", "", "high"),
    "pace": ("slow", "", "fast"),
    "level": ("soft", "", "loud"),
}
LEVELS = {"soft": -40.0, "": -26.0, "loud": -12.0}  # dB of the loudest parts, full scale 0
_LEVEL_JITTER = 2.0  # dB
_JITTER = 0.12  # share of a frequency or a rate
_FADE_SECONDS = 0.01
_LONG, _SHORT = (3.0, 6.0), (2.0, 4.0)  # seconds


@dataclass(frozen=True)
class Canvas:
    """The generator, sample rate (Hz) and length (seconds) of a sound, its `frequency` in Hz and
    its events `per_second`; and what sounds are made of, as (samples,) of any level. It is `c` in
    the sounds below."""

    rng: np.random.Generator
    rate: int
    seconds: float
    frequency: float
    per_second: float

    def times(self, seconds: float) -> np.ndarray:
        """The time of each sample in seconds."""
        return np.arange(max(1, round(seconds * self.rate))) / self.rate

    @cached_property
    def time(self) -> np.ndarray:
        return self.times(self.seconds)

    def line(self, start: float, stop: float) -> np.ndarray:
        return np.linspace(start, stop, len(self.time))

    def sweep(self, frequencies: np.ndarray) -> np.ndarray:
        """A sine whose frequency in Hz is given for every sample."""
        return np.sin(2 * np.pi * np.cumsum(frequencies) / self.rate)

    def noise(self, count: int | None = None) -> np.ndarray:
        return self.rng.standard_normal(len(self.time) if count is None else count)

    def band(self, sound: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
        """A sound through a Butterworth band-pass between two frequencies in Hz."""
        high = min(high, 0.45 * self.rate)
        edges = (min(low, 0.9 * high), high)
        return signal.sosfilt(
            signal.butter(order, edges, "band", fs=self.rate, output="sos"), sound
        )

    def repeat(self, one: Callable[[], np.ndarray], jitter: float) -> np.ndarray:
        """Onsets `per_second` from the start on, each moved by up to `jitter` of their distance."""
        sound = np.zeros(len(self.time))
        for number in range(max(1, round(self.seconds * self.per_second))):
            moved = number + (self.rng.uniform(0, jitter) if number else 0)
            first = round(moved / self.per_second * self.rate)
            piece = one()[: max(0, len(sound) - first)]
            sound[first : first + len(piece)] += piece * self.rng.uniform(0.8, 1.0)
        return sound

    def decaying(self, seconds: float, *partials: tuple[float, float, float]) -> np.ndarray:
        """Sines of (Hz, amplitude, seconds to fall by 60 dB)."""
        time = self.times(seconds)
        parts = [
            level * np.sin(2 * np.pi * hertz * time) * 10 ** (-3 * time / decay)
            for hertz, level, decay in partials
            if hertz < 0.45 * self.rate
        ]
        return np.sum(parts, axis=0) if parts else np.zeros_like(time)

    def burst(self, seconds: float, decay: float) -> np.ndarray:
        """Noise that falls to 1 / e in `decay` seconds."""
        time = self.times(seconds)
        return self.noise(len(time)) * np.exp(-time / decay)

    def sine(self, hertz: float) -> np.ndarray:
        return np.sin(2 * np.pi * hertz * self.time)

    def gate(self, share: float) -> np.ndarray:
        """True in the first `share` of each of its events."""
        return ((self.time * self.per_second) % 1) < share

    def scatter(
        self, heights: Callable[[int], np.ndarray], grain: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """A grain of sound `per_second` times a second at random times, at random heights."""
        count = max(1, round(self.per_second * self.seconds))
        impulses = np.zeros(len(self.time))
        np.add.at(impulses, self.rng.integers(0, len(impulses), count), heights(count))
        return signal.oaconvolve(impulses, grain())[: len(impulses)]


class Kind(NamedTuple):
    """How a kind sounds and what it is called.

    `pitches` in Hz and `paces` in events a second are for (low, middle, high) and (slow, middle,
    fast); a single value where the kind has no such attribute. `seconds`: shortest, longest. The
    `noun` is by default the kind's name; `countable` nouns have an article.
    """

    sound: Callable[[Canvas], np.ndarray]
    verb: str
    pitches: tuple[float, ...] = (1,)
    paces: tuple[float, ...] = (1,)
    seconds: tuple[float, float] = _SHORT
    noun: str = ""
    countable: bool = True


@dataclass(frozen=True)
class Event:
    """One sound: its kind, its attributes ("" the middle), and its length in seconds."""

    kind: str
    seconds: float
    pitch: str = ""
    pace: str = ""
    level: str = ""

    @property
    def meaning(self) -> str:
        """The same for events with equal captions."""
        return " ".join(filter(None, (self.level, self.pace, self.pitch, self.kind)))


def random_event(
    rng: np.random.Generator, kind: str | None = None, seconds: float | None = None
) -> Event:
    """An event of a kind (None: a random one) with up to two attributes; `seconds` None is
    a random length."""
    name = str(rng.choice(list(KINDS))) if kind is None else kind
    known = KINDS[name]
    possible = ["level"] + ["pitch"] * (len(known.pitches) > 1) + ["pace"] * (len(known.paces) > 1)
    chosen = rng.permutation(possible)[: int(rng.integers(0, min(2, len(possible)) + 1))]
    attributes = {str(one): str(rng.choice(ATTRIBUTES[one])) for one in chosen}
    length = float(rng.uniform(*known.seconds)) if seconds is None else seconds
    return Event(name, length, **attributes)


def render(event: Event, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Mono float32 (samples,) of an event at `rate` Hz, at its level."""
    kind = KINDS[event.kind]
    frequency = _value(kind.pitches, ATTRIBUTES["pitch"].index(event.pitch), rng)
    per_second = _value(kind.paces, ATTRIBUTES["pace"].index(event.pace), rng)
    sound = kind.sound(Canvas(rng, rate, event.seconds, frequency, per_second))
    fade(sound, round(_FADE_SECONDS * rate))
    decibels = LEVELS[event.level] + rng.uniform(-_LEVEL_JITTER, _LEVEL_JITTER)
    return (sound * (10 ** (decibels / 20) / loudness(sound, rate))).astype(np.float32)


def fade(sound: np.ndarray, length: int) -> None:
    """Fade a sound in and out, in place, over `length` samples, at most half of it."""
    length = min(len(sound) // 2, length)
    ramp = np.linspace(0, 1, length, endpoint=False, dtype=sound.dtype)
    sound[:length] *= ramp
    sound[len(sound) - length :] *= ramp[::-1]


def loudness(sound: np.ndarray, rate: int) -> float:
    """RMS of the loudest quarter of its 50 ms frames, whatever the silence between events; never
    0."""
    size = max(1, min(len(sound), round(0.05 * rate)))
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    energies = np.sort(np.square(frames).mean(axis=1))
    return float(np.sqrt(energies[-max(1, len(energies) // 4) :].mean()) + 1e-12)


def _value(values: tuple[float, ...], which: int, rng: np.random.Generator) -> float:
    middle = values[which] if len(values) > 1 else values[0]
    return middle * float(rng.uniform(1 - _JITTER, 1 + _JITTER))


# ---- sounds


def _bell(c: Canvas) -> np.ndarray:
    ratios = (
        *((0.5, 0.6, 2.5), (1.0, 1.0, 2.0), (1.19, 0.7, 1.4), (2.0, 0.6, 1.0)),
        *((2.74, 0.4, 0.7), (3.76, 0.3, 0.4), (5.1, 0.2, 0.25)),
    )
    partials = [(c.frequency * ratio, level, decay) for ratio, level, decay in ratios]
    stroke = c.decaying(2.0, *partials)
    return c.repeat(lambda: stroke, 0.05)


def _siren(start: float, stop: float) -> Callable[[Canvas], np.ndarray]:
    """A siren that glides between two positions, 0 the lower and 1 the higher end."""
    return lambda c: np.tanh(2 * c.sweep(c.frequency * 2 ** (1.5 * c.line(start, stop))))


def _wailing_siren(c: Canvas) -> np.ndarray:
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * c.per_second * c.time)
    return np.tanh(2 * c.sweep(c.frequency * 2**wave))


def _tone(start: float, stop: float) -> Callable[[Canvas], np.ndarray]:
    """A tone that glides from `start` to `stop`, octaves above its frequency."""
    return lambda c: c.sweep(c.frequency * 2 ** c.line(start, stop))


def _whistle(c: Canvas) -> np.ndarray:
    tone = c.sweep(c.frequency * (1 + 0.02 * c.sine(6)))
    return tone + 0.05 * c.band(c.noise(), c.frequency / 1.2, c.frequency * 1.2)


def _hiss(c: Canvas) -> np.ndarray:
    return c.band(c.noise(), c.frequency / 1.5, c.frequency * 1.5)


def _drum(c: Canvas) -> np.ndarray:
    time = c.times(0.35)
    body = c.sweep(c.frequency * (1 + 1.5 * np.exp(-time / 0.02))) * np.exp(-time / 0.09)
    return c.repeat(lambda: body + 0.2 * c.burst(0.35, 0.008), 0.03)


def _rain(c: Canvas) -> np.ndarray:
    drop = c.decaying(0.02, (4500.0, 1.0, 0.02), (6800.0, 0.6, 0.015))
    patter = c.scatter(lambda count: c.rng.exponential(1.0, count), lambda: drop)
    return patter + 0.4 * c.band(c.noise(), 1500, 12000, order=1)


def _engine(c: Canvas) -> np.ndarray:
    wobble = c.frequency * (1 + 0.03 * np.sin(2 * np.pi * 0.7 * c.time + c.rng.uniform(0, 6)))
    phase = np.cumsum(wobble) / c.rate
    strokes = signal.sawtooth(2 * np.pi * phase) + 0.5 * signal.sawtooth(np.pi * phase)
    rumble = 0.4 * c.noise() * (1 + signal.sawtooth(2 * np.pi * phase))
    return c.band(strokes + rumble, 0.5 * c.frequency, 12 * c.frequency, order=1)


def _bird(c: Canvas) -> np.ndarray:
    def one() -> np.ndarray:
        time = c.times(c.rng.uniform(0.07, 0.14))
        shape = np.sin(np.pi * np.linspace(0, 1, len(time)))
        bend = c.rng.choice([-0.5, 0.5]) * np.linspace(-1, 1, len(time))
        return shape * c.sweep(c.frequency * 2 ** (bend + 0.1 * np.sin(2 * np.pi * 35 * time)))

    return c.repeat(one, 0.3)


def _dog(c: Canvas) -> np.ndarray:
    size = (c.frequency / 330) ** 0.5  # a smaller throat resonates higher

    def one() -> np.ndarray:
        position = np.linspace(0, 1, len(c.times(c.rng.uniform(0.16, 0.24))))
        pitch = c.frequency * (1 + 0.35 * np.sin(np.pi * position))
        voice = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / c.rate)
        throat = voice + 0.5 * c.noise(len(position))
        low = c.band(throat, 500 * size, 1100 * size)
        high = c.band(throat, 1500 * size, 2600 * size)
        return np.sin(np.pi * position**0.5) * (low + 0.5 * high)

    return c.repeat(one, 0.25)


def _clock(c: Canvas) -> np.ndarray:
    tick = c.decaying(0.03, (2300.0, 1.0, 0.02), (4100.0, 0.8, 0.012), (6900.0, 0.4, 0.008))
    return c.repeat(lambda: tick, 0.01)


def _wind(c: Canvas) -> np.ndarray:
    gusts = 1 + 0.6 * np.sin(2 * np.pi * c.per_second * c.time + c.rng.uniform(0, 6))
    return gusts * c.band(c.noise(), 0.5 * c.frequency, 1.6 * c.frequency)


def _waves(c: Canvas) -> np.ndarray:
    phase = 2 * np.pi * c.per_second * c.time + c.rng.uniform(0, 6)
    swell = (0.5 - 0.5 * np.cos(phase)) ** 2
    return (0.1 + swell) * c.band(c.noise(), 150, 5000, order=1)


def _telephone(c: Canvas) -> np.ndarray:
    warble = np.where((c.time * 20) % 1 < 0.5, c.frequency, 1.25 * c.frequency)
    return signal.square(2 * np.pi * np.cumsum(warble) / c.rate) * c.gate(0.6)


def _footsteps(c: Canvas) -> np.ndarray:
    def one() -> np.ndarray:
        time = c.times(0.12)
        heel = c.band(c.noise(len(time)), 80, 700) * np.exp(-time / 0.02)
        return heel + 0.3 * c.band(c.noise(len(time)), 800, 3000) * np.exp(-time / 0.008)

    return c.repeat(one, 0.08)


def _drops(c: Canvas) -> np.ndarray:
    def one() -> np.ndarray:
        time = c.times(0.09)
        bubble = c.frequency * c.rng.uniform(0.9, 1.1) * (1 + 6 * time)
        return c.sweep(bubble) * np.exp(-time / 0.02)

    return c.repeat(one, 0.2)


def _fire(c: Canvas) -> np.ndarray:
    cracks = c.scatter(lambda count: c.rng.exponential(1.0, count), lambda: c.burst(0.006, 0.0015))
    return cracks + 0.15 * c.band(c.noise(), 60, 400)


def _alarm(c: Canvas) -> np.ndarray:
    return np.tanh(3 * c.sine(c.frequency)) * c.gate(0.5)


def _string(c: Canvas) -> np.ndarray:
    partials = [(c.frequency * n * (1 + 0.0004 * n * n), 1 / n, 1.6 / n**0.5) for n in range(1, 16)]
    pluck = c.decaying(1.5, *partials)
    return c.repeat(lambda: pluck, 0.05)


def _helicopter(c: Canvas) -> np.ndarray:
    blades = np.maximum(0, c.sine(c.per_second)) ** 3
    return (0.1 + blades) * c.band(c.noise(), 40, 500)


def _applause(c: Canvas) -> np.ndarray:
    claps = c.scatter(lambda count: c.rng.uniform(0.3, 1.0, count), lambda: c.burst(0.02, 0.004))
    return c.band(claps, 600, 4000, order=1)


def _cricket(c: Canvas) -> np.ndarray:
    return c.sine(c.frequency) * (np.maximum(0, c.sine(60)) * c.gate(0.4))


def _saw(c: Canvas) -> np.ndarray:
    stroke = np.abs(np.sin(np.pi * c.per_second * c.time)) ** 2
    teeth = 1 + 0.8 * signal.sawtooth(2 * np.pi * 90 * c.time)
    return stroke * teeth * c.band(c.noise(), 900, 6000, order=1)


KINDS = {
    "bell": Kind(_bell, "rings", (350, 800, 1800), (0.8, 1.6, 3.5)),
    "rising siren": Kind(_siren(0, 1), "sounds", (250, 500, 1100)),
    "falling siren": Kind(_siren(1, 0), "sounds", (250, 500, 1100)),
    "wailing siren": Kind(_wailing_siren, "sounds", (300, 650, 1300), (0.4, 1.2, 4), _LONG),
    "rising tone": Kind(_tone(0, 2), "plays", (120, 300, 800)),
    "falling tone": Kind(_tone(2, 0), "plays", (120, 300, 800)),
    "steady tone": Kind(lambda c: c.sine(c.frequency), "plays", (150, 600, 2400)),
    "whistle": Kind(_whistle, "blows", (900, 1800, 3400)),
    "hiss": Kind(_hiss, "goes on", (1200, 3500, 9000), noun="hiss of steam"),
    "drum": Kind(_drum, "beats", (60, 120, 260), (1.2, 2.8, 7)),
    "rain": Kind(_rain, "falls", (1,), (400,), _LONG, countable=False),
    "engine": Kind(_engine, "runs", (35, 75, 160), (1,), _LONG),
    "bird": Kind(_bird, "chirps", (1800, 3200, 5600), (1.2, 3, 7)),
    "dog": Kind(_dog, "barks", (180, 330, 650), (0.8, 1.7, 3.5)),
    "clock": Kind(_clock, "ticks", (1,), (1, 2.5, 6), _LONG),
    "wind": Kind(_wind, "blows", (180, 450, 1100), (0.3,), _LONG, countable=False),
    "waves": Kind(_waves, "roll in", (1,), (0.25, 0.5, 1), (5.0, 8.0), "sea waves", False),
    "telephone": Kind(_telephone, "rings", (400, 800, 1600), (0.7,), _LONG),
    "footsteps": Kind(_footsteps, "pass", (1,), (1, 2, 4), countable=False),
    "drops": Kind(_drops, "fall", (500, 1000, 2200), (1, 2.5, 7), _SHORT, "drops of water", False),
    "fire": Kind(_fire, "crackles", (1,), (15,), _LONG),
    "alarm": Kind(_alarm, "beeps", (700, 1500, 3000), (1, 2.5, 7)),
    "string": Kind(_string, "sounds", (90, 220, 550), (1, 2, 5), noun="plucked string"),
    "helicopter": Kind(_helicopter, "hovers", (1,), (5, 11, 20), _LONG),
    "applause": Kind(_applause, "breaks out", (1,), (150,), countable=False),
    "cricket": Kind(_cricket, "chirps", (2800, 4500, 7000), (1, 2.5, 6), _LONG),
    "saw": Kind(_saw, "cuts wood", (1,), (0.8, 1.6, 3.5)),
}
