"""Sound events by synthesis: bells, sirens, rain, barks, steps, each with attributes one can hear.

An event has a kind and, where the kind knows them, a pitch (low, high), a pace (slow, fast) and a
level (soft, loud); an empty attribute is the middle. Every sound follows from its generator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import signal

ATTRIBUTES = {"pitch": ("low", "", "high"), "pace": ("slow", "", "fast"),
              "level": ("soft", "", "loud")}  # fmt: skip
LEVELS = {"soft": -40.0, "": -26.0, "loud": -12.0}  # dB of the loudest parts, full scale 0
_LEVEL_JITTER = 2.0  # dB
_JITTER = 0.12  # share of a frequency or a rate
_FADE_SECONDS = 0.01

# (rng, rate, seconds, frequency in Hz, events a second) -> (samples,), of any level
Sound = Callable[[np.random.Generator, int, float, float, float], np.ndarray]


class Kind(NamedTuple):
    """How a kind sounds and what it is called.

    `pitches` in Hz and `paces` in events a second are for (low, middle, high) and (slow, middle,
    fast); a single value where the kind has no such attribute. `seconds`: shortest, longest.
    `countable` nouns have an article.
    """

    sound: Sound
    countable: bool
    noun: str
    verb: str
    pitches: tuple[float, ...]
    paces: tuple[float, ...]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Event:
    """One sound: its kind, what is heard about it ("" the middle), and its length in seconds."""

    kind: str
    seconds: float
    pitch: str = ""
    pace: str = ""
    level: str = ""

    @property
    def meaning(self) -> str:
        """What events with equal captions share."""
        return " ".join(filter(None, (self.level, self.pace, self.pitch, self.kind)))


def random_event(
    rng: np.random.Generator, kind: str | None = None, seconds: float | None = None
) -> Event:
    """An event of a kind (None: any) with up to two attributes, for `seconds` (None: drawn)."""
    name = str(rng.choice(list(KINDS))) if kind is None else kind
    known = KINDS[name]
    can = ["level"] + ["pitch"] * (len(known.pitches) > 1) + ["pace"] * (len(known.paces) > 1)
    chosen = rng.permutation(can)[: int(rng.integers(0, min(2, len(can)) + 1))]
    attributes = {str(one): str(rng.choice(ATTRIBUTES[one])) for one in chosen}
    length = float(rng.uniform(*known.seconds)) if seconds is None else seconds
    return Event(name, length, **attributes)


def render(event: Event, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Mono float32 (samples,) of an event at `rate` Hz, at its level."""
    kind = KINDS[event.kind]
    frequency = _value(kind.pitches, ATTRIBUTES["pitch"].index(event.pitch), rng)
    per_second = _value(kind.paces, ATTRIBUTES["pace"].index(event.pace), rng)
    sound = kind.sound(rng, rate, event.seconds, frequency, per_second)
    fade = min(len(sound) // 2, round(_FADE_SECONDS * rate))
    ramp = np.linspace(0, 1, fade, endpoint=False)
    sound[:fade] *= ramp
    sound[len(sound) - fade :] *= ramp[::-1]
    decibels = LEVELS[event.level] + rng.uniform(-_LEVEL_JITTER, _LEVEL_JITTER)
    return (sound * (10 ** (decibels / 20) / loudness(sound, rate))).astype(np.float32)


def loudness(sound: np.ndarray, rate: int) -> float:
    """RMS of the loudest quarter of its 50 ms frames, so that silence between events is not felt;
    never 0."""
    size = max(1, min(len(sound), round(0.05 * rate)))
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    energies = np.sort(np.square(frames).mean(axis=1))
    return float(np.sqrt(energies[-max(1, len(energies) // 4) :].mean()) + 1e-12)


def _value(values: tuple[float, ...], which: int, rng: np.random.Generator) -> float:
    middle = values[which] if len(values) > 1 else values[0]
    return middle * float(rng.uniform(1 - _JITTER, 1 + _JITTER))


# ---- what sounds are made of


def _time(rate: int, seconds: float) -> np.ndarray:
    return np.arange(max(1, round(seconds * rate))) / rate


def _sweep(frequencies: np.ndarray, rate: int) -> np.ndarray:
    """A sine whose frequency in Hz is given for every sample."""
    return np.sin(2 * np.pi * np.cumsum(frequencies) / rate)


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal(count)


def _band(sound: np.ndarray, rate: int, low: float, high: float, order: int = 2) -> np.ndarray:
    high = min(high, 0.45 * rate)
    return signal.sosfilt(
        signal.butter(order, (min(low, 0.9 * high), high), "band", fs=rate, output="sos"), sound
    )


def _repeat(
    one: Callable[[], np.ndarray], rng: np.random.Generator, rate: int, seconds: float,
    per_second: float, jitter: float,
) -> np.ndarray:  # fmt: skip
    """Onsets `per_second` from the start on, each moved by up to `jitter` of their distance."""
    sound = np.zeros(max(1, round(seconds * rate)))
    count = max(1, round(seconds * per_second))
    for number in range(count):
        moved = number + (rng.uniform(0, jitter) if number else 0)
        first = round(moved / per_second * rate)
        piece = one()[: max(0, len(sound) - first)]
        sound[first : first + len(piece)] += piece * rng.uniform(0.8, 1.0)
    return sound


def _decaying(rate: int, seconds: float, partials: list[tuple[float, float, float]]) -> np.ndarray:
    """Sines of (Hz, amplitude, seconds to fall by 60 dB)."""
    time = _time(rate, seconds)
    parts = [
        level * np.sin(2 * np.pi * hertz * time) * 10 ** (-3 * time / decay)
        for hertz, level, decay in partials
        if hertz < 0.45 * rate
    ]
    return np.sum(parts, axis=0) if parts else np.zeros_like(time)


# ---- sounds


def _bell(rng, rate, seconds, frequency, per_second):
    ratios = ((0.5, 0.6, 2.5), (1.0, 1.0, 2.0), (1.19, 0.7, 1.4), (2.0, 0.6, 1.0),
              (2.74, 0.4, 0.7), (3.76, 0.3, 0.4), (5.1, 0.2, 0.25))  # fmt: skip
    partials = [(frequency * ratio, level, decay) for ratio, level, decay in ratios]
    stroke = _decaying(rate, 2.0, partials)
    return _repeat(lambda: stroke, rng, rate, seconds, per_second, 0.05)


def _rising_siren(rng, rate, seconds, frequency, per_second):
    climb = np.linspace(0, 1, len(_time(rate, seconds)))
    return np.tanh(2 * _sweep(frequency * 2 ** (1.5 * climb), rate))


def _falling_siren(rng, rate, seconds, frequency, per_second):
    fall = np.linspace(1, 0, len(_time(rate, seconds)))
    return np.tanh(2 * _sweep(frequency * 2 ** (1.5 * fall), rate))


def _wailing_siren(rng, rate, seconds, frequency, per_second):
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * per_second * _time(rate, seconds))
    return np.tanh(2 * _sweep(frequency * 2**wave, rate))


def _rising_tone(rng, rate, seconds, frequency, per_second):
    return _sweep(frequency * 2 ** np.linspace(0, 2, len(_time(rate, seconds))), rate)


def _falling_tone(rng, rate, seconds, frequency, per_second):
    return _sweep(frequency * 2 ** np.linspace(2, 0, len(_time(rate, seconds))), rate)


def _steady_tone(rng, rate, seconds, frequency, per_second):
    return np.sin(2 * np.pi * frequency * _time(rate, seconds))


def _whistle(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    tone = _sweep(frequency * (1 + 0.02 * np.sin(2 * np.pi * 6 * time)), rate)
    return tone + 0.05 * _band(_noise(rng, len(time)), rate, frequency / 1.2, frequency * 1.2)


def _hiss(rng, rate, seconds, frequency, per_second):
    return _band(_noise(rng, len(_time(rate, seconds))), rate, frequency / 1.5, frequency * 1.5)


def _drum(rng, rate, seconds, frequency, per_second):
    def one():
        time = _time(rate, 0.35)
        body = _sweep(frequency * (1 + 1.5 * np.exp(-time / 0.02)), rate) * np.exp(-time / 0.09)
        return body + 0.2 * _noise(rng, len(time)) * np.exp(-time / 0.008)

    return _repeat(one, rng, rate, seconds, per_second, 0.03)


def _rain(rng, rate, seconds, frequency, per_second):
    count = len(_time(rate, seconds))
    drops = np.zeros(count)
    places = rng.integers(0, count, round(per_second * seconds))
    np.add.at(drops, places, rng.exponential(1.0, len(places)))
    ring = _decaying(rate, 0.02, [(4500.0, 1.0, 0.02), (6800.0, 0.6, 0.015)])
    patter = signal.oaconvolve(drops, ring)[:count]
    return patter + 0.4 * _band(_noise(rng, count), rate, 1500, 12000, order=1)


def _engine(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    wobble = frequency * (1 + 0.03 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6)))
    phase = np.cumsum(wobble) / rate
    strokes = signal.sawtooth(2 * np.pi * phase) + 0.5 * signal.sawtooth(np.pi * phase)
    rumble = 0.4 * _noise(rng, len(time)) * (1 + signal.sawtooth(2 * np.pi * phase))
    return _band(strokes + rumble, rate, 0.5 * frequency, 12 * frequency, order=1)


def _bird(rng, rate, seconds, frequency, per_second):
    def one():
        time = _time(rate, rng.uniform(0.07, 0.14))
        shape = np.sin(np.pi * np.linspace(0, 1, len(time)))
        bend = rng.choice([-0.5, 0.5]) * np.linspace(-1, 1, len(time))
        return shape * _sweep(frequency * 2 ** (bend + 0.1 * np.sin(2 * np.pi * 35 * time)), rate)

    return _repeat(one, rng, rate, seconds, per_second, 0.3)


def _dog(rng, rate, seconds, frequency, per_second):
    size = (frequency / 330) ** 0.5  # a smaller throat resonates higher

    def one():
        time = _time(rate, rng.uniform(0.16, 0.24))
        shape = np.sin(np.pi * np.linspace(0, 1, len(time)) ** 0.5)
        pitch = frequency * (1 + 0.35 * np.sin(np.pi * np.linspace(0, 1, len(time))))
        voice = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / rate)
        throat = voice + 0.5 * _noise(rng, len(time))
        low = _band(throat, rate, 500 * size, 1100 * size)
        return shape * (low + 0.5 * _band(throat, rate, 1500 * size, 2600 * size))

    return _repeat(one, rng, rate, seconds, per_second, 0.25)


def _clock(rng, rate, seconds, frequency, per_second):
    tick = _decaying(rate, 0.03, [(2300.0, 1.0, 0.02), (4100.0, 0.8, 0.012), (6900.0, 0.4, 0.008)])
    return _repeat(lambda: tick, rng, rate, seconds, per_second, 0.01)


def _wind(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    gusts = 1 + 0.6 * np.sin(2 * np.pi * per_second * time + rng.uniform(0, 6))
    return gusts * _band(_noise(rng, len(time)), rate, 0.5 * frequency, 1.6 * frequency)


def _waves(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * per_second * time + rng.uniform(0, 6))) ** 2
    return (0.1 + swell) * _band(_noise(rng, len(time)), rate, 150, 5000, order=1)


def _telephone(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    warble = np.where((time * 20) % 1 < 0.5, frequency, 1.25 * frequency)
    ringing = ((time * per_second) % 1) < 0.6
    return signal.square(2 * np.pi * np.cumsum(warble) / rate) * ringing


def _footsteps(rng, rate, seconds, frequency, per_second):
    def one():
        time = _time(rate, 0.12)
        heel = _band(_noise(rng, len(time)), rate, 80, 700) * np.exp(-time / 0.02)
        return heel + 0.3 * _band(_noise(rng, len(time)), rate, 800, 3000) * np.exp(-time / 0.008)

    return _repeat(one, rng, rate, seconds, per_second, 0.08)


def _drops(rng, rate, seconds, frequency, per_second):
    def one():
        time = _time(rate, 0.09)
        bubble = frequency * rng.uniform(0.9, 1.1) * (1 + 6 * time)
        return _sweep(bubble, rate) * np.exp(-time / 0.02)

    return _repeat(one, rng, rate, seconds, per_second, 0.2)


def _fire(rng, rate, seconds, frequency, per_second):
    count = len(_time(rate, seconds))
    cracks = np.zeros(count)
    places = rng.integers(0, count, max(1, round(per_second * seconds)))
    np.add.at(cracks, places, rng.exponential(1.0, len(places)))
    snap = _noise(rng, round(0.006 * rate)) * np.exp(-_time(rate, 0.006) / 0.0015)
    roar = _band(_noise(rng, count), rate, 60, 400)
    return signal.oaconvolve(cracks, snap)[:count] + 0.15 * roar


def _alarm(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    beeping = ((time * per_second) % 1) < 0.5
    return np.tanh(3 * np.sin(2 * np.pi * frequency * time)) * beeping


def _string(rng, rate, seconds, frequency, per_second):
    partials = [(frequency * n * (1 + 0.0004 * n * n), 1 / n, 1.6 / n**0.5) for n in range(1, 16)]
    pluck = _decaying(rate, 1.5, partials)
    return _repeat(lambda: pluck, rng, rate, seconds, per_second, 0.05)


def _helicopter(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    blades = np.maximum(0, np.sin(2 * np.pi * per_second * time)) ** 3
    return (0.1 + blades) * _band(_noise(rng, len(time)), rate, 40, 500)


def _applause(rng, rate, seconds, frequency, per_second):
    count = len(_time(rate, seconds))
    claps = np.zeros(count)
    places = rng.integers(0, count, round(per_second * seconds))
    np.add.at(claps, places, rng.uniform(0.3, 1.0, len(places)))
    clap = _noise(rng, round(0.02 * rate)) * np.exp(-_time(rate, 0.02) / 0.004)
    return _band(signal.oaconvolve(claps, clap)[:count], rate, 600, 4000, order=1)


def _cricket(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    pulses = np.maximum(0, np.sin(2 * np.pi * 60 * time)) * (((time * per_second) % 1) < 0.4)
    return np.sin(2 * np.pi * frequency * time) * pulses


def _saw(rng, rate, seconds, frequency, per_second):
    time = _time(rate, seconds)
    stroke = np.abs(np.sin(np.pi * per_second * time)) ** 2
    teeth = 1 + 0.8 * signal.sawtooth(2 * np.pi * 90 * time)
    return stroke * teeth * _band(_noise(rng, len(time)), rate, 900, 6000, order=1)


_LONG, _SHORT = (3.0, 6.0), (2.0, 4.0)
KINDS = {
    "bell": Kind(_bell, True, "bell", "rings", (350, 800, 1800), (0.8, 1.6, 3.5), _SHORT),
    "rising siren": Kind(
        _rising_siren, True, "rising siren", "sounds", (250, 500, 1100), (1,), _SHORT
    ),
    "falling siren": Kind(
        _falling_siren, True, "falling siren", "sounds", (250, 500, 1100), (1,), _SHORT
    ),
    "wailing siren": Kind(
        _wailing_siren, True, "wailing siren", "sounds", (300, 650, 1300), (0.4, 1.2, 4), _LONG
    ),
    "rising tone": Kind(_rising_tone, True, "rising tone", "plays", (120, 300, 800), (1,), _SHORT),
    "falling tone": Kind(
        _falling_tone, True, "falling tone", "plays", (120, 300, 800), (1,), _SHORT
    ),
    "steady tone": Kind(
        _steady_tone, True, "steady tone", "plays", (150, 600, 2400), (1,), _SHORT
    ),
    "whistle": Kind(_whistle, True, "whistle", "blows", (900, 1800, 3400), (1,), _SHORT),
    "hiss": Kind(_hiss, True, "hiss of steam", "goes on", (1200, 3500, 9000), (1,), _SHORT),
    "drum": Kind(_drum, True, "drum", "beats", (60, 120, 260), (1.2, 2.8, 7), _SHORT),
    "rain": Kind(_rain, False, "rain", "falls", (1,), (400,), _LONG),
    "engine": Kind(_engine, True, "engine", "runs", (35, 75, 160), (1,), _LONG),
    "bird": Kind(_bird, True, "bird", "chirps", (1800, 3200, 5600), (1.2, 3, 7), _SHORT),
    "dog": Kind(_dog, True, "dog", "barks", (180, 330, 650), (0.8, 1.7, 3.5), _SHORT),
    "clock": Kind(_clock, True, "clock", "ticks", (1,), (1, 2.5, 6), _LONG),
    "wind": Kind(_wind, False, "wind", "blows", (180, 450, 1100), (0.3,), _LONG),
    "waves": Kind(_waves, False, "sea waves", "roll in", (1,), (0.25, 0.5, 1), (5.0, 8.0)),
    "telephone": Kind(_telephone, True, "telephone", "rings", (400, 800, 1600), (0.7,), _LONG),
    "footsteps": Kind(_footsteps, False, "footsteps", "pass", (1,), (1, 2, 4), _SHORT),
    "drops": Kind(
        _drops, False, "drops of water", "fall", (500, 1000, 2200), (1, 2.5, 7), _SHORT
    ),
    "fire": Kind(_fire, True, "fire", "crackles", (1,), (15,), _LONG),
    "alarm": Kind(_alarm, True, "alarm", "beeps", (700, 1500, 3000), (1, 2.5, 7), _SHORT),
    "string": Kind(_string, True, "plucked string", "sounds", (90, 220, 550), (1, 2, 5), _SHORT),
    "helicopter": Kind(_helicopter, True, "helicopter", "hovers", (1,), (5, 11, 20), _LONG),
    "applause": Kind(_applause, False, "applause", "breaks out", (1,), (150,), _SHORT),
    "cricket": Kind(_cricket, True, "cricket", "chirps", (2800, 4500, 7000), (1, 2.5, 6), _LONG),
    "saw": Kind(_saw, True, "saw", "cuts wood", (1,), (0.8, 1.6, 3.5), _SHORT),
}  # fmt: skip
