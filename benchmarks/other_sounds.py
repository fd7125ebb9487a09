"""Recordings without chords for `chord_no_music.py`: speech, applause, drums alone, noise, real
environmental sounds; and music with few notes at once, which keeps its chords.

Each kind has two parts, "valid" to choose by and "test" to report on, which have no voice, drum kit
or clip in common. Audio is mono float32 (samples,).
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import degradations
import numpy as np
import soundfile
import soxr
from scipy import signal

from audiotrain.datasets import classes
from audiotrain.datasets.synthesis import arrangement, midi, render, sound_events
from audiotrain.datasets.synthesis.soundfont import SoundFont, general_midi
from audiotrain.features import audio as audio_files

SECONDS = 45.0
TAKES = 4  # of each voice, kit and kind of noise
FLITE = {"valid": ("slt", "awb", "kal"), "test": ("rms", "kal16")}
ESPEAK = {  # languages, whose letters are read aloud with their rules, and variants
    "valid": (("en-us", "en-gb-scotland"), ("m1", "m3", "f1", "f3", "croak")),
    "test": (("en-gb", "de", "fr", "es"), ("m2", "m5", "m7", "f2", "f4", "whisper")),
}
FOLDS = {"valid": ("1", "2"), "test": ("3", "5")}  # of ESC-10
Sounds = Iterator[np.ndarray]


def sounds(part: str, rate: int, data: Path, soundfont: Path) -> dict[str, Sounds]:
    """The recordings of each kind in a part, "valid" or "test". ValueError, one line, where a
    program is not installed."""
    return {
        "speech, flite": flite(part, rate),
        "speech, espeak-ng": espeak(part, rate),
        "speech in a room": in_rooms(espeak(part, rate), part, rate),
        "applause": applause(part, rate),
        "drums alone": drums(part, rate, soundfont),
        "pink and white noise": noise(part, rate),
        "ESC-10": environment(part, rate, data / "esc10"),
    }


def few_notes(part: str, rate: int, data: Path, songs: list[str]) -> dict[str, Sounds]:
    """Music with few notes at once, by MIDI songs of POP909: their piano alone, loud and 40 dB
    softer, their melody sung and on a flute, and a bass line alone."""
    paths = [data / "pop909" / name for name in songs]
    return {
        "piano alone": (piano(path, rate) for path in paths),
        "piano, 40 dB softer": (0.01 * piano(path, rate) for path in paths),
        "melody sung alone": (sung(path, rate, part) for path in paths),
        "melody on a flute alone": (line(path, rate, 73) for path in paths),
        "bass alone": (line(path, rate, 33) for path in paths),
    }


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng([*" ".join(map(str, words)).encode()])


def _text(rng: np.random.Generator) -> str:
    words = degradations.WORDS
    sentences = [" ".join(rng.choice(words, rng.integers(4, 13))) for _ in range(20)]
    return ". ".join(sentences)


def flite(part: str, rate: int) -> Sounds:
    """Speech by flite at its own speed and pitch."""
    if (program := shutil.which("flite")) is None:
        raise ValueError("flite is not installed: apt-get install flite")
    for voice in FLITE[part]:
        for take in range(TAKES):
            text = _text(_rng("flite", voice, take))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "speech.wav"
                words = [program, "-voice", voice, "-t", text, "-o", str(path)]
                subprocess.run(words, check=True, capture_output=True)
                spoken, native = soundfile.read(path, dtype="float32")
            yield degradations.at_peak(soxr.resample(spoken, native, rate)[: int(SECONDS * rate)])


def espeak(part: str, rate: int) -> Sounds:
    """Speech by espeak-ng at several speeds and pitches."""
    degradations.require_espeak()
    languages, variants = ESPEAK[part]
    for number in range(TAKES * len(languages)):
        rng = _rng("espeak", part, number)
        voice = f"{languages[number % len(languages)]}+{rng.choice(variants)}"
        speed, pitch = rng.integers(120, 220), rng.integers(20, 81)
        words = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout"]
        wav = subprocess.run([*words, _text(rng)], check=True, capture_output=True).stdout
        native = int.from_bytes(wav[24:28], "little")  # a stream's header has no length
        spoken = np.frombuffer(wav[44:], "<i2") / np.float32(32768)
        yield degradations.at_peak(soxr.resample(spoken, native, rate)[: int(SECONDS * rate)])


def in_rooms(recordings: Sounds, part: str, rate: int) -> Sounds:
    """The same in rooms of RT60 1 to 2 s."""
    for number, recording in enumerate(recordings):
        yield degradations.room(recording, rate, _rng("room", part, number))


def applause(part: str, rate: int) -> Sounds:
    """Valid: audiotrain's sound event again and again. Test: people who clap, each at a rate and
    with a resonance of the hands of their own, in a room."""
    for take in range(2 * TAKES):
        rng = _rng("applause", part, take)
        samples = int(SECONDS * rate)
        if part == "valid":
            canvas = sound_events.Canvas(rng, rate, SECONDS, 1.0, rng.uniform(40, 300))
            sound = sound_events.KINDS["applause"].sound(canvas)
        else:
            sound = sum(_clapper(rate, samples, rng) for _ in range(rng.integers(5, 60)))
            sound = degradations.room(sound.astype(np.float32), rate, rng)
        yield degradations.at_peak(np.asarray(sound, np.float32)[:samples])


def _clapper(rate: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    sound = np.zeros(samples)
    pace, level, hertz = rng.uniform(2.5, 5.5), rng.uniform(0.2, 1.0), rng.uniform(500, 2500)
    hands = signal.iirpeak(hertz, rng.uniform(1.0, 2.5), fs=rate)
    time = rng.uniform(0, 1)
    while time < samples / rate:
        burst = rng.normal(size=int(0.03 * rate)) * np.exp(
            -np.arange(int(0.03 * rate)) / rate / 0.005
        )
        piece = sound[int(time * rate) :][: len(burst)]
        piece += level * signal.lfilter(*hands, burst)[: len(piece)]
        time += rng.normal(1.0, 0.06) / pace
    return sound


def drums(part: str, rate: int, soundfont: Path) -> Sounds:
    """Valid: arranged parts by the soundfont of training. Test: another soundfont, and kits by
    synthesis."""
    for take in range(2 * TAKES):
        rng = _rng("drums", part, take)
        beat = rng.uniform(0.35, 0.7)
        if part == "test" and take % 2:
            times = np.arange(0, SECONDS, beat)
            beats = np.stack([times, np.arange(len(times)) % 4], axis=1)
            yield degradations.at_peak(degradations.drums(int(SECONDS * rate), rate, beats, rng))
            continue
        font = general_midi() if part == "valid" else SoundFont(soundfont)
        yield render.render([arrangement.drum_part(rng, 0.0, SECONDS, beat)], rate, 0.0, [font])


def noise(part: str, rate: int) -> Sounds:
    """Pink and white noise."""
    for take in range(TAKES):
        rng, samples = _rng("noise", part, take), int(SECONDS * rate)
        pink, white = degradations.pink_noise(samples, rate, rng), degradations.white_noise
        yield degradations.at_peak(pink if take % 2 else white(samples, rng))


def environment(part: str, rate: int, folder: Path) -> Sounds:
    """The clips of two folds of ESC-10."""
    for clip in classes.discover(folder).items:
        if clip.columns["fold"] in FOLDS[part]:
            yield audio_files.read(clip.audio, rate)


def piano(path: Path, rate: int) -> np.ndarray:
    """The accompaniment of a song, its third part."""
    return _played(midi.read_midi(path)[2:3], rate)


def sung(path: Path, rate: int, part: str) -> np.ndarray:
    """The melody of a song, sung alone."""
    notes = [note for note in midi.read_midi(path)[0].notes]
    first = min(note[0] for note in notes)
    notes = [(start - first, *rest) for start, *rest in notes if start - first < SECONDS]
    samples = int(SECONDS * rate)
    return degradations.at_peak(degradations.sing(notes, samples, rate, _rng("sung", path.name))[0])


def line(path: Path, rate: int, program: int) -> np.ndarray:
    """The melody of a song on an instrument alone; its lowest notes where that is a bass."""
    parts = midi.read_midi(path)
    notes = parts[0].notes
    if 32 <= program < 40:  # basses: the lowest of the notes that begin together
        lowest: dict[float, tuple] = {}
        for note in parts[2].notes:
            at = round(note[0], 2)
            lowest[at] = min(lowest.get(at, note), note, key=lambda one: one[2])
        notes = [(s, d, 28 + (p - 28) % 12, v) for s, d, p, v in lowest.values() if p < 60]
    return _played([arrangement.Part(program, notes)], rate)


def _played(parts: list[arrangement.Part], rate: int) -> np.ndarray:
    first = min(note[0] for part in parts for note in part.notes)
    parts = [
        part._replace(notes=[(n[0] - first, *n[1:]) for n in part.notes if n[0] - first < SECONDS])
        for part in parts
    ]
    return render.render(parts, rate)[: int(SECONDS * rate)]
