"""The SoundFont player: a soundfont made here against closed forms, General MIDI against pitch."""

import math

import numpy as np
import pytest
from tiny_soundfont import PERIOD, RATE, ROOT, make

from audiotrain.datasets.synthesis import soundfont
from audiotrain.datasets.synthesis.soundfont import (
    LONGEST_NOTE,
    SILENT_RELEASE,
    SoundFont,
    general_midi,
)

# ---- a soundfont of one sine

LOOPED = {54: 1}
ENVELOPE = (33, 34, 35, 36, 38)  # delay, attack, hold, decay, release in timecents


def tone(font, pitch=ROOT, velocity=127, seconds=0.5, cents=0.0, program=5):
    return font.render([(0.0, seconds, pitch, velocity)], program, False, RATE, cents)


def hertz(audio, rate=RATE):
    """Frequency of the strongest peak, by parabola."""
    size = 1 << 17
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), size))
    top = int(spectrum[10:].argmax()) + 10
    left, mid, right = np.log(spectrum[top - 1 : top + 2])
    return (top + 0.5 * (left - right) / (left - 2 * mid + right)) * rate / size


def cents_between(found, expected):
    return 1200 * math.log2(found / expected)


def held(audio, seconds=0.5):
    """What sounds while the key is down, without its start."""
    return audio[int(0.05 * RATE) : int(seconds * RATE)]


def test_the_root_key_plays_the_sample_as_it_is(tmp_path):
    audio = tone(make(tmp_path / "a.sf2", [LOOPED]))
    expected = 0.5 * np.sin(2 * np.pi * np.arange(int(0.5 * RATE)) / PERIOD)
    # the shortest attack is a millisecond
    np.testing.assert_allclose(audio[50 : len(expected)], expected[50:], atol=2e-3)


@pytest.mark.parametrize("pitch", [45, 57, 68, 69, 70, 81])
@pytest.mark.parametrize("cents", [-30.0, 0.0, 25.0])
def test_keys_and_tuning_change_the_pitch(tmp_path, pitch, cents):
    found = hertz(held(tone(make(tmp_path / "a.sf2", [LOOPED]), pitch, cents=cents)))
    expected = 441 * 2 ** ((pitch - ROOT) / 12 + cents / 1200)
    assert abs(cents_between(found, expected)) < 0.5


@pytest.mark.parametrize(
    ("zone", "preset", "cents"),
    [
        ({58: 57}, {}, 1200),  # another root key
        ({51: 3}, {}, 300),  # coarse tuning
        ({52: -40}, {}, -40),  # fine tuning
        ({52: -40}, {52: 15, 51: 1}, 75),  # a preset adds to its instrument
        ({56: 50, 58: 57}, {}, 600),  # half the pitch for a key
        ({56: 0}, {}, 0),  # no change with the key
        ({58: 57}, {58: 69}, 1200),  # a preset cannot move the root
    ],
)
def test_generators_of_pitch(tmp_path, zone, preset, cents):
    font = make(tmp_path / "a.sf2", [LOOPED | zone], preset)
    found = hertz(held(tone(font)))
    assert cents_between(found, 441) == pytest.approx(cents, abs=0.5)


def test_the_cents_of_a_sample_count(tmp_path):
    font = make(tmp_path / "a.sf2", [LOOPED], cents=-20)
    assert cents_between(hertz(held(tone(font))), 441) == pytest.approx(-20, abs=0.5)


def test_a_loop_may_be_moved_by_generators(tmp_path):
    # the header loops over a period and a half, generators make it two whole ones
    font = make(tmp_path / "a.sf2", [LOOPED | {3: 25}], loop=(500, 575))
    assert cents_between(hertz(held(tone(font))), 441) == pytest.approx(0, abs=0.5)


def test_without_a_loop_a_sample_ends(tmp_path):
    font = make(tmp_path / "a.sf2", [{}])
    audio = tone(font)
    assert np.abs(audio[1800:1900]).max() == pytest.approx(0.5, abs=0.01)
    assert not audio[2010:].any()


