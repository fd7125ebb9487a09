"""What `chord_robustness.py` does to songs: drums, a sung line, speech, rooms, noise, codecs.

Nothing here is shared with the augmentation of training, so a model cannot have learned it. Audio
is mono float32 (samples,); all that is random comes from a generator.
"""

import io
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr
from scipy import fft, signal

Note = tuple[float, float, int, int]  # start and duration in seconds, MIDI pitch, velocity

PEAK = 0.5  # of all conditions, as of rendered songs
SILENT = -50.0  # dB below the loudest 50 ms


def level(audio: np.ndarray) -> float:
    """RMS over the part that is not silent: the pieces of 1024 samples less than 50 dB below the
    loudest; 0 for silence."""
    pieces = np.pad(audio, (0, -len(audio) % 1024)).reshape(-1, 1024).astype(np.float64)
    powers = np.mean(pieces**2, axis=1)
    loud = powers > powers.max() * 10 ** (SILENT / 10)
    return float(np.sqrt(powers[loud].mean())) if loud.any() else 0.0


def mix(music: np.ndarray, *others: tuple[np.ndarray, float]) -> np.ndarray:
    """Music and other sounds of the same length, each with an SNR: `level` of the music alone above
    that of the sound, in dB."""
    mixed = music.copy()
    for sound, snr in others:
        gain = level(music) / max(level(sound), 1e-9) * 10 ** (-snr / 20)
        mixed += np.float32(gain) * sound
    return at_peak(mixed)


def at_peak(audio: np.ndarray) -> np.ndarray:
    """The same audio with a peak of PEAK."""
    return (audio * (PEAK / max(np.abs(audio).max(), 1e-9))).astype(np.float32)


def _place(target: np.ndarray, onset: int, sound: np.ndarray) -> None:
    """Add a sound from `onset` on, up to the end of the target."""
    room = target[onset : onset + len(sound)]
    room += sound[: len(room)]


# ---- speech

WORDS = (
    "river window seven morning turn over again never listen money table yellow question street "
    "follow nobody remember system eleven quickly garden brother talking simple future because "
    "engine story open water between letter always kitchen number twenty doctor paper summer right "
    "people happen broken change whisper mountain station bottle thunder pocket ladder velvet "
    "business travel mirror silence basket corner hundred picture before market honest ticket "
    "shadow reason finger carpet winter copper second candle little bridge ocean rocket pepper"
).split()
LANGUAGES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
VARIANTS = ("m1", "m2", "m3", "m5", "m7", "f1", "f2", "f3", "f4", "f5", "croak", "whisper")


def require_espeak() -> None:
    """ValueError, one line, where espeak-ng is missing."""
    if shutil.which("espeak-ng") is None:
        raise ValueError(
            "espeak-ng speaks over the songs and is not installed: apt-get install espeak-ng, or "
            "brew install espeak-ng"
        )


