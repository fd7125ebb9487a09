"""Synthesised songs: their labels say what sounds, all chords occur, a seed is a song."""

import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_soundfont import make

from audiotrain.datasets.synthesis import arrangement, progressions, render
from audiotrain.datasets.synthesis import midi as synthesis_midi
from audiotrain.datasets.synthesis.arrangement import Note, Part, TimedChord
from audiotrain.datasets.synthesis.progressions import Beat
from audiotrain.datasets.synthesis.soundfont import general_midi
from audiotrain.music.chord_classes import (
    CHORD_TYPES,
    ChordClass,
    chord_pitch_classes,
    decode,
    encode,
)
from audiotrain.music.segments import Segment

SONGS = range(60)
SILENT = ("N", "X")  # no chord is played


def song(seed, beats=32):
    rng = np.random.default_rng(seed)
    return arrangement.compose(progressions.random_progression(rng, beats), rng)


def is_bass(part):
    return part.program in arrangement.PROGRAMS["bass"] and not part.is_drum


def pitch_classes(chord):
    return {(chord.root + interval) % 12 for interval in chord_pitch_classes(chord.chord_type)}


def sounding(parts, start, end):
    """Notes of pitched parts that sound between two times."""
    return [
        note
        for part in parts
        if not part.is_drum
        for note in part.notes
        if note.start < end - 1e-9 and note.start + note.duration > start + 1e-9
    ]


# ---- labels


@pytest.mark.parametrize("seed", SONGS)
def test_labels_follow_each_other_and_each_note_stays_inside_one(seed):
    parts, segments = song(seed)
    for before, after in zip(segments[:-1], segments[1:], strict=True):
        assert before.end == after.start
        assert before.label != after.label
    assert segments[0].start < 0.5
    starts = np.array([segment.start for segment in segments])
    for part in parts:
        for note in part.notes:
            assert note.duration > 0
            assert 0 <= note.pitch <= 127
            assert 1 <= note.velocity <= 127
            assert note.start >= segments[0].start - 1e-9
            if not part.is_drum:
                owner = segments[np.searchsorted(starts, note.start + 1e-9, side="right") - 1]
                assert note.start + note.duration <= owner.end + 1e-9


@pytest.mark.parametrize("seed", SONGS)
def test_chord_parts_play_the_notes_of_the_label_and_no_others(seed):
    parts, segments = song(seed)
    whole = incomplete = 0
    for segment in segments:
        if segment.label in SILENT:
            continue
        chord = encode(segment.label)
        wanted = pitch_classes(chord)
        chord_part = [parts[0]]
        found = {note.pitch % 12 for note in sounding(chord_part, segment.start, segment.end)}
        assert found <= wanted | {chord.bass_note}
        whole += segment.end - segment.start
        everything = {note.pitch % 12 for note in sounding(parts, segment.start, segment.end)}
        if not wanted <= everything:  # a short chord, played as an arpeggio
            incomplete += segment.end - segment.start
    assert incomplete < 0.25 * whole


def test_nearly_all_labelled_time_has_all_notes_of_its_chord():
    whole = complete = 0
    for seed in SONGS:
        parts, segments = song(seed)
        for segment in segments:
            if segment.label not in SILENT:
                wanted = pitch_classes(encode(segment.label))
                notes = sounding(parts, segment.start, segment.end)
                whole += segment.end - segment.start
                complete += (segment.end - segment.start) * (
                    wanted <= {n.pitch % 12 for n in notes}
                )
    assert complete > 0.98 * whole


@pytest.mark.parametrize("seed", SONGS)
def test_the_lowest_note_of_a_chord_is_its_bass(seed):
    parts, segments = song(seed)
    judged = 0
    for segment in segments:
        if segment.label not in SILENT:
            notes = sounding(parts, segment.start, segment.end)
            assert min(n.pitch for n in notes) % 12 == encode(segment.label).bass_note, segment
            judged += 1
    assert judged


def test_songs_come_with_and_without_a_bass_part():
    basses = [any(is_bass(part) for part in song(seed)[0]) for seed in SONGS]
    assert 30 < sum(basses) < len(basses)