@pytest.mark.parametrize("velocity", [1, 40, 100, 127])
@pytest.mark.parametrize(("attenuation", "preset"), [(0, 0), (200, 0), (100, 60)])
def test_velocity_and_attenuation(tmp_path, velocity, attenuation, preset):
    font = make(tmp_path / "a.sf2", [LOOPED | {48: attenuation}], {48: preset})
    decibels = 40 * math.log10(velocity / 127) - 0.4 * (attenuation + preset) / 10
    level = np.abs(held(tone(font, velocity=velocity))).max()
    assert 20 * math.log10(level / 0.5) == pytest.approx(decibels, abs=0.05)


def timecents(seconds):
    return round(1200 * math.log2(seconds))


def test_attack_hold_decay_and_sustain(tmp_path):
    zone = LOOPED | {
        33: timecents(0.1),
        34: timecents(0.2),
        35: timecents(0.1),
        37: 120,
        36: timecents(1.0),
    }
    audio = tone(make(tmp_path / "a.sf2", [zone]), seconds=1.0)

    def level(second):
        around = int(second * RATE)
        return np.abs(audio[around - PERIOD : around + PERIOD]).max() / 0.5

    assert not audio[: int(0.099 * RATE)].any()
    assert level(0.2) == pytest.approx(0.5, abs=0.03)
    assert level(0.35) == pytest.approx(1.0, abs=0.01)
    # 100 dB a second from 0.4 s on, down to 12 dB below
    assert 20 * math.log10(level(0.45)) == pytest.approx(-5, abs=0.5)
    assert 20 * math.log10(level(0.9)) == pytest.approx(-12, abs=0.1)


def test_release_falls_after_the_key(tmp_path):
    audio = tone(make(tmp_path / "a.sf2", [LOOPED | {38: timecents(0.6)}]), seconds=0.4)
    time_constant = 0.6 / 6
    for second in (0.1, 0.2, 0.3):
        around = int((0.4 + second) * RATE)
        level = np.abs(audio[around - PERIOD : around + PERIOD]).max() / 0.5
        assert level == pytest.approx(math.exp(-second / time_constant), rel=0.06)
    assert not audio[int((0.4 + SILENT_RELEASE) * RATE) + 1 :].any()


def test_a_filter_takes_high_frequencies(tmp_path):
    low = 6000  # absolute cents: 8.176 Hz * 2 ** 5 = 262 Hz
    font = make(tmp_path / "a.sf2", [LOOPED | {8: low}])
    ratio = 441 / (8.176 * 2**5)
    expected = 1 / math.sqrt(1 + ratio**4)  # Butterworth of order 2
    assert np.abs(held(tone(font))).max() / 0.5 == pytest.approx(expected, rel=0.03)


def zone_range(low, high):
    return low | high << 8


def test_zones_of_keys_and_velocities(tmp_path):
    zones = [
        LOOPED | {43: zone_range(0, 68)},
        LOOPED | {43: zone_range(69, 127), 44: zone_range(0, 63), 52: 50},
        LOOPED | {43: zone_range(69, 127), 44: zone_range(64, 127), 52: 90},
    ]
    font = make(tmp_path / "a.sf2", zones)
    for pitch, velocity, cents in ((68, 100, 0), (69, 63, 50), (69, 64, 90)):
        found = hertz(held(tone(font, pitch, velocity)))
        expected = 441 * 2 ** ((pitch - ROOT) / 12)
        assert cents_between(found, expected) == pytest.approx(cents, abs=0.5)


def test_a_preset_narrows_the_zones(tmp_path):
    font = make(tmp_path / "a.sf2", [LOOPED], {43: zone_range(60, 72)})
    assert tone(font, 60).any()
    assert not tone(font, 59).any()


def test_a_global_zone_holds_for_those_that_say_nothing(tmp_path):
    zones = [
        {"sample": False, 52: 70, 54: 1},
        {43: zone_range(0, 68)},
        {43: zone_range(69, 127), 52: 10},
    ]
    font = make(tmp_path / "a.sf2", zones)
    found = [hertz(held(tone(font, pitch))) / 2 ** ((pitch - ROOT) / 12) for pitch in (68, 69)]
    assert cents_between(found[0], 441) == pytest.approx(70, abs=0.5)
    assert cents_between(found[1], 441) == pytest.approx(10, abs=0.5)