def speech(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) of people who speak in turns, by espeak-ng, at 130 to 280 words a minute."""
    spoken = np.zeros(samples, np.float32)
    position = 0
    while position < samples:
        turn = _speak(_text(rng), rate, rng)
        _place(spoken, position, turn / max(level(turn), 1e-9))
        position += len(turn) + int(rng.uniform(0.0, 0.5) * rate)
    return spoken


def _text(rng: np.random.Generator) -> str:
    sentences = (
        " ".join(rng.choice(WORDS, rng.integers(4, 13))) for _ in range(rng.integers(2, 5))
    )
    return " ".join(sentence + str(rng.choice([".", ",", "?", "!"])) for sentence in sentences)


def _speak(text: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    require_espeak()
    voice = f"{rng.choice(LANGUAGES)}+{rng.choice(VARIANTS)}"
    speed, pitch = rng.integers(130, 281), rng.integers(20, 81)
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    # The header of a stream has no length, so it is not read as a file.
    native = int.from_bytes(wav[24:28], "little")
    return soxr.resample(np.frombuffer(wav[44:], "<i2") / np.float32(32768), native, rate)


# ---- drums

# Sixteenths of a bar of four beats: kick, snare and hi-hat.
PATTERNS = (
    ("x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    ("x..x......x.....", "....x.......x..x", "xxxxxxxxxxxxxxxx"),
    ("x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    ("x.......x.x.....", "........x.......", "x...x.x.x...x.x."),
    ("x.x....x..x....x", "....x..x.x..x...", "x.xxx.x.x.xxx.xx"),
)
FILL = ("x.......x...x...", "....x.xxx.xxxxxx", "x.x.x...........")


def drums(samples: int, rate: int, beats: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(samples,) of a drum kit on `beats` (n, 2): seconds, and the number of the beat in its bar.

    One pattern is played for a song, every eighth bar a fill. Each hit is synthesised anew.
    """
    played = np.zeros(samples, np.float32)
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    hits = (_kick(rate, rng), _snare(rate, rng), _hat(rate, rng))
    bar = 0
    following = np.append(beats[1:, 0], 2 * beats[-1, 0] - beats[-2, 0])
    for (start, number), end in zip(beats, following, strict=True):
        bar += number == 0
        for sixteenth in range(4):
            step = (4 * int(number) + sixteenth) % 16
            time = max(0.0, start + (end - start) * sixteenth / 4 + rng.normal(0, 0.004))
            for steps, hit in zip(FILL if bar % 8 == 0 else pattern, hits, strict=True):
                if steps[step] == "x":
                    _place(played, int(time * rate), hit * np.float32(rng.uniform(0.6, 1.0)))
    return played


def _kick(rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.35 * rate)) / rate
    low, fall = rng.uniform(42, 60), rng.uniform(0.02, 0.05)
    phase = 2 * np.pi * (low * time + 90 * fall * (1 - np.exp(-time / fall)))
    click = rng.normal(size=len(time)) * np.exp(-time / 0.003)
    return (np.sin(phase) * np.exp(-time / rng.uniform(0.06, 0.12)) + 0.2 * click).astype("f4")


def _snare(rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.3 * rate)) / rate
    skin = sum(np.sin(2 * np.pi * f * time) for f in (rng.uniform(165, 215), rng.uniform(300, 360)))
    band = signal.butter(2, (900, min(9000, 0.45 * rate)), "bandpass", fs=rate, output="sos")
    wires = signal.sosfilt(band, rng.normal(size=len(time))) * np.exp(-time / 0.07)
    return (0.4 * skin * np.exp(-time / 0.05) + 0.9 * wires).astype("f4")


def _hat(rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.12 * rate)) / rate
    metal = sum(np.sign(np.sin(2 * np.pi * f * time)) for f in rng.uniform(3100, 6900, 5)) / 5
    high = signal.butter(2, 5500, "highpass", fs=rate, output="sos")
    sound = signal.sosfilt(high, metal + rng.normal(size=len(time)))
    return (0.25 * sound * np.exp(-time / rng.uniform(0.015, 0.04))).astype("f4")


# ---- a sung line

FORMANTS = {  # Hz of the first three, of sung vowels
    "a": (730, 1150, 2500),
    "e": (450, 1900, 2550),
    "i": (300, 2200, 2900),
    "o": (450, 850, 2450),
    "u": (330, 750, 2300),
}
OFF_CENTS = 30.0  # by which a note is off at most, besides vibrato and glides