@pytest.mark.parametrize("seed", SONGS)
def test_no_chord_is_silent_or_has_drums_alone(seed):
    parts, segments = song(seed)
    for segment in segments:
        if segment.label in SILENT:
            assert not sounding(parts, segment.start, segment.end)


def test_no_chord_occurs():
    labels = [segment.label for seed in SONGS for segment in song(seed)[1]]
    assert labels.count("N") > 20


@pytest.mark.slow
def test_no_chord_begins_when_the_last_one_is_heard_no_more():
    """Until then it is X: with N there, models took the end of a piano's chord for none."""
    faded = 0
    for seed in SONGS[:30]:
        parts, segments = song(seed)
        heard = render.render([part for part in parts if not part.is_drum], 8000)
        pairs = zip(segments, segments[1:], strict=False)
        for before, segment in pairs:
            if segment.label == "N":
                assert before.label == "X"
                inside = heard[round(segment.start * 8000) : round(segment.end * 8000)]
                assert np.abs(inside).max(initial=0) < 0.01 * np.abs(heard).max()
                faded += 1
            if segment.label == "X":
                assert before.label not in SILENT
                assert segment.end - segment.start <= arrangement.RINGING + 1e-9
    assert faded > 5


# ---- reach


def test_all_types_roots_and_basses_occur():
    found = [
        encode(beat.label)
        for seed in range(400)
        for beat in progressions.random_progression(np.random.default_rng(seed), 32)
    ]
    types, roots, basses = (set(column) for column in np.array(found).T.tolist())
    assert types == set(range(len(CHORD_TYPES)))
    assert roots - {-100} == set(range(12))
    intervals = {(chord.bass_note - chord.root) % 12 for chord in found if chord.root >= 0}
    assert basses - {-100} == set(range(12))
    assert intervals == set(range(12))


@pytest.mark.parametrize("chord_type", range(1, 32))
def test_every_type_can_be_voiced(chord_type):
    rng = np.random.default_rng(chord_type)
    wanted = chord_pitch_classes(chord_type)
    for bass in range(12):
        chord = TimedChord(0.0, 1.0, ChordClass(chord_type, 7, bass))
        tones = {(7 + interval) % 12 for interval in wanted}
        for pitches in (
            arrangement.voicing(rng, chord, 60.0, 4, states_bass=True),
            arrangement._guitar_voicing(chord),
        ):
            assert {pitch % 12 for pitch in pitches} == tones | {bass}
            assert pitches == sorted(set(pitches))
            assert pitches[0] % 12 == bass
            assert 24 <= pitches[0] <= pitches[-1] <= 100


@given(st.integers(0, 100_000), st.integers(1, 31), st.floats(50, 70), st.integers(3, 5))
@settings(max_examples=100, deadline=None)
def test_voicings_keep_the_chord_below_a_part_that_has_the_root(seed, chord_type, centre, voices):
    chord = ChordClass(chord_type, seed % 12, seed % 12)
    rng = np.random.default_rng(seed)
    timed = TimedChord(0.0, 1.0, chord)
    found = {p % 12 for p in arrangement.voicing(rng, timed, centre, voices, states_bass=False)}
    wanted = pitch_classes(chord)
    assert found <= wanted
    assert wanted - found <= {chord.root}


@pytest.mark.parametrize("beats", [1, 8, 64])
def test_progressions_are_as_long_as_asked(beats):
    for seed in range(20):
        found = progressions.random_progression(np.random.default_rng(seed), beats)
        assert sum(beat.beats for beat in found) >= beats
        assert all(beat.beats > 0 for beat in found)


