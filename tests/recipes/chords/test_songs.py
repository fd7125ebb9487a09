"""Songs of a library, its cache, and training windows whose labels move with their bins."""

from dataclasses import replace

import numpy as np
import pretty_midi
import pytest
import tiny_soundfont

from audiotrain.datasets import chords
from audiotrain.datasets.chords import Item
from audiotrain.datasets.synthesis import midi as synthesis_midi
from audiotrain.datasets.synthesis import render
from audiotrain.features import audio, extract
from audiotrain.features.sndfile_source import SndfileSource
from audiotrain.music.chord_classes import IGNORE, encode, transpose
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords import songs as chord_data
from audiotrain.recipes.chords.dataset import Sequential, Windows, cut
from audiotrain.recipes.chords.songs import (
    SILENCE,
    FeatureSettings,
    Song,
    SongLibrary,
    Wanted,
    load_renderings,
    split_by_difficulty,
)

SMALL = FeatureSettings(hop=4096, bins=48, bins_per_octave=12, margin=6)
STILL = FeatureSettings(hop=4096, bins=48, bins_per_octave=12, margin=0)  # never transposed


def chord_audio(pitches, seconds=2.0, rate=22050):
    time = np.arange(round(seconds * rate)) / rate
    waves = [np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * time) for p in pitches]
    return (0.2 * sum(waves)).astype(np.float32)


def recording(folder, name="x.wav", seconds=2.0, label="C:maj", **more):
    audio.write(folder / name, chord_audio((48, 52, 55), seconds), 22050)
    return Item(name, folder / name, (Segment(0, np.inf, label),), group=name, **more)


def midi(folder, name="x.mid"):
    song = pretty_midi.PrettyMIDI()
    part = pretty_midi.Instrument(0)
    part.notes = [pretty_midi.Note(90, pitch, 0.0, 1.5) for pitch in (48, 52, 55)]
    song.instruments = [part]
    song.write(str(folder / name))
    return Item(name, folder / name, (Segment(0.0, 1.5, "C:maj"),), group=name)


def library(folder, seed=0, settings=SMALL):
    return SongLibrary(settings, folder / "cache", seed)


