"""Degraded copies of songs, as the recordings are that people have: speech or a voice that glides
over the music, drums, rooms, noise, clipping, a telephone's band, MP3.

What is added follows the beat that chord labels suggest, in half of the copies.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import soundfile as sf
from scipy.signal import butter, lfilter, sosfilt

from audiotrain.datasets.synthesis import arrangement, speech
from audiotrain.datasets.synthesis.render import render
from audiotrain.datasets.synthesis.soundfont import SoundFont, general_midi
from audiotrain.features import augment
from audiotrain.music.chord_classes import chord_pitch_classes, encode
from audiotrain.music.segments import Segment

VERSION = 2  # raise it when the same seed gives another sound
MAXIMUM_TUNING = 40.0  # cents
TOGETHER = 0.3  # share of copies with drums, speech and a room at once
CONTROL_RATE = 100  # Hz, of a voice's pitch
MP3_DELAY = 1105  # samples of silence that a decoder adds where the file does not state them
VOWELS = ((750, 1150, 2500), (500, 1750, 2450), (320, 2200, 2900), (450, 850, 2500))  # Hz
Clips = Callable[[int], np.ndarray]


class Degrader:
    """Degrades songs at `rate` Hz; `clips` gives speech (see speech.cached_clips)."""

    def __init__(self, rate: int, clips: Clips, soundfonts: Sequence[SoundFont] = ()):
        self.rate, self.clips, self.soundfonts = rate, clips, soundfonts

    def __call__(
        self, audio: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
    ) -> np.ndarray:
        """A degraded copy of mono samples with these chords: as long, peak 0.5; silence stays."""
        if not audio.any():
            return np.asarray(audio, np.float32)
        rate, together = self.rate, rng.random() < TOGETHER

        def some(share: float, shared: float = 0.0) -> bool:
            """Whether this copy has something: `shared` is the chance where much is together."""
            return bool(rng.random() < (shared if together else share))

        room_is_last, has_room = rng.random() < (0.9 if together else 0.5), some(0.35, 0.9)
        if some(0.3, 0.9):
            audio = mixed(audio, self.drums(audio, segments, rng), rng.uniform(0, 15))
        if some(0.25, 0.3):
            audio = mixed(audio, sung(len(audio), rate, segments, rng), rng.uniform(-3, 9))
        if has_room and not room_is_last:
            audio = augment.reverberate(audio, rng, rate, 2.0, 3.0)
        if some(0.45, 0.9):
            snr = rng.uniform(-7, 1) if some(0.6, 0.3) else rng.uniform(1, 10)
            audio = mixed(audio, self.speech(len(audio), segments, rng), snr)
        if some(0.5, 0.8):
            audio = augment.equalise(audio, rng, rate, decibels=8.0)
        if has_room and room_is_last:
            audio = augment.reverberate(audio, rng, rate, 2.0, 3.0)
        if some(0.15, 0.2):
            audio = augment.saturate(audio, rng, drive_decibels=24.0)
        if some(0.4, 0.5):
            audio = augment.add_noise(audio, rng, lowest_snr=4.0, highest_snr=25.0)
        if some(0.15, 0.15):
            audio = clipped(audio, rng.uniform(0.9, 0.995))
        if some(0.12, 0.1):
            audio = telephone(audio, rate, rng)
        if some(0.1, 0.2):
            audio = through_mp3(audio, rate, rng.uniform(0.55, 0.75))
        return np.asarray(audio * (0.5 / np.abs(audio).max()), np.float32)

    def drums(
        self, audio: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
    ) -> np.ndarray:
        """A drum kit in the beat of the chords."""
        start, beat = (segments[0].start if segments else 0.0), beat_of(segments, rng)
        part = arrangement.drum_part(rng, start, len(audio) / self.rate, beat)
        fonts = [general_midi(), *[font for font in self.soundfonts if font.has(0, True)]]
        return render([part], self.rate, 0.0, [fonts[int(rng.integers(len(fonts)))]])

    def speech(
        self, samples: int, segments: Sequence[Segment], rng: np.random.Generator
    ) -> np.ndarray:
        """One or two speakers, who pause, or begin phrases on half beats and hardly pause."""
        track = np.zeros(samples, np.float32)
        voices = rng.integers(len(speech.VOICES), size=int(rng.integers(1, 3)))
        in_time, beat = rng.random() < 0.5, beat_of(segments, rng)
        longest_pause = 0.5 if in_time else rng.uniform(0.5, 3.0)  # seconds
        time = rng.uniform(0, 3)
        while time * self.rate < samples:
            number = int(rng.integers(speech.CLIPS)) * len(speech.VOICES) + int(rng.choice(voices))
            spoken = np.asarray(self.clips(number), np.float32)
            if in_time:
                time = np.ceil(time / (beat / 2)) * beat / 2
            target = track[int(time * self.rate) :][: len(spoken)]
            target += spoken[: len(target)] * rng.uniform(0.7, 1.0)
            time += len(spoken) / self.rate + rng.uniform(0, longest_pause)
        return track


def beat_of(segments: Sequence[Segment], rng: np.random.Generator) -> float:
    """Seconds of a beat that chord labels suggest, .35 to .7: their median length, halved or
    doubled; at random without labels."""
    lengths = [s.end - s.start for s in segments if s.end > s.start]
    beat = float(np.median(lengths)) if lengths else float(rng.uniform(0.35, 0.7))
    while beat > 0.7:
        beat /= 2
    while beat < 0.35:
        beat *= 2
    return beat


def mixed(audio: np.ndarray, added: np.ndarray, snr: float) -> np.ndarray:
    """Audio with another sound over it, whose RMS level, where it sounds, is `snr` dB below."""
    sounding = np.abs(added) > 1e-3 * float(np.abs(added).max(initial=0.0))
    level, wanted = augment.rms(added[sounding]), augment.rms(audio)
    if not level or not wanted:
        return audio
    result = audio.astype(np.float32, copy=True)
    added = added[: len(audio)] * np.float32(wanted / augment.decibels_to_ratio(snr) / level)
    result[: len(added)] += added
    return result


def sung(
    samples: int, rate: int, segments: Sequence[Segment], rng: np.random.Generator
) -> np.ndarray:
    """(samples,) of a voice that sings chord notes, glides between them, up to 30 cents off."""
    steps = max(2, samples * CONTROL_RATE // rate + 1)
    pitch, loud = _melody(steps, segments, rng)
    time = np.arange(steps) / CONTROL_RATE
    glide = np.exp(-1 / (CONTROL_RATE * rng.uniform(0.02, 0.09)))  # by time constant in seconds
    pitch = lfilter([1 - glide], [1, -glide], pitch, zi=[glide * pitch[0]])[0]
    pitch += rng.uniform(0, 0.5) * np.sin(2 * np.pi * (rng.uniform(4.5, 6.5) * time + rng.random()))
    loud = np.convolve(loud, np.hanning(9) / np.hanning(9).sum(), "same")
    positions = np.arange(samples) * (CONTROL_RATE / rate)
    cycles = (
        np.cumsum(np.interp(positions, np.arange(steps), 440 * 2 ** ((pitch - 69) / 12))) / rate
    )
    table_size, harmonics = 4096, np.arange(1, 20)
    angles = 2 * np.pi * np.arange(table_size)[:, None] * harmonics / table_size
    table = (np.sin(angles) * harmonics ** -rng.uniform(0.8, 1.4)).sum(axis=1).astype(np.float32)
    source = table[((cycles % 1) * table_size).astype(np.int64)]
    source *= np.interp(positions, np.arange(steps), loud).astype(np.float32)
    chosen = rng.choice(len(VOWELS), 2, replace=False)
    first, second = (_vowel(source, rate, VOWELS[number]) for number in chosen)
    share = np.repeat(rng.random(steps // 30 + 2), 30)[:steps]  # another mixture each .3 s
    share = np.interp(positions, np.arange(steps), np.convolve(share, np.ones(9) / 9, "same"))
    return (first * share + second * (1 - share)).astype(np.float32)


def _melody(
    steps: int, segments: Sequence[Segment], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """MIDI pitches and loudnesses (steps,) of a line through the chords: phrases of notes of half
    a beat to two beats, mostly tones of the chord, near the note before."""
    centre, beat = rng.uniform(50, 72), beat_of(segments, rng)
    pitch, loud, last = np.full(steps, centre), np.zeros(steps), centre
    for segment in segments:
        chord = encode(segment.label)
        if chord.root < 0:
            continue
        tones = [(chord.root + interval) % 12 for interval in chord_pitch_classes(chord.chord_type)]
        time = segment.start
        while time < segment.end:
            length = beat * float(rng.choice([0.5, 0.5, 1, 1, 2]))
            near = 0.6 * last + 0.4 * centre + rng.uniform(-5, 5)
            tone = int(rng.choice(tones)) + int(rng.choice([0, 0, 0, 0, 0, 0, -2, -1, 1, 2]))
            last = near + (tone - near + 6) % 12 - 6 + rng.uniform(-0.3, 0.3)
            begin, end = (int(t * CONTROL_RATE) for t in (time, min(time + length, segment.end)))
            pitch[begin:] = last
            loud[begin : max(begin, end - 3)] = rng.uniform(0.5, 1.0) if rng.random() < 0.8 else 0.0
            time += length
    return pitch, loud


def _vowel(source: np.ndarray, rate: int, formants: Sequence[float]) -> np.ndarray:
    """The source through resonances at the formants, each weaker than the one before."""
    result = np.zeros_like(source)
    for number, frequency in enumerate(formants):
        bandwidth = 60 + 0.06 * frequency
        edges = [frequency - bandwidth, frequency + bandwidth]
        band = butter(1, edges, "bandpass", fs=rate, output="sos").astype(np.float32)
        result += sosfilt(band, source).astype(np.float32) * np.float32(0.6**number)
    return result


def clipped(audio: np.ndarray, share: float) -> np.ndarray:
    """Audio limited at the level that this share of its samples keeps."""
    level = float(np.quantile(np.abs(audio[::7]), share)) if len(audio) else 0.0
    return np.clip(audio, -level, level) if level else audio


def telephone(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Audio through a telephone or a small radio: about 300 to 3400 Hz."""
    edges = [rng.uniform(180, 400), rng.uniform(2800, 4200)]
    return sosfilt(butter(2, edges, "bandpass", fs=rate, output="sos"), audio).astype(np.float32)


def through_mp3(audio: np.ndarray, rate: int, compression: float) -> np.ndarray:
    """Audio encoded as MP3 and decoded; `compression` .5 is about 80 kbit/s at 22050 Hz, .75 is 48.
    Unchanged where libsndfile has no MP3 encoder."""
    if "MP3" not in sf.available_formats():
        return audio
    file = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": compression}
    loudest = max(1.0, float(np.abs(audio).max(initial=0.0)))
    sf.write(file, audio / loudest, rate, format="MP3", subtype="MPEG_LAYER_III", **options)
    file.seek(0)
    decoded = sf.read(file, dtype="float32")[0]
    if len(decoded) > len(audio):  # low bit rates have no header that states the delay
        decoded = decoded[MP3_DELAY:][: len(audio)]
    result = np.zeros(len(audio), np.float32)
    result[: len(decoded)] = decoded * loudest
    return result