# ---- seeds


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_seed_is_a_song(seed):
    assert song(seed) == song(seed)
    assert song(seed) != song(seed + 1)
    parts, _ = song(seed, beats=4)
    first, second = (render.render(parts, 8000, 12.0) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_tempo_sets_the_beats():
    progression = [Beat("C:maj", 4), Beat("F:maj", 2)]
    _, segments = arrangement.compose(progression, np.random.default_rng(0), tempo=120)
    lengths = {s.label: s.end - s.start for s in segments if s.label != "N"}
    assert lengths == {"C:maj": pytest.approx(2.0), "F:maj": pytest.approx(1.0)}


# ---- borrowed progressions


def test_borrowed_progressions_are_transposed_as_a_whole():
    source = [Segment(0, 2, "C:maj"), Segment(2, 4, "G:7/3"), Segment(4, 6, "A:min7")]
    shapes = set()
    for seed in range(40):
        found = progressions.progression_from(source, np.random.default_rng(seed), 400)
        chords = [encode(beat.label) for beat in found]
        shift = {(chord.root - {1: 0, 11: 7, 13: 9}[chord.chord_type]) % 12 for chord in chords}
        assert len(shift) == 1
        shapes |= shift
        assert all(
            chord.bass_note == (chord.root + 4) % 12 for chord in chords if chord.chord_type == 11
        )
    assert shapes == set(range(12))


def test_borrowed_unknown_chords_and_silence_become_no_chord():
    source = [Segment(0, 1, "X"), Segment(1, 60, "N"), Segment(60, 61, "C:maj")]
    found = progressions.progression_from(source, np.random.default_rng(0), 1000)
    assert [beat.label for beat in found].count("N") == 2
    assert max(beat.beats for beat in found if beat.label == "N") <= 4


def test_nothing_to_borrow_is_a_progression_of_our_own():
    for source in ([], [Segment(1, 1, "C:maj")]):
        found = progressions.progression_from(source, np.random.default_rng(0), 8)
        assert sum(beat.beats for beat in found) >= 8


def test_real_songs_can_be_borrowed(shared_data):
    from audiotrain.datasets import chords

    items = chords.discover(shared_data / "billboard").items[::150]
    assert len(items) > 2
    for item in items:
        rng = np.random.default_rng(0)
        found = progressions.progression_from(chords.segments(item), rng, 32)
        parts, segments = arrangement.compose(found, rng)
        assert parts
        assert segments[-1].end > 5


@pytest.mark.parametrize("progression", [[Beat("N", 4)], [Beat("C:1", 1)], [Beat("C:13/b9", 1)]])
def test_the_smallest_songs(progression):
    for seed in range(10):
        parts, segments = arrangement.compose(progression, np.random.default_rng(seed))
        audio = render.render(parts, 8000)
        assert np.isfinite(audio).all()
        assert segments[-1].label == progression[0].label


# ---- playing


def test_rendering_has_its_peak_at_a_half_and_the_sum_of_its_parts():
    parts = [Part(0, [Note(0, 0.5, 60, 100)]), Part(40, [Note(0.2, 0.5, 67, 80)])]
    audio = render.render(parts, 22050)
    assert audio.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(0.5, rel=1e-5)
    assert np.corrcoef(audio[:4000], render.render(parts[:1], 22050)[:4000])[0, 1] > 0.999
    assert not render.render([Part(0, [])], 22050).any()
    assert len(render.render([], 22050)) == 0


def test_tuning_is_within_30_cents():
    found = [render.random_cents(np.random.default_rng(seed)) for seed in range(200)]
    assert -30 <= min(found) < -25
    assert 25 < max(found) <= 30


# ---- MIDI


def write_midi(path, notes=((0.0, 1.0, 60, 100), (0.5, 1.0, 64, 90)), program=3):
    midi = pretty_midi.PrettyMIDI()
    pitched, drums = pretty_midi.Instrument(program), pretty_midi.Instrument(0, is_drum=True)
    pitched.notes = [pretty_midi.Note(v, p, s, s + d) for s, d, p, v in notes]
    drums.notes = [pretty_midi.Note(100, 36, 0.0, 0.1)]
    midi.instruments = [pitched, drums, pretty_midi.Instrument(5)]
    midi.write(str(path))
    return path


def test_reads_the_parts_of_a_midi_file(tmp_path):
    parts = synthesis_midi.read_midi(write_midi(tmp_path / "a.mid"))
    assert [(part.program, part.is_drum) for part in parts] == [(3, False), (0, True)]
    start, duration, pitch, velocity = parts[0].notes[1]
    assert (start, duration) == (pytest.approx(0.5, abs=1e-3), pytest.approx(1.0, abs=1e-3))
    assert (pitch, velocity) == (64, 90)


@pytest.mark.parametrize("content", [b"", b"MThd", b"no midi", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk"])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.mid").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.mid: not readable as MIDI") as caught:
        synthesis_midi.read_midi(tmp_path / "x.mid")
    assert "\n" not in str(caught.value)


def test_a_truncated_midi_file_is_refused_or_read_in_part(tmp_path):
    whole = write_midi(tmp_path / "a.mid").read_bytes()
    refused, told = 0, set()
    for size in range(4, len(whole)):
        (tmp_path / "b.mid").write_bytes(whole[:size])
        try:
            synthesis_midi.read_midi(tmp_path / "b.mid")
        except ValueError as error:
            refused += 1
            told.add("not readable as MIDI" in str(error))
    assert told == {True}
    assert refused > len(whole) // 2


def test_other_instruments_play_the_same_notes(tmp_path):
    parts = synthesis_midi.read_midi(write_midi(tmp_path / "a.mid"))
    programs = set()
    for seed in range(40):
        changed = arrangement.reorchestrate(parts, np.random.default_rng(seed))
        programs.add(changed[0].program)
        assert changed[1] == parts[1]  # drums stay
        for before, after in zip(parts[0].notes, changed[0].notes, strict=True):
            assert before._replace(velocity=0) == after._replace(velocity=0)
        assert all(part.is_drum for part in changed[1:])
    assert len(programs) > 10
    assert all(0 <= program < 128 for program in programs)


def test_low_parts_become_basses():
    low = Part(0, [Note(0, 1, 40, 100), Note(1, 1, 43, 100)])
    for seed in range(10):
        changed = arrangement.reorchestrate([low], np.random.default_rng(seed))
        assert changed[0].program in arrangement.PROGRAMS["bass"]


def test_labels_of_all_types_are_valid_for_the_reader():
    for chord_type in range(1, 32):
        for bass in range(12):
            chord = ChordClass(chord_type, 2, bass)
            assert encode(decode(chord)) == chord


# ---- accompaniment


@pytest.mark.parametrize("seed", range(20))
def test_an_accompaniment_mostly_plays_its_labels(seed):
    rng = np.random.default_rng(seed)
    parts, segments = arrangement.accompany(progressions.random_progression(rng, 64), rng)
    (part,) = parts
    starts = np.array([segment.start for segment in segments])
    inside = outside = 0.0
    for note in part.notes:
        owner = segments[np.searchsorted(starts, note.start + 1e-9, side="right") - 1]
        assert owner.label not in SILENT
        assert 28 <= note.pitch <= 100
        own = note.pitch % 12 in pitch_classes(encode(owner.label))
        inside, outside = inside + own * note.duration, outside + (not own) * note.duration
    assert inside > 2 * outside


def test_some_chords_of_an_accompaniment_come_early():
    early = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        parts, segments = arrangement.accompany(progressions.random_progression(rng, 64), rng)
        ends = np.array([segment.end for segment in segments[:-1]])
        early += sum(
            bool(((ends > n.start + 0.01) & (ends < n.start + n.duration - 0.01)).any())
            for n in parts[0].notes
        )
    assert early > 20


# ---- soundfonts


def test_parts_are_cast_among_the_soundfonts_that_have_their_instrument(tmp_path):
    own = make(tmp_path / "own.sf2", [{54: 1}])  # program 5 alone
    rng = np.random.default_rng(0)
    parts = [Part(5, []), Part(6, []), Part(0, [], is_drum=True)] * 50
    found = render.cast(parts, [own], rng)
    assert 10 < sum(font is own for font in found[::3]) < 40
    assert {id(font) for font in (*found[1::3], *found[2::3])} == {id(general_midi())}
    assert render.cast(parts, [], rng) == []


def test_a_part_is_played_by_its_soundfont(tmp_path):
    own = make(tmp_path / "own.sf2", [{54: 1}])
    parts = [Part(5, [Note(0.0, 0.5, 69, 100)]), Part(5, [Note(0.5, 0.5, 69, 100)])]
    mixed = render.render(parts, 22050, fonts=[own, general_midi()])
    alone = own.render(parts[0].notes, 5, False, 22050)
    first = mixed[:11000] / np.abs(mixed[:11000]).max()
    np.testing.assert_allclose(first, alone[:11000] / np.abs(alone[:11000]).max(), atol=1e-5)
    assert np.abs(mixed[12000:20000]).max() > 0.01