def drawn(frames=100, seed=0, settings=SMALL, name="x"):
    """A song of random features in which every frame has its own chord."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-79, 0, (frames, settings.bins + 2 * settings.margin_bins))
    classes = rng.integers([0, 0, 0], [32, 12, 12], (frames, 3)).astype(np.int16)
    classes[classes[:, 0] == 0, 1:] = IGNORE
    return Song(name, values.astype(np.float16), classes, [])


# ---- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop": 0}, "hop=0, expected 1 or more"),
        ({"rate": -1}, "rate=-1, expected 1 or more"),
        ({"bins": 0}, "bins=0"),
        ({"bins_per_octave": 20}, "bins_per_octave=20, expected a multiple of 12"),
        ({"margin": -1}, "margin=-1, expected 0 or more"),
    ],
)
def test_impossible_features_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(**changes)


def test_bins_beyond_the_rate_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="bins=260 reach .* expected at most rate / 2"):
        SongLibrary(FeatureSettings(bins=236), tmp_path)


def test_margin_bins_lie_around_those_of_the_model():
    plain, wide = (FeatureSettings().cqt(margin) for margin in (False, True))
    assert wide.bins == plain.bins + 24
    assert wide.fmin * 2 ** (6 / 12) == pytest.approx(plain.fmin)


def test_training_and_prediction_see_the_same_bins():
    settings = FeatureSettings()
    samples = (0.1 * np.random.default_rng(0).standard_normal(5 * 22050)).astype(np.float32)
    margin = extract.extract(samples, settings.cqt(margin=True))
    plain = extract.extract(samples, settings.cqt(margin=False))
    cropped = margin[:, settings.margin_bins : settings.margin_bins + settings.bins]
    difference = np.abs(chord_data.decibels(cropped) - chord_data.decibels(plain))
    assert difference.mean() < 0.1
    assert np.percentile(difference, 99) < 0.5


def test_decibels_of_silence_and_of_one():
    assert chord_data.decibels(np.array([0.0]))[0] == pytest.approx(SILENCE)
    assert chord_data.decibels(np.array([1.0]))[0] == pytest.approx(0, abs=1e-3)


# ---- songs


def test_a_recording_becomes_frames_with_their_labels(tmp_path):
    item = Item("x.wav", tmp_path / "x.wav", (Segment(0, 1, "C:maj"), Segment(1, 2, "N")))
    audio.write(tmp_path / "x.wav", chord_audio((48, 52, 55), 2.0), 22050)
    song = library(tmp_path).song(item)
    frames = 1 + 44100 // SMALL.hop
    assert song.features.shape == (frames, 60)
    assert song.features.dtype == np.float16
    centres = np.arange(frames) * SMALL.frame_seconds
    expected = [encode("C:maj") if time < 1 else encode("N") for time in centres]
    np.testing.assert_array_equal(song.classes, expected)
    loudest = np.sort(song.features[5].argsort()[-3:])
    np.testing.assert_array_equal(loudest, 6 + np.array([48, 52, 55]) - 24)  # C1 is pitch 24
    assert song.seconds(SMALL) == pytest.approx(frames * SMALL.frame_seconds)


def test_a_span_is_its_part_of_the_recording(tmp_path):
    samples = np.concatenate([chord_audio((48,), 2.0), chord_audio((59,), 2.0)])
    audio.write(tmp_path / "x.wav", samples, 22050)
    whole = (Segment(0, 2, "C:maj"), Segment(2, 4, "B:maj"))
    item = Item("x.wav@2", tmp_path / "x.wav", whole, start=2.0, end=3.5)
    song = library(tmp_path).song(item)
    assert len(song.features) == 1 + round(1.5 * 22050) // SMALL.hop
    assert {tuple(row) for row in song.classes.tolist()} == {encode("B:maj")}
    assert song.features[3].argmax() == 6 + 59 - 24


def test_a_span_of_a_midi_file_is_its_part_of_the_rendering(tmp_path):
    whole, rate = midi(tmp_path), SMALL.rate
    span = replace(whole, id="x.mid@1-1.5", start=1.0, end=1.5)
    made = library(tmp_path)
    made.song(whole)  # what is cached of it is not that of the span
    song = made.song(span)
    samples = made.audio_of(whole.id, whole)[rate : round(1.5 * rate)]
    np.testing.assert_array_equal(made.audio_of(span.id, span), samples)
    expected = chord_data.decibels(extract.extract(samples, SMALL.cqt(margin=True)))
    np.testing.assert_allclose(song.features, expected, atol=0.1)
    assert song.segments == [Segment(0.0, 0.5, "C:maj")]
    with pytest.raises(ValueError, match=r"x\.mid: span starts at 60 s, but the MIDI ends at"):
        made.song(replace(whole, start=60.0))


def test_a_short_span_of_a_long_file_does_not_read_it_all(tmp_path, monkeypatch):
    """A 3 h file, sparse on the disk: only what the span needs is decoded."""
    rate, seconds = 8000, 3 * 3600
    with audio.soundfile.SoundFile(tmp_path / "x.wav", "w", rate, 1, subtype="PCM_16") as file:
        file.write(np.zeros(1))
    header = bytearray((tmp_path / "x.wav").read_bytes()[:44])
    size = seconds * rate * 2
    header[4:8], header[40:44] = (n.to_bytes(4, "little") for n in (size + 36, size))
    with (tmp_path / "x.wav").open("wb") as file:
        file.write(header)
        file.truncate(44 + size)
    decoded = []
    mix = SndfileSource._mix
    monkeypatch.setattr(
        SndfileSource, "_mix", lambda self, s, first: decoded.append(len(s)) or mix(self, s, first)
    )
    item = Item("x", tmp_path / "x.wav", (Segment(0, seconds, "N"),), start=9000.0, end=9010.0)
    settings = FeatureSettings(rate=8000, hop=4096, bins=48, bins_per_octave=12)
    song = library(tmp_path, settings=settings).song(item)
    assert len(song.features) == 1 + 80000 // 4096
    assert sum(decoded) < 12 * rate


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(ValueError, match="y.lab: labels without audio"):
        library(tmp_path).song(Item("y.lab", None, (Segment(0, 1, "N"),)))


# ---- the cache


def test_a_second_load_extracts_nothing(tmp_path, monkeypatch):
    items = [recording(tmp_path), midi(tmp_path)]
    first = [library(tmp_path).song(item) for item in items]
    composed = library(tmp_path).composed(3, 4.0, [])

    def refuse(*arguments):
        raise AssertionError("extracted again")

    monkeypatch.setattr(chord_data.extract, "extract", refuse)
    again = [library(tmp_path).song(item) for item in items]
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before.features, after.features)
        np.testing.assert_array_equal(before.classes, after.classes)
    from_cache = library(tmp_path).composed(3, 4.0, [])
    np.testing.assert_array_equal(from_cache.features, composed.features)
    np.testing.assert_array_equal(from_cache.classes, composed.classes)
    assert from_cache.segments == composed.segments


def extracted(monkeypatch):
    """Counts extractions."""
    calls = []
    plain = extract.extract
    monkeypatch.setattr(
        chord_data.extract, "extract", lambda *a, **k: calls.append(a) or plain(*a, **k)
    )
    return calls


def test_what_changes_the_features_is_extracted_anew(tmp_path, monkeypatch):
    calls = extracted(monkeypatch)
    item, song = recording(tmp_path), midi(tmp_path)
    ours = library(tmp_path)
    for make in (
        lambda: ours.song(item),
        lambda: ours.song(Item(item.id, item.audio, item.annotation, start=0.5)),
        lambda: ours.song(song, 0),
        lambda: ours.song(song, 1),
        lambda: library(tmp_path, seed=1).song(song, 1),
        lambda: ours.composed(0, 3.0, []),
        lambda: ours.composed(1, 3.0, []),
        lambda: ours.composed(0, 3.5, []),
        lambda: ours.composed(0, 3.0, [[Segment(0, 2, "C:maj")]]),
        lambda: library(tmp_path, seed=1).composed(0, 3.0, []),
        lambda: library(
            tmp_path, settings=FeatureSettings(hop=2048, bins=48, bins_per_octave=12)
        ).song(item),
    ):
        before = len(calls)
        make()
        assert len(calls) == before + 1
        make()
        assert len(calls) == before + 1
    recording(tmp_path, seconds=1.0)  # the same file with other content
    ours.song(item)
    assert len(calls) == 12


def test_labels_may_change_without_a_new_extraction(tmp_path, monkeypatch):
    calls = extracted(monkeypatch)
    first = library(tmp_path).song(recording(tmp_path, label="C:maj"))
    again = library(tmp_path).song(Item("x.wav", tmp_path / "x.wav", (Segment(0, 9, "D:min"),)))
    assert len(calls) == 1
    assert first.classes[3].tolist() == list(encode("C:maj"))
    assert again.classes[3].tolist() == list(encode("D:min"))


def test_renderings_are_other_sounds_of_the_same_notes(tmp_path):
    ours, item = library(tmp_path), midi(tmp_path)
    one, other = ours.song(item, 0), ours.song(item, 1)
    assert len(one.features) != len(other.features) or (one.features != other.features).any()
    shared = min(len(one.classes), len(other.classes))
    np.testing.assert_array_equal(one.classes[:shared], other.classes[:shared])
    np.testing.assert_array_equal(ours.audio_of(item.id, item), ours.source(item))


@pytest.mark.parametrize("numbers", [(0, 1), (1,)])
def test_onsets_are_found_in_what_is_scored_and_not_in_what_is_only_trained_on(tmp_path, numbers):
    item = midi(tmp_path)
    wanted = [Wanted(item, numbers)]
    [(first, *others)] = load_renderings(library(tmp_path), wanted)
    assert len(first.onsets) > len(first.features)
    assert all(not len(song.onsets) for song in others)


def whole(samples, segments, rng):
    """A degrader that changes nothing."""
    return samples


def test_a_degraded_copy_is_a_stretch_of_the_recording_with_its_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(chord_data, "EXCERPT", 2.0)
    item = replace(
        recording(tmp_path, seconds=6.0),
        annotation=tuple(Segment(k, k + 1, f"{'CDEFGA'[k]}:maj") for k in range(6)),
    )
    ours = library(tmp_path)
    ours._degrader = whole
    copies = [ours.degraded(item, copy) for copy in range(1, 5)]
    assert len({copy.segments[0] for copy in copies}) > 1
    for copy in copies:
        assert copy.segments[-1].end == pytest.approx(2.0)
        assert len(copy.features) == len(copy.classes)
        first = "CDEFGA".index(copy.segments[0].label[0])
        start = first + 1 - copy.segments[0].end  # where in the song the copy begins
        excerpt = replace(item, start=start, end=start + 2.0)
        np.testing.assert_array_equal(ours.song(excerpt).features, copy.features)


@pytest.mark.parametrize("cents", [-40.0, 25.0])
def test_a_degraded_midi_file_is_played_in_another_tuning(tmp_path, cents):
    item = midi(tmp_path)
    played = library(tmp_path).synthesizer.play_excerpt(item.audio, item.id, 2, 0.1, 1.2, cents)
    assert len(played) == round(1.2 * SMALL.rate)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played)), 1 << 18))
    frequencies = np.fft.rfftfreq(1 << 18, 1 / SMALL.rate)
    wanted = 440 * 2 ** ((52 - 69) / 12)
    near = np.abs(12 * np.log2(np.maximum(frequencies, 1) / wanted)) < 0.7
    found = frequencies[near][spectrum[near].argmax()]
    assert 1200 * np.log2(found / wanted) == pytest.approx(cents, abs=8)


def test_composed_songs_and_their_degraded_copies_have_the_same_labels(tmp_path):
    ours = library(tmp_path)
    ours._degrader = lambda samples, segments, rng: samples[::-1].copy()
    for strummed in (False, True):
        plain, *copies = chord_data.compose_songs(ours, 1, 4.0, [], strummed=strummed, degraded=1)[
            0
        ]
        for copy in copies:
            assert copy.segments == plain.segments
            assert (copy.features != plain.features).any()
            assert not len(copy.onsets)


def test_songs_as_written_are_the_same_entry_for_every_seed(tmp_path, monkeypatch):
    calls, item = extracted(monkeypatch), midi(tmp_path)
    one, other = library(tmp_path), library(tmp_path, seed=1)
    for ours in (one, other):
        ours.song(item)
    assert len(calls) == 1
    for ours in (one, other):
        ours.song(item, 1)
    assert len(calls) == 3


def test_the_first_rendering_is_the_midi_as_written(tmp_path):
    ours, item = library(tmp_path), midi(tmp_path)
    written = render.render(synthesis_midi.read_midi(item.audio), SMALL.rate)
    np.testing.assert_array_equal(ours.audio_of(item.id, item), written)


def test_soundfonts_play_where_instruments_are_drawn_and_have_entries_of_their_own(tmp_path):
    fonts = [
        tiny_soundfont.make(tmp_path / f"{program}.sf2", [{54: 1}], program=program).path
        for program in range(128)
    ]
    plain, item = library(tmp_path), midi(tmp_path)
    ours = SongLibrary(SMALL, tmp_path / "cache", soundfonts=fonts)
    np.testing.assert_array_equal(ours.song(item).features, plain.song(item).features)
    numbers, differ = range(8), 0
    for number in numbers:
        ours_, plains = (one.composed(number, 4.0, []) for one in (ours, plain))
        assert ours_.segments == plains.segments
        shared = min(len(ours_.features), len(plains.features))
        differ += (ours_.features[:shared] != plains.features[:shared]).any()
    assert differ > 4
    assert (ours.song(item, 1).features != plain.song(item, 1).features).any()
    again = SongLibrary(SMALL, tmp_path / "other", soundfonts=fonts)
    np.testing.assert_array_equal(
        again.composed(3, 4.0, []).features, ours.composed(3, 4.0, []).features
    )


def test_composed_songs_depend_on_seed_and_number_alone(tmp_path):
    ours = library(tmp_path / "a").composed(5, 4.0, [])
    alone = library(tmp_path / "b").composed(5, 4.0, [])
    np.testing.assert_array_equal(ours.features, alone.features)
    assert ours.segments == alone.segments
    assert library(tmp_path / "a", seed=1).composed(5, 4.0, []).segments != ours.segments


def test_the_audio_of_a_composed_song_is_what_was_extracted(tmp_path):
    ours = library(tmp_path)
    for number in range(4):  # some are degraded as a room would
        song = ours.composed(number, 3.0, [])
        values = chord_data.decibels(
            extract.extract(ours.audio_of(song.name, None), SMALL.cqt(margin=True))
        )
        np.testing.assert_allclose(song.features, values, atol=0.05)


def test_composed_songs_borrow_progressions(tmp_path):
    borrowed = [[Segment(0, 2, "C:hdim7"), Segment(2, 4, "F:minmaj7")]]
    wanted = {encode("C:hdim7").chord_type, encode("F:minmaj7").chord_type, 0, IGNORE}
    found = [library(tmp_path).composed(n, 4.0, borrowed) for n in range(8)]
    fitting = [set(song.classes[:, 0].tolist()) <= wanted for song in found]
    assert 2 < sum(fitting) < 8


# ---- loading


def test_unreadable_files_are_left_out_and_reported(tmp_path):
    good = recording(tmp_path)
    (tmp_path / "empty.wav").write_bytes(b"")
    audio.write(tmp_path / "nan.wav", np.full(9000, np.nan, np.float32), 22050)
    whole = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "short.wav").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "x.mid").write_bytes(b"MThd")
    bad = [
        Item(name, tmp_path / name, (Segment(0, 9, "N"),))
        for name in ("empty.wav", "nan.wav", "short.wav", "x.mid", "gone.wav")
    ]
    wanted = [Wanted(item) for item in [*bad, good]]
    *problems, songs = chord_data.load_renderings(library(tmp_path), wanted)
    assert [song.name for song in songs] == ["x.wav"]
    assert len(problems) == len(bad)
    for item, problem in zip(bad, problems, strict=True):
        assert str(item.audio) in problem
        assert "\n" not in problem


@pytest.mark.parametrize("rate", [8000, 11025, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 6])
def test_any_rate_and_number_of_channels(tmp_path, rate, channels):
    tone = chord_audio((48,), 1.0, rate)
    audio.soundfile.write(tmp_path / "x.wav", np.tile(tone[:, None], channels), rate)
    song = library(tmp_path).song(Item("x", tmp_path / "x.wav", (Segment(0, 9, "C:1"),)))
    assert len(song.features) == 1 + 22050 // SMALL.hop
    assert song.features[2].argmax() == 6 + 48 - 24


@pytest.mark.parametrize("hop", [1000, 1001, 8192])
def test_hops_need_not_be_powers_of_two(tmp_path, hop):
    settings = FeatureSettings(hop=hop, bins=48, bins_per_octave=12)
    song = library(tmp_path, settings=settings).song(recording(tmp_path, seconds=1.0))
    assert len(song.features) == 1 + 22050 // hop
    assert song.features[1].argmax() in (6 + 48 - 24, 6 + 52 - 24, 6 + 55 - 24)


@pytest.mark.parametrize("seconds", [0.001, 0.1])
def test_the_shortest_clips(tmp_path, seconds):
    song = library(tmp_path).song(recording(tmp_path, seconds=seconds))
    assert len(song.features) == 1 + round(seconds * 22050) // SMALL.hop
    window = Windows([[song]], 16, SMALL)[0]
    assert window["features"].shape == (16, 48)


def test_silence_is_the_floor(tmp_path):
    audio.write(tmp_path / "x.wav", np.zeros(22050, np.float32), 22050)
    song = library(tmp_path).song(Item("x", tmp_path / "x.wav", (Segment(0, 1, "N"),)))
    np.testing.assert_array_equal(song.features, SILENCE)
    mean, deviation = chord_data.statistics([[song]], SMALL)
    assert mean == pytest.approx(SILENCE)
    assert deviation > 0


# ---- windows


def plain_cut(song, settings=SMALL):
    return song.features[:, settings.margin_bins : settings.margin_bins + settings.bins]


def test_windows_move_labels_and_bins_together():
    """Each window, moved back by the shift that its labels tell, is a stretch of the song."""
    song, frames = drawn(200), 16
    windows = Windows([[song]], frames, SMALL)
    windows._varied = lambda window, rng: window
    shifts = set()
    for index in range(60):
        rng = np.random.default_rng(index)
        batch = windows.get(index, rng)
        labelled = np.flatnonzero(batch["classes"][:, 1] >= 0)
        if not len(labelled):
            continue
        types = batch["classes"][labelled[0], 0]
        matches = []
        for at in range(len(song.classes)):
            if song.classes[at, 0] != types or song.classes[at, 1] < 0:
                continue
            shift = (batch["classes"][labelled[0], 1] - song.classes[at, 1] + 5) % 12 - 5
            moved = song.features[at, 6 - shift : 6 - shift + 48]
            if np.array_equal(moved.astype(np.float32), batch["features"][labelled[0]]):
                matches.append((at, shift))
        assert len(matches) == 1, index
        (at, shift), first = matches[0], labelled[0]
        shifts.add(shift)
        for frame in labelled:
            place = at + frame - first
            expected = transpose(song.classes[place], shift)
            np.testing.assert_array_equal(batch["classes"][frame], expected)
            moved = song.features[place, 6 - shift : 6 - shift + 48].astype(np.float32)
            np.testing.assert_array_equal(batch["features"][frame], moved)
    assert shifts == set(range(-5, 7))


def test_transposed_bins_are_those_of_transposed_audio(tmp_path):
    settings = FeatureSettings(hop=4096)
    low, high = (
        chord_data.decibels(extract.extract(chord_audio(notes, 2.0), settings.cqt(margin=True)))
        for notes in ((48, 55, 64), (51, 58, 67))
    )
    margin, step = settings.margin_bins, 3 * settings.bins_per_semitone
    moved = low[:, margin - step : margin - step + settings.bins]
    expected = high[:, margin : margin + settings.bins]
    inside = slice(3, -3)
    loud = expected[inside] > expected.max() - 6  # the tones, not the lobes around them
    assert loud.sum() >= 12
    lengths = 10 * np.log10(2 ** (3 / 12))  # bins are scaled by the root of their length
    np.testing.assert_allclose((moved - expected)[inside][loud], lengths, atol=0.02)


@pytest.mark.parametrize("margin", [0, 2, 6])
def test_no_more_is_transposed_than_there_are_margin_bins(margin):
    settings = FeatureSettings(hop=4096, bins=48, bins_per_octave=12, margin=margin)
    song = drawn(40, settings=settings)
    song.classes[:] = (1, 0, 0)
    windows = Windows([[song]], 16, settings)
    roots = {int(root) for i in range(150) for root in windows[i]["classes"][:, 1] if root >= 0}
    assert roots == {shift % 12 for shift in range(-min(5, margin), min(6, margin) + 1)}


def test_plain_windows_are_the_first_rendering():
    song, other = drawn(64, settings=STILL), drawn(64, 1, settings=STILL)
    rows = {row.tobytes() for row in song.features.astype(np.float32)}
    rows.add(np.full(48, SILENCE, np.float32).tobytes())

    def is_plain(windows, index):
        return all(row.tobytes() in rows for row in windows[index]["features"])

    windows = Windows([[song, other]], 16, STILL, plain=1.0)
    assert all(is_plain(windows, index) for index in range(20))
    windows = Windows([[song, other]], 16, STILL, plain=0.7)
    assert 0.55 < np.mean([is_plain(windows, index) for index in range(200)]) < 0.85


def test_windows_are_drawn_from_their_generator_alone():
    windows = Windows([[drawn(100), drawn(100, 1)], [drawn(50, 2)]], 16, SMALL)
    first, second = (windows.get(0, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first["features"], second["features"])
    np.testing.assert_array_equal(first["classes"], second["classes"])
    other = windows.get(0, np.random.default_rng(10))
    assert (first["features"] != other["features"]).any()
    assert first["features"].dtype == np.float32
    assert np.isfinite(first["features"]).all()


def test_windows_reach_every_frame_song_and_rendering():
    songs = [
        [drawn(30, 0, STILL), drawn(30, 1, STILL)],
        [drawn(60, 2, STILL)],
        [drawn(3, 3, STILL)],
    ]
    for number, song in enumerate(song for renderings in songs for song in renderings):
        song.classes[:] = (1, 0, 0)
        song.features[:] = (number * 100 + np.arange(len(song.features)) % 100)[:, None]
    windows = Windows(songs, 16, STILL, plain=0.5)
    windows._varied = lambda window, rng: window
    seen = {int(row[0]) for i in range(400) for row in windows[i]["features"] if row[0] >= 0}
    expected = {
        number * 100 + frame
        for number, length in enumerate((30, 30, 60, 3))
        for frame in range(length)
    }
    assert seen == expected


def test_windows_begin_before_songs_and_end_after_them():
    windows = Windows([[drawn(40, settings=STILL)]], 16, STILL, plain=1.0)
    silent = [(windows[i]["features"] == SILENCE).all(axis=1) for i in range(100)]
    assert max(found.argmin() for found in silent if found[0]) == 4
    assert max(found[::-1].argmin() for found in silent if found[-1]) >= 3
    assert not any(found.all() for found in silent)


def test_an_epoch_is_one_rendering_of_every_song():
    songs = [[drawn(33), drawn(33, 1)], [drawn(8, 2)]]
    assert len(Windows(songs, 16, SMALL)) == 3 + 1


def test_windows_need_songs():
    with pytest.raises(ValueError, match="no songs to train on"):
        Windows([], 16, SMALL)


@pytest.mark.parametrize("start", [-20, -5, 0, 7, 30, 50])
def test_cut_is_silent_and_unlabelled_outside(start):
    song = drawn(40)
    values, classes = cut(song, start, 16, SMALL)
    assert values.shape == (16, 60)
    for frame in range(16):
        if 0 <= start + frame < 40:
            np.testing.assert_array_equal(values[frame], song.features[start + frame])
            np.testing.assert_array_equal(classes[frame], song.classes[start + frame])
        else:
            assert (values[frame] == SILENCE).all()
            assert (classes[frame] == IGNORE).all()


def test_validation_sees_every_frame_once():
    songs = [drawn(40), drawn(16, 1), drawn(5, 2)]
    windows = Sequential(songs, 16, SMALL)
    assert len(windows) == 3 + 1 + 1
    joined = np.concatenate([windows[i]["classes"] for i in range(len(windows))])
    values = np.concatenate([windows[i]["features"] for i in range(len(windows))])
    kept = np.concatenate([np.arange(40), 48 + np.arange(16), 64 + np.arange(5)])
    expected = np.concatenate([song.classes for song in songs])
    np.testing.assert_array_equal(joined[kept], expected)
    np.testing.assert_array_equal(values[kept], np.concatenate([plain_cut(s) for s in songs]))
    assert (np.delete(joined, kept, axis=0) == IGNORE).all()


def test_statistics_are_those_of_the_bins_that_the_model_sees():
    songs = [[drawn(70, seed)] for seed in range(3)]
    for (song,) in songs:
        song.features[:, :6] = 1000
        song.features[:, -6:] = 1000
    mean, deviation = chord_data.statistics(songs, SMALL)
    assert mean == pytest.approx(-39.5, abs=1.5)
    assert deviation == pytest.approx(79 / np.sqrt(12), abs=1.5)


# ---- splits


def test_songs_never_share_a_split(tmp_path):
    for number in range(12):
        recording(tmp_path, f"{number}.wav", 0.2)
        (tmp_path / f"{number}.lab").write_text("0 1 C:maj\n")
    corpus = chords.discover(tmp_path)
    parts = chords.split(corpus, 0, (0.6, 0.2, 0.2))
    names = [{item.id for item in part} for part in parts.values()]
    assert sum(map(len, names)) == 12
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    assert all(names)


@pytest.mark.parametrize("count", [3, 4, 10, 97, 120])
@pytest.mark.parametrize(("valid", "test"), [(0.1, 0.1), (0.05, 0.3), (0.6, 0.3), (0.2, 0.7)])
def test_composed_songs_are_spread_by_how_many_chords_they_have(count, valid, test):
    rng = np.random.default_rng(0)
    kinds = rng.integers(1, 40, size=count)
    songs = [
        [Song(f"{n:03d}", None, None, [Segment(k, k + 1, f"{k}") for k in range(kinds[n])])]
        for n in range(count)
    ]
    parts = split_by_difficulty(songs, valid, test)
    names = {part: [own[0].name for own in found] for part, found in parts.items()}
    assert sorted(sum(names.values(), [])) == sorted(own[0].name for own in songs)
    assert all(found and found == sorted(found) for found in names.values())
    if count >= 97:
        assert len(names["valid"]) == round(valid * count)
        assert len(names["test"]) == round(test * count)
        # As many chords on average as the songs have, far nearer than twelve songs drawn by chance.
        for found in names.values():
            own = np.mean([kinds[int(name)] for name in found])
            assert own == pytest.approx(kinds.mean(), abs=2.5)
