"""Sound events by what is measured of them, scenes by their captions, and clips joined."""

import re

import numpy as np
import pytest

from audiotrain.datasets.synthesis import sound_events, sound_scenes
from audiotrain.datasets.synthesis.sound_events import KINDS, Event, loudness
from audiotrain.datasets.synthesis.sound_scenes import Scene, compose_clips, random_scene

RATE = 24000


def rendered(kind: str, seconds: float = 3.0, seed: int = 0, **attributes) -> np.ndarray:
    return sound_events.render(
        Event(kind, seconds, **attributes), RATE, np.random.default_rng(seed)
    )


def centroid(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((np.fft.rfftfreq(len(sound), 1 / RATE) * power).sum() / power.sum())


def pulses(sound: np.ndarray, of_pitch: bool = False) -> int:
    """How often the level, or the pitch, rises above the middle of its range."""
    frames = sound[: len(sound) // 480 * 480].reshape(-1, 480)  # 20 ms
    if of_pitch:
        curve = (np.diff(np.sign(frames), axis=1) != 0).mean(axis=1)
    else:
        curve = np.sqrt(np.square(frames).mean(axis=1))
    high = curve > 0.4 * np.quantile(curve, 0.99) + 0.6 * curve.min()
    return int((high[1:] & ~high[:-1]).sum() + high[0])


def test_there_are_many_kinds():
    assert len(KINDS) >= 12


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_sounds_as_long_as_it_says_and_at_its_level(kind):
    for level, decibels in sound_events.LEVELS.items():
        sound = rendered(kind, 2.5, level=level)
        assert sound.dtype == np.float32
        assert len(sound) == round(2.5 * RATE)
        assert np.isfinite(sound).all()
        assert 20 * np.log10(loudness(sound, RATE)) == pytest.approx(decibels, abs=2.01)
    assert not np.array_equal(rendered(kind, seed=1), rendered(kind, seed=2))


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if len(kind.pitches) > 1])
def test_high_is_higher_than_low(kind):
    low, middle, high = (
        np.mean([centroid(rendered(kind, seed=seed, pitch=pitch)) for seed in range(3)])
        for pitch in ("low", "", "high")
    )
    assert low * 1.2 < middle < high / 1.2


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if len(kind.paces) > 1])
def test_fast_is_faster_than_slow(kind):
    slow, fast = (
        pulses(rendered(kind, 8.0, pace=pace), of_pitch=kind == "wailing siren")
        for pace in ("slow", "fast")
    )
    assert 1.8 * slow < fast