def sing(
    notes: Sequence[Note], samples: int, rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(samples,) of the upper line of `notes` sung on vowels, and its pitch (samples,) in MIDI
    numbers.

    It glides from note to note, begins phrases below, has vibrato, and each note is off by up to
    30 cents.
    """
    pitch, gate, onset, vowels = _line(_upper(notes), samples, rate, rng)
    glide = np.exp(-1 / (rng.uniform(0.03, 0.06) * rate))
    pitch = signal.lfilter([1 - glide], [1, -glide], pitch, zi=[glide * pitch[0]])[0]
    vibrato = rng.uniform(10, 35) / 100 * np.clip((onset - 0.2) / 0.3, 0, 1)  # semitones
    pitch += vibrato * np.sin(2 * np.pi * rng.uniform(4.8, 6.2) * np.arange(samples) / rate)
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    source = _harmonics(hertz, rate) + 0.02 * rng.normal(size=samples)
    smooth = np.exp(-1 / (0.015 * rate))
    source *= signal.lfilter([1 - smooth], [1, -smooth], gate)
    sung = np.zeros(samples, np.float32)
    for number, formants in enumerate(FORMANTS.values()):
        part = source * signal.lfilter([1 - smooth], [1, -smooth], vowels == number)
        for formant, width in zip(formants, (80, 110, 160), strict=True):
            peak = signal.iirpeak(formant, formant / width, fs=rate)
            sung += signal.lfilter(*peak, part).astype(np.float32)
    return sung, pitch


def _upper(notes: Sequence[Note]) -> list[tuple[float, float, int]]:
    """(start, end, pitch) of one voice: the highest of notes that begin together."""
    line: list[tuple[float, float, int]] = []
    for start, length, pitch, _ in sorted(notes, key=lambda note: (note[0], -note[2])):
        if line and start - line[-1][0] < 0.03:
            continue
        if line:
            line[-1] = (line[-1][0], min(line[-1][1], start), line[-1][2])
        line.append((start, start + length, pitch))
    return line


def _line(
    line: Sequence[tuple[float, float, int]], samples: int, rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Of each sample (samples,): pitch in steps, whether it sounds, seconds since its note began,
    number of its vowel."""
    pitch, gate = np.full(samples, 60.0), np.zeros(samples, np.float32)
    onset, vowels = np.zeros(samples, np.float32), np.zeros(samples, np.int8)
    before = 0.0
    for start, end, midi in line:
        first, last = int(start * rate), min(int(end * rate), samples)
        if last <= first:
            continue
        sung_pitch = midi + rng.uniform(-OFF_CENTS, OFF_CENTS) / 100
        pitch[first:] = sung_pitch  # held over rests, so that the next note glides from it
        if start - before > 0.3 or rng.random() < 0.2:
            pitch[first : first + int(0.07 * rate)] -= rng.uniform(0.5, 2.0)
        gate[first:last] = rng.uniform(0.6, 1.0)
        if rng.random() < 0.6:  # a consonant
            gate[first : first + int(0.03 * rate)] = 0
        onset[first:last] = np.arange(last - first) / rate
        vowels[first:last] = rng.integers(len(FORMANTS))
        before = end
    return pitch, gate, onset, vowels


def _harmonics(hertz: np.ndarray, rate: int, slope: float = 0.82) -> np.ndarray:
    """All harmonics below 0.45 `rate` of a changing pitch (samples,) in Hz, the k-th with amplitude
    `slope`**k, by the sum of their geometric series."""
    phase = np.cumsum(2 * np.pi * hertz / rate) % (2 * np.pi)
    count = np.clip(np.floor(0.45 * rate / hertz), 1, 40)
    beyond = slope ** (count + 1)
    above = beyond * (np.sin((count + 1) * phase) - slope * np.sin(count * phase))
    return (slope * np.sin(phase) - above) / (1 + slope**2 - 2 * slope * np.cos(phase))


# ---- rooms

SOUND_SPEED = 343.0  # m/s
IMAGES = 3  # reflections on the walls of an axis at most


def room(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Audio in a room of RT60 1 to 2 s; the direct sound is not delayed."""
    response = room_response(rate, rng.uniform(1.0, 2.0), rng.uniform(-3.0, 3.0), rng)
    return at_peak(signal.oaconvolve(audio, response)[: len(audio)])


def room_response(
    rate: int, rt60: float, direct_decibels: float, rng: np.random.Generator
) -> np.ndarray:
    """Impulse response of a box, its direct sound at sample 0, `direct_decibels` above the rest.

    Image sources give the reflections of the first 50 ms; then noise decays by 60 dB in `rt60`
    seconds, in half of that above 3 kHz.
    """
    size = rng.uniform((4, 4, 2.5), (14, 10, 5))
    source, microphone = size * rng.uniform(0.2, 0.8, 3), size * rng.uniform(0.2, 0.8, 3)
    orders = np.stack(np.meshgrid(*[np.arange(-IMAGES, IMAGES + 1)] * 3), -1).reshape(-1, 3)
    images = np.where(orders % 2, (orders + 1) * size - source, orders * size + source)
    distances = np.linalg.norm(images - microphone, axis=1)
    direct = np.linalg.norm(source - microphone)
    delays = (distances - direct) / SOUND_SPEED  # seconds
    reflections = np.abs(orders).sum(axis=1)
    gains = 0.9**reflections * direct / distances
    response = np.zeros(int(rt60 * rate))
    early = (reflections > 0) & (delays < 0.05)
    np.add.at(response, (delays[early] * rate).astype(int), gains[early])
    tail = _tail(len(response), rate, rt60, rng)
    tail[: int(0.02 * rate)] = 0
    response += tail * np.sqrt((response**2).sum() / (tail[: int(0.3 * rate)] ** 2).sum())
    response *= 10 ** (-direct_decibels / 20) / np.sqrt((response**2).sum())
    response[0] += 1
    return response


def _tail(samples: int, rate: int, rt60: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(samples) / rate
    low = signal.butter(2, 3000, fs=rate, output="sos")
    noise = rng.normal(size=samples)
    dull = signal.sosfilt(low, noise)
    return dull * 10 ** (-3 * time / rt60) + (noise - dull) * 10 ** (-6 * time / rt60)


# ---- noise, codecs, telephone


def white_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) with equal power in equal bands."""
    return rng.normal(size=samples).astype(np.float32)


def pink_noise(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) with equal power in each octave above 20 Hz."""
    size = fft.next_fast_len(samples, real=True)
    hertz = fft.rfftfreq(size, 1 / rate)
    spectrum = fft.rfft(rng.normal(size=size).astype(np.float32))
    spectrum *= np.where(hertz >= 20, 1 / np.sqrt(np.maximum(hertz, 20)), 0)
    return fft.irfft(spectrum, size)[:samples].astype(np.float32)


MP3_RATE = 44100
MP3_BITRATES = (320, 32)  # kbit/s of compression levels 0 and 1 at that rate


def mp3(audio: np.ndarray, rate: int, kilobits: float = 48) -> np.ndarray:
    """Audio after LAME at a constant bit rate, at 44.1 kHz, without the delay of the codec."""
    most, least = MP3_BITRATES
    file = io.BytesIO()
    soundfile.write(
        file,
        soxr.resample(audio, rate, MP3_RATE),
        MP3_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=(most - kilobits) / (most - least),
    )
    file.seek(0)
    decoded = soxr.resample(soundfile.read(file, dtype="float32")[0], MP3_RATE, rate)
    return at_peak(_aligned(decoded, audio))


def _aligned(delayed: np.ndarray, audio: np.ndarray, longest: int = 4096) -> np.ndarray:
    """A delayed copy (by up to `longest` samples) moved to where `audio` is, as long as it."""
    loudest = int(np.argmax(np.abs(audio)))
    first = max(0, min(loudest - (1 << 15), len(audio) - (1 << 16)))
    piece = audio[first : first + (1 << 16)]
    padded = np.pad(delayed, (longest, max(0, len(audio) - len(delayed)) + longest))
    around = padded[first : first + len(piece) + 2 * longest]
    lag = int(np.argmax(signal.correlate(around, piece, "valid")))
    return padded[lag : lag + len(audio)]


def telephone(audio: np.ndarray, rate: int) -> np.ndarray:
    """Audio in the band of a telephone, 300 to 3400 Hz."""
    band = signal.butter(4, (300, 3400), "bandpass", fs=rate, output="sos")
    return at_peak(signal.sosfilt(band, audio))
