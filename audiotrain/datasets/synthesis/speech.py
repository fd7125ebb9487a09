"""Speech to put over music: sentences of random words by the program flite, in several voices."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from audiotrain.features.cache import FeatureCache
from audiotrain.utils.errors import UserError

VERSION = 1  # raise it when the same number gives another clip
VOICES = ("slt", "rms", "awb", "kal16", "kal")
CLIPS = 40  # of each voice
WORDS = (
    "a about after again air all always and any are around away back be because been before "
    "believe better between big black blue body born break bring burn by call came can care "
    "chance change child city clear close cold come could cry dance dark day dead deep did do "
    "door down dream drive drop each early easy end even ever every eye face fall far fast "
    "father fear feel fight find fire first fly follow for free friend from full game gave "
    "get girl give go gold gone good got great ground had hand hard has have he head hear "
    "heart here high him hold home hope house how hundred if in into is it just keep kind "
    "king know last late learn leave left less let life light like listen little live long "
    "look lose lost love made make man many may me mean mind minute moment money month more "
    "morning most mother move much music must my name near need never new next night no "
    "nothing now number of off old on once one only open or other our out over own pain paper "
    "part people place play point power quick quiet rain reach read real red rest right river "
    "road rock roll room round run said same say scene school sea see seven she should show "
    "side sign sing six sky sleep slow small so some song soon soul sound star start stay "
    "still stop story street strong summer sun sure take talk tell ten than that the their "
    "them then there they thing think thirty this thousand through till time to today "
    "together told tomorrow too top touch town true try turn twenty two under until up us "
    "very voice wait walk wall want war was watch water way we week well went were what when "
    "where which while white who whole why will wind window winter wish with without woman "
    "word work world would write wrong year yes you young "
).split()


def require_flite() -> str:
    """The path of the program. ValueError, one line, where it is not installed."""
    program = shutil.which("flite")
    if program is None:
        raise UserError(
            "speech over the music is made by the program flite, which is not installed; "
            "`apt install flite` or `brew install flite` does"
        )
    return program


def clip(number: int, rate: int) -> np.ndarray:
    """The `number`-th clip: (samples,) float32 at `rate` Hz with peak 1, of VOICES[number % 5].

    One to three sentences at .55 to 1.1 of the voice's usual length for each word, in a random
    pitch; the waveform is then played up to a fifth slower or faster, which moves its formants.
    """
    rng = np.random.default_rng([VERSION, number])
    text = ". ".join(
        " ".join(rng.choice(WORDS, int(rng.integers(5, 16)))) for _ in range(rng.integers(1, 4))
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        options = {
            "duration_stretch": rng.uniform(0.55, 1.1),
            "int_f0_target_mean": rng.uniform(85, 210),
            "int_f0_target_stddev": rng.uniform(5, 30),
        }
        settings = [part for name in options for part in ("--setf", f"{name}={options[name]:.3f}")]
        voice = VOICES[number % len(VOICES)]
        command = [require_flite(), "-voice", voice, *settings, "-t", text, "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        samples, spoken_rate = sf.read(path, dtype="float32")
    speed = rng.uniform(0.85, 1.2)
    samples = soxr.resample(samples, spoken_rate * speed, rate)
    return samples / max(float(np.abs(samples).max()), 1e-6)


def cached_clips(cache: FeatureCache, rate: int) -> Callable[[int], np.ndarray]:
    """A function that returns the clip of a number; each is spoken once."""

    def read(number: int) -> np.ndarray:
        key = {"speech": VERSION, "rate": rate}
        return cache.get(f"speech {number}", key, lambda: clip(number, rate))

    return read