def test_layers_add_up(tmp_path):
    one, two = make(tmp_path / "a.sf2", [LOOPED]), make(tmp_path / "b.sf2", [LOOPED, LOOPED])
    np.testing.assert_allclose(tone(two), 2 * tone(one), atol=1e-6)


def test_a_note_starts_and_ends_where_it_should(tmp_path):
    font = make(tmp_path / "a.sf2", [LOOPED])
    audio = font.render([(0.25, 0.5, ROOT, 100)], 5, False, RATE)
    first, last = np.flatnonzero(np.abs(audio) > 1e-4)[[0, -1]] / RATE
    assert first == pytest.approx(0.25, abs=0.002)
    assert 0.75 <= last < 0.75 + 0.12  # 5 time constants of the shortest release


def test_unknown_programs_and_no_notes_are_silence_or_the_first_program(tmp_path):
    font = make(tmp_path / "a.sf2", [LOOPED])
    assert not tone(font, program=99).any()
    assert not font.render([], 5, False, RATE).any()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no soundfont", b"RIFF\0\0\0\0WAVE"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.sf2").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.sf2: no SoundFont 2 file"):
        SoundFont(tmp_path / "x.sf2")


def test_missing_damaged_and_compressed_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.sf2: soundfont can't be read: No such file"):
        SoundFont(tmp_path / "none.sf2")
    with pytest.raises(ValueError, match="soundfont can't be read: Is a directory"):
        SoundFont(tmp_path)
    whole = make(tmp_path / "a.sf2", [LOOPED]).path.read_bytes()
    for size in (12, 1000, len(whole) - 1):
        (tmp_path / "cut.sf2").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"cut\.sf2: cut short, {size} of {len(whole)} bytes"):
            SoundFont(tmp_path / "cut.sf2")
    for name in (b"pbag", b"igen", b"shdr"):
        (tmp_path / "bad.sf2").write_bytes(whole.replace(name, b"xxxx"))
        with pytest.raises(
            ValueError, match=rf"bad\.sf2: SoundFont 2 file is damaged \(b'{name.decode()}'\)"
        ):
            SoundFont(tmp_path / "bad.sf2")
    (tmp_path / "x.sf3").write_bytes(whole.replace(b"ifil\4\0\0\0\2", b"ifil\4\0\0\0\3"))
    with pytest.raises(ValueError, match=r"x\.sf3: SoundFont version 3, expected 2 \(\.sf2\)"):
        SoundFont(tmp_path / "x.sf3")


def test_a_soundfont_says_what_it_has_and_is_known_by_its_content(tmp_path):
    font, kit = (
        make(tmp_path / "a.sf2", [LOOPED]),
        make(tmp_path / "b.sf2", [{}], bank=128, program=0),
    )
    assert [font.has(program, False) for program in (4, 5)] == [False, True]
    assert [one.has(5, True) for one in (font, kit)] == [False, True]
    assert make(tmp_path / "c.sf2", [LOOPED]).fingerprint == font.fingerprint != kit.fingerprint


