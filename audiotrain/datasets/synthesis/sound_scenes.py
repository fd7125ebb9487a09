"""Scenes of sound events with exact captions in many phrasings, and real clips joined likewise.

`then` puts clips one after another, `while` on top of each other; the caption has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from audiotrain.datasets.synthesis import sound_events as events
from audiotrain.datasets.synthesis.sound_events import Event
from audiotrain.utils.errors import UserError

RELATIONS = ("then", "while")
CAPTIONS = 5  # phrasings of a scene
_GAP_SECONDS = (0.05, 0.4)  # between events that follow each other
_FLOOR_DECIBELS = (-80.0, -60.0)  # of the noise under every scene
_FADE_SECONDS = 0.02

WORDS = {
    "low": ("low", "deep", "low-pitched"),
    "high": ("high", "high-pitched"),
    "slow": ("slow",),
    "fast": ("fast", "rapid", "quick"),
    "soft": ("soft", "quiet", "faint"),
    "loud": ("loud",),
}
ADVERBS = {
    "slow": ("slowly",),
    "fast": ("fast", "rapidly", "quickly"),
    "soft": ("softly", "quietly"),
    "loud": ("loudly",),
}
ALONE = ("{0}", "{0}", "the sound of {0}", "you can hear {0}", "this is {0}")
# Noun phrases, clauses; more than two are joined from left to right by THEN_MORE.
THEN_MORE = ("{0}, then {1}", "{0} and then {1}")
_BEFORE = ("{0} and then {1}", "{0} before {1}", "{1} after {0}", "first {0}, then {1}")
THEN = ("{0}, then {1}", "{0} followed by {1}", *_BEFORE)
THEN_CLAUSE = ("{0}, then {1}", *_BEFORE)
WHILE = ("{0} while {1}", "{0} together with {1}", "{0} and {1} at the same time", "{0} over {1}")
WHILE_CLAUSE = ("{0} while {1}", "{0} and at the same time {1}", "{0} as {1}")


# ---- scenes


@dataclass(frozen=True)
class Scene:
    """Events that follow each other (`then`) or sound together (`while`); one has no relation.

    Everything that is random in its sound and its words comes from `seed`.
    """

    events: tuple[Event, ...]
    relation: str
    seed: int

    @property
    def seconds(self) -> float:
        """Length of its sound."""
        lengths = [event.seconds for event in self.events]
        if self.relation == "while":
            return max(lengths)
        return sum(lengths) + sum(self._gaps)

    @property
    def meaning(self) -> str:
        """The same for scenes of equal captions."""
        meanings = [event.meaning for event in self.events]
        return f" {self.relation} ".join(sorted(meanings) if self.relation == "while" else meanings)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Up to CAPTIONS different phrasings; each describes all of it."""
        rng = np.random.default_rng([self.seed, 1])
        phrasings = dict.fromkeys(describe(self, rng) for _ in range(3 * CAPTIONS))
        return tuple(phrasings)[:CAPTIONS]

    def render(self, rate: int) -> np.ndarray:
        """Mono float32 (samples,) at `rate` Hz; the same at every call."""
        rng = np.random.default_rng([self.seed, 2])
        sounds = [events.render(event, rate, rng) for event in self.events]
        scene = np.zeros(max(1, round(self.seconds * rate)), np.float32)
        start = 0.0
        for sound, gap in zip(sounds, (*self._gaps, 0.0), strict=True):
            first = round(start * rate)
            piece = sound[: len(scene) - first]
            scene[first : first + len(piece)] += piece
            if self.relation != "while":
                start += len(sound) / rate + gap
        floor = 10 ** (rng.uniform(*_FLOOR_DECIBELS) / 20)
        scene += floor * rng.standard_normal(len(scene), np.float32)
        return scene / max(1.0, np.abs(scene).max())

    @property
    def _gaps(self) -> tuple[float, ...]:
        count = len(self.events) - 1
        if self.relation == "while":
            return (0.0,) * count
        return tuple(np.random.default_rng([self.seed, 3]).uniform(*_GAP_SECONDS, count))


def random_scene(seed: int) -> Scene:
    """One event, two or three in a row, or two at once: the same for the same seed.

    >>> scene = random_scene(4)
    >>> len(scene.events), scene.relation, scene == random_scene(4)
    (2, 'while', True)
    """
    rng = np.random.default_rng([seed, 0])
    shape = rng.choice(["alone", "then", "then more", "while"], p=[0.3, 0.35, 0.1, 0.25])
    count = {"alone": 1, "then": 2, "then more": 3, "while": 2}[str(shape)]
    kinds = rng.choice(list(events.KINDS), count, replace=False)
    if shape == "while":
        seconds = [float(rng.uniform(4, 8))] * 2
    else:
        longest = {1: 8.0, 2: 4.5, 3: 3.0}[count]
        seconds = [min(longest, float(rng.uniform(*events.KINDS[kind].seconds))) for kind in kinds]
    parts = [
        events.random_event(rng, str(kind), length)
        for kind, length in zip(kinds, seconds, strict=True)
    ]
    relation = {"alone": "", "then more": "then"}.get(str(shape), str(shape))
    return Scene(tuple(parts), relation, seed)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """One phrasing of a scene, at random."""
    if not scene.relation:
        if rng.random() < 0.4:
            return _clause(scene.events[0], rng)
        return str(rng.choice(ALONE)).format(_noun_phrase(scene.events[0], rng))
    clauses = rng.random() < 0.5
    phrase = _clause if clauses else _noun_phrase
    parts = [phrase(event, rng) for event in scene.events]
    if scene.relation == "while":
        parts = [parts[number] for number in rng.permutation(len(parts))]
        template = str(rng.choice(WHILE_CLAUSE if clauses else WHILE[1:]))
    else:
        of_two = THEN_CLAUSE if clauses else THEN
        template = str(rng.choice(of_two if len(parts) == 2 else THEN_MORE))
    return _joined(parts, template)


