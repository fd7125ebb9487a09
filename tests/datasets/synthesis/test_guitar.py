"""Guitar songs: what is played is what the labels say, and strings sound as physics has it."""

import numpy as np
import pytest

from audiotrain.datasets.synthesis import guitar
from audiotrain.datasets.synthesis.guitar import GuitarSynthesizer, String
from audiotrain.datasets.synthesis.progressions import Beat
from audiotrain.music.chord_classes import CHORD_TYPES, ChordClass, decode, encode, parse
from audiotrain.music.segments import Segment

RATE = 22050
SHAPED = [name for name in CHORD_TYPES[1:] if name not in guitar._NEAREST]


def notes_of(label):
    chord = parse(label)
    return {(chord.root + note) % 12 for note in chord.notes} | {chord.bass}


def all_voicings(chord, capo=0):
    opened, movable = guitar.voicings(chord, capo)
    return [*opened, *movable]


def composition(number, borrowed=()):
    return GuitarSynthesizer(RATE, seed=5)._composition(number, 40.0, borrowed)


# ---- chord shapes


@pytest.mark.parametrize("name", SHAPED)
def test_each_voicing_has_the_notes_and_the_bass_of_its_label(name):
    for root in range(12):
        label = decode(ChordClass(CHORD_TYPES.index(name), root, root))
        for capo in (0, 3, 7):
            voicings = all_voicings(encode(label), capo)
            assert voicings or (name == "7(#9)" and capo == 7)  # which has no A-shape
            for voicing in voicings:
                played = guitar.pitches(voicing)
                assert {pitch % 12 for pitch in played} == notes_of(label)
                assert min(played) % 12 == root
                frets = [fret for fret in voicing if fret is not None]
                assert capo <= min(frets) <= guitar.LAST_FRET
                assert max(frets) - min(frets) <= 4


def test_each_shape_of_the_tables_is_a_voicing_of_the_chord_it_is_listed_as():
    for shapes, root in ((guitar._E_SHAPES, 4), (guitar._A_SHAPES, 9)):
        for name, frets in shapes.items():
            chord = ChordClass(CHORD_TYPES.index(name), root, root)
            assert guitar._plays(guitar._frets(frets, 0), chord), (name, frets)
    for label, patterns in guitar._OPEN_CHORDS.items():
        for frets in patterns:
            assert guitar._plays(guitar._frets(frets, 0), encode(label)), (label, frets)


def test_barre_chords_are_at_all_positions():
    for name in ("maj", "min", "7", "min7", "maj7", "sus4", "sus2", "5", "dim", "hdim7", "maj6"):
        lowest = {"E": set(), "A": set()}
        for root in range(12):
            for voicing in guitar.voicings(ChordClass(CHORD_TYPES.index(name), root, root))[1]:
                shape = "E" if voicing[0] is not None else "A"
                lowest[shape].add(next(fret for fret in voicing if fret is not None))
        assert lowest["E"] == lowest["A"] == set(range(13))


@pytest.mark.parametrize(
    ("label", "frets"),
    [("G:maj/3", "x20003"), ("D:maj/3", "2x0232"), ("C:maj/5", "332010"), ("A:maj/5", "002220")],
)
def test_usual_inversions_are_among_the_voicings(label, frets):
    assert guitar._frets(frets, 0) in all_voicings(encode(label))


def test_what_has_no_shape_is_replaced_by_what_is_played():
    assert guitar.playable("F#:min11") == "F#:min9"
    assert guitar.playable("G:maj(#11)") == guitar.playable("G:maj")  # not in the vocabulary
    assert guitar.playable("N") == guitar.playable("X") == "N"
    for name in CHORD_TYPES[1:]:
        for bass in range(12):
            label = guitar.playable(decode(ChordClass(CHORD_TYPES.index(name), 1, bass)))
            assert guitar.playable(label) == label
            assert all_voicings(encode(label))


# ---- songs


@pytest.mark.parametrize("number", range(30))
def test_plucks_of_a_segment_have_the_notes_and_the_bass_of_its_label(number):
    plucks, segments = composition(number)
    starts = np.array([pluck.start for pluck in plucks])
    pitches = np.array([guitar.OPEN_STRINGS[p.string] + p.fret for p in plucks])
    for segment in segments:
        within = pitches[(starts >= segment.start - 1e-9) & (starts < segment.end - 1e-9)]
        if segment.label in ("N", "X"):
            assert not len(within)
            continue
        found = {int(pitch) % 12 for pitch in within}
        assert found <= notes_of(segment.label)
        assert min(within) % 12 == parse(segment.label).bass
        # a short arpeggio need not reach all strings
        assert found == notes_of(segment.label) or len(within) < 6