@pytest.mark.parametrize(("direction", "sign"), [("rising", 1), ("falling", -1)])
@pytest.mark.parametrize("what", ["siren", "tone"])
def test_rising_and_falling(direction, sign, what):
    sound = rendered(f"{direction} {what}")
    begin, end = centroid(sound[: RATE // 4]), centroid(sound[-RATE // 4 :])
    assert sign * np.log2(end / begin) > 1


def test_a_steady_tone_has_its_pitch():
    sound = rendered("steady tone", pitch="high")
    assert centroid(sound) == pytest.approx(2400, rel=0.12)


def test_random_events_have_what_their_kind_can_have():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        event = sound_events.random_event(rng)
        kind = KINDS[event.kind]
        assert not event.pitch or len(kind.pitches) == 3
        assert not event.pace or len(kind.paces) == 3
        assert kind.seconds[0] <= event.seconds <= kind.seconds[1]
        seen |= {event.kind, event.pitch, event.pace, event.level}
    assert seen == {*KINDS, "", "low", "high", "slow", "fast", "soft", "loud"}


# ---- scenes

BELL = Event("bell", 1.0, pitch="low")
SIREN = Event("rising siren", 2.0)
RAIN = Event("rain", 2.0, level="loud")


def phrases(scene: Scene, count: int = 200) -> set[str]:
    rng = np.random.default_rng(0)
    return {sound_scenes.describe(scene, rng) for _ in range(count)}


def test_captions_say_what_is_heard_in_its_order():
    found = phrases(Scene((BELL, SIREN), "then", 0))
    assert {"a low bell, then a rising siren", "a rising siren after a low bell"} <= found
    assert len(found) >= 20
    for caption in found:
        assert re.search("low|deep", caption)
        bell, siren = caption.index("bell"), caption.index("rising siren")
        assert (siren < bell) == (" after " in caption)


def test_captions_of_what_sounds_together():
    found = phrases(Scene((BELL, RAIN), "while", 0))
    assert "loud rain and a low bell at the same time" in found
    assert "a low bell rings while rain falls loudly" in found
    assert {caption.index("bell") < caption.index("rain") for caption in found} == {True, False}
    assert not any(" then " in caption or "after" in caption for caption in found)


def test_captions_are_english():
    for seed in range(300):
        scene = random_scene(seed)
        assert 1 <= len(scene.captions) <= sound_scenes.CAPTIONS
        for caption in scene.captions:
            assert not re.search(
                r"\ba [aeiou]|\ban [^aeiou]|  |\ba (rain|wind|footsteps|sea)", caption
            )
            for event in scene.events:
                assert KINDS[event.kind].noun in caption
                for attribute in filter(None, (event.pitch, event.pace, event.level)):
                    said = (
                        *sound_scenes.WORDS[attribute],
                        *sound_scenes.ADVERBS.get(attribute, ()),
                    )
                    assert any(word in caption for word in said)


def test_equal_captions_have_equal_meanings():
    meanings: dict[str, str] = {}
    for seed in range(3000):
        scene = random_scene(seed)
        for caption in scene.captions:
            assert meanings.setdefault(caption, scene.meaning) == scene.meaning
    assert len(meanings) > 8000
    together = Scene((BELL, RAIN), "while", 0), Scene((RAIN, BELL), "while", 1)
    assert together[0].meaning == together[1].meaning
    assert Scene((BELL, RAIN), "then", 0).meaning != Scene((RAIN, BELL), "then", 0).meaning


def test_a_scene_follows_from_its_seed():
    for seed in range(12):
        scene, same = random_scene(seed), random_scene(seed)
        assert scene == same
        assert scene.captions == same.captions
        np.testing.assert_array_equal(scene.render(RATE), same.render(RATE))
        assert len(scene.render(RATE)) == round(scene.seconds * RATE)
        assert np.abs(scene.render(RATE)).max() <= 1
        assert scene.seconds <= 10


def test_events_sound_when_they_should():
    tone = Event("steady tone", 2.0, pitch="high")
    quiet = Event("steady tone", 2.0, pitch="low")
    after = Scene((quiet, tone), "then", 3).render(RATE)
    assert centroid(after[:RATE]) < 300
    assert centroid(after[-RATE:]) > 1800
    both = Scene((quiet, tone), "while", 3).render(RATE)
    assert len(both) == 2 * RATE
    assert 300 < centroid(both[:RATE]) < 1800


# ---- clips joined


def sine(hertz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_then_puts_the_first_first():
    clips = [(sine(300, 8), "This is a sound of rain."), (sine(3000, 2), "A dog barks")]
    seen = set()
    for seed in range(30):
        found = compose_clips(clips, np.random.default_rng(seed), RATE, "then")
        assert found.relation == "then"
        assert len(found.audio) <= 10 * RATE
        assert centroid(found.audio[:RATE]) < 400
        assert centroid(found.audio[-RATE:]) > 2500
        seen.add(found.caption)
        order = [found.caption.index(word) for word in ("rain", "dog")]
        assert (order[0] < order[1]) == (" after " not in found.caption)
        other = [found.reversed_caption.index(word) for word in ("rain", "dog")]
        assert (other[0] < other[1]) != (order[0] < order[1])
    assert "this is a sound of rain, then a dog barks" in seen
    assert len(seen) == len(sound_scenes.THEN)


def test_while_puts_both_at_once_about_as_loud():
    clips = [(sine(300, 12, 0.5), "rain."), (sine(3000, 1, 0.01), "NASA countdown")]
    for seed in range(5):
        found = compose_clips(clips, np.random.default_rng(seed), RATE, "while")
        assert len(found.audio) == 10 * RATE
        spectrum = np.abs(np.fft.rfft(found.audio))
        ratio = 20 * np.log10(spectrum[29000:31000].max() / spectrum[2900:3100].max())
        assert -5.5 < ratio < 5.5
        assert "NASA countdown" in found.caption
        assert "." not in found.caption
        assert found.reversed_caption is None


def test_both_relations_are_drawn_and_all_from_the_generator():
    clips = [(sine(300, 2), "a"), (sine(3000, 2), "b")]
    drawn = [compose_clips(clips, np.random.default_rng(seed), RATE) for seed in range(20)]
    assert {found.relation for found in drawn} == {"then", "while"}
    again = compose_clips(clips, np.random.default_rng(7), RATE)
    np.testing.assert_array_equal(again.audio, drawn[7].audio)
    assert again.caption == drawn[7].caption


def test_joining_refuses():
    with pytest.raises(ValueError, match="1 clips to join, expected 2"):
        compose_clips([(sine(300, 1), "a")], np.random.default_rng(0), RATE)
    with pytest.raises(ValueError, match="relation='during', expected one of then, while"):
        compose_clips([(sine(300, 1), "a")] * 2, np.random.default_rng(0), RATE, "during")