def _noun_phrase(event: Event, rng: np.random.Generator) -> str:
    attributes = (event.level, event.pace, event.pitch)
    return _noun([str(rng.choice(WORDS[one])) for one in attributes if one], event)


def _clause(event: Event, rng: np.random.Generator) -> str:
    """Pitch before the noun; pace and level after the verb."""
    noun = _noun([str(rng.choice(WORDS[event.pitch]))] if event.pitch else [], event)
    adverbs = [str(rng.choice(ADVERBS[one])) for one in (event.pace, event.level) if one]
    verb = events.KINDS[event.kind].verb
    return " ".join(filter(None, (noun, verb, " and ".join(adverbs))))


def _noun(adjectives: list[str], event: Event) -> str:
    kind = events.KINDS[event.kind]
    words = [*adjectives, kind.noun or event.kind]
    if kind.countable:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    return " ".join(words)


def _joined(parts: Sequence[str], template: str) -> str:
    text = parts[0]
    for part in parts[1:]:
        text = template.format(text, part)
    return text


# ---- clips joined


class Joined(NamedTuple):
    """Clips joined: samples, what they are, and for `then` the caption of the other order."""

    audio: np.ndarray
    caption: str
    relation: str
    reversed_caption: str | None


def compose_clips(
    clips: Sequence[tuple[np.ndarray, str]],
    rng: np.random.Generator,
    rate: int,
    relation: str | None = None,
    seconds: float = 10.0,
) -> Joined:
    """Two captioned clips ((samples,) at `rate` Hz, caption) as one of at most `seconds`.

    `then`: each is cut to its half; `while`: the second is set to the first's loudness, give or
    take 5 dB, and repeated or cut to the longer one's length. `relation` None is one at random.
    """
    if len(clips) != 2:
        raise UserError(f"{len(clips)} clips to join, expected 2")
    relation = str(rng.choice(RELATIONS)) if relation is None else relation
    if relation not in RELATIONS:
        raise UserError(f"relation={relation!r}, expected one of {', '.join(RELATIONS)}")
    captions = [_inside(caption) for _, caption in clips]
    if relation == "then":
        gap = round(rng.uniform(*_GAP_SECONDS) * rate)
        half = (round(seconds * rate) - gap) // 2
        pieces = [_excerpt(samples, half, rng).astype(np.float32) for samples, _ in clips]
        for piece in pieces:
            events.fade(piece, round(_FADE_SECONDS * rate))
        audio = np.concatenate([pieces[0], np.zeros(gap, np.float32), pieces[1]])
        template = str(rng.choice(THEN))
        other = template.format(captions[1], captions[0])
        return Joined(audio, template.format(*captions), relation, other)
    audio = overlay(clips[0][0], clips[1][0], rng, rate, round(seconds * rate))
    captions = [captions[number] for number in rng.permutation(2)]
    return Joined(audio, str(rng.choice(WHILE)).format(*captions), relation, None)


def overlay(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, rate: int, longest: int
) -> np.ndarray:
    """Both clips at once, at most `longest` samples: the second at the first's loudness, up to
    5 dB more or less, the shorter one repeated."""
    length = min(longest, max(len(first), len(second)))
    first, second = (
        _excerpt(clip, length, rng) if len(clip) >= length else np.resize(clip, length)
        for clip in (first, second)
    )
    level = events.loudness(first, rate) * 10 ** (rng.uniform(-5, 5) / 20)
    mixed = first + second * np.float32(min(level / events.loudness(second, rate), 100.0))
    return mixed / np.float32(max(1.0, np.abs(mixed).max()))


def and_caption(first: str, second: str) -> str:
    """The caption of two clips at once.

    >>> and_caption("This is a sound of rain.", "A dog barks.")
    'this is a sound of rain and a dog barks'
    """
    return f"{_inside(first)} and {_inside(second)}"


def _inside(caption: str) -> str:
    """A caption as a part of a sentence: no full stop, no capital but of names and acronyms."""
    caption = caption.strip().rstrip(".!")
    word = caption.split(" ", 1)[0]
    keep = word == "I" or not word[1:].islower() and len(word) > 1
    return caption if keep else caption[:1].lower() + caption[1:]


def _excerpt(samples: np.ndarray, longest: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(0, max(0, len(samples) - longest) + 1))
    return samples[start : start + longest]
