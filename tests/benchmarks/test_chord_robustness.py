"""What benchmarks/chord_robustness.py adds to songs is as strong, late and high as it says."""

import sys
from pathlib import Path

import librosa
import mlx.core as mx
import numpy as np
import pytest
import tiny_soundfont
from scipy import signal

from audiotrain.datasets import chords
from audiotrain.datasets.synthesis.arrangement import Part
from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.music.chord_classes import parse
from audiotrain.recipes.chords.predictor import Analysis, Recognizer
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.common.ensemble import EnsembleSpec

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import chord_conditions  # noqa: E402
import chord_robustness  # noqa: E402
import degradations  # noqa: E402
import strummed_guitar  # noqa: E402

RATE = 22050


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(hertz, seconds=4.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


def peak_hertz(audio, around=None):
    """Frequency of the largest peak, by a parabola through three bins in dB; within 5 % of `around`
    if it is given."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    hertz = np.fft.rfftfreq(len(audio), 1 / RATE)
    allowed = np.abs(hertz / around - 1) < 0.05 if around else hertz > 0
    k = int(np.where(allowed, spectrum, 0).argmax())
    left, middle, right = np.log(spectrum[k - 1 : k + 2])
    return (k + 0.5 * (left - right) / (left - 2 * middle + right)) * RATE / len(audio)


def cents(one, other):
    return 1200 * np.log2(one / other)


@pytest.mark.parametrize("snr", [10.0, 0.0, -4.0])
def test_the_snr_is_of_the_parts_that_sound(snr):
    music, noise = tone(440, 8), degradations.white_noise(8 * RATE, rng())
    music[3 * RATE : 6 * RATE] = 0  # silence is no part of the music's level
    mixed = degradations.mix(music, (noise, snr))
    gain = mixed @ music / (music @ music)  # of the music, which noise does not correlate with
    rest = mixed - gain * music
    powers = [np.mean(gain**2 * music[: 3 * RATE] ** 2), np.mean(rest**2)]
    assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(snr, abs=0.15)
    assert np.abs(mixed).max() == pytest.approx(degradations.PEAK)


def test_noises_have_their_slopes():
    for noise, slope in (
        (degradations.white_noise(20 * RATE, rng()), 0),
        (degradations.pink_noise(20 * RATE, RATE, rng()), -3.01),
    ):
        hertz, power = signal.welch(noise, RATE, nperseg=4096)
        inside = (hertz > 50) & (hertz < 10000)
        fit = np.polyfit(np.log2(hertz[inside]), 10 * np.log10(power[inside]), 1)
        assert fit[0] == pytest.approx(slope, abs=0.1)  # dB an octave


def test_a_condition_in_another_tuning_is_35_cents_higher(monkeypatch, tmp_path):
    font = tiny_soundfont.make(tmp_path / "sine.sf2", [{54: 1}], loop=(0, 1000), program=0)
    monkeypatch.setattr(chord_conditions.render, "general_midi", lambda: font)
    parts = [Part(0, [(0.0, 3.0, 69, 100)], False)]
    monkeypatch.setattr(chord_conditions.midi, "read_midi", lambda path: parts)
    item = chords.Item("a", Path("a.mid"), ())
    song = chord_conditions.Source(item, RATE, 0, tmp_path / "sine.sf2")
    clean, higher, unseen = (
        peak_hertz(chord_conditions.CONDITIONS[name](song)[RATE : 3 * RATE])
        for name in ("clean", "+35 cents", "unseen soundfont")
    )
    assert cents(higher, clean) == pytest.approx(35, abs=1)
    assert cents(unseen, clean) == pytest.approx(0, abs=1)


def test_mp3_is_not_delayed_and_has_its_bitrate():
    audio = degradations.drums(6 * RATE, RATE, beats(12), rng())
    audio = degradations.mix(tone(330, 6), (audio, 0.0))
    decoded = degradations.mp3(audio, RATE)
    lags = signal.correlation_lags(len(decoded), len(audio))
    lag = lags[np.argmax(signal.correlate(decoded, audio))]
    assert abs(lag) / RATE < 0.005
    assert len(decoded) == len(audio)
    error = decoded - audio * (decoded @ audio) / (audio @ audio)
    assert 0.003 < np.std(error) / np.std(audio) < 0.5  # a codec's loss, and no other sound


def beats(count, seconds=0.5):
    return np.stack([np.arange(count) * seconds, np.arange(count) % 4], axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_drums_begin_on_beats(seed):
    drums = degradations.drums(24 * RATE, RATE, beats(12, seconds=2.0), rng(seed))
    low = signal.sosfiltfilt(signal.butter(2, 120, fs=RATE, output="sos"), drums)
    for downbeat in (8, 16):  # seconds, where all patterns have a kick
        before, after = (
            np.std(low[int((downbeat + start) * RATE) :][: RATE // 10]) for start in (-0.12, 0.02)
        )
        assert after > max(3 * before, 0.1 * np.abs(low).max())


def test_a_sung_line_is_near_its_notes():
    notes = [(0.0, 1.0, 60, 90), (0.0, 1.0, 52, 90), (1.0, 1.0, 67, 90), (2.5, 1.0, 64, 90)]
    sung, pitch = degradations.sing(notes, 4 * RATE, RATE, rng())
    for start, expected in ((0.0, 60), (1.0, 67), (2.5, 64)):
        held = slice(int((start + 0.4) * RATE), int((start + 0.9) * RATE))
        off = np.mean(pitch[held]) - expected
        assert 0.01 < abs(off) < 0.45  # semitones: 30 cents, and some of the vibrato
        harmonics = peak_hertz(sung[held]) / (440 * 2 ** ((expected - 69) / 12))
        assert harmonics == pytest.approx(round(harmonics), rel=0.03)
    assert degradations.level(sung[int(2.2 * RATE) : int(2.4 * RATE)]) < 0.01 * np.abs(sung).max()


@pytest.mark.parametrize(("rt60", "direct"), [(1.0, 3.0), (2.0, -3.0)])
def test_a_room_decays_as_fast_as_asked(rt60, direct):
    response = degradations.room_response(RATE, rt60, direct, rng())
    rest = response.copy()
    rest[0] -= 1
    assert -10 * np.log10((rest**2).sum()) == pytest.approx(direct, abs=0.01)
    low = signal.sosfilt(signal.butter(4, 2000, fs=RATE, output="sos"), response)
    energy = 10 * np.log10(np.cumsum(low[::-1] ** 2)[::-1])  # Schroeder's backward integration
    first, last = int(0.1 * rt60 * RATE), int(0.5 * rt60 * RATE)
    slope = np.polyfit(np.arange(first, last) / RATE, energy[first:last], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


@pytest.mark.parametrize(
    ("hertz", "lowest", "highest"), [(100, 0, 0.05), (2500, 0.9, 1.1), (6000, 0, 0.05)]
)
def test_the_telephone_has_its_band(hertz, lowest, highest):
    carried = degradations.telephone(tone(1000) + tone(hertz), RATE)
    spectrum = np.abs(np.fft.rfft(carried * np.hanning(len(carried))))
    assert lowest <= spectrum[4 * hertz] / spectrum[4 * 1000] <= highest


@pytest.mark.skipif(degradations.shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_speech_is_the_same_for_the_same_seed():
    first, again, other = (degradations.speech(3 * RATE, RATE, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    silent = np.abs(first.reshape(-1, 2205)).max(axis=1) < 0.01
    assert silent.mean() < 0.5


def test_a_missing_espeak_is_one_line(monkeypatch):
    monkeypatch.setattr(degradations.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"^espeak-ng .* apt-get install espeak-ng.*$"):
        degradations.require_espeak()


@pytest.mark.parametrize("shape", ["E", "A"])
@pytest.mark.parametrize("chord_type", list(strummed_guitar.SHAPES["E"]))
def test_guitar_chords_have_the_notes_of_their_labels(shape, chord_type):
    for root in range(12):
        played = strummed_guitar.chord(shape, root, chord_type)
        pitches = [pitch for pitch in played.pitches if pitch != strummed_guitar.MUTED]
        meant = parse(played.label)
        assert {(pitch - meant.root) % 12 for pitch in pitches} == meant.notes
        assert pitches[0] % 12 == meant.root == root
        frets = [
            pitch - string
            for pitch, string in zip(played.pitches, strummed_guitar.STRINGS, strict=True)
            if pitch != strummed_guitar.MUTED
        ]
        assert 0 <= min(frets) <= 11


@pytest.mark.parametrize("hertz", [82.41, 196.0, 440.7, 622.25])
def test_strings_are_in_tune(hertz):
    sound = strummed_guitar.karplus_strong(hertz, 2.0, RATE, rng())
    found = peak_hertz(sound, around=2 * hertz) / 2
    assert cents(found, hertz) == pytest.approx(0, abs=3)


@pytest.mark.slow
def test_a_guitar_song_plays_the_chord_of_its_label():
    audio, segments = strummed_guitar.song(0, RATE, seed=0)
    assert {parse(segment.label).root for segment in segments} == set(range(12))
    hop, first = 2048, 24  # seconds
    chroma = librosa.feature.chroma_stft(
        y=audio[: first * RATE], sr=RATE, tuning=0, hop_length=hop, n_fft=8192
    )
    seconds = librosa.frames_to_time(np.arange(chroma.shape[1]), sr=RATE, hop_length=hop)
    inside = [one for one in segments if one.end < first]
    assert len(inside) >= 10
    for start, end, label in inside:
        mean = chroma[:, (seconds > start + 0.1) & (seconds < end - 0.1)].mean(axis=1)
        chord = parse(label)
        members = [(chord.root + note) % 12 for note in chord.notes]
        others = [pitch for pitch in range(12) if pitch not in members]
        assert mean[members].mean() > 1.8 * mean[others].mean(), label


def test_beats_count_from_downbeats(tmp_path):
    (tmp_path / "a.beats").write_text("0.5 0 0\n1.0 1 1\n1.5 0 0\n2.0 1 0\n2.5 1 1\n")
    item = chords.Item("a", tmp_path / "a.mid", ())
    np.testing.assert_array_equal(
        chord_conditions.beats_of(item, 9.0),
        [[0.5, 0], [1.0, 0], [1.5, 1], [2.0, 2], [2.5, 0]],
    )


def test_a_missing_soundfont_is_one_line(monkeypatch, tmp_path):
    line = f"chord_robustness.py --checkpoint {tmp_path} --soundfont no.sf2 --conditions"
    monkeypatch.setattr(sys, "argv", [*line.split(), "unseen soundfont"])
    with pytest.raises(SystemExit, match=r"^chord_robustness.py: --soundfont no.sf2: .*$"):
        chord_robustness.main()


def test_an_exported_model_knows_its_songs(tmp_path):
    (tmp_path / "model.json").write_text(
        '{"format": 1, "recipe": "chords", "trained_on": {"songs": {"valid": ["b.mid"]}}}'
    )
    items = [chords.Item(f"{one}.mid", tmp_path / f"{one}.mid", ()) for one in "ab"]
    corpus = chords.Corpus(tmp_path, items, [])
    folders = chord_robustness.splits_of([EnsembleSpec(((tmp_path,),))])
    assert chord_robustness.songs_of(corpus, "valid", folders, 10) == items[1:]


def test_a_cached_analysis_is_predicted():
    mx.random.seed(0)
    sizes = ChordModelSettings(width=24, blocks=1, pools=1, hidden=24, kernel=3)
    recognizer = Recognizer(FrameChordModel(144, sizes, 24), FeatureSettings(), 16)
    onsets = chord_conditions.KeptOnsets(np.zeros(100))
    analysis = Analysis([np.zeros((20, 144), np.float32)], onsets, 1.8)
    assert chord_robustness.predicted(recognizer, analysis)[-1].end == pytest.approx(1.8, abs=0.1)


def test_the_table_has_differences_from_clean():
    scores = dict.fromkeys(chord_robustness.SHOWN, 0.9)
    rows = {"clean": scores, "telephone band": scores | {"root": 0.85}, "guitar-chords": scores}
    lines = chord_robustness.table({"runs/a": rows, "runs/b": rows}).splitlines()
    assert lines[3].split() == ["telephone", "band", *2 * ["0.850-0.050", *4 * ["0.900+0.000"]]]
    assert lines[4].split() == ["guitar-chords", *10 * ["0.900"]]