def test_the_wheel_that_brings_the_soundfont_is_named(monkeypatch):
    monkeypatch.setattr(soundfont.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install pretty_midi"):
        general_midi.__wrapped__()


# ---- General MIDI

# Programs without one pitch: bells, drums, orchestra hit, effects; and a fifth that a lead adds.
INHARMONIC = {9, 14, 47, 55, 86, 98, *range(112, 128)}
# 16' pipes and subharmonics: the series of half the pitch.
SUBOCTAVE = {16, 17, 18, 19, 31, 38, 39, 84, 85, 87}
# Samples of this soundfont that are out of tune: (program, from key, to key).
OUT_OF_TUNE = [
    (21, 69, 127),
    (22, 65, 72),
    (23, 57, 127),
    (31, 72, 127),
    (52, 40, 58),
    (77, 0, 58),
    (78, 0, 127),
]


def energy_at_harmonics(audio, fundamental, rate=RATE):
    """Share of the spectrum's energy within 30 cents of a multiple of `fundamental`."""
    audio = audio[int(0.1 * rate) : int(0.6 * rate)]
    size = 1 << 15
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    nearest = np.maximum(np.round(frequencies / fundamental), 1) * fundamental
    tolerance = np.maximum(4 * rate / len(audio), nearest * (2 ** (30 / 1200) - 1))
    near = np.abs(frequencies - nearest) < np.minimum(tolerance, 0.4 * fundamental)
    audible = frequencies > 30
    return power[near & audible].sum() / power[audible].sum()


@pytest.mark.parametrize("pitch", [45, 57, 69, 76])
def test_every_program_plays_the_pitch_of_the_key(pitch):
    fundamental = 440 * 2 ** ((pitch - 69) / 12)
    wrong = {}
    for program in sorted(set(range(128)) - INHARMONIC):
        if any(p == program and low <= pitch <= high for p, low, high in OUT_OF_TUNE):
            continue
        audio = general_midi().render([(0, 0.7, pitch, 100)], program, False, RATE)
        series = fundamental / 2 if program in SUBOCTAVE else fundamental
        share = energy_at_harmonics(audio, series)
        semitone_off = energy_at_harmonics(audio, series * 2 ** (1 / 12))
        if share < 0.7 or share < semitone_off:
            wrong[program] = round(float(share), 2)
    assert wrong == {}


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_rate_does_not_change_the_pitch(rate):
    for program in (0, 25, 48):
        audio = general_midi().render([(0, 0.7, 57, 100)], program, False, rate)
        assert energy_at_harmonics(audio, 220, rate) > 0.8


@pytest.mark.parametrize("pitch", [21, 60, 108, 127])
def test_all_programs_end_on_all_keys(pitch):
    silent = []
    for program in range(128):
        audio = general_midi().render([(0, 0.1, pitch, 100)], program, False, 8000)
        assert np.isfinite(audio).all()
        assert len(audio) <= (0.1 + SILENT_RELEASE) * 8000 + 3
        if not audio.any():
            silent.append(program)
    if pitch == 60:
        assert silent == []


@pytest.mark.parametrize("program", [0, 24, 16, 48, 73])
def test_notes_add_up(program):
    notes = [(0.0, 0.3, 60, 90), (0.1, 0.3, 64, 70), (0.2, 0.4, 67, 120)]
    font = general_midi()
    together = font.render(notes, program, False, RATE)
    apart = np.zeros_like(together)
    for note in notes:
        audio = font.render([note], program, False, RATE)
        apart[: len(audio)] += audio
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_array_equal(together, font.render(notes, program, False, RATE))


def test_sustained_programs_last_and_none_lasts_longer_than_it_may():
    font = general_midi()
    organ = font.render([(0, 3.0, 60, 100)], 19, False, 8000)

    def level(audio, second):
        return np.sqrt(np.mean(audio[int(second * 8000) : int((second + 0.2) * 8000)] ** 2))

    assert level(organ, 2.7) > 0.3 * level(organ, 0.5)
    assert (
        len(font.render([(0, 999.0, 60, 100)], 19, False, 8000))
        <= 8000 * (LONGEST_NOTE + SILENT_RELEASE) + 3
    )


def test_drums_sound_whole_whatever_their_length():
    font = general_midi()
    short, long = (font.render([(0, s, 38, 100)], 0, True, RATE) for s in (0.01, 0.4))
    common = int(0.5 * RATE)
    np.testing.assert_array_equal(short[:common], long[:common])
    kit = {key: font.render([(0, 0.1, key, 100)], 0, True, RATE) for key in (36, 38, 42, 46, 49)}
    assert all(np.abs(audio).max() > 0.01 for audio in kit.values())
    bright = {key: spectral_centre(audio) for key, audio in kit.items()}
    assert bright[36] < bright[38] < bright[42]
    np.testing.assert_array_equal(font.render([(0, 0.1, 36, 100)], 77, True, RATE), kit[36])


def spectral_centre(audio):
    power = np.abs(np.fft.rfft(audio)) ** 2
    return (np.arange(len(power)) * power).sum() / power.sum()


def test_a_voice_is_made_once_however_often_it_plays():
    font = SoundFont(general_midi().path)
    font.render([(0.1 * n, 0.1, 60 + n % 3, 100) for n in range(60)], 0, False, 8000)
    made = font._voice.cache_info()
    voices = sum(len(list(font._zones_of(0, False, 60 + n, 100))) for n in range(3))
    assert made.misses == voices
    assert made.hits == 19 * voices