@pytest.mark.parametrize("number", range(10))
def test_a_string_plays_one_note_at_a_time_and_none_after_its_chord(number):
    plucks, segments = composition(number)
    ends = np.array([segment.end for segment in segments])
    last = [0.0] * 6
    for pluck in plucks:
        assert pluck.start >= last[pluck.string] - 1e-9
        last[pluck.string] = pluck.start + pluck.duration
        owner = int(np.searchsorted(ends, pluck.start + 1e-9))
        assert pluck.duration > 0
        assert last[pluck.string] <= ends[owner] + 1e-9


def test_labels_are_those_of_the_samples_and_a_seed_is_a_song():
    borrowed = [[Segment(0, 3, "C:13/3"), Segment(3, 5, "Ab:min/5"), Segment(5, 9, "N")]]
    for number in range(4):
        synthesizer = GuitarSynthesizer(RATE, seed=2)
        audio, segments = synthesizer.compose(number, 12.0, borrowed)
        assert segments == GuitarSynthesizer(RATE, seed=2).labels(number, 12.0, borrowed)
        np.testing.assert_array_equal(audio, synthesizer.compose(number, 12.0, borrowed)[0])
        assert audio.dtype == np.float32
        assert np.abs(audio).max() == pytest.approx(0.5, abs=1e-6)
        assert len(audio) == round(segments[-1].end * RATE)
        assert segments[-1].end >= 12.0
    other = GuitarSynthesizer(RATE, seed=3).labels(0, 12.0, borrowed)
    assert other != GuitarSynthesizer(RATE, seed=2).labels(0, 12.0, borrowed)


def test_silence_is_silent():
    plucks, segments = guitar.strummed([Beat("N", 8)], np.random.default_rng(0), 120)
    assert not plucks
    assert {segment.label for segment in segments} == {"N"}
    audio, _ = GuitarSynthesizer(RATE).compose(0, 5.0, [[Segment(0, 9, "N")]] * 9)
    assert np.isfinite(audio).all()


# ---- strings


def amplitude(wave, frequency):
    time = np.arange(len(wave)) / RATE
    return abs(np.mean(wave * np.hanning(len(wave)) * np.exp(-2j * np.pi * frequency * time)))


@pytest.mark.parametrize("pitch", [40, 52, 64, 76])
def test_the_lowest_partial_is_within_two_cents_of_the_frequency(pitch):
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    wave = guitar.string_wave(frequency, String(), 2.0, RATE)
    cents = np.arange(-20, 20.5, 0.5)
    measured = [amplitude(wave, frequency * 2 ** (offset / 1200)) for offset in cents]
    assert abs(cents[int(np.argmax(measured))]) <= 2


def test_a_song_in_tune_has_the_fundamentals_of_its_chord():
    instrument = guitar.random_guitar(np.random.default_rng(0))
    instrument = instrument._replace(cents=np.zeros_like(instrument.cents), noise=0.0, knock=0.0)
    note = guitar.Pluck(0.0, 2.0, 2, 7, 1.0)  # A3
    wave = guitar.perform([note], instrument, 2.0, RATE, np.random.default_rng(0))
    cents = np.arange(-20, 20.5, 0.5)
    measured = [amplitude(wave, 220 * 2 ** (offset / 1200)) for offset in cents]
    assert abs(cents[int(np.argmax(measured))]) <= 2


def test_high_partials_decay_faster_than_low_ones():
    string = String(inharmonicity=0.0, decay=4.0, corner=1000.0)
    wave = guitar.string_wave(110.0, string, 2.0, RATE)
    early, late = wave[: RATE // 2], wave[RATE : RATE + RATE // 2]

    def lost(number):
        return 20 * np.log10(amplitude(early, 110.0 * number) / amplitude(late, 110.0 * number))

    assert lost(1) == pytest.approx(60 / 4.0 * (1 + 0.11), abs=0.3)  # in one second
    assert lost(1) < lost(4) < lost(8) < lost(12)


def test_a_partial_with_a_node_where_the_string_is_plucked_is_missing():
    wave = guitar.string_wave(110.0, String(position=0.25, inharmonicity=0.0), 1.0, RATE)
    assert amplitude(wave, 440.0) < 0.01 * amplitude(wave, 330.0)


def test_partials_of_a_stiff_string_are_sharp():
    frequencies, _, _ = guitar.partials(100.0, String(inharmonicity=1e-4), 5000.0)
    assert frequencies[0] == pytest.approx(100.0)
    ratio = frequencies[19] / 2000.0
    assert ratio == pytest.approx(np.sqrt((1 + 1e-4 * 400) / (1 + 1e-4)))
